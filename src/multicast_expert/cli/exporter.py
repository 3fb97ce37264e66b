"""Serves metrics to Prometheus, by its own client library, beside a program that receives."""

from __future__ import annotations

import io
import socket
import sys
import threading
from collections.abc import Iterator
from socketserver import TCPServer, ThreadingMixIn
from time import monotonic
from typing import Any, cast

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import MetricsHandler
from prometheus_client.registry import Collector

from multicast_expert.cli.render.metrics import Families, Labels
from multicast_expert.cli.render.text import host_and_port

_ASKERS = 8
"""Requests that are answered at the same time; further ones are turned away."""
_PATIENCE = 10.0
"""Seconds that a client may be silent."""
_INTERVAL = 1.0
"""Seconds between two looks at what is to be shown."""
_LONGEST_TURN = 1e-4
"""Seconds for which a thread keeps the interpreter: the one that receives waits no longer for one that answers."""


class _Server(ThreadingMixIn, TCPServer):
    daemon_threads = True
    # Elsewhere it permits a restart at once; on Windows, two programs on one port.
    allow_reuse_address = not hasattr(socket, "SO_EXCLUSIVEADDRUSE")

    def __init__(self, host: str, port: int, handler: type[MetricsHandler]) -> None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0]
        self.address_family = found[0]
        self._room = threading.BoundedSemaphore(_ASKERS)
        super().__init__(cast("tuple[str, int]", found[4]), handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._room.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        # A client that goes away is none of our business.
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _Handler(MetricsHandler):
    timeout = _PATIENCE

    def do_HEAD(self) -> None:  # noqa: N802 - the name that http.server looks for
        self.do_GET()

    def end_headers(self) -> None:
        super().end_headers()
        if self.command == "HEAD":
            self.wfile = io.BytesIO()  # what follows is the body


class Exporter(Collector):
    """Answers requests at an address with the metrics of the last second, until it is closed; OSError if it cannot.

    The program hands over values that no longer change, so that neither thread waits for the other.
    """

    def __init__(self, host: str, port: int) -> None:
        self.families: Families = tuple
        self._next = 0.0
        self._highest: dict[tuple[str, Labels], float] = {}
        self._lock = threading.Lock()
        registry = CollectorRegistry()
        registry.register(self)
        handler = type("Handler", (_Handler,), {"registry": registry})
        self._server = _Server(host, port, handler)
        self._turn = sys.getswitchinterval()
        sys.setswitchinterval(_LONGEST_TURN)
        threading.Thread(target=self._server.serve_forever, args=(0.1,), daemon=True).start()

    @property
    def url(self) -> str:
        """Where the metrics are."""
        host, port = cast("tuple[str, int]", self._server.server_address[:2])
        return f"http://{host_and_port(host, port)}/metrics"

    def is_due(self) -> bool:
        """Return whether a second is over: once for each."""
        now = monotonic()
        if now < self._next:
            return False
        self._next = now + _INTERVAL
        return True

    def collect(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        """Yield the metrics in the classes of the client library."""
        with self._lock:
            found = list(self._collected())
        yield from found

    def _collected(self) -> Iterator[CounterMetricFamily | GaugeMetricFamily]:
        highest: dict[tuple[str, Labels], float] = {}
        for name, text, labels, samples, falls in self.families():
            kind = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            family = kind(name, text, labels=labels)
            for key, value in samples:
                if falls:
                    value = highest[name, key] = max(value, self._highest.get((name, key), value))  # noqa: PLW2901
                family.add_metric(key, value)
            if samples:
                yield family
        self._highest = highest

    def close(self) -> None:
        """Answer no further request."""
        self._server.shutdown()
        self._server.server_close()
        sys.setswitchinterval(self._turn)
