"""How long attention takes to sum and to test, at the size of a conurbation: 5,000 tiles and 19 classes.

    python -m benchmarks.attention

Wanted, on two cores: sums over polygons within 30 s, 999 permutations within 20 s. Maps themselves are measured beside
the grad-cam package in `python -m benchmarks`.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import shapely
from geopandas import GeoDataFrame

from urbanprint.explanation.activation import activation_ratios, polygon_zones
from urbanprint.explanation.spatial_null import block_permutations, class_tests, map_shifts
from urbanprint.landuse.classes import CLASSES
from urbanprint.simulation.conurbation import build_conurbation

_SIDE = (100, 50)  # tiles
_PERMUTATIONS = 999


def main() -> None:
    """Print seconds beside what is wanted."""
    rng = np.random.default_rng(0)
    column, row = np.indices(_SIDE).reshape(2, -1)
    town = build_conurbation("town", seed=1, cells=max(_SIDE))
    land = town.land_use
    # 19 classes in place of 13: what they are called does not matter here, how many there are does.
    named = np.array(CLASSES)[rng.integers(0, len(CLASSES), len(land))]
    polygons = GeoDataFrame({"class": named}, geometry=land.geometry.to_numpy(), crs=land.crs)
    west, south = town.cells[["x_m", "y_m"]].min() - 100
    x, y = west + 200 * column, south + 200 * row
    bounds = np.column_stack([x, y, x + 200, y + 200])
    maps = rng.random((len(bounds), 14, 14)).astype(np.float32)

    def summed() -> np.ndarray:
        zones = polygon_zones(polygons, bounds, column="class", classes=CLASSES, shape=(14, 14))
        return activation_ratios(maps, zones)

    ratios = _timed(f"sums of {len(bounds):,} maps over {len(polygons):,} polygons", summed, wanted=30.0)
    status = rng.random(len(bounds)) < 0.4
    blocks = pd.Series([f"{c}_{r}" for c, r in zip(column // 10, row // 10, strict=True)])

    def tested() -> list[pd.DataFrame]:
        nulls = (
            map_shifts(row, column, repeats=_PERMUTATIONS, seed=1),
            block_permutations(blocks, repeats=_PERMUTATIONS, seed=1),
        )
        return [class_tests(ratios, status, null, classes=CLASSES) for null in nulls]

    _timed(f"{_PERMUTATIONS} permutations of both nulls over {len(CLASSES)} classes", tested, wanted=20.0)
    covered = shapely.area(polygons.geometry.to_numpy()).sum() / 1e6
    print(
        f"polygons of {covered:,.0f} km2; the largest has {shapely.get_num_coordinates(land.geometry).max():,} vertices"
    )


def _timed(what: str, run: Callable[[], Any], *, wanted: float) -> Any:
    started = time.perf_counter()
    found = run()
    took = time.perf_counter() - started
    print(f"{what:<60} {took:6.1f} s   wanted: at most {wanted:g} s")
    return found


if __name__ == "__main__":
    main()
