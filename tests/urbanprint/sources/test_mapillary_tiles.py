"""Coverage tiles: the arithmetic, what is read from recorded and simulated ones, and finding images by them."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import numpy as np
import pyproj
import pytest
import requests
import shapely
from hypothesis import given
from hypothesis import strategies as st

from urbanprint.errors import MissingSecret, SourceError
from urbanprint.imagery.records import Filters
from urbanprint.settings import Imagery
from urbanprint.simulation.faults import Answer, Fault
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import Town, build_town
from urbanprint.sources.http import Retry
from urbanprint.sources.mapillary import Mapillary
from urbanprint.sources.mapillary_answers import records_of_tile
from urbanprint.sources.providers import terms_of
from urbanprint.sources.tiles import KeptTiles, Tile, points_of, positions_on, tiles_over

TERMS = terms_of(Imagery(key="mapillary", provider="mapillary"))
TO_MERCATOR = pyproj.Transformer.from_crs(4326, 3857, always_xy=True)
HALF_WORLD_M = 20_037_508.342789244
TILE_PATH = "/mapillary-tiles/maps/vtp/mly1_public/2/14/"
RECORDED = [Tile(14, x, y) for x in (3251, 3252) for y in (6257, 6258)]
TOKEN = "MLY|fake|token"


@pytest.fixture(scope="module")
def town() -> Town:
    return build_town(seed=3, boroughs=2, areas_per_borough=6)


@pytest.fixture
def server(town: Town) -> Iterator[SimulationServer]:
    with SimulationServer(town, token=TOKEN) as server:
        yield server


def source_of(server: SimulationServer, **settings: Any) -> Mapillary:
    settings = {"token": TOKEN, "retry": Retry(attempts=3, first_pause_s=0.01), **settings}
    return Mapillary(terms=TERMS, endpoint=f"{server.url}/mapillary", **settings)


def asked(server: SimulationServer, path: str) -> list[str]:
    return [request.path for request in server.requests if request.path.startswith(path)]


def town_box(town: Town) -> shapely.Geometry:
    return shapely.box(*town.areas.total_bounds)


# --- arithmetic ---


@given(st.floats(-179.99, 179.99), st.floats(-85.0, 85.0), st.integers(0, 18))
def test_a_position_lies_in_the_tile_that_covers_it(longitude: float, latitude: float, z: int) -> None:
    """The oracle is PROJ: a tile is a square of EPSG:3857."""
    (tile,) = tiles_over((longitude, latitude, longitude, latitude), z)
    east_m, north_m = TO_MERCATOR.transform(longitude, latitude)
    side_m = 2 * HALF_WORLD_M / 2**z
    assert -1e-3 <= east_m + HALF_WORLD_M - tile.x * side_m <= side_m + 1e-3
    assert -1e-3 <= HALF_WORLD_M - north_m - tile.y * side_m <= side_m + 1e-3
    fractions = np.array([[(east_m + HALF_WORLD_M) / side_m - tile.x, (HALF_WORLD_M - north_m) / side_m - tile.y]])
    np.testing.assert_allclose(positions_on(tile, fractions), [[longitude, latitude]], atol=1e-6)


def test_a_box_is_covered_by_its_tiles_and_no_others() -> None:
    tiles = list(tiles_over((-0.2, 51.4, 0.1, 51.6), 12))
    corners = np.array([positions_on(tile, np.array([[0, 1], [1, 0]])).ravel() for tile in tiles])
    boxes = shapely.box(*corners.T)
    wanted = shapely.box(-0.2, 51.4, 0.1, 51.6)
    assert len(set(tiles)) == len(tiles)
    assert shapely.intersects(boxes, wanted).all()
    assert shapely.union_all(boxes).buffer(1e-9).contains(wanted)


def test_the_poles_are_in_the_outermost_tiles() -> None:
    assert list(tiles_over((-180, -90, 180, 90), 1)) == [Tile(1, 0, 0), Tile(1, 1, 0), Tile(1, 0, 1), Tile(1, 1, 1)]


# --- reading: recorded and simulated tiles alike ---


@dataclass(frozen=True)
class Read:
    """A tile, its body and what is read from its image layer."""

    tile: Tile
    body: bytes
    positions: np.ndarray
    properties: list[dict[str, Any]]

    def images(self) -> list[dict[str, Any]]:
        """The properties of each image; the recording lost its numbers, so they are given back."""
        made_up = {"id": 10**14, "captured_at": 1_600_000_000_000, "compass_angle": 359, "is_pano": False}
        return [
            {**found, **{name: value + number for name, value in made_up.items() if found[name] == ""}}
            for number, found in enumerate(self.properties)
        ]


@pytest.fixture(scope="module", params=[*map(str, RECORDED), "simulated"])
def read(request: pytest.FixtureRequest, town: Town) -> Read:
    """A tile as the real service once sent it, or as the simulated one does."""
    if request.param == "simulated":
        tile, body = max(simulated(town).items(), key=lambda each: len(each[1]))
    else:
        tiles = request.getfixturevalue("realdata") / "mapillary_api" / "recorded_responses" / "coverageTiles"
        tile = Tile(*map(int, request.param.split("/")))
        body = (tiles / f"mly1_public/2/{tile}.mvt").read_bytes()
    return Read(tile, body, *points_of(body, tile, "image"))


def simulated(town: Town) -> dict[Tile, bytes]:
    with SimulationServer(town, token=TOKEN) as server:
        return {
            tile: requests.get(f"{server.url}{TILE_PATH}{tile.x}/{tile.y}", {"access_token": TOKEN}, timeout=5).content
            for tile in tiles_over(town_box(town).bounds, 14)
        }


def test_the_layers_have_the_documented_fields(read: Read) -> None:
    fields = {
        name: set().union(*(feature["properties"] for feature in layer["features"]))
        for name, layer in mapbox_vector_tile.decode(read.body).items()
    }
    assert list(fields) == ["sequence", "image"]
    assert fields["sequence"] - {"organization_id"} == {"captured_at", "id", "image_id", "is_pano"}
    assert fields["image"] - {"organization_id"} == {"captured_at", "compass_angle", "id", "is_pano", "sequence_id"}


def test_images_lie_in_their_tile(read: Read) -> None:
    tile = read.tile
    assert len(read.positions) == len(read.properties) > 10
    east_m, north_m = TO_MERCATOR.transform(*read.positions.T)
    side_m = 2 * HALF_WORLD_M / 2**14
    across = np.column_stack([(east_m + HALF_WORLD_M) / side_m - tile.x, (HALF_WORLD_M - north_m) / side_m - tile.y])
    assert across.min() >= -1e-6
    assert across.max() <= 1 + 1e-6
    assert np.ptp(across, axis=0).min() > 0.3  # spread over the tile, not heaped in a corner


def test_every_image_becomes_a_record_without_creator_and_address(read: Read) -> None:
    records = records_of_tile(read.tile, read.positions, read.images())
    assert len({record.image_id for record in records}) == len(records)
    assert {record.sequence_id for record in records} == {found["sequence_id"] for found in read.properties}
    assert all(record.creator is None and record.address is None for record in records)
    assert all(record.captured_at_ms and record.captured_at_ms > 1_400_000_000_000 for record in records)
    assert all(record.heading is not None and 0 <= record.heading < 360 for record in records)
    assert not any(record.is_panorama for record in records)


def test_a_recording_without_numbers_is_refused_and_not_taken_for_images(realdata: Path) -> None:
    body = next((realdata / "mapillary_api").rglob("3252/6258.mvt")).read_bytes()
    tile = Tile(14, 3252, 6258)
    with pytest.raises(SourceError, match=r"tile 14/3252/6258 .* image_id '' is no identifier"):
        records_of_tile(tile, *points_of(body, tile, "image"))


def test_simulated_numbers_have_the_documented_types(town: Town) -> None:
    for tile, body in simulated(town).items():
        for found in points_of(body, tile, "image")[1]:
            kinds = {name: type(value) for name, value in found.items()}
            assert kinds == {"captured_at": int, "compass_angle": int, "id": int, "is_pano": bool, "sequence_id": str}


def encoded(*points: tuple[float, float], **properties: Any) -> bytes:
    features = [{"geometry": shapely.Point(point), "properties": properties} for point in points]
    return bytes(mapbox_vector_tile.encode({"name": "image", "features": features}))


@pytest.mark.parametrize("body", [b"<!DOCTYPE html><html></html>", b'{"error":{"code":4}}', encoded((7, 7), id=1)[:-3]])
def test_what_is_no_vector_tile_is_an_error(body: bytes) -> None:
    with pytest.raises(SourceError, match="tile 14/1/2 is no vector tile"):
        points_of(body, Tile(14, 1, 2), "image")


def test_an_empty_tile_has_no_images_and_lines_are_no_points() -> None:
    assert points_of(b"", Tile(14, 1, 2), "image")[1] == []
    line = {"name": "image", "features": [{"geometry": shapely.LineString([(0, 0), (9, 9)]), "properties": {}}]}
    with pytest.raises(SourceError, match="LineString"):
        points_of(mapbox_vector_tile.encode(line), Tile(14, 1, 2), "image")


@pytest.mark.parametrize("hostile", ["../../etc/passwd", "a/b", "..", "C:\\x", "", "x" * 300])
def test_an_id_that_names_another_place_is_refused(hostile: str) -> None:
    for properties in ({"id": hostile, "sequence_id": "s"}, {"id": 1, "sequence_id": hostile or "/"}):
        with pytest.raises(SourceError, match="is no identifier"):
            records_of_tile(Tile(14, 1, 2), np.zeros((1, 2)), [properties])


# --- keeping ---


def test_a_tile_wanted_by_many_threads_at_once_is_asked_for_once() -> None:
    calls: list[Tile] = []

    def ask(tile: Tile) -> str:
        calls.append(tile)
        time.sleep(0.05)
        return str(tile)

    kept = KeptTiles(ask, most=4, fresh_s=60)
    start = threading.Barrier(8)

    def want(_: int) -> str:
        start.wait()
        return kept.get(Tile(14, 1, 2))

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(want, range(8))) == {"14/1/2"}
    assert calls == [Tile(14, 1, 2)]


def test_the_tile_not_used_for_longest_is_forgotten_and_a_failure_is_not_kept() -> None:
    calls: list[int] = []

    def ask(tile: Tile) -> int:
        calls.append(tile.x)
        if calls == [0]:
            raise SourceError("not this time")
        return tile.x

    kept = KeptTiles(ask, most=2, fresh_s=60)
    with pytest.raises(SourceError, match="not this time"):
        kept.get(Tile(14, 0, 0))
    for x in (0, 1, 0, 2, 0, 1):
        assert kept.get(Tile(14, x, 0)) == x
    assert calls == [0, 0, 1, 2, 1]


def test_a_tile_that_is_no_longer_fresh_is_asked_for_again() -> None:
    calls: list[Tile] = []
    kept = KeptTiles(calls.append, most=2, fresh_s=0.05)
    kept.get(Tile(14, 1, 2))
    kept.get(Tile(14, 1, 2))
    assert len(calls) == 1
    time.sleep(0.06)
    kept.get(Tile(14, 1, 2))
    assert len(calls) == 2


# --- finding ---


def test_the_whole_town_is_found_with_one_request_a_tile(server: SimulationServer, town: Town) -> None:
    source = source_of(server)
    box = town_box(town)
    found = {record.image_id: record for record in source.find(box)}
    images = town.images.set_index("image_id")
    inside = shapely.contains_xy(box.buffer(-1e-5), images["raw_longitude"], images["raw_latitude"])
    around = shapely.contains_xy(box.buffer(1e-5), images["raw_longitude"], images["raw_latitude"])
    assert set(images.index[inside]) <= set(found) <= set(images.index[around])
    for image_id, record in found.items():
        image = images.loc[image_id]
        # A z14 tile is 1,570 m wide at 50 degrees: a step of its grid is 0.38 m.
        assert record.longitude == pytest.approx(image["raw_longitude"], abs=6e-6)
        assert record.latitude == pytest.approx(image["raw_latitude"], abs=4e-6)
        assert record.sequence_id == image["sequence_id"]
        assert record.captured_at_ms == int(image["captured_at"].timestamp() * 1000)
    list(source.find(box))
    for area in town.areas.geometry:
        list(source.find(area))
    assert len(asked(server, TILE_PATH)) == len(set(asked(server, TILE_PATH))) == len(list(tiles_over(box.bounds, 14)))
    assert asked(server, "/mapillary/") == []
    assert source.notes == []


def test_areas_searched_at_once_share_their_tiles(server: SimulationServer, town: Town) -> None:
    source = source_of(server)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda area: list(source.find(area)), town.areas.geometry))
    assert len(asked(server, TILE_PATH)) == len(set(asked(server, TILE_PATH)))


def test_images_outside_the_box_of_the_area_are_left_out(server: SimulationServer, town: Town) -> None:
    area = town.areas.geometry.iloc[0]
    records = list(source_of(server).find(area))
    assert 0 < len(records) < len(town.images)
    assert all(shapely.box(*area.bounds).covers(shapely.Point(r.longitude, r.latitude)) for r in records)


def test_faults_of_the_tile_service_that_pass_are_survived(server: SimulationServer, town: Town) -> None:
    whole = {record.image_id for record in source_of(server).find(town_box(town))}
    for kind in ("throttled", "internal_error", "unavailable", "reset", "html", "truncated", "error_in_200"):
        server.inject(Fault(kind, path=f"^{TILE_PATH}", times=1))  # type: ignore[arg-type]
        source = source_of(server)
        assert {record.image_id for record in source.find(town_box(town))} == whole
        assert kind in [request.fault for request in server.requests]
        assert source.notes == []


# --- leaving the tiles ---


class Refusing:
    """Answers every tile with one status."""

    def __init__(self, status: int, headers: tuple[tuple[str, str], ...] = ()) -> None:
        self._answer = Answer(b"no", status, "text/plain", headers)

    def answer(self, path: str, *_: Any) -> Answer | None:
        return self._answer if path.startswith(TILE_PATH) else None


@pytest.mark.parametrize(
    ("status", "headers"), [(403, ()), (404, ()), (410, ()), (429, ()), (429, (("Retry-After", "86400"),))]
)
def test_a_tile_service_that_refuses_for_good_is_left_for_boxes_and_that_is_said(
    server: SimulationServer, town: Town, status: int, headers: tuple[tuple[str, str], ...]
) -> None:
    server._providers.insert(0, Refusing(status, headers))
    source = source_of(server)
    key = source.request_key
    for area in town.areas.geometry[:3]:
        inside = shapely.contains_xy(shapely.box(*area.bounds), town.images["longitude"], town.images["latitude"])
        assert {record.image_id for record in source.find(area)} == set(town.images["image_id"][inside])
    assert len(set(asked(server, TILE_PATH))) == 1  # after the first refusal no tile is asked for
    assert len(source.notes) == 1
    assert f"status {status}" in source.notes[0]
    assert TOKEN not in source.notes[0]
    assert source.request_key == key


def test_a_tile_service_that_is_down_is_not_left_but_an_error(server: SimulationServer, town: Town) -> None:
    server._providers.insert(0, Refusing(503))
    source = source_of(server)
    with pytest.raises(SourceError, match="failed 3 times"):
        list(source.find(town_box(town)))
    assert asked(server, "/mapillary/") == []
    assert source.notes == []


def test_what_tiles_do_not_hold_is_searched_for_in_boxes(server: SimulationServer, town: Town) -> None:
    for filters in (Filters(creators=("mapper_42",)), Filters(least_quality=0.5)):
        source = source_of(server, filters=filters)
        assert list(source.find(town.areas.geometry.iloc[0])) is not None
        assert asked(server, TILE_PATH) == []
        (note,) = source.notes
        assert "neither creators nor quality" in note


# --- the token ---


def test_a_token_counts_in_the_query_of_a_tile_alone(server: SimulationServer, town: Town) -> None:
    tile = next(tiles_over(town_box(town).bounds, 14))
    address = f"{server.url}{TILE_PATH}{tile.x}/{tile.y}"
    in_header = {"Authorization": f"OAuth {TOKEN}"}
    assert requests.get(address, headers=in_header, timeout=5).status_code == 403
    assert requests.get(address, {"access_token": "another"}, timeout=5).status_code == 403
    assert requests.get(address, {"access_token": TOKEN}, timeout=5).status_code == 200


def test_a_wrong_token_is_said_to_be_wrong_whoever_notices_first(server: SimulationServer, town: Town) -> None:
    with pytest.raises(MissingSecret, match="refused the access token in MAPILLARY_TOKEN") as refused:
        list(source_of(server, token="MLY|wrong|token").find(town_box(town)))
    assert "MLY" not in str(refused.value)


def test_the_token_is_in_no_message_and_no_log(
    server: SimulationServer, town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("DEBUG")
    source = source_of(server)
    list(source.find(town.areas.geometry.iloc[0]))
    server._providers.insert(0, Refusing(500))
    with pytest.raises(SourceError) as failed:
        list(source_of(server).find(town_box(town)))
    shown = caplog.text + str(failed.value) + repr(failed.value)
    for secret in (TOKEN, "MLY%7Cfake%7Ctoken"):
        assert secret not in shown
    assert caplog.text  # the log was listened to
