"""The cells of a conurbation as units of study: which there are, which are asked for tiles, and their folds.

What belongs here is joining: income cells with the map of land use around them, and the tables that acquisition and
the folds take. Reading incomes is in `indicators`, reading land use in `landuse`.
"""

from pathlib import Path
from typing import Literal, cast

import geopandas as gpd
import numpy as np
import pandas as pd
import pandera.pandas as pa

from urbanprint.errors import InputError
from urbanprint.evaluation.splits import make_folds
from urbanprint.indicators.filosofi import Side, measured_cells, read_income_cells, read_value_cells
from urbanprint.landuse.atlas import EQUAL_AREA
from urbanprint.settings import Income

LEAST_MAPPED = 0.5
"""Share of a cell whose use is known, from which on it belongs to the conurbation."""

TILE_CELLS = pa.DataFrameSchema(
    {
        "area_id": pa.Column(str, unique=True),
        "income": pa.Column(float, pa.Check.ge(0)),
        "people": pa.Column(float, pa.Check.gt(0)),
        "imputed": pa.Column(bool),
        "mapped": pa.Column(float, pa.Check.in_range(0.0, 1.0)),
        "x_m": pa.Column(float),
        "y_m": pa.Column(float),
        "geometry": pa.Column(nullable=False),
    },
    strict=True,
    name="tile_cells",
)
"""Cells of a conurbation: squares in EPSG:4326, the centre in metres of their grid, `mapped` = share of known use."""


def read_cells(path: Path, income: Income) -> gpd.GeoDataFrame:
    """Return the cells of an income grid (`INCOME_CELLS`) as the catalogue describes it. Raises as its reader does."""
    if income.edition == "values":
        return read_value_cells(path, crs=str(income.crs), size_m=income.size_m)
    return read_income_cells(
        path, edition=income.edition, size_m=cast(Side, income.size_m), crs=income.crs, layer=income.layer
    )


def conurbation_cells(
    cells: gpd.GeoDataFrame, land: gpd.GeoDataFrame, *, size_m: int, epsg: int, with_imputed: bool
) -> gpd.GeoDataFrame:
    """Return the cells (`TILE_CELLS`) of `cells` (`INCOME_CELLS`) whose land is known, sorted by area_id.

    `land` is what each cell holds of each use (`landuse.CELL_LAND_USE`); a cell belongs to the conurbation where it
    makes up half of it or more. Imputed cells are left out unless asked for. `epsg` is the system of the images'
    windows. Raises `InputError` where the cells are of another grid, or none is left.
    """
    if other := sorted(set(cells["epsg"]) - {epsg}):
        raise InputError(
            f"The income cells are squares of EPSG:{other[0]} and the images are windows of EPSG:{epsg}: set"
            f' crs = "EPSG:{other[0]}" in the table of the imagery.'
        )
    known = land.groupby("cell_id")["area_m2"].sum() / size_m**2
    mapped = cells["cell_id"].map(known).fillna(0.0).clip(upper=1.0)
    inside = cells[(mapped >= LEAST_MAPPED).to_numpy()]
    if inside.empty:
        raise InputError(
            f"None of the {len(cells)} income cells lies on the map of land use: name the files of one conurbation."
        )
    kept = measured_cells(inside, with_imputed=with_imputed).rename(columns={"cell_id": "area_id"})
    kept = kept.assign(mapped=kept["area_id"].map(known).clip(upper=1.0))
    return TILE_CELLS.validate(kept[list(TILE_CELLS.columns)].sort_values("area_id", ignore_index=True))


def cells_near(cells: gpd.GeoDataFrame, polygons: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return the cells that meet the bounding box of `polygons`: the rest of a country is not clipped."""
    west, south, east, north = polygons.total_bounds
    bounds = cells.to_crs(EQUAL_AREA).bounds
    met = (bounds["maxx"] > west) & (bounds["minx"] < east) & (bounds["maxy"] > south) & (bounds["miny"] < north)
    return cells[met].reset_index(drop=True)


def cells_to_photograph(
    cells: gpd.GeoDataFrame, *, number: int | Literal["all"], seed: int
) -> tuple[gpd.GeoDataFrame, pd.DataFrame, pd.DataFrame]:
    """The cells as the tables that `acquire` takes: areas, the sample of them, and no points, as a tile is the cell.

    The sample is `number` cells in seeded order, the same first ones for every number, each in the tenth of incomes it
    is in, and none in reserve.
    """
    order = np.random.default_rng(seed).permutation(len(cells))
    order = order if number == "all" else order[:number]
    tenth = np.ceil(cells["income"].rank(method="first") / len(cells) * 10).astype(int)
    sampled = pd.DataFrame(
        {
            "area_id": cells["area_id"].iloc[order].to_numpy(),
            "stratum": tenth.iloc[order].to_numpy(),
            "order": np.arange(len(order)),
            "role": "primary",
        }
    ).astype({"area_id": "str", "role": "str"})
    points = pd.DataFrame(
        {
            "point_id": pd.Series(dtype="str"),
            "area_id": pd.Series(dtype="str"),
            "longitude": pd.Series(dtype=float),
            "latitude": pd.Series(dtype=float),
        }
    )
    return cells[["area_id", "geometry"]], sampled, points


def tile_folds(cells: gpd.GeoDataFrame, *, folds: int, block_m: float, seed: int, crs: str, name: str) -> pd.DataFrame:
    """Folds (`tables.FOLDS`) of cells: whole squares of `block_m` of their own grid, and, for the audit, at random.

    Squares of the grid of the images, so that none of the square kilometres that were photographed together is divided.
    `name` stands for the borough, which a grid does not have.
    """
    return make_folds(
        cells.assign(district=name), folds=folds, seed=seed, block_m=block_m, kinds=("random", "block"), crs=crs
    )


def tile_images(images: pd.DataFrame, folds: pd.DataFrame) -> pd.DataFrame:
    """The fetched tiles of the cells in `folds`, one a cell, sorted by cell."""
    usable = (images["state"] == "fetched") & images["area_id"].isin(folds["area_id"])
    return images[usable].drop_duplicates("area_id").sort_values("area_id", ignore_index=True)
