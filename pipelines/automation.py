"""When things run by themselves. Everything here is off until someone switches it on in the web UI.

Schedules start runs that ask the outside world; automation conditions rebuild what lies downstream of a change. A
change is a changed data version: a source that answers with the same bytes rebuilds nothing.
"""

from collections.abc import Iterator
from datetime import timedelta

import dagster as dg

from pipelines import jobs

SOURCE_FRESHNESS = dg.FreshnessPolicy.time_window(fail_window=timedelta(days=100), warn_window=timedelta(days=40))
"""The sources are asked every month: one missed month warns, three fail."""

SEARCHED_BY_REFRESH = frozenset(
    {"street_images", "image_coverage", "cell_images", "cell_coverage", "aerial_tiles", "tile_coverage", "area_tiles"}
)
"""Assets that ask a provider: rebuilt by the weekly refresh or by hand, never because something upstream moved."""


def rebuilt_when_changed() -> dg.AutomationCondition:
    """Rebuild a partition that exists when the content of something it is made from changed.

    - `any_deps_match(data_version_changed | will_be_requested)`: content, not the mere fact of a run; a whole chain is
      requested in one tick.
    - `since_last_handled`: once a change, even if the request is still in the queue.
    - `~missing`: a city nobody has ever built is not built because England published something.
    - `~any_deps_in_progress & ~in_progress`: not from inputs that are being rewritten.

    Dependencies that are missing do not matter: a city has no survey and a country no index, and what exists was made.
    """
    changed = dg.AutomationCondition.any_deps_match(
        dg.AutomationCondition.data_version_changed() | dg.AutomationCondition.will_be_requested()
    ).since_last_handled()
    return (
        changed
        & ~dg.AutomationCondition.missing()
        & ~dg.AutomationCondition.any_deps_in_progress()
        & ~dg.AutomationCondition.in_progress()
    ).with_label("rebuilt when its inputs changed")


@dg.schedule(job=jobs.refresh, cron_schedule="0 3 * * 1", default_status=dg.DefaultScheduleStatus.STOPPED)
def weekly_refresh(context: dg.ScheduleEvaluationContext) -> Iterator[dg.RunRequest | dg.SkipReason]:
    """Mondays at three: one run a city that has been built, asking its imagery provider for what is new."""
    built = sorted(context.instance.get_materialized_partitions(dg.AssetKey("street_images")))
    if not built:
        yield dg.SkipReason("no city has been built yet: materialize one first")
    week = context.scheduled_execution_time.strftime("%G-W%V")
    for city in built:
        yield dg.RunRequest(
            run_key=f"{city}-{week}",
            partition_key=city,
            run_config={"ops": {"street_images": {"config": {"search_again_after_days": 6.0}}}},
        )


monthly_sources = dg.ScheduleDefinition(
    name="monthly_sources",
    job=jobs.SOURCE_JOBS["england"],
    cron_schedule="0 2 1 * *",
    default_status=dg.DefaultScheduleStatus.STOPPED,
    description="On the first of the month: ask the publishers whether their files have changed.",
)

automation = dg.AutomationConditionSensorDefinition(
    "rebuild_what_changed",
    target=dg.AssetSelection.all(),
    default_status=dg.DefaultSensorStatus.STOPPED,
    minimum_interval_seconds=60,
)

SCHEDULES = [weekly_refresh, monthly_sources]
SENSORS = [automation]
