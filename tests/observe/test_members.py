"""The state machine of a link, fed with messages by hand, with random ones and with those of this kernel."""

from math import inf
from random import Random
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.core.addresses import address_text
from multicast_expert.observe.members import Event, Link
from multicast_expert.wire.frames import (
    HOP_BY_HOP,
    ICMPV6,
    IGMP,
    internet_checksum,
    ipv4_packet,
    ipv6_packet,
    upper_layer_checksum,
)
from multicast_expert.wire.group_messages import (
    GroupMessage,
    GroupQuery,
    GroupRecord,
    GroupReport,
    RecordKind,
    build_group_message,
    parse_group_message,
)

GROUP, HOST, OTHER = "239.1.2.3", "10.0.0.7", "10.0.0.8"
GENERAL = [
    GroupMessage("10.0.0.1", GroupQuery(3, None, (), 10.0, interval=125.0)),
    GroupMessage("fe80::1", GroupQuery(2, None, (), 10.0, interval=125.0)),
]
INTERVAL = 260.0  # RFC 3376, 8.4, with the default timers


def query(host: str, group: str | None = None, *sources: str, response: float = 10.0, version: int = 3) -> GroupMessage:
    """Return a query with the default timers."""
    return GroupMessage(host, GroupQuery(version, group, sources, response, interval=125.0))


def report(host: str, kind: RecordKind, *sources: str, version: int = 3, group: str = GROUP) -> GroupMessage:
    """Return a report with one record."""
    return GroupMessage(host, GroupReport(version, (GroupRecord(kind, group, sources),)))


def kinds(events: list[Event]) -> list[tuple[str, str]]:
    """Return what happened, and to which host."""
    return [(event.kind, event.host) for event in events]


def test_the_lower_address_is_elected_and_times_out() -> None:
    """10.0.0.2 wins over 10.0.0.10, 0.0.0.0 never wins, and the winner is lost after 255 s (RFC 3376, 8.5)."""
    link = Link()
    assert kinds(link.take(0, query("0.0.0.0"))) == [("query", "0.0.0.0")]
    assert link.querier is None
    assert kinds(link.take(1, query("10.0.0.10"))) == [("query", "10.0.0.10"), ("querier", "10.0.0.10")]
    assert kinds(link.take(2, query("10.0.0.2"))) == [("query", "10.0.0.2"), ("querier", "10.0.0.2")]
    assert kinds(link.take(3, query("10.0.0.10"))) == [("query", "10.0.0.10")]
    assert link.querier is not None
    assert (link.querier.address, link.querier.version, link.querier.since) == ("10.0.0.2", 3, 2)
    assert 3 < link.next_timeout <= 2 + 255
    assert link.expire(256.9) == []
    assert kinds(link.expire(257)) == [("querier-lost", "10.0.0.2")]
    assert kinds(link.take(258, query("10.0.0.10"))) == [("query", "10.0.0.10"), ("querier", "10.0.0.10")]


def test_a_membership_lasts_for_its_interval_from_the_last_report() -> None:
    """A report renews the membership and changes nothing else."""
    link = Link()
    assert kinds(link.take(0, report(HOST, RecordKind.TO_EXCLUDE))) == [("join", HOST)]
    assert kinds(link.take(100, report(HOST, RecordKind.IS_EXCLUDE))) == [("report", HOST)]
    assert link.expire(100 + INTERVAL - 0.1) == []
    assert kinds(link.expire(100 + INTERVAL)) == [("timeout", HOST)]
    assert link.members == {}


def test_hosts_leave_one_by_one() -> None:
    """After a group-specific query the silent host times out in two response times, the answering one stays."""
    link = Link()
    for host in (HOST, OTHER, "10.0.0.9"):
        link.take(0, report(host, RecordKind.TO_EXCLUDE))
    assert kinds(link.take(1, report("10.0.0.9", RecordKind.TO_INCLUDE))) == [("leave", "10.0.0.9")]
    link.take(1, query("10.0.0.1", GROUP, response=1.0))
    link.take(1.5, report(OTHER, RecordKind.IS_EXCLUDE))
    assert kinds(link.expire(3)) == [("timeout", HOST)]
    assert list(link.members) == [(GROUP, OTHER)]


def test_older_hosts_that_stay_silent_for_another_remain_members() -> None:
    """One report of version 2 renews the other members of version 2, but none of version 3."""
    link = Link()
    link.take(0, report(HOST, RecordKind.IS_EXCLUDE, version=2))
    link.take(0, report("10.0.0.9", RecordKind.IS_EXCLUDE))
    link.take(200, report(OTHER, RecordKind.IS_EXCLUDE, version=2))
    assert kinds(link.expire(INTERVAL)) == [("timeout", "10.0.0.9")]
    assert link.hosts(GROUP) == [HOST, OTHER]
    assert link.has_older(GROUP)
    assert kinds(link.expire(200 + INTERVAL)) == [("timeout", HOST), ("timeout", OTHER)]


@pytest.mark.parametrize(
    ("records", "expected"),
    [
        ([("ALLOW", "a"), ("ALLOW", "b")], (True, {"a", "b"})),
        ([("ALLOW", "a"), ("IS_INCLUDE", "b")], (True, {"a", "b"})),
        ([("TO_INCLUDE", "ab"), ("BLOCK", "a")], (True, {"b"})),
        ([("TO_INCLUDE", "ab"), ("BLOCK", "ab")], None),
        ([("TO_INCLUDE", "a"), ("TO_EXCLUDE", "b")], (False, {"b"})),
        ([("TO_EXCLUDE", "ab"), ("ALLOW", "a")], (False, {"b"})),
        ([("TO_EXCLUDE", "a"), ("BLOCK", "b")], (False, {"a", "b"})),
        ([("TO_EXCLUDE", "a"), ("IS_INCLUDE", "b")], (False, {"a"})),
        ([("TO_EXCLUDE", "a"), ("TO_INCLUDE", "b")], (True, {"b"})),
        ([("BLOCK", "a")], None),
    ],
)
def test_sources(records: list[tuple[str, str]], expected: tuple[bool, set[str]] | None) -> None:
    """Records change the filter of a host as RFC 3376, 5.1, has sent them; each letter is a source."""
    link = Link()
    for kind, sources in records:
        link.take(0, report(HOST, RecordKind[kind], *sources))
    member = link.members.get((GROUP, HOST))
    assert (member and (member.includes, set(member.sources))) == expected


def test_a_source_times_out_alone() -> None:
    """A query for one source lowers only its timer."""
    link = Link()
    link.take(0, report(HOST, RecordKind.TO_INCLUDE, "a", "b"))
    link.take(1, query("10.0.0.1", GROUP, "a", response=1.0))
    (event,) = link.expire(3)
    assert (event.kind, event.sources) == ("change", ("b",))


def test_spoofed_groups_are_bounded_and_said() -> None:
    """2^20 groups take no more than the limit; the link says so once, and has room again after their timeout."""
    link = Link()
    events = []
    for number in range(1 << 20):
        group = f"239.{number >> 16}.{number >> 8 & 255}.{number & 255}"
        events += link.take(0, report(HOST, RecordKind.TO_EXCLUDE, group=group))
    assert len(link.members) == 8192
    assert link.refused == (1 << 20) - 8192
    assert [event.kind for event in events].count("full") == 1
    assert len(link.expire(INTERVAL)) == 8192
    assert kinds(link.take(INTERVAL, report(HOST, RecordKind.TO_EXCLUDE))) == [("join", HOST)]


HOSTS = st.sampled_from(["0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"])
GROUPS = st.sampled_from(["239.0.0.1", "239.0.0.2", "239.0.0.3"])
SOURCES = st.lists(st.sampled_from("abcde")).map(tuple)
RECORDS = st.lists(st.builds(GroupRecord, st.sampled_from(RecordKind), GROUPS, SOURCES), max_size=4).map(tuple)
TIMES = st.floats(0, 300)
QUERIES = st.builds(
    GroupQuery, st.sampled_from([1, 2, 3]), st.none() | GROUPS, SOURCES, TIMES, st.booleans(), st.integers(1, 7), TIMES
)
MESSAGES = st.builds(GroupMessage, HOSTS, QUERIES | st.builds(GroupReport, st.sampled_from([1, 2, 3]), RECORDS))


@given(st.lists(st.tuples(TIMES, MESSAGES), max_size=40))
def test_any_sequence_keeps_the_bound_and_empties_in_the_end(steps: list[tuple[float, GroupMessage]]) -> None:
    """Joins minus leaves and timeouts are the members; the size is within the limit; all of it times out."""
    link, now, present = Link(limit=12), 0.0, set[tuple[str | None, str]]()

    def follow(events: list[Event]) -> None:
        for event in events:
            if event.kind == "join":
                present.add((event.group, event.host))
            elif event.kind in ("leave", "timeout"):
                present.remove((event.group, event.host))

    for step, message in steps:
        now += step
        follow(link.take(now, message))
        assert present == set(link.members)
        assert sum(1 + len(member.sources) for member in link.members.values()) <= 12
        assert link.next_timeout < inf or not (link.members or link.querier)
    follow(link.expire(now + 1e6))
    assert not present
    assert not link.members
    assert link.querier is None


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


# What Linux sent when a program joined and left (239.1.2.3, source 10.0.0.1) and ff15::1:2, captured on a veth.
_V4 = "46c0002c000040000102f9ee0a000007e000001694040000"
_V6 = "6000000000240001fe800000000000000000000000000007ff0200000000000000000000000000163a00050200000100"
FROM_LINUX = [
    bytes.fromhex(_V4 + "2200ddf70000000105000001ef0102030a000001"),
    bytes.fromhex(_V6 + "8f006fee0000000104000000ff150000000000000000000000010002"),
    bytes.fromhex(_V4 + "2200dcf70000000106000001ef0102030a000001"),
    bytes.fromhex(_V6 + "8f0070ee0000000103000000ff150000000000000000000000010002"),
]


def test_reports_of_linux() -> None:
    """Two hosts join and leave, by IGMPv3 with a source and by MLDv2."""
    links = {4: Link(), 6: Link()}
    events = []
    for packet in FROM_LINUX:
        message = parse_group_message(packet)
        assert message is not None
        events += links[packet[0] >> 4].take(0, message)
    assert events == [
        Event(0, "join", HOST, GROUP, True, ("10.0.0.1",), 3),
        Event(0, "join", "fe80::7", "ff15::1:2", False, (), 2),
        Event(0, "leave", HOST, GROUP, False, ("10.0.0.1",), 3),
        Event(0, "leave", "fe80::7", "ff15::1:2", True, (), 2),
    ]


@pytest.mark.parametrize(
    ("at", "byte"),
    [(7, 64), (8, 0x20), (42, 1), (44, 1), (6, ICMPV6)],
    ids=["hop limit", "global address", "no router alert", "another router alert", "no hop-by-hop header"],
)
def test_mld_from_farther_than_the_link_is_ignored(at: int, byte: int) -> None:
    """A message that a router must ignore (RFC 3810, 6.2) is ignored."""
    packet = bytearray(FROM_LINUX[1])
    packet[at] = byte
    assert parse_group_message(bytes(packet)) is None


def test_mutated_packets() -> None:
    """10^5 mutations, most with a right checksum, raise nothing and keep the bound; many of them are understood."""
    random, understood, now = Random(1), 0, 0.0
    links = {4: Link(limit=100), 6: Link(limit=100)}
    seeds = [*FROM_LINUX, *map(build_group_message, GENERAL)]
    for _ in range(100_000):
        packet = bytearray(random.choice(seeds))
        version, start = packet[0] >> 4, 24 if packet[0] >> 4 == 4 else 48
        for _ in range(random.randrange(1, 4)):
            packet[random.randrange(12, len(packet))] = random.choice([0, 1, 2, 8, 255, random.randrange(256)])
        message = bytes(packet[start : start + 2]) + b"\0\0" + bytes(packet[start + 4 :])
        if random.random() < 0.9:
            right = internet_checksum(message)
            if version == 6:
                source, destination = address_text(bytes(packet[8:24])), address_text(bytes(packet[24:40]))
                right = upper_layer_checksum(source, destination, ICMPV6, message)
            packet[start + 2 : start + 4] = pack("!H", right)
        parsed = parse_group_message(bytes(packet))
        now += random.random()
        if parsed is not None:
            understood += 1
            link = links[version]
            link.take(now, parsed)
            assert sum(1 + len(member.sources) for member in link.members.values()) <= 100
    assert understood > 20_000
