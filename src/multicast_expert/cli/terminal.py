"""Writes to the terminal: data to standard output, messages to standard error. Touches the OS's streams only.

All lines leave the program here, and here the names and errors that they quote are escaped: only the styles of a
Line steer a terminal. JSON is printable ASCII; `mcast recv --raw` alone writes bytes as they are.
"""

from __future__ import annotations

import io
import json
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich  # noqa: F401 - that it is missing must show at once, whichever command is given

from multicast_expert.cli.render.text import Line, error_lines, printable
from multicast_expert.core.errors import MulticastWarning

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

# Columns and lines of a stream that is no terminal: nothing written to it is wrapped or cut.
UNBOUNDED = 10_000


def prepare() -> None:
    """Prepare the streams for any text, and show the library's warnings as messages."""
    for name in ("stdout", "stderr"):
        # Python has none for a descriptor that was closed, as by `>&-`.
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 - open until the process ends
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    warnings.simplefilter("always", MulticastWarning)
    show_other = warnings.showwarning

    def show_warning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, MulticastWarning):
            tell(f"mcast: warning: {message}")
        else:
            show_other(message, category, *place, **more)

    warnings.showwarning = show_warning


def write(line: str = "") -> None:
    """Write a line of data."""
    sys.stdout.write(printable(line) + "\n")


def write_json(value: Any, indent: int | None = None) -> None:
    """Write a value as JSON, which escapes all but printable ASCII."""
    sys.stdout.write(json.dumps(value, indent=indent) + "\n")


def tell(message: str) -> None:
    """Write a message."""
    sys.stderr.write(printable(message) + "\n")


def show_lines(lines: Iterable[Line], stream: Any) -> None:
    """Write lines unwrapped and uncut, so that a copy of them is whole: styled to a terminal, plain to all else."""
    console = _console(stream) if stream.isatty() or os.environ.get("FORCE_COLOR") else None
    for line in lines:
        if console is not None and console.is_terminal:
            console.print(*_styled(line), sep="", soft_wrap=True)
        else:
            stream.write(line.plain + "\n")


def size(stream: Any) -> tuple[int, int]:
    """Return the columns and the lines of a terminal; any other stream takes any number."""
    return _console(stream).size if stream.isatty() else (UNBOUNDED, UNBOUNDED)


def _console(stream: Any) -> Console:
    from rich.console import Console  # noqa: PLC0415 - slow to import, and only a terminal needs it

    return Console(file=stream, highlight=False, markup=False, emoji=False)


def _styled(line: Line) -> Iterator[Text]:
    from rich.text import Text  # noqa: PLC0415 - as above

    return (Text(text, style) for text, style in line.pieces)


class Progress:
    """A line about the work in progress, which the next one overwrites; nothing where no terminal shows it."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, line: str) -> None:
        """Show the line instead of the last one; an empty one clears it."""
        line = printable(line)
        if not sys.stderr.isatty() or line == self._shown:
            return
        room = size(sys.stderr)[0] - 1
        # Behind it a terminal may have put a ^C.
        blank = " " * min(len(self._shown) + 2, room)
        self._shown = line[:room]
        sys.stderr.write(f"\r{blank}\r{self._shown}")
        sys.stderr.flush()


def complain(error: Exception) -> None:
    """Write the failure and its remedy."""
    for line in error_lines(error):
        tell(line)


def refuse(error: Any) -> None:
    """Write the mistake in the command line (a UsageError) and the command that prints its help."""
    tell(f"mcast: {error.format_message()}")
    if error.ctx is not None:
        tell(f"hint: {error.ctx.command_path} --help")


def abandon_output() -> None:
    """Go on without standard output, whose reader has gone: at its exit the interpreter still flushes the buffer."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
