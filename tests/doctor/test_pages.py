"""The document of all causes is made from the docstrings of the checks."""

import subprocess
import sys
from pathlib import Path

from multicast_expert.doctor.checks import CHECKS, check_name
from multicast_expert.doctor.pages import document

FILE = Path(__file__).parents[2] / "docs" / "why-nothing-arrives.md"


def test_the_document_is_up_to_date() -> None:
    """docs/why-nothing-arrives.md is what `python -m multicast_expert.doctor.pages` writes."""
    command = [sys.executable, "-m", "multicast_expert.doctor.pages"]
    written = subprocess.run(command, capture_output=True, check=True).stdout
    assert FILE.read_bytes() == written


def test_every_check_has_a_page() -> None:
    """Each has a heading, a first sentence, and more than that."""
    sections = dict(part.split("\n", 1) for part in document().split("\n## ")[1:])
    assert list(sections) == [check_name(check) for check in CHECKS]
    for name, page in sections.items():
        first, *rest = page.strip().splitlines()
        assert first.endswith("."), name
        assert len(rest) > 2, name
