"""Discovery by sequences: lines in tiles of zoom 8, recorded and simulated, and one image of each sequence."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mapbox_vector_tile
import numpy as np
import pytest
import shapely
from numpy.testing import assert_allclose

from urbanprint import grid
from urbanprint.errors import SourceError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage
from urbanprint.settings import Imagery
from urbanprint.simulation.faults import Answer
from urbanprint.simulation.planet import Planet, build_planet
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import Town, build_town
from urbanprint.sources.http import HttpStatusError, Retry
from urbanprint.sources.mapillary import Mapillary
from urbanprint.sources.mapillary_answers import records_of_lines
from urbanprint.sources.providers import terms_of
from urbanprint.sources.tiles import Tile, lines_of, points_of, positions_on, tiles_over

TERMS = terms_of(Imagery(key="mapillary", provider="mapillary"))
TOKEN = "MLY|fake|token"
TILES = "-tiles/maps/vtp/mly1_public/2/"
RECORDED = [Tile(14, 3251, 6258), Tile(14, 3252, 6257), Tile(14, 3252, 6258)]  # without the largest: it takes 10 s
STEP_DEG = 360 / 2**8 / 4096
"""A step of the grid of a tile of zoom 8, from west to east; less from north to south."""
HERE, BESIDE = Tile(8, 131, 85), Tile(8, 132, 85)


@pytest.fixture(scope="module")
def town() -> Town:
    return build_town(seed=3, boroughs=2, areas_per_borough=6)


@pytest.fixture(scope="module")
def planet() -> Planet:
    return build_planet(images=600)


@pytest.fixture
def server(town: Town) -> Iterator[SimulationServer]:
    with SimulationServer(town, token=TOKEN, planet_images=600) as server:
        yield server


def source_of(server: SimulationServer, *, below: str = "/mapillary", **settings: Any) -> Mapillary:
    settings = {"token": TOKEN, "retry": Retry(attempts=3, first_pause_s=0.01), **settings}
    return Mapillary(terms=TERMS, endpoint=f"{server.url}{below}", discovery="sequences", **settings)


def asked(server: SimulationServer) -> list[str]:
    return [request.path for request in server.requests if TILES in request.path]


def town_box(town: Town) -> shapely.Geometry:
    return shapely.box(*town.areas.total_bounds)


def line(*vertices: tuple[int, int], parts: tuple[tuple[tuple[int, int], ...], ...] = (), **properties: Any) -> Any:
    """A feature as a tile holds it, from steps of the grid east and south."""
    told = {"captured_at": 1_600_000_000_000, "id": "drive", "image_id": 7, "is_pano": False, **properties}
    geometry = shapely.MultiLineString(parts) if parts else shapely.LineString(vertices)
    return {"geometry": geometry, "properties": {name: value for name, value in told.items() if value is not None}}


def body_of(*features: Any) -> bytes:
    layer = {"name": "sequence", "features": list(features)}
    return bytes(mapbox_vector_tile.encode(layer, default_options={"y_coord_down": True}))


class Drawing:
    """Answers each tile with the body it is given for it, or with an empty one; or all with one status."""

    def __init__(self, bodies: dict[Tile, bytes] | None = None, *, status: int = 200) -> None:
        self._bodies, self._status = bodies or {}, status

    def answer(self, path: str, *_: Any) -> Answer | None:
        found = re.fullmatch(rf".*{TILES}(\d+)/(\d+)/(\d+)", path)
        if found is None:
            return None
        return Answer(self._bodies.get(Tile(*map(int, found.groups())), b""), self._status, "application/x-protobuf")


def drawn(server: SimulationServer, bodies: dict[Tile, bytes]) -> Mapillary:
    server._providers.insert(0, Drawing(bodies))
    return source_of(server)


def at(tile: Tile, *steps: tuple[float, float]) -> np.ndarray:
    """Positions in degrees, (n, 2), of steps of the tile's grid."""
    return positions_on(tile, np.array(steps) / 4096)


def box_over(tile: Tile, first: tuple[float, float], last: tuple[float, float]) -> shapely.Geometry:
    (west, north), (east, south) = at(tile, first, last)
    return shapely.box(west, south, east, north)


# --- reading ---


@pytest.mark.parametrize("tile", RECORDED, ids=str)
def test_the_vertices_of_a_recorded_line_are_the_positions_of_its_images(realdata: Path, tile: Tile) -> None:
    """Each image of a sequence that has a line is one of its vertices; what is left is where a line was cut off."""
    body = next((realdata / "mapillary_api").rglob(f"{tile}.mvt")).read_bytes()
    positions, images = points_of(body, tile, "image")
    vertices, of_line, lines = lines_of(body, tile, "sequence")
    names = np.array([found["id"] for found in lines])
    assert len(set(names)) == len(names) > 50
    assert (np.diff(of_line) >= 0).all()
    assert set(of_line) == set(range(len(lines)))
    drawn_at = {(names[index], *at) for index, at in zip(of_line, np.round(vertices, 9).tolist(), strict=True)}
    taken_at = {
        (image["sequence_id"], *at)
        for image, at in zip(images, np.round(positions, 9).tolist(), strict=True)
        if image["sequence_id"] in set(names)
    }
    assert taken_at <= drawn_at
    assert len(drawn_at - taken_at) < 0.05 * len(drawn_at)


def test_a_recording_without_numbers_is_refused_and_with_made_up_ones_a_record_a_line(realdata: Path) -> None:
    tile = RECORDED[-1]
    body = next((realdata / "mapillary_api").rglob(f"{tile}.mvt")).read_bytes()
    lines = lines_of(body, tile, "sequence")[2]
    with pytest.raises(SourceError, match=rf"tile {tile} .* image_id '' is no identifier"):
        records_of_lines(tile, np.zeros((len(lines), 2)), lines)
    numbered = [{**found, "image_id": 10**15 + row, "captured_at": 1.6e12} for row, found in enumerate(lines)]
    records = records_of_lines(tile, np.zeros((len(lines), 2)), numbered)
    assert [record.sequence_id for record in records] == [found["id"] for found in lines]
    assert [record.image_id for record in records] == [str(found["image_id"]) for found in numbered]
    assert {(record.heading, record.creator, record.address) for record in records} == {(None, None, None)}


def test_a_line_in_parts_is_one_and_what_lies_beyond_the_tile_is_left_out() -> None:
    body = body_of(
        line(parts=(((-5, 9), (0, 9), (40, 9)), ((4096, 50), (4097, 50))), id="parted"),
        line((-9, 1), (-3, 1), id="beyond"),
        line((1, 2), (3, 4), id="short"),
    )
    positions, of_line, lines = lines_of(body, HERE, "sequence")
    assert [found["id"] for found in lines] == ["parted", "short"]
    assert of_line.tolist() == [0, 0, 0, 1, 1]
    assert_allclose(positions, at(HERE, (0, 9), (40, 9), (4096, 50), (1, 2), (3, 4)), rtol=0, atol=1e-12)


def test_points_are_no_lines_and_a_tile_without_the_layer_has_none() -> None:
    point = {"geometry": shapely.Point(1, 1), "properties": {"id": "s", "image_id": 1}}
    with pytest.raises(SourceError, match=rf"tile {HERE}: its layer sequence holds \['Point'\].*not LineString"):
        lines_of(body_of(point), HERE, "sequence")
    for body in (b"", body_of(), body_of(line((0, 0), (1, 1)))):
        positions, of_line, lines = lines_of(body, HERE, "overview")
        assert (positions.shape, of_line.shape, lines) == ((0, 2), (0,), [])


# --- finding ---


def test_the_sequences_of_a_cell_are_found_each_once_with_few_tiles(server: SimulationServer, planet: Planet) -> None:
    """Against all images of the planet; a step of a tile's grid is the doubt about where a line ends."""
    images = planet.images
    first = images.sort_values("captured_at", kind="stable").drop_duplicates("sequence_id").set_index("sequence_id")
    codes, count = np.unique(grid.encode(images["longitude"], images["latitude"], 8), return_counts=True)
    source, seen = source_of(server, below="/planet/mapillary"), 0
    for bounds in grid.boxes(codes[np.argsort(-count, kind="stable")[:12]], 8):
        cell, before = shapely.box(*bounds), len(server.requests)
        found = list(source.find(cell))
        by_sequence = {record.sequence_id: record for record in found}
        assert len(by_sequence) == len(found) > 0
        here, near = (
            set(images.loc[shapely.contains_xy(each, images["raw_longitude"], images["raw_latitude"]), "sequence_id"])
            for each in (cell.buffer(-STEP_DEG), cell.buffer(STEP_DEG))
        )
        flat = set(first.index[~first["is_pano"]])
        assert here & flat <= set(by_sequence) <= near & flat
        for record in found:
            start = first.loc[record.sequence_id]
            assert record.image_id == start["image_id"]
            assert record.captured_at_ms == int(start["captured_at"].timestamp() * 1000)
            assert (record.heading, record.creator, record.address) == (None, None, None)
            assert cell.covers(shapely.Point(record.longitude, record.latitude))
            drive = images[images["sequence_id"] == record.sequence_id]
            off = drive[["raw_longitude", "raw_latitude"]].to_numpy() - (record.longitude, record.latitude)
            assert np.abs(off).max(axis=1).min() <= STEP_DEG
        tiles = [request.path.split(TILES)[1].split("/") for request in server.requests[before:]]
        assert {(z, x) for z, x, _ in tiles} <= {("8", str(int((bounds[0] + 180) / 360 * 256)))}
        assert len(tiles) <= 3
        seen += len(found)
    assert seen >= 30
    assert source.notes == []
    assert len(asked(server)) == len(set(asked(server))) == len(server.requests)


def test_a_record_lies_at_the_middle_one_of_the_vertices_in_the_area(server: SimulationServer) -> None:
    vertices = [(100 * step, 10 * step) for step in range(1, 11)]
    source = drawn(server, {HERE: body_of(line(*vertices))})
    for first, last, middle in (
        ((0, 0), (4095, 4095), (600, 60)),
        ((250, 0), (750, 4095), (500, 50)),
        ((850, 0), (950, 4095), (900, 90)),
    ):
        (record,) = source.find(box_over(HERE, first, last))
        assert_allclose([(record.longitude, record.latitude)], at(HERE, middle), rtol=0, atol=1e-12)
    assert list(source.find(box_over(HERE, (110, 0), (190, 4095)))) == []
    assert len(asked(server)) == 1


def test_a_sequence_in_two_tiles_is_found_once_in_their_box_and_in_each(server: SimulationServer) -> None:
    vertices = np.array([(4000, 9), (4080, 9), (4200, 9)])
    bodies = {HERE: body_of(line(*vertices)), BESIDE: body_of(line(*(vertices - (4096, 0))))}
    source = drawn(server, bodies)
    both = box_over(HERE, (10, 1), (8000, 4000))
    assert [record.sequence_id for record in source.find(both)] == ["drive"]
    west, east = box_over(HERE, (10, 1), (4095, 4000)), box_over(BESIDE, (0, 1), (4000, 4000))
    ((in_west,), (in_east,)) = (list(source.find(each)) for each in (west, east))
    assert in_west.image_id == in_east.image_id
    assert in_west.longitude < HERE.x * 360 / 256 - 180 + 360 / 256 < in_east.longitude


def test_a_sequence_of_one_image_has_no_line_and_is_not_found(town: Town) -> None:
    images = town.images.copy()
    images.loc[images.index[0], "sequence_id"] = "alone"
    with SimulationServer(replace(town, images=images), token=TOKEN) as server:
        found = {record.sequence_id for record in source_of(server).find(town_box(town).buffer(0.01))}
    sizes = images.groupby("sequence_id").size()
    assert found == set(sizes.index[sizes > 1])


def test_completing_gives_the_images_own_position_heading_creator_and_pixels(
    server: SimulationServer, town: Town
) -> None:
    source = source_of(server)
    images = town.images.set_index("image_id")
    usable = images[(images["thumb"] == "ok") & images["has_computed_geometry"]]
    found = [record for record in source.find(town_box(town)) if record.image_id in usable.index]
    assert len(found) > 5
    for record in found:
        image = images.loc[record.image_id]
        completed = source.complete(record)
        assert (completed.longitude, completed.latitude) == (image["longitude"], image["latitude"])
        assert (completed.longitude, completed.latitude) != (record.longitude, record.latitude)
        assert (completed.heading, completed.creator) == (image["heading"], image["creator"])
        assert completed.sequence_id == record.sequence_id == image["sequence_id"]
    assert source.fetch(completed)[:3] == b"\xff\xd8\xff"


# --- filters ---


def test_time_and_panoramas_are_judged_by_the_line(server: SimulationServer) -> None:
    told: dict[str, dict[str, Any]] = {
        "old": {"captured_at": 1},
        "new": {"captured_at": 9},
        "round": {"is_pano": True, "captured_at": 9},
    }
    body = body_of(*(line((1, 1), (5, 5), id=name, image_id=name, **each) for name, each in told.items()))
    server._providers.insert(0, Drawing({HERE: body}))
    area = box_over(HERE, (0, 0), (99, 99))
    for filters, expected in (
        (Filters(), ["old", "new"]),
        (Filters(captured_from_ms=5), ["new"]),
        (Filters(captured_to_ms=5), ["old"]),
        (Filters(panoramas=True), ["round"]),
    ):
        assert [record.sequence_id for record in source_of(server, filters=filters).find(area)] == expected


@pytest.mark.parametrize(
    "filters",
    [Filters(heading=(90.0, 180.0)), Filters(creators=("mapper_42",)), Filters(least_quality=0.5)],
    ids=["heading", "creators", "quality"],
)
def test_what_a_line_does_not_tell_is_judged_when_the_image_is_completed(
    server: SimulationServer, town: Town, filters: Filters
) -> None:
    whole = list(source_of(server).find(town_box(town)))
    source = source_of(server, filters=filters)
    assert list(source.find(town_box(town))) == whole
    assert source.notes == []

    def admitted(record: ImageRecord) -> bool:
        try:
            return filters.admits(source.complete(record))
        except RejectedImage as refusal:
            assert "not what the filters want" in str(refusal)
            return False

    verdicts = {admitted(record) for record in whole if record.image_id in usable(town)}
    assert verdicts == {True, False}


def usable(town: Town) -> set[str]:
    return set(town.images.loc[town.images["thumb"] == "ok", "image_id"])


# --- errors ---


@pytest.mark.parametrize("status", [401, 403, 404, 410, 429])
def test_refused_tiles_are_an_error_that_says_why_boxes_cannot_take_their_place(
    server: SimulationServer, town: Town, status: int
) -> None:
    server._providers.insert(0, Drawing(status=status))
    source = source_of(server)
    for _ in range(2):
        with pytest.raises(
            HttpStatusError, match=rf"\(status {status}\); .*tiles alone.*12,000 .*MAPILLARY_TOKEN"
        ) as no:
            list(source.find(town_box(town)))
        assert no.value.status == status
        assert "MLY" not in str(no.value)
    assert len(asked(server)) == len(server.requests)  # no box was searched
    assert source.notes == []


def test_a_tile_service_that_is_down_is_an_error_of_its_own(server: SimulationServer, town: Town) -> None:
    server._providers.insert(0, Drawing(status=503))
    with pytest.raises(SourceError, match="failed 3 times"):
        list(source_of(server).find(town_box(town)))


@pytest.mark.parametrize(
    ("properties", "reason"),
    [
        ({"image_id": None}, "not its protocol: 'image_id'"),
        ({"id": None}, "not its protocol: 'id'"),
        ({"image_id": "../../etc/passwd"}, "image_id '../../etc/passwd' is no identifier"),
        ({"id": "a/b"}, "sequence_id 'a/b' is no identifier"),
        ({"image_id": 1.5}, "not its protocol: an id of 1.5"),
        ({"captured_at": 1e300}, "not its protocol: a time of capture of 1e+300"),
    ],
)
def test_a_line_that_is_not_the_protocol_is_one_clear_error(
    server: SimulationServer, properties: dict[str, Any], reason: str
) -> None:
    source = drawn(server, {HERE: body_of(line((1, 1), (2, 2), **properties))})
    with pytest.raises(SourceError, match=re.escape(reason)) as refused:
        list(source.find(box_over(HERE, (0, 0), (9, 9))))
    assert f"tile {HERE}" in str(refused.value)


def test_a_tile_is_asked_for_again_when_its_lines_come_broken(server: SimulationServer) -> None:
    whole = body_of(line((1, 1), (2, 2)))
    answers = [whole[:-3], whole]

    class Halting:
        def answer(self, path: str, *_: Any) -> Answer | None:
            return Answer(answers.pop(0), 200, "application/x-protobuf") if path.endswith(f"/{HERE}") else None

    server._providers.insert(0, Halting())
    assert len(list(source_of(server).find(box_over(HERE, (0, 0), (9, 9))))) == 1
    assert answers == []


def test_a_cell_takes_a_few_tiles_of_zoom_8_and_thousands_of_zoom_14() -> None:
    cell = grid.boxes(grid.encode([2.0], [48.0], 8), 8)[0]
    assert len(list(tiles_over(tuple(cell), 8))) <= 6
    assert len(list(tiles_over(tuple(cell), 14))) > 2_000
