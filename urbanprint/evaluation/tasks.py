"""The two questions asked of a survey cluster, and labels that know nothing of what they test.

What belongs here: how an indicator becomes the label of a task, and the guard over it. A class is a cut at the median
of the TRAINING part. A cut at the median of all clusters tells training where the test values lie, and it is how the
published lists were labelled.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd

from urbanprint.errors import InputError, LeakingSplit
from urbanprint.evaluation.splits import Split
from urbanprint.vocabulary import LIVELIHOODS

Task = Literal["classification", "regression"]


@dataclass(frozen=True, kw_only=True)
class MedianCut:
    """Where the classes part: `medians` by indicator, in its units, and the clusters they were taken from."""

    medians: pd.Series
    fitted_on: frozenset[str]


def cluster_labels(clusters: pd.DataFrame, indicators: Sequence[str] = tuple(LIVELIHOODS)) -> pd.DataFrame:
    """The indicators of `tables.CLUSTERS`, indexed by area_id; those that no cluster has are left out."""
    labels = clusters.set_index("area_id")[list(indicators)].astype(float)
    return labels.loc[:, labels.notna().any(axis=0)]


def median_cut(labels: pd.DataFrame, area_ids: Collection[str]) -> MedianCut:
    """The medians of the clusters named; `labels` is indexed by area_id, a column an indicator, NaN where unknown.

    Raises `InputError` for an indicator that none of these clusters has.
    """
    medians = labels.loc[sorted(area_ids)].median()
    if (unknown := medians.isna()).any():
        raise InputError(
            f"None of the {len(area_ids)} training clusters has a value of '{medians.index[unknown][0]}', so there is"
            " no median to cut it at: leave the indicator out here."
        )
    return MedianCut(medians=medians, fitted_on=frozenset(area_ids))


def classify(labels: pd.DataFrame, cut: MedianCut, *, split: Split) -> pd.DataFrame:
    """Labels as classes: 1.0 at or above the cut, 0.0 below, NaN where unknown.

    Raises `LeakingSplit` if the cut was made with a cluster that `split` does not train on, its test clusters above
    all; their values would then have moved the labels.
    """
    if outside := sorted(cut.fitted_on - set(split.train)):
        tested = len(set(outside) & set(split.test))
        raise LeakingSplit(
            f"The labels leak: their median was taken over {len(outside)} clusters outside the training part of fold"
            f" {split.fold} ({split.kind}), {tested} of them test clusters, such as {outside[0]}; cut at the median of"
            " split.train alone, as task_labels does."
        )
    return (labels >= cut.medians).astype(float).where(labels.notna())


def task_labels(labels: pd.DataFrame, split: Split, *, task: Task) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Labels of the training and of the test clusters for a task, in the order of `split.train` and `split.test`.

    Regression: the values. Classification: 1.0 at or above the median of the training clusters, for both sides.
    """
    if task == "classification":
        labels = classify(labels, median_cut(labels, split.train), split=split)
    return labels.loc[list(split.train)], labels.loc[list(split.test)]


def check_classes(classes: pd.DataFrame, labels: pd.DataFrame, *, split: Split) -> None:
    """Raise `LeakingSplit` unless classes made elsewhere are those of the training median of `split`.

    `classes` (0.0, 1.0, NaN) and `labels` (the values) are indexed by area_id with the same columns. This is how
    published columns such as `pov_label` are judged: cut at the median of all clusters, they differ for those between
    the two medians.
    """
    columns = list(classes.columns)
    sides = [*split.train, *split.test]
    expected = classify(labels[columns], median_cut(labels[columns], split.train), split=split).loc[sides]
    given = classes.loc[sides]
    differs = given.to_numpy() != expected.to_numpy()
    differs &= ~(given.isna() & expected.isna()).to_numpy()
    if differs.any():
        row, column = np.argwhere(differs)[0]
        raise LeakingSplit(
            f"The classes of '{columns[column]}' leak: {int(differs[:, column].sum())} clusters, such as {sides[row]},"
            f" are not on the side of the median of the training part of fold {split.fold} ({split.kind}); drop these"
            " labels and cut the values anew, as task_labels does."
        )
