"""The fault campaign: everything that goes wrong at a provider, on the way and on this machine, over 2,500 images.

`python -m benchmarks.campaign` prints a row a scenario: a run against a provider with every fault there is, the same
killed (SIGKILL) at random moments, and two processes at once; each followed by one run against the healthy provider.
It ends with status 1 unless every scenario has all images and none was fetched twice.

An image is fetched twice when its whole picture leaves the server again although the ledger had recorded it, or within
one life of a process. Pictures that were on the wire when a process was killed are counted by themselves: nobody can
know of them.
"""

import argparse
import io
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from unittest import mock
from urllib.parse import urlsplit

import geopandas as gpd
import numpy as np
import pandas as pd
from PIL import Image

from urbanprint.areas import join
from urbanprint.errors import SourceError
from urbanprint.imagery.acquisition import acquire
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.quality import Examined, examine
from urbanprint.imagery.store import ImageStore
from urbanprint.indicators.england import read_file7
from urbanprint.sampling import sample_points, stratify
from urbanprint.settings import Imagery, Quality
from urbanprint.simulation.faults import Answer, Fault, FaultKind
from urbanprint.simulation.protocols.camera import Camera
from urbanprint.simulation.server import SimulationServer, _Handler
from urbanprint.simulation.statistics import file7
from urbanprint.simulation.town import Town, build_town
from urbanprint.sources.http import Retry
from urbanprint.sources.mapillary import Mapillary
from urbanprint.sources.providers import terms_of

_SEED = 11
_THREADS = 8
_TOKEN = "campaign"
_FAILED = 3  # exit status of a run whose provider kept something back
_VIEWS = 12  # more than any area has: every image is wanted, so the exact set is known
_CLOCKS_S = (0.0, 86_400.0, -86_400.0)  # by which the clocks of successive processes are wrong
_SOUND = ("slow", "wrong_type")  # faults under which the whole picture leaves the server all the same

_PICTURES: tuple[FaultKind, ...] = (
    "reset", "slow", "timeout", "throttled", "internal_error", "unavailable", "error_in_200", "truncated", "html",
    "placeholder", "expired", "wrong_type",
)  # fmt: skip
_SEARCHES: tuple[FaultKind, ...] = ("reset", "throttled", "internal_error", "unavailable", "error_in_200")


class _Snapshots(Camera):
    """Pictures that cost nothing to draw, each its own."""

    def picture(self, image_id: str, width: int) -> bytes:
        """Return a small JPEG of noise that only this image has."""
        noise = np.random.default_rng(int(image_id)).integers(0, 255, (24, 32, 3), dtype=np.uint8)
        buffer = io.BytesIO()
        Image.fromarray(noise).save(buffer, "JPEG")
        return buffer.getvalue()


@dataclass
class _Count:
    """What one scenario came to."""

    scenario: str
    images: int
    faults: int = 0
    kills: int = 0
    runs: int = 0
    fetched_before_the_last_run: int = 0
    fetched: int = 0
    twice: int = 0
    on_the_wire: int = 0
    seconds: float = 0.0

    @property
    def is_perfect(self) -> bool:
        """Whether nothing is missing and nothing was fetched twice."""
        return self.fetched == self.images and self.twice == 0


@dataclass
class _Deliveries:
    """Which whole pictures left the server, in lives that a kill ends."""

    left: list[str] = field(default_factory=list)  # image ids, in the order their pictures left
    recorded: set[str] = field(default_factory=set)
    twice: int = 0
    on_the_wire: int = 0

    def end_of_life(self, recorded: set[str], *, killed: bool) -> None:
        """Count what left since the last call; `recorded` is what the ledger has as fetched now."""
        left = Counter(self.left)
        self.left.clear()
        self.twice += sum(times if image in self.recorded else times - 1 for image, times in left.items())
        self.on_the_wire += len(left.keys() - recorded) if killed else 0
        self.recorded = recorded

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Note each picture that leaves whole: the server's own log has a request before it is answered."""
        act = _Handler._act

        def noted(handler: _Handler, answer: Answer, fault: Fault | None) -> None:
            act(handler, answer, fault)
            path = urlsplit(handler.path).path
            if path.startswith("/thumbs/") and answer.status == 200 and (fault is None or fault.kind in _SOUND):
                self.left.append(Path(path).stem)

        with mock.patch.object(_Handler, "_act", noted):
            yield


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the scenarios asked for and print the table; return 0 when all are perfect."""
    parser = argparse.ArgumentParser(prog="benchmarks.campaign", description=__doc__.partition("\n")[0])
    parser.add_argument("--images", type=int, default=2500)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--share", type=float, default=0.15, help="of requests that a fault strikes")
    parser.add_argument("--scenario", choices=["faults", "kills", "two"], action="append")
    parser.add_argument("--fetch", nargs=3, metavar=("FOLDER", "URL", "CLOCK"), help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.fetch:
        folder, url, clock = given.fetch
        return _fetch(Path(folder), url, clock_s=float(clock))
    town = build_town(boroughs=max(2, given.images // 120), areas_per_borough=24)
    names = {"faults": "every fault", "kills": f"and {given.kills} kills", "two": "two at once"}
    print(f"{len(_PICTURES) + 2} kinds of fault: {', '.join(_PICTURES)}, refused, clock skew")
    print(f"{'scenario':<14} {'images':>6} {'faults':>6} {'kills':>5} {'runs':>4} {'before the last run':>19}", end="")
    print(f" {'fetched':>7} {'twice':>5} {'on the wire at a kill':>21} {'seconds':>7}")
    perfect = True
    for scenario in given.scenario or names:
        count = _scenario(town, scenario, images=given.images, kills=given.kills, share=given.share)
        print(f"{names[scenario]:<14} {count.images:>6} {count.faults:>6} {count.kills:>5} {count.runs:>4}", end="")
        print(f" {count.fetched_before_the_last_run:>19} {count.fetched:>7} {count.twice:>5}", end="")
        print(f" {count.on_the_wire:>21} {count.seconds:>7.1f}", flush=True)
        perfect &= count.is_perfect
    return 0 if perfect else 1


def _scenario(town: Town, name: str, *, images: int, kills: int, share: float) -> _Count:
    count, begun = _Count(scenario=name, images=images), time.perf_counter()
    rng = np.random.default_rng(_SEED)
    faults = [
        Fault(kind, path=path, probability=share / len(kinds), seed=seed, seconds=0.1, retry_after_s=after)
        for path, kinds in (("^/thumbs/", _PICTURES), ("^/mapillary", _SEARCHES))
        for seed, kind in enumerate(kinds)
        # Half of the refusals for asking too fast say for how long, half do not.
        for after in ((0.05, None) if kind == "throttled" else (None,))
    ]
    with tempfile.TemporaryDirectory() as temporary, mock.patch("urbanprint.simulation.server.Camera", _Snapshots):
        folder = Path(temporary)
        expected = _write_sample(town, folder, images=images)
        deliveries = _Deliveries()
        with deliveries.watched(), SimulationServer(town, token=_TOKEN, faults=faults) as server:
            if name == "kills":
                for turn in range(kills):
                    requests = int(rng.integers(1, 2 * images // (kills + 1)))
                    count.kills += _until_killed(folder, server, requests, turn=turn)
                    deliveries.end_of_life(_fetched(folder), killed=True)
                count.runs = kills
            else:
                children = [_child(folder, server.url, turn=turn) for turn in range(2 if name == "two" else 1)]
                _refuse_for_a_while(server)
                for child in children:
                    if child.wait() not in (0, _FAILED):
                        raise SystemExit(f"{name}: a run ended with {child.returncode}, which no provider explains")
                deliveries.end_of_life(_fetched(folder), killed=False)
                count.runs = len(children)
            count.faults = sum(fault.hits for fault in faults)
            count.fetched_before_the_last_run = len(_fetched(folder))
            for fault in faults:
                fault.times = 0  # healthy from now on
            last = _child(folder, server.url, turn=0)
            if last.wait() != 0:
                raise SystemExit(f"{name}: the run against the healthy provider failed")
            count.runs += 1
            fetched = _fetched(folder)
            deliveries.end_of_life(fetched, killed=False)
        store = ImageStore(folder / "images")
        count.fetched = len(expected & fetched) if _all_there(folder, store) else 0
        for image_id, state, reason in _missing(folder, expected - fetched):
            print(f"  missing: image {image_id} is {state} ({reason})")
    count.twice, count.on_the_wire = deliveries.twice, deliveries.on_the_wire
    count.seconds = time.perf_counter() - begun
    return count


def _write_sample(town: Town, folder: Path, *, images: int) -> set[str]:
    """Write areas, sample and points that want exactly `images` images; return which."""
    file7(town).to_csv(folder / "statistics.csv", index=False)
    statistics = read_file7(folder / "statistics.csv", edition="simulation", areas_ranked=len(town.areas))
    boundaries = town.areas[["area_id", "geometry"]].assign(edition="simulation")
    areas = join(statistics, boundaries[["edition", "area_id", "geometry"]]).areas
    there = town.images[~town.images["is_pano"].astype(bool) & (town.images["thumb"] != "never")]
    taken, left = [], images
    for area_id, size in there.groupby("area_id").size().items():
        if left - size == 0 or left - size >= 4:  # the last area has to fit, and no area has fewer than four
            taken.append(area_id)
            left -= size
    if left:
        raise SystemExit(f"the town is {left} images short of {images}")
    chosen = areas[areas["area_id"].isin(taken)]
    sampled = stratify(chosen, size="all", allocation="equal", seed=_SEED)
    areas.to_parquet(folder / "areas.parquet")
    sampled.to_parquet(folder / "sampled.parquet")
    sample_points(areas, taken, points_per_area=2, spacing_m=30.0, seed=_SEED).to_parquet(folder / "points.parquet")
    return set(there.loc[there["area_id"].isin(taken), "image_id"])


def _child(folder: Path, url: str, *, turn: int) -> subprocess.Popen[bytes]:
    clock_s = _CLOCKS_S[turn % len(_CLOCKS_S)]
    command = [sys.executable, "-m", "benchmarks.campaign", "--fetch", str(folder), url, str(clock_s)]
    root = Path(__file__).resolve().parent.parent
    return subprocess.Popen(command, cwd=root, env={**os.environ, "OMP_NUM_THREADS": "1"})


def _until_killed(folder: Path, server: SimulationServer, requests: int, *, turn: int) -> bool:
    """Start a process and kill it after it has made so many requests; False where it ended before."""
    before = len(server.requests)
    child = _child(folder, server.url, turn=turn)
    while child.poll() is None and len(server.requests) - before < requests:
        time.sleep(0.002)
    child.send_signal(signal.SIGKILL)
    return child.wait() == -signal.SIGKILL


def _refuse_for_a_while(server: SimulationServer) -> None:
    """Close the port in the middle of the work, so that connections are refused, and open it again."""
    while not any(each.path.startswith("/thumbs/") for each in server.requests):
        time.sleep(0.01)
    time.sleep(0.5)
    server._port = int(server.url.rpartition(":")[2])  # the same again when it comes back
    server.__exit__(None, None, None)
    time.sleep(0.5)
    server.__enter__()


def _fetched(folder: Path) -> set[str]:
    with closing(Ledger(folder / "ledger.sqlite")) as ledger:
        return set(ledger.manifest(source="mapillary", state="fetched")["image_id"])


def _missing(folder: Path, images: set[str]) -> list[tuple[str, str, str]]:
    """Image, state and reason of what has not been fetched."""
    with closing(Ledger(folder / "ledger.sqlite")) as ledger:
        manifest = ledger.manifest(source="mapillary")
    left = manifest[manifest["image_id"].isin(images)]
    return list(left[["image_id", "state", "reason"]].itertuples(index=False, name=None))


def _all_there(folder: Path, store: ImageStore) -> bool:
    """Whether every file that the ledger claims is there and is a whole picture."""
    with closing(Ledger(folder / "ledger.sqlite")) as ledger:
        hashes = ledger.manifest(source="mapillary", state="fetched")["sha256"]
    return all(_inspect(store.path(sha256).read_bytes()).reason is None for sha256 in hashes)


def _fetch(folder: Path, url: str, *, clock_s: float) -> int:
    """What a child process does: one run, with a clock that is wrong by `clock_s` seconds."""
    right = time.time
    with closing(Ledger(folder / "ledger.sqlite")) as ledger, mock.patch("time.time", lambda: right() + clock_s):
        source = Mapillary(
            token=_TOKEN,
            terms=terms_of(Imagery(key="campaign", provider="mapillary")),
            endpoint=f"{url}/mapillary",
            discovery="search",
            retry=Retry(attempts=4, first_pause_s=0.05),
            timeout_s=(2.0, 2.0),
        )
        try:
            acquire(
                areas=gpd.read_parquet(folder / "areas.parquet"),
                sampled=pd.read_parquet(folder / "sampled.parquet"),
                points=pd.read_parquet(folder / "points.parquet"),
                source=source,
                ledger=ledger,
                store=ImageStore(folder / "images"),
                views=_VIEWS,
                threads=_THREADS,
                inspect=_inspect,
            )
        except SourceError:
            return _FAILED
    return 0


def _inspect(pixels: bytes) -> Examined:
    """Only what a fault can do to a body counts here: the pictures are tiny, and dark and blurred ones are welcome."""
    return examine(pixels, Quality(least_side=1, darkest=0, brightest=255, blurriest=0))


if __name__ == "__main__":
    sys.exit(main())
