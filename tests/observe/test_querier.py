"""The state machine of a querier: start-up, elections, last members; alone, and several on one simulated link."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.observe.members import Event, rank
from multicast_expert.observe.querier import PENDING, QUERY_SOURCES, LinkQuerier, QuerierSettings, Step
from multicast_expert.wire.group_messages import (
    GroupMessage,
    GroupQuery,
    GroupRecord,
    GroupReport,
    RecordKind,
    build_group_message,
    parse_group_message,
)

OURS, LOWER, HIGHER, HOST, OTHER = "10.0.0.5", "10.0.0.4", "10.0.0.10", "10.0.0.20", "10.0.0.21"
GROUP = "239.1.2.3"
NEW = QuerierSettings(3)


def query(host: str, group: str | None = None, *sources: str, response: float = 10.0, version: int = 3) -> GroupMessage:
    """A query of another querier with the default timers."""
    return GroupMessage(host, GroupQuery(version, group, sources, response, interval=125.0))


def report(host: str, kind: RecordKind, *sources: str, version: int = 3, group: str = GROUP) -> GroupMessage:
    """A report with one record."""
    return GroupMessage(host, GroupReport(version, (GroupRecord(kind, group, sources),)))


def run(querier: LinkQuerier, until: float) -> list[tuple[float, GroupQuery]]:
    """Let the time pass; return the queries with their times."""
    asked: list[tuple[float, GroupQuery]] = []
    while (now := querier.next_timeout) <= until:
        asked += [(now, each) for each in querier.step(now).queries]
    return asked


def started(settings: QuerierSettings = NEW, address: str = OURS) -> LinkQuerier:
    """A querier after its start-up, at 40 seconds."""
    querier = LinkQuerier(address, settings, 0.0)
    run(querier, 40)
    return querier


def kinds(step: Step) -> list[str]:
    """What happened."""
    return [event.kind for event in step.events]


@pytest.mark.parametrize(
    ("settings", "address"),
    [
        (QuerierSettings(3), OURS),
        (QuerierSettings(2), OURS),
        (QuerierSettings(1), "fe80::5"),
        (QuerierSettings(2, robustness=3), "fe80::5"),
    ],
)
def test_general_queries(settings: QuerierSettings, address: str) -> None:
    """As many start-up queries as the robustness, a quarter of the interval apart, then one each interval."""
    querier = LinkQuerier(address, settings, 0.0)
    asked = run(querier, 700)
    early = settings.robustness - 1
    assert [later - time for (time, _), (later, _) in pairwise(asked)][:early] == [31.25] * early
    assert {later - time for (time, _), (later, _) in pairwise(asked[early:])} == {125.0}
    assert asked[0][0] == 0
    newest = settings.version == (2 if ":" in address else 3)
    expected = GroupQuery(settings.version, None, (), 10.0, False, settings.robustness, 125.0 if newest else None)
    assert {each for _, each in asked} == {expected}
    assert querier.link.querier is not None
    assert querier.link.querier.address == address


def test_a_query_that_could_not_be_sent() -> None:
    """The start-up begins anew a second later, and again until it works."""
    querier = LinkQuerier(OURS, NEW, 0.0)
    for now in (0.0, 1.0, 2.0):
        assert querier.step(now).queries
        querier.repeat(now)
    assert [time for time, _ in run(querier, 200)] == [3.0, 34.25, 159.25]


def test_a_lower_address_silences_it_until_it_is_lost() -> None:
    """Also if it is about a group; 255 s after the last query it asks again at once, and then each interval."""
    querier = started()
    assert querier.step(50, query(HIGHER)).queries == []
    assert querier.is_elected
    assert kinds(querier.step(60, query(LOWER))) == ["query", "querier"]
    querier.step(100, query(LOWER, GROUP, response=1.0))
    assert not querier.is_elected
    assert run(querier, 354) == []
    assert kinds(querier.step(355)) == ["querier-lost", "query", "querier"]
    assert [time for time, _ in run(querier, 610)] == [480, 605]


def test_a_start_up_that_a_better_querier_cut_short_is_over() -> None:
    """When that one is lost it asks at its usual interval: the hosts of the link have been asked meanwhile."""
    querier = LinkQuerier(OURS, QuerierSettings(3, robustness=4), 0.0)
    assert len(querier.step(0.0).queries) == 1
    querier.step(1.0, query(LOWER))
    assert [time for time, _ in run(querier, 400)] == [256, 381]


def test_nobody_is_silenced_by_the_unspecified_address() -> None:
    """0.0.0.0 wins over no querier, and as our own address over none either."""
    querier = started()
    querier.step(50, query("0.0.0.0"))
    assert querier.is_elected
    bare = started(address="0.0.0.0")
    assert bare.is_elected
    bare.step(50, query("0.0.0.0"))
    assert bare.is_elected
    bare.step(51, query("255.255.255.254"))
    assert not bare.is_elected
    assert [time for time, _ in run(bare, 310)] == [306]


def test_another_version_is_said_once() -> None:
    """RFC 3376, 7.3.1: all queriers of a link have to use one version."""
    querier = started()
    assert kinds(querier.step(50, query(HIGHER, version=2))) == ["query", "version"]
    assert kinds(querier.step(51, query(HIGHER, version=2))) == ["query"]
    assert kinds(querier.step(52, query("10.0.0.11", version=2))) == ["query", "version"]


@pytest.mark.parametrize(
    ("version", "address", "kind"),
    [(2, OURS, RecordKind.IS_EXCLUDE), (3, OURS, RecordKind.TO_EXCLUDE), (1, "fe80::5", RecordKind.IS_EXCLUDE)],
)
def test_the_last_member(version: int, address: str, kind: RecordKind) -> None:
    """After a leave the group is asked about twice, a second apart, and a silent member is forgotten after two."""
    querier = started(QuerierSettings(version), address)
    group, hosts = ("ff15::1", ["fe80::20", "fe80::21"]) if ":" in address else (GROUP, [HOST, OTHER])
    for host in hosts:
        querier.step(41, report(host, kind, version=version, group=group))
    step = querier.step(50, report(hosts[0], RecordKind.TO_INCLUDE, version=version, group=group))
    assert kinds(step) == ["leave", "query"]
    asked = [(50.0, *step.queries), *run(querier, 51.9)]
    interval = 125.0 if version == 3 else None
    expected = GroupQuery(version, group, (), 1.0, False, 2, interval)
    assert asked == [(50.0, expected), (51.0, expected)]
    assert kinds(querier.step(52)) == ["timeout"]
    assert querier.link.members == {}
    assert querier.step(53, report(hosts[0], RecordKind.TO_INCLUDE, version=version, group=group)).queries == []


def test_a_member_that_answers_stays_and_suppresses() -> None:
    """The query after the answer has the S flag, so that other routers keep their timers too."""
    querier = started()
    for host in (HOST, OTHER):
        querier.step(41, report(host, RecordKind.TO_EXCLUDE))
    first = querier.step(50, report(HOST, RecordKind.TO_INCLUDE)).queries
    querier.step(50.3, report(OTHER, RecordKind.IS_EXCLUDE))
    second = [each for _, each in run(querier, 60)]
    assert [each.keeps_timers for each in first + second] == [False, True]
    assert querier.link.hosts(GROUP) == [OTHER]


@pytest.mark.parametrize(
    ("first", "second", "asked"),
    [
        ([("TO_INCLUDE", "abc")], ("BLOCK", "ab"), {"ab"}),
        ([("TO_INCLUDE", "abc")], ("TO_INCLUDE", "c"), {"ab"}),
        ([("TO_INCLUDE", "abc")], ("TO_INCLUDE", ""), {"abc"}),
        ([("TO_INCLUDE", "abc")], ("TO_EXCLUDE", "bd"), {"b"}),
        ([("TO_EXCLUDE", "a")], ("BLOCK", "b"), {"b"}),
        ([("TO_EXCLUDE", "a")], ("TO_EXCLUDE", "ab"), {"b"}),
        ([("TO_EXCLUDE", "a")], ("TO_INCLUDE", "b"), {""}),
        ([("TO_EXCLUDE", "a")], ("ALLOW", "a"), set()),
        ([("TO_INCLUDE", "a")], ("ALLOW", "b"), set()),
        ([], ("BLOCK", "a"), set()),
        ([], ("TO_INCLUDE", ""), set()),
    ],
)
def test_sources_that_a_host_gives_up(first: list[tuple[str, str]], second: tuple[str, str], asked: set[str]) -> None:
    """RFC 3376, 6.4: a query for exactly these sources, or for the group if the host no longer wants any source."""
    querier = started()
    for kind, sources in [*first, second]:
        step = querier.step(50, report(HOST, RecordKind[kind], *sources))
    assert {"".join(each.sources) for each in step.queries} == asked
    assert {each.group for each in step.queries} <= {GROUP}


def test_sources_are_asked_apart_once_one_is_confirmed() -> None:
    """Of two sources that a host blocked another one confirms the first: only its query has the S flag."""
    querier = started()
    for host in (HOST, OTHER):
        querier.step(41, report(host, RecordKind.TO_INCLUDE, "10.9.0.1", "10.9.0.2"))
    (first,) = querier.step(50, report(HOST, RecordKind.BLOCK, "10.9.0.1", "10.9.0.2")).queries
    assert first.sources == ("10.9.0.1", "10.9.0.2")
    querier.step(50.5, report(OTHER, RecordKind.IS_INCLUDE, "10.9.0.1"))
    assert [(each.sources, each.keeps_timers) for _, each in run(querier, 51)] == [
        (("10.9.0.2",), False),
        (("10.9.0.1",), True),
    ]
    run(querier, 53)
    assert set(querier.link.members[GROUP, OTHER].sources) == {"10.9.0.1"}


def test_older_members_make_sources_void() -> None:
    """RFC 3376, 7.3.2: with a member of IGMPv2 in the group, BLOCK means nothing."""
    querier = started()
    querier.step(41, report(HOST, RecordKind.TO_INCLUDE, "10.9.0.1", "10.9.0.2"))
    querier.step(41, report(OTHER, RecordKind.IS_EXCLUDE, version=2))
    assert querier.step(50, report(HOST, RecordKind.BLOCK, "10.9.0.1")).queries == []


def test_a_member_of_the_first_version_keeps_leavers() -> None:
    """RFC 3376, 7.3.2: it answers no query for a group, so that leaves are ignored while it is there."""
    querier = started()
    querier.step(41, report(HOST, RecordKind.IS_EXCLUDE, version=1))
    querier.step(42, report(OTHER, RecordKind.IS_EXCLUDE, version=2))
    assert querier.step(50, report(OTHER, RecordKind.TO_INCLUDE, version=2)).queries == []
    assert querier.link.hosts(GROUP) == [HOST]
    querier.step(400, report(HOST, RecordKind.IS_EXCLUDE, version=2))
    assert querier.step(410, report(HOST, RecordKind.TO_INCLUDE, version=2)).queries != []


def test_a_silent_querier_asks_for_no_last_member() -> None:
    """The elected one does; what it asks lowers our timers as well."""
    querier = started()
    querier.step(41, query(LOWER))
    querier.step(42, report(HOST, RecordKind.IS_EXCLUDE, version=2))
    assert querier.step(50, report(HOST, RecordKind.TO_INCLUDE, version=2)).queries == []
    querier.step(51, report(OTHER, RecordKind.IS_EXCLUDE))
    querier.step(52, query(LOWER, GROUP, response=1.0))
    assert run(querier, 53.9) == []
    assert kinds(querier.step(54)) == ["timeout"]


def test_leaves_are_bounded() -> None:
    """A flood of leaves makes no more searches than the limit, and many sources make packets that fit."""
    querier = started()
    for number in range(2 * PENDING):
        group = f"239.2.{number >> 8}.{number & 255}"
        querier.step(41, report(HOST, RecordKind.TO_EXCLUDE, group=group))
        querier.step(41, report(HOST, RecordKind.TO_INCLUDE, group=group))
    assert querier.neglected == PENDING
    assert len(run(querier, 60)) == PENDING
    sources = [f"10.9.{number >> 8}.{number & 255}" for number in range(300)]
    querier.step(70, report(HOST, RecordKind.TO_INCLUDE, *sources))
    asked = querier.step(71, report(HOST, RecordKind.TO_INCLUDE)).queries
    assert sorted(source for each in asked for source in each.sources) == sorted(sources)
    assert max(len(each.sources) for each in asked) == QUERY_SOURCES


@pytest.mark.parametrize(
    "wrong",
    [
        {"robustness": 0},
        {"robustness": 8},
        {"interval": 10.0},
        {"interval": 40000.0},
        {"response_time": 30.0},
        {"response_time": 0.0},
        {"last_member_interval": 0.0},
        {"interval": float("nan")},
    ],
)
def test_timers_that_make_no_sense(wrong: dict[str, float]) -> None:
    """They are named in the error."""
    with pytest.raises(ValueError, match="it must be"):
        QuerierSettings(3, **wrong)


ADDRESSES = st.lists(st.sampled_from(["0.0.0.0", *(f"10.0.0.{number}" for number in range(1, 12))]), unique=True)


class SimulatedLink:
    """Queriers that hear each other: what one asks is built, parsed and taken by all others at once."""

    def __init__(self, addresses: list[str], settings: QuerierSettings) -> None:
        self.queriers = {address: LinkQuerier(address, settings, 0.0) for address in addresses}
        self.asked: list[tuple[float, str]] = []
        self.events: list[Event] = []

    def run(self, until: float) -> None:
        """Let the time pass."""
        while self.queriers:
            address, querier = min(self.queriers.items(), key=lambda each: each[1].next_timeout)
            now = querier.next_timeout
            if now > until:
                return
            self.deliver(now, address, querier.step(now))

    def deliver(self, now: float, address: str, step: Step) -> None:
        """Hand the queries of a step to all others."""
        self.events += step.events
        for each in step.queries:
            self.asked.append((now, address))
            message = parse_group_message(build_group_message(GroupMessage(address, each)))
            assert message == GroupMessage(address, each)
            for other, querier in list(self.queriers.items()):
                if other != address:
                    self.deliver(now, other, querier.step(now, message))


@given(ADDRESSES.filter(bool), st.sampled_from([QuerierSettings(3), QuerierSettings(2), QuerierSettings(3, 20, 2, 3)]))
def test_the_lowest_of_those_that_live_asks(addresses: list[str], settings: QuerierSettings) -> None:
    """Each time the elected querier dies, exactly the next one asks, at the latest when the other counts as lost."""
    link, now = SimulatedLink(addresses, settings), 0.0
    for expected in sorted(addresses, key=rank):
        now += settings.timers.other_querier + settings.interval
        link.run(now)
        link.asked.clear()
        now += 3 * settings.interval
        link.run(now)
        assert {address for _, address in link.asked} == {expected}
        assert len(link.asked) in (2, 3)
        assert [address for address, each in link.queriers.items() if each.is_elected] == [expected]
        del link.queriers[expected]
