"""Runs programs, each in a process of its own, within a deadline, and fails with all that it printed."""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import pytest

import multicast_expert
from multicast_expert.testing.namespaces import THREAD_NAMESPACE

DEADLINE = 20.0
"""Seconds: many times what a program takes on a busy machine."""

PATHS = [str(Path(multicast_expert.__file__).parents[1]), str(Path(__file__).parents[1])]
FORKING = "ignore:This process:DeprecationWarning"
"""Python 3.12 and later warn of forks beside threads, which is what the programs are about."""


class Process(NamedTuple):
    """A program that was started, in a process group of its own. `reap` returns its status, and waits for it."""

    pid: int
    reap: Callable[[], int]


class Nursery:
    """A process that forks for each program; `interruptions.programs.nursery` is the other end."""

    def __init__(self, pure: bool, options: tuple[str, ...]) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with contextlib.ExitStack() as unless_started:
            unless_started.enter_context(ours)
            with theirs:
                self._process = interpreter(pure, options, str(theirs.fileno()), pass_fds=[theirs.fileno()])
            unless_started.pop_all()
        self._requests = ours

    def fork(self, words: list[str], output: int, errors: int) -> Process:
        """Start a program in the network of the calling thread."""
        network = os.open(THREAD_NAMESPACE, os.O_RDONLY)
        socket.send_fds(self._requests, [json.dumps(words).encode()], [output, errors, network])
        os.close(network)
        return Process(int(self._requests.recv(20)), self._reap)

    def _reap(self) -> int:
        self._requests.send(b"!")
        return os.waitstatus_to_exitcode(int(self._requests.recv(20)))

    def close(self) -> None:
        """Let it end."""
        self._requests.close()
        self._process.wait()


_nurseries: dict[tuple[bool, tuple[str, ...]], Nursery] = {}


def nursery(pure: bool, options: tuple[str, ...]) -> Nursery:
    """Return the one that this process has for such programs."""
    if (pure, options) not in _nurseries:
        _nurseries[pure, options] = Nursery(pure, options)
    return _nurseries[pure, options]


def close_nurseries() -> None:
    """Let all of them end."""
    while _nurseries:
        _nurseries.popitem()[1].close()


def interpreter(pure: bool, options: tuple[str, ...], *words: str, **how: Any) -> subprocess.Popen[bytes]:
    """Start an interpreter for programs, with or without the extension."""
    return subprocess.Popen(
        [sys.executable, "-W", "default", "-W", FORKING, *options, "-m", "interruptions.programs", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "MULTICAST_EXPERT_PURE": "1" if pure else ""},
        start_new_session=True,
        **how,
    )


def run(
    file: str,
    function: str,
    *,
    pure: bool = False,
    deadline: float = DEADLINE,
    options: tuple[str, ...] = (),
    noise: bool = False,
    statuses: tuple[int, ...] = (0,),
    fresh: bool = False,
    **arguments: object,
) -> str:
    """Run a program to its end and return what it printed, with its standard error where that may have `noise`.

    It runs in a fork of a process that has imported everything; with `fresh`, in an interpreter of its own. The test
    fails when the program ends with a status that is none of `statuses`, takes longer than the deadline, or writes to
    its standard error without leave. Processes that it leaves behind are killed.
    """
    words = [file, function, json.dumps(arguments)]
    with tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        if fresh:
            started = interpreter(pure, options, *words, stdout=output, stderr=errors)
            process = Process(started.pid, started.wait)
        else:
            process = nursery(pure, options).fork(words, output.fileno(), errors.fileno())
        try:
            wait_for_end(process.pid, deadline)
        finally:
            # The group: a child may hang.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            status = process.reap()
        printed, complaints = (_written(each) for each in (output, errors))
    if status not in statuses or (complaints and not noise):
        pytest.fail(f"{file}.{function} ended with {status}\n{printed}\n{complaints}", pytrace=False)
    return printed + complaints


def wait_for_end(pid: int, deadline: float) -> None:
    """Return when the process has ended; at the deadline let it print the stacks of its threads."""
    pidfd = os.pidfd_open(pid)
    try:
        if not select.select([pidfd], [], [], deadline)[0]:
            os.kill(pid, signal.SIGABRT)
            select.select([pidfd], [], [], 5)
    finally:
        os.close(pidfd)


def _written(file: IO[bytes]) -> str:
    file.seek(0)
    return file.read().decode()


EXTENSION = [pytest.param(False, id="native"), pytest.param(True, id="pure")]
SLOW = pytest.mark.slow

blocking_setups = pytest.mark.parametrize(
    ("pure", "count"),
    [
        pytest.param(False, 1, id="native-one"),
        pytest.param(False, 5, id="native-several"),
        pytest.param(True, 1, id="pure-one"),
        pytest.param(True, 5, id="pure-several", marks=SLOW),
    ],
)
"""With and without the extension; one group goes by the fast path for a single socket, several by a sweep."""

async_setups = pytest.mark.parametrize(
    ("face", "pure", "count"),
    [
        pytest.param(face, pure, count, id=f"{face}-{'pure' if pure else 'native'}-{count}", marks=marks)
        for face in ("asyncio", "uvloop", "trio")
        for pure, count, marks in ((False, 1, ()), (False, 5, SLOW), (True, 1, SLOW), (True, 5, ()))
    ],
)
"""Each event loop with and without the extension, with one group and with several."""
