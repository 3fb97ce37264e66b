"""What a look at the wire found. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from multicast_expert.observe.streams import Stream


@dataclass(frozen=True, slots=True)
class QuerierSeen:
    """A host that asks which groups are wanted."""

    interface: str
    address: str
    protocol: str
    """`IGMPv3`, `MLDv2`."""
    interval: float | None
    """Seconds between its general queries: what it says, or else what was measured; None if neither is known."""
    is_elected: bool


@dataclass(frozen=True, slots=True)
class MemberSeen:
    """A host that reported a group."""

    interface: str
    group: str
    host: str
    """Empty: some host that speaks IGMPv1, IGMPv2 or MLDv1, which need not report after another host has."""
    includes: bool
    """Whether it receives from `sources` only; otherwise from all sources except these."""
    sources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """What a scan found in so many seconds, and could not see."""

    seconds: float
    now: float
    interfaces: Sequence[str]
    streams: Sequence[Stream]
    queriers: Sequence[QuerierSeen] | None = None
    """None: this way of scanning does not see them, nor members."""
    members: Sequence[MemberSeen] = ()
    joined_groups: int = 0
    """How many groups were joined for the scan."""
    limits: Sequence[str] = ()
    """What it could not see, and why, in sentences."""
