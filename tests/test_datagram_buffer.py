"""DatagramBuffer as an object: its views, its rows, and the two forms that keep them."""

import gc
import struct
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import Datagram, DatagramBuffer, MulticastExpertError, extension
from multicast_expert.core import datagram_buffer
from multicast_expert.core.datagram_buffer import DatagramOrigin, PythonRows

forms = [PythonRows] if extension.Rows is None else [PythonRows, extension.Rows]
each_form = pytest.mark.parametrize("form", forms, ids=lambda form: form.__name__)


@pytest.fixture
def made(form: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> Callable[[int, int], DatagramBuffer]:
    """What makes a buffer on rows of this form."""
    monkeypatch.setattr(datagram_buffer.extension, "Rows", form)
    return DatagramBuffer


def datagram(data: bytes, port: int = 5000, timestamp_ns: int | None = None) -> Datagram:
    """A datagram of a sender with this port."""
    return Datagram(data, ("10.0.0.7", port), "239.1.2.3", 2, "eth0", 9, timestamp_ns)


def put(buffer: DatagramBuffer, *datagrams: Datagram) -> list[Datagram]:
    """Move datagrams into the buffer; return those that found no room, newest first."""
    backlog = [*datagrams][::-1]
    buffer._rows.take(backlog)
    return backlog


@each_form
def test_views(made: Callable[[int, int], DatagramBuffer]) -> None:
    """Payloads stand one after the other; facts are arrays, in the formats of the buffer protocol."""
    buffer = made(4, 70000)
    assert (len(buffer), bytes(buffer.data), list(buffer.offsets), buffer.origins) == (0, b"", [], [])
    put(buffer, datagram(b"one", 1, 17), datagram(b"", 2), datagram(b"three", 1, 19))
    assert bytes(buffer.data) == b"onethree"
    assert (list(buffer.offsets), buffer.offsets.format) == ([0, 3, 3], "q")
    assert (list(buffer.lengths), buffer.lengths.format) == ([3, 0, 5], "i")
    assert (list(buffer.timestamps_ns), buffer.timestamps_ns.format) == ([17, 0, 19], "q")
    assert (list(buffer.sources), buffer.sources.format) == ([0, 1, 0], "i")
    assert buffer.origins == [
        DatagramOrigin(("10.0.0.7", port), "239.1.2.3", 2, "eth0", 9, "239.1.2.3") for port in (1, 2)
    ]
    assert [*buffer] == [datagram(b"one", 1, 17), datagram(b"", 2), datagram(b"three", 1, 19)]
    assert buffer[-1] == buffer[2]
    for wrong in (3, -4):
        with pytest.raises(IndexError, match=f"no datagram {wrong} among 3"):
            buffer[wrong]
    assert repr(buffer) == "<DatagramBuffer 3 of 4 datagrams, 8 of 70000 bytes>"


@each_form
def test_a_table_of_equal_payloads(made: Callable[[int, int], DatagramBuffer]) -> None:
    """`rows` is a view in two dimensions if all payloads have the size, and an error otherwise."""
    buffer = made(4, 70000)
    with pytest.raises(MulticastExpertError):
        buffer.rows(4)
    put(buffer, datagram(b"abcd"), datagram(b"efgh"))
    assert buffer.rows(4).tolist() == [[*b"abcd"], [*b"efgh"]]
    for size in (0, 2, 8, -1, 1 << 40):
        with pytest.raises(MulticastExpertError):
            buffer.rows(size)
    put(buffer, datagram(b"abc"), datagram(b"defgh"))
    with pytest.raises(MulticastExpertError, match="Payload 2 has 3 bytes, not 4"):
        buffer.rows(4)


@each_form
def test_views_are_safe(made: Callable[[int, int], DatagramBuffer]) -> None:
    """A view is read-only and outlives its buffer; after `clear` it shows what came next."""
    buffer = made(4, 70000)
    put(buffer, datagram(b"abcd"))
    data, lengths = buffer.data, buffer.lengths
    for view in (data, lengths, buffer.offsets, buffer.sources, buffer.timestamps_ns, buffer.rows(4)):
        assert view.readonly
    buffer.clear()
    assert (len(buffer), buffer.origins, bytes(data)) == (0, [], b"abcd")
    put(buffer, datagram(b"xyz", 7))
    assert bytes(data) == b"xyzd"
    assert [origin.sender[1] for origin in buffer.origins] == [7]
    del buffer
    gc.collect()
    assert (bytes(data), list(lengths)) == (b"xyzd", [3])


@each_form
def test_no_room(made: Callable[[int, int], DatagramBuffer]) -> None:
    """What finds no room, for lack of rows or of memory, stays where it was; a shorter one does not overtake it."""
    few = made(2, 70000)
    assert put(few, *map(datagram, (b"a", b"b", b"c"))) == [datagram(b"c")]
    assert few.is_full
    small = made(9, 65535)
    left = put(small, datagram(bytes(60000)), datagram(bytes(6000), 7), datagram(b"short"))
    assert left == [datagram(b"short"), datagram(bytes(6000), 7)]
    assert (small.is_full, len(small), len(small.origins)) == (True, 1, 1)
    small.clear()
    assert not small.is_full


def test_without_the_global_lock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where threads run at the same time, a datagram is taken out of the backlog first, and put back without room."""
    monkeypatch.setattr(datagram_buffer.extension, "FREE_THREADED", True)
    monkeypatch.setattr(datagram_buffer.extension, "Rows", None)
    buffer = DatagramBuffer(2, 65535)
    assert put(buffer, *map(datagram, (b"a", b"b", b"c"))) == [datagram(b"c")]
    assert [each.data for each in buffer] == [b"a", b"b"]


@pytest.mark.parametrize(
    ("capacity", "memory"), [(0, 70000), (-1, 70000), (1.5, 70000), ("9", 70000), (9, 65534), (9, None)]
)
def test_refused(capacity: Any, memory: Any) -> None:
    """A size that can hold no datagram is an error that says what is needed."""
    with pytest.raises(MulticastExpertError, match="or more"):
        DatagramBuffer(capacity, memory)


@each_form
@given(
    payloads=st.lists(st.tuples(st.binary(max_size=50), st.integers(1, 3), st.none() | st.integers(1, 2**62))),
    capacity=st.integers(1, 12),
)
def test_any_datagrams(form: Callable[..., Any], payloads: list[tuple[bytes, int, int | None]], capacity: int) -> None:
    """What goes in comes out, in the order, in as many fillings as it takes."""
    before, datagram_buffer.extension.Rows = datagram_buffer.extension.Rows, form
    try:
        buffer = DatagramBuffer(capacity, 65535)
    finally:
        datagram_buffer.extension.Rows = before
    sent = [datagram(*each) for each in payloads]
    backlog, got = sent[::-1], []
    while backlog:
        buffer._rows.take(backlog)
        got += [*buffer]
        buffer.clear()
    assert got == sent


def test_with_struct() -> None:
    """Fields of equal payloads are read without a copy."""
    buffer = DatagramBuffer(10, 65535)
    put(buffer, *(datagram(struct.pack("!IH", number, 7)) for number in range(5)))
    assert [number for number, _ in struct.iter_unpack("!IH", buffer.data)] == [*range(5)]
