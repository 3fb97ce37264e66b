"""What the trial saw around the target: queriers, other members of the group, and the ports that get it. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from multicast_expert.doctor.evidence import sightings, this_host
from multicast_expert.doctor.evidence.sightings import trial_of
from multicast_expert.doctor.facts import Facts, Unread, address_of


@dataclass(frozen=True, slots=True)
class Querier:
    """A querier of the target's IP version on a chosen interface."""

    interface: str
    address: str | None
    """None: only the kernel's counter tells that there is one."""
    protocol: str | None
    """`IGMPv3`, `MLDv1`, …; None if only a bridge of this host knows it."""
    interval: float | None = None
    """Seconds between two general queries, as it announces or as they came."""


@dataclass(frozen=True, slots=True)
class Member:
    """Another host that reported its membership of the group."""

    interface: str
    address: str
    protocol: str
    sources: tuple[str, ...] = ()
    """The only sources that it wants; empty for all."""


@dataclass(frozen=True, slots=True)
class Stream:
    """Datagrams of the group from one sender to one port that came in."""

    interface: str
    port: int
    sender: str
    count: int


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What was seen around the target; None stands for what could not be seen."""

    queriers: tuple[Querier, ...] | None = None
    members: tuple[Member, ...] | None = None
    streams: tuple[Stream, ...] | None = None


def surroundings(facts: Facts) -> Surroundings | None:
    """Return what the trial saw around the target; None if there was no trial, or only on loopback."""
    if isinstance(facts.trial, Unread) or all(each.is_loopback for each in this_host.chosen(facts)):
        return None
    return Surroundings(_queriers(facts), _members(facts), _streams(facts))


def _queriers(facts: Facts) -> tuple[Querier, ...] | None:
    trial, names = trial_of(facts), this_host.chosen_names(facts)
    four = facts.target.group_version == 4
    found = []
    for each in () if isinstance(trial.queries, Unread) else trial.queries:
        address = address_of(each.querier)
        if each.interface in names and not each.for_group and address is not None and (address.version == 4) is four:
            protocol = f"{'IGMP' if four else 'MLD'}v{each.version}"
            found.append(Querier(each.interface, each.querier, protocol, each.announced or each.interval))
    for bridge in () if isinstance(facts.bridges, Unread) else facts.bridges:
        address = address_of(bridge.other_querier)
        if bridge.name in names and address is not None and (address.version == 4) is four:
            found.append(Querier(bridge.name, bridge.other_querier, None))
    for name in names:
        counted = trial.interface_counters.get(name, {}).get("Icmp6InGroupMembQueries", 0)
        if counted and not four:
            found.append(Querier(name, None, "MLD"))
    # Of several entries about one interface the first knows most.
    first = {(each.interface, each.address): each for each in reversed(found)}
    known = {each.interface for each in found if each.address is not None}
    kept = tuple(each for each in reversed(first.values()) if each.address is not None or each.interface not in known)
    return kept if kept or not isinstance(trial.queries, Unread) else None


def _members(facts: Facts) -> tuple[Member, ...] | None:
    reporters, names = trial_of(facts).reporters, this_host.chosen_names(facts)
    if isinstance(reporters, Unread):
        return None
    name, own = "IGMP" if facts.target.group_version == 4 else "MLD", this_host.own_addresses(facts)
    return tuple(
        Member(each.interface, each.host, f"{name}v{each.version}", each.sources)
        for each in reporters
        if each.interface in names and address_of(each.host) not in own
    )


def _streams(facts: Facts) -> tuple[Stream, ...] | None:
    counts: dict[tuple[str, int, str], int] = {}
    port = facts.target.port
    for arrived in trial_of(facts).arrivals if port is not None else ():
        place = arrived.interface, port or 0, arrived.sender
        counts[place] = counts.get(place, 0) + arrived.count
    frames = sightings.frames(facts)
    for frame in frames or ():
        if frame.port is not None:
            place = frame.interface, frame.port, frame.sender
            # What arrived at the target's port was most likely captured, too.
            counts[place] = max(counts.get(place, 0), frame.count)
    if frames is None and not counts:
        return None
    ordered = sorted(counts.items(), key=lambda each: -each[1])
    return tuple(Stream(*place, count) for place, count in ordered)
