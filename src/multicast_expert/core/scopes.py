"""The scope of a group, and which of a socket's interfaces it means. Pure: touches no OS.

A scope (a zone in RFC 4007) says on which interface an address is meant: a name or an index behind a percent sign
(`ff02::5%eth1`, `ff02::5%3`), or the last number of an IPv6 socket address. Here it chooses among the interfaces that a
socket has, and nothing else: a scope that means none of them is an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from ipaddress import IPv6Address
from typing import NamedTuple, TypeAlias, TypeVar

from multicast_expert.core.addresses import IPAddress, MulticastAddress, listed, parse_group
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo, has_name

Scope: TypeAlias = str | int
"""The name of an interface or its index as text, or its index as a number."""
Place = TypeVar("Place")


class ScopedGroup(NamedTuple):
    """A group as a program names it."""

    group: IPAddress
    scope: str | None = None
    """What stood behind the percent sign; None: all interfaces of the socket."""


def parse_scoped_group(group: MulticastAddress, version: int | None = None) -> ScopedGroup:
    """Return the group and its scope; `%0` is none. Raises MulticastExpertError as `parse_group` does."""
    if isinstance(group, str):
        return _parse_text(group, version)
    scope = group.scope_id if isinstance(group, IPv6Address) else None
    return _parse_text(str(group), version) if scope else ScopedGroup(parse_group(group, version))


@lru_cache(maxsize=16384)
def _parse_text(group: str, version: int | None) -> ScopedGroup:
    text, scope = split_scope(group)
    return ScopedGroup(parse_group(text, version), scope)


def split_scope(address: MulticastAddress) -> tuple[str, str | None]:
    """Return the address and its scope as text; `%0` is none. With an empty scope, all is the address: it is none."""
    text, _, scope = str(address).partition("%")
    return (text, None if scope == "0" else scope) if scope else (str(address), None)


def parse_scoped_groups(
    groups: Iterable[MulticastAddress], version: int, may_be_empty: bool = False
) -> list[ScopedGroup]:
    """Return the groups and scopes, each once, in order. Raises MulticastExpertError, also for none at all."""
    parsed = [parse_scoped_group(group, version) for group in listed(groups, "mcast_ips")]
    if not (parsed or may_be_empty):
        raise MulticastExpertError("mcast_ips is empty: name at least one group.")
    return parsed if len(parsed) < 2 else list(dict.fromkeys(parsed))


def in_scope(
    group: object,
    scope: Scope,
    places: Iterable[tuple[Place, Sequence[IfaceInfo]]],
    ignore_case: bool = False,
) -> list[Place]:
    """Return the places that the scope means, by their names, else by their indexes.

    `places`: what may be meant, each with the interfaces that it stands for. Raises MulticastExpertError for a scope
    that means none of them.
    """
    known = list(places)
    by_name = [
        place
        for place, ifaces in known
        if isinstance(scope, str) and scope and any(has_name(iface, scope, ignore_case) for iface in ifaces)
    ]
    found = by_name or [
        place for place, ifaces in known if any(iface.index and str(iface.index) == str(scope) for iface in ifaces)
    ]
    if not found:
        names = ", ".join(
            f"{iface.display_name} (index {iface.index})" if iface.index else f"{iface.display_name} (missing)"
            for _, ifaces in known
            for iface in dict.fromkeys(ifaces)
        )
        raise MulticastExpertError(
            f"The scope {scope} of {group} is none of the interfaces that this socket has for it: {names or 'none'}."
        )
    return found
