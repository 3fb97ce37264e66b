"""The stamp of `mcast send --stamp`, and the accounts of what came of a stream."""

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import chain
from random import Random
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import stamp as stamps
from multicast_expert.stamp import MAX_STREAMS, SIZE, Stamp, Stream, StreamKey, Streams, read_stamp, stamped

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


def naive(numbers: list[int]) -> tuple[int, int, int]:
    """Lost, duplicates and reordered, by a list of all that came."""
    late = [
        number
        for place, number in enumerate(numbers)
        if number < max(numbers[:place], default=0) and number not in numbers[:place]
    ]
    distinct = len(set(numbers))
    return max(numbers) - min(numbers) + 1 - distinct, len(numbers) - distinct, len(late)


@given(st.lists(st.integers(1, 40), min_size=1, max_size=80))
def test_loss_duplicates_and_order(numbers: list[int]) -> None:
    """Whatever comes in whatever order, the counters are those of a list of all that came."""
    stream = account(numbers)
    assert (stream.received, stream.expected) == (len(numbers), max(numbers) - min(numbers) + 1)
    assert (stream.lost, stream.duplicates, stream.reordered, stream.undecided) == (*naive(numbers), 0)


@contextmanager
def small_window() -> Iterator[int]:
    """A window of 8 numbers, in blocks of 4, so that short lists overflow it."""
    with patch.multiple(stamps, BLOCK=4, BLOCKS=3, WINDOW=8):
        yield stamps.WINDOW


@given(st.integers(1, 100), st.lists(st.integers(-8, 20), min_size=1, max_size=60))
def test_exact_within_the_window(first: int, steps: list[int]) -> None:
    """However a stream jumps ahead, what comes at most WINDOW numbers late is counted exactly."""
    numbers = [first]
    for step in steps:
        numbers.append(max(numbers) + step)
    with small_window():
        stream = account(numbers)
    assert (stream.lost, stream.duplicates, stream.reordered, stream.undecided) == (*naive(numbers), 0)


@given(st.lists(st.integers(0, 80), min_size=1, max_size=80))
def test_bounds_beyond_the_window(numbers: list[int]) -> None:
    """What comes later than that may stay undecided; the other counters are then off by at most that many."""
    with small_window():
        stream = account(numbers)
    lost, duplicates, reordered = naive(numbers)
    assert lost <= stream.lost <= lost + stream.undecided
    assert duplicates - stream.undecided <= stream.duplicates <= duplicates
    assert reordered - stream.undecided <= stream.reordered <= reordered
    assert stream.received == len(numbers)


def test_later_than_the_window() -> None:
    """What comes too late is undecided, except the lowest number, which surely came before."""
    with small_window():
        stream = account([1, 2, 13, 2, 3, 1])
    assert (stream.lost, stream.duplicates, stream.reordered, stream.undecided) == (10, 1, 0, 2)


def size_of(value: object) -> int:
    """The bytes that an object takes, with everything that it alone holds."""
    inside: Iterable[object] = ()
    if isinstance(value, dict):
        inside = chain(value, value.values())
    elif isinstance(value, list | tuple):
        inside = value
    elif hasattr(value, "__dict__"):
        inside = [vars(value)]
    return sys.getsizeof(value) + sum(map(size_of, inside))


@pytest.mark.slow
def test_a_million_hostile_stamps_take_little_memory() -> None:
    """Random streams and numbers far apart cost at most 32 MiB, and what is not followed is counted."""
    random = Random(1)
    streams = Streams()
    keys = [StreamKey(number, "239.1.2.3", 5000, "eth0") for number in range(MAX_STREAMS + 100)]
    for _ in range(1_000_000):
        streams.see(random.choice(keys), "10.9.0.1", random.getrandbits(64), random.getrandbits(64))
    assert size_of(streams) < 32 << 20
    assert streams.unfollowed + sum(stream.received for stream in streams.streams.values()) == 1_000_000
    assert 0 < streams.unfollowed < 200_000


def test_latency() -> None:
    """Least, mean and most, of clocks that may disagree; a stream that nothing came of has none."""
    stream = Stream()
    assert (stream.expected, stream.mean_latency_ns) == (0, 0)
    for number, latency in enumerate([30, -10, 70]):
        stream.see(number, latency)
    assert (stream.least_latency_ns, stream.mean_latency_ns, stream.most_latency_ns) == (-10, 30, 70)
