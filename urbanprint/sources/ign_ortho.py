"""BD ORTHO of IGN: aerial photographs of France, 20 cm, from the services of the national geoplatform.

The source cuts the ground into square windows in a projected CRS, and each window is one image of the acquisition
loop. WMS draws a window on the server; WMTS serves ready-made tiles in Web Mercator, from which the window is
resampled here. Row 0 of a window is its northern edge, and the corners of the outer pixels are the window's own.

Sources: OGC 06-042 (WMS 1.3.0), OGC 07-057r7 (WMTS 1.0.0), https://geoservices.ign.fr/bdortho,
https://ignf.github.io/cartes.gouv.fr-documentation (addresses, limits of use).
"""

import io
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import requests
from PIL import Image, UnidentifiedImageError
from pyproj import Transformer
from scipy.ndimage import map_coordinates
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError
from urbanprint.imagery.records import ImageRecord, RejectedImage, Terms
from urbanprint.sources.http import HttpClient, HttpStatusError, Retry
from urbanprint.sources.limits import RateLimit
from urbanprint.sources.windows import Lattice, Window, encoded, no_data_share

PUBLIC_ENDPOINTS = {"wms": "https://data.geopf.fr/wms-r/wms", "wmts": "https://data.geopf.fr/wmts"}
WMS_REQUESTS_PER_MINUTE = 40 * 60
"""What the WMS allows one address; the WMTS states no limit."""

TERMS = Terms(
    licence="Etalab 2.0",
    attribution="© IGN, BD ORTHO",
    page=None,
    may_store=True,
    may_train=True,
    may_show=True,
)

_KNOT_PX = 64
# Codes that asking again cannot mend (OGC 06-042, table E.1; OGC 07-057r7).
_FINAL_CODES = frozenset(
    {
        *("LayerNotDefined", "StyleNotDefined", "InvalidCRS", "InvalidFormat", "OperationNotSupported"),
        *("InvalidParameterValue", "MissingParameterValue"),
    }
)

# The tile matrix set PM: Web Mercator squares of 256 pixels, halved at each level (OGC 07-057r7, E.4).
_MERCATOR = "EPSG:3857"
_TILE_PX = 256
_EDGE_M = 20037508.342789244
_DEEPEST_LEVEL = 19
_TILES_KEPT = 1024  # about 20 kB each


class IgnOrtho:
    """Windows of an orthophoto layer as a source of images.

    Windows lie on the lattice of multiples of `side_m` in `crs` (projected, in metres, with an EPSG code; mainland
    France: EPSG:2154), or exactly at `corners`, the (x, y) of their south-west corners. Each is
    `side_m / resolution_m` pixels wide and high. A window of which more than `largest_no_data` is white or
    transparent is rejected.
    """

    name = "ign-ortho"

    def __init__(
        self,
        *,
        terms: Terms = TERMS,
        endpoint: str | None = None,
        service: Literal["wms", "wmts"] = "wms",
        layer: str = "ORTHOIMAGERY.ORTHOPHOTOS",
        crs: str = "EPSG:2154",
        side_m: float = 200.0,
        resolution_m: float = 0.2,
        corners: Iterable[tuple[float, float]] | None = None,
        image_format: Literal["jpeg", "png"] = "jpeg",
        largest_no_data: float = 0.1,
        matrix_set: str = "PM",
        limit: RateLimit | None = None,
        retry: Retry | None = None,
        timeout_s: tuple[float, float] = (10.0, 60.0),
    ) -> None:
        if service not in PUBLIC_ENDPOINTS:
            raise InputError(f"the orthophotos are served by {' and '.join(PUBLIC_ENDPOINTS)}, not by {service!r}")
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]{0,99}", layer):
            raise InputError(f"{layer!r} is no name of a layer: letters, digits, dots and hyphens are")
        self.terms = terms
        self._lattice = Lattice(layer, crs=crs, side_m=side_m, resolution_m=resolution_m, corners=corners)
        self._endpoint = endpoint or PUBLIC_ENDPOINTS[service]
        self._service, self._layer, self._matrix_set = service, layer, matrix_set
        self._type = f"image/{image_format}"
        self._largest_no_data = largest_no_data
        self._to_mercator = Transformer.from_crs(self._lattice.crs, _MERCATOR, always_xy=True)
        self._tile = lru_cache(maxsize=_TILES_KEPT)(self._asked_tile)
        self._client = HttpClient(name="IGN", retry=retry, timeout_s=timeout_s, limit=limit)

    @property
    def request_key(self) -> str:
        """What decides the windows besides the area."""
        asked = f"service={self._service}&format={self._type}&layer={self._layer}"
        return f"{self._endpoint}?{asked}&crs={self._lattice.key}"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Return every window whose centre lies in the bounding box of `area` (EPSG:4326), each once."""
        return self._lattice.find(area.bounds)

    def window(self, image_id: str) -> Window:
        """Return the ground that an image of this source shows. Raises `InputError` for any other image."""
        return self._lattice.window(image_id)

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the window of `record` as JPEG or PNG.

        Raises `RejectedImage` where too little of it has been photographed, and `InputError` when the service does
        not know the layer, CRS or format: no other window would fare better.
        """
        window = self.window(record.image_id)
        if self._service == "wms":
            body = self._drawn(window)
            pixels = _decoded(body)
        else:
            pixels = self._resampled(window)
            body = encoded(pixels, self._type)
        share = no_data_share(pixels)
        if share > self._largest_no_data:
            raise RejectedImage(f"{share:.0%} of the window has not been photographed")
        return body

    # --- WMS --------------------------------------------------------------------------------------------------------

    def _drawn(self, window: Window) -> bytes:
        """The window as the server draws it."""
        low, high = (window.x, window.y), (window.x + window.side_m, window.y + window.side_m)
        # The order of BBOX is that of the axes of the CRS (OGC 06-042, 7.3.3.6), projected ones included.
        if self._lattice.crs.axis_info[0].direction == "north":
            low, high = low[::-1], high[::-1]
        params = {
            "SERVICE": "WMS",
            "VERSION": "1.3.0",
            "REQUEST": "GetMap",
            "LAYERS": self._layer,
            "STYLES": "",
            "CRS": f"EPSG:{self._lattice.epsg}",
            "BBOX": ",".join(f"{edge:.10g}" for edge in (*low, *high)),
            "WIDTH": self._lattice.side_px,
            "HEIGHT": self._lattice.side_px,
            "FORMAT": self._type,
        }
        if self._type == "image/png":
            params["TRANSPARENT"] = "TRUE"
        return self._asked(params, self._lattice.side_px)

    # --- WMTS -------------------------------------------------------------------------------------------------------

    def _resampled(self, window: Window) -> np.ndarray:
        """The window from the tiles that cover it, bilinear, as RGBA (side, side, 4)."""
        middle = (window.x + window.side_m / 2, window.y + window.side_m / 2)
        latitude = self._lattice.to_degrees.transform(*middle)[1]
        level = self._level(latitude)
        pixel_m = 2 * _EDGE_M / (_TILE_PX * 2**level)
        east, north = self._mercator(window)
        # Columns and rows of the whole matrix, counted between pixel centres.
        columns, rows = (east + _EDGE_M) / pixel_m - 0.5, (_EDGE_M - north) / pixel_m - 0.5
        first = [math.floor(axis.min()) // _TILE_PX for axis in (rows, columns)]
        last = [(math.floor(axis.max()) + 1) // _TILE_PX for axis in (rows, columns)]
        mosaic = np.vstack(
            [
                np.hstack([_decoded(self._tile(level, row, column)) for column in range(first[1], last[1] + 1)])
                for row in range(first[0], last[0] + 1)
            ]
        )
        at = np.stack([rows - first[0] * _TILE_PX, columns - first[1] * _TILE_PX])
        return np.stack([map_coordinates(mosaic[..., band], at, order=1) for band in range(4)], axis=-1)

    def _level(self, latitude: float) -> int:
        """The coarsest level whose pixels are as fine as asked on the ground there, or the deepest."""
        ground_m = 2 * _EDGE_M / _TILE_PX * math.cos(math.radians(latitude))
        return min(_DEEPEST_LEVEL, max(0, math.ceil(math.log2(ground_m / self._lattice.resolution_m))))

    def _mercator(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Web Mercator coordinates of the window's pixel centres, each (side, side).

        Transformed at knots and interpolated between them: both projections are smooth, and over 64 pixels of 20 cm
        the difference is below a hundredth of a millimetre, while a million transformations take half a second.
        """
        side = self._lattice.side_px
        count = max(2, math.ceil(side / _KNOT_PX) + 1)
        steps = np.linspace(0.0, window.side_m, count)
        knots = self._to_mercator.transform(*np.meshgrid(window.x + steps, window.y + window.side_m - steps))
        at = (np.arange(side) + 0.5) * (count - 1) / side
        weights = np.clip(1 - np.abs(at[:, None] - np.arange(count)), 0, 1)  # bilinear, (side, count)
        # Steps from the first knot keep the eight digits before the point out of the interpolation.
        east, north = (weights @ (axis - axis[0, 0]) @ weights.T + axis[0, 0] for axis in knots)
        return east, north

    def _asked_tile(self, level: int, row: int, column: int) -> bytes:
        params = {
            "SERVICE": "WMTS",
            "VERSION": "1.0.0",
            "REQUEST": "GetTile",
            "LAYER": self._layer,
            "STYLE": "normal",
            "FORMAT": "image/jpeg",
            "TILEMATRIXSET": self._matrix_set,
            "TILEMATRIX": level,
            "TILEROW": row,
            "TILECOL": column,
        }
        return self._asked(params, _TILE_PX, missing=_EMPTY_TILE)

    def _asked(self, params: Mapping[str, Any], side: int, *, missing: bytes | None = None) -> bytes:
        """A whole picture of `side` pixels; `missing` stands for one that the service does not have."""
        try:
            response = self._client.get(self._endpoint, params=params, unsound=lambda answer: _fault(answer, side))
            body, report = response.content, _start(response)
        except HttpStatusError as error:
            if missing is not None and (error.status == 404 or _code(error.body) == "TileOutOfRange"):
                return missing
            body, report = b"", error.body
            if _code(report) not in _FINAL_CODES:
                raise
        if _code(report) in _FINAL_CODES:
            raise InputError(f"the {self._service.upper()} of IGN cannot serve {self._layer}: {_plain(report)}")
        return body


def _fault(response: requests.Response, side: int) -> str | None:
    """Why an answer is no whole picture of `side` pixels and may be one when asked again; None where it is final."""
    start = _start(response)
    if _code(start) in _FINAL_CODES:
        return None
    if "ExceptionReport" in start:
        return f"an exception: {_plain(response.text)}"
    try:
        with Image.open(io.BytesIO(response.content)) as picture:
            if picture.size != (side, side):
                return f"a picture of {picture.size[0]} x {picture.size[1]} pixels where {side} x {side} were asked for"
            picture.load()
    except (UnidentifiedImageError, OSError, SyntaxError, Image.DecompressionBombError):
        return "a body that is no whole image"
    return None


def _start(response: requests.Response) -> str:
    """The start of the body where it is XML, else nothing."""
    start = response.content[:4096].lstrip()
    return start.decode("utf-8", "replace") if start.startswith(b"<") else ""


def _code(text: str) -> str | None:
    """The code of an exception report of WMS (`code`) or WMTS (`exceptionCode`)."""
    # A pattern and no parser: a few words are wanted, and what entities in the XML of strangers do is not.
    found = re.search(r"<(?:\w+:)?(?:ServiceException|Exception)\b[^>]*?\b(?:code|exceptionCode)=[\"'](\w+)", text)
    return found[1] if found else None


def _plain(text: str) -> str:
    """An exception report without its markup, at most 200 characters."""
    return " ".join(re.sub(r"<[^>]*>", " ", text).split())[:200]


def _decoded(body: bytes) -> np.ndarray:
    """RGBA (h, w, 4) of an image that has been found whole."""
    with Image.open(io.BytesIO(body)) as picture:
        return np.asarray(picture.convert("RGBA"))


_EMPTY_TILE = encoded(np.zeros((_TILE_PX, _TILE_PX, 4), np.uint8), "image/png")
