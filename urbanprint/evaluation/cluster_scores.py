"""How good held-out predictions of clusters are, and how sure that is.

What belongs here: the measures of both tasks over `tables.CLUSTER_PREDICTIONS`. Intervals draw whole countries (or
regions) under borough folds, else whole blocks (`bootstrap`).
"""

import numpy as np
import pandas as pd

from urbanprint import tables
from urbanprint.evaluation.bootstrap import draw_sums, group_draws, interval, pearson, r2, ratio, with_units
from urbanprint.vocabulary import TASK_MEASURES


def score_clusters(predictions: pd.DataFrame, *, folds: pd.DataFrame, repeats: int = 1000, seed: int) -> pd.DataFrame:
    """Every measure of every model, kind, indicator and task, with a 95 % interval (`tables.CLUSTER_SCORES`).

    The held-out predictions of all folds are pooled; clusters without the indicator are not scored.

    - `accuracy`: share of clusters on the right side, a probability of at least 0.5 counting as 1;
    - `auc`: probability that a cluster of class 1 is given more than one of class 0, ties half, over pairs tested by
      the same fold (models of different folds are not on one scale, and pooling them puts even a constant off 0.5);
      missing where no fold tests both classes;
    - `r2` = 1 - SSE / SST, SST about the mean of the scored clusters: negative where worse than that mean;
    - `pearson_r2`: squared Pearson correlation of predicted and observed, which livelihood papers call r2. It forgives
      any offset, scale and sign: read it with `pearson_r`. The training mean of whole held-out countries is
      anti-correlated with what it predicts, and its square looks like skill.

    `low`, `high`: 2.5 and 97.5 % percentiles of `repeats` block-bootstrap draws, missing where there is one unit.
    """
    rows = []
    keys = ["model", "kind", "indicator", "task"]
    for key, group in with_units(predictions, folds).groupby(keys, sort=False):
        scored = group[group["observed"].notna()]
        unit, weights = group_draws(scored["unit"], repeats=repeats, seed=seed)
        observed, predicted = scored["observed"].to_numpy(), scored["predicted"].to_numpy()
        if key[-1] == "classification":
            hit = ((predicted >= 0.5) == (observed >= 0.5)).astype(float)
            count, hits = draw_sums(np.stack([np.ones_like(hit), hit], axis=1), unit, weights).T
            fold = scored["fold"].to_numpy()
            values = {"accuracy": ratio(hits, count), "auc": _auc(observed, predicted, fold, weights[:, unit])}
        else:
            r = pearson(observed, predicted, unit, weights)
            values = {"r2": r2(observed, predicted, unit, weights), "pearson_r2": r**2, "pearson_r": r}
        counts = (len(scored), weights.shape[1])
        rows += [(*key, measure, *interval(values[measure]), *counts) for measure in TASK_MEASURES[str(key[-1])]]
    return tables.CLUSTER_SCORES.validate(pd.DataFrame(rows, columns=list(tables.CLUSTER_SCORES.columns)))


def _auc(observed: np.ndarray, predicted: np.ndarray, fold: np.ndarray, drawn: np.ndarray) -> np.ndarray:
    """Concordant share of the pairs within folds, of each draw (draws,); `drawn` (draws, n): how often each counts."""
    concordant, pairs = np.zeros(len(drawn)), np.zeros(len(drawn))
    for k in np.unique(fold):
        here = np.flatnonzero(fold == k)
        order = here[np.argsort(predicted[here], kind="stable")]
        starts = np.flatnonzero(np.diff(predicted[order], prepend=-np.inf) > 0)  # one group a distinct prediction
        ones, noughts = (
            np.add.reduceat(drawn[:, order] * (observed[order] == value), starts, axis=1) for value in (1.0, 0.0)
        )
        below = noughts.cumsum(axis=1) - noughts
        concordant += (ones * (below + noughts / 2)).sum(axis=1)
        pairs += ones.sum(axis=1) * noughts.sum(axis=1)
    return ratio(concordant, pairs)
