"""Measures the streams that a program receives: rate, loss, order, jitter, latency. Pure: the caller gives the times.

A stream is what one run of a sender sends to one group and port, as it comes in on one interface. Its datagrams are
numbered if they carry stamps, RTP or the numbers of iperf 2. Times are nanoseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from multicast_expert.core.datagram import Datagram
from multicast_expert.observe.latency import Latencies
from multicast_expert.observe.sequence import RUNS, Numbers, Run, add_numbers
from multicast_expert.stamp import Stamp
from multicast_expert.wire.recognise.table import Protocol, recognise

MAX_STREAMS = 1_000
"""Streams that are followed. Any host can send any number of them, so each costs a bounded amount of memory."""
_TRIES = 32
"""Datagrams by which a stream is recognised at first, and as many in each interval after that."""
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
    """The counters of one stream."""

    __slots__ = (
        "_before", "_earlier", "_kind", "bytes", "datagrams", "first_ns", "has_ended", "last_ns", "latencies",
        "longest_gap_ns", "place", "protocol", "run", "since_ns", "stamp_stream",
    )  # fmt: skip

    def __init__(self, place: Place, protocol: Protocol | None, since_ns: int) -> None:
        self.place: Place = place
        self.protocol = protocol
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
        self._earlier = _NOTHING
        self._before = 0, 0, 0, 0

    def number(self, protocol: Protocol) -> None:
        """Count its numbers from now on."""
        self.protocol = protocol
        self.run = RUNS[protocol.name](self.latencies)

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

    def take_head(self, head: object, payload: bytes, moment_ns: int) -> None:
        """Count the number of a datagram; the sender may have begun anew."""
        run = self.run
        if run is not None and not run.take(head, payload, moment_ns):
            self._earlier = self.numbers
            self.run = type(run)(self.latencies)
            self.run.take(head, payload, moment_ns)

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

    def end_interval(self) -> Interval:
        """Return what came since the last call."""
        now = self.datagrams, self.bytes, self.expected, self.lost
        interval = Interval(self, *(after - before for after, before in zip(now, self._before, strict=True)))
        self._before = now
        return interval


class Meter:
    """All streams of a program, up to MAX_STREAMS, and their sums. One thread may use it."""

    def __init__(self, since_ns: int) -> None:
        self.datagrams: int = 0
        self.bytes: int = 0
        self.first_ns: int = 0
        self.last_ns: int = 0
        self.first_bytes: int = 0
        self.unfollowed: int = 0
        """Datagrams of streams beyond MAX_STREAMS."""
        self.streams: list[Stream] = []
        self._since_ns = since_ns
        self._sources: dict[tuple[int, str | None, str | None, str], _Source] = {}

    def take(self, datagrams: Iterable[Datagram], port: int, now_ns: int) -> None:
        """Count datagrams that were sent to a port; `now_ns` is for those that the OS gives no time for."""
        sources = self._sources
        for datagram in datagrams:
            payload, sender = datagram.data, datagram.sender
            moment_ns = datagram.timestamp_ns or now_ns
            source = sources.get((port, datagram.group, datagram.interface_name, sender[0]))
            if source is None:
                source = self._source(datagram, port)
            if source is not None and source.take(payload, sender[1], moment_ns):
                continue
            if not self.datagrams:
                self.first_ns, self.first_bytes = moment_ns, len(payload)
            self.datagrams += 1
            self.bytes += len(payload)
            self.last_ns = moment_ns

    def end_interval(self) -> Iterator[Interval]:
        """Yield what came of each stream since the last call, except of those that ended before."""
        for source in self._sources.values():
            source.tries = _TRIES
        for stream in self.streams:
            had_ended = stream.has_ended
            interval = stream.end_interval()
            if interval.datagrams or not had_ended:
                yield interval
            stream.has_ended = stream.total is not None

    def has_room(self) -> bool:
        """Return whether one more stream is followed; count a datagram of one that is not."""
        if len(self.streams) < MAX_STREAMS:
            return True
        self.unfollowed += 1
        return False

    def _source(self, datagram: Datagram, port: int) -> _Source | None:
        if not self.has_room():
            return None
        place = Place(datagram.group, port, datagram.interface_name, datagram.sender[0])
        source = _Source(self, place, self._since_ns)
        self._sources[port, datagram.group, datagram.interface_name, datagram.sender[0]] = source
        return source


class _Source:
    """All that one host sends to one group and port."""

    __slots__ = ("_earlier", "_meter", "_place", "_protocol", "_since_ns", "_streams", "tries")

    def __init__(self, meter: Meter, place: Place, since_ns: int) -> None:
        self._meter, self._place, self._since_ns = meter, place, since_ns
        self._protocol: Protocol | None = None
        self._streams: dict[object, Stream] = {}
        self._earlier: tuple[bytes, int, int] | None = None
        self.tries = _TRIES

    def take(self, payload: bytes, sender_port: int, moment_ns: int) -> bool:
        """Count a datagram; return True if it is an end mark, which is none of the sender's own."""
        protocol = self._protocol
        if protocol is None and self.tries:
            protocol = self._recognise(payload, sender_port, moment_ns)
        head = key = None
        if protocol is not None:
            kind = RUNS[protocol.name]
            head = kind.read(payload)
            key = None if head is None else kind.key(head, sender_port)
        stream = self._streams.get(key) or self._new(key, protocol if head is not None else None)
        if stream is None:
            return False
        if head is None:
            stream.count(len(payload), moment_ns)
            return False
        stream.take_head(head, payload, moment_ns)
        if isinstance(head, Stamp):
            stream.stamp_stream = head.stream
            if head.is_end:
                return True
        stream.count(len(payload), moment_ns)
        return False

    def _new(self, key: object, protocol: Protocol | None) -> Stream | None:
        if not self._meter.has_room():
            return None
        stream = self._streams[key] = Stream(self._place, None, self._since_ns)
        if protocol is not None:
            stream.number(protocol)
        self._meter.streams.append(stream)
        return stream

    def _recognise(self, payload: bytes, sender_port: int, moment_ns: int) -> Protocol | None:
        """Return the protocol if it has numbers and shows it; what came before belongs to the stream then."""
        self.tries -= 1
        earlier, self._earlier = self._earlier, (payload, sender_port, moment_ns)
        protocol = recognise(payload, self._place.port, self._place.group, earlier[0] if earlier else None)
        if protocol is None or protocol.name not in RUNS:
            return None
        self._protocol, self._earlier = protocol, None
        stream = self._streams.get(None)
        if stream is not None and earlier is not None:
            head = RUNS[protocol.name].read(earlier[0])
            if head is not None:
                key = RUNS[protocol.name].key(head, earlier[1])
                self._streams[key] = self._streams.pop(None)
                stream.number(protocol)
                stream.take_head(head, earlier[0], earlier[2])
        return protocol


def percent(part: int, whole: int) -> float:
    """Return the share in per cent; 0 of nothing."""
    return 100 * part / whole if whole > 0 else 0.0
