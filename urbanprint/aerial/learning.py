"""Networks that tell the income class of a tile, each judged on tiles far from those it learned from.

What belongs here: what an image-wise network needs to learn ordered classes of cells (classes from training cells
alone, calibration on held-out blocks), and the baselines that see no picture. The network itself is
`models.imagewise`, its heads are `models.ordinal`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pandera.pandas as pa
import torch
from scipy.spatial import cKDTree

from urbanprint.errors import InputError, LeakingSplit
from urbanprint.evaluation.splits import Split, check_split, inner_split, iter_splits, split_images
from urbanprint.indicators.filosofi import income_classes
from urbanprint.models.imagewise import EpochRecord, ImagewiseConfig, ImagewiseModel
from urbanprint.models.learners import VALIDATION_SHARE
from urbanprint.models.ordinal import Calibration, OrdinalHead, fit_calibration
from urbanprint.models.training import train
from urbanprint.settings import TileTraining

INDICATOR = "income"
_NEIGHBOURS = 10

TILE_PREDICTIONS = pa.DataFrameSchema(
    {
        "area_id": pa.Column(str),
        "model": pa.Column(str),
        "kind": pa.Column(str, pa.Check.isin(["random", "block"])),
        "fold": pa.Column(int, pa.Check.ge(0)),
        "observed": pa.Column(int, pa.Check.ge(0)),
        "predicted": pa.Column(float, pa.Check.ge(0)),
        r"p\d+": pa.Column(float, pa.Check.in_range(-1e-6, 1 + 1e-6), regex=True),
    },
    unique=["area_id", "model", "kind"],
    strict=True,
    name="tile_predictions",
)
"""Held-out predictions of cells: the class observed, the class expected, and the probability of each class.

Classes are cut at the quantiles of the cells that the fold trains on. Kind "random" divides tiles that touch; it is
there for the audit and the guard refuses it."""


def tile_config(training: TileTraining, head: str) -> ImagewiseConfig:
    """How the network of a conurbation is trained with that ordinal head."""
    own = {field.name for field in fields(ImagewiseConfig)}
    values = {name: value for name, value in asdict(training).items() if name in own}
    # One view a cell: what judges the mean of its views judges the view.
    return ImagewiseConfig(**{**values, "loss": head, "symmetric": True, "pooled_share": 1.0})


def train_tiles(
    images: pd.DataFrame,
    incomes: pd.Series,
    folds: pd.DataFrame,
    *,
    split: Split,
    config: ImagewiseConfig,
    checkpoint: Path,
    on_epoch: Callable[[EpochRecord], None] | None = None,
) -> ImagewiseModel:
    """Train on `images` of the training cells of `split`, of which some blocks say when to stop.

    `incomes` is indexed by area_id; its classes are cut at the quantiles of the training cells. The checkpoint is as
    `Resumable` has it.
    """
    present = set(images["area_id"])
    trained, validated = (
        [area for area in part if area in present]
        for part in inner_split(split, folds, share=VALIDATION_SHARE, seed=config.seed)
    )
    labels = classes_of(incomes, split, config.classes).astype(float).rename(INDICATOR).to_frame()
    return train(
        images,
        labels,
        train_areas=trained,
        validation_areas=validated,
        config=config,
        checkpoint=checkpoint,
        on_epoch=on_epoch,
    )


def classes_of(incomes: pd.Series, split: Split, number: int) -> pd.Series:
    """The class of every cell, indexed by area_id, cut at the quantiles of the training cells of `split` alone."""
    cells = pd.DataFrame({"cell_id": incomes.index, "income": incomes.to_numpy()})
    return income_classes(cells, split.train, number).classes.rename_axis("area_id")


@dataclass(frozen=True, eq=False)
class Fitted:
    """A network of one split, and what it says of the cells that the split tests: `outputs` (n, 1) by area_id."""

    split: Split
    model: ImagewiseModel
    outputs: pd.DataFrame


def honest_splits(folds: pd.DataFrame, *, buffer_m: float) -> list[Split]:
    """The block splits, past the guard; training cells nearer than `buffer_m` to a test cell are left out."""
    return list(iter_splits(folds, "block", buffer_m=buffer_m))


def forbidden_splits(folds: pd.DataFrame, images: pd.DataFrame) -> tuple[list[Split], str]:
    """Splits of tiles at random, for the audit alone, and what the guard says to the first it refuses.

    It says nothing where each tile is photographed on its own, as far apart as to share no square kilometre.
    """
    chosen = folds[folds["kind"] == "random"].sort_values("area_id")
    splits = []
    refusal = ""
    for fold in np.unique(chosen["fold"]):
        testing = (chosen["fold"] == fold).to_numpy()
        train_ids, test_ids = tuple(chosen.loc[~testing, "area_id"]), tuple(chosen.loc[testing, "area_id"])
        splits.append(Split(kind="random", fold=int(fold), train=train_ids, test=test_ids))
        if not refusal:
            sides = (images[images["area_id"].isin(ids)] for ids in (train_ids, test_ids))
            try:
                check_split(*sides, level="area")
            except LeakingSplit as leak:
                refusal = str(leak)
    return splits, refusal


def fit_splits(
    splits: Sequence[Split],
    images: pd.DataFrame,
    incomes: pd.Series,
    folds: pd.DataFrame,
    *,
    head: str,
    training: TileTraining,
    checkpoints: Path,
    on_epoch: Callable[[Split, EpochRecord], None] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> Iterator[Fitted]:
    """Train a network for each split and look at its test cells; a finished one is read from its checkpoint.

    Splits at random hold tiles of one photograph on both sides; all others go through `split_images`.
    """
    config = tile_config(training, head)
    for done, split in enumerate(splits):
        if progress is not None:
            progress(f"{head}: {split.label}", done, len(splits))
        if split.kind == "random":
            seen, unseen = (images[images["area_id"].isin(ids)] for ids in (split.train, split.test))
        else:
            seen, unseen = split_images(split, images)
        model = train_tiles(
            seen,
            incomes,
            folds,
            split=split,
            config=config,
            checkpoint=checkpoints / f"{head}-{split.label}.pt",
            on_epoch=partial(on_epoch, split) if on_epoch else None,
        )
        yield Fitted(split, model, model.outputs(unseen))


def calibration_of(fitted: Sequence[Fitted], incomes: pd.Series) -> Calibration:
    """The calibration under which what these networks say of the cells they have not seen is likeliest."""
    head = _head(fitted[0].model)
    outputs = torch.tensor(np.concatenate([each.outputs.to_numpy() for each in fitted]))
    labels = [classes_of(incomes, each.split, head.classes).loc[each.outputs.index].to_numpy() for each in fitted]
    return fit_calibration(head.cpu(), outputs, torch.tensor(np.concatenate(labels)).long())


def held_out_predictions(
    fitted: Sequence[Fitted], incomes: pd.Series, *, model: str, calibrated: bool = True
) -> pd.DataFrame:
    """`TILE_PREDICTIONS` of the networks of one kind of fold.

    Each fold's probabilities are calibrated on what the networks of the other folds say of their own test cells, whole
    blocks that no network of theirs has seen: the part that stops a training is too small for it.
    """
    parts = []
    for each in fitted:
        others = [other for other in fitted if other is not each]
        calibration = calibration_of(others, incomes) if calibrated else Calibration()
        found = each.model.probabilities(each.outputs.to_numpy(), calibration)
        table = pd.DataFrame(found, index=each.outputs.index, columns=[f"p{k}" for k in range(found.shape[1])])
        parts.append(predictions_of(table, incomes, split=each.split, model=model))
    return pd.concat(parts, ignore_index=True)


def _head(model: ImagewiseModel) -> OrdinalHead:
    if model.network.ordinal is None:
        raise InputError(f"a network trained by {model.config.loss} has no classes: train it with an ordinal head.")
    return model.network.ordinal


def predictions_of(probabilities: pd.DataFrame, incomes: pd.Series, *, split: Split, model: str) -> pd.DataFrame:
    """`TILE_PREDICTIONS` of the test cells of `split`, from the probability of each class, indexed by area_id."""
    classes = probabilities.shape[1]
    observed = classes_of(incomes, split, classes)
    table = probabilities.loc[list(split.test)].astype(float)
    made = pd.DataFrame(
        {
            "area_id": pd.Series(table.index, dtype="str"),
            "model": model,
            "kind": split.kind,
            "fold": split.fold,
            "observed": observed.loc[table.index].to_numpy(),
            "predicted": table.to_numpy() @ np.arange(classes),
        }
    )
    return TILE_PREDICTIONS.validate(pd.concat([made, table.reset_index(drop=True)], axis=1))


def baseline_predictions(
    splits: Sequence[Split], incomes: pd.Series, folds: pd.DataFrame, *, classes: int
) -> pd.DataFrame:
    """What a map without pictures says (`TILE_PREDICTIONS`), the shares of classes as probabilities.

    - `mean`: of the training cells, all of them;
    - `coordinates`: of the 10 nearest training cells, equally;
    - `neighbours`: of the same, weighted by 1 / distance.
    """
    places = folds.drop_duplicates("area_id").set_index("area_id")[["x_m", "y_m"]]
    columns = [f"p{k}" for k in range(classes)]
    parts = []
    for split in splits:
        own = classes_of(incomes, split, classes).loc[list(split.train)].to_numpy()
        is_class = np.eye(classes)[own]
        count = min(_NEIGHBOURS, len(split.train))
        tree = cKDTree(places.loc[list(split.train)].to_numpy())
        distance, nearest = tree.query(places.loc[list(split.test)].to_numpy(), k=np.arange(1, count + 1))
        weights = {
            "coordinates": np.ones_like(distance),
            "neighbours": 1.0 / np.maximum(distance, 1.0),
        }
        shares = {"mean": np.tile(is_class.mean(axis=0), (len(split.test), 1))}
        for name, weight in weights.items():
            shares[name] = np.einsum("nk,nkc->nc", weight / weight.sum(axis=1, keepdims=True), is_class[nearest])
        parts += [
            predictions_of(
                pd.DataFrame(share, index=list(split.test), columns=columns), incomes, split=split, model=name
            )
            for name, share in shares.items()
        ]
    return pd.concat(parts, ignore_index=True)


def train_on_everything(
    images: pd.DataFrame,
    incomes: pd.Series,
    folds: pd.DataFrame,
    *,
    head: str,
    training: TileTraining,
    checkpoint: Path,
) -> ImagewiseModel:
    """The network that is handed out: trained on all cells, less the blocks that say when to stop."""
    areas = tuple(sorted(folds.loc[folds["kind"] == "block", "area_id"]))
    split = Split(kind="block", fold=-1, train=areas, test=())
    return train_tiles(images, incomes, folds, split=split, config=tile_config(training, head), checkpoint=checkpoint)
