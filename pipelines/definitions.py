"""The code location: every asset, check, job, schedule and resource in one place.

`build_defs` is the one way to put them together; tests and the command line pass their own settings or resources.
Nothing heavy is imported here: torch, torchvision, mlflow and folium wait for the step that needs them.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg

from assets import (
    aerial_explanation,
    aerial_maps,
    aerial_models,
    areas,
    checks,
    cluster_evaluation,
    cluster_explanation,
    cluster_maps,
    cluster_models,
    clusters,
    conurbations,
    evaluation,
    explanation,
    features,
    geolocation_evaluation,
    geolocation_models,
    imagery,
    maps,
    models,
    sources,
    street_and_sky,
    worlds,
)
from pipelines import automation, jobs
from resources.addresses import Addresses
from resources.cities import Cities
from resources.files import Files
from resources.imagery import ImagerySources
from resources.surveys import Surveys
from resources.tables import Tables
from resources.tracking import Tracking
from resources.workspace import Workspace, default_home


def build_defs(
    *,
    home: Path | None = None,
    catalogue: Path | None = None,
    resources: Mapping[str, Any] | None = None,
    loggers: Mapping[str, dg.LoggerDefinition] | None = None,
) -> dg.Definitions:
    """Return the definitions over the folder `home` and the `catalogue`; `resources` replaces resources by name."""
    assets = [
        *sources.SOURCES,
        *dg.load_assets_from_modules([areas, imagery, features, models, evaluation, explanation, maps]),
        *dg.load_assets_from_modules([clusters, cluster_models, cluster_evaluation, cluster_explanation, cluster_maps]),
        *dg.load_assets_from_modules([conurbations, aerial_models, aerial_explanation, aerial_maps, street_and_sky]),
        *dg.load_assets_from_modules([worlds, geolocation_models, geolocation_evaluation]),
    ]
    return dg.Definitions(
        assets=[_scheduled(asset) for asset in assets],
        asset_checks=checks.CHECKS,
        jobs=jobs.JOBS,
        schedules=automation.SCHEDULES,
        sensors=automation.SENSORS,
        resources={**build_resources(home=home, catalogue=catalogue), **(resources or {})},
        loggers=loggers,
        # One process a run: a process for each of twenty short steps would cost minutes of imports.
        executor=dg.in_process_executor,
    )


def build_resources(*, home: Path | None = None, catalogue: Path | None = None) -> dict[str, Any]:
    """Return the resources of every asset over the folder `home` and the `catalogue`."""
    workspace = Workspace(home=str(home or default_home()))
    addresses = Addresses()
    files = Files(addresses=addresses, workspace=workspace)
    return {
        "workspace": workspace,
        "cities": Cities(path=str(catalogue) if catalogue else None),
        "addresses": addresses,
        "imagery_sources": ImagerySources(addresses=addresses, workspace=workspace),
        "files": files,
        "surveys": Surveys(files=files, workspace=workspace),
        "tracking": Tracking(workspace=workspace),
        "io_manager": Tables(workspace=workspace),
    }


def _scheduled(asset: Any) -> Any:
    """Add what automation says of an asset; what an asset makes is for the asset, when it is made is for here."""

    def with_automation(spec: dg.AssetSpec) -> dg.AssetSpec:
        name = spec.key.to_user_string()
        if name in checks.NATIONAL:
            return spec.replace_attributes(freshness_policy=automation.SOURCE_FRESHNESS)
        if name in automation.SEARCHED_BY_REFRESH:
            return spec
        return spec.replace_attributes(automation_condition=automation.rebuilt_when_changed())

    return asset.map_asset_specs(with_automation)


defs = build_defs()
