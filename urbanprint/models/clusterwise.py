"""The cluster-wise model: object counts summed over a cluster, and the tabular learner that suits them best.

Belongs here: which methods and settings are tried, the choice among them inside the training part, the fitted model.
How counts are summed is in `scenes.clusters`.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from sklearn.base import BaseEstimator
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
    RandomForestRegressor,
)
from sklearn.impute import SimpleImputer
from sklearn.model_selection import GroupKFold
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler

from urbanprint.errors import InputError
from urbanprint.evaluation.crossfit import Learner
from urbanprint.evaluation.splits import Split, inner_groups
from urbanprint.evaluation.tasks import Task, task_labels
from urbanprint.scenes.clusters import IMAGES
from urbanprint.vocabulary import CLUSTERWISE_METHODS

SETTINGS: dict[str, tuple[dict[str, Any], ...]] = {
    "k-NN": tuple({"n_neighbors": k} for k in (3, 5, 10, 20, 40)),
    "random forest": tuple({"min_samples_leaf": leaf, "max_features": 1 / 3} for leaf in (2, 8)),
    "boosted trees": tuple({"max_iter": rounds, "max_leaf_nodes": 6, "learning_rate": 0.06} for rounds in (40, 120)),
}
"""Method -> the settings tried; few, because every one is fitted in every inner fold."""

INNER_FOLDS = 3
TREES = 100
_MANY = 2000  # clusters from which threads pay for being started

Counts = pd.DataFrame | Callable[[pd.DataFrame], pd.DataFrame]
"""Features of clusters (`scenes.clusters.cluster_counts`), or what makes them from the images of a side of a split."""


@dataclass(frozen=True, eq=False, kw_only=True)
class ClusterwiseModel:
    """What was chosen and fitted for one indicator.

    `error` is the mean squared error (of probabilities: the Brier score) over the inner held-out clusters, `tried`
    that of every candidate: method, settings, error.
    """

    indicator: str
    task: Task
    method: str
    settings: dict[str, Any]
    error: float
    tried: pd.DataFrame
    columns: tuple[str, ...]
    estimator: BaseEstimator

    def predict(self, counts: pd.DataFrame) -> np.ndarray:
        """Predictions (clusters,): in the indicator's units, or the probability of label 1."""
        return _predict(self.estimator, _matrix(counts, self.columns))


def clusterwise_learner(
    counts: Counts,
    labels: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    task: Task,
    candidates: Sequence[str] = CLUSTERWISE_METHODS,
    seed: int,
    on_model: Callable[[Split, ClusterwiseModel], object] | None = None,
) -> Learner:
    """The best of `candidates` on cluster counts, chosen for each indicator by grouped folds of the training clusters.

    `labels` is indexed by area_id, a column an indicator (NaN = unknown). `counts` is a table of features, or better a
    function of images, `partial(cluster_counts, scenes)`: a training cluster that lost images to the guard, because a
    drive crosses into a test cluster, is then summed over those it has left; with a table it is left out, for its sums
    hold them. `on_model` is given each fitted model, and so learns what was chosen.

    Raises `InputError` for an unknown candidate and for too few labelled clusters to choose on.
    """
    if unknown := [name for name in candidates if name not in SETTINGS]:
        raise InputError(f"unknown cluster-wise method {unknown[0]!r}: use some of {', '.join(SETTINGS)}.")

    def learn(split: Split, training: pd.DataFrame, testing: pd.DataFrame) -> pd.DataFrame:
        features, wanted = _features(counts, training), _features(counts, testing)
        targets, _ = task_labels(labels, split, task=task)
        group_of = pd.Series(inner_groups(split, folds), index=list(split.train))
        present = [area for area in split.train if area in features.index]
        predicted = {}
        for indicator in labels.columns:
            known = targets.loc[present, indicator].dropna()
            model = choose(
                features.loc[known.index],
                known,
                group_of.loc[known.index].to_numpy(dtype=object),
                task=task,
                candidates=candidates,
                seed=seed,
            )
            if on_model is not None:
                on_model(split, model)
            predicted[indicator] = model.predict(wanted)
        return pd.DataFrame(predicted, index=wanted.index)

    return learn


def choose(
    features: pd.DataFrame,
    target: pd.Series,
    groups: np.ndarray,
    *,
    task: Task,
    candidates: Sequence[str] = CLUSTERWISE_METHODS,
    seed: int,
) -> ClusterwiseModel:
    """Fit the candidate with the least squared error over the inner held-out clusters, on all clusters given.

    `features` and `target` (NaN-free, named after its indicator) have a row a cluster; `groups` says which clusters
    stay together in the inner folds. Raises `InputError` for fewer than two groups, or labels of one class only.
    """
    number = len(np.unique(groups.astype(str)))
    if number < 2 or (task == "classification" and target.nunique() < 2):
        raise InputError(
            f"indicator {target.name!r} is known in {len(target)} training clusters of {number} groups and "
            f"{target.nunique()} labels, too few to choose a method on: leave it out, or add clusters."
        )
    columns = tuple(features.columns)
    x, y = _matrix(features, columns), target.to_numpy(dtype=float)
    inner = list(GroupKFold(n_splits=min(INNER_FOLDS, number)).split(x, groups=groups.astype(str)))
    tried: list[dict[str, Any]] = []
    for method, settings in _candidates(candidates):
        squared = 0.0
        for train, test in inner:
            fitted = _estimator(method, settings, task=task, rows=len(train), seed=seed).fit(x[train], y[train])
            squared += float(((_predict(fitted, x[test]) - y[test]) ** 2).sum())
        tried.append({"method": method, "settings": settings, "error": squared / len(y)})
    best = min(tried, key=lambda candidate: float(candidate["error"]))
    estimator = _estimator(best["method"], best["settings"], task=task, rows=len(y), seed=seed).fit(x, y)
    return ClusterwiseModel(
        indicator=str(target.name),
        task=task,
        method=best["method"],
        settings=best["settings"],
        error=best["error"],
        tried=pd.DataFrame(tried),
        columns=columns,
        estimator=estimator,
    )


def _candidates(names: Sequence[str]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in names:
        for settings in SETTINGS[name]:
            yield name, settings


def _estimator(method: str, settings: dict[str, Any], *, task: Task, rows: int, seed: int) -> BaseEstimator:
    classify = task == "classification"
    if method == "k-NN":
        # Counts grow by factors, and distance needs one scale; no more neighbours than there are clusters.
        kind = KNeighborsClassifier if classify else KNeighborsRegressor
        neighbours = kind(n_neighbors=min(settings["n_neighbors"], rows), weights="distance")
        impute = SimpleImputer(strategy="median", keep_empty_features=True)
        return make_pipeline(impute, FunctionTransformer(np.log1p), StandardScaler(), neighbours)
    if method == "random forest":
        kind = RandomForestClassifier if classify else RandomForestRegressor
        return kind(n_estimators=TREES, random_state=seed, n_jobs=-1 if rows >= _MANY else None, **settings)
    kind = HistGradientBoostingClassifier if classify else HistGradientBoostingRegressor
    return kind(random_state=seed, early_stopping=False, min_samples_leaf=min(20, max(1, rows // 10)), **settings)


def _predict(estimator: BaseEstimator, x: np.ndarray) -> np.ndarray:
    """Values, or the probability of label 1; an inner fold can hold one class only, which is then certain."""
    if not hasattr(estimator, "classes_"):
        values: np.ndarray = estimator.predict(x)
        return values
    probability = np.zeros(len(x))
    for column, label in enumerate(estimator.classes_):
        probability += label * estimator.predict_proba(x)[:, column]
    return probability


def _features(counts: Counts, images: pd.DataFrame) -> pd.DataFrame:
    """Features of the clusters of `images`; from a table, of those whose images are all there."""
    if callable(counts):
        return counts(images)
    here = images["area_id"].value_counts()
    known = counts.loc[counts.index.isin(here.index)]
    return known[known[IMAGES] == here.reindex(known.index)]


def _matrix(counts: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """The columns a model was fitted on; a class that a side has nowhere seen was counted 0 times there."""
    return counts.reindex(columns=list(columns), fill_value=0.0).to_numpy(dtype=float)
