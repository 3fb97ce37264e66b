"""A short stress run of all faces, as `python -m tests.interruptions` makes longer ones."""

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
    finished = subprocess.run(
        [sys.executable, "-m", "tests.interruptions", "--minutes", "0.2"],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(PATHS)},
        capture_output=True,
        text=True,
        timeout=150,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert "all is accounted for" in finished.stdout
