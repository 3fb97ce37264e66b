"""What the trial saw of the target: frames on the wire, and datagrams at the doctor's sockets. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable

from multicast_expert.doctor.evidence.this_host import chosen_names
from multicast_expert.doctor.facts import Arrivals, Facts, Trial, Unread, same
from multicast_expert.wire.tallies import Frames

_STEADY = 5
"""How many datagrams make a stream, and how many must be missing at its end before it counts as stopped."""


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
    """Return the group's frames that came in, or that this host sent; None if frames could not be captured."""
    found = trial_of(facts).frames
    if isinstance(found, Unread) or isinstance(facts.trial, Unread):
        return None
    return tuple(each for each in found if same(each.group, facts.target.group) and each.outgoing is outgoing)


def wanted(facts: Facts, *, outgoing: bool = False) -> tuple[Frames, ...] | None:
    """Return the frames that a receiver of the target should get, including fragments of unknown port."""
    found = frames(facts, outgoing=outgoing)
    if found is None:
        return None
    target, names = facts.target, set(chosen_names(facts))
    return tuple(
        each
        for each in found
        if each.interface in names
        and (target.port is None or each.port in (None, target.port))
        and (target.source is None or same(each.sender, target.source))
        and each.vlan is None
    )


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
