"""What packets say: datagrams, damaged and cut ones."""

from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.wire.frames import (
    UDP,
    UdpPacket,
    internet_checksum,
    ipv4_packet,
    ipv6_packet,
    parse_packet,
    upper_layer_checksum,
)
from multicast_expert.wire.group_messages import GroupQuery
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


@pytest.mark.parametrize("version", [4, 6])
def test_no_checksum_is_right_on_ipv4_only(version: int) -> None:
    """Zero stands for none (RFC 768), which IPv6 forbids (RFC 8200, 8.1)."""
    found = parse_packet(udp(version, b"x", checksum=0))
    assert isinstance(found, UdpPacket)
    assert found.is_damaged == (version == 6)


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


def test_queries_are_counted_on_both_ways() -> None:
    """What either socket saw was there; where the kernel delivers nothing to us, that is not known."""
    tally, query = QueryTally(), GroupQuery(3, None, (), 10.0)
    for now in (1.0, 2.0, 3.0):
        tally.note("eth0", "10.0.0.254", query, now, delivered=False)
        tally.note("port", "10.0.0.254", query, now, delivered=False)
        tally.note("missed", "10.0.0.254", query, now, delivered=True)
    tally.note("eth0", "10.0.0.254", query, 3.0, delivered=True)
    assert tally.queries(frozenset({"port"})) == (
        Queries("eth0", 3, "10.0.0.254", 3, 1, 1.0),
        Queries("port", 3, "10.0.0.254", 3, None, 1.0),
        Queries("missed", 3, "10.0.0.254", 3, 3, 1.0),
    )


def test_the_interval_that_a_querier_named_is_kept() -> None:
    """A query that names none, as a code of 0 does, says nothing new."""
    tally = QueryTally()
    for interval in (60.0, None):
        tally.note("eth0", "10.0.0.254", GroupQuery(3, None, (), 10.0, interval=interval), 1.0, delivered=False)
    (found,) = tally.queries()
    assert (found.seen, found.announced) == (2, 60.0)


@given(st.binary(max_size=120), st.sampled_from([0x45, 0x4F, 0x60, 0x46, 0x00]), st.integers(0, 120))
def test_no_packet_breaks_anything(data: bytes, first: int, cut: int) -> None:
    """Whatever comes from the wire, the parser returns."""
    parse_packet(bytes([first]) + data)
    parse_packet(udp(4, data)[:cut])
