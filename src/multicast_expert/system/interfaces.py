"""Asks the OS which interfaces there are and which one reaches the internet. Touches the OS, sends nothing."""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import lru_cache
from importlib import import_module
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface, ip_address
from struct import Struct
from typing import Any, NamedTuple

import psutil

from multicast_expert.core.errors import MulticastExpertError, warn
from multicast_expert.core.interfaces import (
    IfaceInfo,
    IfaceSpecifier,
    InterfaceChoice,
    choose_interfaces,
    choose_one_interface,
    interface_address_text,
)
from multicast_expert.system import routes
from multicast_expert.system.kernel import SYSTEM, ip_version

# Any address of the internet does: nothing is sent to it. These are public name servers.
_INTERNET = {4: "8.8.8.8", 6: "2001:4860:4860::8888"}

# netdevice(7); the numbers are those of linux/sockios.h and linux/if.h.
_SIOCGIFFLAGS = 0x8913
_SIOCGIFMTU = 0x8921
_IFF_UP_AND_RUNNING = 0x1 | 0x40
_IFF_LOOPBACK = 0x8
_IFF_MULTICAST = 0x1000
_IFREQ_NAME = Struct("16s24x")
_IFREQ_FLAGS = Struct("=16xH22x")
_IFREQ_MTU = Struct("=16xi20x")


class _Identity(NamedTuple):
    """What names an interface in the OS."""

    machine_name: str
    interface_index: int
    prefixes: Mapping[str, int] = {}
    """Address to prefix length, where psutil does not know it."""


class _Link(NamedTuple):
    """The state of an interface; what the OS does not say is assumed to be as usual."""

    is_up: bool = True
    supports_multicast: bool = True
    is_loopback: bool = False
    mtu: int | None = None


def scan_interfaces() -> list[IfaceInfo]:
    """Return every network interface of this host, by index."""
    return _describe(_addresses())


def _addresses() -> dict[str, list[Any]]:
    """Return what psutil knows by interface name; Linux names an address with a label like an interface: eth0:1."""
    found: dict[str, list[Any]] = {}
    for label, entries in psutil.net_if_addrs().items():
        name = label.partition(":")[0] if SYSTEM.platform.name == "linux" else label
        found.setdefault(name, []).extend(entries)
    return found


def _describe(addresses: Mapping[str, Iterable[Any]]) -> list[IfaceInfo]:
    """Return the interfaces of these names; one that vanished in between is left out."""
    linux = SYSTEM.platform.name == "linux"
    identities = _windows_identities() if SYSTEM.platform.name == "windows" else _unix_identities(addresses)
    links = _linux_links(addresses) if linux else _links()
    found = [
        _interface(name, identities[name], entries, links.get(name, _Link()))
        for name, entries in addresses.items()
        if name in identities
    ]
    return sorted(found, key=lambda iface: iface.index)


def _unix_identities(names: Iterable[str]) -> dict[str, _Identity]:
    identities = {}
    for name in names:
        with suppress(OSError):
            identities[name] = _Identity(name, socket.if_nametoindex(name))
    return identities


def _windows_identities() -> dict[str, _Identity]:
    """Return GUID, index and prefix lengths by friendly name: psutil knows none of them on Windows."""
    import ifaddr  # noqa: PLC0415 - a dependency on Windows only

    identities = {}
    for adapter in ifaddr.get_adapters():
        prefixes = {
            entry.ip if isinstance(entry.ip, str) else entry.ip[0]: entry.network_prefix for entry in adapter.ips
        }
        if adapter.ips and adapter.index is not None:
            identities[adapter.ips[0].nice_name] = _Identity(adapter.name, adapter.index, prefixes)
    return identities


def _links() -> dict[str, _Link]:
    links = {}
    for name, stats in psutil.net_if_stats().items():
        flags = stats.flags.split(",") if stats.flags else []
        loopback = "loopback" in flags
        # Windows gives no flags; every adapter with an address does multicast there.
        links[name] = _Link(stats.isup, not flags or loopback or "multicast" in flags, loopback, stats.mtu or None)
    return links


def _linux_links(names: Iterable[str]) -> dict[str, _Link]:
    """Return flags and MTU by netdevice(7): psutil can only ask for all interfaces at once, and asks more of each."""
    fcntl: Any = import_module("fcntl")
    links = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as query:
        for name in names:
            request = _IFREQ_NAME.pack(name.encode())
            with suppress(OSError):
                (flags,) = _IFREQ_FLAGS.unpack(fcntl.ioctl(query, _SIOCGIFFLAGS, request))
                (mtu,) = _IFREQ_MTU.unpack(fcntl.ioctl(query, _SIOCGIFMTU, request))
                loopback = bool(flags & _IFF_LOOPBACK)
                up = flags & _IFF_UP_AND_RUNNING == _IFF_UP_AND_RUNNING
                links[name] = _Link(up, loopback or bool(flags & _IFF_MULTICAST), loopback, mtu)
    return links


def _interface(name: str, identity: _Identity, entries: Iterable[Any], state: _Link) -> IfaceInfo:
    ipv4: dict[str, IPv4Interface] = {}
    ipv6: dict[str, IPv6Interface] = {}
    link = None
    for entry in entries:
        if entry.family == socket.AF_INET:
            ipv4[entry.address] = IPv4Interface(
                (entry.address, entry.netmask or identity.prefixes.get(entry.address, 32))
            )
        elif entry.family == socket.AF_INET6:
            bare = entry.address.partition("%")[0]
            # On Windows psutil has no IPv6 masks (some have the IPv4 mask of the address before) and no scopes.
            masked = entry.netmask is not None and ":" in entry.netmask
            prefix = _prefix_length(entry.netmask) if masked else identity.prefixes.get(bare, 128)
            own = IPv6Interface((entry.address, prefix))
            if own.is_link_local and own.scope_id is None:
                own = IPv6Interface((f"{bare}%{identity.interface_index}", prefix))
            ipv6[entry.address] = own
        elif entry.family == psutil.AF_LINK and entry.address.strip("0:-"):
            link = entry.address
    return IfaceInfo(
        identity.machine_name, identity.interface_index, link, tuple(ipv4.values()), tuple(ipv6.values()), name, *state
    )


@lru_cache(maxsize=256)
def _prefix_length(netmask: str) -> int:
    return int(IPv6Address(netmask)).bit_count()


def interface_exists(index: int) -> bool:
    """Return whether the OS has an interface of this index; a scan may miss one that is being renamed."""
    try:
        socket.if_indextoname(index)
    except OSError:
        return False
    return True


def find_interfaces(
    specifiers: Iterable[IfaceSpecifier], *, ifaces: Sequence[IfaceInfo] | None = None
) -> list[IfaceInfo]:
    """Return the interfaces that the specifiers mean, each once, in the order asked for.

    `ifaces`: where to look, else the OS is asked; it is not asked when all specifiers are IfaceInfo objects. Raises
    MulticastExpertError for a specifier that fits no interface.
    """
    wanted = list(specifiers)
    return [choice.iface for choice in choose_interfaces(wanted, _known(wanted, ifaces))]


def _known(specifiers: Sequence[IfaceSpecifier], ifaces: Sequence[IfaceInfo] | None = None) -> Sequence[IfaceInfo]:
    if ifaces is not None:
        return ifaces
    texts = [specifier for specifier in specifiers if type(specifier) is not IfaceInfo]
    if not texts:
        return ()
    addresses = _addresses()
    # Describing an interface costs more than finding it, so only those are described that a specifier may mean.
    meant = {_without_scope(text) for text in texts}
    some = {
        name: entries
        for name, entries in addresses.items()
        if name in meant or any(entry.address.partition("%")[0] in meant for entry in entries)
    }
    if SYSTEM.platform.name == "windows" or not some:
        return _describe(addresses)
    return _describe(some)


def _without_scope(specifier: object) -> str:
    """Return an address as the OS spells it, without its scope; a name as it is."""
    text = str(specifier)
    with suppress(ValueError):
        return str(ip_address(text.partition("%")[0]))
    return text


def choose_for_receiving(
    specifiers: Sequence[IfaceSpecifier] | None, version: int, allow_missing: bool = False
) -> list[InterfaceChoice]:
    """Return the interfaces to listen on: the named ones, or all with an address of the IP version, except loopback.

    Asks the OS once at most. Raises MulticastExpertError when there is none, unless `allow_missing`.
    """
    if specifiers is not None:
        return choose_interfaces(specifiers, _known(specifiers), allow_missing)
    choices = [
        InterfaceChoice(iface, required=False)
        for iface in scan_interfaces()
        if iface.addresses(version) and not iface.is_localhost()
    ]
    if not choices and not allow_missing:
        raise MulticastExpertError(
            f"No interface to listen on: none but loopback has an IPv{version} address. Name one with iface= "
            "(mcast interfaces lists them)."
        )
    return choices


def choose_for_sending(specifiers: Sequence[IfaceSpecifier] | None, version: int) -> list[InterfaceChoice]:
    """Return the interfaces to send from: the named ones, or that of the default gateway.

    Asks the OS once at most. Raises MulticastExpertError when there is none, or several fit one specifier.
    """
    if specifiers is not None:
        known = _known(specifiers)
        choices = [choose_one_interface(specifier, known) for specifier in specifiers]
        return list({choice.iface.index: choice for choice in choices}.values())
    found = _default_route(version, None)
    if found is None:
        raise MulticastExpertError(
            f"No interface was named, and this host has no default IPv{version} route that would tell one. Name it "
            "with iface= (mcast interfaces lists them)."
        )
    iface, address = found
    return [InterfaceChoice(iface, ip_address(address) if version == 4 else None)]


def get_interface_ips(include_ipv4: bool = True, include_ipv6: bool = True) -> list[str]:
    """Return the addresses of all interfaces; IPv6 link-local ones with their scope (`fe80::1%eth0`).

    Issues a MulticastWarning for an address that several interfaces share: as text it says neither of them.
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

    It is the routing decision of the OS itself, so policy routing and VPNs count. `ifaces`: where to look, else the OS
    is asked.
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
    # Netlink answers in microseconds; elsewhere a command or a library would have to be loaded for it.
    if len(holders) > 1 or SYSTEM.platform.name == "linux":
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
