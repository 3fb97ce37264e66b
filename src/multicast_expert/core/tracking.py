"""Where an interface that a program asked for is now: by its index, its name or its address. Pure: touches no OS.

An interface keeps its index while it lives, whatever its name; when it is deleted and comes back, only the name is
left. One that was asked for by address is wherever the address is. The packets of a port of a bridge, a bond or a team
belong to that master, so a socket has to be there.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from ipaddress import IPv6Address
from types import MappingProxyType
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice, has_name

_DEEPEST = 8
"""Masters of masters: the kernel allows no more."""

_NO_NAMES: Mapping[int, str] = MappingProxyType({})


class Place(NamedTuple):
    """Where an interface that was asked for is now."""

    asked: IfaceInfo
    """The interface with the index, the name or the address."""
    used: IfaceInfo
    """The one that gets its packets: itself, or the bridge, bond or team that it is a port of."""

    def choice(self, asked: InterfaceChoice) -> InterfaceChoice:
        """Return the interface to use, with the address that was asked for if it has that."""
        address = asked.address if asked.address is not None and holds(self.used, asked.address) else None
        return InterfaceChoice(self.used, address, asked.required)

    def reason(self, asked: InterfaceChoice, before: IfaceInfo) -> str:
        """Return in words why it is used now, and not the one of before."""
        if self.asked.index != self.used.index:
            return f"{self.asked.display_name} is a port of it"
        if asked.address is not None and holds(self.used, asked.address):
            return f"it has the address {asked.address} now"
        return f"it is no port of {before.display_name} any more"


def asked_name(asked: InterfaceChoice) -> str:
    """Return how to call what was asked for: by its address, if it was asked for by that, else by its name."""
    return asked.iface.display_name if asked.address is None else str(asked.address)


def holds(iface: IfaceInfo, address: IPAddress) -> bool:
    """Return whether the interface has the address; a scope in it has to be that of the interface."""
    scope = address.scope_id if isinstance(address, IPv6Address) else None
    return any(own.packed == address.packed for own in iface.addresses(address.version)) and (
        scope is None or scope == str(iface.index) or has_name(iface, scope, False)
    )


def locate(asked: InterfaceChoice, by_index: Mapping[int, IfaceInfo], ignore_case: bool = False) -> Place | None:
    """Return where an interface is among those of now, by their index; None if it is missing.

    `asked`: the interface as it was last seen, with the index 0 while it is missing, and the address that it was asked
    for by, if any. If no interface has that address, the interface itself counts.
    """
    found = by_index.get(asked.iface.index)
    address = asked.address
    if address is not None and (found is None or not holds(found, address)):
        found = next((iface for iface in by_index.values() if holds(iface, address)), found)
    if found is None and not asked.iface.index:
        found = _by_name(asked.iface.machine_name, by_index.values(), ignore_case)
    return None if found is None else Place(found, master(found, by_index))


def _by_name(name: str, ifaces: Iterable[IfaceInfo], ignore_case: bool) -> IfaceInfo | None:
    named = [iface for iface in ifaces if has_name(iface, name, ignore_case)]
    return next((iface for iface in named if iface.machine_name == name), named[0] if named else None)


def master(iface: IfaceInfo, by_index: Mapping[int, IfaceInfo]) -> IfaceInfo:
    """Return the interface that gets the packets of this one: the last of its masters, or itself."""
    for _ in range(_DEEPEST):
        if iface.master is None or iface.master not in by_index:
            break
        iface = by_index[iface.master]
    return iface


def seen(
    asked: InterfaceChoice, by_index: Mapping[int, IfaceInfo], is_deleted: bool, names: Mapping[int, str] = _NO_NAMES
) -> InterfaceChoice:
    """Return what was asked for as it is seen now; once its interface is deleted, its name is all that is left.

    `names`: those that deleted interfaces had at last.
    """
    if is_deleted:
        name = names.get(asked.iface.index, asked.iface.machine_name)
        return asked._replace(iface=replace(asked.iface, index=0, machine_name=name))
    return asked._replace(iface=by_index.get(asked.iface.index, asked.iface))
