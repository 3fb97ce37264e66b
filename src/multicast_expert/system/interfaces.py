"""The interfaces of this host, and which of them reaches the internet. Asks the OS, sends nothing."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError, UnknownInterfaceError, warn
from multicast_expert.core.interfaces import (
    IfaceInfo,
    IfaceSpecifier,
    InterfaceChoice,
    choose_interfaces,
    choose_one_interface,
    interface_address_text,
    missing_interface,
)
from multicast_expert.core.specifiers import Readings, readings
from multicast_expert.system import kernel, routes
from multicast_expert.system.kernel import ip_version, os_error
from multicast_expert.system.netlink import RouteAnswer

# Any address of the internet does, because nothing is sent to it. These are public name servers.
_INTERNET = {4: "8.8.8.8", 6: "2001:4860:4860::8888"}
# Stands for all groups: a route for them leads it too. Nothing is sent there.
_SOME_GROUP: dict[int, IPAddress] = {4: IPv4Address("239.255.255.255"), 6: IPv6Address("ff1e::ffff")}


def scan_interfaces() -> list[IfaceInfo]:
    """Return every network interface of this host, by index. Raises MulticastOSError when the OS does not answer."""
    return _asked()


def _asked(meant: Collection[Readings] | None = None) -> list[IfaceInfo]:
    try:
        return kernel.SYSTEM.interfaces(meant)
    except OSError as error:
        raise os_error(kernel.SYSTEM, error, "scan", "look up the network interfaces") from error


def interface_exists(index: int) -> bool:
    """Return whether the OS has an interface of this index. Raises MulticastOSError when the OS does not answer."""
    try:
        return kernel.SYSTEM.has_interface(index)
    except OSError as error:
        raise os_error(kernel.SYSTEM, error, "scan", f"look up interface {index}") from error


def find_interfaces(
    specifiers: Iterable[IfaceSpecifier], *, ifaces: Sequence[IfaceInfo] | None = None
) -> list[IfaceInfo]:
    """Return the interfaces that the specifiers mean, each once, in the order asked for.

    `ifaces`: the interfaces to choose from; without it the OS is asked, unless all specifiers are IfaceInfo objects.
    Raises UnknownInterfaceError for a specifier that fits no interface.
    """
    wanted = list(specifiers)
    return [choice.iface for choice in _choose(choose_interfaces, wanted, ifaces)]


def _ignores_case() -> bool:
    return kernel.SYSTEM.platform.names_ignore_case


def _known(specifiers: Sequence[IfaceSpecifier], ifaces: Sequence[IfaceInfo] | None = None) -> Sequence[IfaceInfo]:
    if ifaces is not None:
        return ifaces
    # Describing an interface costs more than finding it, so the system describes only those that a specifier may mean.
    meant = [readings(specifier) for specifier in specifiers if not isinstance(specifier, IfaceInfo)]
    return _asked([each for each in meant if each is not None]) if meant else ()


def _choose(
    choose: Callable[[Sequence[IfaceSpecifier], Sequence[IfaceInfo], bool, bool], list[InterfaceChoice]],
    specifiers: Sequence[IfaceSpecifier],
    ifaces: Sequence[IfaceInfo] | None = None,
    allow_missing: bool = False,
) -> list[InterfaceChoice]:
    """Choose among the interfaces that the specifiers may mean; if one fits none of them, among all that there are."""
    try:
        return choose(specifiers, _known(specifiers, ifaces), allow_missing, _ignores_case())
    except UnknownInterfaceError:
        if ifaces is not None:
            raise
    return choose(specifiers, scan_interfaces(), allow_missing, _ignores_case())


def _choose_one_for_each(
    specifiers: Sequence[IfaceSpecifier], ifaces: Sequence[IfaceInfo], allow_missing: bool, ignore_case: bool
) -> list[InterfaceChoice]:
    return [choose_one_interface(specifier, ifaces, ignore_case, allow_missing) for specifier in specifiers]


def choose_for_receiving(
    specifiers: Sequence[IfaceSpecifier] | None,
    version: int,
    allow_missing: bool = False,
    may_be_empty: bool = False,
) -> list[InterfaceChoice]:
    """Return the interfaces to listen on: the named ones, or all with an address of the IP version, except loopback.

    Asks the OS once, and again for all interfaces where a specifier fits none. Raises UnknownInterfaceError then, and
    MulticastExpertError when there is none to listen on, unless `allow_missing` or `may_be_empty`.
    """
    if specifiers is not None:
        if len(specifiers) == 1 and isinstance(specifiers[0], IfaceInfo):
            # Nothing is to be asked or compared; programs that open many receivers do this.
            return [InterfaceChoice(specifiers[0])]
        return _choose(choose_interfaces, specifiers, None, allow_missing)
    choices = [
        InterfaceChoice(iface, required=False)
        for iface in scan_interfaces()
        if iface.addresses(version) and not iface.is_localhost()
    ]
    if not (choices or allow_missing or may_be_empty):
        raise MulticastExpertError(
            f"No interface to listen on: only loopback has an IPv{version} address. Name one with iface= "
            "(mcast interfaces lists them)."
        )
    return choices


def choose_for_sending(
    specifiers: Sequence[IfaceSpecifier] | None,
    version: int,
    groups: Sequence[IPAddress] = (),
    allow_missing: bool = False,
) -> list[InterfaceChoice]:
    """Return the interfaces to send from: the named ones, or the one that `find_route` finds for the groups.

    Issues a MulticastWarning for groups that a route leads elsewhere than to the default gateway, and, where the route
    of one group leads them all, for groups without a route. Raises
    MulticastExpertError when there is no interface, unless `allow_missing`, or several fit one specifier.
    """
    if specifiers is not None:
        choices = _choose(_choose_one_for_each, specifiers, None, allow_missing)
        return list({(choice.iface.index, choice.iface.machine_name): choice for choice in choices}.values())
    way = find_route(version, groups)
    if way is not None:
        _warn_of_other_routes(way.choice.iface, way.reason, way.found)
        unrouted = [group for group in groups if group not in way.found]
        # Where each question costs a command, only the first group was asked about.
        if way.is_of_a_group and unrouted and kernel.SYSTEM.routes_are_cheap:
            _warn_of_way(unrouted, way.choice.iface, way.reason, "no route for that")
        return [way.choice]
    if allow_missing:
        return [InterfaceChoice(missing_interface(f"the interface of a default IPv{version} route"))]
    whom = "the group" if groups else "all groups"
    usable = (each for each in scan_interfaces() if each.is_up and each.supports_multicast and not each.is_localhost())
    name = next((each.machine_name for each in usable if each.addresses(version)), "")
    example = f", such as {name} (%{name} behind an endpoint; " if name else " ("
    raise MulticastExpertError(
        f"This host has no default IPv{version} route and none for {whom}, so you have to name an interface with "
        f"iface={example}mcast interfaces lists them)."
    )


class Way(NamedTuple):
    """Where datagrams go when no interface is named."""

    choice: InterfaceChoice
    reason: str
    """What leads there."""
    found: Mapping[IPAddress, RouteAnswer]
    """The routes for the groups."""
    is_of_a_group: bool = False
    """Whether there is no default route, so that the route of one group leads all."""


def find_route(version: int, groups: Sequence[IPAddress]) -> Way | None:
    """Return the interface of the default gateway, or without one that of the first route for a group; else None.

    Without groups, a route for all of them counts, as `ip route add 224.0.0.0/4` makes it.
    """
    default = _default_route(version, None)
    usual = None if default is None else default[1]
    found = routes.group_routes(groups or ([] if usual else [_SOME_GROUP[version]]), usual)
    if default is not None:
        iface, address = default
        choice = InterfaceChoice(iface, ip_address(address) if version == 4 else None)
        return Way(choice, "the interface of the default route", found)
    by_index = {iface.index: iface for iface in scan_interfaces()} if found else {}
    for group, route in found.items():
        leading = by_index.get(route.interface_index)
        if leading is not None:
            own = {entry.ip for entry in leading.addresses(version)}
            source = route.source if version == 4 and route.source in own else None
            led = group if groups else "all groups"
            return Way(InterfaceChoice(leading, source), f"where the route for {led} leads", found, True)
    return None


def warn_of_other_route(group: IPAddress, iface: IfaceInfo) -> None:
    """Issue a MulticastWarning if a route leads the group elsewhere than to the interface that was chosen for all."""
    usual = next((str(entry.ip) for entry in iface.addresses(group.version)), None)
    _warn_of_other_routes(iface, "the interface for all groups", routes.group_routes([group], usual))


def _warn_of_other_routes(iface: IfaceInfo, reason: str, found: Mapping[IPAddress, RouteAnswer]) -> None:
    elsewhere: dict[int, list[IPAddress]] = defaultdict(list)
    for group, route in found.items():
        if route.interface_index != iface.index:
            elsewhere[route.interface_index].append(group)
    if not elsewhere:
        return
    names = {each.index: each.display_name for each in scan_interfaces()}
    for index, groups in elsewhere.items():
        _warn_of_way(groups, iface, reason, f"a route for that out of {names.get(index, index)}")


def _warn_of_way(groups: Sequence[IPAddress], iface: IfaceInfo, reason: str, fact: str) -> None:
    more = f" and {len(groups) - 1} more" if len(groups) > 1 else ""
    warn(
        f"{groups[0]}{more} will be sent out of {iface.display_name}, {reason}, but this host has {fact}: name the "
        "interface that you mean with iface=."
    )


def get_interface_ips(include_ipv4: bool = True, include_ipv6: bool = True) -> list[str]:
    """Return the addresses of all interfaces; IPv6 link-local ones with their scope (`fe80::1%eth0`).

    Issues a MulticastWarning for an address that several interfaces share: as text it names none of them.
    """
    owners: dict[str, list[str]] = defaultdict(list)
    for iface in scan_interfaces():
        for wanted, interfaces in ((include_ipv4, iface.ip4_addrs), (include_ipv6, iface.ip6_addrs)):
            for interface in interfaces if wanted else ():
                owners[interface_address_text(interface)].append(iface.display_name)
    for address, names in owners.items():
        if len(names) > 1:
            warn(f"Interfaces {', '.join(names)} share the address {address}: name the interface instead.")
    return list(owners)


def get_default_gateway_iface_ip_v4(*, ifaces: Sequence[IfaceInfo] | None = None) -> str | None:
    """Return the IPv4 address of the interface that reaches the internet; None without a default route."""
    return get_default_gateway_iface_ip(socket.AF_INET, ifaces=ifaces)


def get_default_gateway_iface_ip_v6(*, ifaces: Sequence[IfaceInfo] | None = None) -> str | None:
    """Return the IPv6 address of the interface that reaches the internet; None without a default route."""
    return get_default_gateway_iface_ip(socket.AF_INET6, ifaces=ifaces)


def get_default_gateway_iface_ip(addr_family: int, *, ifaces: Sequence[IfaceInfo] | None = None) -> str | None:
    """Return the address, of the family, of the interface that reaches the internet; None without a default route."""
    found = _default_route(ip_version(addr_family), ifaces)
    return None if found is None else found[1]


def get_default_gateway_iface(addr_family: int, *, ifaces: Sequence[IfaceInfo] | None = None) -> IfaceInfo | None:
    """Return the interface that reaches the internet over the family; None without a default route.

    It is the routing decision of the OS itself, so policy routing and VPNs count. `ifaces`: the interfaces to choose
    from; without it the OS is asked.
    """
    found = _default_route(ip_version(addr_family), ifaces)
    return None if found is None else found[0]


def _default_route(version: int, ifaces: Sequence[IfaceInfo] | None) -> tuple[IfaceInfo, str] | None:
    address = routes.source_address(version, _INTERNET[version])
    if address is None:
        return None
    packed = ip_address(address).packed
    known = _known([address], ifaces)
    holders = [iface for iface in known if any(own.packed == packed for own in iface.addresses(version))]
    if len(holders) > 1 or kernel.SYSTEM.routes_are_cheap:
        index = routes.interface_index(ip_address(_INTERNET[version]))
        leading = [iface for iface in holders if iface.index == index]
        if not leading and index is not None:
            # The route leads out of one interface with the address of another (`src` of ip-route(8)).
            everywhere = scan_interfaces() if ifaces is None else ifaces
            other = next((iface for iface in everywhere if iface.index == index and iface.addresses(version)), None)
            if other is not None:
                return other, str(other.addresses(version)[0].ip)
        holders = leading or holders
    return (holders[0], address) if holders else None
