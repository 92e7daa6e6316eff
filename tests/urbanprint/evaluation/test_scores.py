"""Scores, their intervals and their words equal what a slow and separate calculation says."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import spearmanr
from sklearn.metrics import r2_score

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.evaluation.scores import DIFFERENCE_COLUMNS, deciles, difference, score, verdict
from urbanprint.vocabulary import MEASURES


def make_folds_table(areas=60, boroughs=6, blocks=15):
    """Areas in equal boroughs and blocks; which fold tests an area does not matter to a score."""
    number = np.arange(areas)
    return pd.concat(
        [
            pd.DataFrame(
                {
                    "area_id": [f"A{i:03d}" for i in number],
                    "kind": kind,
                    "fold": number % 2,
                    "borough": [f"h{i % boroughs}" for i in number],
                    "block": [f"b{i % blocks}" for i in number],
                    "x_m": 0.0,
                    "y_m": 0.0,
                }
            )
            for kind in ("random", "borough", "block")
        ],
        ignore_index=True,
    )


def make_predictions(folds, *, observed, predicted, model="probe", kind="borough", indicator="imd"):
    areas = folds.loc[folds["kind"] == "random", "area_id"].to_numpy()
    return pd.DataFrame(
        {
            "area_id": areas,
            "model": model,
            "kind": kind,
            "fold": 0,
            "indicator": indicator,
            "observed": np.asarray(observed, dtype=float),
            "predicted": np.asarray(predicted, dtype=float),
        }
    )


@pytest.fixture
def folds():
    return make_folds_table()


@pytest.fixture
def truth():
    return np.random.default_rng(0).uniform(size=60)


def noisy(truth, spread, seed=1):
    return np.clip(truth + np.random.default_rng(seed).normal(0, spread, len(truth)), 0, 1)


# Measures


def by_hand(observed, predicted, *, areas_ranked):
    off = np.abs(deciles(observed) - deciles(predicted))
    return {
        "r2": r2_score(observed, predicted),
        "spearman": spearmanr(observed, predicted).statistic,
        "mae_rank": np.abs(observed - predicted).mean() * (areas_ranked - 1),
        "mae_decile": off.mean(),
        "within_one_decile": (off <= 1).mean(),
    }


@pytest.mark.parametrize(("kind", "unit"), [("random", "block"), ("block", "block"), ("borough", "borough")])
def test_values_and_intervals_equal_a_bootstrap_that_copies_rows(folds, truth, kind, unit):
    observed = truth.round(1)  # with ties
    predicted = noisy(truth, 0.2).round(1)
    scores = score(
        make_predictions(folds, observed=observed, predicted=predicted, kind=kind),
        folds=folds,
        areas_ranked=1001,
        repeats=200,
        seed=9,
    ).set_index("measure")
    members = folds[folds["kind"] == "random"].groupby(unit).indices
    names = sorted(members)
    drawn = np.random.default_rng(9).multinomial(len(names), [1 / len(names)] * len(names), size=200)
    resampled = []
    for counts in drawn:
        rows = np.concatenate([np.tile(members[n], count) for n, count in zip(names, counts, strict=True) if count])
        resampled.append(by_hand(observed[rows], predicted[rows], areas_ranked=1001))
    low, high = pd.DataFrame(resampled).quantile([0.025, 0.975]).to_numpy()
    expected = by_hand(observed, predicted, areas_ranked=1001)
    np.testing.assert_allclose(scores.loc[list(MEASURES), "value"], [expected[m] for m in MEASURES])
    np.testing.assert_allclose(scores.loc[list(MEASURES), "low"], low)
    np.testing.assert_allclose(scores.loc[list(MEASURES), "high"], high)


@pytest.mark.parametrize(
    ("deprivation", "decile"),
    [(1.0, 1), (0.95, 1), (0.9, 2), (0.8999, 2), (0.5, 6), (0.101, 9), (0.1, 10), (0.0, 10), (1.2, 1), (-0.3, 10)],
)
def test_deciles_run_from_one_for_the_most_deprived_to_ten(deprivation, decile):
    assert deciles(np.array([deprivation])).tolist() == [decile]


def test_published_deciles_are_reproduced_from_ranks(realdata):
    england = pd.read_csv(realdata / "england" / "imd2019_england.csv")
    rank = england[next(c for c in england.columns if c.lower().endswith("rank"))]
    published = england[next(c for c in england.columns if c.lower().endswith("decile"))]
    ours = deciles(1 - (rank - 1) / (len(england) - 1))
    assert (ours == published).mean() > 0.999  # ranks that lie exactly on a border may fall either way


def test_perfect_and_mean_predictions_score_one_and_nought(folds, truth):
    perfect = make_predictions(folds, observed=truth, predicted=truth)
    mean = make_predictions(folds, observed=truth, predicted=np.full(60, truth.mean()), model="mean")
    scores = score(pd.concat([perfect, mean]), folds=folds, areas_ranked=11, seed=0).set_index(["model", "measure"])
    assert scores.loc["probe", "value"].to_dict() == pytest.approx(
        {"r2": 1.0, "spearman": 1.0, "mae_rank": 0.0, "mae_decile": 0.0, "within_one_decile": 1.0}
    )
    assert scores.loc[("mean", "r2"), "value"] == pytest.approx(0.0)
    assert np.isnan(scores.loc[("mean", "spearman"), "value"])  # a constant has no ranks
    assert (scores.loc[("mean", "r2"), "high"]) <= 1e-9  # in a resample its mean is not the resample's


def test_areas_without_a_published_value_are_not_scored(folds, truth):
    predicted = noisy(truth, 0.1)
    gaps = truth.copy()
    gaps[:7] = np.nan
    scores = score(make_predictions(folds, observed=gaps, predicted=predicted), folds=folds, areas_ranked=11, seed=0)
    assert set(scores["areas"]) == {53}
    assert scores.set_index("measure").loc["r2", "value"] == pytest.approx(r2_score(truth[7:], predicted[7:]))


def test_nothing_published_means_missing_scores(folds):
    empty = make_predictions(folds, observed=np.full(60, np.nan), predicted=np.full(60, 0.5))
    scores = score(empty, folds=folds, areas_ranked=11, seed=0)
    assert scores[["value", "low", "high"]].isna().all(axis=None)
    assert set(scores["areas"]) == {0}


def test_a_single_unit_has_a_score_and_no_interval(truth):
    folds = make_folds_table(boroughs=1)
    predictions = make_predictions(folds, observed=truth, predicted=noisy(truth, 0.1))
    scores = score(predictions, folds=folds, areas_ranked=11, seed=0)
    assert scores["value"].notna().all()
    assert scores[["low", "high"]].isna().all(axis=None)


def test_the_scorecard_has_a_row_for_every_model_kind_indicator_and_measure(folds, truth):
    predictions = pd.concat(
        make_predictions(folds, observed=truth, predicted=truth, model=m, kind=k, indicator=i)
        for m in ("probe", "mean")
        for k in ("random", "forbidden: image split")
        for i in ("imd", "crime")
    )
    scores = score(predictions, folds=folds, areas_ranked=11, repeats=10, seed=0)
    tables.SCORES.validate(scores)
    assert len(scores) == 2 * 2 * 2 * len(MEASURES)


def test_predictions_outside_the_folds_are_refused(folds, truth):
    predictions = make_predictions(folds, observed=truth, predicted=truth)
    predictions.loc[0, "area_id"] = "stranger"
    with pytest.raises(InputError, match="1 predicted areas, such as stranger"):
        score(predictions, folds=folds, areas_ranked=11, seed=0)


# Intervals


def test_areas_that_resemble_their_neighbours_count_as_few():
    """Six boroughs of identical areas are six observations: resampling areas one by one would hide it."""
    one_by_one = make_folds_table(boroughs=60)
    whole = make_folds_table(boroughs=6)
    level, error = np.random.default_rng(3).normal(size=(2, 6))
    observed = np.tile(0.5 + level / 8, 10)
    predicted = observed + np.tile(error / 10, 10)
    width = {}
    for name, folds in {"areas": one_by_one, "boroughs": whole}.items():
        predictions = make_predictions(folds, observed=observed.clip(0, 1), predicted=predicted)
        r2 = score(predictions, folds=folds, areas_ranked=11, seed=0).set_index("measure").loc["r2"]
        width[name] = r2["high"] - r2["low"]
    assert width["boroughs"] > 2 * width["areas"]


def test_intervals_hold_the_true_score_about_as_often_as_they_promise():
    """A population with R2 = 0.75, and 40 boroughs each with an error in common: covered at least 85 % of times."""
    folds = make_folds_table(areas=200, boroughs=40)
    held = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        observed = 0.5 + 0.1 * rng.normal(size=200)
        error = 0.05 * (np.sqrt(0.5) * np.tile(rng.normal(size=40), 5) + np.sqrt(0.5) * rng.normal(size=200))
        predictions = make_predictions(folds, observed=observed.clip(0, 1), predicted=observed + error)
        r2 = score(predictions, folds=folds, areas_ranked=11, repeats=300, seed=seed).set_index("measure").loc["r2"]
        held += r2["low"] <= 0.75 <= r2["high"]
    assert held / 60 >= 0.85


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 10_000))
def test_the_order_of_rows_changes_nothing(seed):
    folds = make_folds_table()
    rng = np.random.default_rng(seed)
    observed, predicted = rng.uniform(size=(2, 60))
    predictions = make_predictions(folds, observed=observed, predicted=predicted)
    shuffled = predictions.sample(frac=1, random_state=seed)
    a, b = (score(p, folds=folds, areas_ranked=11, repeats=50, seed=0) for p in (predictions, shuffled))
    pd.testing.assert_frame_equal(a, b)


# Differences


def test_a_model_differs_from_itself_by_nothing(folds, truth):
    one = make_predictions(folds, observed=truth, predicted=noisy(truth, 0.2))
    gap = difference(pd.concat([one, one.assign(model="twin")]), "probe", "twin", folds=folds, seed=0).iloc[0]
    assert gap[["value", "low", "high"]].tolist() == [0.0, 0.0, 0.0]


def test_a_difference_is_paired(folds, truth):
    """Two models with the same errors but for a little: unpaired intervals overlap, the paired one excludes 0."""
    shared = truth + np.random.default_rng(1).normal(0, 0.2, 60)
    a = make_predictions(folds, observed=truth, predicted=truth + 0.9 * (shared - truth), model="a")
    b = make_predictions(folds, observed=truth, predicted=shared, model="b")
    both = pd.concat([a, b])
    scores = score(both, folds=folds, areas_ranked=11, seed=0).set_index(["measure", "model"]).loc["r2"]
    gap = difference(both, "a", "b", folds=folds, seed=0).iloc[0]
    assert gap["value"] == pytest.approx(scores.loc["a", "value"] - scores.loc["b", "value"])
    assert scores.loc["a", "low"] < scores.loc["b", "high"]
    assert 0 < gap["low"] < gap["value"] < gap["high"]


def test_a_difference_is_taken_over_the_areas_both_predict(folds, truth):
    a = make_predictions(folds, observed=truth, predicted=noisy(truth, 0.1), model="a")
    b = make_predictions(folds, observed=truth, predicted=noisy(truth, 0.3), model="b")[5:]
    gap = difference(pd.concat([a, b]), "a", "b", folds=folds, seed=0)
    assert tuple(gap.columns) == DIFFERENCE_COLUMNS
    expected = r2_score(truth[5:], a["predicted"][5:]) - r2_score(truth[5:], b["predicted"])
    assert gap.loc[0, ["value", "areas", "units"]].tolist() == [pytest.approx(expected), 55, 6]


def test_a_model_without_predictions_is_named(folds, truth):
    one = make_predictions(folds, observed=truth, predicted=truth)
    with pytest.raises(InputError, match="no predictions of 'coordinates', only of probe"):
        difference(one, "probe", "coordinates", folds=folds, seed=0)


# The verdict


def scored(*rows):
    """(model, kind, value, low, high) -> scores."""
    return pd.DataFrame(
        [(m, k, "imd", "r2", v, low, high, 230) for m, k, v, low, high in rows], columns=list(tables.SCORES.columns)
    )


def gaps(*rows, areas=230, units=10):
    """(baseline, kind, value, low, high) -> differences of the probe."""
    return pd.DataFrame(
        [("probe", b, k, "imd", v, low, high, areas, units) for b, k, v, low, high in rows], columns=DIFFERENCE_COLUMNS
    )


SCORES = scored(
    ("probe", "borough", 0.45, 0.3, 0.56),
    ("coordinates", "borough", -0.05, -0.3, 0.1),
    ("mean", "borough", -0.02, -0.1, -0.001),
    ("probe", "random", 0.5, 0.4, 0.6),
    ("coordinates", "random", 0.6, 0.5, 0.7),
)


def test_the_verdict_says_where_pictures_win_and_where_they_lose():
    differences = gaps(("coordinates", "borough", 0.5, 0.31, 0.664), ("coordinates", "random", -0.1, -0.2, -0.001))
    assert verdict(SCORES, differences, model="probe") == (
        "With whole boroughs held out, the pictures (probe) say more than a map without pictures about the Index of"
        " Multiple Deprivation: R² 0.45 [0.30, 0.56] against -0.05 [-0.30, 0.10] for the coordinates, a difference of"
        " 0.50 [0.31, 0.66], on 230 areas in 10 boroughs."
        " With random areas held out, they say less than a map without pictures: a difference of -0.10 [-0.20, 0.00]."
    )


def test_an_interval_that_includes_nought_is_nothing_beyond_the_baselines():
    words = verdict(SCORES, gaps(("coordinates", "borough", 0.5, -0.01, 0.9)), model="probe", names={"probe": "ridge"})
    assert words.startswith(
        "With whole boroughs held out, the pictures (ridge) say nothing beyond the baselines about the"
    )
    assert words.endswith("a difference of 0.50 [-0.01, 0.90], on 230 areas in 10 boroughs.")


def test_every_baseline_has_to_be_beaten():
    differences = gaps(("coordinates", "borough", 0.5, 0.3, 0.7), ("mean", "borough", 0.1, -0.1, 0.3))
    words = verdict(SCORES, differences, model="probe")
    assert "say nothing beyond the baselines" in words
    assert "for the mean, a difference of 0.10 [-0.10, 0.30]" in words


def test_beating_a_bad_map_is_not_enough():
    """Coordinates below 0 are beaten by predicting nothing at all: R2 itself has to lie above 0."""
    poor = scored(("probe", "borough", 0.02, -0.05, 0.1), ("coordinates", "borough", -0.4, -0.5, -0.3))
    differences = gaps(("coordinates", "borough", 0.42, 0.3, 0.5))
    assert "say nothing beyond the baselines" in verdict(poor, differences, model="probe")


@pytest.mark.parametrize(("areas", "units"), [(56, 9), (230, 4)])
def test_too_few_areas_or_boroughs_say_nothing_whatever_the_score(areas, units):
    words = verdict(SCORES, gaps(("coordinates", "borough", 0.5, 0.31, 0.66), areas=areas, units=units), model="probe")
    assert words == (
        f"On {areas} areas in {units} boroughs, the pictures (probe) say nothing beyond the baselines about the Index"
        " of Multiple Deprivation that could be relied on: R² 0.45 [0.30, 0.56] against -0.05 [-0.30, 0.10] for the"
        " coordinates, a difference of 0.50 [0.31, 0.66], and a verdict needs at least 100 areas in 5 boroughs."
    )


def test_a_verdict_without_an_interval_says_so():
    differences = gaps(("coordinates", "borough", 0.5, np.nan, np.nan), units=1)
    assert "a difference of 0.50 (no interval)" in verdict(SCORES, differences, model="probe")


def test_a_verdict_on_what_was_not_scored_is_refused():
    with pytest.raises(InputError, match="no difference of 'probe' from a baseline for 'crime'"):
        verdict(SCORES, gaps(("mean", "borough", 0.1, 0.0, 0.2)), model="probe", indicator="crime")
    with pytest.raises(InputError, match="no R² of 'neighbours'"):
        verdict(SCORES, gaps(("neighbours", "borough", 0.1, 0.0, 0.2)), model="probe")
