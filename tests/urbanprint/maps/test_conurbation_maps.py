"""Maps of a conurbation: every class has its colour, holes stay empty."""

import io

import geopandas as gpd
import numpy as np
import shapely
from PIL import Image

from urbanprint.maps.conurbation_maps import cell_income_map, land_use_map


def pixels(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB")).astype(int)


def painted(png: bytes, colour: tuple[int, int, int]) -> int:
    return int((np.abs(pixels(png) - colour).max(axis=2) < 6).sum())


def test_a_hole_is_not_painted_whichever_way_its_ring_runs() -> None:
    whole = shapely.box(0, 0, 100, 100)
    lake = whole.difference(shapely.box(25, 25, 75, 75))
    shapes = (whole, lake, shapely.orient_polygons(lake, exterior_cw=True))
    whole_px, lake_px, turned_px = (
        painted(land_use_map(gpd.GeoDataFrame({"class": ["water"]}, geometry=[shape], crs=3035)), (0x6F, 0xA8, 0xDC))
        for shape in shapes
    )
    assert lake_px == turned_px
    assert 0.7 < lake_px / whole_px < 0.8  # the hole is a quarter; the patch of the legend is small


def test_cells_are_coloured_by_income() -> None:
    squares = [shapely.box(0, 0, 1, 1), shapely.box(1, 0, 2, 1)]
    table = gpd.GeoDataFrame({"income": [10_000.0, 30_000.0]}, geometry=squares, crs=4326)
    alike = table.assign(income=[20_000.0, 20_000.001])
    first, second = (pixels(cell_income_map(cells)) for cells in (table, table[::-1]))
    assert (first == second).all()
    assert not (first == pixels(cell_income_map(alike))).all()
