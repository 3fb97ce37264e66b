"""When datagrams are due: rates as people write them, and schedules in datagrams and in bits."""

import pytest

from multicast_expert.core.pacing import Pace, Rate, parse_rate


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("1000pps", Rate(1000)),
        ("5Mbps", Rate(5e6, True)),
        ("5mbit/s", Rate(5e6, True)),
        ("1.5kpps", Rate(1500)),
        ("300bps", Rate(300, True)),
        ("2Gbits/s", Rate(2e9, True)),
    ],
)
def test_rates(text: str, rate: Rate) -> None:
    """Datagrams or bits, with prefixes of 1,000."""
    assert parse_rate(text) == rate


@pytest.mark.parametrize(
    "text", ["", "5", "5M", "0pps", "-1pps", "1e3pps", "5 Mbps", "5Tbps", "5MBps", "5MBPS", "nanpps", "9" * 400 + "pps"]
)
def test_what_is_no_rate(text: str) -> None:
    """The error quotes it and shows two that are."""
    with pytest.raises(ValueError, match="such as 5Mbps or 1000pps"):
        parse_rate(text)


def due(pace: Pace, sizes: list[int]) -> list[float]:
    """When datagrams of these sizes are due, and when their time is over."""
    times = []
    for size in sizes:
        times.append(round(pace.due, 9))
        pace.advance(size)
    return [*times, round(pace.end, 9)]


def test_schedules() -> None:
    """Evenly spaced; by size where the rate is in bits; in bursts with the same mean."""
    assert due(Pace(Rate(100)), [5, 9, 7]) == [0, 0.01, 0.02, 0.03]
    assert due(Pace(Rate(8000, True)), [10, 30, 10]) == [0, 0.01, 0.04, 0.05]
    assert due(Pace(Rate(100), 2), [1] * 5) == [0, 0, 0.02, 0.02, 0.04, 0.05]
    assert due(Pace(None), [1] * 3) == [0, 0, 0, 0]


def test_a_delay_moves_all_that_follow() -> None:
    """What had to wait for its interface is not caught up with."""
    pace = Pace(Rate(10))
    pace.advance(1)
    pace.delay(2)
    assert due(pace, [1]) == [2.1, 2.2]
