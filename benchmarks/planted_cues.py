"""Are explanations right where the truth is known? A planted cue in 100 simulated conurbations, and none.

Each conurbation is drawn anew, networks learn incomes on two thirds of its blocks, and their maps of the rest are
summed over the land. With the cue planted, its class has to come first at each end. Incomes that nothing in
the pictures tells are then dealt out over the same land: what the maps look at, and what the land holds, must not go
with them more often than the level of the test says. Prints both with intervals of Wilson; about an hour on two
cores.

    python -m benchmarks.planted_cues [conurbations]
"""

import contextlib
import io
import os
import sys
import tempfile
from collections import defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
import torch
from PIL import Image
from scipy.stats import binomtest

from urbanprint.aerial import attention, cells, findings, learning
from urbanprint.aerial.scores import score_tiles
from urbanprint.landuse.classes import URBAN_ATLAS
from urbanprint.progress import Printed
from urbanprint.settings import TileTraining
from urbanprint.simulation.conurbation import CELL_M, CUE_CLASSES, Conurbation, build_conurbation, ceiling
from urbanprint.simulation.lattice import PlanarField

CELLS = 32
LEVEL = 0.05
_PERMUTATIONS = 499
_TILE_PX = 64
_TRAINING = TileTraining(
    backbone="mobilenet_v3_small",
    stages=3,
    weights="none",
    heads=("binomial",),
    size=_TILE_PX,
    epochs=24,
    batch_areas=8,
    learning_rate=2e-3,
)


def main(conurbations: int) -> None:
    """Draw, train, explain and test `conurbations` of them, and print how often each went as it should."""
    first: dict[str, int] = dict.fromkeys(CUE_CLASSES, 0)
    reached: list[bool] = []
    rejected: dict[str, list[bool]] = defaultdict(list)
    # A process a core: towns are small, and threads would wait for each other.
    with (
        ProcessPoolExecutor(os.cpu_count(), get_context("spawn"), torch.set_num_threads, (1,)) as pool,
        Printed() as bar,
    ):
        running = [pool.submit(_tried, 1_000 + number) for number in range(conurbations)]
        for number, each in enumerate(as_completed(running), start=1):
            on_top, holds, rejects = each.result()
            bar("conurbations", number, conurbations)
            reached.append(holds)
            for end in first:
                first[end] += on_top[end]
            for test, found in rejects:
                rejected[test] += found
    print(f"\nplanted cue, {conurbations} conurbations: its class comes first")
    for end, count in first.items():
        print(f"  {end} end   {count} of {conurbations} {_interval(count, conurbations)}   wanted: at least 95 of 100")
    print(f"the interval of Pearson r under blocks holds or exceeds the ceiling: {sum(reached)} of {len(reached)}")
    print(f"incomes that nothing tells: tests at {LEVEL:.0%} that reject")
    for test, found in rejected.items():
        print(f"  {test:<24} {np.mean(found):.1%} of {len(found)} {_interval(sum(found), len(found))}")


def _tried(seed: int) -> tuple[dict[str, bool], bool, list[tuple[str, list[bool]]]]:
    """Of one conurbation: is the planted class on top at each end, is the ceiling reached, which tests reject?"""
    town = build_conurbation("town", seed=seed, cells=CELLS)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        looked, maps, places, holds = explained(town, Path(folder))
    ratios = attention.ratio_table(looked, repeats=200, seed=seed)
    on_top = {end: findings.top_class(ratios, end) == name for end, name in CUE_CLASSES.items()}
    return on_top, holds, without_cue(looked, maps, places, seed=seed)


def explained(town: Conurbation, folder: Path) -> tuple[attention.Looked, np.ndarray, pd.DataFrame, bool]:
    """What the networks of the folds look at; the ratios of the rich end's maps of all tiles; their places; and whether
    the interval of their Pearson r reaches the ceiling."""
    table = town.cells[~town.cells["imputed"]].reset_index(names="area_id").sort_values("area_id", ignore_index=True)
    half = CELL_M / 2
    squares = shapely.box(table["x_m"] - half, table["y_m"] - half, table["x_m"] + half, table["y_m"] + half)
    tiles = gpd.GeoDataFrame(table, geometry=squares, crs=3035)
    kilometre = (tiles["x_m"] // 1000).astype(int).astype(str) + "_" + (tiles["y_m"] // 1000).astype(int).astype(str)
    images = pd.DataFrame(
        {
            **dict.fromkeys(("image_id", "area_id", "sha256"), tiles["area_id"]),
            "sequence_id": kilometre,
            "path": [str(folder / f"{cell_id}.png") for cell_id in tiles["area_id"]],
        }
    )
    for cell_id, path in zip(images["area_id"], images["path"], strict=True):
        Image.fromarray(town.tile(cell_id, pixels=_TILE_PX)).save(path)
    folds = cells.tile_folds(tiles.to_crs(4326), folds=3, block_m=1000, seed=1, crs="EPSG:3035", name="town")
    incomes = tiles.set_index("area_id")["income"]
    fitted = list(
        learning.fit_splits(
            learning.honest_splits(folds, buffer_m=300),
            images,
            incomes,
            folds,
            head="binomial",
            training=_TRAINING,
            checkpoints=folder,
        )
    )
    models = {each.split.fold: each.model for each in fitted}
    maps = attention.end_maps(images, folds, model_of=models.__getitem__)
    land = town.land_use.assign(**{"class": town.land_use["code_2018"].map(URBAN_ATLAS)})
    shape = (maps["rich"].shape[1], maps["rich"].shape[2])
    zones = attention.zones_of(tiles, land, size_m=CELL_M, crs="EPSG:3035", shape=shape)
    predictions = learning.held_out_predictions(fitted, incomes, model="binomial").sort_values("area_id")
    looked = attention.looked_at(maps, zones, predictions.reset_index(drop=True), folds)
    scores = score_tiles(predictions, folds=folds, repeats=400, seed=1).set_index("measure")
    holds = bool(scores["high"]["pearson_r"] >= ceiling(town, list(tiles["area_id"]), 5))
    return looked, attention.activation_ratios(maps["rich"], zones), tiles[["x_m", "y_m"]], holds


def without_cue(
    looked: attention.Looked, ratios: np.ndarray, places: pd.DataFrame, *, seed: int
) -> list[tuple[str, list[bool]]]:
    """Which tests reject, a class each, of incomes that are a smooth field and noise and know nothing of the land."""
    rng = np.random.default_rng([seed, 1])
    income = PlanarField.drawn(length_m=1_000, rng=rng).at(places.to_numpy()) + 0.6 * rng.normal(size=len(places))
    nulls = findings.nulls_of(places, looked.units, size_m=CELL_M, permutations=_PERMUTATIONS, seed=seed)
    rows = []
    for what, values in (("attention", ratios), ("land", looked.shares)):
        table = findings.tests_of(what, values, income > np.median(income), nulls, looked.classes)
        tested = table[table["tiles"] >= 20].dropna(subset=[f"{what}_shifts", f"{what}_blocks"])
        rows += [(f"{what}, {null}", (tested[f"{what}_{null}"] <= LEVEL).tolist()) for null in ("shifts", "blocks")]
    return rows


def _interval(count: int, of: int) -> str:
    found = binomtest(int(count), of).proportion_ci(method="wilson")
    return f"[{found.low:.1%}, {found.high:.1%}]"


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100)
