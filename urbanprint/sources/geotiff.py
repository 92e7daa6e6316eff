"""Orthophotos that lie as GeoTIFF files on this machine: one mosaic, cut into the windows of an aerial source.

What belongs here is how files become pixels of a window: which ones show it, how they are resampled, what happens
where they meet. Windows, their names and what counts as not photographed are in `windows`.

Sources: OGC 19-008r4 (GeoTIFF 1.1), https://gdal.org/en/stable/programs/gdalwarp.html (the resampling).
"""

import math
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np
import rasterio
import shapely
from pyproj import CRS, Transformer
from pyproj.exceptions import CRSError, ProjError
from rasterio._err import CPLE_BaseError
from rasterio.enums import ColorInterp, Resampling
from rasterio.errors import NotGeoreferencedWarning, RasterioError
from rasterio.vrt import WarpedVRT
from scipy.ndimage import binary_closing, distance_transform_edt
from shapely.affinity import affine_transform
from shapely.errors import ShapelyError
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError
from urbanprint.imagery.records import ImageRecord, RejectedImage, Terms, identifier
from urbanprint.sources.windows import Lattice, Window, encoded, no_data_share

_SUFFIXES = frozenset({".tif", ".tiff"})
_MOST_OPEN = 16
_AS_FINE = 1.05  # pixels that differ by less are of one size: projections stretch the ground by a few percent
_KNOTS = 64  # per side of a file: one of 100 km bends by 17 m from Lambert-93 to LAEA Europe, a piece of it by 4 mm
_OFF_PX = 1e-3  # by how much GDAL may misplace a pixel to transform fewer of them; an eighth unless told
_UNREDUCED = {"XSCALE": 1, "YSCALE": 1}  # else GDAL takes a stretch of 1 % for a reduction, and three times as long
_UNREADABLE = (RasterioError, CPLE_BaseError)  # the second is GDAL's own, which rasterio lets through for bad tags
_SLIT = np.ones((3, 3), bool)


@dataclass(frozen=True)
class _Sheet:
    """A file of the mosaic and how it is read: from an overview or not, and resampled how."""

    path: Path
    overview: int | None
    resampling: Resampling


class GeoTiffMosaic:
    """The GeoTIFF files in `folder` and its subfolders as a source of aerial images.

    Windows lie on the lattice of multiples of `side_m` in `crs` (projected, in metres, with an EPSG code), each
    `side_m / resolution_m` pixels wide and high. Their identifiers begin with the name of the folder: mosaics of two
    years in one ledger need two names. The files may lie in other CRSs, each in its own. They hold 8-bit grey or
    colours; a near infrared after the colours is left out. Where several show a pixel, the first by path does, unless
    its alpha, mask or no-data value says that it has none there. A window of which more than `largest_no_data` is
    white or shown by no file is rejected.
    """

    name = "geotiff"

    def __init__(
        self,
        folder: Path,
        terms: Terms,
        crs: str,
        *,
        side_m: float = 200.0,
        resolution_m: float = 0.2,
        largest_no_data: float = 0.1,
        image_format: Literal["jpeg", "png"] = "jpeg",
    ) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: name the folder that holds the GeoTIFF files")
        self._folder = folder.resolve()
        found = self._folder.rglob("*")
        self._paths = sorted(path for path in found if path.suffix.lower() in _SUFFIXES and path.is_file())
        if not self._paths:
            raise InputError(f"{folder} holds no GeoTIFF: files whose names end in .tif or .tiff are looked for")
        layer = identifier(self._folder.name)
        self._lattice = Lattice(layer, crs=crs, side_m=side_m, resolution_m=resolution_m)
        self._target = rasterio.crs.CRS.from_epsg(self._lattice.epsg)
        self._type = f"image/{image_format}"
        self._largest_no_data = largest_no_data
        self._open_files = _OpenFiles(_MOST_OPEN)
        self._surveying = threading.Lock()
        self.terms = terms

    @property
    def request_key(self) -> str:
        """The folder, its version when this source first looked, and what decides the windows besides the area."""
        return f"{self._folder}@{self._version}&format={self._type}&crs={self._lattice.key}"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield every window whose centre lies in the bounding box of `area` (EPSG:4326) and that a file overlaps.

        Raises `InputError` for a file that cannot be used; the first call opens each of them once.
        """
        for record in self._lattice.find(area.bounds):
            if self._sheets_over(self.window(record.image_id)):
                yield record

    def window(self, image_id: str) -> Window:
        """Return the ground that an image of this source shows. Raises `InputError` for any other image."""
        return self._lattice.window(image_id)

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the window of `record` as JPEG or PNG.

        Raises `RejectedImage` where too little of it has been photographed, and `InputError` for a file that cannot be
        read.
        """
        pixels = self._picture(self.window(record.image_id))
        share = no_data_share(pixels)
        if share > self._largest_no_data:
            raise RejectedImage(f"{share:.0%} of the window has not been photographed")
        return encoded(pixels, self._type)

    @cached_property
    def _version(self) -> str:
        digest = sha256()
        for path in self._paths:
            found = path.stat()
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    # --- the files --------------------------------------------------------------------------------------------------

    def _sheets_over(self, window: Window) -> list[_Sheet]:
        """The files that overlap `window`, in the order of their paths."""
        with self._surveying:  # once, whichever thread comes first
            sheets, footprints = self._surveyed
        # Mosaics are cut along round coordinates, as windows are: whatever only touches one shows nothing of it.
        inset = self._lattice.resolution_m / 4
        ground = shapely.box(
            window.x + inset, window.y + inset, window.x + window.side_m - inset, window.y + window.side_m - inset
        )
        return [sheets[index] for index in np.sort(footprints.query(ground, predicate="intersects"))]

    @cached_property
    def _surveyed(self) -> tuple[list[_Sheet], shapely.STRtree]:
        """Every file, and the ground it shows in the CRS of the windows."""
        sheets, footprints = zip(*(self._surveyed_file(path) for path in self._paths), strict=True)
        return list(sheets), shapely.STRtree(footprints)

    def _surveyed_file(self, path: Path) -> tuple[_Sheet, shapely.Polygon]:
        with warnings.catch_warnings(), _readable(path):
            warnings.simplefilter("ignore", NotGeoreferencedWarning)  # said by `_footprint`, with the file's name
            with _opened(path) as dataset:
                _check_bands(dataset, path)
                footprint = _footprint(dataset, path, self._lattice.crs)
                finest = math.sqrt(footprint.area / (dataset.width * dataset.height))
                levels = [(finest * factor, level) for level, factor in enumerate(dataset.overviews(1))]
        wanted_m = self._lattice.resolution_m
        detailed = (level for level in levels if level[0] <= wanted_m * _AS_FINE)
        pixel_m, overview = max(detailed, default=(finest, None))
        reducing = pixel_m * _AS_FINE < wanted_m
        return _Sheet(path, overview, Resampling.average if reducing else Resampling.bilinear), footprint

    # --- the pixels -------------------------------------------------------------------------------------------------

    def _picture(self, window: Window) -> np.ndarray:
        """RGBA (side, side, 4) of what the files show of the window; alpha is 0 or 255."""
        side = self._lattice.side_px
        picture = np.zeros((4, side, side), np.uint8)
        sheets = self._sheets_over(window)
        for sheet in sheets:
            shown = self._shown(sheet, window)
            np.copyto(picture, shown, where=(picture[3] == 0) & (shown[3] == 255))
            if picture[3].all():
                break
        else:
            if len(sheets) > 1:
                _close_slits(picture)
        return np.ascontiguousarray(np.moveaxis(picture, 0, -1))

    def _shown(self, sheet: _Sheet, window: Window) -> np.ndarray:
        """RGBA (4, side, side) of what one file shows of the window."""
        side, pixel_m = self._lattice.side_px, self._lattice.resolution_m
        with _readable(sheet.path), self._open_files.lent(sheet) as dataset:
            colours = _colours(dataset)
            with WarpedVRT(
                dataset,
                crs=self._target,
                transform=rasterio.Affine(pixel_m, 0, window.x, 0, -pixel_m, window.y + window.side_m),
                width=side,
                height=side,
                resampling=sheet.resampling,
                tolerance=_OFF_PX,
                add_alpha=ColorInterp.alpha not in dataset.colorinterp,
                **(_UNREDUCED if sheet.resampling is Resampling.bilinear else {}),
            ) as warped:
                alpha = warped.colorinterp.index(ColorInterp.alpha) + 1
                shown = warped.read([*(colours[:3] if len(colours) > 1 else colours * 3), alpha])
        # Colours are means of the pixels that have data, so that a little of it is enough to show.
        shown[3] = np.where(shown[3] > 0, 255, 0)
        return shown


class _OpenFiles:
    """Open files, at most `most`; those that have not been read for longest give way to others.

    A handle of GDAL must not be read by two threads at once, so that it is lent to one: two that read the same file
    have a handle each.
    """

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)
        self._lock = threading.Lock()
        self._handles: list[tuple[_Sheet | None, Any]] = [(None, None)] * most  # longest not read first

    @contextmanager
    def lent(self, sheet: _Sheet) -> Iterator[Any]:
        """The open file of `sheet`, for this thread alone."""
        with self._free:
            with self._lock:
                at = next((index for index, (held, _) in enumerate(self._handles) if held == sheet), 0)
                held, dataset = self._handles.pop(at)
            try:
                if held != sheet:
                    if held is not None:
                        dataset.close()
                    held, dataset = None, None
                    held, dataset = sheet, _opened(sheet.path, sheet.overview)
                yield dataset
            finally:
                with self._lock:
                    self._handles.append((held, dataset))


@contextmanager
def _readable(path: Path) -> Iterator[None]:
    """Raise what GDAL says of the file at `path` as an `InputError`."""
    try:
        yield
    except _UNREADABLE as error:
        raise InputError(
            f"{path} is no GeoTIFF, or not a whole one ({error.__cause__ or error}): copy it again, or take it out of "
            "the folder"
        ) from None


def _opened(path: Path, overview: int | None = None) -> Any:
    """The dataset at `path`, or one of its overviews."""
    options = {} if overview is None else {"overview_level": overview}
    return rasterio.open(path, driver="GTiff", **options)


def _colours(dataset: Any) -> list[int]:
    """The bands that are not alpha."""
    return [
        band
        for band, meaning in zip(dataset.indexes, dataset.colorinterp, strict=True)
        if meaning is not ColorInterp.alpha
    ]


def _check_bands(dataset: Any, path: Path) -> None:
    if set(dataset.dtypes) != {"uint8"}:
        raise InputError(
            f"{path} holds {dataset.dtypes[0]} where 8 bits a band are read: convert it with gdal_translate -ot Byte "
            "-scale"
        )
    if ColorInterp.palette in dataset.colorinterp:
        raise InputError(
            f"{path} holds numbers of a colour table, which cannot be resampled: convert it with gdal_translate "
            "-expand rgb"
        )
    if len(_colours(dataset)) not in (1, 3, 4):
        raise InputError(
            f"{path} has {dataset.count} bands: grey, red-green-blue, or these with near infrared are read, each with "
            "or without alpha"
        )


def _footprint(dataset: Any, path: Path, crs: CRS) -> shapely.Polygon:
    """The ground that the file shows, in `crs`."""
    if dataset.crs is None or dataset.transform.is_identity:
        raise InputError(
            f"{path} does not say where it lies: write its CRS and corners into it with gdal_edit -a_srs -a_ullr"
        )
    a, b, c, d, e, f = tuple(dataset.transform)[:6]
    ground = affine_transform(shapely.box(0, 0, dataset.width, dataset.height), [a, b, d, e, c, f])
    low_x, low_y, high_x, high_y = ground.bounds
    try:
        to_windows = Transformer.from_crs(CRS(dataset.crs.to_wkt()), crs, always_xy=True)
        spacing = max(high_x - low_x, high_y - low_y) / _KNOTS
        footprint = shapely.transform(
            shapely.segmentize(ground, spacing),
            lambda x, y: to_windows.transform(x, y, errcheck=True),
            interleaved=False,
        )
    except (CRSError, ProjError, ShapelyError) as error:
        raise InputError(
            f"{path} lies where EPSG:{crs.to_epsg()} does not reach ({error}): name the CRS used there, or correct "
            "that of the file with gdal_edit -a_srs"
        ) from None
    return footprint


def _close_slits(picture: np.ndarray) -> None:
    """Fill slits of one or two pixels in RGBA `picture` (4, h, w), in place, from the nearest pixels.

    Files that were each cut in another CRS meet within a pixel and not on a line.
    """
    empty = picture[3] == 0
    slits = binary_closing(np.pad(~empty, 2, mode="edge"), _SLIT)[2:-2, 2:-2] & empty
    if slits.any():
        rows, columns = distance_transform_edt(empty, return_distances=False, return_indices=True)
        picture[:, slits] = picture[:, rows[slits], columns[slits]]
