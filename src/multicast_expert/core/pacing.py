"""When each datagram of a test stream is due, for a rate in datagrams or bits per second. Pure: touches no OS."""

from __future__ import annotations

import re
from typing import NamedTuple

_RATE = re.compile(r"(\d+(?:\.\d+)?|\.\d+)([kmg]?)(pps|bit/s|bits/s|(?-i:b)ps)", re.IGNORECASE | re.ASCII)
_PREFIXES = {"": 1, "k": 1_000, "m": 1_000_000, "g": 1_000_000_000}


class Rate(NamedTuple):
    """How much is to be sent in a second: datagrams, or bits of payload."""

    amount: float
    is_bits: bool = False

    def seconds(self, size: int) -> float:
        """Return the time that a datagram of so many bytes takes."""
        return 8 * size / self.amount if self.is_bits else 1 / self.amount


def parse_rate(text: str) -> Rate:
    """Return the rate that `5Mbps`, `5Mbit/s` or `1000pps` means; ValueError for any other text."""
    found = _RATE.fullmatch(text)
    amount = float(found[1]) * _PREFIXES[found[2].lower()] if found else 0
    if found is None or not 0 < amount < float("inf"):
        raise ValueError(f"{text!r} is not a rate such as 5Mbps or 1000pps.")
    return Rate(amount, found[3].lower() != "pps")


class Pace:
    """The schedule of a stream, in seconds since its beginning. A datagram that is late does not delay the next ones.

    rate: None sends as fast as it goes. burst: so many datagrams go together, at the time of the first of them.
    """

    def __init__(self, rate: Rate | None, burst: int = 1) -> None:
        self._rate, self._burst = rate, burst
        self._turn = 0
        self.due: float = 0.0
        """When the next datagram is due."""
        self.end: float = 0.0
        """When the time of those that went is over."""

    def advance(self, size: int) -> None:
        """Take note of a datagram of so many bytes."""
        self._turn += 1
        self.end += 0.0 if self._rate is None else self._rate.seconds(size)
        if self._turn % self._burst == 0:
            self.due = self.end

    def delay(self, seconds: float) -> None:
        """Let all that follows be later."""
        self.due += seconds
        self.end += seconds
