"""The pages of all checks as one Markdown document: `python -m multicast_expert.doctor.pages`. Touches no OS."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from multicast_expert.doctor.checks import CHECKS, check_name, explain

_BEGINNING = """\
# Why nothing arrives

Every cause that [`mcast doctor`](doctor.md) knows, in the order in which it asks for them: what happens, why, how to
see it by hand, and the cure. The name of a cause is that of the check which looks for it; `mcast doctor --explain NAME`
prints its page. Commands that change something need root. Put your own interfaces and groups into them.

<!-- Made from the docstrings of the checks: python -m multicast_expert.doctor.pages > docs/why-nothing-arrives.md -->
"""


def document() -> str:
    """Return the document."""
    return "\n".join(_blocks())


def _blocks() -> Iterator[str]:
    pages = {name: explain(name).strip() for name in map(check_name, CHECKS)}
    yield f"{_BEGINNING}\n| | |\n|---|---|"
    for name, page in pages.items():
        yield f"| [{name}](#{name}) | {page.splitlines()[0]} |"
    for name, page in pages.items():
        yield f"\n## {name}\n\n{page}"
    yield ""


if __name__ == "__main__":
    sys.stdout.buffer.write(document().encode())
