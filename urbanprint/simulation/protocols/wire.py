"""What every simulated provider has in common: its shape, and a JSON answer.

A provider knows its own paths, content and errors, as the real service gives them; no sockets. Transport, faults and
the log are in `server.py`.
"""

import json
from collections.abc import Mapping
from typing import Any, Protocol

from urbanprint.simulation.faults import Answer

Query = Mapping[str, str]
Headers = Mapping[str, str]


class Provider(Protocol):
    """One simulated service."""

    def answer(self, path: str, query: Query, headers: Headers, base: str) -> Answer | None:
        """Return the sound answer to a request, None for a path that is not this provider's.

        `query` holds the decoded parameters, `base` the address of the server, without a slash at its end.
        """
        ...


def json_answer(body: Any, status: int = 200) -> Answer:
    """Return `body` as a JSON answer."""
    return Answer(json.dumps(body).encode(), status)
