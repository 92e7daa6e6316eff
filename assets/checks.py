"""Checks on what assets made: a failed blocking check keeps everything downstream from running.

The schema checks read the same schemas as the library. Each is partitioned like its asset: an unpartitioned check on a
partitioned asset would load every partition.
"""

import warnings
from importlib import import_module
from typing import TYPE_CHECKING

import dagster as dg

from assets.partitions import CITIES, WORLD_LEVELS, WORLDS
from assets.sources import PUBLISHERS
from resources.cities import Cities
from resources.workspace import Workspace

if TYPE_CHECKING:
    import pandas as pd

# Partitioned checks are marked as a preview in this version of Dagster; the alternative loads every city.
warnings.filterwarnings("ignore", message="Specifying a partitions_def on", category=dg.PreviewWarning)

NATIONAL = {f"{publisher}_{table}" for publisher in PUBLISHERS for table in ("deprivation", "areas")}
SCHEMAS = {
    **{f"{publisher}_deprivation": "DEPRIVATION" for publisher in PUBLISHERS},
    **{f"{publisher}_areas": "BOUNDARIES" for publisher in PUBLISHERS},
    "areas": "AREAS",
    "sampled_areas": "SAMPLED_AREAS",
    "sample_points": "SAMPLE_POINTS",
    "street_images": "IMAGES",
    "image_coverage": "COVERAGE",
    "folds": "FOLDS",
    "baseline_predictions": "PREDICTIONS",
    "probe_model": "PREDICTIONS",
    "imagewise_model": "PREDICTIONS",
    "area_predictions": "PREDICTIONS",
    "scorecard": "SCORES",
    "area_tiles": "IMAGES",
    "street_and_sky": "SCORES",
    "survey_clusters": "CLUSTERS",
    "scene_parses": "SCENES",
    "cluster_folds": "FOLDS",
    "cluster_baselines": "CLUSTER_PREDICTIONS",
    "clusterwise_model": "CLUSTER_PREDICTIONS",
    "cluster_imagewise_model": "CLUSTER_PREDICTIONS",
    "graph_model": "CLUSTER_PREDICTIONS",
    "cluster_predictions": "CLUSTER_PREDICTIONS",
    "cluster_scorecard": "CLUSTER_SCORES",
    "selection_optimism": "SELECTION_OPTIMISM",
}
"""Asset -> name of its schema in `urbanprint.tables`."""

WORLD_SCHEMAS = {
    "world_grid": ("geolocation.cell_images", "WORLD_GRID"),
    "cell_images": ("tables", "IMAGES"),
    "cell_coverage": ("geolocation.cell_images", "CELL_COVERAGE"),
    "cell_classes": ("geolocation.datasets", "CLASS_REPORT"),
    "geolocation_guesses": ("geolocation.scores", "GUESSES"),
    "geolocation_coverage": ("geolocation.comparison", "SET_COVERAGE"),
    "geolocation_scores": ("geolocation.scores", "GEOLOCATION_SCORES"),
    "geolocation_differences": ("geolocation.scores", "GEOLOCATION_DIFFERENCES"),
}
"""Asset of a world -> module of the library and name of its schema there."""

CONURBATION_SCHEMAS = {
    "land_use": ("landuse.atlas", "LAND_USE"),
    "income_cells": ("indicators.filosofi", "INCOME_CELLS"),
    "cell_land_use": ("landuse.atlas", "CELL_LAND_USE"),
    "tile_cells": ("aerial.cells", "TILE_CELLS"),
    "aerial_tiles": ("tables", "IMAGES"),
    "tile_coverage": ("tables", "COVERAGE"),
    "tile_folds": ("tables", "FOLDS"),
    "tile_baselines": ("aerial.learning", "TILE_PREDICTIONS"),
    "aerial_model": ("aerial.learning", "TILE_PREDICTIONS"),
    "aerial_scores": ("aerial.scores", "TILE_SCORES"),
}
"""Asset of a conurbation -> module of the library and name of its schema there."""

WHOLE = NATIONAL | {"selection_optimism"}
"""Assets without partitions."""

MODELS = ("baseline_predictions", "probe_model", "imagewise_model")
CLUSTER_MODELS = ("cluster_baselines", "clusterwise_model", "cluster_imagewise_model", "graph_model")
CALIBRATED = 0.05
"""Largest expected calibration error of probabilities that may be shown as such."""
BELIEVABLE_R2 = BELIEVABLE_R = 0.95
"""Above this in unseen boroughs or blocks, on statistics of this kind, something has leaked."""


def _schema_check(
    asset: str, schema: str, *, module: str = "tables", partitions: dg.PartitionsDefinition | None = CITIES
) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="schema",
        blocking=True,
        partitions_def=None if asset in WHOLE else partitions,
        description=f"Every column, type, range and key of the table as declared in urbanprint.{module}.{schema}.",
    )
    def check(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
        import pandera.errors

        table = _table(context, workspace, asset)
        try:
            getattr(import_module(f"urbanprint.{module}"), schema).validate(table, lazy=True)
        except pandera.errors.SchemaErrors as error:
            cases = error.failure_cases.head(20)
            return dg.AssetCheckResult(
                passed=False, metadata={"failures": dg.MetadataValue.md(f"```\n{cases.to_string(index=False)}\n```")}
            )
        return dg.AssetCheckResult(passed=True, metadata={"rows": len(table)})

    return check


def _held_out_check(asset: str, *, folds_of: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name="held_out",
        blocking=True,
        partitions_def=CITIES,
        additional_deps=[folds_of],
        description="Every area of the folds is predicted once under each kind of fold, by the fold that held it out.",
    )
    def check(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
        predictions = _table(context, workspace, asset)
        folds = _table(context, workspace, folds_of)
        # Fixed lists of a publication are no kind of fold: they test a part of the clusters.
        predictions = predictions[predictions["kind"].isin(folds["kind"])]
        kept = predictions.merge(folds[["area_id", "kind", "fold"]], on=["area_id", "kind", "fold"])
        asked = [name for name in ("indicator", "model", "task") if name in predictions]
        wanted = len(folds) * len(predictions[asked].drop_duplicates())
        return dg.AssetCheckResult(
            passed=len(kept) == len(predictions) == wanted,
            metadata={"predictions": len(predictions), "by their own fold": len(kept), "expected": wanted},
        )

    return check


def _believable_check(
    scorecard: str, *, kind: str, measure: str = "r2", most: float = BELIEVABLE_R2
) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=scorecard,
        name="believable",
        blocking=True,
        partitions_def=CITIES,
        description="No model scores higher in unseen places than such statistics allow: a score that good is a leak.",
    )
    def check(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
        scores = _table(context, workspace, scorecard)
        of_kind = scores[(scores["measure"] == measure) & (scores["kind"] == kind)].dropna(subset="value")
        best = of_kind.sort_values("value").iloc[-1]
        of = {"indicator": best["indicator"]} if "indicator" in best else {}
        return dg.AssetCheckResult(
            passed=bool(best["value"] <= most),
            metadata={f"highest {measure}": float(best["value"]), "model": best["model"], **of},
        )

    return check


@dg.asset_check(
    asset="image_parts",
    name="strangers",
    blocking=True,
    partitions_def=WORLDS,
    description="Images that train, calibrate and test share no sequence and no photograph, and lie apart.",
)
def _strangers(context: dg.AssetCheckExecutionContext, workspace: Workspace, cities: Cities) -> dg.AssetCheckResult:
    from urbanprint.errors import LeakingSplit
    from urbanprint.geolocation.parts import check_parts

    parts = _table(context, workspace, "image_parts")
    apart_m = cities.catalogue.world(context.partition_key).cells.apart_m
    try:
        check_parts(parts.drop(columns="part"), parts["part"], apart_m=apart_m)
    except LeakingSplit as leak:
        return dg.AssetCheckResult(passed=False, metadata={"leak": str(leak)})
    return dg.AssetCheckResult(passed=True, metadata={"images": len(parts), "metres apart, at least": apart_m})


@dg.asset_check(
    asset="tile_folds",
    name="blocks_apart",
    blocking=True,
    partitions_def=CITIES,
    description="Block folds pass the guard: no block and no square kilometre of photographs is on both sides, and no "
    "tile that trains lies beside one that is tested.",
)
def _blocks_apart(context: dg.AssetCheckExecutionContext, workspace: Workspace, cities: Cities) -> dg.AssetCheckResult:
    from urbanprint.errors import LeakingSplit
    from urbanprint.evaluation.splits import check_split, iter_splits

    folds = _table(context, workspace, "tile_folds")
    tiles = _table(context, workspace, "aerial_tiles")
    buffer_m = cities.catalogue.conurbation(context.partition_key).evaluation.buffer_m
    try:
        splits = list(iter_splits(folds, "block", buffer_m=buffer_m))
        for split in splits:
            sides = (
                tiles[(tiles["state"] == "fetched") & tiles["area_id"].isin(ids)] for ids in (split.train, split.test)
            )
            check_split(*sides, level="area")
    except LeakingSplit as leak:
        return dg.AssetCheckResult(passed=False, metadata={"leak": str(leak)})
    return dg.AssetCheckResult(passed=True, metadata={"folds": len(splits), "buffer, metres": buffer_m})


@dg.asset_check(
    asset="attention_checks",
    name="sane",
    partitions_def=CITIES,
    description="Maps of the trained networks are unlike those of networks that learned nothing, or noise.",
)
def _sane(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    checks = _table(context, workspace, "attention_checks")
    return dg.AssetCheckResult(
        passed=bool(checks["passed"].all()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={str(row["check"]): f"{row['value']:.2f}: {row['explanation']}" for _, row in checks.iterrows()},
    )


@dg.asset_check(
    asset="geolocation_calibration",
    name="calibrated",
    partitions_def=WORLDS,
    description="After scaling, confidence and accuracy of the joint network differ by at most 0.05 at every level, or "
    "by no more than chance leaves with so few test images.",
)
def _calibrated(context: dg.AssetCheckExecutionContext, workspace: Workspace) -> dg.AssetCheckResult:
    from urbanprint.geolocation.comparison import calibration_errors

    errors = calibration_errors(_table(context, workspace, "geolocation_calibration"))
    joint = errors[errors["model"] == "joint"].set_index("level")
    return dg.AssetCheckResult(
        passed=bool((joint["after"] <= joint["chance"].clip(lower=CALIBRATED)).all()),
        severity=dg.AssetCheckSeverity.WARN,
        metadata={f"L{level}": f"{row['after']:.3f}, chance {row['chance']:.3f}" for level, row in joint.iterrows()},
    )


def _table(context: dg.AssetCheckExecutionContext, workspace: Workspace, asset: str) -> "pd.DataFrame":
    return workspace.read_table(asset, partition=None if asset in WHOLE else context.partition_key)


CHECKS = [
    *[_schema_check(asset, schema) for asset, schema in SCHEMAS.items()],
    *[_held_out_check(asset, folds_of="folds") for asset in MODELS],
    *[_held_out_check(asset, folds_of="cluster_folds") for asset in CLUSTER_MODELS],
    *[
        _schema_check(asset, schema, module=module, partitions=WORLDS)
        for asset, (module, schema) in WORLD_SCHEMAS.items()
    ],
    *[_schema_check(asset, schema, module=module) for asset, (module, schema) in CONURBATION_SCHEMAS.items()],
    _schema_check("level_dataset", "LEVEL_MANIFEST", module="geolocation.datasets", partitions=WORLD_LEVELS),
    _blocks_apart,
    _sane,
    _strangers,
    _calibrated,
    _believable_check("scorecard", kind="borough"),
    _believable_check("cluster_scorecard", kind="block"),
    _believable_check("aerial_scores", kind="block", measure="pearson_r", most=BELIEVABLE_R),
]
