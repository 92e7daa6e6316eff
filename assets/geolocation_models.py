"""The networks that tell cells apart: one a level, each a partition, and the joint one; an MLflow run each."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import TO_LEVELS, WORLD_LEVELS, WORLDS
from resources.cities import Cities
from resources.tracking import TrackedRun, Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from urbanprint.geolocation.hierarchy import Hierarchy
    from urbanprint.geolocation.network import CellClassifier, CellEpoch, GeolocationConfig
    from urbanprint.settings import World

_GROUP: dict[str, Any] = {"group_name": "geolocation", "owners": OWNERS}
_OF_WORLD = [dg.AssetDep(asset, partition_mapping=TO_LEVELS) for asset in ("image_parts", "cell_classes")]


@dg.multi_asset(
    group_name="geolocation",
    partitions_def=WORLD_LEVELS,
    deps=_OF_WORLD,
    outs={
        "level_dataset": dg.AssetOut(
            kinds={"parquet"},
            owners=OWNERS,
            code_version="1",
            description="The images as the model of a level sees them: the cell each lies in, the class it trains. "
            "Pixels are not copied, images are named by their SHA-256.",
        ),
        "level_labels": dg.AssetOut(
            kinds={"parquet", "json"},
            owners=OWNERS,
            code_version="1",
            description="The classes of a level: number, cell, the class a level above, training images. "
            "The label map lies beside as sorted, versioned JSON.",
        ),
    },
)
def level_dataset(context: dg.AssetExecutionContext, cities: Cities, workspace: Workspace) -> Iterator[dg.Output]:
    """What the classifier of one level learns from, the same bytes for the same images."""
    from urbanprint.geolocation import datasets

    world, level = _world_level(cities, context.partition_key)
    images = workspace.read_table("image_parts", partition=world.key)
    hierarchy = read_hierarchy(workspace, world)
    manifest = datasets.level_manifest(images, hierarchy, level=level)
    yield described(manifest, output="level_dataset", handed_to_a_neighbour=int(manifest["handed"].sum()))
    path = workspace.models(world.key) / f"labels-L{level}.json"
    path.write_text(datasets.labels_json(hierarchy, level=level), encoding="utf-8")
    labels = datasets.level_labels(manifest[manifest["part"] == "train"], hierarchy, level=level)
    yield described(labels, output="level_labels", label_map=dg.MetadataValue.path(str(path)))


@dg.asset(**_GROUP, partitions_def=WORLD_LEVELS, kinds={"torch", "mlflow"}, code_version="1", deps=_OF_WORLD)
def level_model(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    level_dataset: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """The network of one level; the table is its training, an epoch a row. An interrupted training resumes."""
    world, level = _world_level(cities, context.partition_key)
    return _trained(context, world, workspace, tracking, level_dataset, level=level)


@dg.asset(**_GROUP, partitions_def=WORLD_LEVELS, kinds={"mlflow"}, code_version="1", deps=["level_model"])
def level_calibration(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    level_dataset: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """How well the probabilities of one level are calibrated before and after temperature scaling, on test images."""
    from urbanprint.geolocation.comparison import level_calibration as calibrate
    from urbanprint.geolocation.network import load_classifier
    from urbanprint.imagery.store import ImageStore
    from urbanprint.maps import geolocation_figures as figures

    world, level = _world_level(cities, context.partition_key)
    classifier = load_classifier(workspace.models(world.key) / f"L{level}")
    images = with_paths(level_dataset, ImageStore(workspace.images))
    found = calibrate(classifier, images[images["part"] == "calibration"], images[images["part"] == "test"])
    pictures = {"calibration": figures.reliability_chart(found.reliability, title=f"L{level}, test images")}
    if len(classifier.classes) <= figures.MOST_CLASSES:
        pictures["confusion"] = figures.confusion_chart(found.true, found.predicted, title=f"L{level}, test images")
    run = tracking.latest(world.key, f"L{level}")
    run.metrics(
        {"temperature": found.temperature, "test_top_1": found.accuracy}
        | {f"calibration_error_{name}": error for name, error in found.errors.items()}
    )
    for name, png in pictures.items():
        run.file(f"figures/{name}.png", png)
    table = pd.concat([rows.assign(scaling=name) for name, rows in found.reliability.items()], ignore_index=True)
    return described(
        table,
        {f"expected calibration error {name}": value for name, value in found.errors.items()},
        pictures=pictures,
        temperature=found.temperature,
        mlflow_run=dg.MetadataValue.text(run.run_id),
    )


@dg.asset(**_GROUP, partitions_def=WORLDS, kinds={"torch", "mlflow"}, code_version="1", deps=["cell_classes"])
def joint_model(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    image_parts: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """One network for all levels: a softmax over the finest cells, parents sum their children, a loss a level."""
    world = cities.catalogue.world(context.partition_key)
    return _trained(context, world, workspace, tracking, image_parts, level=None)


def _trained(
    context: dg.AssetExecutionContext,
    world: "World",
    workspace: Workspace,
    tracking: Tracking,
    images: pd.DataFrame,
    *,
    level: int | None,
) -> dg.Output[pd.DataFrame]:
    """Train, track and register one classifier: of a level, or the joint one."""
    from dataclasses import asdict

    from urbanprint.geolocation.training import train_classifier
    from urbanprint.imagery.store import ImageStore
    from urbanprint.maps import geolocation_figures as figures
    from urbanprint.models.card import write_training_images
    from urbanprint.progress import Printed
    from urbanprint.tables import fingerprint

    name, config = f"L{level}" if level else "joint", config_of(world)
    training = with_paths(images[images["part"] == "train"], ImageStore(workspace.images))
    folder: Path = workspace.models(world.key)
    with tracking.run(world.key, name, tags={"dagster_run": context.run_id}) as run, Printed() as bar:
        run.parameters({**asdict(config), "level": name, "apart_m": world.cells.apart_m})
        run.dataset("image_parts", digest=fingerprint(images), source=world.imagery.key, rows=len(training))

        def on_epoch(epoch: "CellEpoch") -> None:
            bar(f"training {name}", epoch.epoch + 1, config.epochs)
            _log_epoch(run, epoch)

        model: CellClassifier = train_classifier(
            training,
            read_hierarchy(workspace, world),
            design="level" if level else "joint",
            level=level,
            config=config,
            checkpoint=folder / "checkpoints" / f"{name}.pt",
            apart_m=world.cells.apart_m,
            on_epoch=on_epoch,
        )
        history = pd.DataFrame([asdict(epoch) for epoch in model.history])
        curves = figures.curves_chart(history)
        run.file("figures/training_curves.png", curves)
        saved = model.save(folder / name, card_of(world, images))
        write_training_images(saved, training["image_id"])
        run.model(f"{world.key}-{name}", saved)
    return described(
        history,
        pictures={"training_curves": curves},
        classes=len(model.classes),
        mlflow_run=dg.MetadataValue.text(run.run_id),
        model=dg.MetadataValue.path(str(saved)),
    )


def _log_epoch(run: TrackedRun, epoch: "CellEpoch") -> None:
    measured = ("train_loss", "validation_loss", "validation_accuracy", "learning_rate", "seconds")
    run.metrics({name: getattr(epoch, name) for name in measured}, step=epoch.epoch)


def _world_level(cities: Cities, partition: str) -> "tuple[World, int]":
    """The world and the level of a partition such as `planet-L3`."""
    key, _, level = partition.rpartition("-L")
    return cities.catalogue.world(key), int(level)


def config_of(world: "World") -> "GeolocationConfig":
    """How the networks of a world are trained."""
    from dataclasses import asdict

    from urbanprint.geolocation.network import GeolocationConfig

    return GeolocationConfig(**asdict(world.training))


def read_hierarchy(workspace: Workspace, world: "World") -> "Hierarchy":
    """The cells a world's models tell apart."""
    from urbanprint.geolocation.hierarchy import Hierarchy

    path = workspace.models(world.key) / "hierarchy.json"
    return Hierarchy.from_json(path.read_text(encoding="utf-8"), name=str(path))


def with_paths(images: pd.DataFrame, store: Any) -> pd.DataFrame:
    """The images with the `path` of their pixels."""
    return images.assign(path=[str(store.path(sha256)) for sha256 in images["sha256"]])


def card_of(world: "World", images: pd.DataFrame) -> dict[str, Any]:
    """What a model's card says beside what the model knows of itself; scores are of both designs, beside the report."""
    from urbanprint.statements import LOCATING_LIMITS, LOCATING_USE
    from urbanprint.tables import fingerprint

    return {
        "world": world.key,
        "split": {str(part): int(count) for part, count in images["part"].value_counts().items()},
        "scores": [],
        "data_version": fingerprint(images[["image_id", "part", "sha256"]]),
        "licence": world.licence,
        "intended_use": LOCATING_USE,
        "limits": LOCATING_LIMITS,
    }
