"""The Panoramax source against the simulated instances: one that pages its answers and one that cuts them off."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import pytest
import shapely

from urbanprint.errors import InputError, SourceError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage
from urbanprint.simulation.faults import Answer, Fault
from urbanprint.simulation.protocols.panoramax import picture_id
from urbanprint.simulation.protocols.wire import json_answer
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import build_town
from urbanprint.sources import panoramax
from urbanprint.sources.http import HttpStatusError, Retry
from urbanprint.sources.panoramax import TERMS, Panoramax

TOWN = build_town(boroughs=2, areas_per_borough=6)
READY = {picture_id(row.image_id) for row in TOWN.images.itertuples() if row.thumb != "never"}
EVERYWHERE = shapely.box(*TOWN.areas.total_bounds)
QUICK = Retry(attempts=3, first_pause_s=0.01)


class Instance(SimulationServer):
    """A server whose next answers to a search can be given by a test."""

    scripted: list[dict[str, Any]]

    def answer(self, path: str, query: dict[str, str], headers: Any) -> Answer:
        if path == "/scripted/api/search":
            return json_answer(self.scripted.pop(0))
        return super().answer(path, query, headers)


@pytest.fixture
def server() -> Iterator[Instance]:
    with Instance(TOWN) as server:
        server.scripted = []
        yield server


def source(server: SimulationServer, *, instance: str = "panoramax", **options: Any) -> Panoramax:
    return Panoramax(endpoint=f"{server.url}/{instance}/api", retry=QUICK, **options)


def item(**changes: Any) -> dict[str, Any]:
    """A STAC item as an instance has it; `changes` replace properties."""
    return {
        "type": "Feature",
        "id": "8c0b0f58-2a3b-4c1d-9a51-6a3f1f1f0a01",
        "collection": "1f4c6a52-7f0e-4a39-8f0e-3b7c5b0f1a02",
        "geometry": {"type": "Point", "coordinates": [2.35, 48.85]},
        "providers": [{"name": "motocultrice", "roles": ["producer"]}, {"name": "A. Artist", "roles": ["producer"]}],
        "properties": {
            "datetime": "2023-12-13T09:11:11.250+00:00",
            "license": "etalab-2.0",
            "view:azimuth": 360,
            "pers:interior_orientation": {"field_of_view": 70},
            "geovisio:status": "ready",
            **changes,
        },
        "links": [{"rel": "next", "href": "https://elsewhere.example/the-next-picture-of-the-sequence"}],
        "assets": {
            "sd": {"href": "https://pictures.example/sd.jpg"},
            "thumb": {"href": "https://pictures.example/t.jpg"},
        },
    }


def found(server: Instance, *items: dict[str, Any], **options: Any) -> list[ImageRecord]:
    server.scripted = [{"type": "FeatureCollection", "features": list(items), "links": []}]
    return list(source(server, instance="scripted", **options).find(EVERYWHERE))


def test_pages_are_followed_to_the_end_and_each_image_found_once(server: Instance) -> None:
    ids = [record.image_id for record in source(server).find(EVERYWHERE)]
    assert len(ids) == len(set(ids))
    assert set(ids) == READY
    assert len(server.requests) > 1


def test_an_answer_cut_off_at_the_limit_is_asked_again_in_quarters(
    server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panoramax, "_LIMIT", 10)
    ids = [record.image_id for record in source(server, instance="geovisio").find(EVERYWHERE)]
    assert len(ids) == len(set(ids))
    assert set(ids) == READY


def test_more_images_at_one_place_than_an_answer_holds_is_an_error(
    server: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(panoramax, "_LIMIT", 1)
    spot = shapely.Point(*TOWN.images[["longitude", "latitude"]].iloc[0])
    with pytest.raises(SourceError, match="within a metre"):
        list(source(server, instance="geovisio").find(spot))


def test_a_record_says_what_the_town_knows(server: Instance) -> None:
    images = {picture_id(image["image_id"]): image for image in TOWN.images.to_dict("records")}
    for record in source(server).find(EVERYWHERE):
        image = images[record.image_id]
        assert (record.longitude, record.latitude) == (image["longitude"], image["latitude"])
        assert record.captured_at_ms == image["captured_at"].value // 1_000_000
        assert record.creator == image["creator"]
        assert record.heading == round(image["heading"]) % 360


def test_sequences_are_those_of_the_town(server: Instance) -> None:
    sequences = dict(zip(map(picture_id, TOWN.images["image_id"]), TOWN.images["sequence_id"], strict=True))
    pairs = {(record.sequence_id, sequences[record.image_id]) for record in source(server).find(EVERYWHERE)}
    assert len(pairs) == len({there for there, _ in pairs}) == len({here for _, here in pairs})


def test_every_picture_has_its_own_licence(server: Instance) -> None:
    licences = {record.licence for record in source(server).find(EVERYWHERE)}
    assert licences == {"Etalab 2.0", "CC BY-SA 4.0"}


def test_an_item_is_read_field_by_field(server: Instance) -> None:
    (record,) = found(server, item())
    assert record == ImageRecord(
        image_id="8c0b0f58-2a3b-4c1d-9a51-6a3f1f1f0a01",
        sequence_id="1f4c6a52-7f0e-4a39-8f0e-3b7c5b0f1a02",
        longitude=2.35,
        latitude=48.85,
        creator="motocultrice",
        captured_at_ms=1702458671250,
        heading=0.0,
        licence="Etalab 2.0",
        address="https://pictures.example/sd.jpg",
    )


def test_the_size_decides_the_address_and_the_request_key(server: Instance) -> None:
    (record,) = found(server, item(), size="thumb")
    assert record.address == "https://pictures.example/t.jpg"
    assert found(server, item(), size="hd") == []
    assert len({source(server, size=size).request_key for size in ("hd", "sd", "thumb")}) == 3


def test_pictures_that_are_not_ready_are_left_out(server: Instance) -> None:
    assert found(server, item(**{"geovisio:status": "waiting-for-process"})) == []


def test_a_picture_under_a_licence_the_terms_do_not_speak_for_is_left_out(server: Instance) -> None:
    assert found(server, item(license="CC-BY-NC-ND-4.0")) == []
    assert found(server, item(license="proprietary"), terms=dataclasses.replace(TERMS, licence="CC0 1.0")) == []


def test_a_picture_without_a_licence_has_that_of_the_terms_if_they_name_one(server: Instance) -> None:
    assert found(server, item(license=None)) == []
    (record,) = found(server, item(license=None), terms=dataclasses.replace(TERMS, licence="Etalab 2.0"))
    assert record.licence is None


def test_a_field_of_view_of_360_is_a_panorama(server: Instance) -> None:
    around = item(**{"pers:interior_orientation": {"field_of_view": 360}})
    assert found(server, around) == []
    (record,) = found(server, around, item(), filters=Filters(panoramas=True))
    assert record.is_panorama


def test_dates_are_asked_of_the_server_and_the_end_is_not_admitted(server: Instance) -> None:
    times = TOWN.images["captured_at"].sort_values()
    first, last = (int(times.iloc[index].value // 1_000_000) for index in (20, 60))
    filters = Filters(captured_from_ms=first, captured_to_ms=last)
    records = list(source(server, filters=filters).find(EVERYWHERE))
    assert {record.image_id for record in records} == {
        picture_id(image.image_id)
        for image in TOWN.images.itertuples()
        if image.thumb != "never" and first <= image.captured_at.value // 1_000_000 < last
    }
    assert "datetime=" in server.requests[0].query
    assert source(server, filters=filters).request_key != source(server).request_key


def test_a_next_page_on_another_host_is_refused(server: Instance) -> None:
    server.scripted = [{"features": [], "links": [{"rel": "next", "href": "https://elsewhere.example/api/search?p=2"}]}]
    with pytest.raises(SourceError, match=r"another host, elsewhere\.example"):
        list(source(server, instance="scripted").find(EVERYWHERE))


def test_pages_that_go_round_in_a_circle_are_an_error(server: Instance) -> None:
    page = {"features": [item()], "links": [{"rel": "next", "href": "?page=2"}]}
    server.scripted = [page, page]
    with pytest.raises(SourceError, match="already read"):
        list(source(server, instance="scripted").find(EVERYWHERE))


@pytest.mark.parametrize("kind", ["error_in_200", "html", "unavailable"])
def test_a_search_that_fails_once_is_asked_again(server: Instance, kind: Any) -> None:
    server.inject(Fault(kind, "/panoramax/api/search", times=1))
    assert {record.image_id for record in source(server).find(EVERYWHERE)} == READY


def test_a_picture_is_fetched_and_one_that_is_gone_rejected(server: Instance) -> None:
    record = next(iter(source(server).find(EVERYWHERE)))
    assert source(server).fetch(record)[:3] == b"\xff\xd8\xff"
    gone = dataclasses.replace(record, address=f"{server.url}/panoramax/api/pictures/0/sd.jpg")
    with pytest.raises(RejectedImage, match="404"):
        source(server).fetch(gone)


def test_an_address_on_this_machine_is_refused_where_the_instance_is_elsewhere(server: Instance) -> None:
    record = next(iter(source(server).find(EVERYWHERE)))
    already_asked = len(server.requests)
    with pytest.raises(SourceError, match="is refused"):
        Panoramax(endpoint="http://8.8.8.8/api", retry=QUICK).fetch(record)
    assert len(server.requests) == already_asked


def test_hostile_identifiers_become_safe_and_stay_apart(server: Instance) -> None:
    hostile = [{**item(), "id": text, "collection": text} for text in ("../../etc/passwd", "..\\..\\etc\\passwd")]
    records = found(server, *hostile)
    assert len({record.image_id for record in records}) == 2
    assert not any(set("/\\") & set(record.image_id + record.sequence_id) for record in records)


@pytest.mark.parametrize("status", [401, 403])
def test_a_picture_that_its_host_refuses_has_failed_and_ends_nothing_else(
    server: Instance, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    record = next(iter(source(server).find(EVERYWHERE)))
    refusing = dataclasses.replace(record, address=f"{server.url}/refused.jpg")
    sound = server.answer
    monkeypatch.setattr(
        server, "answer", lambda path, *rest: Answer(b"", status) if path == "/refused.jpg" else sound(path, *rest)
    )
    asking = source(server)
    with pytest.raises(SourceError, match=rf"{record.image_id} is refused \(status {status}\)") as refusal:
        asking.fetch(refusing)
    assert not isinstance(refusal.value, HttpStatusError)
    assert asking.fetch(record)[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (None, "None"),
        ([1], "[1]"),
        ({**item(), "geometry": {"coordinates": [200, 0]}}, "8c0b0f58"),
        ({**item(), "geometry": {"coordinates": ["east", 0]}}, "8c0b0f58"),
        ({**item(), "geometry": {"coordinates": [float("nan"), 0]}}, "8c0b0f58"),
        ({**item(), "assets": [1]}, "8c0b0f58"),
        ({**item(), "providers": [1]}, "8c0b0f58"),
        (item(datetime=5), "8c0b0f58"),
        (item(**{"view:azimuth": 10**400}), "8c0b0f58"),
    ],
)
def test_an_item_that_is_not_stac_is_one_clear_error(server: Instance, broken: Any, named: str) -> None:
    with pytest.raises(SourceError, match=re.escape(named)):
        found(server, item(), broken)


@pytest.mark.parametrize("links", [[1], 5, [{"rel": "next", "href": "http://[broken"}]])
def test_links_that_are_none_are_one_clear_error(server: Instance, links: Any) -> None:
    server.scripted = [{"features": [], "links": links}]
    with pytest.raises(SourceError, match="links of a page"):
        list(source(server, instance="scripted").find(EVERYWHERE))


@pytest.mark.parametrize(
    ("azimuth", "heading"),
    [("north", None), (float("nan"), None), (None, None), (-1e-20, 0.0), (-10, 350.0), (360, 0.0)],
)
def test_a_heading_is_below_360_or_unknown(server: Instance, azimuth: Any, heading: float | None) -> None:
    (record,) = found(server, item(**{"view:azimuth": azimuth}))
    assert record.heading == heading


def test_an_endpoint_with_a_password_is_refused_without_showing_it() -> None:
    with pytest.raises(InputError, match="the endpoint of Panoramax") as refused:
        Panoramax(endpoint="https://me:hush-hush@panoramax.example/api")
    assert "hush-hush" not in str(refused.value)


def test_an_unknown_size_is_an_error() -> None:
    with pytest.raises(InputError, match="hd, sd, thumb"):
        Panoramax(size="huge")  # type: ignore[arg-type]
