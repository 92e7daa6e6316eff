"""The Street View source against the simulated service, Google's documented signature and recorded real metadata."""

import base64
import hashlib
import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, parse_qsl, urlencode

import numpy as np
import pytest
import requests
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pyproj import Geod

from urbanprint.errors import BudgetSpent, InputError, MissingSecret, SourceError
from urbanprint.imagery.records import Filters, ImageRecord, RejectedImage
from urbanprint.simulation.faults import Fault
from urbanprint.simulation.protocols.street_view import PATH
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.town import build_town
from urbanprint.sources.http import HttpStatusError, Retry
from urbanprint.sources.street_view import HEADINGS, TERMS, StreetView, lattice, panorama_of, sign, unsound_metadata

KEY = "AIzaFakeFakeFakeFake-not_a_key"
# Google's own documented example of a signature.
EXAMPLE_SECRET = "vNIXE0xscrmjlyV-12Nj_BvUPaw="
WGS84 = Geod(ellps="WGS84")
# Two districts: a whole town would only take longer.
TOWN = build_town(boroughs=2, areas_per_borough=12)
RETRY = Retry(attempts=3, first_pause_s=0.001)


@dataclass
class Purse:
    """A budget in memory."""

    left: int
    spent: int = 0

    def spend(self) -> None:
        if self.spent >= self.left:
            raise BudgetSpent(f"{self.left} paid requests are spent")
        self.spent += 1


@pytest.fixture(scope="module")
def running() -> Iterator[SimulationServer]:
    with SimulationServer(TOWN, token=KEY, image_width=64) as server:
        yield server


@pytest.fixture
def server(running: SimulationServer) -> SimulationServer:
    running.requests.clear()
    running.street_view.paid = 0
    running.street_view.signing_secret = None
    return running


def source_of(server: SimulationServer, **options: Any) -> StreetView:
    return StreetView(**{"key": KEY, "endpoint": server.url + PATH, "retry": RETRY, **options})


def area_of(server: SimulationServer) -> shapely.Geometry:
    """An area with images: some have none."""
    town = server.town
    return town.areas.set_index("area_id").geometry[town.images["area_id"].iloc[0]]


def points_of(server: SimulationServer, n: int) -> np.ndarray:
    """Places with a panorama of Google's: where the first images of the town were taken."""
    return server.town.images[["longitude", "latitude"]].to_numpy()[: 3 * n : 3]


# --- metadata: the recorded answers of the real service and those of the simulated one -------------------------------


def simulated_answers() -> list[dict[str, Any]]:
    with SimulationServer(TOWN, token=KEY, image_width=64) as server:
        api = server.street_view
        positions = server.town.images[["longitude", "latitude"]].to_numpy()[::3][:36]
        near = [api.metadata({"location": f"{latitude},{longitude}"}) for longitude, latitude in positions]
        return [*near, api.metadata({"location": "0,0"})]


@pytest.fixture(params=["recorded", "simulated"])
def answers(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    if request.param == "simulated":
        return simulated_answers()
    folder: Path = request.getfixturevalue("realdata")
    recorded = json.loads((folder / "street_view_api" / "metadata_real.json").read_text(encoding="utf-8"))
    return [*recorded["ok_google"], *recorded["ok_user_photosphere"], *recorded["zero_results"]]


def response_of(body: bytes) -> requests.Response:
    response = requests.Response()
    response.status_code, response._content = 200, body
    return response


def test_metadata_is_read_field_by_field(answers: list[dict[str, Any]]) -> None:
    kinds = set()
    for answer in answers:
        assert unsound_metadata(response_of(json.dumps(answer).encode())) is None
        panorama = panorama_of(answer)
        if panorama is None:
            assert answer == {"status": "ZERO_RESULTS"}
            kinds.add("nothing there")
            continue
        view = panorama.view(270.0)
        assert view.image_id == f"{answer['pano_id']}:270"
        assert view.sequence_id == answer["pano_id"]
        assert (view.longitude, view.latitude) == (answer["location"]["lng"], answer["location"]["lat"])
        assert f"© {view.creator}" == answer["copyright"]
        if "date" in answer:
            assert view.captured_at_ms is not None
            taken = datetime.fromtimestamp(view.captured_at_ms / 1000, UTC)
            assert f"{taken:%Y-%m}" == answer["date"]
            assert (taken.day, taken.hour) == (1, 0)
        assert not view.is_panorama
        kinds.add("Google's" if view.creator == "Google" else "a person's")
    assert kinds == {"Google's", "a person's", "nothing there"}


@pytest.mark.parametrize(
    ("date", "expected"),
    [("2019", "2019-01-01"), ("2019-12", "2019-12-01"), ("2019-13", None), ("", None), (None, None), (201907, None)],
)
def test_a_date_is_a_month_a_year_or_missing(date: Any, expected: str | None) -> None:
    answer = {"status": "OK", "pano_id": "p", "location": {"lat": 1, "lng": 2}, "date": date}
    panorama = panorama_of(answer)
    assert panorama is not None
    milliseconds = expected and int(datetime.fromisoformat(f"{expected}T00:00:00+00:00").timestamp() * 1000)
    assert panorama.captured_at_ms == milliseconds


@pytest.mark.parametrize(
    "body",
    [
        b"<html>",
        b"[]",
        b"{}",
        b'{"status": "OVER_QUERY_LIMIT"}',
        b'{"status": "UNKNOWN_ERROR"}',
        b'{"status": "OK"}',
        b'{"status": "OK", "pano_id": "p", "location": {"lat": null, "lng": 1}}',
        b'{"error": {"code": 2}}',
    ],
)
def test_an_answer_that_may_pass_is_asked_for_again(body: bytes) -> None:
    assert unsound_metadata(response_of(body))


@pytest.mark.parametrize("status", ["ZERO_RESULTS", "NOT_FOUND", "REQUEST_DENIED", "INVALID_REQUEST"])
def test_a_final_answer_is_not_asked_for_again(status: str) -> None:
    assert unsound_metadata(response_of(json.dumps({"status": status}).encode())) is None


def test_an_id_that_names_another_place_is_refused() -> None:
    panorama = panorama_of({"status": "OK", "pano_id": "../../etc/x", "location": {"lat": 1, "lng": 2}})
    assert panorama is not None
    with pytest.raises(InputError, match="no identifier"):
        panorama.view(0.0)


# --- find ------------------------------------------------------------------------------------------------------------


def test_each_panorama_gives_one_view_a_heading_in_one_sequence(server: SimulationServer) -> None:
    found = list(source_of(server).find(area_of(server)))
    panoramas = {record.sequence_id for record in found}
    assert len(found) == 4 * len(panoramas) > 0
    for pano_id in panoramas:
        views = [record for record in found if record.sequence_id == pano_id]
        assert [view.heading for view in views] == list(HEADINGS)
        assert [view.image_id for view in views] == [f"{pano_id}:{heading}" for heading in (0, 90, 180, 270)]
        assert len({(view.longitude, view.latitude) for view in views}) == 1


def test_points_that_share_a_panorama_find_it_once_and_asking_costs_nothing(server: SimulationServer) -> None:
    point = points_of(server, 1)[0]
    found = list(source_of(server, budget=Purse(0)).find(area_of(server), np.array([point, point + 1e-5, point])))
    assert len(found) == 4
    assert len(server.requests) == 3
    assert server.street_view.paid == 0
    asked = parse_qs(server.requests[0].query)
    assert asked["source"] == ["outdoor"]
    assert asked["radius"] == ["50"]
    assert asked["location"] == [f"{point[1]:.7f},{point[0]:.7f}"]


def test_a_panorama_that_the_server_snapped_too_far_to_is_left_out(server: SimulationServer) -> None:
    longitude, latitude = points_of(server, 1)[0]
    # The simulated server takes the radius at its word, so that one that does not has to be played here.
    far = StreetView(key=KEY, endpoint=server.url + PATH, radius_m=30)
    far._nearest = source_of(server, radius_m=500)._nearest  # type: ignore[method-assign]
    for distance_m, expected in ((29.0, 4), (31.0, 0)):
        where = np.array(WGS84.fwd(longitude, latitude, 90.0, distance_m)[:2])
        nearest = far._nearest(*where)
        assert nearest is not None
        snapped_m = WGS84.inv(*where, nearest.longitude, nearest.latitude)[2]
        assert snapped_m == pytest.approx(distance_m, abs=0.1), "another panorama is nearer: choose another place"
        assert len(list(far.find(area_of(server), where[None]))) == expected


def test_photospheres_are_left_out_unless_asked_for(server: SimulationServer) -> None:
    points = points_of(server, 24)
    officials = list(source_of(server).find(area_of(server), points))
    everyone = list(source_of(server, photospheres=True).find(area_of(server), points))
    assert {record.creator for record in officials} == {"Google"}
    others = {record.creator for record in everyone} - {"Google"}
    assert others
    assert others <= set(server.town.images["creator"])


def test_filters_are_honoured(server: SimulationServer) -> None:
    points = points_of(server, 12)
    everything = list(source_of(server).find(area_of(server), points))
    for filters in (
        Filters(heading=(350.0, 100.0)),
        Filters(captured_from_ms=int(datetime(2022, 1, 1, tzinfo=UTC).timestamp() * 1000)),
    ):
        found = list(source_of(server, filters=filters).find(area_of(server), points))
        assert found == [record for record in everything if filters.admits(record)]
        assert 0 < len(found) < len(everything)
    assert {r.heading for r in everything if Filters(heading=(350.0, 100.0)).admits(r)} == {0.0, 90.0}


def test_other_headings_can_be_asked_for(server: SimulationServer) -> None:
    found = list(source_of(server, headings=(45, 225)).find(area_of(server), points_of(server, 1)))
    assert [record.heading for record in found] == [45.0, 225.0]


@pytest.mark.parametrize("status", ["OVER_QUERY_LIMIT", "UNKNOWN_ERROR"])
def test_an_error_inside_a_200_is_retried(
    server: SimulationServer, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    sound, asked = server.street_view.metadata, []

    def failing_twice(query: Any) -> dict[str, Any]:
        asked.append(query)
        return {"status": status} if len(asked) < 3 else sound(query)

    monkeypatch.setattr(server.street_view, "metadata", failing_twice)
    assert len(list(source_of(server).find(area_of(server), points_of(server, 1)))) == 4
    assert len(asked) == 3
    monkeypatch.setattr(server.street_view, "metadata", lambda _query: {"status": status})
    with pytest.raises(SourceError, match=status):
        list(source_of(server).find(area_of(server), points_of(server, 1)))


def test_a_wrong_key_is_refused_at_once_and_clearly(server: SimulationServer) -> None:
    source = source_of(server, key="AIzaWrongWrongWrong", key_variable="MY_KEY")
    with pytest.raises(SourceError, match=r"MY_KEY.*key is invalid.*enabled"):
        list(source.find(area_of(server), points_of(server, 5)))
    assert len(server.requests) == 1
    with pytest.raises(HttpStatusError, match=r"MY_KEY.*key is invalid"):
        source.fetch(ImageRecord(image_id="p:0", sequence_id="p", longitude=0, latitude=0))
    assert len(server.requests) == 2
    assert server.street_view.paid == 0


def test_a_request_the_service_does_not_understand_is_an_error_that_names_the_place(
    server: SimulationServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server.street_view, "metadata", lambda _query: {"status": "INVALID_REQUEST"})
    with pytest.raises(SourceError, match=r"51\.5000000,-0\.1000000: INVALID_REQUEST"):
        list(source_of(server).find(area_of(server), np.array([[-0.1, 51.5]])))
    assert len(server.requests) == 1


# --- fetch -----------------------------------------------------------------------------------------------------------


def test_a_view_is_fetched_with_its_parameters(server: SimulationServer) -> None:
    source = source_of(server, size=320, fov=100, pitch=-5)
    record = list(source.find(area_of(server), points_of(server, 1)))[1]
    assert source.fetch(record)[:3] == b"\xff\xd8\xff"
    asked = dict(parse_qsl(server.requests[-1].query))
    assert asked == {
        "size": "320x320",
        "fov": "100",
        "pitch": "-5",
        "pano": record.sequence_id,
        "heading": "90",
        "return_error_code": "true",
        "key": KEY,
    }


def test_the_headings_of_a_panorama_show_four_pictures_of_its_area(server: SimulationServer) -> None:
    source = source_of(server)
    views = list(source.find(area_of(server), points_of(server, 1)))
    pictures = [source.fetch(view) for view in views]
    assert len(set(pictures)) == 4
    assert [source.fetch(view) for view in views] == pictures


def test_a_panorama_that_is_gone_is_rejected(server: SimulationServer) -> None:
    with pytest.raises(RejectedImage, match="no longer"):
        source_of(server).fetch(ImageRecord(image_id="gone:0", sequence_id="gone", longitude=0, latitude=0))


def test_without_return_error_code_the_service_sells_a_grey_picture(server: SimulationServer) -> None:
    query = {"size": "64x64", "pano": "gone", "key": KEY}
    response = requests.get(server.url + PATH, params=query, timeout=10)
    assert (response.status_code, response.headers["Content-Type"]) == (200, "image/jpeg")
    assert requests.get(server.url + PATH, params={**query, "return_error_code": "true"}, timeout=10).status_code == 404


def test_a_budget_of_ten_makes_ten_paid_requests_and_not_one_more() -> None:
    with SimulationServer(TOWN, token=KEY, image_width=64) as server:
        purse = Purse(10)
        source = source_of(server, budget=purse, retry=Retry(attempts=5, first_pause_s=0.001))
        records = list(source.find(area_of(server), points_of(server, 8)))
        assert len(records) > 10
        assert source.price == 0.007
        server.inject(Fault("internal_error", f"^{PATH}$", times=3))
        fetched = 0
        with pytest.raises(BudgetSpent):
            for record in records:
                source.fetch(record)
                fetched += 1
        assert purse.spent == server.street_view.paid == 10
        paid = [request.status for request in server.requests if request.path == PATH]
        assert (len(paid), paid.count(500)) == (10, 3)
        assert fetched == 7
        with pytest.raises(BudgetSpent):
            source.fetch(records[-1])
        assert server.street_view.paid == 10


# --- signature -------------------------------------------------------------------------------------------------------


def test_the_signature_is_that_of_googles_documented_example() -> None:
    signing_key = base64.urlsafe_b64decode(EXAMPLE_SECRET)
    assert (
        sign("/maps/api/geocode/json?address=New+York&client=clientID", signing_key) == "chaRF2hTJKOScPr-RQCEhZbSzIE="
    )


def test_what_is_sent_is_what_is_signed(server: SimulationServer) -> None:
    server.street_view.signing_secret = EXAMPLE_SECRET
    source = source_of(server, signing_secret=EXAMPLE_SECRET)
    record = next(source.find(area_of(server), points_of(server, 1)))
    source.fetch(record)
    assert [request.path for request in server.requests] == [f"{PATH}/metadata", PATH]
    padded = base64.urlsafe_b64decode(EXAMPLE_SECRET).ljust(64, b"\0")
    inner, outer = (bytes(byte ^ pad for byte in padded) for pad in (0x36, 0x5C))
    for request in server.requests:
        unsigned, _, signature = request.query.rpartition("&signature=")
        # HMAC by its definition (RFC 2104), over the bytes as they went over the wire.
        message = f"{request.path}?{unsigned}".encode()
        digest = hashlib.sha1(outer + hashlib.sha1(inner + message).digest()).digest()
        assert signature.replace("%3D", "=") == base64.urlsafe_b64encode(digest).decode()


def test_an_unsigned_request_is_refused_where_signatures_are_demanded(server: SimulationServer) -> None:
    server.street_view.signing_secret = EXAMPLE_SECRET
    with pytest.raises(SourceError, match="signature"):
        list(source_of(server).find(area_of(server), points_of(server, 1)))


def test_a_secret_that_is_no_base64_is_refused_without_showing_it() -> None:
    with pytest.raises(InputError, match="SECRET_HERE") as refused:
        StreetView(key=KEY, signing_secret="not a secret!", secret_variable="SECRET_HERE")
    assert "not a secret!" not in str(refused.value)


# --- secrets, terms, arguments ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["reset", "internal_error", "html", "expired", "error_in_200"])
def test_no_message_and_no_log_shows_key_secret_or_signature(kind: Any, caplog: pytest.LogCaptureFixture) -> None:
    with SimulationServer(TOWN, token=KEY, image_width=64) as server:
        server.street_view.signing_secret = EXAMPLE_SECRET
        source = source_of(server, signing_secret=EXAMPLE_SECRET)
        messages = []
        with caplog.at_level(logging.DEBUG):
            record = next(source.find(area_of(server), points_of(server, 1)))
            server.inject(Fault(kind, PATH))
            for ask in (lambda: list(source.find(area_of(server), points_of(server, 1))), lambda: source.fetch(record)):
                try:
                    ask()
                except SourceError as error:
                    messages += [str(error), repr(error), repr(error.__cause__), repr(error.__context__)]
        assert messages
        shown = "\n".join([*messages, caplog.text, source.request_key, repr(source)])
        signatures = [dict(parse_qsl(request.query))["signature"] for request in server.requests]
        for secret in (KEY, EXAMPLE_SECRET, *signatures, *(urlencode({"": each})[1:] for each in signatures)):
            assert secret not in shown


@pytest.mark.parametrize("before", range(270, 300, 5))
def test_a_key_that_lies_across_the_cut_of_a_message_is_not_shown_in_part(
    server: SimulationServer, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    for status in ("REQUEST_DENIED", "INVALID_REQUEST"):
        answer = {"status": status, "error_message": "." * before + KEY}
        monkeypatch.setattr(server.street_view, "metadata", lambda _query, answer=answer: answer)
        with pytest.raises(SourceError) as refused:
            list(source_of(server).find(area_of(server), np.array([[-0.1, 51.5]])))
        assert KEY[:6] not in str(refused.value)


@pytest.mark.parametrize("before", [150, 170, 180, 370, 385])
def test_a_key_across_the_cut_of_an_unknown_answer_is_not_shown_in_part(
    server: SimulationServer, monkeypatch: pytest.MonkeyPatch, before: int
) -> None:
    monkeypatch.setattr(server.street_view, "metadata", lambda _query: {"x": "." * before + KEY})
    with pytest.raises(SourceError) as refused:
        list(source_of(server).find(area_of(server), np.array([[-0.1, 51.5]])))
    assert KEY[:6] not in str(refused.value)
    assert len(str(refused.value)) < 600


@pytest.mark.parametrize(
    "changes", [{"pano_id": "../x"}, {"location": {"lat": 51.5, "lng": float("nan")}}, {"pano_id": ""}]
)
def test_a_hostile_panorama_is_one_clear_error(
    server: SimulationServer, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any]
) -> None:
    answer = {"status": "OK", "pano_id": "p", "location": {"lat": 51.5, "lng": -0.1}, "copyright": "© Google"}
    monkeypatch.setattr(server.street_view, "metadata", lambda _query: answer | changes)
    with pytest.raises(SourceError, match="a panorama that is refused"):
        list(source_of(server).find(area_of(server), np.array([[-0.1, 51.5]])))


@pytest.mark.parametrize(
    "endpoint",
    ["https://me:hush@maps.example/x", "https://maps.example/x?key=hush", "https://[hush", "https://m/x#hush"],
)
def test_an_endpoint_that_holds_a_secret_is_refused_without_showing_it(endpoint: str) -> None:
    with pytest.raises(InputError, match="the endpoint of Street View") as refused:
        StreetView(key=KEY, endpoint=endpoint)
    assert "hush" not in str(refused.value)


def test_the_default_terms_keep_ids_and_no_pixels() -> None:
    assert not (TERMS.may_store or TERMS.may_train or TERMS.may_show)
    assert TERMS.credit("Google") == "© Google"
    page = TERMS.page_of("-iCUOdUXoai976bu0BlokA:90")
    assert page == "https://www.google.com/maps/@?api=1&map_action=pano&pano=-iCUOdUXoai976bu0BlokA"


@pytest.mark.parametrize(
    "options",
    [
        {"headings": ()},
        {"headings": (0, 0.0)},
        {"headings": (360,)},
        {"fov": 121},
        {"size": 641},
        {"pitch": 91},
        {"radius_m": 0},
        {"spacing_m": 0.0},
        {"filters": Filters(panoramas=True)},
    ],
)
def test_impossible_views_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        StreetView(key=KEY, **options)


def test_a_missing_key_names_its_variable() -> None:
    with pytest.raises(MissingSecret, match="MY_KEY"):
        StreetView(key=None, key_variable="MY_KEY")


def test_whatever_changes_the_answer_changes_the_request_key() -> None:
    keys = {
        StreetView(key=KEY, **options).request_key
        for options in (
            {},
            {"radius_m": 30},
            {"spacing_m": 25.0},
            {"headings": (0.0,)},
            {"fov": 60.0},
            {"pitch": 10.0},
            {"size": 320},
            {"photospheres": True},
            {"filters": Filters(heading=(0.0, 90.0))},
        )
    }
    assert len(keys) == 9
    assert StreetView(key=KEY).request_key == StreetView(key="AIzaAnotherFakeKey").request_key


# --- lattice ---------------------------------------------------------------------------------------------------------


@given(longitude=st.floats(-179, 178), latitude=st.floats(-75, 75), spacing_m=st.floats(20, 80))
def test_lattice_points_lie_inside_at_their_spacing_in_metres(
    longitude: float, latitude: float, spacing_m: float
) -> None:
    area = shapely.Point(longitude, latitude).buffer(0.004)
    points = lattice(area, spacing_m=spacing_m)
    assert shapely.contains_xy(area, points).all()
    rows = [points[points[:, 1] == row] for row in np.unique(points[:, 1])]
    for row in rows:
        along = WGS84.inv(row[:-1, 0], row[:-1, 1], row[1:, 0], row[1:, 1])[2]
        assert np.allclose(along, spacing_m, rtol=0.01)
    starts = np.array([row[0] for row in rows])
    meridian = np.full(len(rows) - 1, longitude)
    between = WGS84.inv(meridian, starts[:-1, 1], meridian, starts[1:, 1])[2]
    assert np.allclose(between, spacing_m, rtol=0.01)
    surface = abs(WGS84.geometry_area_perimeter(area)[0])
    assert len(points) == pytest.approx(surface / spacing_m**2, rel=0.2, abs=5)


@pytest.mark.parametrize(
    "area", [shapely.Point(5, 50), shapely.box(0, 0, 1e-5, 1e-5), shapely.LineString([(0, 0), (0.001, 0.001)])]
)
def test_an_area_too_thin_for_a_lattice_gets_one_point(area: shapely.Geometry) -> None:
    points = lattice(area, spacing_m=50.0)
    assert len(points) == 1
    assert area.distance(shapely.Point(points[0])) < 1e-9


def test_nothing_has_no_points() -> None:
    assert lattice(shapely.Polygon(), spacing_m=50.0).shape == (0, 2)
