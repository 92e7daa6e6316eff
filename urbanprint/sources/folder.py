"""A folder of photographs on this machine: positions from a manifest or from EXIF.

A manifest is a CSV beside the photographs, a row an image: a file, a longitude and a latitude, and optionally an
identifier, a sequence, a creator, a time, a heading. Without a manifest, positions are read from EXIF, and photographs
without a position are reported in `unplaced`.
"""

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import ExifTags, Image, UnidentifiedImageError
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError
from urbanprint.imagery.records import ImageRecord, RejectedImage, Terms, identifier

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
_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".tif", ".tiff"})


class Folder:
    """Photographs in `folder`, placed by the CSV `manifest` or, without one, by their EXIF positions."""

    name = "folder"

    def __init__(self, *, folder: Path, manifest: Path | None, terms: Terms) -> None:
        if not folder.is_dir():
            raise InputError(f"{folder} is not a folder: name the folder that holds the photographs")
        self._folder = folder.resolve()
        self._manifest = manifest
        self.terms = terms
        self.unplaced: tuple[str, ...] = ()
        """Files without a usable position, known after the first `find`."""

    @property
    def request_key(self) -> str:
        """The manifest and its version: a changed file is a changed request."""
        listed = self._manifest or self._folder
        return f"{listed}@{listed.stat().st_mtime_ns}"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield the photographs in the bounding box of `area` (EPSG:4326)."""
        west, south, east, north = area.bounds
        longitudes, latitudes = self._positions
        inside = (longitudes >= west) & (longitudes <= east) & (latitudes >= south) & (latitudes <= north)
        for index in np.flatnonzero(inside):
            yield self._records[index]

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the bytes of the photograph's file."""
        path = (self._folder / str(record.address)).resolve()
        if not path.is_relative_to(self._folder):
            raise RejectedImage(f"its file {record.address} lies outside the folder")
        try:
            return path.read_bytes()
        except FileNotFoundError:
            raise RejectedImage(f"its file {record.address} does not exist") from None

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
        except FileNotFoundError:
            raise InputError(f"there is no manifest at {manifest}: name a CSV with a row for each photograph") from None
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
        for path in sorted(self._folder.rglob("*")):
            if path.suffix.lower() in _SUFFIXES:
                position = exif_position(path)
                file = path.relative_to(self._folder).as_posix()
                if position is None:
                    unplaced.append(file)
                else:
                    longitude, latitude = position
                    records.append(
                        ImageRecord(
                            image_id=identifier(file),
                            sequence_id=identifier(file),
                            longitude=longitude,
                            latitude=latitude,
                            address=file,
                        )
                    )
        self.unplaced = tuple(unplaced)
        if not records:
            raise InputError(f"no photograph in {self._folder} holds a position in its EXIF: give a manifest")
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
    except (KeyError, ValueError, TypeError, ZeroDivisionError, UnidentifiedImageError, OSError, SyntaxError):
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
        heading=heading % 360.0 if np.isfinite(heading) else None,
        address=str(row["file"]),
    )


def _milliseconds(text: str | None) -> int | None:
    """A time as milliseconds since 1970: already such a number, or any ISO 8601 text (UTC where it has no zone)."""
    if text is None:
        return None
    if text.isdigit():
        return int(text)
    moment = pd.to_datetime(text, utc=True, errors="coerce")
    return None if pd.isna(moment) else int(moment.value // 1_000_000)
