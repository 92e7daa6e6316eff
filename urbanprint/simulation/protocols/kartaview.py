"""KartaView's photo search of API 2.0, without a key, and the pictures its photos name.

No recorded answers: parameters, fields and `apiCode` follow https://doc.kartaview.org,
https://github.com/kartaview/mcp-karta-view and what clients of the service expect. Numbers come as text and times
without a zone, as there. Photos that Mapillary has a thumbnail of late have no time here, and those it never has one
of are archived: they have no address.
"""

import hashlib
import re
from typing import Any

import numpy as np
from pyproj import Geod

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.camera import Camera
from urbanprint.simulation.protocols.wire import Headers, Query, json_answer
from urbanprint.simulation.town import Town

_WIDTHS = {"th": 320, "lth": 1280, "proc": 4096}
_SUCCESS = "The request has been processed without incidents"
_WGS84 = Geod(ellps="WGS84")


def sequence_number(sequence_id: str) -> str:
    """The id of a town's sequence at KartaView, where sequences have numbers."""
    return str(int.from_bytes(hashlib.blake2b(sequence_id.encode(), digest_size=4).digest()))


class KartaViewApi:
    """Photo search over the images of a town.

    A circle that holds more than `dense` photos is too much for the service; a page holds at most `page` photos.
    """

    def __init__(self, town: Town, camera: Camera, *, dense: int, page: int = 6) -> None:
        self._camera = camera
        self._dense, self._page = dense, page
        self._images: list[dict[str, Any]] = [
            {str(name): value for name, value in image.items()} for image in town.images.to_dict("records")
        ]
        self._by_id = {image["image_id"]: image for image in self._images}
        self._positions = town.images[["raw_longitude", "raw_latitude"]].to_numpy()

    def answer(self, path: str, query: Query, _headers: Headers, base: str) -> Answer | None:
        """`/kartaview/2.0/photo/`, `/kartaview/2.0/photo/<id>` and the files they name."""
        if match := re.fullmatch(r"/kartaview/files/(\d+)/(th|lth|proc)\.jpg", path):
            if match[1] not in self._by_id:
                return Answer(b"Not Found", 404, "text/plain; charset=utf-8")
            return Answer(self._camera.picture(match[1], _WIDTHS[match[2]]), 200, "image/jpeg")
        if not (match := re.fullmatch(r"/kartaview/2\.0/photo/(\d*)", path)):
            return None
        if not match[1]:
            return self.search(query, base)
        if match[1] not in self._by_id:
            return _answer(601, "The request has an empty response")
        return _answer(600, _SUCCESS, {"data": self._photo(self._by_id[match[1]], base, joined=False)})

    def search(self, query: Query, base: str) -> Answer:
        """`GET /photo/?lat=...&lng=...&radius=...&page=...&itemsPerPage=...&join=sequence`, nearest first."""
        try:
            latitude, longitude, radius_m = (float(query[name]) for name in ("lat", "lng", "radius"))
            page, size = int(query.get("page", "1")), int(query.get("itemsPerPage", "40"))
        except (KeyError, ValueError):
            return _answer(611, "Restricted access!", status=400)
        longitudes, latitudes = self._positions.T
        here = np.full(len(self._positions), longitude), np.full(len(self._positions), latitude)
        _, _, metres = _WGS84.inv(*here, longitudes, latitudes)
        order = np.argsort(metres, kind="stable")
        found = order[metres[order] <= radius_m]
        if len(found) > self._dense:
            # Both forms are met: the same refusal inside a 200 and with a status of its own.
            return _answer(408, "Query timeout") if len(found) % 2 else _answer(690, "Database error", status=400)
        size = min(size, self._page)
        start = (page - 1) * size
        if start >= len(found):
            return _answer(601, "The request has an empty response")
        joined = query.get("join") == "sequence"
        photos = [self._photo(self._images[index], base, joined=joined) for index in found[start : start + size]]
        return _answer(600, _SUCCESS, {"data": photos, "hasMoreData": start + size < len(found)})

    def _photo(self, image: dict[str, Any], base: str, *, joined: bool) -> dict[str, Any]:
        archived = image["thumb"] == "never"
        files = f"{base}/kartaview/files/{image['image_id']}"
        sequence = sequence_number(image["sequence_id"])
        photo = {
            "id": image["image_id"],
            "sequenceId": sequence,
            "sequenceIndex": "1",
            "lat": f"{image['raw_latitude']:.7f}",
            "lng": f"{image['raw_longitude']:.7f}",
            "matchLat": f"{image['latitude']:.7f}" if image["has_computed_geometry"] else "0",
            "matchLng": f"{image['longitude']:.7f}" if image["has_computed_geometry"] else "0",
            "heading": f"{image['heading']:.2f}",
            "shotDate": None if image["thumb"] == "late" else f"{image['captured_at']:%Y-%m-%d %H:%M:%S}.000",
            "dateAdded": "2025-12-01 12:00:00",
            "projection": "SPHERE" if image["is_pano"] else "PLANE",
            "fieldOfView": "360" if image["is_pano"] else "0",
            "qualityLevel": "2",
            "width": str(self._camera.width),
            "height": str(self._camera.width * 3 // 4),
            "status": "archived" if archived else "active",
            "fileurl": f"{base}/kartaview/files/{image['image_id']}/{{{{sizeprefix}}}}.jpg",
            "fileurlTh": "" if archived else f"{files}/th.jpg",
            "fileurlLTh": "" if archived else f"{files}/lth.jpg",
            "fileurlProc": "" if archived else f"{files}/proc.jpg",
            "imageThUrl": None if archived else f"{files}/th.jpg",
            "imageLthUrl": None if archived else f"{files}/lth.jpg",
            "imageProcUrl": None if archived else f"{files}/proc.jpg",
        }
        if joined:
            photo["sequence"] = {"id": sequence, "username": image["creator"], "sequenceType": "photo"}
        return photo


def _answer(code: int, message: str, result: Any = None, status: int = 200) -> Answer:
    reached = {"apiCode": code, "apiMessage": message, "httpCode": status, "httpMessage": "Success"}
    return json_answer({"status": reached, "result": result}, status)
