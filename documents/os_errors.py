"""The page of what an OS rejects, from the table of the library: `python -m documents` writes it."""

import re
from collections.abc import Iterator
from pathlib import Path

from multicast_expert.core.errors import CASES, Case

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "os-errors.md"

BEGINNING = """\
# Errors of the system

A `MulticastOSError` says which step the OS rejected, why, and what to do: `errno`, `step`, `reason` and `remedy` are
its attributes. This is all that it can say. The first row that fits counts. [The classes of
errors](api/exceptions.md) have a page of their own.

<!-- Made from multicast_expert.core.errors: python -m documents -->

| Error | Step | System | Why | What to do |
|---|---|---|---|---|
"""


def page() -> str:
    """Return the page."""
    return BEGINNING + "".join(f"| {' | '.join(_cells(case))} |\n" for case in CASES)


def _cells(case: Case) -> Iterator[str]:
    yield f"`{case.error}`"
    yield ", ".join(case.steps) or "any"
    yield ", ".join(case.platforms) or "any"
    yield _text(case.reason) + (f" (where it is about: {case.fact})" if case.fact else "")
    yield _text(case.remedy)


def _text(words: str) -> str:
    """Return the words with their placeholders as those of a manual: {group} becomes *group*."""
    return re.sub(r"\{(\w+)\}", r"*\1*", words.replace("|", r"\|"))
