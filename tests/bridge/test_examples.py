"""The files for systemd, Docker and Kubernetes are well-formed, and their command lines are valid. None is run."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from documents_text import ROOT
from multicast_expert.cli import load
from multicast_expert.cli.parsing import parse

EXAMPLES = ROOT / "examples" / "bridge"


def command_lines() -> dict[str, list[str]]:
    """The arguments of `mcast bridge` in each file."""
    found = {}
    for path in sorted(EXAMPLES.iterdir()):
        text = path.read_text(encoding="utf-8")
        if match := re.search(r"args: (\[.*\])", text):
            found[path.name] = json.loads(match[1])
        elif match := re.search(r"(?:mcast bridge|docker run .* mcast-bridge) (\d.*)", text):
            found[path.name] = match[1].split()
    return found


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.iterdir()))
def test_a_command_line_is_valid(name: str) -> None:
    """Each file has one, and the command takes it."""
    words = command_lines()[name]
    values = parse(load("bridge").slots, words)
    assert values["texts"] == ["239.1.2.3:5000"]
    assert values["connect"] == ["tcp/192.0.2.1:7447"]


@pytest.mark.parametrize("name", ["daemonset.yaml", "sidecar.yaml"])
def test_a_manifest_is_yaml(name: str) -> None:
    """With the parts that Kubernetes needs, as far as that shows without it."""
    yaml = pytest.importorskip("yaml", reason="PyYAML is not installed (it is in the test extra)")
    manifest = yaml.safe_load((EXAMPLES / name).read_text(encoding="utf-8"))
    assert {"apiVersion", "kind", "metadata", "spec"} <= set(manifest)
    pod = manifest["spec"].get("template", manifest)["spec"]
    assert all({"name", "image"} <= set(each) for each in pod["containers"])


def test_the_unit_is_one_of_systemd(tmp_path: Path) -> None:
    """systemd-analyze finds nothing wrong, but that the program is not there."""
    unit = tmp_path / "mcast-bridge.service"
    text = (EXAMPLES / unit.name).read_text(encoding="utf-8")
    unit.write_text(text.replace("/usr/local/bin/mcast", "/bin/true"), encoding="utf-8")
    done = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert "mcast-bridge" not in done.stderr
