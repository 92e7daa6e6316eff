"""Paired differences of cluster scores equal a slow bootstrap that copies rows."""

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import accuracy_score, r2_score

from urbanprint.errors import InputError
from urbanprint.evaluation.cluster_gain import GAIN_COLUMNS, cluster_gain
from urbanprint.evaluation.cluster_scores import score_clusters

CLUSTERS, BLOCKS, REGIONS = 80, 16, 5


@pytest.fixture(scope="module")
def folds() -> pd.DataFrame:
    number = np.arange(CLUSTERS)
    one = pd.DataFrame(
        {
            "area_id": [f"c{i:02d}" for i in number],
            "fold": number % 4,
            "borough": [f"region {i % REGIONS}" for i in number],
            "block": [f"block {i % BLOCKS:02d}" for i in number],
            "x_m": 0.0,
            "y_m": 0.0,
        }
    )
    return pd.concat([one.assign(kind=kind) for kind in ("random", "borough", "block")], ignore_index=True)


@pytest.fixture(scope="module")
def predictions(folds: pd.DataFrame) -> pd.DataFrame:
    """A good and a poor model, both tasks, two kinds of fold."""
    rng = np.random.default_rng(3)
    truth = rng.normal(size=CLUSTERS)
    parts = []
    for kind in ("block", "borough"):
        for model, noise in (("good", 0.5), ("poor", 1.5)):
            predicted = truth + noise * rng.normal(size=CLUSTERS)
            for task in ("classification", "regression"):
                asked = task == "classification"
                part = folds.loc[folds["kind"] == kind, ["area_id", "fold"]]
                part = part.assign(model=model, kind=kind, indicator="poverty", task=task)
                part["observed"] = (truth >= 0).astype(float) if asked else truth
                part["predicted"] = 1 / (1 + np.exp(-predicted)) if asked else predicted
                parts.append(part)
    return pd.concat(parts, ignore_index=True)


@pytest.mark.parametrize(("task", "score"), [("classification", accuracy_score), ("regression", r2_score)])
@pytest.mark.parametrize(("kind", "column"), [("block", "block"), ("borough", "borough")])
def test_the_gain_and_its_interval_equal_a_bootstrap_that_copies_rows(predictions, folds, task, score, kind, column):
    row = cluster_gain(predictions, "good", "poor", folds=folds, repeats=100, seed=7)
    row = row[(row["task"] == task) & (row["kind"] == kind)].iloc[0]
    chosen = predictions[(predictions["task"] == task) & (predictions["kind"] == kind)]
    wide = chosen.pivot_table(index="area_id", columns="model", values="predicted")
    wide["observed"] = chosen.groupby("area_id")["observed"].first()
    wide["unit"] = folds[folds["kind"] == kind].set_index("area_id")[column]

    def by_hand(rows: pd.DataFrame) -> float:
        told = rows[["good", "poor"]] >= 0.5 if task == "classification" else rows[["good", "poor"]]
        return score(rows["observed"], told["good"]) - score(rows["observed"], told["poor"])

    units = sorted(wide["unit"].unique())
    draws = np.random.default_rng(7).multinomial(len(units), np.full(len(units), 1 / len(units)), size=100)
    blocks = [wide[wide["unit"] == unit] for unit in units]
    copies = (pd.concat([blocks[i] for i in np.repeat(np.arange(len(units)), drawn)]) for drawn in draws)
    expected = np.quantile([by_hand(rows) for rows in copies], [0.025, 0.975])
    assert row["value"] == pytest.approx(by_hand(wide))
    assert [row["low"], row["high"]] == pytest.approx(expected)
    assert (row["clusters"], row["units"]) == (CLUSTERS, len(units))


def test_the_value_is_the_difference_of_the_two_scores(predictions, folds):
    scores = score_clusters(predictions, folds=folds, repeats=10, seed=0)
    scores = scores.set_index(["model", "kind", "task", "measure"])["value"]
    gains = cluster_gain(predictions, "good", "poor", folds=folds, repeats=10, seed=0)
    assert list(gains.columns) == list(GAIN_COLUMNS)
    assert len(gains) == 4
    for row in gains.itertuples():
        key = (row.kind, row.task, row.measure)
        assert row.value == pytest.approx(scores["good", *key] - scores["poor", *key])


def test_a_model_gains_nothing_on_itself(predictions, folds):
    gains = cluster_gain(predictions, "good", "good", folds=folds, seed=0)
    assert (gains[["value", "low", "high"]] == 0).all(axis=None)


def test_turning_the_comparison_round_turns_the_sign(predictions, folds):
    ours = cluster_gain(predictions, "good", "poor", folds=folds, seed=0)[["value", "low", "high"]]
    theirs = cluster_gain(predictions, "poor", "good", folds=folds, seed=0)[["value", "high", "low"]]
    assert ours.to_numpy() == pytest.approx(-theirs.to_numpy())


def test_more_comparisons_widen_the_interval_and_leave_the_value(predictions, folds):
    one, nine = (
        cluster_gain(predictions, "good", "poor", folds=folds, comparisons=count, repeats=4000, seed=0)
        for count in (1, 9)
    )
    assert (one["value"] == nine["value"]).all()
    assert (nine["low"] < one["low"]).all()
    assert (nine["high"] > one["high"]).all()
    assert set(nine["comparisons"]) == {9}


def test_clusters_that_one_model_does_not_predict_or_that_are_unknown_do_not_count(predictions, folds):
    fewer = predictions[(predictions["model"] == "good") | (predictions["area_id"] != "c00")]
    fewer = fewer.assign(observed=fewer["observed"].mask(fewer["area_id"] == "c01"))
    assert set(cluster_gain(fewer, "good", "poor", folds=folds, seed=0)["clusters"]) == {CLUSTERS - 2}


def test_a_single_block_has_a_gain_and_no_interval(predictions, folds):
    row = cluster_gain(predictions, "good", "poor", folds=folds.assign(block="one", borough="one"), seed=0).iloc[0]
    assert np.isfinite(row["value"])
    assert np.isnan(row["low"])
    assert np.isnan(row["high"])


def test_what_cannot_be_compared_is_refused(predictions, folds):
    with pytest.raises(InputError, match="no predictions of 'best', only of good, poor"):
        cluster_gain(predictions, "best", "poor", folds=folds, seed=0)
    with pytest.raises(InputError, match="comparisons = 0"):
        cluster_gain(predictions, "good", "poor", folds=folds, comparisons=0, seed=0)
    moved = predictions["observed"].where(
        (predictions["model"] == "good") | (predictions["area_id"] != "c05"), 1 - predictions["observed"]
    )
    with pytest.raises(InputError, match="asked different things of 4 clusters, such as c05"):
        cluster_gain(predictions.assign(observed=moved), "good", "poor", folds=folds, seed=0)
