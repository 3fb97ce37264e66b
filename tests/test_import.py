"""What importing the package costs, and that its names, which Python loads on first use, are all there."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest

import multicast_expert
from multicast_expert import testing

PACKAGES = [multicast_expert, testing]


def loaded_by(statement: str) -> set[str]:
    """Names of the modules that a statement loads into a fresh interpreter."""
    program = f"import sys; before = set(sys.modules); {statement}; print(*set(sys.modules) - before)"
    assert multicast_expert.__file__ is not None
    source = str(Path(multicast_expert.__file__).parent.parent)
    done = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path = {[source, *sys.path]!r}; {program}"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split())


def test_what_a_bare_import_loads() -> None:
    """`import multicast_expert` loads one file of the library and, of Python's, at most what finds modules."""
    own = {"multicast_expert", "importlib", "importlib._bootstrap", "importlib._bootstrap_external", "warnings"}
    assert loaded_by("import multicast_expert") <= own


@pytest.mark.parametrize(
    ("name", "foreign"),
    [
        ("parse_endpoint", {"asyncio", "psutil", "anyio", "socket"}),
        ("scan_interfaces", {"asyncio", "anyio"}),
        ("McastRxSocket", {"anyio"}),
        ("McastTxSocket", {"anyio"}),
    ],
)
def test_a_name_loads_what_it_needs(name: str, foreign: set[str]) -> None:
    """One name does not load what only others need."""
    assert loaded_by(f"from multicast_expert import {name}") & foreign == set()


@pytest.mark.parametrize("package", PACKAGES, ids=lambda package: package.__name__)
def test_every_public_name_is_there(package: object) -> None:
    """Each name of `__all__` resolves, dir() lists it, `import *` binds it, and any other name is an AttributeError."""
    names: list[str] = package.__all__  # type: ignore[attr-defined]
    scope: dict[str, object] = {}
    exec(f"from {package.__name__} import *", scope)  # type: ignore[attr-defined]
    for name in names:
        assert getattr(package, name) is scope[name]
    assert set(names) <= set(dir(package))
    with pytest.raises(AttributeError, match="has no attribute 'McastRxSockets'"):
        _ = package.McastRxSockets  # type: ignore[attr-defined]


@pytest.mark.parametrize("name", multicast_expert.__all__)
def test_public_names_can_be_pickled(name: str) -> None:
    """A class or a function comes back from pickle as itself, in a process that has loaded nothing but the package."""
    value = getattr(multicast_expert, name)
    assert pickle.loads(pickle.dumps(value)) == value
    load = f"import multicast_expert, pickle; assert pickle.loads({pickle.dumps(value)!r}) == multicast_expert.{name}"
    assert "multicast_expert" in loaded_by(load)


def test_an_extension_of_another_version_is_named() -> None:
    """As after `git pull` in an editable install: the cure is said, instead of an AttributeError."""
    fake = "import types; sys.modules['multicast_expert._fast'] = types.ModuleType('multicast_expert._fast')"
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; {fake}; from multicast_expert import McastRxSocket"],
        capture_output=True,
        text=True,
        check=False,
        env={name: value for name, value in os.environ.items() if name != "MULTICAST_EXPERT_PURE"},
    )
    assert done.returncode == 1
    assert "another version" in done.stderr.splitlines()[-1]
    assert "install the package again" in done.stderr.splitlines()[-1]
