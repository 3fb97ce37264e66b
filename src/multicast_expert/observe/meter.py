"""Measures the streams that a program receives: rate, loss, order, jitter, latency. Pure: the caller gives the times.

A stream is what one run of a sender sends to one group and port, as it comes in on one interface. Its datagrams are
numbered if they carry stamps, RTP or the numbers of iperf 2. Times are nanoseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate
from typing import TypeAlias

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.datagram_buffer import DatagramBuffer
from multicast_expert.observe.columns import Columns
from multicast_expert.observe.measured_stream import Interval, Place, Stream
from multicast_expert.observe.sequence import RUNS
from multicast_expert.stamp import Stamp
from multicast_expert.wire.recognise.table import Protocol, recognise

MAX_STREAMS = 1_000
"""Streams that are followed. Any host can send any number of them, so each costs a bounded amount of memory."""
STOPPED_NS = 30_000_000_000
"""A stream that is silent for so long gives its room to a new one, if there is no other."""
_TRIES = 32
"""Datagrams by which a stream is recognised at first, and as many in each interval after that."""
_MANY = 4
"""So many datagrams of one source cost less together than one by one."""
_Way: TypeAlias = tuple[str | None, str | None, IPv4Or6Address]
"""Group, interface and sender."""


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
        self.forgotten: Stream | None = None
        """The sum of streams that gave their room to others, without place or protocol."""
        self.streams: list[Stream] = []
        self.since_ns: int = since_ns
        """What was sent before is not missing."""
        self._full_until_ns = 0
        self._sources: dict[tuple[int, str | None, str | None, str], _Source] = {}

    def take(self, datagrams: Collection[Datagram], port: int, now_ns: int) -> None:
        """Count datagrams that were sent to a port; `now_ns` is for those that the OS gives no time for."""
        payloads = [each.data for each in datagrams]
        lengths = tuple(map(len, payloads))
        offsets = tuple(accumulate(lengths, initial=0))[:-1]
        ways: dict[_Way, int] = {}
        which = [ways.setdefault((each.group, each.interface_name, each.sender), len(ways)) for each in datagrams]
        moments = tuple([each.timestamp_ns or now_ns for each in datagrams])
        self._take(b"".join(payloads), (offsets, lengths, moments), list(ways), which, port)

    def take_buffer(self, buffer: DatagramBuffer, port: int, now_ns: int) -> None:
        """Count the datagrams of a buffer likewise."""
        moments = tuple(buffer.timestamps_ns.tolist())
        if 0 in moments:
            moments = tuple([each or now_ns for each in moments])
        ways = [(each.group, each.interface_name, each.sender) for each in buffer.origins]
        columns = tuple(buffer.offsets.tolist()), tuple(buffer.lengths.tolist()), moments
        self._take(buffer.data, columns, ways, buffer.sources.tolist(), port)

    def _take(
        self,
        memory: bytes | memoryview,
        columns: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]],
        ways: Sequence[_Way],
        which: list[int],
        port: int,
    ) -> None:
        """Count the datagrams, of which `which` says by which of the ways they came."""
        if not which:
            return
        ports = [sender[1] for _, _, sender in ways]
        sources = [self._source(port, way, columns[-1][0]) for way in ways]
        busy: list[_Source] = []
        if len(sources) == 1 and sources[0] is not None:
            taken = Columns(memory, *columns, (ports[0],) * len(which))
            busy, sources[0].rows = [sources[0]], list(range(len(which)))
        else:
            taken = Columns(memory, *columns, tuple([ports[way] for way in which]))
            for row, way in enumerate(which):
                source = sources[way]
                if source is None:
                    self.unfollowed += 1
                    continue
                if not source.rows:
                    busy.append(source)
                source.rows.append(row)
        marks = {row for source in busy for row in source.take(taken)}
        if marks:
            taken = taken.chosen([row for row in range(len(which)) if row not in marks])
        if taken.lengths:
            self._count(taken.lengths, taken.moments_ns)

    def _count(self, lengths: tuple[int, ...], moments_ns: tuple[int, ...]) -> None:
        first_ns = min(moments_ns)
        if not self.datagrams or first_ns < self.first_ns:
            self.first_ns, self.first_bytes = first_ns, lengths[moments_ns.index(first_ns)]
        self.last_ns = max(self.last_ns, *moments_ns)
        self.datagrams += len(lengths)
        self.bytes += sum(lengths)

    def end_interval(self) -> Iterator[Interval]:
        """Yield what came of each stream since the last call, except of those that ended before."""
        for source in self._sources.values():
            source.tries = _TRIES
        for stream in self.streams:
            had_ended = stream.has_ended
            interval = stream.end_interval()
            if interval.datagrams or not had_ended:
                yield interval
            stream.has_ended = stream.is_sum or stream.total is not None

    def has_room(self, now_ns: int, asking: _Source | None = None) -> bool:
        """Return whether one more stream is followed."""
        if len(self.streams) >= MAX_STREAMS and now_ns >= self._full_until_ns:
            self._make_room(now_ns, asking)
        return len(self.streams) < MAX_STREAMS

    def _make_room(self, now_ns: int, asking: _Source | None) -> None:
        """Put streams that have stopped together: those of one source first, then those of sources that stopped."""
        until_ns = now_ns - STOPPED_NS
        for source in self._sources.values():
            source.sum_up(until_ns, least=1 if source is asking else 2)
        if sum(each.room for each in self._sources.values()) >= MAX_STREAMS:
            for key, source in list(self._sources.items()):
                if source is not asking and source.last_ns < until_ns:
                    del self._sources[key]
                    for stream in source.streams:
                        self._forget(stream)
        self.streams = [stream for source in self._sources.values() for stream in source.streams]
        oldest_ns = min((each.last_ns for each in self.streams if not each.is_sum), default=now_ns)
        self._full_until_ns = oldest_ns + STOPPED_NS
        # What began before may have been counted in a sum.
        self.since_ns = max(self.since_ns, now_ns)

    def _forget(self, stream: Stream) -> None:
        if self.forgotten is None:
            self.forgotten = Stream.sum_of(Stream(Place(None, 0, None, ""), self.since_ns))
        self.forgotten.add(stream)

    def _source(self, port: int, way: _Way, now_ns: int) -> _Source | None:
        group, interface, sender = way
        key = port, group, interface, sender[0]
        source = self._sources.get(key)
        if source is None and self.has_room(now_ns):
            source = self._sources[key] = _Source(self, Place(group, port, interface, sender[0]))
        return source


class _Source:
    """All that one host sends to one group and port."""

    __slots__ = ("_earlier", "_meter", "_place", "_protocol", "_streams", "_sums", "rows", "tries")

    def __init__(self, meter: Meter, place: Place) -> None:
        self._meter, self._place = meter, place
        self._protocol: Protocol | None = None
        self._streams: dict[object, Stream] = {}
        self._sums: dict[str | None, Stream] = {}
        self._earlier: tuple[bytes, int, int] | None = None
        self.tries: int = _TRIES
        self.rows: list[int] = []
        """Where its datagrams are that wait to be taken."""

    def take(self, taken: Columns) -> list[int]:
        """Count the datagrams in its rows; return the rows of end marks, which are none of the sender's own."""
        rows, self.rows, marks = self.rows, [], list[int]()
        while rows:
            is_known = self._protocol is not None or not self.tries
            if is_known and len(rows) >= _MANY and self._take_together(taken.chosen(rows)):
                break
            # The next one, until it is known what they are; all one by one, where one of them is special.
            some = rows if is_known else rows[:1]
            marks += [row for row in some if self._take_one(taken, row)]
            rows = rows[len(some) :]
        return marks

    def _take_together(self, taken: Columns) -> bool:
        """Count datagrams of one stream in which nothing is special; else return False and count none."""
        protocol = self._protocol
        heads = None if protocol is None else RUNS[protocol.name].read_together(taken)
        if protocol is not None and heads is None:
            return False
        stream = self._stream(None if heads is None else heads.key, protocol, taken.moments_ns[0])
        if stream is None:
            self._meter.unfollowed += len(taken.lengths)
            return True
        if heads is not None and not stream.take_together(heads, taken.moments_ns):
            return False
        stream.count_together(taken)
        return True

    def _take_one(self, taken: Columns, row: int) -> bool:
        """Count a datagram; return whether it is an end mark."""
        payload, sender_port, moment_ns = taken.payload(row), taken.ports[row], taken.moments_ns[row]
        protocol = self._protocol
        if protocol is None and self.tries:
            protocol = self._recognise(payload, sender_port, moment_ns)
        head = key = None
        if protocol is not None:
            kind = RUNS[protocol.name]
            head = kind.read(payload)
            key = None if head is None else kind.key(head, sender_port)
        stream = self._stream(key, protocol if head is not None else None, moment_ns)
        if stream is None:
            self._meter.unfollowed += 1
            return False
        if head is not None:
            stream.take_head(head, payload, moment_ns)
            if isinstance(head, Stamp) and head.is_end:
                return True
        stream.count(len(payload), moment_ns)
        return False

    @property
    def streams(self) -> Iterable[Stream]:
        """All that are followed, and the sums of those that stopped."""
        return (*self._sums.values(), *self._streams.values())

    @property
    def room(self) -> int:
        """How many streams it takes."""
        return len(self._sums) + len(self._streams)

    @property
    def last_ns(self) -> int:
        """When the latest datagram came."""
        return max((each.last_ns for each in self.streams), default=0)

    def sum_up(self, until_ns: int, least: int) -> None:
        """Put the streams together that have been silent since `until_ns`, if it has at least so many."""
        if self.room < least:
            return
        for key in [key for key, each in self._streams.items() if each.last_ns < until_ns]:
            stream = self._streams.pop(key)
            kind = None if stream.protocol is None else stream.protocol.name
            if kind not in self._sums:
                self._sums[kind] = Stream.sum_of(stream)
            self._sums[kind].add(stream)

    def _stream(self, key: object, protocol: Protocol | None, moment_ns: int) -> Stream | None:
        """Return the stream with this key, a new one if need be; None: there is no room for it."""
        stream = self._streams.get(key)
        if stream is None and self._meter.has_room(moment_ns, self):
            stream = self._streams[key] = Stream(self._place, self._meter.since_ns)
            if protocol is not None:
                stream.number(protocol, key)
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
                stream.number(protocol, key)
                stream.take_head(head, earlier[0], earlier[2])
        return protocol
