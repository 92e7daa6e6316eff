"""What the simulated providers answer: open-data files, an ArcGIS feature service, the Mapillary Graph API.

What belongs here is content and its errors, as the real services give them; no sockets. Transport, faults and the
log are in `server.py`.
"""

import hashlib
import hmac
import io
import json
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.scenes import jpeg, render
from urbanprint.simulation.statistics import file7
from urbanprint.simulation.town import Town

_FIXED_DATE = (2025, 1, 1, 0, 0, 0)
_SIGNING_KEY = b"simulation"
_THUMB_SIZES = {"thumb_256_url": 256, "thumb_1024_url": 1024, "thumb_2048_url": 2048, "thumb_original_url": 4096}
_LARGEST_LIMIT = 2000
_LARGEST_BOX_DEG = 0.01

Query = Mapping[str, str]


# --- open data ------------------------------------------------------------------------------------------------------


def open_data_files(town: Town) -> dict[str, tuple[bytes, str]]:
    """Path -> bytes and content type; the same town gives the same bytes, so that an ETag stays true."""
    boundaries = boundary_table(town)
    return {
        "/statistics/file7.csv": (file7(town).to_csv(index=False).encode(), "text/csv; charset=utf-8"),
        "/boundaries/areas.gpkg": (_written(boundaries, "areas.gpkg")["areas.gpkg"], "application/geopackage+sqlite3"),
        "/boundaries/areas.geojson": (boundaries.to_json(drop_id=True).encode(), "application/geo+json"),
        "/boundaries/areas.zip": (_zipped(_written(boundaries, "areas.shp")), "application/zip"),
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


def _written(table: gpd.GeoDataFrame, name: str) -> dict[str, bytes]:
    # GDAL writes the time of day into both formats unless told otherwise.
    dated = {} if name.endswith(".gpkg") else {"DBF_DATE_LAST_UPDATE": "2025-01-01"}
    with tempfile.TemporaryDirectory() as folder:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": "2025-01-01T00:00:00.000Z"})
        try:
            table.drop(columns="FID").to_file(Path(folder) / name, engine="pyogrio", **dated)
        finally:
            pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": None})
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(name, _FIXED_DATE), content, zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


# --- ArcGIS feature service -----------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class FeatureService:
    """Layer 0 of a feature service over the boundaries; errors come in a 200, as ArcGIS sends them."""

    table: gpd.GeoDataFrame
    page: int

    def metadata(self, query: Query) -> Answer:
        """The layer's description, the part of it that clients read."""
        if query.get("f") != "json":
            return _arcgis_error("Invalid or missing input parameters.", ["only f=json is simulated"])
        kinds = {"FID": "esriFieldTypeOID"}
        return _json(
            {
                "currentVersion": 11.4,
                "id": 0,
                "name": "areas",
                "type": "Feature Layer",
                "geometryType": "esriGeometryPolygon",
                "objectIdField": "FID",
                "maxRecordCount": self.page,
                "supportedQueryFormats": "JSON, geoJSON",
                "capabilities": "Query",
                "advancedQueryCapabilities": {"supportsPagination": True, "supportsOrderBy": True},
                "fields": [
                    {"name": name, "type": kinds.get(name, "esriFieldTypeString"), "alias": name}
                    for name in ("FID", "LSOA11CD", "LSOA11NM")
                ],
            }
        )

    def query(self, query: Query) -> Answer:
        """A count, or one page of features as GeoJSON."""
        if query.get("where", "").replace(" ", "") != "1=1":
            return _arcgis_error("Unable to complete operation.", ["Unable to perform query operation."])
        if query.get("returnCountOnly") == "true":
            return _json({"count": len(self.table)})
        if query.get("f") != "geojson" or query.get("outSR", "4326") != "4326":
            return _arcgis_error("Invalid or missing input parameters.", ["only f=geojson in 4326 is simulated"])
        try:
            offset = int(query.get("resultOffset") or 0)
            wanted = min(int(query.get("resultRecordCount") or self.page), self.page)
        except ValueError:
            return _arcgis_error("Invalid query parameters.", ["'resultOffset' and 'resultRecordCount' are numbers"])
        page = self.table.iloc[offset : offset + wanted]
        body = json.loads(page.to_json(drop_id=True))
        features = [{**feature, "id": feature["properties"]["FID"]} for feature in body["features"]]
        answer: dict[str, Any] = {"type": "FeatureCollection", "features": features}
        if offset + wanted < len(self.table):
            answer["properties"] = {"exceededTransferLimit": True}
        return _json(answer)


def _arcgis_error(message: str, details: list[str]) -> Answer:
    return _json({"error": {"code": 400, "message": message, "details": details}})


# --- Mapillary Graph API v4 -----------------------------------------------------------------------------------------


class GraphApi:
    """The Mapillary Graph API over the images of a town, with its thumbnails.

    A box that holds more than `dense_box` images is refused as too much data; addresses of thumbnails live
    `thumb_lifetime_s` seconds. No picture is larger than the camera's own `image_width`.
    """

    def __init__(self, town: Town, *, token: str, thumb_lifetime_s: float, dense_box: int, image_width: int) -> None:
        self._town = town
        self._token = token
        self._lifetime_s = thumb_lifetime_s
        self._dense_box = dense_box
        self._width = image_width
        self._images = {image["image_id"]: image for image in town.images.to_dict("records")}
        # A search lists from one edge of the box on: a small limit shows one side of a neighbourhood.
        self._by_edge = sorted(self._images.values(), key=lambda image: image["latitude"])
        self._positions = np.array([[image["longitude"], image["latitude"]] for image in self._by_edge])
        self.picture = lru_cache(maxsize=1024)(self._picture)

    def refusal(self, query: Query, authorization: str | None) -> Answer | None:
        """The answer to a request without a good token, None when the token is good."""
        in_query = query.get("access_token")
        if authorization is None and in_query is None:
            return _graph_error(500, "Invalid OAuth 2.0 Access Token", 190, error_data={})
        given = in_query if authorization is None else authorization.removeprefix("OAuth ").removeprefix("Bearer ")
        if hmac.compare_digest(str(given).encode(), self._token.encode()):
            return None
        if str(given).startswith("MLY|"):
            status = 401 if in_query is None else 400
            return _graph_error(status, "Error validating application", 190, kind="OAuthException")
        return _graph_error(401, "Failed to decode", 190, kind="OAuthException")

    def search(self, query: Query, base: str) -> Answer:
        """`GET /images?bbox=west,south,east,north&fields=...&limit=...`."""
        try:
            west, south, east, north = (float(edge) for edge in query["bbox"].split(","))
        except (KeyError, ValueError):
            return _graph_error(400, "Invalid parameter: bbox", 100, kind="OAuthException")
        limit = query.get("limit", str(_LARGEST_LIMIT))
        if not limit.isdecimal() or not 1 <= int(limit) <= _LARGEST_LIMIT:
            message = f"(#100) Param limit must be between 1 and {_LARGEST_LIMIT}"
            return _graph_error(400, message, 100, kind="OAuthException")
        inside = np.flatnonzero(((self._positions >= (west, south)) & (self._positions <= (east, north))).all(axis=1))
        if max(east - west, north - south) > _LARGEST_BOX_DEG or len(inside) > self._dense_box:
            message = "Please reduce the amount of data you're asking for, then retry your request"
            return _graph_error(500, message, 1, kind="OAuthException")
        fields = _fields(query)
        found = []
        for index in inside[: int(limit)]:
            image = self._by_edge[index]
            node = self._node(image, fields, base, searching=True)
            if isinstance(node, Answer):
                return node
            found.append(node)
        return _json({"data": found})

    def entity(self, image_id: str, query: Query, base: str) -> Answer:
        """`GET /<image_id>?fields=...`."""
        image = self._images.get(image_id)
        if image is None:
            return _graph_error(
                400,
                f"Unsupported get request. Object with ID '{image_id}' does not exist, cannot be loaded due to missing "
                "permissions, or does not support this operation",
                100,
                error_subcode=33,
            )
        node = self._node(image, _fields(query), base, searching=False)
        return node if isinstance(node, Answer) else _json(node)

    def thumbnail(self, image_id: str, query: Query) -> Answer:
        """The JPEG at a signed address; 403 when the signature is wrong or its time is over."""
        size, expiry = query.get("size", ""), query.get("oe", "")
        if not hmac.compare_digest(query.get("oh", ""), _signature(image_id, size, expiry)):
            return Answer(b"Bad URL hash", 403, "text/plain; charset=utf-8")
        if int(expiry, 16) < time.time():
            return Answer(b"URL signature expired", 403, "text/plain; charset=utf-8")
        return Answer(self.picture(image_id, min(int(size), self._width)), 200, "image/jpeg")

    def _picture(self, image_id: str, width: int) -> bytes:
        return jpeg(render(self._town.view(image_id), width=width, height=width * 3 // 4))

    def _node(self, image: dict, fields: Iterable[str], base: str, *, searching: bool) -> dict[str, Any] | Answer:
        """The asked fields that the image has, and always its id."""
        with_thumb = image["thumb"] == "ok" or (image["thumb"] == "late" and not searching)
        known = self._all_fields(image, base, with_thumb=with_thumb)
        node: dict[str, Any] = {"id": image["image_id"]}
        for name in fields:
            if name not in known:
                return _graph_error(400, f"Tried accessing nonexisting field ({name}) on node type (ChunkObject)", 100)
            if known[name] is not None:
                node[name] = known[name]
        return node

    def _all_fields(self, image: dict, base: str, *, with_thumb: bool) -> dict[str, Any]:
        """Every field of the API that the simulation knows -> its value, None where this image lacks it."""
        has_computed = image["has_computed_geometry"]
        raw = {"type": "Point", "coordinates": [image["raw_longitude"], image["raw_latitude"]]}
        computed = {"type": "Point", "coordinates": [image["longitude"], image["latitude"]]}
        fields: dict[str, Any] = {
            "id": image["image_id"],
            "altitude": 12.0,
            "camera_type": "perspective",
            "captured_at": int(image["captured_at"].timestamp() * 1000),
            "compass_angle": image["heading"],
            "computed_compass_angle": image["heading"] if has_computed else None,
            "computed_geometry": computed if has_computed else None,
            "creator": {"username": image["creator"], "id": _number(image["creator"])},
            "exif_orientation": 1,
            "geometry": raw,
            "height": self._width * 3 // 4,
            "is_pano": bool(image["is_pano"]),
            "make": "Simulated",
            "model": "Pinhole",
            "sequence": image["sequence_id"],
            "width": self._width,
        }
        expiry = f"{int(time.time() + self._lifetime_s):x}"
        for name, size in _THUMB_SIZES.items():
            signed = f"size={size}&oe={expiry}&oh={_signature(image['image_id'], str(size), expiry)}"
            fields[name] = f"{base}/thumbs/{image['image_id']}.jpg?{signed}" if with_thumb else None
        return fields


def _fields(query: Query) -> list[str]:
    return [name for name in query.get("fields", "id").split(",") if name]


def _number(name: str) -> str:
    return str(10**14 + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=5).digest()))


def _signature(image_id: str, size: str, expiry: str) -> str:
    return hmac.new(_SIGNING_KEY, f"{image_id}/{size}/{expiry}".encode(), hashlib.sha256).hexdigest()[:32]


def _graph_error(status: int, message: str, code: int, *, kind: str = "MLYApiException", **extra: object) -> Answer:
    error = {"message": message, "type": kind, "code": code, **extra, "fbtrace_id": "A0000000000000000000000"}
    return _json({"error": error}, status)


def _json(body: Mapping[str, Any], status: int = 200) -> Answer:
    return Answer(json.dumps(body).encode(), status)
