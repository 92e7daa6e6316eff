"""One HTTP client for every provider: pooled connections, retries, secrets that never leave it.

What belongs here is what all providers share. A request is tried again for what passes by itself (time-outs, broken
connections and bodies, 408, 425, 429, 5xx) with exponential back-off and jitter, `Retry-After` honoured; any other
4xx is final at once. Secrets travel in headers; every message and exception text is redacted.
"""

import random
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import requests
from requests.adapters import HTTPAdapter

from urbanprint import __version__
from urbanprint.errors import SourceError

RETRIED_STATUS = frozenset({408, 425, 429, 500, 502, 503, 504})
_POOL = 64
_LONGEST_PAUSE_S = 60.0


class HttpStatusError(SourceError):
    """A final answer that is not a success; `status` and `body` are what the server sent."""

    def __init__(self, message: str, *, status: int, body: str) -> None:
        super().__init__(message)
        self.status = status
        self.body = body


@dataclass(frozen=True)
class Retry:
    """How often and how patiently a request is repeated; pauses double from `first_pause_s`, jittered."""

    attempts: int = 5
    first_pause_s: float = 0.5

    def pause_s(self, attempt: int, response: requests.Response | None) -> float:
        """Seconds to wait after the failed `attempt` (0-based)."""
        asked = _retry_after_s(response)
        if asked is not None:
            return min(asked, _LONGEST_PAUSE_S)
        # Full jitter: many threads that failed together must not come back together.
        return random.uniform(0.5, 1.0) * min(self.first_pause_s * 2**attempt, _LONGEST_PAUSE_S)


@dataclass
class RateLimit:
    """A token bucket shared by the threads of one client: at most `per_minute` requests a minute."""

    per_minute: float
    _next_s: float = field(default=0.0, init=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False)

    def wait(self) -> None:
        """Block until the next request may leave."""
        with self._lock:
            now = time.monotonic()
            leave = max(now, self._next_s)
            self._next_s = leave + 60.0 / self.per_minute
        if leave > now:
            time.sleep(leave - now)


class HttpClient:
    """GET requests to one provider, safe to share between threads.

    `secrets` are strings that must never be seen: they are cut out of every error message. `fault_in_body` is the
    provider's own test for an error inside a 200; it returns a reason, or None when the body is sound.
    """

    def __init__(
        self,
        *,
        name: str,
        headers: Mapping[str, str] | None = None,
        secrets: Iterable[str] = (),
        retry: Retry | None = None,
        timeout_s: tuple[float, float] = (10.0, 60.0),
        per_minute: float | None = None,
        final: Callable[[requests.Response], bool] | None = None,
    ) -> None:
        self.name = name
        self._secrets = tuple(secret for secret in secrets if secret)
        self._retry = retry or Retry()
        self._timeout_s = timeout_s
        self._limit = RateLimit(per_minute) if per_minute else None
        self._final = final or (lambda _response: False)
        self._headers = {"User-Agent": f"urbanprint/{__version__}", **(headers or {})}
        self._session = requests.Session()
        adapter = HTTPAdapter(pool_connections=_POOL, pool_maxsize=_POOL)
        self._session.mount("https://", adapter)
        self._session.mount("http://", adapter)

    def get(
        self,
        url: str,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        accept: Iterable[int] = (200,),
        authenticated: bool = True,
    ) -> requests.Response:
        """Return the first answer whose status is in `accept`.

        With `stream` the body is not read yet. `authenticated=False` leaves the client's own headers out: they must
        not follow an address to another host. Raises `HttpStatusError` for a final refusal and `SourceError` when
        every attempt failed; both name provider and address, without query string or secret.
        """
        sent = {**(self._headers if authenticated else {}), **(headers or {})}
        reason = ""
        for attempt in range(self._retry.attempts):
            if self._limit:
                self._limit.wait()
            response: requests.Response | None = None
            try:
                response = self._session.get(url, params=params, headers=sent, stream=stream, timeout=self._timeout_s)
            except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError) as error:
                reason = type(error).__name__
            except requests.RequestException as error:
                raise SourceError(self.redact(f"{self.name}: {url} cannot be requested: {error}")) from None
            else:
                if response.status_code in set(accept):
                    return response
                body = response.text[:500]
                reason = f"status {response.status_code}"
                if response.status_code not in RETRIED_STATUS or self._final(response):
                    raise HttpStatusError(
                        self.redact(f"{self.name}: {_address(url)} answered {reason}: {body}"),
                        status=response.status_code,
                        body=self.redact(body),
                    )
            if attempt + 1 < self._retry.attempts:
                time.sleep(self._retry.pause_s(attempt, response))
        raise SourceError(
            self.redact(f"{self.name}: {_address(url)} failed {self._retry.attempts} times, last: {reason}")
        )

    def redact(self, text: str) -> str:
        """Return `text` with every secret cut out."""
        for secret in self._secrets:
            text = text.replace(secret, "[secret]")
        return text

    def close(self) -> None:
        """Close the pooled connections."""
        self._session.close()


def _address(url: str) -> str:
    """The address without its query string, where providers put signatures and keys."""
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc, parts.path, "", ""))


def _retry_after_s(response: requests.Response | None) -> float | None:
    """Seconds a `Retry-After` header asks for: a number or an HTTP date (RFC 9110, 10.2.3)."""
    value = response.headers.get("Retry-After") if response is not None else None
    if value is None:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - time.time())
    except ValueError:
        return None
