"""Manual pages in the language of man(7), from the texts of the help. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from textwrap import wrap

from multicast_expert.cli.parameters import Command, Parameter
from multicast_expert.cli.render.help import HELP, OPTIONS, OVERVIEW, usage

# Characters that groff(7) would take for others, or for orders.
_CHARACTERS = str.maketrans(
    {"\\": "\\e", "-": "\\-", "~": "\\(ti", "^": "\\(ha", "'": "\\(aq", "`": "\\(ga", '"': "\\(dq"}
)
LINE = 60
"""Characters in a line of the source, before some are escaped."""
DATE = "2026-11-26"
"""When the texts of this version were written."""
STATUS = (
    ("0", "done"),
    ("1", "could not be done; or nothing was received, or less than asked for"),
    ("2", "the command line makes no sense"),
    ("130", "ended by Ctrl-C, SIGTERM or SIGHUP"),
)


def overview_page(version: str, summaries: Mapping[str, str]) -> str:
    """Return mcast(1)."""
    return _page(
        _head("mcast", version, "send, receive and understand IP multicast"),
        _section("SYNOPSIS", [".B mcast", _escaped("[OPTIONS] COMMAND [ARGS]...")]),
        _section("DESCRIPTION", _paragraphs(OVERVIEW)),
        _section("OPTIONS", _parameters(OPTIONS)),
        _section("COMMANDS", _entries((f"mcast-{name}(1)", f"{text}.") for name, text in summaries.items())),
        _section("EXIT STATUS", _entries(STATUS)),
        _see_also(f"mcast-{name}" for name in summaries),
    )


def command_page(command: Command, version: str, summary: str) -> str:
    """Return the page of a command, such as mcast-recv(1)."""
    parameters = [slot.parameter for slot in command.slots]
    examples = [
        line
        for example, meaning in command.examples
        for line in (".PP", _escaped(f"{meaning}:"), ".PP", ".RS 4", ".nf", _escaped(example), ".fi", ".RE")
    ]
    return _page(
        _head(f"mcast-{command.name}", version, summary[0].lower() + summary[1:]),
        _section("SYNOPSIS", [f".B mcast {command.name}", _escaped(usage(command).partition(f"{command.name} ")[2])]),
        _section("DESCRIPTION", _paragraphs(command.details)),
        _section("OPTIONS", _parameters([*parameters, HELP])),
        _section("EXAMPLES", examples[1:]),
        _see_also(["mcast"]),
    )


def _page(*parts: Iterable[str]) -> str:
    return "".join(f"{line}\n" for part in parts for line in part)


def _head(name: str, version: str, summary: str) -> Iterator[str]:
    yield f'.TH {name.upper()} 1 {DATE} "multicast-expert {version}" "User Commands"'
    yield from _section("NAME", [f"{_escaped(name)} \\- {_escaped(summary)}"])


def _section(title: str, lines: Iterable[str]) -> Iterator[str]:
    yield f".SH {title}"
    yield from lines


def _paragraphs(text: str) -> Iterator[str]:
    for turn, paragraph in enumerate(text.strip().split("\n\n")):
        if turn:
            yield ".PP"
        yield from map(_escaped, wrap(paragraph, LINE, break_long_words=False, break_on_hyphens=False))


def _parameters(parameters: Iterable[Parameter]) -> Iterator[str]:
    return _entries((each.spelling.removesuffix("..."), each.help) for each in parameters)


def _entries(rows: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, text in rows:
        yield from (".TP", f"\\fB{_escaped(name)}\\fR")
        yield from map(_escaped, wrap(text, LINE, break_long_words=False, break_on_hyphens=False))


def _see_also(names: Iterable[str]) -> Iterator[str]:
    *most, last = [f".BR {_escaped(name)} (1)" for name in names]
    return _section("SEE ALSO", [*(f"{each} ," for each in most), last])


def _escaped(text: str) -> str:
    """Return text that means itself, so that commands can be copied; none of it begins a line as a request."""
    text = text.translate(_CHARACTERS)
    return f"\\&{text}" if text.startswith(".") else text
