"""Intervals and summaries of measured streams as lines and as JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from multicast_expert.cli.render.summary import Alarm
from multicast_expert.cli.render.text import counted, host_and_port, scaled
from multicast_expert.observe.measured_stream import Interval, Place, Stream, percent
from multicast_expert.observe.meter import Meter

STREAMS_SHOWN = 20
"""Streams that have lines of their own in the summary."""
_NUMBERS = "     s datagrams/s   bit/s    lost     %"
_WITH_STREAM = 60
"""Columns that have room for the name of a stream behind them."""


# Intervals


def heading_line(room: int) -> str:
    """Return the names of the columns."""
    return f"{_NUMBERS}  stream" if room >= _WITH_STREAM else _NUMBERS


def interval_lines(interval: Interval, end: float, seconds: float, room: int) -> Iterator[str]:
    """Yield the line of a stream and an interval; two where it takes more than `room` columns."""
    stream = interval.stream
    rate = scaled(interval.bytes * 8 / seconds)
    if stream.loss_percent is None:
        lost, share = "-", "-"
    else:
        lost = f"{interval.lost:,}"
        share = f"{percent(interval.lost, interval.expected):.3g}"
    numbers = f"{end:6.1f} {interval.datagrams / seconds:11,.0f} {rate:>7} {lost:>7} {share:>5}"
    name = stream_name(stream)
    if len(numbers) + 2 + len(name) > room:
        yield name
        name = ""
    line = f"{numbers}  {name}".rstrip()
    yield Alarm(line) if interval.lost > 0 else line


def interval_object(interval: Interval, start: float, end: float) -> dict[str, Any]:
    """Return the JSON object of a stream and an interval, in seconds since the measurement began."""
    is_numbered = interval.stream.loss_percent is not None
    return {
        "type": "interval",
        "start": round(start, 3),
        "end": round(end, 3),
        **_place_object(interval.stream),
        "datagrams": interval.datagrams,
        "bytes": interval.bytes,
        "datagrams_per_second": round(interval.datagrams / (end - start), 3),
        "bits_per_second": round(interval.bytes * 8 / (end - start), 3),
        "expected": interval.expected if is_numbered else None,
        "lost": interval.lost if is_numbered else None,
        "loss_percent": round(percent(interval.lost, interval.expected), 6) if is_numbered else None,
        "jitter_ms": _milliseconds(interval.stream.jitter_ns),
    }


def _place_object(stream: Stream) -> dict[str, Any]:
    return {
        **stream.place._asdict(),
        "protocol": None if stream.protocol is None else stream.protocol.name,
        "stream": None if stream.stamp_stream is None else f"{stream.stamp_stream:016x}",
    }


def stream_name(stream: Stream) -> str:
    """Return where a stream goes to and where it comes from."""
    return f"{_place_name(stream.place)} from {stream.place.source}"


def _place_name(place: Place) -> str:
    return host_and_port(place.group or "?", place.port) + ("" if place.interface is None else f"%{place.interface}")


# Summaries


def stream_lines(meter: Meter, own_addresses: Collection[str], ended_ns: int, *, every: bool = False) -> Iterator[str]:
    """Yield the counters of each numbered stream at the end of the measurement, of all with `every`.

    Streams from `own_addresses` share the clock of this host.
    """
    streams = [each for each in meter.streams if every or each.loss_percent is not None]
    for stream in streams[:STREAMS_SHOWN]:
        yield f"{stream_name(stream)}{_described(stream)}:"
        yield from _stream_lines(stream, has_own_clock(stream, own_addresses), ended_ns)
    if more := len(streams) - len(streams[:STREAMS_SHOWN]):
        yield f"and {counted(more, 'stream')} more"
    if (rest := meter.forgotten) is not None:
        line = f"{counted(rest.runs, 'stream')} that had stopped gave room to new ones"
        yield f"{line}: {rest.datagrams:,} received, {rest.numbers.lost:,} lost"
    if meter.unfollowed:
        yield f"{counted(meter.unfollowed, 'datagram')} of further streams not followed"


def has_own_clock(stream: Stream, own_addresses: Collection[str]) -> bool:
    """Return whether the sender has the clock of this host."""
    return stream.place.source.partition("%")[0] in own_addresses


def _described(stream: Stream) -> str:
    if stream.is_sum:
        return f", {counted(stream.runs, 'earlier stream')}"
    if stream.stamp_stream is not None:
        return f", stream {stream.stamp_stream:016x}"
    return "" if stream.protocol is None else f", {' '.join(filter(None, stream.protocol))}"


def _stream_lines(stream: Stream, same_clock: bool, ended_ns: int) -> Iterator[str]:
    received = f"  {stream.datagrams:,} received"
    if stream.loss_percent is None:
        yield f"{received}, without numbers"
    else:
        share = f" ({stream.loss_percent:.3g} %)" if stream.lost else ""
        numbers = stream.numbers
        undecided = f", {stream.undecided:,} too late to tell" if stream.undecided else ""
        line = (
            f"{received}, {stream.lost:,} lost{share}, {counted(numbers.duplicates, 'duplicate')}, "
            f"{numbers.reordered:,} reordered{undecided}"
        )
        yield Alarm(line) if stream.lost else line
    before, after = stream.lost_before, stream.lost_after
    if before or after:
        yield Alarm(f"  {before:,} of them before the first that came, {after:,} after the last")
    silence, jitter = stream.silence_ns(ended_ns), stream.jitter_ns
    if stream.is_silent(ended_ns):
        yield Alarm(f"  silent for the last {silence / 1e9:,.1f} s: nothing tells what was lost since")
    if _has_gap(stream, ended_ns):
        gap = f"longest gap {_text(max(stream.longest_gap_ns, silence))} ms"
        yield f"  {gap}" if jitter is None else f"  jitter {_text(jitter)} ms, {gap}"
    latencies = stream.latencies
    if latencies.count:
        middle, late = (latencies.percentile(each) for each in (50, 99))
        caveat = "" if same_clock else ", two hosts' clocks"
        yield (
            f"  latency {_text(latencies.least)} min, {_text(middle)} p50, {_text(late)} p99, "
            f"{_text(latencies.most)} max ms{caveat}"
        )


def _has_gap(stream: Stream, ended_ns: int) -> bool:
    return stream.datagrams > 1 or stream.is_silent(ended_ns)


def summary_object(stream: Stream, seconds: float, same_clock: bool, ended_ns: int) -> dict[str, Any]:
    """Return the JSON object of a stream at the end of a measurement of so many seconds."""
    silence = stream.silence_ns(ended_ns)
    is_numbered = stream.loss_percent is not None
    numbers, latencies = stream.numbers, stream.latencies
    span = (stream.last_ns - stream.first_ns) / 1e9
    mean_size = stream.bytes / stream.datagrams if stream.datagrams else 0
    # The time begins with the first datagram, which therefore does not count.
    rate = (stream.datagrams - 1) / span if span > 0 else None
    latency = {
        "min": latencies.least,
        "mean": latencies.mean,
        "p50": latencies.percentile(50),
        "p99": latencies.percentile(99),
        "max": latencies.most,
    }
    return {
        "type": "summary",
        "start": 0.0,
        "end": round(seconds, 3),
        **_place_object(stream),
        "datagrams": stream.datagrams,
        "bytes": stream.bytes,
        "datagrams_per_second": None if rate is None else round(rate, 3),
        "bits_per_second": None if rate is None else round(rate * mean_size * 8, 3),
        "expected": stream.expected if is_numbered else None,
        "lost": stream.lost if is_numbered else None,
        "loss_percent": None if stream.loss_percent is None else round(stream.loss_percent, 6),
        "jitter_ms": _milliseconds(stream.jitter_ns),
        "last_number": stream.total,
        "lost_before_first": stream.lost_before if is_numbered else None,
        "lost_after_last": stream.lost_after if is_numbered else None,
        "duplicates": numbers.duplicates if is_numbered else None,
        "reordered": numbers.reordered if is_numbered else None,
        "undecided": stream.undecided if is_numbered else None,
        "longest_gap_ms": _milliseconds(max(stream.longest_gap_ns, silence)) if _has_gap(stream, ended_ns) else None,
        **{f"latency_{name}_ms": _milliseconds(each) if latencies.count else None for name, each in latency.items()},
        "same_clock": same_clock if latencies.count else None,
        "silent_at_end_s": round(silence / 1e9, 3) if stream.datagrams else None,
        "judged": stream.is_judged(ended_ns),
        "runs": stream.runs,
    }


def _text(nanoseconds: float) -> str:
    return f"{nanoseconds / 1e6:,.3f}"


def _milliseconds(nanoseconds: float | None) -> float | None:
    return None if nanoseconds is None else round(nanoseconds / 1e6, 6)


FIELDS = tuple(summary_object(Stream(Place(None, 0, None, ""), 0), 0, True, 0))
"""Of a summary, and therefore of each line of --csv."""
