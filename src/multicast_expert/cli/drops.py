"""`mcast drops`: shows which datagrams of groups the kernel drops, as it does so. Sends and joins nothing."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.interruption import end_with_reader, until_interrupted
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    command,
    named_interfaces,
    read_endpoints,
    seconds,
)
from multicast_expert.cli.render.drops import Loss, Receivers, loss_lines, loss_object, losses, summary_lines
from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import Drop
from multicast_expert.doctor.host.drops import named_drops
from multicast_expert.system.drops.watch import Watch, open_watch
from multicast_expert.system.groups import group_members, joined_groups, udp_sockets
from multicast_expert.system.interfaces import find_interfaces, scan_interfaces
from multicast_expert.system.listings import UdpSocket

COULD_NOT_TELL = 3
INTERVAL = 1.0
"""Seconds between two looks at what was dropped."""

Wanted = Callable[[Drop], bool]


@command(
    """
    Name groups, or leave them out for all. It asks the Linux kernel for its own verdict, which needs root; it joins and
    sends nothing. Until Ctrl-C or --for ends it, it shows every second what was dropped. At the end it says whether
    anything was lost, and which command explains it; with --json this is one document. Without an ENDPOINT only
    datagrams count as lost that a program of this host expects, by a membership and a port, or that this host sent.

    Exit status 0: nothing was lost; 1: something was; 2: invalid command line; 3: the kernel does not tell.
    """,
    ("mcast drops", "What is lost here, of all groups, until Ctrl-C"),
    ("mcast drops 239.1.2.3:5000 --for 10 --json", "Whether one stream loses anything, for a program"),
)
def run(
    texts: Annotated[
        Sequence[str], Parameter("ENDPOINT...", "group[:port], several, or ranges.", values="endpoint")
    ] = (),
    ifaces: InterfacesOption = (),
    duration: Annotated[float | None, Parameter("--for SECONDS", "Stop after so long.", seconds)] = None,
    as_json: JsonOption = False,
) -> int:
    """Return 0 if nothing was lost, 1 if something was, 3 if the kernel does not tell."""
    endpoints = read_endpoints(texts, needs_port=False)
    wanted = _wanted(endpoints, ifaces)
    try:
        watch = open_watch({endpoint.group for endpoint in endpoints})
    except MulticastExpertError as error:
        terminal.complain(error)
        return COULD_NOT_TELL
    start = time.monotonic()
    end_with_reader()
    with closing(watch):
        found = _follow(watch, wanted, duration, asked=bool(endpoints), live=not as_json)
        limits = watch.limits
    _show(found, time.monotonic() - start, limits, as_json)
    if endpoints and not found:
        _tell_unjoined(endpoints)
    if any(each.expected for each in found):
        return 1
    return COULD_NOT_TELL if any(each.drop.group is None for each in found) else 0


def _wanted(endpoints: Sequence[Endpoint], ifaces: Sequence[str]) -> Wanted:
    """Return the function that chooses the drops of the endpoints on the interfaces; without any of them, all."""
    chosen: list[tuple[Endpoint | None, Collection[str]]] = [
        (endpoint, _names(named_interfaces(endpoint, ifaces))) for endpoint in endpoints
    ] or [(None, _names(ifaces))]

    def wanted(drop: Drop) -> bool:
        return any(
            drop.group is None  # it may be any
            or ((not names or drop.interface in names) and (endpoint is None or _is_of(drop, endpoint)))
            for endpoint, names in chosen
        )

    return wanted


def _names(ifaces: Sequence[str]) -> set[str]:
    return {each.display_name for each in find_interfaces(ifaces)} if ifaces else set()


def _is_of(drop: Drop, endpoint: Endpoint) -> bool:
    return (
        drop.group == str(endpoint.group)
        and (endpoint.port is None or drop.port in (None, endpoint.port))
        and (endpoint.source is None or drop.source in (None, str(endpoint.source)))
    )


def _follow(watch: Watch, wanted: Wanted, seconds: float | None, *, asked: bool, live: bool) -> list[Loss]:
    """Show what is dropped every second until Ctrl-C or so many seconds; return all of it."""
    deadline = None if seconds is None else time.monotonic() + seconds
    receivers = _receivers()
    seen: dict[Drop, int] = {}

    def count() -> None:
        nonlocal receivers
        for_so_long = "; Ctrl-C ends it" if seconds is None else f" for {seconds:g} s"
        terminal.tell(f"counting what the kernel drops{for_so_long}")
        while deadline is None or time.monotonic() < deadline:
            time.sleep(INTERVAL if deadline is None else min(INTERVAL, max(0.0, deadline - time.monotonic())))
            new = _since(seen, watch, wanted)
            receivers = _show_new(new if live else [], receivers, asked=asked)

    if until_interrupted(count):
        terminal.end_line()
    new = _since(seen, watch, wanted)
    receivers = _show_new(new if live else [], receivers, asked=asked)
    everything = [replace(drop, count=times) for drop, times in seen.items()]
    return losses(everything, receivers | _receivers(), asked=asked)


def _show_new(new: Sequence[Drop], receivers: Receivers, *, asked: bool) -> Receivers:
    """Show what was dropped since the last look; return the receivers with those of now."""
    if not new:
        return receivers
    receivers |= _receivers()
    terminal.show_lines(loss_lines(losses(new, receivers, asked=asked)), sys.stdout)
    terminal.flush()
    return receivers


def _since(seen: dict[Drop, int], watch: Watch, wanted: Wanted) -> list[Drop]:
    """Return what was dropped since the last call, and note it in `seen`."""
    names = {iface.index: iface.display_name for iface in scan_interfaces()}
    new = []
    for drop in filter(wanted, named_drops(watch.drops(), names)):
        kind = replace(drop, count=0)
        if grown := drop.count - seen.get(kind, 0):
            new.append(replace(drop, count=grown))
            seen[kind] = drop.count
    return new


def _receivers() -> Receivers:
    sockets = udp_sockets(lambda _: True)
    groups = [each for each in joined_groups(()) if not each.kept_by_system]
    members: dict[IPAddress, set[str]] = defaultdict(set)
    for member in group_members([each for each in sockets if each.address.is_unspecified], groups) if groups else ():
        names = ", ".join(_names_of(member.socket)) or f"a process of user {member.socket.user_id}"
        for membership in member.memberships:
            members[membership.group].add(f"{names} on port {member.socket.port}")
    return Receivers(
        frozenset(each.group for each in groups),
        frozenset(each.port for each in sockets),
        {each.inode: _names_of(each) for each in sockets},
        {group: frozenset(names) for group, names in members.items()},
    )


def _names_of(socket: UdpSocket) -> tuple[str, ...]:
    return tuple(f"{process.name} ({process.pid})" for process in socket.processes)


def _tell_unjoined(endpoints: Sequence[Endpoint]) -> None:
    """Say which groups no program has joined: of those, only what this host sends can be lost."""
    joined = _receivers().groups
    for group in dict.fromkeys(each.group for each in endpoints):
        if group not in joined:
            terminal.tell(f"no program of this host has joined {group}: only what it sends there could be lost")


def _show(found: Sequence[Loss], seconds: float, limits: str, as_json: bool) -> None:
    if as_json:
        document = {"seconds": round(seconds, 3), "drops": [loss_object(each) for each in found], "limits": limits}
        terminal.write_json(document, 2)
    else:
        terminal.show_lines(summary_lines(found, seconds), sys.stdout)
    if limits:
        terminal.tell(f"mcast: warning: {limits}")
