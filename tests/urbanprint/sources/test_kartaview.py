"""The KartaView source against the simulated service; no recorded answers of the real one exist."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qs

import pytest
import requests
import shapely

from urbanprint.errors import InputError, SourceError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage
from urbanprint.simulation.faults import Fault
from urbanprint.simulation.protocols.kartaview import sequence_number
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import build_town
from urbanprint.sources.http import HttpStatusError, Retry
from urbanprint.sources.kartaview import TERMS, KartaView, record_of, unsound_answer

TOWN = build_town(boroughs=2, areas_per_borough=12)
RETRY = Retry(attempts=3, first_pause_s=0.001)
SEARCH = "/kartaview/2.0/photo/"
# As published by clients of the service: every number is text, times have no zone.
PHOTO = {
    "id": "470385",
    "sequenceId": "1282",
    "lat": "48.859002",
    "lng": "2.293298",
    "matchLat": "0",
    "matchLng": "0",
    "heading": "324.42",
    "shotDate": "2016-03-23 09:33:51.000",
    "dateAdded": "2016-03-24 08:33:51",
    "projection": "PLANE",
    "imageLthUrl": "https://cdn.kartaview.org/pr:sharp/lth",
    "imageProcUrl": "https://cdn.kartaview.org/pr:sharp/proc",
    "fileurl": "https://storage2.openstreetcam.org/files/photo/{{sizeprefix}}/x.jpg",
}


@pytest.fixture(scope="module")
def running() -> Iterator[SimulationServer]:
    with SimulationServer(TOWN, image_width=64, dense_box=60) as server:
        yield server


@pytest.fixture
def server(running: SimulationServer) -> SimulationServer:
    running.requests.clear()
    return running


def source_of(server: SimulationServer, **options: Any) -> KartaView:
    return KartaView(**{"endpoint": f"{server.url}/kartaview/2.0", "retry": RETRY, **options})


def district(server: SimulationServer) -> shapely.Geometry:
    """Half of the town: more than one circle holds."""
    return shapely.box(*server.town.areas[:12].total_bounds)


def inside(server: SimulationServer, area: shapely.Geometry) -> set[str]:
    images = server.town.images
    west, south, east, north = area.bounds
    longitudes, latitudes = images["raw_longitude"], images["raw_latitude"]
    chosen = longitudes.between(west, east) & latitudes.between(south, north)
    return set(images.loc[chosen, "image_id"])


@pytest.mark.parametrize("dense", [10_000, 8])
def test_everything_in_the_box_is_found_each_once(dense: int) -> None:
    with SimulationServer(TOWN, image_width=64, dense_box=dense) as server:
        area = district(server)
        found = [record.image_id for record in source_of(server).find(area)]
        assert len(found) == len(set(found))
        assert set(found) == inside(server, area)
        pages = {parse_qs(request.query)["page"][0] for request in server.requests}
        assert {"1", "2"} <= pages, "answers come in small pages"
        refused = any(request.status == 400 for request in server.requests)
        assert refused == (dense == 8), "what is too dense is refused, and asked for in quarters"


def test_circles_stay_within_what_the_service_bears(server: SimulationServer) -> None:
    list(source_of(server).find(district(server)))
    for request in server.requests:
        asked = parse_qs(request.query)
        assert 0 < int(asked["radius"][0]) <= 502
        assert asked["join"] == ["sequence"]


def test_records_say_what_the_service_says(server: SimulationServer) -> None:
    images = server.town.images.set_index("image_id")
    found = list(source_of(server).find(district(server)))
    times = set()
    for record in found:
        image = images.loc[record.image_id]
        assert record.sequence_id == sequence_number(image["sequence_id"])
        assert record.creator == image["creator"]
        assert record.longitude == pytest.approx(image["raw_longitude"], abs=1e-7)
        assert record.heading == pytest.approx(image["heading"], abs=0.01)
        if record.captured_at_ms is None:
            assert image["thumb"] == "late"
        else:
            assert record.captured_at_ms == int(image["captured_at"].timestamp()) * 1000
        assert (record.address is None) == (image["thumb"] == "never")
        times.add(record.captured_at_ms is None)
    assert times == {True, False}


def test_filters_are_honoured(server: SimulationServer) -> None:
    filters = Filters(captured_from_ms=int(datetime(2022, 1, 1, tzinfo=UTC).timestamp() * 1000))
    everything = list(source_of(server).find(district(server)))
    found = list(source_of(server, filters=filters).find(district(server)))
    assert found == [record for record in everything if filters.admits(record)]
    assert 0 < len(found) < len(everything)


def test_pixels_are_fetched_and_a_lost_address_is_asked_for_anew(server: SimulationServer) -> None:
    source = source_of(server)
    record = next(record for record in source.find(district(server)) if record.address)
    pixels = source.fetch(record)
    assert pixels[:3] == b"\xff\xd8\xff"
    moved = ImageRecord(**{**vars(record), "address": f"{server.url}/kartaview/files/1/lth.jpg"})
    assert source.fetch(moved) == pixels
    assert source.fetch(ImageRecord(**{**vars(record), "address": None})) == pixels


def test_archived_and_unknown_photos_are_rejected(server: SimulationServer) -> None:
    source = source_of(server)
    archived = next(record for record in source.find(district(server)) if record.address is None)
    with pytest.raises(RejectedImage, match="no picture"):
        source.fetch(archived)
    with pytest.raises(RejectedImage, match="no picture"):
        source.fetch(ImageRecord(image_id="5", sequence_id="5", longitude=0, latitude=0))


def test_an_area_without_photos_has_none(server: SimulationServer) -> None:
    assert list(source_of(server).find(shapely.box(0, 0, 0.002, 0.002))) == []


@pytest.mark.parametrize("kind", ["internal_error", "unavailable", "html", "truncated", "error_in_200", "reset"])
def test_a_service_that_stumbles_is_asked_again(server: SimulationServer, kind: Any) -> None:
    area = server.town.areas.geometry.iloc[0]
    server.inject(Fault(kind, f"^{SEARCH}", times=2))
    assert {record.image_id for record in source_of(server).find(area)} == inside(server, area)


def test_a_service_that_stays_overloaded_is_an_error_that_says_where() -> None:
    with (
        SimulationServer(TOWN, image_width=64, dense_box=0) as server,
        pytest.raises(SourceError, match="cannot even answer"),
    ):
        list(source_of(server).find(server.town.areas.geometry.iloc[0]))


def test_a_service_that_repeats_its_pages_is_an_error(
    server: SimulationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = {"data": [PHOTO], "hasMoreData": True}
    source = source_of(server)
    monkeypatch.setattr(source, "_answer", lambda _path, _query: answer)
    with pytest.raises(SourceError, match="repeats its pages"):
        list(source.find(shapely.box(2.29, 48.858, 2.295, 48.86)))


def test_a_refusal_inside_a_200_is_final(server: SimulationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    refusal = {"status": {"apiCode": 401, "apiMessage": "You have to be authenticated", "httpCode": 401}}
    source = source_of(server)
    monkeypatch.setattr(source._client, "get_json", lambda *_args, **_options: refusal)
    with pytest.raises(SourceError, match="You have to be authenticated"):
        list(source.find(shapely.box(2.29, 48.858, 2.295, 48.86)))


def test_another_status_than_overload_is_final(server: SimulationServer) -> None:
    with pytest.raises(HttpStatusError):
        source_of(server)._answer("photo/", {})


def test_a_photo_is_read_field_by_field() -> None:
    assert record_of(PHOTO) == ImageRecord(
        image_id="470385",
        sequence_id="1282",
        longitude=2.293298,
        latitude=48.859002,
        captured_at_ms=1458725631000,  # 2016-03-23T09:33:51Z
        heading=324.42,
        address="https://cdn.kartaview.org/pr:sharp/lth",
    )


@pytest.mark.parametrize(
    ("changed", "field", "expected"),
    [
        ({"shotDate": None}, "captured_at_ms", None),
        ({"shotDate": "0000-00-00 00:00:00"}, "captured_at_ms", None),
        ({"heading": None}, "heading", None),
        ({"heading": ""}, "heading", None),
        ({"heading": "-10.00"}, "heading", 350.0),
        ({"heading": "-1e-20"}, "heading", 0.0),
        ({"heading": 10**400}, "heading", None),
        ({"projection": "SPHERE"}, "is_panorama", True),
        ({"fieldOfView": "360"}, "is_panorama", True),
        ({"username": "<b>me</b>"}, "creator", "<b>me</b>"),
        ({"sequence": {"username": "someone"}}, "creator", "someone"),
        ({"sequenceId": None, "sequence": {"id": "77"}}, "sequence_id", "77"),
        ({"sequenceId": None, "sequence": None}, "sequence_id", "470385"),
        ({"imageLthUrl": ""}, "address", "https://cdn.kartaview.org/pr:sharp/proc"),
        ({"imageLthUrl": "file:///etc/passwd", "imageProcUrl": "ftp://x"}, "address", None),
    ],
)
def test_fields_may_be_missing_empty_or_elsewhere(changed: dict[str, Any], field: str, expected: Any) -> None:
    record = record_of({**PHOTO, **changed})
    assert record is not None
    assert getattr(record, field) == expected


@pytest.mark.parametrize("changed", [{"id": None}, {"lat": ""}, {"lng": "east"}, {"lat": "nan"}, {"lat": "91"}])
def test_a_photo_without_id_or_position_is_none(changed: dict[str, Any]) -> None:
    assert record_of({**PHOTO, **changed}) is None


def test_an_id_that_names_another_place_is_refused() -> None:
    with pytest.raises(InputError, match="no identifier"):
        record_of({**PHOTO, "id": "../../etc/passwd"})


@pytest.mark.parametrize(
    ("answer", "sound"),
    [
        ({"status": {"apiCode": 600}, "result": {"data": []}}, True),
        ({"status": {"apiCode": "600"}, "result": {"data": []}}, True),
        ({"status": {"apiCode": 601}, "result": None}, True),
        ({"status": {"apiCode": 408}}, True),
        ({"status": {"apiCode": 600}, "result": None}, False),
        ({"status": {"apiCode": 600}, "result": [1]}, False),
        ({"status": {"apiCode": 600}, "result": "x"}, False),
        ({"status": {"apiCode": 600}, "result": {"data": None}}, False),
        ({"status": {}}, False),
        ({"error": {"code": 2}}, False),
        ([], False),
    ],
)
def test_answers_are_checked_before_they_are_read(answer: Any, sound: bool) -> None:
    response = requests.Response()
    response.status_code, response._content = 200, json.dumps(answer).encode()
    assert (unsound_answer(response) is None) == sound


def test_a_hostile_id_in_a_search_is_one_clear_error(server: SimulationServer, monkeypatch: pytest.MonkeyPatch) -> None:
    source = source_of(server)
    answer = {"data": [{**PHOTO, "id": "../../etc/passwd"}], "hasMoreData": False}
    monkeypatch.setattr(source, "_answer", lambda _path, _query: answer)
    with pytest.raises(SourceError, match="an image that is refused: image_id"):
        list(source.find(shapely.box(2.29, 48.858, 2.295, 48.86)))


@pytest.mark.parametrize("status", [401, 403])
def test_a_picture_whose_fresh_address_is_refused_has_failed_and_is_not_rejected(
    server: SimulationServer, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    source = source_of(server)
    record = next(record for record in source.find(district(server)) if record.address)

    def refusing(*_args: Any, **_options: Any) -> None:
        raise HttpStatusError("refused", status=status, body="")

    monkeypatch.setattr(source._client, "get", refusing)
    monkeypatch.setattr(source, "_answer", lambda _path, _query: {"data": PHOTO})
    with pytest.raises(SourceError, match=f"the fresh address of image {record.image_id} is refused") as refusal:
        source.fetch(record)
    assert not isinstance(refusal.value, HttpStatusError)


def test_an_endpoint_with_a_query_is_refused() -> None:
    with pytest.raises(InputError, match="the endpoint of KartaView"):
        KartaView(endpoint="https://kartaview.example/2.0?key=hush")


def test_the_terms_are_creative_commons_with_credit() -> None:
    assert TERMS.may_store
    assert TERMS.may_train
    assert TERMS.may_show
    assert TERMS.credit("someone") == "© someone, Grab and KartaView contributors, CC BY-SA 4.0"
    assert TERMS.page_of("470385") == "https://api.openstreetcam.org/2.0/photo/470385"
