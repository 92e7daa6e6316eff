"""What a leak would be worth: the score of one learner under the forbidden split of images, beside the honest ones.

What belongs here: the demonstration only. Its forbidden score is labelled as such wherever it is shown, is produced
nowhere else, and never chooses a model.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from geopandas import GeoDataFrame

from urbanprint import tables
from urbanprint.errors import InputError, LeakingSplit
from urbanprint.evaluation.scores import score
from urbanprint.evaluation.splits import check_split, iter_splits, split_images

FORBIDDEN = "forbidden: image split"
"""The name under which the leaking score appears in every table."""

AUDIT_COLUMNS = ("split", "r2", "low", "high", "images", "areas", "refused_because")

Learner = Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
"""(training features (n, d), training labels (n,), test features (m, d)) -> predictions (m,), a row an image."""


@dataclass(frozen=True)
class Audit:
    """`table`: a row a split (`AUDIT_COLUMNS`), the forbidden first; `predictions`: `tables.PREDICTIONS` behind it."""

    table: pd.DataFrame
    predictions: pd.DataFrame


def leakage_audit(
    images: pd.DataFrame,
    features: np.ndarray,
    *,
    areas: GeoDataFrame | pd.DataFrame,
    folds: pd.DataFrame,
    indicator: str,
    learner: Learner,
    seed: int,
    repeats: int = 1000,
    buffer_m: float = 0.0,
) -> Audit:
    """R2 of `learner` under the forbidden split of images, and under every kind of fold in `folds`.

    `images` holds image_id, sequence_id and area_id, `features` a row for each of them, (images, d); images of areas
    that are not in `folds`, or have no published `indicator`, are left out. Learner, labels and scoring never change:
    the area's label is copied to each of its images, images are predicted one by one and averaged to their areas, and
    R2 over the areas has a block-bootstrap 95 % interval. Only the split differs: the forbidden one deals images at
    random into as many folds as there are random (or else the most) area folds, so other views of a test area train.

    `refused_because` is what `check_split` says to the first forbidden fold, and empty for the honest splits. The guard
    is shown, not bypassed: nothing but this function splits without it.

    Raises `InputError` where no area has two images, so that there is no leak to show.
    """
    if len(images) != len(features):
        raise InputError(f"There are {len(images)} images and {len(features)} rows of features: one row an image.")
    label = areas.set_index("area_id")[f"{indicator}_deprivation"].dropna()
    usable = (images["area_id"].isin(label.index) & images["area_id"].isin(folds["area_id"])).to_numpy()
    images, features = images[usable].reset_index(drop=True), np.asarray(features)[usable]
    targets = label.loc[images["area_id"]].to_numpy(dtype=float)

    def predict(train: pd.Index, test: pd.Index) -> pd.Series:
        predicted = learner(features[train], targets[train], features[test])
        return pd.Series(predicted, index=test, dtype=float)

    fold_of_image = _deal_images(folds, len(images), seed=seed)
    refusal, parts = "", []
    for k in range(fold_of_image.max() + 1):
        test = images[fold_of_image == k]
        train = images[fold_of_image != k]
        try:
            check_split(train, test, level="image")
        except LeakingSplit as leak:
            refusal = refusal or str(leak)
        parts.append(predict(train.index, test.index))
    if not refusal:
        raise InputError("No area has two images on different sides: there is no leak to show; use more views an area.")
    by_split = {FORBIDDEN: pd.concat(parts)}
    for kind in folds["kind"].unique():
        parts = []
        for split in iter_splits(folds, kind, buffer_m=buffer_m):
            train, test = split_images(split, images)
            if len(train) and len(test):
                parts.append(predict(train.index, test.index))
        by_split[kind] = pd.concat(parts)

    honest_fold = folds.set_index(["kind", "area_id"])["fold"]
    frames = []
    for name, predicted in by_split.items():
        of_area = predicted.groupby(images["area_id"]).mean()
        fold = 0 if name == FORBIDDEN else honest_fold[name].loc[of_area.index].to_numpy()
        frames.append(
            pd.DataFrame(
                {
                    "area_id": of_area.index,
                    "model": "audited",
                    "kind": name,
                    "fold": fold,
                    "indicator": indicator,
                    "observed": label.loc[of_area.index].to_numpy(dtype=float),
                    "predicted": of_area.to_numpy(),
                }
            )
        )
    predictions = tables.PREDICTIONS.validate(pd.concat(frames, ignore_index=True))
    # areas_ranked only scales mae_rank, which the audit does not show.
    scored = score(predictions, folds=folds, areas_ranked=2, repeats=repeats, seed=seed)
    table = scored[scored["measure"] == "r2"].rename(columns={"kind": "split", "value": "r2"})
    table = table.assign(
        images=[len(by_split[name]) for name in table["split"]],
        refused_because=[refusal if name == FORBIDDEN else "" for name in table["split"]],
    )
    return Audit(table=table[list(AUDIT_COLUMNS)].reset_index(drop=True), predictions=predictions)


def _deal_images(folds: pd.DataFrame, images: int, *, seed: int) -> np.ndarray:
    """A fold for each image at random, as many folds as the areas have."""
    counts = folds.groupby("kind")["fold"].nunique()
    count = int(counts.get("random", counts.max()))
    return np.random.default_rng(seed).permutation(images) % count
