"""What `mcast doctor` shows: a report, a page, a round of `--watch`."""

import io
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.conftest import Run
from cli.doctor_reports import AS_ROOT, FACTS, FINDINGS, FINE, NOON, PROBLEM, SUSPECT, TARGET
from multicast_expert.cli import terminal
from multicast_expert.cli.render.doctor import page_lines, report_lines, round_lines
from multicast_expert.cli.render.text import Line
from multicast_expert.doctor.facts import Facts, Machine, Target
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.report import Finding, Report, make_report
from multicast_expert.doctor.saved import facts_from_text

ROOT = Path(__file__).parents[2]


def lines(report: Report, facts: Facts = FACTS, width: int = 80) -> list[str]:
    """The report as an uncoloured terminal shows it."""
    return [line.plain for line in report_lines(report, facts, NOON, width)]


def test_a_report_with_a_cause() -> None:
    """The cause first, its evidence, the cure in lines to copy, then all else, each with why."""
    assert lines(make_report(TARGET, FINDINGS, 0)) == [
        "The reverse path filter of eth0 drops what 172.16.5.5 sends, because the route",
        "back to it leads out of eth1.",
        "  net.ipv4.conf.eth0.rp_filter  1",
        "  TcpExt.IPReversePathFilter    12",
        "  route back                    eth1",
        "  senders                       172.16.5.5, 172.16.5.6",
        "  strict                        yes",
        "  gateway                       not known",
        "",
        "Cure (why: mcast doctor --explain reverse-path-filter):",
        "Say where the source is.",
        "ip route add 172.16.5.5/32 dev eth0",
        "Or switch the filter off, on this interface and on all.",
        "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
        "",
        "Also wrong:",
        "  mtu: Datagrams are longer than eth0 takes.",
        "",
        "Suspect:",
        "  querier: No query was heard on eth0 within 5 s; if a switch there snoops, it",
        "    forgets this host after 260 s.",
        "    Ask who runs the switch for a querier.",
        "    bridge -d link show",
        "",
        "Not known:",
        "  firewall: The rules are shown to root only.",
        "  query-blocked, checksum: Raw frames are shown to root only.",
        "    sudo mcast doctor 239.1.2.3:5000%eth0",
        "  wireless: This OS does not tell.",
        "",
        "Fine: 2 checks (-v lists them)",
        "",
        "0 datagrams for 239.1.2.3:5000%eth0 in 5.0 s, as user 1000, 2026-11-22 12:00:00",
        "UTC",
    ]


def test_a_cause_that_is_only_probable() -> None:
    """A suspect that stands for the cause says so."""
    report = make_report(TARGET, [SUSPECT, FINE], 0)
    assert lines(report)[:3] == [
        "Probably: No query was heard on eth0 within 5 s; if a switch there snoops, it",
        "forgets this host after 260 s.",
        "",
    ]
    assert "Cure (why: mcast doctor --explain querier):" in lines(report)


def test_a_cause_without_a_cure() -> None:
    """Where there is nothing to do, there is something to read."""
    report = make_report(TARGET, [replace(PROBLEM, remedy=(), evidence={})], 0)
    assert lines(report)[2:5] == ["", "Why: mcast doctor --explain reverse-path-filter", ""]


def test_a_healthy_host() -> None:
    """It says what arrives, and from whom."""
    report = make_report(replace(TARGET, source="10.0.0.7"), [FINE], 52)
    assert lines(report, replace(FACTS, machine=Machine("linux", "6.18.5", 0, True))) == [
        "10.0.0.7@239.1.2.3:5000%eth0 arrives: 52 datagrams in 5.0 s.",
        "  from 10.0.0.7 port 40000 on eth0  52 datagrams, hop limit 5",
        "",
        "Fine: 1 check (-v lists them)",
        "",
        "52 datagrams for 10.0.0.7@239.1.2.3:5000%eth0 in 5.0 s, as root, 2026-11-22",
        "12:00:00 UTC",
    ]


def test_a_host_that_tells_too_little() -> None:
    """Nothing came and nothing is known to be wrong: that is said, and what to run instead."""
    facts = replace(FACTS, machine=Machine("windows", "11", None, False))
    without_port = make_report(Target("ff15::1", None, None, None, 6), FINDINGS[5:6], 0)
    assert lines(without_port, facts)[0].endswith("is not known: without a port nothing can be received.")
    report = make_report(Target("ff15::1", 5000, None, None, 6), FINDINGS[5:6], 0)
    assert lines(report, facts)[:4] == [
        "Nothing arrived for [ff15::1]:5000 in 5.0 s, and the cause is not known.",
        "",
        "Not known:",
        "  firewall: The rules are shown to root only.",
    ]


def test_a_pipe_gets_whole_sentences() -> None:
    """What is no terminal is not wrapped to any width."""
    shown = lines(make_report(TARGET, FINDINGS, 0), width=terminal.UNBOUNDED)
    assert shown[0] == PROBLEM.summary
    assert PROBLEM.remedy[3] in shown


def test_commands_are_whole_on_a_narrow_terminal() -> None:
    """However narrow the terminal is, a command is one line, and sentences are not wider than they need be."""
    shown = lines(make_report(TARGET, FINDINGS, 0), width=30)
    assert {*PROBLEM.commands, f"    {AS_ROOT}", "    bridge -d link show"} <= set(shown)
    assert PROBLEM.summary in " ".join(shown)


def test_hostile_text_does_not_reach_the_terminal() -> None:
    """Names and values from a file or a network cannot command the terminal, forge lines or flood the screen."""
    evil = "a\x1b[2J\r\nFine: all\u202e\x07\udc80"
    finding = Finding(
        evil, "problem", evil, {evil: [evil, {evil: evil}], "x": "y" * 10**6} | {str(n): n for n in range(50)}, (evil,)
    )
    suspect = replace(finding, verdict="suspect", summary="z" * 10**6)
    facts = replace(FACTS, program=evil, machine=Machine(evil, evil, 1000, False), target=replace(TARGET, group=evil))
    shown = lines(make_report(facts.target, [finding, suspect, replace(FINE, check=evil)], 0), facts)
    assert all(line.isprintable() for line in shown)
    assert "Fine: all" not in {line.strip() for line in shown}
    assert sum(map(len, shown)) < 10_000
    assert "  and 40 more" in shown


def test_backslashes_can_be_copied() -> None:
    """A command is shown as it has to be typed."""
    report = make_report(TARGET, [replace(PROBLEM, remedy=(r"nft delete 'a\b'",))], 0)
    assert r"nft delete 'a\b'" in lines(report)


class Screen(io.StringIO):
    """A terminal."""

    def isatty(self) -> bool:
        """Return True."""
        return True


@pytest.mark.parametrize(("environment", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False)])
def test_colours(monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], coloured: bool) -> None:
    """A terminal gets colours unless NO_COLOR is set, and lines that are longer than it are not cut."""
    for name in ("NO_COLOR", "FORCE_COLOR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in ({"TERM": "xterm-256color", "COLUMNS": "40"} | environment).items():
        monkeypatch.setenv(name, value)
    screen = Screen()
    terminal.show_lines([Line("x" * 100, style="red")], screen)
    assert ("\x1b[31m" in screen.getvalue()) == coloured
    assert "x" * 100 in screen.getvalue()


PAGE = """\
It is **about** this,
and goes on.

- One thing
  and more of it.
- Another.

    sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.eth0.rp_filter
"""


def test_a_page_is_wrapped_anew() -> None:
    """Paragraphs and lists fit the terminal; commands stay as they are."""
    assert list(page_lines(PAGE, 24)) == [
        "It is about this, and",
        "goes on.",
        "",
        "- One thing and more of",
        "  it.",
        "- Another.",
        "",
        "    sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.eth0.rp_filter",
        "",
    ]


def test_a_round_is_a_line() -> None:
    """It says when, and what is new; a round like the one before says so, and what healed is named."""
    bad = make_report(TARGET, [PROBLEM, replace(PROBLEM, check="mtu")], 0)
    good = make_report(TARGET, [FINE], 52)

    def told(report: Report, before: Report | None, width: int = 200) -> list[str]:
        return [line.plain for line in round_lines(report, FACTS, before, "18:54:20", width)]

    assert told(bad, None) == [f"18:54:20  {PROBLEM.summary} Also wrong: mtu."]
    assert told(bad, bad) == ["18:54:20  no change: 0 datagrams"]
    assert told(good, bad) == [
        "18:54:20  239.1.2.3:5000%eth0 arrives: 52 datagrams in 5.0 s. Healed: reverse-path-filter."
    ]
    assert all(len(line) <= 40 for line in told(bad, None, 40))


def test_the_report_in_the_documents(mcast: Run) -> None:
    """docs/doctor.md shows what a terminal of 80 columns shows of the facts in a file that was saved on a real host."""
    file = ROOT / "tests" / "doctor" / "saved" / "reverse-path-filter.json"
    facts = facts_from_text(file.read_bytes())
    time = datetime.fromtimestamp(facts.time, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    shown = [line.plain for line in report_lines(judge(facts), facts, time, 80)]
    document = (ROOT / "docs" / "doctor.md").read_text(encoding="utf-8")
    _, marker, rest = document.partition("<!-- sample: reverse-path-filter -->\n```console\n")
    command, *block = rest.partition("\n```\n")[0].splitlines()
    assert marker
    assert command == "$ sudo mcast doctor 239.1.2.3:5000%eth0"
    assert block == shown
    done = mcast("doctor", "--from", str(file))
    assert (done.returncode, done.stdout.splitlines()[0]) == (1, shown[0])
