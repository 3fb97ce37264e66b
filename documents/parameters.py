"""An extension of griffe: the lines `name: what it is` of a docstring become the table of parameters."""

import re
import textwrap
from collections.abc import Iterator

import griffe

LINE = re.compile(r"^(\w+(?:, \w+)*): (.*(?:\n {4}.*)*)\n?", flags=re.MULTILINE)


class Parameters(griffe.Extension):
    """Turns those lines into an `Args` section, which has the types and the defaults of the signature beside them."""

    def on_class(self, *, cls: griffe.Class, **_: object) -> None:
        """Rewrite the docstring of one class; its parameters may be those of a base class."""
        if cls.docstring is not None and "__init__" in cls.all_members:
            _rewrite(cls.docstring, {each.name for each in cls.parameters})

    def on_function(self, *, func: griffe.Function, **_: object) -> None:
        """Rewrite the docstring of one function."""
        if func.docstring is not None:
            _rewrite(func.docstring, {each.name for each in func.parameters})


def _rewrite(docstring: griffe.Docstring, names: set[str]) -> None:
    text = docstring.value
    matches = [match for match in LINE.finditer(text) if names.issuperset(match[1].split(", "))]
    if matches:
        begin, end = matches[0].start(), matches[-1].end()
        lines = "\n".join(entry for match in matches for entry in _entries(match))
        docstring.value = f"{text[:begin].rstrip()}\n\nArgs:\n{lines}\n\n{text[end:].lstrip()}"


def _entries(match: re.Match[str]) -> Iterator[str]:
    """Yield a line for each name: of several, those behind the first refer to it."""
    first, *others = match[1].split(", ")
    yield textwrap.indent(f"{first}: {' '.join(match[2].split())}", " " * 4)
    for name in others:
        yield f"    {name}: See `{first}`."
