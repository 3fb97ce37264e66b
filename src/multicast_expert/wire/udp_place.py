"""Finds the UDP header of an IP packet that is cut or has options. Pure: touches no OS."""

from __future__ import annotations

from struct import unpack_from
from typing import NamedTuple

from multicast_expert.wire.frames import FRAGMENT_HEADER, HOP_BY_HOP, UDP

_ROUTING, _DESTINATION_OPTIONS = 43, 60
_MOST_HEADERS = 8


class UdpPlace(NamedTuple):
    """Where a datagram begins, and what its IP header says."""

    source: bytes
    group: bytes
    start: int
    """The offset of the UDP header."""
    hop_limit: int
    traffic_class: int
    """DSCP * 4 + ECN."""


def udp_place(packet: bytes) -> UdpPlace | None:
    """Return where the UDP header is; None without a whole one, as in a later fragment."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 28:
        start = 4 * (packet[0] & 0x0F)
        is_later = unpack_from("!H", packet, 6)[0] & 0x1FFF
        if start < 20 or packet[9] != UDP or is_later or len(packet) < start + 8:
            return None
        return UdpPlace(packet[12:16], packet[16:20], start, packet[8], packet[1])
    start6 = _behind_headers(packet) if version == 6 and len(packet) >= 48 else None
    if start6 is None or len(packet) < start6 + 8:
        return None
    traffic_class = unpack_from("!H", packet)[0] >> 4 & 0xFF
    return UdpPlace(packet[8:24], packet[24:40], start6, packet[7], traffic_class)


def _behind_headers(packet: bytes) -> int | None:
    """Return where the headers of an IPv6 packet end, if UDP follows them."""
    following, start = packet[6], 40
    for _ in range(_MOST_HEADERS):
        if following == UDP or len(packet) < start + 8:
            break
        if following == FRAGMENT_HEADER and not unpack_from("!H", packet, start + 2)[0] & 0xFFF8:
            size = 8
        elif following in (HOP_BY_HOP, _ROUTING, _DESTINATION_OPTIONS):
            size = 8 * (packet[start + 1] + 1)
        else:
            break
        following, start = packet[start], start + size
    return start if following == UDP else None
