"""The stamp of `mcast send --stamp`."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import stamp as stamps
from multicast_expert.stamp import SIZE, Stamp, end_mark, read_beginning, read_stamp, stamped

NUMBER = st.integers(0, 2**64 - 1)
STAMP = st.builds(Stamp, NUMBER, NUMBER, NUMBER, st.booleans())
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


def test_an_end_mark() -> None:
    """It has the stream and the number of the last datagram, and the time of the first one as its payload."""
    mark = end_mark(NOON, 0x3132333435363738)
    assert mark.hex(" ", 2) == (
        "8b6d 6361 7374 0d0a 0101 0030 0008 0000 0102 0304 0506 0708 1112 1314 1516 1718 2122 2324 2526 2728 "
        "3132 3334 3536 3738"
    )
    assert read_stamp(mark) == (NOON._replace(is_end=True), mark[SIZE:])
    assert read_beginning(mark) == 0x3132333435363738
    assert read_beginning(stamped(NOON._replace(is_end=True), b"short")) is None
