"""A host of its own for the tests of one file, and the command running on it."""

import contextlib
import io
import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from time import monotonic, sleep
from typing import NamedTuple

import pytest

from multicast_expert.cli import run
from multicast_expert.testing import Host, Lab, lab_unavailable
from programs import MCAST

Run = Callable[..., "Done"]
Program = Callable[..., "subprocess.Popen[str]"]

# As a user's, who has not switched the buffers off
ENVIRONMENT = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"} | {"COLUMNS": "80"}
PATIENCE = 30


class Done(NamedTuple):
    """How a command ended and what it wrote."""

    returncode: int
    stdout: str
    stderr: str


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    """An empty network laboratory, which the tests of one file share; skips where the machine allows none."""
    reason = lab_unavailable()
    if reason is not None:
        pytest.skip(f"no multicast lab: {reason}")
    with Lab() as opened:
        yield opened


@pytest.fixture(scope="module")
def host(lab: Lab) -> Host:
    """A host with eth0 and default routes, whose loopback interface carries IPv6 multicast."""
    made = lab.host("desk")
    made.add_interface("eth0", ipv4="10.9.0.1/24", ipv6="fd09::1/64")
    made.ip("route add default via 10.9.0.254", "route add default via fd09::ffff")
    made.allow_ipv6_loopback()
    return made


@pytest.fixture(scope="module")
def bare(lab: Lab) -> Host:
    """A host with nothing but a loopback interface, as Linux makes it."""
    return lab.host("bare")


@pytest.fixture
def mcast(host: Host, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs `mcast` on the host, in this process: a program of its own would take a hundred times as long."""

    def call(arguments: tuple[str, ...], stdin: bytes) -> Done:
        monkeypatch.setattr(sys, "argv", ["mcast", *arguments])
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        with redirect_stdout(io.StringIO()) as output, redirect_stderr(io.StringIO()) as messages:
            status = run()
        return Done(status, output.getvalue(), messages.getvalue())

    def mcast(*arguments: str, on: Host = host, stdin: bytes = b"") -> Done:
        return on.run(call, arguments, stdin)

    return mcast


@pytest.fixture
def program(host: Host) -> Iterator[Program]:
    """Starts `mcast` as a program on the host; it is ended after the test."""
    started: list[tuple[Host, subprocess.Popen[str]]] = []

    def start(*arguments: str, on: Host = host, prefix: tuple[str, ...] = ()) -> "subprocess.Popen[str]":
        process = on.popen(
            [*prefix, *MCAST, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            env=ENVIRONMENT,
        )
        started.append((on, process))
        return process

    yield start
    for node, process in started:
        node.end_process(process)


@pytest.fixture
def listening(program: Program) -> Program:
    """Starts `mcast recv` on the host and returns once it listens."""

    def start(*arguments: str, on: Host | None = None) -> "subprocess.Popen[str]":
        process = program("recv", *arguments) if on is None else program("recv", *arguments, on=on)
        assert process.stderr is not None
        assert process.stderr.readline().startswith("listening to ")
        # Ctrl-C just while it opens what it waits with would leave that to the garbage collector, which says so.
        deadline = monotonic() + 1  # a program that has something to receive at once need not wait
        while "poll" not in Path(f"/proc/{process.pid}/wchan").read_text() and monotonic() < deadline:
            sleep(0.001)
        return process

    return start


@pytest.fixture
def ended() -> Callable[..., Done]:
    """Waits for a program and returns what it wrote since; `interrupt=True` presses Ctrl-C first."""

    def wait(process: "subprocess.Popen[str]", interrupt: bool = False) -> Done:
        if interrupt:
            process.send_signal(signal.SIGINT)
        output, messages = process.communicate(timeout=PATIENCE)
        return Done(process.returncode, output, messages)

    return wait


def on_terminal(host: Host, *arguments: str, status: int = 0, **environment: str) -> str:
    """What a command writes to a colour terminal of 80 columns."""
    ours, theirs = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "FORCE_COLOR")}
    process = host.popen(
        [*MCAST, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean | {"TERM": "xterm-256color", "COLUMNS": "80"} | environment,
    )
    os.close(theirs)
    written = b""
    with os.fdopen(ours, "rb", buffering=0) as screen, contextlib.suppress(OSError):  # EIO: the other end is closed
        while chunk := screen.read(4096):
            written += chunk
    assert process.wait(20) == status
    return written.decode()
