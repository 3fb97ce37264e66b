"""Renders what a bridge knows: lines for a terminal, JSON, and metrics. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from typing import Any, NamedTuple

from multicast_expert.bridge.interest import Wish
from multicast_expert.bridge.ledger import SENDING, TAKING, Ledger
from multicast_expert.bridge.status import GroupStatus, SiteStatus, Status
from multicast_expert.cli.render.metrics import Families, Family
from multicast_expert.cli.render.text import Line, counted, printable, scaled

SHOWN = 3
"""How many wishes or sites a line names."""
_COUNTS = (
    ("taken", "Datagrams taken from this network."),
    ("published", "Datagrams sent to other sites."),
    ("arrived", "Datagrams that came from other sites."),
    ("delivered", "Datagrams sent to this network."),
    ("lost", "Datagrams missing between other sites and this one."),
)


class Rates(NamedTuple):
    """Datagrams a second of one group."""

    out: float = 0.0
    into: float = 0.0


def rates_between(before: Status, now: Status, seconds: float) -> dict[str, Rates]:
    """Return the rates of each group since an earlier status."""
    known = {str(each.group): (each.totals.published, each.totals.delivered) for each in before.groups}
    found = {}
    for each in now.groups:
        published, delivered = known.get(str(each.group), (0, 0))
        out, into = each.totals.published - published, each.totals.delivered - delivered
        found[str(each.group)] = Rates(max(0, out) / max(seconds, 0.001), max(0, into) / max(seconds, 0.001))
    return found


def drops_of(totals: Ledger) -> dict[str, int]:
    """Return all drops by cause, and the losses on the way and in the kernel."""
    drops = dict(totals.taking_drops)
    for cause, count in totals.sending_drops.items():
        drops[cause] = drops.get(cause, 0) + count
    others = {"lost on the way": totals.lost, "kernel": totals.kernel_drops or 0, "malformed": totals.malformed}
    return {cause: count for cause, count in (drops | others).items() if count}


def status_lines(name: str, status: Status, rates: Mapping[str, Rates]) -> Iterator[Line]:
    """Yield the lines that a terminal shows each second."""
    others = counted(len(status.sites), "other site") if status.sites else "no other site"
    if not status.is_settled:
        role = "listens for other bridges on this network"
    else:
        role = "speaks" if status.speaking else "stands by for another bridge on this network"
    yield Line((f"{printable(name)} ", "bold"), (f"{role}, {others}", "" if status.sites else "yellow"))
    width = max((len(printable(each.name)) for each in status.sites), default=0)
    for each in status.sites:
        yield _site_line(each, width)
    if status.groups:
        yield Line(f"{'GROUP':<24}{'OUT/s':>9}{'IN/s':>9}  WANTED BY", style="dim")
    for group in status.groups:
        yield from _group_lines(group, rates.get(str(group.group), Rates()))
    if status.refused_groups:
        yield Line(
            f"{counted(status.refused_groups, 'wanted group')} not carried: not allowed, or no room", style="red"
        )
    yield from (Line(problem, style="red") for problem in status.problems)


def _site_line(site: SiteStatus, width: int) -> Line:
    delay = "" if site.delay is None else f"{site.delay * 1e3:.1f} ms"
    where = ", on this network" if site.is_neighbour else ""
    wants = f"wants {_few([_wish_text(each) for each in site.wants])}" if site.wants else "wants nothing"
    return Line(f"  {printable(site.name):<{width}} {delay:>9}  {wants}{where}")


def _group_lines(group: GroupStatus, rates: Rates) -> Iterator[Line]:
    wanted = [*(["this site"] if group.wanted_here else []), *map(printable, group.wanted_by)]
    stopped = "  stopped: another relay brings it back" if group.stopped else ""
    head = f"{group.group!s:<24}{scaled(rates.out).strip():>9}{scaled(rates.into).strip():>9}  {_few(wanted)}"
    yield Line((head, ""), (stopped, "bold red"))
    if drops := drops_of(group.totals):
        yield Line(f"  dropped: {', '.join(f'{count:,} {cause}' for cause, count in drops.items())}", style="yellow")
        if "hop limit" in group.totals.taking_drops:
            yield Line("  hop limit: send with a higher TTL, or give --ttl", style="yellow")


def _few(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - SHOWN} more" if len(texts) > SHOWN else ""
    return ", ".join(texts[:SHOWN]) + more


def _wish_text(wish: Wish) -> str:
    return str(wish.group) if wish.source is None else f"{wish.source}@{wish.group}"


def status_object(time: float, name: str, status: Status, rates: Mapping[str, Rates]) -> dict[str, Any]:
    """Return a status as an object of JSON; `time` in seconds since 1970."""
    return {
        "time": time,
        "id": status.id,
        "name": name,
        "settled": status.is_settled,
        "speaking": status.speaking,
        "links": status.links,
        "sites": [
            {
                "id": each.id,
                "name": each.name,
                "same_network": each.is_neighbour,
                "speaking": each.speaking,
                "delay": each.delay,
                "wants": [_wish_text(wish) for wish in each.wants],
            }
            for each in status.sites
        ],
        "groups": [_group_object(each, rates.get(str(each.group), Rates())) for each in status.groups],
        "refused_groups": status.refused_groups,
        "problems": status.problems,
    }


def _group_object(group: GroupStatus, rates: Rates) -> dict[str, Any]:
    totals = {each.name: getattr(group.totals, each.name) for each in fields(group.totals)}
    return {
        "group": str(group.group.group),
        "port": group.group.port,
        "wanted_here": group.wanted_here,
        "wanted_by": group.wanted_by,
        "stopped": group.stopped,
        "out_rate": rates.out,
        "in_rate": rates.into,
        **totals,
    }


def bridge_families(status: Status) -> Families:
    """Return the metrics of a bridge."""
    labels = ("group", "port")
    groups = [((str(each.group.group), str(each.group.port)), each) for each in status.groups]
    counts = [
        Family(
            f"mcast_bridge_{name}_datagrams_total",
            text,
            labels,
            [(key, float(getattr(each.totals, name))) for key, each in groups],
        )
        for name, text in _COUNTS
    ]
    drops = [
        ((*key, side, cause), float(count))
        for key, each in groups
        for side, found in (("out", each.totals.taking_drops), ("in", each.totals.sending_drops))
        for cause, count in found.items()
    ]
    stopped = [(key, float(each.stopped)) for key, each in groups]
    delays = [((printable(each.name), each.id), each.delay) for each in status.sites if each.delay is not None]
    causes = ", ".join(dict.fromkeys((*TAKING, *SENDING)))
    families = (
        *counts,
        Family(
            "mcast_bridge_dropped_datagrams_total",
            f"Datagrams dropped, by cause: {causes}.",
            (*labels, "direction", "cause"),
            drops,
        ),
        Family("mcast_bridge_stopped", "1 while the fuse has stopped the group.", labels, stopped),
        Family("mcast_bridge_sites", "Other sites that take part.", (), [((), float(len(status.sites)))]),
        Family("mcast_bridge_speaking", "1 if it speaks for its network.", (), [((), float(status.speaking))]),
        Family("mcast_bridge_site_delay_seconds", "Time to another site, one way.", ("site", "id"), delays),
    )
    return lambda: families
