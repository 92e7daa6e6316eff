"""What acquisition costs, each figure beside what it is held against: `python -m benchmarks.acquisition`."""

import io
import multiprocessing
import resource
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import requests
import shapely
from PIL import Image
from shapely.geometry.base import BaseGeometry

from urbanprint.catalogue import read_catalogue
from urbanprint.imagery.acquisition import acquire
from urbanprint.imagery.ledger import Ledger
from urbanprint.imagery.manifest import write_manifest
from urbanprint.imagery.planning import plan_imagery
from urbanprint.imagery.records import ImageRecord, Terms
from urbanprint.imagery.store import ImageStore
from urbanprint.sources.http import HttpClient
from urbanprint.sources.limits import RateLimit

_THREADS = 16
_LATENCY_S = 0.1
_IMAGES = 640
_PER_MINUTE = 3000
_ANYTHING = Terms(
    licence="CC0 1.0", attribution="a benchmark", page=None, may_store=True, may_train=True, may_show=True
)


def _serve(pipe: "multiprocessing.connection.Connection", picture: bytes) -> None:
    """Answer every request with a picture of its own after 100 ms, in a process of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            time.sleep(_LATENCY_S)
            body = picture + self.path.encode()  # after the end of the picture, so that no two have the same hash
            self.send_response(200)
            self.send_header("Content-Type", "image/jpeg")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    pipe.send(server.server_address[1])
    server.serve_forever()


@contextmanager
def _server() -> Iterator[str]:
    rng = np.random.default_rng(1)
    coarse = Image.fromarray(rng.integers(60, 255, (48, 64, 3), dtype=np.uint8)).resize((1024, 768))
    picture = io.BytesIO()
    coarse.save(picture, "JPEG", quality=85)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=_serve, args=(theirs, picture.getvalue()), daemon=True
    )
    process.start()
    try:
        yield f"http://127.0.0.1:{ours.recv()}"
    finally:
        process.terminate()
        process.join()


class _Street:
    """A source of `_IMAGES` images in one area each ten, over the project's own HTTP layer."""

    name, terms, price, request_key = "street", _ANYTHING, 0.0, "all"

    def __init__(self, address: str) -> None:
        self._address = address
        self._client = HttpClient(name="street", local=True)

    def find(self, area: BaseGeometry, points: np.ndarray | None = None) -> Iterator[ImageRecord]:
        """Yield ten images inside the area."""
        west, south, east, _ = area.bounds
        for index in range(10):
            longitude = west + (east - west) * (index + 0.5) / 10
            name = f"{west:.2f}-{index}"
            yield ImageRecord(
                image_id=name,
                sequence_id=name,
                longitude=longitude,
                latitude=south + 0.005,
                creator="nobody",
                address=f"{self._address}/{name}.jpg",
            )

    def fetch(self, record: ImageRecord) -> bytes:
        """Return the picture."""
        return self._client.get(str(record.address), authenticated=False).content


def _whole_path(address: str, folder: Path) -> float:
    """Images a second of find, fetch, verify, hash, write and manifest."""
    count = _IMAGES // 10
    names = [f"A{index:03d}" for index in range(count)]
    shapes = [shapely.box(0.01 * index, 0.0, 0.01 * index + 0.01, 0.01) for index in range(count)]
    areas = gpd.GeoDataFrame({"area_id": names}, geometry=shapes, crs=4326)
    sampled = pd.DataFrame({"area_id": names, "stratum": 1, "role": "primary", "order": range(count)})
    points = pd.DataFrame({"area_id": names, "longitude": [0.01 * i + 0.005 for i in range(count)], "latitude": 0.005})
    begun = time.perf_counter()
    with closing(Ledger(folder / "ledger.sqlite")) as ledger:
        acquired = acquire(
            areas=areas,
            sampled=sampled,
            points=points,
            source=_Street(address),
            ledger=ledger,
            store=ImageStore(folder / "images"),
            views=10,
            threads=_THREADS,
        )
    seconds = time.perf_counter() - begun
    fetched = int((acquired.images["state"] == "fetched").sum())
    if fetched != _IMAGES:
        raise SystemExit(f"{fetched} of {_IMAGES} images were fetched: the figure would mean nothing")
    return fetched / seconds


def _bare(address: str) -> float:
    """Images a second of `requests` with the same number of threads, bodies thrown away."""
    local = threading.local()

    def get(index: int) -> None:
        if not hasattr(local, "session"):
            local.session = requests.Session()
        local.session.get(f"{address}/{index}.jpg", timeout=30).content  # noqa: B018  the body is read

    begun = time.perf_counter()
    with ThreadPoolExecutor(_THREADS) as pool:
        list(pool.map(get, range(_IMAGES)))
    return _IMAGES / (time.perf_counter() - begun)


def _rate_held(seconds: float = 10.0) -> float:
    """Requests a minute that leave through a limit with threads that always want more."""
    limit = RateLimit(_PER_MINUTE)
    left: list[float] = []
    end = time.monotonic() + seconds

    def ask() -> None:
        while time.monotonic() < end:
            limit.wait()
            left.append(time.monotonic())

    threads = [threading.Thread(target=ask) for _ in range(32)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    left.sort()
    return 60.0 * (len(left) - 1) / (left[-1] - left[0])


def _peak_mb(rows: int) -> float:
    """Peak memory in MB of a process that writes the manifest of a ledger of so many images."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_manifest_peak, (rows,))


def _manifest_peak(rows: int) -> float:
    with tempfile.TemporaryDirectory() as folder, closing(Ledger(Path(folder) / "ledger.sqlite")) as ledger:
        for start in range(0, rows, 10_000):
            found = (
                (ImageRecord(image_id=f"{i:09d}", sequence_id=f"s{i // 50}", longitude=0.1, latitude=0.1), "A")
                for i in range(start, min(start + 10_000, rows))
            )
            ledger.record_search(f"{start}", "all", source="street", terms=_ANYTHING, found=found)
        written = write_manifest(ledger.manifest_batches(source="street"), Path(folder) / "manifest.parquet")
        if written != rows:
            raise SystemExit(f"{written} of {rows} rows were written")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1 << 10)


def _planning(areas: int = 33_000) -> float:
    """Seconds to plan so many areas without a look at images."""
    names = [f"A{index:06d}" for index in range(areas)]
    sampled = pd.DataFrame({"area_id": names, "stratum": 1, "role": "primary", "order": range(areas)})
    points = pd.DataFrame({"area_id": np.repeat(names, 4), "longitude": 0.0, "latitude": 0.0})
    city = read_catalogue().city("london")
    with tempfile.TemporaryDirectory() as folder, closing(Ledger(Path(folder) / "ledger.sqlite")) as ledger:
        begun = time.perf_counter()
        plan_imagery(city, sampled, points, ledger=ledger)
        return time.perf_counter() - begun


def main() -> None:
    """Print the figures."""

    def throughput() -> Sequence[object]:
        with _server() as address:
            ratios = []
            for turn in range(4):
                with tempfile.TemporaryDirectory() as folder:
                    ours, bare = _whole_path(address, Path(folder)), _bare(address)
                if turn:  # the first warms up
                    ratios.append((ours / bare, ours, bare))
            ratio, ours, bare = sorted(ratios)[len(ratios) // 2]
        return f"{ours:.0f}/s", f"bare requests {bare:.0f}/s", f"{ratio:.2f}", "at least 0.8"

    def rate() -> Sequence[object]:
        held = _rate_held()
        return f"{held:.0f}/min", f"limit {_PER_MINUTE}/min", f"{held / _PER_MINUTE:.3f}", "0.95 to 1"

    def memory() -> Sequence[object]:
        small, large = _peak_mb(10_000), _peak_mb(1_000_000)
        return f"{large:.0f} MB", f"10,000 rows {small:.0f} MB", f"{large / small:.2f}", "flat"

    rows: list[tuple[str, Callable[[], Sequence[object]]]] = [
        (f"find to manifest, {_THREADS} threads, 100 ms server", throughput),
        ("rate through a limit, 32 threads", rate),
        ("manifest of 1,000,000 images, peak memory", memory),
        ("plan of 33,000 areas", lambda: (f"{_planning():.2f} s", "-", "-", "at most 60 s")),
    ]
    print(f"{'what':<44} {'ours':>10} {'against':>22} {'ratio':>6}  wanted")
    for what, measured in rows:
        ours, against, ratio, wanted = measured()
        print(f"{what:<44} {ours!s:>10} {against!s:>22} {ratio!s:>6}  {wanted}", flush=True)


if __name__ == "__main__":
    main()
