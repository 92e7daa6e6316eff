"""Land: the files as they come, and the cells that meet it, against a plain test of every box."""

import json
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError
from urbanprint.grid import all_codes, from_ids, to_ids
from urbanprint.land import land_codes, on_land, read_land

NOWHERE = np.empty(0, dtype=object)


def _box_of(code: int, level: int) -> shapely.Polygon:
    """The box of a cell, digit by digit."""
    west, south, east, north = -180.0, -90.0, 180.0, 90.0
    for place in reversed(range(level)):
        digit = code >> 2 * place & 3
        x, y = (west + east) / 2, (south + north) / 2
        west, east = (x, east) if digit in (1, 3) else (west, x)
        south, north = (south, y) if digit in (2, 3) else (y, north)
    return shapely.box(west, south, east, north)


def _plainly(land: np.ndarray, level: int) -> list[int]:
    """The cells that meet the land, by testing every box of the level with every polygon."""
    shapely.prepare(land)
    boxes = np.array([_box_of(code, level) for code in range(4**level)])
    met = shapely.intersects(land[:, None], boxes).any(axis=0)
    return np.flatnonzero(met).tolist()


def _file(path: Path, *geometries: dict[str, Any] | None) -> Path:
    features = [{"type": "Feature", "properties": {"scalerank": 0}, "geometry": each} for each in geometries]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def _polygon(*ring: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [[*ring, ring[0]]]}


SQUARE = _polygon((0, 0), (1, 0), (1, 1), (0, 1))


# --- cells on land ---


@st.composite
def _islands(draw: st.DrawFn) -> np.ndarray:
    """Blobs, some with a lake, some with corners on the edges of cells, some touching."""
    coordinate = st.one_of(st.integers(-8, 8).map(lambda step: step / 8), st.floats(-1, 1))
    corners = st.lists(st.tuples(coordinate, coordinate), min_size=3, max_size=9)
    hulls = [shapely.convex_hull(shapely.MultiPoint(each)) for each in draw(st.lists(corners, min_size=1, max_size=5))]
    land = [shapely.transform(each, lambda at: at * [180, 90]) for each in hulls if each.area > 1e-6]
    if draw(st.booleans()) and land:
        x, y = land[0].centroid.coords[0]
        land[0] = land[0].difference(shapely.box(x - 40, y - 20, x + 40, y + 20))
    return shapely.get_parts(np.array(land, dtype=object))


@settings(max_examples=60, deadline=None)
@given(_islands(), st.integers(1, 5))
def test_the_cells_of_any_land_are_those_whose_box_meets_it(land: np.ndarray, level: int) -> None:
    assert land_codes(land, level).tolist() == _plainly(land, level)


def test_a_corner_that_touches_counts_and_a_lake_larger_than_a_cell_does_not() -> None:
    touching = np.array([shapely.box(22.5, 11.25, 45, 22.5)])  # a cell of L4: the eight around it touch it
    assert land_codes(touching, 4).tolist() == _plainly(touching, 4)
    assert len(land_codes(touching, 4)) == 9
    lake = np.array([shapely.box(-180, -90, 180, 90) - shapely.box(1, 1, 44, 22)])
    off = np.setdiff1d(all_codes(6), land_codes(lake, 6))
    assert off.tolist() == np.setdiff1d(all_codes(6), _plainly(lake, 6)).tolist()
    assert 0 < len(off) < 64


def test_an_earth_of_land_and_an_earth_of_sea() -> None:
    everywhere = np.array([shapely.box(-180, -90, 180, 90)])
    assert land_codes(everywhere, 8).tolist() == all_codes(8).tolist()
    assert land_codes(NOWHERE, 8).tolist() == []
    assert on_land(everywhere, [180.0, 0.0], [90.0, 0.0]).all()
    assert not on_land(NOWHERE, [0.0], [0.0]).any()


@pytest.mark.parametrize("seed", [0, 1])
def test_a_finer_level_lies_within_the_coarser(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(-170, 170, 30), rng.uniform(-80, 80, 30)
    land = shapely.buffer(shapely.points(x, y), rng.uniform(0.1, 10, 30))
    for level in range(1, 9):
        assert set(land_codes(land, level + 1) >> 2) == set(land_codes(land, level))


def test_all_65536_boxes_of_l8_on_the_real_map(realdata: Path) -> None:
    land = read_land(realdata / "natural_earth" / "ne_50m_land.json")
    codes = land_codes(land, 8)
    print(f"{len(codes):,} of 65,536 cells of L8 meet the land of Natural Earth 1:50m")
    assert codes.tolist() == _plainly(np.array([shapely.union_all(land)]), 8)
    assert len(codes) == 25_185


def test_the_repaired_map_gives_the_cells_of_its_union(realdata: Path) -> None:
    land = read_land(realdata / "natural_earth" / "ne_110m_land.json")
    assert land_codes(land, 7).tolist() == _plainly(np.array([shapely.union_all(land)]), 7)


# --- points on land ---


def test_known_places_are_on_land_or_at_sea(realdata: Path) -> None:
    land = read_land(realdata / "natural_earth" / "ne_50m_land.json")
    longitude, latitude = [-0.13, 36.82, 151.0, 0.0, -30.0, -140.0], [51.51, -1.29, -33.8, -85.0, 30.0, 0.0]
    assert on_land(land, longitude, latitude).tolist() == [True, True, True, True, False, False]


def test_points_on_land_are_those_that_meet_its_union() -> None:
    rng = np.random.default_rng(5)
    land = np.array([shapely.box(0, 0, 10, 10), shapely.box(5, 5, 20, 12), shapely.Point(-40, -40).buffer(20)])
    longitude, latitude = rng.uniform(-60, 30, 5000).round(), rng.uniform(-60, 30, 5000).round()  # many on the shore
    expected = shapely.intersects_xy(shapely.union_all(land), longitude, latitude)
    assert np.array_equal(on_land(land, longitude, latitude), expected)
    with pytest.raises(InputError, match="Row 1 lies at longitude nan"):
        on_land(land, [0.0, np.nan], [0.0, 0.0])


# --- files ---


def test_geojson_and_shapefile_give_the_same_cells(realdata: Path) -> None:
    folder = realdata / "natural_earth"
    geojson = land_codes(read_land(folder / "ne_50m_land.json"), 6)
    for path in (folder / "ne_50m_land_shapefile", folder / "ne_50m_land_shapefile" / "ne_50m_land.shp"):
        assert np.array_equal(land_codes(read_land(path), 6), geojson)


def test_invalid_polygons_are_repaired_or_left_out_and_multipolygons_taken_apart(tmp_path: Path) -> None:
    bow_tie = _polygon((0, 0), (2, 2), (2, 0), (0, 2))
    two = {
        "type": "MultiPolygon",
        "coordinates": [_polygon((5, 5), (6, 5), (6, 6))["coordinates"], SQUARE["coordinates"]],
    }
    line = _polygon((8, 8), (9, 9), (8, 8))
    land = read_land(_file(tmp_path / "land.geojson", bow_tie, two, line))
    assert shapely.is_valid(land).all()
    assert [each.geom_type for each in land] == ["Polygon"] * 4
    assert shapely.area(land).tolist() == [1.0, 1.0, 0.5, 1.0]


def test_other_coordinate_systems_become_degrees(tmp_path: Path) -> None:
    squares = gpd.GeoDataFrame(geometry=[shapely.box(30, 10, 31, 11)], crs=4326)
    squares.to_crs(3857).to_file(tmp_path / "land.shp")
    assert to_ids(land_codes(read_land(tmp_path / "land.shp"), 3), 3).tolist() == ["1/2/2"]
    assert from_ids(["1/2/2"])[0].tolist() == [0b011010]


@pytest.mark.parametrize(
    ("geometries", "message"),
    [
        ([], "holds no features"),
        ([SQUARE, None], "feature 2 is empty"),
        ([{"type": "Point", "coordinates": [0, 0]}], "feature 1 is a Point: expected a Polygon"),
        ([SQUARE, _polygon((190, 0), (200, 0), (200, 1))], r"feature 2 has the bounds \[190.0, 0.0, 200.0, 1.0\]"),
    ],
)
def test_a_file_that_is_no_land_is_refused(tmp_path: Path, geometries: list[Any], message: str) -> None:
    with pytest.raises(InputError, match=rf"^land\.geojson.*{message}"):
        read_land(_file(tmp_path / "land.geojson", *geometries))


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"land\.shp does not exist"):
        read_land(tmp_path / "land.shp")
    (tmp_path / "land.geojson").write_text('{"type": "FeatureCollection", "features": [{"ty')
    with pytest.raises(InputError, match=r"land\.geojson cannot be read as polygons"):
        read_land(tmp_path / "land.geojson")
    gpd.GeoDataFrame(geometry=[shapely.box(0, 0, 1, 1)], crs=4326).to_file(tmp_path / "land.shp")
    (tmp_path / "land.prj").unlink()
    with pytest.raises(InputError, match=r"land\.shp states no coordinate system"):
        read_land(tmp_path / "land.shp")
