"""Shows received datagrams: as lines, as JSON, in hexadecimal or byte for byte."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from functools import lru_cache

from multicast_expert.cli import terminal
from multicast_expert.cli.render.datagram import (
    Arrival,
    datagram_line,
    datagram_object,
    headline,
    hex_dump,
    styled_line,
)

# Columns for a payload that is no text, where no terminal limits them.
ROOM = 80


def show_json(batch: Iterable[Arrival]) -> None:
    """Write an object a line."""
    for arrival in batch:
        terminal.write_json(datagram_object(arrival, _utc(arrival)))


def show_raw(batch: Iterable[Arrival]) -> None:
    """Write the payloads and nothing else."""
    terminal.put(b"".join([arrival.datagram.data for arrival in batch]))


def show_lines(full: bool) -> Callable[[Iterable[Arrival]], None]:
    """Return the function that shows lines: styled and cut on a terminal, plain and whole for all else."""

    def show_styled(batch: Iterable[Arrival]) -> None:
        width = None if full else terminal.size(sys.stdout)[0]
        terminal.show_lines((styled_line(each, _clock_time(each), width) for each in batch), sys.stdout)

    room = None if full else ROOM

    def show_plain(batch: Iterable[Arrival]) -> None:
        terminal.put("".join([datagram_line(each, _clock_time(each), room) + "\n" for each in batch]))

    return show_styled if sys.stdout.isatty() else show_plain


def show_hex(batch: Iterable[Arrival]) -> None:
    """Write a line for each datagram, and the payload below it."""
    room = terminal.size(sys.stdout)[0]
    for arrival in batch:
        terminal.write(headline(arrival, _clock_time(arrival)))
        for row in hex_dump(arrival.datagram.data, room):
            terminal.write(row)


def _utc(arrival: Arrival) -> str:
    seconds, fraction = divmod(arrival.time_ns, 1_000_000_000)
    return f"{_second(seconds, time.gmtime, '%Y-%m-%dT%H:%M:%S')}.{fraction // 1000:06d}Z"


def _clock_time(arrival: Arrival) -> str:
    seconds, fraction = divmod(arrival.time_ns, 1_000_000_000)
    return f"{_second(seconds, time.localtime, '%H:%M:%S')}.{fraction // 1000:06d}"


@lru_cache(8)
def _second(seconds: int, clock: Callable[[float], time.struct_time], form: str) -> str:
    """Return the time of a second, which many datagrams share."""
    return time.strftime(form, clock(seconds))
