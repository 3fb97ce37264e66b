"""The doctor when something runs out or is odd: descriptors, programs on the PATH, names that are not text."""

import errno
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from doctor.command import PATIENCE
from doctor.stage import GROUP, GROUP6, PORT, Stage, stage
from multicast_expert.doctor import collect, facts_to_text, judge
from multicast_expert.doctor.facts import Target, Unread
from multicast_expert.doctor.host.linux import LinuxHost
from multicast_expert.system import commands
from multicast_expert.testing import Host, lab_unavailable

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}"),
]


@pytest.fixture
def cabled() -> Iterator[Stage]:
    """A listener that is joined by a cable to a talker that sends."""
    with stage() as made:
        made.cable()
        made.talker.send_datagrams(GROUP, PORT, interface="eth0", interval=0.005)
        yield made


def run(host: Host, script: str, *arguments: str, **environment: str) -> str:
    """What a Python program writes that runs on the host; it must end well."""
    process = host.popen(
        [sys.executable, "-c", script, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, **environment},
    )
    output, messages = process.communicate(timeout=PATIENCE)
    host.end_process(process)
    assert process.returncode == 0, messages.decode(errors="replace")
    return output.decode()


LIMITED = """
import json, os, resource, sys
from multicast_expert import MulticastExpertError
from multicast_expert.doctor import collect, judge

def fill():
    held = []
    while True:
        try:
            held.append(os.dup(0))
        except OSError:
            return held

group, port = sys.argv[1], int(sys.argv[2])
collect(group, port, listen=0)  # loads all modules
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
for free in range(24):
    held = fill()
    for _ in range(free):
        os.close(held.pop())
    try:
        report = judge(collect(group, port, listen=0.1)).as_dict()
    except MulticastExpertError as error:
        report = str(error)
    again = fill()
    for each in held + again:
        os.close(each)
    print(json.dumps([free, len(again), report]))
"""


@pytest.mark.parametrize("group", [GROUP, GROUP6])
def test_the_descriptors_run_out(cabled: Stage, group: str) -> None:
    """However few descriptors there are, the answer is a report or our own error, and all of them are given back."""
    lines = [json.loads(line) for line in run(cabled.listener, LIMITED, group, str(PORT)).splitlines()]
    for free, left, report in lines:
        assert left == free, report
        if isinstance(report, str):
            assert "Too many open files" in report
            assert free == 0
    reports = [report for _, _, report in lines[1:]]
    assert all(not each["summary"].startswith("The check failed") for report in reports for each in report["findings"])
    assert all(report["cause"] in (None, "membership-limit", "no-traffic") for report in reports)
    # With few of them the findings say what is missing; with enough nothing is.
    few, enough = reports[0], reports[-1]
    assert few["verdict"] == "unknown"
    assert "Too many open files" in str(few["findings"])
    assert "ulimit -n" in str(few["findings"])
    assert "Too many open files" not in str(enough["findings"])
    assert group == GROUP6 or enough["verdict"] == "ok"


@pytest.mark.parametrize("number", [errno.EMFILE, errno.ENFILE, errno.EACCES])
def test_counters_that_cannot_be_read_are_not_zero(number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a descriptor there is no answer: counters that seem to be gone would look as if all had grown since."""

    def refuse(*_: object, **__: object) -> str:
        raise OSError(number, os.strerror(number))

    host = LinuxHost(Target(GROUP, PORT, None, None, 4))
    monkeypatch.setattr(Path, "read_bytes", refuse)
    if number == errno.EACCES:
        assert host.counters().kernel == {}
    else:
        with pytest.raises(OSError, match="open files"):
            host.counters()


@pytest.mark.parametrize("path", ["", ".", ":/usr/bin:", "relative"])
def test_no_program_of_the_working_directory_runs(
    cabled: Stage, path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An empty or relative entry of PATH means the working directory, and whoever can write there is not trusted."""
    (tmp_path / "relative").mkdir()
    for directory in (tmp_path, tmp_path / "relative"):
        for name in ("nft", "iptables-save", "ip6tables-save", "iptables-nft-save"):
            program = directory / name
            program.write_text(f"#!/bin/sh\necho > {tmp_path}/ran\n")
            program.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", path)
    monkeypatch.setattr(commands, "_UNIX", ())
    facts = cabled.listener.run(collect, GROUP, PORT, listen=0)
    assert isinstance(facts.firewall, Unread) or path == ":/usr/bin:"
    assert not (tmp_path / "ran").exists()


HOLDER = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, bytes.fromhex(sys.argv[1]))
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
    member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    member.bind(("", int(sys.argv[2])))
    print(flush=True)
    sys.stdin.read()
"""
CLEAR = "\x1b[2Jevil"


def test_a_process_with_a_hostile_name(cabled: Stage) -> None:
    """A name with control characters, or that is not UTF-8, is shown without them."""
    for name in (CLEAR.encode(), b"\xff\xfe\x9b2J"):
        holder = cabled.listener.popen(
            [sys.executable, "-c", HOLDER, name.hex(), str(PORT)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert holder.stdout is not None
        holder.stdout.readline()
        shown(cabled.listener, f"{GROUP}:{PORT}")
        cabled.listener.end_process(holder)


@pytest.mark.parametrize("name", [b"e\x1b[2Jh", b"\x07\x08\x7f", b"eth'$(x)"])
def test_an_interface_with_a_hostile_name(cabled: Stage, name: bytes) -> None:
    """Its name is collected as it is, quoted in commands, and shown without control characters."""
    text = os.fsdecode(name)
    cabled.listener.command("ip", "link", "add", text, "type", "veth", "peer", "name", "other")
    cabled.listener.command("ip", "link", "set", text, "up")
    facts = cabled.listener.run(collect, GROUP, PORT, None, text, 0)
    assert facts.target.interface == text
    report = judge(facts)
    assert not [each for each in report.findings if each.summary.startswith("The check failed")]
    assert facts_to_text(facts).isascii()
    shown(cabled.listener, f"{GROUP}:{PORT}", "-i", text)


def shown(host: Host, *arguments: str) -> None:
    """Run the command; nothing raw may reach the terminal, in text or JSON."""
    for options in ((), ("--json",)):
        process = host.popen(
            [sys.executable, "-m", "multicast_expert", "doctor", *arguments, "--listen", "0.1", *options],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        output, messages = process.communicate(timeout=PATIENCE)
        host.end_process(process)
        assert process.returncode in (0, 1, 3), messages
        assert b"Traceback" not in messages
        for line in (output + messages).decode().splitlines():
            assert line.isprintable(), ascii(line)
