"""Help as lines that fit a terminal. Pure: touches no OS."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from textwrap import wrap

from multicast_expert.cli.parameters import Command, Parameter
from multicast_expert.cli.render.text import Line

WIDEST = 100
"""Columns of a line: longer ones are hard to read."""
NARROW = 60
"""In fewer columns, an explanation stands below its option."""
HELP = Parameter("-h, --help", "Show this help.")
OVERVIEW = """Send, receive and understand IP multicast, IPv4 and IPv6.

An ENDPOINT is [source@]group[:port][%interface]: 239.1.2.3:5000, 10.0.0.7@232.1.2.3:5000%eth0, [ff15::1234]:5000%eth0;
or a URL as VLC and ffmpeg take it: udp://@239.1.2.3:5000.

Ctrl-C ends a command, with exit status 130."""
OPTIONS = (
    Parameter("--version", "Show the version; with -v also what it runs on."),
    HELP,
)


def overview_lines(summaries: Mapping[str, str], width: int) -> Iterator[Line]:
    """Yield the help of `mcast` itself; `summaries`: a line for each command."""
    width = min(width, WIDEST)
    yield Line("Usage: mcast [OPTIONS] COMMAND [ARGS]...", style="bold")
    yield Line()
    yield from _paragraphs(OVERVIEW, width)
    yield from _section("Options", [(each.spelling, each.help) for each in OPTIONS], width)
    yield from _section("Commands", list(summaries.items()), width)
    yield from (Line(line) for line in wrap("mcast COMMAND --help has the options and examples of each.", width))


def command_lines(command: Command, summary: str, width: int) -> Iterator[Line]:
    """Yield the help of a command."""
    width = min(width, WIDEST)
    for line in wrap(usage(command), width, subsequent_indent=" " * 8, break_long_words=False):
        yield Line(line, style="bold")
    yield Line()
    yield from _paragraphs(f"{summary}.\n\n{command.details}", width)
    parameters = [slot.parameter for slot in command.slots]
    arguments = [(each.metavar, each.help) for each in parameters if not each.names]
    yield from _section("Arguments", arguments, width)
    options = [*(each for each in parameters if each.names), HELP]
    yield from _section("Options", [(each.spelling.removesuffix("..."), each.help) for each in options], width)
    yield Line("Examples:", style="bold")
    for example, meaning in command.examples:
        for line in wrap(meaning, width, initial_indent="  # ", subsequent_indent="  # "):
            yield Line(line, style="dim")
        yield from map(Line, shell_lines(example, width))


def usage(command: Command) -> str:
    """Return one line: the command and its arguments."""
    arguments = [slot for slot in command.slots if not slot.parameter.names]
    words = [slot.parameter.metavar if slot.required else f"[{slot.parameter.metavar}]" for slot in arguments]
    dots = ["..." * slot.parameter.many for slot in arguments]
    return " ".join([f"Usage: mcast {command.name} [OPTIONS]", *map("".join, zip(words, dots, strict=True))])


def _paragraphs(text: str, width: int) -> Iterator[Line]:
    for paragraph in text.strip().split("\n\n"):
        for line in wrap(" ".join(paragraph.split()), width, break_on_hyphens=False):
            yield Line(line)
        yield Line()


def _section(title: str, rows: Sequence[tuple[str, str]], width: int) -> Iterator[Line]:
    """Yield names and explanations, in two columns or below each other."""
    if not rows:
        return
    yield Line(f"{title}:", style="bold")
    column = max(len(name) for name, _ in rows) + 4
    beside = width >= NARROW and column <= width // 2
    indent = " " * (column if beside else 6)
    for name, text in rows:
        lines = wrap(text, width, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False)
        if beside:
            lines[0] = f"  {name:<{column - 2}}{lines[0][column:]}"
        else:
            yield Line(f"  {name}")
        yield from map(Line, lines)
    yield Line()


def shell_lines(command: str, width: int) -> Iterator[str]:
    """Yield a command line indented, and broken as a shell takes it where it is longer than the width."""
    line = "  "
    for word in _shell_words(command):
        if line.strip() and len(line) + len(word) + 3 > width:
            yield f"{line} \\"
            line = "    " + word
        else:
            line += ("" if line == "  " else " ") + word
    yield line


def _shell_words(command: str) -> Iterable[str]:
    splitter = shlex.shlex(command, posix=False, punctuation_chars=False)
    splitter.whitespace_split = True
    splitter.commenters = ""
    return splitter
