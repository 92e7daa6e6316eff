"""Prediction intervals are calibrated by other folds only, and their coverage is measured, not promised."""

import numpy as np
import pandas as pd
import pytest

from urbanprint.errors import InputError
from urbanprint.evaluation.intervals import COVERAGE_COLUMNS, INTERVAL_COLUMNS, conformal, measured_coverage


def make_case(observed, predicted, *, fold, borough=None, kind="borough", model="probe"):
    """(predictions, folds) of one model under one kind of fold."""
    areas = [f"A{i:04d}" for i in range(len(observed))]
    folds = pd.DataFrame(
        {
            "area_id": areas,
            "kind": kind,
            "fold": fold,
            "borough": fold.astype(str) if borough is None else borough,
            "block": "b",
            "x_m": 0.0,
            "y_m": 0.0,
        }
    )
    predictions = pd.DataFrame(
        {
            "area_id": areas,
            "model": model,
            "kind": kind,
            "fold": fold,
            "indicator": "imd",
            "observed": observed,
            "predicted": predicted,
        }
    )
    return predictions, folds


@pytest.fixture
def exchangeable():
    rng = np.random.default_rng(0)
    predicted = rng.uniform(0.3, 0.7, size=2000)
    return make_case(predicted + rng.normal(0, 0.07, size=2000), predicted, fold=rng.integers(0, 5, size=2000))


def test_the_half_width_is_the_corrected_quantile_of_the_other_folds():
    """Nine residuals 0.01 .. 0.09 in fold 1: at level 0.8 the ceil(10 x 0.8) = 8th, 0.08, is that of fold 0."""
    observed = np.concatenate([[0.5], 0.5 + np.arange(1, 10) / 100])
    predictions, folds = make_case(observed, np.full(10, 0.5), fold=np.array([0] + [1] * 9))
    intervals = conformal(predictions, folds=folds, level=0.8)
    assert tuple(intervals.columns) == INTERVAL_COLUMNS
    assert intervals.loc[0, ["low", "high"]].tolist() == pytest.approx([0.42, 0.58])


def test_too_few_residuals_give_the_whole_range():
    """One residual cannot vouch for 80 %: the areas of fold 1 are calibrated by the single area of fold 0."""
    predictions, folds = make_case(np.full(10, 0.5), np.full(10, 0.5), fold=np.array([0] + [1] * 9))
    intervals = conformal(predictions, folds=folds, level=0.8)
    assert (intervals.loc[1:, ["low", "high"]] == [0.0, 1.0]).all(axis=None)


def test_ten_times_point_nine_is_nine():
    observed = np.concatenate([[0.5], 0.5 + np.arange(1, 10) / 100])
    predictions, folds = make_case(observed, np.full(10, 0.5), fold=np.array([0] + [1] * 9))
    assert conformal(predictions, folds=folds, level=0.9).loc[0, "high"] == pytest.approx(0.59)


def test_an_area_never_sets_its_own_width(exchangeable):
    predictions, folds = exchangeable
    changed = predictions.copy()
    in_fold = changed["fold"] == 2
    changed.loc[in_fold, "observed"] = 0.0
    before, after = (conformal(p, folds=folds)[in_fold] for p in (predictions, changed))
    pd.testing.assert_frame_equal(before, after)


@pytest.mark.parametrize("level", [0.5, 0.8, 0.9, 0.95])
def test_on_exchangeable_areas_the_coverage_is_the_level(exchangeable, level):
    predictions, folds = exchangeable
    coverage = measured_coverage(predictions, conformal(predictions, folds=folds, level=level), folds=folds)
    assert coverage.loc[0, "coverage"] == pytest.approx(level, abs=0.02)
    assert coverage.loc[0, "level"] == level


def test_intervals_stay_in_the_range_of_deprivation(exchangeable):
    predictions, folds = exchangeable
    wide = predictions.assign(predicted=predictions["predicted"] * 3 - 1)
    intervals = conformal(wide, folds=folds, level=0.99)
    assert intervals["low"].between(0, 1).all()
    assert intervals["high"].between(0, 1).all()
    assert (intervals["low"] <= intervals["high"]).all()


def test_models_and_kinds_are_calibrated_apart():
    rng = np.random.default_rng(1)
    parts = []
    for model, kind, spread in [("probe", "random", 0.02), ("probe", "borough", 0.1), ("mean", "borough", 0.2)]:
        observed = np.clip(0.5 + rng.normal(0, spread, 300), 0, 1)
        parts.append(make_case(observed, np.full(300, 0.5), fold=np.arange(300) % 3, kind=kind, model=model))
    predictions = pd.concat([p for p, _ in parts], ignore_index=True)
    folds = pd.concat([f for _, f in parts[:2]], ignore_index=True)
    coverage = measured_coverage(predictions, conformal(predictions, folds=folds), folds=folds)
    assert coverage["mean_width"].is_monotonic_increasing
    assert coverage["coverage"].between(0.85, 0.95).all()


def test_areas_without_a_published_value_get_an_interval_and_are_not_counted(exchangeable):
    predictions, folds = exchangeable
    predictions.loc[:99, "observed"] = np.nan
    intervals = conformal(predictions, folds=folds)
    assert intervals.loc[:99, ["low", "high"]].notna().all(axis=None)
    coverage = measured_coverage(predictions, intervals, folds=folds)
    assert tuple(coverage.columns) == COVERAGE_COLUMNS
    assert coverage.loc[0, "areas"] == 1900


def test_the_worst_covered_borough_is_named_unless_it_is_tiny():
    """Borough `odd` (5 areas) is off by 0.4, `tiny` (4 areas) too; the other 191 are predicted well."""
    borough = np.array(["odd"] * 5 + ["tiny"] * 4 + ["plain"] * 191)
    observed = np.where(borough == "plain", 0.5 + np.linspace(-0.05, 0.05, 200), 0.9)
    predictions, folds = make_case(observed, np.full(200, 0.5), fold=np.arange(200) % 4, borough=borough)
    worst = measured_coverage(predictions, conformal(predictions, folds=folds), folds=folds).iloc[0]
    assert (worst["worst_borough"], worst["worst_borough_coverage"]) == ("odd", 0.0)
    assert worst["coverage"] > 0.85


def test_intervals_calibrated_on_random_folds_do_not_hold_in_unseen_boroughs():
    """The reason kinds are kept apart: a borough effect is seen by random folds and unseen by borough folds."""
    rng = np.random.default_rng(2)
    borough = np.repeat(np.arange(30), 20)
    effect = rng.normal(0, 0.1, 30)[borough]
    observed = np.clip(0.5 + effect + rng.normal(0, 0.03, 600), 0, 1)
    seen, _ = make_case(observed, 0.5 + effect, fold=rng.integers(0, 5, 600), kind="random")
    unseen, folds = make_case(observed, np.full(600, 0.5), fold=borough % 5, borough=borough.astype(str))
    random_folds = folds.assign(kind="random", fold=seen["fold"])
    width = conformal(seen, folds=random_folds).eval("high - low").mean() / 2
    covered_by_random = (np.abs(observed - 0.5) <= width).mean()
    honest = measured_coverage(unseen, conformal(unseen, folds=folds), folds=folds).loc[0, "coverage"]
    assert covered_by_random < 0.6
    assert honest == pytest.approx(0.9, abs=0.05)


def test_mistakes_are_named(exchangeable):
    predictions, folds = exchangeable
    with pytest.raises(InputError, match="level = 90"):
        conformal(predictions, folds=folds, level=90)
    with pytest.raises(InputError, match="Area A0000 is predicted under kind 'borough' but not in the folds"):
        conformal(predictions, folds=folds[1:])
