"""One HTTP client for every provider: pooled connections, retries, limits, and secrets that never leave it.

What belongs here is what all providers share. A request is tried again for what passes by itself: time-outs, broken
connections and bodies, 408, 425, 429, 5xx, and errors inside a 200 that the source recognises. Any other refusal is
final at once. Pauses grow and are jittered; a `Retry-After` is honoured, and a 429 pauses every thread of the provider.

What providers send is not trusted. Redirects are followed within the same host or to hosts the source names, addresses
on this machine or its network are refused unless the provider's own endpoint lies there, bodies are capped.
Secrets are cut out of messages, exceptions and urllib3's log.
"""

import math
import random
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC
from email.utils import parsedate_to_datetime
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import urljoin

import requests
from requests.adapters import HTTPAdapter
from urllib3.exceptions import HTTPError
from urllib3.util import parse_url

from urbanprint import __version__
from urbanprint.errors import SourceError
from urbanprint.sources.limits import CircuitBreaker, ProviderDown, RateLimit
from urbanprint.sources.places import PublicAdapter, is_local
from urbanprint.sources.redaction import URLLIB3_LOG, pattern

__all__ = ["ANY_HOST", "HttpClient", "HttpStatusError", "ProviderDown", "RateLimit", "Retry", "Unsound", "is_local"]

Unsound = Callable[[requests.Response], str | None]
"""Looks at a 2xx answer and returns why it is an error or broken all the same, None where it is sound."""

ANY_HOST = ("*",)
"""`trusted_hosts` of a client whose addresses the user wrote down, and which has no secret."""

_PASSING_STATUS = frozenset({408, 425, 429})
_POOL = 64
_REDIRECTS = 5
_CHUNK_BYTES = 1 << 16
_REFUSAL_BYTES = 1 << 16
_KEPT_OF_REFUSAL = 2000
_SHOWN_OF_FAULT = 400
_BODY_TIMEOUTS = 5  # a body that trickles may take this many read time-outs
_KEY_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie"})


class HttpStatusError(SourceError):
    """A final answer that is not a success; `status` and `body` (its first 2,000 characters) are what was sent."""

    def __init__(self, message: str, *, status: int, body: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a request is repeated; pauses double from `first_pause_s`, jittered.

    A provider that asks for a pause of more than `patience_s` is treated as down for that long.
    """

    attempts: int = 5
    first_pause_s: float = 0.5
    longest_pause_s: float = 60.0
    patience_s: float = 300.0

    def pause_s(self, attempt: int, response: requests.Response | None) -> float:
        """Seconds to wait after the failed `attempt` (0-based)."""
        asked = _retry_after_s(response)
        if asked is not None:
            return asked
        # Jitter: many threads that failed together must not come back together.
        return random.uniform(0.5, 1.0) * min(self.first_pause_s * 2**attempt, self.longest_pause_s)


class HttpClient:
    """GET requests to one provider, safe to share between threads.

    - `headers` (keys live here) go to the provider alone; `secrets` are strings that nobody may see.
    - `final` says that an answer that usually passes by itself will not: a 500 for a missing token, say.
    - `trusted_hosts` are domains (with their subdomains) that redirects may lead to besides the host asked.
    - `local` says whether the provider is on this machine or its network, as simulations are: `is_local(endpoint)`.
      Elsewhere such addresses are refused. Where it is not given, the first authenticated request decides, and before
      that one local addresses are refused.
    - `largest_bytes` is the most that a body may hold, unpacked.
    """

    def __init__(
        self,
        *,
        name: str,
        headers: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
        retry: Retry | None = None,
        timeout_s: tuple[float, float] = (10.0, 60.0),
        limit: RateLimit | None = None,
        final: Callable[[requests.Response], bool] | None = None,
        trusted_hosts: Iterable[str] = (),
        local: bool | None = None,
        largest_bytes: int = 64 << 20,
        breaker: CircuitBreaker | None = None,
    ) -> None:
        self.name = name
        self._headers = dict(headers or {})
        secrets = tuple(secrets)
        self._secrets = pattern(secrets)
        URLLIB3_LOG.hide(secrets)
        self._retry = retry or Retry()
        self._timeout_s = timeout_s
        self._limit = limit
        self._final = final or (lambda _response: False)
        self._trusted_hosts = tuple(trusted_hosts)
        self._local = local
        self._largest_bytes = largest_bytes
        self._breaker = breaker or CircuitBreaker(name)
        self._paused_until = 0.0
        self._pausing = threading.Lock()
        self._session = _Session()
        self._session.talk(HTTPAdapter if local else PublicAdapter)

    def __repr__(self) -> str:
        return f"HttpClient(name={self.name!r})"

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        accept: Iterable[int] = (200,),
        authenticated: bool = True,
        before: Callable[[], None] | None = None,
        unsound: Unsound | None = None,
    ) -> requests.Response:
        """Return the first sound answer whose status is in `accept`, its body read.

        With `stream` the body is the caller's to read: it is neither checked nor capped. `authenticated=False` leaves
        the client's own headers out, for addresses on other hosts. `before` is called before every attempt that
        leaves; what it raises ends the request. `unsound` looks at 2xx answers.

        Raises `HttpStatusError` for a final refusal, `ProviderDown` while the provider is down, and `SourceError` for
        an address or a body that is refused here and when every attempt failed. All name provider and address,
        without query string or secret.
        """
        accepted = frozenset(accept)
        reason = ""
        for attempt in range(self._retry.attempts):
            probe = self._wait_to_leave()
            if before is not None:
                before()
            response: requests.Response | None = None
            unusable = ""
            # Errors are raised after the handlers: requests' own hold the address with its keys, and would be printed
            # as the context of ours.
            try:
                response = self._follow(url, params, headers, accepted=accepted, authenticated=authenticated)
                if not (stream and response.status_code in accepted):
                    self._read(response, refused=response.status_code not in accepted)
            except ValueError as error:
                unusable = type(error).__name__
            except (requests.RequestException, HTTPError) as error:
                reason, response = type(error).__name__, None
            if unusable:
                raise self._error(url, f"is no address that can be requested ({unusable})")
            if response is not None:
                status = response.status_code
                if status in accepted:
                    fault = unsound(response) if unsound and not stream and 200 <= status < 300 else None
                    if fault is None:
                        self._breaker.succeeded()
                        return response
                    reason = self.redact(f"status {status} with {fault}")[:_SHOWN_OF_FAULT]
                elif not (status in _PASSING_STATUS or status >= 500) or self._final(response):
                    self._breaker.succeeded()
                    raise self._refusal(url, response)
                else:
                    reason = f"status {status}"
            self._fail(attempt, response, reason, probe=probe)
        raise self._error(url, f"failed {self._retry.attempts} times, last: {reason}")

    def get_json(
        self,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        accept: Iterable[int] = (200,),
        authenticated: bool = True,
        before: Callable[[], None] | None = None,
        unsound: Unsound | None = None,
    ) -> Any:
        """Return the parsed body, a `dict` or a `list`; anything else is a broken body and asked for again.

        Arguments and errors are those of `get`.
        """
        parsed: list[Any] = []

        def not_json(response: requests.Response) -> str | None:
            try:
                body = response.json()
            except (ValueError, RecursionError):  # RecursionError: a hundred thousand opening brackets
                body = None
            if not isinstance(body, dict | list):
                return f"a body that is not JSON: {self._shown(response, 100)!r}"
            parsed[:] = [body]
            return unsound(response) if unsound else None

        self.get(
            url,
            params=params,
            headers=headers,
            accept=accept,
            authenticated=authenticated,
            before=before,
            unsound=not_json,
        )
        return parsed[0]

    def redact(self, text: str) -> str:
        """Return `text` with every secret cut out, plain or URL-encoded."""
        return self._secrets.sub("[secret]", text)

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()

    # --- when a request may leave, and what a failure means for the next ----------------------------------------------

    def _wait_to_leave(self) -> bool:
        """Wait for the provider's pause and the rate limit; return whether this request probes an open breaker."""
        probe = self._breaker.ask()
        while True:
            paused_s = self._paused_until - time.monotonic()
            if paused_s > 0:
                # Jitter: what waited together must not leave together.
                time.sleep(paused_s + random.uniform(0.0, self._retry.first_pause_s))
            if self._limit is not None:
                self._limit.wait()
            if self._paused_until <= time.monotonic():
                return probe or self._breaker.ask()

    def _fail(self, attempt: int, response: requests.Response | None, reason: str, *, probe: bool) -> None:
        """Count a failed attempt, and wait before the next one if there is one."""
        pause_s = self._retry.pause_s(attempt, response)
        if pause_s > self._retry.patience_s:
            self._breaker.open_for(pause_s, reason=f"it answered {reason} and asks for a pause")
            self._breaker.ask()
        if response is not None and response.status_code == 429:
            # The provider is up; it asks all threads, not this one, to be slower.
            self._breaker.succeeded()
            with self._pausing:
                self._paused_until = max(self._paused_until, time.monotonic() + pause_s)
            if self._limit is not None:
                self._limit.postpone(pause_s)
        else:
            self._breaker.failed(reason, probe=probe)
            if attempt + 1 < self._retry.attempts:
                time.sleep(pause_s)

    # --- one attempt --------------------------------------------------------------------------------------------------

    def _follow(
        self,
        url: str,
        params: Mapping[str, Any] | None,
        headers: Mapping[str, str] | None,
        *,
        accepted: frozenset[int],
        authenticated: bool,
    ) -> requests.Response:
        """Return the answer at the end of the redirects, its body not read yet."""
        sent = {**(self._headers if authenticated else {}), **(headers or {})}
        for _ in range(_REDIRECTS + 1):
            self._check_place(url, decides=authenticated)
            response = self._session.get(url, params=params, headers=sent, stream=True, timeout=self._timeout_s)
            location = requests.Session.get_redirect_target(self._session, response)
            if location is None or response.status_code in accepted:
                return response
            self._read(response, refused=True)  # a connection whose answer was read is used again
            target = urljoin(url, location)
            self._check_redirect(url, target)
            if self._session.should_strip_auth(url, target):
                sent = {name: value for name, value in (headers or {}).items() if not self._holds_key(name, value)}
            url, params, authenticated = target, None, False
        raise self._error(url, f"is redirected more than {_REDIRECTS} times")

    def _read(self, response: requests.Response, *, refused: bool) -> None:
        """Read the whole body into the response; of what is refused the beginning is enough, however long it is."""
        largest = _REFUSAL_BYTES if refused else self._largest_bytes
        deadline = time.monotonic() + _BODY_TIMEOUTS * self._timeout_s[1]
        chunks: list[bytes] = []
        held = 0
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=True):
            chunks.append(chunk)
            held += len(chunk)
            if held > largest:
                response.close()
                if not refused:
                    raise self._error(response.url, f"sends more than {largest:,} bytes, which no answer needs")
                break
            if time.monotonic() > deadline:
                response.close()
                raise requests.ReadTimeout
        # What requests itself does on `.content`, which reads without an end.
        response._content = b"".join(chunks)[:largest]
        response._content_consumed = True  # type: ignore[attr-defined]

    # --- places -------------------------------------------------------------------------------------------------------

    def _check_place(self, url: str, *, decides: bool) -> None:
        """Refuse what is not a web address, and local ones where the provider is not local."""
        parts = parse_url(url)
        if parts.scheme not in ("http", "https") or not parts.host:
            raise self._error(url, "is refused: expected an http(s) address")
        local = self._local
        if local is None and decides:
            self._local = local = is_local(url)
            if local:
                self._session.talk(HTTPAdapter)
        if not local and is_local(url):
            raise self._error(url, "is refused: it lies on this machine or its network, but the provider does not")

    def _check_redirect(self, url: str, target: str) -> None:
        old, new = parse_url(url), parse_url(target)
        host = new.host or ""
        trusted = any(host == each or each == "*" or host.endswith(f".{each}") for each in self._trusted_hosts)
        if host != old.host and not trusted:
            raise self._error(url, f"redirects to another host, {_address(self.redact(target))}, which is refused")
        if old.scheme == "https" and new.scheme != "https":
            raise self._error(url, f"redirects to {_address(self.redact(target))} without encryption, which is refused")

    def _holds_key(self, name: str, value: str) -> bool:
        return name.lower() in _KEY_HEADERS or self.redact(value) != value

    # --- messages -----------------------------------------------------------------------------------------------------

    def _error(self, url: str, what: str) -> SourceError:
        return SourceError(self.redact(f"{self.name}: {_address(self.redact(url))} {what}"))

    def _refusal(self, url: str, response: requests.Response) -> HttpStatusError:
        message = f"{self.name}: {_address(self.redact(url))} answered status {response.status_code}: "
        return HttpStatusError(
            self.redact(message) + self._shown(response, 300),
            status=response.status_code,
            body=self._text(response)[:_KEPT_OF_REFUSAL],
        )

    def _text(self, response: requests.Response) -> str:
        return self.redact(response.content[:_REFUSAL_BYTES].decode("utf-8", "replace"))

    def _shown(self, response: requests.Response, characters: int) -> str:
        """The beginning of a body on one line."""
        return " ".join(self._text(response).split())[:characters]


class _Session(requests.Session):
    """A session without requests' own redirects, cookies and `.netrc`."""

    def __init__(self) -> None:
        super().__init__()
        self.headers["User-Agent"] = f"urbanprint/{__version__}"
        # Otherwise a .netrc replaces the Authorization header that the source gives.
        self.auth = lambda request: request
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def get_redirect_target(self, resp: requests.Response) -> None:
        """None: `HttpClient` follows redirects itself, by stricter rules."""

    def talk(self, adapter: type[HTTPAdapter]) -> None:
        """Make connections with `adapter` from now on."""
        pool = adapter(pool_connections=_POOL, pool_maxsize=_POOL)
        self.mount("https://", pool)
        self.mount("http://", pool)


def _address(url: str) -> str:
    """The address as it may be shown: no query, where providers put signatures and keys, and no password."""
    bare = re.sub(r"//[^/]*@", "//", re.split(r"[?#]", url, maxsplit=1)[0])
    return "".join(each if each.isprintable() else "?" for each in bare[:300])


def _retry_after_s(response: requests.Response | None) -> float | None:
    """Seconds a `Retry-After` header asks for: a number or an HTTP date (RFC 9110, 10.2.3), None for neither.

    A date is compared with the server's own `Date`: this machine's clock may be wrong.
    """
    value = response.headers.get("Retry-After") if response is not None else None
    if response is None or value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        until = _http_date_s(value)
        now = _http_date_s(response.headers.get("Date", ""))
        if until is None:
            return None
        seconds = until - (time.time() if now is None else now)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _http_date_s(value: str) -> float | None:
    """Seconds since 1970 of an HTTP date, None for anything else."""
    try:
        date = parsedate_to_datetime(value)
    except ValueError:
        return None
    return date.replace(tzinfo=date.tzinfo or UTC).timestamp()
