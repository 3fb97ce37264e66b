"""Writes what `mcast recv` measures: intervals and summaries, as lines, as JSON and into a CSV file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from multicast_expert.cli import terminal
from multicast_expert.cli.render.measurement import (
    FIELDS,
    has_own_clock,
    heading_line,
    interval_lines,
    interval_object,
    stream_lines,
    summary_object,
)
from multicast_expert.cli.render.summary import Alarm, summary_lines
from multicast_expert.cli.render.text import Line
from multicast_expert.core.datagram import ReceiveStats
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.interfaces import interface_address_text
from multicast_expert.observe.measured_stream import Interval
from multicast_expert.observe.meter import Meter
from multicast_expert.system.interfaces import scan_interfaces

# Seconds that a loop waits which has no interval to end.
PATIENCE = 1.0


class Measurement(ExitStack):
    """A meter and where its results go. It begins when it is made; closing it closes the file."""

    def __init__(self, every: float | None, quiet: bool, as_json: bool, file: str | None) -> None:
        super().__init__()
        self.meter: Meter = Meter(time.time_ns())
        self._every, self._quiet, self._as_json = every, quiet, as_json
        self._start = self._ended = time.monotonic()
        self._next = self._start + (every or 0.0)
        self._is_headed = False
        self._write_row: Callable[[dict[str, Any]], Any] | None = None
        # Lines for people would be between those of CSV.
        self._shows_lines = not as_json and file != "-"
        if file is not None:
            rows = SimpleNamespace(write=_put_at_once if file == "-" else self.enter_context(_Appending(file)).write)
            writer = import_module("csv").DictWriter(rows, FIELDS, lineterminator="\n")
            try:
                writer.writeheader()
            except OSError:
                self.close()
                raise
            self._write_row = writer.writerow

    @property
    def seconds(self) -> float:
        """How long it has taken so far."""
        return time.monotonic() - self._start

    def patience(self) -> float:
        """Return after how many seconds `go_on` is to be called again."""
        return PATIENCE if self._every is None else max(0.0, self._next - time.monotonic())

    def go_on(self) -> None:
        """Write an interval if its time has come."""
        if self._every is not None and not self.patience():
            self._end_interval(list(self.meter.end_interval()))
            # Intervals that passed while the program slept are one.
            self._next += self._every * (1 + (time.monotonic() - self._next) // self._every)

    def _end_interval(self, intervals: Iterable[Interval]) -> None:
        start, self._ended = self._ended, time.monotonic()
        since, until = start - self._start, self._ended - self._start
        for each in intervals:
            if self._as_json or self._write_row:
                self._write(interval_object(each, since, until))
            if self._shows_lines:
                room = terminal.size(sys.stdout)[0]
                heading = [] if self._is_headed else [Line(heading_line(room), style="dim")]
                self._is_headed = True
                lines = [
                    Line(line, style="red" if isinstance(line, Alarm) else "")
                    for line in interval_lines(each, until, until - since, room)
                ]
                terminal.show_lines([*heading, *lines], sys.stdout)
        terminal.flush()

    def _write(self, value: dict[str, Any]) -> None:
        if self._as_json:
            terminal.write_json(value)
        if self._write_row is not None:
            # Booleans as JSON has them
            words = {name: str(each).lower() for name, each in value.items() if isinstance(each, bool)}
            self._write_row(value | words)

    def finish(self, stats: list[ReceiveStats], receive_buffer: int, unheard: Iterable[Endpoint]) -> int:
        """Write what the last interval has left, and the summary; return when the measurement ended, since 1970.

        unheard: endpoints from which nothing came.
        """
        ended_ns = time.time_ns()
        if self._every is not None:
            rest = list(self.meter.end_interval())
            if any(each.datagrams for each in rest) or time.monotonic() - self._ended > self._every / 2:
                self._end_interval(rest)
        own = _own_addresses() if self.meter.streams else set()
        seconds = self.seconds
        if self._quiet and (self._as_json or self._write_row):
            for stream in self.meter.streams:
                self._write(summary_object(stream, seconds, has_own_clock(stream, own), ended_ns))
        if self._quiet and self._as_json:
            terminal.write_json(total_object(self.meter, seconds, stats, receive_buffer, unheard))
            terminal.flush()
        streams = stream_lines(self.meter, own, ended_ns, every=self._quiet)
        for line in (*summary_lines(self.meter, seconds, stats), *streams):
            terminal.tell(line, "red" if isinstance(line, Alarm) else "")
        return ended_ns


class _Appending(ExitStack):
    """A file that has each text as soon as it is written; an error names it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name
        self._file = self.enter_context(Path(name).open("wb", buffering=0))  # noqa: SIM115 - of a stack

    def write(self, text: str) -> None:
        """Write it all."""
        rest = text.encode()
        try:
            while rest:
                rest = rest[self._file.write(rest) :]
        except OSError as error:  # a failed write names no file
            raise OSError(error.errno, error.strerror, self._name) from None


def _put_at_once(text: str) -> None:
    terminal.put(text)
    terminal.flush()


def total_object(
    meter: Meter, seconds: float, stats: list[ReceiveStats], receive_buffer: int, unheard: Iterable[Endpoint]
) -> dict[str, Any]:
    """Return the JSON object of all streams together, with what the kernel and the library dropped."""
    drops = [each.kernel_drops for each in stats]
    return {
        "type": "total",
        "seconds": round(seconds, 3),
        "datagrams": meter.datagrams,
        "bytes": meter.bytes,
        "kernel_drops": None if None in drops else sum(each or 0 for each in drops),
        "truncated": sum(each.truncated for each in stats),
        "filtered": sum(each.filtered for each in stats),
        "unfollowed": meter.unfollowed,
        "receive_buffer": receive_buffer,
        "forgotten": 0 if meter.forgotten is None else meter.forgotten.runs,
        "nothing_came_for": list(map(str, unheard)),
    }


def _own_addresses() -> set[str]:
    addresses = (each for iface in scan_interfaces() for version in (4, 6) for each in iface.addresses(version))
    return {interface_address_text(each).partition("%")[0] for each in addresses}
