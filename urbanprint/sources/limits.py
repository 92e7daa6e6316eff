"""How fast and whether a provider may be asked: rate limits and circuit breakers.

What belongs here is timing alone: no requests, no provider. Both are safe to share between threads; a `RateLimit` with
a file is one bucket for all processes of the machine.
"""

import fcntl
import math
import os
import struct
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from urbanprint.errors import InputError, SourceError

# Slots lie 2 % farther apart than the limit asks: a thread that wakes late would otherwise push a minute above it.
_PACE = 0.98
# A slot farther away than both was never reserved: the file is from before a restart, or damaged.
_FARTHEST_SLOTS = 10_000
_FARTHEST_S = 3600.0
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_RECORD = struct.Struct("<16sd")
_CHECKSUM = struct.Struct("<I")


class ProviderDown(SourceError):
    """The provider has answered nothing for a while, or asked to be left alone; the message says until when."""


@dataclass
class _Bucket:
    """The earliest moment at which the next request may leave, in seconds of `time.monotonic`."""

    next_s: float = 0.0


class RateLimit:
    """At most `per_minute` requests a minute, at even distances, for all threads that wait on it.

    With `shared`, a small file, every process of this machine that names the same file draws from the same bucket. The
    clock is the system's monotonic one, which all processes share and nobody can set. Nothing is held while a thread
    waits for its slot, so a process that is killed leaves at most unused slots behind.

    Raises `InputError` for a limit that is not a positive number.
    """

    def __init__(self, per_minute: float, *, shared: Path | None = None) -> None:
        if not 0 < per_minute < math.inf:
            raise InputError(f"per_minute = {per_minute} is no rate limit: expected a number of requests above zero")
        self.per_minute = per_minute
        self._spacing_s = 60.0 / per_minute / _PACE
        self._shared = shared
        self._own = _Bucket()
        self._lock = threading.Lock()
        if shared is not None:
            shared.parent.mkdir(parents=True, exist_ok=True)
            self._boot = _boot()

    def reserve(self) -> float:
        """Take the next free slot and return the seconds until it; 0 where it is now."""
        with self._bucket() as bucket:
            now = time.monotonic()
            slot = max(now, bucket.next_s)
            bucket.next_s = slot + self._spacing_s
        return slot - now

    def wait(self) -> None:
        """Take the next free slot and block until it."""
        pause_s = self.reserve()
        if pause_s > 0:
            time.sleep(pause_s)

    def postpone(self, seconds: float) -> None:
        """Give out no slot for `seconds`, as a provider asked; slots already taken stay."""
        with self._bucket() as bucket:
            bucket.next_s = max(bucket.next_s, time.monotonic() + seconds)

    @contextmanager
    def _bucket(self) -> Iterator[_Bucket]:
        """The bucket, to be changed while nobody else can."""
        if self._shared is None:
            with self._lock:
                yield self._own
            return
        # Opened each time (10 µs): a lock is then held by one thread, survives forks, and ends with its holder, and a
        # file that somebody deleted is made anew.
        file = os.open(self._shared, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            bucket = _Bucket(self._read(file))
            yield bucket
            record = _RECORD.pack(self._boot, bucket.next_s)
            os.pwrite(file, record + _CHECKSUM.pack(zlib.crc32(record)), 0)
        finally:
            os.close(file)

    def _read(self, file: int) -> float:
        """The next slot by the file; 0 for an empty, damaged, half-written one and one from before a restart."""
        written = os.pread(file, _RECORD.size + _CHECKSUM.size, 0)
        record, checksum = written[: _RECORD.size], written[_RECORD.size :]
        if checksum != _CHECKSUM.pack(zlib.crc32(record)):
            return 0.0
        boot, next_s = _RECORD.unpack(record)
        farthest = time.monotonic() + max(_FARTHEST_S, _FARTHEST_SLOTS * self._spacing_s)
        return next_s if boot == self._boot and next_s <= farthest else 0.0


def _boot() -> bytes:
    """What tells this run of the system from the one before a restart; zeros on systems that do not say."""
    if not _BOOT_ID.exists():
        return bytes(16)
    return bytes.fromhex(_BOOT_ID.read_text("ascii").strip().replace("-", ""))


class CircuitBreaker:
    """Stops asking a provider that is down, so that a run ends at once instead of failing image by image.

    It opens after `failures` in a row, over all threads, the first of them at least `lasting_s` ago: a hiccup that
    strikes 64 threads in one second is no outage. While it is open, `ask` raises `ProviderDown`; after `cool_down_s`
    one request is let through as a probe. Its success closes the breaker, its failure doubles the cool-down, up to
    `longest_s`. A probe that never reports leaves room for another after the next cool-down.
    """

    def __init__(
        self,
        name: str,
        *,
        failures: int = 30,
        lasting_s: float = 5.0,
        cool_down_s: float = 30.0,
        longest_s: float = 900.0,
    ) -> None:
        self.name = name
        self._threshold = failures
        self._lasting_s = lasting_s
        self._first_cool_down_s = cool_down_s
        self._longest_s = longest_s
        self._lock = threading.Lock()
        self._failed = 0
        self._since = 0.0
        self._reason: str | None = None  # why it is open; None while it is closed
        self._probe_at = 0.0
        self._asked_until = 0.0
        self._cool_down_s = cool_down_s

    def ask(self) -> bool:
        """Return whether the request about to leave is a probe; raises `ProviderDown` where it must not leave."""
        if self._reason is None:
            return False
        with self._lock:
            if self._reason is None:
                return False
            now = time.monotonic()
            if now < self._probe_at:
                raise ProviderDown(_until(self.name, self._reason, self._probe_at - now))
            self._probe_at = now + self._cool_down_s
            return True

    def succeeded(self) -> None:
        """Report that the provider answered, be it with a refusal."""
        if self._failed == 0 and self._reason is None:
            return
        with self._lock:
            # An answer to a request that left before the provider asked for a pause does not end the pause.
            if time.monotonic() >= self._asked_until:
                self._failed = 0
                self._reason = None
                self._cool_down_s = self._first_cool_down_s

    def failed(self, reason: str, *, probe: bool) -> None:
        """Report a request that failed for what would pass; `probe` is what `ask` said about it."""
        with self._lock:
            now = time.monotonic()
            if self._failed == 0:
                self._since = now
            self._failed += 1
            if self._reason is None:
                opens = self._failed >= self._threshold and now - self._since >= self._lasting_s
            else:
                # Requests that had left before it opened fail after it: they say nothing new.
                opens = probe
                self._cool_down_s = min(2 * self._cool_down_s, self._longest_s) if probe else self._cool_down_s
            if opens:
                self._reason = f"{self._failed} requests in a row failed, the last with {reason}"
                self._probe_at = now + self._cool_down_s

    def open_for(self, seconds: float, *, reason: str) -> None:
        """Stay open for `seconds` because the provider asked for it."""
        with self._lock:
            self._reason = reason
            self._probe_at = self._asked_until = time.monotonic() + seconds


def _until(name: str, reason: str, seconds: float) -> str:
    moment = datetime.now(UTC) + timedelta(seconds=seconds)
    return f"{name} is down ({reason}): try again in {math.ceil(seconds)} s, after {moment:%H:%M:%S} UTC"
