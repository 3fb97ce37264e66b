"""Renders streams: the cells of a table, lines, objects of JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from itertools import pairwise, zip_longest
from textwrap import wrap
from typing import Any, NamedTuple

from multicast_expert.cli.render.fitting import Room, fit, padded, shortened, shortened_address
from multicast_expert.cli.render.text import Line, columns, host_and_port, printable, scaled
from multicast_expert.observe.streams import SECONDS, Stream
from multicast_expert.wire.recognise.table import Protocol

STALLED = "STALLED"
UNKNOWN = "?"
"""What the OS does not report."""
SPARK = 15
"""Bars of the last minute in a table, four seconds each."""
_EXACT = 100_000
"""Drops that are shown in three digits only: their column is narrow."""
_BARS = "▁▂▃▄▅▆▇█"


class Place(NamedTuple):
    """Where programs join, and where the kernel drops: a group on an interface, and the port of a drop."""

    group: str
    interface: str


class Surroundings(NamedTuple):
    """What this host itself does about the streams."""

    joined: Mapping[Place, Collection[str]] | None = None
    """The programs that joined; None: not known."""
    drops: Mapping[tuple[Place, int | None], int] | None = None
    """Datagrams that the kernel dropped though a program expects them; None: not known."""

    def programs(self, stream: Stream) -> Collection[str] | None:
        """Return the programs that joined the stream's group on its interface; None: none has, or it is not known."""
        return (self.joined or {}).get(Place(stream.group, stream.interface))

    def dropped(self, stream: Stream) -> int | None:
        """Return how many of the group and port the kernel dropped."""
        if self.drops is None:
            return None
        place = Place(stream.group, stream.interface)
        return self.drops.get((place, stream.port), 0) + self.drops.get((place, None), 0)


class Column(NamedTuple):
    """A column of a table of streams."""

    name: str
    cell: Callable[[Stream, float, Surroundings], str]
    order: Callable[[Stream, float, Surroundings], Any]
    """The key by which it sorts, most interesting first."""
    is_number: bool = False
    is_address: bool = False
    short_title: str = ""
    """The title where the name does not fit."""

    def title(self, size: int, mark: str = "") -> str:
        """Return the title with a mark behind it, in at most `size` columns."""
        long = len(self.name) + len(mark) > size
        return (self.short_title or self.name if long else self.name).upper()[: size - len(mark)] + mark

    def fitted(self, cell: str, size: int) -> str:
        """Return a cell that is exactly `size` columns wide."""
        short = shortened_address(cell, size) if self.is_address else shortened(cell, size)
        return padded(short, size, to_the_right=self.is_number)


def protocol_text(protocol: Protocol | None) -> str:
    """Return `RTP PCMU 8 kHz`, on one line; empty for none."""
    return "" if protocol is None else printable(f"{protocol.name} {protocol.detail}".strip())


def ago(seconds: float) -> str:
    """Return how long ago something was: `now`, `12 s`, `3 min`, `2 h`."""
    if seconds < 1.5:
        return "now"
    if seconds < 99.5:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 99.5 * 60 else f"{seconds / 3600:.0f} h"


def sparkline(values: Sequence[float], width: int) -> str:
    """Return bars for the values of the last minute, the highest one as the full height; a blank is 0."""
    padded = [0.0] * (SECONDS - len(values)) + list(values[-SECONDS:])
    ends = [SECONDS * turn // width for turn in range(width + 1)]
    means = [sum(padded[start:end]) / (end - start) for start, end in pairwise(ends)]
    top = max(means)
    return "".join(_BARS[min(7, int(8 * mean / top))] if mean else " " for mean in means)


def loss_text(stream: Stream) -> str:
    """Return the share of numbers that are missing; empty where there are no numbers."""
    if stream.numbers is None:
        return ""
    share = 100 * stream.numbers.lost / max(stream.numbers.expected, 1)
    if 0 < share < 0.01:
        return "<0.01 %"
    return f"{share:.2g} %" if share < 99.5 else f"{share:.0f} %"


def joined_text(stream: Stream, around: Surroundings) -> str:
    """Return the programs of this host that joined; `yes` if they cannot be named, empty for none, `?` if not known."""
    if around.joined is None:
        return UNKNOWN
    programs = around.programs(stream)
    return "" if programs is None else printable(", ".join(sorted(programs))) or "yes"


def last_text(stream: Stream, now: float) -> str:
    """Return how long ago the stream was heard, or STALLED."""
    return STALLED if stream.is_stalled else ago(now - stream.last)


def _jitter(stream: Stream) -> float:
    return stream.numbers.jitter or 0.0 if stream.numbers else 0.0


def jitter_text(stream: Stream) -> str:
    """Return the jitter in milliseconds; empty where it is not known."""
    if stream.numbers is None or stream.numbers.jitter is None:
        return ""
    value = 1e3 * stream.numbers.jitter
    return f"{value:.3g} ms" if 0.1 <= value < 999.5 else f"{value:,.0f} ms" if value >= 1 else f"{value:.3f} ms"


def _rate(value: float) -> str:
    return scaled(value).strip()


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _drops_text(dropped: int | None) -> str:
    """Return how many were dropped, in at most six columns; empty for none."""
    if dropped is None:
        return UNKNOWN
    return (str(dropped) if dropped < _EXACT else _rate(dropped)) if dropped else ""


def _rates(name: str, cell: Callable[[Stream], str], order: Callable[[Stream], Any]) -> Column:
    """Return a column of numbers that come from the stream alone."""
    return Column(name, lambda stream, _, __: cell(stream), lambda stream, _, __: order(stream), True)


def _texts(name: str, cell: Callable[[Stream], str], *, is_address: bool = False, short_title: str = "") -> Column:
    """Return a column of texts, which sorts by them, the empty ones last."""
    return Column(
        name,
        lambda stream, _, __: cell(stream),
        lambda stream, _, __: cell(stream) or "~",
        is_address=is_address,
        short_title=short_title,
    )


def _column_list() -> Iterator[Column]:
    yield Column(
        "group",
        lambda stream, _, __: host_and_port(stream.group, stream.port),
        lambda stream, _, __: (len(stream.group), stream.group, stream.port),
        is_address=True,
    )
    yield _texts("source", lambda stream: f"{stream.source}{' (us)' if stream.outgoing else ''}", is_address=True)
    yield _texts("interface", lambda stream: printable(stream.interface), is_address=True, short_title="iface")
    yield _rates("dgram/s", lambda each: _rate(each.datagrams_per_second), lambda each: -each.datagrams_per_second)
    yield _rates("bit/s", lambda each: _rate(each.bits_per_second), lambda each: -each.bits_per_second)
    yield _rates("loss", loss_text, lambda each: -(each.numbers.lost if each.numbers else -1))
    yield Column(
        "drops",
        lambda stream, _, around: _drops_text(around.dropped(stream)),
        lambda stream, _, around: -(around.dropped(stream) or 0),
        True,
    )
    yield Column(
        "last",
        lambda stream, now, _: last_text(stream, now),
        lambda each, now, _: (not each.is_stalled, now - each.last),
        True,
    )
    yield Column(
        "joined by",
        lambda stream, _, around: joined_text(stream, around),
        lambda stream, _, around: joined_text(stream, around) or "~",
        short_title="joined",
    )
    yield _texts("protocol", lambda stream: protocol_text(stream.protocol))
    yield _rates("jitter", jitter_text, lambda stream: -_jitter(stream))
    yield _rates("hops", lambda stream: _number(stream.hop_limit), lambda stream: stream.hop_limit or 0)
    yield _rates("dscp", lambda stream: _number(stream.dscp), lambda stream: -(stream.dscp or 0))
    yield Column(
        "last minute",
        lambda stream, _, __: sparkline([bits for _, bits in stream.history], SPARK),
        lambda stream, _, __: -max((bits for _, bits in stream.history), default=0),
    )


COLUMNS = {each.name: each for each in _column_list()}
PLAIN = ("group", "source", "interface", "dgram/s", "bit/s", "loss", "last", "protocol")
FURTHER = ("dgram/s", "jitter", "hops", "dscp")
"""Columns that a table does without where it is narrow."""
WRAPPED = "protocol"
WRAPPED_LEAST = 12
"""Columns in which a protocol is still readable."""


def told_apart(names: Iterable[str], interfaces: Sequence[str]) -> list[str]:
    """Return the columns without that of the interface where there is one only, which the first line names."""
    return [name for name in names if name != "interface" or len(interfaces) > 1]


def table_lines(
    streams: Sequence[Stream], now: float, around: Surroundings, room: int, names: Sequence[str] = PLAIN
) -> Iterator[Line]:
    """Yield a table; a column in which nothing stands is left out.

    Where `room` is short, FURTHER columns are left out and the protocol is wrapped; addresses and numbers stay whole.
    Where that does not suffice, each row becomes a line with the names of its columns.
    """
    rows = [{name: COLUMNS[name].cell(each, now, around) for name in names} for each in streams]
    kept = [name for name in names if any(row[name] not in ("", UNKNOWN) for row in rows)]
    rooms = {name: _whole(name, [row[name] for row in rows]) for name in kept}
    # The first one takes what others leave over: long titles before a protocol in few words.
    needed = {name: rooms[name] for name in sorted(kept, key=lambda name: name != WRAPPED) if name not in FURTHER}
    fitted = fit(needed, {name: each for name, each in rooms.items() if name in FURTHER}, room)
    if any(fitted.sizes.get(name, 0) < each.least for name, each in needed.items()):
        for each, row in zip(streams, rows, strict=True):
            style = "red" if each.is_stalled else ""
            facts = ", ".join(f"{name} {row[name].strip()}" for name in kept[1:] if row[name])
            yield Line((row[kept[0]].strip(), f"bold {style}".strip()), (f" {facts}", style))
        return
    shown = {name: fitted.sizes[name] for name in kept if name in fitted.sizes}
    gap = " " * fitted.gap
    if rows:
        titles = (
            padded(COLUMNS[name].title(size), size, to_the_right=COLUMNS[name].is_number)
            for name, size in shown.items()
        )
        yield Line(gap.join(titles), style="dim")
    for each, row in zip(streams, rows, strict=True):
        cells = [wrap(row[name], size) or [""] if name == WRAPPED else [row[name]] for name, size in shown.items()]
        for parts in zip_longest(*cells, fillvalue=""):
            texts = (COLUMNS[name].fitted(part, shown[name]) for name, part in zip(shown, parts, strict=True))
            yield Line(gap.join(texts), style="red" if each.is_stalled else "")


def _whole(name: str, cells: Iterable[str]) -> Room:
    """Return the room of a column of which nothing is lost."""
    longest = max(map(columns, cells))
    usual = max(longest, len(name))
    least = max(longest, len(COLUMNS[name].short_title or name))
    return Room(min(least, WRAPPED_LEAST) if name == WRAPPED else least, usual, usual)


def stream_object(stream: Stream, now: float, around: Surroundings) -> dict[str, Any]:
    """Return the row as an object of JSON; rates per second, times in seconds."""
    numbers, programs = stream.numbers, around.programs(stream)
    return {
        "group": stream.group,
        "port": stream.port,
        "source": stream.source,
        "interface": stream.interface,
        "outgoing": stream.outgoing,
        "protocol": stream.protocol and stream.protocol.name,
        "detail": stream.protocol and stream.protocol.detail,
        "datagrams": stream.datagrams,
        "bytes": stream.payload_bytes,
        "datagrams_per_second": round(stream.datagrams_per_second, 3),
        "bits_per_second": round(stream.bits_per_second, 1),
        "lost": numbers and numbers.lost,
        "expected": numbers and numbers.expected,
        "duplicates": numbers and numbers.duplicates,
        "reordered": numbers and numbers.reordered,
        "jitter": round(numbers.jitter, 6) if numbers and numbers.jitter is not None else None,
        "hop_limit": stream.hop_limit,
        "dscp": stream.dscp,
        "senders": stream.senders,
        "first": round(stream.first, 6),
        "last": round(stream.last, 6),
        "silent": round(max(0.0, now - stream.last), 3),
        "longest_gap": round(stream.longest_gap, 6),
        "stalled": stream.is_stalled,
        "kernel_drops": around.dropped(stream),
        "joined": None if around.joined is None else programs is not None,
        "programs": None if programs is None else sorted(programs),
    }
