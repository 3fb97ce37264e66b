"""What is counted of the numbers that came, against a list of all of them."""

from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert.observe import loss
from multicast_expert.observe.loss import BLOCKS, Sequence


def account(numbers: list[int], blocks: int = BLOCKS) -> Sequence:
    """The accounts of a stream after these numbers."""
    sequence = Sequence(blocks)
    for number in numbers:
        sequence.see(number)
    return sequence


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
    sequence = account(numbers)
    assert (sequence.lost, sequence.duplicates, sequence.reordered) == (lost, duplicates, reordered)


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
    sequence = account(numbers)
    assert (sequence.received, sequence.expected) == (len(numbers), max(numbers) - min(numbers) + 1)
    assert (sequence.lost, sequence.duplicates, sequence.reordered, sequence.undecided) == (*naive(numbers), 0)


def account_of_few(numbers: list[int]) -> Sequence:
    """The accounts with a window of 16 numbers, in blocks of 8, so that short lists overflow it."""
    with patch.object(loss, "BLOCK", 8):
        sequence = account(numbers, 3)
        assert sequence.window == 16
    return sequence


@given(st.integers(1, 100), st.lists(st.integers(-16, 40), min_size=1, max_size=60))
def test_exact_within_the_window(first: int, steps: list[int]) -> None:
    """However a stream jumps ahead, what comes at most WINDOW numbers late is counted exactly."""
    numbers = [first]
    for step in steps:
        numbers.append(max(numbers) + step)
    sequence = account_of_few(numbers)
    assert (sequence.lost, sequence.duplicates, sequence.reordered, sequence.undecided) == (*naive(numbers), 0)


@given(st.lists(st.integers(0, 160), min_size=1, max_size=80))
def test_bounds_beyond_the_window(numbers: list[int]) -> None:
    """What comes later than that may stay undecided; the other counters are then off by at most that many."""
    sequence = account_of_few(numbers)
    lost, duplicates, reordered = naive(numbers)
    assert lost <= sequence.lost <= lost + sequence.undecided
    assert duplicates - sequence.undecided <= sequence.duplicates <= duplicates
    assert reordered - sequence.undecided <= sequence.reordered <= reordered
    assert sequence.received == len(numbers)


def test_later_than_the_window() -> None:
    """What comes too late is undecided, except the lowest number, which surely came before."""
    sequence = account_of_few([1, 2, 25, 2, 3, 1])
    assert (sequence.lost, sequence.duplicates, sequence.reordered, sequence.undecided) == (22, 1, 0, 2)


@given(st.lists(st.tuples(st.integers(-200, 60), st.integers(1, 100)), max_size=15))
def test_long_orderly_parts(parts: list[tuple[int, int]]) -> None:
    """Runs of numbers in order, which are remembered in one piece, hide no duplicate and no late one."""
    numbers = [1]
    for jump, length in parts:
        start = max(1, numbers[-1] + jump)
        numbers += range(start, start + length)
    with patch.object(loss, "BLOCK", 8):
        sequence = account(numbers, 1024)
    assert (sequence.lost, sequence.duplicates, sequence.reordered, sequence.undecided) == (*naive(numbers), 0)
