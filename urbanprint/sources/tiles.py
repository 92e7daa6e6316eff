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
    try:
        found = mapbox_vector_tile.decode(body, default_options={"y_coord_down": True}).get(layer)
        features = found["features"] if found else []
        fractions = [feature["geometry"]["coordinates"] for feature in features]
        kinds = {feature["geometry"]["type"] for feature in features}
        extent = found["extent"] if found else 1
    # The decoder checks little: what is broken shows as whatever its arithmetic runs into.
    except (DecodeError, ValueError, IndexError, KeyError, TypeError, AssertionError) as error:
        raise SourceError(f"tile {tile} is no vector tile: {type(error).__name__}") from None
    if not kinds <= {"Point"} or extent < 1:
        raise SourceError(f"tile {tile}: its layer {layer} holds {sorted(kinds)} on a grid of {extent}, not points")
    return positions_on(tile, np.array(fractions, dtype=float) / extent), [each["properties"] for each in features]


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


def _cell(longitude: float, latitude: float, z: int) -> tuple[int, int]:
    """Column and row of the tile a position lies in."""
    across = 2**z
    clipped = math.radians(min(max(latitude, -LARGEST_LATITUDE), LARGEST_LATITUDE))
    x = math.floor((longitude + 180.0) / 360.0 * across)
    y = math.floor((1.0 - math.asinh(math.tan(clipped)) / math.pi) / 2.0 * across)
    return min(max(x, 0), across - 1), min(max(y, 0), across - 1)
