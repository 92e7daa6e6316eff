"""Downloads against a loopback server that speaks HTTP as the publishers do, with its faults."""

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from urbanprint.errors import DownloadError, InputError
from urbanprint.sources import open_data
from urbanprint.sources.http import HttpClient, Retry
from urbanprint.sources.open_data import fetch, fetch_features, fetch_file

CONTENT = bytes(range(256)) * 2000  # 512 kB, several chunks, no two alike neighbours


@dataclass
class Publisher:
    """One file and one feature layer; what was asked is kept in `requests`."""

    content: bytes = CONTENT
    etag: str | None = '"one"'
    ranges: bool = True
    honours_if_range: bool = True
    cut_after: list[int] = field(default_factory=list)
    """Bytes of the body after which the connection is cut, one entry used up a request."""
    areas: int = 7
    counted: int | None = None
    edited: int | None = None
    page: int = 3
    fail_at_offset: int | None = None
    requests: list[dict[str, Any]] = field(default_factory=list)
    address: str = ""


def _handler(publisher: Publisher) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            query = {key: values[0] for key, values in parse_qs(urlsplit(self.path).query).items()}
            path = urlsplit(self.path).path
            publisher.requests.append({"path": path, "query": query, **dict(self.headers.items())})
            if "/FeatureServer/" in path:
                self._layer(path, query)
            elif path == "/absent.csv":
                self._answer(404, b"no such file")
            else:
                self._file()

        def _file(self) -> None:
            body, status, headers = publisher.content, 200, {}
            if publisher.etag:
                headers["ETag"] = publisher.etag
                if self.headers.get("If-None-Match") == publisher.etag:
                    return self._answer(304, b"", headers)
            wanted = self.headers.get("Range")
            same = not publisher.honours_if_range or self.headers.get("If-Range") == publisher.etag
            if wanted and publisher.ranges and same:
                start = int(wanted.removeprefix("bytes=").removesuffix("-"))
                if start >= len(body):
                    return self._answer(416, b"", {**headers, "Content-Range": f"bytes */{len(body)}"})
                headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
                body, status = body[start:], 206
            self._answer(status, body, headers)

        def _layer(self, path: str, query: dict[str, str]) -> None:
            if not path.endswith("/query"):
                layer = {"maxRecordCount": publisher.page, "objectIdField": "FID", "fields": []}
                return self._json({**layer, "editingInfo": {"lastEditDate": publisher.edited}})
            if query.get("returnCountOnly") == "true":
                return self._json({"count": publisher.areas if publisher.counted is None else publisher.counted})
            offset, size = int(query["resultOffset"]), int(query["resultRecordCount"])
            if offset == publisher.fail_at_offset:
                return self._json({"error": {"code": 500, "message": "Unable to complete operation"}})
            ids = range(offset + 1, min(offset + size, publisher.areas) + 1)
            point = {"type": "Point", "coordinates": [0, 51]}
            features = [{"type": "Feature", "id": i, "properties": {"FID": i}, "geometry": point} for i in ids]
            self._json({"type": "FeatureCollection", "features": features})

        def _json(self, body: dict[str, Any]) -> None:
            self._answer(200, json.dumps(body).encode())

        def _answer(self, status: int, body: bytes, headers: dict[str, str] | None = None) -> None:
            self.send_response(status)
            for name, value in {**(headers or {}), "Content-Length": str(len(body))}.items():
                if status != 304 or name != "Content-Length":
                    self.send_header(name, value)
            self.end_headers()
            cut = publisher.cut_after.pop(0) if publisher.cut_after and status in (200, 206) else None
            self.wfile.write(body[:cut])
            self.close_connection = cut is not None

        def log_message(self, *_: object) -> None:
            """Keep the test's output clean."""

    return Handler


@pytest.fixture
def publisher(monkeypatch: pytest.MonkeyPatch) -> Iterator[Publisher]:
    monkeypatch.setattr(open_data, "_FIRST_PAUSE_S", 0.001)
    published = Publisher()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(published))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    published.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield published
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def client() -> Iterator[HttpClient]:
    http = HttpClient(name="open data", retry=Retry(attempts=2, first_pause_s=0.001))
    yield http
    http.close()


def test_a_file_is_downloaded_once_and_then_only_asked_about(
    publisher: Publisher, client: HttpClient, tmp_path: Path
) -> None:
    address = f"{publisher.address}/file7.csv"
    seen: list[tuple[int, int | None]] = []
    first = fetch_file(address, folder=tmp_path, client=client, progress=lambda done, total: seen.append((done, total)))
    second = fetch_file(address, folder=tmp_path, client=client)
    assert first.path.read_bytes() == CONTENT
    assert first.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (first.changed, first.etag, first.bytes) == (True, '"one"', len(CONTENT))
    assert (second.changed, second.path, second.sha256) == (False, first.path, first.sha256)
    assert seen[-1] == (len(CONTENT), len(CONTENT))
    assert publisher.requests[1]["If-None-Match"] == '"one"'
    assert not list(tmp_path.glob("*.part*"))


def test_a_changed_file_is_fetched_again_and_says_so(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    address = f"{publisher.address}/file7.csv"
    fetch_file(address, folder=tmp_path, client=client)
    publisher.content, publisher.etag = b"corrected", '"two"'
    again = fetch_file(address, folder=tmp_path, client=client)
    assert again.changed
    assert again.path.read_bytes() == b"corrected"


def test_equal_bytes_under_a_new_etag_are_no_change(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    address = f"{publisher.address}/file7.csv"
    fetch_file(address, folder=tmp_path, client=client)
    publisher.etag = '"republished"'
    assert not fetch_file(address, folder=tmp_path, client=client).changed


def test_another_address_never_reuses_an_old_file(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    one = fetch_file(f"{publisher.address}/2019/file7.csv", folder=tmp_path, client=client)
    two = fetch_file(f"{publisher.address}/2025/file7.csv?v=../../2", folder=tmp_path, client=client)
    assert one.path != two.path
    assert one.path.parent == two.path.parent == tmp_path
    assert one.path.name.endswith("file7.csv")


def test_a_damaged_copy_is_not_trusted(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    address = f"{publisher.address}/file7.csv"
    fetch_file(address, folder=tmp_path, client=client).path.write_bytes(b"damaged")
    assert fetch_file(address, folder=tmp_path, client=client).path.read_bytes() == CONTENT


def test_a_cut_connection_goes_on_where_it_stopped(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    publisher.cut_after = [200_000, 100_000]
    fetched = fetch_file(f"{publisher.address}/file7.csv", folder=tmp_path, client=client)
    assert fetched.path.read_bytes() == CONTENT
    starts = [int(request["Range"][6:-1]) for request in publisher.requests[1:]]
    assert len(starts) == 2
    assert 0 < starts[0] <= 200_000 < starts[1] <= 300_000
    assert all(request["If-Range"] == '"one"' for request in publisher.requests[1:])


def test_an_interrupted_run_is_continued_by_the_next(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    address = f"{publisher.address}/file7.csv"
    publisher.cut_after = [300_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError, match=r"file7\.csv broke off 5 times"):
        fetch_file(address, folder=tmp_path, client=client)
    publisher.requests.clear()
    assert fetch_file(address, folder=tmp_path, client=client).path.read_bytes() == CONTENT
    (request,) = publisher.requests
    assert int(request["Range"][6:-1]) > 200_000


def test_a_run_killed_before_the_rename_downloads_nothing_again(
    publisher: Publisher, client: HttpClient, tmp_path: Path
) -> None:
    address = f"{publisher.address}/file7.csv"
    path = fetch_file(address, folder=tmp_path, client=client).path
    path.rename(tmp_path / f"{path.name}.part")
    (tmp_path / f"{path.name}.json").unlink()
    (tmp_path / f"{path.name}.part.json").write_text('{"etag": "\\"one\\"", "last_modified": null}')
    publisher.requests.clear()
    assert fetch_file(address, folder=tmp_path, client=client).path.read_bytes() == CONTENT
    assert [request["Range"] for request in publisher.requests] == [f"bytes={len(CONTENT)}-"]


@pytest.mark.parametrize("etag", ['"one"', None], ids=["ignores Range", "has no validator"])
def test_a_server_that_cannot_resume_starts_over_cleanly(
    publisher: Publisher, client: HttpClient, tmp_path: Path, etag: str | None
) -> None:
    publisher.ranges, publisher.etag, publisher.cut_after = False, etag, [200_000]
    fetched = fetch_file(f"{publisher.address}/file7.csv", folder=tmp_path, client=client)
    assert fetched.path.read_bytes() == CONTENT


@pytest.mark.parametrize("honours_if_range", [True, False])
def test_a_file_that_changes_while_it_is_resumed_is_never_mixed(
    publisher: Publisher, client: HttpClient, tmp_path: Path, honours_if_range: bool
) -> None:
    address = f"{publisher.address}/file7.csv"
    publisher.cut_after = [200_000, 0, 0, 0, 0]
    with pytest.raises(DownloadError):
        fetch_file(address, folder=tmp_path, client=client)
    publisher.content, publisher.etag, publisher.honours_if_range = CONTENT[::-1], '"two"', honours_if_range
    assert fetch_file(address, folder=tmp_path, client=client).path.read_bytes() == CONTENT[::-1]


def test_a_wrong_checksum_leaves_nothing_behind(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=rf"file7\.csv has the SHA-256 .*, not {'0' * 64}"):
        fetch_file(f"{publisher.address}/file7.csv", folder=tmp_path, client=client, sha256="0" * 64)
    assert not list(tmp_path.iterdir())


def test_pinned_bytes_that_are_here_need_no_network(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    address, pinned = f"{publisher.address}/file7.csv", hashlib.sha256(CONTENT).hexdigest()
    fetch_file(address, folder=tmp_path, client=client, sha256=pinned)
    publisher.requests.clear()
    assert not fetch_file(address, folder=tmp_path, client=client, sha256=pinned).changed
    assert publisher.requests == []


def test_a_refusal_names_the_address_and_the_way_out(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    with pytest.raises(DownloadError, match=r"absent\.csv answered status 404.*local path can be named"):
        fetch_file(f"{publisher.address}/absent.csv", folder=tmp_path, client=client)


@pytest.mark.parametrize("prefix", ["", "file://"])
def test_a_local_path_is_used_in_place(tmp_path: Path, prefix: str) -> None:
    original = tmp_path / "my file.csv"
    original.write_bytes(b"a,b\n")
    folder = tmp_path / "downloads"
    first = fetch(f"{prefix}{original}", folder=folder)
    again = fetch(f"{prefix}{original}", folder=folder)
    original.write_bytes(b"a,c\n")
    assert first.path == original
    assert [first.changed, again.changed, fetch(str(original), folder=folder).changed] == [True, False, True]
    assert [each.name for each in tmp_path.iterdir() if each.is_file()] == ["my file.csv"]


def test_a_change_beside_a_shapefile_is_a_change_of_it(tmp_path: Path) -> None:
    for suffix in (".shp", ".dbf", ".txt"):
        (tmp_path / f"lsoa{suffix}").write_bytes(b"1")
    folder = tmp_path / "downloads"
    for address in (tmp_path / "lsoa.shp", tmp_path):
        fetch(str(address), folder=folder / address.name)
    (tmp_path / "lsoa.dbf").write_bytes(b"2")
    assert fetch(str(tmp_path / "lsoa.shp"), folder=folder / "lsoa.shp").changed


def test_home_is_understood_and_a_missing_path_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "here.csv").write_bytes(b"1")
    assert fetch("~/here.csv", folder=tmp_path / "downloads").path == tmp_path / "here.csv"
    with pytest.raises(InputError, match=r"~/gone\.csv does not exist"):
        fetch("~/gone.csv", folder=tmp_path)
    with pytest.raises(InputError, match="ftp:// is not understood"):
        fetch("ftp://example.org/file7.csv", folder=tmp_path)


# --- feature layers ---


def _layer(publisher: Publisher) -> str:
    return f"{publisher.address}/arcgis/rest/services/LSOA21/FeatureServer/0"


def test_a_feature_layer_becomes_one_geojson_file(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    fetched = fetch(_layer(publisher), folder=tmp_path, client=client)
    collection = json.loads(fetched.path.read_text())
    assert [feature["id"] for feature in collection["features"]] == [1, 2, 3, 4, 5, 6, 7]
    pages = [request["query"] for request in publisher.requests if "resultOffset" in request["query"]]
    assert [page["resultOffset"] for page in pages] == ["0", "3", "6"]
    assert {(page["outSR"], page["f"], page["orderByFields"]) for page in pages} == {("4326", "geojson", "FID")}
    assert [fetched.changed, fetch(_layer(publisher), folder=tmp_path, client=client).changed] == [True, False]
    publisher.areas = 6
    assert fetch(_layer(publisher), folder=tmp_path, client=client).changed


def test_pages_are_not_asked_for_twice_after_an_interruption(
    publisher: Publisher, client: HttpClient, tmp_path: Path
) -> None:
    publisher.fail_at_offset = 6
    with pytest.raises(DownloadError, match=r"FeatureServer/0.* with an error: .*Unable to complete operation"):
        fetch_features(_layer(publisher), folder=tmp_path, client=client)
    publisher.fail_at_offset = None
    publisher.requests.clear()
    fetch_features(_layer(publisher), folder=tmp_path, client=client)
    asked = [request["query"].get("resultOffset") for request in publisher.requests]
    assert [offset for offset in asked if offset] == ["6"]


def test_pages_of_an_older_layer_are_never_mixed_in(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    publisher.edited, publisher.fail_at_offset = 1, 6
    with pytest.raises(DownloadError):
        fetch_features(_layer(publisher), folder=tmp_path, client=client)
    publisher.edited, publisher.fail_at_offset = 2, None
    publisher.requests.clear()
    fetch_features(_layer(publisher), folder=tmp_path, client=client)
    assert [request["query"].get("resultOffset") for request in publisher.requests][2:] == ["0", "3", "6"]


def test_a_layer_not_edited_since_is_not_paged_again(publisher: Publisher, client: HttpClient, tmp_path: Path) -> None:
    publisher.edited = 1_700_000_000_000
    fetch_features(_layer(publisher), folder=tmp_path, client=client)
    publisher.requests.clear()
    assert not fetch_features(_layer(publisher), folder=tmp_path, client=client).changed
    assert not [request for request in publisher.requests if "resultOffset" in request["query"]]
    publisher.edited += 1
    fetch_features(_layer(publisher), folder=tmp_path, client=client)
    assert [request for request in publisher.requests if "resultOffset" in request["query"]]


@pytest.mark.parametrize(("counted", "message"), [(9, "no features from number 7 on, of 9"), (0, "count = 0")])
def test_a_layer_whose_pages_do_not_reach_its_count_is_refused(
    publisher: Publisher, client: HttpClient, tmp_path: Path, counted: int, message: str
) -> None:
    publisher.counted = counted
    with pytest.raises(DownloadError, match=message):
        fetch_features(_layer(publisher), folder=tmp_path, client=client)


def test_a_layer_with_more_features_than_it_counted_is_refused(
    publisher: Publisher, client: HttpClient, tmp_path: Path
) -> None:
    publisher.counted = 5
    with pytest.raises(DownloadError, match=r"gave 6 features, 6 of them different, but counts 5"):
        fetch_features(_layer(publisher), folder=tmp_path, client=client)
