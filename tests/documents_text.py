"""The fenced blocks of the documents, where each runs, and what it promises to print."""

import re
from collections.abc import Iterator
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/**/*.md"))]
SITE = "https://multicast-expert.github.io/multicast-expert/"

COMMENT = re.compile(r"<!-- (.+) -->")
TAB = re.compile(r'=== "(.+)"')


class Block(NamedTuple):
    """A fenced code block: where it is, what its fence says about it, its text, the title of its tab, and its mark."""

    place: str
    info: str
    text: str
    tab: str = ""
    mark: str = ""
    """The comment on the line before it: `run`."""


def fenced_blocks(text: str, name: str) -> Iterator[Block]:
    """Every fenced block of a Markdown text."""
    info, start, lines, tab, mark = None, 0, list[str](), "", ""
    for number, line in enumerate(text.splitlines(), 1):
        if info is None and (title := TAB.fullmatch(line.strip())):
            tab = title[1]
        elif info is None and line and not line.startswith(" ") and not line.startswith("```"):
            tab = ""  # prose at the margin ends the tabs
        if not line.lstrip().startswith("```"):
            lines.append(line)
        elif info is None:
            comment = COMMENT.fullmatch(lines[-1].strip()) if lines else None
            mark = comment[1] if comment else ""
            info, start, lines = line.strip().strip("`"), number, []
        else:
            code = dedent("\n".join(lines) + "\n")
            yield Block(f"{name}:{start}", info, code, tab if line.startswith(" ") else "", mark)
            info = None


BLOCKS = [
    block
    for path in DOCUMENTS
    for block in fenced_blocks(path.read_text(encoding="utf-8"), path.relative_to(ROOT).as_posix())
]


def expected_lines(code: str) -> list[str]:
    """What the comments behind `print` say is printed, without those that only describe it (`# … names eth9`)."""
    comments = re.findall(r"^ *print\(.*\)  # (.*)$", code, flags=re.MULTILINE)
    return [comment for comment in comments if not comment.startswith("…")]


def missing_line(expected: list[str], printed: list[str]) -> str | None:
    """The first expected line that is not printed behind those before it; `for example: ` leaves the numbers open."""
    remaining = iter(printed)
    for each in expected:
        example = each.removeprefix("for example: ")
        form = without_numbers if example != each else str
        if not any(form(line) == form(example) for line in remaining):
            return each
    return None


def without_numbers(text: str) -> str:
    """The text with a 0 for each number, address and hexadecimal number, and one space for each gap."""
    return re.sub(r"\s+", " ", re.sub(r"[0-9a-f.:,]*[0-9][0-9a-f.:,]*", "0", text)).strip()
