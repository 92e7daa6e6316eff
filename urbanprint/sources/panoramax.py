"""Panoramax: street images shared by French public bodies and by people, each picture under its own open licence.

A Panoramax instance is a STAC API without a key; the default is the catalogue of all instances. Answers stop at the
limit asked for and mostly hold no link to a next page, so that a full answer without one is asked again in four
quarters; where an instance does link to a next page, it is followed, on the same host only. Pictures lie where the
item says, often on the host of the instance that owns them.

Sources: https://docs.panoramax.fr (API, differences from STAC), https://gitlab.com/panoramax/server/api (item fields),
https://github.com/radiantearth/stac-api-spec/tree/main/item-search (search and paging).
"""

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal, get_args
from urllib.parse import urljoin, urlsplit

import numpy as np
import requests
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError, SourceError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage, Terms, identifier
from urbanprint.sources.http import HttpClient, HttpStatusError, Retry, is_local
from urbanprint.sources.limits import RateLimit
from urbanprint.sources.places import bare_endpoint

PUBLIC_ENDPOINT = "https://api.panoramax.xyz/api"
# An item is about 7 kB, most of it EXIF; the server takes up to 10,000.
_LIMIT = 1000
_SMALLEST_BOX_DEG = 1e-5  # about a metre
_GONE = frozenset({404, 410})
_FORBIDDEN = frozenset({401, 403})
_BROKEN = (AttributeError, KeyError, TypeError, ValueError, OverflowError)  # what reading no STAC raises
_EVERY_FLAT_VIEW = Filters()
# Where the instances redirect their pictures to.
_TRUSTED_HOSTS = ("panoramax.fr", "panoramax.xyz", "panoramax.ign.fr", "panoramax.openstreetmap.fr", "cloud.ovh.net")

LICENCES = {
    "etalab-2.0": "Etalab 2.0",
    "cc-by-sa-4.0": "CC BY-SA 4.0",
    "cc-by-4.0": "CC BY 4.0",
    "cc0-1.0": "CC0 1.0",
}
"""SPDX identifier in small letters -> licence. Each allows to store, train on and show a picture with a credit."""

TERMS = Terms(
    # Each instance has its own licence, so that there is none to fall back to: every picture has to state its own.
    licence="",
    attribution="© {creator}, Panoramax contributors",
    page="https://api.panoramax.xyz/#focus=pic&pic={image_id}",
    may_store=True,
    may_train=True,
    may_show=True,
)

Size = Literal["hd", "sd", "thumb"]
Box = tuple[float, float, float, float]


class Panoramax:
    """A Panoramax instance, or the catalogue of all, as a source of images.

    `size`: "hd" is the original, "sd" 2,048 and "thumb" 500 pixels wide. A picture under a licence that is not in
    `LICENCES` is left out, because the terms do not speak for it. One that states no licence gets that of `terms`,
    and is left out where they name none (as `TERMS` does).
    """

    name = "panoramax"

    def __init__(
        self,
        *,
        terms: Terms = TERMS,
        endpoint: str | None = None,
        size: Size = "sd",
        filters: Filters = _EVERY_FLAT_VIEW,
        limit: RateLimit | None = None,
        retry: Retry | None = None,
        timeout_s: tuple[float, float] = (10.0, 60.0),
    ) -> None:
        if size not in get_args(Size):
            raise InputError(f"Panoramax has pictures in the sizes {', '.join(get_args(Size))}, not {size!r}")
        self.terms = terms
        self._endpoint = bare_endpoint(endpoint or PUBLIC_ENDPOINT, provider="Panoramax")
        self._size = size
        self._filters = filters
        self._client = HttpClient(
            name="Panoramax",
            retry=retry,
            timeout_s=timeout_s,
            limit=limit,
            trusted_hosts=_TRUSTED_HOSTS,
            local=is_local(self._endpoint),
        )

    @property
    def request_key(self) -> str:
        """What decides the answer of a search besides the area."""
        return f"{self._endpoint}/search?size={self._size}&licence={self.terms.licence}&{self._filters.key}"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield every image in the bounding box of `area` (EPSG:4326) that the filters admit, each once.

        Raises `SourceError` when the provider could not be asked or answered something that is not its protocol.
        """
        seen: set[str] = set()
        for item in self._search(area.bounds):
            record = self._understood(item)
            if record is not None and record.image_id not in seen and self._filters.admits(record):
                seen.add(record.image_id)
                yield record

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the JPEG of `record`.

        Raises `RejectedImage` when it is gone for good, and `SourceError` when its host refuses it.
        """
        if not record.address:
            raise RejectedImage(f"the provider has no picture of size {self._size}")
        try:
            return self._client.get(record.address, authenticated=False).content
        except HttpStatusError as error:
            if error.status in _GONE:
                raise RejectedImage(f"the provider no longer has it (status {error.status})") from None
            if error.status in _FORBIDDEN:
                # Pictures lie with many hosts, and none knows a key: this tells of one of them, not of Panoramax.
                raise SourceError(
                    f"Panoramax: the address of image {record.image_id} is refused (status {error.status})"
                ) from None
            raise

    def _search(self, box: Box) -> Iterator[dict[str, Any]]:
        """Every item in `box`; those on an inner edge of a box that had to be split may come twice."""
        query: dict[str, Any] = {"bbox": ",".join(f"{edge:.7f}" for edge in box), "limit": _LIMIT}
        if interval := _interval(self._filters):
            query["datetime"] = interval
        url: str | None = f"{self._endpoint}/search"
        params: dict[str, Any] | None = query
        asked: set[str] = set()
        while url is not None:
            asked.add(url)
            answer = self._client.get_json(url, params=params, unsound=_no_items)
            items, following = answer["features"], _next_link(answer, url)
            if following is None and len(asked) == 1 and len(items) >= _LIMIT:
                yield from self._quarters(box)
                return
            yield from items
            if following in asked:
                raise SourceError(f"Panoramax: {self._endpoint} links a page of results to one already read")
            url, params = following, None

    def _quarters(self, box: Box) -> Iterator[dict[str, Any]]:
        west, south, east, north = box
        if max(east - west, north - south) < _SMALLEST_BOX_DEG:
            raise SourceError(f"Panoramax: {_LIMIT} images or more within a metre of {west:.6f}, {south:.6f}")
        x, y = (west + east) / 2, (south + north) / 2
        for quarter in ((west, south, x, y), (x, south, east, y), (west, y, x, north), (x, y, east, north)):
            yield from self._search(quarter)

    def _understood(self, item: Any) -> ImageRecord | None:
        """The record of an item, or one sentence where it is none."""
        try:
            return self._record(item)
        except (InputError, *_BROKEN) as error:
            name = str(item.get("id"))[:80] if isinstance(item, dict) else str(item)[:80]
            raise SourceError(
                f"Panoramax: {self._endpoint} describes an image, {name!r}, in a form that is not its protocol: {error}"
            ) from None

    def _record(self, item: dict[str, Any]) -> ImageRecord | None:
        """Return the record of a STAC item, None where it is not ready, or has no position, picture or licence."""
        properties = item.get("properties") or {}
        position = (item.get("geometry") or {}).get("coordinates")
        address = ((item.get("assets") or {}).get(self._size) or {}).get("href")
        stated = properties.get("license")
        licence = LICENCES.get(str(stated).lower()) if stated else None
        if not position or not address or properties.get("geovisio:status", "ready") != "ready":
            return None
        if licence is None and (stated or not self.terms.licence):
            return None
        azimuth: Any = properties.get("view:azimuth")
        known = isinstance(azimuth, int | float) and math.isfinite(azimuth)
        image_id = identifier(str(item["id"]))
        return ImageRecord(
            image_id=image_id,
            # An image outside any collection is a sequence of its own.
            sequence_id=identifier(str(item["collection"])) if item.get("collection") else image_id,
            longitude=float(position[0]),
            latitude=float(position[1]),
            creator=_creator(item),
            captured_at_ms=_milliseconds(properties.get("datetime")),
            heading=float(azimuth) % 360.0 % 360.0 if known else None,  # the first of them rounds -1e-20 up to 360
            # Written for equirectangular pictures as 360 and otherwise from the focal length, where that is known.
            is_panorama=(properties.get("pers:interior_orientation") or {}).get("field_of_view") == 360,
            licence=licence,
            address=str(address),
        )


def _no_items(response: requests.Response) -> str | None:
    """Why a JSON answer is no page of items, None where it is one."""
    answer = response.json()
    if not isinstance(answer, dict) or not isinstance(answer.get("features"), list):
        return f"no items: {str(answer)[:200]}"
    return None


def _next_link(answer: dict[str, Any], url: str) -> str | None:
    """The address of the next page, None after the last. Raises `SourceError` for one on another host."""
    try:
        link = next((link for link in answer.get("links") or () if link.get("rel") == "next"), None)
        if link is None:
            return None
        following = urljoin(url, str(link.get("href")))
        here, there = urlsplit(url), urlsplit(following)
    except _BROKEN as error:
        raise SourceError(f"Panoramax: the links of a page of results are not its protocol: {error}") from None
    if (there.scheme, there.netloc) != (here.scheme, here.netloc):
        raise SourceError(
            f"Panoramax: {here.netloc} links the next page of results to another host, {there.netloc}, which is not "
            "followed: use that host as the endpoint if you trust it"
        )
    return following


def _interval(filters: Filters) -> str | None:
    """The capture dates as RFC 3339 interval; its ends are included, so that `Filters` still has the last word."""
    ends = (filters.captured_from_ms, filters.captured_to_ms)
    if ends == (None, None):
        return None
    return "/".join(".." if end is None else _rfc3339(end) for end in ends)


def _rfc3339(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _milliseconds(text: str | None) -> int | None:
    """Milliseconds since 1970 of an RFC 3339 time, None where it is missing, has no zone or is no time."""
    try:
        moment = datetime.fromisoformat(text or "")
    except ValueError:
        return None
    return round(moment.timestamp() * 1000) if moment.tzinfo else None


def _creator(item: dict[str, Any]) -> str | None:
    """The first producer among the providers, which is the account; else the producer the properties name."""
    for provider in item.get("providers") or ():
        if "producer" in (provider.get("roles") or ()) and provider.get("name"):
            return str(provider["name"])
    producer = (item.get("properties") or {}).get("geovisio:producer")
    return str(producer) if producer else None
