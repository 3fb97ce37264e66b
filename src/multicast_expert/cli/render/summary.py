"""Totals of received and lost datagrams as lines. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass

from multicast_expert.cli.render.datagram import Arrival
from multicast_expert.cli.render.text import counted, host_and_port, milliseconds, scaled
from multicast_expert.core.datagram import ReceiveStats
from multicast_expert.stamp import Stream, StreamKey, Streams

STREAMS_SHOWN = 20
"""Streams that have lines of their own."""


class Alarm(str):
    """A line about a loss."""

    __slots__ = ()


@dataclass(slots=True)
class Count:
    """Datagrams shown, and the arrival of the first and the last one in nanoseconds since 1970."""

    datagrams: int = 0
    bytes: int = 0
    first_ns: int = 0
    last_ns: int = 0
    first_bytes: int = 0

    def add(self, arrival: Arrival) -> None:
        """Count one more."""
        size = len(arrival.datagram.data)
        if self.datagrams == 0:
            self.first_ns = arrival.time_ns
            self.first_bytes = size
        self.datagrams += 1
        self.bytes += size
        self.last_ns = arrival.time_ns


def summary_lines(count: Count, seconds: float, stats: Iterable[ReceiveStats]) -> Iterator[str]:
    """Yield totals, rates and losses of the datagrams that came in `seconds`."""
    counts = list(stats)
    yield f"{counted(count.datagrams, 'datagram')}, {counted(count.bytes, 'byte')} in {seconds:.1f} s"
    span = (count.last_ns - count.first_ns) / 1e9
    if count.datagrams > 1 and span > 0:
        # The time begins with the arrival of the first datagram, which therefore does not count.
        rate = (count.datagrams - 1) / span
        often = f"{rate:,.0f}" if rate >= 100 else f"{rate:.3g}"
        fast = scaled((count.bytes - count.first_bytes) * 8 / span)
        yield f"{often} datagrams/s, {fast}bit/s from the first to the last one"
    drops = [each.kernel_drops for each in counts]
    known = [each for each in drops if each is not None]
    dropped = (
        f"{sum(known):,} dropped by the kernel" if len(known) == len(drops) else "kernel drops not known on this OS"
    )
    truncated = sum(each.truncated for each in counts)
    filtered = sum(each.filtered for each in counts)
    line = f"{dropped}, {truncated:,} truncated, {filtered:,} filtered"
    yield Alarm(line) if any(known) or truncated else line


def stream_lines(streams: Streams, own_addresses: Collection[str]) -> Iterator[str]:
    """Yield the counters of each stamped stream; streams from `own_addresses` share the clock of this host."""
    shown = list(streams.streams.items())[:STREAMS_SHOWN]
    for key, stream in shown:
        sender = streams.senders[key]
        yield f"{_place(key)} from {sender}, stream {key.stream:016x}:"
        yield from _stream_lines(stream, sender.partition("%")[0] in own_addresses)
    if more := len(streams.streams) - len(shown):
        yield f"and {counted(more, 'stream')} more"
    if streams.unfollowed:
        yield f"{counted(streams.unfollowed, 'datagram')} of further streams not followed"


def _place(key: StreamKey) -> str:
    return host_and_port(key.group or "?", key.port) + ("" if key.interface is None else f"%{key.interface}")


def _stream_lines(stream: Stream, same_clock: bool) -> Iterator[str]:
    share = f" ({100 * stream.lost / stream.expected:.3g} %)" if stream.lost else ""
    undecided = f", {stream.undecided:,} too late to tell" if stream.undecided else ""
    line = (
        f"  {stream.received:,} received, {stream.lost:,} lost{share}, {counted(stream.duplicates, 'duplicate')}, "
        f"{stream.reordered:,} reordered{undecided}"
    )
    yield Alarm(line) if stream.lost else line
    least, mean, most = (
        milliseconds(each) for each in (stream.least_latency_ns, stream.mean_latency_ns, stream.most_latency_ns)
    )
    caveat = "" if same_clock else ", by two hosts' clocks"
    yield f"  latency {least} min, {mean} avg, {most} max{caveat}"
