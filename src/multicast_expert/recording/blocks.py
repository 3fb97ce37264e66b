"""Lays what comes out as the blocks of a recording, and hands them to its files in chunks."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from time import monotonic, time_ns

from multicast_expert.core.datagram_buffer import DatagramBuffer, DatagramOrigin
from multicast_expert.recording.files import CHUNK, Files, Limits
from multicast_expert.wire import pcapng
from multicast_expert.wire.frame import Frame

_HEADS = 65536
"""How many senders are remembered."""
_STATISTICS = 140
"""Bytes that the counts of an interface take at most."""
_FLUSH_EVERY = 0.25
"""Seconds after which a chunk is written that is not full."""


class Blocks:
    """Turns datagrams and frames into blocks. One thread may use it.

    limits: when the next file begins. comment: for the head of each file.
    """

    def __init__(self, files: Files, limits: Limits, comment: str = "") -> None:
        self.files = files
        self.drops: Callable[[], dict[str | None, int]] = dict
        """Returns how many the kernel has dropped so far, by interface as far as it says so; None: several of them."""
        self.packets: int = 0
        """How many were taken."""
        self._every, self._size, self._comment = limits.every, limits.size, comment
        self._numbers: dict[tuple[str, int], int] = {}
        self._received: Counter[int] = Counter()
        self._heads: dict[tuple[DatagramOrigin, int], bytes] = {}
        self.dropped: dict[str | None, int] = {}
        """What `drops` returned last, by interface."""
        self._chunk = files.take()
        self._at = self._written = 0
        self._began = self._flushed = monotonic()
        self._begin_file()

    @property
    def kept(self) -> int:
        """How many of them were written; known once it is closed."""
        return self.packets - self.files.unwritten

    @property
    def is_due(self) -> bool:
        """Whether `tick` has something to do."""
        now = monotonic()
        return now >= self._flushed + _FLUSH_EVERY or (self._every is not None and now >= self._began + self._every)

    def tick(self) -> None:
        """Write what has waited long enough, and begin the next file when its time has come."""
        if self._every is not None and monotonic() >= self._began + self._every:
            self._next_file()
        self._flush()

    # Datagrams

    def take(self, buffer: DatagramBuffer, port: int, most: int | None = None) -> None:
        """Take the datagrams of a buffer, at most so many, and clear it. They were sent to this port."""
        row, end = 0, len(buffer) if most is None else min(len(buffer), most)
        heads = [self._head(origin, port) for origin in buffer.origins]
        columns = buffer.data, buffer.offsets, buffer.lengths, buffer.timestamps_ns, buffer.sources
        now = time_ns()
        while row < end:
            room, first = memoryview(self._chunk)[: self._room()], row
            self._at, row = pcapng.lay_datagrams_quickly(room, self._at, columns, heads, row, end, now)
            # Before the next file begins: each file counts what is in it.
            self._count(buffer, heads, first, row)
            if row < end:
                self._make_room()
        buffer.clear()

    def _head(self, origin: DatagramOrigin, port: int) -> bytes:
        head = self._heads.get((origin, port))
        if head is None:
            number = self._number(origin.interface_name or "", pcapng.RAW_IP)
            if len(self._heads) >= _HEADS:
                self._heads.clear()
            head = self._heads[origin, port] = pcapng.datagram_head(number, origin, port)
        return head

    def _count(self, buffer: DatagramBuffer, heads: list[bytes], first: int, end: int) -> None:
        self.packets += end - first
        numbers = [int.from_bytes(head[:4], "little") for head in heads]
        if len(set(numbers)) == 1:
            self._received[numbers[0]] += end - first
            return
        for source, count in Counter(buffer.sources[first:end]).items():
            self._received[numbers[source]] += count

    # Frames

    def take_frame(self, frame: Frame) -> None:
        """Take a frame of the wire; on a link without Ethernet header it is a packet of raw IP."""
        link_type = pcapng.ETHERNET if frame.ethernet else pcapng.RAW_IP
        number = self._number(frame.interface, link_type)
        head = frame.ethernet
        if frame.vlan is not None:
            head = head[:12] + b"\x81\0" + frame.vlan.to_bytes(2, "big") + head[12:]
        flags = (pcapng.OUTBOUND if frame.outgoing else pcapng.INBOUND) | pcapng.TO_GROUP
        time = time_ns() if frame.timestamp_ns is None else frame.timestamp_ns
        data = head + frame.packet
        self._add(pcapng.packet(number, time, data, max(len(data), len(head) + frame.length), flags=flags))
        self._received[number] += 1
        self.packets += 1

    # Chunks and files

    def _number(self, name: str, link_type: int) -> int:
        number = self._numbers.get((name, link_type))
        if number is None:
            number = len(self._numbers)
            block = pcapng.interface(name, link_type)
            if self._at + len(block) + _STATISTICS > self._room():
                self._make_room()
            self._add(block)
            self._numbers[name, link_type] = number
        return number

    def _room(self) -> int:
        """Return how much of the chunk may be filled: all, or what the size of a file leaves of it."""
        if self._size is None:
            return CHUNK
        return max(0, min(CHUNK, self._size - self._written - _STATISTICS * len(self._numbers)))

    def _make_room(self) -> None:
        """Have an empty chunk, in the next file if this one is as long as it may be."""
        if self._room() < CHUNK:
            self._next_file()
        else:
            self._flush()

    def _add(self, block: bytes) -> None:
        if self._at + len(block) > self._room():
            self._make_room()
        end = self._at + len(block)
        self._chunk[self._at : end] = block
        self._at = end

    def _flush(self) -> None:
        self._flushed = monotonic()
        if self._at:
            chunk, size = self._chunk, self._at
            self._written += size
            self._chunk, self._at = self.files.take(), 0
            self.files.give(chunk, size)

    def _next_file(self) -> None:
        self._end_file()
        self.files.begin_next()
        self._written = 0
        self._began = monotonic()
        self._begin_file()

    def _begin_file(self) -> None:
        head = pcapng.section("mcast record", self._comment)
        head += b"".join(pcapng.interface(*each) for each in self._numbers)
        self._chunk[: len(head)] = head
        self._at = len(head)
        self._received.clear()
        # At once: a file is readable from its first moment on.
        self._flush()

    def _end_file(self) -> None:
        drops = self.drops()
        # A count may be one too high, or missing, in the moment in which a receiver closes one of its sockets.
        fresh = {name: max(0, count - self.dropped.get(name, 0)) for name, count in drops.items()}
        self.dropped |= drops
        # tcpdump opens no file without an interface.
        blocks = b"" if self._numbers else pcapng.interface("", pcapng.RAW_IP)
        for (name, _), number in self._numbers.items():
            dropped, comment = fresh.get(name), ""
            if None in fresh and not number:
                dropped, comment = (dropped or 0) + fresh[None], "The drops are those of several interfaces together."
            blocks += pcapng.statistics(number, time_ns(), self._received[number], dropped, comment)
        if self._at + len(blocks) > CHUNK:
            self._flush()
        self._chunk[self._at : self._at + len(blocks)] = blocks
        self._at += len(blocks)
        self._flush()

    def close(self) -> None:
        """Write what waits, the statistics and the end of the file."""
        self._end_file()
        self.files.close()
