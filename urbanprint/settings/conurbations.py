"""Conurbations: cells of an income grid, each seen in one tile from above, beside the use of its land."""

from dataclasses import dataclass, field
from typing import Literal

from urbanprint.settings.checks import require
from urbanprint.settings.places import Evaluation, Network, Place, Sample

HEADS = ("binomial", "cumulative", "regression")
"""Ordinal heads (`urbanprint.models.ordinal`)."""


@dataclass(frozen=True, kw_only=True)
class Income:
    """A published grid of cells with incomes (`urbanprint.indicators.filosofi`)."""

    table: str
    """Address of a CSV, GeoPackage or shapefile."""
    edition: Literal["filosofi2015", "filosofi2017", "filosofi2019", "values"] = "filosofi2019"
    """Whose headings the file has; `values` is any grid of squares: x, y of the south-west corners and value."""
    size_m: int = 200
    """Side of a cell, in metres: 200 or 1000."""
    crs: str | None = None
    """System of x and y, for a file without identifiers of cells."""
    layer: str | None = None
    with_imputed: bool = False
    """Keep cells whose income was imputed: their pictures show one place and their labels tell of others."""
    licence: str
    attribution: str

    def __post_init__(self) -> None:
        require(self.size_m in (200, 1000), "size_m", "200 or 1000 metres", self.size_m)
        require(self.edition != "values" or self.crs is not None, "crs", 'given when edition is "values"', self.crs)

    @property
    def key(self) -> str:
        """What it is called among the sources of a page."""
        return "income"


@dataclass(frozen=True, kw_only=True)
class LandUse:
    """Polygons of land use (`urbanprint.landuse`); what they cover is the conurbation."""

    polygons: str
    """Address of a GeoPackage or shapefile."""
    year: Literal[2012, 2018] = 2018
    layer: str | None = None
    classes: str | None = None
    """Address of a CSV with the columns code and class; None: the 19 classes of Urban Atlas."""
    licence: str
    attribution: str

    @property
    def key(self) -> str:
        """What it is called among the sources of a page."""
        return "land use"


@dataclass(frozen=True, kw_only=True)
class TileSample(Sample):
    """As `Sample`, of cells: one tile each."""

    areas: int | Literal["all"] = "all"
    views: int = 1


@dataclass(frozen=True, kw_only=True)
class TileEvaluation(Evaluation):
    """As `Evaluation`, at the scale of cells: tiles that touch a test tile do not train."""

    block_m: float = 2_000.0
    buffer_m: float = 400.0


@dataclass(frozen=True, kw_only=True)
class TileTraining(Network):
    """As `Network`, with an ordinal head over income classes."""

    backbone: str = "efficientnet_b0"
    views: int = 1
    stages: int | None = None
    """How much of the network is kept, in halvings of the resolution: fewer show finer where it looks."""
    classes: int = 5
    """Income classes, cut at the quantiles of the training cells."""
    heads: tuple[str, ...] = HEADS
    """Ordinal heads compared under the same folds; the first is the one that is explained and shown."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(3 <= self.classes <= 20, "classes", "3 to 20", self.classes)
        known = bool(self.heads) and set(self.heads) <= set(HEADS) and len(set(self.heads)) == len(self.heads)
        require(known, "heads", f"different ones of {', '.join(HEADS)}", list(self.heads))


@dataclass(frozen=True, kw_only=True)
class Attention:
    """How what the network looks at is tested (`urbanprint.explanation.spatial_null`)."""

    method: Literal["grad-cam", "guided-grad-cam", "integrated"] = "grad-cam"
    permutations: int = 9_999
    """Of each null; fewer could not tell a finding among 342 pairs from chance."""
    repeats: int = 1_000
    """Draws of whole blocks behind an interval."""
    seed: int = 7

    def __post_init__(self) -> None:
        require(self.permutations >= 199, "permutations", "at least 199", self.permutations)
        require(self.repeats >= 100, "repeats", "at least 100", self.repeats)


@dataclass(frozen=True, kw_only=True)
class Conurbation(Place):
    """The cells of an income grid within a map of land use: a functional urban area."""

    income: Income
    land_use: LandUse
    sample: TileSample = field(default_factory=TileSample)
    evaluation: TileEvaluation = field(default_factory=TileEvaluation)
    training: TileTraining = field(default_factory=TileTraining)
    attention: Attention = field(default_factory=Attention)

    def __post_init__(self) -> None:
        super().__post_init__()
        side, tile = self.income.size_m, self.imagery.side_m
        require(tile == side, "imagery", f"one whose side_m is {side}, as the cells of the income grid are", tile)
        block = self.evaluation.block_m
        whole = "a multiple of 1000 metres, as a square kilometre is photographed together"
        require(block % 1000 == 0, "evaluation.block_m", whole, block)
        least = 1.5 * side  # the diagonal neighbour of a test tile is 1.41 sides away
        require(
            self.evaluation.buffer_m >= least,
            "evaluation.buffer_m",
            f"at least {least:g} metres, so that no tile beside a test tile trains",
            self.evaluation.buffer_m,
        )

    @property
    def from_above(self) -> bool:
        """Its images are orthophotos."""
        return True
