"""A thread that dies is noticed: the programs that tests start end with it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import watched
from programs import MCAST

DYING = """
import sys, threading, time
try:
    threading.Thread(target=lambda: {}["of a thread"]).start()
    time.sleep(60)
except KeyboardInterrupt:
    pass
"""
UNWINDING = """
import threading
try:
    raise AssertionError("why")
finally:
    threading.Thread(target=lambda: {}["of a thread"]).start()
    threading.Event().wait(60)
"""
ENDING = """
import sys, threading
threading.Thread(target=sys.exit).start()  # which ends a thread, and is no failure
sys.exit(len(sys.argv))
"""


@pytest.mark.parametrize(
    ("program", "status", "messages"),
    [
        (DYING, watched.STATUS, ["KeyError: 'of a thread'"]),
        (UNWINDING, watched.STATUS, ["KeyError: 'of a thread'", "AssertionError: why"]),
        (ENDING, 3, []),
    ],
    ids=["dying", "unwinding", "ending"],
)
def test_a_program_ends_with_its_thread(tmp_path: Path, program: str, status: int, messages: list[str]) -> None:
    """At once, with the traceback, and that of the main thread if it has one; else it ends as it would."""
    (tmp_path / "it.py").write_text(program)
    done = subprocess.run(
        [sys.executable, watched.__file__, "it", "two", "words"],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == status, done.stderr
    assert [each for each in messages if each not in done.stderr] == []
    assert bool(done.stderr) == bool(messages)


def test_mcast_is_watched() -> None:
    """It is `mcast` as before."""
    done = subprocess.run([*MCAST, "--version"], capture_output=True, text=True, check=True, timeout=30)
    assert done.stdout.startswith("mcast ")
