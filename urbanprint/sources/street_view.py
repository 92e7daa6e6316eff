"""Google Street View Static API: views of panoramas, each paid for; asking whether there is one is free.

At each point the metadata endpoint names the nearest panorama, and `fetch` asks for one view of it. The API key can
travel in the query alone; it and the signing secret are the client's secrets, so that no message shows them.

`TERMS` are the cautious reading of the Google Maps Platform Terms of Service (3.2.3: no scraping, no caching, no
content made from Google's): pixels are neither kept, shown nor learned from; panorama ids are exempt and may be kept
for good. A user whose agreement with Google allows more states that in the catalogue.

Sources: https://developers.google.com/maps/documentation/streetview (request-streetview, metadata, digital-signature,
policies, usage-and-billing), https://cloud.google.com/maps-platform/terms and .../terms/maps-service-terms.
"""

import base64
import binascii
import hashlib
import hmac
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import numpy as np
import requests
import shapely
from pyproj import Geod
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError, MissingSecret, SourceError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage, Terms
from urbanprint.sources.http import HttpClient, HttpStatusError, Retry
from urbanprint.sources.limits import RateLimit
from urbanprint.sources.places import bare_endpoint

PUBLIC_ENDPOINT = "https://maps.googleapis.com/maps/api/streetview"
HEADINGS = (0.0, 90.0, 180.0, 270.0)
PRICE = 0.007
"""US dollars an image, the public list price; asking whether there is one is free."""
_LARGEST_SIZE = 640
_LARGEST_FOV = 120.0
_NOTHING_THERE = frozenset({"ZERO_RESULTS", "NOT_FOUND"})
_PASSING = frozenset({"OVER_QUERY_LIMIT", "UNKNOWN_ERROR"})
_FINAL = frozenset({"REQUEST_DENIED", "INVALID_REQUEST"})
_WGS84 = Geod(ellps="WGS84")
_ALL = Filters()


@dataclass(frozen=True, kw_only=True)
class _PanoramaTerms(Terms):
    """Terms of a provider whose pages show panoramas: the views of one share its page."""

    def page_of(self, image_id: str) -> str | None:
        """Return the address of the panorama's page."""
        return super().page_of(image_id.rpartition(":")[0])


TERMS: Terms = _PanoramaTerms(
    licence="Google Maps Platform Terms of Service",
    attribution="© Google",
    page="https://www.google.com/maps/@?api=1&map_action=pano&pano={image_id}",
    may_store=False,
    may_train=False,
    may_show=False,
)


class Budget(Protocol):
    """What paid requests are counted against."""

    def spend(self) -> None:
        """Count one paid request, before it leaves. Raises `BudgetSpent` when none is left."""
        ...


@dataclass(frozen=True, kw_only=True)
class Panorama:
    """A panorama as the metadata endpoint describes it. Longitude and latitude in degrees, EPSG:4326."""

    pano_id: str
    longitude: float
    latitude: float
    creator: str | None
    captured_at_ms: int | None
    """Begin of the month it was taken in, milliseconds since 1970, UTC: the provider says no more."""

    def view(self, heading: float) -> ImageRecord:
        """Return the record of the view towards `heading`, in degrees clockwise from north.

        All views of a panorama are one sequence: they show one place, and must never be on both sides of a split.
        """
        return ImageRecord(
            image_id=f"{self.pano_id}:{heading:g}",
            sequence_id=self.pano_id,
            longitude=self.longitude,
            latitude=self.latitude,
            creator=self.creator,
            captured_at_ms=self.captured_at_ms,
            heading=heading,
        )


class StreetView:
    """The Street View Static API as a source of images; every request for one is paid for, also one that fails.

    `find` looks within `radius_m` metres of each point. `headings`, `fov` (at most 120) and `pitch` are degrees,
    `size` is the side of the square picture in pixels (at most 640). With `photospheres`, panoramas of people other
    than Google are admitted. `price` is that of one image in US dollars; `budget` is asked before each paid request.
    `key_variable` and `secret_variable` name the environment variables in messages.
    """

    name = "street-view"
    looks_at_points = True  # other points are another search

    def __init__(
        self,
        *,
        key: str | None,
        signing_secret: str | None = None,
        terms: Terms = TERMS,
        endpoint: str | None = None,
        radius_m: int = 50,
        spacing_m: float = 50.0,
        headings: Sequence[float] = HEADINGS,
        size: int = _LARGEST_SIZE,
        fov: float = 90.0,
        pitch: float = 0.0,
        photospheres: bool = False,
        filters: Filters = _ALL,
        price: float = PRICE,
        budget: Budget | None = None,
        limit: RateLimit | None = None,
        retry: Retry | None = None,
        timeout_s: tuple[float, float] = (10.0, 60.0),
        key_variable: str = "GOOGLE_MAPS_KEY",
        secret_variable: str = "GOOGLE_MAPS_SIGNING_SECRET",
    ) -> None:
        if not key:
            raise MissingSecret(
                f"Street View needs an API key: set the environment variable {key_variable} "
                "(from console.cloud.google.com, with the Street View Static API enabled)"
            )
        if filters.panoramas:
            raise InputError("Street View serves flat views of its panoramas: leave the filter `panoramas` off")
        names = {f"{heading:g}" for heading in headings}
        if not names or len(names) < len(headings) or not all(0 <= heading < 360 for heading in headings):
            raise InputError(f"Street View cannot look to {list(headings)}: give different degrees from 0 to below 360")
        if not (0 < size <= _LARGEST_SIZE and 0 < fov <= _LARGEST_FOV and -90 <= pitch <= 90):
            raise InputError(
                f"a view of {size} pixels, {fov:g} degrees wide, pitched {pitch:g}: expected at most {_LARGEST_SIZE} "
                f"pixels, at most {_LARGEST_FOV:g} degrees, and a pitch from -90 to 90"
            )
        if not (radius_m > 0 and spacing_m > 0):
            raise InputError(f"a radius of {radius_m} m and a spacing of {spacing_m} m: expected more than 0 m")
        self._signing_key = _decoded(signing_secret, secret_variable) if signing_secret else None
        self.terms = terms
        self.price = price
        self._key, self._key_variable = key, key_variable
        self._endpoint = bare_endpoint(endpoint or PUBLIC_ENDPOINT, provider="Street View")
        self._radius_m, self._spacing_m = radius_m, spacing_m
        self._headings = tuple(float(heading) for heading in headings)
        self._view = {"size": f"{size}x{size}", "fov": f"{fov:g}", "pitch": f"{pitch:g}"}
        self._photospheres, self._filters, self._budget = photospheres, filters, budget
        logging.getLogger("urllib3.connectionpool").addFilter(_without_signature)
        self._client = HttpClient(
            name="Street View", secrets=(key, signing_secret or ""), retry=retry, timeout_s=timeout_s, limit=limit
        )

    @property
    def request_key(self) -> str:
        """What decides the answer of a search besides the area and the points."""
        found = {"radius": self._radius_m, "spacing": self._spacing_m, "photospheres": self._photospheres}
        headings = ",".join(f"{heading:g}" for heading in self._headings)
        return f"{self._endpoint}?{urlencode({**found, **self._view})}&headings={headings}&{self._filters.key}"

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield the views of the panoramas nearest to `points`, (n, 2) longitude and latitude in degrees; each once.

        Without points a lattice in `area` (EPSG:4326) is asked. One free request a point. Raises `SourceError` when
        the key is refused.
        """
        seen: set[str] = set()
        for longitude, latitude in lattice(area, spacing_m=self._spacing_m) if points is None else points:
            panorama = self._nearest(float(longitude), float(latitude))
            if panorama is None or panorama.pano_id in seen:
                continue
            # The radius is a hint to the server; to a study it is how far a view may lie from its sample point.
            _, _, snapped_m = _WGS84.inv(longitude, latitude, panorama.longitude, panorama.latitude)
            if snapped_m > self._radius_m or not (self._photospheres or panorama.creator == "Google"):
                continue
            seen.add(panorama.pano_id)
            try:
                views = [panorama.view(heading) for heading in self._headings]
            except InputError as error:
                raise SourceError(f"Street View describes a panorama that is refused: {error}") from None
            yield from filter(self._filters.admits, views)

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the JPEG of `record`, a view that `find` has found. A paid request, and so is each repetition.

        Raises `BudgetSpent` before a request that the budget does not hold any more, `RejectedImage` when the
        panorama is gone (ids change when imagery is renewed) and `HttpStatusError` when the key is refused.
        """
        pano_id, _, heading = record.image_id.rpartition(":")
        # Without return_error_code a missing panorama is a grey picture with status 200, and is paid for.
        query = {**self._view, "pano": pano_id, "heading": heading, "return_error_code": "true"}
        try:
            response = self._client.get(
                self._endpoint,
                params=self._authorised(self._endpoint, query),
                before=self._budget.spend if self._budget else None,
            )
        except HttpStatusError as error:
            if error.status == 404:
                raise RejectedImage("the provider no longer has the panorama") from None
            if error.status == 403:
                raise HttpStatusError(self._refusal(error.body), status=403, body=error.body) from None
            raise
        return response.content

    def _nearest(self, longitude: float, latitude: float) -> Panorama | None:
        """The panorama nearest to a point, None where there is none."""
        url = f"{self._endpoint}/metadata"
        query = {"location": f"{latitude:.7f},{longitude:.7f}", "radius": str(self._radius_m), "source": "outdoor"}
        answer = self._client.get_json(url, params=self._authorised(url, query), unsound=unsound_metadata)
        status = answer["status"]
        if status == "REQUEST_DENIED":
            raise SourceError(self._refusal(str(answer.get("error_message", status))))
        if status == "INVALID_REQUEST":
            asked = self._client.redact(f"{query['location']}: {answer.get('error_message', status)}")[:300]
            raise SourceError(f"Street View cannot be asked about {asked}")
        return panorama_of(answer)

    def _authorised(self, url: str, query: Mapping[str, str]) -> dict[str, str]:
        """`query` with the key, and with the signature when there is a signing secret."""
        complete = {**query, "key": self._key}
        if self._signing_key is not None:
            complete["signature"] = sign(f"{urlsplit(url).path}?{urlencode(complete)}", self._signing_key)
        return complete

    def _refusal(self, reason: str) -> str:
        # Cut after redacting: half a key would not be recognised.
        return (
            f"Street View refused the key in {self._key_variable}: {self._client.redact(reason.strip())[:300]} (check "
            "the key, that the Street View Static API is enabled and billed in its project, and whether the project "
            "demands signatures)"
        )


def sign(path_and_query: str, signing_key: bytes) -> str:
    """Return the signature of a request: HMAC-SHA1 of its path and query, URL-safe base64.

    `signing_key` is the decoded signing secret. Source:
    https://developers.google.com/maps/documentation/streetview/digital-signature
    """
    return base64.urlsafe_b64encode(hmac.new(signing_key, path_and_query.encode(), hashlib.sha1).digest()).decode()


def lattice(area: BaseGeometry, *, spacing_m: float) -> np.ndarray:
    """Return points inside `area` (EPSG:4326), `spacing_m` metres apart in both directions, row by row from the south.

    Shape (n, 2), longitude and latitude in degrees. An area too thin for the lattice gets one point inside it.
    """
    if area.is_empty:
        return np.empty((0, 2))
    west, south, east, north = area.bounds
    middle = (south + north) / 2
    _, _, thousandth_m = _WGS84.inv(west, middle - 5e-4, west, middle + 5e-4)
    step = spacing_m * 1e-3 / thousandth_m
    rows = []
    for latitude in np.arange(south + step / 2, north, step):
        # A degree of longitude shrinks towards the poles: each row has its own step.
        _, _, thousandth_m = _WGS84.inv(west, latitude, west + 1e-3, latitude)
        step_east = spacing_m * 1e-3 / thousandth_m
        longitudes = np.arange(west + step_east / 2, east, step_east)
        rows.append(np.column_stack([longitudes, np.full_like(longitudes, latitude)]))
    points = np.concatenate([np.empty((0, 2)), *rows])
    inside = points[shapely.contains_xy(area, points)]
    return inside if len(inside) else shapely.get_coordinates(shapely.point_on_surface(area))


def unsound_metadata(response: requests.Response) -> str | None:
    """Why an answer of the metadata endpoint is worth asking for again, None where it is final."""
    try:
        answer = response.json()
    except requests.JSONDecodeError:
        return "it is not JSON"
    status = answer.get("status") if isinstance(answer, dict) else None
    if status in _PASSING:
        return str(status)
    if status == "OK":
        try:
            panorama_of(answer)
        except (KeyError, TypeError, ValueError, OverflowError):
            return "it describes no panorama"
        return None
    return None if status in _NOTHING_THERE | _FINAL else f"it has no known status: {answer}"


def panorama_of(answer: Mapping[str, Any]) -> Panorama | None:
    """Return the panorama of a metadata answer, None where there is none.

    Raises KeyError, TypeError or ValueError for an answer that is "OK" without an id or a position.
    """
    if answer["status"] in _NOTHING_THERE:
        return None
    location = answer["location"]
    return Panorama(
        pano_id=str(answer["pano_id"]),
        longitude=float(location["lng"]),
        latitude=float(location["lat"]),
        creator=_creator(answer.get("copyright")),
        captured_at_ms=_milliseconds(answer.get("date")),
    )


def _without_signature(record: logging.LogRecord) -> bool:
    """Cut signatures out of urllib3's log: each is another one, so that the client cannot know them as secrets."""
    message = record.getMessage()
    if "signature=" in message:
        record.msg, record.args = re.sub(r"signature=[^&\s\"]+", "signature=[secret]", message), None
    return True


def _creator(notice: Any) -> str | None:
    """Whose the panorama is, from a notice such as "© Google" or "© 2014 A Person"."""
    name = re.sub(r"^\s*©?\s*((19|20)\d\d\s+)?", "", notice).strip() if isinstance(notice, str) else ""
    return name or None


def _milliseconds(date: Any) -> int | None:
    """The begin of "YYYY-MM" or "YYYY", None for anything else."""
    found = re.fullmatch(r"(\d{4})(?:-(0[1-9]|1[0-2]))?", date) if isinstance(date, str) else None
    if found is None or int(found[1]) == 0:
        return None
    return int(datetime(int(found[1]), int(found[2] or 1), 1, tzinfo=UTC).timestamp() * 1000)


def _decoded(signing_secret: str, variable: str) -> bytes:
    try:
        return base64.b64decode(signing_secret, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        # Without the cause: it may quote the secret.
        raise InputError(
            f"the URL signing secret in {variable} is not URL-safe base64: copy it again from the Google Cloud console"
        ) from None
