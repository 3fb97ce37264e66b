"""Counts frames and queries by kind, so that a flood of them takes bounded memory. Pure: touches no OS."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace

from multicast_expert.wire.frames import UdpPacket

KINDS = 512
"""How many kinds are counted separately; any further kind is counted with a known one."""


@dataclass(frozen=True, slots=True)
class Frames:
    """Datagrams of one kind on the wire of an interface, before the kernel decided about them."""

    interface: str
    group: str
    """Their destination; another group with the same Ethernet address is listed too."""
    sender: str
    sender_port: int | None
    """None: fragments without a UDP header."""
    port: int | None
    hop_limit: int
    count: int
    longest: int
    """Bytes of the longest IP packet."""
    bad_checksums: int = 0
    """How many had a wrong UDP checksum, or none with IPv6, except those whose sender leaves it to the network card."""
    fragments: int = 0
    """How many of them were fragments."""
    ethernet_source: str = ""
    ethernet_destination: str = ""
    vlan: int | None = None
    outgoing: bool = False
    """Whether this host sent them out of the interface."""
    flaw: str = ""
    """Why no kernel delivers them, after "they have": a wrong length, a wrong version, another protocol, …"""


@dataclass(frozen=True, slots=True)
class Queries:
    """Queries of IGMP or MLD from one querier on one interface."""

    interface: str
    version: int
    """1, 2 or 3 of IGMP, 1 or 2 of MLD."""
    querier: str
    seen: int
    """How many were on the wire."""
    delivered: int | None
    """How many the kernel delivered to sockets; None: not known."""
    interval: float | None = None
    """Seconds between two of them."""
    for_group: bool = False
    """Whether they ask for one group, as after a leave; else for all."""


@dataclass(slots=True)
class _FrameCount:
    count: int = 0
    longest: int = 0
    bad_checksums: int = 0
    fragments: int = 0


@dataclass(slots=True)
class FrameTally:
    """Counts datagrams by kind."""

    _counts: dict[Frames, _FrameCount] = field(default_factory=dict)

    def note(self, interface: str, packet: UdpPacket, header: bytes, vlan: int | None, outgoing: bool) -> None:
        """Count a datagram; `header`: its Ethernet header, empty if the link has none."""
        ports = packet.sender_port, packet.port
        stations = header[6:12].hex(":"), header[:6].hex(":")
        kind = Frames(
            interface,
            packet.group,
            packet.sender,
            *ports,
            packet.hop_limit,
            0,
            0,
            0,
            0,
            *stations,
            vlan,
            outgoing,
            packet.flaw,
        )
        if kind not in self._counts and len(self._counts) >= KINDS:
            known = (each for each in self._counts if (each.interface, each.outgoing) == (interface, outgoing))
            kind = next(known, next(iter(self._counts)))
        count = self._counts.setdefault(kind, _FrameCount())
        count.count += 1
        count.longest = max(count.longest, packet.length)
        count.bad_checksums += packet.is_damaged
        count.fragments += packet.is_fragment

    def frames(self) -> tuple[Frames, ...]:
        """Return the counts so far."""
        return tuple(replace(kind, **asdict(count)) for kind, count in self._counts.items())


@dataclass(slots=True)
class _QueryCount:
    first: float
    last: float
    seen: int = 0
    delivered: int = 0


@dataclass(slots=True)
class QueryTally:
    """Counts queries by querier, on the wire and as delivered to a socket."""

    _counts: dict[Queries, _QueryCount] = field(default_factory=dict)

    def note(self, interface: str, querier: str, version: int, now: float, *, for_group: bool, delivered: bool) -> None:
        """Count a query that was seen on the wire, or delivered, at `now` seconds."""
        kind = Queries(interface, version, querier, 0, None, None, for_group)
        if kind not in self._counts and len(self._counts) >= KINDS:
            kind = next(iter(self._counts))
        count = self._counts.setdefault(kind, _QueryCount(now, now))
        count.last = now
        count.delivered += delivered
        count.seen += not delivered

    def queries(self, unheard: frozenset[str] = frozenset()) -> tuple[Queries, ...]:
        """Return the counts so far; on `unheard` interfaces the kernel delivers nothing to this host's sockets."""
        found = []
        for kind, count in self._counts.items():
            # Both sockets get the same packets, and either may miss some under load.
            seen = max(count.seen, count.delivered)
            interval = (count.last - count.first) / (seen - 1) if seen > 1 else None
            delivered = None if kind.interface in unheard else count.delivered
            found.append(replace(kind, seen=seen, delivered=delivered, interval=interval))
        return tuple(found)
