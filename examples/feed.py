"""A feed handler: two groups carry the same numbered messages, and the first copy of each counts (A/B arbitration).

    python feed.py 239.1.1.1 239.1.1.2 5000             from the network
    python feed.py 239.1.1.1 239.1.1.2 5000 day.pcapng  from a recording of it

A message is a sequence number of 8 bytes, and its content.
"""

import socket
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from multicast_expert import Datagram, McastRxSocket
from multicast_expert.recording import RecordedReceiver

PATIENCE_NS = 20_000_000  # how long a missing message may still come by the other group


class Message(NamedTuple):
    """A message of the feed, in its turn."""

    number: int
    content: bytes


class Gap(NamedTuple):
    """Messages that came by neither group: `first` to `last`."""

    first: int
    last: int


class Arbiter:
    """Hands out each message once and in order, and a Gap where some are missing for too long."""

    def __init__(self) -> None:
        self.first: dict[str | None, int] = {}  # how many messages each group brought first
        self._next: int | None = None
        self._waiting: dict[int, tuple[int, bytes]] = {}  # messages that came before their turn: when, and what

    def take(self, datagram: Datagram) -> Iterator[Message | Gap]:
        """Take a datagram of either group; yield what can be handed out now."""
        number, now = int.from_bytes(datagram.data[:8], "big"), datagram.timestamp_ns or 0
        self._next = number if self._next is None else self._next
        if number >= self._next and number not in self._waiting:
            self.first[datagram.group] = self.first.get(datagram.group, 0) + 1
            self._waiting[number] = now, datagram.data[8:]
        yield from self.ready(now)

    def ready(self, now: float) -> Iterator[Message | Gap]:
        """Yield what waits for nothing any more at this time."""
        while self._waiting:
            earliest = min(self._waiting)
            if self._next is not None and self._next < earliest:
                if now - self._waiting[earliest][0] < PATIENCE_NS:
                    return
                yield Gap(self._next, earliest - 1)
            self._next = earliest + 1
            yield Message(earliest, self._waiting.pop(earliest)[1])


def follow(datagrams: Iterable[Datagram], arbiter: Arbiter) -> Iterator[Message | Gap]:
    """Yield the messages of a feed, in order; those that still wait at its end, too."""
    for datagram in datagrams:
        yield from arbiter.take(datagram)
    yield from arbiter.ready(float("inf"))


if __name__ == "__main__":
    (*groups, port), file, arbiter = sys.argv[1:4], sys.argv[4:], Arbiter()
    with (
        RecordedReceiver(file[0], groups, int(port))
        if file
        else McastRxSocket(socket.AF_INET, groups, int(port), timestamps=True)
    ) as receiver:
        for each in follow(receiver, arbiter):
            print(type(each).__name__, *each)
    print(f"first by group: {arbiter.first}")
