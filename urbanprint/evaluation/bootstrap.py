"""The bootstrap of whole groups: how sure a score of held-out predictions is.

What belongs here: which groups are drawn how often, what a draw of them sums to, and the interval of what follows from
the sums. Areas near each other, images of one drive and clusters of one region resemble each other, so whole groups are
drawn with replacement, never their members. Measures are in `scores`, `cluster_scores` and `geolocation.scores`.

A draw is a row of `weights` (draws, groups): how often each group is in it. Row 0 is the sample itself, each group
once, so that element 0 of whatever is computed of all draws is the score, and the others are its resamples.
"""

from functools import lru_cache

import numpy as np
import pandas as pd

from urbanprint.errors import InputError

OUTSIDE = 0.05
"""Share of the draws that lie outside an interval, half of it at each end."""


def with_units(predictions: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """The predictions with the column `unit`, the group of each area: its borough under borough folds, else its block.

    `folds` as `tables.FOLDS`. Raises `InputError` where an area that was predicted is not in the folds.
    """
    places = folds.drop_duplicates("area_id").set_index("area_id")
    if absent := sorted(set(predictions["area_id"]) - set(places.index)):
        raise InputError(
            f"{len(absent)} predicted areas, such as {absent[0]}, are not in the folds: score with theirs."
        )
    places = places.loc[predictions["area_id"]]
    by_borough = (predictions["kind"] == "borough").to_numpy()
    return predictions.assign(unit=np.where(by_borough, places["borough"], places["block"]))


def group_draws(groups: pd.Series, *, repeats: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The group of each row, numbered (n,), and `weights` (1 + repeats, groups); of a single group only row 0.

    A draw takes as many groups as there are, and follows from their number, `repeats` and `seed` alone: models judged
    on the same rows see the same draws, and what they share cancels out of their difference.
    """
    unit, names = pd.factorize(groups, sort=True)
    return unit, _weights(len(names), repeats, seed)


@lru_cache(maxsize=64)
def _weights(groups: int, repeats: int, seed: int) -> np.ndarray:
    if groups < 2:  # nothing to draw from: the value, without an interval
        return np.ones((1, groups))
    drawn = np.random.default_rng(seed).multinomial(groups, np.full(groups, 1 / groups), size=repeats)
    weights = np.vstack([np.ones(groups), drawn])
    weights.flags.writeable = False
    return weights


def draw_sums(terms: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sum over the rows of each draw of every column of `terms` (n, m): (draws, m).

    Summed within groups first, so that a draw costs m x groups, however many rows there are.
    """
    per_group = np.zeros((weights.shape[1], terms.shape[1]))
    np.add.at(per_group, unit, terms)
    return weights @ per_group


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
    """The ratio of two arrays of one shape, missing where the denominator vanishes up to rounding."""
    defined = denominator > 1e-12
    return np.where(defined, numerator / np.where(defined, denominator, 1.0), np.nan)


def r2(observed: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """R2 = 1 - SSE / SST of each draw (draws,), SST about the mean of the rows drawn; missing where SST is 0."""
    centred = observed - (observed.mean() if len(observed) else 0.0)  # SST as a difference of squares keeps its digits
    terms = np.stack([np.ones_like(centred), centred, centred**2, (observed - predicted) ** 2], axis=1)
    count, first, second, squared_error = draw_sums(terms, unit, weights).T
    return 1.0 - ratio(squared_error, second - ratio(first**2, count))


def pearson(observed: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Pearson correlation of each draw (draws,), missing for constants."""
    a, b = (values - (values.mean() if len(values) else 0.0) for values in (observed, predicted))
    count, sa, sb, saa, sbb, sab = draw_sums(np.stack([np.ones_like(a), a, b, a * a, b * b, a * b], 1), unit, weights).T
    covariance, variance_a, variance_b = (
        product - ratio(left * right, count) for product, left, right in ((sab, sa, sb), (saa, sa, sa), (sbb, sb, sb))
    )
    return ratio(covariance, np.sqrt(np.maximum(variance_a * variance_b, 0.0)))


def interval(values: np.ndarray, *, comparisons: int = 1) -> tuple[float, float, float]:
    """The score (element 0 of `values`, (draws,)) and the ends of its 95 % percentile interval; missing if undefined.

    Of several `comparisons`, all intervals hold together 95 % of the time where each leaves out `OUTSIDE` / comparisons
    (Bonferroni). Draws in which the score is undefined are left out.
    """
    resampled = values[1:][np.isfinite(values[1:])]
    below = OUTSIDE / 2 / comparisons
    low, high = np.quantile(resampled, (below, 1 - below)) if len(resampled) else (np.nan, np.nan)
    return float(values[0]), float(low), float(high)
