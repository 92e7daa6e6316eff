"""Square windows of ground, the images of every source of aerial photographs: where they lie and what they are called.

What belongs here is shared by all such sources, wherever their pixels come from: the lattice, the records, what counts
as not photographed, the encoding. Row 0 of a window is its northern edge, and the corners of the outer pixels are the
window's own.
"""

import io
import math
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import shapely
from PIL import Image
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError

from urbanprint.errors import InputError
from urbanprint.imagery.records import ImageRecord

_LARGEST_PX = 4096  # above it some servers refuse, and a window is a training image, not a map sheet
_BLOCK_M = 1000.0
_WHITE = 254  # a white page that went through JPEG


@dataclass(frozen=True)
class Window:
    """A square of ground: its south-west corner and side, in metres of the source's CRS."""

    x: float
    y: float
    side_m: float


class Lattice:
    """The windows of a `layer` at multiples of `side_m` in `crs`, or exactly at `corners`, (x, y) in the south-west.

    `crs` is projected, in metres, with an EPSG code. A window is `side_m / resolution_m` pixels wide and high. Raises
    `InputError` for any other CRS and where that is no whole number of pixels.
    """

    def __init__(
        self,
        layer: str,
        *,
        crs: str,
        side_m: float,
        resolution_m: float,
        corners: Iterable[tuple[float, float]] | None = None,
    ) -> None:
        self.layer = layer
        self.crs, self.epsg = _projected(crs)
        self.side_px = _whole(side_m / resolution_m, side_m, resolution_m)
        self.side_m, self.resolution_m = float(side_m), float(resolution_m)
        self.to_degrees = Transformer.from_crs(self.crs, "EPSG:4326", always_xy=True)
        self._corners = None if corners is None else tuple((float(x), float(y)) for x, y in corners)

    @property
    def key(self) -> str:
        """What decides the windows besides the area, for a source's `request_key`."""
        chosen = "" if self._corners is None else sha256(repr(self._corners).encode()).hexdigest()[:16]
        return f"{self.epsg}&side={self.side_m:.10g}&resolution={self.resolution_m:.10g}&corners={chosen}"

    def find(self, bounds: tuple[float, float, float, float]) -> Iterator[ImageRecord]:
        """Yield every window whose centre lies in `bounds` (west, south, east, north in degrees), each once.

        Raises `InputError` for bounds outside of where the CRS is used.
        """
        west, south, east, north = bounds
        for corners in self._rows(bounds):
            longitude, latitude = self.to_degrees.transform(*(corners + self.side_m / 2).T)
            inside = (west <= longitude) & (longitude <= east) & (south <= latitude) & (latitude <= north)
            for (x, y), lon, lat in zip(corners[inside], longitude[inside], latitude[inside], strict=True):
                yield self._record(float(x), float(y), float(lon), float(lat))

    def window(self, image_id: str) -> Window:
        """Return the ground that an image of this lattice shows. Raises `InputError` for any other image."""
        start, end = f"{self.layer}_{self.epsg}_", f"_{self.side_m:.10g}_{self.resolution_m:.10g}"
        corner = re.fullmatch(rf"{re.escape(start)}(-?[\d.]+)_(-?[\d.]+){re.escape(end)}", image_id)
        if corner is None:
            raise InputError(
                f"image {image_id} is no window of {start}x_y{end}: it was found with another layer or grid"
            )
        return Window(float(corner[1]), float(corner[2]), self.side_m)

    def _rows(self, bounds: tuple[float, float, float, float]) -> Iterator[np.ndarray]:
        """Corners (n, 2) that may be wanted, a row of the lattice at a time."""
        if self._corners is not None:
            yield np.array(self._corners).reshape(-1, 2)
            return
        side = self.side_m
        use = self.crs.area_of_use
        if use is not None and not shapely.box(*use.bounds).intersects(shapely.box(*bounds)):
            raise InputError(
                f"the area at {bounds} degrees lies outside of EPSG:{self.epsg} ({use.name}): name the CRS used there"
            )
        low_x, low_y, high_x, high_y = self.to_degrees.transform_bounds(*bounds, direction="INVERSE")
        x = np.arange(math.floor(low_x / side), math.ceil(high_x / side)) * side
        for row in range(math.floor(low_y / side), math.ceil(high_y / side)):
            yield np.column_stack([x, np.full(len(x), row * side)])

    def _record(self, x: float, y: float, longitude: float, latitude: float) -> ImageRecord:
        # Neighbouring windows share a seam and were photographed on one flight, so that a split must not come
        # between them: those of a block of a kilometre stand for a sequence. It cannot hold neighbours across the
        # block's own edge together; blocked folds with a buffer do.
        block = max(_BLOCK_M, self.side_m)
        middle_x, middle_y = x + self.side_m / 2, y + self.side_m / 2
        corner = f"{math.floor(middle_x / block) * block:.10g}_{math.floor(middle_y / block) * block:.10g}"
        grid = f"{x:.10g}_{y:.10g}_{self.side_m:.10g}_{self.resolution_m:.10g}"
        return ImageRecord(
            image_id=f"{self.layer}_{self.epsg}_{grid}",
            sequence_id=f"{self.epsg}_{corner}_{block:.10g}",
            longitude=longitude,
            latitude=latitude,
        )


def no_data_share(pixels: np.ndarray) -> float:
    """Return the share of RGBA `pixels` (h, w, 4) that are white or transparent: where nothing was photographed."""
    return float(((pixels[..., 3] == 0) | (pixels[..., :3] >= _WHITE).all(axis=-1)).mean())


def encoded(pixels: np.ndarray, content_type: str) -> bytes:
    """Return RGBA `pixels` (h, w, 4) as image/png, or as image/jpeg with white for what is transparent."""
    buffer = io.BytesIO()
    if content_type == "image/png":
        Image.fromarray(pixels).save(buffer, "PNG")
    else:
        # Most orthophotos were compressed once already: the second time must not show.
        Image.fromarray(np.where(pixels[..., 3:] == 0, 255, pixels)[..., :3]).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


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
