"""`mcast doctor` run on a host of the lab as its user runs it: as a process, by root or by nobody in particular."""

import functools
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from doctor.forks import forks
from multicast_expert.testing import Host
from programs import MCAST

NOBODY = 65534
PATIENCE = 60.0


class Diagnosis(NamedTuple):
    """What the doctor said."""

    status: int
    report: dict[str, Any]
    stderr: str

    @property
    def cause(self) -> str | None:
        """The check that was named."""
        cause: str | None = self.report["cause"]
        return cause

    @property
    def finding(self) -> dict[str, Any]:
        """What that check found."""
        return next(each for each in self.report["findings"] if each["check"] == self.cause and each["verdict"] != "ok")

    @property
    def weighty(self) -> str:
        """All findings but the good ones, for messages of tests."""
        lines = [
            f"{each['verdict']} {each['check']}: {each['summary']} {each['evidence']} {each['remedy']}"
            for each in self.report["findings"]
            if each["verdict"] != "ok"
        ]
        return "\n".join([f"{self.report['verdict']}, received {self.report['received']}", *lines, self.stderr])


NO_CAPABILITIES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--ambient-caps=-all")


@functools.cache
def as_nobody() -> tuple[str, ...]:
    """What to put before a command to make it an ordinary user's; empty where there is no other user to be.

    So it is in an ordinary user's namespace, and where the files of this project are closed to others.
    """
    prefix = (*NO_CAPABILITIES, f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups")
    tried = subprocess.run(
        [*prefix, sys.executable, "-c", "import multicast_expert.cli"], capture_output=True, check=False
    )
    return prefix if tried.returncode == 0 else ()


def run(host: Host, command: Sequence[str], *, privileged: bool = True) -> "subprocess.CompletedProcess[str]":
    """Run a program on the host to its end, whatever that is."""
    process = host.popen(
        [*(() if privileged else as_nobody() or NO_CAPABILITIES), *command],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        cwd=Path("/"),
    )
    output, messages = process.communicate(timeout=PATIENCE)
    host.end_process(process)
    return subprocess.CompletedProcess(list(command), process.returncode, output, messages)


def doctor(
    host: Host, arguments: Sequence[str], seconds: float, *, privileged: bool = True, fresh: bool = False
) -> Diagnosis:
    """Run the doctor with --json; AssertionError if it prints anything else. `fresh`: in an interpreter of its own."""
    words = ["doctor", *arguments, "--listen", str(seconds), "--json"]
    if fresh:
        done = run(host, [*MCAST, *words], privileged=privileged)
    else:
        done = forks().run(host, words, PATIENCE, 0 if privileged else NOBODY if as_nobody() else None)
    assert done.returncode in (0, 1, 3), done.stderr
    assert done.stdout, done.stderr
    return Diagnosis(done.returncode, json.loads(done.stdout), done.stderr)


def arriving(host: Host, arguments: Sequence[str], wanted: int, seconds: float) -> int:
    """How many datagrams a receiver gets, which ends when it has got as many as wanted."""
    done = forks().run(host, ["recv", *arguments, "--json", "-c", str(wanted), "-W", str(seconds)], PATIENCE)
    return len(done.stdout.splitlines())
