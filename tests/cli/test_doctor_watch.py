"""`mcast doctor --watch`: one round after the other, until all is well or nobody reads on."""

import json
import signal
import sys
from collections.abc import Callable
from dataclasses import replace

import pytest

from cli.conftest import Done, Program
from cli.doctor_reports import FACTS, talking
from multicast_expert.cli import run, terminal
from multicast_expert.cli.render.doctor import report_lines
from multicast_expert.doctor.facts import Facts, Trial
from multicast_expert.doctor.judgement import judge
from multicast_expert.testing import Host

Ended = Callable[..., Done]


def wanting() -> Facts:
    """Facts of a host on which nothing arrives."""
    return replace(FACTS, trial=Trial(5.0, True))


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
