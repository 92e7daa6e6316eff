"""How good predicted income classes are, beside the baselines, and what a split at random would have pretended.

What belongs here: measures of `learning.TILE_PREDICTIONS` and paired differences of them. Intervals draw whole blocks.
"""

import numpy as np
import pandas as pd
import pandera.pandas as pa

from urbanprint.evaluation.bootstrap import draw_sums, group_draws, interval, pearson, ratio, with_units
from urbanprint.models.ordinal import ranked_probability_score, threshold_calibration

TILE_MEASURES: dict[str, str] = {
    "pearson_r": "Pearson r",
    "within_one_class": "within one class",
    "accuracy": "accuracy",
    "rps": "ranked probability score",
    "r_over_coordinates": "Pearson r above coordinates",
    "r_over_neighbours": "Pearson r above the neighbours",
}
RIVALS = ("coordinates", "neighbours")
"""The maps without pictures that a picture has to beat."""

TILE_SCORES = pa.DataFrameSchema(
    {
        "model": pa.Column(str),
        "kind": pa.Column(str),
        "measure": pa.Column(str, pa.Check.isin(list(TILE_MEASURES))),
        "value": pa.Column(float, nullable=True),
        "low": pa.Column(float, nullable=True),
        "high": pa.Column(float, nullable=True),
        "areas": pa.Column(int, pa.Check.ge(1)),
        "units": pa.Column(int, pa.Check.ge(1)),
    },
    unique=["model", "kind", "measure"],
    strict=True,
    name="tile_scores",
)
"""Scores of held-out predictions; `units` are the blocks that the bootstrap draws."""

AUDIT_COLUMNS = ("model", "random", "block", "gap", "low", "high", "refused_because")


def score_tiles(predictions: pd.DataFrame, *, folds: pd.DataFrame, repeats: int = 1000, seed: int) -> pd.DataFrame:
    """Every measure of every model and kind of fold with a 95 % interval (`TILE_SCORES`).

    - `pearson_r` of the expected and the observed class, the measure of the papers; missing for a constant;
    - `within_one_class`: share of cells whose expected class, rounded, is at most one off; `accuracy`: it is it;
    - `rps`: mean ranked probability score, 0 is perfect, of the calibrated probabilities;
    - `r_over_coordinates`, `r_over_neighbours`: how far `pearson_r` is above that of each rival under the same folds,
      on the same draws (`gap`); of networks, where the rival was scored.
    """
    scored = set(predictions[["model", "kind"]].itertuples(index=False, name=None))
    rows = []
    for (model, kind), group in with_units(predictions, folds).groupby(["model", "kind"], sort=False):
        unit, weights = group_draws(group["unit"], repeats=repeats, seed=seed)
        observed, predicted = group["observed"].to_numpy(), group["predicted"].to_numpy()
        off = np.abs(np.rint(predicted) - observed)
        loss = ranked_probability_score(group.filter(regex=r"^p\d+$").to_numpy(), observed)
        terms = np.stack([np.ones_like(predicted), off <= 1, off == 0, loss], axis=1)
        count, within, exact, lost = draw_sums(terms, unit, weights).T
        values = {
            "pearson_r": pearson(observed.astype(float), predicted, unit, weights),
            "within_one_class": ratio(within, count),
            "accuracy": ratio(exact, count),
            "rps": ratio(lost, count),
        }
        size = (len(group), weights.shape[1])
        rows += [(model, kind, measure, *interval(values[measure]), *size) for measure in values]
        own = (str(model), str(kind))
        rivals = () if model in ("mean", *RIVALS) else [rival for rival in RIVALS if (rival, kind) in scored]
        for rival in rivals:
            above = gap(predictions, own, (rival, own[1]), folds=folds, repeats=repeats, seed=seed)
            rows.append((model, kind, f"r_over_{rival}", *above, *size))
    return TILE_SCORES.validate(pd.DataFrame(rows, columns=list(TILE_SCORES.columns)))


def gap(
    predictions: pd.DataFrame,
    first: tuple[str, str],
    second: tuple[str, str],
    *,
    folds: pd.DataFrame,
    repeats: int = 1000,
    seed: int,
) -> tuple[float, float, float]:
    """Pearson r of one (model, kind) less that of another, on the same draws: value, low, high; missing if constant."""
    pair = [
        predictions[(predictions["model"] == model) & (predictions["kind"] == kind)].set_index("area_id").sort_index()
        for model, kind in (first, second)
    ]
    blocks = folds[folds["kind"] == "block"].set_index("area_id")["block"]
    unit, weights = group_draws(blocks.loc[pair[0].index], repeats=repeats, seed=seed)
    r = [
        pearson(part["observed"].to_numpy(float), part["predicted"].loc[pair[0].index].to_numpy(), unit, weights)
        for part in pair
    ]
    return interval(r[0] - r[1])


def audit(predictions: pd.DataFrame, *, folds: pd.DataFrame, refusal: str, seed: int) -> pd.DataFrame:
    """What the forbidden split of tiles at random adds to the score of each model (`AUDIT_COLUMNS`)."""
    scores = score_tiles(predictions, folds=folds, repeats=0, seed=seed)
    r = scores[scores["measure"] == "pearson_r"].set_index(["model", "kind"])["value"]
    both = [model for model in predictions["model"].unique() if {(model, "random"), (model, "block")} <= set(r.index)]
    rows = []
    for model in both:
        more = gap(predictions, (model, "random"), (model, "block"), folds=folds, seed=seed)
        rows.append((model, r[model, "random"], r[model, "block"], *more, refusal))
    return pd.DataFrame(rows, columns=list(AUDIT_COLUMNS))


def calibration_table(before: pd.DataFrame, after: pd.DataFrame) -> pd.DataFrame:
    """`threshold_calibration` of the same test cells before and after calibration, told apart by `scaling`."""
    parts = []
    for scaling, predictions in (("before", before), ("after", after)):
        probabilities = predictions.filter(regex=r"^p\d+$").to_numpy()
        table = threshold_calibration(probabilities, predictions["observed"].to_numpy())
        parts.append(table.assign(scaling=scaling))
    return pd.concat(parts, ignore_index=True)
