"""The page of each check, and all of them as one document: `python -m multicast_expert.doctor.pages`. Touches no OS."""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator

from multicast_expert.doctor.checks import CHECKS, Check, check_name

_BEGINNING = """\
# Why nothing arrives

Every cause that [`mcast doctor`](doctor.md) knows, in the order of its checks: what happens, why, how to see it by
hand, and the cure. Each cause has the name of its check; `mcast doctor --explain NAME` prints its page. Commands that
change something need root. Put your own interfaces and groups into them.

<!-- Made from the docstrings of the checks: python -m multicast_expert.doctor.pages > docs/why-nothing-arrives.md -->
"""


def _page(check: Check) -> str:
    """Return the docstring of a check, from its source where Python dropped it (-OO)."""
    if check.__doc__ is not None:
        return inspect.getdoc(check) or ""
    # Not ast.parse: with -OO, Python 3.14 drops docstrings there, too.
    module = compile(inspect.getsource(check), "check", "exec", ast.PyCF_ONLY_AST, optimize=0)
    function = module.body[0] if isinstance(module, ast.Module) else None
    return (ast.get_docstring(function) if isinstance(function, ast.FunctionDef) else None) or ""


PAGES = {check_name(check): _page(check) for check in CHECKS}
"""The page of each check, in Markdown."""


def document() -> str:
    """Return all pages as one document."""
    return "\n".join(_blocks())


def _blocks() -> Iterator[str]:
    yield f"{_BEGINNING}\n| | |\n|---|---|"
    for name, page in PAGES.items():
        yield f"| [{name}](#{name}) | {page.splitlines()[0]} |"
    for name, page in PAGES.items():
        yield f"\n## {name}\n\n{page}"
    yield ""


if __name__ == "__main__":
    sys.stdout.buffer.write(document().encode())
