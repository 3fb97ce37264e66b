"""Opening and closing a receiver on one of many interfaces. Opens sockets."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import process_time_ns

import multicast_expert
from benchmarks.load import Load

INTERFACE, ADDRESS = "bench0", "10.77.0.1"
"""The interface that is opened; `benchmarks.network` makes it."""


def raw(load: Load) -> None:
    """A plain socket that joins."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((load.addresses[0], load.port))
        membership = socket.inet_aton(load.addresses[0]) + socket.inet_aton(ADDRESS)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)


def receiver_by_name(load: Load) -> None:
    """McastRxSocket on an interface that is named; of this library or the incumbent."""
    with multicast_expert.McastRxSocket(socket.AF_INET, load.addresses, load.port, iface=INTERFACE):
        pass


def receiver_everywhere(load: Load) -> None:
    """McastRxSocket on all interfaces; of this library or the incumbent."""
    with multicast_expert.McastRxSocket(socket.AF_INET, load.addresses, load.port):
        pass


def sender_by_name(load: Load) -> None:
    """McastTxSocket on an interface that is named; of this library or the incumbent."""
    with multicast_expert.McastTxSocket(socket.AF_INET, load.addresses, iface=INTERFACE):
        pass


OPENERS = {function.__name__: function for function in (raw, receiver_by_name, receiver_everywhere, sender_by_name)}


@contextmanager
def measure_opening(load: Load) -> Iterator[Callable[[], list[float]]]:
    """Processor seconds for one time open and closed."""
    opened = OPENERS[load.subject]

    def measured() -> list[float]:
        start = process_time_ns()
        for _ in range(load.repeats):
            opened(load)
        return [(process_time_ns() - start) / 1e9 / load.repeats]

    opened(load)
    yield measured
