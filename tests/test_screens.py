"""The screens of the pages and the JSON of the commands are what the commands write today."""

import json
import re
import shlex
import subprocess

import fastjsonschema
import pytest

from documents import screens
from documents.screens import GROUP, MCAST, SCREENS, Screen
from documents_text import ROOT, without_numbers
from drops.conftest import verdict_unavailable
from multicast_expert.cli import COMMANDS
from multicast_expert.testing import lab_unavailable

SCHEMAS = ROOT / "docs" / "schemas"

# Command lines with --json, by the schema of what they write, and the scene in which they run.
JSON = [
    ("interfaces", screens.silence, "interfaces --json"),
    ("groups", screens.members, "groups --json"),
    ("recv", screens.stream, "recv 239.1.2.3:5000 -c 3 --json"),
    ("recv-measure", screens.stream, f"recv -q --every 0.5 {GROUP} -W 2 --json"),
    ("record", screens.stream, f"record /dev/null {GROUP} -c 3 --json"),
    ("replay", screens.recorded, f"replay {screens.RECORDING} -i eth0 --json"),
    ("doctor", screens.filtered, f"doctor {GROUP} --listen 1 --json"),
    ("doctor", screens.stream, f"doctor {GROUP} --listen 1 --watch --json"),
    ("drops", screens.overflow, "drops --for 1 --json"),
    ("top", screens.stream, "top --for 2 --json"),
    ("scan", screens.joins, "scan -i eth0 --for 3 --json"),
    ("watch", screens.joins, "watch --for 3 --json"),
    ("watch", screens.silence, "querier -i eth0 --for 1 --json"),
    ("ping", screens.answering, "ping 10.9.0.7 -c 3 --json"),
    ("ping", screens.silence, "ping 10.9.0.99 -c 1 -W 1 --json"),
    ("bridge", screens.bridged, "bridge 239.1.2.3:5000 -i eth0 --connect tcp/10.9.0.7:7447 --for 5 --json"),
    ("plan", screens.silence, f"plan {GROUP} --json"),
    ("plan", screens.silence, f"plan {GROUP} --both-ways --os windows --example --json"),
]
KERNEL = {"doctor", "drops"}
"""Screens that show what the kernel says about dropped packets."""


@pytest.fixture(autouse=True)
def needs_a_lab() -> None:
    """Skips where the machine allows no lab."""
    if reason := lab_unavailable():
        pytest.skip(f"no multicast lab: {reason}")


def skip_without_a_verdict(name: str) -> None:
    """Skip what the kernel does not report on this machine."""
    if name in KERNEL and (reason := verdict_unavailable()):
        pytest.skip(f"no verdict of the kernel: {reason}")
    if name == "bridge":
        pytest.importorskip("zenoh", reason="eclipse-zenoh is not installed")


def shape(screen: str) -> list[str]:
    """The lines of a screen without what changes from run to run: numbers, order, repetitions, python or python3."""
    lines = {re.sub(r"python[\d.]+", "python", line) for line in screen.splitlines()}
    return sorted({without_numbers(line) for line in lines} - {""})


@pytest.mark.slow
@pytest.mark.parametrize("name", SCREENS)
def test_a_screen_is_what_the_command_shows(name: str) -> None:
    """`python -m documents` would write the same screen, but for numbers, and the order and number of like lines."""
    skip_without_a_verdict(name)
    kept = (screens.FOLDER / f"{name}.txt").read_text(encoding="utf-8")
    assert shape(screens.draw(SCREENS[name])) == shape(kept)


def test_an_old_screen_is_noticed() -> None:
    """A changed word, a line more or a line less is another screen; another number is not."""
    kept = "$ mcast x\n3 datagrams from 10.9.0.7\n0 lost\n"
    assert shape(kept.replace("3", "17")) == shape(kept)
    for other in (kept.replace("lost", "missing"), kept + "jitter 4 ms\n", kept.replace("0 lost\n", "")):
        assert shape(other) != shape(kept)


@pytest.mark.slow
@pytest.mark.parametrize(("schema", "scene", "line"), JSON, ids=[line for _, _, line in JSON])
def test_json_is_as_its_schema_says(schema: str, scene: object, line: str) -> None:
    """Every object that the command writes is valid by its published schema, and there is one at least."""
    skip_without_a_verdict(schema)
    validate = fastjsonschema.compile(json.loads((SCHEMAS / f"{schema}.json").read_text(encoding="utf-8")))
    with screens.network() as places:
        Screen(scene, ()).scene(places)
        done = places.desk.run(
            subprocess.run,
            [*MCAST, *shlex.split(line)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
    try:
        written = [json.loads(done.stdout)]
    except json.JSONDecodeError:  # an object a line
        written = [json.loads(each) for each in done.stdout.splitlines()]
    assert written, done.stderr
    for each in written:
        validate(each)
        unknown = [*each, {}] if isinstance(each, list) else each | {"a name that no schema has": 1}
        with pytest.raises(fastjsonschema.JsonSchemaException):
            validate(unknown)


def test_every_command_with_json_is_checked() -> None:
    """Each command whose manual has --json is among those whose output is held against a schema."""
    manual = ROOT / "docs" / "man"
    having = {name for name in COMMANDS if r"\-\-json" in (manual / f"mcast-{name}.1").read_text(encoding="ascii")}
    assert having == {line.split()[0] for _, _, line in JSON}


def test_every_schema_is_used_and_listed() -> None:
    """Each schema file is one that a command is held against, and the page of JSON links to it."""
    page = (ROOT / "docs" / "reference" / "json.md").read_text(encoding="utf-8")
    names = {path.stem for path in SCHEMAS.glob("*.json")}
    assert names == {schema for schema, _, _ in JSON}
    assert [name for name in names if f"../schemas/{name}.json" not in page] == []
