"""Secrets cut out of text: messages, and the log of the library that sends the requests."""

import logging
import re
import threading
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

_SHORTEST = 4  # cutting out less would cut words to pieces, and no key is that short
_URLLIB3_LOGS = ("urllib3", "urllib3.connectionpool", "urllib3.connection", "urllib3.poolmanager", "urllib3.util.retry")


def pattern(secrets: Iterable[str]) -> re.Pattern[str]:
    """What finds every secret as it is and as it stands in an address; nothing where there is none."""
    forms = {
        form
        for secret in secrets
        if len(secret) >= _SHORTEST
        for form in (secret, quote(secret), quote(secret, safe=""), quote_plus(secret))
    }
    longest_first = sorted(forms, key=lambda form: (-len(form), form))
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)", re.IGNORECASE)


class _SecretsFilter(logging.Filter):
    """Cuts the secrets of all clients out of urllib3's log, which holds whole addresses at the level DEBUG."""

    def __init__(self) -> None:
        super().__init__()
        self._hidden: set[str] = set()
        self._pattern = pattern(())
        self._hiding = threading.Lock()

    def hide(self, secrets: Iterable[str]) -> None:
        """Cut `secrets` out from now on, as long as the process runs."""
        with self._hiding:
            self._hidden |= set(secrets)
            self._pattern = pattern(self._hidden)
        for name in _URLLIB3_LOGS:
            logging.getLogger(name).addFilter(self)  # once: a logger knows the filters it has

    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        shown = self._pattern.sub("[secret]", message)
        if shown != message:
            record.msg, record.args = shown, None
        return True


URLLIB3_LOG = _SecretsFilter()
