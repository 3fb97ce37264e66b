"""Finds the UDP datagrams in packets of a capture file, whatever link they were captured on. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from struct import pack, unpack_from
from typing import NamedTuple

from multicast_expert.core.addresses import address_text
from multicast_expert.core.datagram import MAX_DATAGRAM
from multicast_expert.wire.capture_file import CapturedPacket
from multicast_expert.wire.frames import FRAGMENT_HEADER, HOP_BY_HOP
from multicast_expert.wire.udp_place import udp_place

_IPV4, _IPV6, _VLANS = 0x0800, 0x86DD, (0x8100, 0x88A8, 0x9100)
_PROTOCOL_AT = {1: (12, 14), 113: (14, 16), 276: (0, 20)}
"""Links with a protocol number: where it stands, and where the packet begins. Ethernet, Linux cooked v1 and v2."""
_BARE = {12: 0, 14: 0, 101: 0, 228: 0, 229: 0, 0: 4, 108: 4}
"""Links whose packets are IP behind so many bytes: raw IP, and the loopback interfaces of BSD."""
_ROUTING, _DESTINATION_OPTIONS = 43, 60
_MORE, _PLACE = 0x2000, 0x1FFF
_PENDING, _PIECES = 256, 4096
"""How many fragmented packets wait for their rest, and how many fragments of them."""
_APART_NS = 2_000_000_000
"""Nanoseconds from a packet's first fragment that came: a later one is of another packet with the same identity."""


class CapturedDatagram(NamedTuple):
    """A UDP datagram of a capture file."""

    time_ns: int | None
    interface: str | None
    source: str
    source_port: int
    destination: str
    port: int
    hop_limit: int
    traffic_class: int
    """DSCP * 4 + ECN."""
    data: bytes
    truncated: bool
    """Whether the capture cut its end off."""
    is_to_group: bool


def ip_packet(link_type: int, data: bytes) -> bytes | None:
    """Return the IP packet in a frame; None if it holds none, or if the type of link is not known."""
    start = _BARE.get(link_type)
    if start is None:
        if link_type not in _PROTOCOL_AT:
            return None
        place, start = _PROTOCOL_AT[link_type]
        if len(data) < start:
            return None
        protocol = data[place] << 8 | data[place + 1]
        while protocol in _VLANS and len(data) >= start + 4:
            protocol, start = data[start + 2] << 8 | data[start + 3], start + 4
        if protocol not in (_IPV4, _IPV6):
            return None
    packet = data[start:]
    return packet if packet and packet[0] >> 4 in (4, 6) else None


def datagrams(packets: Iterable[CapturedPacket]) -> Iterator[CapturedDatagram]:
    """Yield the datagrams in packets, each when its last fragment has come. Everything else is left out."""
    fragments = Fragments()
    for captured in packets:
        found = datagram_in(captured, fragments)
        if found is not None:
            yield found


def datagram_in(captured: CapturedPacket, fragments: Fragments) -> CapturedDatagram | None:
    """Return the datagram in a packet, or that which it completes; None where there is none."""
    packet = ip_packet(captured.link_type, captured.data)
    whole = None if packet is None else fragments.whole(packet, captured.time_ns, captured.interface)
    return None if whole is None else _datagram(captured, whole)


def _datagram(captured: CapturedPacket, packet: bytes) -> CapturedDatagram | None:
    place = udp_place(packet)
    if place is None:
        return None
    # What follows the packet fills a short frame up.
    end = _length(packet)
    source_port, port, size = unpack_from("!HHH", packet, place.start)
    # Without a length it is a jumbogram, or what a network card was to cut into datagrams.
    data_end = place.start + size if size else end
    is_v4 = packet[0] >> 4 == 4
    if (size and (size < 8 or data_end > end)) or data_end - place.start - 8 > MAX_DATAGRAM:
        return None
    return CapturedDatagram(
        captured.time_ns,
        captured.interface,
        address_text(place.source),
        source_port,
        address_text(place.group),
        port,
        place.hop_limit,
        place.traffic_class,
        packet[place.start + 8 : data_end],
        data_end > len(packet),
        place.group[0] >> 4 == 0xE if is_v4 else place.group[0] == 0xFF,
    )


def _length(packet: bytes) -> int:
    """Return the length that the IP header names, or that of the packet where it names none."""
    version, size = packet[0] >> 4, unpack_from("!H", packet, 2 if packet[0] >> 4 == 4 else 4)[0]
    return (size + 40 * (version == 6)) if size else len(packet)


class _Pieces:
    """The fragments of one packet that have come."""

    __slots__ = ("data", "first", "size", "there", "time_ns")

    def __init__(self, time_ns: int | None) -> None:
        self.time_ns = time_ns
        """When the first that came was captured."""
        self.data: dict[int, bytes] = {}
        self.there = 0
        """How many bytes they have."""
        self.first: bytes | None = None
        """The header of the first one, without its fragmentation."""
        self.size: int | None = None
        """The length of all together, once the last one is there."""

    def are_of_another(self, time_ns: int | None) -> bool:
        """Return whether a fragment of that time belongs to another packet."""
        return None not in (time_ns, self.time_ns) and abs((time_ns or 0) - (self.time_ns or 0)) > _APART_NS

    def joined(self) -> bytes | None:
        if self.first is None or self.size is None or self.there < self.size:
            return None
        content, end = [], 0
        for start, data in sorted(self.data.items()):
            if start != end:
                return None
            content.append(data)
            end += len(data)
        return b"".join(content) if end == self.size else None


class Fragments:
    """Joins fragments of IP packets (RFC 791, RFC 8200). The oldest of too many is forgotten."""

    def __init__(self) -> None:
        self._pending: dict[tuple[str | None, bytes], _Pieces] = {}
        self._count = 0
        self._time_ns: int | None = None
        self._interface: str | None = None

    def whole(self, packet: bytes, time_ns: int | None = None, interface: str | None = None) -> bytes | None:
        """Return a packet that is no fragment, or the whole that its fragment completes; None for other fragments.

        Those that were captured on several interfaces, or at quite different times, are not of one packet.
        """
        if packet[0] >> 4 == 4:
            if len(packet) < 20 or not unpack_from("!H", packet, 6)[0] & (_MORE | _PLACE):
                return packet
            self._time_ns, self._interface = time_ns, interface
            return self._add_v4(packet)
        start = _fragment_header(packet)
        if start is None:
            return packet
        self._time_ns, self._interface = time_ns, interface
        return self._add_v6(packet, start)

    def _add_v4(self, packet: bytes) -> bytes | None:
        start = 4 * (packet[0] & 0x0F)
        (word,) = unpack_from("!H", packet, 6)
        size = unpack_from("!H", packet, 2)[0]
        if not 20 <= start <= size <= len(packet):
            return None
        key = packet[4:6] + packet[9:10] + packet[12:20]
        head = packet[:start]
        found = self._add(key, 8 * (word & _PLACE), bool(word & _MORE), packet[start:size], head)
        if found is None:
            return None
        head, data = found
        length = len(head) + len(data)
        return head[:2] + pack("!H", length & 0xFFFF if length <= 0xFFFF else 0) + head[4:6] + b"\0\0" + head[8:] + data

    def _add_v6(self, packet: bytes, start: int) -> bytes | None:
        end = 40 + unpack_from("!H", packet, 4)[0]
        if not start + 8 <= end <= len(packet):
            return None
        word, identity = unpack_from("!HI", packet, start + 2)
        key = pack("!I", identity) + packet[8:40]
        head = packet[:6] + packet[start : start + 1] + packet[7:40]
        found = self._add(key, word & 0xFFF8, bool(word & 1), packet[start + 8 : end], head)
        if found is None:
            return None
        head, data = found
        return head[:4] + pack("!H", len(data) if len(data) <= 0xFFFF else 0) + head[6:] + data

    def _add(self, identity: bytes, start: int, more: bool, data: bytes, head: bytes) -> tuple[bytes, bytes] | None:
        """Keep a fragment; return header and content of the packet that it completes."""
        if start + len(data) > 0xFFFF:
            return None
        key, now = (self._interface, identity), self._time_ns
        pieces = self._pending.get(key)
        if pieces is not None and pieces.are_of_another(now):
            self._forget(key)
            pieces = None
        if pieces is None:
            pieces = self._pending[key] = _Pieces(now)
        self._count += start not in pieces.data
        pieces.there += len(data) - len(pieces.data.get(start, b""))
        pieces.data[start] = data
        if start == 0:
            pieces.first = head
        if not more:
            pieces.size = start + len(data)
        content = pieces.joined()
        if content is not None and pieces.first is not None:
            self._forget(key)
            return pieces.first, content
        while len(self._pending) > _PENDING or self._count > _PIECES:
            self._forget(next(iter(self._pending)))
        return None

    def _forget(self, key: tuple[str | None, bytes]) -> None:
        self._count -= len(self._pending.pop(key).data)


def _fragment_header(packet: bytes) -> int | None:
    """Return where the fragment header of an IPv6 packet stands; None without one."""
    if len(packet) < 48:
        return None
    following, start = packet[6], 40
    while following in (HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS) and len(packet) >= start + 8:
        following, start = packet[start], start + 8 * (packet[start + 1] + 1)
    return start if following == FRAGMENT_HEADER and len(packet) >= start + 8 and start < 1 << 11 else None
