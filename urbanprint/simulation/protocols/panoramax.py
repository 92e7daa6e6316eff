"""A Panoramax instance: item search and pictures, without a key.

`/panoramax/api` links each page of a search to the next, as STAC item search has it; `/geovisio/api` answers once, up
to the limit, nearest to the middle of the box first, as the servers of Panoramax do. No recorded answers: fields,
limits and errors follow https://gitlab.com/panoramax/server/api and
https://github.com/radiantearth/stac-api-spec/tree/main/item-search.
"""

import re
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import numpy as np

from urbanprint.simulation.faults import Answer
from urbanprint.simulation.protocols.camera import Camera
from urbanprint.simulation.protocols.wire import Headers, Query, json_answer
from urbanprint.simulation.town import Town

_LARGEST_LIMIT = 10_000
_WIDTHS = {"hd": 8192, "sd": 2048, "thumb": 500}
_TITLES = {"hd": "HD picture", "sd": "SD picture", "thumb": "Thumbnail"}
_STAC = "1.0.0"


def picture_id(image_id: str) -> str:
    """The id of a town's image at Panoramax, where pictures have UUIDs."""
    return str(uuid.UUID(int=int(image_id)))


class PanoramaxApi:
    """Search and pictures over the images of a town.

    Half of the sequences are under Etalab 2.0, the others under CC BY-SA 4.0; pictures that Mapillary never has a
    thumbnail of are still being processed here. `page` is the largest number of items on a page of `/panoramax`.
    """

    def __init__(self, town: Town, camera: Camera, *, page: int = 50) -> None:
        self._camera = camera
        self._page = page
        self._images = town.images.to_dict("records")
        self._ids = {picture_id(image["image_id"]): image["image_id"] for image in self._images}
        self._positions = town.images[["longitude", "latitude"]].to_numpy()
        self._times = town.images["captured_at"].to_numpy("datetime64[ms]").astype(np.int64)

    def answer(self, path: str, query: Query, _headers: Headers, base: str) -> Answer | None:
        """`<root>/api/search` and the pictures its items name."""
        if match := re.fullmatch(r"/(panoramax|geovisio)/api/search", path):
            return self.search(query, f"{base}/{match[1]}/api", pages=match[1] == "panoramax")
        if match := re.fullmatch(r"/(?:panoramax|geovisio)/api/pictures/([\w-]+)/(hd|sd|thumb)\.jpg", path):
            return self.picture(match[1], match[2])
        return None

    def search(self, query: Query, root: str, *, pages: bool) -> Answer:
        """`GET /search?bbox=...&datetime=...&limit=...`."""
        limit, page = query.get("limit", "10"), query.get("page", "1")
        if not limit.isdecimal() or not 1 <= int(limit) <= _LARGEST_LIMIT:
            message = f"Parameter limit must be either empty or a number between 1 and {_LARGEST_LIMIT}"
            return _error(400, message)
        try:
            west, south, east, north = (float(edge) for edge in query["bbox"].split(","))
        except (KeyError, ValueError):
            return _error(400, "Parameter bbox must be in format [minX, minY, maxX, maxY]")
        try:
            first, last = _interval(query.get("datetime", "../.."))
        except ValueError:
            return _error(400, "Parameter datetime isn't valid (should be RFC 3339 formatted)")
        inside = ((self._positions >= (west, south)) & (self._positions <= (east, north))).all(axis=1)
        found = np.flatnonzero(inside & (self._times >= first) & (self._times <= last))
        off_centre = np.hypot(*(self._positions[found] - ((west + east) / 2, (south + north) / 2)).T)
        found = found[np.argsort(off_centre, kind="stable")]
        size = min(int(limit), self._page) if pages else int(limit)
        start = (int(page) - 1) * size if pages and page.isdecimal() else 0
        links = [{"rel": "root", "type": "application/json", "href": f"{root}/"}]
        if pages and start + size < len(found):
            following = urlencode({**query, "page": start // size + 2})
            links.append({"rel": "next", "type": "application/geo+json", "href": f"{root}/search?{following}"})
        items = [self._item(self._images[index], root) for index in found[start : start + size]]
        return json_answer({"type": "FeatureCollection", "features": items, "links": links})

    def picture(self, picture: str, size: str) -> Answer:
        """The JPEG of a picture."""
        if picture not in self._ids:
            return _error(404, "Impossible to find the picture")
        return Answer(self._camera.picture(self._ids[picture], _WIDTHS[size]), 200, "image/jpeg")

    def _item(self, image: dict[str, Any], root: str) -> dict[str, Any]:
        picture, sequence = picture_id(image["image_id"]), str(uuid.uuid5(uuid.NAMESPACE_OID, image["sequence_id"]))
        position = [image["longitude"], image["latitude"]]
        taken = image["captured_at"].isoformat(timespec="milliseconds")
        licence = "etalab-2.0" if int(sequence[0], 16) % 2 else "CC-BY-SA-4.0"
        assets = {
            name: {"title": title, "type": "image/jpeg", "href": f"{root}/pictures/{picture}/{name}.jpg"}
            for name, title in _TITLES.items()
        }
        return {
            "type": "Feature",
            "stac_version": _STAC,
            "stac_extensions": [
                "https://stac-extensions.github.io/view/v1.0.0/schema.json",
                "https://stac-extensions.github.io/perspective-imagery/v1.0.0/schema.json",
            ],
            "id": picture,
            "collection": sequence,
            "geometry": {"type": "Point", "coordinates": position},
            "bbox": position * 2,
            "providers": [{"name": image["creator"], "roles": ["producer"]}],
            "properties": {
                "datetime": taken,
                "datetimetz": taken,
                "license": licence,
                "view:azimuth": round(image["heading"]) % 360,
                "pers:interior_orientation": {
                    "camera_manufacturer": "Simulated",
                    "camera_model": "Pinhole",
                    "field_of_view": 360 if image["is_pano"] else 70,
                },
                "geovisio:status": "waiting-for-process" if image["thumb"] == "never" else "ready",
                "geovisio:producer": image["creator"],
                "geovisio:image": assets["hd"]["href"],
                "geovisio:thumbnail": assets["thumb"]["href"],
                "exif": {},
            },
            "links": [{"rel": "self", "href": f"{root}/collections/{sequence}/items/{picture}"}],
            "assets": assets,
        }


def _interval(text: str) -> tuple[float, float]:
    """First and last millisecond of a `datetime` parameter; ".." and nothing are open ends."""
    ends = text.split("/") if "/" in text else [text, text]
    if len(ends) != 2:
        raise ValueError(text)
    moments = [
        None if end in ("", "..") else datetime.fromisoformat(end).astimezone(UTC).timestamp() * 1000 for end in ends
    ]
    first, last = moments
    return (-np.inf if first is None else first, np.inf if last is None else last)


def _error(status: int, message: str) -> Answer:
    return json_answer({"message": message, "status_code": status}, status)
