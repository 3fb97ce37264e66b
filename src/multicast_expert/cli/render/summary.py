"""Totals of received and lost datagrams as lines. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from multicast_expert.cli.render.text import counted, scaled
from multicast_expert.core.datagram import ReceiveStats
from multicast_expert.observe.meter import Meter


class Alarm(str):
    """A line about a loss."""

    __slots__ = ()


def summary_lines(count: Meter, seconds: float, stats: Iterable[ReceiveStats]) -> Iterator[str]:
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
