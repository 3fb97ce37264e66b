"""How often something may happen: the generic cell rate algorithm, for one, and for many with a bound. Pure."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable


class Rate:
    """Allows `rate` events a second, and `burst` of them at once."""

    __slots__ = ("_due", "_interval", "_tolerance")

    def __init__(self, rate: float, burst: float) -> None:
        self._interval = 1 / rate
        self._tolerance = (burst - 1) / rate
        self._due = float("-inf")

    def allow(self, now: float) -> bool:
        """Return whether an event may happen now, and count it if it may."""
        if now < self._due - self._tolerance:
            return False
        self._due = max(self._due, now) + self._interval
        return True


class Rates:
    """A Rate for each key. Of more than `most` keys the ones that were seen last are remembered."""

    def __init__(self, rate: float, burst: float, most: int) -> None:
        self._rate, self._burst, self._most = rate, burst, most
        self._known: OrderedDict[Hashable, Rate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def allow(self, key: Hashable, now: float) -> bool:
        """Return whether an event of this key may happen now, and count it if it may."""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= self._most:
                self._known.popitem(last=False)
            known = self._known[key] = Rate(self._rate, self._burst)
        else:
            self._known.move_to_end(key)
        return known.allow(now)
