"""What the kernel dropped, with names of interfaces instead of their indexes. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from multicast_expert.doctor.facts import Drop
from multicast_expert.system.drops.dropped import Dropped


def named_drops(drops: Iterable[Dropped], names: Mapping[int, str]) -> tuple[Drop, ...]:
    """Return them as facts; an interface that is gone is named by its index."""
    return tuple(
        Drop(
            each.reason,
            each.function,
            None if each.interface is None else names.get(each.interface, str(each.interface)),
            None if each.group is None else str(each.group),
            each.port,
            None if each.source is None else str(each.source),
            each.outgoing,
            each.number,
            each.hook,
            each.socket,
        )
        for each in drops
    )
