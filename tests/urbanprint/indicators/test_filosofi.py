"""Income cells are rebuilt from their ids and flagged as published; classes are cut on the training part alone."""

import json

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from pyproj import Geod

from urbanprint.errors import InputError
from urbanprint.indicators.filosofi import INCOME_CELLS, income_classes, measured_cells, read_income_cells

LYON = "CRS3035RES200mN2528800E3919000"
IDS = [LYON, "CRS3035RES200mN2529000E3919000", "CRS3035RES200mN2528800E3919200"]
PUBLISHED = {
    # The headings of 200 m files, of which the 1 km ones are a part.
    "filosofi2015": {"IdINSPIRE": IDS, "I_est_cr": [0, 1, 0], "Ind": [10, 2.5, 40], "Men": [5, 1, 20]},
    "filosofi2017": {"Idcar_200m": IDS, "I_est_200": [0, 1, 0], "Ind": [10, 2.5, 40], "Men": [5, 1, 20]},
    "filosofi2019": {"idcar_200m": IDS, "i_est_200": [0, 1, 0], "ind": [10, 2.5, 40], "men": [5, 1, 20]},
}
SUMS = [250_000.0, 50_000.0, 800_000.0]
WGS84 = Geod(ellps="WGS84")


def published(edition="filosofi2019", **change):
    frame = pd.DataFrame(PUBLISHED[edition])
    frame["ind_snv" if edition == "filosofi2019" else "Ind_snv"] = SUMS
    return frame.assign(**change)


def written(folder, frame, name="cells.csv"):
    path = folder / name
    frame.to_csv(path, index=False)
    return path


def read(path, **change):
    return read_income_cells(path, **{"edition": "filosofi2019", "size_m": 200, **change})


def cells_of(incomes):
    return pd.DataFrame({"cell_id": [f"c{i:03d}" for i in range(len(incomes))], "income": np.array(incomes, float)})


@pytest.mark.parametrize("edition", PUBLISHED)
def test_every_edition_is_read_under_its_own_headings(tmp_path, edition):
    cells = read(written(tmp_path, published(edition)), edition=edition)
    INCOME_CELLS.validate(cells)
    assert cells["cell_id"].tolist() == IDS
    assert set(cells["edition"]) == {edition}
    assert cells["income"].tolist() == [25_000.0, 20_000.0, 20_000.0]  # sum of standards of living / people
    assert cells["people"].tolist() == [10.0, 2.5, 40.0]
    assert cells["households"].tolist() == [5.0, 1.0, 20.0]
    assert cells["imputed"].tolist() == [False, True, False]


def test_a_cell_is_the_square_its_id_says(tmp_path):
    cells = read(written(tmp_path, published()))
    assert cells.crs == 4326
    assert cells["epsg"].tolist() == [3035] * 3
    assert cells[["x_m", "y_m"]].iloc[0].tolist() == [3_919_100.0, 2_528_900.0]  # E and N of the corner, plus half
    lon, lat = cells.geometry[0].centroid.coords[0]
    assert (lon, lat) == pytest.approx((4.85, 45.76), abs=0.03)  # the middle of Lyon
    squares = cells.geometry.to_numpy()
    assert shapely.is_valid(squares).all()
    # Equal area is true on the ellipsoid: an oracle that knows no projection agrees.
    on_the_ground = [abs(WGS84.geometry_area_perimeter(square)[0]) for square in squares]
    np.testing.assert_allclose(on_the_ground, 40_000, rtol=1e-5)
    assert shapely.intersection(squares[0], squares[1]).geom_type == "LineString"  # neighbours share a side


def test_outlines_of_the_file_are_not_trusted(tmp_path):
    elsewhere = gpd.GeoDataFrame(published(), geometry=[shapely.box(0, 0, 1, 1)] * 3, crs=2154)
    elsewhere.to_file(tmp_path / "cells.gpkg", layer="carreaux_200m_met")
    cells = read(tmp_path / "cells.gpkg")
    pd.testing.assert_frame_equal(cells, read(written(tmp_path, published())))


def test_a_zero_in_front_of_an_easting_is_no_difference(tmp_path):
    ids = ["CRS2975RES200mN7634200E0359400", "CRS2975RES200mN7634400E359400", "CRS2975RES200mN7634600E359400"]
    cells = read(written(tmp_path, published(idcar_200m=ids)))
    assert cells["x_m"].tolist() == [359_500.0] * 3
    west, south, east, north = cells.total_bounds
    assert 55.2 < west < east < 55.9  # La Réunion
    assert -21.5 < south < north < -20.8


def test_a_value_of_two_marks_real_values_of_a_cell_of_one_kilometre(tmp_path):
    ids = [f"CRS3035RES1000mN{2528 + n}000E3919000" for n in range(3)]
    frame = published().rename(columns={"idcar_200m": "idcar_1km", "i_est_200": "i_est_1km"})
    cells = read(written(tmp_path, frame.assign(idcar_1km=ids, i_est_1km=[0, 1, 2])), size_m=1000)
    assert cells["imputed"].tolist() == [False, True, False]
    assert cells["y_m"].diff().tolist()[1:] == [1000.0, 1000.0]


def test_corners_stand_for_ids(tmp_path):
    frame = pd.DataFrame({"x": [3_919_000], "y": [2_528_800], "imputed": [0], "ind": [10], "ind_snv": [250_000]})
    cells = read(written(tmp_path, frame), crs="EPSG:3035")
    by_id = read(written(tmp_path, published()[:1])).assign(households=np.nan)
    pd.testing.assert_frame_equal(cells, by_id)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"ind": [10, None, 40]}, rf"column 'ind', cell {IDS[1]} is empty: expected a number"),
        ({"ind": [10, 0, 40]}, rf"column 'ind', cell {IDS[1]} is 0: expected people, more than 0"),
        ({"ind": ["10", "few", "40"]}, rf"column 'ind', cell {IDS[1]} is 'few'"),
        ({"men": [5, -1, 20]}, rf"column 'men', cell {IDS[1]} is -1: expected households"),
        ({"ind_snv": [1, -1, 1]}, rf"column 'ind_snv', cell {IDS[1]} is -1: expected a sum of standards of living"),
        ({"i_est_200": [0, 3, 0]}, rf"column 'i_est_200', cell {IDS[1]} is 3: expected 1 for an imputed cell"),
        (
            {"idcar_200m": [LYON, "E01000001", IDS[2]]},
            r"cell number 2, column 'idcar_200m' is 'E01000001': expected the",
        ),
        ({"idcar_200m": [LYON, None, IDS[2]]}, r"cell number 2, column 'idcar_200m' is empty: expected the id"),
        ({"idcar_200m": [LYON, LYON, IDS[2]]}, rf"cell {LYON} stands twice"),
        ({"idcar_200m": [LYON, IDS[1].replace("200m", "1000m"), IDS[2]]}, r"cell CRS3035RES1000mN\d+E\d+ is not 200 m"),
        ({"idcar_200m": [LYON, "CRS3035RES200mN2528950E3919000", IDS[2]]}, r"y = 2528950 lies off the grid"),
        ({"idcar_200m": [LYON, "CRS9999RES200mN2528800E3919000", IDS[2]]}, r"say EPSG:9999, which is no"),
        ({"idcar_200m": [LYON, "CRS3035RES200mN728800E1600", IDS[2]]}, r"N728800E1600 is not where .* is used"),
    ],
)
def test_a_wrong_cell_is_named(tmp_path, change, sentence):
    with pytest.raises(InputError, match=rf"cells\.csv.*{sentence}"):
        read(written(tmp_path, published(**change)))


def test_a_wrong_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"none.csv does not exist"):
        read(tmp_path / "none.csv")
    with pytest.raises(InputError, match=r"cells.zip is no .csv, .gpkg or .shp file: unpack"):
        read(written(tmp_path, published(), "cells.zip.csv").rename(tmp_path / "cells.zip"))
    (tmp_path / "empty.csv").write_text("")
    with pytest.raises(InputError, match=r"empty.csv is no CSV"):
        read(tmp_path / "empty.csv")
    (tmp_path / "cells.gpkg").write_text("no database")
    with pytest.raises(InputError, match=r"cells.gpkg cannot be read"):
        read(tmp_path / "cells.gpkg")
    with pytest.raises(InputError, match="has no rows"):
        read(written(tmp_path, published()[:0]))


def test_a_missing_column_is_named_with_the_edition_that_the_file_looks_like(tmp_path):
    path = written(tmp_path, published("filosofi2015"))
    with pytest.raises(InputError, match=r"no column idcar_200m.*its headings are those of filosofi2015 at 200 m"):
        read(path)
    with pytest.raises(InputError, match=r"no column ind_snv, expected of filosofi2019 at 200 m; it has idcar_200m"):
        read(written(tmp_path, published().drop(columns="ind_snv")))
    with pytest.raises(InputError, match="filosofi2021 at 200 m is not known here, only filosofi2015 at 200 m"):
        read(path, edition="filosofi2021")


def test_a_file_of_200_m_is_not_read_as_one_of_a_kilometre(tmp_path):
    frame = published(idcar_1km="CRS3035RES1000mN2528000E3919000", i_est_1km=0)
    with pytest.raises(InputError, match="its rows are cells of 200 m"):
        read(written(tmp_path, frame), size_m=1000)


def test_several_layers_want_a_name(tmp_path):
    frame = gpd.GeoDataFrame(published(), geometry=[shapely.Point(0, 0)] * 3, crs=3035)
    for layer in ("met", "mart"):
        frame.to_file(tmp_path / "cells.gpkg", layer=layer)
    with pytest.raises(InputError, match=r"cells.gpkg holds 2 layers \(met, mart\): name one"):
        read(tmp_path / "cells.gpkg")
    assert len(read(tmp_path / "cells.gpkg", layer="mart")) == 3


@pytest.mark.parametrize(
    ("crs", "sentence"),
    [
        ("Lambert", "'Lambert' is no coordinate system"),
        ("+proj=laea +lat_0=1 +lon_0=2", "has no EPSG code"),
        ("EPSG:5490", "is not where .*UTM zone 20N.* is used"),
    ],
)
def test_a_wrong_system_is_told(tmp_path, crs, sentence):
    frame = pd.DataFrame({"x": [3_919_000], "y": [2_528_800], "imputed": [0], "ind": [10], "ind_snv": [250_000]})
    with pytest.raises(InputError, match=sentence):
        read(written(tmp_path, frame), crs=crs)


def test_imputed_cells_are_dropped_unless_they_are_asked_for(tmp_path):
    cells = read(written(tmp_path, published()))
    assert measured_cells(cells)["cell_id"].tolist() == [IDS[0], IDS[2]]
    assert measured_cells(cells, with_imputed=True)["cell_id"].tolist() == IDS
    with pytest.raises(InputError, match="All 1 income cells are imputed"):
        measured_cells(cells[cells["imputed"]])


def test_classes_are_quantiles_of_the_training_cells_and_ties_go_up():
    cells = cells_of([10, 20, 20, 30, 5, 19, 20, 99])
    found = income_classes(cells, ["c000", "c001", "c002", "c003"], classes=2)
    assert found.edges == (20.0,)
    assert found.classes.index.tolist() == cells["cell_id"].tolist()
    assert found.classes.tolist() == [0, 1, 1, 1, 0, 0, 1, 1]


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 10), st.integers(1, 8), st.integers(0, 2**32 - 1))
def test_classes_hold_equal_numbers_of_training_cells(classes, each, seed):
    rng = np.random.default_rng(seed)
    cells = cells_of(rng.permutation(classes * each + 20) * 7.0)
    training = rng.choice(cells["cell_id"], classes * each, replace=False)
    found = income_classes(cells, training, classes=classes)
    assert found.classes.loc[training].value_counts().to_dict() == dict.fromkeys(range(classes), each)
    # Among all cells, class k is what lies from edge k up to the next.
    expected = pd.cut(cells["income"], [-np.inf, *found.edges, np.inf], right=False, labels=False)
    assert found.classes.tolist() == expected.tolist()


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(0, 1e6), min_size=5, max_size=5), st.randoms())
def test_no_test_cell_moves_an_edge(test_incomes, random):
    incomes = [8.0, 1.0, 5.0, 3.0, 13.0, 2.0]
    alone = income_classes(cells_of(incomes), cells_of(incomes)["cell_id"], classes=3)
    cells = cells_of(incomes + test_incomes)
    training = cells["cell_id"][:6].tolist()
    random.shuffle(training)
    found = income_classes(cells.sample(frac=1, random_state=1), training, classes=3)
    assert found.edges == alone.edges
    pd.testing.assert_series_equal(found.classes.loc[alone.classes.index], alone.classes)


@pytest.mark.parametrize(
    ("incomes", "training", "classes", "sentence"),
    [
        ([1, 2, 3], ["c000"], 1, "classes = 1: incomes are cut into 2"),
        ([1, 2, 3], ["c000", "x"], 2, "1 training cells, such as x, are no income cells"),
        ([1, 2, 3], ["c000", "c001"], 3, "2 training cells hold 2 different incomes, too few for 3 classes"),
        ([7, 7, 7, 8], ["c000", "c001", "c002"], 2, "hold 1 different incomes, .*: class 0 has none"),
        ([1, 2, 3], [], 2, "0 training cells hold 0 different incomes"),
    ],
)
def test_classes_that_cannot_be_cut_are_refused(incomes, training, classes, sentence):
    with pytest.raises(InputError, match=sentence):
        income_classes(cells_of(incomes), training, classes=classes)


def test_corsica_is_read_with_its_flags_and_lies_where_its_outlines_are(realdata):
    path = realdata / "france" / "filosofi_2015_corsica_1km.gpkg"
    cells = read_income_cells(path, edition="filosofi2015", size_m=1000)
    assert len(cells) == 2_994
    assert int(cells["imputed"].sum()) == 2_162
    raw = gpd.read_file(path)
    assert cells["cell_id"].tolist() == raw["Id_carr1km"].tolist()
    assert int((raw["I_est_1km"] == 2).sum()) == 5
    assert not cells.loc[raw["I_est_1km"] == 2, "imputed"].any()
    np.testing.assert_allclose(cells["income"] * cells["people"], raw["Ind_snv"])
    corners = np.abs(cells.to_crs(3035).bounds.to_numpy() - raw.bounds.to_numpy())
    assert corners.max() < 0.001  # metres
    # Every measured cell has 11 households, but for the five whose rounded parts come to 10.8 or 10.9.
    measured = measured_cells(cells)
    assert len(measured) == 832
    assert int((measured["households"] < 11).sum()) == 5
    # A mean of standards of living lies between the lowest and highest thresholds they were cut off at.
    assert measured["income"].between(6_700, 93_200).all()
    assert np.unique(income_classes(measured, measured["cell_id"]).classes, return_counts=True)[1].min() >= 166


def test_martinique_is_read_in_its_own_system(realdata, tmp_path):
    told = json.loads((realdata / "france" / "filosofi_2019_martinique_200m_info.json").read_text())
    sample = pd.read_csv(realdata / "france" / "filosofi_2019_martinique_200m_sample.csv")
    for axis, origin, tile in zip("xy", told["originPoint"], told["tile"], strict=True):
        sample[axis] = origin + (tile * told["tileSizeCell"] + sample[axis]) * told["resolution_m"]
    cells = read(written(tmp_path, sample), crs=told["crs"])
    assert len(cells) == 104
    assert int(cells["imputed"].sum()) == 44
    assert set(cells["epsg"]) == {5490}
    west, south, east, north = cells.total_bounds
    assert -61.3 < west < east < -60.8
    assert 14.3 < south < north < 14.95
    np.testing.assert_allclose(cells["income"], sample["ind_snv"] / sample["ind"])


def test_a_layer_that_is_no_income_grid_is_refused(realdata):
    with pytest.raises(InputError, match=r"broken_unclosed_ring.gpkg has no column Id_carr1km.*it has layer, id_carr"):
        read_income_cells(realdata / "france" / "broken_unclosed_ring.gpkg", edition="filosofi2015", size_m=1000)
