"""Mapillary: street images contributed by people, CC BY-SA 4.0, through its coverage tiles and Graph API v4.

Images are found by vector tiles, one request for some five square kilometres. A tile says where an image is, when it
was taken and which way it looks, not who took it: `complete` asks the image's own entity for its creator, its computed
position and a fresh thumbnail. Where tiles are refused, or a filter needs what they do not hold, boxes are searched: a
search has no pages, so a box that holds more than the limit, or that the server calls too dense, is split in four.
Large areas are searched by tiles of a lower zoom, which hold sequences and one image of each.

The token travels in the `Authorization` header; the tile service alone takes it in the query only
(https://github.com/mapillary/mapillary-python-sdk/issues/124), which no message and no log shows.
Facts: https://www.mapillary.com/developer/api-documentation
"""

import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import fields, replace
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import requests
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import MissingSecret, SourceError
from urbanprint.imagery.records import UNWANTED, Filters, ImageRecord, RejectedImage, Terms
from urbanprint.sources.http import HttpClient, HttpStatusError, Retry, is_local
from urbanprint.sources.limits import RateLimit
from urbanprint.sources.mapillary_answers import (
    BAD_TOKEN,
    FIELDS,
    THROTTLED,
    THUMBNAIL,
    TOO_MUCH_DATA,
    GraphError,
    fault_of,
    is_final,
    parsed,
    passing_fault,
    record_of,
    records_of_lines,
    records_of_tile,
)
from urbanprint.sources.mapillary_boxes import Box, boxes_over, parameters_of, quarters
from urbanprint.sources.places import bare_endpoint
from urbanprint.sources.tiles import KeptTiles, Tile, lines_of, points_of, tiles_over

PUBLIC_ENDPOINT = "https://graph.mapillary.com"
PUBLIC_TILES = "https://tiles.mapillary.com"
ZOOM = 14
"""The one zoom whose tiles hold every image."""
SEQUENCE_ZOOM = 8
"""A tile of this zoom is as wide as a cell of level 8 of the world grid, 1.4 degrees; of zoom 14 a cell takes 2,000."""

_LIMIT = 2000  # the largest the server takes
_SMALLEST_BOX_DEG = 1e-5  # about a metre: a box still too dense there is the server's trouble, not the box's
_HAIR_DEG = 1e-9  # a tenth of a millimetre, far below a step of any tile's grid
_KEPT_TILES = 32  # the densest recorded tile holds 31,261 images, about 10 MB of records
_FRESH_S = 3600.0  # Mapillary draws its tiles anew every hour; a source can live longer than that
_GONE = frozenset({404, 410})
_EXPIRED = _GONE | {401, 403}
_REFUSED = _EXPIRED | {429}
_EVERY_FLAT_VIEW = Filters()
_PIXEL_HOSTS = ("fbcdn.net", "mapillary.com")

TERMS = Terms(
    licence="CC BY-SA 4.0",
    attribution="© {creator}, Mapillary contributors, CC BY-SA 4.0",
    page="https://www.mapillary.com/app/?pKey={image_id}",
    may_store=True,
    may_train=True,
    may_show=True,
)


class Mapillary:
    """Mapillary as a source of images.

    Pictures are 1,024 pixels on the long side. `tiles_endpoint` is the public one where `endpoint` is, else
    `<endpoint>-tiles`. Filters on what tiles do not hold (creators, quality) have boxes searched. When the tile service
    refuses for good (a quota included), boxes are searched for the rest of the run and `notes` says why.

    Discovery by `sequences` is for areas of a degree or more: it finds one image of each sequence, with a position and
    a time of the sequence until `complete` asks for the image's own. Filters on what a sequence does not tell (heading,
    creators, quality) are left to `complete`. Tiles that are refused are an error, as there are too many boxes.
    """

    name = "mapillary"

    def __init__(
        self,
        *,
        token: str | None,
        terms: Terms,
        endpoint: str | None = None,
        tiles_endpoint: str | None = None,
        discovery: Literal["tiles", "search", "sequences"] = "tiles",
        filters: Filters = _EVERY_FLAT_VIEW,
        limit: RateLimit | None = None,
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
        self.discovery = discovery
        self.filters = filters
        self._by_sequence = discovery == "sequences"
        # What a sequence does not tell can only be judged by `complete`.
        self._judged = replace(filters, heading=None, creators=(), least_quality=None) if self._by_sequence else filters
        self.notes: list[str] = []
        """What a reader of the results has to know about how images were found; each said once."""
        self._endpoint = bare_endpoint(endpoint or PUBLIC_ENDPOINT, provider="Mapillary")
        self._tiles_endpoint = bare_endpoint(
            tiles_endpoint or (f"{self._endpoint}-tiles" if endpoint else PUBLIC_TILES), provider="Mapillary's tiles"
        )
        self._token, self._token_variable = token, token_variable
        self._limit, self._retry = limit, retry or Retry()
        self._client = HttpClient(
            name="Mapillary",
            headers={"Authorization": f"OAuth {token}"},
            secrets=(token,),
            retry=self._retry,
            timeout_s=timeout_s,
            limit=limit,
            final=is_final,
            trusted_hosts=_PIXEL_HOSTS,
            local=endpoint is not None and is_local(endpoint),
        )
        self._tile_client = HttpClient(
            name="Mapillary tiles",
            secrets=(token,),
            retry=self._retry,
            timeout_s=timeout_s,
            limit=limit,
            final=self._note_status,
        )
        self._last = threading.local()
        self._tiles = KeptTiles(self._tile, most=_KEPT_TILES, fresh_s=_FRESH_S)
        self._searching, self._leaving = threading.Event(), threading.Lock()
        if discovery == "search":
            self._searching.set()
        elif discovery == "tiles" and (filters.creators or filters.least_quality is not None):
            self._search_from_now("its tiles hold neither creators nor quality, which the filters ask for")

    @property
    def request_key(self) -> str:
        """What decides the answer of `find` besides the area.

        A run that had to leave the tiles keeps its key: boxes hold all that the tiles would have told.
        """
        return f"{self._endpoint}/{self.discovery}?tiles={self._tiles_endpoint}&fields={FIELDS}&{self.filters.key}"

    @property
    def price(self) -> float:
        """Free."""
        return 0.0

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield every wanted image in the bounding box of `area` (EPSG:4326), each once, or one of each sequence.

        Records found by tiles have the camera's own position and neither creator nor address; those found by sequences
        have the position of a vertex in the box and no heading: see `complete`. Raises `SourceError` when the provider
        could not be asked or answered something that is not its protocol, and `MissingSecret` when it refuses the
        token.
        """
        found: Iterator[ImageRecord] | None = None
        if not self._searching.is_set():
            try:
                found = iter(self._in_tiles(area.bounds))
            except _TilesRefused as refusal:
                if self._by_sequence:
                    # Of this type it ends a run: each of thousands of areas would be refused in turn.
                    raise HttpStatusError(
                        f"Mapillary: {refusal}; sequences are found by tiles alone, as boxes would be 12,000 for a "
                        f"cell of level 8 and millions for a continent: check the token in {self._token_variable}, or "
                        "run again when the quota of the day is renewed",
                        status=refusal.status,
                        body="",
                    ) from None
                self._search_from_now(str(refusal))
            except SourceError:
                if not self._searching.is_set():  # another thread may have met the refusal behind it
                    raise
        seen: set[str] = set()
        for record in found if found is not None else self._in_boxes(area.bounds):
            name = record.sequence_id if self._by_sequence else record.image_id
            if name not in seen and self._judged.admits(record):
                seen.add(name)
                yield record

    def complete(self, record: ImageRecord) -> ImageRecord:
        """Return `record` with what its entity knows: creator, computed position and heading, a fresh address.

        One request. Raises `RejectedImage` when the provider no longer has the image or no thumbnail of it, and when
        the completed facts are not what the filters ask for: a computed heading can differ from the camera's own.
        """
        completed = self._renewed(record)
        if not self.filters.admits(completed):
            raise RejectedImage(UNWANTED)
        return completed

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the JPEG of `record`, renewing its address once if it has none or it has expired."""
        if record.address:
            try:
                return self._pixels(record.address)
            except HttpStatusError as error:
                if error.status not in _EXPIRED:
                    raise
        try:
            return self._pixels(str(self._renewed(record).address))
        except HttpStatusError as error:
            if error.status not in _EXPIRED:
                raise
            if error.status in _GONE:
                raise RejectedImage(f"its renewed address answers {error.status}") from None
            # A fresh address that is refused tells of a host in trouble, not of the image.
            raise SourceError(f"Mapillary: the fresh address of image {record.image_id} is refused") from None

    def _search_from_now(self, reason: str) -> None:
        with self._leaving:
            if self._searching.is_set():
                return
            self._searching.set()
            self.notes.append(f"Mapillary images were found by searching boxes: {reason}")

    # --- tiles ---

    def _in_tiles(self, bounds: Box) -> list[ImageRecord]:
        west, south, east, north = bounds
        # A cell of the world grid ends where a tile begins: without a hair less, the one beside would be asked for too.
        covered = west, south, max(west, east - _HAIR_DEG), north
        found: list[ImageRecord] = []
        for tile in tiles_over(covered, SEQUENCE_ZOOM if self._by_sequence else ZOOM):
            positions, of_record, records = self._tiles.get(tile)
            inside = np.flatnonzero(((positions >= (west, south)) & (positions <= (east, north))).all(axis=1))
            here, first, count = np.unique(of_record[inside], return_index=True, return_counts=True)
            middle = positions[inside[first + count // 2]]
            found += [
                replace(records[index], longitude=longitude, latitude=latitude)
                for index, (longitude, latitude) in zip(here, middle.tolist(), strict=True)
            ]
        return found

    def _tile(self, tile: Tile) -> tuple[np.ndarray, np.ndarray, list[ImageRecord]]:
        """Ask for one tile: positions, (n, 2), the record each belongs to, (n,), ascending, and the records."""
        read: list[tuple[np.ndarray, np.ndarray, list[dict[str, Any]]]] = []

        def broken(response: requests.Response) -> str | None:
            # Whether a body is whole shows when it is read, and what was read is the answer.
            try:
                if self._by_sequence:
                    read[:] = [lines_of(response.content, tile, "sequence")]
                else:
                    positions, properties = points_of(response.content, tile, "image")
                    read[:] = [(positions, np.arange(len(positions)), properties)]
            except SourceError as error:
                return str(error)
            return None

        url = f"{self._tiles_endpoint}/maps/vtp/mly1_public/2/{tile}"
        self._last.status = None
        try:
            self._tile_client.get(url, params={"access_token": self._token}, accept=(200, 204), unsound=broken)
        except SourceError as error:
            # A 429 that outlasts the retries is the quota of the day.
            status = error.status if isinstance(error, HttpStatusError) else self._last.status
            if status in _REFUSED:
                raise _TilesRefused(
                    f"its tile service refused tile {tile} (status {status})", status=status, body=""
                ) from None
            raise
        positions, of_record, properties = read[0]
        first = np.unique(of_record, return_index=True)[1]
        records = records_of_lines if self._by_sequence else records_of_tile
        return positions, of_record, records(tile, positions[first], properties)

    def _note_status(self, response: requests.Response) -> bool:
        """Remember what this thread's request was last refused with; False: it says nothing about trying again."""
        self._last.status = response.status_code
        return False

    # --- boxes ---

    def _in_boxes(self, bounds: Box) -> Iterator[ImageRecord]:
        for box in boxes_over(bounds):
            for found in self._search(box):
                record = record_of(found)
                if record is not None:
                    yield record

    def _search(self, box: Box) -> list[dict[str, Any]]:
        query = {"bbox": ",".join(f"{edge:.7f}" for edge in box), "fields": FIELDS, "limit": _LIMIT}
        try:
            found = self._asked(f"{self._endpoint}/images", query | parameters_of(self.filters)).get("data")
        except GraphError as error:
            if error.code != TOO_MUCH_DATA:
                raise
        else:
            if not isinstance(found, list):
                raise SourceError(f"Mapillary: the answer to a search of {query['bbox']} holds no list of images")
            if len(found) < _LIMIT:
                return found
        if max(box[2] - box[0], box[3] - box[1]) < _SMALLEST_BOX_DEG:
            raise SourceError(f"Mapillary: the box {query['bbox']} cannot be searched: too dense even at a metre")
        return [image for quarter in quarters(box) for image in self._search(quarter)]

    # --- entities and pixels ---

    def _renewed(self, record: ImageRecord) -> ImageRecord:
        """Return `record` as its entity describes it now."""
        try:
            entity = self._asked(f"{self._endpoint}/{record.image_id}", {"fields": FIELDS})
        except GraphError as error:
            if error.is_gone:
                raise RejectedImage(f"the provider no longer has it (status {error.status})") from None
            raise
        if str(entity.get("id")) != record.image_id:
            got = self._client.redact(str(entity.get("id")))[:80]
            raise SourceError(f"Mapillary: asked for image {record.image_id}, got {got!r}")
        present = {name: value for name, value in entity.items() if value not in (None, {})}
        if not present.get(THUMBNAIL):
            raise RejectedImage("the provider has no thumbnail of it")
        known = {"geometry": {"coordinates": [record.longitude, record.latitude]}, "is_pano": record.is_panorama}
        found = record_of(known | present | {"sequence": record.sequence_id})
        told = {each.name: getattr(found, each.name) for each in fields(ImageRecord)}
        return replace(record, **{name: value for name, value in told.items() if value is not None})

    def _asked(self, url: str, params: Mapping[str, Any]) -> dict[str, Any]:
        """Return the answer of the Graph API; raises `GraphError` and `MissingSecret`."""
        for attempt in range(self._retry.attempts):
            try:
                return self._answered(url, params)
            except GraphError as error:
                # Throttling comes with any status, also with ones that elsewhere are final.
                if error.code != THROTTLED or attempt + 1 == self._retry.attempts:
                    raise
            pause_s = self._retry.pause_s(attempt, None)
            if self._limit is not None:
                self._limit.postpone(pause_s)
            time.sleep(pause_s)
        raise AssertionError  # the loop returns or raises

    def _answered(self, url: str, params: Mapping[str, Any]) -> dict[str, Any]:
        try:
            body = self._client.get_json(url, params=params, unsound=passing_fault)
        except HttpStatusError as error:
            body, status = parsed(error.body), error.status
        else:
            status = 200
            if isinstance(body, dict) and "error" not in body:
                return body
        code, subcode, message = fault_of(body)
        message = self._client.redact(message)[:300]
        if code == BAD_TOKEN or status == 401:
            raise MissingSecret(
                f"Mapillary refused the access token in {self._token_variable} ({message}): set a valid one "
                "(free, from mapillary.com/dashboard/developers)"
            )
        raise GraphError(
            f"Mapillary: {url} answered status {status}: {message}", status=status, code=code, subcode=subcode
        )

    def _pixels(self, address: str) -> bytes:
        host = urlsplit(address).hostname or ""
        own = urlsplit(self._endpoint).hostname
        if host != own and not any(host == trusted or host.endswith(f".{trusted}") for trusted in _PIXEL_HOSTS):
            raise SourceError(
                f"Mapillary: a thumbnail's address names the host {host[:80]!r}, which is not Mapillary's"
            )
        # Thumbnails lie on another host, which must not be shown the token.
        return self._client.get(address, authenticated=False).content


class _TilesRefused(HttpStatusError):
    """The tile service will not answer in this run; the message is the reason."""
