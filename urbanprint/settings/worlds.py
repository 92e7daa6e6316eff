"""Worlds: cells of a grid instead of areas."""

from dataclasses import dataclass, field
from typing import Literal

from urbanprint.settings.checks import require
from urbanprint.settings.imagery import SIMULATION_SCHEME, Imagery


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
        require(self.cells == "all" or self.cells >= 1, "cells", 'at least 1, or "all"', self.cells)
        require(self.views >= 1, "views", "at least 1", self.views)
        require(self.probes >= 1, "probes", "at least 1", self.probes)
        require(1 <= self.probe_m <= 10_000, "probe_m", "1 to 10000 metres", self.probe_m)


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
        require(rising and self.levels[0] >= 1, "levels", "rising levels, from 1 to 12", list(self.levels))
        require(self.levels[-1] <= 12, "levels", "rising levels, from 1 to 12", list(self.levels))
        require(self.least >= 1, "least", "at least 1 image", self.least)
        require(self.apart_m > 0, "apart_m", "more than 0 metres", self.apart_m)
        require(0 < self.coverage < 1, "coverage", "a share above 0 and below 1", self.coverage)
        require(0.5 < self.confidence < 1, "confidence", "a share above 0.5 and below 1", self.confidence)
        require(self.finest is None or self.finest in self.levels, "finest", f"one of {list(self.levels)}", self.finest)


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

    def __post_init__(self) -> None:
        require(not self.imagery.from_above, "imagery", "a source of photographs of streets", self.imagery.key)

    @property
    def simulated(self) -> bool:
        """Whether the best reachable scores are known."""
        return (self.imagery.endpoint or "").startswith(SIMULATION_SCHEME)

    @property
    def levels(self) -> tuple[str, ...]:
        """Its partitions by grid level: `planet-L1`, `planet-L3`."""
        return tuple(f"{self.key}-L{level}" for level in self.cells.levels)
