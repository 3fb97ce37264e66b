"""What packets say: datagrams, damaged and cut ones, and queries of every version."""

import socket
from ipaddress import ip_address
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.wire.frames import (
    ICMPV6,
    IGMP,
    ROUTER_ALERT_V4,
    UDP,
    Query,
    UdpPacket,
    igmp_query,
    internet_checksum,
    ipv4_packet,
    ipv6_packet,
    mld_query,
    parse_igmp_query,
    parse_mld_query,
    parse_packet,
    upper_layer_checksum,
)
from multicast_expert.wire.packet_filter import frame_filter
from multicast_expert.wire.tallies import Queries, QueryTally

SENDERS = {4: "10.0.0.7", 6: "fd00::7"}
GROUPS = {4: "239.1.2.3", 6: "ff15::1234"}


def udp(version: int, data: bytes, *, damaged: bool = False, checksum: int | None = None) -> bytes:
    """A UDP datagram in an IP packet with hop limit 9."""
    source, group = SENDERS[version], GROUPS[version]
    segment = bytearray(pack("!HHHH", 4000, 5000, 8 + len(data), 0) + data)
    right = upper_layer_checksum(source, group, UDP, bytes(segment)) or 0xFFFF
    segment[6:8] = pack("!H", right ^ 0x0101 if damaged else right if checksum is None else checksum)
    if version == 4:
        return ipv4_packet(source, group, UDP, bytes(segment), ttl=9)
    return ipv6_packet(source, group, UDP, bytes(segment), hop_limit=9)


@pytest.mark.parametrize("version", [4, 6])
@given(data=st.binary(max_size=60))
def test_datagrams(version: int, data: bytes) -> None:
    """Addresses, ports, hop limit and length are read, and a right checksum is right."""
    packet = udp(version, data)
    found = parse_packet(packet)
    assert found == UdpPacket(GROUPS[version], SENDERS[version], 9, len(packet), 4000, 5000)
    assert parse_packet(udp(version, data, damaged=True)) == found._replace(is_damaged=True)


@pytest.mark.parametrize("version", [4, 6])
def test_a_checksum_that_the_card_makes_is_not_judged(version: int) -> None:
    """On its way out, a datagram has no checksum yet where the network card makes it."""
    found = parse_packet(udp(version, b"x", damaged=True), checked=False)
    assert isinstance(found, UdpPacket)
    assert not found.is_damaged


def test_no_checksum_is_right_on_ipv4() -> None:
    """RFC 768: zero stands for none."""
    found = parse_packet(udp(4, b"x", checksum=0))
    assert isinstance(found, UdpPacket)
    assert not found.is_damaged


def test_fragments() -> None:
    """The first fragment names the ports, a later one does not; neither can be checked."""
    header = pack("!HHHH", 4000, 5000, 2000, 0x1234)
    first = bytearray(ipv4_packet("10.0.0.7", "239.1.2.3", UDP, header + bytes(800), ttl=9, more_fragments=True))
    assert parse_packet(bytes(first)) == UdpPacket("239.1.2.3", "10.0.0.7", 9, 828, 4000, 5000, is_fragment=True)
    first[6:8] = pack("!H", 100)
    first[10:12] = bytes(2)
    first[10:12] = pack("!H", internet_checksum(bytes(first[:20])))
    assert parse_packet(bytes(first)) == UdpPacket("239.1.2.3", "10.0.0.7", 9, 828, is_fragment=True)


def test_fragments_of_ipv6() -> None:
    """The same behind a fragment header (RFC 8200, 4.5)."""
    segment = pack("!HHHH", 4000, 5000, 2000, 0x1234) + bytes(8)
    for offset, port in ((1, 5000), (8 | 1, None)):
        fragment = bytes([UDP, 0]) + pack("!HI", offset, 77)
        found = parse_packet(ipv6_packet("fd00::7", "ff15::1234", 44, fragment + segment, hop_limit=9))
        assert isinstance(found, UdpPacket)
        assert (found.port, found.is_fragment, found.is_damaged) == (port, True, False)


@pytest.mark.parametrize(
    ("message", "version", "for_group"),
    [
        ("1100 0000 00000000", 1, False),
        ("1164 0000 00000000", 2, False),
        ("1164 0000 ef010203", 2, True),
        ("1164 0000 00000000 027d0000", 3, False),
        ("1164 0000 ef010203 027d0001 0a000007", 3, True),
    ],
)
def test_igmp_queries(message: str, version: int, for_group: bool) -> None:
    """The version is told by length and response time (RFC 3376, 7.1)."""
    packet = ipv4_packet("10.0.0.254", "224.0.0.1", IGMP, bytes.fromhex(message), options=ROUTER_ALERT_V4)
    assert parse_packet(packet) == Query(version, "10.0.0.254", for_group)


@pytest.mark.parametrize("message", ["16000000 ef010203", "22000000 00000001", "1164 0000", ""])
def test_other_igmp_is_no_query(message: str) -> None:
    """Reports, and what is cut, are passed over."""
    assert parse_igmp_query(bytes.fromhex(message), "10.0.0.254") is None


def test_mld_queries() -> None:
    """Behind the hop-by-hop header; the length tells version 2 (RFC 3810, 8.1)."""
    assert parse_packet(mld_query("fe80::1", 1000)) == Query(2, "fe80::1", False)
    old = bytes([130, 0, 0, 0, 0, 0, 0, 0]) + ip_address("ff15::1").packed
    assert parse_mld_query(old, "fe80::1") == Query(1, "fe80::1", True)
    assert parse_mld_query(b"\x8f" + old[1:], "fe80::1") is None
    report = bytes([ICMPV6, 0, 5, 2, 0, 0, 1, 0]) + bytes([143, 0]) + bytes(26)
    assert parse_packet(ipv6_packet("fe80::1", "ff02::16", 0, report)) is None


def test_a_longer_header_before_mld() -> None:
    """The hop-by-hop header tells its own length, in units of 8 bytes beyond the first (RFC 8200, 4.3)."""
    query = mld_query("fe80::1", 1000)
    header = bytes([ICMPV6, 1]) + query[42:48] + bytes.fromhex("0106000000000000")
    assert parse_packet(ipv6_packet("fe80::1", "ff02::1", 0, header + query[48:])) == Query(2, "fe80::1", False)


def test_queries_are_counted_on_both_ways() -> None:
    """What either socket saw was there; where the kernel delivers nothing to us, that is not known."""
    tally = QueryTally()
    query = Query(3, "10.0.0.254", False)
    for now in (1.0, 2.0, 3.0):
        tally.note("eth0", query, now, delivered=False)
        tally.note("port", query, now, delivered=False)
        tally.note("missed", query, now, delivered=True)
    tally.note("eth0", query, 3.0, delivered=True)
    assert tally.queries(frozenset({"port"})) == (
        Queries("eth0", 3, "10.0.0.254", 3, 1, 1.0),
        Queries("port", 3, "10.0.0.254", 3, None, 1.0),
        Queries("missed", 3, "10.0.0.254", 3, 3, 1.0),
    )


def test_the_lab_sends_what_is_read_here() -> None:
    """The queries that the lab forges are ones of version 3 and 2."""
    assert parse_packet(igmp_query("10.0.0.254", 10)) == Query(3, "10.0.0.254", False)


@given(st.binary(max_size=120), st.sampled_from([0x45, 0x4F, 0x60, 0x46, 0x00]), st.integers(0, 120))
def test_no_packet_breaks_anything(data: bytes, first: int, cut: int) -> None:
    """Whatever comes from the wire, the parser returns."""
    parse_packet(bytes([first]) + data)
    parse_packet(mld_query("fe80::1", 1)[:cut])
    parse_packet(udp(4, data)[:cut])


# The filter program, run by a small interpreter of the instructions that it uses.


def accepts(group: str, packet: bytes) -> bool:
    """Whether the filter lets the packet through."""
    program = frame_filter(ip_address(group))
    protocol = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    value, place = 0, 0
    while True:
        code, jump, other, number = program[place]
        place += 1
        if code == 0x06:
            return number > 0
        if code == 0x15:
            place += jump if value == number else other
        elif code == 0x54:
            value &= number
        elif number == 0xFFFFF000:
            value = protocol
        else:
            size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
            start = number - 0xFFF00000
            value = int.from_bytes(packet[start : start + size], "big")


@pytest.mark.parametrize("version", [4, 6])
def test_the_filter_takes_the_group_and_its_neighbours(version: int) -> None:
    """UDP to the group, or to one with the same Ethernet address, and queries; nothing else."""
    group = GROUPS[version]
    neighbour, stranger = {4: ("224.129.2.3", "239.1.2.4"), 6: ("ff05::9:0:1234", "ff15::1235")}[version]
    packet = udp(version, b"x")
    start = 16 if version == 4 else 24
    size = 4 if version == 4 else 16

    def to(address: str) -> bytes:
        return packet[:start] + ip_address(address).packed + packet[start + size :]

    assert accepts(group, packet)
    assert accepts(group, to(neighbour))
    assert not accepts(group, to(stranger))
    assert not accepts(group, to({4: "10.1.2.3", 6: "fd00::1234"}[version]))
    assert accepts(group, igmp_query("10.0.0.1", 1) if version == 4 else mld_query("fe80::1", 1))
    assert not accepts(group, udp(10 - version, b"x"))
    tcp = bytearray(packet)
    tcp[9 if version == 4 else 6] = socket.IPPROTO_TCP
    assert not accepts(group, bytes(tcp))
