"""Compares counters of the trial with their growth while the group was not joined. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from multicast_expert.doctor.evidence.sightings import trial_of
from multicast_expert.doctor.evidence.this_host import was_joined
from multicast_expert.doctor.facts import Facts, Unread

Measure: TypeAlias = Callable[[Facts], int | None]
"""Returns how many packets were lost in one way, as the counters say; None if they do not."""

_NOTHING = {"Ip.InReceives": 0, "Ip.InDelivers": 0, "Ip6.InReceives": 0, "Ip6.InDelivers": 0}
STRAY = 4
"""So few packets may belong to other traffic."""


def beyond_usual(facts: Facts, measure: Measure) -> int | None:
    """Return the measure's growth beyond the usual one; 0 unless it is clearly more than without our membership.

    If the group was joined before the trial, its datagrams are in the usual growth, so nothing is subtracted.
    """
    grown = measure(facts)
    if grown is None or isinstance(facts.trial, Unread) or was_joined(facts):
        return grown
    trial = facts.trial
    expected = (
        {name: round(rate * trial.seconds) for name, rate in pace.items()}
        for pace in (trial.usual, trial.afterwards or {})
    )
    before = max(measure(counting(facts, counters)) or 0 for counters in expected)
    return grown - before if grown - before > max(STRAY // 2, before / 2) else 0


def counting(facts: Facts, counters: dict[str, int]) -> Facts:
    """Return the facts with these kernel counters; all others stood still."""
    return replace(facts, trial=replace(trial_of(facts), counters=_NOTHING | counters))
