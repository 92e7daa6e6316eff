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
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from typing import Any, Literal

import numpy as np
import requests
import shapely
from PIL import Image, UnidentifiedImageError
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError
from scipy.ndimage import map_coordinates
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError
from urbanprint.imagery.records import ImageRecord, RejectedImage, Terms
from urbanprint.sources.http import HttpClient, HttpStatusError, Retry
from urbanprint.sources.limits import RateLimit

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

_LARGEST_PX = 4096  # above it some servers refuse, and a window is a training image, not a map sheet
_BLOCK_M = 1000.0
_WHITE = 254  # a white page that went through JPEG
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


@dataclass(frozen=True)
class Window:
    """A square of ground: its south-west corner and side, in metres of the source's CRS."""

    x: float
    y: float
    side_m: float


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
        self._crs, self._epsg = _projected(crs)
        self._side_px = _whole(side_m / resolution_m, side_m, resolution_m)
        self._corners = None if corners is None else tuple((float(x), float(y)) for x, y in corners)
        self._endpoint = endpoint or PUBLIC_ENDPOINTS[service]
        self._service, self._layer, self._matrix_set = service, layer, matrix_set
        self._side_m, self._resolution_m = float(side_m), float(resolution_m)
        self._type = f"image/{image_format}"
        self._largest_no_data = largest_no_data
        self._to_degrees = Transformer.from_crs(self._crs, "EPSG:4326", always_xy=True)
        self._to_mercator = Transformer.from_crs(self._crs, _MERCATOR, always_xy=True)
        self._tile = lru_cache(maxsize=_TILES_KEPT)(self._asked_tile)
        self._client = HttpClient(name="IGN", retry=retry, timeout_s=timeout_s, limit=limit)

    @property
    def request_key(self) -> str:
        """What decides the windows besides the area."""
        chosen = "" if self._corners is None else sha256(repr(self._corners).encode()).hexdigest()[:16]
        grid = f"{self._epsg}&side={self._side_m:.10g}&resolution={self._resolution_m:.10g}&corners={chosen}"
        return f"{self._endpoint}?service={self._service}&format={self._type}&layer={self._layer}&crs={grid}"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield every window whose centre lies in the bounding box of `area` (EPSG:4326), each once."""
        west, south, east, north = area.bounds
        for corners in self._rows(area.bounds):
            longitude, latitude = self._to_degrees.transform(*(corners + self._side_m / 2).T)
            inside = (west <= longitude) & (longitude <= east) & (south <= latitude) & (latitude <= north)
            for (x, y), lon, lat in zip(corners[inside], longitude[inside], latitude[inside], strict=True):
                yield self._record(float(x), float(y), float(lon), float(lat))

    def window(self, image_id: str) -> Window:
        """Return the ground that an image of this source shows. Raises `InputError` for any other image."""
        start, end = f"{self._layer}_{self._epsg}_", f"_{self._side_m:.10g}_{self._resolution_m:.10g}"
        corner = re.fullmatch(rf"{re.escape(start)}(-?[\d.]+)_(-?[\d.]+){re.escape(end)}", image_id)
        if corner is None:
            raise InputError(
                f"image {image_id} is no window of {start}x_y{end}: it was found with another layer or grid"
            )
        return Window(float(corner[1]), float(corner[2]), self._side_m)

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
            body = _encoded(pixels, self._type)
        share = no_data_share(pixels)
        if share > self._largest_no_data:
            raise RejectedImage(f"{share:.0%} of the window has not been photographed")
        return body

    def _rows(self, bounds: tuple[float, float, float, float]) -> Iterator[np.ndarray]:
        """Corners (n, 2) that may be wanted, a row of the lattice at a time."""
        if self._corners is not None:
            yield np.array(self._corners).reshape(-1, 2)
            return
        side = self._side_m
        use = self._crs.area_of_use
        if use is not None and not shapely.box(*use.bounds).intersects(shapely.box(*bounds)):
            raise InputError(
                f"the area at {bounds} degrees lies outside of EPSG:{self._epsg} ({use.name}): name the CRS used there"
            )
        low_x, low_y, high_x, high_y = self._to_degrees.transform_bounds(*bounds, direction="INVERSE")
        x = np.arange(math.floor(low_x / side), math.ceil(high_x / side)) * side
        for row in range(math.floor(low_y / side), math.ceil(high_y / side)):
            yield np.column_stack([x, np.full(len(x), row * side)])

    def _record(self, x: float, y: float, longitude: float, latitude: float) -> ImageRecord:
        # Neighbouring windows share a seam and were photographed on one flight, so that a split must not come
        # between them: those of a block of a kilometre stand for a sequence. It cannot hold neighbours across the
        # block's own edge together; blocked folds with a buffer do.
        block = max(_BLOCK_M, self._side_m)
        middle_x, middle_y = x + self._side_m / 2, y + self._side_m / 2
        corner = f"{math.floor(middle_x / block) * block:.10g}_{math.floor(middle_y / block) * block:.10g}"
        grid = f"{x:.10g}_{y:.10g}_{self._side_m:.10g}_{self._resolution_m:.10g}"
        return ImageRecord(
            image_id=f"{self._layer}_{self._epsg}_{grid}",
            sequence_id=f"{self._epsg}_{corner}_{block:.10g}",
            longitude=longitude,
            latitude=latitude,
        )

    # --- WMS --------------------------------------------------------------------------------------------------------

    def _drawn(self, window: Window) -> bytes:
        """The window as the server draws it."""
        low, high = (window.x, window.y), (window.x + window.side_m, window.y + window.side_m)
        # The order of BBOX is that of the axes of the CRS (OGC 06-042, 7.3.3.6), projected ones included.
        if self._crs.axis_info[0].direction == "north":
            low, high = low[::-1], high[::-1]
        params = {
            "SERVICE": "WMS",
            "VERSION": "1.3.0",
            "REQUEST": "GetMap",
            "LAYERS": self._layer,
            "STYLES": "",
            "CRS": f"EPSG:{self._epsg}",
            "BBOX": ",".join(f"{edge:.10g}" for edge in (*low, *high)),
            "WIDTH": self._side_px,
            "HEIGHT": self._side_px,
            "FORMAT": self._type,
        }
        if self._type == "image/png":
            params["TRANSPARENT"] = "TRUE"
        return self._asked(params, self._side_px)

    # --- WMTS -------------------------------------------------------------------------------------------------------

    def _resampled(self, window: Window) -> np.ndarray:
        """The window from the tiles that cover it, bilinear, as RGBA (side, side, 4)."""
        middle = (window.x + window.side_m / 2, window.y + window.side_m / 2)
        latitude = self._to_degrees.transform(*middle)[1]
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
        return min(_DEEPEST_LEVEL, max(0, math.ceil(math.log2(ground_m / self._resolution_m))))

    def _mercator(self, window: Window) -> tuple[np.ndarray, np.ndarray]:
        """Web Mercator coordinates of the window's pixel centres, each (side, side).

        Transformed at knots and interpolated between them: both projections are smooth, and over 64 pixels of 20 cm
        the difference is below a hundredth of a millimetre, while a million transformations take half a second.
        """
        count = max(2, math.ceil(self._side_px / _KNOT_PX) + 1)
        steps = np.linspace(0.0, window.side_m, count)
        knots = self._to_mercator.transform(*np.meshgrid(window.x + steps, window.y + window.side_m - steps))
        at = (np.arange(self._side_px) + 0.5) * (count - 1) / self._side_px
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


def no_data_share(pixels: np.ndarray) -> float:
    """Return the share of RGBA `pixels` (h, w, 4) that are white or transparent: where nothing was photographed."""
    return float(((pixels[..., 3] == 0) | (pixels[..., :3] >= _WHITE).all(axis=-1)).mean())


def _projected(name: str) -> tuple[CRS, int]:
    """The CRS called `name` and its EPSG code."""
    try:
        crs = CRS(name)
    except CRSError:
        raise InputError(f"{name!r} is no coordinate system: name one as EPSG:2154") from None
    code = crs.to_epsg()
    if code is None or not crs.is_projected or crs.axis_info[0].unit_name != "metre":
        raise InputError(
            f"windows need a projected CRS in metres with an EPSG code, and {name!r} is none: EPSG:2154 is"
        )
    return crs, code


def _whole(pixels: float, side_m: float, resolution_m: float) -> int:
    side = round(pixels)
    if not 1 <= side <= _LARGEST_PX or abs(pixels - side) > 1e-6:
        raise InputError(
            f"a window of {side_m:g} m at {resolution_m:g} m is {pixels:g} pixels wide: "
            f"a whole number from 1 to {_LARGEST_PX} is needed"
        )
    return side


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


def _encoded(pixels: np.ndarray, content_type: str) -> bytes:
    buffer = io.BytesIO()
    if content_type == "image/png":
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        # The tiles were compressed once already: the second time must not show.
        Image.fromarray(np.where(pixels[..., 3:] == 0, 255, pixels)[..., :3]).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


_EMPTY_TILE = _encoded(np.zeros((_TILE_PX, _TILE_PX, 4), np.uint8), "image/png")
