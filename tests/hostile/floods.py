"""Floods of invented groups, sources, hosts and VLANs, as any host on a link can send them."""

from collections.abc import Callable
from struct import pack
from typing import Any

from multicast_expert.observe.look import Look
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.frames import IGMP, internet_checksum, ipv4_packet

RECORDS = 180
"""How many groups or sources one report invents: as many as a packet of 1,500 bytes has room for."""


def stream_packet(number: int) -> bytes:
    """A datagram of RTP from a source to a group that no other number has."""
    return b"\x45" + bytes(8) + b"\x11" + bytes(2) + pack("!III", number, 0xE0000000 | number, 0x9C401388) + pack(
        "!HH", 1308, 0
    ) + pack("!BBHII", 0x80, 33, number & 0xFFFF, number, number) + bytes(1288)  # fmt: skip


def _igmp(number: int, group: str, message: bytes) -> bytes:
    """A message from a host that no other number has."""
    right = pack("!H", internet_checksum(message))
    return ipv4_packet(
        ".".join(map(str, pack("!I", 0x0B000000 | number))), group, IGMP, message[:2] + right + message[4:]
    )


def _members(number: int) -> bytes:
    """A report of groups that no other number has."""
    records = (pack("!BBHI", 4, 0, 0, 0xE8000000 | number * RECORDS + each) for each in range(RECORDS))
    return _igmp(number, "224.0.0.22", pack("!BBHHH", 0x22, 0, 0, 0, RECORDS) + b"".join(records))


def _sources(number: int) -> bytes:
    """A report of sources of one group."""
    record = pack("!BBHI", 5, 0, RECORDS, 0xEF010203) + b"".join(
        pack("!I", 0x0A000000 | number * RECORDS + each) for each in range(RECORDS)
    )
    return _igmp(number % 250, "224.0.0.22", pack("!BBHHH", 0x22, 0, 0, 0, 1) + record)


def _querier(number: int) -> bytes:
    return _igmp(number, "224.0.0.1", pack("!BBHIBBH", 0x11, 100, 0, 0, 2, 125, 0))


FLOODS: dict[str, tuple[Callable[[int], bytes], int, int]] = {
    "streams": (stream_packet, 1, 0),
    "members": (_members, RECORDS, 0),
    "sources of members": (_sources, RECORDS, 0),
    "queriers": (_querier, 1, 0),
    "members in VLANs": (_members, RECORDS, 4094),
    "streams in VLANs": (stream_packet, 1, 4094),
}
"""How to make the packet of a number, how many groups or sources it invents, and how many tags they have."""


class _Source:
    """A source of which each frame is made when it is taken."""

    interfaces = ()

    def __init__(self, packet: Callable[[int], bytes], tags: int, count: int) -> None:
        self._packet, self._tags, self._numbers = packet, tags, iter(range(count))

    def take(self, limit: int) -> list[Frame]:
        """Return the next frames."""
        packets = [(number, self._packet(number)) for number, _ in zip(self._numbers, range(limit), strict=False)]
        return [
            Frame("eth0", False, None, b"", 1 + number % self._tags if self._tags else None, True, packet, len(packet))
            for number, packet in packets
        ]


def flooded(kind: str, count: int) -> Look:
    """Return a look that saw so many invented groups, sources or hosts."""
    packet, each, tags = FLOODS[kind]
    source: Any = _Source(packet, tags, count // each)
    look = Look(source)
    while look.take():
        pass
    return look
