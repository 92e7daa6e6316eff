"""By how much one model of survey clusters beats another, and how sure that is.

What belongs here: paired differences over `tables.CLUSTER_PREDICTIONS`. Intervals draw whole countries (or
regions) under borough folds, else whole blocks (`bootstrap`).
"""

import numpy as np
import pandas as pd

from urbanprint.errors import InputError
from urbanprint.evaluation.bootstrap import draw_sums, group_draws, interval, r2, ratio, with_units

GAIN_COLUMNS = (
    "model",
    "rival",
    "kind",
    "indicator",
    "task",
    "measure",
    "value",
    "low",
    "high",
    "clusters",
    "units",
    "comparisons",
)


def cluster_gain(
    predictions: pd.DataFrame,
    model: str,
    rival: str,
    *,
    folds: pd.DataFrame,
    comparisons: int = 1,
    repeats: int = 1000,
    seed: int,
) -> pd.DataFrame:
    """Score of `model` minus score of `rival`, a row a kind, indicator and task (`GAIN_COLUMNS`).

    The score is accuracy for classification and R2 for regression, over the clusters that both models predict and that
    have the indicator. Both see the same draws of `units`, so what they share cancels out. `low` and `high` hold 95 %
    of the draws, missing where there is one unit. Of several models compared in turn one wins by chance: `comparisons`
    says how many, and the interval then holds 1 - 0.05 / `comparisons` of the draws, so that all of them hold together
    95 % of the time (Bonferroni); it asks for `repeats` well above 40 x `comparisons`.

    Raises `InputError` for a model without predictions, and where the two were asked different things: classes cut at
    medians of different training parts.
    """
    if comparisons < 1:
        raise InputError(f"comparisons = {comparisons}: at least the one comparison made here has to be counted.")
    for name in (model, rival):
        if name not in set(predictions["model"]):
            raise InputError(
                f"There are no predictions of '{name}', only of {', '.join(sorted(predictions['model'].unique()))}."
            )
    keys = ["area_id", "kind", "indicator", "task"]
    scored = with_units(predictions[predictions["observed"].notna()], folds)
    paired = scored[scored["model"] == model].merge(
        scored.loc[scored["model"] == rival, [*keys, "observed", "predicted"]], on=keys, suffixes=("", "_rival")
    )
    if (differs := paired["observed"] != paired["observed_rival"]).any():
        row = paired[differs].iloc[0]
        raise InputError(
            f"'{model}' and '{rival}' were asked different things of {int(differs.sum())} clusters, such as"
            f" {row['area_id']} ({row['kind']}, {row['indicator']}): predict both with the same splits."
        )
    rows = []
    for (kind, indicator, task), group in paired.groupby(keys[1:], sort=False):
        unit, weights = group_draws(group["unit"], repeats=repeats, seed=seed)
        measure, score = ("accuracy", _accuracy) if task == "classification" else ("r2", r2)
        observed, *predicted = group[["observed", "predicted", "predicted_rival"]].to_numpy(dtype=float).T
        ours, theirs = (score(observed, each, unit, weights) for each in predicted)
        span = interval(ours - theirs, comparisons=comparisons)
        rows.append((model, rival, kind, indicator, task, measure, *span, len(group), weights.shape[1], comparisons))
    return pd.DataFrame(rows, columns=list(GAIN_COLUMNS))


def _accuracy(observed: np.ndarray, predicted: np.ndarray, unit: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Share of clusters on the right side of one half, of each draw (draws,)."""
    right = (predicted >= 0.5) == (observed >= 0.5)
    count, hits = draw_sums(np.stack([np.ones(len(right)), right], axis=1), unit, weights).T
    return ratio(hits, count)
