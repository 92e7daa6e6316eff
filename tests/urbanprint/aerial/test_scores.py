"""Scores of income classes: known answers, SciPy as an oracle, and what a leak adds."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr

from urbanprint.aerial.learning import baseline_predictions, forbidden_splits, honest_splits, predictions_of
from urbanprint.aerial.scores import audit, calibration_table, gap, score_tiles
from urbanprint.evaluation.splits import Split

SEED = 3


def told(incomes: pd.Series, splits: list[Split], *, noise: float, model: str = "binomial") -> pd.DataFrame:
    """Predictions that know the income up to noise; under random splits they know it all."""
    rng = np.random.default_rng(0)
    parts = []
    for split in splits:
        known = incomes.rank(pct=True).loc[list(split.test)]
        seen = known + rng.normal(size=len(known)) * (noise if split.kind == "block" else 0.0)
        sharp = np.exp(-((seen.to_numpy()[:, None] - (np.arange(5) + 0.5) / 5) ** 2) / 0.02)
        table = pd.DataFrame(
            sharp / sharp.sum(axis=1, keepdims=True), index=known.index, columns=[f"p{k}" for k in range(5)]
        )
        parts.append(predictions_of(table, incomes, split=split, model=model))
    return pd.concat(parts, ignore_index=True)


@pytest.fixture(scope="module")
def splits(folds: pd.DataFrame, images: pd.DataFrame) -> list[Split]:
    return [*honest_splits(folds, buffer_m=300), *forbidden_splits(folds, images)[0]]


def test_classes_are_cut_at_quantiles_that_no_test_cell_moves(incomes: pd.Series, splits: list[Split]) -> None:
    split = splits[0]
    moved = incomes.copy()
    moved.loc[list(split.test)] *= 100
    before, after = (told(values, [split], noise=0.1).set_index("area_id")["observed"] for values in (incomes, moved))
    assert (after == 4).all() and not (before == 4).all()
    train_only = incomes.loc[list(split.train)]
    edges = np.quantile(train_only, [0.2, 0.4, 0.6, 0.8])
    expected = np.searchsorted(edges, incomes.loc[before.index], side="right")
    np.testing.assert_array_equal(before.to_numpy(), expected)


def test_pearson_r_is_that_of_scipy(incomes: pd.Series, folds: pd.DataFrame, splits: list[Split]) -> None:
    predictions = told(incomes, splits, noise=0.3)
    scores = score_tiles(predictions, folds=folds, seed=SEED).set_index(["kind", "measure"])
    for kind, group in predictions.groupby("kind"):
        row = scores.loc[(kind, "pearson_r")]
        assert row["value"] == pytest.approx(pearsonr(group["observed"], group["predicted"]).statistic)
        assert row["low"] < row["value"] < row["high"] + 1e-12


def test_a_sure_and_right_prediction_has_every_best_score(
    incomes: pd.Series, folds: pd.DataFrame, splits: list[Split]
) -> None:
    predictions = told(incomes, splits[:2], noise=0.0)
    sure = predictions.assign(predicted=predictions["observed"].astype(float))
    sure[[f"p{k}" for k in range(5)]] = np.eye(5)[predictions["observed"]]
    value = score_tiles(sure, folds=folds, seed=SEED).set_index("measure")["value"]
    assert value.round(12).to_dict() == {"pearson_r": 1.0, "within_one_class": 1.0, "accuracy": 1.0, "rps": 0.0}


def test_the_guard_refuses_tiles_at_random_and_says_why(folds: pd.DataFrame, images: pd.DataFrame) -> None:
    splits, refusal = forbidden_splits(folds, images)
    assert {split.kind for split in splits} == {"random"}
    assert "sequence_id values are on both sides" in refusal


def test_the_audit_shows_what_random_folds_pretend(
    incomes: pd.Series, folds: pd.DataFrame, images: pd.DataFrame, splits: list[Split]
) -> None:
    predictions = pd.concat(
        [told(incomes, splits, noise=0.5), baseline_predictions(splits, incomes, folds, classes=5)], ignore_index=True
    )
    refusal = forbidden_splits(folds, images)[1]
    table = audit(predictions, folds=folds, refusal=refusal, seed=SEED).set_index("model")
    leak = table.loc["binomial"]
    assert leak["gap"] == pytest.approx(leak["random"] - leak["block"])
    assert leak["low"] > 0
    assert (table["refused_because"] == refusal).all()


def test_a_difference_from_itself_is_nothing(incomes: pd.Series, folds: pd.DataFrame, splits: list[Split]) -> None:
    predictions = told(incomes, splits, noise=0.5)
    same = ("binomial", "block")
    assert gap(predictions, same, same, folds=folds, seed=SEED) == (0.0, 0.0, 0.0)


def test_how_far_a_network_is_above_its_rivals_is_drawn_with_them(
    incomes: pd.Series, folds: pd.DataFrame, splits: list[Split]
) -> None:
    """The difference of both scores, with the interval of `gap` and not one worked out from both intervals."""
    predictions = pd.concat(
        [told(incomes, splits, noise=0.5), baseline_predictions(splits, incomes, folds, classes=5)], ignore_index=True
    )
    scores = score_tiles(predictions, folds=folds, seed=SEED)
    of = scores[scores["kind"] == "block"].set_index(["model", "measure"])
    assert set(scores.loc[scores["measure"].str.startswith("r_over"), "model"]) == {"binomial"}
    for rival in ("coordinates", "neighbours"):
        above = of.loc[("binomial", f"r_over_{rival}")]
        assert above["value"] == pytest.approx(
            of.loc[("binomial", "pearson_r"), "value"] - of.loc[(rival, "pearson_r"), "value"]
        )
        drawn = gap(predictions, ("binomial", "block"), (rival, "block"), folds=folds, seed=SEED)
        assert tuple(above[["value", "low", "high"]]) == drawn


def test_baselines_know_training_cells_only(incomes: pd.Series, folds: pd.DataFrame, splits: list[Split]) -> None:
    blocks = [split for split in splits if split.kind == "block"]
    changed = incomes.copy()
    changed.loc[list(blocks[0].test)] = 1.0
    of_first = [
        baseline_predictions(blocks[:1], values, folds, classes=5).drop(columns="observed")
        for values in (incomes, changed)
    ]
    pd.testing.assert_frame_equal(*of_first)
    assert np.allclose(of_first[0].filter(regex=r"^p\d$").sum(axis=1), 1.0)


def test_calibration_tells_before_from_after(incomes: pd.Series, splits: list[Split]) -> None:
    before, after = (told(incomes, splits[:2], noise=noise) for noise in (0.5, 0.0))
    table = calibration_table(before, after).set_index(["scaling", "threshold"])
    assert table.loc["after", "error"].mean() < table.loc["before", "error"].mean()


def test_measures_are_those_worked_out_by_hand(folds: pd.DataFrame) -> None:
    areas = sorted(folds.loc[folds["kind"] == "block", "area_id"])[:4]
    table = pd.DataFrame(
        {
            "area_id": areas,
            "model": "binomial",
            "kind": "block",
            "fold": 0,
            "observed": [0, 1, 2, 4],
            "predicted": [0.4, 2.4, 4.0, 2.6],
            # Two sure answers, one class and two classes off of four steps; one right; one even.
            **dict(zip([f"p{k}" for k in range(5)], np.array([
                [1, 0, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 0, 0, 1], [0.2] * 5
            ]).T, strict=True)),
        }
    )  # fmt: skip
    value = score_tiles(table, folds=folds, seed=SEED).set_index("measure")["value"]
    assert value["accuracy"] == 1 / 4  # 0.4 is class 0; 2.4 is 2, 4.0 is 4 and 2.6 is 3
    assert value["within_one_class"] == 3 / 4
    even = np.mean([0.2**2, 0.4**2, 0.6**2, 0.8**2])
    assert value["rps"] == pytest.approx((0 + 1 / 4 + 2 / 4 + even) / 4)
