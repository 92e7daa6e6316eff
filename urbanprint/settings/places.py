"""Places that are looked at in pictures, and the city: how they are sampled, judged, and learned from."""

from dataclasses import dataclass, field
from typing import Literal

from urbanprint.settings.checks import require
from urbanprint.settings.imagery import SIMULATION_SCHEME, Imagery
from urbanprint.vocabulary import INDICATORS


@dataclass(frozen=True, kw_only=True)
class Edition:
    """One edition of published statistics and the boundaries its areas are drawn in."""

    key: str
    publisher: Literal["england", "simulation"]
    areas_ranked: int
    """Number of areas ranked in the whole country; ranks run 1..areas_ranked."""
    deprivation: str
    boundaries: str
    lookup: str | None = None
    """Address of an area-to-district lookup that replaces the districts of the statistics."""
    deprivation_sha256: str | None = None
    licence: str
    attribution: str

    def __post_init__(self) -> None:
        require(self.areas_ranked >= 2, "areas_ranked", "at least 2", self.areas_ranked)


@dataclass(frozen=True, kw_only=True)
class Sample:
    """How areas and points are drawn."""

    areas: int | Literal["all"] = 500
    allocation: Literal["equal", "proportional"] = "equal"
    views: int = 4
    """Images wanted in an area."""
    spacing_m: float = 30.0
    """Least distance between two sample points, in metres."""
    least_images: int = 1
    """Nothing is learned from an area with fewer images, and nothing is predicted for it."""
    seed: int = 7

    def __post_init__(self) -> None:
        require(self.areas == "all" or self.areas >= 1, "areas", 'at least 1, or "all"', self.areas)
        require(self.views >= 1, "views", "at least 1", self.views)
        require(self.spacing_m >= 0, "spacing_m", "at least 0 metres", self.spacing_m)
        require(1 <= self.least_images <= self.views, "least_images", "from 1 to views", self.least_images)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How predictions are judged."""

    folds: int = 5
    block_m: float = 3000.0
    """Side of a spatial block, in metres."""
    buffer_m: float = 500.0
    """Training areas nearer than this to a test block are left out, in metres."""
    seed: int = 7

    def __post_init__(self) -> None:
        require(self.folds >= 2, "folds", "at least 2", self.folds)
        require(self.block_m > 0, "block_m", "more than 0 metres", self.block_m)
        require(self.buffer_m >= 0, "buffer_m", "at least 0 metres", self.buffer_m)


@dataclass(frozen=True, kw_only=True)
class Network:
    """The network that looks at single pictures, and how it is trained."""

    backbone: str = "resnet18"
    weights: str = "imagenet"
    """`imagenet`, the path of a weights file, or openly `none`."""
    views: int = 4
    """Images of an area drawn for each epoch; predictions use all of them."""
    size: int = 224
    """Side of the square an image is decoded to, in pixels."""
    embedding_size: int | None = None
    """The same for the frozen features, which are cheap; None: as `size`."""
    epochs: int = 30
    patience: int = 6
    frozen_stages: int = 0
    """Stages of the network, from the input, that keep their weights: a halving of the resolution ends a stage."""
    batch_areas: int = 16
    learning_rate: float = 3e-4
    seed: int = 7

    @property
    def frozen_size(self) -> int:
        """Side of the square the frozen network sees, in pixels."""
        return self.embedding_size or self.size

    def __post_init__(self) -> None:
        require(self.size >= 32, "size", "at least 32 pixels", self.size)
        require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        require(self.batch_areas >= 2, "batch_areas", "at least 2", self.batch_areas)
        require(self.learning_rate > 0, "learning_rate", "more than 0", self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class Training(Network):
    """How the pictures of a city are turned into predictions of its indicators."""

    indicators: tuple[str, ...] = tuple(INDICATORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        require("imd" in self.indicators, "indicators", 'a list that holds "imd"', list(self.indicators))
        for indicator in self.indicators:
            require(indicator in INDICATORS, "indicators", f"from {', '.join(INDICATORS)}", indicator)


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a city and a country have in common: a partition of the graph that is looked at in pictures."""

    key: str
    name: str
    imagery: Imagery
    sample: Sample = field(default_factory=Sample)
    evaluation: Evaluation = field(default_factory=Evaluation)
    training: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        wanted = "orthophotos (ign-ortho, geotiff)" if self.from_above else "photographs of streets"
        require(self.imagery.from_above == self.from_above, "imagery", f"a source of {wanted}", self.imagery.key)

    @property
    def from_above(self) -> bool:
        """Whether its images are orthophotos."""
        return False

    @property
    def simulated(self) -> bool:
        """Whether the truth behind this place is known."""
        return (self.imagery.endpoint or "").startswith(SIMULATION_SCHEME)


@dataclass(frozen=True, kw_only=True)
class City(Place):
    """A list of districts, their areas, and an edition of published statistics."""

    edition: Edition
    districts: tuple[str, ...]
    training: Training = field(default_factory=Training)
    orthophotos: Imagery | None = None
    """Tiles from above, to be compared with the street images."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.orthophotos is not None:
            expected = "a source of orthophotos (ign-ortho, geotiff)"
            require(self.orthophotos.from_above, "orthophotos", expected, self.orthophotos.key)

    @property
    def simulated(self) -> bool:
        """Whether the truth behind this city is known."""
        return self.edition.publisher == "simulation"
