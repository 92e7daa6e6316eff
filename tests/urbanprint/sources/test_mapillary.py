"""The Mapillary source's searches, entities, errors and filters, on recorded real answers and simulated ones alike.

Tiles are in `test_mapillary_tiles.py`; here images are found by searching boxes.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests
import shapely

from urbanprint.errors import InputError, MissingSecret, SourceError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage
from urbanprint.settings import Imagery
from urbanprint.simulation.faults import Answer, Fault
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import Town, build_town
from urbanprint.sources.http import Retry
from urbanprint.sources.mapillary import Mapillary
from urbanprint.sources.mapillary_answers import FIELDS, GraphError
from urbanprint.sources.mapillary_answers import record_of as read_record
from urbanprint.sources.providers import terms_of

TERMS = terms_of(Imagery(key="mapillary", provider="mapillary"))
SOMEWHERE = ImageRecord(image_id="1", sequence_id="s", longitude=0.0, latitude=0.0)
TOKEN = "a-token"


@pytest.fixture(scope="module")
def town() -> Town:
    town = build_town(seed=3, boroughs=2, areas_per_borough=6)
    images = town.images.copy()
    images.loc[images.index[:4], "thumb"] = ["never", "never", "late", "late"]
    return replace(town, images=images)


@pytest.fixture
def server(town: Town) -> Iterator[SimulationServer]:
    with SimulationServer(town, token=TOKEN) as server:
        yield server


def source_of(server: SimulationServer, **settings: Any) -> Mapillary:
    settings = {
        "token": TOKEN,
        "endpoint": f"{server.url}/mapillary",
        "discovery": "search",
        "retry": Retry(attempts=3, first_pause_s=0.01),
        **settings,
    }
    return Mapillary(terms=TERMS, **settings)


@pytest.fixture
def source(server: SimulationServer) -> Mapillary:
    return source_of(server)


def town_box(server: SimulationServer) -> shapely.Geometry:
    return shapely.box(*server.town.areas.total_bounds)


def record_of(town: Town, *, thumb: str = "ok", has_computed: bool = True) -> ImageRecord:
    """An image as the tiles tell of it: the camera's own position, no creator, no address."""
    images = town.images[(town.images["thumb"] == thumb) & (town.images["has_computed_geometry"] == has_computed)]
    image = images.iloc[0]
    return ImageRecord(
        image_id=image["image_id"],
        sequence_id=image["sequence_id"],
        longitude=image["raw_longitude"],
        latitude=image["raw_latitude"],
    )


class Recorded:
    """Gives `answers` in turn to whoever asks below /recorded, the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)

    def answer(self, path: str, *_: Any) -> Answer | None:
        if not path.startswith("/recorded/"):
            return None
        return self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]


def replaying(server: SimulationServer, *answers: tuple[Any, int], **settings: Any) -> Mapillary:
    """A source whose provider gives `answers`, (body, status)."""
    server._providers.insert(0, Recorded(*(Answer(json.dumps(body).encode(), status) for body, status in answers)))
    return source_of(server, endpoint=f"{server.url}/recorded", **settings)


def recorded(realdata: Path, name: str) -> Any:
    return json.loads((realdata / "mapillary_api" / name).read_text())


# --- searching ---


def test_the_whole_town_is_found_each_image_once(server: SimulationServer, source: Mapillary) -> None:
    found = [record.image_id for record in source.find(town_box(server))]
    assert len(found) == len(set(found))
    assert set(found) == set(server.town.images["image_id"])


def test_boxes_stay_below_a_hundredth_of_a_degree_and_the_token_in_the_header(
    server: SimulationServer, source: Mapillary
) -> None:
    list(source.find(town_box(server)))
    for request in server.requests:
        box = re.search(r"bbox=([^&]+)", request.query.replace("%2C", ","))
        assert box is not None
        west, south, east, north = map(float, box[1].split(","))
        assert east - west < 0.01
        assert north - south < 0.01
        assert TOKEN not in request.path + request.query


def test_a_dense_box_is_split_and_loses_nothing(town: Town) -> None:
    with SimulationServer(town, token=TOKEN, dense_box=3) as server:
        area = town.areas.geometry.iloc[0]
        box = shapely.box(*area.bounds)
        inside = town.images[shapely.contains_xy(box, town.images["longitude"], town.images["latitude"])]
        assert len(inside) > 3
        assert {record.image_id for record in source_of(server).find(area)} >= set(inside["image_id"])
        assert any(request.status == 500 for request in server.requests)


def test_faults_that_pass_are_survived(server: SimulationServer, source: Mapillary) -> None:
    area = server.town.areas.geometry.iloc[0]
    whole = {record.image_id for record in source.find(area)}
    for kind in ("throttled", "internal_error", "unavailable", "reset", "error_in_200", "html", "truncated"):
        server.inject(Fault(kind, path="^/mapillary/images", times=1))
        assert {record.image_id for record in source.find(area)} == whole
        assert kind in [request.fault for request in server.requests]


def test_an_error_inside_a_200_that_stays_is_an_error(server: SimulationServer, source: Mapillary) -> None:
    server.inject(Fault("error_in_200", path="^/mapillary/images"))
    with pytest.raises(SourceError, match="error 2 in the body"):
        list(source.find(server.town.areas.geometry.iloc[0]))


def test_every_kind_of_discovery_and_filter_has_its_own_request_key(server: SimulationServer) -> None:
    settings: list[dict[str, Any]] = [
        {},
        {"discovery": "tiles"},
        {"discovery": "sequences"},
        {"filters": Filters(panoramas=True)},
        {"filters": Filters(captured_from_ms=1)},
        {"filters": Filters(captured_to_ms=1)},
        {"filters": Filters(heading=(350.0, 10.0))},
        {"filters": Filters(creators=("ann",))},
        {"filters": Filters(least_quality=0.5)},
    ]
    keys = [source_of(server, **each).request_key for each in settings]
    assert len(set(keys)) == len(keys)
    assert not any(TOKEN in key for key in keys)


# --- filters ---


FILTERS = {
    "everything flat": Filters(),
    "panoramas": Filters(panoramas=True),
    "since": Filters(captured_from_ms=1_650_000_000_123),
    "until": Filters(captured_to_ms=1_650_000_000_123),
    "between": Filters(captured_from_ms=1_620_000_000_001, captured_to_ms=1_650_000_000_999),
    "northwards": Filters(heading=(315.0, 45.0)),
    "one creator": Filters(creators=("mapper_42",)),
    "two creators": Filters(creators=("mapper_42", "northbound")),
    "quality": Filters(least_quality=0.6),
}


@pytest.mark.parametrize("name", FILTERS)
def test_filters_choose_what_they_say(server: SimulationServer, name: str) -> None:
    filters = FILTERS[name]
    whole = [replace(record, is_panorama=False) for record in source_of(server).find(town_box(server))]
    found = list(source_of(server, filters=filters).find(town_box(server)))
    assert {record.image_id for record in found} == {record.image_id for record in whole if filters.admits(record)}
    assert len(found) < len(whole) or filters == Filters()


def test_the_server_is_asked_for_what_it_can_filter(server: SimulationServer) -> None:
    filters = Filters(captured_from_ms=1_500_000_000_500, captured_to_ms=1_600_000_000_500, creators=("mapper_42",))
    list(source_of(server, filters=filters).find(server.town.areas.geometry.iloc[0]))
    query = dict(part.split("=") for part in server.requests[-1].query.replace("%3A", ":").split("&"))
    assert query["is_pano"] == "false"
    assert query["creator_username"] == "mapper_42"
    # Whole seconds, rounded outwards: the last word is the filter's own.
    assert query["start_captured_at"] == "2017-07-14T02:40:00Z"
    assert query["end_captured_at"] == "2020-09-13T12:26:41Z"


# --- parsing: recorded and simulated answers alike ---


@pytest.fixture(params=["recorded", "simulated"])
def searched(request: pytest.FixtureRequest, server: SimulationServer) -> list[dict[str, Any]]:
    """The images of one search answer."""
    if request.param == "recorded":
        return list(recorded(request.getfixturevalue("realdata"), "images_search_real.json")["data"])
    image = server.town.images[server.town.images["has_computed_geometry"]].iloc[0]
    box = ",".join(str(image[name] + step) for step in (-1e-3, 1e-3) for name in ("longitude", "latitude"))
    fields = FIELDS + ",thumb_original_url"
    answer = requests.get(
        f"{server.url}/mapillary/images",
        {"bbox": box, "fields": fields},
        headers={"Authorization": f"OAuth {TOKEN}"},
        timeout=5,
    )
    return [found for found in answer.json()["data"] if "computed_geometry" in found]


def test_a_search_answer_becomes_records(searched: list[dict[str, Any]]) -> None:
    assert searched
    for found in searched:
        record = read_record(found)
        assert record is not None
        assert record.image_id == found["id"]
        assert record.sequence_id == found["sequence"]
        assert record.creator == found["creator"]["username"]
        assert [record.longitude, record.latitude] == found["computed_geometry"]["coordinates"]
        assert record.heading == found["computed_compass_angle"]
        assert record.captured_at_ms == found["captured_at"]
        assert record.is_panorama == found["is_pano"]
        assert record.quality == found.get("quality_score")


def test_without_a_computed_position_the_cameras_own_counts(searched: list[dict[str, Any]]) -> None:
    for found in searched:
        for missing in ({}, {"computed_geometry": None}):
            bare = {name: value for name, value in found.items() if not name.startswith("computed")} | missing
            record = read_record(bare)
            assert record is not None
            assert [record.longitude, record.latitude] == found["geometry"]["coordinates"]
            assert record.heading == pytest.approx(found["compass_angle"] % 360)
        assert read_record({name: found[name] for name in ("id", "sequence")}) is None


def test_the_oldest_recorded_answer_has_no_creator_and_no_thumbnail(realdata: Path) -> None:
    record = read_record(recorded(realdata, "image_blog_2021_real.json"))
    assert record is not None
    assert (record.longitude, record.latitude) == (-97.743279722222, 30.270651388889)
    assert (record.creator, record.address) == (None, None)


def test_every_recorded_entity_is_read(realdata: Path) -> None:
    folder = realdata / "mapillary_api" / "recorded_responses" / "graph"
    entities = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    images = [entity for entity in entities if "sequence" in entity]
    assert len(images) >= 8
    for entity in images:
        record = read_record(entity)
        assert record is not None
        assert record.image_id == entity["id"]
        assert record.quality == entity["quality_score"]
        assert [record.longitude, record.latitude] == entity["computed_geometry"]["coordinates"]


# --- completing and fetching ---


def test_completing_gives_creator_position_time_and_an_address_with_one_request(
    server: SimulationServer, source: Mapillary, town: Town
) -> None:
    record = record_of(town)
    image = town.images.set_index("image_id").loc[record.image_id]
    completed = source.complete(record)
    assert (completed.image_id, completed.sequence_id) == (record.image_id, record.sequence_id)
    assert completed.creator == image["creator"]
    assert (completed.longitude, completed.latitude) == (image["longitude"], image["latitude"])
    assert completed.captured_at_ms == int(image["captured_at"].timestamp() * 1000)
    assert completed.heading == image["heading"]
    assert len(server.requests) == 1
    assert source.fetch(completed)[:3] == b"\xff\xd8\xff"
    assert [request.path.split("/")[1] for request in server.requests] == ["mapillary", "thumbs"]


def test_an_entity_without_a_computed_position_keeps_the_cameras_own(source: Mapillary, town: Town) -> None:
    record = record_of(town, has_computed=False)
    completed = source.complete(record)
    assert (completed.longitude, completed.latitude) == (record.longitude, record.latitude)
    assert completed.creator is not None


def test_a_creators_name_stays_as_it_is(source: Mapillary, town: Town) -> None:
    """Escaping belongs to whoever shows it."""
    image = town.images[(town.images["creator"] == "<script>alert(1)</script>") & (town.images["thumb"] == "ok")]
    record = replace(record_of(town), image_id=image["image_id"].iloc[0])
    assert source.complete(record).creator == "<script>alert(1)</script>"


def test_an_image_that_turns_out_unwanted_is_rejected(server: SimulationServer, town: Town) -> None:
    record = record_of(town)
    image = town.images.set_index("image_id").loc[record.image_id]
    heading = image["heading"]
    source_of(server, filters=Filters(heading=(heading - 5, heading + 5))).complete(record)
    with pytest.raises(RejectedImage, match="not what the filters want"):
        source_of(server, filters=Filters(heading=(heading + 5, heading + 10))).complete(record)


def test_an_image_that_is_gone_or_has_no_thumbnail_is_rejected_for_good(
    server: SimulationServer, source: Mapillary, town: Town, realdata: Path
) -> None:
    missing = recorded(realdata, "image_missing_thumb_real.json")
    real = replaying(server, (missing, 200)), replace(SOMEWHERE, image_id=missing["id"])
    for asking, record in (real, (source, record_of(town, thumb="never"))):
        for ask in (asking.complete, asking.fetch):
            with pytest.raises(RejectedImage, match="no thumbnail"):
                ask(record)
    unknown = recorded(realdata, "errors_real.json")["unknown_image_id"]
    for asking in (replaying(server, (unknown["body"], unknown["http_status"])), source):
        for ask in (asking.complete, asking.fetch):
            with pytest.raises(RejectedImage, match="no longer has it"):
                ask(SOMEWHERE)


def test_a_thumbnail_that_a_search_left_out_is_found_by_asking_again(source: Mapillary, town: Town) -> None:
    assert source.fetch(record_of(town, thumb="late"))[:3] == b"\xff\xd8\xff"


def test_an_expired_address_is_renewed_once(server: SimulationServer, source: Mapillary, town: Town) -> None:
    completed = source.complete(record_of(town))
    server.inject(Fault("expired", path="^/thumbs/", times=1))
    assert source.fetch(completed)[:3] == b"\xff\xd8\xff"
    assert [request.status for request in server.requests] == [200, 403, 200, 200]
    server.inject(Fault("expired", path="^/thumbs/", times=2))
    with pytest.raises(SourceError, match=r"the fresh address of image .* is refused"):
        source.fetch(completed)


def test_pixels_are_fetched_without_showing_the_token_to_their_host(
    server: SimulationServer, source: Mapillary, town: Town
) -> None:
    seen: list[Any] = []

    class Listening:
        def answer(self, path: str, query: Any, headers: Any, base: str) -> Answer | None:
            if path.startswith("/thumbs/"):
                seen.append((dict(headers), query))
            return None

    server._providers.insert(0, Listening())
    source.fetch(record_of(town))
    assert len(seen) == 1
    assert TOKEN not in str(seen)


# --- errors ---


@pytest.mark.parametrize(
    "name", ["no_authorization_header", "malformed_token", "well_formed_never_issued_token", "same_as_query_param"]
)
def test_a_refused_token_says_what_to_do(server: SimulationServer, realdata: Path, name: str) -> None:
    error = recorded(realdata, "errors_real.json")[name]
    for status in (error["http_status"], 200):
        source = replaying(server, (error["body"], status))
        for ask in (
            lambda source=source: list(source.find(shapely.box(0, 0, 1e-3, 1e-3))),
            lambda s=source: s.complete(SOMEWHERE),
        ):
            with pytest.raises(MissingSecret, match=r"refused the access token in MAPILLARY_TOKEN .*set a valid one"):
                ask()
    assert all("recorded" in request.path for request in server.requests)
    assert len(server.requests) == 4  # none was repeated


@pytest.mark.parametrize("token", ["secret-but-wrong", "MLY|secret|wrong"])
def test_a_wrong_and_a_missing_token_say_what_to_do(server: SimulationServer, token: str) -> None:
    with pytest.raises(MissingSecret, match="set the environment variable KEY_OF_MINE"):
        Mapillary(token=None, terms=TERMS, token_variable="KEY_OF_MINE")
    wrong = source_of(server, token=token, token_variable="KEY_OF_MINE")
    with pytest.raises(MissingSecret, match="KEY_OF_MINE") as refused:
        list(wrong.find(server.town.areas.geometry.iloc[0]))
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("status", [200, 400, 403, 429, 500])
def test_throttling_passes_whatever_its_status(
    server: SimulationServer, town: Town, realdata: Path, status: int
) -> None:
    throttled = recorded(realdata, "recorded_responses/graph/application_request_limit_reached.json")
    answer = {"id": "1", "thumb_1024_url": f"{server.url}/thumbs/1.jpg", "creator": {"username": "ann"}}
    source = replaying(server, (throttled, status), (throttled, status), (answer, 200))
    assert source.complete(SOMEWHERE).creator == "ann"
    assert len(server.requests) == 3


@pytest.mark.parametrize(("status", "code"), [(400, 100), (401, 190), (200, 2)])
@pytest.mark.parametrize("before", [285, 295, 365, 375])
def test_a_token_across_the_cut_of_a_message_is_not_shown_in_part(
    server: SimulationServer, before: int, status: int, code: int
) -> None:
    token = "MLY|1234567890|abcdefghijklmnop"
    source = replaying(server, ({"error": {"message": "." * before + token, "code": code}}, status), token=token)
    with pytest.raises((SourceError, MissingSecret)) as refused:
        source.complete(SOMEWHERE)
    assert "MLY" not in str(refused.value)


def test_the_endpoints_are_part_of_the_request_and_hold_no_secret() -> None:
    def key(**endpoints: str) -> str:
        return Mapillary(token=TOKEN, terms=TERMS, **endpoints).request_key  # type: ignore[arg-type]

    here, tiles = "https://one.example", "https://tiles.example"
    assert len({key(), key(endpoint=here), key(endpoint=here, tiles_endpoint=tiles)}) == 3
    for endpoints in ({"endpoint": "https://me:hush@one.example"}, {"tiles_endpoint": "https://one.example?key=hush"}):
        with pytest.raises(InputError, match="the endpoint of Mapillary") as refused:
            key(**endpoints)
        assert "hush" not in str(refused.value)


def test_a_field_the_provider_no_longer_has_is_no_verdict_on_the_image(
    server: SimulationServer, realdata: Path
) -> None:
    """The envelope has the code of an unknown image; taken for one, every image would be rejected for good."""
    source = replaying(server, (recorded(realdata, "errors_real.json")["unknown_field"]["body"], 400))
    with pytest.raises(GraphError, match="nonexisting field"):
        source.complete(SOMEWHERE)


def test_a_box_too_dense_even_at_a_metre_is_an_error_and_no_endless_loop(server: SimulationServer) -> None:
    source = replaying(server, ({"error": {"message": "Please reduce the amount of data", "code": 1}}, 500))
    with pytest.raises(SourceError, match="too dense even at a metre"):
        list(source.find(shapely.box(0, 0, 1e-4, 1e-4)))
    assert len(server.requests) < 10


# --- hostile answers ---


IMAGE = {"id": "1", "sequence": "s", "geometry": {"type": "Point", "coordinates": [0.0, 0.0]}}


@pytest.mark.parametrize(
    ("found", "reason"),
    [
        ({**IMAGE, "id": "../../etc/passwd"}, "image_id '../../etc/passwd' is no identifier"),
        ({**IMAGE, "id": "a\\b"}, "is no identifier"),
        ({**IMAGE, "sequence": "s/../t"}, "sequence_id 's/../t' is no identifier"),
        ({**IMAGE, "geometry": {"coordinates": [500.0, 0.0]}}, "not on Earth"),
        ({**IMAGE, "geometry": {"coordinates": ["NaN", "x"]}}, "not its protocol"),
        ({**IMAGE, "geometry": {}, "computed_geometry": {"type": "Point"}}, "not its protocol"),
        ({"geometry": IMAGE["geometry"]}, "not its protocol: 'id'"),
        ({**IMAGE, "id": 1.5e15}, "not its protocol: an id of 1500000000000000.0"),
        ({**IMAGE, "compass_angle": 10**400}, "not its protocol"),
        ({**IMAGE, "captured_at": 1e300}, "not its protocol: a time of capture of 1e+300"),
        (["an image"], "not its protocol"),
    ],
)
def test_a_hostile_search_answer_is_one_clear_error(server: SimulationServer, found: Any, reason: str) -> None:
    with pytest.raises(SourceError, match=re.escape(reason)):
        list(replaying(server, ({"data": [found]}, 200)).find(shapely.box(0, 0, 1e-3, 1e-3)))


@pytest.mark.parametrize("body", [{"data": None}, {"data": "x"}, {}, [], "x"])
def test_an_answer_without_a_list_of_images_is_an_error(server: SimulationServer, body: Any) -> None:
    with pytest.raises(SourceError):
        list(replaying(server, (body, 200)).find(shapely.box(0, 0, 1e-3, 1e-3)))


def test_an_entity_that_knows_little_leaves_the_record_as_it_is(server: SimulationServer) -> None:
    record = replace(SOMEWHERE, longitude=1.0, heading=5.0, captured_at_ms=7, creator="ann")
    address = f"{server.url}/thumbs/1.jpg"
    bare = {"id": "1", "thumb_1024_url": address, "geometry": {}, "captured_at": None}
    assert replaying(server, (bare, 200)).complete(record) == replace(record, address=address)


def test_an_entity_that_is_another_image_is_refused(server: SimulationServer) -> None:
    with pytest.raises(SourceError, match="asked for image 1, got '2'"):
        replaying(server, ({**IMAGE, "id": "2", "thumb_1024_url": "x"}, 200)).complete(SOMEWHERE)


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest",
        "http://localhost/x",
        "file:///etc/passwd",
        "https://fbcdn.net.evil.example/x",
        "x",
    ],
)
def test_pixels_are_asked_of_the_providers_own_hosts_alone(server: SimulationServer, address: str) -> None:
    source = replaying(server, ({**IMAGE, "thumb_1024_url": address}, 200))
    with pytest.raises(SourceError, match="not Mapillary's"):
        source.fetch(SOMEWHERE)
