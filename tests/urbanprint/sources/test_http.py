"""The HTTP client: what it tries again, what is final, and that a secret is never seen."""

import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from urbanprint.errors import SourceError
from urbanprint.sources.http import HttpClient, HttpStatusError, RateLimit, Retry

FAST = Retry(attempts=4, first_pause_s=0.01)
TOKEN = "MLY|123|abcdef"


class Server:
    """Answers each path with its list of (status, headers), the last one for ever."""

    def __init__(self) -> None:
        self.script: dict[str, list[tuple[int, dict[str, str]]]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                path = self.path.split("?")[0]
                outer.seen.append((self.path, dict(self.headers)))
                answers = outer.script[path]
                status, headers = answers.pop(0) if len(answers) > 1 else answers[0]
                body = f"{path} answers {status} to {TOKEN}".encode()
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: object) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}"


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


@pytest.fixture
def client() -> Iterator[HttpClient]:
    client = HttpClient(name="Provider", headers={"Authorization": f"OAuth {TOKEN}"}, secrets=[TOKEN], retry=FAST)
    yield client
    client.close()


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
def test_what_passes_by_itself_is_tried_again(server: Server, client: HttpClient, status: int) -> None:
    server.script["/a"] = [(status, {}), (status, {}), (200, {})]
    assert client.get(server.url + "/a").status_code == 200
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 451])
def test_any_other_refusal_is_final_at_once(server: Server, client: HttpClient, status: int) -> None:
    server.script["/a"] = [(status, {})]
    with pytest.raises(HttpStatusError, match=f"Provider: .*/a answered status {status}") as refused:
        client.get(server.url + "/a")
    assert refused.value.status == status
    assert len(server.seen) == 1


def test_it_gives_up_after_its_attempts(server: Server, client: HttpClient) -> None:
    server.script["/a"] = [(503, {})]
    with pytest.raises(SourceError, match="failed 4 times, last: status 503"):
        client.get(server.url + "/a")
    assert len(server.seen) == 4


def test_retry_after_is_honoured(server: Server, client: HttpClient) -> None:
    server.script["/a"] = [(429, {"Retry-After": "0.4"}), (200, {})]
    begun = time.monotonic()
    client.get(server.url + "/a")
    assert time.monotonic() - begun >= 0.4


def test_a_retry_after_date_and_nonsense_are_read() -> None:
    class Answer:
        def __init__(self, value: str) -> None:
            self.headers = {"Retry-After": value}

    assert Retry().pause_s(0, Answer("Wed, 21 Oct 2015 07:28:00 GMT")) == 0.0  # type: ignore[arg-type]
    assert Retry().pause_s(0, Answer("7")) == 7.0  # type: ignore[arg-type]
    assert 0.25 <= Retry(first_pause_s=0.5).pause_s(0, Answer("soon")) <= 0.5  # type: ignore[arg-type]


def test_a_host_that_is_not_there_is_a_clear_error(client: HttpClient) -> None:
    with pytest.raises(SourceError, match=r"Provider: http://127.0.0.1:9/a failed 4 times, last: ConnectionError"):
        client.get("http://127.0.0.1:9/a")


def test_the_token_travels_in_the_header_and_appears_in_no_message(server: Server, client: HttpClient) -> None:
    server.script["/a"] = [(403, {})]
    with pytest.raises(HttpStatusError) as refused:
        client.get(server.url + "/a", params={"access_token": TOKEN})
    assert server.seen[0][1]["Authorization"] == f"OAuth {TOKEN}"
    assert TOKEN not in str(refused.value) + refused.value.body
    assert "[secret]" in refused.value.body


def test_the_query_string_is_left_out_of_messages(server: Server, client: HttpClient) -> None:
    server.script["/a"] = [(404, {})]
    with pytest.raises(HttpStatusError) as refused:
        client.get(server.url + "/a?signature=abc")
    assert "signature" not in str(refused.value)


def test_another_host_is_not_shown_the_token(server: Server, client: HttpClient) -> None:
    server.script["/a"] = [(200, {})]
    client.get(server.url + "/a", authenticated=False)
    assert "Authorization" not in server.seen[0][1]


def test_a_rate_limit_is_shared_by_threads() -> None:
    limit = RateLimit(per_minute=3000)  # one in 20 ms
    threads = [threading.Thread(target=limit.wait) for _ in range(10)]
    begun = time.monotonic()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun >= 9 * 0.02
