"""When things run by themselves, evaluated with Dagster's own helpers."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest

from pipelines.automation import rebuilt_when_changed, weekly_refresh
from pipelines.definitions import defs

# Raised inside Dagster's own evaluation helper.
pytestmark = pytest.mark.filterwarnings("ignore:Parameter `include_sources`")

CITIES = dg.StaticPartitionsDefinition(["a", "b"])


@dg.asset
def source() -> None: ...


@dg.asset(partitions_def=CITIES, deps=[source], automation_condition=rebuilt_when_changed())
def areas() -> None: ...


@dg.asset(partitions_def=CITIES, deps=[areas], automation_condition=rebuilt_when_changed())
def report() -> None: ...


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


DEFS = dg.Definitions(assets=[source, areas, report])


def made(instance: dg.DagsterInstance, asset: str, version: str, partition: str | None = None) -> None:
    event = dg.AssetMaterialization(
        asset_key=asset, partition=partition, tags={"dagster/data_version": version}, metadata={}
    )
    instance.report_runless_asset_event(event)


def requested(result: dg.EvaluateAutomationConditionsResult) -> set[tuple[str, str]]:
    return {
        (key.to_user_string(), partition)
        for key in (dg.AssetKey("areas"), dg.AssetKey("report"))
        for partition in result.get_requested_partitions(key)
        if partition
    }


def start(instance: dg.DagsterInstance) -> dg.EvaluateAutomationConditionsResult:
    made(instance, "source", "1")
    made(instance, "areas", "1", "a")
    made(instance, "report", "1", "a")
    return dg.evaluate_automation_conditions(defs=DEFS, instance=instance)


def test_a_changed_source_rebuilds_the_city_that_exists_down_to_its_report_and_no_other(
    instance: dg.DagsterInstance,
) -> None:
    first = start(instance)
    assert requested(first) == set()
    made(instance, "source", "2")
    second = dg.evaluate_automation_conditions(defs=DEFS, instance=instance, cursor=first.cursor)
    assert requested(second) == {("areas", "a"), ("report", "a")}
    third = dg.evaluate_automation_conditions(defs=DEFS, instance=instance, cursor=second.cursor)
    assert requested(third) == set()


def test_a_source_that_answers_the_same_rebuilds_nothing(instance: dg.DagsterInstance) -> None:
    first = start(instance)
    made(instance, "source", "1")
    second = dg.evaluate_automation_conditions(defs=DEFS, instance=instance, cursor=first.cursor)
    assert requested(second) == set()


def test_the_weekly_refresh_asks_for_each_city_that_was_built_once_a_week(instance: dg.DagsterInstance) -> None:
    monday = datetime(2026, 11, 16, 3, tzinfo=UTC)

    def evaluate():
        context = dg.build_schedule_context(
            instance=instance, scheduled_execution_time=monday, repository_def=defs.get_repository_def()
        )
        return weekly_refresh.evaluate_tick(context)

    assert "no city has been built" in evaluate().skip_message
    for city in ("london", "leeds"):
        made(instance, "street_images", "1", city)
    requests = evaluate().run_requests
    assert [(request.partition_key, request.run_key) for request in requests] == [
        ("leeds", "leeds-2026-W47"),
        ("london", "london-2026-W47"),
    ]
    assert requests[0].run_config["ops"]["street_images"]["config"]["search_again_after_days"] == 6.0
