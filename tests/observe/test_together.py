"""Datagrams that are counted together come to the same as if each were counted alone."""

import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.datagram_buffer import DatagramBuffer
from multicast_expert.observe.measured_stream import Stream
from multicast_expert.observe.meter import Meter
from multicast_expert.observe.sequence import HEAD, NUMBERED, RUNS, Numbering, Run
from multicast_expert.stamp import Stamp, end_mark, stamped

NOON = 1_790_000_000_000_000_000
MS = 1_000_000
KINDS = ("stamp", "iperf", "rtp", "text")


def payload(kind: str, number: int, sent_ns: int, run: int) -> bytes:
    """A datagram as senders of this kind make it; run 9 says that it is at its end."""
    if kind == "stamp":
        return end_mark(Stamp(3, number, sent_ns), NOON) if run == 9 else stamped(Stamp(run, number, sent_ns), b"x")
    if kind == "iperf":
        its = -number if run == 9 else number
        return struct.pack("!iIIi", its, sent_ns // 10**9, sent_ns % 10**9 // 1000, -(its < 0)) + bytes(20)
    if kind == "rtp":
        return struct.pack("!BBHII", 0x80, 33, number & 0xFFFF, number * 3000 & 0xFFFFFFFF, run) + bytes(188)
    return f"{number} of {run}".encode()


@st.composite
def arrivals(draw: st.DrawFn) -> list[Datagram]:
    """What one or two hosts send: mostly in order, sometimes lost, doubled, late, from the beginning again, or odd."""
    found, number, now = [], draw(st.sampled_from([1, 2**16 - 20, 10**6])), NOON
    kind, run, port, host = draw(st.sampled_from(KINDS)), 3, 40000, "10.9.0.2"
    for _ in range(draw(st.integers(1, 40))):
        turn = draw(st.integers(0, 24))
        now += draw(st.integers(-MS, 20 * MS))
        number = max(1, number + {0: 3, 1: 0, 2: -2, 3: -5000, 4: 4000, 5: -1100}.get(turn, 1))
        run = {6: 4, 7: 9, 8: 3}.get(turn, run)
        port, host = {9: (40001, host), 10: (40000, "10.9.0.3"), 11: (40000, "10.9.0.2")}.get(turn, (port, host))
        odd = draw(st.sampled_from(KINDS)) if turn == 12 else kind
        data = payload(odd, number, now - draw(st.integers(0, MS)), run)
        for each in range(0 if turn == 13 else draw(st.integers(1, 12))):
            more = payload(kind, number + each, now + each * MS, run) if each and run != 9 else data
            more = more[:9] if turn == 14 else more
            found.append(Datagram(more, (host, port), "239.1.2.3", 2, "eth0", 1 + turn % 2, now + each * MS))
            number += bool(each)
    return found


def told(meter: Meter) -> list[object]:
    """All that a meter says."""
    streams = sorted(meter.streams, key=lambda each: repr((each.place, each.first_ns, each.protocol, each.bytes)))
    return [meter.datagrams, meter.bytes, meter.last_ns, meter.unfollowed, *(told_of(each) for each in streams)]


def told_of(stream: Stream) -> list[object]:
    """All that a stream says."""
    latencies, run = stream.latencies, stream.run
    return [
        stream.place, stream.protocol, stream.datagrams, stream.bytes, stream.first_ns, stream.last_ns,
        stream.longest_gap_ns, stream.has_ended, stream.stamp_stream, stream.numbers, stream.jitter_ns, stream.total,
        stream.lost_before, stream.lost_after, stream.undecided, stream.expected, latencies.count, latencies.mean,
        latencies.least, latencies.most, *(latencies.percentile(each) for each in (1, 50, 99)),
        None if run is None else (run.sequence.lowest, run.sequence.highest, run.beginning_ns),
    ]  # fmt: skip


@pytest.mark.slow
@given(arrivals(), st.lists(st.integers(1, 30), max_size=20))
def test_together_or_alone(datagrams: list[Datagram], sizes: list[int]) -> None:
    """One by one, in batches of any size, and in a buffer."""
    alone, together, buffered = Meter(NOON), Meter(NOON), Meter(NOON)
    for each in datagrams:
        alone.take([each], 5004, 0)
    rest, buffer = datagrams, DatagramBuffer(64, 1 << 16)
    for size in [*sizes, *[50] * len(datagrams)]:
        taken, rest = rest[:size], rest[size:]
        together.take(taken, 5004, 0)
        buffer._rows.take(taken[::-1])
        buffered.take_buffer(buffer, 5004, 0)
        buffer.clear()
    assert told(together) == told(alone)
    assert told(buffered) == told(alone)


@pytest.mark.parametrize("kind", KINDS[:3])
def test_most_are_counted_together(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stream in order costs a look at each datagram only until it is known; also where some are lost."""
    looked = []
    for name, run in RUNS.items():
        take: Any = run.take

        def count(self: Run, head: Any, data: bytes, at: int, take: Any = take, name: str = name) -> bool:
            looked.append(name)
            return bool(take(self, head, data, at))

        monkeypatch.setattr(run, "take", count)
    meter = Meter(NOON)
    for start in range(1, 1000, 50):
        sent = [(each, NOON + each * MS) for each in range(start, start + 50)]
        batch = [payload(kind, each, at, 3) for each, at in sent if kind == "rtp" or each % 40]
        meter.take([Datagram(each, ("10.9.0.2", 40000), "239.1.2.3", 2, "eth0", 1, NOON) for each in batch], 5004, 0)
    (stream,) = meter.streams
    assert (stream.datagrams, len(looked)) == (1000 if kind == "rtp" else 975, 2 if kind == "iperf" else 1)
    assert stream.lost == (0 if kind == "rtp" else 24)


@given(arrivals(), st.sampled_from(sorted(NUMBERED)))
def test_one_of_many_streams(datagrams: list[Datagram], kind: str) -> None:
    """Counted some datagrams at a time, by their heads, it says the same as when it is asked each time."""
    some, each_time = Numbering(kind), Numbering(kind)
    for each in datagrams:
        arrived = (each.timestamp_ns or 0) / 1e9
        for numbering in (some, each_time):
            numbering.take(each.data[:HEAD], len(each.data), each.sender[1], arrived)
        each_time.numbers()
    assert some.numbers() == each_time.numbers()


def test_the_head_of_a_long_datagram_is_enough() -> None:
    """What is read of it stands at its beginning; a stamp says how long the whole is."""
    numbering = Numbering("mcast stamp")
    for number in (1, 2, 4):
        datagram = stamped(Stamp(3, number, NOON), b"", 9000)
        numbering.take(datagram[:HEAD], len(datagram), 40000, NOON / 1e9)
        numbering.take(datagram[:HEAD], len(datagram) - 1, 40000, NOON / 1e9)
    assert numbering.numbers()[:2] == (4, 1)
