"""IfaceInfo, and which interface a specifier means among those given. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network
from typing import NamedTuple, TypeAlias

from multicast_expert.core.addresses import LOCALHOST_IPV4, LOCALHOST_IPV6, IPAddress
from multicast_expert.core.errors import MulticastExpertError, UnknownInterfaceError
from multicast_expert.core.specifiers import Readings, Text, hardware_digits, readings

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
    alternative_names: Sequence[str] = ()
    """Further names of it, on Linux (`ip link property add`)."""
    labels: Sequence[tuple[str, IPv4Address]] = ()
    """Names of single addresses of it, on Linux: `eth0:1`, which older programs take for an interface."""
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


IfaceSpecifier: TypeAlias = Text | IfaceInfo
"""A name of the interface, its index, an address of it (the IPv6 scope is optional), a network that it has an address
in, its MAC address, or an IfaceInfo. All but the last may be text."""
_SPECIFIERS = (IfaceInfo, str, int, IPv4Address, IPv6Address, IPv4Network, IPv6Network)


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

    Raises UnknownInterfaceError for a specifier that fits none; with `allow_missing`, an unknown name or address stands
    for the interface that will have it. `ignore_case`: "ethernet 2" names `Ethernet 2`, as on Windows.
    """
    choices: dict[tuple[int, str], InterfaceChoice] = {}
    for specifier in specifiers:
        if isinstance(specifier, IfaceInfo):
            found = [InterfaceChoice(specifier)]
        else:
            found = _meant(specifier, ifaces, allow_missing, ignore_case)
        for choice in found:
            choices.setdefault((choice.iface.index, choice.iface.machine_name), choice)
    return list(choices.values())


def _meant(
    specifier: IfaceSpecifier, ifaces: Sequence[IfaceInfo], allow_missing: bool, ignore_case: bool
) -> list[InterfaceChoice]:
    """Return the interfaces that the specifier fits, or what stands for one that is missing, or raise."""
    found = fitting(specifier, ifaces, ignore_case)
    if not found and allow_missing and (missing := _missing(specifier)) is not None:
        return [missing]
    if not found:
        raise _unknown(specifier, ifaces)
    return found


def _missing(specifier: IfaceSpecifier) -> InterfaceChoice | None:
    """Return what stands for the interface that will have this name or address; None where the text is neither."""
    meant = None if isinstance(specifier, IfaceInfo) else readings(specifier)
    if meant is None or meant.number is not None or meant.hardware:
        return None
    if meant.address is not None:
        return InterfaceChoice(missing_interface(str(specifier)), meant.address)
    if meant.network is not None or not meant.names:
        return None
    return InterfaceChoice(missing_interface(meant.names[-1]))


def choose_one_interface(
    specifier: IfaceSpecifier, ifaces: Sequence[IfaceInfo], ignore_case: bool = False, allow_missing: bool = False
) -> InterfaceChoice:
    """Return the only interface that the specifier fits; `allow_missing` as in `choose_interfaces`.

    Raises UnknownInterfaceError where it fits none, MulticastExpertError where it fits several.
    """
    choices = _meant(specifier, ifaces, allow_missing, ignore_case)
    if len(choices) > 1:
        names = ", ".join(choice.iface.display_name for choice in choices)
        raise MulticastExpertError(
            f"Interface specifier {specifier} fits several interfaces: {names}. Pass the name of one of them, or its "
            "IfaceInfo (scan_interfaces() lists them)."
        )
    return choices[0]


def means_any(specifier: IfaceSpecifier) -> bool:
    """Return whether it is 0.0.0.0 or ::, which stand for any interface, as if none was named."""
    if isinstance(specifier, IfaceInfo):
        return False
    meant = readings(specifier)
    return meant is not None and meant.means_any


def has_name(iface: IfaceInfo, name: str, ignore_case: bool) -> bool:
    """Return whether the interface goes by this name."""
    names = (iface.machine_name, iface.friendly_name, *iface.alternative_names)
    return name in names or (ignore_case and name.casefold() in map(str.casefold, names))


def fitting(specifier: IfaceSpecifier, ifaces: Sequence[IfaceInfo], ignore_case: bool = False) -> list[InterfaceChoice]:
    """Return the interfaces that the specifier fits, none where it fits none.

    A text is read as a name first, then as the label of an address, an index, an address or a network, and a MAC
    address. The first reading that fits an interface is what is meant.
    """
    if isinstance(specifier, IfaceInfo):
        return [InterfaceChoice(specifier)]
    meant = readings(specifier)
    if meant is None:
        return []
    return (
        _by_name(meant, ifaces, ignore_case)
        or [InterfaceChoice(iface) for iface in ifaces if iface.index == meant.number]
        or _by_address(meant, ifaces, ignore_case)
        or [InterfaceChoice(iface) for iface in ifaces if meant.hardware and _hardware(iface) == meant.hardware]
    )


def _by_name(meant: Readings, ifaces: Sequence[IfaceInfo], ignore_case: bool) -> list[InterfaceChoice]:
    for name in meant.names:
        found = [InterfaceChoice(iface) for iface in ifaces if has_name(iface, name, ignore_case)]
        if not found:
            labels = [(iface, address) for iface in ifaces for label, address in iface.labels if label == name]
            found = [InterfaceChoice(iface, address) for iface, address in labels[:1]]
        if found:
            return found
    return []


def _by_address(meant: Readings, ifaces: Sequence[IfaceInfo], ignore_case: bool) -> list[InterfaceChoice]:
    network = meant.network
    if network is None:
        return []
    if meant.means_any:
        able = [iface for iface in ifaces if iface.addresses(network.version) and not iface.is_localhost()]
        return [InterfaceChoice(iface, required=False) for iface in able]
    choices = []
    for iface in ifaces:
        if meant.scope in (None, str(iface.index)) or has_name(iface, str(meant.scope), ignore_case):
            own = next((own.ip for own in iface.addresses(network.version) if own in network), None)
            if own is not None:
                choices.append(InterfaceChoice(iface, meant.address or own))
    return choices


def _hardware(iface: IfaceInfo) -> str:
    return hardware_digits(iface.link_layer_address or "")


def _unknown(specifier: object, ifaces: Sequence[IfaceInfo]) -> UnknownInterfaceError:
    """Return the error for a specifier that fits none of the interfaces; it lists all that would fit."""
    meant = readings(specifier) or Readings()
    if meant.network is not None:
        version = meant.network.version
        known = [
            f"{interface_address_text(interface)} ({iface.display_name})"
            for iface in ifaces
            for interface in iface.addresses(version)
        ]
        return UnknownInterfaceError(
            f"No matches found for interface IP address {specifier}. {_listed(f'IPv{version} addresses here', known)}"
        )
    others = [(name, iface) for iface in ifaces for name in (*iface.alternative_names, *dict(iface.labels))]
    lists = [_listed("Interfaces here", [iface.display_name for iface in ifaces])]
    if others:
        lists.append(_listed("Other names here", [f"{name} ({iface.display_name})" for name, iface in others]))
    if meant.number is not None:
        lists.append(_listed("Indexes here", [f"{iface.index} ({iface.display_name})" for iface in ifaces]))
    if meant.hardware:
        with_one = [iface for iface in ifaces if iface.link_layer_address]
        known = [f"{iface.link_layer_address} ({iface.display_name})" for iface in with_one]
        lists.append(_listed("MAC addresses here", known))
    return UnknownInterfaceError(
        f"{specifier!r} does not appear to be a valid interface name or IP address. {' '.join(lists)}"
    )


def _listed(title: str, entries: Sequence[str]) -> str:
    return f"{title}: {', '.join(entries) or 'none'}."


def one_spelling(**keywords: IfaceSpecifier | Iterable[IfaceSpecifier] | None) -> list[IfaceSpecifier] | None:
    """Return the specifiers of the one keyword that was given, None when none was; a plural keyword takes a list.

    None also where all that was given is 0.0.0.0 or ::, which mean any interface.

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
            return [value] if isinstance(value, IfaceInfo) or not means_any(value) else None
        value = None
    if not name.endswith("s") or not isinstance(value, Iterable):
        kind = "takes a list of interfaces" if name.endswith("s") else "takes one interface"
        raise MulticastExpertError(f"{name} {kind}, not {keywords[name]!r}.")
    specifiers = list(value)
    if not specifiers:
        raise MulticastExpertError(f"{name} is empty: name at least one interface, or leave it out.")
    return None if all(means_any(specifier) for specifier in specifiers) else specifiers
