"""The world grid against plainer ways to the same answer: `python -m benchmarks.world_grid`.

Which cells of L8 meet land: by `land_codes`, by a search tree of all boxes that the polygons ask, by a tree of polygons
that the boxes ask, and by a loop over cells and polygons. In which cell ten million points lie: by `encode`, and by
halving the world point by point in Python. The ways alternate, so that a machine that slows down slows all. The slow
ones answer for a random sample only, and their seconds are scaled to the whole, which the table says; answers that
differ end the run with status 1. Land is Natural Earth 1:50m from the folder that URBANPRINT_REALDATA names (default
../shared/realdata).
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import shapely

from urbanprint.grid import all_codes, boxes, encode
from urbanprint.land import land_codes, read_land

_ROOT = Path(__file__).resolve().parent.parent
_LEVEL = 8
_ROUNDS = 5


@dataclass(frozen=True)
class Way:
    """A way to the answer for the first `sample` of the `whole`; returns that answer, an array."""

    name: str
    run: Callable[[], np.ndarray]
    sample: int
    whole: int


def land_ways(land: np.ndarray, *, tree_sample: int, loop_sample: int, seed: int) -> list[Way]:
    """Whether each cell of L8, in a random order, meets land."""
    codes = np.random.default_rng(seed).permutation(all_codes(_LEVEL))

    def ours() -> np.ndarray:
        return np.isin(codes, land_codes(land, _LEVEL))

    def box_tree() -> np.ndarray:
        met = np.zeros(len(codes), dtype=bool)
        met[shapely.STRtree(shapely.box(*boxes(codes, _LEVEL).T)).query(land, predicate="intersects")[1]] = True
        return met

    def polygon_tree() -> np.ndarray:
        asked = shapely.box(*boxes(codes[:tree_sample], _LEVEL).T)
        met = np.zeros(tree_sample, dtype=bool)
        met[shapely.STRtree(land).query(asked, predicate="intersects")[0]] = True
        return met

    def loop() -> np.ndarray:
        asked = [shapely.box(*each) for each in boxes(codes[:loop_sample], _LEVEL)]
        return np.array([any(polygon.intersects(box) for polygon in land) for box in asked])

    whole = len(codes)
    return [
        Way("land_codes", ours, whole, whole),
        Way("STRtree of boxes", box_tree, whole, whole),
        Way("STRtree of polygons", polygon_tree, tree_sample, whole),
        Way("loop over cells", loop, loop_sample, whole),
    ]


def point_ways(*, points: int, sample: int, seed: int) -> list[Way]:
    """The code of each of `points` places at L8."""
    rng = np.random.default_rng(seed)
    longitude, latitude = rng.uniform(-180, 180, points), rng.uniform(-90, 90, points)

    def ours() -> np.ndarray:
        return encode(longitude, latitude, _LEVEL)

    def loop() -> np.ndarray:
        places = zip(longitude[:sample].tolist(), latitude[:sample].tolist(), strict=True)
        return np.array([_halved(x, y) for x, y in places])

    return [Way("encode", ours, points, points), Way("loop over points", loop, sample, points)]


def _halved(x: float, y: float) -> int:
    west, south, width, height, code = -180.0, -90.0, 360.0, 180.0, 0
    for _ in range(_LEVEL):
        width, height = width / 2, height / 2
        east, north = x >= west + width, y >= south + height
        west, south = west + east * width, south + north * height
        code = 4 * code + 2 * (not north) + east
    return code


def compare(title: str, ways: list[Way]) -> None:
    """Print the median seconds of each way, scaled to the whole, and how many times the first takes them."""
    answers = [way.run() for way in ways]
    for way, answer in zip(ways, answers, strict=True):
        if not np.array_equal(answer, answers[0][: way.sample]):
            sys.exit(f"{way.name} and {ways[0].name} answer differently")
    seconds: dict[str, list[float]] = {way.name: [] for way in ways}
    for _ in range(_ROUNDS):
        for way in ways:
            begun = time.perf_counter()
            way.run()
            seconds[way.name].append((time.perf_counter() - begun) * way.whole / way.sample)
    ours = statistics.median(seconds[ways[0].name])
    print(f"{title}\n{'way':<22} {'seconds':>9} {'ratio':>7}  measured on")
    for way in ways:
        median = statistics.median(seconds[way.name])
        measured = "all" if way.sample == way.whole else f"{way.sample:,} of {way.whole:,}, scaled"
        print(f"{way.name:<22} {median:8.3f}s {median / ours:7.1f}  {measured}")


def main() -> None:
    """Print the two tables."""
    realdata = Path(os.environ.get("URBANPRINT_REALDATA", _ROOT.parent / "shared" / "realdata"))
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--land", type=Path, default=realdata / "natural_earth" / "ne_50m_land.json")
    parser.add_argument("--points", type=int, default=10_000_000)
    parser.add_argument("--seed", type=int, default=1)
    chosen = parser.parse_args()
    land = read_land(chosen.land)
    vertices, met = shapely.get_num_coordinates(land).sum(), len(land_codes(land, _LEVEL))
    print(f"{met:,} cells of L{_LEVEL} meet land: {len(land):,} polygons, {vertices:,} vertices")
    compare(
        f"which of the {4**_LEVEL:,} cells of L{_LEVEL} meet land",
        land_ways(land, tree_sample=4096, loop_sample=512, seed=chosen.seed),
    )
    compare(
        f"in which cell of L{_LEVEL} {chosen.points:,} points lie",
        point_ways(points=chosen.points, sample=min(chosen.points, 50_000), seed=chosen.seed),
    )


if __name__ == "__main__":
    main()
