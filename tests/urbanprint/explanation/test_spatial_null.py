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
    map_shifts,
    pair_tests,
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
    """Free permutations, permutations within blocks, shifts."""
    return (
        block_permutations(np.zeros(len(ROW)), repeats=199, seed=0),
        block_permutations(BLOCK, repeats=199, seed=0),
        map_shifts(ROW, COLUMN, repeats=199, seed=0),
    )


# Tolerances: simulations share one status among 20 classes; the standard error of a rate near .05 was .005 to .007.


def test_without_a_link_between_smooth_fields_shifts_claim_5_percent_and_free_exchange_most(
    nulls: tuple[np.ndarray, ...],
) -> None:
    free, within, shifts, _ = rejections(smooth_fields, *nulls)
    assert 0.02 < shifts < 0.07
    assert free > 0.5
    assert within > 0.4  # as the module says: it must not be used alone where fields are smooth


def test_without_a_link_between_fields_of_blocks_exchange_within_blocks_claims_5_percent(
    nulls: tuple[np.ndarray, ...],
) -> None:
    free, within, shifts, both = rejections(block_fields, *nulls)
    assert 0.03 < within < 0.07
    assert both <= within
    assert free > 0.2
    assert shifts > within


def far_out(rng: np.random.Generator, fields: int) -> np.ndarray:
    """A smooth status, and values without any pattern of which a few are far from all others (tiles, fields)."""
    values = np.exp(4 * rng.normal(size=(SIDE * SIDE, fields)))
    values[:, 0] = smooth_fields(rng, 1)[:, 0]
    return values


def test_shifts_hold_their_level_where_a_few_tiles_are_far_from_all_others(nulls: tuple[np.ndarray, ...]) -> None:
    """Unless differences are measured by how far the tiles that are left scatter, 2 % are claimed."""
    shifts, _ = rejections(far_out, nulls[2], simulations=200)
    assert 0.035 < shifts < 0.06


@pytest.mark.parametrize("share", [1.0, 0.5, 0.25])
def test_shifts_also_hold_on_a_ragged_city_and_on_samples_of_it(share: float) -> None:
    city = (ROW - 12) ** 2 + (COLUMN - 12) ** 2 < 150
    city &= np.random.default_rng(0).random(len(ROW)) < share
    shifts = map_shifts(ROW[city], COLUMN[city], repeats=199, seed=0)
    assert (shifts < 0).any()
    rate, _ = rejections(lambda rng, fields: smooth_fields(rng, fields)[city], shifts)
    assert 0.02 < rate < 0.08


def test_a_link_within_blocks_is_found_by_every_null(nulls: tuple[np.ndarray, ...]) -> None:
    field = smooth_fields(np.random.default_rng(0), 1)[:, 0]
    noise = np.random.default_rng(1).normal(0, field.std(), size=len(field))
    values = np.column_stack([field + noise, noise])
    for null in nulls:
        table = class_tests(values, field > 0, null, classes=["linked", "noise"])
        assert table["p_value"][0] == 1 / 200
        assert table["p_value"][1] > 0.05
        assert table["difference"][0] > 0


@pytest.mark.parametrize(("share", "reach"), [(0.95, 0.0), (0.4, 1.2)])
def test_a_shift_lays_each_tile_upon_the_nearest_of_the_place_so_many_cells_away(share: float, reach: float) -> None:
    """As defined, tile by tile: of a full map the one in the place itself, of a sample the nearest near it."""
    rng = np.random.default_rng(0)
    rows, columns = np.divmod(np.sort(rng.choice(12 * 17, size=int(share * 12 * 17), replace=False)), 17)
    distance = {
        (down, right): np.hypot(rows[:, None] + down - rows, columns[:, None] + right - columns)
        for down in range(-13, 14)
        for right in range(-18, 19)
        if down or right
    }
    met = {at: (near.min(axis=1) <= reach).sum() for at, near in distance.items()}
    wanted = {at for at, count in met.items() if count > 0.45 * len(rows) - 0.5}
    shifts = map_shifts(rows, columns, repeats=10_000, seed=0)
    assert len(shifts) == len(wanted)
    left = set(wanted)
    for shift in shifts:
        held = shift >= 0
        (at,) = [
            at
            for at in left
            if np.array_equal(distance[at].min(axis=1) <= reach, held)
            and (distance[at][held, shift[held]] == distance[at][held].min(axis=1)).all()
        ][:1]
        left.remove(at)


def test_two_tiles_in_a_cell_and_a_map_too_small_are_refused() -> None:
    with pytest.raises(InputError, match="Tile 0 shares its cell with another"):
        map_shifts(np.array([0, 1, 0]), np.array([0, 0, 0]), repeats=9, seed=0)
    row, column = np.divmod(np.arange(9), 3)
    with pytest.raises(InputError, match=r"\d+ shifts leave 45% of the 9 tiles on the map, 19 are needed"):
        map_shifts(row, column, repeats=9, seed=0)


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
        if (difference := here[having].mean() - here[~having].mean()) == 0:
            return 0.0
        return float(difference / (here.std() * np.sqrt(1 / having.sum() + 1 / (~having).sum())))

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
        map_shifts(ROW[city], COLUMN[city], repeats=60, seed=1),
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
    nothing, one, constant = (np.full(len(ROW), value) for value in (np.nan, 1.0, 0.7))
    lone = np.where(np.arange(len(ROW)) == 5, 1.0, np.nan)
    values = np.column_stack([nothing, one, constant, lone, status + rng.normal(size=len(ROW))])
    table = class_tests(values, status, block_permutations(BLOCK, repeats=99, seed=0), classes=list("abcde"))
    assert table["p_value"].isna().tolist() == [True, True, True, True, False]
    assert table["q_value"][4] == table["p_value"][4] == 0.01


def test_adjusted_p_values_are_those_of_benjamini_and_hochberg() -> None:
    """Five p-values: each times 5 over its rank, and never above that of a higher rank."""
    assert_allclose(
        adjusted(np.array([0.03, 0.01, np.nan, 0.5, 0.04, 0.9])), [0.2 / 3, 0.05, np.nan, 0.625, 0.2 / 3, 0.9]
    )
    assert np.isnan(adjusted(np.array([np.nan]))).all()
