"""Renders streams: the cells of a table, lines, objects of JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from multicast_expert.cli.render.text import Line, host_and_port, printable, scaled
from multicast_expert.observe.streams import SECONDS, Stream
from multicast_expert.wire.recognise.table import Protocol

STALLED = "STALLED"
SPARK = 15
"""Bars of the last minute in a table, four seconds each."""
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
    return f"{share:.2g} %" if share < 99.5 else f"{share:.0f} %"


def joined_text(stream: Stream, around: Surroundings) -> str:
    """Return the programs of this host that joined; `yes` if they cannot be named, empty for none."""
    programs = around.programs(stream)
    return "" if programs is None else printable(", ".join(sorted(programs))) or "yes"


def _last(stream: Stream, now: float) -> str:
    return STALLED if stream.is_stalled else ago(now - stream.last)


def _jitter(stream: Stream) -> float:
    return stream.numbers.jitter or 0.0 if stream.numbers else 0.0


def _jitter_text(stream: Stream) -> str:
    known = stream.numbers is not None and stream.numbers.jitter is not None
    return f"{1e3 * _jitter(stream):.3g} ms" if known else ""


def _rate(value: float) -> str:
    return scaled(value).strip()


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _rates(name: str, cell: Callable[[Stream], str], order: Callable[[Stream], Any]) -> Column:
    """Return a column of numbers that come from the stream alone."""
    return Column(name, lambda stream, _, __: cell(stream), lambda stream, _, __: order(stream), True)


def _texts(name: str, cell: Callable[[Stream], str]) -> Column:
    """Return a column of texts, which sorts by them, the empty ones last."""
    return Column(name, lambda stream, _, __: cell(stream), lambda stream, _, __: cell(stream) or "~")


def _column_list() -> Iterator[Column]:
    yield Column(
        "group",
        lambda stream, _, __: host_and_port(stream.group, stream.port),
        lambda stream, _, __: (len(stream.group), stream.group, stream.port),
    )
    yield _texts("source", lambda stream: f"{stream.source}{' (us)' if stream.outgoing else ''}")
    yield _texts("interface", lambda stream: printable(stream.interface))
    yield _rates("dgram/s", lambda each: _rate(each.datagrams_per_second), lambda each: -each.datagrams_per_second)
    yield _rates("bit/s", lambda each: _rate(each.bits_per_second), lambda each: -each.bits_per_second)
    yield _rates("loss", loss_text, lambda each: -(each.numbers.lost if each.numbers else -1))
    yield Column(
        "drops",
        lambda stream, _, around: _number(around.dropped(stream) or None),
        lambda stream, _, around: -(around.dropped(stream) or 0),
        True,
    )
    yield Column(
        "last",
        lambda stream, now, _: _last(stream, now),
        lambda each, now, _: (not each.is_stalled, now - each.last),
        True,
    )
    yield _texts("protocol", lambda stream: protocol_text(stream.protocol))
    yield _rates("jitter", _jitter_text, lambda stream: -_jitter(stream))
    yield _rates("hops", lambda stream: _number(stream.hop_limit), lambda stream: stream.hop_limit or 0)
    yield _rates("dscp", lambda stream: _number(stream.dscp), lambda stream: -(stream.dscp or 0))
    yield Column(
        "joined by",
        lambda stream, _, around: joined_text(stream, around),
        lambda stream, _, around: joined_text(stream, around) or "~",
    )
    yield Column(
        "last minute",
        lambda stream, _, __: sparkline([bits for _, bits in stream.history], SPARK),
        lambda stream, _, __: -max((bits for _, bits in stream.history), default=0),
    )


COLUMNS = {each.name: each for each in _column_list()}
PLAIN = ("group", "source", "interface", "dgram/s", "bit/s", "loss", "last", "protocol")


def table_lines(
    streams: Sequence[Stream], now: float, around: Surroundings, room: int, names: Sequence[str] = PLAIN
) -> Iterator[Line]:
    """Yield a table; a column in which nothing stands is left out.

    Where it takes more than `room` columns, each row becomes a line with the names of its columns.
    """
    columns = [COLUMNS[name] for name in names]
    rows = [[column.cell(each, now, around) for column in columns] for each in streams]
    kept = [turn for turn, _ in enumerate(columns) if any(row[turn] for row in rows)]
    widths = {turn: max(len(columns[turn].name), *(len(row[turn]) for row in rows)) for turn in kept}

    def line(cells: Sequence[str], style: str) -> Line:
        aligned = [
            cells[turn].rjust(widths[turn]) if columns[turn].is_number else cells[turn].ljust(widths[turn])
            for turn in kept
        ]
        return Line("  ".join(aligned), style=style)

    if sum(widths.values()) + 2 * len(kept) - 2 > room:
        for each, row in zip(streams, rows, strict=True):
            style = "red" if each.is_stalled else ""
            facts = ", ".join(f"{columns[turn].name} {row[turn].strip()}" for turn in kept[1:] if row[turn])
            yield Line((row[kept[0]].strip(), f"bold {style}".strip()), (f" {facts}", style))
        return
    if rows:
        yield line([column.name.upper() for column in columns], "dim")
    for each, row in zip(streams, rows, strict=True):
        yield line(row, "red" if each.is_stalled else "")


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


def detail_lines(stream: Stream, now: float, around: Surroundings, width: int) -> Iterator[Line]:
    """Yield all that is known about one stream: rates, gaps, numbers, and the head of the latest payload."""
    yield Line((f"{host_and_port(stream.group, stream.port)} from {stream.source} on {stream.interface}", "bold"))
    yield Line(protocol_text(stream.protocol) or "protocol not recognised")
    yield Line("")
    for name, (datagrams, bits) in (
        ("now    ", (stream.datagrams_per_second, stream.bits_per_second)),
        ("average", stream.mean_rates),
    ):
        yield Line(f"{name}  {scaled(datagrams).strip()} datagrams/s  {scaled(bits)}bit/s of payload")
    yield Line(f"total    {stream.datagrams:,} datagrams, {stream.payload_bytes:,} bytes")
    yield Line(f"bit/s    {sparkline([bits for _, bits in stream.history], min(SECONDS, max(width - 12, 10)))}")
    yield Line("")
    yield Line(f"last heard {_last(stream, now)}; longest gap {1e3 * stream.longest_gap:,.1f} ms")
    if stream.numbers:
        expected, lost, duplicates, reordered, _ = stream.numbers
        yield Line(
            f"{lost:,} of {expected:,} lost, {duplicates:,} twice, {reordered:,} out of order, "
            f"jitter {_jitter_text(stream) or 'not known'}"
        )
    else:
        yield Line("no numbers in its datagrams: loss and jitter are not known")
    yield Line(f"hop limit {_number(stream.hop_limit) or '?'}, DSCP {_number(stream.dscp) or '?'}")
    dropped, programs = around.dropped(stream), joined_text(stream, around)
    yield Line(f"joined here by {programs}" if programs else "no program here has joined it")
    if dropped is not None:
        yield Line(f"{dropped:,} dropped by the kernel of this host", style="red" if dropped else "")
    yield Line("")
    yield from hex_lines(stream.head, width)


def hex_lines(payload: bytes, width: int, limit: int = 256) -> Iterator[Line]:
    """Yield the beginning of a payload as hexadecimal digits and text."""
    step = 16 if width >= 76 else 8
    for start in range(0, min(len(payload), limit), step):
        part = payload[start : start + step]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        yield Line((f"{start:04x}  ", "dim"), f"{part.hex(' '):{3 * step}} {letters}")
