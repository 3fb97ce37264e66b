"""The reference is whole: every public name, every command, and pages that are made from the package are as it is."""

import importlib
import re

import pytest

from documents import diagrams, os_errors
from documents.screens import SCREENS
from documents_text import BLOCKS, DOCUMENTS, ROOT
from multicast_expert.cli import COMMANDS
from programs import PACKAGES as DEBIAN_PACKAGES

DOCS = ROOT / "docs"
API = "\n".join(path.read_text(encoding="utf-8") for path in sorted(DOCS.glob("reference/api/*.md")))
PACKAGES = tuple(f"multicast_expert{part}" for part in ("", ".bridge", ".doctor", ".recording", ".testing"))
NAMES = [f"{package}.{name}" for package in PACKAGES for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize("name", [*NAMES, "multicast_expert.stamp"])
def test_every_public_name_has_its_place(name: str) -> None:
    """One page of the reference shows it, once."""
    assert len(re.findall(rf"^::: {re.escape(name)}$", API, flags=re.MULTILINE)) == 1


def test_the_reference_shows_public_names_only() -> None:
    """What a page of the reference shows is public."""
    assert set(re.findall(r"^::: (\S+)$", API, flags=re.MULTILINE)) == {*NAMES, "multicast_expert.stamp"}


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_a_page_with_a_screen(command: str) -> None:
    """The page shows a screen of it, the list of commands leads there, and so does the navigation."""
    page = (DOCS / "reference" / "commands" / f"{command}.md").read_text(encoding="utf-8")
    shown = re.findall(r'^--8<-- "screens/(.+)\.txt"$', page, flags=re.MULTILINE)
    assert shown
    assert all(f"mcast {command}" in SCREENS[name].lines[0] for name in shown)
    assert f"]({command}.md)" in (DOCS / "reference" / "commands" / "index.md").read_text(encoding="utf-8")
    assert f"reference/commands/{command}.md\n" in (ROOT / "mkdocs.yml").read_text(encoding="utf-8")


def test_every_screen_and_diagram_is_shown() -> None:
    """Each is part of a page, and each has a text for readers who do not see it."""
    shown = {
        name for path in DOCUMENTS for name in re.findall(r'^--8<-- "(.+)"$', path.read_text("utf-8"), re.MULTILINE)
    }
    assert shown == {f"screens/{name}.txt" for name in SCREENS} | {f"pictures/{name}.svg" for name in diagrams.DIAGRAMS}
    for text in diagrams.DIAGRAMS.values():
        assert len(text.strip().splitlines()[0]) > 40


@pytest.mark.parametrize("name", diagrams.DIAGRAMS)
def test_a_diagram_is_drawn_from_its_text(name: str) -> None:
    """`python -m documents` writes the same picture."""
    assert (DOCS / "pictures" / f"{name}.svg").read_text(encoding="utf-8") == diagrams.svg(diagrams.DIAGRAMS[name])


def test_the_page_of_errors_is_made_from_their_table() -> None:
    """`python -m documents` writes the same page."""
    assert os_errors.PAGE.read_text(encoding="utf-8") == os_errors.page()


def test_installing_names_a_version() -> None:
    """No line fetches an older program of the same name: without a version, pip takes what the index has.

    A line with the address of the repository fetches nothing else.
    """
    installs = re.compile(r"\b(pip3? install|pipx|uvx)\b")
    lines = [line for block in BLOCKS for line in block.text.splitlines() if installs.search(line)]
    prose = [text for path in DOCUMENTS for text in re.findall(r"`(pip3? install [^`]+)`", path.read_text("utf-8"))]
    named = [line for line in lines + prose if "multicast" in line]
    assert named
    right = re.compile(r"'multicast-expert(\[\w+\])?>=2|git\+https://github\.com/multicast-expert/")
    assert [line for line in named if not right.search(line)] == []


def test_the_readme_names_what_makes_the_tests_complete() -> None:
    """Each Debian package that a skipped test can name is in the README, and `.ci/run` installs it."""
    readme = re.search(r"All of it: `([^`]+)`", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert readme
    assert set(DEBIAN_PACKAGES.values()) <= set(readme[1].split())
    script = ROOT / ".ci" / "run"
    if script.exists():  # a source distribution has none
        installed = re.search(r"^programs=\((.*)\)$", script.read_text(encoding="utf-8"), re.MULTILINE)
        assert installed
        assert set(readme[1].split()) - {"gcc"} <= set(installed[1].split())
