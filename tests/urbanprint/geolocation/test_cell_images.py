"""Which cells are asked, where in them, how a source answers, and what a cell is said to be afterwards."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import shapely

from urbanprint import tables
from urbanprint.errors import InputError
from urbanprint.geolocation.cell_images import cell_coverage, cell_source, cells_to_ask, world_grid
from urbanprint.grid import encode, to_ids
from urbanprint.imagery.records import ImageRecord
from urbanprint.land import on_land

LAND = np.array([shapely.box(10.0, 10.0, 18.0, 16.0), shapely.box(-179.9, -40.0, -179.0, -39.5)])


def test_the_grid_says_which_cells_have_land_and_how_large_they_are() -> None:
    grid = world_grid(LAND, 5)
    assert len(grid) == 4**5
    assert grid["area_km2"].sum() == pytest.approx(510_065_621.7, rel=1e-6)  # the WGS 84 ellipsoid
    inside = to_ids(encode([12.0, -179.5], [12.0, -39.7], 5), 5)
    assert grid.set_index("cell_id").loc[inside, "land"].all()
    assert grid["land"].sum() < 10


@pytest.mark.parametrize("probes", [1, 7])
def test_points_lie_on_the_land_of_their_own_cell(probes: int) -> None:
    areas, sampled, points = cells_to_ask(LAND, level=6, cells="all", probes=probes, seed=3)
    tables.SAMPLED_AREAS.validate(sampled)
    tables.SAMPLE_POINTS.validate(points)
    assert set(sampled["area_id"]) == set(areas["area_id"]) == set(points["area_id"])
    assert (to_ids(encode(points["longitude"], points["latitude"], 6), 6) == points["area_id"].to_numpy()).all()
    count = points["area_id"].value_counts()
    ashore = pd.Series(on_land(LAND, points["longitude"], points["latitude"])).groupby(points["area_id"]).all()
    assert ((count == probes) | (count < probes)).all()
    assert ashore.mean() > 0.8  # the others only touch the land, and have their centre
    assert (count[ashore[~ashore].index] == 1).all()


def test_fewer_cells_are_the_first_of_more() -> None:
    every, some = (cells_to_ask(LAND, level=6, cells=n, probes=2, seed=3)[1] for n in ("all", 5))
    assert list(some["area_id"]) == list(every["area_id"])[:5]
    assert list(some["area_id"]) != sorted(every["area_id"])[:5]


def test_land_that_meets_no_cell_is_refused() -> None:
    with pytest.raises(InputError, match="name a file with the land"):
        cells_to_ask(np.array([], dtype=object), level=4, cells="all", probes=1, seed=0)


def _record(image_id: str, sequence_id: str, longitude: float, latitude: float) -> ImageRecord:
    return ImageRecord(image_id=image_id, sequence_id=sequence_id, longitude=longitude, latitude=latitude)


@dataclasses.dataclass
class _Listed:
    """A source that knows its images and remembers what it was asked."""

    records: list[ImageRecord]
    asked: list[tuple[float, ...]] = dataclasses.field(default_factory=list)
    request_key: str = "listed"
    price: float = 0.5

    def find(self, area, points=None):
        self.asked.append(area.bounds)
        west, south, east, north = area.bounds
        return [r for r in self.records if west <= r.longitude <= east and south <= r.latitude <= north]


def test_a_source_answers_with_the_image_of_a_sequence_that_is_nearest_to_a_point() -> None:
    rng = np.random.default_rng(0)
    records = [_record(f"i{n}", f"s{n % 7}", *rng.uniform(0, 1, 2)) for n in range(60)]
    points = rng.uniform(0, 1, (4, 2))
    found = list(cell_source(_Listed(records), probe_m=None).find(shapely.box(0, 0, 1, 1), points))
    assert len({record.sequence_id for record in found}) == len(found) == 7
    for record in found:  # degrees are metres times one number near the equator
        of_drive = [each for each in records if each.sequence_id == record.sequence_id]
        away = [np.linalg.norm(points - (each.longitude, each.latitude), axis=1).min() for each in of_drive]
        assert record is of_drive[int(np.argmin(away))]


def test_probes_ask_for_squares_around_the_points_within_the_cell() -> None:
    listed = _Listed([_record("near", "a", 0.0101, 60.0001), _record("far", "b", 0.5, 60.2)])
    source = cell_source(listed, probe_m=1000.0)
    points = np.array([[0.01, 60.0], [0.7, 60.4]])
    assert [record.image_id for record in source.find(shapely.box(0.0, 60.0, 1.4, 60.7), points)] == ["near"]
    west, south, east, north = listed.asked[0]
    assert south == 60.0  # cut off at the edge of the cell
    assert (north - south) * 111_195 == pytest.approx(500, rel=0.01)
    assert (east - west) * 111_195 * np.cos(np.radians(60)) == pytest.approx(1000, rel=0.01)
    assert source.looks_at_points
    assert source.request_key != cell_source(listed, probe_m=None).request_key != listed.request_key
    assert source.price == 0.5


def test_coverage_counts_the_cell_an_image_lies_in_and_says_why_others_are_empty() -> None:
    grid = world_grid(LAND, 6)
    here, there = to_ids(encode([12.0, 17.5], [12.0, 15.0], 6), 6)
    images = pd.DataFrame(
        {
            "longitude": [12.0, 12.01, 12.2, 17.5, 17.5],
            "latitude": [12.0, 12.01, 12.2, 15.0, 15.01],
            "state": ["fetched", "fetched", "rejected", "rejected", "rejected"],
            "reason": [None, None, "too dark", "too dark", "truncated"],
        }
    )
    table = cell_coverage(grid, images, {here: 1.7e9, there: 1.7e9}, level=6).set_index("cell_id")
    assert (table.loc[here, "state"], table.loc[here, "images"]) == ("data", 2)
    assert table.loc[there, "state"] == "empty"
    assert table.loc[there, "reason"] == "2 images of no use: too dark 1, truncated 1"
    assert table.loc[here, "asked_at"] == pd.Timestamp(1.7e9, unit="s", tz="UTC")
    others = table.drop([here, there])
    assert others["reason"].isna().all()
    assert set(others["state"]) == {"ocean", "empty"}
