"""What survives chance: attention to a class, its link with income in the data, and pairs that go together.

Each is tested against two nulls that keep space in mind (`explanation.spatial_null`), and claimed only where the larger
of both p-values stays below `LEVEL` after false-discovery control over all that was asked.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from urbanprint.aerial.attention import ENDS, Looked
from urbanprint.errors import InputError
from urbanprint.explanation.spatial_null import adjusted, block_permutations, class_tests, pair_tests, torus_shifts

LEVEL = 0.05
LEAST_TILES = 20
"""On fewer tiles of an end a class is not called the one most looked at."""
FINDING_COLUMNS = (
    *("name", "attention", "attention_torus", "attention_blocks", "attention_q", "attention_found"),
    *("land", "land_torus", "land_blocks", "land_q", "land_found", "tiles"),
)


@dataclass(frozen=True, eq=False)
class Nulls:
    """Exchanges of the status of some tiles under both nulls."""

    torus: np.ndarray
    blocks: np.ndarray


def nulls_of(places: pd.DataFrame, units: pd.Series, *, size_m: int, permutations: int, seed: int) -> Nulls:
    """Both nulls of tiles at `places` (x_m, y_m of centres on a lattice of `size_m`) in blocks `units`.

    Where tiles are too sparse for shifts, as of a small sample of cells, raises `InputError`, as `torus_shifts` does.
    """
    column, row = (np.floor(places[axis].to_numpy() / size_m).astype(int) for axis in ("x_m", "y_m"))
    return Nulls(
        torus=torus_shifts(row, column, repeats=permutations, seed=seed),
        blocks=block_permutations(units, repeats=permutations, seed=seed),
    )


def both_ways(
    test: str, values: np.ndarray, status: np.ndarray, nulls: Nulls, classes: tuple[str, ...]
) -> pd.DataFrame:
    """`class_tests` under both nulls: name, <test>, <test>_torus, <test>_blocks, <test>_q, <test>_found, tiles."""
    tested = {null: class_tests(values, status, getattr(nulls, null), classes=classes) for null in ("torus", "blocks")}
    table = pd.DataFrame(
        {
            "name": list(classes),
            test: tested["torus"]["difference"],
            **{f"{test}_{null}": found["p_value"] for null, found in tested.items()},
            "tiles": tested["torus"]["tiles"],
        }
    )
    # Missing under one null is missing: a class that the null cannot move is not tested.
    larger = table[[f"{test}_torus", f"{test}_blocks"]].max(axis=1, skipna=False)
    table[f"{test}_q"] = adjusted(larger.to_numpy())
    table[f"{test}_found"] = table[f"{test}_q"] <= LEVEL
    return table


def _untested(test: str, classes: tuple[str, ...]) -> pd.DataFrame:
    """What `both_ways` returns where all tiles are of one end, so that there is nothing to compare."""
    missing = [test, f"{test}_torus", f"{test}_blocks", f"{test}_q"]
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
        parts.append(both_ways(test, values[some], ends[some] == "rich", nulls, looked.classes))
    table = parts[0].merge(parts[1].drop(columns="tiles"), on="name")
    return table[list(FINDING_COLUMNS)]


def pair_findings(
    pairs: pd.DataFrame, looked: Looked, places: pd.DataFrame, *, size_m: int, permutations: int, seed: int
) -> pd.DataFrame:
    """`pairs` of `attention.pair_table` with q_value and found of the coactivation, gain_q and gain_found of the gain.

    Coactivation: the ratio of `first` is compared between tiles of the end with and without `second`, whose presence on
    the whole map is exchanged; gain: how often `second` comes with `first`, between tiles of the end and all others.
    """
    nulls = nulls_of(places, looked.units, size_m=size_m, permutations=permutations, seed=seed)
    held = looked.held
    parts = []
    for end in ENDS:
        some = looked.end == end
        ratios = np.where(some[:, None], looked.ratios, np.nan)
        together = np.full((len(looked.classes), len(looked.classes)), np.nan)
        for other in range(len(looked.classes)):
            if held[some, other].any() and not held[some, other].all():
                tests = both_ways("ratio", ratios, held[:, other], nulls, looked.classes)
                together[:, other] = tests[["ratio_torus", "ratio_blocks"]].max(axis=1, skipna=False)
        first, second = np.nonzero(~np.eye(len(looked.classes), dtype=bool))
        gained = [
            pair_tests(held, some, null, classes=looked.classes)["p_value"] for null in (nulls.torus, nulls.blocks)
        ]
        parts.append(
            pd.DataFrame(
                {
                    "end": end,
                    "first": np.array(looked.classes, dtype=object)[first],
                    "second": np.array(looked.classes, dtype=object)[second],
                    "p": together[first, second],
                    "gain_p": pd.concat(gained, axis=1).max(axis=1, skipna=False).to_numpy(),
                }
            )
        )
    tested = pd.concat(parts, ignore_index=True)
    tested["q_value"], tested["gain_q"] = (adjusted(tested[column].to_numpy()) for column in ("p", "gain_p"))
    table = pairs.merge(tested.drop(columns=["p", "gain_p"]), on=["end", "first", "second"], validate="one_to_one")
    return table.assign(found=table["q_value"] <= LEVEL, gain_found=table["gain_q"] <= LEVEL)


def top_class(ratios: pd.DataFrame, end: str, *, least_tiles: int = LEAST_TILES) -> str:
    """The class with the highest mean ratio at an end, of those that at least `least_tiles` tiles hold.

    Raises `InputError` where no class is held by so many.
    """
    rows = ratios[(ratios["end"] == end) & (ratios["tiles"] >= least_tiles)].dropna(subset="value")
    if rows.empty:
        raise InputError(f"No class of land is held by {least_tiles} tiles predicted {end}: take more cells.")
    return str(rows["name"].iloc[int(rows["value"].argmax())])
