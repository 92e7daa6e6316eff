"""Networks of a conurbation, each judged on blocks it has not seen, beside maps without pictures and the audit.

Each ordinal head is a run in MLflow. The registered network is trained on all cells; its scores are those of the folds.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import dagster as dg
import geopandas as gpd
import pandas as pd

from assets.describing import OWNERS, described
from assets.partitions import CITIES
from resources.cities import Cities
from resources.tracking import Tracking
from resources.workspace import Workspace

if TYPE_CHECKING:
    from pathlib import Path

    from urbanprint.aerial.learning import Fitted
    from urbanprint.models.imagewise import ImagewiseModel
    from urbanprint.settings import Conurbation

_GROUP: dict[str, Any] = {"group_name": "aerial", "owners": OWNERS, "partitions_def": CITIES}


def _out(description: str) -> dg.AssetOut:
    return dg.AssetOut(kinds={"torch", "mlflow"}, owners=OWNERS, code_version="1", description=description)


@dg.asset(**_GROUP, kinds={"parquet"}, code_version="1")
def tile_baselines(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tile_cells: gpd.GeoDataFrame,
    aerial_tiles: pd.DataFrame,
    tile_folds: pd.DataFrame,
) -> dg.Output[pd.DataFrame]:
    """What a map without pictures says of each cell: the prior, coordinates only, the neighbours."""
    from urbanprint.aerial import learning

    place = cities.catalogue.conurbation(context.partition_key)
    images = with_paths(workspace, aerial_tiles, tile_folds)
    splits = [
        *learning.honest_splits(tile_folds, buffer_m=place.evaluation.buffer_m),
        *learning.forbidden_splits(tile_folds, images)[0],
    ]
    table = learning.baseline_predictions(splits, incomes_of(tile_cells), tile_folds, classes=place.training.classes)
    return described(table)


@dg.multi_asset(
    group_name="aerial",
    partitions_def=CITIES,
    outs={
        "aerial_model": _out("Held-out predictions of the network with each ordinal head, under blocks and, of the "
                             "first head, the forbidden split at random; probabilities calibrated on other folds."),
        "tile_calibration": _out("Whether probabilities of income classes mean what they say, before and after."),
    },
)  # fmt: skip
def aerial_model(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    tile_cells: gpd.GeoDataFrame,
    aerial_tiles: pd.DataFrame,
    tile_folds: pd.DataFrame,
) -> Iterator[dg.Output]:
    """Train a network with each head on the tiles of each fold; a finished training is not made again."""
    from urbanprint.aerial import learning
    from urbanprint.aerial.scores import calibration_table, score_tiles
    from urbanprint.models.card import write_training_images
    from urbanprint.progress import Printed
    from urbanprint.sources.providers import require_training

    place = cities.catalogue.conurbation(context.partition_key)
    require_training(place.imagery)
    images = with_paths(workspace, aerial_tiles, tile_folds)
    incomes = incomes_of(tile_cells)
    folder, seed = workspace.models(place.key), place.evaluation.seed
    honest = learning.honest_splits(tile_folds, buffer_m=place.evaluation.buffer_m)
    forbidden, _ = learning.forbidden_splits(tile_folds, images)
    parts: list[pd.DataFrame] = []
    runs: dict[str, str] = {}
    calibration = pd.DataFrame()
    for head in place.training.heads:
        first = head == place.training.heads[0]
        with tracking.run(place.key, f"aerial {head}", tags={"dagster_run": context.run_id}) as run:
            run.parameters(_parameters(place, head))
            run.dataset("aerial_tiles", digest=_digest(images), source=place.imagery.key, rows=len(images))

            def log_epoch(split: Any, epoch: Any, run: Any = run) -> None:
                measured = ("train_loss", "validation_loss", "validation_r2")
                run.metrics({f"{split.label}/{name}": getattr(epoch, name) for name in measured}, step=epoch.epoch)

            with Printed() as bar:
                fitted = list(
                    learning.fit_splits(
                        honest + (forbidden if first else []),
                        images,
                        incomes,
                        tile_folds,
                        head=head,
                        training=place.training,
                        checkpoints=folder / "checkpoints",
                        on_epoch=log_epoch,
                        progress=bar,
                    )
                )
            blocks = [each for each in fitted if each.split.kind == "block"]
            groups = [blocks, [each for each in fitted if each.split.kind == "random"]]
            made = pd.concat(
                [learning.held_out_predictions(group, incomes, model=head) for group in groups if group],
                ignore_index=True,
            )
            parts.append(made)
            scores = score_tiles(made, folds=tile_folds, seed=seed)
            run.metrics(dict(zip(scores["measure"] + "_" + scores["kind"], scores["value"], strict=True)))
            run.file("scores.csv", scores.to_csv(index=False))
            if first:
                raw = learning.held_out_predictions(blocks, incomes, model=head, calibrated=False)
                calibration = calibration_table(raw, made[made["kind"] == "block"])
                card = _card(place, images, blocks, scores, incomes)
                _save_folds(blocks, folder / "folds", card, images)
                released = learning.train_on_everything(
                    images, incomes, tile_folds, head=head, training=place.training,
                    checkpoint=folder / "checkpoints" / f"{head}-all.pt",
                )  # fmt: skip
                saved = released.save(folder / "aerial", card)
                write_training_images(saved, images["image_id"])
                run.model(f"{place.key}-aerial", saved)
            runs[f"mlflow run, {head}"] = run.run_id
    predictions = pd.concat(parts, ignore_index=True)
    yield described(predictions, runs, output="aerial_model")
    yield described(calibration, output="tile_calibration")


@dg.multi_asset(
    group_name="aerial",
    partitions_def=CITIES,
    outs={
        "aerial_scores": _out("Pearson r and other measures of every head and baseline with 95 % intervals."),
        "aerial_audit": _out("What a split of tiles at random would have pretended, and why the guard refuses it."),
    },
)
def aerial_scores(
    context: dg.AssetExecutionContext,
    cities: Cities,
    workspace: Workspace,
    tracking: Tracking,
    aerial_tiles: pd.DataFrame,
    tile_folds: pd.DataFrame,
    tile_baselines: pd.DataFrame,
    aerial_model: pd.DataFrame,
) -> Iterator[dg.Output]:
    """Judge all predictions on the same cells and draws of whole blocks."""
    from urbanprint.aerial import learning, scores
    from urbanprint.maps.aerial_figures import aerial_score_chart

    place = cities.catalogue.conurbation(context.partition_key)
    seed = place.evaluation.seed
    predictions = pd.concat([tile_baselines, aerial_model], ignore_index=True)
    table = scores.score_tiles(predictions, folds=tile_folds, seed=seed)
    refusal = learning.forbidden_splits(tile_folds, with_paths(workspace, aerial_tiles, tile_folds))[1]
    audit = scores.audit(predictions, folds=tile_folds, refusal=refusal, seed=seed)
    chart = aerial_score_chart(table)
    with tracking.run(place.key, "aerial scores", tags={"dagster_run": context.run_id}) as run:
        r = table[table["measure"] == "pearson_r"]
        run.metrics(dict(zip("pearson_r_" + r["model"] + "_" + r["kind"], r["value"], strict=True)))
        run.file("scores.csv", table.to_csv(index=False))
        run.file("audit.csv", audit.to_csv(index=False))
        run.file("figures/scores.png", chart)
    run_id = dg.MetadataValue.text(run.run_id)
    yield described(table, pictures={"scores": chart}, output="aerial_scores", mlflow_run=run_id)
    yield described(audit, output="aerial_audit", mlflow_run=run_id)


@dg.asset(**_GROUP, kinds={"mlflow"}, code_version="1", deps=["aerial_model", "aerial_scores"])
def released_aerial_model(context: dg.AssetExecutionContext, tracking: Tracking) -> dg.MaterializeResult:
    """The alias `current` of the registered network, moved once the checks of its scores have passed."""
    name = f"{context.partition_key}-aerial"
    return dg.MaterializeResult(metadata={name: f"version {tracking.release(name)}"})


def with_paths(workspace: Workspace, aerial_tiles: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """The fetched tiles of the cells in the folds, one a cell, with the `path` of their pixels."""
    from urbanprint.aerial.cells import tile_images
    from urbanprint.imagery.store import ImageStore

    images, store = tile_images(aerial_tiles, folds), ImageStore(workspace.images)
    return images.assign(path=[str(store.path(sha256)) for sha256 in images["sha256"]])


def incomes_of(cells: pd.DataFrame) -> pd.Series:
    """Income by area_id."""
    return cells.set_index("area_id")["income"]


def fold_model(workspace: Workspace, key: str, fold: int) -> "ImagewiseModel":
    """The network of a conurbation that has not seen the tiles of a block fold."""
    from urbanprint.models.imagewise import load_imagewise

    return load_imagewise(workspace.models(key) / "folds" / f"block-{fold}")


def _parameters(place: "Conurbation", head: str) -> dict[str, object]:
    from dataclasses import asdict

    return {
        **asdict(place.training),
        "head": head,
        "folds": place.evaluation.folds,
        "block_m": place.evaluation.block_m,
    }


def _digest(images: pd.DataFrame) -> str:
    from urbanprint.tables import fingerprint

    return fingerprint(images[["image_id", "sha256", "area_id"]])


def _save_folds(fitted: "list[Fitted]", folder: "Path", card: dict[str, Any], images: pd.DataFrame) -> None:
    """Keep the networks of the block folds, which are the ones that are explained; they have no scores of their own."""
    from urbanprint.models.card import write_training_images

    for each in fitted:
        own = {**card, "split": {"block": each.split.fold}, "scores": []}
        saved = each.model.save(folder / each.split.label, own)
        write_training_images(saved, images.loc[images["area_id"].isin(each.split.train), "image_id"])


def _card(
    place: "Conurbation", images: pd.DataFrame, blocks: "list[Fitted]", scores: pd.DataFrame, incomes: pd.Series
) -> dict[str, Any]:
    """What the card says beside what the network knows of itself; calibrated on what the fold networks had not seen."""
    import json
    from dataclasses import asdict

    from urbanprint.aerial.learning import calibration_of
    from urbanprint.statements import INTENDED_USE, LIMITS

    return {
        "place": place.key,
        "split": {"block": len(blocks)},
        "calibration": asdict(calibration_of(blocks, incomes)),
        "scores": json.loads(scores.to_json(orient="records")),
        "data_version": _digest(images),
        "licence": ", ".join(sorted({place.income.licence, *images["licence"]})),
        "intended_use": INTENDED_USE,
        "limits": LIMITS,
    }
