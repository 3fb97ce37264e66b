"""Reads the services of an MPEG transport stream from its tables, over several datagrams. Pure: touches no OS.

ISO/IEC 13818-1, 2.4.4 (PAT, PMT); ETSI EN 300 468, 5.2.3 and 6.2.33 (SDT, service descriptor) and annex A (text).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from struct import unpack_from

SYNC, PACKET = 0x47, 188
_SYNC_BYTE = bytes([SYNC])
_PAT, _SDT = 0x0000, 0x0011
_PAT_TABLE, _PMT_TABLE, _SDT_TABLE = 0x00, 0x02, 0x42
_LONGEST_SECTION = 1024
MOST_PROGRAMS = 64
"""How many programs are followed; a stream for a transponder has some twenty."""
_MOST_STREAMS = 32
_SERVICE_DESCRIPTOR = 0x48
_LONGEST_NAME = 40
_KINDS = {
    0x01: "MPEG-1 video", 0x02: "MPEG-2 video", 0x03: "MPEG audio", 0x04: "MPEG audio", 0x0F: "AAC",
    0x10: "MPEG-4 video", 0x11: "AAC", 0x1B: "H.264", 0x20: "MVC", 0x21: "JPEG 2000", 0x24: "HEVC", 0x33: "VVC",
    0x81: "AC-3", 0x87: "E-AC-3",
}  # fmt: skip
_PRIVATE = 0x06
_DESCRIBED = {0x6A: "AC-3", 0x7A: "E-AC-3", 0x56: "teletext", 0x59: "subtitles", 0x7C: "AAC"}
# EN 300 468, A.2: a first byte below 0x20 selects the character table.
_TABLES = {
    **{number: f"iso8859-{number + 4}" for number in (*range(1, 8), *range(9, 12))},
    0x11: "utf-16-be", 0x13: "gb2312", 0x14: "utf-16-be", 0x15: "utf-8",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Service:
    """A programme of a transport stream."""

    number: int
    name: str = ""
    kinds: tuple[str, ...] = ()
    """Of its elementary streams, such as `H.264` and `AAC`."""


@dataclass(slots=True)
class TransportStream:
    """Collects the tables of one stream."""

    _maps: dict[int, int] = field(default_factory=dict)
    """The program of each PID that carries a PMT."""
    _names: dict[int, str] = field(default_factory=dict)
    _kinds: dict[int, tuple[str, ...]] = field(default_factory=dict)
    _sections: dict[int, bytearray] = field(default_factory=dict)
    """Unfinished sections by PID; of PAT, SDT and the PMTs only."""
    strays: int = 0
    """Datagrams that do not begin with a packet, as those of a transport stream do: RFC 2250, 2."""

    @property
    def is_complete(self) -> bool:
        """Whether all programs have a name and a list of streams."""
        programs = set(self._maps.values())
        return bool(programs) and programs <= self._kinds.keys() and programs <= self._names.keys()

    @property
    def services(self) -> tuple[Service, ...]:
        """The services known so far, by number."""
        numbers = sorted({*self._maps.values(), *self._names})
        return tuple(Service(each, self._names.get(each, ""), self._kinds.get(each, ())) for each in numbers)

    def take(self, payload: bytes) -> None:
        """Take note of the packets of a datagram."""
        if payload[:1] != _SYNC_BYTE:
            self.strays += 1
            return
        for start in range(0, len(payload) - PACKET + 1, PACKET):
            pid = (payload[start + 1] & 0x1F) << 8 | payload[start + 2]
            if (pid in (_PAT, _SDT) or pid in self._maps) and payload[start] == SYNC:
                self._take_packet(pid, payload[start : start + PACKET])

    def _take_packet(self, pid: int, packet: bytes) -> None:
        if packet[1] & 0x80 or not packet[3] & 0x10 or packet[3] & 0xC0:  # damaged, without payload, or scrambled
            return
        start = 5 + packet[4] if packet[3] & 0x20 else 4
        if start >= PACKET:
            return
        if packet[1] & 0x40:  # a section begins behind the pointer
            first = start + 1 + packet[start]
            if pid in self._sections:
                self._sections[pid] += packet[start + 1 : first]
                self._finish(pid)
            self._sections[pid] = bytearray(packet[first:])
        elif pid in self._sections:
            self._sections[pid] += packet[start:]
        self._finish(pid)

    def _finish(self, pid: int) -> None:
        """Read the sections that are whole, and keep the beginning of the next one."""
        waiting = self._sections.pop(pid, bytearray())
        while len(waiting) >= 3 and waiting[0] != 0xFF:
            end = 3 + ((waiting[1] & 0x0F) << 8 | waiting[2])
            if end > _LONGEST_SECTION:
                return
            if len(waiting) < end:
                self._sections[pid] = waiting
                return
            section = bytes(waiting[:end])
            if end >= 12 and not _crc(section):
                self._read(pid, section)
            waiting = waiting[end:]

    def _read(self, pid: int, section: bytes) -> None:
        table, number, is_current = section[0], unpack_from("!H", section, 3)[0], section[5] & 1
        if not is_current:
            return
        if pid == _PAT and table == _PAT_TABLE:
            for at in range(8, len(section) - 7, 4):
                program, place = unpack_from("!HH", section, at)
                if program and len(self._maps) < MOST_PROGRAMS:
                    self._maps[place & 0x1FFF] = program
        elif pid == _SDT and table == _SDT_TABLE:
            for service, name in _names(section):
                if len(self._names) < MOST_PROGRAMS or service in self._names:
                    self._names[service] = name
        elif table == _PMT_TABLE and self._maps.get(pid) == number:
            self._kinds[number] = tuple(_kinds(section))


def _names(section: bytes) -> Iterator[tuple[int, str]]:
    at, end = 11, len(section) - 4
    while at + 5 <= end:
        service, length = unpack_from("!H1xH", section, at)
        at, behind = at + 5, at + 5 + (length & 0x0FFF)
        for tag, descriptor in _descriptors(section[at : min(behind, end)]):
            if tag == _SERVICE_DESCRIPTOR and len(descriptor) >= 3:
                provider = descriptor[1]
                name = descriptor[2 + provider :]
                yield service, _text(name[1 : 1 + name[0]]) if name else ""
        at = behind


def _kinds(section: bytes) -> Iterator[str]:
    at, end = 12 + (unpack_from("!H", section, 10)[0] & 0x0FFF), len(section) - 4
    for _ in range(_MOST_STREAMS):
        if at + 5 > end:
            return
        kind, length = unpack_from("!B2xH", section, at)
        at, behind = at + 5, at + 5 + (length & 0x0FFF)
        tags = [tag for tag, _ in _descriptors(section[at : min(behind, end)])]
        described = next((_DESCRIBED[tag] for tag in tags if tag in _DESCRIBED), None) if kind == _PRIVATE else None
        yield described or _KINDS.get(kind, f"type 0x{kind:02x}")
        at = behind


def _descriptors(data: bytes) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 2 <= len(data):
        yield data[at], data[at + 2 : at + 2 + data[at + 1]]
        at += 2 + data[at + 1]


def _text(raw: bytes) -> str:
    table = "iso8859-1"  # near the default table, ISO 6937, whose plain letters are the same
    if raw and raw[0] < 0x20:
        skipped = 3 if raw[0] == 0x10 else 2 if raw[0] == 0x1F else 1
        table = f"iso8859-{raw[2] or 1}" if raw[0] == 0x10 and len(raw) > 2 else _TABLES.get(raw[0], table)
        raw = raw[skipped:]
    try:
        return raw.decode(table, "replace")[:_LONGEST_NAME]
    except LookupError:  # a table that does not exist
        return raw.decode("latin-1")[:_LONGEST_NAME]


def _crc(data: bytes) -> int:
    """Return the CRC-32 of ISO/IEC 13818-1, annex A; 0 over a section with its own checksum."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = (crc << 8 & 0xFFFFFFFF) ^ _CRC_TABLE[crc >> 24 ^ byte]
    return crc


def _crc_entry(byte: int) -> int:
    crc = byte << 24
    for _ in range(8):
        crc = (crc << 1 ^ (0x04C11DB7 if crc & 0x80000000 else 0)) & 0xFFFFFFFF
    return crc


_CRC_TABLE = tuple(map(_crc_entry, range(256)))
