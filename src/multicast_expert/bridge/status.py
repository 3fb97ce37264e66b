"""What a bridge knows at a moment. Pure."""

from __future__ import annotations

from typing import NamedTuple

from multicast_expert.bridge.interest import Group, Wish
from multicast_expert.bridge.ledger import Ledger


class SiteStatus(NamedTuple):
    """What is known of another site."""

    id: str
    name: str
    is_neighbour: bool
    """Whether it is on this network, too."""
    speaking: bool
    delay: float | None
    """Seconds to there."""
    wants: list[Wish]


class GroupStatus(NamedTuple):
    """What is known of a group."""

    group: Group
    wanted_here: bool
    wanted_by: list[str]
    """The names of the sites that want it."""
    stopped: bool
    """Whether the fuse stopped it."""
    totals: Ledger


class Status(NamedTuple):
    """What a bridge knows at this moment."""

    id: str
    is_settled: bool
    """Whether the bridges on this network have decided which of them speaks."""
    speaking: bool
    links: list[str]
    """Where its connections lead."""
    sites: list[SiteStatus]
    groups: list[GroupStatus]
    refused_groups: int
    """Groups that other sites want and that this one does not carry, or has no room for."""
    problems: list[str]
    """What kept it from carrying groups."""
