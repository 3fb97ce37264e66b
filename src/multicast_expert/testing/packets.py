"""IP packets as bytes: queries of IGMP and MLD, and UDP datagrams that no socket would send. Pure: touches no OS."""

from __future__ import annotations

import ipaddress
import struct

IGMP, UDP, ICMPV6 = 2, 17, 58
FRAGMENT_HEADER = 44  # RFC 8200, 4.5
ROUTER_ALERT_V4 = bytes.fromhex("94040000")  # RFC 2113
ALL_HOSTS, ALL_NODES = "224.0.0.1", "ff02::1"


def internet_checksum(data: bytes) -> int:
    """RFC 1071."""
    words = struct.unpack(f"!{(len(data) + 1) // 2}H", data + b"\0" * (len(data) % 2))
    total: int = sum(words)
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF - total


def ethernet_group(group: str) -> bytes:
    """The Ethernet address that a group's frames go to: RFC 1112, 6.4 and RFC 2464, 7."""
    packed = ipaddress.ip_address(group).packed
    if len(packed) == 4:
        return b"\x01\x00\x5e" + bytes([packed[1] & 0x7F]) + packed[2:]
    return b"\x33\x33" + packed[-4:]


def ipv4_packet(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    ttl: int = 1,
    tos: int = 0,
    options: bytes = b"",
    identity: int = 0,
    more_fragments: bool = False,
) -> bytes:
    """An IPv4 packet (RFC 791); with `more_fragments` it is the first fragment of a longer one."""
    size = 20 + len(options)
    flags = 0x2000 if more_fragments else 0
    header = bytearray(
        struct.pack("!BBHHHBBH", 0x40 | size // 4, tos, size + len(payload), identity, flags, ttl, protocol, 0)
    )
    header += ipaddress.IPv4Address(source).packed + ipaddress.IPv4Address(destination).packed + options
    header[10:12] = struct.pack("!H", internet_checksum(bytes(header)))
    return bytes(header + payload)


def ipv6_packet(source: str, destination: str, next_header: int, payload: bytes, *, hop_limit: int = 1) -> bytes:
    """An IPv6 packet (RFC 8200)."""
    header = struct.pack("!IHBB", 0x60000000, len(payload), next_header, hop_limit)
    return header + ipaddress.IPv6Address(source).packed + ipaddress.IPv6Address(destination).packed + payload


def upper_layer_checksum(source: str, destination: str, protocol: int, payload: bytes) -> int:
    """The checksum over the addresses and what they carry: RFC 768, and RFC 8200, 8.1."""
    addresses = ipaddress.ip_address(source).packed + ipaddress.ip_address(destination).packed
    lengths = struct.pack("!BBH", 0, protocol, len(payload)) if len(addresses) == 8 else b""
    return internet_checksum(addresses + (lengths or struct.pack("!II", len(payload), protocol)) + payload)


def udp_packet(
    source: tuple[str, int],
    destination: tuple[str, int],
    data: bytes,
    *,
    hop_limit: int = 1,
    wrong_checksum: bool = False,
    only_first: int | None = None,
    identity: int = 0,
) -> bytes:
    """An IP packet with a UDP datagram, or with its `only_first` bytes (a multiple of 8) as the first fragment."""
    (sender, sender_port), (receiver, port) = source, destination
    header = struct.pack("!HHHH", sender_port, port, 8 + len(data), 0)
    checksum = upper_layer_checksum(sender, receiver, UDP, header + data) or 0xFFFF
    if wrong_checksum:
        checksum = checksum ^ 0x5555 or 0xFFFF  # 0 would mean that there is none
    datagram = (header[:6] + struct.pack("!H", checksum) + data)[:only_first]
    more = only_first is not None
    if ipaddress.ip_address(sender).version == 4:
        return ipv4_packet(sender, receiver, UDP, datagram, ttl=hop_limit, identity=identity, more_fragments=more)
    if more:
        fragment = struct.pack("!BBHI", UDP, 0, 1, identity) + datagram
        return ipv6_packet(sender, receiver, FRAGMENT_HEADER, fragment, hop_limit=hop_limit)
    return ipv6_packet(sender, receiver, UDP, datagram, hop_limit=hop_limit)


def igmp_query(source: str, response_code: int) -> bytes:
    """An IPv4 packet with an IGMPv3 general query (RFC 3376, 4.1): TTL 1 and the router alert option."""
    query = bytearray(struct.pack("!BBH4sBBH", 0x11, response_code, 0, bytes(4), 2, 125, 0))
    query[2:4] = struct.pack("!H", internet_checksum(bytes(query)))
    return ipv4_packet(source, ALL_HOSTS, IGMP, bytes(query), tos=0xC0, options=ROUTER_ALERT_V4)


def mld_query(source: str, response_milliseconds: int) -> bytes:
    """An IPv6 packet with an MLDv2 general query (RFC 3810, 5.1): hop limit 1 and the router alert option."""
    query = bytearray(struct.pack("!BBHHH16sBBH", 130, 0, 0, response_milliseconds, 0, bytes(16), 2, 125, 0))
    query[2:4] = struct.pack("!H", upper_layer_checksum(source, ALL_NODES, ICMPV6, bytes(query)))
    hop_by_hop = bytes([ICMPV6, 0]) + bytes.fromhex("050200000100")
    return ipv6_packet(source, ALL_NODES, 0, hop_by_hop + bytes(query))
