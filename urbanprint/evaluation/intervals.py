"""An interval for every area's prediction, and how often such intervals hold what they promise.

What belongs here: prediction intervals from held-out residuals, and their measured coverage. Intervals of scores are in
`scores`.
"""

import numpy as np
import pandas as pd

from urbanprint.errors import InputError

FEWEST_AREAS_OF_A_BOROUGH = 5
"""A borough with fewer scored areas does not count as the worst covered: its share would be noise."""

INTERVAL_COLUMNS = ("area_id", "model", "kind", "indicator", "level", "low", "high")
COVERAGE_COLUMNS = (
    "model",
    "kind",
    "indicator",
    "level",
    "coverage",
    "mean_width",
    "areas",
    "worst_borough",
    "worst_borough_coverage",
)


def conformal(predictions: pd.DataFrame, *, folds: pd.DataFrame, level: float = 0.9) -> pd.DataFrame:
    """Intervals meant to hold a share `level` of the true values, a row a prediction (`INTERVAL_COLUMNS`), in [0, 1].

    Cross-conformal: the half-width for the areas of fold k is the ceil((n + 1) x level)-th smallest of the n absolute
    held-out residuals of the OTHER folds of the same model, kind and indicator; where n is too small for that, the
    interval is [0, 1]. An area's own residual never sets its width. Areas without a published value get one too.

    Kinds are never mixed: residuals under random folds are too small for unseen boroughs (nominal 90 % intervals
    calibrated on them covered 77.8 % there). Exact coverage is promised for exchangeable areas only (Vovk 2015,
    "Cross-conformal predictors"; Barber et al. 2021, "Predictive inference with the jackknife+"), which neighbours are
    not: read `measured_coverage` beside it.
    """
    if not 0.0 < level < 1.0:
        raise InputError(f"level = {level}: the share an interval should hold lies between 0 and 1, such as 0.9.")
    tested = folds.set_index(["area_id", "kind"])["fold"]
    wanted = pd.MultiIndex.from_frame(predictions[["area_id", "kind"]])
    if not (known := wanted.isin(tested.index)).all():
        area_id, kind = wanted[~known][0]
        raise InputError(f"Area {area_id} is predicted under kind '{kind}' but not in the folds of that kind.")
    fold = tested.loc[wanted].to_numpy()
    residual = (predictions["observed"] - predictions["predicted"]).abs().to_numpy()
    half_width = np.full(len(predictions), np.inf)
    for positions in predictions.groupby(["model", "kind", "indicator"], sort=False).indices.values():
        for k in np.unique(fold[positions]):
            here = fold[positions] == k
            half_width[positions[here]] = _quantile(residual[positions[~here]], level)
    return predictions.assign(
        level=level,
        low=(predictions["predicted"] - half_width).clip(0.0, 1.0),
        high=(predictions["predicted"] + half_width).clip(0.0, 1.0),
    )[list(INTERVAL_COLUMNS)]


def measured_coverage(predictions: pd.DataFrame, intervals: pd.DataFrame, *, folds: pd.DataFrame) -> pd.DataFrame:
    """How many published values lie in their interval, a row a model, kind of fold and indicator (`COVERAGE_COLUMNS`).

    `coverage` is a share in [0, 1] of the `areas` with a published value, `mean_width` in units of deprivation; the
    worst covered borough (of those with at least `FEWEST_AREAS_OF_A_BOROUGH` such areas, else missing) is named beside
    it, because an average can hide a borough for which the map is wrong.
    """
    keys = ["area_id", "model", "kind", "indicator"]
    scored = predictions[predictions["observed"].notna()].merge(intervals, on=keys, validate="one_to_one")
    scored = scored.merge(folds[["area_id", "kind", "borough"]], on=["area_id", "kind"], validate="many_to_one")
    scored = scored.assign(
        held=scored["observed"].between(scored["low"], scored["high"]), width=scored["high"] - scored["low"]
    )
    rows = []
    for key, group in scored.groupby(["model", "kind", "indicator", "level"], sort=False):
        boroughs = group.groupby("borough")["held"].agg(["mean", "size"])
        shares = boroughs.loc[boroughs["size"] >= FEWEST_AREAS_OF_A_BOROUGH, "mean"]
        worst = (shares.idxmin(), shares.min()) if len(shares) else (None, np.nan)
        rows.append((*key, group["held"].mean(), group["width"].mean(), len(group), *worst))
    return pd.DataFrame(rows, columns=list(COVERAGE_COLUMNS))


def _quantile(residuals: np.ndarray, level: float) -> float:
    """The finite-sample corrected quantile of the known absolute residuals; infinite where they are too few."""
    known = np.sort(residuals[~np.isnan(residuals)])
    # Rounded first: 10 x 0.9 can come out just above 9 in floating point, and the ceiling would take the 10th.
    position = int(np.ceil(round((len(known) + 1) * level, 9)))
    return float(known[position - 1]) if position <= len(known) else float("inf")
