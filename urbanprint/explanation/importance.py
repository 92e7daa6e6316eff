"""What a cluster-wise model looks at: permutation importance on held-out clusters, and which classes come together.

Belongs here: by how much held-out predictions get worse when a class is shuffled, how sure that is, and the groups of
classes that stand in for each other. Shuffling one of two correlated classes says little, for the other still tells:
so groups are shuffled as a whole too. A tree that can be read is in `tree`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy.cluster.hierarchy import fcluster, linkage
from scipy.spatial.distance import squareform
from scipy.stats import rankdata

from urbanprint.errors import InputError
from urbanprint.evaluation.tasks import Task
from urbanprint.scenes.clusters import columns_of_classes

IMPORTANCE_COLUMNS = ("name", "value", "low", "high", "classes", "clusters", "units")

SHUFFLES = 20
TOGETHER = 0.7
"""Classes are one group where the rank correlations between them are at least this, on average."""

_INTERVAL = (0.025, 0.975)


@dataclass(frozen=True, eq=False, kw_only=True)
class HeldOut:
    """A fitted model and the clusters of a fold it never saw.

    `predict` maps features to predictions (clusters,); `features` and `observed` are indexed by area_id.
    """

    predict: Callable[[pd.DataFrame], np.ndarray]
    features: pd.DataFrame
    observed: pd.Series


def permutation_importance(
    parts: Sequence[HeldOut],
    members: Mapping[str, Sequence[str]],
    *,
    task: Task,
    unit_of: Mapping[str, str] | None = None,
    repeats: int = 1000,
    seed: int,
) -> pd.DataFrame:
    """By how much held-out scores fall when classes are shuffled among the held-out clusters (`IMPORTANCE_COLUMNS`).

    `members` says which classes are shuffled together, name -> classes (`each_class`, `correlated_groups`); all columns
    of a class, its count and its fraction, move as one, and all clusters of a fold exchange them, `SHUFFLES` times.
    The value is the fall of R2 (regression: the rise of the squared error over the variance of the observed values) or
    of the accuracy (classification), most important first. A negative one is noise.

    `low` and `high` are the 2.5 and 97.5 % percentiles of a bootstrap over the clusters of all parts, or over whole
    units where `unit_of` names the block or region of each. The models are not trained again, so that the interval is
    that of these models' use of a class, not of what another sample would have taught.

    Fisher, Rudin and Dominici 2019, "All models are wrong, but many are useful", JMLR 20 (177).

    Raises `InputError` where no part has an observed cluster.
    """
    scored = [_observed(part) for part in parts]
    area_ids = np.concatenate([part.observed.index.to_numpy(dtype=object) for part in scored])
    if not len(area_ids):
        raise InputError("no held-out cluster has an observed value: there is nothing to measure importance on.")
    units, names = pd.factorize(pd.Series([unit_of[area] for area in area_ids] if unit_of else area_ids))
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=repeats)
    weights = np.vstack([np.ones(len(names)), drawn])
    y = np.concatenate([part.observed.to_numpy(dtype=float) for part in scored])
    before = [_loss(part.predict(part.features), part.observed.to_numpy(dtype=float), task) for part in scored]
    rows = []
    for number, (name, classes) in enumerate(members.items()):
        rise = np.concatenate(
            [
                _shuffled_loss(part, classes, task=task, rng=np.random.default_rng([seed, fold, number])) - loss
                for fold, (part, loss) in enumerate(zip(scored, before, strict=True))
            ]
        )
        values = _falls(rise, y, units, weights, task=task)
        low, high = np.quantile(values[1:], _INTERVAL) if len(names) > 1 else (np.nan, np.nan)
        rows.append((name, values[0], low, high, ", ".join(classes), len(y), len(names)))
    table = pd.DataFrame(rows, columns=list(IMPORTANCE_COLUMNS))
    return table.sort_values("value", ascending=False, kind="stable", ignore_index=True)


def each_class(features: pd.DataFrame) -> dict[str, tuple[str, ...]]:
    """Every class of the features by itself, for `permutation_importance`."""
    return {name: (name,) for name in columns_of_classes(features.columns)}


def correlated_groups(training: Sequence[pd.DataFrame], *, together: float = TOGETHER) -> dict[str, tuple[str, ...]]:
    """Groups of classes that stand in for each other: name -> classes, the largest group first.

    `training` holds the features of the training clusters of each fold; their absolute rank correlations are averaged,
    so that the groups know no label and no fold's test part alone decides. Clusters by average linkage on
    1 - |Spearman| are cut at 1 - `together`. A class with a count and a fraction stands for the mean of both ranks.
    """
    classes = list(dict.fromkeys(name for table in training for name in columns_of_classes(table.columns)))
    if len(classes) < 2:
        return {name: (name,) for name in classes}
    alike = np.mean([_rank_correlation(table, classes) for table in training], axis=0)
    np.fill_diagonal(alike, 1.0)
    tree = linkage(squareform(np.clip(1.0 - alike, 0.0, 1.0), checks=False), method="average")
    cluster = fcluster(tree, t=1.0 - together, criterion="distance")
    found = [tuple(classes[i] for i in np.flatnonzero(cluster == number)) for number in np.unique(cluster)]
    return {_group_name(group): group for group in sorted(found, key=lambda group: (-len(group), group))}


def _observed(part: HeldOut) -> HeldOut:
    known = part.observed.index[part.observed.notna()]
    return HeldOut(predict=part.predict, features=part.features.loc[known], observed=part.observed.loc[known])


def _loss(predicted: np.ndarray, observed: np.ndarray, task: Task) -> np.ndarray:
    if task == "classification":
        return ((predicted >= 0.5) != (observed >= 0.5)).astype(float)
    return (predicted - observed) ** 2


def _shuffled_loss(part: HeldOut, classes: Sequence[str], *, task: Task, rng: np.random.Generator) -> np.ndarray:
    """Mean loss of each cluster (n,) over the shuffles; one call of the model for all of them."""
    belonging = columns_of_classes(part.features.columns)
    moved = [column for name in classes for column in belonging.get(name, [])]
    columns = part.features.columns.get_indexer(pd.Index(moved))
    values, n = part.features.to_numpy(dtype=float), len(part.features)
    if not moved or not n:
        return _loss(part.predict(part.features), part.observed.to_numpy(dtype=float), task)
    stacked = np.tile(values, (SHUFFLES, 1))
    for turn in range(SHUFFLES):
        stacked[turn * n : (turn + 1) * n][:, columns] = values[np.ix_(rng.permutation(n), columns)]
    predicted = part.predict(pd.DataFrame(stacked, columns=part.features.columns)).reshape(SHUFFLES, n)
    return _loss(predicted, part.observed.to_numpy(dtype=float), task).mean(axis=0)


def _falls(rise: np.ndarray, y: np.ndarray, units: np.ndarray, weights: np.ndarray, *, task: Task) -> np.ndarray:
    """The fall of the score in each draw (draws,): the mean rise of the loss, over the variance for a regression."""
    centred = y - y.mean()
    per_unit = np.zeros((weights.shape[1], 4))
    np.add.at(per_unit, units, np.column_stack([np.ones_like(y), rise, centred, centred**2]))
    count, risen, first, second = (weights @ per_unit).T
    if task == "classification":
        return risen / count
    spread = second - first**2 / count
    return risen / np.where(spread > 1e-12, spread, np.nan)


def _rank_correlation(table: pd.DataFrame, classes: Sequence[str]) -> np.ndarray:
    """Absolute Spearman correlation between classes (k, k); 0 for a class that does not vary, or is absent."""
    belonging = columns_of_classes(table.columns)
    ranks = np.zeros((len(table), len(classes)))
    for position, name in enumerate(classes):
        own = [rankdata(table[column].fillna(0.0)) for column in belonging.get(name, [])]
        ranks[:, position] = np.mean(own, axis=0) if own else 0.0
    ranks -= ranks.mean(axis=0)
    length = np.linalg.norm(ranks, axis=0)
    unit = ranks / np.where(length > 0, length, 1.0)
    return np.abs(unit.T @ unit)


def _group_name(group: Sequence[str]) -> str:
    more = f" and {len(group) - 3} more" if len(group) > 3 else ""
    return " + ".join(group[:3]) + more
