"""What Mapillary's answers say: errors of the Graph API, and records of images in its answers and tiles.

What belongs here is reading, no request. What is not the provider's protocol, hostile identifiers included, becomes one
clear `SourceError`. Facts: https://www.mapillary.com/developer/api-documentation
"""

import contextlib
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import requests

from urbanprint.errors import InputError, SourceError
from urbanprint.imagery.records import ImageRecord
from urbanprint.sources.tiles import Tile

THUMBNAIL = "thumb_1024_url"
FIELDS = (
    "id,geometry,computed_geometry,captured_at,compass_angle,computed_compass_angle,"
    f"sequence,creator,is_pano,quality_score,{THUMBNAIL}"
)
TOO_MUCH_DATA, THROTTLED, _BAD_REQUEST, BAD_TOKEN = 1, 4, 100, 190
_LATEST_MS = 1e14  # the year 5138
_NO_SUCH_OBJECT = 33  # subcode of 100; without it 100 is a fault of the request, which says nothing about the image


class GraphError(SourceError):
    """An error of the Graph API; `code` and `subcode` are its own, None where it gave none."""

    def __init__(self, message: str, *, status: int, code: int | None, subcode: int | None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.subcode = subcode

    @property
    def is_gone(self) -> bool:
        """Whether the object asked for does not exist, as far as this token may know."""
        return self.status in (404, 410) or (self.code, self.subcode) == (_BAD_REQUEST, _NO_SUCH_OBJECT)


def parsed(text: str) -> Any:
    """Return `text` as JSON, and as it is where it is none."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def fault_of(body: Any) -> tuple[int | None, int | None, str]:
    """Return code, subcode and message of an error envelope; of anything else its text. Redact before cutting it."""
    error = body.get("error") if isinstance(body, dict) else None
    if not isinstance(error, dict):
        return None, None, str(body)
    return error.get("code"), error.get("error_subcode"), str(error.get("message"))


def is_final(response: requests.Response) -> bool:
    """Whether a 500 will not pass by itself: a missing token, a box too dense, a request that makes no sense."""
    return fault_of(parsed(response.text))[0] in (BAD_TOKEN, TOO_MUCH_DATA, _BAD_REQUEST)


def passing_fault(response: requests.Response) -> str | None:
    """Return the error inside a sound-looking answer if asking again may help."""
    if b'"error"' not in response.content[:300] or is_final(response):  # an answer of 2,000 images is parsed once
        return None
    code, _, message = fault_of(parsed(response.text))
    return f"error {code} in the body: {message}"


def record_of(found: Any) -> ImageRecord | None:
    """Return the record of a search result or an entity, or None where it has no position at all."""
    with _understood("an answer of the Graph API"):
        geometry = found.get("computed_geometry") or found.get("geometry")
        if not geometry:
            return None
        longitude, latitude = geometry["coordinates"][:2]
        heading = _number(found.get("computed_compass_angle"))
        creator = found.get("creator")
        return _described(
            found,
            longitude=longitude,
            latitude=latitude,
            sequence=found.get("sequence"),
            heading=_number(found.get("compass_angle")) if heading is None else heading,
            creator=creator.get("username") if isinstance(creator, dict) else None,
            address=found.get(THUMBNAIL),
        )


def records_of_tile(tile: Tile, positions: np.ndarray, properties: Iterable[Mapping[str, Any]]) -> list[ImageRecord]:
    """Return the records of the points in a tile's `image` layer."""
    with _understood(f"tile {tile}"):
        return [
            _described(
                found,
                longitude=longitude,
                latitude=latitude,
                sequence=found.get("sequence_id"),
                heading=_number(found.get("compass_angle")),
            )
            for found, (longitude, latitude) in zip(properties, positions.tolist(), strict=True)
        ]


def records_of_lines(tile: Tile, positions: np.ndarray, properties: Iterable[Mapping[str, Any]]) -> list[ImageRecord]:
    """Return a record for each line in a tile's `sequence` layer: the image that represents it, at `positions`."""
    with _understood(f"tile {tile}"):
        images = [{**line, "id": line["image_id"], "sequence_id": line["id"]} for line in properties]
    return records_of_tile(tile, positions, images)


def _described(
    found: Mapping[str, Any],
    *,
    longitude: Any,
    latitude: Any,
    sequence: Any,
    heading: float | None,
    creator: Any = None,
    address: Any = None,
) -> ImageRecord:
    image_id, captured = found["id"], _number(found.get("captured_at"))
    if not isinstance(image_id, str | int):
        raise ValueError(f"an id of {image_id!r:.40}")
    if captured is not None and abs(captured) > _LATEST_MS:
        raise ValueError(f"a time of capture of {captured!r:.40}")
    return ImageRecord(
        image_id=str(image_id),
        # An image outside any sequence is a sequence of its own.
        sequence_id=str(sequence or image_id),
        longitude=float(longitude),
        latitude=float(latitude),
        creator=str(creator) if creator else None,
        captured_at_ms=None if captured is None else int(captured),
        heading=None if heading is None else heading % 360.0 % 360.0,  # the first of them rounds -1e-20 up to 360
        is_panorama=found.get("is_pano") is True,
        quality=_number(found.get("quality_score")),
        address=str(address) if address else None,
    )


def _number(value: Any) -> float | None:
    """Return `value` if it is a finite number, None where there is none."""
    return value if isinstance(value, int | float) and math.isfinite(value) else None


@contextlib.contextmanager
def _understood(where: str) -> Iterator[None]:
    """Turn what is not the provider's protocol, hostile identifiers included, into one sentence."""
    try:
        yield
    except InputError as error:
        raise SourceError(f"Mapillary: {where} describes an image that is refused: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(
            f"Mapillary: {where} describes an image in a form that is not its protocol: {error}"
        ) from None
