"""Runs one program in a process of its own, within a deadline, and fails with all that it printed."""

import contextlib
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import multicast_expert

DEADLINE = 20.0
"""Seconds: many times what a program takes on a busy machine."""

PATHS = [str(Path(multicast_expert.__file__).parents[1]), str(Path(__file__).parents[1])]
FORKING = "ignore:This process:DeprecationWarning"
"""Python 3.12 and later warn of forks beside threads, which is what the programs are about."""


def run(
    file: str,
    function: str,
    *,
    pure: bool = False,
    deadline: float = DEADLINE,
    options: tuple[str, ...] = (),
    noise: bool = False,
    statuses: tuple[int, ...] = (0,),
    **arguments: object,
) -> str:
    """Run a program to its end and return what it printed, with its standard error where that may have `noise`.

    The test fails when the program ends with a status that is none of `statuses`, takes longer than the deadline, or
    writes to its standard error without leave. Processes that it leaves behind are killed.
    """
    command = [sys.executable, "-W", "default", "-W", FORKING, *options, "-m", "interruptions.programs", file, function]
    process = subprocess.Popen(
        [*command, json.dumps(arguments)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS), "MULTICAST_EXPERT_PURE": "1" if pure else ""},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        # Popen.wait would look every 50 ms, and some tests take the time.
        pidfd = os.pidfd_open(process.pid)
        if not select.select([pidfd], [], [], deadline)[0]:
            # It prints the stacks of its threads.
            process.send_signal(signal.SIGABRT)
            select.select([pidfd], [], [], 5)
        os.close(pidfd)
    finally:
        # The group: a child that hangs would hold the pipes open.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        printed, complaints = process.communicate()
    if process.returncode not in statuses or (complaints and not noise):
        pytest.fail(f"{file}.{function} ended with {process.returncode}\n{printed}\n{complaints}", pytrace=False)
    return printed + complaints


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
