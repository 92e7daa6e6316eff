"""What a user may say about a city or a country: whose statistics, which imagery, how it is sampled, judged, trained.

Records only, and what each value has to be. How they are read from `cities.toml` is in `catalogue`; where files lie and
how they are read is for others.
"""

from dataclasses import dataclass, field, fields
from datetime import date
from typing import Literal

from urbanprint.vocabulary import INDICATORS, LIVELIHOODS

SIMULATION_SCHEME = "simulation:"
"""Head of addresses that the embedded simulation answers."""


class RejectedValue(Exception):
    """A value a record refuses: (key, what was expected, what was found)."""


def _require(held: bool, key: str, expected: str, found: object) -> None:
    if not held:
        raise RejectedValue(key, expected, found)


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
        _require(self.areas_ranked >= 2, "areas_ranked", "at least 2", self.areas_ranked)


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
        _require(self.least_side >= 1, "least_side", "at least 1 pixel", self.least_side)
        _require(1 <= self.most_pixels <= 89_478_485, "most_pixels", "1 to 89478485 pixels", self.most_pixels)
        _require(0 <= self.darkest <= 255, "darkest", "a grey level, 0 to 255", self.darkest)
        _require(self.darkest < self.brightest <= 255, "brightest", "above darkest, at most 255", self.brightest)
        _require(0 < self.flattest <= 1, "flattest", "a share above 0, at most 1", self.flattest)
        _require(self.blurriest >= 0, "blurriest", "at least 0", self.blurriest)
        _require(-1 <= self.distance_bits <= 16, "distance_bits", "-1 (off) to 16 bits", self.distance_bits)
        _require(
            0 <= self.duplicate_within_m <= 1000, "duplicate_within_m", "0 to 1000 metres", self.duplicate_within_m
        )
        _require(0 <= self.spacing_m <= 1000, "spacing_m", "0 (off) to 1000 metres", self.spacing_m)


_ONLY_OF = {
    "budget": ("street-view",),
    "radius_m": ("street-view",),
    "secret_variable": ("street-view",),
    "key_variable": ("mapillary", "street-view"),
    "least_quality": ("mapillary",),
    "discovery": ("mapillary",),
    "endpoint": ("mapillary", "street-view", "panoramax", "kartaview"),
    "folder": ("folder",),
    "manifest": ("folder",),
}
"""Keys of an imagery table -> the providers they mean something to. Elsewhere a key without effect would mislead."""


@dataclass(frozen=True, kw_only=True)
class Imagery:
    """Where street images come from."""

    key: str
    provider: Literal["mapillary", "street-view", "panoramax", "kartaview", "folder"]
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

    licence: str | None = None
    attribution: str | None = None
    may_store: bool | None = None
    may_train: bool | None = None
    may_show: bool | None = None
    """What your own agreement with the provider allows, where it differs from the public terms."""
    keep_days: float | None = None
    """For how long pixels may be kept."""

    def __post_init__(self) -> None:
        _require(self.threads >= 1, "threads", "at least 1", self.threads)
        _require(self.radius_m >= 1, "radius_m", "at least 1 metre", self.radius_m)
        _require(self.per_minute is None or self.per_minute >= 1, "per_minute", "at least 1", self.per_minute)
        _require(self.budget is None or self.budget >= 0, "budget", "at least 0 requests", self.budget)
        _require(self.keep_days is None or self.keep_days > 0, "keep_days", "more than 0 days", self.keep_days)
        _require(
            self.least_quality is None or 0 <= self.least_quality <= 1, "least_quality", "0 to 1", self.least_quality
        )
        _require(
            not self.heading or (len(self.heading) == 2 and all(0 <= each < 360 for each in self.heading)),
            "heading",
            "two directions of 0 to below 360 degrees, from and to",
            list(self.heading),
        )
        for name, providers in _ONLY_OF.items():
            if self.provider not in providers:
                default = {each.name: each.default for each in fields(self)}[name]
                expected = f"no such key, which is for {' and '.join(providers)} only"
                _require(getattr(self, name) == default, name, expected, getattr(self, name))
        if self.captured_from and self.captured_before:
            _require(self.captured_from < self.captured_before, "captured_before", "later than captured_from", None)
        if self.provider == "folder":
            for name in ("folder", "licence", "attribution"):
                _require(getattr(self, name) is not None, name, "given when provider is folder", None)


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
        _require(self.areas == "all" or self.areas >= 1, "areas", 'at least 1, or "all"', self.areas)
        _require(self.views >= 1, "views", "at least 1", self.views)
        _require(self.spacing_m >= 0, "spacing_m", "at least 0 metres", self.spacing_m)
        _require(1 <= self.least_images <= self.views, "least_images", "from 1 to views", self.least_images)


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
        _require(self.folds >= 2, "folds", "at least 2", self.folds)
        _require(self.block_m > 0, "block_m", "more than 0 metres", self.block_m)
        _require(self.buffer_m >= 0, "buffer_m", "at least 0 metres", self.buffer_m)


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
        _require(self.size >= 32, "size", "at least 32 pixels", self.size)
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(self.batch_areas >= 2, "batch_areas", "at least 2", self.batch_areas)
        _require(self.learning_rate > 0, "learning_rate", "more than 0", self.learning_rate)


@dataclass(frozen=True, kw_only=True)
class Training(Network):
    """How the pictures of a city are turned into predictions of its indicators."""

    indicators: tuple[str, ...] = tuple(INDICATORS)

    def __post_init__(self) -> None:
        super().__post_init__()
        _require("imd" in self.indicators, "indicators", 'a list that holds "imd"', list(self.indicators))
        for indicator in self.indicators:
            _require(indicator in INDICATORS, "indicators", f"from {', '.join(INDICATORS)}", indicator)


@dataclass(frozen=True, kw_only=True)
class Place:
    """What a city and a country have in common: a partition of the graph that is looked at in pictures."""

    key: str
    name: str
    imagery: Imagery
    sample: Sample = field(default_factory=Sample)
    evaluation: Evaluation = field(default_factory=Evaluation)
    training: Network = field(default_factory=Network)

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

    @property
    def simulated(self) -> bool:
        """Whether the truth behind this city is known."""
        return self.edition.publisher == "simulation"


# --- countries: clusters of a survey instead of areas -----------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Survey:
    """Clusters of households with indicators, published as a table (`urbanprint.indicators.survey`)."""

    table: str
    """Address of a CSV or Parquet file."""
    licence: str
    attribution: str
    columns: dict[str, str] = field(default_factory=dict)
    """Column of the cluster table -> heading in the file, for headings that are not the usual ones."""
    id_columns: tuple[str, ...] = ()
    """Headings that together name a cluster where no single one does."""
    country: str | None = None
    """The country of all clusters, for a file without such a column."""
    urban_m: float = 2_000.0
    rural_m: float = 10_000.0
    """How far the survey has moved its clusters to hide the households, in metres."""
    search_m: float | None = None
    """How far from a cluster images are sought, in metres; None: as far as it was moved. Less saves searches."""
    series: str | None = None
    """Surveys of one series ask the same: their countries are trained together and tested on each other."""
    train_list: str | None = None
    validation_list: str | None = None
    """Addresses of fixed lists, a cluster identifier a line, under which every learner is judged as well."""

    def __post_init__(self) -> None:
        _require(self.urban_m > 0, "urban_m", "more than 0 metres", self.urban_m)
        _require(self.rural_m >= self.urban_m, "rural_m", "at least urban_m", self.rural_m)
        _require(self.search_m is None or self.search_m > 0, "search_m", "more than 0 metres", self.search_m)
        both = (self.train_list is None) == (self.validation_list is None)
        _require(both, "validation_list", "given together with train_list", self.validation_list)

    @property
    def key(self) -> str:
        """What the survey is called among the sources of a page."""
        return "survey"


@dataclass(frozen=True, kw_only=True)
class Scenes:
    """How pictures are turned into amounts of what they show."""

    parser: str = "facebook/mask2former-swin-large-mapillary-vistas-panoptic"
    """A checkpoint by name or local folder, or `compact`, which knows the simulated streets only."""
    batch: int = 8
    detections: str | None = None
    """Address of a table of published detections, which replace parsing."""
    features_are: Literal["identifiers", "counts"] = "identifiers"
    """What its column `features` holds."""

    def __post_init__(self) -> None:
        _require(self.batch >= 1, "batch", "at least 1", self.batch)


@dataclass(frozen=True, kw_only=True)
class Graph:
    """How the graph network over the images of a cluster is trained (`urbanprint.models.graph_model`)."""

    features: Literal["fine-tuned", "frozen"] = "fine-tuned"
    """Image features: of the image-wise network fine-tuned on the training part of each fold, or of the frozen one."""
    epochs: int = 60
    patience: int = 12
    batch_clusters: int = 16
    learning_rate: float = 2e-3
    weight_decay: float = 0.05
    dropout: float = 0.2

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        _require(self.patience >= 1, "patience", "at least 1", self.patience)
        _require(self.batch_clusters >= 1, "batch_clusters", "at least 1", self.batch_clusters)
        _require(0 < self.learning_rate <= 1, "learning_rate", "above 0 and at most 1", self.learning_rate)
        _require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        _require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)


@dataclass(frozen=True, kw_only=True)
class ClusterSample(Sample):
    """As `Sample`, for clusters: as many images as the graph network takes."""

    areas: int | Literal["all"] = "all"
    views: int = 200


@dataclass(frozen=True, kw_only=True)
class ClusterEvaluation(Evaluation):
    """As `Evaluation`, at the scale of a country whose clusters were moved by up to 10 km."""

    block_m: float = 100_000.0
    buffer_m: float = 20_000.0


@dataclass(frozen=True, kw_only=True)
class ClusterTraining(Network):
    """As `Network`, with the backbone of the livelihood papers."""

    backbone: str = "resnet34"
    indicators: tuple[str, ...] = tuple(LIVELIHOODS)
    """What is learned, of what the survey has: leave out what is known of too few clusters."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _require(len(self.indicators) > 0, "indicators", "at least one", list(self.indicators))
        for indicator in self.indicators:
            _require(indicator in LIVELIHOODS, "indicators", f"from {', '.join(LIVELIHOODS)}", indicator)


@dataclass(frozen=True, kw_only=True)
class Country(Place):
    """Clusters of a survey, each seen through up to 200 street images."""

    survey: Survey
    sample: ClusterSample = field(default_factory=ClusterSample)
    evaluation: ClusterEvaluation = field(default_factory=ClusterEvaluation)
    training: ClusterTraining = field(default_factory=ClusterTraining)
    scenes: Scenes = field(default_factory=Scenes)
    graph: Graph = field(default_factory=Graph)

    def __post_init__(self) -> None:
        least = self.survey.rural_m
        expected = f"at least the {least:g} m that the survey has moved its clusters"
        _require(self.evaluation.block_m >= least, "evaluation.block_m", expected, self.evaluation.block_m)
        _require(self.evaluation.buffer_m >= least, "evaluation.buffer_m", expected, self.evaluation.buffer_m)


# --- worlds: cells of a grid instead of areas -------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class CellSample:
    """Which cells of the finest level are asked for images, and how many are kept of each."""

    cells: int | Literal["all"] = "all"
    """Cells on land, drawn at random; fewer for a first look."""
    views: int = 20
    """Images of a cell at most, one a sequence, near points spread at random over its land."""
    probes: int = 20
    """Such points in a cell; a provider that cannot be asked about a whole cell is asked around each."""
    probe_m: float = 1_000.0
    """Side of the square that is searched around a point, in metres."""
    seed: int = 7

    def __post_init__(self) -> None:
        _require(self.cells == "all" or self.cells >= 1, "cells", 'at least 1, or "all"', self.cells)
        _require(self.views >= 1, "views", "at least 1", self.views)
        _require(self.probes >= 1, "probes", "at least 1", self.probes)
        _require(1 <= self.probe_m <= 10_000, "probe_m", "1 to 10000 metres", self.probe_m)


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Which cells are told apart, how sure an answer has to be, and how fine it may be."""

    levels: tuple[int, ...] = (1, 3, 5, 8)
    least: int = 20
    """Training images of a class at least; cells with fewer hand theirs to their parent."""
    apart_m: float = 1_000.0
    """Least distance between images that train, calibrate and test, in metres."""
    coverage: float = 0.9
    """How often a prediction set has to hold the true cell."""
    confidence: float = 0.9
    """Probability of the cell an answer names."""
    finest: int | None = None
    """Precision cap: no answer is finer than this level."""

    def __post_init__(self) -> None:
        rising = bool(self.levels) and list(self.levels) == sorted({*self.levels})
        _require(rising and self.levels[0] >= 1, "levels", "rising levels, from 1 to 12", list(self.levels))
        _require(self.levels[-1] <= 12, "levels", "rising levels, from 1 to 12", list(self.levels))
        _require(self.least >= 1, "least", "at least 1 image", self.least)
        _require(self.apart_m > 0, "apart_m", "more than 0 metres", self.apart_m)
        _require(0 < self.coverage < 1, "coverage", "a share above 0 and below 1", self.coverage)
        _require(0.5 < self.confidence < 1, "confidence", "a share above 0.5 and below 1", self.confidence)
        _require(
            self.finest is None or self.finest in self.levels, "finest", f"one of {list(self.levels)}", self.finest
        )


@dataclass(frozen=True, kw_only=True)
class CellTraining:
    """How the classifiers of cells are trained (`urbanprint.geolocation.network.GeolocationConfig`)."""

    backbone: str = "resnet50"
    weights: str = "imagenet"
    """`imagenet`, the path of a weights file, or openly `none`."""
    size: int = 224
    """Side of the square an image is decoded to, in pixels."""
    epochs: int = 20
    patience: int = 5
    batch: int = 64
    learning_rate: float = 3e-4
    dropout: float = 0.2
    label_smoothing: float = 0.1
    cutmix: float = 0.5
    mirror: bool = False
    """Also mirror images: off, because the side of the road tells where a picture was taken."""
    tau_km: float = 75.0
    """Distance over which the targets of the joint model fall off around an image, in kilometres."""
    sampling: Literal["none", "effective-number", "balanced"] = "none"
    seed: int = 7


@dataclass(frozen=True, kw_only=True)
class World:
    """A planet on whose land images are sought cell by cell, to learn where a photograph was taken."""

    key: str
    name: str
    imagery: Imagery
    land: str
    """Address of its land as polygons, such as Natural Earth's 1:50m."""
    licence: str
    attribution: str
    """Of the land."""
    regions: str | None = None
    """Address of polygons with a column `continent`, by which scores are told apart."""
    sample: CellSample = field(default_factory=CellSample)
    cells: Cells = field(default_factory=Cells)
    training: CellTraining = field(default_factory=CellTraining)

    @property
    def simulated(self) -> bool:
        """Whether the best reachable scores are known."""
        return (self.imagery.endpoint or "").startswith(SIMULATION_SCHEME)

    @property
    def levels(self) -> tuple[str, ...]:
        """Its partitions by grid level: `planet-L1`, `planet-L3`."""
        return tuple(f"{self.key}-L{level}" for level in self.cells.levels)
