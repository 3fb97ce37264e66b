"""Reads the packets of a capture file: pcapng or pcap, of either byte order. Pure: touches no OS.

What is read is checked and bounded: a damaged file gives its readable part, and then an error. A file whose last block
is cut off, as after a crash, ends before that block.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from struct import Struct, unpack_from
from typing import BinaryIO, NamedTuple

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.wire import pcapng

LONGEST = 16 << 20
"""Bytes: a longer block is damaged. libpcap has the same limit."""
INTERFACES = 4096
"""How many interfaces a section may have."""
_CHUNK = 1 << 18
_MARK_EVERY = 1 << 20
"""Bytes between two places that `seek` knows."""
_PCAP = {0xA1B2C3D4: 1000, 0xA1B23C4D: 1}
"""Magic numbers of pcap, with the nanoseconds of their unit of time."""
_BILLION = 1_000_000_000


class CapturedPacket(NamedTuple):
    """A packet of a capture file."""

    time_ns: int | None
    """When it was captured, in nanoseconds since 1970."""
    interface: str | None
    """The name of its interface."""
    link_type: int
    """LINKTYPE_… of libpcap: what kind of header it begins with."""
    data: bytes
    length: int
    """How many bytes it had on the wire; more than `data` if the capture cut it."""
    flags: int = 0
    """Those of pcapng: direction, kind of receiver."""
    comment: str = ""


class _Interface(NamedTuple):
    link_type: int
    name: str | None = None
    snap: int = 0
    units: tuple[int, int] = (1000, 1)
    """Nanoseconds of a unit of time, as a fraction."""
    offset_ns: int = 0


class _Mark(NamedTuple):
    """A place in the file that reading can begin at."""

    latest_ns: int
    """The latest time of all packets before it."""
    offset: int
    order: str
    interfaces: list[_Interface]


class _Input:
    """Bytes of a file, read in chunks, so that a length that is wrong takes no memory."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.bytes = b""
        self.first = self.at = 0
        """Where in `bytes` the latest packet was looked for, and where the next block begins."""
        self._start = 0

    @property
    def offset(self) -> int:
        """The place of the next block in the file."""
        return self._start + self.at

    def has(self, size: int) -> bool:
        """Return whether so many bytes follow, and have them in `bytes`."""
        while len(self.bytes) - self.at < size:
            # It is read and kept without a moment for a signal handler in between.
            (more,) = map(self._file.read, (_CHUNK,))
            if not more:
                return False
            done = self.first
            self.bytes, self.at, self.first = self.bytes[done:] + more, self.at - done, 0
            self._start += done
        return True

    @property
    def is_over(self) -> bool:
        """Whether nothing follows."""
        return not self.has(1)

    def go_to(self, offset: int) -> None:
        """Read from another place on."""
        self._file.seek(offset)
        self.bytes, self.first, self.at, self._start = b"", 0, 0, offset


class CaptureFile:
    """The packets of a capture file, in its order; iterating again goes on. `file` is open for reading bytes.

    Raises MulticastExpertError for what is no capture file, and where one is damaged.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._input = _Input(file)
        self._order = "<"
        self._interfaces: list[_Interface] = []
        self.latest_ns: int = -1
        """The latest time of all packets that were read, in nanoseconds since 1970; -1 before the first."""
        self._marks: list[_Mark] = []
        self._kept: CapturedPacket | None = None
        self.is_taken: bool = True
        """Whether the reader has the latest packet; those that call `again` set it."""
        self._before: tuple[str, list[_Interface], CapturedPacket | None] = "<", [], None
        self.is_cut: bool = False
        """Whether the end was reached, and the last block is incomplete."""
        self.dropped: dict[str | None, int] = {}
        """Packets that were lost while it was written, by interface, as far as it was read."""
        self._is_pcap = self._begin()
        self._mark()

    def _begin(self) -> bool:
        """Read the header of pcap, or see that of pcapng; return whether it is pcap."""
        source = self._input
        if source.has(24):
            for order in "<>":
                magic, _, _, _, _, _, link = unpack_from(order + "IHHiIII", source.bytes)
                if magic in _PCAP:
                    self._order, source.at = order, 24
                    self._interfaces = [_Interface(link & 0xFFFF, units=(_PCAP[magic], 1))]
                    return True
        if not source.has(12) or unpack_from("<I", source.bytes)[0] != pcapng.SECTION:
            raise MulticastExpertError("This is no capture file: neither pcapng nor pcap.")
        return False

    def __iter__(self) -> Iterator[CapturedPacket]:
        while (packet := self.read()) is not None:
            yield packet

    def read(self) -> CapturedPacket | None:
        """Return the next packet; None at the end."""
        source = self._input
        source.first, self._before, self.is_taken = source.at, (self._order, self._interfaces, self._kept), False
        kept, self._kept = self._kept, None
        if kept is not None:
            return kept
        # What was cut may have been written since.
        self.is_cut = False
        while True:
            if self._input.offset >= self._marks[-1].offset + _MARK_EVERY:
                self._mark()
            if self._input.is_over:
                return None
            packet = self._read_pcap() if self._is_pcap else self._read_block()
            if packet is not None:
                if packet.time_ns is not None and packet.time_ns > self.latest_ns:
                    self.latest_ns = packet.time_ns
                return packet
            if self.is_cut:
                return None
            # What held no packet is not read again, nor kept.
            source.first, self._before = source.at, (self._order, self._interfaces, None)

    def again(self) -> None:
        """Read the latest packet once more, unless it is taken: an exception came while it was read or looked at."""
        if not self.is_taken:
            self._input.at = self._input.first
            self._order, self._interfaces, self._kept = self._before

    def seek(self, time_ns: int) -> bool:
        """Go to the first packet of this time or later; return whether there is one.

        It reads what it has not read before, and remembers a place each megabyte.
        """
        place = max(0, bisect_left(self._marks, (time_ns,)) - 1)
        mark = self._marks[place]
        self._input.go_to(mark.offset)
        self._order, self._interfaces = mark.order, mark.interfaces
        self.latest_ns, self._kept, self.is_cut = mark.latest_ns, None, False
        # By no generator: an exception in the moment in which it ends is lost.
        while (packet := self.read()) is not None:
            if (packet.time_ns or 0) >= time_ns:
                self._kept = packet
                return True
        return False

    @property
    def offset(self) -> int:
        """How many bytes of the file were read."""
        return self._input.offset

    def _mark(self) -> None:
        self._marks.append(_Mark(self.latest_ns, self._input.offset, self._order, self._interfaces))

    def _damage(self, what: str) -> MulticastExpertError:
        return MulticastExpertError(f"The capture file is damaged at byte {self._input.offset:,}: {what}.")

    # pcap

    def _read_pcap(self) -> CapturedPacket | None:
        source = self._input
        if not source.has(16):
            self.is_cut = True
            return None
        seconds, fraction, kept, length = unpack_from(self._order + "IIII", source.bytes, source.at)
        if kept > LONGEST:
            raise self._damage(f"a packet of {kept:,} bytes")
        if not source.has(16 + kept):
            self.is_cut = True
            return None
        start = source.at + 16
        source.at = start + kept
        (only,) = self._interfaces
        time = seconds * _BILLION + fraction * only.units[0]
        return CapturedPacket(time, None, only.link_type, source.bytes[start : source.at], length)

    # pcapng

    def _read_block(self) -> CapturedPacket | None:
        source = self._input
        if not source.has(12):
            self.is_cut = True
            return None
        kind: int = unpack_from(self._order + "I", source.bytes, source.at)[0]
        if kind == pcapng.SECTION:
            self._order = self._order_of_section()
        length: int = unpack_from(self._order + "I", source.bytes, source.at + 4)[0]
        if length < 12 or length % 4 or length > LONGEST:
            raise self._damage(f"a block of {length:,} bytes")
        if not source.has(length):
            self.is_cut = True
            return None
        start, end = source.at + 8, source.at + length - 4
        if unpack_from(self._order + "I", source.bytes, end)[0] != length:
            raise self._damage("the two lengths of a block differ")
        packet = None
        if kind in _LEAST:
            if end - start < _LEAST[kind]:
                raise self._damage("a block that is too short")
            packet = self._take(kind, start, end)
        source.at += length
        return packet

    def _order_of_section(self) -> str:
        (magic,) = unpack_from("<I", self._input.bytes, self._input.at + 8)
        if magic == pcapng.BYTE_ORDER_MAGIC:
            return "<"
        if magic == int.from_bytes(pcapng.BYTE_ORDER_MAGIC.to_bytes(4, "little"), "big"):
            return ">"
        raise self._damage("a section without byte order")

    def _take(self, kind: int, start: int, end: int) -> CapturedPacket | None:
        """Take a block whose body stands from `start` to `end`; return the packet that it holds."""
        order, data = self._order, self._input.bytes
        if kind == pcapng.SECTION:
            (major,) = unpack_from(order + "H", data, start + 4)
            if major != 1:
                raise self._damage(f"version {major} of pcapng, which is not known")
            self._interfaces = []
        elif kind == pcapng.INTERFACE:
            if len(self._interfaces) >= INTERFACES:
                raise self._damage(f"more than {INTERFACES:,} interfaces")
            self._interfaces = [*self._interfaces, self._described(start, end)]
        elif kind == pcapng.STATISTICS:
            self._count_drops(start, end)
        elif kind == pcapng.SIMPLE_PACKET:
            (length,) = unpack_from(order + "I", data, start)
            only = self._interface(0)
            kept = min(length, only.snap or length, end - start - 4)
            return CapturedPacket(None, only.name, only.link_type, data[start + 4 : start + 4 + kept], length)
        else:
            layout = _PACKET[order] if kind == pcapng.PACKET else _OLD_PACKET[order]
            number, high, low, kept, length = layout.unpack_from(data, start)
            if kept > end - start - 20:
                raise self._damage("a packet that is longer than its block")
            its = self._interface(number)
            options = start + 20 + kept + -kept % 4
            content = data[start + 20 : start + 20 + kept]
            more = self._marked(options, end) if options < end else (0, "")
            return CapturedPacket(_time(high, low, its), its.name, its.link_type, content, length, *more)
        return None

    def _interface(self, number: int) -> _Interface:
        if number >= len(self._interfaces):
            raise self._damage(f"a packet of interface {number}, which is not described")
        return self._interfaces[number]

    def _options(self, at: int, end: int) -> Iterator[tuple[int, bytes]]:
        while at + 4 <= end:
            code, size = unpack_from(self._order + "HH", self._input.bytes, at)
            if code == 0 or at + 4 + size > end:
                return
            yield code, self._input.bytes[at + 4 : at + 4 + size]
            at += 4 + size + -size % 4

    def _described(self, start: int, end: int) -> _Interface:
        link_type, snap = unpack_from(self._order + "H2xI", self._input.bytes, start)
        found = _Interface(link_type, snap=snap)
        for code, value in self._options(start + 8, end):
            if code == pcapng.NAME:
                found = found._replace(name=value.decode("utf-8", "replace"))
            elif code == pcapng.RESOLUTION and value:
                power = value[0] & 0x7F
                found = found._replace(units=(_BILLION, 2**power if value[0] & 0x80 else 10**power))
            elif code == pcapng.TIME_OFFSET and len(value) == 8:
                found = found._replace(offset_ns=unpack_from(self._order + "q", value)[0] * _BILLION)
        return found

    def _marked(self, start: int, end: int) -> tuple[int, str]:
        """Return the flags and the comments of a packet."""
        flags, comments = 0, []
        for code, value in self._options(start, end):
            if code == pcapng.FLAGS and len(value) == 4:
                (flags,) = unpack_from(self._order + "I", value)
            elif code == pcapng.COMMENT:
                comments.append(value.decode("utf-8", "replace"))
        return flags, "\n".join(comments)

    def _count_drops(self, start: int, end: int) -> None:
        (number,) = unpack_from(self._order + "I", self._input.bytes, start)
        name = self._interface(number).name
        for code, value in self._options(start + 12, end):
            if code in (pcapng.DROPPED, pcapng.DROPPED_BY_SYSTEM) and len(value) == 8:
                (count,) = unpack_from(self._order + "Q", value)
                self.dropped[name] = max(count, self.dropped.get(name, 0))


_LEAST = {
    pcapng.SECTION: 16, pcapng.INTERFACE: 8, pcapng.OLD_PACKET: 20, pcapng.SIMPLE_PACKET: 4, pcapng.STATISTICS: 12,
    pcapng.PACKET: 20,
}  # fmt: skip
"""The blocks that are read, and how many bytes their bodies have at least."""
_PACKET = {order: Struct(order + "IIIII") for order in "<>"}
_OLD_PACKET = {order: Struct(order + "H2xIIII") for order in "<>"}


def _time(high: int, low: int, interface: _Interface) -> int | None:
    """Return nanoseconds since 1970; None where they fit into no clock."""
    nanoseconds, parts = interface.units
    time = (high << 32 | low) * nanoseconds // parts + interface.offset_ns
    return time if 0 <= time < 1 << 63 else None
