"""Which cells belong to a conurbation, which are photographed, and that folds never divide a square kilometre."""

from pathlib import Path

import geopandas as gpd
import pandas as pd
import pytest

from urbanprint.aerial import cells as room
from urbanprint.errors import InputError
from urbanprint.evaluation.splits import iter_splits, split_images
from urbanprint.settings import Income


def income_table(cells: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    return cells.rename(columns={"area_id": "cell_id"}).assign(
        edition="filosofi2019", size_m=200, households=40.0, epsg=3035
    )


def land_table(cells: gpd.GeoDataFrame, share: float) -> pd.DataFrame:
    return pd.DataFrame({"cell_id": cells["area_id"], "class": "roads", "area_m2": share * 40_000.0})


def test_cells_belong_where_half_of_them_is_on_the_map(cells: gpd.GeoDataFrame) -> None:
    land = land_table(cells, 0.49)
    land.loc[:9, "area_m2"] = 20_100.0
    kept = room.conurbation_cells(income_table(cells), land, size_m=200, epsg=3035, with_imputed=False)
    assert kept["area_id"].tolist() == sorted(land["cell_id"][:10])
    assert kept["mapped"].round(4).eq(0.5025).all()


def test_imputed_cells_are_left_out_unless_they_are_asked_for(cells: gpd.GeoDataFrame) -> None:
    table = income_table(cells).assign(imputed=[k % 3 == 0 for k in range(len(cells))])
    counts = [
        len(room.conurbation_cells(table, land_table(cells, 1.0), size_m=200, epsg=3035, with_imputed=kept))
        for kept in (False, True)
    ]
    assert counts == [96, 144]


def test_a_grid_that_the_images_do_not_follow_is_refused(cells: gpd.GeoDataFrame) -> None:
    with pytest.raises(InputError, match='set crs = "EPSG:3035"'):
        room.conurbation_cells(income_table(cells), land_table(cells, 1.0), size_m=200, epsg=2154, with_imputed=False)


def test_incomes_of_another_place_are_refused(cells: gpd.GeoDataFrame) -> None:
    with pytest.raises(InputError, match="None of the 144 income cells lies on the map"):
        room.conurbation_cells(income_table(cells), land_table(cells, 0.1), size_m=200, epsg=3035, with_imputed=False)


def test_a_smaller_sample_is_the_start_of_a_larger_one(cells: gpd.GeoDataFrame) -> None:
    (_, few, points), (_, all_of_them, _) = (
        room.cells_to_photograph(cells, number=number, seed=3) for number in (20, "all")
    )
    assert few["area_id"].tolist() == all_of_them["area_id"].tolist()[:20]
    assert set(all_of_them["area_id"]) == set(cells["area_id"])
    assert all_of_them["stratum"].value_counts().between(14, 15).all()
    assert points.empty


def test_block_folds_cost_no_tile_that_the_buffer_does_not_take(folds: pd.DataFrame, images: pd.DataFrame) -> None:
    for split in iter_splits(folds, "block", buffer_m=300):
        train, test = split_images(split, images)
        assert (len(train), len(test)) == (len(split.train), len(split.test))
        assert not set(train["sequence_id"]) & set(test["sequence_id"])


def test_any_grid_of_values_is_read_by_its_corners(tmp_path: Path) -> None:
    file = tmp_path / "values.csv"
    file.write_text("x,y,value\n3800000,2600000,3.5\n3800200,2600000,4\n")
    income = Income(table="", edition="values", crs="EPSG:3035", licence="CC0", attribution="me")
    found = room.read_cells(file, income)
    assert found["income"].tolist() == [3.5, 4.0]
    assert found["cell_id"].tolist() == ["CRS3035RES200mN2600000E3800000", "CRS3035RES200mN2600000E3800200"]
    assert not found["imputed"].any()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x,y\n3800000,2600000\n", "has no column value"),
        ("x,y,value\n3800000,2600000,much\n", "is 'much': expected a number"),
        ("x,y,value\n3800000,2600000,-1\n", "is -1: expected 0 or more"),
        ("x,y,value\n3800010,2600000,1\n", "lies off the grid"),
    ],
)
def test_mistakes_in_a_grid_of_values_are_named(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "values.csv"
    file.write_text(text)
    income = Income(table="", edition="values", crs="EPSG:3035", licence="CC0", attribution="me")
    with pytest.raises(InputError, match=message):
        room.read_cells(file, income)
