"""A loopback server that speaks the providers' real protocols about everything that is simulated.

What belongs here is transport: the log, faults, sockets. What is answered is in `protocols/`, a module a provider.
"""

import contextlib
import json
import select
import socket
import struct
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

from urbanprint.simulation.country import CLUSTERS
from urbanprint.simulation.faults import TRANSPORT_FAULTS, Answer, Fault, faulty
from urbanprint.simulation.overhead import Overhead
from urbanprint.simulation.planet import IMAGES
from urbanprint.simulation.protocols.arcgis import FeatureService
from urbanprint.simulation.protocols.camera import Camera
from urbanprint.simulation.protocols.conurbations import Conurbations
from urbanprint.simulation.protocols.countries import Countries
from urbanprint.simulation.protocols.kartaview import KartaViewApi
from urbanprint.simulation.protocols.mapillary import GraphApi
from urbanprint.simulation.protocols.open_data import OpenData, boundary_table
from urbanprint.simulation.protocols.ortho import OrthoServices
from urbanprint.simulation.protocols.panoramax import PanoramaxApi
from urbanprint.simulation.protocols.planet import PlanetApi
from urbanprint.simulation.protocols.street_view import StreetViewApi
from urbanprint.simulation.protocols.vector_tiles import VectorTiles
from urbanprint.simulation.protocols.wire import Provider
from urbanprint.simulation.town import Town, build_town

_GONE = (BrokenPipeError, ConnectionResetError, ConnectionAbortedError)


@dataclass(frozen=True)
class RequestRecord:
    """A line of the log. `query` is as sent: a token in it is a leak that a test can find."""

    method: str
    path: str
    query: str
    status: int
    fault: str | None
    time: float


class SimulationServer:
    """Serves `town` and all that is simulated on 127.0.0.1 while open; `url` is its address, `requests` its log.

    `log_path` gets every request as a JSON line at once, so that the log survives a kill. `page` is the feature
    service's maxRecordCount, `dense_box` the number of images above which a search box is refused, `image_width` the
    width in pixels of the town's cameras, `clusters` the number in each simulated country, `planet_images` about the
    number of images of the planet, `port` 0 any free one.
    """

    def __init__(
        self,
        town: Town | None = None,
        *,
        token: str = "simulation-token",
        faults: Iterable[Fault] = (),
        thumb_lifetime_s: float = 3600.0,
        log_path: Path | None = None,
        page: int = 100,
        dense_box: int = 30,
        image_width: int = 256,
        clusters: int = CLUSTERS,
        planet_images: int = IMAGES,
        port: int = 0,
    ) -> None:
        self.town = town or build_town()
        self.requests: list[RequestRecord] = []
        camera = Camera(self.town, width=image_width)
        self.street_view = StreetViewApi(self.town, camera, key=token)
        self._providers: list[Provider] = [
            OpenData(self.town),
            FeatureService(boundary_table(self.town), page),
            GraphApi(self.town, camera, token=token, thumb_lifetime_s=thumb_lifetime_s, dense_box=dense_box),
            VectorTiles(self.town, token=token),
            PanoramaxApi(self.town, camera),
            self.street_view,
            KartaViewApi(self.town, camera, dense=dense_box),
            OrthoServices(Overhead(self.town).colours),
            Conurbations(),
            Countries(clusters=clusters, token=token, thumb_lifetime_s=thumb_lifetime_s, dense_box=dense_box),
            PlanetApi(images=planet_images, token=token, thumb_lifetime_s=thumb_lifetime_s, dense_box=dense_box),
        ]
        self.closing = threading.Event()
        self._faults = list(faults)
        self._log_path = log_path
        self._lock = threading.Lock()
        self._port = port
        self._http: _Listener | None = None

    def __enter__(self) -> Self:
        self.closing.clear()
        self._http = _Listener(("127.0.0.1", self._port), _Handler)
        self._http.simulation = self
        threading.Thread(target=self._http.serve_forever, args=(0.05,), name="simulation", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._http is not None:
            self.closing.set()
            self._http.shutdown()
            self._http.server_close()
            self._http.hang_up()
            self._http = None

    @property
    def url(self) -> str:
        """`http://127.0.0.1:<port>`; RuntimeError while the server is not running."""
        if self._http is None:
            raise RuntimeError("the simulation server is not running: open it with `with SimulationServer() as server`")
        return f"http://127.0.0.1:{self._http.server_address[1]}"

    def inject(self, fault: Fault) -> None:
        """Have `fault` from now on."""
        with self._lock:
            self._faults.append(fault)

    def fault_for(self, path: str) -> Fault | None:
        """The first fault that strikes this request."""
        with self._lock:
            return next((fault for fault in self._faults if fault.strikes(path)), None)

    def answer(self, path: str, query: dict[str, str], headers: Any) -> Answer:
        """The sound answer to a request."""
        answers = (provider.answer(path, query, headers, self.url) for provider in self._providers)
        return next((answer for answer in answers if answer is not None), _not_found(path))

    def record(self, entry: RequestRecord) -> None:
        """Append to the log, and to its file."""
        with self._lock:
            self.requests.append(entry)
            if self._log_path is not None:
                with self._log_path.open("a", encoding="utf-8") as log:
                    log.write(json.dumps(asdict(entry)) + "\n")


def _not_found(path: str) -> Answer:
    return Answer(f"no such file: {path}".encode(), 404, "text/plain; charset=utf-8")


class _Listener(ThreadingHTTPServer):
    """Remembers its open connections, so that closing leaves no socket and no thread behind."""

    daemon_threads = True
    request_queue_size = 128
    simulation: SimulationServer

    def __init__(self, *args: Any) -> None:
        self._open: set[socket.socket] = set()
        self._changed = threading.Condition()
        super().__init__(*args)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._changed:
            self._open.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._changed:
            self._open.discard(request)
            self._changed.notify_all()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that hangs up is no error of the server; anything else is a bug and shows its traceback.
        if not isinstance(sys.exception(), _GONE):
            super().handle_error(request, client_address)

    def hang_up(self) -> None:
        """Break every open connection and wait for its thread."""
        with self._changed:
            for connection in self._open:
                with contextlib.suppress(OSError):  # the client may just have closed it
                    connection.shutdown(socket.SHUT_RDWR)
            self._changed.wait_for(lambda: not self._open, timeout=5.0)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "simulation"
    disable_nagle_algorithm = True
    server: _Listener

    def do_GET(self) -> None:
        simulation = self.server.simulation
        parts = urlsplit(self.path)
        fault = simulation.fault_for(parts.path)
        answer = simulation.answer(parts.path, dict(parse_qsl(parts.query)), self.headers)
        if fault is not None and fault.kind not in TRANSPORT_FAULTS:
            answer = faulty(answer, fault)
        kind = fault.kind if fault is not None else None
        simulation.record(RequestRecord(self.command, parts.path, parts.query, answer.status, kind, time.time()))
        try:
            self._act(answer, fault)
        except _GONE:
            self.close_connection = True

    do_HEAD = do_GET

    def _act(self, answer: Answer, fault: Fault | None) -> None:
        if fault is not None and fault.kind == "timeout":
            self._stay_silent()
            return
        if fault is not None and fault.kind == "slow":
            self.server.simulation.closing.wait(fault.seconds)
        body = b"" if self.command == "HEAD" else answer.body
        self.send_response(answer.status, HTTPStatus(answer.status).phrase)
        self.send_header("Content-Type", answer.content_type)
        if answer.status != HTTPStatus.NOT_MODIFIED:
            self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if fault is not None and fault.kind == "reset":
            self.wfile.write(body[: len(body) // 2])
            # Linger 0: closing sends RST, not an orderly end.
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            return
        self.wfile.write(body)

    def _stay_silent(self) -> None:
        """Hold the connection without a word until the client hangs up or the server closes."""
        self.close_connection = True
        while not self.server.simulation.closing.is_set():
            readable, _, _ = select.select([self.connection], [], [], 0.05)
            if readable and not self.connection.recv(1, socket.MSG_PEEK):
                return

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the log is `SimulationServer.requests`."""
