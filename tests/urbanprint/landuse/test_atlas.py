"""Polygons of Urban Atlas are read by code, and cut by cells as brute force would."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError
from urbanprint.landuse.atlas import CELL_LAND_USE, LAND_USE, clip_to_cells, read_urban_atlas
from urbanprint.landuse.classes import CLASSES

X, Y = 3_919_000.0, 2_528_800.0  # Lyon
BOWTIE = shapely.Polygon([(X, Y), (X + 10, Y + 10), (X + 10, Y), (X, Y + 10)])


def square(column, row, side=200.0):
    return shapely.box(X + column * side, Y + row * side, X + (column + 1) * side, Y + (row + 1) * side)


def atlas_file(folder, codes=("11100", "50000"), column="code_2012", crs=3035, geometry=None, name="lyon.gpkg"):
    shapes = [square(number, 0) for number in range(len(codes))] if geometry is None else geometry
    gpd.GeoDataFrame({column: codes}, geometry=shapes, crs=crs).to_file(folder / name, layer=f"layer_{column}")
    return folder / name


def polygons_of(shapes, classes):
    frame = gpd.GeoDataFrame({"code": "0", "class": classes}, geometry=list(shapes), crs=3035)
    return LAND_USE.validate(frame.astype({"code": "str", "class": "str"}))


def cells_of(shapes):
    ids = pd.Series([f"c{number:03d}" for number in range(len(shapes))], dtype="str")
    return gpd.GeoDataFrame({"cell_id": ids}, geometry=list(shapes), crs=3035)


@pytest.mark.parametrize("column", ["code_2012", "CODE2012", "CODE_2012", "Code_2012"])
@pytest.mark.parametrize("codes", [["11100", "50000"], [11100, 50000], [11100.0, 50000.0]])
def test_codes_are_found_however_they_are_written(tmp_path, column, codes):
    atlas = read_urban_atlas(atlas_file(tmp_path, codes=codes, column=column), year=2012)
    LAND_USE.validate(atlas.polygons)
    assert atlas.polygons["code"].tolist() == ["11100", "50000"]
    assert atlas.polygons["class"].tolist() == ["continuous urban fabric", "water"]
    assert (atlas.repaired, atlas.without_data) == (0, 0)


def test_polygons_come_in_square_metres_whatever_their_system(tmp_path):
    lambert = gpd.GeoSeries([square(0, 0)], crs=3035).to_crs(2154)
    atlas = read_urban_atlas(atlas_file(tmp_path, codes=["11100"], crs=2154, geometry=lambert.to_list()), year=2012)
    assert atlas.polygons.crs == 3035
    assert atlas.polygons.area.tolist() == pytest.approx([40_000.0], rel=1e-5)


def test_invalid_polygons_are_repaired_and_counted(tmp_path):
    atlas = read_urban_atlas(atlas_file(tmp_path, geometry=[BOWTIE, square(1, 1)]), year=2012)
    assert atlas.repaired == 1
    assert atlas.polygons.is_valid.all()
    assert atlas.polygons.area[0] == pytest.approx(50.0)


def test_ground_whose_use_is_not_known_is_left_out(tmp_path):
    atlas = read_urban_atlas(atlas_file(tmp_path, codes=["91000", "11100", "92000"]), year=2012)
    assert atlas.polygons["code"].tolist() == ["11100"]
    assert atlas.without_data == 2


def test_a_table_of_the_user_replaces_ours(tmp_path):
    classes = {"11100": "town", "50000": "no data"}
    atlas = read_urban_atlas(atlas_file(tmp_path), year=2012, classes=classes)
    assert atlas.polygons["class"].tolist() == ["town"]
    with pytest.raises(InputError, match=r"lyon.gpkg has 1 codes without a class \(50000\)"):
        read_urban_atlas(atlas_file(tmp_path), year=2012, classes={"11100": "town"})


def test_the_layer_with_the_codes_is_found_among_others(tmp_path):
    path = atlas_file(tmp_path)
    gpd.GeoDataFrame({"fua_name": ["Lyon"]}, geometry=[square(0, 0, 1000)], crs=3035).to_file(path, layer="boundary")
    assert len(read_urban_atlas(path, year=2012).polygons) == 2
    with pytest.raises(InputError, match=r"no column code_2018 of land use.*layer boundary: fua_name"):
        read_urban_atlas(path, year=2018)
    with pytest.raises(InputError, match="no column code_2012"):
        read_urban_atlas(path, year=2012, layer="boundary")
    atlas_file(tmp_path, column="CODE2012")
    with pytest.raises(InputError, match="2 columns code_2012 of land use: name the layer"):
        read_urban_atlas(path, year=2012)
    assert len(read_urban_atlas(path, year=2012, layer="layer_CODE2012").polygons) == 2


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"codes": ["11100", None]}, "polygon number 2, column 'code_2012' is empty"),
        ({"geometry": [square(0, 0), None]}, "polygon number 2 has no geometry that is one"),
        ({"geometry": [square(0, 0), shapely.Point(X, Y)]}, "polygon number 2 has no geometry that is one"),
        ({"geometry": [square(0, 0), shapely.Polygon([(X, Y), (X + 1, Y), (X, Y)])]}, "polygon number 2 has no area"),
        ({"codes": [], "geometry": []}, "has no polygons"),
    ],
)
def test_a_mistake_in_a_file_is_named(tmp_path, change, sentence):
    with pytest.raises(InputError, match=rf"lyon\.gpkg.*{sentence}"):
        read_urban_atlas(atlas_file(tmp_path, **change), year=2012)


def test_a_file_that_states_no_system_is_refused(tmp_path):
    path = atlas_file(tmp_path, name="lyon.shp")
    path.with_suffix(".prj").unlink()
    with pytest.raises(InputError, match=r"lyon.shp states no coordinate system"):
        read_urban_atlas(path, year=2012)


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.gpkg does not exist"):
        read_urban_atlas(tmp_path / "none.gpkg", year=2012)
    (tmp_path / "lyon.gpkg").write_text("no database")
    with pytest.raises(InputError, match=r"lyon.gpkg cannot be read"):
        read_urban_atlas(tmp_path / "lyon.gpkg", year=2012)


def test_a_cell_holds_what_lies_in_it():
    # Two fields of one class side by side, a lake beyond them; the second cell sees a quarter of the lake.
    polygons = polygons_of(
        [shapely.box(X, Y, X + 50, Y + 200), shapely.box(X + 50, Y, X + 100, Y + 200), square(1, 0), square(5, 5)],
        ["farmland", "farmland", "water", "water"],
    )
    found = clip_to_cells(polygons, cells_of([square(0, 0), square(0.5, 0.5), square(9, 9)]))
    CELL_LAND_USE.validate(found)
    assert found[["cell_id", "class"]].to_numpy().tolist() == [["c000", "farmland"], ["c001", "water"]]
    assert found["area_m2"].tolist() == pytest.approx([20_000.0, 10_000.0])
    assert found.geometry[0].equals(shapely.box(X, Y, X + 100, Y + 200))


def test_cells_of_another_system_are_cut_in_square_metres():
    polygons = polygons_of([square(0, 0, 10_000)], ["water"])
    found = clip_to_cells(polygons, cells_of([square(3, 3)]).to_crs(4326))
    assert found["area_m2"].tolist() == pytest.approx([40_000.0], rel=1e-6)


def test_cells_without_land_use_make_an_empty_table():
    found = clip_to_cells(polygons_of([square(0, 0)], ["water"]), cells_of([square(2, 2), square(1, 0)]))
    assert len(CELL_LAND_USE.validate(found)) == 0  # touching is not holding


def test_polygons_that_overlap_are_refused():
    polygons = polygons_of([square(0, 0), square(0, 0)], ["water", "roads"])
    with pytest.raises(InputError, match="land use of cell c000 adds up to more than the cell"):
        clip_to_cells(polygons, cells_of([square(0, 0)]))


def brute_force(polygons, cells):
    """Areas by cell and class, each pair intersected, without an index and without cutting anything apart."""
    found = {}
    for cell_id, cell in zip(cells["cell_id"], cells.geometry, strict=True):
        for name in sorted(set(polygons["class"])):
            shapes = polygons.geometry[polygons["class"] == name]
            if (area := shapes.union_all().intersection(cell).area) > 0:
                found[cell_id, name] = area
    return found


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_cutting_agrees_with_brute_force(seed):
    rng = np.random.default_rng(seed)
    corners = shapely.MultiPoint(rng.uniform([X, Y], [X + 1000, Y + 1000], (30, 2)))
    shapes = shapely.get_parts(shapely.voronoi_polygons(corners)).tolist()  # a plane cut up without overlap
    polygons = polygons_of(shapes[:-4], rng.choice(["a", "b", "c"], len(shapes) - 4))
    cells = cells_of([square(column, row) for column in range(-1, 5) for row in range(5)])
    found = clip_to_cells(polygons, cells)
    expected = brute_force(polygons, cells)
    assert list(zip(found["cell_id"], found["class"], strict=True)) == list(expected)
    np.testing.assert_allclose(found["area_m2"], list(expected.values()), rtol=1e-9, atol=1e-6)
    # Areas of a cell sum to what is covered of it.
    covered = found.groupby("cell_id")["area_m2"].sum()
    union = polygons.union_all()
    for cell_id, cell in zip(cells["cell_id"], cells.geometry, strict=True):
        assert covered.get(cell_id, 0.0) == pytest.approx(union.intersection(cell).area, abs=1e-5)


def test_a_polygon_of_thousands_of_vertices_is_cut_as_a_whole_would_be():
    across = np.linspace(0, 1000, 4000)
    wavy = [
        shapely.LineString(np.column_stack([X + across, Y + north + 20 * np.sin(across / 7)]))
        for north in (150, 450, 850)
    ]
    upright = [shapely.LineString([(X + east, Y), (X + east, Y + 1000)]) for east in (130, 490, 770)]
    streets = shapely.union_all([line.buffer(6) for line in wavy + upright])
    blocks = square(0, 0, 1000).difference(streets)
    assert shapely.get_num_coordinates(streets) > 20_000
    polygons = polygons_of([streets, blocks], ["roads", "dense urban fabric"])
    cells = cells_of([square(column, row) for column in range(5) for row in range(5)])
    found = clip_to_cells(polygons, cells)
    expected = brute_force(polygons, cells)
    assert list(zip(found["cell_id"], found["class"], strict=True)) == list(expected)
    np.testing.assert_allclose(found["area_m2"], list(expected.values()), rtol=1e-9)
    assert found.is_valid.all()


@pytest.mark.parametrize("year", [2012, 2018])
def test_the_changes_of_cheshire_are_all_mapped(realdata, year):
    path = realdata / "urban_atlas" / "cheshire_change_2012_2018.gpkg"
    atlas = read_urban_atlas(path, year=year)
    assert len(atlas.polygons) == 1_064
    assert atlas.without_data == 0
    assert set(atlas.polygons["class"]) <= set(CLASSES)
    raw = gpd.read_file(path)
    assert atlas.polygons["code"].tolist() == raw[f"code_{year}"].tolist()
    np.testing.assert_allclose(atlas.polygons.area, raw["area"], rtol=1e-9)  # as published
    west, south, east, north = np.floor_divide(atlas.polygons.total_bounds, 1000).astype(int)
    cells = cells_of(
        [
            shapely.box(1000 * x, 1000 * y, 1000 * x + 1000, 1000 * y + 1000)
            for x in range(west, east + 1)
            for y in range(south, north + 1)
        ]
    )
    found = clip_to_cells(atlas.polygons, cells)
    assert found["area_m2"].sum() == pytest.approx(raw["area"].sum(), rel=1e-9)  # the grid covers all of it


def test_narva_is_read_under_its_own_headings(realdata):
    atlas = read_urban_atlas(realdata / "urban_atlas" / "narva_2012.gpkg", year=2012)
    assert atlas.polygons["class"].tolist() == ["industry, commerce and public units", "forests and natural areas"]
