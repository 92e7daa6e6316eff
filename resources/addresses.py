"""Addresses of a catalogue, resolved: `simulation:/...` starts the embedded server, all others are as they stand."""

import threading
from typing import Any

import dagster as dg
from pydantic import PrivateAttr

from urbanprint.catalogue import SIMULATION_SCHEME

SIMULATION_TOKEN = "simulation-token"  # not a secret: the embedded server is on this machine and serves only drawings


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

                server = SimulationServer(token=SIMULATION_TOKEN)
                server.__enter__()
                self._server = server
        return str(self._server.url).rstrip("/") + "/" + address.removeprefix(SIMULATION_SCHEME).lstrip("/")

    def teardown_after_execution(self, context: dg.InitResourceContext) -> None:  # noqa: ARG002
        """Stop the embedded server if it was started."""
        self.close()

    def close(self) -> None:
        """Stop the embedded server if it was started."""
        with self._lock:
            if self._server is not None:
                self._server.__exit__(None, None, None)
                self._server = None
