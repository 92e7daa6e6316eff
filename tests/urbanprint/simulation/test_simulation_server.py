"""The loopback server speaks the providers' protocols as they were recorded, and fails as they do when told to."""

import io
import itertools
import json
import re
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import geopandas as gpd
import mapbox_vector_tile
import pandas as pd
import pytest
import requests
from PIL import Image

from urbanprint.simulation.faults import Fault, FaultKind
from urbanprint.simulation.server import SimulationServer
from urbanprint.simulation.statistics import file7
from urbanprint.simulation.town import Town, build_town

TOKEN = {"Authorization": "OAuth simulation-token"}
LAYER = "/arcgis/rest/services/areas/FeatureServer/0"
EVERYTHING = "-9,49,-7,51"


@pytest.fixture(scope="module")
def town() -> Town:
    return build_town(seed=3, boroughs=2, areas_per_borough=6)


@pytest.fixture
def server(town: Town) -> Iterator[SimulationServer]:
    with SimulationServer(town) as running:
        yield running


@pytest.fixture
def client() -> Iterator[requests.Session]:
    with requests.Session() as session:
        yield session


def around(town: Town, index: int, half: float = 0.002) -> str:
    """A search box around an image."""
    image = town.images.iloc[index]
    return ",".join(
        f"{edge:.7f}"
        for edge in (
            image.longitude - half,
            image.latitude - half,
            image.longitude + half,
            image.latitude + half,
        )
    )


def entity(client: requests.Session, server: SimulationServer, image_id: str, fields: str) -> dict[str, Any]:
    return client.get(f"{server.url}/mapillary/{image_id}", params={"fields": fields}, headers=TOKEN).json()


def with_thumb(town: Town, state: str = "ok") -> str:
    return str(town.images.loc[town.images["thumb"] == state, "image_id"].iloc[0])


def thumb_address(client: requests.Session, server: SimulationServer, town: Town) -> str:
    return str(entity(client, server, with_thumb(town), "thumb_256_url")["thumb_256_url"])


# --- open data ---


def test_statistics_are_the_towns(server: SimulationServer, client: requests.Session, town: Town) -> None:
    answer = client.get(f"{server.url}/statistics/file7.csv")
    assert answer.headers["Content-Type"].startswith("text/csv")
    pd.testing.assert_frame_equal(pd.read_csv(io.BytesIO(answer.content)), file7(town))


@pytest.mark.parametrize("name", ["areas.gpkg", "areas.geojson", "areas.zip"])
def test_boundaries_are_the_towns_in_every_format(
    server: SimulationServer, client: requests.Session, town: Town, name: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(client.get(f"{server.url}/boundaries/{name}").content)
    if name.endswith(".zip"):
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path)
        path = tmp_path / "areas.shp"
    read = gpd.read_file(path)
    assert {"LSOA11CD", "LSOA11NM"} <= set(read.columns)
    assert read["LSOA11CD"].tolist() == town.areas["area_id"].tolist()
    assert read.crs.to_epsg() == 4326
    assert (
        read.geometry.geom_equals_exact(town.areas.geometry, 1e-6).all()
        or read.geometry.normalize().geom_equals_exact(town.areas.geometry.normalize(), 1e-6).all()
    )


def test_another_server_of_the_same_town_has_the_same_etags(town: Town, client: requests.Session) -> None:
    paths = ("/statistics/file7.csv", "/boundaries/areas.gpkg", "/boundaries/areas.zip")
    etags = []
    for _ in range(2):
        with SimulationServer(town) as server:
            etags.append([client.get(server.url + path).headers["ETag"] for path in paths])
    assert etags[0] == etags[1]


def test_an_unchanged_file_is_not_sent_again(server: SimulationServer, client: requests.Session) -> None:
    address = f"{server.url}/statistics/file7.csv"
    first = client.get(address)
    for headers in (
        {"If-None-Match": first.headers["ETag"]},
        {"If-None-Match": f'"other", {first.headers["ETag"]}'},
        {"If-Modified-Since": first.headers["Last-Modified"]},
    ):
        again = client.get(address, headers=headers)
        assert again.status_code == 304
        assert again.content == b""
    assert client.get(address, headers={"If-None-Match": '"other"'}).status_code == 200


def test_a_part_of_a_file_can_be_asked_for(server: SimulationServer, client: requests.Session) -> None:
    address = f"{server.url}/boundaries/areas.gpkg"
    whole = client.get(address)
    content, etag = whole.content, whole.headers["ETag"]
    rest = client.get(address, headers={"Range": "bytes=1000-", "If-Range": etag})
    assert rest.status_code == 206
    assert rest.headers["Content-Range"] == f"bytes 1000-{len(content) - 1}/{len(content)}"
    assert content[:1000] + rest.content == content
    assert client.get(address, headers={"Range": "bytes=5-9"}).content == content[5:10]
    assert client.get(address, headers={"Range": "bytes=-4"}).content == content[-4:]
    changed = client.get(address, headers={"Range": "bytes=1000-", "If-Range": '"other"'})
    assert changed.status_code == 200
    assert changed.content == content
    assert client.get(address, headers={"Range": f"bytes={len(content)}-"}).status_code == 416


def test_head_has_the_length_and_no_body(server: SimulationServer, client: requests.Session) -> None:
    answer = client.head(f"{server.url}/statistics/file7.csv")
    assert int(answer.headers["Content-Length"]) > 1000
    assert answer.content == b""


def test_an_unknown_path_is_not_found(server: SimulationServer, client: requests.Session) -> None:
    assert client.get(f"{server.url}/boundaries/other.gpkg").status_code == 404


# --- ArcGIS ---


def test_the_feature_service_hands_out_pages(town: Town, client: requests.Session) -> None:
    with SimulationServer(town, page=5) as server:
        layer = client.get(server.url + LAYER, params={"f": "json"}).json()
        assert layer["maxRecordCount"] == 5
        assert layer["objectIdField"] == "FID"
        query = {"where": "1=1", "outFields": "*", "outSR": "4326", "f": "geojson"}
        count = client.get(
            f"{server.url}{LAYER}/query", params={**query, "returnCountOnly": "true", "f": "json"}
        ).json()
        assert count == {"count": 12}
        codes, exceeded = [], []
        for offset in (0, 5, 10):
            page = client.get(f"{server.url}{LAYER}/query", params={**query, "resultOffset": offset}).json()
            codes += [feature["properties"]["LSOA11CD"] for feature in page["features"]]
            exceeded.append(page.get("properties", {}).get("exceededTransferLimit", False))
        assert codes == town.areas["area_id"].tolist()
        assert exceeded == [True, True, False]
        short = client.get(f"{server.url}{LAYER}/query", params={**query, "resultRecordCount": 2}).json()
        assert len(short["features"]) == 2


def test_the_feature_service_reports_errors_inside_a_200(server: SimulationServer, client: requests.Session) -> None:
    answer = client.get(f"{server.url}{LAYER}/query", params={"where": "nonsense", "f": "geojson"})
    assert answer.status_code == 200
    assert answer.json()["error"]["code"] == 400


# --- Mapillary ---


def test_errors_are_the_recorded_ones(server: SimulationServer, client: requests.Session, realdata: Path) -> None:
    recorded = json.loads((realdata / "mapillary_api" / "errors_real.json").read_text())
    one = f"{server.url}/mapillary/1"
    asked = {
        "no_authorization_header": client.get(one),
        "malformed_token": client.get(one, headers={"Authorization": "OAuth nonsense"}),
        "well_formed_never_issued_token": client.get(one, headers={"Authorization": "OAuth MLY|1|2"}),
        "same_as_query_param": client.get(one, params={"access_token": "MLY|1|2"}),
        "unknown_image_id": client.get(one, headers=TOKEN),
    }
    for name, answer in asked.items():
        assert answer.status_code == recorded[name]["http_status"], name
        expected = {**recorded[name]["body"]["error"], "fbtrace_id": None}
        assert {**answer.json()["error"], "fbtrace_id": None} == expected, name


def test_an_unknown_field_is_an_error(server: SimulationServer, client: requests.Session, town: Town) -> None:
    error = entity(client, server, town.images["image_id"].iloc[0], "id,colour")["error"]
    assert error["code"] == 100
    assert "(colour)" in error["message"]


def test_a_search_finds_what_lies_in_the_box(server: SimulationServer, client: requests.Session, town: Town) -> None:
    box = around(town, 10)
    west, south, east, north = (float(edge) for edge in box.split(","))
    answer = client.get(f"{server.url}/mapillary/images", params={"bbox": box, "fields": "id"}, headers=TOKEN)
    found = {image["id"] for image in answer.json()["data"]}
    inside = town.images[town.images["longitude"].between(west, east) & town.images["latitude"].between(south, north)]
    assert found == set(inside["image_id"])
    assert town.images["image_id"].iloc[10] in found


def test_an_answer_holds_the_asked_fields_in_the_recorded_form(
    server: SimulationServer, client: requests.Session, town: Town, realdata: Path
) -> None:
    recorded = json.loads((realdata / "mapillary_api" / "images_search_real.json").read_text())["data"][0]
    fields = [name for name in recorded if name not in ("atomic_scale", "computed_altitude", "computed_rotation")]
    image_id = town.images.loc[town.images["has_computed_geometry"] & (town.images["thumb"] == "ok"), "image_id"].iloc[
        0
    ]
    node = entity(client, server, image_id, ",".join(fields))
    assert set(node) == set(fields)
    for name, value in node.items():
        assert isinstance(value, type(recorded[name])), name
    assert set(node["creator"]) == {"username", "id"}
    assert node["geometry"]["type"] == "Point"
    assert set(entity(client, server, image_id, "sequence")) == {"id", "sequence"}


def test_the_position_is_true_where_computed_and_elsewhere_raw(
    server: SimulationServer, client: requests.Session, town: Town
) -> None:
    for row in town.images.groupby("has_computed_geometry").head(2).itertuples():
        node = entity(client, server, row.image_id, "geometry,computed_geometry,captured_at")
        position = node["computed_geometry"] if row.has_computed_geometry else node["geometry"]
        assert position["coordinates"] == [row.longitude, row.latitude]
        assert ("computed_geometry" in node) == row.has_computed_geometry
        assert pd.Timestamp(node["captured_at"], unit="ms", tz="UTC") == row.captured_at


def test_a_dense_or_large_box_is_too_much_data(town: Town, client: requests.Session) -> None:
    with SimulationServer(town, dense_box=1) as server:
        for box in (around(town, 0, half=0.0045), EVERYTHING):
            answer = client.get(f"{server.url}/mapillary/images", params={"bbox": box}, headers=TOKEN)
            assert answer.status_code == 500
            assert answer.json()["error"]["code"] == 1


def test_a_small_limit_shows_one_edge_of_the_box(
    server: SimulationServer, client: requests.Session, town: Town
) -> None:
    asked = {"bbox": around(town, 5, half=0.004), "fields": "id"}
    address = f"{server.url}/mapillary/images"
    every = [image["id"] for image in client.get(address, params=asked, headers=TOKEN).json()["data"]]
    few = [image["id"] for image in client.get(address, params={**asked, "limit": 3}, headers=TOKEN).json()["data"]]
    latitude = town.images.set_index("image_id")["latitude"]
    assert len(every) > 3
    assert few == every[:3]
    assert latitude[few].max() <= latitude[every[3:]].min()
    assert client.get(address, params={**asked, "limit": 2001}, headers=TOKEN).status_code == 400


@pytest.mark.parametrize("name", ["start_captured_at", "end_captured_at", "is_pano", "creator_username"])
def test_a_search_can_be_filtered(server: SimulationServer, client: requests.Session, town: Town, name: str) -> None:
    images = town.images.set_index("image_id")
    moment = images["captured_at"].median().floor("s")
    value, wanted = {
        "start_captured_at": (moment.strftime("%Y-%m-%dT%H:%M:%SZ"), images["captured_at"] >= moment),
        "end_captured_at": (moment.strftime("%Y-%m-%dT%H:%M:%SZ"), images["captured_at"] <= moment),
        "is_pano": ("true", images["is_pano"]),
        "creator_username": (images["creator"].iloc[5], images["creator"] == images["creator"].iloc[5]),
    }[name]
    asked = {"bbox": around(town, 5, half=0.0045), "fields": "id"}
    address = f"{server.url}/mapillary/images"
    whole, found = (
        {image["id"] for image in client.get(address, params=asked | more, headers=TOKEN).json()["data"]}
        for more in ({}, {name: value})
    )
    assert found == whole & set(images.index[wanted])
    assert found < whole


def test_coverage_tiles_hold_every_image_once_and_need_the_token_in_the_query(
    server: SimulationServer, client: requests.Session, town: Town
) -> None:
    found, lines = [], 0
    # 50 degrees north, 8 west is in column 7,827 and row 5,555; a tile is 1.6 km wide there, the town 3.
    for x, y in itertools.product(range(7825, 7831), range(5553, 5559)):
        address = f"{server.url}/mapillary-tiles/maps/vtp/mly1_public/2/14/{x}/{y}"
        assert client.get(address, headers=TOKEN).status_code == 403
        answer = client.get(address, params={"access_token": "simulation-token"})
        assert answer.headers["Content-Type"] == "application/x-protobuf"
        layers = mapbox_vector_tile.decode(answer.content)
        found += [str(image["properties"]["id"]) for image in layers.get("image", {"features": []})["features"]]
        lines += len(layers.get("sequence", {"features": []})["features"])
    assert sorted(found) == sorted(town.images["image_id"])
    assert lines > 0


def test_thumbnails_need_no_token_and_show_the_view(
    server: SimulationServer, client: requests.Session, town: Town
) -> None:
    answer = client.get(thumb_address(client, server, town))
    assert answer.headers["Content-Type"] == "image/jpeg"
    with Image.open(io.BytesIO(answer.content)) as image:
        assert image.size == (256, 192)


def test_a_thumbnail_is_never_larger_than_the_original(client: requests.Session, town: Town) -> None:
    with SimulationServer(town, image_width=320) as server:
        node = entity(client, server, with_thumb(town), "width,height,thumb_1024_url")
        with Image.open(io.BytesIO(client.get(node["thumb_1024_url"]).content)) as image:
            assert image.size == (node["width"], node["height"]) == (320, 240)


def test_an_expired_or_forged_address_is_refused_and_can_be_renewed(town: Town, client: requests.Session) -> None:
    with SimulationServer(town, thumb_lifetime_s=-10) as server:
        expired = client.get(thumb_address(client, server, town))
        assert expired.status_code == 403
        assert b"expired" in expired.content
    with SimulationServer(town) as server:
        address = thumb_address(client, server, town)
        forged = re.sub(r"oe=[0-9a-f]+", "oe=ffffffff", address)
        assert client.get(forged).status_code == 403
        assert client.get(address).status_code == 200


def test_some_images_have_no_thumbnail_or_only_when_asked_again(client: requests.Session) -> None:
    town = build_town()
    rows = town.images.assign(position=range(len(town.images))).drop_duplicates("thumb").set_index("thumb")
    with SimulationServer(town) as server:
        for state, searched, asked in (("ok", True, True), ("late", False, True), ("never", False, False)):
            row = rows.loc[state]
            box = around(town, int(row.position), half=1e-4)
            answer = client.get(
                f"{server.url}/mapillary/images", params={"bbox": box, "fields": "thumb_256_url"}, headers=TOKEN
            )
            found = next(image for image in answer.json()["data"] if image["id"] == row.image_id)
            assert ("thumb_256_url" in found) == searched
            assert ("thumb_256_url" in entity(client, server, row.image_id, "thumb_256_url")) == asked


# --- faults ---


@pytest.mark.parametrize(
    ("kind", "status", "content_type"),
    [
        ("throttled", 429, "application/json"),
        ("internal_error", 500, "application/json"),
        ("unavailable", 503, "text/plain"),
        ("error_in_200", 200, "application/json"),
        ("html", 200, "text/html"),
        ("expired", 403, "text/plain"),
        ("wrong_type", 200, "application/octet-stream"),
        ("placeholder", 200, "image/jpeg"),
        ("truncated", 200, "image/jpeg"),
    ],
)
def test_a_fault_strikes_as_often_as_told(
    server: SimulationServer, client: requests.Session, town: Town, kind: FaultKind, status: int, content_type: str
) -> None:
    address = thumb_address(client, server, town)
    sound = client.get(address).content
    server.inject(Fault(kind, "/thumbs/", times=1))
    struck = client.get(address)
    assert struck.status_code == status
    assert struck.headers["Content-Type"].startswith(content_type)
    assert (struck.content == sound) == (kind == "wrong_type")
    assert client.get(address).content == sound
    assert [record.fault for record in server.requests[-2:]] == [kind, None]


def test_truncated_is_half_a_jpeg_and_placeholder_is_plain_grey(
    server: SimulationServer, client: requests.Session, town: Town
) -> None:
    address = thumb_address(client, server, town)
    server.inject(Fault("truncated", "/thumbs/", times=1))
    with Image.open(io.BytesIO(client.get(address).content)) as image, pytest.raises(OSError, match="truncated"):
        image.load()
    server.inject(Fault("placeholder", "/thumbs/", times=1))
    with Image.open(io.BytesIO(client.get(address).content)) as image:
        assert all(high - low <= 2 for low, high in image.getextrema())  # type: ignore[misc]


def test_throttling_says_when_to_come_back_or_does_not(server: SimulationServer, client: requests.Session) -> None:
    address = f"{server.url}/mapillary/images?bbox=-8,50,-7.999,50.001"
    server.inject(Fault("throttled", "/mapillary/images", times=1, retry_after_s=2))
    server.inject(Fault("throttled", "/mapillary/images", times=1))
    first, second = (client.get(address, headers=TOKEN) for _ in range(2))
    assert first.headers["Retry-After"] == "2"
    assert "Retry-After" not in second.headers
    assert second.json()["error"]["code"] == 4


def test_a_reset_breaks_the_body_in_the_middle(server: SimulationServer, client: requests.Session) -> None:
    server.inject(Fault("reset", "file7", times=1))
    address = f"{server.url}/statistics/file7.csv"
    with pytest.raises((requests.ConnectionError, requests.exceptions.ChunkedEncodingError)):
        client.get(address)
    assert client.get(address).status_code == 200


def test_a_slow_answer_is_late_and_sound(server: SimulationServer, client: requests.Session) -> None:
    server.inject(Fault("slow", "file7", times=1, seconds=0.3))
    start = time.monotonic()
    assert client.get(f"{server.url}/statistics/file7.csv").status_code == 200
    assert time.monotonic() - start >= 0.3


def test_a_time_out_never_answers(server: SimulationServer, client: requests.Session) -> None:
    server.inject(Fault("timeout", "file7", times=1))
    with pytest.raises(requests.Timeout):
        client.get(f"{server.url}/statistics/file7.csv", timeout=0.2)
    assert client.get(f"{server.url}/statistics/file7.csv", timeout=5).status_code == 200


def test_faults_by_chance_follow_their_seed(town: Town, client: requests.Session) -> None:
    seen = []
    for _ in range(2):
        with SimulationServer(town, faults=[Fault("unavailable", "file7", probability=0.5, seed=1)]) as server:
            seen.append([client.get(f"{server.url}/statistics/file7.csv").status_code for _ in range(12)])
    assert seen[0] == seen[1]
    assert set(seen[0]) == {200, 503}


# --- life ---


def test_every_request_is_logged_at_once(town: Town, client: requests.Session, tmp_path: Path) -> None:
    log = tmp_path / "requests.jsonl"
    with SimulationServer(town, log_path=log) as server:
        client.get(f"{server.url}/statistics/file7.csv?x=1")
        client.get(f"{server.url}/nowhere")
        lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [(line["method"], line["path"], line["query"], line["status"]) for line in lines] == [
        ("GET", "/statistics/file7.csv", "x=1", 200),
        ("GET", "/nowhere", "", 404),
    ]
    assert [record.path for record in server.requests] == ["/statistics/file7.csv", "/nowhere"]


def test_closing_hangs_up_on_idle_and_waiting_clients(town: Town) -> None:
    with requests.Session() as idle, SimulationServer(town) as server:
        idle.get(f"{server.url}/statistics/file7.csv")
        start = time.monotonic()
    assert time.monotonic() - start < 1.0
    with pytest.raises(RuntimeError, match="not running"):
        _ = server.url
