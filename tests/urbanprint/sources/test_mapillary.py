"""The Mapillary source against the simulated server, which speaks the real protocol, and the recorded real answers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import shapely

from urbanprint.catalogue import Imagery
from urbanprint.errors import MissingSecret, SourceError
from urbanprint.imagery.records import ImageRecord, RejectedImage
from urbanprint.simulation.faults import Fault
from urbanprint.simulation.server import SimulationServer
from urbanprint.sources import mapillary
from urbanprint.sources.http import HttpStatusError, Retry
from urbanprint.sources.mapillary import Mapillary
from urbanprint.sources.terms import terms_of

TERMS = terms_of(Imagery(key="mapillary", provider="mapillary"))


@pytest.fixture
def server() -> Iterator[SimulationServer]:
    with SimulationServer(token="a-token") as server:
        yield server


@pytest.fixture
def source(server: SimulationServer) -> Mapillary:
    return Mapillary(
        token="a-token", terms=TERMS, endpoint=f"{server.url}/mapillary", retry=Retry(attempts=3, first_pause_s=0.01)
    )


def town_box(server: SimulationServer) -> shapely.Geometry:
    return shapely.box(*server.town.areas.total_bounds)


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
        assert "a-token" not in request.path + request.query


def test_a_dense_box_is_split_and_loses_nothing() -> None:
    with SimulationServer(token="t", dense_box=3) as server:
        source = Mapillary(token="t", terms=TERMS, endpoint=f"{server.url}/mapillary")
        area = server.town.areas.geometry.iloc[0]
        box = shapely.box(*area.bounds)
        images = server.town.images
        inside = images[shapely.contains_xy(box, images["longitude"], images["latitude"])]
        assert len(inside) > 3
        assert {record.image_id for record in source.find(area)} >= set(inside["image_id"])
        assert any(request.status == 500 for request in server.requests)


def test_pixels_are_fetched_without_showing_the_token_to_their_host(
    server: SimulationServer, source: Mapillary
) -> None:
    record = next(record for record in source.find(server.town.areas.geometry.iloc[0]) if record.address)
    assert source.fetch(record)[:3] == b"\xff\xd8\xff"


def test_an_expired_address_is_renewed() -> None:
    with SimulationServer(token="t", thumb_lifetime_s=3600) as server:
        source = Mapillary(token="t", terms=TERMS, endpoint=f"{server.url}/mapillary")
        record = next(record for record in source.find(server.town.areas.geometry.iloc[0]) if record.address)
        server.inject(Fault("expired", path="^/thumbs/", times=1))
        assert source.fetch(record)[:3] == b"\xff\xd8\xff"
        assert [request.status for request in server.requests[-3:]] == [403, 200, 200]


def test_an_image_the_provider_does_not_have_is_rejected_for_good(source: Mapillary) -> None:
    gone = ImageRecord(image_id="1", sequence_id="s", longitude=0.0, latitude=0.0)
    with pytest.raises(RejectedImage, match="no longer has it"):
        source.fetch(gone)


def test_faults_that_pass_are_survived(server: SimulationServer, source: Mapillary) -> None:
    whole = {record.image_id for record in source.find(server.town.areas.geometry.iloc[0])}
    for kind in ("throttled", "internal_error", "unavailable", "reset"):
        server.inject(Fault(kind, path="^/mapillary/images", times=1))  # type: ignore[arg-type]
        found = {record.image_id for record in source.find(server.town.areas.geometry.iloc[0])}
        assert kind in [request.fault for request in server.requests]
        assert found == whole


def test_an_error_inside_a_200_is_an_error(server: SimulationServer, source: Mapillary) -> None:
    server.inject(Fault("error_in_200", path="^/mapillary/images"))
    with pytest.raises(SourceError, match="answered an error"):
        list(source.find(server.town.areas.geometry.iloc[0]))


def test_a_missing_and_a_wrong_token_say_what_to_do(server: SimulationServer) -> None:
    with pytest.raises(MissingSecret, match="set the environment variable MAPILLARY_TOKEN"):
        Mapillary(token=None, terms=TERMS)
    wrong = Mapillary(token="secret-but-wrong", terms=TERMS, endpoint=f"{server.url}/mapillary")
    with pytest.raises(HttpStatusError) as refused:
        list(wrong.find(server.town.areas.geometry.iloc[0]))
    assert refused.value.status in (400, 401)
    assert "secret-but-wrong" not in str(refused.value)


def test_the_recorded_real_answers_are_read(realdata: Path) -> None:
    answer = json.loads((realdata / "mapillary_api" / "images_search_real.json").read_text())
    records = [mapillary._record(found) for found in answer["data"]]
    first = records[0]
    assert first is not None
    assert first.image_id == "1386976845208976"
    assert first.sequence_id == "3bVlGmkTzsEOeK1BHvXuLq"
    assert first.creator == "trekviewhq"
    assert first.longitude == pytest.approx(4.1447180519741)  # the computed position, not the camera's own
    assert first.heading == pytest.approx(165.86355589155)


def test_a_real_answer_without_computed_position_falls_back_to_the_cameras_own(realdata: Path) -> None:
    found = json.loads((realdata / "mapillary_api" / "image_blog_2021_real.json").read_text())
    record = mapillary._record(found)
    assert record is not None
    assert (record.longitude, record.latitude) == (-97.743279722222, 30.270651388889)


def test_the_real_error_envelopes_are_told_apart(realdata: Path) -> None:
    recorded = json.loads((realdata / "mapillary_api" / "errors_real.json").read_text())

    class Answer:
        def __init__(self, body: object) -> None:
            self.body = body

        def json(self) -> object:
            return self.body

    assert mapillary._is_final(Answer(recorded["no_authorization_header"]["body"]))  # type: ignore[arg-type]
    assert mapillary._is_final(Answer(recorded["unknown_image_id"]["body"]))  # type: ignore[arg-type]
    assert not mapillary._is_final(Answer({"error": {"code": 2}}))  # type: ignore[arg-type]
