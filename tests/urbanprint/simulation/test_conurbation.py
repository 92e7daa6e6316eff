"""The simulated conurbation: what is planted is there, incomes follow it as strongly as said, and maps agree."""

import io
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from PIL import Image

from urbanprint.indicators.filosofi import read_income_cells
from urbanprint.landuse.atlas import read_urban_atlas
from urbanprint.landuse.classes import CLASSES
from urbanprint.simulation.conurbation import (
    CUE_CLASSES,
    Conurbation,
    build_conurbation,
    ceiling,
    named_conurbation,
    simulated_at,
)
from urbanprint.simulation.lattice import PlanarField, uniform
from urbanprint.simulation.protocols.conurbations import Conurbations
from urbanprint.simulation.rooftops import POOL, RUST, USES


@pytest.fixture(scope="module")
def town() -> Conurbation:
    return build_conurbation("town", seed=3, cells=14)


def points(town: Conurbation, n: int, seed: int) -> np.ndarray:
    west, south = town.cells[["x_m", "y_m"]].min() - 100
    east, north = town.cells[["x_m", "y_m"]].max() + 100
    rng = np.random.default_rng(seed)
    return np.column_stack([rng.uniform(west, east, n), rng.uniform(south, north, n)])


def test_numbers_of_a_lattice_are_even_and_the_same_whenever_asked() -> None:
    cells = np.array([[x, y] for x in range(-40, 40) for y in range(-40, 40)])
    drawn = uniform(cells, salt=5)
    np.testing.assert_array_equal(drawn, uniform(cells, salt=5))
    assert abs(drawn.mean() - 0.5) < 0.02
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < 0.04
    assert abs(np.corrcoef(drawn, uniform(cells, salt=6))[0, 1]) < 0.04


def test_a_planar_field_has_unit_variance_and_the_correlation_it_promises() -> None:
    rng = np.random.default_rng(0)
    places = rng.uniform(0, 50_000, size=(200, 2))
    pairs = np.array(
        [
            (field.at(places), field.at(places + np.array([1_000.0, 0.0])))
            for field in (PlanarField.drawn(length_m=1_000, rng=rng) for _ in range(200))
        ]
    )
    assert pairs.var() == pytest.approx(1.0, abs=0.05)
    assert np.mean(pairs[:, 0] * pairs[:, 1]) == pytest.approx(np.exp(-0.5), abs=0.05)


def test_pools_stand_in_low_density_and_rusty_roofs_in_dense_fabric_alone(town: Conurbation) -> None:
    places = points(town, 60_000, seed=1)
    things = town.plan.things(places)
    land = town.land_use
    for thing, code in ((POOL, "11230"), (RUST, "11210")):
        spots = gpd.GeoDataFrame(geometry=gpd.points_from_xy(*places[things == thing].T), crs=land.crs)
        joined = spots.sjoin(land, predicate="within")
        assert len(joined) == len(spots) > 100
        assert set(joined["code_2018"]) == {code}


def test_every_point_has_one_use_and_all_uses_are_those_of_urban_atlas(town: Conurbation) -> None:
    land = town.land_use
    assert land.is_valid.all()
    spots = gpd.GeoDataFrame(geometry=gpd.points_from_xy(*points(town, 2_000, seed=2).T), crs=land.crs)
    assert spots.sjoin(land, predicate="within").groupby(level=0).size().eq(1).all()
    assert set(land["code_2018"]) <= {*USES, "12220"}


def test_income_follows_the_cue_as_strongly_as_asked() -> None:
    for strength in (0.0, 0.8):
        towns = [build_conurbation("town", seed=seed, strength=strength, cells=14) for seed in range(4)]
        r = [
            np.corrcoef(measured["cue"], np.log(measured["income"]))[0, 1]
            for measured in (town.cells[~town.cells["imputed"]] for town in towns)
        ]
        assert np.mean(r) == pytest.approx(strength, abs=0.15)


def test_the_cue_of_a_cell_is_what_its_tile_shows(town: Conurbation) -> None:
    blue = []
    for cell_id in town.cells.index:
        tile = town.tile(cell_id, pixels=48).astype(int)
        blue.append(((tile[..., 2] > tile[..., 0] + 90) & (tile[..., 1] > tile[..., 0] + 60)).mean())
    low = town.cells["cue"] > town.cells["cue"].quantile(0.9)
    assert np.mean(np.array(blue)[low]) > 3 * np.mean(np.array(blue)[~low])


def test_no_prediction_from_the_picture_beats_the_ceiling() -> None:
    town = build_conurbation("town", seed=5, cells=24)
    cells = town.cells[~town.cells["imputed"]]
    classes = pd.qcut(cells["income"], 5, labels=False)
    best = ceiling(town, cells.index, 5)
    linear = np.corrcoef(cells["cue"], classes)[0, 1]
    assert linear - 0.02 <= best <= linear + 0.05  # a curve in place of a line gains little


def test_the_published_files_are_read_by_the_readers_of_the_real_ones(tmp_path: Path) -> None:
    served = Conurbations()
    for name in ("income.csv", "land_use.gpkg"):
        answer = served.answer(f"/skyton-a/{name}", {}, {}, "")
        assert answer is not None
        (tmp_path / name).write_bytes(answer.body)
    cells = read_income_cells(tmp_path / "income.csv", edition="filosofi2019", size_m=200)
    truth = named_conurbation("skyton-a").cells
    assert set(cells["cell_id"]) == set(truth.index)
    assert cells.set_index("cell_id")["income"].to_numpy() == pytest.approx(truth["income"].to_numpy(), rel=1e-3)
    assert 0.05 < cells["imputed"].mean() < 0.15
    atlas = read_urban_atlas(tmp_path / "land_use.gpkg", year=2018)
    assert set(atlas.polygons["class"]) <= set(CLASSES)
    assert set(CUE_CLASSES.values()) <= set(atlas.polygons["class"])
    assert atlas.repaired == atlas.without_data == 0


def test_the_map_service_shows_the_tile_of_the_cell() -> None:
    town = named_conurbation("skyton-a")
    cell_id = town.cells.index[100]
    x, y = town.cells.loc[cell_id, ["x_m", "y_m"]]
    query = {
        **{
            "SERVICE": "WMS",
            "VERSION": "1.3.0",
            "REQUEST": "GetMap",
            "LAYERS": "ORTHOIMAGERY.ORTHOPHOTOS",
            "STYLES": "",
        },
        **{"CRS": "EPSG:3035", "BBOX": f"{y - 100},{x - 100},{y + 100},{x + 100}"},
        **{"WIDTH": "64", "HEIGHT": "64", "FORMAT": "image/png"},
    }
    answer = Conurbations().answer("/skyton-a/ortho/wms", query, {}, "")
    assert answer is not None and answer.status == 200
    shown = np.asarray(Image.open(io.BytesIO(answer.body)).convert("RGB")).astype(int)
    # Positions go through degrees and back: a pixel on the edge of a thing may fall on its other side.
    assert (np.abs(shown - town.tile(cell_id, pixels=64)).max(axis=2) <= 1).mean() > 0.99


def test_an_address_names_the_conurbation_behind_it() -> None:
    assert simulated_at("simulation:/skyton-b/ortho/wms") is named_conurbation("skyton-b")
    assert simulated_at("https://data.geopf.fr/wmts") is None
    assert simulated_at(None) is None


def test_squares_of_cells_are_those_of_the_european_grid(town: Conurbation) -> None:
    corners = town.cells[["x_m", "y_m"]].to_numpy() - 100
    assert (corners % 200 == 0).all()
    assert shapely.box(*corners[0], *(corners[0] + 200)).area == 40_000
