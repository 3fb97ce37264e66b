"""What a source of frames shows: streams, queriers and members, on each link. Joins and sends nothing."""

from __future__ import annotations

from time import time, time_ns
from typing import NamedTuple

from multicast_expert.observe.found import MemberSeen, QuerierSeen
from multicast_expert.observe.members import Link
from multicast_expert.observe.source import FrameSource
from multicast_expert.observe.streams import Streams
from multicast_expert.wire.frames import UDP
from multicast_expert.wire.group_messages import GroupMessage, GroupQuery, parse_group_message

KEEP = 2048
"""Bytes of each frame: a whole datagram on most networks, and enough of longer ones to name them."""
_MOST_QUERIERS = 256
_TICK = 1.0


class _Queries(NamedTuple):
    version: int
    said: float | None
    first: float
    last: float
    general: int


class Look:
    """Takes in what comes from a source; the caller waits with `source.wait` and closes the source."""

    def __init__(self, source: FrameSource) -> None:
        self.source = source
        self.streams: Streams = Streams([each.machine_name for each in source.interfaces if each.is_loopback])
        self.links: dict[tuple[str, int], Link] = {}
        """By interface and version of IP."""
        self._askers: dict[tuple[str, str], _Queries] = {}
        self._next_tick = time() + _TICK
        self.streams.tick(time())

    def take(self, limit: int = 1024) -> bool:
        """Take in what waits, up to so many frames; return whether there may be more."""
        frames = self.source.take(limit)
        take_packet = self.streams.take_packet
        for interface, outgoing, timestamp, _, vlan, _, packet, _ in frames:
            now = (time_ns() if timestamp is None else timestamp) / 1e9
            if now >= self._next_tick:
                self.tick(now)
            if vlan is not None:
                interface = f"{interface} vlan{vlan}"  # noqa: PLW2901 - a VLAN interface has a row of its own
            if len(packet) > 20 and packet[0] == 0x45 and packet[9] == UDP:
                take_packet(interface, outgoing, packet, now)
            else:
                self._take_other(interface, outgoing, packet, now)
        return len(frames) == limit

    def _take_other(self, interface: str, outgoing: bool, packet: bytes, now: float) -> None:
        message = parse_group_message(packet)
        if message is None:
            self.streams.take_packet(interface, outgoing, packet, now)
            return
        version = 6 if ":" in message.host else 4
        self.links.setdefault((interface, version), Link()).take(now, message)
        if isinstance(message.content, GroupQuery):
            self._note_query(interface, message, message.content, now)

    def _note_query(self, interface: str, message: GroupMessage, query: GroupQuery, now: float) -> None:
        key = interface, message.host
        known = self._askers.get(key)
        if known is None and len(self._askers) >= _MOST_QUERIERS:
            return
        first, general = (known.first, known.general) if known else (now, 0)
        is_general = query.group is None
        last = now if is_general or known is None else known.last
        said = query.interval or (known.said if known else None)
        self._askers[key] = _Queries(query.version, said, first if general else now, last, general + is_general)

    def tick(self, now: float) -> None:
        """End a second, if it is over, for rates and timers."""
        if now < self._next_tick:
            return
        self._next_tick = max(self._next_tick + _TICK, now)
        self.streams.tick(now)
        for link in self.links.values():
            link.expire(now)

    def queriers(self) -> list[QuerierSeen]:
        """Return the hosts that sent queries, by interface, the elected ones first."""
        found = []
        for (interface, address), queries in self._askers.items():
            version = 6 if ":" in address else 4
            link = self.links[interface, version]
            protocol = f"{'IGMP' if version == 4 else 'MLD'}v{queries.version}"
            measured = (queries.last - queries.first) / (queries.general - 1) if queries.general > 1 else None
            is_elected = link.querier is not None and link.querier.address == address
            found.append(QuerierSeen(interface, address, protocol, queries.said or measured, is_elected))
        return sorted(found, key=lambda each: (each.interface, not each.is_elected, each.address))

    def members(self) -> list[MemberSeen]:
        """Return the memberships that hosts reported, by interface and group."""
        found = [
            MemberSeen(interface, group, host, member.includes, tuple(sorted(member.sources)))
            for (interface, _), link in self.links.items()
            for (group, host), member in link.members.items()
        ]
        return sorted(found, key=lambda each: (each.interface, each.group, each.host))
