"""What a user may say of a place or a world: whose statistics, which imagery, how it is sampled and judged.

Records only, and what each value has to be. How they are read from `cities.toml` is in `catalogue`; where files lie and
how they are read is for others.
"""

from urbanprint.settings.checks import RejectedValue
from urbanprint.settings.conurbations import (
    Attention,
    Conurbation,
    Income,
    LandUse,
    TileEvaluation,
    TileSample,
    TileTraining,
)
from urbanprint.settings.countries import (
    ClusterEvaluation,
    ClusterSample,
    ClusterTraining,
    Country,
    Graph,
    Scenes,
    Survey,
)
from urbanprint.settings.imagery import SIMULATION_SCHEME, Imagery, Quality
from urbanprint.settings.places import City, Edition, Evaluation, Network, Place, Sample, Training
from urbanprint.settings.worlds import Cells, CellSample, CellTraining, World

__all__ = [
    "SIMULATION_SCHEME",
    "Attention",
    "CellSample",
    "CellTraining",
    "Cells",
    "City",
    "ClusterEvaluation",
    "ClusterSample",
    "ClusterTraining",
    "Conurbation",
    "Country",
    "Edition",
    "Evaluation",
    "Graph",
    "Imagery",
    "Income",
    "LandUse",
    "Network",
    "Place",
    "Quality",
    "RejectedValue",
    "Sample",
    "Scenes",
    "Survey",
    "TileEvaluation",
    "TileSample",
    "TileTraining",
    "Training",
    "World",
]
