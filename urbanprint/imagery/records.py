"""What every provider says about an image and what it allows to be done with it.

An `ImageRecord` is what a source found; `Terms` are the provider's rules as values the rest of the code asks, so that
no other module needs to know a provider by name; `Source` is the shape every provider's module has.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

from shapely.geometry.base import BaseGeometry

from urbanprint.errors import UrbanprintError


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What may be done with a provider's pixels."""

    licence: str
    attribution: str
    """Line of credit; `{creator}` stands for the person who took the image."""
    page: str | None
    """Address of an image's page at the provider; `{image_id}` stands for the image."""
    may_store: bool
    may_train: bool
    may_show: bool

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
    address: str | None = None
    """Where the pixels are now; expires with some providers."""


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

    def find(self, area: BaseGeometry) -> Iterable[ImageRecord]:
        """Return every image in the bounding box of `area` (EPSG:4326), each once."""
        ...

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the encoded pixels of `record`.

        Raises `RejectedImage` when the provider has none for good and `SourceError` when it could not be asked.
        """
        ...
