"""A small square town whose answers can be worked out by hand."""

from collections.abc import Callable

import geopandas as gpd
import numpy as np
import pytest
import shapely


@pytest.fixture(scope="session")
def square_town() -> Callable[..., gpd.GeoDataFrame]:
    """Builds a grid of `side` x `side` squares of 500 m, row by row, in boroughs of `borough_side` squares each way."""

    def build(side: int = 12, borough_side: int = 4, seed: int = 0) -> gpd.GeoDataFrame:
        row, column = (values.ravel() for values in np.mgrid[:side, :side])
        x, y = 600_000 + 500 * column, 5_700_000 + 500 * row
        districts = [f"D{r:02d}{c:02d}" for r, c in zip(row // borough_side, column // borough_side, strict=True)]
        return gpd.GeoDataFrame(
            {
                "area_id": [f"A{i:04d}" for i in range(side * side)],
                "district": districts,
                "imd_deprivation": np.random.default_rng(seed).uniform(size=side * side),
            },
            geometry=shapely.box(x, y, x + 500, y + 500),
            crs="EPSG:32630",
        ).to_crs("EPSG:4326")

    return build
