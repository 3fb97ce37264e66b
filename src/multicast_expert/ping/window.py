"""The latest queries of a client of multicast ping, whose answers may still come. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from multicast_expert.ping.queries import Arrived

WINDOW = 1024
"""To how many queries answers are awaited at once."""


@dataclass(slots=True)
class Query:
    """One query, and which answers to it came."""

    stamp_ns: int
    sent_at: float
    unicast: bool = False
    multicast: bool = False

    @property
    def is_answered(self) -> bool:
        """Whether both answers came."""
        return self.unicast and self.multicast

    def round_trip_ns(self, arrived: Arrived) -> int:
        """Return the time between the query and an answer, as the kernel says; else as the monotonic clock does."""
        elapsed = int((arrived.now - self.sent_at) * 1e9)
        round_trip = arrived.stamp_ns - self.stamp_ns
        # Otherwise the clock was set in between.
        return round_trip if 0 <= round_trip <= elapsed + 1_000_000 else elapsed


class Window:
    """The latest queries by their numbers, in the order in which they were sent."""

    def __init__(self) -> None:
        self._queries: dict[int, Query] = {}
        self.open: int = 0
        """How many of them lack an answer."""

    def __len__(self) -> int:
        return len(self._queries)

    def add(self, sequence: int, query: Query) -> None:
        """Await the answers to one more query, and none to the oldest if there are too many."""
        if len(self._queries) >= WINDOW:
            oldest = self._queries.pop(next(iter(self._queries)))
            self.open -= not oldest.is_answered
        self._queries[sequence] = query
        self.open += 1

    def get(self, sequence: int | None) -> Query | None:
        """Return a query whose answers are awaited."""
        return self._queries.get(sequence or 0)

    def clear(self) -> None:
        """Await no answers."""
        self._queries.clear()
        self.open = 0

    def unheard(self) -> int:
        """Return how many queries have no answer at all."""
        return sum(not (each.unicast or each.multicast) for each in self._queries.values())

    def waiting(self, linger: float) -> int:
        """Return how many of the newest queries still lack an answer, and are younger than `linger` seconds."""
        count = 0
        newest: float | None = None
        for query in reversed(self._queries.values()):
            newest = query.sent_at if newest is None else newest
            # Everything before was sent earlier.
            if query.is_answered or newest - query.sent_at >= linger:
                break
            count += 1
        return count
