"""`mcast doctor`: what it shows, and how the command ends."""

import io
import json
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Event, Thread

import pytest

from cli.conftest import Done, Program, Run, on_terminal
from multicast_expert import McastTxSocket
from multicast_expert.cli import run, terminal
from multicast_expert.cli.render.doctor import page_lines, report_lines, round_lines
from multicast_expert.cli.render.text import Line
from multicast_expert.doctor.checks import CHECKS, check_name
from multicast_expert.doctor.facts import Arrivals, Facts, InterfaceFacts, Machine, Target, Trial
from multicast_expert.doctor.judgement import judge
from multicast_expert.doctor.report import Finding, Report, make_report
from multicast_expert.doctor.saved import facts_from_text, facts_to_text
from multicast_expert.testing import Host

Ended = Callable[..., Done]

ROOT = Path(__file__).parents[2]
NOON = "2026-11-22 12:00:00 UTC"
TARGET = Target("239.1.2.3", 5000, None, "eth0", 4)
FACTS = Facts(
    "2.0",
    0.0,
    TARGET,
    Machine("linux", "6.18.5", 1000, False),
    interfaces=(InterfaceFacts("eth0", 2, True, True, False, True, 1500, ("10.0.0.2/24",), chosen=True),),
    trial=Trial(5.0, False, arrivals=(Arrivals("eth0", "239.1.2.3", "10.0.0.7", 40000, 5, 52, 0.1, 4.9, True),)),
)
AS_ROOT = "sudo mcast doctor 239.1.2.3:5000%eth0"
PROBLEM = Finding(
    "reverse-path-filter",
    "problem",
    "The reverse path filter of eth0 drops what 172.16.5.5 sends, because the route back to it leads out of eth1.",
    {
        "net.ipv4.conf.eth0.rp_filter": "1",
        "TcpExt.IPReversePathFilter": 12,
        "route_back": "eth1",
        "senders": ["172.16.5.5", "172.16.5.6"],
        "strict": True,
        "gateway": None,
    },
    (
        "Say where the source is.",
        "ip route add 172.16.5.5/32 dev eth0",
        "Or switch the filter off, on this interface and on all.",
        "sysctl -w net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=0 net.ipv4.conf.default.rp_filter=0",
    ),
)
SUSPECT = Finding(
    "querier",
    "suspect",
    "No query was heard on eth0 within 5 s; if a switch there snoops, it forgets this host after 260 s.",
    {},
    ("Ask who runs the switch for a querier.", "bridge -d link show"),
)
FINE = Finding("port", "ok", "Nothing comes to another port.")
FINDINGS = [
    PROBLEM,
    Finding("mtu", "problem", "Datagrams are longer than eth0 takes."),
    SUSPECT,
    FINE,
    replace(FINE, check="ttl"),
    Finding("firewall", "unknown", "The rules are shown to root only.", {}, (AS_ROOT,)),
    Finding("query-blocked", "unknown", "Raw frames are shown to root only.", {}, (AS_ROOT,)),
    Finding("checksum", "unknown", "Raw frames are shown to root only.", {}, (AS_ROOT,)),
    Finding("wireless", "unknown", "This OS does not tell."),
]


def lines(report: Report, facts: Facts = FACTS, width: int = 80) -> list[str]:
    """The report as an uncoloured terminal shows it."""
    return [line.plain for line in report_lines(report, facts, NOON, width)]


# What is shown


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


# The command


@contextmanager
def talking(host: Host, group: str, iface: str) -> Iterator[None]:
    """Inside the block, somebody on the host sends to port 5000 of the group all the time."""
    over = Event()

    def talk() -> None:
        while not over.wait(0.02):
            sender.sendto(b"hello", (group, 5000))

    with host.entered(), McastTxSocket(host_family(group), [group], iface, enable_external_loopback=True) as sender:
        thread = Thread(target=talk)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def host_family(group: str) -> int:
    """The address family of a group."""
    return socket.AF_INET6 if ":" in group else socket.AF_INET


def await_listening(pid: int) -> None:
    """Wait until a program has joined 239.1.2.7, and so listens."""
    deadline = time.monotonic() + 20
    # 239.1.2.7, as a number in the byte order of the machine
    joined = f"{int.from_bytes(socket.inet_aton('239.1.2.7'), sys.byteorder):08X}"
    while joined not in Path(f"/proc/{pid}/net/igmp").read_text():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """A file of facts, of a host where all is well."""
    file = tmp_path / "facts.json"
    file.write_text(facts_to_text(FACTS))
    return file


@pytest.mark.parametrize("endpoint", ["239.1.2.3:5000%eth0", "[ff15::1]:5000%lo"])
def test_datagrams_that_arrive(mcast: Run, host: Host, endpoint: str) -> None:
    """Exit status 0, and the first line says that all is well."""
    group, iface = endpoint.rsplit(":", 1)[0].strip("[]"), endpoint.rpartition("%")[2]
    with talking(host, group, iface):
        done = mcast("doctor", endpoint, "--listen", "0.5")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.match(rf"{re.escape(endpoint)} arrives: [0-9]+ datagrams in 0\.\d s\.\n", done.stdout)
    assert "Cure" not in done.stdout


def test_json(mcast: Run, host: Host) -> None:
    """One object, of a shape that does not change."""
    with talking(host, "239.1.2.4", "eth0"):
        done = mcast("doctor", "10.9.0.1@239.1.2.4:5000", "-i", "10.9.0.1", "--listen", "0.3", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, list(document)) == (
        0,
        ["target", "verdict", "cause", "findings", "received", "path", "seen"],
    )
    assert document["target"] == {"group": "239.1.2.4", "port": 5000, "source": "10.9.0.1", "interface": "eth0"}
    assert (document["verdict"], document["cause"], document["received"] > 0) == ("ok", None, True)
    for finding in document["findings"]:
        assert list(finding) == ["check", "verdict", "summary", "evidence", "remedy"]
    assert sorted(each["check"] for each in document["findings"]) == sorted(check_name(each) for each in CHECKS)


def test_a_group_that_is_none(mcast: Run) -> None:
    """An address that is no group is a finding, not a wrong command line."""
    done = mcast("doctor", "10.0.0.1:5000", "--listen", "0.1", "--json")
    document = json.loads(done.stdout)
    assert (done.returncode, document["verdict"], document["cause"]) == (1, "problem", "group-address")


def test_saved_facts_give_the_same_report(mcast: Run, host: Host, bare: Host, tmp_path: Path) -> None:
    """What is saved on one host is judged alike on another, as text and as JSON."""
    file = tmp_path / "my facts.json"
    with talking(host, "239.1.2.5", "eth0"):
        here = mcast("doctor", "239.1.2.5:5000", "--listen", "0.3", "--save", str(file))
    assert here.stderr == f"saved to {file}; to judge it anywhere: mcast doctor --from '{file}'\n"
    there = mcast("doctor", "--from", str(file), on=bare)
    assert (there.returncode, there.stdout) == (here.returncode, here.stdout)
    assert mcast("doctor", "--from", "-", on=bare, stdin=file.read_bytes()).stdout == here.stdout
    assert json.loads(mcast("doctor", "--from", str(file), "--json", on=bare).stdout)["received"] > 0


def test_facts_to_standard_output(mcast: Run) -> None:
    """With `--save -` the facts are all there is on standard output; the report is a message."""
    done = mcast("doctor", "10.0.0.1", "--listen", "0.1", "--save", "-")
    assert facts_from_text(done.stdout).target.group == "10.0.0.1"
    assert done.stderr.startswith("10.0.0.1 ")
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing argument 'ENDPOINT'. (Only --from FILE and --explain CHECK need none.)"),
        (["camera"], "group 'camera' is not an IP address."),
        (["239.1.2.3:camera"], "endpoint '239.1.2.3:camera': port 'camera' is not a number"),
        (["239.1.2.3:5000%lo", "-i", "eth0"], "239.1.2.3:5000%lo names the interface lo, and -i names eth0"),
        (["10.0.0.7@239.1.2.3", "--source", "10.0.0.8"], "10.0.0.7@239.1.2.3 names the source 10.0.0.7, and --source"),
        (["239.1.2.3", "--source", "fd00::8"], "--source fd00::8 is IPv6"),
        (["239.1.2.3", "--source", "camera"], "source 'camera' is not an IP address."),
        (["239.1.2.3", "--listen", "-1"], "Invalid value for '--listen' / '--for'"),
        (["239.1.2.3", "--listen", "inf"], "Invalid value for '--listen' / '--for': 'inf' is not a number of seconds."),
        (["239.1.2.3", "--listen", "nan"], ""),
        (["239.1.2.3", "--json", "--save", "-"], "--json and --save - both write to standard output;"),
        (["239.1.2.3", "--from", "x"], "--from FILE takes no other target:"),
        (["--listen", "5", "--from", "x"], "--from FILE takes no other target:"),
        (["239.1.2.3", "--watch", "--save", "x"], "--watch asks this host again and again"),
        (["--watch", "--from", "x"], "--watch asks this host again and again"),
        (["--explain", "weather"], "there is no check 'weather'; the checks are "),
    ],
)
def test_a_wrong_command_line(mcast: Run, arguments: list[str], message: str) -> None:
    """Exit status 2, and one line that says what is wrong."""
    done = mcast("doctor", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcast: {message}"), done.stderr


def test_an_unknown_check(mcast: Run) -> None:
    """Who asks for a check that does not exist is told which there are."""
    message = mcast("doctor", "--explain", "weather").stderr
    assert all(check_name(check) in message for check in CHECKS)


@pytest.mark.parametrize("check", [check_name(check) for check in CHECKS])
def test_every_cause_is_explained(mcast: Run, check: str) -> None:
    """--explain prints the page of every check, and needs no endpoint."""
    done = mcast("doctor", "--explain", check)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) > 3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "no.json"], "mcast: no.json: No such file or directory"),
        (["--from", "/"], "mcast: /: Is a directory"),
        (
            ["--from", "/dev/zero"],
            "mcast: /dev/zero: These are not facts of mcast doctor: longer than 33,554,432 bytes.",
        ),
        (["239.1.2.3:5000", "--listen", "60", "--save", "no/x.json"], "mcast: no/x.json: No such file or directory"),
        (["10.0.0.1", "--listen", "60", "--save", "/"], "mcast: /: Is a directory"),
    ],
)
def test_what_cannot_be_done(mcast: Run, arguments: list[str], message: str) -> None:
    """Exit status 3, as no judgement was made; a file that cannot be written is refused before the listening."""
    done = mcast("doctor", *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(message), done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("iface", ["eth9", "", "10.9.9.9"])
def test_what_no_interface_has_is_a_cause_in_json(mcast: Run, iface: str) -> None:
    """A name, an address and an empty text that fit no interface are told alike, as JSON where that was asked for."""
    done = mcast("doctor", "239.1.2.3:5000", "-i", iface, "--listen", "0.1", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, done.stderr, report["cause"]) == (1, "", "interface-down")
    assert report["target"]["interface"] == iface


def test_an_interface_that_is_gone(mcast: Run) -> None:
    """A name that no interface has is a cause, with the names that there are."""
    done = mcast("doctor", "239.1.2.3:5000%eth9", "--listen", "0.1")
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("There is no interface eth9 on this host.\n  interfaces  lo")


def test_a_full_disk(mcast: Run) -> None:
    """What was found is shown all the same, and the error names the file."""
    done = mcast("doctor", "10.0.0.1", "--listen", "0.1", "--save", "/dev/full")
    assert (done.returncode, done.stderr) == (3, "mcast: /dev/full: No space left on device\n")
    assert done.stdout.startswith("10.0.0.1 ")


def test_a_damaged_file(mcast: Run, saved: Path) -> None:
    """The message names the file, and the place in it."""
    damaged = json.loads(saved.read_text())
    damaged["facts"]["trial"]["arrivals"][0]["count"] = "\x1b[2J"
    saved.write_text(json.dumps(damaged))
    done = mcast("doctor", "--from", str(saved))
    assert done == Done(3, "", f"mcast: {saved}: trial.arrivals[0].count: expected a whole number.\n")
    saved.write_bytes(saved.read_bytes()[:-20])
    assert (
        f"mcast: {saved}: These are not facts of mcast doctor, or they are damaged:"
        in mcast("doctor", "--from", str(saved)).stderr
    )


def test_hostile_facts(mcast: Run, saved: Path) -> None:
    """Whatever a file names its hosts and interfaces, no control character reaches the terminal."""
    evil = "\x1b]0;x\x07\x9b2J\r\x7f"
    target = Target(evil, 1, evil, evil, None)
    saved.write_text(facts_to_text(replace(FACTS, program=evil, time=1e300, target=target)))
    for arguments in ([], ["--json"]):
        done = mcast("doctor", "--from", str(saved), *arguments)
        assert done.returncode in (1, 3)
        assert all(line.isprintable() for line in (done.stdout + done.stderr).splitlines())


def test_the_reader_has_gone(program: Program, saved: Path) -> None:
    """When the program that reads the report ends, the command ends without a word, and its status is the verdict."""
    process = program("doctor", "--from", str(saved))
    assert process.stdout is not None
    process.stdout.close()
    assert (process.wait(20), process.stderr and process.stderr.read()) == (0, "")


def test_ctrl_c_ends_the_listening(program: Program, ended: Ended, tmp_path: Path) -> None:
    """What is known by then is judged, and saved; the report says how long it has listened."""
    file = tmp_path / "facts.json"
    process = program("doctor", "239.1.2.7:5000%eth0", "--listen", "600", "--save", str(file))
    await_listening(process.pid)
    done = ended(process, interrupt=True)
    assert (done.returncode in (1, 3), "Traceback" in done.stderr) == (True, False), done
    trial = facts_from_text(file.read_bytes()).trial
    assert isinstance(trial, Trial)
    assert trial.seconds < 60
    assert f"in {trial.seconds:.1f} s" in done.stdout


def test_a_report_that_is_longer_than_the_terminal(host: Host, saved: Path) -> None:
    """The first line is shown again at the end, where it can be seen."""
    short, long = (
        on_terminal(host, "doctor", "--from", str(saved), NO_COLOR="1", LINES=height).splitlines()
        for height in ("6", "60")
    )
    assert short == [*long, "", long[0]]


def test_progress_on_a_terminal(host: Host) -> None:
    """A line tells how far it is; it is gone when the report comes."""
    with talking(host, "239.1.2.8", "eth0"):
        written = on_terminal(host, "doctor", "239.1.2.8:5000%eth0", "--listen", "0.7", NO_COLOR="1", LINES="60")
    progress, report = written.split("239.1.2.8:5000", 1)
    assert re.search(r"\rlistening: 0 of 0\.7 s, \d+ datagrams \(Ctrl-C: report now\)", progress)
    assert re.search(r"\r +\r(\x1b\[1m)?$", progress)
    assert report.startswith("%eth0 arrives: ")


def test_a_second_ctrl_c_breaks_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first is noted by who collects, the second ends the command with 130, and then all is as before."""
    noted: list[bool] = []

    def impatient(*_: object, progress: Callable[[float, int], bool]) -> Facts:
        for _ in range(3):
            signal.raise_signal(signal.SIGINT)
            noted.append(progress(1.0, 0))
        return FACTS

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("multicast_expert.cli.doctor.collect", impatient)
    monkeypatch.setattr(sys, "argv", ["mcast", "doctor", "239.1.2.3"])
    assert (run(), noted) == (130, [False])
    assert signal.getsignal(signal.SIGINT) is before


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


# Again and again


def wanting() -> Facts:
    """Facts of a host on which nothing arrives."""
    return replace(FACTS, trial=Trial(5.0, True))


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


def rounds_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *facts: Facts, interrupt: bool, json_too: bool
) -> tuple[int, list[str]]:
    """The exit status and the lines of `--watch` on these facts; Ctrl-C comes in the last round, if it does."""
    left = list(facts)

    def next_facts(*_: object, progress: Callable[[float, int], bool]) -> Facts:
        found = left.pop(0)
        if interrupt and not left:
            signal.raise_signal(signal.SIGINT)
        progress(1.0, 0)
        return found

    monkeypatch.setattr("multicast_expert.cli.doctor.collect", next_facts)
    monkeypatch.setattr(sys, "argv", ["mcast", "doctor", "239.1.2.3", "--watch", *(["--json"] if json_too else [])])
    status = run()
    assert left == []
    return status, capsys.readouterr().out.splitlines()


def test_watched_until_it_is_healed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The rounds end with the first healthy one, and the exit status is 0."""
    facts = wanting(), wanting(), FACTS
    status, shown = rounds_of(monkeypatch, capsys, *facts, interrupt=False, json_too=False)
    assert (status, len(shown)) == (0, 3)
    assert shown[1] == "00:00:00  no change: 0 datagrams"
    assert shown[2].startswith("00:00:00  239.1.2.3:5000%eth0 arrives: 52 datagrams")


def test_watched_until_ctrl_c(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C shows the last report in full; the exit status is 130."""
    status, shown = rounds_of(monkeypatch, capsys, wanting(), wanting(), interrupt=True, json_too=False)
    assert status == 130
    assert shown[0].startswith("00:00:00  Nothing of 239.1.2.3 reached this host")
    assert shown[1:] == lines_of_pipe(wanting())


def lines_of_pipe(facts: Facts) -> list[str]:
    """The report as a pipe gets it."""
    time = "1970-01-01 00:00:00 UTC"
    return [line.plain for line in report_lines(judge(facts), facts, time, terminal.UNBOUNDED)]


@pytest.mark.parametrize("interrupt", [True, False])
def test_watched_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], interrupt: bool) -> None:
    """Each round is an object on a line of its own, with its time."""
    last = wanting() if interrupt else FACTS
    status, shown = rounds_of(monkeypatch, capsys, wanting(), last, interrupt=interrupt, json_too=True)
    objects = [json.loads(line) for line in shown]
    assert status == (130 if interrupt else 0)
    assert [each["verdict"] for each in objects] == ["problem", "problem" if interrupt else "ok"]
    assert {each["time"] for each in objects} == {"1970-01-01T00:00:00+00:00"}


def test_watched_by_a_reader_that_goes(host: Host, program: Program) -> None:
    """When the program that reads the rounds ends, as `head -1` does, the command ends by itself."""
    process = program("doctor", "239.1.2.7:5000%eth0", "--watch", "--listen", "0.1")
    assert process.stdout is not None
    assert process.stdout.readline()
    process.stdout.close()
    assert (process.wait(30), process.stderr and process.stderr.read()) == (0, "")


def test_watched_on_a_real_host(host: Host, program: Program, ended: Ended) -> None:
    """It ends by itself when datagrams arrive; each line comes at once."""
    process = program("doctor", "239.1.2.6:5000%eth0", "--watch", "--listen", "0.3", "--json")
    assert process.stdout is not None
    assert json.loads(process.stdout.readline())["received"] == 0
    with talking(host, "239.1.2.6", "eth0"):
        done = ended(process)
    assert (done.returncode, json.loads(done.stdout.splitlines()[-1])["verdict"]) == (0, "ok")


def test_fine_is_listed_on_demand(mcast: Run, saved: Path) -> None:
    """-v lists each check that found nothing, with why, and what could not be read."""
    short, long = (mcast("doctor", "--from", str(saved), *more).stdout for more in ([], ["-v"]))
    assert re.search(r"^Fine: \d+ checks \(-v lists them\)$", short, re.MULTILINE)
    assert "  group-address: " not in short
    assert re.search(r"^Fine:\n  group-address: ", long, re.MULTILINE)
    assert "Not read:\n" in long
