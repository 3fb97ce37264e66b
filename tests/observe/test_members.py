"""The state machine of a link, fed with messages by hand, with random ones and with those of Linux."""

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.observe.members import LIMIT, Event, Link
from multicast_expert.wire.group_messages import (
    GroupMessage,
    GroupQuery,
    GroupRecord,
    GroupReport,
    RecordKind,
    parse_group_message,
)
from wire.recorded import FROM_LINUX

GROUP, HOST, OTHER = "239.1.2.3", "10.0.0.7", "10.0.0.8"
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


def test_an_older_host_that_left_has_no_timer_any_more() -> None:
    """Nor has its group, when it was the only member, or the only one that spoke an older version."""
    link = Link()
    link.take(0, report(HOST, RecordKind.IS_EXCLUDE, version=2))
    assert kinds(link.take(1, report(HOST, RecordKind.TO_INCLUDE, version=2))) == [("leave", HOST)]
    assert link.expire(2 * INTERVAL) == []
    link.take(1000, report(HOST, RecordKind.IS_EXCLUDE, version=2))
    link.take(1100, report(OTHER, RecordKind.IS_EXCLUDE))
    link.take(1200, report(HOST, RecordKind.TO_INCLUDE, version=2))
    assert kinds(link.expire(1100 + INTERVAL)) == [("timeout", OTHER)]
    assert (link.members, link.expire(1e6)) == ({}, [])


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


def spoofed(what: str, number: int) -> GroupMessage:
    """A report that invents a group, a host or 64 sources."""
    text = f"{number >> 16}.{number >> 8 & 255}.{number & 255}"
    if what == "hosts":
        return report(f"10.{text}", RecordKind.IS_EXCLUDE, version=2)
    if what == "groups":
        return report(HOST, RecordKind.TO_EXCLUDE, group=f"239.{text}")
    sources = [f"10.{number >> 8}.{number & 255}.{last}" for last in range(64)]
    return report(HOST, RecordKind.ALLOW, *sources, group=f"239.0.0.{number & 255}")


@pytest.mark.slow
@pytest.mark.parametrize(("what", "count"), [("groups", 1 << 20), ("hosts", 1 << 17), ("sources", 1 << 14)])
def test_spoofed_members_are_bounded_and_said(what: str, count: int) -> None:
    """2^20 groups or sources take no more room than the limit; the link says so once, and empties in time."""
    link, said = Link(), 0
    for number in range(count):
        said += sum(event.kind == "full" for event in link.take(number * 10 / count, spoofed(what, number)))
    assert sum(1 + len(member.sources) for member in link.members.values()) <= LIMIT
    assert len(link._queue) <= 4 * LIMIT
    assert link.refused >= count - 2 * LIMIT
    assert said == 1
    assert link.is_full
    known = len(link.members)
    assert len(link.expire(INTERVAL + 11)) == known
    assert link._queue == []
    assert kinds(link.take(INTERVAL + 12, report(HOST, RecordKind.TO_EXCLUDE))) == [("join", HOST)]


HOSTS = st.sampled_from(["0.0.0.0", "10.0.0.1", "10.0.0.2", "10.0.0.3"])
GROUPS = st.sampled_from(["239.0.0.1", "239.0.0.2", "239.0.0.3"])
SOURCES = st.lists(st.sampled_from("abcde")).map(tuple)
RECORDS = st.lists(st.builds(GroupRecord, st.sampled_from(RecordKind), GROUPS, SOURCES), max_size=4).map(tuple)
TIMES = st.floats(0, 300)
QUERIES = st.builds(
    GroupQuery, st.sampled_from([1, 2, 3]), st.none() | GROUPS, SOURCES, TIMES, st.booleans(), st.integers(1, 7), TIMES
)
MESSAGES = st.builds(GroupMessage, HOSTS, QUERIES | st.builds(GroupReport, st.sampled_from([1, 2, 3]), RECORDS))


@pytest.mark.slow
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


def test_a_query_for_a_group_concerns_those_that_receive_from_all_sources() -> None:
    """RFC 3376, 6.6.1: it lowers the timer of the group only, a query for sources those of the sources only."""
    link = Link()
    link.take(0, report(HOST, RecordKind.IS_EXCLUDE))
    link.take(0, report(OTHER, RecordKind.IS_INCLUDE, "10.9.0.1", "10.9.0.2"))
    link.take(1, query("10.0.0.1", GROUP, response=1.0))
    assert kinds(link.expire(4)) == [("timeout", HOST)]
    link.take(5, query("10.0.0.1", GROUP, "10.9.0.1", response=1.0))
    assert kinds(link.expire(8)) == [("change", OTHER)]
    assert link.members[GROUP, OTHER].sources.keys() == {"10.9.0.2"}


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
