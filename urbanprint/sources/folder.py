"""A folder of photographs on this machine: positions from a manifest or from EXIF.

A manifest is a CSV beside the photographs, a row an image: a file, a longitude and a latitude, and optionally an
identifier, a sequence, a creator, a time, a heading. Without a manifest, positions are read from EXIF, and photographs
without a position are reported in `unplaced`.
"""

import hashlib
import struct
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import ExifTags, Image, UnidentifiedImageError
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage, Terms, identifier

_COLUMNS = {
    "file": ("file", "filename", "path", "image"),
    "longitude": ("longitude", "lon", "lng", "x"),
    "latitude": ("latitude", "lat", "y"),
    "image_id": ("image_id", "id", "key"),
    "sequence_id": ("sequence_id", "sequence"),
    "creator": ("creator", "photographer", "author"),
    "captured_at": ("captured_at", "time", "datetime", "timestamp"),
    "heading": ("heading", "compass_angle", "bearing", "azimuth"),
}
_NEEDED = ("file", "longitude", "latitude")
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp"})  # what the check of pictures reads
_LATEST_MS = 10**14  # the year 5138
_EVERY_FLAT_VIEW = Filters()

_UNREADABLE = (
    *(KeyError, ValueError, TypeError, ArithmeticError, OSError, SyntaxError, EOFError, struct.error),
    *(UnidentifiedImageError, Image.DecompressionBombError),
)


class Folder:
    """Photographs in `folder`, placed by the CSV `manifest` or, without one, by their EXIF positions.

    Of a photograph without a manifest nothing but its position is known, so that filters on more admit none.
    """

    name = "folder"

    def __init__(
        self, *, folder: Path, manifest: Path | None, terms: Terms, filters: Filters = _EVERY_FLAT_VIEW
    ) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: name the folder that holds the photographs")
        if manifest is not None and not manifest.is_file():
            raise InputError(f"there is no manifest at {manifest}: name a CSV with a row for each photograph")
        self._folder = folder.resolve()
        self._filters = filters
        self._manifest = manifest
        self.terms = terms
        self.unplaced: tuple[str, ...] = ()
        """Files without a usable position, known after the first `find`."""

    @property
    def request_key(self) -> str:
        """The manifest (or the folder), its version when this source first looked, and the filters."""
        return f"{self._manifest or self._folder}@{self._version}&{self._filters.key}"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield the photographs in the bounding box of `area` (EPSG:4326) that the filters admit."""
        west, south, east, north = area.bounds
        longitudes, latitudes = self._positions
        inside = (longitudes >= west) & (longitudes <= east) & (latitudes >= south) & (latitudes <= north)
        for index in np.flatnonzero(inside):
            if self._filters.admits(self._records[index]):
                yield self._records[index]

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the bytes of the photograph's file."""
        try:
            path = (self._folder / str(record.address)).resolve()
            is_file = path.is_file()
        except ValueError as error:  # a name no file can have
            raise RejectedImage(f"its file {str(record.address)[:80]!r} cannot exist: {error}") from None
        if not path.is_relative_to(self._folder):
            raise RejectedImage(f"its file {record.address} lies outside the folder")
        if not is_file:
            raise RejectedImage(f"its file {record.address} does not exist or is no file")
        return path.read_bytes()

    @cached_property
    def _version(self) -> str:
        # Read once, as the records are: a key of today's files never goes with records of yesterday's.
        if self._manifest:
            return str(self._manifest.stat().st_mtime_ns)
        digest = hashlib.sha256()
        for path in self._photographs:
            found = path.stat()
            digest.update(f"{path}\0{found.st_size}\0{found.st_mtime_ns}\0".encode("utf-8", "surrogateescape"))
        return digest.hexdigest()[:16]

    @cached_property
    def _photographs(self) -> list[Path]:
        found = self._folder.rglob("*")
        return sorted(path for path in found if path.suffix.lower() in _SUFFIXES and path.is_file())

    @cached_property
    def _records(self) -> list[ImageRecord]:
        return self._from_manifest(self._manifest) if self._manifest else self._from_exif()

    @cached_property
    def _positions(self) -> tuple[np.ndarray, np.ndarray]:
        return (
            np.array([record.longitude for record in self._records]),
            np.array([record.latitude for record in self._records]),
        )

    def _from_manifest(self, manifest: Path) -> list[ImageRecord]:
        try:
            table = pd.read_csv(manifest, dtype=str)
        except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
            raise InputError(f"{manifest} is not a CSV with a header: {error}") from None
        named = {name: next((c for c in known if c in table), None) for name, known in _COLUMNS.items()}
        for name in _NEEDED:
            if named[name] is None:
                raise InputError(f"{manifest} lacks a column for {name}: one of {', '.join(_COLUMNS[name])}")
        rows = pd.DataFrame({name: table[column] for name, column in named.items() if column is not None})
        for name, limit in (("longitude", 180.0), ("latitude", 90.0)):
            numbers = pd.to_numeric(rows[name], errors="coerce")
            wrong = rows.index[~(numbers.abs() <= limit)]
            if len(wrong):
                raise InputError(
                    f"{manifest} row {wrong[0] + 2}: {name} {rows[name][wrong[0]]!r} is not a number "
                    f"of degrees within {limit:g}"
                )
            rows[name] = numbers
        if "image_id" not in rows:
            rows["image_id"] = rows["file"].map(lambda file: identifier(Path(file).stem))
        # One image found from two areas stands in two rows: the same image, once.
        rows = rows.drop_duplicates(["image_id", "file", "longitude", "latitude"])
        twice = rows["image_id"][rows["image_id"].duplicated()]
        if len(twice):
            raise InputError(f"{manifest}: image {twice.iloc[0]!r} stands at two different positions or files")
        records = []
        for index, row in rows.iterrows():
            try:
                records.append(_manifest_record({str(name): value for name, value in row.items()}))
            except InputError as error:
                raise InputError(f"{manifest} row {int(str(index)) + 2}: {error}") from None
        return records

    def _from_exif(self) -> list[ImageRecord]:
        records, unplaced = [], []
        for path in self._photographs:
            position = exif_position(path)
            file = path.relative_to(self._folder).as_posix()
            if position is None:
                unplaced.append(file)
            else:
                longitude, latitude = position
                name = identifier(file)
                records.append(
                    ImageRecord(image_id=name, sequence_id=name, longitude=longitude, latitude=latitude, address=file)
                )
        self.unplaced = tuple(unplaced)
        if not records:
            raise InputError(
                f"no photograph in {self._folder} holds a position in its EXIF: give a manifest (photographs are JPEG, "
                "PNG and WebP files; others, TIFF too, are not read)"
            )
        return records


def exif_position(path: Path) -> tuple[float, float] | None:
    """Return (longitude, latitude) in degrees from the EXIF of the photograph at `path`, or None where it has none.

    Tags and their meaning: EXIF 2.32, section 4.6.6 (GPS attributes).
    """
    try:
        with Image.open(path) as photograph:
            gps = photograph.getexif().get_ifd(ExifTags.IFD.GPSInfo)
        latitude = _degrees(gps[ExifTags.GPS.GPSLatitude], gps[ExifTags.GPS.GPSLatitudeRef], "NS")
        longitude = _degrees(gps[ExifTags.GPS.GPSLongitude], gps[ExifTags.GPS.GPSLongitudeRef], "EW")
    except _UNREADABLE:
        return None  # corrupt and empty EXIF are common in the wild; both mean: no position
    return (longitude, latitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None


def _degrees(parts: tuple[float, ...], side: str, sides: str) -> float:
    degrees, minutes, seconds = (float(part) for part in parts)
    if side not in sides or not np.isfinite([degrees, minutes, seconds]).all():
        raise ValueError(side)
    return (degrees + minutes / 60 + seconds / 3600) * (1 if side == sides[0] else -1)


def _manifest_record(row: dict[str, Any]) -> ImageRecord:
    def given(name: str) -> str | None:
        value = row.get(name)
        return None if value is None or pd.isna(value) or value == "" else str(value)

    heading = float(pd.to_numeric(pd.Series([given("heading")]), errors="coerce").iloc[0])
    return ImageRecord(
        image_id=str(row["image_id"]),
        sequence_id=given("sequence_id") or str(row["image_id"]),
        longitude=float(row["longitude"]),
        latitude=float(row["latitude"]),
        creator=given("creator"),
        captured_at_ms=_milliseconds(given("captured_at")),
        heading=heading % 360.0 % 360.0 if np.isfinite(heading) else None,  # the first rounds -1e-20 up to 360
        address=str(row["file"]),
    )


def _milliseconds(text: str | None) -> int | None:
    """A time as milliseconds since 1970: already such a number, or any ISO 8601 text (UTC where it has no zone).

    None for what is no time, or one too far away to be that of a photograph.
    """
    if text is None:
        return None
    if text.isdecimal():
        return int(text) if len(text) < 20 and int(text) <= _LATEST_MS else None
    try:
        moment = pd.to_datetime(text, utc=True, errors="coerce")
        return None if pd.isna(moment) else int(moment.value // 1_000_000)
    except OverflowError:  # nanoseconds since 1970 begin in 1677 and end in 2262
        return None
