"""Mapillary's coverage tiles: where images are, as Mapbox Vector Tiles of zoom 14.

Layers, fields and the order of feature numbers are those of recorded tiles: `sequence` first, then `image`. The
position is the camera's own, on a grid of 4,096 a side: `mly1_public` knows no computed ones. The token counts in the
query alone; in a header it is refused with 403 (https://github.com/mapillary/mapillary-python-sdk/issues/124).
"""

import hmac
import re
from functools import lru_cache
from typing import Any

import mapbox_vector_tile
import numpy as np
import pandas as pd
import pyproj
import shapely

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.camera import Photographed
from urbanprint.simulation.protocols.wire import Headers, Query

_PATH = re.compile(r"/mapillary-tiles/maps/vtp/mly1_public/2/14/(\d+)/(\d+)")
_ACROSS = 2**14
_EXTENT = 4096
_HALF_WORLD_M = 20_037_508.342789244  # pi times the Earth's radius in EPSG:3857


class VectorTiles:
    """`/mapillary-tiles/maps/vtp/mly1_public/2/14/<x>/<y>?access_token=...` over the images of a town."""

    def __init__(self, town: Photographed, *, token: str) -> None:
        self._token = token
        to_mercator = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
        east_m, north_m = to_mercator.transform(town.images["raw_longitude"], town.images["raw_latitude"])
        across = _ACROSS / (2 * _HALF_WORLD_M)
        grid = np.column_stack([(np.array(east_m) + _HALF_WORLD_M), (_HALF_WORLD_M - np.array(north_m))])
        grid = np.floor(grid * across * _EXTENT).astype(int)
        self._images = town.images.assign(
            x=grid[:, 0] // _EXTENT, y=grid[:, 1] // _EXTENT, u=grid[:, 0] % _EXTENT, v=grid[:, 1] % _EXTENT
        ).sort_values("captured_at", kind="stable")
        self._drawn = lru_cache(maxsize=256)(self._tile)

    def answer(self, path: str, query: Query, _headers: Headers, _base: str) -> Answer | None:
        """The tile of the path; one without images is empty."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        if not hmac.compare_digest(query.get("access_token", "").encode(), self._token.encode()):
            return Answer(b"Forbidden", 403, "text/plain; charset=utf-8")
        return Answer(self._drawn(int(match[1]), int(match[2])), 200, "application/x-protobuf")

    def _tile(self, x: int, y: int) -> bytes:
        inside = self._images[(self._images["x"] == x) & (self._images["y"] == y)]
        if inside.empty:
            return b""
        lines = [_line(sequence_id, images) for sequence_id, images in inside.groupby("sequence_id") if len(images) > 1]
        points = [_point(image) for image in inside.to_dict("records")]
        for number, feature in enumerate([*lines, *points]):
            feature["id"] = number
        layers = [{"name": "sequence", "features": lines}, {"name": "image", "features": points}]
        encoded: bytes = mapbox_vector_tile.encode(layers, default_options={"y_coord_down": True, "extents": _EXTENT})
        return encoded


def _line(sequence_id: Any, images: pd.DataFrame) -> dict[str, Any]:
    first = images.iloc[0]
    return {
        "geometry": shapely.LineString(images[["u", "v"]].to_numpy()),
        "properties": {
            "captured_at": _milliseconds(first["captured_at"]),
            "id": str(sequence_id),
            "image_id": int(first["image_id"]),
            "is_pano": bool(first["is_pano"]),
        },
    }


def _point(image: dict[Any, Any]) -> dict[str, Any]:
    return {
        "geometry": shapely.Point(image["u"], image["v"]),
        "properties": {
            "captured_at": _milliseconds(image["captured_at"]),
            "compass_angle": round(image["heading"]) % 360,
            "id": int(image["image_id"]),
            "is_pano": bool(image["is_pano"]),
            "sequence_id": image["sequence_id"],
        },
    }


def _milliseconds(moment: pd.Timestamp) -> int:
    return int(moment.timestamp() * 1000)
