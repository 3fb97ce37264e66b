"""Counts loss, order and jitter of a numbered stream in constant memory. Pure: touches no OS."""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

from multicast_expert.stamp import read_stamp
from multicast_expert.wire.recognise.measuring import iperf_header
from multicast_expert.wire.recognise.media import DYNAMIC_TYPES, STATIC_TYPES

WINDOW = 1024
"""A datagram that comes at most so many numbers late is told from a duplicate."""
_MASK = (1 << WINDOW) - 1
_MOST_MISSING = 3000
"""A larger step of RTP's 16-bit numbers is a new beginning: RFC 3550, A.1."""
_RUNS = 4
"""Senders of one stream that are followed beside each other."""
_CLOCKS = (8000, 16000, 32000, 44100, 48000, 90000, 96000, 192000)
"""Clock rates in Hz that RTP payload formats have."""
_CLOCK_TOLERANCE, _CLOCK_SECONDS = 0.03, 2.0
_RTP = Struct("!BBHII")


class Numbers(NamedTuple):
    """What the numbers of a stream say since it was first heard."""

    expected: int
    lost: int
    duplicates: int
    reordered: int
    jitter: float | None
    """In seconds, by RFC 3550, 6.4.1; None while the sender's clock is not known."""


class Sequence:
    """The numbers of one run of one sender, from the first datagram that came on."""

    __slots__ = ("_lowest", "_sent", "_transit", "_window", "duplicates", "highest", "jitter", "lost", "reordered")

    def __init__(self, number: int) -> None:
        self.highest = self._lowest = number
        self.lost = self.duplicates = self.reordered = 0
        self.jitter: float | None = None
        self._transit: float | None = None
        self._window = 1

    @property
    def expected(self) -> int:
        """How many numbers there are from the lowest to the highest one that came."""
        return self.highest - self._lowest + 1

    def see(self, number: int) -> bool:
        """Count a datagram after the first; return whether it belongs to this run: else the sender began anew."""
        ahead = number - self.highest
        if ahead > 0:
            self.lost += ahead - 1
            self._window = (self._window << ahead | 1) & _MASK if ahead < WINDOW else 1
            self.highest = number
            return True
        if ahead <= -WINDOW:
            return False
        bit = 1 << -ahead
        if self._window & bit:
            self.duplicates += 1
            return True
        self._window |= bit
        self.reordered += 1
        if number < self._lowest:
            self.lost += self._lowest - number - 1
            self._lowest = number
        else:
            self.lost -= 1
        return True

    def time(self, sent: float, arrived: float) -> None:
        """Take note of both times of a datagram, in seconds of either clock."""
        transit = arrived - sent
        if self._transit is None:
            self.jitter = 0.0
        elif self.jitter is not None:
            self.jitter += (abs(transit - self._transit) - self.jitter) / 16
        self._transit = transit


class _RtpClock:
    """The clock of an RTP source, found out from its timestamps if its payload type does not say it."""

    __slots__ = ("_begin", "_last", "rate", "seconds")

    def __init__(self, rate: int | None, timestamp: int, arrived: float) -> None:
        self.rate = rate
        self.seconds = 0.0
        self._begin = arrived
        self._last = timestamp

    def advance(self, timestamp: int, arrived: float) -> float | None:
        """Return the sender's time in seconds since the first datagram; None while the rate is not known."""
        step = (timestamp - self._last + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        self._last = timestamp
        if self.rate is not None:
            self.seconds += step / self.rate
            return self.seconds
        self.seconds += step  # in ticks as long as their rate is not known
        elapsed = arrived - self._begin
        if elapsed >= _CLOCK_SECONDS:
            measured = self.seconds / elapsed
            nearest = min(_CLOCKS, key=lambda each: abs(each - measured))
            if abs(nearest - measured) <= _CLOCK_TOLERANCE * nearest:
                self.rate, self.seconds = nearest, self.seconds / nearest
                return self.seconds
        return None


class Numbering:
    """The numbers in the payloads of one stream, of several senders if there are several."""

    __slots__ = ("_clocks", "_earlier", "_read", "_runs", "last_jitter")

    def __init__(self, protocol: str) -> None:
        self._read = _READERS[protocol]
        self._runs: dict[tuple[int, int], Sequence] = {}
        self._clocks: dict[tuple[int, int], _RtpClock] = {}
        self._earlier = Numbers(0, 0, 0, 0, None)
        self.last_jitter: float | None = None

    def take(self, payload: bytes, sender_port: int, arrived: float) -> None:
        """Count a datagram; `arrived` in seconds."""
        self._read(self, payload, sender_port, arrived)

    def numbers(self) -> Numbers:
        """Return the sums over all senders, with the jitter of the latest one."""
        total = self._earlier
        for each in self._runs.values():
            total = _sum(total, each)
        return total._replace(jitter=self.last_jitter)

    def _see(self, key: tuple[int, int], number: int) -> Sequence:
        run = self._runs.get(key)
        if run is None:
            if len(self._runs) >= _RUNS:
                self._end(next(iter(self._runs)))
            run = self._runs[key] = Sequence(number)
        elif not run.see(number):
            self._end(key)
            run = self._runs[key] = Sequence(number)
        return run

    def _end(self, key: tuple[int, int]) -> None:
        self._earlier = _sum(self._earlier, self._runs.pop(key))
        self._clocks.pop(key, None)

    def _rtp(self, payload: bytes, sender_port: int, arrived: float) -> None:
        if len(payload) < _RTP.size:
            return
        first, kind, number, timestamp, source = _RTP.unpack_from(payload)
        kind &= 0x7F
        if first >> 6 != 2 or (kind not in STATIC_TYPES and kind not in DYNAMIC_TYPES):
            return
        key = sender_port, source
        run = self._runs.get(key)
        if run is not None:
            step = (number - run.highest + 0x8000 & 0xFFFF) - 0x8000
            number = run.highest + step
            if step > _MOST_MISSING:
                self._end(key)
        run = self._see(key, number)
        clock = self._clocks.get(key)
        if clock is None:
            clock = self._clocks[key] = _RtpClock(STATIC_TYPES.get(kind, ("", None))[1], timestamp, arrived)
        sent = clock.advance(timestamp, arrived)
        if sent is not None:
            run.time(sent, arrived)
            self.last_jitter = run.jitter

    def _stamp(self, payload: bytes, sender_port: int, arrived: float) -> None:
        found = read_stamp(payload)
        if found is not None:
            stamp = found[0]
            self._note((0, stamp.stream), stamp.number, stamp.sent_ns, arrived)

    def _iperf(self, payload: bytes, sender_port: int, arrived: float) -> None:
        header = iperf_header(payload)
        # The last datagram of a run repeats, with a negative number.
        if header is not None and header.number >= 0:
            self._note((sender_port, 0), header.number, header.sent_ns, arrived)

    def _note(self, key: tuple[int, int], number: int, sent_ns: int, arrived: float) -> None:
        run = self._see(key, number)
        run.time(sent_ns / 1e9, arrived)
        self.last_jitter = run.jitter


def _sum(total: Numbers, run: Sequence) -> Numbers:
    return Numbers(
        total.expected + run.expected,
        total.lost + run.lost,
        total.duplicates + run.duplicates,
        total.reordered + run.reordered,
        None,
    )


_READERS = {"RTP": Numbering._rtp, "mcast stamp": Numbering._stamp, "iperf": Numbering._iperf}
NUMBERED = frozenset(_READERS)
"""Protocols whose datagrams have numbers."""
