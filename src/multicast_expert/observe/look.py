"""What a source of frames shows: streams, queriers and members, on each link. Joins and sends nothing."""

from __future__ import annotations

from typing import NamedTuple

from multicast_expert.observe.clock import Clock
from multicast_expert.observe.found import MemberSeen, QuerierSeen
from multicast_expert.observe.links import Links
from multicast_expert.observe.messages import read_message
from multicast_expert.observe.source import FrameSource
from multicast_expert.observe.streams import Streams
from multicast_expert.wire.frame import link_name
from multicast_expert.wire.frames import UDP
from multicast_expert.wire.group_messages import GroupMessage, GroupQuery

KEEP = 2048
"""Bytes of each frame: a whole datagram on most networks, and enough of longer ones to name them."""
MOST_QUERIERS = 256
"""How many hosts that ask are followed."""
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
        self.clock: Clock = Clock()
        """The clock of all times here."""
        self.streams: Streams = Streams()
        self.links: Links = Links()
        self.unnoted: int = 0
        """Queries of hosts beyond MOST_QUERIERS."""
        self._askers: dict[tuple[str, str], _Queries] = {}
        self._next_tick = self.clock.now()
        self.tick()

    def take(self, limit: int = 1024) -> bool:
        """Take in what waits, up to so many frames; return whether there may be more."""
        frames = self.source.take(limit)
        take_packet, ahead = self.streams.take_packet, self.clock.ahead()
        for interface, outgoing, timestamp, _, vlan, _, packet, _ in frames:
            now = self.clock.now() if timestamp is None else timestamp / 1e9 + ahead
            if now >= self._next_tick:
                self._tick(now)
            link = interface if vlan is None else link_name(interface, vlan)
            if len(packet) > 20 and packet[0] == 0x45 and packet[9] == UDP:
                take_packet(link, outgoing, packet, now)
            elif message := read_message(packet):
                self.links.take(link, vlan is not None, now, message)
                if isinstance(message.content, GroupQuery):
                    self._note_query(link, message, message.content, now)
            else:
                take_packet(link, outgoing, packet, now)
        return len(frames) == limit

    def _note_query(self, interface: str, message: GroupMessage, query: GroupQuery, now: float) -> None:
        key = interface, message.host
        known = self._askers.get(key)
        if known is None and len(self._askers) >= MOST_QUERIERS:
            self.unnoted += 1
            return
        first, general = (known.first, known.general) if known else (now, 0)
        is_general = query.group is None
        last = now if is_general or known is None else known.last
        said = query.interval or (known.said if known else None)
        self._askers[key] = _Queries(query.version, said, first if general else now, last, general + is_general)

    def tick(self) -> None:
        """End a second, if it is over, for rates and timers."""
        now = self.clock.now()
        if now >= self._next_tick:
            self._tick(now)

    def _tick(self, now: float) -> None:
        self._next_tick += _TICK
        if self._next_tick <= now:
            self._next_tick = now + _TICK
        self.streams.tick(now)
        for _ in self.links.expire(now):
            pass

    def queriers(self) -> list[QuerierSeen]:
        """Return the hosts that sent queries, by interface, the elected ones first."""
        found = []
        for (interface, address), queries in self._askers.items():
            version = 6 if ":" in address else 4
            link = self.links.known.get((interface, version))
            protocol = f"{'IGMP' if version == 4 else 'MLD'}v{queries.version}"
            measured = (queries.last - queries.first) / (queries.general - 1) if queries.general > 1 else None
            is_elected = link is not None and link.querier is not None and link.querier.address == address
            found.append(QuerierSeen(interface, address, protocol, queries.said or measured, is_elected))
        return sorted(found, key=lambda each: (each.interface, not each.is_elected, each.address))

    def members(self) -> list[MemberSeen]:
        """Return the memberships that hosts reported, by interface and group."""
        found = [
            MemberSeen(interface, group, host, member.includes, tuple(sorted(member.sources)))
            for (interface, _), link in self.links.known.items()
            for (group, host), member in link.members.items()
        ]
        return sorted(found, key=lambda each: (each.interface, each.group, each.host))
