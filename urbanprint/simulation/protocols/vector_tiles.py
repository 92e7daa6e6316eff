"""Mapillary's coverage tiles: where images are, as Mapbox Vector Tiles of zoom 0 to 14.

Layers, fields and the order of feature numbers are those of recorded tiles and of
https://www.mapillary.com/developer/api-documentation: `overview` up to zoom 5, a point a sequence; `sequence` from
zoom 6 on, a line for each of more than one image; at zoom 14 `image` as well. The position is the camera's own, on a
grid of 4,096 a side: `mly1_public` knows no computed ones. A line that has a vertex in a tile is there with all of
them, also those beyond the edges. The token counts in the query alone; in a header it is refused with 403
(https://github.com/mapillary/mapillary-python-sdk/issues/124).
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

_PATH = re.compile(r"/mapillary-tiles/maps/vtp/mly1_public/2/(\d|1[0-4])/(\d+)/(\d+)")
_FIRST_OF_LINES, _LAST = 6, 14
_EXTENT = 4096
_HALF_WORLD_M = 20_037_508.342789244  # pi times the Earth's radius in EPSG:3857


class VectorTiles:
    """`/mapillary-tiles/maps/vtp/mly1_public/2/<z>/<x>/<y>?access_token=...` over the images of a town."""

    def __init__(self, town: Photographed, *, token: str) -> None:
        self._token = token
        self._images = town.images.sort_values("captured_at", kind="stable")
        to_mercator = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
        east_m, north_m = to_mercator.transform(self._images["raw_longitude"], self._images["raw_latitude"])
        from_north_west = np.column_stack([_HALF_WORLD_M + np.array(east_m), _HALF_WORLD_M - np.array(north_m)])
        self._positions = from_north_west / (2 * _HALF_WORLD_M)  # the world is a square of side 1
        self._drive, _ = pd.factorize(self._images["sequence_id"])
        self._drawn = lru_cache(maxsize=256)(self._tile)

    def answer(self, path: str, query: Query, _headers: Headers, _base: str) -> Answer | None:
        """The tile of the path; one without images is empty."""
        match = _PATH.fullmatch(path)
        if match is None:
            return None
        if not hmac.compare_digest(query.get("access_token", "").encode(), self._token.encode()):
            return Answer(b"Forbidden", 403, "text/plain; charset=utf-8")
        return Answer(self._drawn(int(match[1]), int(match[2]), int(match[3])), 200, "application/x-protobuf")

    def _tile(self, z: int, x: int, y: int) -> bytes:
        corner = np.array([x, y])
        inside = (np.floor(self._positions * 2**z) == corner).all(axis=1)
        if not inside.any():
            return b""
        drawn = np.isin(self._drive, self._drive[inside])
        grid = np.floor(self._positions[drawn] * 2**z * _EXTENT).astype(int) - corner * _EXTENT
        images, inside = self._images[drawn].assign(u=grid[:, 0], v=grid[:, 1]), inside[drawn]
        layers = _overview(images, inside) if z < _FIRST_OF_LINES else _lines(images)
        if z == _LAST:
            layers["image"] = [_point(image) for image in images[inside].to_dict("records")]
        for number, feature in enumerate(feature for features in layers.values() for feature in features):
            feature["id"] = number
        encoded: bytes = mapbox_vector_tile.encode(
            [{"name": name, "features": features} for name, features in layers.items()],
            default_options={"y_coord_down": True, "extents": _EXTENT},
        )
        return encoded


def _overview(images: pd.DataFrame, inside: np.ndarray) -> dict[str, list[dict[str, Any]]]:
    """The sequences whose first image lies in the tile."""
    first = ~images["sequence_id"].duplicated()
    points = [_point(image) for image in images[first & inside].to_dict("records")]
    for point in points:
        del point["properties"]["compass_angle"]
    return {"overview": points}


def _lines(images: pd.DataFrame) -> dict[str, list[dict[str, Any]]]:
    """The sequences of more than one image, each of which has one in the tile."""
    drives = images.groupby("sequence_id")
    return {"sequence": [_line(sequence_id, drive) for sequence_id, drive in drives if len(drive) > 1]}


def _line(sequence_id: Any, images: pd.DataFrame) -> dict[str, Any]:
    first = images.iloc[0]
    vertices = images[["u", "v"]].to_numpy()
    vertices = vertices[np.append(True, np.diff(vertices, axis=0).any(axis=1))]
    if len(vertices) == 1:  # smaller than a step of the grid, and still a line
        vertices = np.vstack([vertices, vertices[0] + np.array([1, 0])])
    return {
        "geometry": shapely.LineString(vertices),
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
