"""`mcast watch` and `mcast querier` as commands: lines, JSON, the user's commands, and refusals."""

import json
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from ipaddress import ip_address
from pathlib import Path

import pytest

from cli.conftest import Program, Run
from multicast_expert.cli.render.watch import event_line
from multicast_expert.observe.hooks import AT_ONCE, WAITING, Hooks
from multicast_expert.observe.members import Event
from multicast_expert.observe.messages import Happening
from multicast_expert.observe.source import FrameSource
from multicast_expert.system.groups import joined_groups
from multicast_expert.testing import Host, Lab, wait_until
from multicast_expert.wire.group_messages import (
    GroupMessage,
    GroupQuery,
    build_group_message,
    parse_group_message,
)
from multicast_expert.wire.packet_socket import Frame
from programs import MCAST

GROUP, GROUP6 = "239.1.2.3", "ff15::1:2"


@pytest.fixture
def hosts() -> Iterator[tuple[Host, Host]]:
    """Two hosts on one cable."""
    with Lab() as lab:
        one, two = lab.host("one"), lab.host("two")
        lab.link(one, two, ipv4=("10.0.0.1/24", "10.0.0.2/24"), ipv6=("fd00::1/64", "fd00::2/64"))
        yield one, two


def started(program: Program, *arguments: str, on: Host) -> "subprocess.Popen[str]":
    """Start `mcast watch` and return when it watches."""
    process = program("watch", *arguments, on=on)
    assert process.stderr is not None
    assert process.stderr.readline() == "watching IGMP and MLD on lo, eth0; Ctrl-C ends it\n"
    return process


def lines_until(process: "subprocess.Popen[str]", end: str) -> list[str]:
    """Return the lines up to one with this end."""
    assert process.stdout is not None
    lines: list[str] = []
    while not (lines and lines[-1].endswith(end)):
        line = process.stdout.readline()
        assert line, lines
        lines.append(line.rstrip("\n"))
    return lines


def test_what_a_look_at_memberships_joins_is_not_shown(hosts: tuple[Host, Host], program: Program) -> None:
    """`mcast groups` joins on the loopback interface for a moment; what others join there is shown."""
    one, _ = hosts
    process = started(program, on=one)
    for group in (GROUP, "239.1.2.9"):
        member = one.join_and_never_read(group, 5000, interface="lo")
        for _ in range(3):
            one.run(joined_groups)
        found = lines_until(process, f"joined {group}")
        member.close()
        found += lines_until(process, f"left {group}")
        assert not any("232.255.255.254" in line for line in found)
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


def test_lines(hosts: tuple[Host, Host], program: Program) -> None:
    """Queries, elections, joins with sources and leaves, each a line with time, interface and protocol."""
    one, two = hosts
    process = started(program, GROUP, GROUP6, on=one)
    two.send_queries("eth0", source="10.0.0.2", source6="fe80::2")
    found = lines_until(process, "MLDv2 fe80::2 is the querier now")
    member, member6 = (two.join_and_never_read(group, 5000, interface="eth0") for group in (GROUP, GROUP6))
    found += lines_until(process, f"joined {GROUP6}")
    if not any(line.endswith(f"joined {GROUP}") for line in found):
        found += lines_until(process, f"joined {GROUP}")
    member.close()
    found += lines_until(process, f"left {GROUP}")
    member6.close()
    found += lines_until(process, f"left {GROUP6}")
    local = two.interface("eth0").link_local
    assert all(line[2] == line[5] == ":" and line[8] == "." for line in found)
    told = list(dict.fromkeys(line[13:] for line in found if " reports " not in line))
    assert [line for line in told if "IGMP" in line] == [
        "eth0 IGMPv3 query from 10.0.0.2: members of any group, answer within 0.1 s",
        "eth0 IGMPv3 10.0.0.2 is the querier now",
        f"eth0 IGMPv3 10.0.0.2 joined {GROUP}",
        f"eth0 IGMPv3 10.0.0.2 left {GROUP}",
    ]
    assert [line for line in told if "MLD" in line] == [
        "eth0 MLDv2 query from fe80::2: members of any group, answer within 0.1 s",
        "eth0 MLDv2 fe80::2 is the querier now",
        f"eth0 MLDv2 {local} joined {GROUP6}",
        f"eth0 MLDv2 {local} left {GROUP6}",
    ]
    process.send_signal(signal.SIGINT)
    assert process.wait(20) == 130


@pytest.mark.parametrize(
    ("event", "line"),
    [
        (Event(0, "query", "10.0.0.1", GROUP, True, ("10.9.0.1",), 3, 1.0),
         "IGMPv3 query from 10.0.0.1: members of 239.1.2.3 from 10.9.0.1, answer within 1 s"),
        (Event(0, "join", "10.0.0.7", GROUP, True, ("10.9.0.1", "10.9.0.2"), 3),
         "IGMPv3 10.0.0.7 joined 239.1.2.3 from 10.9.0.1, 10.9.0.2"),
        (Event(0, "change", "10.0.0.7", GROUP, False, (), 3),
         "IGMPv3 10.0.0.7 receives 239.1.2.3 from all sources now"),
        (Event(0, "change", "10.0.0.7", GROUP, False, ("10.9.0.1",)),
         "IGMP 10.0.0.7 receives 239.1.2.3 from all but 10.9.0.1 now"),
        (Event(0, "report", "10.0.0.7", GROUP, False, (), 2), "IGMPv2 10.0.0.7 reports 239.1.2.3"),
        (Event(0, "report", "10.0.0.7", GROUP, True, (), 2), "IGMPv2 10.0.0.7 left 239.1.2.3"),
        (Event(0, "timeout", "10.0.0.7", GROUP), "IGMP 10.0.0.7 timed out of 239.1.2.3: no report came in time"),
        (Event(0, "querier-lost", "10.0.0.1"), "IGMP querier lost: 10.0.0.1 no longer asks"),
        (Event(0, "querier", "10.0.0.5", version=3), "IGMPv3 this host is the querier now"),
        (Event(0, "full", "10.0.0.7", GROUP),
         "IGMP no room for more members: 10.0.0.7 in 239.1.2.3 and others are not followed"),
        (Event(0, "report", "10.0.0.7", GROUP, True, tuple(f"10.9.0.{number}" for number in range(1, 1013)), 3),
         f"IGMPv3 10.0.0.7 reports 239.1.2.3 from {', '.join(f'10.9.0.{at}' for at in range(1, 11))} and 1,002 more"),
    ],
)  # fmt: skip
def test_words(event: Event, line: str) -> None:
    """What each event is called."""
    assert event_line("12:00:00.000", "eth0", 4, event, {"10.0.0.5"}).plain == f"12:00:00.000 eth0 {line}"


def test_json(hosts: tuple[Host, Host], program: Program) -> None:
    """One object a line."""
    one, two = hosts
    process = started(program, GROUP, "--json", on=one)
    two.join_and_never_read(GROUP, 5000, interface="eth0")
    first = json_until(process, "join")[-1]
    assert time.time() - 60 < float(first.pop("time")) < time.time()
    assert first == {
        "interface": "eth0", "protocol": "IGMP", "event": "join", "host": "10.0.0.2", "version": 3,
        "group": GROUP, "mode": "exclude", "sources": [],
    }  # fmt: skip


def test_commands_of_the_user(hosts: tuple[Host, Host], program: Program, tmp_path: Path) -> None:
    """They run without a shell, with the event in their environment; one that fails is told, and the rest goes on."""
    one, two = hosts
    script = tmp_path / "script with blank.sh"
    lines = [
        "#!/bin/sh",
        f"cd {tmp_path}",
        'printf "%s\\n" "$1" > "$MCAST_EVENT"',
        "env | grep ^MCAST_ | sort >> $MCAST_EVENT",
    ]
    script.write_text("\n".join([*lines, "exit 7"]))
    script.chmod(0o755)
    process = started(program, GROUP, "--on-join", f"'{script}' '$HOME;ls'", "--on-leave", f"'{script}' b", on=one)
    member = two.join_and_never_read(GROUP, 5000, interface="eth0")
    assert process.stderr is not None
    told = process.stderr.readline()
    assert told == f"mcast: '{script}' '$HOME;ls': ended with status 7 (join of 10.0.0.2, {GROUP})\n"
    member.close()
    assert "(leave of 10.0.0.2" in process.stderr.readline()
    common = [f"MCAST_GROUP={GROUP}", "MCAST_HOST=10.0.0.2", "MCAST_INTERFACE=eth0", "MCAST_SOURCE="]
    for event, argument in (("join", "$HOME;ls"), ("leave", "b")):
        assert (tmp_path / event).read_text().splitlines() == [argument, f"MCAST_EVENT={event}", *common]


def joined(number: int, kind: str = "join", *sources: str) -> Happening:
    """A host joined."""
    return Happening("eth0", 4, 0, Event(0.0, kind, f"10.0.0.{number % 250}", GROUP, bool(sources), sources))


def test_commands_are_bounded(tmp_path: Path) -> None:
    """Only so many run at once and only so many wait; the others are counted; in the end all have run."""
    gate = tmp_path / "gate"
    hooks = Hooks(f"sh -c 'echo $MCAST_SOURCE >> {tmp_path}/ran; while [ ! -e {gate} ]; do sleep 0.02; done'")
    for number in range(WAITING + 5):
        hooks.take(joined(number, "join", "10.9.0.1", "10.9.0.2"))
        hooks.take(joined(number, "report"))
        hooks.take(joined(number, "leave"))
    assert hooks.skipped == 5
    assert hooks.step() == []
    ran = tmp_path / "ran"
    wait_until(lambda: ran.exists() and len(ran.read_text().splitlines()) == AT_ONCE, "the first ones run")
    assert hooks.step() == []
    assert len(hooks._running) == AT_ONCE
    gate.touch()
    failures: list[str] = []

    def is_done() -> bool:
        failures.extend(hooks.step())
        return not hooks.busy

    wait_until(is_done, "all have run", 60)
    assert failures == []
    assert ran.read_text().splitlines() == ["10.9.0.1 10.9.0.2"] * WAITING


def test_a_command_is_not_told_of_excluded_sources(tmp_path: Path) -> None:
    """A host that receives from all sources but some has none that it receives from by name."""
    hooks = Hooks(f"sh -c 'echo \"<$MCAST_SOURCE>\" >> {tmp_path}/ran'")
    for includes in (False, True):
        hooks.take(Happening("eth0", 4, 0, Event(0.0, "join", "10.0.0.7", GROUP, includes, ("10.9.0.1",))))

    def is_done() -> bool:
        assert hooks.step() == []
        return not hooks.busy

    wait_until(is_done, "both have run", 60)
    assert sorted((tmp_path / "ran").read_text().split()) == ["<10.9.0.1>", "<>"]


def test_commands_that_cannot_run() -> None:
    """A missing program is told; an empty or unbalanced text is refused."""
    hooks = Hooks(None, "/nonexistent/program x")
    hooks.take(joined(1, "timeout"))
    assert hooks.step() == [f"/nonexistent/program x: No such file or directory (timeout of 10.0.0.1, {GROUP})"]
    for wrong in ("'", "  "):
        with pytest.raises(ValueError, match=r"."):
            Hooks(wrong)


@pytest.mark.parametrize("command", [["watch"], ["querier", "-i", "eth0"]])
@pytest.mark.skipif(shutil.which("setpriv") is None, reason="the program `setpriv` is not installed")
def test_without_privileges(host: Host, command: list[str]) -> None:
    """It says which privilege it needs, and ends with 1."""
    powerless = ["setpriv", "--bounding-set=-all", "--inh-caps=-all", *MCAST, *command, "--for", "1"]
    done = host.run(subprocess.run, powerless, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout) == (1, "")
    assert "only a privileged program sees the frames of the wire" in done.stderr
    assert "hint: run it as root (sudo), or with CAP_NET_RAW" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["watch", "10.1.2.3"], "not a multicast address"),
        (["watch", "--on-join", "'"], "No closing quotation"),
        (["watch", "-i", "eth9"], "eth9"),
        (["querier", "-i", "eth0", "--version", "1"], "not one of 2"),
        (["querier", "-i", "eth0", "--query-interval", "5"], "must be above the response time"),
        (["querier", "-i", "eth0", "--source", "fd00::1"], "link-local"),
        (["querier", "-i", "eth0", "--source", "nobody"], "no address"),
        (["querier", "-i", "eth0", "--source", "10.0.0.1", "--source", "10.0.0.2"], "one address for each"),
        (["querier", "-i", "eth0", "-6", "--source", "10.0.0.1"], "one address for each"),
    ],
)
def test_a_wrong_command_line(mcast: Run, arguments: list[str], said: str) -> None:
    """The error names what is wrong, before anything is sent."""
    done = mcast(*arguments)
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert done.stdout == ""


def test_the_interface_that_is_meant(host: Host, bare: Host, mcast: Run) -> None:
    """Without -i it is the only one; else the error names those that there are."""
    done = mcast("querier", "--for", "0.2", on=host)
    assert done.returncode == 0
    assert "eth0 IGMPv3 this host is the querier now" in done.stdout
    assert mcast("querier", "--for", "0.2", on=bare).returncode == 2
    assert "this host has none that is up" in mcast("querier", on=bare).stderr


def test_a_look_joins_nothing(hosts: tuple[Host, Host], mcast: Run) -> None:
    """While it watches, the host says nothing about groups on the wire; a join, for comparison, is seen there."""
    one, two = hosts
    with two.entered():
        wire = FrameSource(["eth0"])
    with closing(wire):
        wait_until(
            lambda: (
                not wire.wait(
                    1.5,
                )
                or not wire.take()
            ),
            "the wire is quiet",
        )

        def said() -> int:
            return len([frame for frame in wire.take() if not frame.outgoing])

        assert mcast("watch", "--for", "1", on=one).returncode == 0
        assert said() == 0
        one.join_and_never_read(GROUP, 5000, interface="eth0")
        wait_until(lambda: said() > 0, "a report of the join")


def test_a_querier_without_ipv4(program: Program, hosts: tuple[Host, Host]) -> None:
    """It asks from 0.0.0.0 and gives way to any other; a link without IPv6 is told; a source may be given instead."""
    one, two = hosts
    one.remove_addresses("eth0")
    process = program("querier", "-i", "eth0", "--json", on=one)
    with two.entered():
        wire = FrameSource(["eth0"])
    with closing(wire):
        found = json_until(process, "query")
        assert [(each["event"], each["host"]) for each in found] == [
            ("started", "0.0.0.0"), ("mute", "::"), ("query", "0.0.0.0"),
        ]  # fmt: skip
        wait_until(lambda: any(frame.packet[12:16] == bytes(4) for frame in wire.take()), "its query on the wire")
        two.send_queries("eth0", source="10.0.0.2")
        assert json_until(process, "querier")[-1]["host"] == "10.0.0.2"
        other = program("querier", "-i", "eth0", "-4", "--source", "192.0.2.7", "--json", on=one)
        assert json_until(other, "querier")[-1]["host"] == "192.0.2.7"
        wait_until(lambda: any(frame.packet[12:16] == bytes([192, 0, 2, 7]) for frame in wire.take()), "the source")
        six = program("querier", "-i", "eth0", "-6", "--source", "fe80::77", "--json", on=one)
        assert json_until(six, "querier")[-1]["host"] == "fe80::77"
        address = ip_address("fe80::77").packed
        wait_until(lambda: any(frame.packet[8:24] == address for frame in wire.take()), "the source of IPv6")


def json_until(process: "subprocess.Popen[str]", event: str, **more: str) -> list[dict[str, str]]:
    """Return the events up to the first of this kind and with these values."""
    assert process.stdout is not None
    found: list[dict[str, str]] = []
    wanted = {"event": event, **more}
    while not (found and wanted.items() <= found[-1].items()):
        found.append(json.loads(process.stdout.readline()))
    return found


def test_the_queriers_own_host_answers(program: Program, hosts: tuple[Host, Host]) -> None:
    """A host that is querier and member answers its own queries: it reports more often than a join alone makes it."""
    one, two = hosts
    with two.entered():
        wire = FrameSource(["eth0"])
    one.join_and_never_read(GROUP, 5000, interface="eth0")
    process = program("querier", "-i", "eth0", "--query-interval", "1", "--response-time", "0.2", on=one)
    reports: list[GroupMessage] = []

    def many() -> bool:
        messages = (parse_group_message(frame.packet) for frame in wire.take())
        reports.extend(each for each in messages if each and GROUP in str(each) and each.host == "10.0.0.1")
        return len(reports) > 4

    with closing(wire):
        wait_until(many, "reports of the querier's host", 20)
    assert process.poll() is None


@pytest.mark.slow
def test_a_querier_before_its_address_may_be_used(program: Program) -> None:
    """A new IPv6 address is checked for two seconds; the query follows within a second, and the reason is told once."""
    with Lab() as lab:
        one, two = lab.host("one", dad=True), lab.host("two")
        lab.link(one, two)
        with two.entered():
            wire = FrameSource(["eth0"])
        one.ip("link set eth0 down", "link set eth0 up")
        began = time.monotonic()
        process = program("querier", "-i", "eth0", "-6", on=one)
        local = ip_address(one.interface("eth0").link_local).packed
        frames: list[Frame] = []

        def asks() -> bool:
            frames.extend(frame for frame in wire.take() if frame.packet[8:24] == local and frame.packet[48] == 130)
            return bool(frames)

        # The source looks at the interfaces again when one changes, as eth0 does here.
        with closing(wire), two.entered():
            wait_until(asks, "a query", 20)
        assert time.monotonic() - began < 15
        process.terminate()
        _, messages = process.communicate(timeout=20)
        assert messages.count("Cannot ask on eth0: ") <= 1


def test_a_vlan_is_another_link(program: Program, hosts: tuple[Host, Host]) -> None:
    """A querier in a VLAN silences none outside of it, and `mcast watch` tells them apart."""
    one, two = hosts
    watching = started(program, "--json", on=one)
    process = program(
        "querier", "-i", "eth0", "-4", "--query-interval", "1", "--response-time", "0.2", "--json", on=one
    )
    json_until(process, "querier")
    lower = build_group_message(GroupMessage("10.0.0.0", GroupQuery(3, None, (), 0.1)))
    with two.entered():
        sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with sender:
        sender.bind(("eth0", 0))
        sender.send(bytes.fromhex("01005e000001 020000000009 8100 000a 0800") + lower)
    found = json_until(watching, "querier", host="10.0.0.0")
    assert found[-1]["interface"] == "eth0 VLAN 10"
    assert json_until(process, "query")[-1]["host"] == "10.0.0.1"
    assert json_until(process, "query")[-1]["host"] == "10.0.0.1"


def test_a_querier_follows_its_interface(program: Program, hosts: tuple[Host, Host]) -> None:
    """It ends with the interface and asks again when that is back, from the address that it has then."""
    one, _ = hosts
    process = program("querier", "-i", "eth0", "-4", "--json", on=one)
    json_until(process, "querier")
    one.set_link("eth0", up=False)
    assert json_until(process, "ended")[-1]["host"] == "10.0.0.1"
    one.set_link("eth0", up=True)
    assert json_until(process, "querier")[-1]["host"] == "10.0.0.1"
    one.replace_address("eth0", "10.0.0.77/24")
    assert json_until(process, "querier")[-1]["host"] == "10.0.0.77"
