"""A simulated town, its server, and everything an acquisition needs."""

from collections.abc import Iterator
from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest

from urbanprint.areas import join
from urbanprint.imagery.ledger import Ledger
from urbanprint.indicators.england import read_file7
from urbanprint.sampling import sample_points, stratify
from urbanprint.settings import Imagery
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.statistics import file7
from urbanprint.simulation.town import Town, build_town
from urbanprint.sources.http import Retry
from urbanprint.sources.mapillary import Mapillary
from urbanprint.sources.providers import terms_of

TERMS = terms_of(Imagery(key="mapillary", provider="mapillary"))


@pytest.fixture(scope="session")
def town() -> Town:
    return build_town()


@pytest.fixture(scope="session")
def areas(town: Town, tmp_path_factory: pytest.TempPathFactory) -> gpd.GeoDataFrame:
    path = tmp_path_factory.mktemp("town") / "file7.csv"
    file7(town).to_csv(path, index=False)
    statistics = read_file7(path, edition="simulation", areas_ranked=len(town.areas))
    boundaries = town.areas[["area_id", "geometry"]].assign(edition="simulation")
    return join(statistics, boundaries[["edition", "area_id", "geometry"]]).areas


@pytest.fixture(scope="session")
def sampled(areas: gpd.GeoDataFrame) -> pd.DataFrame:
    return stratify(areas, size=16, allocation="equal", seed=1)


@pytest.fixture(scope="session")
def points(areas: gpd.GeoDataFrame, sampled: pd.DataFrame) -> pd.DataFrame:
    return sample_points(areas, sampled["area_id"], points_per_area=4, spacing_m=30.0, seed=1)


@pytest.fixture
def server(town: Town) -> Iterator[SimulationServer]:
    with SimulationServer(town, token="t", image_width=64) as server:
        yield server


@pytest.fixture
def source(server: SimulationServer) -> Mapillary:
    retry = Retry(attempts=3, first_pause_s=0.01)
    return Mapillary(token="t", terms=TERMS, endpoint=f"{server.url}/mapillary", retry=retry)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite")
    yield ledger
    ledger.close()
