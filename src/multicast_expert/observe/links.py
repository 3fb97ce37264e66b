"""Follows all links: each interface, and each VLAN on it, has a querier and members of its own, by IGMP and by MLD.

Pure: the caller gives the times.
"""

from __future__ import annotations

from collections.abc import Iterator

from multicast_expert.observe.members import LIMIT, Event, Link, Timers
from multicast_expert.wire.group_messages import GroupMessage

VLANS, VLAN_LIMIT = 128, 1024
"""How many VLANs are followed, and how many members of each: any host can put any tag on a frame."""


class Links:
    """The links that messages came from. A link without querier and members is forgotten.

    timers: those that hold where no query says otherwise; queries of IGMPv2 and MLDv1 never do.
    """

    def __init__(self, limit: int = LIMIT, timers: Timers | None = None) -> None:
        self.known: dict[tuple[str, int], Link] = {}
        """By interface and version of IP: 4 for IGMP, 6 for MLD."""
        self.ignored: int = 0
        """How many messages were ignored, because they were of too many VLANs."""
        self._limit, self._timers = limit, timers
        self._refused = 0

    @property
    def refused(self) -> int:
        """How many records of reports found no room."""
        return self._refused + sum(link.refused for link in self.known.values())

    @property
    def next_timeout(self) -> float:
        """The time when `expire` may have something to do; infinite without links."""
        return min((link.next_timeout for link in self.known.values()), default=float("inf"))

    def take(self, interface: str, is_tagged: bool, now: float, message: GroupMessage) -> list[Event]:
        """Return what a message changes on its link; `is_tagged`: the link is a VLAN."""
        key = interface, 6 if ":" in message.host else 4
        link = self.known.get(key)
        if link is None:
            if is_tagged and len(self.known) >= VLANS:
                self.ignored += 1
                return []
            link = self.known[key] = Link(min(self._limit, VLAN_LIMIT) if is_tagged else self._limit, self._timers)
        return link.take(now, message)

    def expire(self, now: float) -> Iterator[tuple[str, int, Event]]:
        """Yield what has timed out by now, with its link."""
        for (interface, version), link in list(self.known.items()):
            for event in link.expire(now):
                yield interface, version, event
            if link.querier is None and not link.members:
                self._refused += link.refused
                del self.known[interface, version]
