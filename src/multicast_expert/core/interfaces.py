"""IfaceInfo, and which interface a specifier means among those given. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import NamedTuple, TypeAlias

from multicast_expert.core.addresses import LOCALHOST_IPV4, LOCALHOST_IPV6, IPAddress
from multicast_expert.core.errors import MulticastExpertError

_LOCALHOSTS = (IPv4Address(LOCALHOST_IPV4).packed, IPv6Address(LOCALHOST_IPV6).packed)


@dataclass(frozen=True, slots=True)
class IfaceInfo:
    """A network interface of this host, as it was when it was looked up."""

    machine_name: str
    """Its unique name: `eth0` on Unix, a GUID such as `{E61AD7AD-…}` on Windows."""
    index: int
    """Its number in the OS, unique on this host."""
    link_layer_address: str | None
    """Its Ethernet (or other link) address, as text; None where it has none."""
    ip4_addrs: Sequence[IPv4Interface]
    """Its IPv4 addresses with their prefix lengths."""
    ip6_addrs: Sequence[IPv6Interface]
    """Its IPv6 addresses with their prefix lengths; link-local ones carry the scope (`fe80::1%eth0`)."""
    friendly_name: str = ""
    """The name that people know it by: `Ethernet 2` on Windows, the same as `machine_name` elsewhere."""
    is_up: bool = True
    """Whether it is switched on and has a carrier."""
    supports_multicast: bool = True
    """Whether the OS marks it as able to do multicast. The loopback interface of Linux works without the mark."""
    is_loopback: bool = False
    """Whether the OS marks it as a loopback interface."""
    mtu: int | None = None
    """The largest packet it carries, in bytes; None where the OS does not say."""
    master: int | None = None
    """The index of the bridge, bond or team that it is a port of, which gets its packets; None: of none, or unknown."""

    def is_localhost(self) -> bool:
        """Whether this is the loopback interface: marked as one, or holding 127.0.0.1 or ::1."""
        return self.is_loopback or any(
            address.packed in _LOCALHOSTS for addresses in (self.ip4_addrs, self.ip6_addrs) for address in addresses
        )

    def ip_addrs(self, family: int) -> Sequence[IPv4Interface] | Sequence[IPv6Interface]:
        """Return its addresses of one family (`socket.AF_INET` or `socket.AF_INET6`).

        Raises KeyError for any other family.
        """
        # AF_INET is 2 on every system; AF_INET6 is 10 on Linux, 23 on Windows, 28 on FreeBSD, 30 on macOS.
        if family == 2:
            return self.ip4_addrs
        if family in (10, 23, 28, 30):
            return self.ip6_addrs
        raise KeyError(f"{family} is neither AF_INET nor AF_INET6")

    def addresses(self, version: int) -> Sequence[IPv4Interface] | Sequence[IPv6Interface]:
        """Return its addresses of one IP version, 4 or 6."""
        return self.ip4_addrs if version == 4 else self.ip6_addrs

    @property
    def display_name(self) -> str:
        """The name to show to people."""
        return self.friendly_name or self.machine_name


IfaceSpecifier: TypeAlias = str | IPv4Address | IPv6Address | IfaceInfo
"""An address of the interface (text or object; the IPv6 scope is optional), its name, or an IfaceInfo."""
_SPECIFIERS = (IfaceInfo, str, IPv4Address, IPv6Address)


def missing_interface(name: str) -> IfaceInfo:
    """Return what stands for an interface that is not there (yet): its index is 0, as no real one has."""
    return IfaceInfo(name, 0, None, (), (), is_up=False)


class InterfaceChoice(NamedTuple):
    """An interface that a socket uses, and the address of it that the user named, if one was named."""

    iface: IfaceInfo
    address: IPAddress | None = None
    required: bool = True
    """Whether the user named it; one that was only part of "all interfaces" may be skipped."""

    def source_address(self, version: int) -> IPAddress | None:
        """Return the address that datagrams of this IP version leave with; None leaves it to the OS."""
        if self.address is not None and self.address.version == version:
            return self.address
        addresses = self.iface.ip4_addrs if version == 4 else ()
        return addresses[0].ip if addresses else None


def interface_address_text(interface: IPv4Interface | IPv6Interface) -> str:
    """Return the address without its prefix length, with its scope: `fe80::1%eth0`."""
    return str(interface.ip) if isinstance(interface, IPv4Interface) else IPv6Address.__str__(interface)


def choose_interfaces(
    specifiers: Iterable[IfaceSpecifier],
    ifaces: Sequence[IfaceInfo],
    allow_missing: bool = False,
    ignore_case: bool = False,
) -> list[InterfaceChoice]:
    """Return the interfaces among `ifaces` that the specifiers mean; each once, in the order of the specifiers.

    Raises MulticastExpertError for a specifier that fits none; with `allow_missing`, an unknown name or address stands
    for the interface that will have it. `ignore_case`: "ethernet 2" names `Ethernet 2`, as on Windows.
    """
    choices: dict[tuple[int, str], InterfaceChoice] = {}
    for specifier in specifiers:
        missing = _missing(specifier, ifaces, ignore_case) if allow_missing else None
        for choice in [missing] if missing is not None else _matches(specifier, ifaces, ignore_case):
            choices.setdefault((choice.iface.index, choice.iface.machine_name), choice)
    return list(choices.values())


def _missing(specifier: IfaceSpecifier, ifaces: Sequence[IfaceInfo], ignore_case: bool) -> InterfaceChoice | None:
    """Return what stands for an interface that is not there yet; None where the specifier fits one, or never will."""
    if isinstance(specifier, IfaceInfo) or not isinstance(specifier, _SPECIFIERS) or not str(specifier):
        return None
    try:
        _matches(specifier, ifaces, ignore_case)
    except MulticastExpertError:
        return InterfaceChoice(missing_interface(str(specifier)), _address(specifier))
    return None


def has_name(iface: IfaceInfo, name: str, ignore_case: bool) -> bool:
    """Return whether the interface goes by this name."""
    names = (iface.machine_name, iface.friendly_name)
    return name in names or (ignore_case and name.casefold() in map(str.casefold, names))


def choose_one_interface(
    specifier: IfaceSpecifier, ifaces: Sequence[IfaceInfo], ignore_case: bool = False, allow_missing: bool = False
) -> InterfaceChoice:
    """Return the only interface that the specifier fits, else raise MulticastExpertError.

    `allow_missing`: as in `choose_interfaces`.
    """
    missing = _missing(specifier, ifaces, ignore_case) if allow_missing else None
    if missing is not None:
        return missing
    choices = _matches(specifier, ifaces, ignore_case)
    if len(choices) > 1:
        names = ", ".join(choice.iface.display_name for choice in choices)
        raise MulticastExpertError(
            f"Interface specifier {specifier} fits several interfaces: {names}. Pass the name of one of them, or its "
            "IfaceInfo (scan_interfaces() lists them)."
        )
    return choices[0]


def _matches(specifier: IfaceSpecifier, ifaces: Sequence[IfaceInfo], ignore_case: bool) -> list[InterfaceChoice]:
    if isinstance(specifier, IfaceInfo):
        return [InterfaceChoice(specifier)]
    if isinstance(specifier, str):
        named = [iface for iface in ifaces if specifier and has_name(iface, specifier, ignore_case)]
        if named:
            return [InterfaceChoice(iface) for iface in named]
    address = _specifier_address(specifier, ifaces)
    scope = address.scope_id if isinstance(address, IPv6Address) else None
    choices = [
        InterfaceChoice(iface, address)
        for iface in ifaces
        if any(own.packed == address.packed for own in iface.addresses(address.version))
        and (scope in (None, str(iface.index)) or has_name(iface, str(scope), ignore_case))
    ]
    if not choices:
        raise MulticastExpertError(
            f"No matches found for interface IP address {specifier}. {_known_addresses(ifaces, address.version)}"
        )
    return choices


def _address(specifier: object) -> IPAddress | None:
    if isinstance(specifier, str | IPv4Address | IPv6Address):
        try:
            return ip_address(specifier)
        except ValueError:
            pass
    return None


def _specifier_address(specifier: object, ifaces: Sequence[IfaceInfo]) -> IPAddress:
    address = _address(specifier)
    if address is not None:
        return address
    names = ", ".join(iface.display_name for iface in ifaces)
    raise MulticastExpertError(
        f"{specifier!r} does not appear to be a valid interface name or IP address. Interfaces here: {names or 'none'}."
    )


def _known_addresses(ifaces: Sequence[IfaceInfo], version: int) -> str:
    known = [
        f"{interface_address_text(interface)} ({iface.display_name})"
        for iface in ifaces
        for interface in iface.addresses(version)
    ]
    return f"IPv{version} addresses here: {', '.join(known) or 'none'}."


def one_spelling(**keywords: IfaceSpecifier | Iterable[IfaceSpecifier] | None) -> list[IfaceSpecifier] | None:
    """Return the specifiers of the one keyword that was given, None when none was; a plural keyword takes a list.

    Raises MulticastExpertError when several keywords were given, a list without an entry, or one value where a list
    belongs.
    """
    given = [name for name, value in keywords.items() if value is not None]
    if not given:
        return None
    if len(given) > 1:
        raise MulticastExpertError(f"{' and '.join(given)} say the same thing twice: give one of them.")
    name = given[0]
    value = keywords[name]
    if isinstance(value, _SPECIFIERS):
        if not name.endswith("s"):
            return [value]
        value = None
    if not name.endswith("s") or not isinstance(value, Iterable):
        kind = "takes a list of interfaces" if name.endswith("s") else "takes one interface"
        raise MulticastExpertError(f"{name} {kind}, not {keywords[name]!r}.")
    specifiers = list(value)
    if not specifiers:
        raise MulticastExpertError(f"{name} is empty: name at least one interface, or leave it out.")
    return specifiers
