"""The stamp of `mcast send --stamp`, and what a receiver learns from it: loss, order, latency. Pure: touches no OS.

A stamp is the first 40 bytes of a datagram, all integers in network byte order:

    offset  bytes
         0      8  8b 6d 63 61 73 74 0d 0a: no text in UTF-8 begins like this
         8      1  version of this format: 1
         9      1  0
        10      2  length of the datagram, this stamp included
        12      2  length of the payload behind the stamp; what follows it is padding
        14      2  0
        16      8  stream: a random number for each run of a sender
        24      8  number of the datagram in its stream, from 1
        32      8  when it was sent, in nanoseconds since 1970 by the sender's clock
"""

from __future__ import annotations

from bisect import bisect_right
from struct import Struct
from typing import NamedTuple

MAGIC = b"\x8bmcast\r\n"
VERSION = 1
_LAYOUT = Struct("!8sBxHHxxQQQ")
SIZE = _LAYOUT.size
"""Bytes that a stamp takes."""
MAX_GAPS = 10_000
"""How many runs of missing numbers are remembered for a stream."""
MAX_STREAMS = 1_000
"""How many streams are followed; anybody may send any number of them."""


class Stamp(NamedTuple):
    """What a sender has written at the head of a datagram."""

    stream: int
    """0 to 2**64 - 1: the same for all datagrams of one run of the sender."""
    number: int
    """From 1, one more for each datagram."""
    sent_ns: int
    """When it was sent, in nanoseconds since 1970, by the sender's clock."""

    @property
    def stream_text(self) -> str:
        """The stream in 16 hexadecimal digits."""
        return f"{self.stream:016x}"


def stamped(stamp: Stamp, payload: bytes, size: int = 0) -> bytes:
    """Return the datagram: stamp, payload, and zeros up to `size` bytes. struct.error: more than 65535 bytes."""
    length = max(size, SIZE + len(payload))
    return (_LAYOUT.pack(MAGIC, VERSION, length, len(payload), *stamp) + payload).ljust(length, b"\0")


def read_stamp(datagram: bytes) -> tuple[Stamp, bytes] | None:
    """Return the stamp of a datagram and the payload behind it; None if it has none, or was cut."""
    if len(datagram) < SIZE:
        return None
    magic, version, length, payload, *fields = _LAYOUT.unpack_from(datagram)
    if (magic, version, length) != (MAGIC, VERSION, len(datagram)) or SIZE + payload > length:
        return None
    return Stamp(*fields), datagram[SIZE : SIZE + payload]


class Gap(NamedTuple):
    """A run of numbers that have not come."""

    first: int
    last: int


class Stream:
    """The datagrams of one run of a sender, as they come in on one interface.

    What was sent before the first and after the last one that came is not known to be missing.
    """

    def __init__(self) -> None:
        self.received: int = 0
        """All that came, duplicates included."""
        self.duplicates: int = 0
        """Those whose number had come before."""
        self.reordered: int = 0
        """Those that came after one with a higher number."""
        self.least_latency_ns: int = 0
        self.most_latency_ns: int = 0
        self._total_latency_ns = 0
        self._lowest = self._highest = 0
        self._gaps: list[Gap] = []
        # The end of the gaps that had to be forgotten.
        self._forgotten = 0
        self.lost: int = 0
        """How many of the numbers between the lowest and the highest one have not come."""

    @property
    def expected(self) -> int:
        """How many numbers there are from the lowest to the highest one that came."""
        return self._highest - self._lowest + 1 if self.received else 0

    @property
    def mean_latency_ns(self) -> int:
        """The average of all that came."""
        return self._total_latency_ns // self.received if self.received else 0

    def see(self, number: int, latency_ns: int) -> None:
        """Count a datagram with its number and the time that it took, which is negative where clocks disagree."""
        first = self.received == 0
        self.received += 1
        self._total_latency_ns += latency_ns
        self.least_latency_ns = latency_ns if first else min(self.least_latency_ns, latency_ns)
        self.most_latency_ns = latency_ns if first else max(self.most_latency_ns, latency_ns)
        if first:
            self._lowest = self._highest = number
        elif number > self._highest:
            self._miss(len(self._gaps), self._highest + 1, number - 1)
            self._highest = number
        elif number < self._lowest:
            self.reordered += 1
            self._miss(0, number + 1, self._lowest - 1)
            self._lowest = number
        else:
            self._see_late(number)

    def _miss(self, place: int, first: int, last: int) -> None:
        if first > last:
            return
        self.lost += last - first + 1
        self._gaps.insert(place, Gap(first, last))
        if len(self._gaps) > MAX_GAPS:
            self._forgotten = max(self._forgotten, self._gaps.pop(0).last)

    def _see_late(self, number: int) -> None:
        """Count a number between the lowest and the highest one: it fills a gap, or has come before."""
        place = bisect_right(self._gaps, number, key=lambda gap: gap.first) - 1
        if place < 0 or self._gaps[place].last < number:
            # Below what was forgotten, whether it fills a gap cannot be told; lost stays lost.
            if number > self._forgotten:
                self.duplicates += 1
            else:
                self.reordered += 1
            return
        gap = self._gaps[place]
        self.reordered += 1
        self.lost -= 1
        halves = (Gap(gap.first, number - 1), Gap(number + 1, gap.last))
        self._gaps[place : place + 1] = [half for half in halves if half.first <= half.last]


class StreamKey(NamedTuple):
    """What is counted by itself: a sender's run, on each way that it comes in, because each has losses of its own."""

    stream: int
    group: str | None
    port: int
    interface: str | None


class Streams:
    """All streams that a receiver has seen."""

    def __init__(self) -> None:
        self.streams: dict[StreamKey, Stream] = {}
        self.senders: dict[StreamKey, str] = {}
        """The address that the latest datagram of each came from."""
        self.unfollowed: int = 0
        """Stamped datagrams of streams beyond MAX_STREAMS."""

    def see(self, key: StreamKey, sender: str, number: int, latency_ns: int) -> None:
        """Count a stamped datagram."""
        stream = self.streams.get(key)
        if stream is None:
            if len(self.streams) >= MAX_STREAMS:
                self.unfollowed += 1
                return
            stream = self.streams[key] = Stream()
        stream.see(number, latency_ns)
        self.senders[key] = sender
