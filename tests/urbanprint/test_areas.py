"""Boundary files of every make, the join by code, and which area a point lies in."""

import json
import shutil
import sqlite3
import zipfile
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from urbanprint.areas import assign, join, projected, read_boundaries, representative_points, select_districts
from urbanprint.errors import CatalogueError, InputError
from urbanprint.indicators.england import read_file7
from urbanprint.tables import AREAS, BOUNDARIES, DEPRIVATION

WEST, SOUTH, STEP = -0.1, 51.5, 0.01
SHAPEFILE = ("england", "london_lsoa11_no_epsg_shapefile")


def _cells(columns: int = 3, rows: int = 2) -> gpd.GeoDataFrame:
    """A grid of square areas that share borders: E01000000, E01000001, ..., row by row."""
    boxes = [
        shapely.box(WEST + x * STEP, SOUTH + y * STEP, WEST + (x + 1) * STEP, SOUTH + (y + 1) * STEP)
        for y in range(rows)
        for x in range(columns)
    ]
    codes = [f"E0100000{number}" for number in range(len(boxes))]
    return gpd.GeoDataFrame({"LSOA21CD": codes, "LSOA21NM": codes}, geometry=boxes, crs=4326)


def _boundaries(columns: int = 3, rows: int = 2) -> gpd.GeoDataFrame:
    cells = _cells(columns, rows)
    frame = gpd.GeoDataFrame({"edition": "lsoa2021", "area_id": cells["LSOA21CD"]}, geometry=cells.geometry)
    return BOUNDARIES.validate(frame.astype({"edition": "str"}))


def _statistics(codes: list[str], *, edition: str = "imd2025") -> pd.DataFrame:
    frame = pd.DataFrame({"edition": edition, "area_id": codes, "name": codes})
    frame["district_code"] = ["E09000001" if number % 2 else "E09000002" for number in range(len(codes))]
    frame["district"] = frame["district_code"].map({"E09000001": "City", "E09000002": "Barking"})
    for column in DEPRIVATION.columns:
        if column not in frame:
            frame[column] = 1.0
    return DEPRIVATION.validate(frame[list(DEPRIVATION.columns)])


def _geojson(path: Path, geometries: dict[str, dict[str, Any] | None]) -> Path:
    features = [
        {"type": "Feature", "properties": {"LSOA21CD": code}, "geometry": geometry}
        for code, geometry in geometries.items()
    ]
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


def _apart(frame: gpd.GeoDataFrame) -> float:
    """The greatest distance from the cells, in degrees."""
    return float(shapely.hausdorff_distance(frame.geometry.to_numpy(), _cells().geometry.to_numpy()).max())


def _polygon(*ring: tuple[float, float]) -> dict[str, Any]:
    return {"type": "Polygon", "coordinates": [list(ring)]}


SQUARE = _polygon((0, 51), (1, 51), (1, 52), (0, 52), (0, 51))


# --- reading ---


@pytest.mark.parametrize("name", ["cells.gpkg", "cells.geojson", "cells.shp"])
@pytest.mark.parametrize("crs", [4326, 27700])
def test_every_format_gives_the_same_boundaries(tmp_path: Path, name: str, crs: int) -> None:
    _cells().to_crs(crs).to_file(tmp_path / name)
    read = read_boundaries(tmp_path / name, edition="lsoa2021")
    assert read.frame.crs.to_epsg() == 4326
    assert read.frame["area_id"].tolist() == _cells()["LSOA21CD"].tolist()
    assert (read.repaired, len(read.notes)) == ((), 0 if crs == 4326 else 1)
    assert _apart(read.frame) < 1e-7  # degrees: a centimetre


def test_the_folder_of_a_shapefile_may_be_named(tmp_path: Path) -> None:
    _cells().to_file(tmp_path / "cells.shp")
    assert len(read_boundaries(tmp_path, edition="e").frame) == 6
    _cells().to_file(tmp_path / "others.gpkg")
    with pytest.raises(InputError, match=r"holds 2 boundary files \(cells\.shp, others\.gpkg\)"):
        read_boundaries(tmp_path, edition="e")


@pytest.mark.parametrize("column", ["LSOA11CD", "lsoa11_code", "LSOA21CD", "DZ2011CD", "area_id"])
def test_the_code_column_is_recognised(tmp_path: Path, column: str) -> None:
    _cells().rename(columns={"LSOA21CD": column}).to_file(tmp_path / "cells.gpkg")
    assert read_boundaries(tmp_path / "cells.gpkg", edition="e").frame["area_id"].iloc[0] == "E01000000"


def test_a_code_column_that_is_not_evident_must_be_named(tmp_path: Path) -> None:
    cells = _cells().rename(columns={"LSOA21CD": "OA21CD"}).assign(WD24CD="E05000001")
    cells.to_file(tmp_path / "cells.gpkg")
    with pytest.raises(InputError, match=r"several code columns \(OA21CD, WD24CD\)"):
        read_boundaries(tmp_path / "cells.gpkg", edition="e")
    assert len(read_boundaries(tmp_path / "cells.gpkg", edition="e", code_column="OA21CD").frame) == 6
    with pytest.raises(InputError, match="no column NAME; it has OA21CD"):
        read_boundaries(tmp_path / "cells.gpkg", edition="e", code_column="NAME")
    cells[["LSOA21NM", "geometry"]].to_file(tmp_path / "names.gpkg")
    with pytest.raises(InputError, match="no column of area codes"):
        read_boundaries(tmp_path / "names.gpkg", edition="e")


def test_an_invalid_polygon_is_repaired_and_reported(tmp_path: Path) -> None:
    bow_tie = _polygon((0, 51), (1, 52), (1, 51), (0, 52), (0, 51))
    spike = _polygon((2, 51), (3, 51), (3, 52), (3, 53), (3, 52), (2, 52), (2, 51))
    path = _geojson(tmp_path / "a.geojson", {"A": SQUARE, "B": bow_tie, "C": spike})
    read = read_boundaries(path, edition="e")
    assert read.repaired == ("B", "C")
    assert read.frame.geometry.is_valid.all()
    assert shapely.area(read.frame.geometry.to_numpy()).tolist() == pytest.approx([1, 0.5, 1])
    assert set(read.frame.geom_type) <= {"Polygon", "MultiPolygon"}


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        (None, "area B has no geometry"),
        ({"type": "Polygon", "coordinates": []}, "area B has an empty geometry"),
        (_polygon((0, 51), (1, 51), (1, 52), (0, 52)), "area B has a ring that is not closed"),
        ({"type": "LineString", "coordinates": [[0, 51], [1, 51]]}, "area B is a LineString: expected a Polygon"),
        (_polygon((0, 51), (1, 51), (0, 51), (0, 51)), "the polygon of B has no area"),
        (_polygon((530_000, 180_000), (530_100, 180_000), (530_100, 180_100), (530_000, 180_000)), "area B has coord"),
    ],
)
def test_a_geometry_that_is_no_area_is_named(tmp_path: Path, geometry: dict[str, Any] | None, message: str) -> None:
    path = _geojson(tmp_path / "a.geojson", {"A": SQUARE, "B": geometry})
    with pytest.raises(InputError, match=rf"a\.geojson.* {message}"):
        read_boundaries(path, edition="e")


def test_an_unclosed_ring_in_a_geopackage_is_named(tmp_path: Path) -> None:
    """GDAL accepts it with a warning and hands it on; the last point of the first area is moved here, byte by byte."""
    path = tmp_path / "cells.gpkg"
    _cells().to_file(path)
    with sqlite3.connect(path) as database:
        for (trigger,) in database.execute("select name from sqlite_master where type = 'trigger'").fetchall():
            database.execute(f'drop trigger "{trigger}"')
        (blob,) = database.execute("select geom from cells where fid = 1").fetchone()
        moved = blob[:-16] + np.array([WEST, SOUTH + STEP / 2]).tobytes()
        database.execute("update cells set geom = ? where fid = 1", (moved,))
    database.close()
    with pytest.raises(InputError, match=r"cells\.gpkg: area E01000000 has a ring that is not closed"):
        read_boundaries(path, edition="e")


@pytest.mark.parametrize(
    ("code", "message"), [("E01000001", "area E01000001 stands 2 times"), ("", "feature 1 has no")]
)
def test_codes_are_given_and_unique(tmp_path: Path, code: str, message: str) -> None:
    cells = _cells()
    cells.loc[0, "LSOA21CD"] = code
    cells.to_file(tmp_path / "cells.gpkg")
    with pytest.raises(InputError, match=message):
        read_boundaries(tmp_path / "cells.gpkg", edition="e")


def test_an_absent_coordinate_system_is_refused_unless_stated(tmp_path: Path) -> None:
    _cells().to_crs(27700).to_file(tmp_path / "cells.shp")
    (tmp_path / "cells.prj").unlink()
    with pytest.raises(InputError, match=r"cells\.shp states no coordinate system.*state its system as `crs`"):
        read_boundaries(tmp_path / "cells.shp", edition="e")
    read = read_boundaries(tmp_path / "cells.shp", edition="e", crs="EPSG:27700")
    assert _apart(read.frame) < 1e-7


def test_an_unknown_coordinate_system_is_refused(tmp_path: Path) -> None:
    cells = _cells().to_crs("+proj=tmerc +lat_0=49 +lon_0=-2 +k=0.9996 +x_0=400001 +y_0=-100000 +ellps=airy")
    cells.to_file(tmp_path / "cells.gpkg")
    with pytest.raises(InputError, match=r"carries no EPSG code and is not known here: reproject"):
        read_boundaries(tmp_path / "cells.gpkg", edition="e")
    with pytest.raises(InputError, match="'EPSG:0' is not a coordinate system"):
        read_boundaries(tmp_path / "cells.gpkg", edition="e", crs="EPSG:0")


@pytest.mark.parametrize(("real", "stated"), [(27700, 4326), (4326, 27700), (3857, 27700), (32755, 27700)])
def test_coordinates_that_cannot_be_in_the_stated_system_are_refused(tmp_path: Path, real: int, stated: int) -> None:
    cells = _cells().to_crs(real if real != 32755 else 3857)
    if real == 32755:  # metres from the other end of the world
        cells = cells.translate(3e6, -2e6).to_frame("geometry").assign(LSOA21CD=cells["LSOA21CD"])
    cells.set_crs(stated, allow_override=True).to_file(tmp_path / "cells.gpkg")
    with pytest.raises(InputError, match=r"cells\.gpkg: area E01000000 has coordinates that cannot be in"):
        read_boundaries(tmp_path / "cells.gpkg", edition="e")


def test_what_is_not_a_boundary_file_is_said_in_words(tmp_path: Path) -> None:
    (tmp_path / "page.geojson").write_text("<html>moved</html>")
    with pytest.raises(InputError, match=r"page\.geojson cannot be read as boundaries"):
        read_boundaries(tmp_path / "page.geojson", edition="e")
    whole = tmp_path / "cells.gpkg"
    _cells().to_file(whole)
    (tmp_path / "half.gpkg").write_bytes(whole.read_bytes()[:50_000])
    with pytest.raises(InputError, match=r"half\.gpkg cannot be read as boundaries"):
        read_boundaries(tmp_path / "half.gpkg", edition="e")
    _cells().to_file(whole, layer="second")
    with pytest.raises(InputError, match=r"2 layers with geometry \(cells, second\)"):
        read_boundaries(whole, edition="e")
    assert len(read_boundaries(whole, edition="e", layer="second").frame) == 6
    with zipfile.ZipFile(tmp_path / "cells.zip", "w") as archive:
        archive.write(whole, "cells.gpkg")
    with pytest.raises(InputError, match="is a zip archive: unpack it first"):
        read_boundaries(tmp_path / "cells.zip", edition="e")
    with pytest.raises(InputError, match="does not exist"):
        read_boundaries(tmp_path / "none.gpkg", edition="e")
    with pytest.raises(InputError, match="holds no features"):
        read_boundaries(_geojson(tmp_path / "none.geojson", {}), edition="e", code_column="LSOA21CD")


def test_a_shapefile_without_an_epsg_code_lies_where_it_should(realdata: Path) -> None:
    read = read_boundaries(realdata.joinpath(*SHAPEFILE), edition="lsoa2011")
    assert len(read.repaired) == 8
    assert read.frame.geometry.is_valid.all()
    assert any("carries no EPSG code; its parameters are those of OSGB36" in note for note in read.notes)
    official = read_boundaries(realdata / "england" / "london_lsoa11.gpkg", edition="lsoa2011")
    assert (official.repaired, official.notes) == ((), ())
    ours = read.frame.set_index("area_id").to_crs(3035).centroid
    theirs = official.frame.set_index("area_id").to_crs(3035).centroid.loc[ours.index]
    apart_m = ours.distance(theirs)
    # Without the datum shift the median would be 125 m; what is left is another generalisation of the coast line.
    assert apart_m.median() < 0.5
    assert apart_m.quantile(0.95) < 5


def test_one_invalid_polygon_of_the_national_file_is_repaired(realdata: Path) -> None:
    read = read_boundaries(realdata / "england" / "england_wales_lsoa11_generalised.gpkg", edition="lsoa2011")
    assert (len(read.frame), len(read.repaired)) == (34_753, 1)


def test_a_system_that_is_neither_named_nor_known_is_refused_in_a_real_file(realdata: Path) -> None:
    with pytest.raises(InputError, match=r"broken_unclosed_ring\.gpkg.*carries no EPSG code and is not known"):
        read_boundaries(realdata / "france" / "broken_unclosed_ring.gpkg", edition="e", code_column="id_carr_2015")


def test_a_shapefile_without_its_companions_is_refused(realdata: Path, tmp_path: Path) -> None:
    name = "LSOA_2011_London_gen_MHW.shp"
    shutil.copy(realdata.joinpath(*SHAPEFILE) / name, tmp_path / name)
    with pytest.raises(InputError, match="cannot be read as boundaries"):
        read_boundaries(tmp_path / name, edition="e")


# --- joining ---


def test_the_join_reports_both_sides() -> None:
    joined = join(_statistics(["E01000004", "E01000001", "E01000009"]), _boundaries())
    assert joined.areas["area_id"].tolist() == ["E01000001", "E01000004"]
    assert list(joined.areas.columns) == list(AREAS.columns)
    assert joined.areas.crs.to_epsg() == 4326
    assert joined.without_boundary == ("E01000009",)
    assert joined.without_statistics == ("E01000000", "E01000002", "E01000003", "E01000005")


def test_a_join_without_a_common_code_or_of_two_editions_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"imd2025 \(such as W01\) is among the boundaries lsoa2021 \(such as E01000000"
    ):
        join(_statistics(["W01"]), _boundaries())
    both = pd.concat([_statistics(["E01000001"]), _statistics(["E01000001"], edition="imd2019")])
    with pytest.raises(InputError, match="statistics hold the editions imd2019, imd2025"):
        join(both, _boundaries())


def test_a_city_is_a_list_of_districts() -> None:
    table = _statistics(["E01000000", "E01000001", "E01000002"])
    assert select_districts(table, ["E09000001"])["area_id"].tolist() == ["E01000001"]
    assert len(select_districts(table, ["E09000001", "E09000002"])) == 3
    areas = join(table, _boundaries()).areas
    assert isinstance(select_districts(areas, ["E09000002"]), gpd.GeoDataFrame)
    with pytest.raises(CatalogueError, match=r"district E0900001; the nearest code is E09000001 \(City\)"):
        select_districts(table, ["E09000002", "E0900001"])


def test_real_statistics_and_boundaries_join_completely(realdata: Path) -> None:
    england = realdata / "england"
    statistics = read_file7(england / "iod2019_london_file7.csv", edition="imd2019", areas_ranked=32_844)
    joined = join(statistics, read_boundaries(england / "london_lsoa11.gpkg", edition="lsoa2011").frame)
    assert (len(joined.areas), joined.without_boundary, joined.without_statistics) == (4_835, (), ())
    wrong = join(statistics, read_boundaries(england / "london_lsoa21.gpkg", edition="lsoa2021").frame)
    assert (len(wrong.without_boundary), len(wrong.without_statistics)) == (
        4_835 - len(wrong.areas),
        4_994 - len(wrong.areas),
    )
    assert 4_000 < len(wrong.areas) < 4_835


# --- points in areas ---


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_assignment_agrees_with_a_spatial_join(seed: int) -> None:
    generator = np.random.default_rng(seed)
    areas = _boundaries().sample(frac=1, random_state=seed)
    lon, lat = (
        generator.uniform(WEST - STEP, WEST + 4 * STEP, 50),
        generator.uniform(SOUTH - STEP, SOUTH + 3 * STEP, 50),
    )
    points = gpd.GeoDataFrame(geometry=gpd.points_from_xy(lon, lat), crs=4326)
    oracle = points.sjoin(areas, predicate="within", how="left")["area_id"]
    assert [None if pd.isna(code) else code for code in oracle] == assign(lon, lat, areas).tolist()


def test_a_point_on_a_border_belongs_to_the_smallest_code_in_any_order() -> None:
    areas = _boundaries()
    corner = shapely.get_coordinates(areas.geometry.iloc[0]).max(axis=0)  # where areas 0, 1, 3 and 4 meet
    edge = (float(corner[0]), SOUTH + STEP * 1.5)  # between 3 and 4
    lon, lat = np.array([corner[0], edge[0], np.nan]), np.array([corner[1], edge[1], SOUTH])
    for seed in range(5):
        found = assign(lon, lat, areas.sample(frac=1, random_state=seed))
        assert found.tolist() == ["E01000000", "E01000003", None]
    assert assign(np.array([]), np.array([]), areas).shape == (0,)


def test_real_photographs_lie_in_the_areas_their_authors_found(realdata: Path) -> None:
    photographs = pd.read_csv(realdata / "london_street" / "manifest.csv")
    lon, lat = photographs["lon"].to_numpy(), photographs["lat"].to_numpy()
    drawn = read_boundaries(realdata.joinpath(*SHAPEFILE), edition="lsoa2011").frame
    assert (assign(lon, lat, drawn) == photographs["actual_lsoa11"].to_numpy()).all()
    # The GeoPackage generalises the same areas otherwise: three photographs change sides, all within 2 m of the border.
    other = read_boundaries(realdata / "england" / "london_lsoa11.gpkg", edition="lsoa2011").frame
    moved = assign(lon, lat, other) != photographs["actual_lsoa11"].to_numpy()
    assert moved.sum() == 3
    metric = projected(other).set_index("area_id").geometry
    points = gpd.GeoSeries.from_xy(lon[moved], lat[moved], crs=4326).to_crs(metric.crs)
    homes = gpd.GeoSeries(metric.loc[photographs.loc[moved, "actual_lsoa11"]].to_numpy(), crs=metric.crs)
    assert points.distance(homes).max() < 2


def test_metres_are_metres() -> None:
    areas = _boundaries()
    x_m, y_m = representative_points(areas)
    assert projected(areas).crs.axis_info[0].unit_name == "metre"
    # A hundredth of a degree of latitude is 1,112.5 m at 51.5 N (WGS 84); UTM's scale is within 0.1 %.
    assert abs(y_m[3] - y_m[0]) == pytest.approx(1_112.5, rel=2e-3)
    assert abs(x_m[1] - x_m[0]) == pytest.approx(694.3, rel=2e-3)
