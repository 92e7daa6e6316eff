"""Rate limits over threads and processes, and circuit breakers: what they promise, and what they survive."""

import os
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from urbanprint.errors import InputError
from urbanprint.sources import limits
from urbanprint.sources.limits import CircuitBreaker, ProviderDown, RateLimit

MakeLimit = Callable[[float], RateLimit]


@pytest.fixture(params=["threads", "processes"])
def make_limit(request: pytest.FixtureRequest, tmp_path: Path) -> MakeLimit:
    shared = tmp_path / "limits" / "provider" if request.param == "processes" else None
    return lambda per_minute: RateLimit(per_minute, shared=shared)


def departures(limit: RateLimit, *, threads: int, each: int) -> list[float]:
    """The moments at which `threads` threads, each asking `each` times, were let go."""
    left: list[float] = []

    def ask() -> None:
        for _ in range(each):
            limit.wait()
            left.append(time.monotonic())

    workers = [threading.Thread(target=ask) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return sorted(left)


def assert_holds(left: list[float], *, begun: float, per_minute: float) -> None:
    """At least 95 % of the limit, and never above it."""
    assert (len(left) - 1) / (left[-1] - left[0]) * 60 >= 0.95 * per_minute
    # At any moment, not only in the end. From the begin: a first thread that wakes late makes no rate too high.
    assert all(after / (moment - begun) * 60 <= per_minute for after, moment in enumerate(left))


# --- rate limits -----------------------------------------------------------------------------------------------------


def test_slots_lie_at_even_distances_a_little_above_the_limits(make_limit: MakeLimit) -> None:
    limit = make_limit(1)  # slots a minute apart: a busy machine cannot blur them
    begun = time.monotonic()
    slots = [limit.reserve() + time.monotonic() - begun for _ in range(5)]
    assert slots[0] == pytest.approx(0.0, abs=5)
    assert [after - before for before, after in pairwise(slots)] == pytest.approx([60 / 0.98] * 4, abs=5)


def test_threads_hold_the_limit_and_never_exceed_it(make_limit: MakeLimit) -> None:
    # 32 threads wait 0.6 s ahead: a machine that stands still for less costs no slot.
    begun = time.monotonic()
    assert_holds(departures(make_limit(3000), threads=32, each=3), begun=begun, per_minute=3000)


def test_no_minute_holds_more_than_the_limit_however_long_it_was_idle() -> None:
    limit = RateLimit(60)
    limit.reserve()
    limit._own.next_s -= 3600  # an hour without a request saves nothing up
    waits = [limit.reserve() for _ in range(61)]
    assert sum(wait < 60 for wait in waits) <= 60


ASK = """
import sys, threading, time
from pathlib import Path
from urbanprint.sources.limits import RateLimit

limit = RateLimit(float(sys.argv[2]), shared=Path(sys.argv[1]))

def ask():
    for _ in range(int(sys.argv[3])):
        limit.wait()
        print(f"{time.monotonic()}\\n", end="")

threads = [threading.Thread(target=ask) for _ in range(8)]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads:
    thread.start()
"""


def start(bucket: Path, *, per_minute: float, each: int) -> subprocess.Popen[str]:
    """A process whose eight threads ask `each` times and print when they left, once a line is sent to it."""
    command = [sys.executable, "-c", ASK, str(bucket), str(per_minute), str(each)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def test_two_processes_at_once_share_one_bucket(tmp_path: Path) -> None:
    processes = [start(tmp_path / "bucket", per_minute=3000, each=6) for _ in range(2)]
    begun = time.monotonic()
    for process in processes:
        go(process)
    left = [[float(moment) for moment in process.communicate(timeout=20)[0].split()] for process in processes]
    assert [len(moments) for moments in left] == [48, 48]
    assert max(map(min, left)) < min(map(max, left))  # they did run at once
    assert_holds(sorted(left[0] + left[1]), begun=begun, per_minute=3000)


def test_a_killed_process_leaves_a_sound_bucket_and_no_lock(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    limit = RateLimit(1e9, shared=bucket)
    for _ in range(5):
        process = start(bucket, per_minute=1e9, each=1_000_000)  # nearly always inside the lock
        go(process)
        time.sleep(0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate(timeout=5)
        begun = time.monotonic()
        assert limit.reserve() < 0.1
        assert time.monotonic() - begun < 1.0
        assert bucket.stat().st_size == 28


def test_what_a_killed_process_had_reserved_is_merely_unused(tmp_path: Path) -> None:
    process = start(tmp_path / "bucket", per_minute=600, each=100)  # eight threads: eight slots ahead
    go(process)
    time.sleep(0.15)
    process.kill()
    process.communicate(timeout=5)
    assert RateLimit(600, shared=tmp_path / "bucket").reserve() <= 9 * 60 / 600 / 0.98


@given(content=st.binary(max_size=40))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_damaged_or_half_written_file_is_a_fresh_bucket(content: bytes, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    bucket.write_bytes(content)
    limit = RateLimit(1, shared=bucket)
    assert limit.reserve() == 0.0
    assert limit.reserve() == pytest.approx(60 / 0.98, abs=5)


@pytest.mark.parametrize(
    ("boot", "next_s"),
    [
        (b"another system!!", 100.0),  # before a restart the clock had run longer
        (None, 1e7),  # no limit is ever this far ahead
        (None, float("nan")),
        (None, float("inf")),
    ],
)
def test_a_file_from_before_a_restart_blocks_nobody(boot: bytes | None, next_s: float, tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    record = struct.pack("<16sd", boot or limits._boot(), time.monotonic() + next_s)
    bucket.write_bytes(record + struct.pack("<I", zlib.crc32(record)))
    assert RateLimit(60, shared=bucket).reserve() == 0.0


def test_a_bucket_deleted_meanwhile_is_made_anew_for_everybody(tmp_path: Path) -> None:
    bucket = tmp_path / "bucket"
    one, another = RateLimit(1, shared=bucket), RateLimit(1, shared=bucket)
    one.reserve()
    bucket.unlink()
    assert one.reserve() == 0.0
    assert another.reserve() == pytest.approx(60 / 0.98, abs=5)


def test_a_forked_process_shares_the_bucket(tmp_path: Path) -> None:
    limit = RateLimit(1, shared=tmp_path / "bucket")
    limit.reserve()
    child = os.fork()
    if child == 0:
        limit.reserve()
        os._exit(0)
    os.waitpid(child, 0)
    assert limit.reserve() == pytest.approx(120 / 0.98, abs=5)


def test_the_wall_clock_is_never_asked(make_limit: MakeLimit, monkeypatch: pytest.MonkeyPatch) -> None:
    # It can be set and be wrong; the fake module has no other clock than the monotonic one.
    monkeypatch.setattr(limits, "time", SimpleNamespace(monotonic=time.monotonic, sleep=time.sleep))
    limit = make_limit(6000)
    limit.wait()
    limit.wait()


def test_a_pause_asked_for_holds_back_everybody(make_limit: MakeLimit) -> None:
    limit = make_limit(6000)
    limit.reserve()
    limit.postpone(100)
    limit.postpone(50)  # a shorter one does not end a longer one
    assert limit.reserve() == pytest.approx(100, abs=5)


@pytest.mark.parametrize("per_minute", [0, -1, float("nan"), float("inf")])
def test_what_is_no_limit_is_refused(per_minute: float) -> None:
    with pytest.raises(InputError, match="expected a number of requests above zero"):
        RateLimit(per_minute)


# --- circuit breakers ------------------------------------------------------------------------------------------------


class Clock:
    """A clock that stands still until it is moved."""

    now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clock]:
    clock = Clock()
    monkeypatch.setattr(limits, "time", clock)
    yield clock


def opened(*, cool_down_s: float = 10.0, longest_s: float = 900.0) -> CircuitBreaker:
    breaker = CircuitBreaker("Provider", failures=3, lasting_s=0.0, cool_down_s=cool_down_s, longest_s=longest_s)
    for _ in range(3):
        breaker.failed("status 503", probe=breaker.ask())
    return breaker


def test_it_opens_after_failures_in_a_row_and_says_when_to_try_again(clock: Clock) -> None:
    breaker = CircuitBreaker("Provider", failures=3, lasting_s=0.0, cool_down_s=10.0)
    for _ in range(2):
        breaker.failed("status 503", probe=breaker.ask())
    assert not breaker.ask()
    breaker.failed("ReadTimeout", probe=False)
    clock.now += 4
    with pytest.raises(
        ProviderDown,
        match=r"^Provider is down \(3 requests in a row failed, the last with ReadTimeout\): "
        r"try again in 6 s, after \d\d:\d\d:\d\d UTC$",
    ):
        breaker.ask()


def test_a_success_in_between_starts_the_count_again(clock: Clock) -> None:
    breaker = CircuitBreaker("Provider", failures=3, lasting_s=0.0)
    for _ in range(5):
        breaker.failed("status 503", probe=False)
        breaker.failed("status 503", probe=False)
        breaker.succeeded()
    assert not breaker.ask()


def test_a_hiccup_of_many_threads_is_no_outage(clock: Clock) -> None:
    breaker = CircuitBreaker("Provider", failures=30, lasting_s=5.0)
    for _ in range(64):
        breaker.failed("ConnectionError", probe=False)
    assert not breaker.ask()
    clock.now += 5.0
    breaker.failed("ConnectionError", probe=False)
    with pytest.raises(ProviderDown):
        breaker.ask()


def test_after_the_cool_down_one_request_probes_and_its_success_closes(clock: Clock) -> None:
    breaker = opened(cool_down_s=10.0)
    clock.now += 10.0
    assert breaker.ask() is True
    with pytest.raises(ProviderDown):
        breaker.ask()  # one, not all
    breaker.succeeded()
    assert breaker.ask() is False


def test_the_cool_down_doubles_with_each_failed_probe_up_to_the_longest(clock: Clock) -> None:
    breaker = opened(cool_down_s=10.0, longest_s=35.0)
    for cool_down_s in (10.0, 20.0, 35.0, 35.0):
        clock.now += cool_down_s - 0.1
        with pytest.raises(ProviderDown):
            breaker.ask()
        clock.now += 0.1
        breaker.failed("status 503", probe=breaker.ask())


def test_requests_that_had_already_left_do_not_lengthen_the_cool_down(clock: Clock) -> None:
    breaker = opened(cool_down_s=10.0)
    for _ in range(64):
        breaker.failed("status 503", probe=False)
    clock.now += 10.0
    assert breaker.ask() is True


def test_a_probe_that_never_reports_does_not_close_the_door_for_ever(clock: Clock) -> None:
    breaker = opened(cool_down_s=10.0)
    clock.now += 10.0
    assert breaker.ask() is True
    clock.now += 10.0
    assert breaker.ask() is True


def test_a_pause_the_provider_asks_for_is_not_ended_by_an_answer_to_an_earlier_request(clock: Clock) -> None:
    breaker = CircuitBreaker("Provider")
    breaker.open_for(3600.0, reason="it answered status 429 and asks for a pause")
    breaker.succeeded()
    with pytest.raises(ProviderDown, match=r"asks for a pause\): try again in 3600 s"):
        breaker.ask()
    clock.now += 3600.0
    assert breaker.ask() is True
    breaker.succeeded()
    assert breaker.ask() is False
