"""Read and write the stamp of `mcast send --stamp`, and count loss, order and latency by it. Pure: touches no OS.

`stamped` and `read_stamp` are the codec, `Streams` counts what a receiver sees. A stamp is the first 40 bytes of a
datagram, all integers in network byte order:

    offset  bytes
         0      8  8b 6d 63 61 73 74 0d 0a: no text in UTF-8 begins like this
         8      1  version of this format: 1
         9      1  0
        10      2  length of the datagram, this stamp included
        12      2  length of the payload behind the stamp; the rest of the datagram is padding
        14      2  0
        16      8  stream: a random number for each run of a sender
        24      8  number of the datagram in its stream, from 1
        32      8  time of sending, in nanoseconds since 1970 by the sender's clock
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

MAGIC = b"\x8bmcast\r\n"
VERSION = 1
_LAYOUT = Struct("!8sBxHHxxQQQ")
SIZE = _LAYOUT.size
"""Length of a stamp in bytes."""
MAX_STREAMS = 1_000
"""Streams that are followed. Any host can send any number of them, so each costs a bounded amount of memory."""
BLOCK = 1_024
"""Consecutive numbers whose arrival is remembered together, a bit for each."""
BLOCKS = 64
"""Blocks that are remembered of a stream: 8 KiB of bits, at most about 25 KB with Python's own share."""
WINDOW = BLOCK * (BLOCKS - 1)
"""A datagram that comes at most so many numbers late is counted exactly."""


class Stamp(NamedTuple):
    """The fields that a sender writes at the head of a datagram."""

    stream: int
    """0 to 2**64 - 1, the same for all datagrams of one run of the sender."""
    number: int
    """From 1, one more for each datagram."""
    sent_ns: int
    """Time of sending, in nanoseconds since 1970 by the sender's clock."""

    @property
    def stream_text(self) -> str:
        """The stream in 16 hexadecimal digits."""
        return f"{self.stream:016x}"


def stamped(stamp: Stamp, payload: bytes, size: int = 0) -> bytes:
    """Return the datagram: stamp, payload, and zeros up to `size` bytes; struct.error above 65535 bytes."""
    length = max(size, SIZE + len(payload))
    return (_LAYOUT.pack(MAGIC, VERSION, length, len(payload), *stamp) + payload).ljust(length, b"\0")


def read_stamp(datagram: bytes) -> tuple[Stamp, bytes] | None:
    """Return the stamp of a datagram and the payload behind it; None without a stamp or if the datagram was cut."""
    if len(datagram) < SIZE:
        return None
    magic, version, length, payload, *fields = _LAYOUT.unpack_from(datagram)
    if (magic, version, length) != (MAGIC, VERSION, len(datagram)) or SIZE + payload > length:
        return None
    return Stamp(*fields), datagram[SIZE : SIZE + payload]


class Stream:
    """Counters for the datagrams of one run of a sender that came in on one interface.

    Numbers below the first one that came and above the last one do not count as lost.
    """

    def __init__(self) -> None:
        self.received: int = 0
        """Datagrams that came, duplicates included."""
        self.duplicates: int = 0
        """Datagrams whose number had come before."""
        self.reordered: int = 0
        """Datagrams that came after one with a higher number, duplicates not included."""
        self.undecided: int = 0
        """Datagrams that came more than WINDOW numbers late, each either a duplicate or one that counts as lost."""
        self.least_latency_ns: int = 0
        self.most_latency_ns: int = 0
        self._total_latency_ns = 0
        self._lowest = self._highest = 0
        # For each place in the window the newest block of numbers that fell there, and the numbers of it that came.
        self._seen: dict[int, tuple[int, int]] = {}

    @property
    def expected(self) -> int:
        """How many numbers there are from the lowest to the highest one that came."""
        return self._highest - self._lowest + 1 if self.received else 0

    @property
    def lost(self) -> int:
        """How many numbers between the lowest and the highest one have not come."""
        return self.expected - (self.received - self.duplicates - self.undecided)

    @property
    def mean_latency_ns(self) -> int:
        """The average of all datagrams that came."""
        return self._total_latency_ns // self.received if self.received else 0

    def see(self, number: int, latency_ns: int) -> None:
        """Count a datagram with its number and its latency, which is negative where the clocks disagree."""
        came_before = self._mark(number)
        if self.received == 0:
            self._lowest = self._highest = number
            self.least_latency_ns = self.most_latency_ns = latency_ns
        elif came_before or number == self._lowest:
            self.duplicates += 1
        elif number > self._highest:
            self._highest = number
        elif came_before is None and number > self._lowest:
            self.undecided += 1
        else:
            self.reordered += 1
            self._lowest = min(self._lowest, number)
        self.received += 1
        self._total_latency_ns += latency_ns
        if latency_ns < self.least_latency_ns:
            self.least_latency_ns = latency_ns
        elif latency_ns > self.most_latency_ns:
            self.most_latency_ns = latency_ns

    def _mark(self, number: int) -> bool | None:
        """Remember a number and return whether it had come before; None where a newer block took its place."""
        block, offset = divmod(number, BLOCK)
        newest, came = self._seen.get(block % BLOCKS, (block, 0))
        if newest > block:
            return None
        if newest < block:
            came = 0
        self._seen[block % BLOCKS] = block, came | 1 << offset
        return bool(came >> offset & 1)


class StreamKey(NamedTuple):
    """A sender's run and the way that it comes in. Each way has losses of its own, and so counters of its own."""

    stream: int
    group: str | None
    port: int
    interface: str | None


class Streams:
    """All streams that a receiver has seen, up to MAX_STREAMS."""

    def __init__(self) -> None:
        self.streams: dict[StreamKey, Stream] = {}
        self.senders: dict[StreamKey, str] = {}
        """For each stream the address that its latest datagram came from."""
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
