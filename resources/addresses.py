"""Addresses of a catalogue, resolved: `simulation:/...` starts the embedded server, all others are as they stand."""

import threading
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from urbanprint.settings import SIMULATION_SCHEME

SIMULATION_TOKEN = "simulation-token"  # not a secret: the embedded server is on this machine and serves only drawings


_PORT = 8743  # the same from run to run, so that addresses an earlier run was given still answer


class Addresses(dg.ConfigurableResource):
    """Turns a catalogue's addresses into ones that can be asked."""

    _server: Any = PrivateAttr(default=None)
    _lock: threading.Lock = PrivateAttr(default_factory=threading.Lock)

    def resolve(self, address: str) -> str:
        """Return an address that can be fetched; the embedded server is started when first needed."""
        if not address.startswith(SIMULATION_SCHEME):
            return address
        with self._lock:
            if self._server is None:
                from urbanprint.simulation.server import SimulationServer

                try:
                    self._server = SimulationServer(token=SIMULATION_TOKEN, port=_PORT).__enter__()
                except OSError:
                    # Taken, most likely by another run of a simulated city: any free port serves as well.
                    self._server = SimulationServer(token=SIMULATION_TOKEN).__enter__()
        return str(self._server.url).rstrip("/") + "/" + address.removeprefix(SIMULATION_SCHEME).lstrip("/")

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:
        """Stop the embedded server if it was started."""
        self.close()

    def close(self) -> None:
        """Stop the embedded server if it was started."""
        with self._lock:
            if self._server is not None:
                self._server.__exit__(None, None, None)
                self._server = None
