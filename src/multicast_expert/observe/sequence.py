"""Reads the numbers of streams: loss, order, jitter and latency of each run of a sender. Pure: touches no OS."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from itertools import accumulate
from operator import sub
from struct import Struct
from typing import Any, ClassVar, NamedTuple, TypeAlias

from multicast_expert.observe.columns import Columns
from multicast_expert.observe.latency import Latencies
from multicast_expert.observe.loss import BLOCKS, Sequence
from multicast_expert.stamp import LAYOUT, MAGIC, SIZE, VERSION, Stamp, read_beginning, read_head
from multicast_expert.wire.recognise.measuring import EARLIEST, IPERF, IperfHeader, iperf_header
from multicast_expert.wire.recognise.media import DYNAMIC_TYPES, STATIC_TYPES

RESTART = 1024
"""A sender of RTP or of iperf began anew if its numbers fall back so far."""
_MOST_MISSING = 3000
"""A larger step of RTP's 16-bit numbers is a new beginning: RFC 3550, A.1."""
_RUNS = 4
"""Senders of one stream that are followed beside each other."""
HEAD = 64
"""Bytes of a payload that hold all that is read of it."""
_TOGETHER = 16
"""Datagrams of one of many streams that are counted together."""
_FEW_BLOCKS = 2
"""Blocks of numbers that are remembered of each of many streams."""
_CLOCKS = (8000, 16000, 32000, 44100, 48000, 90000, 96000, 192000)
"""Clock rates in Hz that RTP payload formats have."""
_CLOCK_TOLERANCE, _CLOCK_SECONDS = 0.03, 2.0
_SECOND = 1_000_000_000
_Read: TypeAlias = "staticmethod[[bytes], Any | None]"
_RTP = Struct("!BBHII")
_RTP_TYPES = frozenset({*STATIC_TYPES, *DYNAMIC_TYPES})


class Numbers(NamedTuple):
    """What the numbers of a stream say since it was first heard."""

    expected: int
    lost: int
    duplicates: int
    reordered: int
    jitter: float | None
    """In seconds, by RFC 3550, 6.4.1; None while the sender's clock is not known."""


class Heads(NamedTuple):
    """What datagrams of one run begin with, in columns."""

    key: object
    """What tells it from other runs of one host."""
    numbers: tuple[int, ...]
    times: tuple[int, ...]
    """The sender's: nanoseconds since 1970, or what its clock counts."""


class Run(ABC):
    """The datagrams of one run of one sender. Times are nanoseconds, of arrival since 1970.

    `take` counts any datagram; `take_together` comes to the same for many that are as most are, in less time.
    """

    __slots__ = ("_transit", "beginning_ns", "jitter_ns", "latencies", "sequence", "total")
    read: ClassVar[_Read]
    """Returns the head of a datagram with the number; None for another payload."""

    def __init__(self, latencies: Latencies | None = None, blocks: int = BLOCKS) -> None:
        self.sequence: Sequence = Sequence(blocks)
        self.latencies: Latencies | None = latencies
        """Where the latencies go; None: they are not asked for, or the sender's clock does not tell them."""
        self.jitter_ns: float | None = None
        """By RFC 3550, 6.4.1; None while the sender's clock is not known."""
        self.total: int | None = None
        """The number of its last datagram, which an end mark said."""
        self.beginning_ns: int | None = None
        """When its first datagram would have arrived if it took as long as the first one that came."""
        self._transit: int | None = None

    @staticmethod
    @abstractmethod
    def key(head: Any, sender_port: int) -> object:
        """Return what tells the senders of one host apart."""

    @abstractmethod
    def take(self, head: Any, payload: bytes, arrived_ns: int) -> bool:
        """Count a datagram; return False if it belongs to another run, because the sender began anew."""

    @staticmethod
    @abstractmethod
    def read_together(taken: Columns) -> Heads | None:
        """Return the heads; None if the datagrams are of several runs, or one of them is special."""

    def take_together(self, heads: Heads, arrived_ns: tuple[int, ...]) -> bool:
        """Count datagrams; return False, and count none, if one of them may belong to another run."""
        if not self._is_one_run(heads.numbers):
            return False
        self.sequence.see_all(heads.numbers)
        self._time_together(heads.times, arrived_ns)
        return True

    def _is_one_run(self, numbers: tuple[int, ...]) -> bool:
        return True

    def _time(self, sent_ns: int, arrived_ns: int) -> None:
        """Take note of both times of a datagram, of either clock."""
        transit = arrived_ns - sent_ns
        if self._transit is None:
            self.jitter_ns = 0.0
        elif self.jitter_ns is not None:
            self.jitter_ns += (abs(transit - self._transit) - self.jitter_ns) / 16
        self._transit = transit
        if self.latencies is not None:
            self.latencies.add(transit)

    def _time_together(self, sent_ns: tuple[int, ...], arrived_ns: tuple[int, ...]) -> None:
        transits = list(map(sub, arrived_ns, sent_ns))
        before = transits[0] if self._transit is None else self._transit
        jitter = self.jitter_ns or 0.0
        for transit in transits:
            change = transit - before
            jitter += ((change if change > 0 else -change) - jitter) / 16
            before = transit
        self.jitter_ns, self._transit = jitter, before
        if self.latencies is not None:
            self.latencies.add_all(transits)

    def _end(self, total: int, beginning_ns: int | None = None) -> None:
        """Take note of what an end mark says."""
        self.total = total
        if beginning_ns is not None:
            self.beginning_ns = beginning_ns

    def _falls_back(self, number: int) -> bool:
        return self.sequence.received > 0 and number <= self.sequence.highest - RESTART


class StampRun(Run):
    """Datagrams of one run of `mcast send --stamp`."""

    __slots__ = ("_first",)
    read: ClassVar[_Read] = staticmethod(read_head)

    def __init__(self, latencies: Latencies | None = None, blocks: int = BLOCKS) -> None:
        super().__init__(latencies, blocks)
        self._first: tuple[int, int] | None = None

    @staticmethod
    def key(head: Stamp, sender_port: int) -> object:
        """Return the random number of the run: a sender may get another port on its way."""
        return head.stream

    def take(self, head: Stamp, payload: bytes, arrived_ns: int) -> bool:
        """Count a datagram or take note of an end mark; it is always of this run."""
        if self._first is None:
            self._first = head.sent_ns, arrived_ns
        if head.is_end:
            began_ns = read_beginning(payload)
            self._end(head.number, None if began_ns is None else self._first[1] - (self._first[0] - began_ns))
            return True
        self.sequence.see(head.number)
        self._time(head.sent_ns, arrived_ns)
        return True

    @staticmethod
    def read_together(taken: Columns) -> Heads | None:
        """Return the heads; None if the datagrams are of several runs, or one of them is special."""
        fields = taken.fields(LAYOUT)
        if fields is None:
            return None
        magics, versions, flags, lengths, payloads, streams, numbers, sent_ns = fields
        is_usual = (
            set(magics) == {MAGIC} and set(versions) == {VERSION} and not any(flags) and len(set(streams)) == 1
            and lengths == taken.lengths and max(payloads) <= min(lengths) - SIZE
        )  # fmt: skip
        return Heads(streams[0], numbers, sent_ns) if is_usual else None

    def take_together(self, heads: Heads, arrived_ns: tuple[int, ...]) -> bool:
        """Count datagrams, which are always of this run."""
        if self._first is None:
            self._first = heads.times[0], arrived_ns[0]
        return super().take_together(heads, arrived_ns)


class IperfRun(Run):
    """Datagrams of one run of iperf 2. Its last one has the sign reversed and may come several times."""

    __slots__ = ()
    read: ClassVar[_Read] = staticmethod(iperf_header)

    @staticmethod
    def key(head: IperfHeader, sender_port: int) -> object:
        """Return the port: each run has another one."""
        return sender_port

    def take(self, head: IperfHeader, payload: bytes, arrived_ns: int) -> bool:
        """Count a datagram; False if the numbers begin again."""
        number = abs(head.number)
        if head.number < 0 and self.total == number:
            return True
        if self.total is not None or self._falls_back(number):
            return False
        if head.number < 0:
            self._end(number)
        self.sequence.see(number)
        self._time(head.sent_ns, arrived_ns)
        return True

    @staticmethod
    def read_together(taken: Columns) -> Heads | None:
        """Return the heads; None if the datagrams are of several runs, or one of them is special."""
        fields = taken.fields(IPERF)
        if fields is None or len(set(taken.ports)) > 1:
            return None
        numbers, seconds, microseconds, high = fields
        if min(numbers) < 0 or min(seconds) < EARLIEST or max(microseconds) >= 1_000_000 or set(high) - {0, -1}:
            return None
        if len(set(seconds)) == 1:
            second_ns = seconds[0] * _SECOND
            sent_ns = tuple([second_ns + more * 1_000 for more in microseconds])
        else:
            sent_ns = tuple([each * _SECOND + more * 1_000 for each, more in zip(seconds, microseconds, strict=True)])
        return Heads(taken.ports[0], numbers, sent_ns)

    def _is_one_run(self, numbers: tuple[int, ...]) -> bool:
        first = self.sequence.highest if self.sequence.received else numbers[0]
        return self.total is None and min(numbers) > max(first, *numbers) - RESTART


def _read_rtp(payload: bytes) -> tuple[int, ...] | None:
    """Return the fields of the header, with their flags; less is read than `rtp_header` does, as it is known."""
    if len(payload) < _RTP.size:
        return None
    head: tuple[int, ...] = _RTP.unpack_from(payload)
    return head if head[0] >> 6 == 2 and head[1] & 0x7F in _RTP_TYPES else None


class RtpRun(Run):
    """Packets of one source of RTP."""

    __slots__ = ("_clock",)

    def __init__(self, latencies: Latencies | None = None, blocks: int = BLOCKS) -> None:
        super().__init__(None, blocks)
        self._clock: _RtpClock | None = None

    read: ClassVar[_Read] = staticmethod(_read_rtp)

    @staticmethod
    def key(head: tuple[int, ...], sender_port: int) -> object:
        """Return the port and the SSRC."""
        return sender_port, head[4]

    def take(self, head: tuple[int, ...], payload: bytes, arrived_ns: int) -> bool:
        """Count a packet, whose number goes on behind 65,535; False if the numbers begin again."""
        _, kind, number, timestamp, _ = head
        sequence = self.sequence
        if sequence.received:
            step = (number - sequence.highest + 0x8000 & 0xFFFF) - 0x8000
            number = sequence.highest + step
            if not -RESTART < step <= _MOST_MISSING:
                return False
        sequence.see(number)
        if self._clock is None:
            self._clock = _RtpClock(STATIC_TYPES.get(kind & 0x7F, ("", None))[1], timestamp, arrived_ns)
        sent_ns = self._clock.advance(timestamp, arrived_ns)
        if sent_ns is not None:
            self._time(sent_ns, arrived_ns)
        return True

    @staticmethod
    def read_together(taken: Columns) -> Heads | None:
        """Return the heads; None if the packets are of several sources, or one of them is special."""
        fields = taken.fields(_RTP)
        if fields is None or len(set(taken.ports)) > 1:
            return None
        flags, kinds, numbers, timestamps, sources = fields
        is_usual = (
            len(set(sources)) == 1
            and all(each >> 6 == 2 for each in set(flags))
            and _RTP_TYPES.issuperset(each & 0x7F for each in set(kinds))
            and numbers == tuple(range(numbers[0], numbers[0] + len(numbers)))
        )
        return Heads((taken.ports[0], sources[0]), numbers, timestamps) if is_usual else None

    def take_together(self, heads: Heads, arrived_ns: tuple[int, ...]) -> bool:
        """Count packets; return False, and count none, if they do not follow the latest one closely."""
        clock, highest = self._clock, self.sequence.highest
        step = heads.numbers[0] - highest & 0xFFFF
        if clock is None or not 0 < step <= _MOST_MISSING:
            return False
        self.sequence.see_all(tuple(range(highest + step, highest + step + len(heads.numbers))))
        times = [clock.advance(*each) for each in zip(heads.times, arrived_ns, strict=True)]
        known = [(sent, arrived) for sent, arrived in zip(times, arrived_ns, strict=True) if sent is not None]
        if known:
            self._time_together(*zip(*known, strict=True))
        return True


class _RtpClock:
    """The clock of an RTP source, found out from its timestamps if its payload type does not say it."""

    __slots__ = ("_begin", "_last", "_ticks", "rate")

    def __init__(self, rate: int | None, timestamp: int, arrived_ns: int) -> None:
        self.rate = rate
        self._ticks = 0
        self._begin = arrived_ns
        self._last = timestamp

    def advance(self, timestamp: int, arrived_ns: int) -> int | None:
        """Return the sender's time since the first datagram; None while the rate is not known."""
        self._ticks += (timestamp - self._last + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        self._last = timestamp
        if self.rate is None:
            seconds = (arrived_ns - self._begin) / _SECOND
            if seconds < _CLOCK_SECONDS:
                return None
            measured = self._ticks / seconds
            nearest = min(_CLOCKS, key=lambda each: abs(each - measured))
            if abs(nearest - measured) > _CLOCK_TOLERANCE * nearest:
                return None
            self.rate = nearest
        return self._ticks * _SECOND // self.rate


RUNS: Mapping[str, type[Run]] = {"RTP": RtpRun, "mcast stamp": StampRun, "iperf": IperfRun}
NUMBERED = frozenset(RUNS)
"""Protocols whose datagrams have numbers."""


class Numbering:
    """The numbers in the payloads of one stream, of several senders if there are several. It counts some at a time."""

    __slots__ = ("_earlier", "_kind", "_last", "_runs", "_waiting")

    def __init__(self, protocol: str) -> None:
        self._kind = RUNS[protocol]
        self._runs: dict[object, Run] = {}
        self._earlier = Numbers(0, 0, 0, 0, None)
        self._last: Run | None = None
        self._waiting: list[tuple[bytes, int, int, float]] = []

    def take(self, head: bytes, size: int, sender_port: int, arrived: float) -> None:
        """Count a datagram by the first HEAD bytes of its payload, which has `size`; `arrived` in seconds."""
        self._waiting.append((head, size if len(head) == HEAD else len(head), sender_port, arrived))
        if len(self._waiting) >= _TOGETHER:
            self._count()

    def _count(self) -> None:
        if not self._waiting:
            return
        heads, sizes, ports, arrived = zip(*self._waiting, strict=True)
        self._waiting.clear()
        offsets = tuple(accumulate(map(len, heads), initial=0))[:-1]
        moments_ns = tuple([round(each * _SECOND) for each in arrived])
        read = self._kind.read_together(Columns(b"".join(heads), offsets, sizes, moments_ns, ports))
        if read is not None:
            run = self._runs.get(read.key) or self._begin(read.key)
            if run.take_together(read, moments_ns):
                self._last = run
                return
        for head, size, port, moment_ns in zip(heads, sizes, ports, moments_ns, strict=True):
            self._count_one(head.ljust(size, b"\0"), port, moment_ns)

    def _count_one(self, payload: bytes, sender_port: int, arrived_ns: int) -> None:
        head = self._kind.read(payload)
        if head is None:
            return
        key = self._kind.key(head, sender_port)
        run = self._runs.get(key) or self._begin(key)
        if not run.take(head, payload, arrived_ns):
            self._end(key)
            run = self._begin(key)
            run.take(head, payload, arrived_ns)
        self._last = run

    def numbers(self) -> Numbers:
        """Return the sums over all senders, with the jitter of the latest one."""
        self._count()
        total = self._earlier
        for each in self._runs.values():
            total = add_numbers(total, each.sequence)
        jitter = None if self._last is None else self._last.jitter_ns
        return total._replace(jitter=None if jitter is None else jitter / _SECOND)

    def _begin(self, key: object) -> Run:
        if len(self._runs) >= _RUNS:
            self._end(next(iter(self._runs)))
        run = self._runs[key] = self._kind(blocks=_FEW_BLOCKS)
        return run

    def _end(self, key: object) -> None:
        self._earlier = add_numbers(self._earlier, self._runs.pop(key).sequence)


def add_numbers(total: Numbers, sequence: Sequence) -> Numbers:
    """Return the total with what a run adds to it."""
    return Numbers(
        total.expected + sequence.expected,
        total.lost + sequence.lost,
        total.duplicates + sequence.duplicates,
        total.reordered + sequence.reordered,
        None,
    )
