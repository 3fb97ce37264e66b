"""Parses and builds IP packets, UDP datagrams above all. Pure: touches no OS."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address
from struct import Struct, pack
from typing import NamedTuple

from multicast_expert.core.addresses import address_text

IGMP, UDP, ICMPV6, UDP_LITE = 2, 17, 58, 136
HOP_BY_HOP, FRAGMENT_HEADER = 0, 44  # RFC 8200, 4.3 and 4.5
ROUTER_ALERT_V4 = bytes.fromhex("94040000")  # RFC 2113
HEADER_CHECKSUM = "a wrong checksum of the IP header"
_SOURCE_ROUTE = "an IP option that demands a route (source route)"
# ICMP, IGMP, OSPF, PIM, VRRP: other uses of a group than datagrams.
_OF_THE_NETWORK = (1, 2, 89, 103, 112)
_ROUTING, _DESTINATION_OPTIONS = 43, 60
_NO_OPERATION, _SOURCE_ROUTES = 1, (131, 137)
# Jumbo payload, tunnel limit, home address: RFC 2675, 2473, 6275.
_KNOWN_OPTIONS = (0xC2, 0x04, 0xC9)
_MORE_FRAGMENTS, _FRAGMENT_OFFSET = 0x2000, 0x1FFF
_PORTS, _SHORT = Struct("!HH"), Struct("!H")


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
    """Whether its UDP checksum is wrong, or missing with IPv6."""
    flaw: str = ""
    """Why no kernel delivers it: a wrong length, version or option, or another protocol than UDP."""


# Parsing


def parse_packet(packet: bytes, checked: bool = True) -> UdpPacket | None:
    """Return the datagram in an IPv4 or IPv6 packet; None for anything else.

    A packet that no kernel takes for a datagram has a `flaw`, if it shows whom it was for.
    `checked`: whether its checksum is computed already; a network card may do that on the way out.
    """
    version = packet[0] >> 4 if packet else 0
    if len(packet) >= 40 and version == 6:
        return _parse_ipv6(packet, checked)
    if len(packet) < 20 or version == 6:
        return None
    if version == 4:
        return _parse_ipv4(packet, checked)
    flaw = f"an IP header of version {version}"
    return UdpPacket(address_text(packet[16:20]), address_text(packet[12:16]), packet[8], len(packet), flaw=flaw)


def _parse_ipv4(packet: bytes, checked: bool) -> UdpPacket | None:
    start = (packet[0] & 0x0F) * 4
    (length,) = _SHORT.unpack_from(packet, 2)
    (fragment,) = _SHORT.unpack_from(packet, 6)
    source, destination, payload = packet[12:16], packet[16:20], packet[start:length]
    protocol = packet[9]
    found = UdpPacket(address_text(destination), address_text(source), packet[8], length)
    if start < 20 or len(packet) < start or length < start:
        return found._replace(flaw="an IP header of impossible length")
    if protocol in _OF_THE_NETWORK:
        return None
    if length > len(packet):
        flaw = f"frames that are {length - len(packet)} bytes shorter than their IP header says"
    elif checked and internet_checksum(packet[:start]):
        flaw = HEADER_CHECKSUM
    else:
        flaw = _option_flaw(packet[20:start]) or ("" if protocol == UDP else _protocol_flaw(protocol))
    is_fragment = bool(fragment & (_MORE_FRAGMENTS | _FRAGMENT_OFFSET))
    found = found._replace(is_fragment=is_fragment, flaw=flaw)
    return _with_ports(found, b"" if fragment & _FRAGMENT_OFFSET else payload, source + destination, checked)


def _option_flaw(options: bytes) -> str:
    """Return what is wrong with the options of an IPv4 header (RFC 791, 3.1)."""
    place = 0
    while place < len(options) and options[place]:
        if options[place] == _NO_OPERATION:
            place += 1
            continue
        length = options[place + 1] if place + 1 < len(options) else 0
        if length < 2 or place + length > len(options):
            return f"an IP option ({options[place]}) of impossible length"
        if options[place] in _SOURCE_ROUTES:
            return _SOURCE_ROUTE
        place += length
    return ""


def _protocol_flaw(protocol: int) -> str:
    name = {UDP_LITE: " (UDP-Lite)", 4: " (IP in IP)", 47: " (GRE)", 132: " (SCTP)", 6: " (TCP)"}.get(protocol, "")
    return f"protocol {protocol}{name} instead of 17 (UDP)"


def _parse_ipv6(packet: bytes, checked: bool) -> UdpPacket | None:
    (size,) = _SHORT.unpack_from(packet, 4)
    length = 40 + size
    source, destination = packet[8:24], packet[24:40]
    following, start, offset, is_fragment, flaw = packet[6], 40, 0, False, ""
    while following in (HOP_BY_HOP, FRAGMENT_HEADER, _DESTINATION_OPTIONS, _ROUTING):
        if len(packet) < start + 8:
            return None
        header = 8
        if following == FRAGMENT_HEADER:
            is_fragment = True
            offset = _SHORT.unpack_from(packet, start + 2)[0] & 0xFFF8
        else:
            header = (packet[start + 1] + 1) * 8
            if following != _ROUTING:
                flaw = flaw or _extension_flaw(packet[start + 2 : start + header])
        following, start = packet[start], start + header
    payload = packet[start:length]
    if following in (ICMPV6, *_OF_THE_NETWORK):
        return None
    if length > len(packet):
        flaw = f"frames that are {length - len(packet)} bytes shorter than their IP header says"
    elif following != UDP and not offset:
        flaw = _protocol_flaw(following)
    found = UdpPacket(
        address_text(destination), address_text(source), packet[7], length, is_fragment=is_fragment, flaw=flaw
    )
    return _with_ports(found, b"" if offset else payload, source + destination, checked)


def _extension_flaw(options: bytes) -> str:
    """Return what is wrong with the options of an IPv6 extension header (RFC 8200, 4.2)."""
    place = 0
    while place < len(options):
        kind = options[place]
        if kind == 0:
            place += 1
            continue
        if place + 1 >= len(options) or place + 2 + options[place + 1] > len(options):
            return f"an IPv6 option ({kind}) of impossible length"
        # The first two bits demand that a host that does not know the option drops the packet.
        if kind >> 6 and kind not in _KNOWN_OPTIONS:
            return f"an IPv6 option ({kind}) that demands to drop what does not know it"
        place += 2 + options[place + 1]
    return ""


def _with_ports(packet: UdpPacket, segment: bytes, addresses: bytes, checked: bool) -> UdpPacket:
    """Return the packet with the ports of its UDP header, and what is wrong with that."""
    if len(segment) < 8:
        # Later fragments have no UDP header.
        cut = not packet.is_fragment and not packet.flaw
        return packet._replace(flaw="a UDP header that is cut off") if cut else packet
    sender_port, port = _PORTS.unpack_from(segment)
    (length,) = _SHORT.unpack_from(segment, 4)
    packet = packet._replace(sender_port=sender_port, port=port)
    if packet.flaw or packet.is_fragment:
        return packet
    if not 8 <= length <= len(segment):
        # An IPv6 jumbogram has the length 0 (RFC 2675); no interface of today carries one.
        return packet._replace(flaw=f"a UDP header that says {length} bytes, where {len(segment)} follow")
    if segment[6:8] == b"\0\0":
        # An IPv4 sender may leave the checksum out (RFC 768), an IPv6 sender may not (RFC 8200, 8.1).
        return packet._replace(is_damaged=checked and len(addresses) == 32)
    return packet._replace(is_damaged=checked and _transport_checksum(addresses, UDP, segment[:length]) != 0)


# Building


def internet_checksum(data: bytes) -> int:
    """Return the checksum of RFC 1071; 0 for data that contains its right checksum."""
    # The ones' complement sum of 16-bit words is the number modulo 65535, with 65535 in place of 0.
    rest = int.from_bytes(data + bytes(len(data) % 2), "big") % 0xFFFF
    return 0xFFFF - (rest or (0xFFFF if any(data) else 0))


def upper_layer_checksum(source: str, destination: str, protocol: int, payload: bytes) -> int:
    """Return the checksum over the addresses and what they carry: RFC 768, and RFC 8200, 8.1."""
    return _transport_checksum(ip_address(source).packed + ip_address(destination).packed, protocol, payload)


def _transport_checksum(addresses: bytes, protocol: int, payload: bytes) -> int:
    # The pseudo headers of IPv4 and IPv6 have the same sum: the wider fields of IPv6 only add zeros.
    return internet_checksum(addresses + pack("!HI", protocol, len(payload)) + payload)


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
    """Return an IPv4 packet (RFC 791); with `more_fragments` the first fragment of a longer one."""
    size = 20 + len(options)
    flags = _MORE_FRAGMENTS if more_fragments else 0
    header = bytearray(pack("!BBHHHBBH", 0x40 | size // 4, tos, size + len(payload), identity, flags, ttl, protocol, 0))
    header += IPv4Address(source).packed + IPv4Address(destination).packed + options
    header[10:12] = _SHORT.pack(internet_checksum(bytes(header)))
    return bytes(header + payload)


def ipv6_packet(
    source: str, destination: str, next_header: int, payload: bytes, *, hop_limit: int = 1, traffic_class: int = 0
) -> bytes:
    """Return an IPv6 packet (RFC 8200)."""
    header = pack("!IHBB", 6 << 28 | traffic_class << 20, len(payload), next_header, hop_limit)
    return header + IPv6Address(source).packed + IPv6Address(destination).packed + payload


def udp_packet(
    source: tuple[str, int],
    destination: tuple[str, int],
    data: bytes,
    *,
    hop_limit: int = 1,
    traffic_class: int = 0,
    wrong_checksum: bool = False,
    only_first: int | None = None,
    identity: int = 0,
) -> bytes:
    """Return an IP packet with a UDP datagram, or with its `only_first` bytes (a multiple of 8) as first fragment."""
    (sender, sender_port), (receiver, port) = source, destination
    header = pack("!HHHH", sender_port, port, 8 + len(data), 0)
    checksum = upper_layer_checksum(sender, receiver, UDP, header + data) or 0xFFFF
    if wrong_checksum:
        checksum = checksum ^ 0x5555 or 0xFFFF  # 0 would mean that there is none
    datagram = (header[:6] + _SHORT.pack(checksum) + data)[:only_first]
    more = only_first is not None
    if ip_address(sender).version == 4:
        return ipv4_packet(
            sender, receiver, UDP, datagram, ttl=hop_limit, tos=traffic_class, identity=identity, more_fragments=more
        )
    if more:
        fragment = pack("!BBHI", UDP, 0, 1, identity) + datagram
        return ipv6_packet(
            sender, receiver, FRAGMENT_HEADER, fragment, hop_limit=hop_limit, traffic_class=traffic_class
        )
    return ipv6_packet(sender, receiver, UDP, datagram, hop_limit=hop_limit, traffic_class=traffic_class)


def fragments(packet: bytes, mtu: int, identity: int) -> list[bytes]:
    """Return the fragments of a packet without options that fit an interface; the packet alone if it does (RFC 791)."""
    if len(packet) <= mtu:
        return [packet]
    is_ipv4 = packet[0] >> 4 == 4
    header, extra = (20, 0) if is_ipv4 else (40, 8)
    room = (mtu - header - extra) // 8 * 8
    payload, found = packet[header:], []
    for offset in range(0, len(payload), room):
        part = payload[offset : offset + room]
        more = offset + room < len(payload)
        if is_ipv4:
            head = bytearray(packet[:header])
            head[2:8] = pack("!HHH", header + len(part), identity, offset // 8 | (_MORE_FRAGMENTS if more else 0))
            head[10:12] = bytes(2)
            head[10:12] = _SHORT.pack(internet_checksum(bytes(head)))
            found.append(bytes(head) + part)
        else:
            fragment = pack("!BBHI", packet[6], 0, offset | more, identity)  # RFC 8200, 4.5
            head = bytearray(packet[:header])
            head[4:7] = pack("!HB", extra + len(part), FRAGMENT_HEADER)
            found.append(bytes(head) + fragment + part)
    return found
