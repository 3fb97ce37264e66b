"""Renders what a scan found: streams, queriers and members as lines or JSON. Pure: touches no OS."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from typing import Any

from multicast_expert.cli.render.streams import PLAIN, Surroundings, stream_object, table_lines, told_apart
from multicast_expert.cli.render.text import Line, counted
from multicast_expert.observe.found import Found, MemberSeen, QuerierSeen

MEMBERS_SHOWN = 50


def found_lines(found: Found, around: Surroundings, room: int) -> Iterator[Line]:
    """Yield tables of streams, queriers and members, and what the scan could not see."""
    groups = len({each.group for each in found.streams})
    streams = counted(len(found.streams), "stream")
    where = ", ".join(found.interfaces) or "no interface"
    yield Line((f"{streams} to {counted(groups, 'group')}", "bold"), f" in {found.seconds:.1f} s on {where}")
    yield from table_lines(found.streams, found.now, around, room, told_apart(PLAIN, found.interfaces))
    if found.queriers is not None:
        yield Line("")
        yield from _querier_lines(found.queriers)
        yield Line("")
        yield from _member_lines(found.members)
        if not found.queriers:
            name = next((each for each in found.interfaces if each != "lo"), "eth0")
            yield Line("")
            yield Line(f"mcast querier -i {shlex.quote(name)} --for 15", style="cyan")
            yield Line("  asks now, if no querier does, and shows the members that answer")
            yield Line("mcast groups", style="cyan")
            yield Line("  lists what this host itself has joined")


def _querier_lines(queriers: Sequence[QuerierSeen]) -> Iterator[Line]:
    if not queriers:
        yield Line(("no querier heard", "bold"), "; the usual one asks every 125 s: --for 130 waits for it")
        return
    yield Line((counted(len(queriers), "querier"), "bold"))
    for each in queriers:
        interval = "" if each.interval is None else f", every {each.interval:.3g} s"
        elected = "elected" if each.is_elected else "not elected"
        yield Line(f"  {each.interface}  {each.address}  {each.protocol}{interval}, {elected}")


def _member_lines(members: Sequence[MemberSeen]) -> Iterator[Line]:
    if not members:
        yield Line(("no member heard", "bold"), "; hosts report when they join, and when a querier asks")
        return
    hosts = len({(each.interface, each.host) for each in members})
    yield Line((f"{counted(len(members), 'membership')} of {counted(hosts, 'host')}", "bold"))
    for each in members[:MEMBERS_SHOWN]:
        only = "from " if each.includes else "not from "
        sources = f" {only}{', '.join(each.sources)}" if each.sources else ""
        yield Line(f"  {each.interface}  {each.group}  {each.host or 'hosts of an older version'}{sources}")
    if len(members) > MEMBERS_SHOWN:
        yield Line(f"  and {counted(len(members) - MEMBERS_SHOWN, 'more membership')}")


def found_object(found: Found, around: Surroundings) -> dict[str, Any]:
    """Return everything as an object of JSON."""
    return {
        "seconds": round(found.seconds, 3),
        "interfaces": list(found.interfaces),
        "joined_groups": found.joined_groups,
        "streams": [stream_object(each, found.now, around) for each in found.streams],
        "queriers": None
        if found.queriers is None
        else [
            {
                "interface": each.interface,
                "address": each.address,
                "protocol": each.protocol,
                "interval": each.interval,
                "elected": each.is_elected,
            }
            for each in found.queriers
        ],
        "members": None
        if found.queriers is None
        else [
            {
                "interface": each.interface,
                "group": each.group,
                "host": each.host or None,
                "mode": "include" if each.includes else "exclude",
                "sources": list(each.sources),
            }
            for each in found.members
        ],
        "limits": list(found.limits),
    }
