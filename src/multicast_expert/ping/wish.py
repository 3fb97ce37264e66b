"""What a client of multicast ping wants: which group, how often, how large. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_network

from multicast_expert.core.addresses import IPAddress
from multicast_expert.ping.messages import DEFAULT_GROUPS, SOURCE_SPECIFIC, Network

LARGEST = 65_000
"""Bytes of a query, at most."""


@dataclass(frozen=True, slots=True)
class Wish:
    """What to ask a server for."""

    version: int = 4
    """Of IP."""
    group: IPAddress | None = None
    """None: one that the server chooses."""
    source_specific: bool = True
    interval: float = 1.0
    count: int | None = None
    size: int = 0
    """Bytes of each query, at least; the answers have about as many."""
    flood: bool = False
    """Whether to query again as soon as both answers are there."""

    @property
    def range(self) -> Network:
        """The groups that would do."""
        if self.group is not None:
            return ip_network(self.group)
        if self.source_specific:
            return SOURCE_SPECIFIC[self.version]
        return ip_network(DEFAULT_GROUPS[self.version, False])
