"""Mapillary Graph API v4: street images contributed by people, CC BY-SA 4.0.

The access token travels in the `Authorization` header alone. A search has no pages: a box that holds more than the
limit, or that the server calls too dense, is split in four until each answer is complete. Addresses of thumbnails
expire, so a refused one is renewed through the image's own entity. Facts: https://www.mapillary.com/developer/api-documentation
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import requests
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import MissingSecret, SourceError
from urbanprint.imagery.records import ImageRecord, RejectedImage, Terms
from urbanprint.sources.http import HttpClient, HttpStatusError, Retry

PUBLIC_ENDPOINT = "https://graph.mapillary.com"
_LIMIT = 2000  # the largest the server takes
_LARGEST_BOX_DEG = 0.009  # the server refuses boxes of 0.01 degrees; stay clear of rounding
_SMALLEST_BOX_DEG = 1e-5  # about a metre: a box still too dense there is the server's trouble, not the box's
_THUMBNAIL = "thumb_1024_url"
_FIELDS = (
    "id,geometry,computed_geometry,captured_at,compass_angle,computed_compass_angle,"
    f"sequence,creator,is_pano,{_THUMBNAIL}"
)
_TOO_MUCH_DATA = 1
_EXPIRED = frozenset({401, 403, 404, 410})

Box = tuple[float, float, float, float]


class Mapillary:
    """The Mapillary API as a source of images.

    `size` of the thumbnails is 1,024 pixels on the long side. Panoramas are left out: a flat view and a panorama
    of one place are different pictures to a network.
    """

    name = "mapillary"

    def __init__(
        self,
        *,
        token: str | None,
        terms: Terms,
        endpoint: str | None = None,
        per_minute: float | None = None,
        retry: Retry | None = None,
        token_variable: str = "MAPILLARY_TOKEN",
        timeout_s: tuple[float, float] = (10.0, 60.0),
    ) -> None:
        if not token:
            raise MissingSecret(
                f"Mapillary needs an access token: set the environment variable {token_variable} "
                "(free, from mapillary.com/dashboard/developers)"
            )
        self.terms = terms
        self._endpoint = (endpoint or PUBLIC_ENDPOINT).rstrip("/")
        self._client = HttpClient(
            name="Mapillary",
            headers={"Authorization": f"OAuth {token}"},
            secrets=(token,),
            retry=retry,
            timeout_s=timeout_s,
            per_minute=per_minute,
            final=_is_final,
        )

    @property
    def request_key(self) -> str:
        """What decides the answer of a search besides the area."""
        return f"mapillary/images?fields={_FIELDS}&is_pano=false"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield every flat image in the bounding box of `area` (EPSG:4326), each once."""
        seen: set[str] = set()
        for box in _boxes(area.bounds):
            for found in self._search(box):
                record = _record(found)
                if record is not None and not found.get("is_pano") and record.image_id not in seen:
                    seen.add(record.image_id)
                    yield record

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the JPEG of `record`, renewing its address once if it has expired."""
        address = record.address
        if address:
            try:
                return self._pixels(address)
            except HttpStatusError as error:
                if error.status not in _EXPIRED:
                    raise
        try:
            entity = self._json(f"{self._endpoint}/{record.image_id}", {"fields": f"id,{_THUMBNAIL}"})
        except HttpStatusError as error:
            raise RejectedImage(f"the provider no longer has it (status {error.status})") from None
        address = entity.get(_THUMBNAIL)
        if not address:
            raise RejectedImage("the provider has no thumbnail of it")
        try:
            return self._pixels(address)
        except HttpStatusError as error:
            raise RejectedImage(f"its renewed address answers {error.status}") from None

    def _search(self, box: Box) -> list[dict[str, Any]]:
        query = {"bbox": ",".join(f"{edge:.7f}" for edge in box), "fields": _FIELDS, "limit": _LIMIT}
        try:
            found: list[dict[str, Any]] = self._json(f"{self._endpoint}/images", query)["data"]
        except HttpStatusError as error:
            if not (error.status == 500 and f'"code":{_TOO_MUCH_DATA}' in error.body.replace(" ", "")):
                raise
            found = []
        else:
            if len(found) < _LIMIT:
                return found
        if max(box[2] - box[0], box[3] - box[1]) < _SMALLEST_BOX_DEG:
            raise SourceError(f"Mapillary: the box {query['bbox']} cannot be searched: too dense even at a metre")
        return [image for quarter in _quarters(box) for image in self._search(quarter)]

    def _json(self, url: str, params: dict[str, Any]) -> dict[str, Any]:
        response = self._client.get(url, params=params)
        try:
            body = response.json()
        except requests.JSONDecodeError:
            raise SourceError(f"Mapillary: {url} answered something that is not JSON") from None
        if not isinstance(body, dict) or "error" in body:
            raise SourceError(self._client.redact(f"Mapillary: {url} answered an error: {str(body)[:300]}"))
        return body

    def _pixels(self, address: str) -> bytes:
        # Thumbnails lie on another host, which must not be shown the token.
        return self._client.get(address, authenticated=False).content


def _is_final(response: requests.Response) -> bool:
    """Whether a 500 will not pass by itself: a missing token (code 190) or a box too dense (code 1)."""
    try:
        error = response.json().get("error", {})
    except (requests.JSONDecodeError, AttributeError):
        return False
    return isinstance(error, dict) and error.get("code") in (190, _TOO_MUCH_DATA, 100)


def _boxes(bounds: Box) -> Iterator[Box]:
    """Tile `bounds` with boxes the server accepts."""
    west, south, east, north = bounds
    columns = max(1, math.ceil((east - west) / _LARGEST_BOX_DEG))
    rows = max(1, math.ceil((north - south) / _LARGEST_BOX_DEG))
    for row in range(rows):
        for column in range(columns):
            yield (
                west + (east - west) * column / columns,
                south + (north - south) * row / rows,
                west + (east - west) * (column + 1) / columns,
                south + (north - south) * (row + 1) / rows,
            )


def _quarters(box: Box) -> Iterator[Box]:
    west, south, east, north = box
    x, y = (west + east) / 2, (south + north) / 2
    yield from ((west, south, x, y), (x, south, east, y), (west, y, x, north), (x, y, east, north))


def _record(found: dict[str, Any]) -> ImageRecord | None:
    """Return the record of a search result, or None where it has no position at all."""
    geometry = found.get("computed_geometry") or found.get("geometry")
    if not geometry:
        return None
    longitude, latitude = geometry["coordinates"][:2]
    heading = found.get("computed_compass_angle", found.get("compass_angle"))
    creator = found.get("creator")
    return ImageRecord(
        image_id=str(found["id"]),
        # An image outside any sequence is a sequence of its own.
        sequence_id=str(found.get("sequence") or found["id"]),
        longitude=float(longitude),
        latitude=float(latitude),
        creator=creator.get("username") if isinstance(creator, dict) else None,
        captured_at_ms=found.get("captured_at"),
        heading=float(heading) % 360.0 if heading is not None else None,
        address=found.get(_THUMBNAIL),
    )
