"""Joined groups as lines and as JSON. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from multicast_expert.cli.render.text import Line
from multicast_expert.core.addresses import ethernet_address
from multicast_expert.system.listings import JoinedGroup, Member, Membership, SourceUse, UdpSocket


def group_lines(groups: Sequence[JoinedGroup], members: Sequence[Member] = ()) -> Iterator[Line]:
    """Yield, for every interface and IP version, a line for every group, with its members and sockets below it.

    The groups that only the system uses share a line.
    """
    ordered = sorted(groups, key=_section)
    for (_, name, _), section in groupby(ordered, key=_section):
        there = sorted(section, key=lambda joined: joined.group.packed)
        wanted = [joined for joined in there if not _is_plain(joined)]
        width = max((len(str(joined.group)) for joined in wanted), default=0)
        yield Line((name, "bold"), f"  {_protocol(there[0])}")
        for joined in wanted:
            yield Line(f"  {joined.group!s:<{width}}  {', '.join([*_users(joined), _source_text(joined)])}")
            for member, membership in _members_of(joined, members):
                text = f"    {socket_text(member.socket)}{_wish(membership)}"
                why = member.deafness(membership)
                yield Line((text, ""), (f": never receives it, {why}" if why else "", "red"))
            for each in _others(joined, members):
                yield Line(f"    {socket_text(each)}")
        if kept := ", ".join(str(joined.group) for joined in there if _is_plain(joined)):
            yield Line(f"  by the system itself: {kept}", style="dim")


def _section(joined: JoinedGroup) -> tuple[int, str, int]:
    return joined.interface_index or 0, joined.interface, joined.group.version


def _is_plain(joined: JoinedGroup) -> bool:
    """Return whether only the kernel seems to use the group."""
    return joined.kept_by_system and not joined.sockets


def _protocol(joined: JoinedGroup) -> str:
    name = "IGMP" if joined.group.version == 4 else "MLD"
    return name if joined.protocol_version is None else f"{name}v{joined.protocol_version}"


def _users(joined: JoinedGroup) -> list[str]:
    return [] if joined.users is None else ["joined once" if joined.users == 1 else f"joined {joined.users:,} times"]


def _source_text(joined: JoinedGroup) -> str:
    included, excluded = _source_list(joined, joined.included), _source_list(joined, joined.excluded)
    if not included:
        return f"from all but {excluded}" if excluded else "from all"
    if joined.any_source is False:
        return f"from {included}"
    others = f"all but {excluded}" if excluded else "all"
    return f"from {included}, {'and' if joined.any_source else 'perhaps'} from {others}"


def _source_list(joined: JoinedGroup, sources: Iterable[SourceUse]) -> str:
    """Return the sources, with the number of sockets that name them where it is not all of them."""
    return ", ".join(
        str(each.source) + ("" if each.sockets in (None, joined.users) else f" ({each.sockets} of {joined.users})")
        for each in sources
    )


def socket_text(each: UdpSocket) -> str:
    """Return the port of a socket and the processes that hold it."""
    holders = ", ".join(f"{process.name} ({process.pid})" for process in each.processes)
    return f"port {each.port}: {holders or f'a process of user {each.user_id}'}"


def _members_of(joined: JoinedGroup, members: Sequence[Member]) -> list[tuple[Member, Membership]]:
    return [
        (member, membership)
        for member in members
        for membership in member.memberships
        if (membership.group, membership.interface) == (joined.group, joined.interface)
    ]


def _others(joined: JoinedGroup, members: Sequence[Member]) -> list[UdpSocket]:
    """Return the sockets that are bound to the group, and that could not be looked into."""
    looked_into = {member.socket.inode for member in members}
    return [each for each in joined.sockets or () if each.inode not in looked_into]


def _wish(membership: Membership) -> str:
    """Return from which sources a program receives the group; nothing for all."""
    sources = ", ".join(map(str, membership.sources))
    if membership.includes:
        return f", from {sources or 'no source'}"
    return f", from all but {sources}" if sources else ""


def note_lines(groups: Sequence[JoinedGroup], unbound: Sequence[UdpSocket]) -> Iterator[str]:
    """Yield the limits of the list."""
    if not groups:
        yield "no group is joined"
    if unbound:
        yield "Sockets that are bound to no address; the system does not report which groups they have joined:"
        yield from (f"  {socket_text(each)}" for each in sorted(unbound, key=lambda each: each.port))


def group_object(joined: JoinedGroup, members: Sequence[Member] = ()) -> dict[str, Any]:
    """Return the JSON object of a membership; null stands for facts that the OS does not report."""
    return {
        "group": str(joined.group),
        "interface": joined.interface,
        "interface_index": joined.interface_index,
        "protocol": "IGMP" if joined.group.version == 4 else "MLD",
        "protocol_version": joined.protocol_version,
        "ethernet_address": ethernet_address(joined.group),
        "users": joined.users,
        "by_the_system": joined.kept_by_system,
        "any_source": joined.any_source,
        "included": [_source_object(each) for each in joined.included],
        "excluded": [_source_object(each) for each in joined.excluded],
        "sockets": None if joined.sockets is None else [socket_object(each) for each in joined.sockets],
        "members": [
            {
                "socket": socket_object(member.socket),
                "includes": membership.includes,
                "sources": [str(source) for source in membership.sources],
                "never_receives": member.deafness(membership) or None,
            }
            for member, membership in _members_of(joined, members)
        ],
    }


def _source_object(each: SourceUse) -> dict[str, Any]:
    return {"source": str(each.source), "sockets": each.sockets}


def socket_object(each: UdpSocket) -> dict[str, Any]:
    """Return the JSON object of a socket."""
    return {
        "address": str(each.address),
        "port": each.port,
        "user_id": each.user_id,
        "drops": each.drops,
        "processes": [{"pid": process.pid, "name": process.name} for process in each.processes],
    }
