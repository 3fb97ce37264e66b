"""What follows from the trials of a sweep: a limit of size, rate or hops is named only where the trials show one."""

import pytest

from multicast_expert.ping.verdict import Trial, hop_limits_finding, rates_finding, sizes_finding


def trials(*counts: tuple[int, int, int, int]) -> list[Trial]:
    """Trials of value, queries sent, and answers by unicast and multicast."""
    return [Trial(*each) for each in counts]


@pytest.mark.parametrize(
    ("tried", "words"),
    [
        (
            trials((100, 4, 4, 4), (1472, 4, 4, 4), (1473, 4, 4, 0)),
            "over 1,472 bytes from X are lost: fragments. 1,473",
        ),
        (trials((100, 4, 4, 4), (1473, 4, 0, 0)), "and of unicast"),
        (trials((100, 4, 4, 4), (1473, 4, 4, 4)), ""),
        (trials((100, 4, 4, 0), (1473, 4, 4, 0)), ""),
        # One that works above one that fails shows that size is not the reason.
        (trials((100, 4, 4, 4), (1473, 4, 4, 0), (4000, 4, 4, 4)), ""),
    ],
)
def test_sizes(tried: list[Trial], words: str) -> None:
    """The largest that works and the smallest that fails are named."""
    found = sizes_finding(tried, "X")
    assert bool(words) == (found is not None)
    assert found is None or words in found.text


@pytest.mark.parametrize(
    ("tried", "words"),
    [
        (trials((10, 10, 10, 10), (100, 100, 100, 60)), "at 100 queries a second (60 of 100 answers, unicast 100)"),
        (trials((10, 10, 10, 10), (100, 100, 60, 60)), ""),
        (trials((10, 10, 10, 5), (100, 100, 100, 50)), ""),
        (trials((10, 10, 10, 10), (100, 100, 100, 60), (300, 300, 300, 300)), ""),
    ],
)
def test_rates(tried: list[Trial], words: str) -> None:
    """Only where multicast loses more than unicast does, and slower queries lose nothing."""
    found = rates_finding(tried, "X")
    assert bool(words) == (found is not None)
    assert found is None or words in found.text


@pytest.mark.parametrize(
    ("tried", "words"),
    [
        (trials((1, 4, 4, 4)), "a hop limit of 1 from this host to X: no router"),
        (
            trials((1, 4, 0, 0), (2, 4, 4, 4)),
            "a hop limit of 2 from this host to X: 1 router in between, and the usual",
        ),
        (trials((1, 4, 0, 0), (2, 4, 1, 1), (3, 4, 4, 4)), "2 routers in between"),
        (trials((1, 4, 0, 0), (64, 4, 0, 0)), ""),
    ],
)
def test_hop_limits(tried: list[Trial], words: str) -> None:
    """The least that reaches the other host, and how many routers that means."""
    found = hop_limits_finding(tried, "X")
    assert bool(words) == (found is not None)
    assert found is None or words in found.text
