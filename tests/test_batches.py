"""Payloads are taken from any iterable in batches, none too late and none lost."""

from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.engine import batches as module
from multicast_expert.engine.batches import LONGEST_BATCH, batches


def lengths(payloads: Iterable[bytes], limit: int = LONGEST_BATCH, at_once: bool = True) -> list[int]:
    """How long each batch is."""
    return [len(batch) for batch in batches(payloads, limit, at_once)]


@given(
    payloads=st.lists(st.binary(max_size=3), max_size=70),
    limit=st.integers(1, 40),
    at_once=st.booleans(),
    kind=st.sampled_from([list, tuple, iter]),
)
def test_every_payload_once(payloads: list[bytes], limit: int, at_once: bool, kind: type) -> None:
    """All of them, in order, in batches that are neither empty nor too long."""
    taken = list(batches(kind(payloads), limit, at_once))
    assert [payload for batch in taken for payload in batch] == payloads
    assert all(1 <= len(batch) <= limit for batch in taken)


def test_a_list_is_there_at_once() -> None:
    """A list needs no reading ahead; it begins with one payload where the first one shall be tried alone."""
    assert lengths([b"x"] * 3000) == [1024, 1024, 952]
    assert lengths([b"x"] * 10, at_once=False) == [1, 2, 4, 3]
    assert lengths([]) == []


class Clock:
    """Seconds, as the test counts them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        """The time."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock that batches go by."""
    clock = Clock()
    monkeypatch.setattr(module, "monotonic", clock)
    return clock


def test_an_iterator_that_waits_is_not_read_ahead(clock: Clock) -> None:
    """Payloads that come slowly go one by one; an iterator that has become quick is read ahead again, bit by bit."""

    def slow_in_the_middle() -> Iterator[bytes]:
        for number in range(20):
            if 7 <= number < 12:
                clock.now += 1.0
            yield b"%d" % number

    assert lengths(slow_in_the_middle()) == [1, 2, 4, 8, 1, 2, 2]
    assert lengths(slow_in_the_middle(), limit=2) == [1, 2, 2, 2, 2, 1, 1, 1, 1, 2, 2, 2, 1]


def test_what_came_before_an_error_is_yielded_first() -> None:
    """An error of the iterable, a payload that is none, even Ctrl-C: the payloads before it are not lost."""

    def failing(error: BaseException) -> Iterator[bytes]:
        yield from (b"1", b"2", b"3", b"4")
        raise error

    for error in (LookupError("no more"), KeyboardInterrupt()):
        taken: list[bytes] = []
        with pytest.raises(type(error)):
            taken.extend(payload for batch in batches(failing(error)) for payload in batch)
        assert taken == [b"1", b"2", b"3", b"4"]
    for wrong in (5, "text", None, [1, 2]):
        taken = []
        payloads: list[Any] = [b"1", b"2", wrong, b"4"]
        with pytest.raises(TypeError, match="bytes-like object is required"):
            taken.extend(payload for batch in batches(payloads) for payload in batch)
        assert taken == [b"1", b"2"]


def test_buffers_are_copied_when_they_are_taken() -> None:
    """A bytes object is passed on as it is; what can still change is not."""
    constant, buffer = b"constant", bytearray(b"1")

    def changing() -> Iterator[Any]:
        yield constant
        for digit in b"123":
            buffer[0] = digit
            yield buffer
            yield memoryview(buffer)

    taken = [payload for batch in batches(changing()) for payload in batch]
    assert taken == [constant, b"1", b"1", b"2", b"2", b"3", b"3"]
    assert taken[0] is constant
    assert {type(payload) for payload in taken} == {bytes}
