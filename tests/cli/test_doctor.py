"""`mcast doctor` on a host, and of saved facts: what it finds, and how it ends."""

import json
import re
import signal
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from cli.conftest import Done, Program, Run, on_terminal
from cli.doctor_reports import FACTS, talking
from multicast_expert.cli import run
from multicast_expert.doctor.checks import CHECKS, check_name
from multicast_expert.doctor.facts import Facts, Target, Trial
from multicast_expert.doctor.saved import facts_from_text, facts_to_text
from multicast_expert.testing import Host

Ended = Callable[..., Done]


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
        (["239.1.2.3", "--from", "x"], "--from and ENDPOINT exclude each other."),
        (["--listen", "5", "--from", "x"], "--from and --listen exclude each other."),
        (["239.1.2.3", "--watch", "--save", "x"], "--watch and --save exclude each other."),
        (["--watch", "--from", "x"], "--from and --watch exclude each other."),
        (["--explain", "weather"], "there is no check 'weather'; the checks are "),
    ],
)
def test_a_wrong_command_line(mcast: Run, arguments: list[str], message: str) -> None:
    """Exit status 2, and one line that says what is wrong."""
    done = mcast("doctor", *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"mcast: {message}"), done.stderr


def test_an_unknown_check(mcast: Run) -> None:
    """Who asks for a check that does not exist is told which there are, and which was probably meant."""
    message = mcast("doctor", "--explain", "reverse-path").stderr
    assert all(check_name(check) in message for check in CHECKS)
    assert " Did you mean reverse-path-filter?\n" in message


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


def test_fine_is_listed_on_demand(mcast: Run, saved: Path) -> None:
    """-v lists each check that found nothing, with why, and what could not be read."""
    short, long = (mcast("doctor", "--from", str(saved), *more).stdout for more in ([], ["-v"]))
    assert re.search(r"^Fine: \d+ checks \(-v lists them\)$", short, re.MULTILINE)
    assert "  group-address: " not in short
    assert re.search(r"^Fine:\n  group-address: ", long, re.MULTILINE)
    assert "Not read:\n" in long
