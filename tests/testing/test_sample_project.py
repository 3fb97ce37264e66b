"""The example project that tests a program of its own with the plugin."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import multicast_expert
from programs import need

PROJECT = Path(__file__).parents[2] / "examples" / "beacon"


@pytest.mark.slow
def test_its_tests_pass(tmp_path: Path) -> None:
    """Copied somewhere else, with the package on the path and no other plugin, the project's eight tests pass."""
    need("ip")
    need("nft")  # for the firewall in the way
    assert multicast_expert.__file__ is not None
    project = shutil.copytree(PROJECT, tmp_path / "beacon", ignore=shutil.ignore_patterns("__pycache__", "build"))
    path = os.pathsep.join([str(Path(multicast_expert.__file__).parent.parent), *filter(None, sys.path)])
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment |= {"PYTHONPATH": path, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    arguments = ["-p", "multicast_expert.testing.pytest_plugin", "-p", "no:cacheprovider", "-q"]
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert "8 passed" in finished.stdout, finished.stdout + finished.stderr
    assert "skipped" not in finished.stdout
