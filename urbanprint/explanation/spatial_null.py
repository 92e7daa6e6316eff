"""Could the link between a status and what tiles hold or look at be chance? Permutations that keep space in mind.

What belongs here: ways of exchanging the status of tiles that break its link with everything else and keep how it is
spread over the map, and p-values under them. Neighbours resemble each other, in status and in land use alike, so that
two fields which have nothing to do with each other are often correlated; a free permutation takes that for a finding.

- `map_shifts` moves the status as a whole map, so that both maps keep their own pattern and only the link is broken:
  right where dependence is the same from place to place. What is claimed rests on it.
- `block_permutations` exchanges within blocks: a tile is compared with others of its block alone, so that what differs
  between blocks explains nothing. It says whether a link holds within neighbourhoods too. Alone it claims too much of
  what varies smoothly within blocks.

On 24 x 24 tiles without any link, 4,000 tests at 5 % rejected: of Gaussian fields whose correlation falls to 0.37 over
4 tiles, free 63 %, within blocks of 6 x 6 tiles 55 %, shifts 5 %; of fields with a level of each block and noise, free
28 %, within blocks 5 %, shifts 15 %: where both maps were made block by block, ask for both. Shifts on a torus, where
what leaves the map comes in on the other side, rejected 7 % and 14 %: they break both maps along a seam.
"""

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from scipy.ndimage import binary_closing, distance_transform_edt
from scipy.stats import false_discovery_control

from urbanprint.errors import InputError

CLASS_TEST_COLUMNS = ("name", "difference", "p_value", "q_value", "tiles")
PAIR_TEST_COLUMNS = ("first", "second", "difference", "p_value", "q_value", "tiles")

LEAST_OVERLAP = 0.45
"""A shift counts where at least this share of the tiles meets another; the rest has fallen off the map. The fewer are
left, the less their differences are those of the whole (with a quarter 8 % of tests at 5 % rejected, with 0.4 6 %); the
more are asked for, the shorter the shifts, and the more like what was observed (with a half 4 %)."""

_GAP = 7  # cells; what is narrower between tiles of a sample belongs to its map
_FEWEST_SHIFTS = 19  # below it no p-value is 0.05


def map_shifts(row: np.ndarray, column: np.ndarray, *, repeats: int, seed: int) -> np.ndarray:
    """Shifts of a grid of tiles as a whole: the tile whose status each takes over (shifts, n), -1 where there is none.

    `row` and `column` (n,) are whole numbers, one tile a cell. What leaves the map is lost (Mrkvicka et al. 2021,
    "Revisiting the random shift approach for testing in spatial statistics", Spatial Statistics 42; with the scores of
    `class_tests` it is their variance correction). Of a sample of cells, those between have the status of the nearest
    tile: else a shift would thin the sample as well as cut the map. `repeats` different shifts, or all there are if
    fewer.

    Raises `InputError` for two tiles in one cell, and for a map too small to be shifted.
    """
    reach = _reach(np.asarray(row, dtype=np.int64), np.asarray(column, dtype=np.int64))
    margin = math.ceil(reach)
    row, column = (np.asarray(v, dtype=np.int64) - int(np.min(v)) + margin for v in (row, column))
    # Twice as large as the map, so that what leaves it meets nothing on the other side.
    size = (2 * int(row.max()) + 1, 2 * int(column.max()) + 1)
    tile = np.full(size, -1)
    tile[row, column] = np.arange(len(row))
    if (hidden := tile[row, column] != np.arange(len(row))).any():
        raise InputError(f"Tile {int(hidden.argmax())} shares its cell with another: shifts need one tile a cell.")
    there = tile >= 0
    distance, nearest = distance_transform_edt(~there, return_indices=True)
    tile = np.where(distance <= reach, tile[tuple(nearest)], -1)
    # How many tiles each shift lays upon the map.
    overlap = np.fft.irfft2(np.fft.rfft2(there).conj() * np.fft.rfft2(tile >= 0), size)
    overlap[0, 0] = 0.0
    possible = np.flatnonzero(overlap > LEAST_OVERLAP * len(row) - 0.5)
    if len(possible) < _FEWEST_SHIFTS:
        raise InputError(
            f"{len(possible)} shifts leave {LEAST_OVERLAP:.0%} of the {len(row)} tiles on the map, {_FEWEST_SHIFTS} are"
            " needed: take more cells."
        )
    chosen = np.random.default_rng(seed).choice(possible, size=min(repeats, len(possible)), replace=False)
    down, right = (shift[:, None] for shift in np.unravel_index(chosen, size))
    return tile[(row + down) % size[0], (column + right) % size[1]]


def _reach(row: np.ndarray, column: np.ndarray) -> float:
    """How many cells a place of a random sample may be from its nearest tile: 95 % are nearer. Below 1 of a full map,
    whose wide holes and surroundings have no status."""
    there = np.zeros([int(np.ptp(axis)) + 1 + 2 * _GAP for axis in (row, column)], dtype=bool)
    there[row - row.min() + _GAP, column - column.min() + _GAP] = True
    share = len(row) / binary_closing(there, np.ones((_GAP, _GAP))).sum()
    return math.sqrt(math.log(0.05) / (math.pi * math.log(np.clip(1 - share, 1e-9, 0.999))))


def block_permutations(block: np.ndarray | pd.Series, *, repeats: int, seed: int) -> np.ndarray:
    """Random exchanges within blocks: the tile whose status each takes over (repeats, n); of one block a free one."""
    number, _ = pd.factorize(np.asarray(block))
    order = np.argsort(number, kind="stable")
    drawn = number[order] + np.random.default_rng(seed).random((repeats, len(order)))
    permutations = np.empty(drawn.shape, dtype=np.int64)
    permutations[:, order] = order[np.argsort(drawn, axis=1)]  # sorted, each block's tiles lie where the block lies
    return permutations


def class_tests(
    values: np.ndarray, status: np.ndarray, permutations: np.ndarray, *, classes: Sequence[str]
) -> pd.DataFrame:
    """Do tiles of a status differ in each class? A row a class (`CLASS_TEST_COLUMNS`).

    `values` (n, classes), such as activation ratios or areas, NaN where a tile does not hold the class; `status` (n,)
    says which tiles have it; `permutations` of `map_shifts` or `block_permutations`. `difference` is the mean of the
    values with the status less the mean without, `tiles` how many hold the class. `p_value` is two-sided, `q_value`
    the same adjusted by Benjamini and Hochberg (1995) over all rows: those up to 0.05 are wrong in 5 % on average.

    The smallest p-value is 1 / (1 + permutations): with 342 pairs, 999 permutations find nothing unless 7 pairs are
    beyond them all. Both are missing where a class never varies or is never held with and without the status.
    """
    tests = _tests(values, status, permutations)
    return pd.DataFrame({"name": list(classes), **tests}, columns=list(CLASS_TEST_COLUMNS))


def pair_tests(
    held: np.ndarray,
    status: np.ndarray,
    permutations: np.ndarray,
    *,
    classes: Sequence[str],
    values: np.ndarray | None = None,
) -> pd.DataFrame:
    """Do tiles of a status differ in which classes come together? A row an ordered pair (`PAIR_TEST_COLUMNS`).

    `difference` is, among tiles that hold `first`, the share that also holds `second` with the status, less the share
    without: above 0 exactly where the co-appearance gain P(status | both) / P(status | first) is above 1. Given
    `values` (n, classes), such as activation ratios, it is that of the values of `first` where both are held. The rest
    as in `class_tests`; `tiles` hold both.
    """
    first, second = np.nonzero(~np.eye(len(classes), dtype=bool))
    if values is None:
        tested = np.where(held[:, first], held[:, second], np.nan)
    else:
        tested = np.where(held[:, first] & held[:, second], values[:, first], np.nan)
    named = np.array(classes, dtype=object)
    names = {"first": named[first], "second": named[second]}
    tests = {**_tests(tested, status, permutations), "tiles": (held[:, first] & held[:, second]).sum(axis=0)}
    return pd.DataFrame({**names, **tests}, columns=list(PAIR_TEST_COLUMNS))


def adjusted(p_values: np.ndarray) -> np.ndarray:
    """Benjamini and Hochberg's q-values of the p-values (m,) that are not missing."""
    q_values, known = np.full(len(p_values), np.nan), np.isfinite(p_values)
    q_values[known] = false_discovery_control(p_values[known]) if known.any() else np.nan
    return q_values


def _tests(values: np.ndarray, status: np.ndarray, permutations: np.ndarray) -> dict[str, np.ndarray]:
    rows = np.vstack([np.arange(len(status)), permutations])
    differences, scores = _differences(values, np.asarray(status, dtype=bool), rows)
    # Within blocks the expectation is not 0 but what the blocks explain, so that scores are centred by all of them.
    known = np.isfinite(scores)
    centre = np.where(known, scores, 0.0).sum(axis=0) / np.maximum(known.sum(axis=0), 1)
    distance = np.abs(scores - centre)
    beyond = distance >= distance[0] * (1 - 1e-9)  # equal ones differ by rounding
    varies = np.where(known, distance, 0.0).max(axis=0) > 1e-9
    p_values = np.where(known[0] & varies, beyond.sum(axis=0) / np.maximum(known.sum(axis=0), 1), np.nan)
    return {
        "difference": differences[0],
        "p_value": p_values,
        "q_value": adjusted(p_values),
        "tiles": np.isfinite(values).sum(axis=0),
    }


def _differences(values: np.ndarray, status: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Differences of means of values (n, m) with and without the status of `rows` (r, n), and in standard units (r, m).

    Shifts and missing values leave different numbers of tiles, and the fewer, the wider a difference scatters; divided
    by sqrt(1 / n_with + 1 / n_without) they are comparable (Mrkvicka et al. 2021, "Revisiting the random shift approach
    for testing in spatial statistics", Spatial Statistics 42), and by the standard deviation of what is left too where
    a few tiles are far from all others: a difference that rests on them grows with every other tile that is lost.
    """
    held = np.isfinite(values)
    n_held = np.maximum(held.sum(axis=0), 1)
    centred = np.where(held, values, 0.0)
    centred = np.where(held, centred - centred.sum(axis=0) / n_held, 0.0)
    spread = (centred**2).sum(axis=0) / n_held
    held = held.astype(float)
    present = (rows >= 0).astype(float)
    having = present * status[rows]
    lacking = present - having
    (sum_with, n_with), (sum_without, n_without) = ((who @ centred, who @ held) for who in (having, lacking))
    both = (n_with > 0) & (n_without > 0)
    n_with, n_without = (np.where(both, count, np.nan) for count in (n_with, n_without))
    differences = sum_with / n_with - sum_without / n_without
    left = n_with + n_without
    variance = present @ centred**2 / left - ((sum_with + sum_without) / left) ** 2
    variance = np.maximum(variance, 1e-9 * spread + 1e-300)  # of tiles that are all equal the difference is 0
    return differences, differences / np.sqrt(variance * (1 / n_with + 1 / n_without))
