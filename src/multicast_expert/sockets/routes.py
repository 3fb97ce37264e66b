"""Routes: where the datagrams of a socket that sends both ways go, and out of which of its interfaces. Never waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from multicast_expert.core.addresses import (
    IPAddress,
    IPv4Or6Address,
    check_socket_address,
    is_multicast,
    parse_group,
    parse_host,
)
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.errors import MulticastExpertError, UnknownInterfaceError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, choose_interfaces, choose_one_interface
from multicast_expert.core.memberships import Attachment
from multicast_expert.core.plan import ANY_HOST
from multicast_expert.core.scopes import Scope, in_scope, split_scope
from multicast_expert.sockets.outlet import Outlet
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.system.kernel import Socket

MOST_WAYS = 4096
"""How many addresses are remembered."""


class Route(NamedTuple):
    """Where a datagram goes, and out of what."""

    outlets: tuple[Outlet, ...]
    address: IPv4Or6Address
    is_group: bool
    origin: tuple[bytes, int] | None = None
    """Source address and interface of a datagram to a host, where routing alone would not do."""
    through: Socket | None = None
    """The socket that received, where the OS takes no other way to choose the source, or there is no outlet."""


class Routes:
    """The routes over one set of outlets; other outlets make another one."""

    def __init__(
        self, version: int, outlets: Mapping[Attachment, Outlet], bound_to: Callable[[str], Socket | None]
    ) -> None:
        """`bound_to` returns the socket that is bound to an address of this host."""
        self._version = version
        self._outlets = outlets
        self._bound_to = bound_to
        self._known: dict[IPv4Or6Address, Route] = {}

    def to(self, address: IPv4Or6Address, iface: IfaceSpecifier | None) -> Route:
        """Return where a datagram to the address goes. Raises MulticastExpertError."""
        if iface is None:
            # What no dictionary takes is no address either.
            with suppress(TypeError):
                known = self._known.get(address)
                if known is not None:
                    return known
        route = self._find(address, iface)
        if iface is None and len(self._known) < MOST_WAYS:
            self._known[address] = route
        return route

    def _find(self, address: IPv4Or6Address, iface: IfaceSpecifier | None) -> Route:
        check_socket_address(address, self._version)
        port = address[1]
        text, scope = split_scope(address[0])
        number = address[3] if len(address) == 4 else 0
        meant = [(str(each), self._outlet_in(text, each)) for each in (scope, number) if each]
        if iface is not None:
            meant.append((_name(iface), self._outlet_of(iface)))
        outlet = meant[0][1] if meant else None
        if any(each is not outlet for _, each in meant):
            names = " and ".join(name for name, _ in meant)
            raise MulticastExpertError(f"The scopes and interfaces that {text} is to leave by differ: {names}.")
        try:
            parsed = ip_address(text)
        except ValueError:
            parsed = parse_host(text, self._version)
        if is_multicast(parsed.packed):
            parse_group(str(parsed), self._version)
            outlets = self._present_outlets() if outlet is None else (outlet,)
            return Route(outlets, (str(parsed), port), True)
        return self._host_route(parse_host(str(parsed), self._version), port, outlet)

    def _outlet_in(self, destination: str, scope: Scope) -> Outlet:
        """Return the outlet that the scope of a destination means. Raises MulticastExpertError."""
        places = [(each, [each.asked.iface, each.choice.iface]) for each in self._outlets.values()]
        try:
            return in_scope(destination, scope, places, kernel.SYSTEM.platform.names_ignore_case)[0]
        except MulticastExpertError:
            # Raises the same as for `iface`, unless that takes what is neither a name nor an index.
            self._outlet_of(scope)
            raise

    def _outlet_of(self, iface: IfaceSpecifier | int) -> Outlet:
        """Return the outlet of an interface of this socket. Raises MulticastExpertError."""
        own = [outlet.choice.iface for outlet in self._outlets.values()]
        ignore_case = kernel.SYSTEM.platform.names_ignore_case
        try:
            index = choose_one_interface(iface, own, ignore_case).iface.index
        except UnknownInterfaceError:
            # Raises the same with all that this host has, if it has none that fits.
            index = choose_interfaces([iface], scan_interfaces(), ignore_case=ignore_case)[0].iface.index
        found = next((each for each in self._outlets.values() if each.choice.iface.index == index), None)
        if found is None:
            names = ", ".join(each.display_name for each in own) or "no interface"
            raise MulticastExpertError(
                f"{_name(iface)} is none of the interfaces of this socket; it sends on: {names}."
            )
        return found

    def _present_outlets(self) -> tuple[Outlet, ...]:
        """Return the outlets to groups: those of interfaces that are there, or that were named."""
        found = tuple(
            outlet for attachment, outlet in self._outlets.items() if attachment.present or attachment.choice.required
        )
        if not found:
            raise MulticastExpertError("No interface of this socket is there to send from.")
        return found

    def _host_route(self, host: IPAddress, port: int, outlet: Outlet | None) -> Route:
        if isinstance(host, IPv4Address):
            self._refuse_broadcast(host)
        chosen = outlet or self._outlet_towards(host)
        index = chosen.choice.iface.index
        if isinstance(host, IPv6Address):
            only_one = outlet is not None or len(self._outlets) == 1
            return Route(
                (chosen,),
                (str(host), port, 0, index if host.is_link_local and only_one else 0),
                False,
                None if outlet is None else (_source(chosen, 6), index),
            )
        return Route((chosen,), (str(host), port), False, None if outlet is None else (_source(chosen, 4), index))

    def _outlet_towards(self, host: IPAddress) -> Outlet:
        """Return the outlet on the host's network, else the first."""
        outlets = self._present_outlets()
        for outlet in outlets:
            if any(host in own.network for own in outlet.choice.iface.addresses(self._version)):
                return outlet
        return outlets[0]

    def _refuse_broadcast(self, host: IPv4Address) -> None:
        for outlet in self._outlets.values():
            for own in outlet.choice.iface.ip4_addrs:
                if own.network.prefixlen < 31 and host == own.network.broadcast_address:
                    raise MulticastExpertError(f"{host} is a broadcast address; send to a group or to a host.")

    def back(self, datagram: Datagram) -> Route:
        """Return where a reply to a datagram goes: out of the interface it came in on. Raises MulticastExpertError."""
        if not isinstance(datagram, Datagram):
            raise MulticastExpertError(f"{datagram!r} is not a Datagram to reply to.")
        index = datagram.interface_index
        sender: IPv4Or6Address = tuple(datagram.sender)  # type: ignore[assignment]  # a stored one may be a list
        outlets = self._outlets.values()
        outlet = next((each for each in outlets if each.choice.iface.index == index), None)
        if outlet is None and datagram.interface_name is not None:
            # It came before its interface was deleted and came back.
            name = datagram.interface_name
            outlet = next((each for each in outlets if each.choice.iface.display_name == name), None)
        if outlet is not None:
            index = outlet.choice.iface.index
        to_host = datagram.destination if datagram.group is None else None
        through = None
        if to_host is not None and not self._outlets:
            through = self._bound_to(to_host) or self._bound_to(ANY_HOST)
        elif to_host is not None and self._version not in kernel.SYSTEM.platform.origin_control:
            through = self._bound_to(to_host)
        chosen: tuple[Outlet, ...] = ()
        if outlet is not None:
            chosen = (outlet,)
        elif through is None or self._outlets:
            chosen = (self._outlet_towards(ip_address(sender[0].partition("%")[0])),)
        source = _source(chosen[0], self._version) if to_host is None else ip_address(to_host).packed
        if len(sender) == 4:
            scope = (index or 0) if sender[3] else 0
            sender = sender[0].partition("%")[0], sender[1], sender[2], scope
        return Route(chosen, sender, False, (source, index or 0), through)


def _name(iface: IfaceSpecifier) -> str:
    return iface.display_name if isinstance(iface, IfaceInfo) else str(iface)


def _source(outlet: Outlet, version: int) -> bytes:
    """Return the source of what leaves an interface, packed; zeros leave it to the OS."""
    source = outlet.choice.source_address(version)
    return bytes(4 if version == 4 else 16) if source is None else source.packed
