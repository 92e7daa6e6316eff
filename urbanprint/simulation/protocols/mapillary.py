"""The Mapillary Graph API v4: search, entities, thumbnails at signed addresses that expire."""

import hashlib
import hmac
import re
import time
from collections.abc import Iterable
from typing import Any

import numpy as np
import pandas as pd

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.camera import Camera, Photographed
from urbanprint.simulation.protocols.wire import Headers, Query, json_answer

_SIGNING_KEY = b"simulation"
_THUMB_SIZES = {"thumb_256_url": 256, "thumb_1024_url": 1024, "thumb_2048_url": 2048, "thumb_original_url": 4096}
_LARGEST_LIMIT = 2000
_LARGEST_BOX_DEG = 0.01


class GraphApi:
    """The Mapillary Graph API over the images of a town, with its thumbnails.

    A box that holds more than `dense_box` images is refused as too much data; addresses of thumbnails live
    `thumb_lifetime_s` seconds.
    """

    def __init__(
        self, town: Photographed, camera: Camera, *, token: str, thumb_lifetime_s: float, dense_box: int
    ) -> None:
        self._camera = camera
        self._token = token
        self._lifetime_s = thumb_lifetime_s
        self._dense_box = dense_box
        self._images = {image["image_id"]: image for image in town.images.to_dict("records")}
        # A search lists from one edge of the box on: a small limit shows one side of a neighbourhood.
        self._by_edge = sorted(self._images.values(), key=lambda image: image["latitude"])
        self._positions = np.array([[image["longitude"], image["latitude"]] for image in self._by_edge])

    def answer(self, path: str, query: Query, headers: Headers, base: str) -> Answer | None:
        """`/mapillary/images`, `/mapillary/<image_id>` and the thumbnails they name."""
        if match := re.fullmatch(r"/thumbs/(\d+)\.jpg", path):
            return self.thumbnail(match[1], query)
        if not (match := re.fullmatch(r"/mapillary/(\w+)", path)):
            return None
        refusal = self.refusal(query, headers.get("Authorization"))
        if refusal is not None:
            return refusal
        return self.search(query, base) if match[1] == "images" else self.entity(match[1], query, base)

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
        """`GET /images?bbox=west,south,east,north&fields=...&limit=...`, with the filters of `_admitted`."""
        try:
            west, south, east, north = (float(edge) for edge in query["bbox"].split(","))
        except (KeyError, ValueError):
            return _graph_error(400, "Invalid parameter: bbox", 100, kind="OAuthException")
        limit = query.get("limit", str(_LARGEST_LIMIT))
        if not limit.isdecimal() or not 1 <= int(limit) <= _LARGEST_LIMIT:
            message = f"(#100) Param limit must be between 1 and {_LARGEST_LIMIT}"
            return _graph_error(400, message, 100, kind="OAuthException")
        inside = np.flatnonzero(((self._positions >= (west, south)) & (self._positions <= (east, north))).all(axis=1))
        inside = np.array([index for index in inside if _admitted(self._by_edge[index], query)], dtype=int)
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
        return json_answer({"data": found})

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
        return node if isinstance(node, Answer) else json_answer(node)

    def thumbnail(self, image_id: str, query: Query) -> Answer:
        """The JPEG at a signed address; 403 when the signature is wrong or its time is over."""
        size, expiry = query.get("size", ""), query.get("oe", "")
        if not hmac.compare_digest(query.get("oh", ""), _signature(image_id, size, expiry)):
            return Answer(b"Bad URL hash", 403, "text/plain; charset=utf-8")
        if int(expiry, 16) < time.time():
            return Answer(b"URL signature expired", 403, "text/plain; charset=utf-8")
        return Answer(self._camera.picture(image_id, int(size)), 200, "image/jpeg")

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
            "height": self._camera.width * 3 // 4,
            "is_pano": bool(image["is_pano"]),
            "make": "Simulated",
            "model": "Pinhole",
            "quality_score": _quality(image["image_id"]),
            "sequence": image["sequence_id"],
            "width": self._camera.width,
        }
        expiry = f"{int(time.time() + self._lifetime_s):x}"
        for name, size in _THUMB_SIZES.items():
            signed = f"size={size}&oe={expiry}&oh={_signature(image['image_id'], str(size), expiry)}"
            fields[name] = f"{base}/thumbs/{image['image_id']}.jpg?{signed}" if with_thumb else None
        return fields


def _fields(query: Query) -> list[str]:
    return [name for name in query.get("fields", "id").split(",") if name]


def _admitted(image: dict, query: Query) -> bool:
    """Whether `image` passes start_captured_at, end_captured_at (ISO 8601), is_pano and creator_username."""
    return (
        ("start_captured_at" not in query or image["captured_at"] >= pd.Timestamp(query["start_captured_at"]))
        and ("end_captured_at" not in query or image["captured_at"] <= pd.Timestamp(query["end_captured_at"]))
        and ("is_pano" not in query or image["is_pano"] == (query["is_pano"] == "true"))
        and ("creator_username" not in query or image["creator"] == query["creator_username"])
    )


def _quality(image_id: str) -> float:
    """A score in [0, 1) that belongs to the image."""
    return int.from_bytes(hashlib.blake2b(image_id.encode(), digest_size=4).digest()) / 2**32


def _number(name: str) -> str:
    return str(10**14 + int.from_bytes(hashlib.blake2b(name.encode(), digest_size=5).digest()))


def _signature(image_id: str, size: str, expiry: str) -> str:
    return hmac.new(_SIGNING_KEY, f"{image_id}/{size}/{expiry}".encode(), hashlib.sha256).hexdigest()[:32]


def _graph_error(status: int, message: str, code: int, *, kind: str = "MLYApiException", **extra: object) -> Answer:
    error = {"message": message, "type": kind, "code": code, **extra, "fbtrace_id": "A0000000000000000000000"}
    return json_answer({"error": error}, status)
