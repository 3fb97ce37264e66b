"""The stamp of `mcast send --stamp`, and the accounts of what came of a stream."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import stamp as stamps
from multicast_expert.stamp import SIZE, Stamp, Stream, read_stamp, stamped

NUMBER = st.integers(0, 2**64 - 1)
STAMP = st.builds(Stamp, NUMBER, NUMBER, NUMBER)
NOON = Stamp(0x0102030405060708, 0x1112131415161718, 0x2122232425262728)


def test_the_documented_bytes() -> None:
    """Every field stands where the module's docstring says."""
    assert stamped(NOON, b"hello", 50).hex(" ", 2) == (
        "8b6d 6361 7374 0d0a 0100 0032 0005 0000 0102 0304 0506 0708 1112 1314 1516 1718 2122 2324 2526 2728 "
        "6865 6c6c 6f00 0000 0000"
    )
    assert SIZE == 40


@given(STAMP, st.binary(max_size=200), st.integers(0, 300))
def test_round_trip(stamp: Stamp, payload: bytes, size: int) -> None:
    """What is stamped can be read, whatever the payload ends with; padding makes up the size and is not payload."""
    datagram = stamped(stamp, payload, size)
    assert read_stamp(datagram) == (stamp, payload)
    assert len(datagram) == max(size, SIZE + len(payload))


@given(STAMP, st.binary(max_size=50), st.integers(0, 80), st.integers(0, 100))
def test_a_cut_or_lengthened_datagram_is_not_taken_for_a_stamped_one(
    stamp: Stamp, payload: bytes, size: int, length: int
) -> None:
    """The length has to be the one that the sender wrote."""
    datagram = stamped(stamp, payload, size)
    cut = datagram.ljust(length, b"\0")[:length]
    assert (read_stamp(cut) is None) == (length != len(datagram))


@given(st.binary(max_size=100) | st.binary(max_size=100).map(lambda tail: stamped(NOON, b"")[:16] + tail))
def test_hostile_bytes(datagram: bytes) -> None:
    """Anything may arrive: what is read as a stamp is one, byte for byte, and its payload lies inside the datagram."""
    read = read_stamp(datagram)
    if read is not None:
        stamp, payload = read
        assert datagram[:8] == stamps.MAGIC
        assert stamped(stamp, payload, len(datagram))[:14] == datagram[:14]
        assert datagram[SIZE:].startswith(payload)


@pytest.mark.parametrize(("offset", "value"), [(0, 0x8C), (8, 2), (10, 1), (12, 1)])
def test_what_is_no_stamp(offset: int, value: int) -> None:
    """Another magic, version or length, or a payload longer than the datagram, and it is an ordinary datagram."""
    datagram = bytearray(stamped(NOON, b"hello"))
    datagram[offset] = value
    assert read_stamp(bytes(datagram)) is None


def account(numbers: list[int]) -> Stream:
    """The accounts of a stream after these numbers."""
    stream = Stream()
    for number in numbers:
        stream.see(number, 0)
    return stream


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80))
def test_loss_duplicates_and_order(numbers: list[int]) -> None:
    """Whatever comes in whatever order, the accounts are those of a list of all that came."""
    stream = account(numbers)
    times = Counter(numbers)
    late = [
        number
        for place, number in enumerate(numbers)
        if number < max(numbers[:place], default=0) and number not in numbers[:place]
    ]
    assert stream.received == len(numbers)
    assert stream.expected == max(numbers) - min(numbers) + 1
    assert stream.lost == stream.expected - len(times)
    assert stream.duplicates == sum(times.values()) - len(times)
    assert stream.reordered == len(late)


@pytest.mark.parametrize(
    ("numbers", "lost", "duplicates", "reordered"),
    [
        ([1, 2, 3], 0, 0, 0),
        ([1, 2, 5, 6], 2, 0, 0),
        ([1, 3, 2, 4], 0, 0, 1),
        ([1, 1, 2, 2, 2], 0, 3, 0),
        ([5, 1, 9], 6, 0, 1),
        ([2**64 - 1, 0], 2**64 - 2, 0, 1),
    ],
)
def test_accounts(numbers: list[int], lost: int, duplicates: int, reordered: int) -> None:
    """What a person would count."""
    stream = account(numbers)
    assert (stream.lost, stream.duplicates, stream.reordered) == (lost, duplicates, reordered)


def test_a_flood_of_gaps_takes_little_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the newest gaps are remembered: what fills a forgotten one is late, and what was lost there stays lost."""
    monkeypatch.setattr(stamps, "MAX_GAPS", 3)
    stream = account([1, 3, 5, 7, 9, 11])
    assert stream.lost == 5
    stream.see(10, 0)
    assert (stream.lost, stream.reordered, stream.duplicates) == (4, 1, 0)
    stream.see(2, 0)
    assert (stream.lost, stream.reordered, stream.duplicates) == (4, 2, 0)
    stream.see(9, 0)
    assert (stream.lost, stream.reordered, stream.duplicates) == (4, 2, 1)


def test_latency() -> None:
    """Least, mean and most, of clocks that may disagree; a stream that nothing came of has none."""
    stream = Stream()
    assert (stream.expected, stream.mean_latency_ns) == (0, 0)
    for number, latency in enumerate([30, -10, 70]):
        stream.see(number, latency)
    assert (stream.least_latency_ns, stream.mean_latency_ns, stream.most_latency_ns) == (-10, 30, 70)
