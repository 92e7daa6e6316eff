"""The bootstrap of groups equals one that copies rows, and its intervals hold as often as they say."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.metrics import r2_score

from urbanprint.errors import InputError
from urbanprint.evaluation.bootstrap import draw_sums, group_draws, interval, r2, ratio, with_units

GROUPS = pd.Series(list("badcabdbca" * 3))


def copied(draw: np.ndarray) -> np.ndarray:
    """The rows of a draw, each as often as its group was drawn."""
    rows = [np.tile(np.flatnonzero(name == GROUPS), int(often)) for name, often in zip("abcd", draw, strict=True)]
    return np.concatenate(rows)


def test_the_first_draw_is_the_sample_and_every_other_has_as_many_groups() -> None:
    unit, weights = group_draws(GROUPS, repeats=500, seed=3)
    assert_array_equal(np.array(list("abcd"))[unit], GROUPS)
    assert weights.shape == (501, 4)
    assert (weights[0] == 1).all()
    assert (weights.sum(axis=1) == 4).all()
    assert_allclose(weights[1:].mean(axis=0), 1.0, atol=4 * np.sqrt(0.75 / 500))


def test_draws_depend_on_the_number_of_groups_and_the_seed_not_on_their_names() -> None:
    _, weights = group_draws(GROUPS, repeats=50, seed=3)
    _, renamed = group_draws(GROUPS.str.upper().iloc[::-1], repeats=50, seed=3)
    assert_array_equal(renamed, weights)
    assert (group_draws(GROUPS, repeats=50, seed=4)[1] != weights).any()


@pytest.mark.parametrize("groups", [["only", "only"], []])
def test_of_a_single_group_there_is_only_the_sample(groups: list[str]) -> None:
    _, weights = group_draws(pd.Series(groups, dtype="str"), repeats=50, seed=3)
    assert weights.shape == (1, len(set(groups)))
    value, low, high = interval(np.array([0.4]))
    assert value == 0.4
    assert np.isnan([low, high]).all()


def test_sums_and_r2_of_a_draw_are_those_of_its_rows() -> None:
    rng = np.random.default_rng(0)
    observed = 1e4 + rng.normal(size=len(GROUPS))  # far from 0, where a difference of squares loses its digits
    predicted = observed + rng.normal(size=len(GROUPS))
    unit, weights = group_draws(GROUPS, repeats=40, seed=3)
    sums = draw_sums(np.column_stack([observed, predicted]), unit, weights)
    shares = r2(observed, predicted, unit, weights)
    for draw, of_draw, share in zip(weights, sums, shares, strict=True):
        rows = copied(draw)
        assert_allclose(of_draw, [observed[rows].sum(), predicted[rows].sum()])
        assert share == pytest.approx(r2_score(observed[rows], predicted[rows]), rel=1e-9)


def test_r2_of_a_constant_is_missing() -> None:
    assert np.isnan(r2(np.full(3, 0.7), np.arange(3.0), np.arange(3), np.ones((1, 3)))).all()


def test_a_ratio_is_missing_where_nothing_is_divided_by() -> None:
    assert_array_equal(ratio(np.array([1.0, 1.0, 0.0]), np.array([4.0, 1e-15, 0.0])), [0.25, np.nan, np.nan])


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=1, max_size=60), st.integers(1, 20))
def test_an_interval_leaves_out_five_percent_shared_among_the_comparisons(drawn: list[float], comparisons: int) -> None:
    value, low, high = interval(np.array([9.0, *drawn, np.nan]), comparisons=comparisons)
    below = 0.05 / comparisons / 2
    assert value == 9.0
    assert_allclose([low, high], np.quantile(drawn, [below, 1 - below]))


def test_an_interval_holds_the_truth_as_often_as_it_says_although_members_of_a_group_are_alike() -> None:
    """The mean of 40 groups of 5: if members were drawn one by one, 64 of 100 intervals would hold it."""
    rng = np.random.default_rng(5)
    unit, weights = group_draws(pd.Series(np.repeat(np.arange(40), 5)), repeats=200, seed=1)
    held = []
    for _ in range(300):
        values = np.repeat(rng.normal(size=40), 5) + rng.normal(0, 0.3, size=200)
        total, count = draw_sums(np.column_stack([values, np.ones(200)]), unit, weights).T
        _, low, high = interval(ratio(total, count))
        held.append(low < 0 < high)
    # Three standard errors of a share of 300 are .04, and percentile intervals of 40 groups are 2 % short.
    assert 0.89 < np.mean(held) < 0.99


def test_areas_are_drawn_with_their_borough_under_borough_folds_else_with_their_block() -> None:
    folds = pd.DataFrame({"area_id": ["A", "B"] * 2, "borough": ["h", "k"] * 2, "block": ["1", "2"] * 2})
    predictions = pd.DataFrame({"area_id": ["B", "A", "A"], "kind": ["borough", "block", "random"]})
    assert with_units(predictions, folds)["unit"].tolist() == ["k", "1", "1"]
    with pytest.raises(InputError, match=r"1 predicted areas, such as B, are not in the folds"):
        with_units(predictions, folds[folds["area_id"] == "A"])
