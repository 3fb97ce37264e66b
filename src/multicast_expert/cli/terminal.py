"""Writes to the terminal: data to standard output, messages to standard error. Touches the OS's streams only."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import rich  # noqa: F401 - that it is missing must show at once, whichever command is given

from multicast_expert.cli.render.text import error_lines
from multicast_expert.core.errors import MulticastWarning

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

# What is read by a program is neither wrapped nor cut.
UNBOUNDED = 10_000


def prepare() -> None:
    """Let any text be written whatever the streams are, and show the library's warnings as messages."""
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
    sys.stdout.write(line + "\n")


def show(*renderables: RenderableType) -> None:
    """Write tables and styled text: fitted to a terminal, plain and unwrapped to anything else (NO_COLOR works)."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and needed by what lists things only

    console = Console(highlight=False, markup=False, emoji=False)
    if console.is_terminal:
        console.print(*renderables, sep="\n")
        return
    console.width = UNBOUNDED
    with console.capture() as capture:
        console.print(*renderables, sep="\n")
    for line in capture.get().splitlines():
        write(line.rstrip())


def size(stream: Any) -> tuple[int, int]:
    """Return how many characters fit on a line of the stream, and how many lines; no terminal takes any number."""
    from rich.console import Console  # noqa: PLC0415 - as below

    return Console(file=stream).size if stream.isatty() else (UNBOUNDED, UNBOUNDED)


def show_lines(lines: Iterable[Text], stream: Any) -> None:
    """Write styled lines as they are, neither wrapped nor cut, so that what is copied from them is whole."""
    from rich.console import Console  # noqa: PLC0415 - slow to import, and needed by what lists things only

    console = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not console.is_terminal:
        for line in lines:
            stream.write(line.plain.rstrip() + "\n")
        return
    for line in lines:
        console.print(line, soft_wrap=True)


class Progress:
    """A line about what goes on, which the next one overwrites; nothing where nobody watches."""

    def __init__(self) -> None:
        self._shown = ""

    def show(self, line: str) -> None:
        """Show the line instead of the last one; an empty one clears it."""
        if not sys.stderr.isatty() or line == self._shown:
            return
        room = size(sys.stderr)[0] - 1
        # Behind it a terminal may have put a ^C.
        blank = " " * min(len(self._shown) + 2, room)
        self._shown = line[:room]
        sys.stderr.write(f"\r{blank}\r{self._shown}")
        sys.stderr.flush()


def tell(message: str) -> None:
    """Write a message."""
    print(message, file=sys.stderr)


def complain(error: Exception) -> None:
    """Write what went wrong, and what to do about it."""
    for line in error_lines(error):
        tell(line)


def refuse(error: Any) -> None:
    """Write what is wrong with the command line, and which help to read (a UsageError)."""
    tell(f"mcast: {error.format_message()}")
    if error.ctx is not None:
        tell(f"hint: {error.ctx.command_path} --help")


def abandon_output() -> None:
    """Go on without standard output, whose reader has gone: what is still buffered for it must not fail at the exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
