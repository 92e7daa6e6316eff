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
    """Coefficients (alphas, d) and intercepts (alphas,) on raw features for every penalty, from one decomposition.

    With standardised X = U S V', the ridge solution is V diag(s / (s^2 + alpha)) U'y (Hastie et al., 2009, eq. 3.47).
    """
    centre, spread = features.mean(axis=0), features.std(axis=0)
    spread[spread == 0.0] = 1.0  # a constant feature carries nothing and gets a coefficient of 0
    u, s, vt = np.linalg.svd((features - centre) / spread, full_matrices=False)
    shrunk = s / (s**2 + alphas[:, None]) * (u.T @ (labels - labels.mean()))
    coefficients = shrunk @ vt / spread
    return coefficients, labels.mean() - coefficients @ centre


def _fit_indicator(
    features: np.ndarray, labels: np.ndarray, groups: np.ndarray, *, alphas: np.ndarray, folds: int
) -> tuple[np.ndarray, float, float]:
    squared_error = np.zeros(len(alphas))
    for train, test in GroupKFold(n_splits=min(folds, len(np.unique(groups)))).split(features, groups=groups):
        coefficients, intercepts = _ridge_path(features[train], labels[train], alphas)
        squared_error += ((features[test] @ coefficients.T + intercepts - labels[test, None]) ** 2).sum(axis=0)
    chosen = alphas[np.argmin(squared_error)]
    coefficients, intercepts = _ridge_path(features, labels, np.array([chosen]))
    return coefficients[0], float(intercepts[0]), float(chosen)


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
    fitted = []
    for indicator in labels.columns:
        y = labels[indicator].to_numpy(dtype=np.float64)
        known = np.isfinite(y)
        if len(np.unique(together[known])) < 2:
            raise InputError(
                f"indicator {indicator!r} is known in {known.sum()} areas of fewer than two groups, too few to choose "
                f"a penalty: leave it out, or sample more areas."
            )
        fitted.append(_fit_indicator(x[known], y[known], together[known], alphas=np.asarray(alphas), folds=folds))
    coefficients, intercepts, chosen = zip(*fitted, strict=True)
    return Probe(
        indicators=tuple(labels.columns),
        coefficients=np.stack(coefficients),
        intercepts=np.array(intercepts),
        alphas=np.array(chosen),
    )
