"""Takes datagrams from several receivers in the order of their arrival, and waits for them."""

from __future__ import annotations

import selectors
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import suppress
from operator import attrgetter
from typing import NamedTuple

from multicast_expert.cli import terminal
from multicast_expert.cli.render.datagram import Arrival
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.datagram_buffer import DatagramBuffer, gathering_seconds
from multicast_expert.sockets.receiver import McastRxSocket
from multicast_expert.stamp import MAGIC, read_head, read_stamp

Batch = list[tuple[McastRxSocket, list[Datagram]]]
"""Datagrams by the receiver that they came to."""

# Datagrams that one receiver hands out before the next receiver has its turn.
BATCH = 64
# The same where they are only counted, and bytes for their payloads: they stay in a processor's cache.
ROWS, MEMORY = 1024, 1 << 20
# Seconds in which more datagrams gather: taken one by one, each would cost the work of a batch.
PAUSE = 0.0002
# Seconds after which the descriptors are looked up again: a receiver may replace its sockets during the wait.
PATIENCE = 1.0


class Taken(NamedTuple):
    """What one receiver handed out in its turn."""

    datagrams: int = 0
    pause: float = 0.0
    """Seconds in which more may gather."""
    is_all: bool = True
    """Whether nothing more waits."""
    newest_ns: int | None = None
    """When the last one arrived; None: the OS does not say."""


def batches(
    receivers: Sequence[McastRxSocket],
    deadline: float | None,
    patience_left: Callable[[], float],
    excluded: Collection[str] = (),
) -> Iterator[Batch]:
    """Yield what comes, by receiver, in `turns`.

    Datagrams from `excluded` hosts are passed over: some come in before the kernel knows which to reject.
    """
    batch: Batch = []

    def take(receiver: McastRxSocket, timeout: float) -> Taken:
        try:
            found = receiver.receive_many(BATCH, timeout=timeout)
        except TimeoutError:
            return Taken()
        wanted = [each for each in found if not _is_from(each, excluded)] if excluded else found
        if wanted:
            batch.append((receiver, wanted))
        return Taken(len(found), PAUSE, len(found) < BATCH, found[-1].timestamp_ns)

    for _ in turns(receivers, deadline, patience_left, take):
        yield list(batch)
        batch.clear()


def buffers(
    receivers: Sequence[McastRxSocket],
    deadline: float | None,
    patience_left: Callable[[], float],
    count: Callable[[McastRxSocket, DatagramBuffer], object],
) -> Iterator[None]:
    """Call `count` with what comes, by receiver, in `turns`: a fraction of the work of objects."""
    buffer = DatagramBuffer(ROWS, MEMORY)
    longest = gathering_seconds(each.receive_buffer for each in receivers)

    def take(receiver: McastRxSocket, timeout: float) -> Taken:
        buffer.clear()
        try:
            with suppress(TimeoutError):
                receiver.receive_into(buffer, timeout=timeout)
        finally:
            # An interruption leaves there what has come.
            if len(buffer):
                count(receiver, buffer)
        if not len(buffer):
            return Taken()
        newest_ns = buffer.timestamps_ns[-1] or None
        # Where the OS does not say when each arrived, the time of the look has to do.
        pause = longest if newest_ns else min(longest, PAUSE)
        return Taken(len(buffer), pause, not buffer.is_full, newest_ns)

    return turns(receivers, deadline, patience_left, take)


def turns(
    receivers: Sequence[McastRxSocket],
    deadline: float | None,
    patience_left: Callable[[], float],
    take: Callable[[McastRxSocket, float], Taken],
) -> Iterator[None]:
    """Call `take` for each receiver that may have datagrams, with the seconds to wait for one, and yield after that.

    It ends at the deadline (monotonic seconds), once what waits in a buffer by then is taken. It yields when nothing
    comes for as long as `patience_left` returns. The output is flushed before each wait.
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
        taken = [take(each, patience) for each in busy]
        busy = [receiver for receiver, each in zip(busy, taken, strict=True) if not each.is_all]
        yield
        terminal.flush()
        if not busy and (pauses := [each.pause for each in taken if each.datagrams]):
            time.sleep(min(pauses))
        # There may be more if the last one is older, as far as the OS says.
        if end_ns is not None and not any(each.datagrams and (each.newest_ns or end_ns) < end_ns for each in taken):
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


def _readable(receivers: Iterable[McastRxSocket], timeout: float) -> list[McastRxSocket]:
    """Return the receivers that may have a datagram, after `timeout` seconds at the latest."""
    # A new one each time, and not one that keeps descriptors in the kernel: a receiver may have replaced a socket by
    # another one with the same descriptor.
    with getattr(selectors, "PollSelector", selectors.SelectSelector)() as selector:
        for receiver in receivers:
            for descriptor in receiver.filenos():
                selector.register(descriptor, selectors.EVENT_READ, receiver)
        return [key.data for key, _ in selector.select(timeout)]


def _is_from(datagram: Datagram, hosts: Collection[str]) -> bool:
    return datagram.sender[0].partition("%")[0] in hosts


def _arrival(datagram: Datagram, port: int) -> Arrival:
    moment = time.time_ns() if datagram.timestamp_ns is None else datagram.timestamp_ns
    stamped = read_stamp(datagram.data) if datagram.data.startswith(MAGIC) else None
    if stamped is None:
        return Arrival(datagram, port, moment, None, datagram.data)
    return Arrival(datagram, port, moment, *stamped)
