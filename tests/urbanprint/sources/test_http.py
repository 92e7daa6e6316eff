"""The HTTP client: what it tries again, what is final, where it never goes, and that a secret is never seen."""

import gzip
import logging
import socket
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import quote_plus

import pytest

from urbanprint.errors import SourceError
from urbanprint.sources import places
from urbanprint.sources.http import HttpClient, HttpStatusError, Retry, is_local
from urbanprint.sources.limits import CircuitBreaker, ProviderDown, RateLimit

FAST = Retry(attempts=4, first_pause_s=0.01)
TOKEN = "MLY|123|abc/def+ghi"


@dataclass
class Answer:
    """One answer; the connection ends after `cut` bytes of the body, `trickle_s` passes between two bytes."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b"sound"
    cut: int | None = None
    trickle_s: float = 0.0
    endless: bool = False
    silent_s: float = 0.0


class _Listener(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: clients here hang up on purpose."""


class Server:
    """Answers each path with its list of answers, the last one for ever; `seen` is what was asked, `at` when."""

    def __init__(self) -> None:
        self.script: dict[str, list[Answer]] = {}
        self.seen: list[tuple[str, dict[str, str]]] = []
        self.at: list[float] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def do_GET(self) -> None:
                outer.at.append(time.monotonic())
                outer.seen.append((self.path, dict(self.headers)))
                answers = outer.script[self.path.split("?")[0]]
                answer = answers.pop(0) if len(answers) > 1 else answers[0]
                time.sleep(answer.silent_s)
                self.send_response_only(answer.status)
                if not answer.endless and "Transfer-Encoding" not in answer.headers:
                    self.send_header("Content-Length", str(len(answer.body)))
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.close_connection = answer.cut is not None or answer.endless
                try:
                    self._send(answer)
                except (BrokenPipeError, ConnectionResetError):
                    self.close_connection = True

            def _send(self, answer: Answer) -> None:
                if answer.trickle_s:
                    for each in answer.body:
                        self.wfile.write(bytes([each]))
                        time.sleep(answer.trickle_s)
                    return
                self.wfile.write(answer.body[: answer.cut])
                while answer.endless:
                    self.wfile.write(bytes(1 << 16))

            def log_message(self, format: str, *args: object) -> None: ...

        self.http = _Listener(("127.0.0.1", 0), Handler)
        self.port = self.http.server_port
        self.url = f"http://127.0.0.1:{self.port}"

    def answers(self, path: str, *answers: Answer) -> None:
        self.script[path] = list(answers)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.http.serve_forever, args=(0.02,))
    thread.start()
    yield server
    server.http.shutdown()
    server.http.server_close()
    thread.join()


MakeClient = Callable[..., HttpClient]


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    made: list[HttpClient] = []

    def make(**settings: object) -> HttpClient:
        usual = {"headers": {"Authorization": f"OAuth {TOKEN}"}, "secrets": [TOKEN], "retry": FAST, "local": True}
        made.append(HttpClient(name="Provider", **(usual | settings)))  # type: ignore[arg-type]
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def client(make_client: MakeClient) -> HttpClient:
    return make_client()


# --- what is tried again ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504, 520])
def test_what_passes_by_itself_is_tried_again(server: Server, client: HttpClient, status: int) -> None:
    server.answers("/a", Answer(status), Answer(status), Answer())
    assert client.get(server.url + "/a").content == b"sound"
    assert len(server.seen) == 3


@pytest.mark.parametrize("status", [304, 400, 401, 403, 404, 410, 451])
def test_any_other_refusal_is_final_at_once(server: Server, client: HttpClient, status: int) -> None:
    server.answers("/a", Answer(status, body=b"" if status == 304 else b"no"))
    with pytest.raises(HttpStatusError, match=f"Provider: .*/a answered status {status}") as refused:
        client.get(server.url + "/a")
    assert refused.value.status == status
    assert len(server.seen) == 1


def test_a_source_may_know_that_a_server_error_will_not_pass(server: Server, make_client: MakeClient) -> None:
    client = make_client(final=lambda response: response.json()["code"] == 190)
    server.answers("/a", Answer(500, body=b'{"code": 190}'))
    with pytest.raises(HttpStatusError) as refused:
        client.get(server.url + "/a")
    assert refused.value.body == '{"code": 190}'
    assert len(server.seen) == 1


def test_it_gives_up_after_its_attempts(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(503))
    with pytest.raises(SourceError, match=r"Provider: .*/a failed 4 times, last: status 503"):
        client.get(server.url + "/a")
    assert len(server.seen) == 4


def test_a_host_that_is_not_there_is_a_clear_error(client: HttpClient) -> None:
    with pytest.raises(SourceError, match=r"Provider: http://127.0.0.1:9/a failed 4 times, last: ConnectionError"):
        client.get("http://127.0.0.1:9/a")


PIXELS = bytes(range(256)) * 400
CHUNKED = {"Transfer-Encoding": "chunked"}


@pytest.mark.parametrize(
    "broken",
    [
        Answer(body=PIXELS, cut=70_000),
        Answer(body=PIXELS, cut=0),
        Answer(headers=CHUNKED, body=b"5\r\nsound\r\n", cut=10),  # the last chunk never comes
        Answer(headers=CHUNKED, body=b"nonsense\r\n", cut=10),
        Answer(headers={"Content-Encoding": "gzip"}, body=b"no gzip at all"),
        Answer(silent_s=0.4),
        Answer(body=PIXELS[:100], trickle_s=0.1),
    ],
    ids=["half", "nothing", "no last chunk", "no chunk", "no gzip", "silent", "trickling"],
)
def test_a_broken_body_is_asked_for_again(server: Server, make_client: MakeClient, broken: Answer) -> None:
    client = make_client(timeout_s=(1.0, 0.2))
    server.answers("/a", broken, Answer(body=PIXELS))
    assert client.get(server.url + "/a").content == PIXELS
    assert len(server.seen) == 2


def test_an_error_inside_a_200_is_tried_again_and_then_told(server: Server, client: HttpClient) -> None:
    def unsound(response: object) -> str | None:
        return "an error envelope" if b"error" in response.content else None  # type: ignore[attr-defined]

    server.answers("/a", Answer(body=b"error"), Answer())
    assert client.get(server.url + "/a", unsound=unsound).content == b"sound"
    server.answers("/a", Answer(body=b"error"))
    with pytest.raises(SourceError, match="last: status 200 with an error envelope"):
        client.get(server.url + "/a", unsound=unsound)


def test_json_is_parsed_and_anything_else_asked_for_again(server: Server, client: HttpClient) -> None:
    bombs = [Answer(body=b"[" * 200_000), Answer(body=b"<html>"), Answer(body=b"\xff"), Answer(body=b'{"a": [1]}')]
    server.answers("/a", *bombs)
    assert client.get_json(server.url + "/a") == {"a": [1]}
    server.answers("/a", Answer(body=f"<html>\n {TOKEN}".encode()))
    with pytest.raises(SourceError, match=r"a body that is not JSON: '<html> \[secret\]'"):
        client.get_json(server.url + "/a")


def test_json_may_still_be_an_error_to_the_source(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(body=b'{"error": 2}'), Answer(body=b"[]"))
    assert client.get_json(server.url + "/a", unsound=lambda answer: "error" if "error" in answer.text else None) == []


def test_what_is_called_before_sees_every_attempt_and_can_end_the_request(server: Server, client: HttpClient) -> None:
    class Spent(Exception):
        """A budget that is used up."""

    budget = [3]

    def spend() -> None:
        if not budget[0]:
            raise Spent
        budget[0] -= 1

    server.answers("/a", Answer(503))
    with pytest.raises(Spent):
        client.get(server.url + "/a", before=spend)
    assert len(server.seen) == 3


def test_a_stream_is_the_callers_to_read(server: Server, make_client: MakeClient) -> None:
    server.answers("/a", Answer(503), Answer(body=PIXELS))
    with make_client(largest_bytes=10).get(server.url + "/a", stream=True) as response:
        assert b"".join(response.iter_content(1000)) == PIXELS


# --- pauses ----------------------------------------------------------------------------------------------------------


def test_retry_after_is_honoured(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(503, {"Retry-After": "0.4"}), Answer())
    client.get(server.url + "/a")
    assert server.at[1] - server.at[0] >= 0.4


@pytest.mark.parametrize("limit", [None, RateLimit(60_000)])
def test_a_429_pauses_every_thread_of_the_provider(
    server: Server, make_client: MakeClient, limit: RateLimit | None
) -> None:
    client = make_client(limit=limit)
    server.answers("/a", Answer(429, {"Retry-After": "0.5"}), Answer())
    server.answers("/b", Answer())
    throttled = threading.Thread(target=client.get, args=(server.url + "/a",))
    throttled.start()
    while not server.seen:
        time.sleep(0.005)
    time.sleep(0.1)
    client.get(server.url + "/b")
    throttled.join()
    assert sorted(path for path, _ in server.seen[1:]) == ["/a", "/b"]
    assert min(server.at[1:]) - server.at[0] >= 0.5


def test_a_pause_longer_than_patience_is_told_to_everybody_at_once(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(429, {"Retry-After": "7200"}))
    for _ in range(2):
        with pytest.raises(ProviderDown, match=r"status 429 and asks for a pause\): try again in 7\d\d\d s"):
            client.get(server.url + "/a")
    assert len(server.seen) == 1


NOW = "Wed, 21 Oct 2015 07:28:00 GMT"  # a server whose clock is years behind


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"Retry-After": "7"}, 7.0),
        ({"Retry-After": "-7"}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:05 GMT", "Date": NOW}, 5.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:27:00 GMT", "Date": NOW}, 0.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:05 -0000", "Date": NOW}, 5.0),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:05 GMT"}, 0.0),  # without its Date, our clock has to do
    ],
)
def test_a_retry_after_is_a_number_or_a_date_on_the_servers_own_clock(headers: dict[str, str], seconds: float) -> None:
    assert Retry().pause_s(0, SimpleNamespace(headers=headers)) == seconds  # type: ignore[arg-type]


@pytest.mark.parametrize("nonsense", ["soon", "", "nan", "inf", "Wed, 99 Oct 2015 07:28:00 GMT"])
def test_a_retry_after_that_says_nothing_is_as_none(nonsense: str) -> None:
    answer = SimpleNamespace(headers={"Retry-After": nonsense})
    assert 0.25 <= Retry(first_pause_s=0.5).pause_s(0, answer) <= 0.5  # type: ignore[arg-type]


def test_pauses_double_with_jitter_up_to_the_longest() -> None:
    retry = Retry(first_pause_s=1.0, longest_pause_s=4.0)
    for attempt, longest in enumerate([1.0, 2.0, 4.0, 4.0]):
        pauses = {retry.pause_s(attempt, None) for _ in range(20)}
        assert len(pauses) > 1
        assert all(longest / 2 <= pause <= longest for pause in pauses)


def test_a_provider_that_is_down_is_left_alone_until_a_probe_succeeds(server: Server, make_client: MakeClient) -> None:
    client = make_client(breaker=CircuitBreaker("Provider", failures=6, lasting_s=0.0, cool_down_s=0.3))
    server.answers("/a", Answer(503))
    with pytest.raises(SourceError, match="failed 4 times"):
        client.get(server.url + "/a")
    with pytest.raises(ProviderDown, match="Provider is down"):
        client.get(server.url + "/a")  # in the middle of its attempts
    with pytest.raises(ProviderDown):
        client.get(server.url + "/a")
    assert len(server.seen) == 6
    time.sleep(0.3)
    server.answers("/a", Answer())
    assert client.get(server.url + "/a").content == b"sound"
    assert client.get(server.url + "/a").content == b"sound"


def test_refusals_are_no_outage(server: Server, make_client: MakeClient) -> None:
    client = make_client(breaker=CircuitBreaker("Provider", failures=2, lasting_s=0.0))
    server.answers("/a", Answer(404))
    for _ in range(5):
        with pytest.raises(HttpStatusError):
            client.get(server.url + "/a")


def test_every_attempt_takes_a_slot_of_the_limit(server: Server, make_client: MakeClient) -> None:
    client = make_client(limit=RateLimit(600))
    server.answers("/a", Answer(503), Answer(503), Answer())
    begun = time.monotonic()
    client.get(server.url + "/a")
    assert server.at[2] - begun >= 0.2


# --- bodies without an end -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "bomb",
    [
        Answer(endless=True),
        Answer(body=bytes(2 << 20)),
        Answer(headers={"Content-Encoding": "gzip"}, body=gzip.compress(bytes(100 << 20), 1)),
    ],
    ids=["endless", "large", "gzip"],
)
def test_a_body_that_would_fill_the_memory_is_refused(server: Server, make_client: MakeClient, bomb: Answer) -> None:
    server.answers("/a", bomb)
    with pytest.raises(SourceError, match=r"Provider: .*/a sends more than 1,048,576 bytes"):
        make_client(largest_bytes=1 << 20).get(server.url + "/a?key=k")
    assert len(server.seen) == 1


def test_of_an_endless_refusal_the_beginning_is_enough(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(404, body=b"no such image", endless=True))
    with pytest.raises(HttpStatusError, match="answered status 404: no such image"):
        client.get(server.url + "/a")


# --- redirects and places --------------------------------------------------------------------------------------------


def test_a_redirect_on_the_same_host_is_followed(server: Server, client: HttpClient) -> None:
    server.answers("/a/b", Answer(302, {"Location": "../c?size=1"}))
    server.answers("/c", Answer())
    assert client.get(server.url + "/a/b", params={"token": "x"}).content == b"sound"
    assert [path for path, _ in server.seen] == ["/a/b?token=x", "/c?size=1"]
    assert server.seen[1][1]["Authorization"] == f"OAuth {TOKEN}"


def test_a_redirect_may_be_what_the_source_asks_for(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(302, {"Location": "http://elsewhere.example/"}))
    assert client.get(server.url + "/a", accept=(302,)).headers["Location"] == "http://elsewhere.example/"


def test_a_circle_of_redirects_ends(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(302, {"Location": "/a"}))
    with pytest.raises(SourceError, match="redirected more than 5 times"):
        client.get(server.url + "/a")
    assert len(server.seen) == 6


@pytest.mark.parametrize(
    "target",
    ["http://elsewhere.example/x?key=k", "//elsewhere.example/", "http://nottrusted.example/", "http://127.0.0.2/"],
)
def test_a_redirect_to_another_host_is_refused(server: Server, make_client: MakeClient, target: str) -> None:
    server.answers("/a", Answer(302, {"Location": target}))
    with pytest.raises(SourceError, match=r"redirects to another host, .* which is refused") as refused:
        make_client(trusted_hosts=("trusted.example",)).get(server.url + "/a")
    assert "key=k" not in str(refused.value)


@pytest.mark.parametrize("trusted", [("localhost",), ("*",)])
def test_a_trusted_host_is_followed_but_shown_no_key(
    server: Server, make_client: MakeClient, trusted: tuple[str, ...]
) -> None:
    server.answers("/a", Answer(302, {"Location": f"http://localhost:{server.port}/c"}))
    server.answers("/c", Answer())
    asked = {"Range": "bytes=5-", "X-Key": TOKEN, "Cookie": "session=1"}
    make_client(trusted_hosts=trusted).get(server.url + "/a", headers=asked)
    first, second = (headers for _, headers in server.seen)
    assert {"Range", "X-Key", "Cookie", "Authorization"} <= first.keys()
    assert second["Range"] == "bytes=5-"
    assert not {"X-Key", "Cookie", "Authorization"} & second.keys()


def test_subdomains_of_a_trusted_host_are_trusted_and_lookalikes_are_not(make_client: MakeClient) -> None:
    client = make_client(trusted_hosts=("fbcdn.net",))
    client._check_redirect("https://a.example/", "https://scontent-fra3.xx.fbcdn.net/x.jpg")
    for lookalike in ("https://evilfbcdn.net/", "https://fbcdn.net.evil.example/", "https://fbcdn.net@evil.example/"):
        with pytest.raises(SourceError, match="another host"):
            client._check_redirect("https://a.example/", lookalike)


def test_a_redirect_never_drops_the_encryption(client: HttpClient) -> None:
    with pytest.raises(SourceError, match="without encryption"):
        client._check_redirect("https://a.example/", "http://a.example/")


LOCAL = [
    "http://127.0.0.1:{port}/a",
    "http://localhost:{port}/a",
    "http://127.1:{port}/a",
    "http://2130706433:{port}/a",
    "http://0.0.0.0:{port}/a",
    "http://[::1]:{port}/a",
    "http://[::ffff:127.0.0.1]:{port}/a",
    "http://127.0.0.1:{port}\\@public.example/a",
    "http://user:password@127.0.0.1:{port}/a",
    "http://10.0.0.1/a",
    "http://192.168.1.1/a",
    "http://169.254.169.254/latest/meta-data/",
    "http://[fe80::1]/a",
    "http://[fd00::1]/a",
    "http://224.0.0.1/a",
]


@pytest.mark.parametrize("address", LOCAL)
def test_an_address_on_this_machine_or_its_network_is_refused(
    server: Server, make_client: MakeClient, address: str
) -> None:
    server.answers("/a", Answer())
    with pytest.raises(SourceError, match="this machine or its network") as refused:
        make_client(local=False).get(address.format(port=server.port))
    assert "password" not in str(refused.value)
    assert server.seen == []


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://a.example/b", "//a.example/b", "a.example", "", "x:"])
def test_what_is_no_web_address_is_refused(client: HttpClient, address: str) -> None:
    with pytest.raises(SourceError, match=r"expected an http\(s\) address"):
        client.get(address)


@pytest.mark.parametrize("address", ["http://[::1/a", "http://a.example:port/", "http://*.example/", "http://:80"])
def test_a_malformed_address_is_a_clear_error(client: HttpClient, address: str) -> None:
    with pytest.raises(SourceError, match=r"Provider: http:\S* (is no address|is refused)"):
        client.get(address)


def test_a_redirect_to_a_local_place_is_refused(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The test's server plays a public one.
    monkeypatch.setattr(places, "_is_local_ip", lambda address: address == "127.0.0.2")
    server.answers("/a", Answer(302, {"Location": f"http://127.0.0.2:{server.port}/b"}))
    with pytest.raises(SourceError, match=r"http://127.0.0.2:\d+/b is refused: it lies on this machine"):
        make_client(local=False, trusted_hosts=("*",)).get(server.url + "/a")
    assert len(server.seen) == 1


def test_a_name_that_turns_local_after_it_was_checked_gets_no_request(
    server: Server, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(places, "_addresses", lambda host: ("93.184.215.14",))
    server.answers("/a", Answer())
    with pytest.raises(SourceError, match=r"127\.0\.0\.1 leads to this machine or its network"):
        make_client(local=False).get(server.url + "/a")
    assert server.seen == []


def test_where_nobody_says_the_providers_own_first_address_decides(server: Server, make_client: MakeClient) -> None:
    client = make_client(local=None)
    server.answers("/a", Answer())
    with pytest.raises(SourceError, match="this machine or its network"):
        client.get(server.url + "/a", authenticated=False)  # an address that somebody gave
    client.get(server.url + "/a")
    client.get(server.url + "/a", authenticated=False)
    assert len(server.seen) == 2


def test_what_is_local(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_local("http://127.0.0.1:8000/a")
    assert not is_local("https://93.184.215.14/")

    def unknown(host: str) -> tuple[str, ...]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(places, "_addresses", unknown)
    assert not is_local("https://elsewhere.example/")


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_the_token_travels_in_the_header_and_appears_in_no_message(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(403, body=f"bad token {TOKEN} or {quote_plus(TOKEN)}".encode()))
    with pytest.raises(HttpStatusError) as refused:
        client.get(server.url + "/a", params={"access_token": TOKEN})
    assert server.seen[0][1]["Authorization"] == f"OAuth {TOKEN}"
    assert refused.value.body == "bad token [secret] or [secret]"
    assert "access_token" not in str(refused.value)


@pytest.mark.parametrize("encode", [str, quote_plus, lambda secret: quote_plus(secret).lower()])
def test_encoded_forms_of_a_secret_are_cut_out_too(client: HttpClient, encode: Callable[[str], str]) -> None:
    assert client.redact(f"https://a.example/?key={encode(TOKEN)}&b=1") == "https://a.example/?key=[secret]&b=1"


def test_what_is_too_short_for_a_key_does_not_cut_messages_to_pieces(make_client: MakeClient) -> None:
    assert make_client(secrets=["", "t"]).redact("the rest") == "the rest"


def test_another_host_is_not_shown_the_token(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer())
    client.get(server.url + "/a", authenticated=False)
    assert "Authorization" not in server.seen[0][1]


def test_no_log_not_even_at_debug_shows_a_key(
    server: Server, client: HttpClient, caplog: pytest.LogCaptureFixture
) -> None:
    server.answers("/a", Answer(503), Answer(302, {"Location": f"/b?key={quote_plus(TOKEN)}"}))
    server.answers("/b", Answer())
    with caplog.at_level(logging.DEBUG):
        client.get(server.url + "/a", params={"key": TOKEN})
        with pytest.raises(SourceError):
            client.get("http://127.0.0.1:9/a", params={"key": TOKEN})
    assert "GET /a?key=[secret] HTTP/1.1" in caplog.text  # urllib3 did log the addresses
    assert "abc" not in caplog.text


@pytest.mark.parametrize("answer", [Answer(503), Answer(403), Answer(cut=1), Answer(302, {"Location": "http://[::1"})])
def test_nothing_of_a_key_is_in_an_exception_or_what_led_to_it(
    server: Server, client: HttpClient, answer: Answer
) -> None:
    server.answers("/a", answer)
    with pytest.raises(SourceError) as raised:
        client.get(f"{server.url}/a?key={quote_plus(TOKEN)}")
    assert raised.value.__context__ is None
    assert raised.value.__cause__ is None
    assert "abc" not in "".join(traceback.format_exception(raised.value))


def test_an_unreachable_host_leaves_no_exception_of_requests_behind(client: HttpClient) -> None:
    with pytest.raises(SourceError) as raised:
        client.get(f"http://127.0.0.1:9/a?key={quote_plus(TOKEN)}")
    assert raised.value.__context__ is None


def test_the_client_shows_its_name_alone(client: HttpClient) -> None:
    assert repr(client) == "HttpClient(name='Provider')"


def test_a_netrc_does_not_replace_the_token(
    server: Server, client: HttpClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login somebody password else\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    server.answers("/a", Answer())
    client.get(server.url + "/a")
    assert server.seen[0][1]["Authorization"] == f"OAuth {TOKEN}"


def test_cookies_are_not_kept(server: Server, client: HttpClient) -> None:
    server.answers("/a", Answer(headers={"Set-Cookie": "who=you"}))
    client.get(server.url + "/a")
    client.get(server.url + "/a")
    assert "Cookie" not in server.seen[1][1]
