"""Faults that the simulated providers can be told to have, each one met in the wild."""

import io
import random
import re
from dataclasses import dataclass, field
from typing import Literal

from PIL import Image

FaultKind = Literal[
    "reset",  # the connection breaks in the middle of the body
    "slow",  # the answer comes after `seconds`
    "timeout",  # no answer until the client gives up
    "throttled",  # 429, code 4, with Retry-After when `retry_after_s` is given
    "internal_error",  # 500, the transient envelope of the Graph API
    "unavailable",  # 503
    "error_in_200",  # an error envelope where the answer should be
    "truncated",  # a complete answer that holds half of the file
    "html",  # a page for people where the file should be
    "placeholder",  # a plain grey picture
    "expired",  # the address is refused as if its time were over
    "wrong_type",  # the right bytes under the wrong content type
]
TRANSPORT_FAULTS: frozenset[str] = frozenset({"reset", "slow", "timeout"})
"""Kinds that the transport acts out; all others are another answer."""


@dataclass
class Fault:
    """Have `kind` where the regular expression `path` is found in the path of a request.

    At most `times` requests are hit (None: all), each with `probability` drawn from `seed`. A fault counts its own
    hits, so one object must not be injected twice.
    """

    kind: FaultKind
    path: str
    times: int | None = None
    probability: float = 1.0
    seed: int = 0
    seconds: float = 1.0
    retry_after_s: float | None = None
    hits: int = field(default=0, init=False)

    def __post_init__(self) -> None:
        self._pattern = re.compile(self.path)
        self._random = random.Random(self.seed)

    def strikes(self, path: str) -> bool:
        """Whether this request is hit; counts the hit. Callers hold a lock."""
        if self.times is not None and self.hits >= self.times:
            return False
        if not self._pattern.search(path) or self._random.random() >= self.probability:
            return False
        self.hits += 1
        return True


@dataclass(frozen=True)
class Answer:
    """One HTTP answer, complete."""

    body: bytes
    status: int = 200
    content_type: str = "application/json; charset=UTF-8"
    headers: tuple[tuple[str, str], ...] = ()


def faulty(answer: Answer, fault: Fault) -> Answer:
    """What a client gets instead of `answer` under a fault that is not one of transport."""
    match fault.kind:
        case "throttled":
            wait = () if fault.retry_after_s is None else (("Retry-After", f"{fault.retry_after_s:g}"),)
            return Answer(_envelope("Application request limit reached", 4, "OAuthException"), 429, headers=wait)
        case "internal_error":
            return Answer(_envelope("Service temporarily unavailable", 2), 500)
        case "unavailable":
            return Answer(b"Service Unavailable", 503, "text/plain; charset=utf-8")
        case "error_in_200":
            return Answer(_envelope("An unexpected error has occurred. Please retry your request later.", 2))
        case "truncated":
            return Answer(answer.body[: len(answer.body) // 2], answer.status, answer.content_type)
        case "html":
            page = b"<!DOCTYPE html><html><body><h1>We'll be right back</h1></body></html>"
            return Answer(page, 200, "text/html; charset=utf-8")
        case "placeholder":
            buffer = io.BytesIO()
            Image.new("RGB", (256, 192), (228, 227, 223)).save(buffer, "JPEG")
            return Answer(buffer.getvalue(), 200, "image/jpeg")
        case "expired":
            return Answer(b"URL signature expired", 403, "text/plain; charset=utf-8")
        case "wrong_type":
            return Answer(answer.body, answer.status, "application/octet-stream", answer.headers)
    raise ValueError(f"{fault.kind} is a fault of transport")


def _envelope(message: str, code: int, kind: str = "MLYApiException") -> bytes:
    return f'{{"error":{{"message":"{message}","type":"{kind}","code":{code},"fbtrace_id":"Asimulated"}}}}'.encode()
