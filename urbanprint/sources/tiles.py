"""Web mercator tiles addressed by zoom, column and row: which ones cover a box, and what a vector tile holds.

What belongs here is arithmetic on z/x/y and reading a Mapbox Vector Tile; no provider and no request. Row 0 is the
northernmost, as in https://wiki.openstreetmap.org/wiki/Slippy_map_tilenames; tiles are read as
https://github.com/mapbox/vector-tile-spec/tree/master/2.1 says.
"""

import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from itertools import chain
from typing import Any, Generic, NamedTuple, TypeVar

import mapbox_vector_tile
import numpy as np
from google.protobuf.message import DecodeError

from urbanprint.errors import SourceError

LARGEST_LATITUDE = math.degrees(math.atan(math.sinh(math.pi)))
"""Where the square world of web mercator ends: 85.0511 degrees."""

Content = TypeVar("Content")


class Tile(NamedTuple):
    """One tile: zoom, column from 180 degrees west, row from the north."""

    z: int
    x: int
    y: int

    def __str__(self) -> str:
        return f"{self.z}/{self.x}/{self.y}"


def tiles_over(bounds: tuple[float, float, float, float], z: int) -> Iterator[Tile]:
    """Yield every tile of zoom `z` that meets `bounds` (west, south, east, north in degrees), its edges included."""
    west, south, east, north = bounds
    (first_x, first_y), (last_x, last_y) = _cell(west, north, z), _cell(east, south, z)
    yield from (Tile(z, x, y) for y in range(first_y, last_y + 1) for x in range(first_x, last_x + 1))


def positions_on(tile: Tile, fractions: np.ndarray) -> np.ndarray:
    """Return longitude and latitude in degrees, (n, 2), of `fractions` of the tile, (n, 2), east and south."""
    east, south = ((np.reshape(fractions, (-1, 2)) + np.array([tile.x, tile.y])) / 2**tile.z).T
    return np.column_stack([360.0 * east - 180.0, np.degrees(np.arctan(np.sinh(np.pi * (1.0 - 2.0 * south))))])


def points_of(body: bytes, tile: Tile, layer: str) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """Return the points of a vector tile's `layer`: positions in degrees, (n, 2), and the properties of each.

    An empty tile and one without the layer have none. Raises `SourceError` when `body` is no vector tile or the layer
    holds anything but points.
    """
    geometries, properties, extent = _features(body, tile, layer, {"Point"})
    fractions = np.array([geometry["coordinates"] for geometry in geometries], dtype=float) / extent
    return positions_on(tile, fractions), properties


def lines_of(body: bytes, tile: Tile, layer: str) -> tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]:
    """Return the lines of a vector tile's `layer` by their vertices in the tile, edges included.

    Positions in degrees, (n, 2); the line each belongs to, (n,), ascending from 0; the properties of each line. A line
    in several parts is one. What lies beyond the tile is left out: the tile there has it too. Raises as `points_of`.
    """
    geometries, properties, extent = _features(body, tile, layer, {"LineString", "MultiLineString"})
    lines = [
        list(chain.from_iterable(geometry["coordinates"]))
        if geometry["type"] == "MultiLineString"
        else geometry["coordinates"]
        for geometry in geometries
    ]
    fractions = np.array(list(chain.from_iterable(lines)), dtype=float).reshape(-1, 2) / extent
    inside = ((fractions >= 0) & (fractions <= 1)).all(axis=1)
    of_line = np.repeat(np.arange(len(lines)), [len(line) for line in lines])[inside]
    kept, of_kept = np.unique(of_line, return_inverse=True)
    return positions_on(tile, fractions[inside]), of_kept, [properties[index] for index in kept]


class KeptTiles(Generic[Content]):
    """What was asked of the `most` tiles used last; a tile that several threads want at once is asked for once.

    An answer older than `fresh_s` seconds is asked for again. One that fails is not kept: who waited for it asks again.
    """

    def __init__(self, ask: Callable[[Tile], Content], *, most: int, fresh_s: float) -> None:
        self._ask = ask
        self._most = most
        self._fresh_s = fresh_s
        self._kept: OrderedDict[Tile, _Slot[Content]] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, tile: Tile) -> Content:
        """Return the content of `tile`; raises what asking for it raises."""
        with self._lock:
            slot = self._kept.setdefault(tile, _Slot())
            self._kept.move_to_end(tile)
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        with slot.lock:
            if not slot.content or time.monotonic() - slot.content[0][0] > self._fresh_s:
                slot.content[:] = [(time.monotonic(), self._ask(tile))]
            return slot.content[0][1]


class _Slot(Generic[Content]):
    """A tile's content and when it was asked for, once it is there, and the lock of who asks."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.content: list[tuple[float, Content]] = []


def _features(
    body: bytes, tile: Tile, layer: str, kinds: set[str]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]], int]:
    """Geometries and properties of a layer's features, which have to be of `kinds`, and how many steps its grid has."""
    try:
        found = mapbox_vector_tile.decode(body, default_options={"y_coord_down": True}).get(layer)
        features = found["features"] if found else []
        geometries = [feature["geometry"] for feature in features]
        properties = [feature["properties"] for feature in features]
        held = {geometry["type"] for geometry in geometries}
        extent = found["extent"] if found else 1
    # The decoder checks little: what is broken shows as whatever its arithmetic runs into.
    except (DecodeError, ValueError, IndexError, KeyError, TypeError, AssertionError) as error:
        raise SourceError(f"tile {tile} is no vector tile: {type(error).__name__}") from None
    if not held <= kinds or extent < 1:
        wanted = " or ".join(sorted(kinds))
        raise SourceError(f"tile {tile}: its layer {layer} holds {sorted(held)} on a grid of {extent}, not {wanted}")
    return geometries, properties, extent


def _cell(longitude: float, latitude: float, z: int) -> tuple[int, int]:
    """Column and row of the tile a position lies in."""
    across = 2**z
    clipped = math.radians(min(max(latitude, -LARGEST_LATITUDE), LARGEST_LATITUDE))
    x = math.floor((longitude + 180.0) / 360.0 * across)
    y = math.floor((1.0 - math.asinh(math.tan(clipped)) / math.pi) / 2.0 * across)
    return min(max(x, 0), across - 1), min(max(y, 0), across - 1)
