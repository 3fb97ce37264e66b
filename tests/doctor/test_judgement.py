"""The report on all checks: which cause is named where several facts point to one, and what becomes of a bad check."""

import shlex
from dataclasses import replace
from ipaddress import ip_address

import pytest

from doctor.hand_made import (
    ETH0,
    ETH1,
    LO,
    OWN,
    QUERY,
    TALKER,
    arrivals,
    change,
    counted,
    deaf,
    frames,
    healthy,
    joined,
    rule,
    set_to,
    socket,
    unprivileged,
)
from multicast_expert.doctor import judgement
from multicast_expert.doctor.checks import CHECKS, check_name
from multicast_expert.doctor.facts import Facts, JoinTrial, Route, Unread
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.pages import PAGES
from multicast_expert.doctor.report import Finding

NAMES = [check_name(check) for check in CHECKS]
CAUSES = {
    "group-address", "interface-down", "interface-address", "send-route", "loopback-route", "membership",
    "membership-limit", "source-filter", "port", "wrong-interface", "port-conflict", "reverse-path-filter",
    "local-source", "firewall", "receive-buffer", "checksum", "igmp-version", "querier", "query-blocked", "snooping",
    "ttl", "mtu", "container", "wireless", "macos-privacy", "no-traffic",
}  # fmt: skip
DOWN = replace(ETH0, is_up=False)
UNROUTABLE = frames(sender="172.16.9.9")
STRICT = set_to(deaf(), ipv4__conf__eth0__rp_filter="1")
FILTER = counted(Ip__InReceives=100, TcpExt__IPReversePathFilter=100)
CEASED = healthy(arrivals=(arrivals(50, last=1.0),), seconds=5.0, queries=())


@pytest.mark.parametrize(
    ("facts", "cause"),
    [
        (healthy(), None),
        (healthy("ff15::1"), None),
        (unprivileged(healthy()), None),
        (deaf(), "no-traffic"),
        (unprivileged(deaf()), "no-traffic"),
        (unprivileged(deaf(counters=counted(Ip__InReceives=9))), None),
        (deaf("232.1.2.3"), "group-address"),
        (deaf(interfaces=(LO, DOWN)), "interface-down"),
        (deaf(interfaces=(LO, replace(DOWN, addresses=()))), "interface-down"),
        (deaf("ff15::1", interfaces=(replace(ETH0, mtu=1200, addresses=()),)), "mtu"),
        (deaf(joins=(JoinTrial("eth0", None, "ENOBUFS", "Full."),)), "membership-limit"),
        (deaf(frames=(frames(port=5001),)), "port"),
        (deaf(frames=(frames(port=5001),), firewall=(rule(),)), "firewall"),
        (deaf(frames=(frames(),), firewall=(rule(),), counters=FILTER), "firewall"),
        (change(STRICT, frames=(UNROUTABLE,), counters=FILTER, routes=(Route("172.16.9.9", "eth1"),)),
         "reverse-path-filter"),
        # Queries are dropped, too, but what is lost now is lost by the rule.
        (deaf(frames=(frames(),), firewall=(rule(),), queries=(replace(QUERY, delivered=0),)), "firewall"),
        (change(CEASED, queries=(replace(QUERY, delivered=0),), revived=True), "query-blocked"),
        (change(CEASED, revived=True), "querier"),
        (deaf(source="10.1.0.9", arrivals=(arrivals(asked=False),)), "source-filter"),
        (deaf(interfaces=(LO, ETH0, ETH1), arrivals=(arrivals(interface="eth1", asked=False),)), "wrong-interface"),
        (healthy(memberships=(joined("eth1"),), sockets=(socket(),)), "membership"),
        (deaf(source="10.2.0.2", routes=(Route("10.2.0.2", "eth0", OWN, "10.1.0.254"),)), "no-traffic"),
        (deaf(frames=(frames(sender=OWN),)), "local-source"),
        (deaf(frames=(frames(sender="0.0.0.0"),)), "interface-address"),
        (deaf(frames=(frames(outgoing=True, sender=OWN),)), "local-sender"),
        (unprivileged(deaf(counters=counted(Ip__OutRequests=2, Ip__OutTransmits=0)), frames=()), "firewall"),
        # Counters that several things moved tell nobody's loss.
        (unprivileged(change(STRICT, counters={**FILTER, "Udp.IgnoredMulti": 100})), None),
        (unprivileged(change(STRICT, counters=FILTER)), "reverse-path-filter"),
        (unprivileged(change(STRICT, counters=FILTER), afterwards={"TcpExt.IPReversePathFilter": 50.0}), None),
        (unprivileged(deaf(counters=counted(Ip__InReceives=90, Ip__InDelivers=90, Udp__IgnoredMulti=90))), "port"),
    ],
)  # fmt: skip
def test_the_cause_that_is_named(facts: Facts, cause: str | None) -> None:
    """Of several things that are wrong, that one is named that the others follow from, and none without evidence."""
    report = judge(facts)
    weighty = [each for each in report.findings if each.verdict in ("problem", "suspect")]
    assert (report.cause and report.cause.check) == cause, weighty
    expected = "problem" if cause else "ok" if report.received else "unknown"
    assert report.verdict == expected


def test_datagrams_that_ceased_are_not_healthy() -> None:
    """Where datagrams ceased until the trial joined anew, and nothing tells why, it is not said that all is well."""
    report = judge(unprivileged(change(CEASED, revived=True, counters={})))
    assert (report.cause, report.verdict) == (None, "unknown")


def test_every_cause_has_its_check() -> None:
    """The causes are looked for, each by one check."""
    assert set(NAMES) >= CAUSES
    assert len(NAMES) == len(set(NAMES))
    assert [each.check for each in judge(healthy()).findings] == NAMES


def test_a_check_that_fails_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    """A check that crashes says so, and the others are heard all the same."""

    def broken_check(facts: Facts) -> Finding:
        raise ZeroDivisionError(f"no {facts.target.group}")

    monkeypatch.setattr(judgement, "CHECKS", (broken_check, *CHECKS))
    report = judge(deaf())
    first, *others = report.findings
    assert (first.check, first.verdict) == ("broken-check", "unknown")
    assert first.summary == "The check failed: ZeroDivisionError: no 239.1.2.3."
    assert [each.check for each in others] == NAMES
    assert report.cause is not None


@pytest.mark.parametrize("name", NAMES)
def test_every_check_has_a_page(name: str) -> None:
    """The page says in one sentence what it is, then why it matters, how to see it, and what to do."""
    page = PAGES[name]
    first, empty, *rest = page.splitlines()
    assert first.endswith(".")
    assert len(first) < 120
    assert empty == ""
    assert 12 <= len(page.splitlines()) <= 35
    assert "**How to see it:**" in page
    assert "**Cure:**" in page
    assert page.index("**How to see it:**") < page.index("**Cure:**")
    commands = [line for line in rest if line.startswith("    ")]
    assert commands or name == "macos-privacy"
    assert not any(line.startswith("#") for line in rest)


@pytest.mark.parametrize(
    "facts",
    [
        deaf(interfaces=(replace(DOWN, name="a;reboot"),)),
        deaf("ff15::1", interfaces=(replace(ETH0, name="$(reboot)", mtu=1000),)),
        deaf(frames=(frames(),), firewall=(rule(chain="inet filter `reboot`"),)),
        deaf(frames=(frames(),), firewall=(rule(tool="iptables", chain="filter |reboot"),)),
        deaf(queries=(replace(QUERY, querier="10.9.9.9", delivered=0, interface="x y"),),
             interfaces=(replace(ETH0, name="x y"),), counters=counted(TcpExt__IPReversePathFilter=3)),
    ],
)  # fmt: skip
def test_names_do_not_become_commands(facts: Facts) -> None:
    """What a hostile interface or file names itself stays one word of the command that a person copies."""
    commands = [line for finding in judge(facts).findings for line in finding.commands]
    assert commands
    for command in commands:
        assert ";reboot" not in command.replace("'a;reboot'", "")
        assert shlex.join(shlex.split(command)) == command


def test_unreadable_facts_are_unknown() -> None:
    """Where nothing is known, no cause is named."""
    nothing = Unread("Not read.")
    facts = replace(deaf(), interfaces=nothing, routes=nothing, memberships=nothing, settings={}, trial=nothing)
    report = judge(facts)
    assert (report.verdict, report.cause) == ("unknown", None)


def test_sources_are_compared_as_addresses() -> None:
    """How an address is written makes no difference."""
    facts = deaf("ff15::1:2:3", source="fd01:0::2", arrivals=(arrivals(group="FF15::1:2:3", sender="fd01::2"),))
    assert judge(facts).cause is None
    assert ip_address("fd01:0::2") == ip_address("fd01::2")
    assert TALKER != OWN
