"""Permutations that keep space in mind reject about 5 % of links that are not there; free ones reject most of them."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter

from urbanprint.errors import InputError
from urbanprint.explanation.activation import co_appearance_gain
from urbanprint.explanation.spatial_null import (
    CLASS_TEST_COLUMNS,
    PAIR_TEST_COLUMNS,
    adjusted,
    block_permutations,
    class_tests,
    pair_tests,
    torus_shifts,
)

SIDE = 24
ROW, COLUMN = (axis.ravel() for axis in np.mgrid[:SIDE, :SIDE])
BLOCK = ROW // 6 * SIDE + COLUMN // 6

Fields = Callable[[np.random.Generator, int], np.ndarray]


def smooth_fields(rng: np.random.Generator, fields: int) -> np.ndarray:
    """Gaussian fields (tiles, fields) whose correlation falls to exp(-1) over 4 tiles, cut out of larger ones."""
    noise = gaussian_filter(rng.normal(size=(fields, SIDE + 20, SIDE + 20)), (0, 2, 2))
    return noise[:, 10:-10, 10:-10].reshape(fields, -1).T


def block_fields(rng: np.random.Generator, fields: int) -> np.ndarray:
    """A level of each block and as much noise of each tile again (tiles, fields)."""
    _, block = np.unique(BLOCK, return_inverse=True)
    return 0.7 * rng.normal(size=(block.max() + 1, fields))[block] + rng.normal(size=(len(BLOCK), fields))


def rejections(fields: Fields, *nulls: np.ndarray, simulations: int = 60) -> list[float]:
    """Share of tests at 5 % that claim a link where there is none, under each null and, last, under all of them."""
    claimed = []
    for simulation in range(simulations):
        status, *classes = fields(np.random.default_rng(simulation), 21).T
        p_values = [
            class_tests(np.stack(classes, axis=1), status > np.median(status), null, classes=range(20))["p_value"]
            for null in nulls
        ]
        claimed.append([*(np.mean(p <= 0.05) for p in p_values), np.mean(np.max(p_values, axis=0) <= 0.05)])
    return list(np.mean(claimed, axis=0))


@pytest.fixture(scope="module")
def nulls() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Free permutations, permutations within blocks, torus shifts."""
    return (
        block_permutations(np.zeros(len(ROW)), repeats=199, seed=0),
        block_permutations(BLOCK, repeats=199, seed=0),
        torus_shifts(ROW, COLUMN, repeats=199, seed=0),
    )


# Tolerances: simulations share one status among 20 classes; the standard error of a rate near .05 was .005 to .007.


def test_without_a_link_between_smooth_fields_the_torus_claims_5_percent_and_free_exchange_most(
    nulls: tuple[np.ndarray, ...],
) -> None:
    free, within, torus, both = rejections(smooth_fields, *nulls)
    assert 0.03 < torus < 0.09
    assert both <= torus
    assert free > 0.5
    assert within > 0.4  # as the module says: it must not be used alone where fields are smooth


def test_without_a_link_between_fields_of_blocks_exchange_within_blocks_claims_5_percent(
    nulls: tuple[np.ndarray, ...],
) -> None:
    free, within, torus, both = rejections(block_fields, *nulls)
    assert 0.03 < within < 0.07
    assert both <= within
    assert free > 0.2
    assert torus > within


def test_the_torus_also_holds_on_a_ragged_city() -> None:
    city = (ROW - 12) ** 2 + (COLUMN - 12) ** 2 < 150
    torus = torus_shifts(ROW[city], COLUMN[city], repeats=199, seed=0)
    assert (torus < 0).any()
    rate, _ = rejections(lambda rng, fields: smooth_fields(rng, fields)[city], torus)
    assert 0.03 < rate < 0.09


def test_a_link_within_blocks_is_found_by_every_null(nulls: tuple[np.ndarray, ...]) -> None:
    field = smooth_fields(np.random.default_rng(0), 1)[:, 0]
    noise = np.random.default_rng(1).normal(0, field.std(), size=len(field))
    values = np.column_stack([field + noise, noise])
    for null in nulls:
        table = class_tests(values, field > 0, null, classes=["linked", "noise"])
        assert table["p_value"][0] == 1 / 200
        assert table["p_value"][1] > 0.05
        assert table["difference"][0] > 0


def test_a_shift_of_a_full_grid_is_numpys_roll() -> None:
    rows, columns = (axis.ravel() for axis in np.mgrid[5:17, -3:8])
    shifts = torus_shifts(rows, columns, repeats=1000, seed=0)
    grid = np.arange(12 * 11).reshape(12, 11)
    every = {np.roll(grid, (-d, -r), (0, 1)).tobytes() for d in range(12) for r in range(11) if d or r}
    assert len(shifts) == len(every) == 12 * 11 - 1  # all there are, each once, without the one that moves nothing
    assert {shift.reshape(12, 11).tobytes() for shift in shifts} == every


def test_a_tile_that_leaves_the_city_meets_none_and_shifts_that_empty_it_are_left_out() -> None:
    rng = np.random.default_rng(0)
    rows, columns = np.divmod(np.sort(rng.choice(20 * 30, size=240, replace=False)), 30)
    shifts = torus_shifts(rows, columns, repeats=1000, seed=0)
    place = {(r, c): tile for tile, (r, c) in enumerate(zip(rows, columns, strict=True))}
    rows, columns = rows - rows.min(), columns - columns.min()
    for shift in shifts[::50]:
        here = int(np.flatnonzero(shift >= 0)[0])
        down, right = (axis[shift[here]] - axis[here] for axis in (rows, columns))
        expected = [place.get(((r + down) % 20, (c + right) % 30), -1) for r, c in zip(rows, columns, strict=True)]
        assert_array_equal(shift, expected)
    assert ((shifts >= 0).mean(axis=1) >= 0.25).all()


def test_two_tiles_in_a_cell_and_a_sparse_sample_are_refused() -> None:
    with pytest.raises(InputError, match="Tile 0 shares its cell with another"):
        torus_shifts(np.array([0, 1, 0]), np.array([0, 0, 0]), repeats=9, seed=0)
    scattered = np.arange(100) ** 2 % 1009
    with pytest.raises(InputError, match="0 shifts lay 25% of the 100 tiles upon others, 99 are needed"):
        torus_shifts(np.arange(100), scattered, repeats=9, seed=0)


def test_within_blocks_every_tile_takes_the_status_of_one_of_its_block_once() -> None:
    block = pd.Series(list("abacbabbca"))
    permutations = block_permutations(block, repeats=3000, seed=0)
    assert_array_equal(np.sort(permutations, axis=1), np.tile(np.arange(10), (3000, 1)))
    assert (block.to_numpy()[permutations] == block.to_numpy()).all()
    taken = np.bincount(permutations[:, 0], minlength=10) / 3000
    assert_allclose(taken[(block == "a").to_numpy()], 0.25, atol=4 * np.sqrt(0.25 * 0.75 / 3000))


def by_hand(values: np.ndarray, status: np.ndarray, permutations: np.ndarray) -> float:
    """The p-value of one class, permutation by permutation."""

    def score(taken: np.ndarray) -> float:
        met = (taken >= 0) & np.isfinite(values)
        here, having = values[met], status[taken[met]]
        if having.all() or not having.any():
            return np.nan
        scale = np.sqrt(1 / having.sum() + 1 / (~having).sum())
        return float((here[having].mean() - here[~having].mean()) / scale)

    scores = np.array([score(taken) for taken in [np.arange(len(values)), *permutations]])
    scores = scores[np.isfinite(scores)]
    far = np.abs(scores - scores.mean())
    return float(np.mean(far >= far[0] - 1e-12))


def test_p_values_of_all_classes_are_those_of_going_through_the_permutations() -> None:
    rng = np.random.default_rng(0)
    city = rng.random(len(ROW)) < 0.6
    values = np.where(rng.random((city.sum(), 4)) < [0.9, 0.5, 0.02, 0.3], rng.gamma(2, size=(city.sum(), 4)), np.nan)
    status = rng.random(city.sum()) < 0.3
    for null in (
        torus_shifts(ROW[city], COLUMN[city], repeats=60, seed=1),
        block_permutations(BLOCK[city], repeats=60, seed=1),
    ):
        table = class_tests(values, status, null, classes=list("abcd"))
        assert tuple(table.columns) == CLASS_TEST_COLUMNS
        assert_allclose(table["p_value"], [by_hand(column, status, null) for column in values.T])
        assert_allclose(
            table["difference"],
            np.nanmean(values[status], axis=0) - np.nanmean(values[~status], axis=0),
        )
        assert table["tiles"].tolist() == np.isfinite(values).sum(axis=0).tolist()


def test_pairs_are_tested_among_the_tiles_that_hold_the_first() -> None:
    rng = np.random.default_rng(0)
    held = rng.random((len(ROW), 4)) < [0.8, 0.5, 0.4, 0.3]
    status = rng.random(len(ROW)) < np.where(held[:, 0] & held[:, 1], 0.6, 0.3)
    null = block_permutations(BLOCK, repeats=199, seed=0)
    table = pair_tests(held, status, null, classes=list("abcd"))
    assert tuple(table.columns) == PAIR_TEST_COLUMNS
    assert len(table) == 12
    gains = co_appearance_gain(status, held, pd.Series(BLOCK), classes=list("abcd"), repeats=10, seed=0)
    assert_array_equal(gains[["first", "second", "tiles"]], table[["first", "second", "tiles"]])
    assert_array_equal(table["difference"] > 0, gains["value"] > 1)
    row = table.set_index(["first", "second"]).loc[("b", "c")]
    second = np.where(held[:, 1], held[:, 2], np.nan)
    assert row["p_value"] == pytest.approx(by_hand(second, status, null))
    assert row["difference"] == pytest.approx(np.nanmean(second[status]) - np.nanmean(second[~status]))
    assert table.set_index(["first", "second"])["p_value"].loc[("a", "b")] == 1 / 200


def test_pairs_of_values_are_those_of_the_first_where_both_are_held() -> None:
    rng = np.random.default_rng(0)
    held, ratios = rng.random((len(ROW), 3)) < 0.5, rng.gamma(2, size=(len(ROW), 3))
    status = rng.random(len(ROW)) < 0.4
    null = block_permutations(BLOCK, repeats=99, seed=0)
    table = pair_tests(held, status, null, classes=list("abc"), values=ratios).set_index(["first", "second"])
    both = np.where(held[:, 2] & held[:, 0], ratios[:, 2], np.nan)
    assert table.loc[("c", "a"), "p_value"] == pytest.approx(by_hand(both, status, null))
    assert table.loc[("c", "a"), "tiles"] == (held[:, 2] & held[:, 0]).sum()


def test_what_cannot_differ_has_no_p_value_and_takes_no_part_in_the_adjustment() -> None:
    rng = np.random.default_rng(0)
    status = rng.random(len(ROW)) < 0.4
    nothing, constant = np.full(len(ROW), np.nan), np.ones(len(ROW))
    lone = np.where(np.arange(len(ROW)) == 5, 1.0, np.nan)
    values = np.column_stack([nothing, constant, lone, status + rng.normal(size=len(ROW))])
    table = class_tests(values, status, block_permutations(BLOCK, repeats=99, seed=0), classes=list("abcd"))
    assert table["p_value"].isna().tolist() == [True, True, True, False]
    assert table["q_value"][3] == table["p_value"][3] == 0.01


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    """Five p-values: each times 5 over its rank, and never above that of a higher rank."""
    assert_allclose(
        adjusted(np.array([0.03, 0.01, np.nan, 0.5, 0.04, 0.9])), [0.2 / 3, 0.05, np.nan, 0.625, 0.2 / 3, 0.9]
    )
    assert np.isnan(adjusted(np.array([np.nan]))).all()
