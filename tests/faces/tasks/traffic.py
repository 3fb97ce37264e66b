"""Receivers for tasks, and numbered datagrams for them."""

import itertools
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

from faces.faces import ASYNC_FACES, LIKE_WINDOWS, PATIENCE
from faces.network import GROUP, PORT, Network, family
from multicast_expert import AsyncMcastRxSocket

WINDOW = 100
"""A sender that is no more than so many datagrams ahead never fills the receive buffer that Linux gives by default."""
FACES = [*ASYNC_FACES, *LIKE_WINDOWS[1:]]


def async_receiver(version: int, *groups: str, **keywords: Any) -> AsyncMcastRxSocket:
    """A receiver on eth0."""
    keywords = {"timeout": PATIENCE, **keywords}
    return AsyncMcastRxSocket(family(version), groups or [GROUP[version]], PORT, "eth0", **keywords)


class Traffic:
    """Numbered datagrams from a thread, until it is stopped or has sent so many; no more than `window` ahead."""

    def __init__(self, network: Network, version: int, count: int | None, window: int | None) -> None:
        self._sender = network.sender(version)
        self._address = GROUP[version], PORT
        self._count = count
        self._window = window
        self.sent = 0
        self.received: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number in itertools.count() if self._count is None else range(self._count):
            if self._stop.is_set():
                break
            if self._window is not None:
                while number - len(self.received) >= self._window and not self._stop.is_set():
                    sleep(0.0001)
                if number % 3 == 0:
                    # Lets the receiver run dry, so that it has to wait.
                    sleep(0.0005)
            self._sender.sendto(b"%d" % number, self._address)
            self.sent += 1

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End it, if it has not ended by itself."""
        self._stop.set()
        self._thread.join()

    @property
    def is_over(self) -> bool:
        """Whether all is sent."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """End it and close its socket."""
        self.stop()
        self._sender.close()


@contextmanager
def traffic(network: Network, version: int, count: int | None = None, window: int | None = None) -> Iterator[Traffic]:
    """Numbered datagrams from the far host, for the time of the block."""
    running = Traffic(network, version, count, window)
    interval = sys.getswitchinterval()
    # A receiver that never sleeps would hold the sender up for the usual 5 ms each time.
    sys.setswitchinterval(0.0001)
    running.start()
    try:
        yield running
    finally:
        running.close()
        sys.setswitchinterval(interval)
