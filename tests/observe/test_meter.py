"""What the meter says of stamped, RTP, iperf and other streams, from datagrams and times that the test makes."""

import struct
import tracemalloc
from math import ceil
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.core.datagram import Datagram
from multicast_expert.observe.latency import Latencies
from multicast_expert.observe.measured_stream import Place, Stream
from multicast_expert.observe.meter import MAX_STREAMS, Meter
from multicast_expert.stamp import Stamp, end_mark, stamped

NOON = 1_790_000_000_000_000_000
MS = 1_000_000


def datagram(payload: bytes, arrived_ns: int, source: str = "10.9.0.2", port: int = 40000) -> Datagram:
    """One that came in on eth0."""
    return Datagram(payload, (source, port), "239.1.2.3", 2, "eth0", 1, arrived_ns)


def iperf(number: int, sent_ns: int) -> bytes:
    """The head of iperf 2: struct UDP_datagram."""
    return struct.pack("!iIIi", number, sent_ns // 10**9, sent_ns % 10**9 // 1000, -(number < 0)) + bytes(84)


def rtp(number: int, timestamp: int, source: int = 7) -> bytes:
    """A packet of PCMU, RFC 3551."""
    return struct.pack("!BBHII", 0x80, 0, number & 0xFFFF, timestamp & 0xFFFFFFFF, source) + bytes(160)


def measured(datagrams: list[Datagram], since_ns: int = NOON) -> list[Stream]:
    """The streams of a meter that got the datagrams at port 5004."""
    meter = Meter(since_ns)
    meter.take(datagrams, 5004, 0)
    return meter.streams


def stamps(numbers: list[int], latency_ns: int = 5 * MS) -> list[Datagram]:
    """Stamped datagrams, one each 10 ms."""
    sent = {number: NOON + number * 10 * MS for number in numbers}
    return [datagram(stamped(Stamp(9, each, sent[each]), b""), sent[each] + latency_ns) for each in numbers]


def mark(total: int, began_ns: int = NOON + 10 * MS) -> Datagram:
    """The end mark of such a stream, which arrives after 5 ms."""
    now_ns = NOON + total * 10 * MS + 50 * MS
    return datagram(end_mark(Stamp(9, total, now_ns), began_ns), now_ns + 5 * MS)


def test_a_stamped_stream() -> None:
    """Loss, duplicates, order, gap, latency and jitter, as a person would count them."""
    (stream,) = measured(stamps([1, 2, 5, 4, 4, 10]))
    assert stream.place == Place("239.1.2.3", 5004, "eth0", "10.9.0.2")
    assert (stream.datagrams, stream.expected, stream.lost) == (6, 10, 5)
    assert stream.numbers[:4] == (10, 5, 1, 1)
    assert (stream.longest_gap_ns, stream.jitter_ns) == (60 * MS, 0)
    assert (stream.latencies.least, stream.latencies.percentile(99), stream.latencies.most) == (5 * MS,) * 3
    assert (stream.loss_percent, stream.total) == (50, None)


def test_jitter_of_late_datagrams() -> None:
    """Datagrams that come 0 and 4 ms late by turns have a jitter that approaches 4 ms: RFC 3550, 6.4.1."""
    datagrams = [each for number in range(1, 300) for each in stamps([number], 5 * MS + number % 2 * 4 * MS)]
    (stream,) = measured(datagrams)
    assert stream.jitter_ns == pytest.approx(4 * MS, rel=0.001)


def test_loss_at_both_ends() -> None:
    """The end mark says how many there were; it counts as no datagram, however often it comes."""
    meter = Meter(NOON)
    meter.take([*stamps([3, 4, 6]), mark(8), mark(8)], 5004, 0)
    (stream,) = meter.streams
    assert (stream.lost_before, stream.lost_after, stream.lost, stream.expected) == (2, 2, 5, 8)
    assert meter.datagrams == stream.datagrams == 3


@pytest.mark.parametrize("offset", [0, -3600 * 10**9, 3600 * 10**9], ids=["one clock", "late clock", "early clock"])
def test_what_was_sent_before_the_measurement_is_not_lost(offset: int) -> None:
    """A meter that comes late counts from its first datagram on, however wrong the sender's clock is."""
    sent = [(number, NOON + number * 10 * MS) for number in (50, 51, 53)]
    datagrams = [datagram(stamped(Stamp(9, number, at + offset), b""), at + MS) for number, at in sent]
    datagrams.append(
        datagram(end_mark(Stamp(9, 54, NOON + 600 * MS + offset), NOON + 10 * MS + offset), NOON + 601 * MS)
    )
    late, early = (measured(datagrams, NOON + since)[0] for since in (400 * MS, 0))
    assert (late.lost_before, late.lost_after, late.lost) == (0, 1, 2)
    assert (early.lost_before, early.lost_after, early.lost) == (49, 1, 51)


def test_a_stream_of_which_nothing_came_but_the_end() -> None:
    """All of it is lost."""
    (stream,) = measured([mark(8)])
    assert (stream.datagrams, stream.lost, stream.expected, stream.loss_percent) == (0, 8, 8, 100)


@pytest.mark.parametrize("first", [0, 1])
def test_iperf_2(first: int) -> None:
    """Numbers and times of iperf 2, whose last number is negative: the loss before it shows."""
    numbers = [each for each in range(first, 100) if each not in (10, 11, 50, 98, 99)]
    datagrams = [datagram(iperf(each, NOON + each * MS), NOON + each * MS + 300_000) for each in numbers]
    datagrams += [datagram(iperf(-100, NOON + 100 * MS), NOON + 100 * MS + 300_000)] * 3
    (stream,) = measured(datagrams)
    assert stream.protocol is not None
    assert stream.protocol.name == "iperf"
    assert (stream.lost, stream.expected, stream.numbers.duplicates) == (5, 101 - first, 0)
    assert stream.total == 100
    assert stream.latencies.percentile(50) == pytest.approx(300_000, rel=1 / 64)


def test_iperf_2_begins_anew() -> None:
    """A second run from the same port adds to the first one, and the numbers between them are not lost."""
    runs = [
        datagram(iperf(each if each < 99 else -99, at), at) for run in range(2) for each in range(100)
        for at in [NOON + run * 10**9 + each * MS]
    ]  # fmt: skip
    (stream,) = measured(runs)
    assert (stream.lost, stream.expected, stream.datagrams) == (0, 200, 200)


def test_rtp() -> None:
    """16-bit numbers that overflow; two SSRCs are two streams; RTCP between them is counted apart."""
    numbers = [each for each in range(65000, 66000) if each % 100]
    datagrams = [datagram(rtp(each, each * 160), NOON + each * 20 * MS) for each in numbers]
    datagrams += [datagram(rtp(each, each * 160, 8), NOON + each * 20 * MS) for each in range(10)]
    one, other = measured(datagrams)
    assert (one.datagrams, one.lost, one.expected) == (990, 9, 999)
    assert one.jitter_ns == pytest.approx(0, abs=1)
    assert (other.datagrams, other.lost, other.loss_percent) == (10, 0, 0)
    assert not one.latencies.count


def test_rtp_on_any_port_is_recognised_from_its_second_packet_on() -> None:
    """What came before it was recognised belongs to it."""
    meter = Meter(NOON)
    meter.take([datagram(rtp(each, each * 160), NOON + each * 20 * MS) for each in (1, 2, 5)], 6000, 0)
    (stream,) = meter.streams
    assert (stream.datagrams, stream.lost) == (3, 2)


def test_datagrams_without_numbers() -> None:
    """Rate and gap are known, loss and latency are not."""
    (stream,) = measured([datagram(b"hello", NOON + each * MS) for each in (1, 2, 9)])
    assert (stream.datagrams, stream.bytes, stream.longest_gap_ns) == (3, 15, 7 * MS)
    assert (stream.loss_percent, stream.jitter_ns, stream.protocol) == (None, None, None)


def test_intervals_add_up() -> None:
    """Each interval has what is new; a stream that is silent has 0, and one that has ended no more lines."""
    meter = Meter(NOON)
    sums = [0, 0, 0]
    lines = []
    for batch in (stamps([1, 2, 5]), stamps([4, 9]), [], [mark(10)], []):
        meter.take(batch, 5004, 0)
        intervals = list(meter.end_interval())
        lines.append([(each.datagrams, each.expected, each.lost) for each in intervals])
        for each in intervals:
            sums = [old + new for old, new in zip(sums, each[1:2] + each[3:], strict=True)]
    assert lines == [[(3, 5, 2)], [(2, 4, 2)], [(0, 0, 0)], [(0, 1, 1)], []]
    (stream,) = meter.streams
    assert sums == [stream.datagrams, stream.expected, stream.lost]


def test_two_receivers_at_one_port() -> None:
    """Group, source, port and interface tell streams apart; a sender's own port does not, for a stamped stream."""
    meter = Meter(NOON)
    first, second, third = stamps([1, 2, 3])
    meter.take([first, datagram(second.data, NOON, port=40001)], 5004, 0)
    meter.take([third], 5005, 0)
    meter.take([datagram(third.data, NOON, source="10.9.0.3")], 5004, 0)
    assert [(each.place.port, each.place.source, each.datagrams) for each in meter.streams] == [
        (5004, "10.9.0.2", 2),
        (5005, "10.9.0.2", 1),
        (5004, "10.9.0.3", 1),
    ]


@given(st.lists(st.integers(-(2**40), 2**40), min_size=1, max_size=200), st.sampled_from([1, 50, 90, 99, 100]))
def test_percentiles(values: list[int], percent: int) -> None:
    """They are those of the sorted list, within 1 in 64."""
    latencies = Latencies()
    for each in values:
        latencies.add(each)
    exact = sorted(values)[ceil(len(values) * percent / 100) - 1]
    assert latencies.percentile(percent) == pytest.approx(exact, rel=1 / 64, abs=1)
    assert (latencies.least, latencies.most) == (min(values), max(values))


def test_a_stream_that_stops_without_a_word_is_silent() -> None:
    """Its silence counts from the latest datagram, and tells if it is long for this stream; an end mark ends it."""
    (lively,) = measured(stamps([1, 2, 3]))
    last = lively.last_ns
    assert [lively.is_silent(last + ms * MS) for ms in (0, 999, 1001)] == [False, False, True]
    assert (lively.silence_ns(last + 1001 * MS), lively.is_judged(last), lively.is_judged(last + 1001 * MS)) == (
        1001 * MS,
        True,
        False,
    )
    (slow,) = measured(stamps([1, 501]))
    assert [slow.is_silent(slow.last_ns + seconds * 10**9) for seconds in (14, 16)] == [False, True]
    (ended,) = measured([*stamps([1, 2, 3]), mark(3)])
    assert (ended.silence_ns(last + 10**12), ended.is_judged(last + 10**12)) == (0, True)


def runs(number: int, apart_ns: int, source: str | None = None) -> list[Datagram]:
    """Runs of a sender, or of as many senders: two of three datagrams each, and the end mark of the even ones."""
    found = []
    for run in range(number):
        began = NOON + run * apart_ns
        host = source or f"10.{run >> 16}.{run >> 8 & 255}.{run & 255}"
        found += [datagram(stamped(Stamp(run, each, began), b"x"), began + each * MS, host) for each in (1, 3)]
        if run % 2 == 0:
            found.append(datagram(end_mark(Stamp(run, 3, began), began), began + 4 * MS, host))
    return found


@pytest.mark.parametrize("source", ["10.9.0.2", None], ids=["one sender", "a sender each"])
def test_streams_that_stopped_give_room(source: str | None) -> None:
    """However many runs there are, one each second, all are counted, and the latest by itself."""
    meter = Meter(NOON)
    for each in runs(3 * MAX_STREAMS, 10**9, source):
        meter.take([each], 5004, 0)
        assert len(meter.streams) <= MAX_STREAMS
    kept = [*meter.streams, *([] if meter.forgotten is None else [meter.forgotten])]
    assert (meter.unfollowed, (meter.forgotten is None) == (source is not None)) == (0, True)
    assert sum(each.runs for each in kept) == 3 * MAX_STREAMS
    assert sum(each.datagrams for each in kept) == meter.datagrams == 6 * MAX_STREAMS
    assert sum(each.numbers.lost for each in kept) == 3 * MAX_STREAMS
    assert any(each.stamp_stream == 3 * MAX_STREAMS - 1 and each.runs == 1 for each in meter.streams)
    (total, *_) = [each for each in kept if each.is_sum]
    assert (total.untold, total.worst_percent) == (total.runs // 2, pytest.approx(100 / 3))


@pytest.mark.slow
def test_a_sum_adds_nothing_to_an_interval() -> None:
    """What was in the intervals of a stream is not in those of the sum that it becomes a part of."""
    meter = Meter(NOON)
    counted = [0, 0]
    for each in runs(MAX_STREAMS + 50, 10**9, "10.9.0.2"):
        meter.take([each], 5004, 0)
        for interval in meter.end_interval():
            counted = [counted[0] + interval.datagrams, counted[1] + interval.lost]
    assert counted == [2 * (MAX_STREAMS + 50), MAX_STREAMS + 50]


def test_what_came_last_is_in_an_interval_of_the_sum() -> None:
    """What came of a stream since its last interval, before it was added up, is not left out."""
    stream = Stream(Place("239.1.2.3", 5004, "eth0", "10.9.0.2"), NOON)
    for moment in (NOON, NOON + MS):
        stream.count(100, moment)
    assert stream.end_interval().datagrams == 2
    stream.count(50, NOON + 2 * MS)
    total = Stream.sum_of(stream)
    total.add(stream)
    for expected in ((1, 50), (0, 0)):
        interval = total.end_interval()
        assert (interval.datagrams, interval.bytes) == expected


def test_live_streams_keep_their_room() -> None:
    """A stream that comes while 1,000 others are alive is not followed, and its datagrams are counted."""
    meter = Meter(NOON)
    meter.take(runs(MAX_STREAMS + 5, 10 * MS), 5004, 0)
    assert (len(meter.streams), meter.forgotten, meter.unfollowed) == (MAX_STREAMS, None, 13)


@pytest.mark.slow
def test_hostile_stamps_take_little_memory() -> None:
    """Random streams, numbers and times cost at most 32 MiB, and what is not followed is counted."""
    random = Random(1)
    meter = Meter(NOON)
    tracemalloc.start()
    try:
        for _ in range(1000):
            heads = [(random.randrange(MAX_STREAMS + 100), *map(random.getrandbits, (64, 64))) for _ in range(100)]
            payloads = [stamped(Stamp(*each), b"") for each in heads]
            meter.take([datagram(each, random.getrandbits(63)) for each in payloads], 5004, 0)
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 32 << 20
    assert meter.datagrams == 100_000
    kept = [*meter.streams, *([] if meter.forgotten is None else [meter.forgotten])]
    assert meter.unfollowed + sum(each.datagrams for each in kept) == 100_000
    assert meter.unfollowed < 20_000


@given(st.lists(st.tuples(st.binary(max_size=80), st.integers(0, 2**63 - 1)), max_size=20))
def test_hostile_bytes(arrivals: list[tuple[bytes, int]]) -> None:
    """Anything may arrive, at any time: it is counted."""
    heads = [b"", stamped(Stamp(1, 2, 3), b"")[:10], iperf(1, NOON)[:12], rtp(1, 1)[:6]]
    meter = Meter(NOON)
    datagrams = [datagram(heads[turn % 4] + tail, at) for turn, (tail, at) in enumerate(arrivals)]
    meter.take(datagrams, 5004, 0)
    assert sum(each.datagrams for each in meter.streams) == meter.datagrams == len(datagrams)
    assert all(each.datagrams >= 0 for each in meter.end_interval())
