"""Judgement of where photographs were taken: both designs, the old fusion and the baselines on the same test images."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from assets.describing import OWNERS, described
from assets.geolocation_models import card_of, config_of, read_hierarchy, with_paths
from assets.partitions import FROM_LEVELS, WORLDS
from assets.worlds import land_of
from resources.cities import Cities
from resources.files import Files
from resources.tracking import TrackedRun, Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

    from urbanprint.geolocation.geolocator import Geolocator
    from urbanprint.settings import World

_GROUP: dict[str, Any] = {"group_name": "geolocation", "owners": OWNERS, "partitions_def": WORLDS}
SYSTEMS = ("joint", "levels")
"""The joint network, and one network a level: each a fitted system in the world's folder of models."""
TOP = (1, 5, 10)
_TABLES = {
    "images": "cell_images",
    "parts": "image_parts",
    "coverage": "cell_coverage",
    "classes": "cell_classes",
    "guesses": "geolocation_guesses",
    "calibration": "geolocation_calibration",
    "sets": "geolocation_coverage",
    "scores": "geolocation_scores",
    "differences": "geolocation_differences",
}
"""Part of the report -> the asset that makes it."""


@dg.asset(
    **_GROUP,
    kinds={"torch", "mlflow"},
    code_version="1",
    deps=["joint_model", dg.AssetDep("level_model", partition_mapping=FROM_LEVELS)],
)
def geolocators(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    image_parts: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """Both systems fitted on the calibration part: temperatures, thresholds of prediction sets, what is familiar."""
    from urbanprint.geolocation.geolocator import fit_geolocator
    from urbanprint.geolocation.network import load_classifier
    from urbanprint.imagery.store import ImageStore
    from urbanprint.models.card import write_training_images

    world = cities.catalogue.world(context.partition_key)
    images = with_paths(image_parts, ImageStore(workspace.images))
    part = {name: images[images["part"] == name] for name in ("train", "calibration")}
    folder = workspace.models(world.key)
    rows = []
    for name in SYSTEMS:
        networks = ["joint"] if name == "joint" else [f"L{level}" for level in world.cells.levels]
        system = fit_geolocator(
            [load_classifier(folder / network) for network in networks],
            training=part["train"],
            calibration=part["calibration"],
            coverage=world.cells.coverage,
            finest=world.cells.finest,
            apart_m=world.cells.apart_m,
        )
        saved = system.save(folder / f"geolocator-{name}", card_of(world, image_parts))
        write_training_images(saved, image_parts.loc[image_parts["part"] != "test", "image_id"])
        with tracking.run(world.key, f"geolocator-{name}", tags={"dagster_run": context.run_id}) as run:
            levels = zip(system.hierarchy.numbers, system.temperatures, system.thresholds, strict=True)
            fitted = [(name, level, temperature, threshold) for level, temperature, threshold in levels]
            run.metrics({f"temperature_L{level}": temperature for _, level, temperature, _ in fitted})
            run.model(f"{world.key}-geolocator-{name}", saved)
        rows += fitted
    return described(pd.DataFrame(rows, columns=["model", "level", "temperature", "threshold"]))


def _out(description: str) -> dg.AssetOut:
    return dg.AssetOut(kinds={"parquet"}, owners=OWNERS, code_version="1", description=description)


@dg.multi_asset(
    group_name="geolocation",
    partitions_def=WORLDS,
    deps=["geolocators", "cell_classes"],
    outs={
        "geolocation_guesses": _out("Where each system and baseline says that each test image was taken."),
        "geolocation_calibration": _out("How often images of about equal confidence are right, before and after."),
        "geolocation_coverage": _out("How often the prediction sets of each system hold the true cell, by level."),
    },
)
def geolocation_guesses(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    files: Files,
    image_parts: pd.DataFrame,
) -> Iterator[dg.Output]:
    """What the systems and baselines make of the test images, which none of them has seen."""
    from pathlib import Path

    from urbanprint.geolocation import comparison
    from urbanprint.geolocation.datasets import true_labels
    from urbanprint.imagery.store import ImageStore
    from urbanprint.models.backbones import load_backbone
    from urbanprint.models.embedding import embed

    world = cities.catalogue.world(context.partition_key)
    images = with_paths(image_parts, ImageStore(workspace.images))
    train, test = (images[images["part"] == part].reset_index(drop=True) for part in ("train", "test"))
    paths = [[Path(path) for path in part["path"]] for part in (train, test)]
    hierarchy = read_hierarchy(workspace, world)
    labels = true_labels(hierarchy, test)
    regions = comparison.read_regions(files.path(world.regions)) if world.regions else None
    facts = comparison.facts_of(test, train, regions=regions)
    guesses, calibration, coverage = [], [], []
    for name in SYSTEMS:
        system = load_system(workspace, world, name)
        logits = system.read(paths[1]).level_logits
        guesses.append(comparison.system_guesses(name, system, logits, facts, labels))
        if name == "levels":
            guesses.append(comparison.fused_guesses("old-fusion", system, logits, facts, labels))
        calibration.append(comparison.system_calibration(name, system, logits, labels))
        if name == "joint":
            _log_joint(tracking.latest(world.key, name), system, logits, labels, calibration[-1])
        coverage.append(comparison.set_coverage(name, system, logits, facts, labels, seed=world.training.seed))
    config = config_of(world)
    frozen = load_backbone(config.backbone, weights=config.weights, seed=config.seed)
    features = [embed(part, frozen, size=config.size) for part in paths]
    guesses += [
        comparison.nearest_guesses("nearest-neighbour", features, facts, train, hierarchy, labels),
        comparison.prior_guesses("prior", facts, train, hierarchy, labels),
    ]
    yield described(pd.concat(guesses, ignore_index=True), output="geolocation_guesses", test_images=len(test))
    yield described(pd.concat(calibration, ignore_index=True), output="geolocation_calibration")
    yield described(pd.concat(coverage, ignore_index=True), output="geolocation_coverage")


@dg.multi_asset(
    group_name="geolocation",
    partitions_def=WORLDS,
    outs={
        "geolocation_scores": _out("Every measure with its interval: of all test images, by continent, by density."),
        "geolocation_differences": _out("Each measure of the joint network minus that of another, on the same draws."),
    },
)
def geolocation_scores(
    context: dg.AssetExecutionContext,
    cities: Cities,
    tracking: Tracking,
    geolocation_guesses: pd.DataFrame,
    geolocation_calibration: pd.DataFrame,
) -> Iterator[dg.Output]:
    """Judge the guesses; differences are of paired draws of whole cells."""
    from urbanprint.geolocation.comparison import calibration_errors
    from urbanprint.geolocation.scores import difference, score
    from urbanprint.maps import geolocation_figures as figures

    world = cities.catalogue.world(context.partition_key)
    seed = world.training.seed
    scores = score(geolocation_guesses, top=TOP, seed=seed)
    others = [model for model in geolocation_guesses["model"].unique() if model != "joint"]
    differences = pd.concat(
        [difference(geolocation_guesses, "joint", other, top=TOP, seed=seed) for other in others], ignore_index=True
    )
    charts = {
        "within": figures.within_chart(geolocation_guesses),
        "geoscore": figures.score_chart(scores, measure="geoscore", title="GeoScore"),
    }
    overall = scores[scores["by"] == "all"]
    errors = calibration_errors(geolocation_calibration)
    with tracking.run(world.key, "geolocation scores", tags={"dagster_run": context.run_id}) as run:
        run.metrics(dict(zip(overall["model"] + "_" + overall["measure"], overall["value"], strict=True)))
        names = errors["model"] + "_ece_L" + errors["level"].astype(str)
        run.metrics(dict(zip(names, errors["after"], strict=True)))
        run.file("scores.csv", scores.to_csv(index=False))
        run.file("differences.csv", differences.to_csv(index=False))
        for name, png in charts.items():
            run.file(f"figures/{name}.png", png)
    run_id = dg.MetadataValue.text(run.run_id)
    yield described(scores, pictures=charts, output="geolocation_scores", mlflow_run=run_id)
    yield described(differences, output="geolocation_differences", mlflow_run=run_id)


@dg.asset(
    **_GROUP,
    kinds={"html"},
    code_version="1",
    deps=[*_TABLES.values(), "coverage_map"],
)
def geolocation_report(
    context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace, files: Files
) -> dg.MaterializeResult:
    """One page: how well photographs are located, how sure that is, and what this can be misused for."""
    from urbanprint.imagery.store import ImageStore
    from urbanprint.maps.attribution import attribution_page
    from urbanprint.maps.geolocation_content import geolocation_content
    from urbanprint.maps.geolocation_report import geolocation_report as write
    from urbanprint.maps.geolocation_report import summary_text, verdict
    from urbanprint.sources.providers import terms_of

    world = cities.catalogue.world(context.partition_key)
    folder = workspace.report(world.key)
    tables = {part: workspace.read_table(asset, partition=world.key) for part, asset in _TABLES.items()}
    used = tables["images"][tables["images"]["image_id"].isin(tables["parts"]["image_id"])]
    attribution_page(
        used,
        editions=[world],
        terms={str(world.imagery.provider): terms_of(world.imagery)},
        folder=folder,
        title=world.name,
    )
    content = geolocation_content(
        world,
        **tables,
        land=land_of(world, files),
        store=ImageStore(workspace.images) if terms_of(world.imagery).may_show else None,
        provenance={"Dagster run": context.run_id},
    )
    path = write(content, folder=folder)
    (folder / "summary.txt").write_text(summary_text(content) + "\n", encoding="utf-8")
    return dg.MaterializeResult(
        metadata={"report": dg.MetadataValue.path(str(path)), "verdict": "\n\n".join(verdict(content))}
    )


@dg.asset(
    **_GROUP,
    kinds={"mlflow"},
    code_version="1",
    deps=["geolocation_calibration", "geolocation_scores", "geolocators"],
)
def released_geolocators(context: dg.AssetExecutionContext, tracking: Tracking) -> dg.MaterializeResult:
    """The alias `current` of each registered system, moved once its calibration and coverage have been checked."""
    names = [f"{context.partition_key}-geolocator-{name}" for name in SYSTEMS]
    return dg.MaterializeResult(metadata={name: f"version {tracking.release(name)}" for name in names})


def _log_joint(
    run: TrackedRun, system: "Geolocator", logits: "Sequence[np.ndarray]", labels: "np.ndarray", table: pd.DataFrame
) -> None:
    """Log to the run of the joint network how it is calibrated at each level and which coarse cells it mistakes."""
    from urbanprint.geolocation.comparison import confused
    from urbanprint.maps import geolocation_figures as figures

    for level, rows in table.groupby("level"):
        scaled = {str(scaling): part for scaling, part in rows.groupby("scaling")}
        png = figures.reliability_chart(scaled, title=f"L{level}, test images")
        run.file(f"figures/calibration_L{level}.png", png)
    for level, (true, predicted) in confused(system, logits, labels, most=figures.MOST_CLASSES).items():
        png = figures.confusion_chart(true, predicted, title=f"L{level}, test images")
        run.file(f"figures/confusion_L{level}.png", png)


def load_system(workspace: Workspace, world: "World", name: str) -> "Geolocator":
    """A fitted system of a world, with the precision cap that the catalogue has now, if that is coarser."""
    from urbanprint.geolocation.geolocator import load_geolocator

    return load_geolocator(workspace.models(world.key) / f"geolocator-{name}", finest=world.cells.finest)
