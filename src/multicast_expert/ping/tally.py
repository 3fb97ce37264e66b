"""Counts of the answers that came one way, by unicast or by multicast. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from math import sqrt


@dataclass(slots=True)
class Tally:
    """The answers of one server that came one way."""

    received: int = 0
    """Answers, each query counted once."""
    duplicates: int = 0
    """Answers to queries that were answered already."""
    reordered: int = 0
    """Answers that came after one to a later query."""
    first: int | None = None
    """The number of the first query that was answered."""
    last: int = 0
    """The highest number that was answered."""
    first_at: float | None = None
    """When the first answer came, in seconds of the monotonic clock."""
    last_at: float = 0.0
    hops: int | None = None
    """How many routers the last answer came through; None: the server does not say with which TTL it sends."""
    ttl: int | None = None
    """With which TTL the last answer arrived."""
    least_ns: int = 0
    most_ns: int = 0
    _sum: int = 0
    _squares: int = 0

    def take(self, sequence: int, round_trip_ns: int, now: float) -> None:
        """Count the first answer to a query."""
        self.received += 1
        if self.first is None:
            self.first, self.first_at = sequence, now
            self.least_ns = self.most_ns = round_trip_ns
        elif sequence < self.last:
            self.reordered += 1
        self.last, self.last_at = max(self.last, sequence), now
        self.least_ns, self.most_ns = min(self.least_ns, round_trip_ns), max(self.most_ns, round_trip_ns)
        self._sum += round_trip_ns
        self._squares += round_trip_ns * round_trip_ns

    @property
    def mean_ns(self) -> int:
        """The mean of the round trips."""
        return self._sum // self.received if self.received else 0

    @property
    def deviation_ns(self) -> int:
        """The standard deviation of the round trips, which ping(8) calls mdev."""
        return int(sqrt(max(0, self._squares // self.received - self.mean_ns**2))) if self.received else 0
