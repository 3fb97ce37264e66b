"""Short stress runs, as `python -m tests.interruptions` and `interruptions.filling` make longer ones."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from interruptions.running import PATHS


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_twelve_seconds_of_everything() -> None:
    """Signals, forks, closes, joins and flaps at once: nothing hangs, leaks, is lost or doubled."""
    assert "all is accounted for" in told_by("tests.interruptions", "--minutes", "0.2")


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--no-gro"], ["--no-gro", "--buffer", "20000"]], ids=" ".join)
def test_buffers_that_are_filled(options: list[str]) -> None:
    """What is received into buffers, and what the kernel drops, is all that was sent."""
    told = told_by("interruptions.filling", "--count", "30000", *options)
    assert "--buffer" not in options or ", 0 missing" not in told


def told_by(program: str, *options: str) -> str:
    """Run a program and return what it prints; AssertionError when it fails."""
    finished = subprocess.run(
        [sys.executable, "-m", program, *options],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout
