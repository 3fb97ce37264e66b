"""Runs the steps of a job of .github/workflows as a Linux runner does: `python .ci/steps.py WORKFLOW JOB DIRECTORY`.

They run in a copy of the sources in that directory, in a fresh environment of the Python that runs this. Actions do not
run: this script brings sources and Python itself, and names the others. Steps that need `sudo` change the runner, and
are named, too.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
CONSTANTS = {"runner.os == 'Linux'": True, "github.ref_type == 'tag'": False}
"""What the conditions of the steps are on a Linux runner that no tag has started."""


def applies(step: dict[str, Any]) -> bool:
    """Return whether the runner would run it; KeyError for a condition that this script does not know."""
    return "if" not in step or CONSTANTS[step["if"]]


def run_job(workflow: str, name: str, directory: Path) -> None:
    """Run all steps; CalledProcessError at the first that fails."""
    job = yaml.safe_load((ROOT / ".github" / "workflows" / workflow).read_text())["jobs"][name]
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for path in filter(None, listed.split("\0")):
        target = directory / "sources" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, target)
    environment: dict[str, str] = {}
    for step in filter(applies, job["steps"]):
        script, action = step.get("run"), step.get("uses", "").partition("@")[0]
        if action == "actions/setup-python":
            subprocess.run([sys.executable, "-m", "venv", directory / "python"], check=True)
            environment = {"VIRTUAL_ENV": str(directory / "python"), "PATH": f"{directory}/python/bin:/usr/bin:/bin"}
        elif script is None:
            print(f"--- {workflow} {name}: not here: {action}", flush=True)
        elif re.search(r"^\s*sudo\b", script, re.MULTILINE):
            print(f"--- {workflow} {name}: not here: {script.strip().splitlines()[0]} …", flush=True)
        else:
            assert "${{" not in script, f"this script knows no expressions, such as in: {script}"
            print(f"--- {workflow} {name}: {script.strip()}", flush=True)
            settings = {**os.environ, **environment, **step.get("env", {})}
            command = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", script]
            subprocess.run(command, cwd=directory / "sources", env=settings, stdin=subprocess.DEVNULL, check=True)


if __name__ == "__main__":
    run_job(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
