"""One stream that a program receives: loss, order, jitter, latency, silence. Pure: the caller gives the times."""

from __future__ import annotations

from operator import add, sub
from typing import NamedTuple

from multicast_expert.observe.columns import Columns
from multicast_expert.observe.latency import Latencies
from multicast_expert.observe.sequence import RUNS, Heads, Numbers, Run, StampRun, add_numbers
from multicast_expert.wire.recognise.table import Protocol

SILENCE_NS = 1_000_000_000
"""A stream whose latest datagram is not older than this is not silent."""
SILENCE_GAPS = 3
"""Nor is one that is silent for less than so many times its longest gap."""
_NOTHING = Numbers(0, 0, 0, 0, None)


class Place(NamedTuple):
    """Where datagrams come from, and where to."""

    group: str | None
    port: int
    interface: str | None
    source: str


class Interval(NamedTuple):
    """What came of a stream since the interval before."""

    stream: Stream
    datagrams: int
    bytes: int
    expected: int
    lost: int
    """Negative if more came late than were lost anew."""


class Stream:
    """The counters of one stream, or the sum of streams of one place that have stopped."""

    __slots__ = (
        "_before", "_earlier", "bytes", "datagrams", "first_ns", "has_ended", "is_sum", "last_ns", "latencies",
        "longest_gap_ns", "place", "protocol", "run", "runs", "since_ns", "stamp_stream", "untold", "worst_percent",
    )  # fmt: skip

    def __init__(self, place: Place, since_ns: int) -> None:
        self.place: Place = place
        self.protocol: Protocol | None = None
        """None: it is none that has numbers."""
        self.since_ns: int = since_ns
        """The beginning of the measurement: what was sent before is not missing."""
        self.datagrams: int = 0
        self.bytes: int = 0
        self.first_ns: int = 0
        self.last_ns: int = 0
        self.longest_gap_ns: int = 0
        self.has_ended: bool = False
        self.stamp_stream: int | None = None
        """The random number of a run of `mcast send --stamp`."""
        self.latencies: Latencies = Latencies()
        self.run: Run | None = None
        self.is_sum: bool = False
        self.runs: int = 1
        """How many streams these counters are of."""
        self.untold: int = 0
        """Streams of a sum that had no numbers, or stopped without saying how many datagrams there were."""
        self.worst_percent: float = 0.0
        """The largest loss of a single stream of a sum."""
        self._earlier = _NOTHING
        self._before = 0, 0, 0, 0

    @classmethod
    def sum_of(cls, stream: Stream) -> Stream:
        """Return an empty sum for streams like this one."""
        made = cls(stream.place, stream.since_ns)
        made.is_sum, made.runs = True, 0
        if stream.run is not None and stream.protocol is not None:
            made.number(stream.protocol, None)
        return made

    def number(self, protocol: Protocol, key: object) -> None:
        """Count its numbers from now on; the key tells it from others of its source."""
        self.protocol = protocol
        self.run = RUNS[protocol.name](self.latencies)
        if isinstance(self.run, StampRun) and isinstance(key, int):
            self.stamp_stream = key

    def count(self, size: int, moment_ns: int) -> None:
        """Count a datagram."""
        if not self.datagrams:
            self.first_ns = self.last_ns = moment_ns
        gap = moment_ns - self.last_ns
        if gap > self.longest_gap_ns:  # noqa: PLR1730 - max() would take a quarter of the time of this function
            self.longest_gap_ns = gap
        self.last_ns = moment_ns
        self.datagrams += 1
        self.bytes += size
        self.has_ended = False

    def count_together(self, taken: Columns) -> None:
        """Count datagrams likewise."""
        moments = taken.moments_ns
        if not self.datagrams:
            self.first_ns = self.last_ns = moments[0]
        self.longest_gap_ns = max(self.longest_gap_ns, moments[0] - self.last_ns, *map(sub, moments[1:], moments))
        self.last_ns = moments[-1]
        self.datagrams += len(moments)
        self.bytes += sum(taken.lengths)
        self.has_ended = False

    def take_head(self, head: object, payload: bytes, moment_ns: int) -> None:
        """Count the number of a datagram; the sender may have begun anew."""
        run = self.run
        if run is not None and not run.take(head, payload, moment_ns):
            self._earlier = self.numbers
            self.run = type(run)(self.latencies)
            self.run.take(head, payload, moment_ns)

    def take_together(self, heads: Heads, moments_ns: tuple[int, ...]) -> bool:
        """Count the numbers of datagrams in which nothing is special; else return False and count none."""
        return self.run is not None and self.run.take_together(heads, moments_ns)

    @property
    def numbers(self) -> Numbers:
        """Numbers from the first datagram to the last one that came; without jitter."""
        return self._earlier if self.run is None else add_numbers(self._earlier, self.run.sequence)

    @property
    def jitter_ns(self) -> float | None:
        """By RFC 3550, 6.4.1; None while the sender's clock is not known."""
        return None if self.run is None else self.run.jitter_ns

    @property
    def undecided(self) -> int:
        """Datagrams that came too late to tell duplicates from others."""
        return 0 if self.run is None else self.run.sequence.undecided

    @property
    def total(self) -> int | None:
        """How many datagrams the sender sent; None if it did not say."""
        return None if self.run is None else self.run.total

    @property
    def lost_before(self) -> int:
        """Datagrams of the measurement before the first one that came, as far as an end mark proves them."""
        run = self.run
        if run is None or run.total is None or run.beginning_ns is None or run.beginning_ns < self.since_ns:
            return 0
        return max(0, run.sequence.lowest - 1) if run.sequence.received else run.total

    @property
    def lost_after(self) -> int:
        """Datagrams after the last one that came, by the end mark."""
        run = self.run
        if run is None or run.total is None or not run.sequence.received:
            return 0
        return max(0, run.total - run.sequence.highest)

    @property
    def lost(self) -> int:
        """All datagrams that are known to be missing."""
        return self.numbers.lost + self.lost_before + self.lost_after

    @property
    def expected(self) -> int:
        """How many datagrams should have come."""
        return self.numbers.expected + self.lost_before + self.lost_after

    @property
    def loss_percent(self) -> float | None:
        """None without numbers."""
        return None if self.run is None else percent(self.lost, self.expected)

    def silence_ns(self, now_ns: int) -> int:
        """Return for how long nothing has come; 0 once the sender has said that it is at its end."""
        if self.total is not None or self.is_sum or not self.datagrams:
            return 0
        return max(0, now_ns - self.last_ns)

    def is_silent(self, now_ns: int) -> bool:
        """Return whether it stopped without a word, by its own longest gap: nothing tells what is lost since."""
        return self.silence_ns(now_ns) > max(SILENCE_NS, SILENCE_GAPS * self.longest_gap_ns)

    def is_judged(self, now_ns: int) -> bool:
        """Return whether its numbers say all about its loss."""
        return not self.untold if self.is_sum else self.run is not None and not self.is_silent(now_ns)

    def add(self, other: Stream) -> None:
        """Add another stream, which has stopped, to this sum."""
        self.runs += other.runs
        self.untold += other.untold if other.is_sum else other.run is None or other.total is None
        self.worst_percent = max(self.worst_percent, other.worst_percent, other.loss_percent or 0.0)
        self.first_ns = min(filter(None, (self.first_ns, other.first_ns)), default=0)
        self.last_ns = max(self.last_ns, other.last_ns)
        self.longest_gap_ns = max(self.longest_gap_ns, other.longest_gap_ns)
        self.datagrams += other.datagrams
        self.bytes += other.bytes
        before, added = self._earlier, other.numbers
        self._earlier = Numbers(
            before.expected + other.expected,
            before.lost + other.lost,
            before.duplicates + added.duplicates,
            before.reordered + added.reordered,
            None,
        )
        # What came of it since the last interval is in the next interval of the sum.
        datagrams, size, expected, lost = map(add, self._before, other._before)
        self._before = datagrams, size, expected, lost

    def end_interval(self) -> Interval:
        """Return what came since the last call."""
        now = self.datagrams, self.bytes, self.expected, self.lost
        interval = Interval(self, *(after - before for after, before in zip(now, self._before, strict=True)))
        self._before = now
        return interval


def percent(part: int, whole: int) -> float:
    """Return the share in per cent; 0 of nothing."""
    return 100 * part / whole if whole > 0 else 0.0
