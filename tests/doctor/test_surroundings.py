"""What the doctor shows around the target: queriers, other members, and the ports that datagrams go to."""

import json
from dataclasses import replace

import pytest

from doctor.hand_made import (
    ETH0,
    GROUP,
    LO,
    OWN,
    QUERY,
    ROOT_ONLY,
    TALKER,
    arrivals,
    bridge,
    change,
    deaf,
    frames,
    healthy,
    unprivileged,
)
from multicast_expert.cli.render.doctor import headline, report_lines
from multicast_expert.cli.render.surroundings import surrounding_texts
from multicast_expert.doctor.facts import Facts, Trial, Unread
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.saved import facts_from_text, facts_to_text
from multicast_expert.doctor.unread import unread_facts
from multicast_expert.wire import tallies
from multicast_expert.wire.group_messages import GroupQuery, GroupRecord, GroupReport, RecordKind
from multicast_expert.wire.tallies import Queries, QueryTally, Reporter, ReportTally

MEMBER = Reporter("eth0", "10.1.0.9", 3)
PORTLESS = deaf(port=None, frames=(frames(12, port=5001), frames(3, port=5002)), reporters=())
MLD = Queries("eth0", 2, "fe80::fe", 1, 1)


def texts(facts: Facts) -> list[str]:
    """The lines about the surroundings."""
    return list(surrounding_texts(judge(facts), facts))


@pytest.mark.parametrize(
    ("facts", "shown"),
    [
        (healthy(reporters=(MEMBER,)),
         ["Querier: 10.1.0.254 on eth0 (IGMPv3, every 1 s)", "Members: 10.1.0.9 on eth0 (IGMPv3)"]),
        (healthy(reporters=(), queries=(replace(QUERY, announced=125.0),)),
         ["Querier: 10.1.0.254 on eth0 (IGMPv3, every 125 s)", "Members: no other host reported the group in 2 s"]),
        (deaf(reporters=()), ["Querier: none in 2 s"]),
        # A query for one group, and one on another interface, say nothing about a querier here.
        (deaf(reporters=(), queries=(replace(QUERY, for_group=True), replace(QUERY, interface="eth7"))),
         ["Querier: none in 2 s"]),
        (deaf(reporters=(replace(MEMBER, host=OWN), replace(MEMBER, host="0.0.0.0", sources=(TALKER,)))),
         ["Querier: none in 2 s", "Members: one without an address on eth0 (IGMPv3, only from 10.1.0.2)"]),
        (unprivileged(healthy()), []),
        (unprivileged(deaf()), ["Querier, members: Raw frames and queries are shown to root only"]),
        (unprivileged(deaf(bridges=(bridge(name="eth0", other_querier="10.1.0.77"),))),
         ["Querier: 10.1.0.77 on eth0"]),
        (deaf("ff15::1", queries=(MLD,), reporters=()),
         ["Querier: fe80::fe on eth0 (MLDv2)", "Members: no other host reported the group in 2 s"]),
        (unprivileged(deaf("ff15::1", interface_counters={"eth0": {"Icmp6InGroupMembQueries": 2}})),
         ["Querier: one on eth0 (MLD)"]),
        (PORTLESS, ["Ports: 5001 from 10.1.0.2 on eth0 (12 datagrams); 5002 from 10.1.0.2 on eth0 (3 datagrams)",
                    "Querier: none in 2 s"]),
        (healthy(port_found=True, queries=()),
         ["Ports: 5000 from 10.1.0.2 on eth0 (100 datagrams)", "Querier: none in 2 s"]),
        (healthy(interfaces=(LO, replace(ETH0, chosen=False), replace(LO, name="lo0", chosen=True))), []),
    ],
)  # fmt: skip
def test_what_is_shown(facts: Facts, shown: list[str]) -> None:
    """A line for each, and none where it would only be noise."""
    assert texts(facts) == shown


def test_in_json() -> None:
    """What was seen is in one key, as lists; null stands for what could not be seen."""
    seen = json.loads(json.dumps(judge(healthy(reporters=(MEMBER,))).as_dict()))["seen"]
    assert seen == {
        "queriers": [{"interface": "eth0", "address": "10.1.0.254", "protocol": "IGMPv3", "interval": 1.0}],
        "members": [{"interface": "eth0", "address": "10.1.0.9", "protocol": "IGMPv3", "sources": []}],
        "streams": [{"interface": "eth0", "port": 5000, "sender": TALKER, "count": 100}],
    }
    hidden = judge(unprivileged(deaf())).as_dict()["seen"]
    assert hidden == {"queriers": None, "members": None, "streams": None}
    assert judge(change(deaf(), trial=Unread("No trial."))).as_dict()["seen"] is None


def test_many_are_not_all_listed() -> None:
    """A crowd is cut, and its size is told."""
    crowd = tuple(replace(MEMBER, host=f"10.1.1.{number}") for number in range(50))
    (_, members) = texts(healthy(reporters=crowd))
    assert members.endswith("; and 44 more")


def test_a_port_that_nobody_named_is_the_headline() -> None:
    """The report begins with it; where the port was found, as if it had been named."""
    assert [line.plain for line in headline(judge(PORTLESS), PORTLESS, 200)] == [
        "239.1.2.3 comes in for port 5001: name the port to find out more."
    ]
    found = healthy(port_found=True)
    assert next(headline(judge(found), found, 200)).plain.startswith("239.1.2.3:5000 arrives: 100 datagrams")


def test_saved() -> None:
    """What was seen is saved with the facts; older files say that they do not know it."""
    facts = healthy(reporters=(MEMBER,), port_found=True)
    assert facts_from_text(facts_to_text(facts)) == facts
    old = json.loads(facts_to_text(facts))
    del old["facts"]["trial"]["reporters"]
    trial = facts_from_text(json.dumps(old)).trial
    assert isinstance(trial, Trial)
    assert isinstance(trial.reporters, Unread)


# From the wire


def record(kind: RecordKind, *sources: str, group: str = GROUP) -> GroupReport:
    """A report of one record."""
    return GroupReport(3, (GroupRecord(kind, group, sources),))


def test_who_is_a_member() -> None:
    """A host is one from its report until it leaves; ALLOW and BLOCK change nothing but sources."""
    tally = ReportTally(GROUP)
    tally.note("eth0", "10.1.0.9", record(RecordKind.TO_EXCLUDE))
    tally.note("eth0", "10.1.0.8", record(RecordKind.IS_EXCLUDE, group="239.9.9.9"))
    tally.note("eth0", "10.1.0.7", record(RecordKind.IS_INCLUDE, TALKER))
    tally.note("eth0", "10.1.0.9", record(RecordKind.BLOCK, TALKER))
    assert tally.reporters() == (MEMBER, Reporter("eth0", "10.1.0.7", 3, (TALKER,)))
    tally.note("eth0", "10.1.0.9", record(RecordKind.TO_INCLUDE))
    assert [each.host for each in tally.reporters()] == ["10.1.0.7"]


def test_a_flood_of_members_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Invented hosts take bounded memory, and known ones are still followed."""
    monkeypatch.setattr(tallies, "KINDS", 3)
    tally = ReportTally(GROUP)
    for number in range(9):
        tally.note("eth0", f"10.1.1.{number}", record(RecordKind.IS_EXCLUDE))
    tally.note("eth0", "10.1.1.1", record(RecordKind.TO_INCLUDE))
    assert [each.host for each in tally.reporters()] == ["10.1.1.0", "10.1.1.2"]


def test_the_announced_interval() -> None:
    """A querier of IGMPv3 names its interval, so that one query is enough to know it (RFC 3376, 4.1.7)."""
    tally = QueryTally()
    tally.note("eth0", "10.0.0.254", GroupQuery(3, None, (), 10.0, interval=125.0), 1.0, delivered=False)
    tally.note("eth0", "10.0.0.254", GroupQuery(3, None, (), 10.0), 1.0, delivered=True)
    assert tally.queries()[0].announced == 125.0


# -v


def test_what_was_fine_and_what_was_not_read() -> None:
    """With -v each check that is content says why, and each fact that is missing says why it is."""
    facts = unprivileged(deaf())
    report = judge(facts)
    short = [line.plain for line in report_lines(report, facts, "now", 200)]
    long = [line.plain for line in report_lines(report, facts, "now", 200, verbose=True)]
    fine = [each for each in report.findings if each.verdict == "ok"]
    assert f"Fine: {len(fine)} checks (-v lists them)" in short
    at = long.index("Fine:")
    for each in fine:
        assert any(each.check in line and each.summary in line for line in long[at:])
    assert ("frames", ROOT_ONLY) in unread_facts(facts)
    missing = long[long.index("Not read:") :]
    assert any(line.startswith("  frames, queries: Raw frames") for line in missing), missing
    assert any(line.startswith("  firewall: ") or "the firewall: " in line for line in missing)


def test_all_was_read() -> None:
    """Where nothing is missing, nothing is said about it."""
    facts = healthy(reporters=(), drops=(), lookups=(), failed_sends=())
    assert list(unread_facts(facts)) == []
    assert "Not read:" not in [line.plain for line in report_lines(judge(facts), facts, "now", 200, verbose=True)]


def test_arrivals_without_frames_are_streams() -> None:
    """What arrived is a stream also where nothing was captured."""
    found = judge(unprivileged(healthy(arrivals=(arrivals(7),)))).seen
    assert found is not None
    assert found.streams is not None
    assert [(each.port, each.count) for each in found.streams] == [(5000, 7)]
