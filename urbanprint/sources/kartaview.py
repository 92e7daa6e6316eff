"""KartaView (once OpenStreetCam): street images contributed by people, CC BY-SA 4.0, no key.

The photo search knows circles alone: the box asked about is covered by them, and each is read page by page. The
service is unstable: it refuses what is too much for it at the moment with `apiCode` 408 or 690, inside a 200 or a 400,
and the remedy is to ask for less, so that such a box is split in four. Nothing in an answer is taken for granted.

Times have no zone: they are read as UTC, which may be wrong by hours. A time that is missing stays missing; the day of
the upload (`dateAdded`) says nothing about the picture.

Sources: https://doc.kartaview.org (paging), https://github.com/kartaview/mcp-karta-view (photo search and fields) and
https://github.com/openstreetcam (`apiCode`); there is no recorded answer, so that the shape is that of these and of
what other clients of the service expect. The service states 100 requests an hour without an account: give a limit.
"""

import math
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import numpy as np
import requests
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError, SourceError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage, Terms
from urbanprint.sources.http import HttpClient, HttpStatusError, Retry, is_local
from urbanprint.sources.limits import RateLimit
from urbanprint.sources.places import bare_endpoint

PUBLIC_ENDPOINT = "https://api.openstreetcam.org/2.0"
_PER_PAGE = 100
_LAST_PAGE = 200  # far more than the largest circle needs: whoever pages on is led in a circle
_LARGEST_RADIUS_M = 500.0
_SMALLEST_RADIUS_M = 20.0  # still too much there is the service's trouble, not the circle's
_OK, _NOTHING_THERE, _OVERLOADED = 600, 601, frozenset({408, 690})
_GONE = frozenset({404, 410})
_EXPIRED = _GONE | {401, 403}
_TRUSTED_HOSTS = ("openstreetcam.org", "kartaview.org")
# The large thumbnail first: it is what a network needs, and a tenth of the processed original.
_ADDRESSES = ("imageLthUrl", "fileurlLTh", "imageProcUrl", "fileurlProc")
_WGS84 = Geod(ellps="WGS84")
_ALL = Filters()

TERMS = Terms(
    licence="CC BY-SA 4.0",
    attribution="© {creator}, Grab and KartaView contributors, CC BY-SA 4.0",
    # The page for people is named after sequence and position in it; this one describes the photo, both included.
    page="https://api.openstreetcam.org/2.0/photo/{image_id}",
    may_store=True,
    may_train=True,
    may_show=True,
)

Box = tuple[float, float, float, float]


class KartaView:
    """The KartaView API as a source of images."""

    name = "kartaview"

    def __init__(
        self,
        *,
        terms: Terms = TERMS,
        endpoint: str | None = None,
        filters: Filters = _ALL,
        limit: RateLimit | None = None,
        retry: Retry | None = None,
        timeout_s: tuple[float, float] = (10.0, 60.0),
    ) -> None:
        self.terms = terms
        self._endpoint = bare_endpoint(endpoint or PUBLIC_ENDPOINT, provider="KartaView")
        self._filters = filters
        self._client = HttpClient(
            name="KartaView",
            retry=retry,
            timeout_s=timeout_s,
            limit=limit,
            trusted_hosts=_TRUSTED_HOSTS,
            local=is_local(self._endpoint),
        )

    @property
    def request_key(self) -> str:
        """What decides the answer of a search besides the area."""
        return f"{self._endpoint}/photo?{self._filters.key}"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield every image in the bounding box of `area` (EPSG:4326) that the filters admit, each once."""
        west, south, east, north = area.bounds
        seen: set[str] = set()
        for photo in self._search((west, south, east, north)):
            try:
                record = record_of(photo)
            except InputError as error:
                raise SourceError(f"KartaView describes an image that is refused: {error}") from None
            if record is None or record.image_id in seen:
                continue
            seen.add(record.image_id)
            inside = west <= record.longitude <= east and south <= record.latitude <= north
            if inside and self._filters.admits(record):
                yield record

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the JPEG of `record`, asking for its address anew if it has none or an expired one.

        Raises `RejectedImage` when the provider has no picture of it any more, and `SourceError` when a host refuses
        it.
        """
        if record.address:
            try:
                return self._client.get(record.address, authenticated=False).content
            except HttpStatusError as error:
                if error.status not in _EXPIRED:
                    raise
        try:
            photo = self._answer(f"photo/{record.image_id}", {})
        except HttpStatusError as error:
            if error.status not in _GONE:
                raise
            raise RejectedImage(f"the provider no longer has it (status {error.status})") from None
        address = _address(photo["data"]) if isinstance(photo.get("data"), dict) else None
        if address is None:
            raise RejectedImage("the provider has no picture of it")
        try:
            return self._client.get(address, authenticated=False).content
        except HttpStatusError as error:
            if error.status not in _EXPIRED:
                raise
            if error.status in _GONE:
                raise RejectedImage(f"its renewed address answers {error.status}") from None
            # No host knows a key: a fresh address that is refused tells of a host in trouble, not of KartaView.
            raise SourceError(f"KartaView: the fresh address of image {record.image_id} is refused") from None

    def _search(self, box: Box) -> Iterator[dict[str, Any]]:
        """Every photo in `box`, some of them more than once, and some around it."""
        west, south, east, north = box
        longitude, latitude = (west + east) / 2, (south + north) / 2
        # The corners nearest to the equator are the farthest from the middle.
        _, _, corners_m = _WGS84.inv([longitude] * 2, [latitude] * 2, [east] * 2, [south, north])
        radius_m = max(corners_m)
        if radius_m > _LARGEST_RADIUS_M:
            yield from self._quarters(box)
            return
        circle = {"lat": f"{latitude:.7f}", "lng": f"{longitude:.7f}", "radius": math.ceil(radius_m) + 1}
        found: dict[str, dict[str, Any]] = {}
        for page in range(1, _LAST_PAGE + 1):
            query = {**circle, "join": "sequence", "itemsPerPage": _PER_PAGE, "page": page}
            try:
                answer = self._answer("photo/", query)
            except _Overloaded as refusal:
                if radius_m / 2 < _SMALLEST_RADIUS_M:
                    raise SourceError(
                        f"KartaView cannot even answer within {radius_m:.0f} m of {circle['lat']}, {circle['lng']}: "
                        f"{refusal}; run again later"
                    ) from None
                yield from self._quarters(box)
                return
            photos = answer.get("data") or []
            if not isinstance(photos, list) or not all(isinstance(photo, dict) for photo in photos):
                raise SourceError(f"KartaView answered no list of photos: {str(answer)[:200]}")
            new = {str(photo.get("id")): photo for photo in photos if str(photo.get("id")) not in found}
            found |= new
            if not photos or not answer.get("hasMoreData", True):
                yield from found.values()
                return
            if not new:
                break
        raise SourceError(f"KartaView repeats its pages at {circle['lat']}, {circle['lng']}: run again later")

    def _quarters(self, box: Box) -> Iterator[dict[str, Any]]:
        west, south, east, north = box
        x, y = (west + east) / 2, (south + north) / 2
        for quarter in ((west, south, x, y), (x, south, east, y), (west, y, x, north), (x, y, east, north)):
            yield from self._search(quarter)

    def _answer(self, path: str, query: dict[str, Any]) -> dict[str, Any]:
        """The `result` of an answer. Raises `_Overloaded` where less has to be asked for, else `SourceError`."""
        try:
            answer = self._client.get_json(f"{self._endpoint}/{path}", params=query, unsound=unsound_answer)
        except HttpStatusError as error:
            stated = re.search(r'"apiCode"\s*:\s*"?(\d+)', error.body)
            if error.status == 400 and stated and int(stated[1]) in _OVERLOADED:
                raise _Overloaded(f"apiCode {stated[1]}") from None
            raise
        code = _code(answer)
        if code in _OVERLOADED:
            raise _Overloaded(f"apiCode {code}")
        if code == _NOTHING_THERE:
            return {}
        if code != _OK:
            raise SourceError(f"KartaView refused {path}: {str(answer['status'])[:300]}")
        result = answer.get("result")
        return result if isinstance(result, dict) else {}


class _Overloaded(Exception):
    """The service asks for less at once."""


def unsound_answer(response: requests.Response) -> str | None:
    """Why an answer is worth asking for again, None where it says what became of the request."""
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        return "it is not JSON"
    status = answer.get("status") if isinstance(answer, dict) else None
    if not isinstance(status, dict) or _code(answer) is None:
        return f"it states no apiCode: {str(answer)[:200]}"
    result = answer.get("result")
    if _code(answer) == _OK and not (isinstance(result, dict) and isinstance(result.get("data"), list | dict)):
        return f"it states success and holds nothing: {str(answer)[:200]}"
    return None


def record_of(photo: dict[str, Any]) -> ImageRecord | None:
    """Return the record of a photo, None where it has no id or no position.

    Numbers may come as text. Raises `InputError` for an id that could name another place.
    """
    joined = photo.get("sequence")
    sequence = joined if isinstance(joined, dict) else {}
    longitude, latitude = _number(photo.get("lng")), _number(photo.get("lat"))
    if not photo.get("id") or longitude is None or latitude is None:
        return None
    if not (-180 <= longitude <= 180 and -90 <= latitude <= 90):
        return None
    image_id = str(photo["id"])
    heading = _number(photo.get("heading"))
    creator = photo.get("username") or sequence.get("username")
    return ImageRecord(
        image_id=image_id,
        # A photo outside any sequence is a sequence of its own.
        sequence_id=str(photo.get("sequenceId") or sequence.get("id") or image_id),
        longitude=longitude,
        latitude=latitude,
        creator=str(creator) if creator else None,
        captured_at_ms=_milliseconds(photo.get("shotDate")),
        heading=heading % 360.0 % 360.0 if heading is not None else None,  # the first of them rounds -1e-20 to 360
        is_panorama=str(photo.get("projection") or "PLANE").upper() != "PLANE"
        or _number(photo.get("fieldOfView")) == 360,
        address=_address(photo),
    )


def _address(photo: dict[str, Any]) -> str | None:
    """Where the pixels are; archived photos have empty addresses, and `fileurl` has a gap for the size."""
    for name in _ADDRESSES:
        address = photo.get(name)
        if isinstance(address, str) and address.startswith(("https://", "http://")) and "{{" not in address:
            return address
    return None


def _code(answer: Any) -> int | None:
    code = _number(answer["status"].get("apiCode"))
    return int(code) if code is not None else None


def _number(value: Any) -> float | None:
    """A finite number, given as such or as text; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _milliseconds(text: Any) -> int | None:
    """Milliseconds since 1970 of "2016-03-23 09:33:51.000" read as UTC; None for no time, such as "0000-00-00"."""
    try:
        moment = datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    if moment is None:
        return None
    return round((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp() * 1000)
