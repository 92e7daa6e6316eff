"""How good held-out predictions are, how sure that is, and what it amounts to in words.

What belongs here: measures, paired differences, and the verdict. Areas near each other resemble each other, so
intervals resample whole boroughs or blocks (`bootstrap`), never single areas: resampling 240 areas one by one would
claim 240 independent observations.
"""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.evaluation.baselines import BASELINES
from urbanprint.evaluation.bootstrap import draw_sums, group_draws, interval, r2, ratio, with_units
from urbanprint.vocabulary import FOLD_KINDS, INDICATORS, MEASURES

FEWEST_AREAS = 100
"""Below this many areas no verdict is given: at R2 = 0.3 its standard error is then above 0.07 even if independent."""

FEWEST_UNITS = 5
"""Below this many resampled boroughs or blocks an interval is too narrow to lean on."""

DIFFERENCE_COLUMNS = ("model_a", "model_b", "kind", "indicator", "value", "low", "high", "areas", "units")


def score(
    predictions: pd.DataFrame, *, folds: pd.DataFrame, areas_ranked: int, repeats: int = 1000, seed: int
) -> pd.DataFrame:
    """Every measure of every model, kind of fold and indicator, with a 95 % interval (`tables.SCORES`).

    The held-out predictions of all folds are pooled; areas without a published value are not scored.

    - `r2` = 1 - SSE / SST, SST about the mean of the scored areas: the share of their variance that is explained. It is
      negative where the predictions are worse than that mean;
    - `spearman`: rank correlation, ties at their mean rank; missing for constant predictions;
    - `mae_rank` = mean of |difference in deprivation| x (areas_ranked - 1), in published ranks; `areas_ranked` is the
      number of areas the edition ranks (the country's, not the city's);
    - `mae_decile`: mean difference of `deciles`;
    - `within_one_decile`: share of areas at most one decile off.

    `low` and `high` are the 2.5 and 97.5 % percentiles of a block bootstrap: whole boroughs for borough folds, whole
    blocks for all others, are drawn with replacement `repeats` times, the same draws for every model. They are missing
    where there is only one unit to draw. They cover the choice of areas, not of training runs; with few units (about
    ten boroughs) such percentile intervals are known to be somewhat too narrow (Cameron, Gelbach and Miller 2008,
    "Bootstrap-based improvements for inference with clustered errors").
    """
    rows = []
    for (model, kind, indicator), group in with_units(predictions, folds).groupby(
        ["model", "kind", "indicator"], sort=False
    ):
        scored = group[group["observed"].notna()]
        unit, weights = group_draws(scored["unit"], repeats=repeats, seed=seed)
        values = _measures(
            scored["observed"].to_numpy(), scored["predicted"].to_numpy(), unit, weights, areas_ranked=areas_ranked
        )
        for measure in MEASURES:
            value, low, high = interval(values[measure])
            rows.append((model, kind, indicator, measure, value, low, high, len(scored)))
    return tables.SCORES.validate(pd.DataFrame(rows, columns=list(tables.SCORES.columns)))


def difference(
    predictions: pd.DataFrame, model_a: str, model_b: str, *, folds: pd.DataFrame, repeats: int = 1000, seed: int
) -> pd.DataFrame:
    """R2(model_a) - R2(model_b) with its paired block-bootstrap 95 % interval, a row a kind of fold and indicator.

    Columns `DIFFERENCE_COLUMNS`; `areas` are those that both models predict and that have a published value, `units`
    the boroughs or blocks resampled, as in `score`. Both models see the same draws, so what they share cancels out.
    """
    for model in (model_a, model_b):
        if model not in set(predictions["model"]):
            raise InputError(
                f"There are no predictions of '{model}', only of {', '.join(sorted(predictions['model'].unique()))}."
            )
    keys = ["area_id", "kind", "indicator"]
    scored = with_units(predictions[predictions["observed"].notna()], folds)
    paired = scored[scored["model"] == model_a].merge(
        scored.loc[scored["model"] == model_b, [*keys, "predicted"]], on=keys, suffixes=("", "_b")
    )
    rows = []
    for (kind, indicator), group in paired.groupby(["kind", "indicator"], sort=False):
        unit, weights = group_draws(group["unit"], repeats=repeats, seed=seed)
        observed = group["observed"].to_numpy()
        gap = r2(observed, group["predicted"].to_numpy(), unit, weights) - r2(
            observed, group["predicted_b"].to_numpy(), unit, weights
        )
        rows.append((model_a, model_b, kind, indicator, *interval(gap), len(group), weights.shape[1]))
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS))


def verdict(
    scores: pd.DataFrame,
    differences: pd.DataFrame,
    *,
    model: str,
    kind: str = "borough",
    indicator: str = "imd",
    names: Mapping[str, str] | None = None,
) -> str:
    """One or two plain sentences: do pictures say more than a map without pictures, under which folds, by how much.

    `scores` as of `score`, `differences` as of `difference` (concatenate several for several baselines: the hardest to
    beat is named). The first sentence judges the kind of fold named by `kind`, the second the random folds where
    present. "More" is said only if the interval of the difference lies above 0 for every baseline and the interval of
    R2 itself lies above 0, on at least `FEWEST_AREAS` areas in `FEWEST_UNITS` boroughs or blocks. `names` maps models
    to names for people. The pictures' model is chosen by the caller, before looking: the best of several is optimistic.
    """
    names = {**BASELINES, **(names or {})}
    chosen = differences[(differences["model_a"] == model) & (differences["indicator"] == indicator)]
    if not (chosen["kind"] == kind).any():
        raise InputError(f"There is no difference of '{model}' from a baseline for '{indicator}' under '{kind}' folds.")
    own = _r2_row(scores, model=model, kind=kind, indicator=indicator)
    subject, topic = f"the pictures ({names.get(model, model)})", f"the {INDICATORS[indicator]}"
    claim, gap = _judge(chosen[chosen["kind"] == kind], own)
    rival = names.get(gap["model_b"], gap["model_b"])
    theirs = _r2_row(scores, model=gap["model_b"], kind=kind, indicator=indicator)
    evidence = f"R² {_span(own)} against {_span(theirs)} for {rival}, a difference of {_span(gap)}"
    where = f"on {gap['areas']} areas in {gap['units']} {_unit(kind)}s"
    if claim == "too few":
        return (
            f"{where.capitalize()}, {subject} say nothing beyond the baselines about {topic} that could be relied on:"
            f" {evidence}, and a verdict needs at least {FEWEST_AREAS} areas in {FEWEST_UNITS} {_unit(kind)}s."
        )
    sentence = f"With {FOLD_KINDS[kind]} held out, {subject} {claim} about {topic}: {evidence}, {where}."
    random = chosen[chosen["kind"] == "random"]
    if kind == "random" or random.empty:
        return sentence
    claim, gap = _judge(random, _r2_row(scores, model=model, kind="random", indicator=indicator))
    return f"{sentence} With {FOLD_KINDS['random']} held out, they {claim}: a difference of {_span(gap)}."


def deciles(deprivation: np.ndarray) -> np.ndarray:
    """Decile 1..10, 1 = most deprived, of the normalised rank: min(10, floor((1 - deprivation) x 10) + 1)."""
    # Rounded first: (1 - 0.9) x 10 is 0.9999999999999998 in floating point and would fall a decile short.
    tenths = np.floor(np.round((1.0 - np.asarray(deprivation, dtype=float)) * 10, 9))
    return np.clip(tenths + 1, 1, 10).astype(int)


def _judge(gaps: pd.DataFrame, own: pd.Series) -> tuple[str, pd.Series]:
    """What may be claimed from the differences from each baseline, and the row of the baseline hardest to beat."""
    hardest = gaps.iloc[int(gaps["low"].fillna(-np.inf).argmin())]
    if hardest["areas"] < FEWEST_AREAS or hardest["units"] < FEWEST_UNITS:
        return "too few", hardest
    if hardest["low"] > 0 and own["low"] > 0:
        return "say more than a map without pictures", hardest
    if hardest["high"] < 0:
        return "say less than a map without pictures", hardest
    return "say nothing beyond the baselines", hardest


def _r2_row(scores: pd.DataFrame, *, model: str, kind: str, indicator: str) -> pd.Series:
    row = {"model": model, "kind": kind, "indicator": indicator, "measure": "r2"}
    found = scores[(scores[list(row)] == pd.Series(row)).all(axis=1)]
    if found.empty:
        raise InputError(f"The scores hold no R² of '{model}' for '{indicator}' under '{kind}' folds: score it too.")
    return found.iloc[0]


def _span(row: pd.Series) -> str:
    value, low, high = (f"{row[key] + 0.0:.2f}".replace("-0.00", "0.00") for key in ("value", "low", "high"))
    return f"{value} (no interval)" if np.isnan(row["low"]) else f"{value} [{low}, {high}]"


def _unit(kind: str) -> str:
    """The column of `tables.FOLDS` whose values are resampled as a whole."""
    return "borough" if kind == "borough" else "block"


def _measures(
    observed: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weights: np.ndarray, *, areas_ranked: int
) -> dict[str, np.ndarray]:
    """Each measure of each draw: (draws,)."""
    off = np.abs(deciles(observed) - deciles(predicted))
    terms = np.stack([np.ones_like(observed), np.abs(observed - predicted), off, off <= 1], axis=1)
    count, error, deciles_off, within = draw_sums(terms, unit, weights).T
    return {
        "r2": r2(observed, predicted, unit, weights),
        "spearman": _spearman(observed, predicted, unit, weights),
        "mae_rank": ratio(error, count) * (areas_ranked - 1),
        "mae_decile": ratio(deciles_off, count),
        "within_one_decile": ratio(within, count),
    }


def _spearman(observed: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank correlation of each draw (draws,), exact: the areas are ranked anew within every draw."""
    a, b = (_midranks(values, unit, weights) for values in (observed, predicted))
    drawn = weights[:, unit]
    covariance, variance_a, variance_b = (np.einsum("ri,ri,ri->r", drawn, x, y) for x, y in ((a, b), (a, a), (b, b)))
    return ratio(covariance, np.sqrt(variance_a * variance_b))


def _midranks(values: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Rank of each area in each draw, less the mean rank: (draws, n), ties at their mean.

    The rank of an area is a sum over units of how many of their areas lie below it (ties half), so one matrix product
    ranks all draws.
    """
    order = np.argsort(values, kind="stable")
    below = np.zeros((len(values) + 1, weights.shape[1]))
    below[np.arange(1, len(values) + 1), unit[order]] = 1.0
    below = below.cumsum(axis=0)
    first, last = (np.searchsorted(values[order], values, side=side) for side in ("left", "right"))
    mean_rank = weights @ np.bincount(unit, minlength=weights.shape[1]) / 2.0
    return weights @ ((below[first] + below[last]) / 2.0).T - mean_rank[:, None]
