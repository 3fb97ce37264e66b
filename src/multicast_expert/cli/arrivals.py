"""What arrives at several receivers, in the order of its arrival: waits and takes."""

from __future__ import annotations

import selectors
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from operator import attrgetter

from multicast_expert.cli.render.datagram import Arrival
from multicast_expert.core.datagram import Datagram
from multicast_expert.sockets.receiver import McastRxSocket
from multicast_expert.stamp import read_stamp

# How many datagrams one receiver may hand out before the others are asked.
BATCH = 64
# Seconds after which the descriptors are asked for again: a receiver may replace its sockets while it is waited for.
PATIENCE = 1.0


def arrivals(
    receivers: Sequence[McastRxSocket], deadline: float | None, excluded: Collection[str] = ()
) -> Iterator[Arrival]:
    """Yield what arrives until the deadline (monotonic seconds), and flush the output before each wait.

    What comes from `excluded` hosts is passed over: it may have come in before the kernel was told to refuse it.
    """
    busy: list[McastRxSocket] = []
    while True:
        patience = 0.0 if busy else PATIENCE
        if deadline is not None:
            patience = min(patience, deadline - time.monotonic())
        if patience < 0:
            return
        if len(receivers) > 1:
            busy = list(dict.fromkeys((*busy, *_readable(receivers, patience))))
            patience = 0
        else:
            # It knows how to wait for its sockets, of which it may have thousands.
            busy = list(receivers)
        taken: list[Arrival] = []
        for receiver in tuple(busy):
            datagrams = _take(receiver, patience)
            taken += [_arrival(each, receiver.port) for each in datagrams if not _is_from(each, excluded)]
            if len(datagrams) < BATCH:
                busy.remove(receiver)
        yield from sorted(taken, key=attrgetter("time_ns"))
        sys.stdout.flush()


def _readable(receivers: Iterable[McastRxSocket], timeout: float) -> list[McastRxSocket]:
    """Return the receivers for which something may have arrived, after `timeout` seconds at the latest."""
    # Made anew each time, and not of the kind that keeps descriptors in the kernel: a receiver may have replaced a
    # socket by another one with the same descriptor.
    with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
        for receiver in receivers:
            for descriptor in receiver.filenos():
                selector.register(descriptor, selectors.EVENT_READ, receiver)
        return [key.data for key, _ in selector.select(timeout)]


def _take(receiver: McastRxSocket, timeout: float) -> list[Datagram]:
    try:
        return receiver.receive_many(BATCH, timeout=timeout)
    except TimeoutError:
        return []


def _is_from(datagram: Datagram, hosts: Collection[str]) -> bool:
    return bool(hosts) and datagram.sender[0].partition("%")[0] in hosts


def _arrival(datagram: Datagram, port: int) -> Arrival:
    moment = time.time_ns() if datagram.timestamp_ns is None else datagram.timestamp_ns
    stamped = read_stamp(datagram.data)
    if stamped is None:
        return Arrival(datagram, port, moment, None, datagram.data)
    return Arrival(datagram, port, moment, *stamped)
