"""What a survey map without pictures would score: learners that look at no image.

What belongs here: baselines from labels, positions and the urban flag, each in the shape of any other learner, so that
`cross_fit_clusters` runs them under the same folds. Coordinates and an urban flag alone have beaten published results
of street images on Kenyan poverty.
"""

from collections.abc import Iterator

import numpy as np
import pandas as pd
from scipy.spatial import cKDTree
from sklearn.ensemble import RandomForestRegressor
from sklearn.model_selection import GroupKFold

from urbanprint.errors import InputError
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split, inner_groups
from urbanprint.evaluation.tasks import Task, task_labels
from urbanprint.vocabulary import CLUSTER_BASELINES

NEIGHBOURS: tuple[int, ...] = (1, 2, 3, 5, 8, 12, 20, 30, 50, 80)
"""Numbers of neighbours tried."""

LEAVES: tuple[int, ...] = (5, 15, 50)
"""Least numbers of training clusters in a leaf of the forest tried."""

_TREES = 50
_TREES_TO_CHOOSE = 15  # enough to tell leaf sizes apart, at a third of the time
_INNER_FOLDS = 3


def cluster_baselines(clusters: pd.DataFrame) -> tuple[str, ...]:
    """The baselines these clusters allow: those with the urban flag need it known for every cluster."""
    known = clusters["urban"].notna().all()
    return tuple(name for name in CLUSTER_BASELINES if known or "urban" not in name)


def baseline_learner(
    name: str, clusters: pd.DataFrame, labels: pd.DataFrame, folds: pd.DataFrame, *, task: Task, seed: int
) -> Learner:
    """A baseline (one of `CLUSTER_BASELINES`) as a learner; images are ignored.

    - `random`: classification, a probability drawn at random; regression, the value of a training cluster at random;
    - `prior`: the training mean (for classification the share of 1, at least one half by the cut at the median);
    - `country`: the training mean of the cluster's country, the prior where the country does not train;
    - `neighbours`: the unweighted mean of the k nearest training clusters in projected metres;
    - `coordinates`, `urban`, `coordinates_urban`: a random forest of 50 trees on the projected position, the urban
      flag, or both, for classification on the classes 0 and 1, so that it predicts probabilities.

    k (`NEIGHBOURS`) and the leaf size (`LEAVES`) are those with the least squared error in three inner folds of the
    training part, made as the outer ones are: whole places under random folds, else whole blocks or countries. The
    inner folds have no buffer.

    `labels` is indexed by area_id, a column an indicator; clusters without it do not train on it. Raises `InputError`
    for an unknown name, an urban flag that is not known for all clusters, and an indicator nobody trains on.
    """
    if name not in CLUSTER_BASELINES:
        raise InputError(f"'{name}' is not a baseline: use one of {', '.join(CLUSTER_BASELINES)}.")
    table = clusters.set_index("area_id").loc[labels.index]
    if "urban" in name and (unknown := table["urban"].isna()).any():
        raise InputError(
            f"{int(unknown.sum())} clusters, such as {table.index[unknown][0]}, have no urban flag: leave the baseline"
            f" '{name}' out, or these clusters."
        )
    places = folds.drop_duplicates("area_id").set_index("area_id")[["x_m", "y_m"]]
    features = places.loc[labels.index]
    if "urban" in name:
        flag = table[["urban"]].astype(float)
        features = flag if name == "urban" else features.join(flag)

    def learn(split: Split, _training: pd.DataFrame, _testing: pd.DataFrame) -> pd.DataFrame:
        rng = np.random.default_rng([seed, split.fold])
        known, _ = task_labels(labels, split, task=task)
        groups = pd.Series(_inner_groups(split, folds), index=list(split.train))
        x_test = features.loc[list(split.test)].to_numpy()
        predicted = {}
        for indicator in labels.columns:
            y = known[indicator].dropna()
            if y.empty:
                raise InputError(f"No training cluster of fold {split.fold} ({split.kind}) has '{indicator}'.")
            x, target, group = features.loc[y.index].to_numpy(), y.to_numpy(), groups.loc[y.index].to_numpy()
            if name == "random":
                size = len(split.test)
                predicted[indicator] = rng.random(size) if task == "classification" else rng.choice(target, size)
            elif name == "prior":
                predicted[indicator] = np.full(len(split.test), target.mean())
            elif name == "country":
                means = y.groupby(table.loc[y.index, "country"]).mean()
                predicted[indicator] = table.loc[list(split.test), "country"].map(means).fillna(y.mean()).to_numpy()
            elif name == "neighbours":
                count = _chosen_neighbours(x, target, group)
                predicted[indicator] = _running_means(x, target, x_test, count)[:, -1]
            else:
                predicted[indicator] = _forest(x, target, x_test, leaf=_chosen_leaf(x, target, group, seed), seed=seed)
        return pd.DataFrame(predicted, index=list(split.test))

    return learn


def _inner_groups(split: Split, folds: pd.DataFrame) -> np.ndarray:
    """What stays together in the inner folds. Under random folds it is the place alone, as outside: choosing k on held
    out blocks there would weaken the very rival that random folds favour."""
    if split.kind != "random":
        return inner_groups(split, folds)
    here = folds[folds["kind"] == "random"].set_index("area_id").loc[list(split.train)]
    return here.groupby(["x_m", "y_m"]).ngroup().to_numpy()


def _inner_folds(groups: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    units = len(np.unique(groups))
    if units < 2:
        raise InputError(
            "The training clusters lie in one block, so nothing can be chosen inside: use a smaller block_m."
        )
    return GroupKFold(n_splits=min(_INNER_FOLDS, units)).split(groups, groups=groups)


def _running_means(x: np.ndarray, y: np.ndarray, targets: np.ndarray, most: int) -> np.ndarray:
    """Mean of the 1, 2, ... `most` nearest (or all there are): (targets, min(most, n))."""
    most = min(most, len(y))
    nearest = cKDTree(x).query(targets, k=np.arange(1, most + 1))[1]
    return y[nearest].cumsum(axis=1) / np.arange(1, most + 1)


def _chosen_neighbours(x: np.ndarray, y: np.ndarray, groups: np.ndarray) -> int:
    squared_error = np.zeros(len(NEIGHBOURS))
    for train, test in _inner_folds(groups):
        means = _running_means(x[train], y[train], x[test], max(NEIGHBOURS))
        columns = np.minimum(NEIGHBOURS, means.shape[1]) - 1
        squared_error += ((means[:, columns] - y[test, None]) ** 2).sum(axis=0)
    return NEIGHBOURS[int(squared_error.argmin())]


def _forest(
    x: np.ndarray, y: np.ndarray, targets: np.ndarray, *, leaf: int, seed: int, trees: int = _TREES
) -> np.ndarray:
    forest = RandomForestRegressor(trees, min_samples_leaf=leaf, random_state=seed)
    return forest.fit(x, y).predict(targets)


def _chosen_leaf(x: np.ndarray, y: np.ndarray, groups: np.ndarray, seed: int) -> int:
    squared_error = np.zeros(len(LEAVES))
    for train, test in _inner_folds(groups):
        for column, leaf in enumerate(LEAVES):
            predicted = _forest(x[train], y[train], x[test], leaf=leaf, seed=seed, trees=_TREES_TO_CHOOSE)
            squared_error[column] += ((predicted - y[test]) ** 2).sum()
    return LEAVES[int(squared_error.argmin())]
