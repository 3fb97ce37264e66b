"""What keeps datagrams from going round in circles where ids do not tell: echoes of bridges, and a fuse. Pure.

Two bridges on one network may both speak for a moment; then one takes in what the other re-sent. And other programs may
carry the same group between the same networks. `Echoes` recognises the first exactly, `Fuse` ends the second.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable

REMEMBER = 1.0
"""Seconds after which an echo does not come any more."""
MOST_REMEMBERED = 65536
"""Datagrams of one group and port."""
MULTIPLE, LEAST_RATE = 4, 500
"""A group is looked into at this multiple of its rate before, and not below this rate (datagrams a second)."""
MOST_INSPECTED = 4096
"""How many datagrams are looked at."""
REPEATED = 0.25
"""Which part of them has to be repetitions for the group to be stopped."""
HOLD = 10.0
"""Seconds for which a group is stopped."""
_PERIOD = 0.5


class Echoes:
    """What came for one group from other sites a moment ago, each as often as it came."""

    def __init__(self, most: int = MOST_REMEMBERED) -> None:
        self._known: Counter[int] = Counter()
        self._order: deque[tuple[float, int]] = deque()
        self._most = most

    def __len__(self) -> int:
        return len(self._order)

    def note(self, payloads: Iterable[bytes], now: float) -> None:
        """Remember what came from another site."""
        for payload in payloads:
            self._order.append((now, hash(payload)))
            self._known[hash(payload)] += 1
        while self._order and (self._order[0][0] < now - REMEMBER or len(self._order) > self._most):
            self._forget(self._order.popleft()[1])

    def is_echo(self, payload: bytes) -> bool:
        """Return whether a datagram that a bridge on this network may have re-sent came from another site.

        Each one is recognised once.
        """
        key = hash(payload)
        if not self._known[key]:
            del self._known[key]
            return False
        self._forget(key)
        return True

    def _forget(self, key: int) -> None:
        # An echo that was recognised leaves its place in the order behind.
        if self._known[key] > 1:
            self._known[key] -= 1
        else:
            del self._known[key]


class Fuse:
    """Stops a group whose rate multiplies, if the same datagrams come again and again from elsewhere.

    That is so where another relay brings them back. It looks into datagrams while there are few, to know where they
    came from first, and after their rate has risen. Two senders of the same are no loop: each repeats only once.
    """

    def __init__(self) -> None:
        self.times_blown: int = 0
        self.inspecting: bool = True
        """Whether it wants to see what is taken in."""
        self._blown_until = self._began = float("-inf")
        self._usual = 0.0
        self._suspects = False
        self._count = self._seen = self._repeated = 0
        self._first: dict[int, object] = {}
        self._again: set[int] = set()

    def is_blown(self, now: float) -> bool:
        """Return whether the group is stopped."""
        return now < self._blown_until

    def count(self, datagrams: int, now: float) -> bool:
        """Count datagrams that were taken in; return whether the group is stopped from now on."""
        elapsed = now - self._began
        blows = elapsed >= _PERIOD and self._end_period(elapsed, now)
        self._count += datagrams
        return blows

    def expect(self, payloads: Iterable[bytes]) -> None:
        """Note what comes from other sites: if it is taken in here, another relay brought it."""
        if self.inspecting and len(self._first) <= MOST_INSPECTED:
            for payload in payloads:
                self._first.setdefault(hash(payload), None)

    def inspect(self, datagrams: Iterable[tuple[bytes, object]]) -> None:
        """Look at payloads and their origins: a repetition is one that another origin had before."""
        for payload, origin in datagrams:
            if self._seen >= MOST_INSPECTED:
                return
            self._seen += 1
            key = hash(payload)
            if self._first.setdefault(key, origin) != origin:
                self._repeated += 1
                self._again.add(key)

    def _end_period(self, elapsed: float, now: float) -> bool:
        """Judge the period that is over, and begin another."""
        rate = self._count / elapsed
        has_risen = rate >= max(MULTIPLE * self._usual, LEAST_RATE)
        # A single payload may be one that two senders repeat, such as `hello`.
        returns = len(self._again) > 1 and self._repeated >= max(
            REPEATED * self._seen, (MULTIPLE - 1) * len(self._again)
        )
        blows = self._suspects and has_risen and returns
        self._suspects, suspected = has_risen and not self._suspects, self._suspects
        if not has_risen or suspected:
            self._usual = 0.0 if blows else rate
        self.inspecting = self._suspects or self._usual < LEAST_RATE
        if len(self._first) > MOST_INSPECTED or not self.inspecting:
            self._first = {}
        self._began, self._count, self._seen, self._repeated = now, 0, 0, 0
        self._again = set()
        if blows:
            self._blown_until = now + HOLD
            self.times_blown += 1
        return blows


class Allowance:
    """How many bytes a second may come from other sites, all together; a tenth of a second's worth may come at once."""

    def __init__(self, rate: float) -> None:
        self._rate = rate
        self._room = self._most = rate / 10
        self._at = float("-inf")

    def allows(self, size: int, now: float) -> bool:
        """Return whether so many bytes may come now, and count them if so."""
        self._room = min(self._most, self._room + max(0.0, now - self._at) * self._rate)
        self._at = now
        # What is larger than the room of an idle moment may come when that is there.
        if self._room < min(size, self._most):
            return False
        self._room -= size
        return True
