"""A square of cells on the European grid with incomes, and its folds."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely

from urbanprint.aerial.cells import tile_folds

SIDE = 12


@pytest.fixture(scope="session")
def cells() -> gpd.GeoDataFrame:
    column, row = np.indices((SIDE, SIDE)).reshape(2, -1)
    x, y = 3_800_100.0 + 200 * column, 2_600_100.0 + 200 * row
    rng = np.random.default_rng(4)
    frame = pd.DataFrame(
        {
            "area_id": [f"CRS3035RES200mN{b - 100:.0f}E{a - 100:.0f}" for a, b in zip(x, y, strict=True)],
            "income": np.round(15_000 + 5_000 * rng.random(len(x)) + 1_000 * column, 1),
            "people": 100.0,
            "imputed": False,
            "mapped": 1.0,
            "x_m": x,
            "y_m": y,
        }
    ).astype({"area_id": "str"})
    squares = gpd.GeoSeries(shapely.box(x - 100, y - 100, x + 100, y + 100), crs=3035)
    table = gpd.GeoDataFrame(frame, geometry=squares.to_crs(4326))
    return table.sort_values("area_id", ignore_index=True)


@pytest.fixture(scope="session")
def folds(cells: gpd.GeoDataFrame) -> pd.DataFrame:
    return tile_folds(cells, folds=2, block_m=1000, seed=1, crs="EPSG:3035", name="Town")


@pytest.fixture(scope="session")
def incomes(cells: gpd.GeoDataFrame) -> pd.Series:
    return cells.set_index("area_id")["income"]


@pytest.fixture(scope="session")
def images(cells: gpd.GeoDataFrame) -> pd.DataFrame:
    """One tile a cell; those of a square kilometre were photographed together."""
    kilometre = (cells["x_m"] // 1000).astype(int).astype(str) + "_" + (cells["y_m"] // 1000).astype(int).astype(str)
    return pd.DataFrame(
        {
            "image_id": "tile-" + cells["area_id"],
            "area_id": cells["area_id"],
            "sha256": "sha-" + cells["area_id"],
            "sequence_id": kilometre,
        }
    )
