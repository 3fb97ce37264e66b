"""Counts the datagrams that a receiver of the trial gets, by kind. Touches the OS: joins and receives."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeAlias

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.facts import Arrivals, JoinTrial
from multicast_expert.doctor.trial.receiver import Receiver

STREAM = 5
"""How many datagrams make a stream, which can stop."""
KINDS = 512
"""How many kinds of datagrams are counted separately; any further kind is counted with a known one."""

_Kind: TypeAlias = tuple[str, str, str, int, int | None]
_Place: TypeAlias = tuple[int, str | None]
"""The index of an interface, and the only requested source on it."""


@dataclass(slots=True)
class _Count:
    first: float
    last: float
    count: int = 0
    truncated: int = 0


class CountingReceiver:
    """Joins, and counts what arrives by kind.

    asked: whether it has the requested memberships. elder: the receiver whose datagrams this one must not count again.
    """

    def __init__(
        self, settings: ReceiveSettings, asked: bool, clock: Callable[[], float], elder: CountingReceiver | None = None
    ) -> None:
        self._asked = asked
        self._clock = clock
        self._elder = elder
        self._counts: dict[_Kind, _Count] = {}
        self._joined: set[_Place] = set()
        self._blocked: set[_Place] = set()
        self._first = self._last = 0.0
        self.joins: list[JoinTrial] = []
        self.received: int = 0
        self.longest_gap: float = 0.0
        """The most seconds between two datagrams."""
        self.receiver: Receiver = Receiver(settings, self._note)

    def join(self, joins: Iterable[Join]) -> None:
        """Join one after the other, and record the errors."""
        for join in joins:
            tried = self.receiver.join(join)
            self.joins.append(tried)
            if tried.error is None:
                self._joined.add((join.interface.iface.index, tried.source))

    def block(self, joins: Iterable[Join]) -> None:
        """Block the sources of these in any-source memberships."""
        for join in joins:
            index = join.interface.iface.index
            with suppress(MulticastOSError):
                self.receiver.block(join, sum(held == index for held, _ in self._blocked))
                self._blocked.add((index, str(join.source)))

    def _takes(self, index: int, sender: str) -> bool:
        by_name = (index, sender)
        return by_name in self._joined or ((index, None) in self._joined and by_name not in self._blocked)

    def _note(self, datagram: Datagram) -> None:
        now = self._clock()
        sender = str(datagram.sender[0]).partition("%")[0]
        index = datagram.interface_index or 0
        if self._elder is not None and self._elder._takes(index, sender):
            return
        if self.received:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._first = self._first if self.received else now
        self.received, self._last = self.received + 1, now
        interface = datagram.interface_name or str(index)
        kind = interface, datagram.group or "", sender, datagram.sender[1], datagram.hop_limit
        count = self._counts.get(kind)
        if count is None:
            if len(self._counts) >= KINDS:
                kind = next((known for known in self._counts if known[0] == interface), next(iter(self._counts)))
            count = self._counts.setdefault(kind, _Count(now, now))
        count.count += 1
        count.last = now
        count.truncated += datagram.truncated

    def has_stopped(self, now: float) -> bool:
        """Return whether a steady stream of more than a second has been silent as long, and five of its longest gaps.

        A shorter stream may be one of several bursts, and the next burst would look like a revival.
        """
        silence, lasted = now - self._last, self._last - self._first
        return self.received >= STREAM and lasted > 1.0 and silence > max(1.0, 5 * self.longest_gap)

    def arrivals(self) -> tuple[Arrivals, ...]:
        """Return the counts so far."""
        return tuple(
            Arrivals(*kind, each.count, each.first, each.last, self._asked, each.truncated)
            for kind, each in self._counts.items()
        )
