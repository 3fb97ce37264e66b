"""What the counters told while we were not joined, to be held against the trial. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from multicast_expert.doctor.checks import reach
from multicast_expert.doctor.facts import Facts, Trial, Unread

Measure: TypeAlias = Callable[[Facts], int | None]
"""Tells how many packets met a fate."""

_NOTHING = {"Ip.InReceives": 0, "Ip.InDelivers": 0, "Ip6.InReceives": 0, "Ip6.InDelivers": 0}
STRAY = 4
"""Packets that may be none of ours."""


def beyond_usual(facts: Facts, measure: Measure) -> int | None:
    """Return what a measure tells, if it is clearly more than while we were not joined; 0 if it is not.

    Where the group was joined already, its datagrams were counted then, too, and nothing can be taken off.
    """
    grown = measure(facts)
    if grown is None or isinstance(facts.trial, Unread) or was_joined(facts):
        return grown
    seconds = facts.trial.seconds
    paces = ({name: round(rate * seconds) for name, rate in pace.items()} for pace in _paces(facts.trial))
    before = max(measure(counting(facts, expected)) or 0 for expected in paces)
    return grown - before if grown - before > max(STRAY // 2, before / 2) else 0


def _paces(trial: Trial) -> tuple[dict[str, float], ...]:
    """Return by how much the counters grew in a second before we joined, and after we left."""
    return trial.usual, trial.afterwards or {}


def counting(facts: Facts, counters: dict[str, int]) -> Facts:
    """Return the facts with other counters of the kernel; what is not among them stood still."""
    return replace(facts, trial=replace(reach.trial_of(facts), counters=_NOTHING | counters))


def was_joined(facts: Facts) -> bool:
    """Whether somebody on this host had joined the group before us."""
    joined = () if isinstance(facts.memberships, Unread) else facts.memberships
    group = reach.address_of(facts.target.group)
    return any(each.group == group for each in joined)
