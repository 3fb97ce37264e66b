"""IGMP and MLD messages: known bytes, round trips, and what routers must ignore."""

from ipaddress import IPv4Address, IPv6Address
from itertools import product
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.core.addresses import address_text
from multicast_expert.wire.frames import (
    HOP_BY_HOP,
    ICMPV6,
    IGMP,
    internet_checksum,
    ipv4_packet,
    ipv6_packet,
)
from multicast_expert.wire.group_messages import (
    GroupMessage,
    GroupQuery,
    GroupRecord,
    GroupReport,
    RecordKind,
    _code,
    _floating,
    build_group_message,
    parse_group_message,
)
from wire.recorded import FROM_LINUX

GROUP, HOST = "239.1.2.3", "10.0.0.7"


def igmp(message: bytes) -> bytes:
    """Return an IPv4 packet with an IGMP message, whose checksum is computed here."""
    checksum = internet_checksum(message[:2] + b"\0\0" + message[4:])
    return ipv4_packet(HOST, "224.0.0.22", IGMP, message[:2] + pack("!H", checksum) + message[4:])


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("11000000 00000000", GroupQuery(1, None, (), 10.0)),
        ("11ff0000 00000000", GroupQuery(2, None, (), 25.5)),
        ("11900000 ef010203 0a8f0001 0a000001", GroupQuery(3, GROUP, ("10.0.0.1",), 25.6, True, 2, 248.0)),
        ("12000000 ef010203", GroupReport(1, (GroupRecord(RecordKind.IS_EXCLUDE, GROUP),))),
        ("16000000 ef010203", GroupReport(2, (GroupRecord(RecordKind.IS_EXCLUDE, GROUP),))),
        ("17000000 ef010203", GroupReport(2, (GroupRecord(RecordKind.TO_INCLUDE, GROUP),))),
        (
            "22000000 00000002 03000001 ef010203 0a000001 07000000 ef010203",
            GroupReport(3, (GroupRecord(RecordKind.TO_INCLUDE, GROUP, ("10.0.0.1",)),)),
        ),
        (  # the first record has four bytes of auxiliary data
            "22000000 00000002 03010001 ef010203 0a000001 01000001 01000001 ef010203 0a000002",
            GroupReport(
                3,
                (
                    GroupRecord(RecordKind.TO_INCLUDE, GROUP, ("10.0.0.1",)),
                    GroupRecord(RecordKind.IS_INCLUDE, GROUP, ("10.0.0.2",)),
                ),
            ),
        ),
        ("22000000 00000002 03000001 ef010203 0a000001", None),
        ("11000000 00000000 00", None),
        ("16000000 0a010203", None),
        ("13000000 ef010203", None),
    ],
)
def test_igmp(message: str, content: GroupQuery | GroupReport | None) -> None:
    """Messages of each version, and malformed ones."""
    expected = GroupMessage(HOST, content) if content else None
    packet = igmp(bytes.fromhex(message))
    assert parse_group_message(packet) == expected
    assert parse_group_message(packet[:-1]) is None
    assert parse_group_message(packet[:-1] + bytes([packet[-1] ^ 1])) is None


@given(st.binary(max_size=80), st.booleans())
def test_any_bytes_are_parsed_or_ignored(message: bytes, right: bool) -> None:
    """Bytes with a right header raise nothing, with a right checksum and without."""
    parsed = parse_group_message(igmp(message.ljust(8, b"\0")) if right else ipv4_packet(HOST, GROUP, IGMP, message))
    assert parsed is None or parsed.host == HOST
    assert parse_group_message(message) is None or len(message) >= 28
    parse_group_message(ipv6_packet("fe80::1", "ff02::16", HOP_BY_HOP, bytes([ICMPV6, 0]) + message))


@pytest.mark.parametrize(
    ("at", "byte"),
    [(7, 64), (8, 0x20), (9, 0xC0), (42, 1), (44, 1), (6, ICMPV6)],
    ids=[
        "hop limit",
        "global address",
        "site-local address",
        "no router alert",
        "another router alert",
        "no hop-by-hop header",
    ],
)
def test_mld_from_farther_than_the_link_is_ignored(at: int, byte: int) -> None:
    """A message that a router must ignore (RFC 3810, 6.2) is ignored."""
    packet = bytearray(FROM_LINUX[1])
    packet[at] = byte
    assert parse_group_message(bytes(packet)) is None


def test_a_fragment_of_igmp_is_ignored() -> None:
    """No router joins fragments of a message; a part may look like one."""
    report = bytes.fromhex("16000000ef010203")
    assert parse_group_message(igmp(report)) is not None
    checksum = internet_checksum(report)
    message = report[:2] + pack("!H", checksum) + report[4:]
    assert parse_group_message(ipv4_packet(HOST, GROUP, IGMP, message, more_fragments=True)) is None


def test_the_packets_of_linux_are_built_alike() -> None:
    """What is parsed from Linux's own reports is built again, byte by byte except for the identification."""
    for packet in FROM_LINUX:
        message = parse_group_message(packet)
        assert message is not None
        built = build_group_message(message)
        if packet[0] >> 4 == 6:
            assert built == packet
        else:
            # Linux forbids fragments, which changes flags and checksum.
            assert (built[:6], built[8:10], built[12:]) == (packet[:6], packet[8:10], packet[12:])


def test_destinations() -> None:
    """Each message goes where its version says, with hop limit 1 and the router alert option."""
    kinds = {"report": RecordKind.IS_EXCLUDE, "leave": RecordKind.TO_INCLUDE}
    found = {}
    for version, word in product((1, 2, 3), ("general", "specific", *kinds)):
        for host, group in ((HOST, GROUP), ("fe80::7", "ff15::1")):
            if (":" in host and version == 3) or (version == 1 and ":" not in host and word == "leave"):
                continue
            if word in kinds:
                content = GroupReport(version, (GroupRecord(kinds[word], group),))
            else:
                content = GroupQuery(version, group if word == "specific" else None, (), 10.0)
            packet = build_group_message(GroupMessage(host, content))
            if ":" in host:
                destination, hops, alert = packet[24:40], packet[7], packet[42:46] == bytes([5, 2, 0, 0])
            else:
                destination, hops, alert = packet[16:20], packet[8], packet[20:24] == bytes([0x94, 4, 0, 0])
            assert (hops, alert) == (1, True)
            found[version, word, host] = address_text(destination)
    assert {each for (_, word, host), each in found.items() if (word, host) == ("general", HOST)} == {"224.0.0.1"}
    assert {each for (_, word, host), each in found.items() if (word, host) == ("general", "fe80::7")} == {"ff02::1"}
    assert {each for (_, word, _), each in found.items() if word == "specific"} == {GROUP, "ff15::1"}
    assert found[3, "report", HOST] == found[3, "leave", HOST] == "224.0.0.22"
    assert found[2, "report", "fe80::7"] == found[2, "leave", "fe80::7"] == "ff02::16"
    assert found[1, "report", HOST] == found[2, "report", HOST] == GROUP
    assert found[1, "report", "fe80::7"] == "ff15::1"
    assert (found[2, "leave", HOST], found[1, "leave", "fe80::7"]) == ("224.0.0.2", "ff02::2")


NUMBERS = {4: st.integers(1, 0xFFFFFFFE), 6: st.integers(1, 2**128 - 1)}


@st.composite
def messages(draw: st.DrawFn) -> GroupMessage:
    """Any message that its version can carry."""
    version = draw(st.sampled_from([4, 6]))
    sources = st.lists(NUMBERS[version].map(lambda number: str((IPv4Address, IPv6Address)[version == 6](number))))
    group = draw(st.integers(1, 2**27)) | (0xE0000000 if version == 4 else 0xFF150000 << 96)
    name = str((IPv4Address, IPv6Address)[version == 6](group))
    host = draw(st.sampled_from(["10.0.0.7", "0.0.0.0"] if version == 4 else ["fe80::7", "fe80::1:2"]))
    newest = 3 if version == 4 else 2
    number = draw(st.integers(1, newest))
    if draw(st.booleans()):
        kinds = [RecordKind.IS_EXCLUDE, RecordKind.TO_INCLUDE] if number < newest else list(RecordKind)
        record = GroupRecord(draw(st.sampled_from(kinds)), name, () if number < newest else tuple(draw(sources)))
        if version == 4 and number == 1:
            record = record._replace(kind=RecordKind.IS_EXCLUDE)
        return GroupMessage(host, GroupReport(number, (record,) * (1 if number < newest else draw(st.integers(0, 3)))))
    is_general = draw(st.booleans())
    response = draw(st.integers(1, 127)) / (10 if version == 4 else 1000)
    query = GroupQuery(number, None if is_general else name, (), 10.0 if (version, number) == (4, 1) else response)
    if number == newest:
        given = () if is_general else tuple(draw(sources))
        query = query._replace(
            sources=given,
            keeps_timers=draw(st.booleans()),
            robustness=draw(st.integers(1, 7)),
            interval=draw(st.sampled_from([None, 1.0, 125.0, 128.0, 31744.0])),
        )
    return GroupMessage(host, query)


@given(messages())
def test_round_trips(message: GroupMessage) -> None:
    """What is built is parsed as it was, and no byte of it can change without being noticed by the checksums."""
    packet = build_group_message(message)
    assert parse_group_message(packet) == message


@pytest.mark.parametrize("bits", [4, 12])
def test_codes_of_numbers(bits: int) -> None:
    """Each code stands for the largest number up to the one given, and the largest code for all above."""
    values = [_floating(code, bits) for code in range(1 << bits + 4)]
    assert values == sorted(set(values))
    for code, value in enumerate(values):
        assert _code(value, bits) == code
        above = values[code + 1] if code + 1 < len(values) else value + 1000
        assert _code(above - 1, bits) == code


@pytest.mark.parametrize(
    "record",
    [
        GroupRecord(RecordKind.ALLOW, GROUP),
        GroupRecord(RecordKind.IS_EXCLUDE, GROUP, ("10.0.0.1",)),
    ],
)
def test_what_no_older_message_says(record: GroupRecord) -> None:
    """Versions without sources cannot carry them."""
    with pytest.raises(ValueError, match="does not fit"):
        build_group_message(GroupMessage(HOST, GroupReport(2, (record,))))


def test_a_short_interval_is_not_the_default() -> None:
    """An interval of 0 would mean 125 s, and a response time of 0 would make it a query of version 1."""
    query = GroupQuery(3, None, (), 0.04, interval=0.3)
    parsed = parse_group_message(build_group_message(GroupMessage(HOST, query)))
    assert parsed == GroupMessage(HOST, query._replace(response_time=0.0, interval=1.0))
    older = parse_group_message(build_group_message(GroupMessage(HOST, GroupQuery(2, None, (), 0.04))))
    assert older == GroupMessage(HOST, GroupQuery(2, None, (), 0.1))
