"""Writes to the terminal: data to standard output, messages to standard error. Touches the OS's streams only.

All lines leave the program here, and here the names and errors that they quote are escaped: only the styles of a
Line steer a terminal. JSON is printable ASCII; `mcast recv --raw` alone writes bytes as they are.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Sequence
from contextlib import suppress
from importlib import import_module
from typing import Any

from multicast_expert.cli.render.text import Line, error_lines, printable

# Columns and lines of a stream that is no terminal: nothing written to it is wrapped or cut.
UNBOUNDED = 10_000
# Columns of help that goes elsewhere than to a terminal.
USUAL_WIDTH = 80
# Terminals that only write on, as in Emacs.
DUMB = ("dumb", "unknown")
# What a terminal is told for each word of a style (ECMA-48, SGR).
STYLES = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33", "cyan": "36"}


def prepare_streams() -> None:
    """Prepare the streams for any text."""
    for name in ("stdout", "stderr"):
        # Python has none for a descriptor that was closed, as by `>&-`.
        if getattr(sys, name) is None:
            # It stays open until the process ends, which Python would warn about if the file were its own.
            setattr(sys, name, open(os.open(os.devnull, os.O_WRONLY), "w", closefd=False))  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def show_warnings() -> None:
    """Show the library's warnings as messages."""
    import warnings  # noqa: PLC0415 - `mcast --version` needs none of it

    from multicast_expert.core.errors import MulticastWarning  # noqa: PLC0415

    warnings.simplefilter("always", MulticastWarning)
    show_other = warnings.showwarning

    def show_warning(message: Any, category: type[Warning], *place: Any, **more: Any) -> None:
        if issubclass(category, MulticastWarning):
            tell(f"mcast: warning: {message}")
        else:
            show_other(message, category, *place, **more)

    warnings.showwarning = show_warning


def silence_log() -> None:
    """Keep the library's log off standard error, where Python writes it if nothing takes it.

    For commands that show by themselves what becomes of interfaces.
    """
    import logging  # noqa: PLC0415 - takes a tenth of the time of a start

    logging.getLogger("multicast_expert").addHandler(logging.NullHandler())


def write(line: str = "") -> None:
    """Write a line of data."""
    show_lines([Line(line)], sys.stdout)


def write_json(value: Any, indent: int | None = None) -> None:
    """Write a value as JSON, which escapes all but printable ASCII."""
    import json  # noqa: PLC0415 - seldom asked for

    put(json.dumps(value, indent=indent) + "\n")


def put(text: str | bytes) -> None:
    """Write lines that are printable already, or the bytes of --raw, to standard output; an error names it."""
    try:
        if isinstance(text, str):
            sys.stdout.write(text)
        else:
            sys.stdout.buffer.write(text)
    except OSError as error:
        raise _abandoned(error) from None


def flush() -> None:
    """Hand all data to the reader; an error names standard output."""
    try:
        sys.stdout.flush()
    except OSError as error:
        raise _abandoned(error) from None


def _abandoned(error: OSError) -> OSError:
    """Go on without standard output, which the interpreter would flush at its exit; return the error with its name."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return OSError(error.errno, error.strerror, "standard output")


def tell(message: str, style: str = "") -> None:
    """Write a message; where standard error cannot be written, nobody can be told."""
    with suppress(OSError):
        show_lines([Line(message, style=style)], sys.stderr)


def show_lines(lines: Iterable[Line], stream: Any) -> None:
    """Write lines without a break, so that a copy of them is whole: styled to a terminal, plain to all else."""
    styled, room = has_styles(stream), size(stream)[0]
    fitting = (line.filled(room) for line in lines)
    text = "".join((_styled(line) if styled else line.plain) + "\n" for line in fitting)
    if stream is sys.stdout:
        put(text)
    else:
        stream.write(text)


def has_styles(stream: Any) -> bool:
    """Return whether the stream is a terminal that shows styles, and nobody switched them off."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") in DUMB:
        return False
    return bool(os.environ.get("FORCE_COLOR") or (stream.isatty() and _understands_styles(stream)))


def can_redraw(stream: Any) -> bool:
    """Return whether the stream is a terminal on which the cursor can be moved, to write over what was shown."""
    return bool(stream.isatty()) and os.environ.get("TERM") not in DUMB


def _understands_styles(stream: Any) -> bool:
    """Switch the styles of a console of Windows on; terminals of other systems need no such thing."""
    try:
        handle = import_module("msvcrt").get_osfhandle(stream.fileno())
    except ModuleNotFoundError:
        return True
    # ENABLE_PROCESSED_OUTPUT | ENABLE_WRAP_AT_EOL_OUTPUT | ENABLE_VIRTUAL_TERMINAL_PROCESSING (consoleapi.h)
    return bool(import_module("ctypes").windll.kernel32.SetConsoleMode(handle, 7))


def style_code(style: str) -> str:
    """Return what switches a style of words such as "bold red" on; nothing for none."""
    return f"\x1b[{';'.join(STYLES[word] for word in style.split())}m" if style else ""


PLAIN = "\x1b[0m"


def _styled(line: Line) -> str:
    return "".join(f"{style_code(style)}{text}{PLAIN}" if style and text else text for text, style in line.pieces)


def size(stream: Any) -> tuple[int, int]:
    """Return the columns and the lines of a terminal; any other stream takes any number."""
    if not stream.isatty():
        return UNBOUNDED, UNBOUNDED
    columns, lines = 0, 0
    with suppress(OSError, ValueError):
        columns, lines = os.get_terminal_size(stream.fileno())
    return _environ("COLUMNS") or columns or USUAL_WIDTH, _environ("LINES") or lines or 25


def _environ(name: str) -> int:
    text = os.environ.get(name, "")
    return int(text) if text.isascii() and text.isdecimal() else 0


def reading_width() -> int:
    """Return the columns for help."""
    columns = size(sys.stdout)[0]
    return _environ("COLUMNS") or (USUAL_WIDTH if columns == UNBOUNDED else columns)


class Progress:
    """Lines about the work in progress, which the next ones overwrite; nothing where no terminal shows them."""

    def __init__(self) -> None:
        self._shown = ""
        self._rows = 0

    def show_all(self, lines: Sequence[Line]) -> None:
        """Show so many of the first lines as there is room for, and the last; without styles only the last."""
        if not (sys.stderr.isatty() and has_styles(sys.stderr)):
            self.show(lines[-1].plain)
            return
        width, height = size(sys.stderr)
        self.show("")
        fitting = lines if len(lines) < height else [*lines[: max(0, height - 2)], lines[-1]]
        shown = [_styled(line.cut(width - 1)) for line in fitting]
        sys.stderr.write("\n".join(shown))
        sys.stderr.flush()
        self._rows = len(shown)

    def _go_back(self) -> None:
        """Take the rows that were shown away, and stand where they began."""
        if self._rows:
            up = f"\x1b[{self._rows - 1}A" if self._rows > 1 else ""
            sys.stderr.write(f"\r{up}\x1b[J")
            sys.stderr.flush()
            self._rows = 0

    def show(self, line: str) -> None:
        """Show the line instead of the last ones; an empty one clears it."""
        self._go_back()
        line = printable(line)
        if not sys.stderr.isatty() or line == self._shown:
            return
        room = size(sys.stderr)[0] - 1
        # Behind it a terminal may have put a ^C.
        blank = " " * min(len(self._shown) + 2, room)
        self._shown = line[:room]
        sys.stderr.write(f"\r{blank}\r{self._shown}")
        sys.stderr.flush()


def end_line() -> None:
    """Begin a new line on a terminal, which shows ^C where the last one ends."""
    if sys.stderr.isatty():
        sys.stderr.write("\n")


def complain(error: Exception) -> None:
    """Write the failure and its remedy."""
    for line in error_lines(error):
        tell(line)
