"""What the trial saw of the target: frames on the wire, and datagrams at the doctor's sockets. Pure: touches no OS."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from multicast_expert.doctor.evidence.this_host import (
    chosen_names,
    interfaces,
    loopback_names,
    own_addresses,
    route_to,
)
from multicast_expert.doctor.facts import Arrivals, Facts, Trial, Unread, address_of, same
from multicast_expert.wire.tallies import Frames

_STEADY = 5
"""How many datagrams make a stream, and how many must be missing at its end before it counts as stopped."""
_STRAY = 2
"""So few datagrams may be under way when the trial ends."""


def trial_of(facts: Facts) -> Trial:
    """Return the trial; an empty one if none took place."""
    return Trial(0.0, False) if isinstance(facts.trial, Unread) else facts.trial


def received(facts: Facts) -> int:
    """Return how many datagrams a receiver with the requested memberships got."""
    return sum(each.count for each in trial_of(facts).arrivals if each.asked)


def others_received(facts: Facts) -> tuple[Arrivals, ...]:
    """Return the datagrams that arrived only because the trial joined more than requested."""
    return tuple(each for each in trial_of(facts).arrivals if not each.asked)


def frames(facts: Facts, *, outgoing: bool = False) -> tuple[Frames, ...] | None:
    """Return the group's sound frames that came in, or that this host sent; None if frames could not be captured."""
    found = _all(facts)
    return None if found is None else tuple(each for each in found if each.outgoing is outgoing and not each.flaw)


def flawed(facts: Facts) -> tuple[Frames, ...]:
    """Return the target's frames that came in on the chosen interfaces and that no kernel delivers."""
    names, port = set(chosen_names(facts)), facts.target.port
    return tuple(
        each
        for each in _all(facts) or ()
        if each.flaw
        and not each.outgoing
        and _passes(facts, each.interface, names)
        and port in (None, each.port or port)
    )


def _all(facts: Facts) -> tuple[Frames, ...] | None:
    found = trial_of(facts).frames
    if isinstance(found, Unread) or isinstance(facts.trial, Unread):
        return None
    return tuple(each for each in found if same(each.group, facts.target.group))


def on_ports(facts: Facts) -> tuple[Frames, ...]:
    """Return the target's sound frames that came in on parts of a chosen interface: ports of a bridge or a bond."""
    names = set(chosen_names(facts))
    parts = {each.name for each in interfaces(facts) if each.master in names}
    found = frames(facts) or ()
    return tuple(each for each in found if each.interface in parts and _is_wanted(facts, each))


def _passes(facts: Facts, interface: str, names: set[str]) -> bool:
    """Return whether what comes in on an interface is for the chosen ones, as on a port of a bridge."""
    masters = {each.name: each.master for each in interfaces(facts)}
    return interface in names or masters.get(interface) in names


def wanted(facts: Facts, *, outgoing: bool = False) -> tuple[Frames, ...] | None:
    """Return the frames that a receiver of the target should get, including fragments of unknown port."""
    found = frames(facts, outgoing=outgoing)
    if found is None:
        return None
    names = set(chosen_names(facts))
    return tuple(each for each in found if each.interface in names and _is_wanted(facts, each))


def _is_wanted(facts: Facts, frame: Frames) -> bool:
    target = facts.target
    return (
        (target.port is None or frame.port in (None, target.port))
        and (target.source is None or same(frame.sender, target.source))
        and frame.vlan in (None, 0)
    )


def missing(facts: Facts) -> int:
    """Return how many datagrams of the target came in as sound frames and did not arrive; 0 if that is not known."""
    came = datagrams_on_the_wire(facts)
    arrived = Counter[tuple[str, str]]()
    for each in trial_of(facts).arrivals:
        arrived[each.interface, each.sender] += each.count if each.asked else 0
    lost = sum(max(0, count - arrived[place]) for place, count in came.items())
    return lost if lost > max(_STRAY, came.total() // 50) else 0


def datagrams_on_the_wire(facts: Facts) -> Counter[tuple[str, str]]:
    """Return how many sound datagrams of the target came in, by interface and sender."""
    came = Counter[tuple[str, str]]()
    for each in wanted(facts) or ():
        # Of several fragments only the first names the port; one of a pair of fragments is not a datagram.
        pieces = each.fragments if each.port is not None else 0
        came[each.interface, each.sender] += each.count - each.fragments + pieces - each.bad_checksums
    return came


def heard(facts: Facts) -> set[tuple[str, str]]:
    """Return the interfaces and senders of the datagrams that arrived at any of the doctor's sockets."""
    return {(each.interface, each.sender) for each in trial_of(facts).arrivals}


def is_diverted(facts: Facts, found: Arrivals | Frames) -> bool:
    """Return whether something on this host sent datagrams to the interface that they came in on.

    So it is on loopback if they are another host's, and elsewhere if there are more of them than the interface took in.
    """
    if address_of(found.sender) in own_addresses(facts):
        # Interfaces do not count the copies of what this host itself sends.
        return False
    if found.interface in loopback_names(facts):
        route = route_to(facts, found.sender)
        return route is not None and route.kind == "unicast"
    return found.count - _taken_in(facts, found.interface) > _STRAY


def diverted(facts: Facts) -> float:
    """Return how many frames of the group something on this host sent to other interfaces than the chosen ones."""
    names = set(chosen_names(facts))
    others = [each for each in frames(facts) or () if each.interface not in names]
    return sum(
        each.count if each.interface in loopback_names(facts) else each.count - _taken_in(facts, each.interface)
        for each in others
        if is_diverted(facts, each)
    )


def _taken_in(facts: Facts, interface: str) -> float:
    """Return how many packets of any kind an interface took in; infinity if that is not known."""
    return trial_of(facts).interface_counters.get(interface, {}).get("rx_packets", float("inf"))


def seen(facts: Facts, *, outgoing: bool = False) -> list[Arrivals | Frames]:
    """Return arrivals and incoming frames of the group; with `outgoing` also the frames that this host sent."""
    sent = frames(facts, outgoing=True) if outgoing else None
    return [*trial_of(facts).arrivals, *(frames(facts) or ()), *(sent or ())]


def senders(found: Iterable[Frames | Arrivals]) -> list[str]:
    """Return the senders, each once."""
    return list(dict.fromkeys(each.sender for each in found))


def silence(facts: Facts) -> float | None:
    """Return for how many seconds a steady stream had stopped at the end of the trial; None if it had not."""
    seconds = trial_of(facts).seconds
    asked = [each for each in trial_of(facts).arrivals if each.asked]
    silences = [seconds - each.last for each in asked if seconds - each.last > _longest_pause(each)]
    return min(silences) if silences and len(silences) == len(asked) else None


def _longest_pause(stream: Arrivals) -> float:
    """Return how many seconds of silence a stream may have without having stopped."""
    if stream.count < _STEADY:
        return float("inf")
    return max(1.0, _STEADY * (stream.last - stream.first) / (stream.count - 1))
