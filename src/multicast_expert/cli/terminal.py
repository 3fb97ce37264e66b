"""Writes to the terminal: data to standard output, messages to standard error. Touches the OS's streams only."""

from __future__ import annotations

import io
import os
import sys
import warnings
from typing import TYPE_CHECKING, Any

import rich  # noqa: F401 - that it is missing must show at once, whichever command is given

from multicast_expert.cli.render.text import error_lines
from multicast_expert.errors import MulticastWarning

if TYPE_CHECKING:
    from rich.console import RenderableType

# What is read by a program is neither wrapped nor cut.
UNBOUNDED = 10_000


def prepare() -> None:
    """Let any text be written whatever the encoding of the streams, and show the library's warnings as messages."""
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
