"""The code location: it loads, its partitions are those of the catalogue, and everything automatic is off."""

import dagster as dg
import pytest

from assets.partitions import WORLD_LEVELS, WORLDS
from pipelines.definitions import build_defs, defs
from urbanprint.catalogue import read_catalogue

ASSETS = {asset.key.to_user_string(): asset for asset in defs.resolve_all_asset_specs()}


def test_everything_loads() -> None:
    dg.Definitions.validate_loadable(build_defs())


def test_places_worlds_and_levels_of_worlds_are_the_partitions() -> None:
    catalogue = read_catalogue()
    levels = [f"{world}-L{level}" for world in catalogue.worlds for level in (1, 3, 5, 8)]
    kinds = (list(catalogue.places), list(catalogue.worlds), levels)
    partitions = {spec.partitions_def for spec in ASSETS.values()}
    assert partitions == {None, *map(dg.StaticPartitionsDefinition, kinds)}


def test_a_level_is_made_from_its_world_and_a_world_from_all_its_levels() -> None:
    graph = defs.resolve_asset_graph()
    level, joined = (graph.get(dg.AssetKey(name)) for name in ("level_dataset", "geolocators"))
    down = level.partition_mappings[dg.AssetKey("image_parts")]
    up = joined.partition_mappings[dg.AssetKey("level_model")]
    ups = down.get_upstream_mapped_partitions_result_for_partitions(
        WORLD_LEVELS.subset_with_partition_keys(["planet-L5"]), WORLD_LEVELS, WORLDS
    )
    assert set(ups.partitions_subset.get_partition_keys()) == {"planet"}
    ups = up.get_upstream_mapped_partitions_result_for_partitions(
        WORLDS.subset_with_partition_keys(["planet"]), WORLDS, WORLD_LEVELS
    )
    assert set(ups.partitions_subset.get_partition_keys()) == {f"planet-L{level}" for level in (1, 3, 5, 8)}


@pytest.mark.parametrize("name", sorted(ASSETS))
def test_every_asset_has_a_group_a_description_an_owner_a_kind_and_a_code_version(name: str) -> None:
    spec = ASSETS[name]
    assert spec.group_name not in (None, "default")
    assert spec.description
    assert spec.owners
    assert spec.kinds
    assert spec.code_version


def test_national_sources_have_a_freshness_policy() -> None:
    for name in ("england_deprivation", "england_areas"):
        assert ASSETS[name].freshness_policy is not None


def test_nothing_runs_by_itself_until_it_is_switched_on() -> None:
    repository = defs.get_repository_def()
    assert {schedule.name for schedule in repository.schedule_defs} == {"weekly_refresh", "monthly_sources"}
    assert all(s.default_status == dg.DefaultScheduleStatus.STOPPED for s in repository.schedule_defs)
    assert all(s.default_status == dg.DefaultSensorStatus.STOPPED for s in repository.sensor_defs)


def test_schema_checks_block_and_are_partitioned_like_their_assets() -> None:
    specs = [spec for checks in defs.asset_checks for spec in checks.check_specs]
    assert len(specs) > 10
    for spec in specs:
        assert spec.blocking or spec.name in ("calibrated", "sane"), spec
        assert spec.partitions_def == ASSETS[spec.asset_key.to_user_string()].partitions_def
