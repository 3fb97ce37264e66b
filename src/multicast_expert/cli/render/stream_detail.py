"""Renders all that is known about one stream. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator

from multicast_expert.cli.render.streams import (
    UNKNOWN,
    Surroundings,
    jitter_text,
    joined_text,
    last_text,
    protocol_text,
    sparkline,
)
from multicast_expert.cli.render.text import Line, host_and_port, scaled
from multicast_expert.observe.streams import SECONDS, Stream

_OFFSET = 6
"""Columns of the offset in front of the bytes, with two blanks."""


def detail_lines(stream: Stream, now: float, around: Surroundings, width: int) -> Iterator[Line]:
    """Yield all that is known about one stream, in rows of at most `width` columns."""
    for line in _facts(stream, now, around, width):
        yield from line.rows(width)


def _facts(stream: Stream, now: float, around: Surroundings, width: int) -> Iterator[Line]:
    """Yield rates, gaps, numbers, what this host does about it, and the head of the latest payload."""
    yield Line((f"{host_and_port(stream.group, stream.port)} from {stream.source} on {stream.interface}", "bold"))
    yield Line(protocol_text(stream.protocol) or "protocol not recognised")
    yield Line("")
    for name, (datagrams, bits) in (
        ("now    ", (stream.datagrams_per_second, stream.bits_per_second)),
        ("average", stream.mean_rates),
    ):
        yield Line(f"{name}  {scaled(datagrams).strip()} datagrams/s  {scaled(bits)}bit/s of payload")
    yield Line(f"total    {stream.datagrams:,} datagrams, {stream.payload_bytes:,} bytes")
    bars = sparkline([bits for _, bits in stream.history], min(SECONDS, max(width - 9, 10)))
    yield Line(f"bit/s    {bars}", is_set=True)
    yield Line("")
    yield Line(f"last heard {last_text(stream, now)}; longest gap {1e3 * stream.longest_gap:,.1f} ms")
    if stream.numbers:
        expected, lost, duplicates, reordered, _ = stream.numbers
        yield Line(
            f"{lost:,} of {expected:,} lost, {duplicates:,} twice, {reordered:,} out of order, "
            f"jitter {jitter_text(stream) or 'not known'}"
        )
    else:
        yield Line("no numbers in its datagrams: loss and jitter are not known")
    yield Line(f"hop limit {_known(stream.hop_limit)}, DSCP {_known(stream.dscp)}")
    dropped, programs = around.dropped(stream), joined_text(stream, around)
    if around.joined is None:
        yield Line("which programs here have joined it is not known")
    elif around.programs(stream):
        yield Line(f"joined here by {programs}")
    else:
        yield Line("joined here, by which program is not known" if programs else "no program here has joined it")
    if dropped is None:
        yield Line("how many of it the kernel of this host dropped is not known")
    else:
        yield Line(f"{dropped:,} dropped by the kernel of this host", style="red" if dropped else "")
    yield Line("")
    yield from hex_lines(stream.head, width)


def hex_lines(payload: bytes, width: int, limit: int = 256) -> Iterator[Line]:
    """Yield the beginning of a payload as hexadecimal digits and text."""
    step = next((each for each in (16, 8, 4, 2) if _OFFSET + 4 * each + 1 <= width), 1)
    for start in range(0, min(len(payload), limit), step):
        part = payload[start : start + step]
        letters = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in part)
        yield Line((f"{start:0{_OFFSET - 2}x}  ", "dim"), f"{part.hex(' '):{3 * step}} {letters}", is_set=True)


def _known(value: int | None) -> str:
    return UNKNOWN if value is None else str(value)
