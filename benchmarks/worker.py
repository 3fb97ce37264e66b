"""One worker: opens one thing, and measures it once for each line that it is sent. Answers with lines of JSON."""

from __future__ import annotations

import json
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import thread_time_ns

from benchmarks.counting import COUNTERS
from benchmarks.latency import measure_latency
from benchmarks.load import MAX_DATAGRAM, SOL_UDP, UDP_GRO, Load, filler, joined_socket, load_from_text, sending_socket
from benchmarks.opening import measure_opening
from benchmarks.receiving import RECEIVERS
from benchmarks.sending import SENDERS

Round = Callable[[], list[float]]


@contextmanager
def measure_receiving(load: Load) -> Iterator[Round]:
    """Processor seconds per datagram, taken from receive buffers that another worker has filled."""
    with RECEIVERS[load.subject](load) as receive:
        yield lambda: [receive(load.batch) / load.batch]


@contextmanager
def feed(load: Load) -> Iterator[Round]:
    """Send a batch to what receives it, where there is no C program that does."""
    with sending_socket() as sender:
        fill = filler(load, sender)

        def fed() -> list[float]:
            fill()
            return []

        yield fed


@contextmanager
def measure_sending(load: Load) -> Iterator[Round]:
    """Processor seconds per datagram, delivery to the one plain receiver included; it is emptied between batches."""
    payloads = load.payloads()
    with (
        joined_socket(load.addresses[0], load.port, coalesce=load.coalesce) as receiver,
        SENDERS[load.subject](load) as send,
    ):

        def drain() -> None:
            missing = load.batch
            while missing > 0:
                data, control, _, _ = receiver.recvmsg(MAX_DATAGRAM, 64)
                sizes = [value for level, kind, value in control if (level, kind) == (SOL_UDP, UDP_GRO)]
                missing -= -(-len(data) // struct.unpack("=i", sizes[0])[0]) if sizes else 1

        def measured() -> int:
            start = thread_time_ns()
            send(payloads)
            spent = thread_time_ns() - start
            drain()
            return spent

        yield lambda: [sum(measured() for _ in range(load.repeats)) / 1e9 / load.repeats / load.batch]


@contextmanager
def measure_counting(load: Load) -> Iterator[Round]:
    """How many datagrams came until the sender fell silent."""
    with COUNTERS[load.subject](load) as count:
        yield lambda: [count()]


TASKS = {
    "receive": measure_receiving,
    "feed": feed,
    "send": measure_sending,
    "count": measure_counting,
    "latency": measure_latency,
    "open": measure_opening,
}


def main() -> None:
    """Say that all is open, then measure a round for each line."""
    load = load_from_text(sys.argv[1])
    with TASKS[load.task](load) as measured:
        print("[]", flush=True)
        for _ in sys.stdin:
            print(json.dumps(measured()), flush=True)


if __name__ == "__main__":
    main()
