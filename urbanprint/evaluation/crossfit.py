"""Held-out predictions of a learner: trained once a fold, asked only about areas and images it never saw.

The one place where a model meets the folds. A learner knows nothing of folds; the folds know nothing of models.
"""

from collections.abc import Callable, Sequence

import pandas as pd

from urbanprint import tables
from urbanprint.errors import MissingImages
from urbanprint.evaluation.splits import Split, iter_splits, split_images

Learner = Callable[[Split, pd.DataFrame, pd.DataFrame], pd.DataFrame]
"""(split, training images, test images) -> predictions: indexed by area_id, a column an indicator, values in [0, 1]."""


def cross_fit(
    learner: Learner,
    *,
    model: str,
    images: pd.DataFrame,
    areas: pd.DataFrame,
    folds: pd.DataFrame,
    indicators: Sequence[str],
    buffer_m: float,
    progress: Callable[[str, int, int], None] | None = None,
) -> pd.DataFrame:
    """Return the held-out predictions (`tables.PREDICTIONS`) of `learner` under every kind of fold.

    `images` has a row a fetched image: image_id, sequence_id, sha256, area_id. Training images that share a sequence
    with a test image are left out. Raises `LeakingSplit` if a split leaks and `MissingImages` if an area of the folds
    was not predicted.
    """
    observed = areas.set_index("area_id")[[f"{indicator}_deprivation" for indicator in indicators]]
    observed.columns = pd.Index(indicators)
    splits = [split for kind in folds["kind"].unique() for split in iter_splits(folds, kind, buffer_m=buffer_m)]
    parts = []
    for done, split in enumerate(splits):
        if progress is not None:
            progress(f"{model}: {split.kind} fold {split.fold}", done, len(splits))
        train, test = split_images(split, images)
        predicted = learner(split, train, test)
        absent = set(split.test) - set(predicted.index)
        if absent:
            raise MissingImages(
                f"{model} predicted nothing for {len(absent)} areas of {split.kind} fold {split.fold}, "
                f"{min(absent)} among them: every area of the folds needs at least one image"
            )
        predicted = predicted.loc[list(split.test), list(indicators)].astype(float)
        part = (
            predicted.rename_axis("area_id").reset_index().melt("area_id", var_name="indicator", value_name="predicted")
        )
        part["observed"] = observed.loc[predicted.index].melt()["value"]
        parts.append(part.assign(model=model, kind=split.kind, fold=split.fold))
    if progress is not None:
        progress(model, len(splits), len(splits))
    columns = list(tables.PREDICTIONS.columns)
    return tables.PREDICTIONS.validate(pd.concat(parts, ignore_index=True)[columns])
