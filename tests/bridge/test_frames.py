"""Frames to and from bytes."""

from struct import pack_into

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bridge import mutations
from bridge.forms import FORMS, ID, OTHER, data, frame, frames
from multicast_expert.bridge import frames as codec
from multicast_expert.bridge.frames import Frame, MalformedFrameError, Origin, build_frame, parse_frame


@given(frames())
def test_a_frame_comes_out_as_it_went_in(made: Frame) -> None:
    """Every part of it, and its payloads."""
    read = parse_frame(build_frame(made))
    assert read == made
    assert read.size == made.size
    assert read.payloads() == made.payloads()


@given(st.lists(st.binary(max_size=30), min_size=1, max_size=20))
def test_payloads_are_cut_by_their_lengths(payloads: list[bytes]) -> None:
    """Equal lengths, different ones, and empty payloads."""
    assert parse_frame(data(*payloads)).payloads() == payloads


def test_the_bytes_of_a_frame_are_those_of_its_document() -> None:
    """Golden bytes: they must not change without the version."""
    made = frame([b"hi", b"you"], first=5, hops=[ID, OTHER])
    assert build_frame(made).hex() == (
        "6d63420102000100020000000001020304050607050000000000000088130000"
        "ef010203000000000000000000000000"
        "000102030405060708090a0b0c0d0e0f"
        "0407ff00a00f00000a000007000000000000000000000000"
        "02000000030000000000000000000000"
        "000064a7b3b6e00d010064a7b3b6e00d"
        "6869796f75"
    )  # fmt: skip


def changed(offset: int, form: str, *values: int | bytes) -> bytes:
    """A good frame with another value somewhere."""
    made = bytearray(data(b"hello", b"you", hops=[ID]))
    pack_into(form, made, offset, *values)
    return bytes(made)


LENGTHS = 48 + 8 + 24
BAD = {
    "nothing": b"",
    "another version": changed(3, "<B", 2),
    "no datagram": changed(8, "<I", 0),
    "too many datagrams": changed(8, "<I", codec.MOST_DATAGRAMS + 1),
    "more datagrams than there are": changed(8, "<I", 3),
    "too many origins": changed(6, "<H", codec.MOST_ORIGINS + 1),
    "too many hops": changed(4, "<B", codec.MOST_HOPS + 1),
    "no port": changed(28, "<H", 0),
    "no group": changed(32, "<4s", bytes([10, 0, 0, 1])),
    "a group with something behind it": changed(40, "<B", 1),
    "an origin that is a group": changed(48 + 8 + 8, "<4s", bytes([239, 1, 2, 3])),
    "an origin of another version": changed(48 + 8, "<B", 6),
    "a negative length": changed(LENGTHS, "<i", -1),
    "lengths that are too long": changed(LENGTHS, "<i", 6),
    "a negative place": changed(LENGTHS + 8, "<i", -1),
    "a place without origin": changed(LENGTHS + 8, "<i", 1),
    "cut": data(b"hello")[:-1],
    "too large": bytes(codec.LARGEST_FRAME + 1),
}


@pytest.mark.parametrize("what", BAD)
def test_what_is_no_frame_is_refused(what: str) -> None:
    """Wrong counts, lengths and addresses."""
    with pytest.raises(MalformedFrameError):
        parse_frame(BAD[what])


def test_a_payload_that_no_datagram_can_have_is_refused() -> None:
    """Longer than UDP allows."""
    with pytest.raises(MalformedFrameError):
        parse_frame(data(bytes(codec.LONGEST_PAYLOAD + 1)))


def test_mutated_frames_are_frames_or_refused() -> None:
    """`python -m bridge.mutations` runs more of them."""
    done = mutations.run(20_000, seed=1)
    assert done.parsed > 500
    assert done.refused > 5000


def test_a_machine_of_the_other_byte_order_writes_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrays of the machine are swapped where it is big-endian."""
    from array import array

    numbers = array("i", [1, 2])
    assert codec.packed(memoryview(numbers), "i") == numbers.tobytes()
    monkeypatch.setattr(codec, "_IS_LITTLE", False)
    numbers.byteswap()
    assert codec.packed(memoryview(numbers), "i") == b"\1\0\0\0\2\0\0\0"
    assert codec.integers(b"\1\0\0\0", "i").tolist() == [1 << 24]


def test_origins_that_are_unspecified_are_programs() -> None:
    """A program without a socket has no address."""
    made = data(b"x", origins=[Origin("0.0.0.0", 0, 3)])
    assert parse_frame(made).origins == [Origin("0.0.0.0", 0, 3)]
    assert len(FORMS) == 4
