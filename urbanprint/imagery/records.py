"""What every provider says about an image and what it allows to be done with it.

An `ImageRecord` is what a source found; `Terms` are the provider's rules as values the rest of the code asks, so that
no other module needs to know a provider by name; `Source` is the shape every provider's module has.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Protocol

import numpy as np
from shapely.geometry.base import BaseGeometry

from urbanprint.errors import InputError, UrbanprintError

# Identifiers become file names, keys and parts of addresses: nothing that could name another place.
_IDENTIFIER = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.:@-]{0,199}")


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What may be done with a provider's pixels."""

    licence: str
    attribution: str
    """Line of credit; `{creator}` stands for the person who took the image."""
    page: str | None
    """Address of an image's page at the provider; `{image_id}` stands for the image."""
    may_store: bool
    """Whether pixels may lie on a disk; where not, they live in memory while features are computed."""
    may_train: bool
    """Whether a model may be fitted on the pixels or on features of them."""
    may_show: bool
    """Whether maps and reports may show the picture."""
    keep_days: float | None = None
    """For how long pixels may be kept; None where there is no limit."""

    def credit(self, creator: str | None) -> str:
        """Return the line of credit for an image taken by `creator`."""
        return self.attribution.replace("{creator}", creator or "an unnamed contributor")

    def page_of(self, image_id: str) -> str | None:
        """Return the address of the image's page at the provider, if it has one."""
        return self.page.replace("{image_id}", image_id) if self.page else None


@dataclass(frozen=True, kw_only=True)
class ImageRecord:
    """One image as its provider describes it. Longitude and latitude in degrees, EPSG:4326."""

    image_id: str
    sequence_id: str
    """Drive or walk the image belongs to; images of a sequence must never be on both sides of a split."""
    longitude: float
    latitude: float
    creator: str | None = None
    captured_at_ms: int | None = None
    """Milliseconds since 1970, UTC."""
    heading: float | None = None
    """Degrees clockwise from north, in [0, 360)."""
    is_panorama: bool = False
    quality: float | None = None
    """The provider's own score of the picture, in [0, 1]."""
    licence: str | None = None
    """Licence of this one image, where the provider gives each its own; None: that of the terms."""
    address: str | None = None
    """Where the pixels are now; expires with some providers."""

    def __post_init__(self) -> None:
        for name in ("image_id", "sequence_id"):
            found = getattr(self, name)
            if not _IDENTIFIER.fullmatch(found):
                raise InputError(
                    f"{name} {found[:80]!r} is no identifier: at most 200 letters, digits and _ - . : @ are, "
                    "not beginning with a dot"
                )
        if not (-180 <= self.longitude <= 180 and -90 <= self.latitude <= 90):
            raise InputError(f"image {self.image_id} lies at {self.longitude}, {self.latitude}, which is not on Earth")


def identifier(text: str) -> str:
    """Return `text` if it can be an identifier, else its safe characters and a digest that keeps it unique."""
    if _IDENTIFIER.fullmatch(text):
        return text
    digest = hashlib.sha256(text.encode()).hexdigest()[:12]
    return f"{re.sub('[^A-Za-z0-9_-]', '_', text)[-100:]}-{digest}"


@dataclass(frozen=True, kw_only=True)
class Filters:
    """Which of the images found are wanted. Whatever lacks the fact a filter asks for is not admitted."""

    captured_from_ms: int | None = None
    captured_to_ms: int | None = None
    """Milliseconds since 1970, UTC; the first is admitted, the second is not."""
    panoramas: bool = False
    """Panoramas instead of flat views: to a network they are different pictures, so never both."""
    heading: tuple[float, float] | None = None
    """From and to, degrees clockwise from north; (350, 10) spans north."""
    creators: tuple[str, ...] = ()
    """Only images of these people; empty: of everyone."""
    least_quality: float | None = None

    def admits(self, record: ImageRecord) -> bool:
        """Whether `record` is wanted."""
        return all(
            (
                record.is_panorama == self.panoramas,
                self.captured_from_ms is None
                or (record.captured_at_ms is not None and record.captured_at_ms >= self.captured_from_ms),
                self.captured_to_ms is None
                or (record.captured_at_ms is not None and record.captured_at_ms < self.captured_to_ms),
                self.heading is None
                or (
                    record.heading is not None
                    and (record.heading - self.heading[0]) % 360 <= (self.heading[1] - self.heading[0]) % 360
                ),
                not self.creators or record.creator in self.creators,
                self.least_quality is None or (record.quality is not None and record.quality >= self.least_quality),
            )
        )

    @property
    def key(self) -> str:
        """The filters as text, for a source's `request_key`."""
        return "&".join(f"{name}={value}" for name, value in asdict(self).items() if value not in (None, ()))


UNWANTED = "not what the filters want"
"""Reason of a rejection that holds for one request only: another one may want the image."""


class RejectedImage(UrbanprintError):
    """The provider's answer is final and is no usable image; the message is the reason."""


class Source(Protocol):
    """A provider of street images."""

    @property
    def name(self) -> str: ...

    @property
    def terms(self) -> Terms: ...

    @property
    def request_key(self) -> str:
        """What, besides the area, decides the answer of `find`: a changed key never reuses an old answer."""
        ...

    @property
    def price(self) -> float:
        """Price of one fetched image in US dollars; 0 where images are free. Searches are free with every provider."""
        ...

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterable[ImageRecord]:
        """Return every image in the bounding box of `area` (EPSG:4326), each once.

        A provider that can only be asked about a place looks at `points`, (n, 2) longitude and latitude in degrees,
        and without them at a lattice of points in the area; all others ignore them.
        """
        ...

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the encoded pixels of `record`.

        Raises `RejectedImage` when the provider has none for good and `SourceError` when it could not be asked.
        """
        ...
