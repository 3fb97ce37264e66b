"""IP packets to what they say about multicast: UDP datagrams, and the queries of IGMP and MLD. Pure: touches no OS."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from struct import Struct
from typing import NamedTuple, TypeAlias

from multicast_expert.core.addresses import IPAddress, address_text

UDP = 17
IGMP = 2
ICMPV6 = 58
_HOP_BY_HOP = 0
_FRAGMENT = 44
_IGMP_QUERY = 0x11
_MLD_QUERY = 130
_MORE_FRAGMENTS = 0x2000
_FRAGMENT_OFFSET = 0x1FFF

_PORTS = Struct("!HH")
_SHORT = Struct("!H")


class UdpPacket(NamedTuple):
    """A UDP datagram on the wire, or a fragment of one."""

    group: str
    sender: str
    hop_limit: int
    length: int
    """Bytes of the whole IP packet."""
    sender_port: int | None = None
    port: int | None = None
    is_fragment: bool = False
    is_damaged: bool = False
    """Whether its UDP checksum is wrong."""


class Query(NamedTuple):
    """A question for memberships: RFC 1112, RFC 2236, RFC 3376 and RFC 2710, RFC 3810."""

    version: int
    querier: str
    for_group: bool


def parse_packet(packet: bytes, checked: bool = True) -> UdpPacket | Query | None:
    """Return what an IPv4 or IPv6 packet is; None for anything else, and for a cut one.

    `checked`: whether its checksum has been made already; a network card may do that on the way out.
    """
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return _parse_ipv4(packet, checked)
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return _parse_ipv6(packet, checked)
    return None


def _parse_ipv4(packet: bytes, checked: bool) -> UdpPacket | Query | None:
    start = (packet[0] & 0x0F) * 4
    (length,) = _SHORT.unpack_from(packet, 2)
    (fragment,) = _SHORT.unpack_from(packet, 6)
    if length < start or start < 20 or len(packet) < start:
        return None
    source, destination = packet[12:16], packet[16:20]
    if packet[9] == IGMP:
        return parse_igmp_query(packet[start:length], address_text(source))
    if packet[9] != UDP:
        return None
    is_fragment = bool(fragment & (_MORE_FRAGMENTS | _FRAGMENT_OFFSET))
    pseudo = source + destination + bytes([0, UDP])
    return _udp(
        UdpPacket(address_text(destination), address_text(source), packet[8], length, is_fragment=is_fragment),
        packet[start:length] if not fragment & _FRAGMENT_OFFSET else b"",
        pseudo if checked else b"",
    )


def _parse_ipv6(packet: bytes, checked: bool) -> UdpPacket | Query | None:
    (payload,) = _SHORT.unpack_from(packet, 4)
    length = 40 + payload
    source, destination = packet[8:24], packet[24:40]
    following, start, offset, is_fragment = packet[6], 40, 0, False
    while following in (_HOP_BY_HOP, _FRAGMENT):
        if len(packet) < start + 8:
            return None
        if following == _FRAGMENT:
            is_fragment = True
            offset = _SHORT.unpack_from(packet, start + 2)[0] & 0xFFF8
        size = 8 if following == _FRAGMENT else (packet[start + 1] + 1) * 8
        following, start = packet[start], start + size
    if following == ICMPV6:
        return None if is_fragment else parse_mld_query(packet[start:length], address_text(source))
    if following != UDP:
        return None
    pseudo = source + destination + bytes([0, UDP])
    return _udp(
        UdpPacket(address_text(destination), address_text(source), packet[7], length, is_fragment=is_fragment),
        packet[start:length] if not offset else b"",
        pseudo if checked else b"",
    )


def _udp(packet: UdpPacket, segment: bytes, pseudo: bytes) -> UdpPacket:
    """Return the packet with what the UDP header says; `pseudo`: the addresses and the protocol, to check the sum."""
    if len(segment) < 8:
        return packet
    sender_port, port = _PORTS.unpack_from(segment)
    (length,) = _SHORT.unpack_from(segment, 4)
    is_whole = not packet.is_fragment and 8 <= length <= len(segment)
    has_sum = segment[6:8] != b"\0\0"
    is_damaged = bool(pseudo) and is_whole and has_sum and not _sum_is_right(pseudo, segment[:length])
    return packet._replace(sender_port=sender_port, port=port, is_damaged=is_damaged)


def _sum_is_right(pseudo: bytes, segment: bytes) -> bool:
    """Whether the ones' complement sum (RFC 1071) of all 16-bit words is zero, which is that sum modulo 65535."""
    padded = pseudo + _SHORT.pack(len(segment)) + segment + bytes(len(segment) % 2)
    return int.from_bytes(padded, "big") % 0xFFFF == 0


def parse_igmp_query(message: bytes, querier: str) -> Query | None:
    """Return the query in an IGMP message: the length tells version 3, the response time 1 from 2 (RFC 3376, 7.1)."""
    if len(message) < 8 or message[0] != _IGMP_QUERY:
        return None
    version = 3 if len(message) >= 12 else 2 if message[1] else 1
    return Query(version, querier, message[4:8] != bytes(4))


def parse_mld_query(message: bytes, querier: str) -> Query | None:
    """Return the query in an ICMPv6 message: the length tells version 2 from 1 (RFC 3810, 8.1)."""
    if len(message) < 24 or message[0] != _MLD_QUERY:
        return None
    return Query(2 if len(message) >= 28 else 1, querier, message[8:24] != bytes(16))


# Classic BPF, by the numbers of linux/filter.h and linux/bpf_common.h.

Instruction: TypeAlias = tuple[int, int, int, int]
"""Code, how far to jump when equal and when not, value."""
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x54, 0x15, 0x06
_AT_NETWORK_HEADER = 0xFFF00000
_PROTOCOL = 0xFFFFF000
_ALL = 0x00040000


def frame_filter(group: IPAddress) -> list[Instruction]:
    """Return the program that accepts UDP to the group, or to one with its Ethernet address, and IGMP or MLD.

    The Ethernet address holds the last 23 bits of an IPv4 group (RFC 1112) and
    the last 32 of an IPv6 one (RFC 2464).
    """
    ipv4 = isinstance(group, IPv4Address)
    net = _AT_NETWORK_HEADER
    low = int.from_bytes(group.packed[-4:], "big")
    if ipv4:
        body = [
            (_LOAD_BYTE, 0, 0, net + 9),
            (_JUMP_EQUAL, 5, 0, IGMP),
            (_JUMP_EQUAL, 0, 3, 17),
            (_LOAD_WORD, 0, 0, net + 16),
            (_AND, 0, 0, 0xF07FFFFF),
            (_JUMP_EQUAL, 1, 0, low & 0xF07FFFFF),
        ]
    else:
        body = [
            (_LOAD_BYTE, 0, 0, net + 6),
            (_JUMP_EQUAL, 7, 0, 0),
            (_JUMP_EQUAL, 1, 0, 44),
            (_JUMP_EQUAL, 0, 4, 17),
            (_LOAD_BYTE, 0, 0, net + 24),
            (_JUMP_EQUAL, 0, 2, 0xFF),
            (_LOAD_WORD, 0, 0, net + 36),
            (_JUMP_EQUAL, 1, 0, low),
        ]
    head = [
        (_LOAD_HALF, 0, 0, _PROTOCOL),
        (_JUMP_EQUAL, 0, len(body), 0x0800 if ipv4 else 0x86DD),
    ]
    return [*head, *body, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _ALL)]


@dataclass(frozen=True, slots=True)
class Frames:
    """Datagrams seen on the wire of an interface, before the kernel judged them; one kind is counted together."""

    interface: str
    group: str
    """Where they go; another group with the same Ethernet address is listed too."""
    sender: str
    sender_port: int | None
    """None: fragments that do not tell."""
    port: int | None
    hop_limit: int
    count: int
    longest: int
    """Bytes of the longest IP packet."""
    bad_checksums: int = 0
    """How many had a wrong UDP checksum, except those whose sender left it to the network card."""
    fragments: int = 0
    """How many of them were fragments."""
    ethernet_source: str = ""
    ethernet_destination: str = ""
    vlan: int | None = None
    outgoing: bool = False
    """Whether this host itself sent them out of the interface."""


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of IGMP or MLD from one querier on one interface."""

    interface: str
    version: int
    """1, 2 or 3 of IGMP, 1 or 2 of MLD."""
    querier: str
    seen: int
    """How many were on the wire."""
    delivered: int | None
    """How many the kernel let through to sockets; None: was not looked at."""
    interval: float | None = None
    """Seconds between two of them."""
    for_group: bool = False
    """Whether they ask for one group, as after a leave; else for all."""
