"""Countries: clusters of a household survey instead of areas."""

from dataclasses import dataclass, field
from typing import Literal

from urbanprint.settings.checks import require
from urbanprint.settings.places import Evaluation, Network, Place, Sample
from urbanprint.vocabulary import CLUSTERWISE_METHODS, LIVELIHOODS


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
        require(self.urban_m > 0, "urban_m", "more than 0 metres", self.urban_m)
        require(self.rural_m >= self.urban_m, "rural_m", "at least urban_m", self.rural_m)
        require(self.search_m is None or self.search_m > 0, "search_m", "more than 0 metres", self.search_m)
        both = (self.train_list is None) == (self.validation_list is None)
        require(both, "validation_list", "given together with train_list", self.validation_list)

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
        require(self.batch >= 1, "batch", "at least 1", self.batch)


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
        require(self.epochs >= 1, "epochs", "at least 1", self.epochs)
        require(self.patience >= 1, "patience", "at least 1", self.patience)
        require(self.batch_clusters >= 1, "batch_clusters", "at least 1", self.batch_clusters)
        require(0 < self.learning_rate <= 1, "learning_rate", "above 0 and at most 1", self.learning_rate)
        require(self.weight_decay >= 0, "weight_decay", "at least 0", self.weight_decay)
        require(0 <= self.dropout < 1, "dropout", "at least 0 and below 1", self.dropout)


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
    methods: tuple[str, ...] = CLUSTERWISE_METHODS
    """What the cluster-wise learner is chosen from, inside each training part."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(len(self.indicators) > 0, "indicators", "at least one", list(self.indicators))
        for indicator in self.indicators:
            require(indicator in LIVELIHOODS, "indicators", f"from {', '.join(LIVELIHOODS)}", indicator)
        known = f"one or more of {', '.join(CLUSTERWISE_METHODS)}"
        require(bool(self.methods) and set(self.methods) <= set(CLUSTERWISE_METHODS), "methods", known, self.methods)


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
        super().__post_init__()
        least = self.survey.rural_m
        expected = f"at least the {least:g} m that the survey has moved its clusters"
        require(self.evaluation.block_m >= least, "evaluation.block_m", expected, self.evaluation.block_m)
        require(self.evaluation.buffer_m >= least, "evaluation.buffer_m", expected, self.evaluation.buffer_m)
