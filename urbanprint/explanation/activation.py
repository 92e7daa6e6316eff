"""Which land use activation maps look at: exact sums of maps over classes of land, and the ratios that follow.

What belongs here: how much of each cell of a map lies in each class (`Zones`), activation ratios of tiles, and their
means over tiles, classes and pairs of classes with intervals. A tile is a square window of a projected map, north up:
row 0 of its activation map is its northern edge. Tests against chance are in `spatial_null`.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import shapely
from geopandas import GeoDataFrame
from scipy.sparse import coo_array, csr_array
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError
from urbanprint.evaluation.bootstrap import draw_sums, group_draws, interval, ratio

LEAST_SHARE = 0.01
"""A tile holds a class that covers at least this share of it: 400 m2 of a 200 m tile. The Urban Atlas maps nothing
below 2,500 m2, so that what is smaller is the corner of a polygon that the tile's border cuts off."""

CLASS_COLUMNS = ("name", "value", "low", "high", "tiles", "units")
PAIR_COLUMNS = ("first", "second", "value", "low", "high", "tiles", "units")

_VERTICES = 512  # of a polygon above which it is divided before tiles are cut out of it
_AT_ONCE = 256  # tiles whose edges are summed together, which bounds the memory
_ROUNDING = 1e-12  # of a cell's area: what is left where edges cancel
_OVERLAP = 0.01  # by how much classes may cover a cell more than once, which rounded coordinates alone can


@dataclass(frozen=True, eq=False, kw_only=True)
class Zones:
    """Which share of each cell of the tiles' maps lies in each class.

    `fractions` is sparse, (tiles x classes, tiles x height x width), in [0, 1]; its rows and columns are numbered as
    the flattened (tile, class) and (tile, row, column). `shape` is (tiles, height, width). A part of a tile may lie in
    no class.
    """

    fractions: csr_array
    classes: tuple[str, ...]
    shape: tuple[int, int, int]

    def areas(self) -> np.ndarray:
        """Share of each tile that each class covers (tiles, classes)."""
        cells = self.shape[1] * self.shape[2]
        return self.fractions.sum(axis=1).reshape(self.shape[0], len(self.classes)) / cells

    def sums(self, maps: np.ndarray) -> np.ndarray:
        """Activation of each class in each tile (tiles, classes) of maps (tiles, height, width), even within a cell.

        Raises `InputError` for maps of another shape.
        """
        if maps.shape != self.shape:
            raise InputError(f"The maps have the shape {maps.shape} and their zones {self.shape}: cut both alike.")
        return (self.fractions @ maps.astype(np.float64).ravel()).reshape(self.shape[0], len(self.classes))


def polygon_zones(
    polygons: GeoDataFrame, bounds: np.ndarray, *, column: str, classes: Sequence[str], shape: tuple[int, int]
) -> Zones:
    """The zones of polygons whose class is in `column`, for tiles with `bounds` (n, 4) and maps of `shape` (h, w).

    Bounds are west, south, east and north in the polygons' CRS, which must be projected. Each polygon is clipped to the
    tile, and the areas of its pieces in all cells follow from its edges alone (Green's theorem: an edge covers what
    lies to the right of it, counted with its direction), exact to rounding for any shape and with holes. 5,000 tiles of
    14 polygons each take 2 s at 7 x 7 cells and 4 s at 32 x 32.

    Raises `InputError` for a CRS in degrees, a class that is not among `classes`, and classes that overlap in a cell.
    """
    if polygons.crs is None or polygons.crs.is_geographic:
        raise InputError(f"The polygons' CRS is {polygons.crs}: project them, areas are not measured in degrees.")
    number = pd.Index(classes).get_indexer(pd.Index(polygons[column]))
    if (number < 0).any():
        unknown = polygons[column].iloc[int(number.argmin())]
        raise InputError(f"The class '{unknown}' in column {column} is none of the {len(classes)} classes: merge it.")
    bounds = np.asarray(bounds, dtype=np.float64)
    extent = float((bounds[:, 2:] - bounds[:, :2]).max(initial=0.0))
    divided = [_divided(polygon, extent) for polygon in polygons.geometry]
    shapes = np.array([piece for pieces in divided for piece in pieces], dtype=object)
    number = np.repeat(number, [len(pieces) for pieces in divided])
    parts = list(_polygon_fractions(shapes, number, bounds, classes=len(classes), shape=shape))
    return _zones(parts, classes, (len(bounds), *shape))


def label_zones(labels: np.ndarray, *, classes: Sequence[str], shape: tuple[int, int]) -> Zones:
    """The zones of rasters of class numbers (n, H, W), for maps of `shape` (h, w) over the same tiles.

    Each label counts with the part of its pixel that lies in a cell, whatever the two resolutions. Numbers outside
    0 .. len(classes) - 1 are in no class.
    """
    down, across = (_overlaps(cells, pixels) for cells, pixels in zip(shape, labels.shape[1:], strict=True))
    cells = np.arange(shape[0] * shape[1])
    parts = []
    for tile, raster in enumerate(labels):
        present = np.intersect1d(raster, np.arange(len(classes)))
        share = down @ (raster == present[:, None, None]) @ across.T
        rows = np.repeat(tile * len(classes) + present, len(cells))
        parts.append((rows, np.tile(tile * len(cells) + cells, len(present)), share.ravel()))
    return _zones(parts, classes, (len(labels), *shape))


def class_shares(maps: np.ndarray, zones: Zones) -> np.ndarray:
    """Share of each tile's activation that lies in each class (tiles, classes), NaN for a tile without activation.

    The shares of a tile that its classes cover completely sum to 1. Raises `InputError` for negative activations,
    which have no share: rectify the maps (`gradcam(..., signed=False)`).
    """
    if (negative := (maps < 0).any(axis=(1, 2))).any():
        raise InputError(f"The map of tile {int(negative.argmax())} has negative values: rectify the maps first.")
    total = maps.sum(axis=(1, 2), dtype=np.float64)[:, None]
    return zones.sums(maps) / np.where(total > 0.0, total, np.nan)


def activation_ratios(maps: np.ndarray, zones: Zones, *, least_share: float = LEAST_SHARE) -> np.ndarray:
    """How much more a map looks at a class than at the tile as a whole (tiles, classes): 1 is neutral.

    (activation in the class / activation of the tile) / (area of the class / area of the tile); NaN where the tile does
    not hold the class (`least_share`) or has no activation. Raises `InputError` as `class_shares` does.
    """
    areas = zones.areas()
    held = (areas > 0.0) & (areas >= least_share)
    return class_shares(maps, zones) / np.where(held, areas, np.nan)


def mean_ratios(
    ratios: np.ndarray, units: pd.Series, *, classes: Sequence[str], repeats: int = 1000, seed: int
) -> pd.DataFrame:
    """The mean activation ratio of each class over the tiles that hold it (`CLASS_COLUMNS`).

    `ratios` (tiles, classes) as of `activation_ratios`, of the tiles of one predicted status; `units` names the block
    of each. `low` and `high` are 95 % limits of a bootstrap of whole blocks, missing where there is only one.
    """
    unit, weights = group_draws(units, repeats=repeats, seed=seed)
    held = np.isfinite(ratios)
    total, count = np.split(draw_sums(np.hstack([np.where(held, ratios, 0.0), held]), unit, weights), 2, axis=1)
    means, tiles, blocks = ratio(total, count), held.sum(axis=0), _units(held, unit)
    rows = [(name, *interval(means[:, k]), int(tiles[k]), int(blocks[k])) for k, name in enumerate(classes)]
    return pd.DataFrame(rows, columns=list(CLASS_COLUMNS))


def coactivation(
    ratios: np.ndarray, units: pd.Series, *, classes: Sequence[str], repeats: int = 1000, seed: int
) -> pd.DataFrame:
    """Does a class draw more attention where another is present? A row an ordered pair of classes (`PAIR_COLUMNS`).

    `value` is the mean ratio of `first` over the tiles that hold both, divided by its mean over all that hold `first`:
    above 1 where the presence of `second` goes with more attention. Arguments and limits as in `mean_ratios`; `tiles`
    and `units` count those with both.
    """
    held = np.isfinite(ratios)
    return _pairs(np.where(held, ratios, 0.0), held, units, classes=classes, repeats=repeats, seed=seed)


def co_appearance_gain(
    status: np.ndarray, held: np.ndarray, units: pd.Series, *, classes: Sequence[str], repeats: int = 1000, seed: int
) -> pd.DataFrame:
    """P(status | both classes) / P(status | the first): is a status likelier where the two come together?

    `status` (tiles,) says which tiles have it, `held` (tiles, classes) which classes they hold, whatever their status;
    a row an ordered pair (`PAIR_COLUMNS`), the rest as in `coactivation`.
    """
    return _pairs(status[:, None] * held, held, units, classes=classes, repeats=repeats, seed=seed)


def _pairs(
    values: np.ndarray, held: np.ndarray, units: pd.Series, *, classes: Sequence[str], repeats: int, seed: int
) -> pd.DataFrame:
    """Mean of values (n, k) of `first` over tiles with both, over its mean over tiles with `first`, for each pair."""
    n, k = held.shape
    unit, weights = group_draws(units, repeats=repeats, seed=seed)
    terms = [(of_first[:, :, None] * held[:, None, :]).reshape(n, k * k) for of_first in (values, held)]
    total, count = np.split(draw_sums(np.hstack(terms), unit, weights), 2, axis=1)
    means = ratio(total, count).reshape(-1, k, k)
    gains = ratio(means, np.broadcast_to(np.diagonal(means, axis1=1, axis2=2)[:, :, None], means.shape))
    both = terms[1]
    tiles, blocks = (counted.reshape(k, k) for counted in (both.sum(axis=0), _units(both, unit)))
    rows = [
        (first, second, *interval(gains[:, a, b]), int(tiles[a, b]), int(blocks[a, b]))
        for a, first in enumerate(classes)
        for b, second in enumerate(classes)
        if a != b
    ]
    return pd.DataFrame(rows, columns=list(PAIR_COLUMNS))


def _units(held: np.ndarray, unit: np.ndarray) -> np.ndarray:
    """In how many units each column of `held` (n, m) is held (m,)."""
    found = np.zeros((unit.max(initial=-1) + 1, held.shape[1]), dtype=bool)
    np.logical_or.at(found, unit, held)
    return found.sum(axis=0)


def _overlaps(cells: int, pixels: int) -> np.ndarray:
    """Share of each cell that lies in each pixel, of two divisions of one length into equal parts (cells, pixels)."""
    cell, pixel = np.linspace(0, cells, cells + 1), np.linspace(0, cells, pixels + 1)
    shared = np.minimum(cell[1:, None], pixel[1:]) - np.maximum(cell[:-1, None], pixel[:-1])
    return np.maximum(shared, 0.0)


_Entries = tuple[np.ndarray, np.ndarray, np.ndarray]  # rows and columns of `Zones.fractions`, and their values


def _zones(parts: Sequence[_Entries], classes: Sequence[str], shape: tuple[int, int, int]) -> Zones:
    tiles, height, width = shape
    nothing = (np.zeros(0), np.zeros(0), np.zeros(0))
    rows, cells, shares = (np.concatenate(column) for column in zip(nothing, *parts, strict=True))
    kept = shares > _ROUNDING
    size = (tiles * len(classes), tiles * height * width)
    fractions = coo_array((shares[kept], (rows[kept].astype(np.int64), cells[kept].astype(np.int64))), size).tocsr()
    covered = fractions.sum(axis=0)
    if covered.size and covered.max() > 1.0 + _OVERLAP:
        tile = int(covered.argmax()) // (height * width)
        raise InputError(
            f"The classes of tile {tile} cover {covered.max():.2f} times the area of one of its cells: polygons must"
            " not overlap."
        )
    return Zones(fractions=fractions, classes=tuple(classes), shape=shape)


def _divided(polygon: BaseGeometry, extent: float) -> list[BaseGeometry]:
    """The polygon in pieces of few vertices or of the tiles' extent: a city's streets can be one polygon of 100,000."""
    if shapely.get_num_coordinates(polygon) <= _VERTICES:
        return [polygon]
    west, south, east, north = polygon.bounds
    if max(east - west, north - south) <= extent:
        return [polygon]
    if east - west > north - south:
        middle = (west + east) / 2
        halves = (west, south, middle, north), (middle, south, east, north)
    else:
        middle = (south + north) / 2
        halves = (west, south, east, middle), (west, middle, east, north)
    return [piece for half in halves for piece in _divided(_clipped(polygon, half), extent)]


def _clipped(shapes: Any, box: Sequence[float] | np.ndarray) -> Any:
    """A shape or several inside a box. GEOS clips faster than it intersects, but fails on slivers, and where a corner
    lies on the edge of the box it may return a shape that crosses itself: those are intersected."""
    try:
        clipped = shapely.clip_by_rect(shapes, *box)
    except shapely.errors.GEOSException:
        return shapely.intersection(shapes, shapely.box(*box))
    sound = shapely.is_valid(clipped)
    if np.all(sound):
        return clipped
    return np.where(sound, clipped, shapely.intersection(shapes, shapely.box(*box)))[()]


def _polygon_fractions(
    shapes: np.ndarray, number: np.ndarray, bounds: np.ndarray, *, classes: int, shape: tuple[int, int]
) -> Iterator[_Entries]:
    """The entries of `Zones.fractions`, some tiles at a time."""
    tile, shape_of = shapely.STRtree(shapes).query(shapely.box(*bounds.T))
    order = np.argsort(tile, kind="stable")
    tile, shape_of = tile[order], shape_of[order]
    first = np.searchsorted(tile, np.arange(len(bounds) + 1))
    for start in range(0, len(bounds), _AT_ONCE):
        tiles = range(start, min(start + _AT_ONCE, len(bounds)))
        clipped = [_clipped(shapes[shape_of[first[t] : first[t + 1]]], bounds[t]) for t in tiles]
        here = slice(first[tiles.start], first[tiles.stop])
        pairs, zone = np.unique(tile[here] * classes + number[shape_of[here]], return_inverse=True)
        edges, piece = _edges(np.concatenate(clipped))
        west, south, east, north = bounds[tile[here][piece]].T
        column = (edges[:, 0::2].T - west) / (east - west) * shape[1]
        row = (north - edges[:, 1::2].T) / (north - south) * shape[0]
        covered = _coverage(column, row, zone[piece], zones=len(pairs), shape=shape)
        cells = (pairs // classes)[:, None] * (shape[0] * shape[1]) + np.arange(shape[0] * shape[1])
        kept = covered > _ROUNDING
        yield np.broadcast_to(pairs[:, None], covered.shape)[kept], cells[kept], covered[kept]


def _edges(shapes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The edges (n, 4) of all rings as x, y, next x, next y, and the shape each belongs to (n,).

    Seen with y upwards, shells run clockwise and holes against it.
    """
    polygons, shape = shapely.get_parts(shapes, return_index=True)
    areal = (shapely.get_type_id(polygons) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(polygons)
    polygons, shape = polygons[areal], shape[areal]
    rings, polygon = shapely.get_rings(polygons, return_index=True)
    shell = np.diff(polygon, prepend=-1) > 0  # the first ring of each polygon
    clockwise = ~shapely.is_ccw(rings)
    rings = np.where(clockwise == shell, rings, shapely.reverse(rings))
    points, ring = shapely.get_coordinates(rings, return_index=True)
    same = ring[1:] == ring[:-1]
    return np.hstack([points[:-1], points[1:]])[same], shape[polygon[ring[:-1][same]]]


def _coverage(
    column: np.ndarray, row: np.ndarray, zone: np.ndarray, *, zones: int, shape: tuple[int, int]
) -> np.ndarray:
    """Share of each cell that the edges of each zone enclose (zones, height x width).

    `column` and `row` (2, n) are the ends of the edges, in cells. Cut where they cross from cell to cell, a piece adds
    its height times what lies to the right of it: in its own cell a trapezium, in all further ones the whole width.
    """
    height, width = shape
    edge, at = _cuts(column, row)
    ends = np.append(at[1:], 0.0)
    ends[np.append(edge[1:] != edge[:-1], True)] = 1.0
    (x, x_end), (y, y_end) = (
        [line[0, edge] + t * (line[1, edge] - line[0, edge]) for t in (at, ends)] for line in (column, row)
    )
    middle = (x + x_end) / 2
    cell_x = np.clip(np.floor(middle), 0, width - 1).astype(np.int64)
    cell_y = np.clip(np.floor((y + y_end) / 2), 0, height - 1).astype(np.int64)
    left = np.clip(middle - cell_x, 0.0, 1.0)
    # Differences along the row, so that a cumulative sum hands a piece's height to all cells right of it.
    index = (zone[edge] * height + cell_y) * (width + 1) + cell_x
    size = zones * height * (width + 1)
    rise = y_end - y
    steps = np.bincount(index, rise * (1.0 - left), size) + np.bincount(index + 1, rise * left, size)[:size]
    return -steps.reshape(zones * height, width + 1).cumsum(axis=1)[:, :width].reshape(zones, height * width)


def _cuts(column: np.ndarray, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each edge begins and crosses into another cell: the edge (m,) and the position along it in [0, 1) (m,)."""
    edges, positions = [np.arange(column.shape[1])], [np.zeros(column.shape[1])]
    for line in (column, row):
        first = np.floor(line.min(axis=0)) + 1
        count = np.maximum(np.ceil(line.max(axis=0)) - first, 0).astype(np.int64)
        edge = np.repeat(np.arange(len(count)), count)
        nth = np.arange(count.sum()) - np.repeat(count.cumsum() - count, count)
        edges.append(edge)
        positions.append((first[edge] + nth - line[0, edge]) / (line[1, edge] - line[0, edge]))
    edge, position = np.concatenate(edges), np.concatenate(positions)
    order = np.lexsort((position, edge))
    return edge[order], position[order]
