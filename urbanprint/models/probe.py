"""The probe: frozen features, averaged over an area's views, and a ridge regression an indicator. No torch here.

The penalty is chosen by grouped inner folds of the training areas alone (nested selection), so that a probe fitted on
the training part of an outer fold has never seen what it is tested on.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from sklearn.model_selection import GroupKFold

from urbanprint.errors import InputError
from urbanprint.models.card import check_architecture, describe_labels, load_model, save_model

ALPHAS: tuple[float, ...] = tuple(np.logspace(-1, 6, 22))
"""Penalties tried; features are standardised, so they compare with the number of areas."""

_ARCHITECTURE = "probe"


def area_means(features: np.ndarray, area_ids: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Average the features (images, d) over the views of each area: (area_ids sorted, means (areas, d))."""
    areas, row = np.unique(np.asarray(area_ids, dtype=str), return_inverse=True)
    sums = np.zeros((len(areas), features.shape[1]), dtype=np.float64)
    np.add.at(sums, row, features)
    return areas, (sums / np.bincount(row, minlength=len(areas))[:, None]).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Probe:
    """A fitted probe. `coefficients` (k, d) and `intercepts` (k,) apply to raw features, `alphas` (k,) were chosen."""

    indicators: tuple[str, ...]
    coefficients: np.ndarray
    intercepts: np.ndarray
    alphas: np.ndarray

    def predict(self, features: np.ndarray) -> np.ndarray:
        """Deprivation in [0, 1] of shape (areas, k), columns as in `indicators`, from features (areas, d)."""
        if features.ndim != 2 or features.shape[1] != self.coefficients.shape[1]:
            raise InputError(
                f"the probe was fitted on {self.coefficients.shape[1]} features and got an array of shape "
                f"{features.shape}: embed the images with the backbone its card names."
            )
        return np.clip(features @ self.coefficients.T + self.intercepts, 0.0, 1.0)

    def save(self, folder: Path, card: Mapping[str, Any]) -> Path:
        """Write the probe as a model directory; architecture and labels are added to what `card` holds.

        Its `config` names the backbone, the weights and the image size the features came from.
        """
        tensors = {"coefficients": self.coefficients, "intercepts": self.intercepts, "alphas": self.alphas}
        own = {"architecture": _ARCHITECTURE, "labels": describe_labels(self.indicators)}
        return save_model(folder, tensors, {**card, **own})


def load_probe(folder: Path) -> Probe:
    """The probe in a model directory. Raises `InputError` or `MissingWeights` as `load_model` does."""
    tensors, card = load_model(folder)
    check_architecture(folder, card, _ARCHITECTURE)
    return Probe(indicators=tuple(card["labels"]), **tensors)


def _ridge_path(features: np.ndarray, labels: np.ndarray, alphas: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Ridge on standardised features for every penalty and each column of labels (n, k), from one decomposition.

    Returns coefficients (alphas, k, d) and intercepts (alphas, k), both for raw features. With standardised X = U S V',
    the solution is V diag(s / (s^2 + alpha)) U'y (Hastie, Tibshirani and Friedman, 2009, eq. 3.47).
    """
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0.0] = 1.0  # a constant feature carries nothing and gets a coefficient of 0
    u, s, vt = np.linalg.svd((features - centre) / spread, full_matrices=False)
    mean = labels.mean(axis=0)
    shrunk = s / (s**2 + alphas[:, None, None]) * ((labels - mean).T @ u)
    coefficients = shrunk @ vt / spread
    return coefficients, mean - coefficients @ centre


def _chosen(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, alphas: np.ndarray, folds: int
) -> np.ndarray:
    """The penalty (k,) with the least squared error over all held-out rows of the grouped inner folds."""
    squared_error = np.zeros((len(alphas), labels.shape[1]))
    for train, test in GroupKFold(n_splits=min(folds, len(np.unique(groups)))).split(features, groups=groups):
        coefficients, intercepts = _ridge_path(features[train], labels[train], alphas)
        predicted = np.einsum("nd,akd->nak", features[test], coefficients, optimize=True) + intercepts
        squared_error += ((predicted - labels[test, None, :]) ** 2).sum(axis=0)
    return alphas[squared_error.argmin(axis=0)]


def fit_probe(
    features: np.ndarray,
    labels: pd.DataFrame,
    groups: Sequence[str],
    *,
    alphas: Sequence[float] = ALPHAS,
    folds: int = 5,
) -> Probe:
    """Fit one ridge an indicator on the areas that have its label.

    `features` is (areas, d), `labels` has a row an area and a column an indicator with NaN where unknown, `groups`
    says for each area what must stay together in the inner folds (its borough or block under such outer folds, else
    the area itself). The penalty with the least squared error over all inner held-out areas wins.

    Raises `InputError` for an indicator labelled in fewer than two groups.
    """
    x, together = np.asarray(features, dtype=np.float64), np.asarray(groups, dtype=str)
    if not len(x) == len(labels) == len(together):
        raise ValueError(f"features, labels and groups have {len(x)}, {len(labels)} and {len(together)} rows")
    y = labels.to_numpy(dtype=np.float64)
    known = np.isfinite(y)
    for column, indicator in enumerate(labels.columns):
        if len(np.unique(together[known[:, column]])) < 2:
            raise InputError(
                f"indicator {indicator!r} is known in {known[:, column].sum()} areas of fewer than two groups, too few "
                f"to choose a penalty: leave it out, or sample more areas."
            )
    coefficients, intercepts = np.empty((y.shape[1], x.shape[1])), np.empty(y.shape[1])
    chosen = np.empty(y.shape[1])
    # Indicators known in the same areas share one decomposition a fold: 8 times faster for the eight of England.
    patterns, pattern_of = np.unique(known, axis=1, return_inverse=True)
    for number, rows in enumerate(patterns.T):
        columns = np.flatnonzero(pattern_of == number)
        fx, fy = x[rows], y[np.ix_(rows, columns)]
        chosen[columns] = _chosen(fx, fy, together[rows], alphas=np.asarray(alphas), folds=folds)
        for alpha in np.unique(chosen[columns]):
            at = columns[chosen[columns] == alpha]
            slope, offset = _ridge_path(fx, y[np.ix_(rows, at)], np.array([alpha]))
            coefficients[at], intercepts[at] = slope[0], offset[0]
    return Probe(indicators=tuple(labels.columns), coefficients=coefficients, intercepts=intercepts, alphas=chosen)
