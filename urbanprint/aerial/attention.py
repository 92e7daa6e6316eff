"""Where a network looks for the poor and for the rich: maps of unseen tiles, summed over the land they show.

What belongs here: maps of both ends, the tiles predicted to be of each, activation ratios and coactivations of a whole
conurbation. Sums and ratios themselves are in `explanation.activation`, tests against chance in `findings`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import geopandas as gpd
import numpy as np
import pandas as pd
from torch import Tensor, nn

from urbanprint.aerial.learning import INDICATOR
from urbanprint.errors import InputError
from urbanprint.explanation.activation import (
    LEAST_SHARE,
    Zones,
    activation_ratios,
    co_appearance_gain,
    coactivation,
    mean_ratios,
    polygon_zones,
)
from urbanprint.explanation.gradients import attributions
from urbanprint.explanation.held_out import held_out_maps, map_layer
from urbanprint.imagery.decoding import decode_many
from urbanprint.models.imagewise import ImagewiseModel

End = Literal["poor", "rich"]
ENDS: tuple[End, ...] = get_args(End)
Method = Literal["grad-cam", "guided-grad-cam", "integrated"]
ModelOf = Callable[[int], ImagewiseModel]

RATIO_COLUMNS = ("end", "name", "value", "low", "high", "tiles", "units")


def end_of(classes: np.ndarray, number: int) -> np.ndarray:
    """Which end each class (n,) of `number` is of: "poor" below the middle one, "rich" above, "" the middle itself."""
    return np.select([classes < (number - 1) / 2, classes > (number - 1) / 2], ["poor", "rich"], "")


def end_maps(
    images: pd.DataFrame,
    folds: pd.DataFrame,
    *,
    model_of: ModelOf,
    method: Method = "grad-cam",
    progress: Callable[[int, int], None] | None = None,
) -> dict[End, np.ndarray]:
    """Rectified maps of both ends, float32 (n, h, w), a row of `images` (area_id, path) each, by networks of block
    folds that have not seen them.

    The output of the network rises with income, so that what raises it speaks for the rich and what lowers it for the
    poor. Maps of Grad-CAM are relative to the average tile (`held_out_maps`), at the last layer with seven cells a
    side; those of the other methods are as fine as the picture. Raises `InputError` for an unknown method.
    """
    if method not in get_args(Method):
        raise InputError(f"'{method}' is not a method of explanation: use one of {', '.join(get_args(Method))}.")
    if method == "grad-cam":
        maps = held_out_maps(images, folds, kind="block", indicator=INDICATOR, model_of=model_of, progress=progress)
        return {"rich": np.maximum(maps, 0.0), "poor": np.maximum(-maps, 0.0)}
    fold = images["area_id"].map(folds[folds["kind"] == "block"].set_index("area_id")["fold"]).to_numpy()
    found: dict[End, np.ndarray] = {}
    for number in np.unique(fold):
        rows = np.flatnonzero(fold == number)
        model = model_of(int(number))
        pixels = decode_many([Path(path) for path in images["path"].iloc[rows]], size=model.config.size, threads=2)
        for end in ENDS:
            maps = _pixel_maps(model, model.normalise(pixels), method=method, end=end)
            found.setdefault(end, np.empty((len(images), *maps.shape[1:]), dtype=np.float32))[rows] = maps
        if progress is not None:
            progress(int((fold <= number).sum()), len(images))
    return found


def _pixel_maps(model: ImagewiseModel, views: Tensor, *, method: Method, end: End) -> np.ndarray:
    network = model.network if end == "rich" else nn.Sequential(model.network, _Negated())
    prefix = "" if end == "rich" else "0."
    layer = f"{prefix}backbone.{map_layer(model.backbone, size=model.config.size)}"
    if method == "guided-grad-cam":
        found = attributions(network, views, method="guided-gradcam", target=0, layer=layer)
    else:
        found = attributions(network, views, method="integrated", target=0)
    return np.maximum(found.sum(axis=1), 0.0)


class _Negated(nn.Module):
    def forward(self, outputs: Tensor) -> Tensor:
        return -outputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Looked:
    """What the networks of a conurbation looked at, a row a tile.

    `ratios` (tiles, classes) are those of the maps of the end that a tile is predicted to be of, missing for tiles in
    the middle; `shares` (tiles, classes) of the tile that each class covers; `end` and `observed_end` "poor", "rich"
    or ""; `units` the block of each tile.
    """

    area_id: np.ndarray
    ratios: np.ndarray
    shares: np.ndarray
    end: np.ndarray
    observed_end: np.ndarray
    units: pd.Series
    classes: tuple[str, ...]

    @property
    def held(self) -> np.ndarray:
        """Which classes each tile holds (tiles, classes)."""
        return (self.shares > 0.0) & (self.shares >= LEAST_SHARE)

    def at(self, end: End) -> tuple[np.ndarray, pd.Series]:
        """The ratios and the units of the tiles predicted to be of an end."""
        some = self.end == end
        return self.ratios[some], self.units[some].reset_index(drop=True)


def zones_of(
    cells: gpd.GeoDataFrame, land: gpd.GeoDataFrame, *, size_m: int, crs: str, shape: tuple[int, int]
) -> Zones:
    """Which part of each cell of the tiles' maps each class of land takes.

    `cells` (x_m, y_m of the centre in `crs`), `land` polygons with `class` in any system; tiles as `cells` are.
    """
    half = size_m / 2
    x, y = cells["x_m"].to_numpy(), cells["y_m"].to_numpy()
    bounds = np.column_stack([x - half, y - half, x + half, y + half])
    classes = [str(name) for name in pd.unique(land["class"])]
    return polygon_zones(land.to_crs(crs), bounds, column="class", classes=sorted(classes), shape=shape)


def looked_at(maps: Mapping[End, np.ndarray], zones: Zones, predictions: pd.DataFrame, folds: pd.DataFrame) -> Looked:
    """Sum the maps of both ends over the land. `predictions` (`TILE_PREDICTIONS` of one model and kind) are sorted as
    the tiles of the maps are."""
    number = predictions.filter(regex=r"^p\d+$").shape[1]
    likeliest = predictions.filter(regex=r"^p\d+$").to_numpy().argmax(axis=1)
    end = end_of(likeliest, number)
    of_end = {name: activation_ratios(maps[name], zones) for name in ENDS}
    ratios = np.select([(end == name)[:, None] for name in ENDS], [of_end[name] for name in ENDS], np.nan)
    blocks = folds[folds["kind"] == "block"].set_index("area_id")["block"]
    return Looked(
        area_id=predictions["area_id"].to_numpy(),
        ratios=ratios,
        shares=zones.areas(),
        end=end,
        observed_end=end_of(predictions["observed"].to_numpy(), number),
        units=blocks.loc[predictions["area_id"]].reset_index(drop=True),
        classes=zones.classes,
    )


def ratio_table(looked: Looked, *, repeats: int, seed: int) -> pd.DataFrame:
    """Mean activation ratio of each class at each end (`RATIO_COLUMNS`), with block-bootstrap intervals."""
    parts = [
        mean_ratios(*looked.at(end), classes=looked.classes, repeats=repeats, seed=seed).assign(end=end) for end in ENDS
    ]
    return pd.concat(parts, ignore_index=True)[list(RATIO_COLUMNS)]


def pair_table(looked: Looked, *, repeats: int, seed: int) -> pd.DataFrame:
    """Coactivation of each ordered pair of classes at each end, and its co-appearance gain, with intervals.

    Columns: end, first, second, value, low, high, tiles, units, gain, gain_low, gain_high.
    """
    parts = []
    for end in ENDS:
        together = coactivation(*looked.at(end), classes=looked.classes, repeats=repeats, seed=seed)
        status = looked.end == end
        gained = co_appearance_gain(
            status, looked.held, looked.units, classes=looked.classes, repeats=repeats, seed=seed
        )
        ends = gained[["value", "low", "high"]].set_axis(["gain", "gain_low", "gain_high"], axis=1)
        parts.append(pd.concat([together.assign(end=end), ends], axis=1))
    return pd.concat(parts, ignore_index=True)
