"""Where images come from, of streets and from above, which of them are wanted, and what a picture has to be."""

from dataclasses import dataclass, field, fields
from datetime import date
from typing import Literal

from urbanprint.settings.checks import require

SIMULATION_SCHEME = "simulation:"
"""Head of addresses that the embedded simulation answers."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What a picture has to be to count (`urbanprint.imagery.quality`). Grey levels run from 0 to 255."""

    least_side: int = 32
    """Pixels of the shorter side: no network takes less."""
    most_pixels: int = 80_000_000
    """Width times height, known before anything is decoded; Pillow itself refuses from 89,478,485 on."""
    darkest: float = 40.0
    brightest: float = 250.0
    """Bounds of the mean grey level."""
    flattest: float = 0.8
    """Share of the pixels that have one grey level, from which on a picture is a placeholder."""
    blurriest: float = 60.0
    """Least variance of the Laplacian at 256 pixels across. Of 105 sharp street photographs the least has 148; blurred
    by half a percent of their width, 95 % fall below 60."""
    distance_bits: int = 4
    """Two pictures of one place are the same when at most so many of the 64 bits of their hashes differ; -1: never."""
    duplicate_within_m: float = 20.0
    """How far apart one place is, in metres: the error of a phone's position in a street."""
    spacing_m: float = 0.0
    """Least distance between two images, in metres. 0: none, as views in several directions share one position."""

    def __post_init__(self) -> None:
        require(self.least_side >= 1, "least_side", "at least 1 pixel", self.least_side)
        require(1 <= self.most_pixels <= 89_478_485, "most_pixels", "1 to 89478485 pixels", self.most_pixels)
        require(0 <= self.darkest <= 255, "darkest", "a grey level, 0 to 255", self.darkest)
        require(self.darkest < self.brightest <= 255, "brightest", "above darkest, at most 255", self.brightest)
        require(0 < self.flattest <= 1, "flattest", "a share above 0, at most 1", self.flattest)
        require(self.blurriest >= 0, "blurriest", "at least 0", self.blurriest)
        require(-1 <= self.distance_bits <= 16, "distance_bits", "-1 (off) to 16 bits", self.distance_bits)
        require(0 <= self.duplicate_within_m <= 1000, "duplicate_within_m", "0 to 1000 metres", self.duplicate_within_m)
        require(0 <= self.spacing_m <= 1000, "spacing_m", "0 (off) to 1000 metres", self.spacing_m)


_FROM_ABOVE = ("ign-ortho", "geotiff")

_ONLY_OF = {
    "budget": ("street-view",),
    "radius_m": ("street-view",),
    "secret_variable": ("street-view",),
    "key_variable": ("mapillary", "street-view"),
    "least_quality": ("mapillary",),
    "discovery": ("mapillary",),
    "endpoint": ("mapillary", "street-view", "panoramax", "kartaview", "ign-ortho"),
    "folder": ("folder", "geotiff"),
    "manifest": ("folder",),
    "service": ("ign-ortho",),
    "layer": ("ign-ortho",),
    **dict.fromkeys(("crs", "side_m", "resolution_m", "largest_no_data"), _FROM_ABOVE),
}
"""Keys of an imagery table -> the providers they mean something to. Elsewhere a key without effect would mislead."""


@dataclass(frozen=True, kw_only=True)
class Imagery:
    """Where images come from: photographs of streets, or windows of orthophotos."""

    key: str
    provider: Literal["mapillary", "street-view", "panoramax", "kartaview", "folder", "ign-ortho", "geotiff"]
    endpoint: str | None = None
    """Address of the provider's interface, if not the public one."""
    key_variable: str | None = None
    """Name of the environment variable that holds the key, if not the provider's usual one; the key itself never
    stands in a file."""
    secret_variable: str | None = None
    """The same for the secret that signs requests."""
    folder: str | None = None
    manifest: str | None = None
    """CSV beside the images with a position a row; without it positions are read from EXIF."""

    captured_from: date | None = None
    captured_before: date | None = None
    panoramas: bool = False
    """Panoramas instead of flat views."""
    heading: tuple[float, ...] = ()
    """From and to, degrees clockwise from north; empty: every direction."""
    creators: tuple[str, ...] = ()
    """Only images of these people; empty: of everyone."""
    least_quality: float | None = None
    """The provider's own score of a picture, in [0, 1]."""
    quality: Quality = field(default_factory=Quality)

    discovery: Literal["tiles", "search", "sequences"] = "tiles"
    """How images are found: all by tiles or by searching boxes, or one of each sequence, for areas of a degree."""
    radius_m: int = 50
    """How far from a sample point an image may lie, for a provider that is asked about points, in metres."""
    threads: int = 16
    per_minute: int | None = None
    budget: int | None = None
    """Paid requests that may ever be made for a city; needed where images cost money."""

    service: Literal["wms", "wmts"] = "wms"
    """How orthophotos are served: drawn on the server, or as tiles from which windows are resampled here."""
    layer: str = "ORTHOIMAGERY.ORTHOPHOTOS"
    crs: str = "EPSG:3035"
    """Projected system of the windows: that of the grid whose cells they show."""
    side_m: float = 200.0
    resolution_m: float = 0.2
    """Side of a window and of its pixels on the ground, in metres."""
    largest_no_data: float = 0.1
    """Share of a window without a photograph, above which it is of no use."""

    licence: str | None = None
    attribution: str | None = None
    may_store: bool | None = None
    may_train: bool | None = None
    may_show: bool | None = None
    """What your own agreement with the provider allows, where it differs from the public terms."""
    keep_days: float | None = None
    """For how long pixels may be kept."""

    def __post_init__(self) -> None:
        require(self.threads >= 1, "threads", "at least 1", self.threads)
        require(self.radius_m >= 1, "radius_m", "at least 1 metre", self.radius_m)
        require(self.per_minute is None or self.per_minute >= 1, "per_minute", "at least 1", self.per_minute)
        require(self.budget is None or self.budget >= 0, "budget", "at least 0 requests", self.budget)
        require(self.keep_days is None or self.keep_days > 0, "keep_days", "more than 0 days", self.keep_days)
        require(
            self.least_quality is None or 0 <= self.least_quality <= 1, "least_quality", "0 to 1", self.least_quality
        )
        require(
            not self.heading or (len(self.heading) == 2 and all(0 <= each < 360 for each in self.heading)),
            "heading",
            "two directions of 0 to below 360 degrees, from and to",
            list(self.heading),
        )
        for name, providers in _ONLY_OF.items():
            if self.provider not in providers:
                default = {each.name: each.default for each in fields(self)}[name]
                expected = f"no such key, which is for {' and '.join(providers)} only"
                require(getattr(self, name) == default, name, expected, getattr(self, name))
        if self.captured_from and self.captured_before:
            require(self.captured_from < self.captured_before, "captured_before", "later than captured_from", None)
        require(self.side_m > 0, "side_m", "more than 0 metres", self.side_m)
        require(0 < self.resolution_m <= self.side_m, "resolution_m", "above 0, at most side_m", self.resolution_m)
        require(0 <= self.largest_no_data < 1, "largest_no_data", "a share below 1", self.largest_no_data)
        if self.provider in ("folder", "geotiff"):
            for name in ("folder", "licence", "attribution"):
                require(getattr(self, name) is not None, name, f"given when provider is {self.provider}", None)

    @property
    def from_above(self) -> bool:
        """Whether its images are windows of orthophotos."""
        return self.provider in _FROM_ABOVE
