"""Takes datagrams from several receivers in the order of their arrival, and waits for them."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from operator import attrgetter

from multicast_expert.cli import terminal
from multicast_expert.cli.render.datagram import Arrival
from multicast_expert.core.datagram import Datagram
from multicast_expert.sockets.receiver import McastRxSocket
from multicast_expert.stamp import MAGIC, read_head, read_stamp

Batch = list[tuple[McastRxSocket, list[Datagram]]]
"""Datagrams by the receiver that they came to."""

# Datagrams that one receiver hands out before the next receiver has its turn.
BATCH = 64
# Seconds in which more datagrams gather: taken one by one, each would cost the work of a batch.
PAUSE = 0.0002
# Seconds after which the descriptors are looked up again: a receiver may replace its sockets during the wait.
PATIENCE = 1.0


def batches(
    receivers: Sequence[McastRxSocket],
    deadline: float | None,
    patience_left: Callable[[], float],
    excluded: Collection[str] = (),
) -> Iterator[Batch]:
    """Yield what comes until the deadline (monotonic seconds), by receiver, and flush the output before each wait.

    What waits in a buffer by then is yielded, too. So is an empty list when nothing comes for as long as
    `patience_left` returns. Datagrams from `excluded` hosts are passed over: some come in before the kernel knows which
    to reject.
    """
    busy: list[McastRxSocket] = []
    end_ns = None
    while True:
        patience = 0.0 if busy else min(PATIENCE, patience_left())
        if deadline is not None:
            patience = min(patience, deadline - time.monotonic())
        if patience < 0:
            patience = 0.0
            end_ns = end_ns or time.time_ns()
        if len(receivers) > 1:
            busy = list(dict.fromkeys((*busy, *_readable(receivers, patience))))
            patience = 0
        else:
            # A receiver waits for its own sockets, of which it may have thousands.
            busy = list(receivers)
        taken: Batch = []
        for receiver in tuple(busy):
            datagrams = _take(receiver, patience)
            if len(datagrams) < BATCH:
                busy.remove(receiver)
            if excluded:
                datagrams = [each for each in datagrams if not _is_from(each, excluded)]
            if datagrams:
                taken.append((receiver, datagrams))
        yield taken
        terminal.flush()
        if taken and not busy:
            time.sleep(PAUSE)
        if end_ns is not None and not any(_came_before(each, end_ns) for each in taken):
            return


def first_of(batch: Batch, most: int) -> Batch:
    """Return so many datagrams of a batch, those that arrived first, and the end marks before and between them."""
    found: Batch = []
    flat = [(receiver, datagram) for receiver, datagrams in batch for datagram in datagrams]
    for receiver, datagram in sorted(flat, key=lambda each: each[1].timestamp_ns or 0):
        head = read_head(datagram.data)
        most -= head is None or not head.is_end
        if most < 0:
            break
        found.append((receiver, [datagram]))
    return found


def arrivals(batch: Batch) -> list[Arrival]:
    """Return the datagrams of a batch in the order of their arrival, without end marks of streams."""
    taken = [_arrival(each, receiver.port) for receiver, datagrams in batch for each in datagrams]
    wanted = [each for each in taken if each.stamp is None or not each.stamp.is_end]
    return wanted if len(batch) < 2 else sorted(wanted, key=attrgetter("time_ns"))


def _came_before(taken: tuple[McastRxSocket, list[Datagram]], moment_ns: int) -> bool:
    """Return whether there may be more of the kind: the last one is older, as far as the OS says."""
    return (taken[1][-1].timestamp_ns or moment_ns) < moment_ns


def _readable(receivers: Iterable[McastRxSocket], timeout: float) -> list[McastRxSocket]:
    """Return the receivers that may have a datagram, after `timeout` seconds at the latest."""
    # A new one each time, and not one that keeps descriptors in the kernel: a receiver may have replaced a socket by
    # another one with the same descriptor.
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
    return datagram.sender[0].partition("%")[0] in hosts


def _arrival(datagram: Datagram, port: int) -> Arrival:
    moment = time.time_ns() if datagram.timestamp_ns is None else datagram.timestamp_ns
    stamped = read_stamp(datagram.data) if datagram.data.startswith(MAGIC) else None
    if stamped is None:
        return Arrival(datagram, port, moment, None, datagram.data)
    return Arrival(datagram, port, moment, *stamped)
