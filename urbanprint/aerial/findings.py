"""What survives chance: attention to a class, its link with income in the data, and pairs that go together.

Each is tested against shifts of the whole map (`explanation.spatial_null`), and claimed only where the p-value stays
below `LEVEL` after false-discovery control over all that was asked. Exchanges within blocks say beside it whether the
link holds within neighbourhoods too.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from urbanprint.aerial.attention import ENDS, Looked
from urbanprint.errors import InputError
from urbanprint.explanation.spatial_null import adjusted, block_permutations, class_tests, map_shifts, pair_tests

LEVEL = 0.05
LEAST_TILES = 20
"""On fewer tiles of an end a class is not called the one most looked at."""
FINDING_COLUMNS = (
    *("name", "attention", "attention_shifts", "attention_blocks", "attention_q", "attention_found"),
    *("land", "land_shifts", "land_blocks", "land_q", "land_found", "tiles"),
)


@dataclass(frozen=True, eq=False)
class Nulls:
    """Exchanges of the status of some tiles under both nulls."""

    shifts: np.ndarray
    blocks: np.ndarray


def nulls_of(places: pd.DataFrame, units: pd.Series, *, size_m: int, permutations: int, seed: int) -> Nulls:
    """Both nulls of tiles at `places` (x_m, y_m of centres on a lattice of `size_m`) in blocks `units`.

    Where the map is too small for shifts raises `InputError`, as `map_shifts` does.
    """
    return Nulls(
        shifts=_shifts(places, size_m=size_m, permutations=permutations, seed=seed),
        blocks=block_permutations(units, repeats=permutations, seed=seed),
    )


def _shifts(places: pd.DataFrame, *, size_m: int, permutations: int, seed: int) -> np.ndarray:
    column, row = (np.floor(places[axis].to_numpy() / size_m).astype(int) for axis in ("x_m", "y_m"))
    return map_shifts(row, column, repeats=permutations, seed=seed)


def tests_of(test: str, values: np.ndarray, status: np.ndarray, nulls: Nulls, classes: tuple[str, ...]) -> pd.DataFrame:
    """`class_tests` under both nulls: name, <test>, <test>_shifts, <test>_blocks, <test>_q, <test>_found, tiles."""
    found = {null: class_tests(values, status, getattr(nulls, null), classes=classes) for null in ("shifts", "blocks")}
    table = pd.DataFrame(
        {
            "name": list(classes),
            test: found["shifts"]["difference"],
            **{f"{test}_{null}": table["p_value"] for null, table in found.items()},
            "tiles": found["shifts"]["tiles"],
        }
    )
    table[f"{test}_q"] = adjusted(table[f"{test}_shifts"].to_numpy())
    table[f"{test}_found"] = table[f"{test}_q"] <= LEVEL
    return table


def _untested(test: str, classes: tuple[str, ...]) -> pd.DataFrame:
    """What `tests_of` returns where all tiles are of one end, so that there is nothing to compare."""
    missing = [test, f"{test}_shifts", f"{test}_blocks", f"{test}_q"]
    table = pd.DataFrame({"name": list(classes), **dict.fromkeys(missing, np.nan)})
    return table.assign(**{f"{test}_found": False, "tiles": 0})


def class_findings(looked: Looked, places: pd.DataFrame, *, size_m: int, permutations: int, seed: int) -> pd.DataFrame:
    """Of each class: does attention to it differ between the ends, and does its area? (`FINDING_COLUMNS`)

    `attention` is the mean ratio of tiles predicted rich less that of tiles predicted poor, `land` the mean share of a
    tile that the class covers, of cells observed rich less of cells observed poor. `places` as `nulls_of` has them, a
    row a tile.
    """
    parts = []
    for test, values, ends in (
        ("attention", looked.ratios, looked.end),
        ("land", looked.shares, looked.observed_end),
    ):
        some = ends != ""
        if set(ends[some]) != set(ENDS):  # a network that has learned nothing calls every tile the same
            parts.append(_untested(test, looked.classes))
            continue
        units = looked.units[some].reset_index(drop=True)
        nulls = nulls_of(places[some], units, size_m=size_m, permutations=permutations, seed=seed)
        parts.append(tests_of(test, values[some], ends[some] == "rich", nulls, looked.classes))
    table = parts[0].merge(parts[1].drop(columns="tiles"), on="name")
    return table[list(FINDING_COLUMNS)]


def pair_findings(
    pairs: pd.DataFrame, looked: Looked, places: pd.DataFrame, *, size_m: int, permutations: int, seed: int
) -> pd.DataFrame:
    """`pairs` of `attention.pair_table` with q_value and found of the coactivation, gain_q and gain_found of the gain.

    Coactivation: the ratio of `first` is compared between tiles of the end with and without `second`, whose presence on
    the whole map is exchanged; gain: how often `second` comes with `first`, between tiles of the end and all others.
    """
    shifts = _shifts(places, size_m=size_m, permutations=permutations, seed=seed)
    held = looked.held
    first, second = np.nonzero(~np.eye(len(looked.classes), dtype=bool))
    names = np.array(looked.classes, dtype=object)
    parts = []
    for end in ENDS:
        some = looked.end == end
        ratios = np.where(some[:, None], looked.ratios, np.nan)
        together = np.full((len(looked.classes), len(looked.classes)), np.nan)
        for other in range(len(looked.classes)):
            if held[some, other].any() and not held[some, other].all():
                together[:, other] = class_tests(ratios, held[:, other], shifts, classes=looked.classes)["p_value"]
        gained = pair_tests(held, some, shifts, classes=looked.classes)["p_value"]
        columns = {"first": names[first], "second": names[second], "p": together[first, second], "gain_p": gained}
        parts.append(pd.DataFrame({"end": end, **columns}))
    table = pd.concat(parts, ignore_index=True)
    table["q_value"], table["gain_q"] = (adjusted(table[column].to_numpy()) for column in ("p", "gain_p"))
    table = pairs.merge(table.drop(columns=["p", "gain_p"]), on=["end", "first", "second"], validate="one_to_one")
    return table.assign(found=table["q_value"] <= LEVEL, gain_found=table["gain_q"] <= LEVEL)


def top_class(ratios: pd.DataFrame, end: str, *, least_tiles: int = LEAST_TILES) -> str:
    """The class most surely looked at: the highest lower bound of the mean ratio at an end, of those that at least
    `least_tiles` tiles hold. A few tiles of a rare class have high means by chance, and wide intervals with them.

    Raises `InputError` where no class is held by so many.
    """
    rows = ratios[(ratios["end"] == end) & (ratios["tiles"] >= least_tiles)].dropna(subset="low")
    if rows.empty:
        raise InputError(f"No class of land is held by {least_tiles} tiles predicted {end}: take more cells.")
    return str(rows["name"].iloc[int(rows["low"].argmax())])
