"""Survey clusters as areas: circles as wide as the jitter, shared out where they overlap."""

import numpy as np
import pandas as pd
import pytest
from pyproj import Geod

from urbanprint.areas import assign
from urbanprint.cluster_areas import cluster_areas, livelihood_deciles
from urbanprint.indicators.survey import DHS_JITTER
from urbanprint.tables import CLUSTERS

GEOD = Geod(ellps="WGS84")


def clusters(longitude: list[float], latitude: list[float], urban: list[bool | None], **more: list) -> pd.DataFrame:
    n = len(longitude)
    columns = {
        "area_id": [f"c{number}" for number in range(n)],
        "country": ["here"] * n,
        "region": pd.Series([None] * n, dtype="str"),
        "longitude": longitude,
        "latitude": latitude,
        "urban": pd.Series(urban, dtype="boolean"),
        "weight": [1.0] * n,
        "poverty": np.arange(n, dtype=float),
        "population": [np.nan] * n,
        "bmi": [np.nan] * n,
    }
    return CLUSTERS.validate(pd.DataFrame(columns | more))


def test_an_area_reaches_as_far_as_the_survey_has_moved_its_cluster() -> None:
    table = clusters([36.0, 37.0, 38.0], [-1.0, -1.0, 60.0], [True, False, None])
    areas = cluster_areas(table, DHS_JITTER)
    for area, longitude, latitude, reach in zip(
        areas.geometry, table["longitude"], table["latitude"], (2_000, 10_000, 10_000), strict=True
    ):
        x, y = np.array(area.exterior.coords).T
        _, _, metres = GEOD.inv(np.full(len(x), longitude), np.full(len(x), latitude), x, y)
        np.testing.assert_allclose(metres, reach, rtol=1e-6)
    assert areas["district"].tolist() == ["here"] * 3
    assert areas["imd_decile"].isna().all()


def test_a_place_belongs_to_the_nearer_of_two_clusters_and_to_no_third() -> None:
    rng = np.random.default_rng(3)
    longitude, latitude = rng.uniform(36.0, 36.4, 30), rng.uniform(-1.2, -0.8, 30)
    table = clusters(longitude.tolist(), latitude.tolist(), [False] * 30)
    areas = cluster_areas(table, DHS_JITTER)
    places = rng.uniform((35.9, -1.3), (36.5, -0.7), (2_000, 2))
    found = assign(places[:, 0], places[:, 1], areas)
    grid = np.meshgrid(np.arange(30), np.arange(len(places)))
    _, _, metres = GEOD.inv(longitude[grid[0]], latitude[grid[0]], places[grid[1], 0], places[grid[1], 1])
    nearest = metres.argmin(axis=1)
    ordered = np.sort(metres, axis=1)
    # The sides of the polygons are straight on the map: a metre or two beside the border says nothing.
    clear = (np.abs(ordered[:, 0] - 10_000) > 30) & (ordered[:, 1] - ordered[:, 0] > 20)
    expected = np.where(metres.min(axis=1) < 10_000, np.array([f"c{number}" for number in nearest], dtype=object), None)
    assert (found[clear] == expected[clear]).all()
    assert clear.mean() > 0.95
    metric = areas.to_crs(32737).geometry
    assert metric.union_all().area == pytest.approx(metric.area.sum(), rel=1e-6)


def test_clusters_at_one_position_share_an_area() -> None:
    areas = cluster_areas(clusters([36.0, 36.0, 40.0], [0.5, 0.5, 0.5], [True, True, True]), DHS_JITTER)
    assert areas["area_id"].tolist() == ["c0", "c2"]


@pytest.mark.parametrize("known", ["poverty", "bmi"])
def test_deciles_run_from_the_poorest_and_the_unknown_stand_in_the_middle(known: str) -> None:
    n = 20
    values = np.arange(n, dtype=float)
    values[3] = np.nan
    table = clusters(
        np.linspace(30, 40, n).tolist(), [0.5] * n, [True] * n, **({"poverty": [np.nan] * n} | {known: values.tolist()})
    )
    deciles = livelihood_deciles(table)
    assert deciles["c0"] == 1
    assert deciles["c19"] == 10
    assert deciles["c3"] == 5
    assert deciles.drop("c3").is_monotonic_increasing
