"""Statistics and boundaries as files: `/statistics/file7.csv`, `/boundaries/areas.{gpkg,geojson,zip}`.

Conditional and partial requests as RFC 9110 has them, so that clients can resume and ask for changes only.
"""

import hashlib
import io
import re
import tempfile
import threading
import zipfile
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import geopandas as gpd
import numpy as np
import pyogrio

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.wire import Headers, Query
from urbanprint.simulation.statistics import file7
from urbanprint.simulation.town import Town

LAST_MODIFIED = "Wed, 01 Jan 2025 00:00:00 GMT"
_FIXED_DATE = (2025, 1, 1, 0, 0, 0)


class OpenData:
    """The files of a town; written when first asked for."""

    def __init__(self, town: Town) -> None:
        self._town = town
        self._lock = threading.Lock()

    def answer(self, path: str, _query: Query, headers: Headers, _base: str) -> Answer | None:
        """A file, what has changed of it, or a part of it."""
        if not path.startswith(("/statistics/", "/boundaries/")):
            return None
        with self._lock:
            found = self.files.get(path)
        return None if found is None else file_answer(*found, headers)

    @cached_property
    def files(self) -> dict[str, tuple[bytes, str]]:
        """Path -> bytes and content type; the same town gives the same bytes, so that an ETag stays true."""
        boundaries = boundary_table(self._town)
        return {
            "/statistics/file7.csv": (file7(self._town).to_csv(index=False).encode(), "text/csv; charset=utf-8"),
            "/boundaries/areas.gpkg": (
                written(boundaries.drop(columns="FID"), "areas.gpkg")["areas.gpkg"],
                "application/geopackage+sqlite3",
            ),
            "/boundaries/areas.geojson": (boundaries.to_json(drop_id=True).encode(), "application/geo+json"),
            "/boundaries/areas.zip": (_zipped(written(boundaries.drop(columns="FID"), "areas.shp")), "application/zip"),
        }


def boundary_table(town: Town) -> gpd.GeoDataFrame:
    """The areas under the column names that the Office for National Statistics gives its boundaries."""
    return gpd.GeoDataFrame(
        {
            "FID": np.arange(1, len(town.areas) + 1),
            "LSOA11CD": town.areas["area_id"],
            "LSOA11NM": town.areas["name"],
        },
        geometry=town.areas.geometry,
        crs=town.areas.crs,
    )


def written(table: gpd.GeoDataFrame, name: str) -> dict[str, bytes]:
    """The files of a GeoPackage or shapefile called `name`, by name; the same table gives the same bytes."""
    # GDAL writes the time of day into both formats unless told otherwise.
    dated = {} if name.endswith(".gpkg") else {"DBF_DATE_LAST_UPDATE": "2025-01-01"}
    with tempfile.TemporaryDirectory() as folder:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2025-01-01T00:00:00.000Z"})
        try:
            table.to_file(Path(folder) / name, engine="pyogrio", **dated)
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _FIXED_DATE), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def file_answer(content: bytes, content_type: str, headers: Headers) -> Answer:
    """A file under the rules of conditional and partial requests (RFC 9110, 13 and 14)."""
    etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    described = (("ETag", etag), ("Last-Modified", LAST_MODIFIED), ("Accept-Ranges", "bytes"))
    asked = headers.get("If-None-Match")
    if asked is not None:
        tags = {tag.strip().removeprefix("W/") for tag in asked.split(",")}
        if etag in tags or "*" in tags:
            return Answer(b"", 304, content_type, described)
    elif headers.get("If-Modified-Since") == LAST_MODIFIED:
        return Answer(b"", 304, content_type, described)
    wanted = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range", ""))
    if wanted is None or wanted.groups() == ("", "") or headers.get("If-Range", etag) not in (etag, LAST_MODIFIED):
        return Answer(content, 200, content_type, described)
    first, last = wanted.groups()
    start = int(first) if first else max(0, len(content) - int(last))
    stop = min(int(last) + 1, len(content)) if first and last else len(content)
    if start >= stop:
        return Answer(b"", 416, content_type, (*described, ("Content-Range", f"bytes */{len(content)}")))
    part = ("Content-Range", f"bytes {start}-{stop - 1}/{len(content)}")
    return Answer(content[start:stop], 206, content_type, (*described, part))
