"""Groups, sources and ports: parsed, validated and classified. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from typing import TypeAlias

from multicast_expert.core.errors import MulticastExpertError

IPAddress: TypeAlias = IPv4Address | IPv6Address
IPv4Or6Address: TypeAlias = tuple[str, int] | tuple[str, int, int, int]
"""A socket address: `(ip, port)` for IPv4, `(ip, port, flow info, scope id)` for IPv6."""
MulticastAddress: TypeAlias = str | IPv4Address | IPv6Address
"""A group or source address, as text or as an object of `ipaddress`."""

LOCALHOST_IPV4 = "127.0.0.1"
LOCALHOST_IPV6 = "::1"


def parse_address(address: MulticastAddress, role: str) -> IPAddress:
    """Return the address as an object; `role` ("group", "source") only names it in the error.

    Raises MulticastExpertError for what is no IP address, and for an IPv6 address with a scope.
    """
    if not isinstance(address, str | IPv4Address | IPv6Address):
        raise _not_an_address(address, role)
    try:
        parsed = ip_address(address)
    except ValueError:
        raise _not_an_address(address, role) from None
    _refuse_mapped(parsed)
    if parsed.version == 6 and parsed.scope_id is not None:
        raise MulticastExpertError(f"{role} {address} carries a scope; name the interface with iface= instead.")
    return parsed


def _refuse_mapped(address: IPAddress) -> None:
    if address.version == 6 and address.ipv4_mapped is not None:
        # The sockets of this library keep the IP versions apart (IPV6_V6ONLY).
        raise MulticastExpertError(
            f"{address} is the IPv4 address {address.ipv4_mapped}: write it so, and use an AF_INET socket."
        )


def parse_sources(sources: Iterable[MulticastAddress], version: int) -> list[IPAddress]:
    """Return the sources as address objects, each once, in order. Raises MulticastExpertError."""
    return _unique([parse_source(source, version) for source in listed(sources, "source_ips")])


def listed(values: Iterable[MulticastAddress], name: str) -> Iterable[MulticastAddress]:
    """Return the values. Raises for a single text, because its characters would be taken for addresses."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise MulticastExpertError(f"{name} is a list of addresses; {values!r} alone goes into brackets.")
    return values


def _unique(values: list[IPAddress]) -> list[IPAddress]:
    return list(dict.fromkeys(values)) if len(values) > 1 else values


def _not_an_address(value: object, role: str) -> MulticastExpertError:
    return MulticastExpertError(f"{role} {value!r} is not an IP address.")


def parse_group(group: MulticastAddress, version: int | None = None) -> IPAddress:
    """Return the group as an address object.

    Raises MulticastExpertError when it is not a multicast address (RFC 1112: 224.0.0.0/4; RFC 4291: ff00::/8) or not
    of the IP `version` (4 or 6) that is asked for.
    """
    try:
        return _parse_group(group, version)
    except TypeError:
        raise _not_an_address(group, "group") from None


@lru_cache(maxsize=16384)
def _parse_group(group: MulticastAddress, version: int | None) -> IPAddress:
    parsed = parse_address(group, "group")
    if not is_multicast(parsed.packed):
        raise MulticastExpertError(
            f"mcast_ip {group} is not a multicast address! Groups are 224.0.0.0 to 239.255.255.255 and ff00::/8."
        )
    _check_version(parsed, version, "mcast_ip")
    return parsed


@lru_cache(maxsize=16384)
def address_text(packed: bytes) -> str:
    """Return the address of 4 or 16 bytes as text."""
    return str(ip_address(packed))


def is_multicast(packed: bytes) -> bool:
    """Return whether an address of 4 or 16 bytes is a group."""
    return packed[0] == 0xFF if len(packed) == 16 else packed[0] >> 4 == 0xE


def parse_source(source: MulticastAddress, version: int | None = None) -> IPAddress:
    """Return the source of a source-specific membership: a unicast address of the IP `version`, else an error.

    The Linux kernel accepts a multicast address here without a word and then delivers nothing.
    """
    parsed = parse_address(source, "source")
    if is_multicast(parsed.packed):
        raise MulticastExpertError(f"source {source} is a multicast address; a source is the address of one host.")
    if parsed.is_unspecified or parsed == IPv4Address("255.255.255.255"):
        raise MulticastExpertError(f"source {source} is not the address of a host.")
    _check_version(parsed, version, "source")
    return parsed


def parse_host(address: MulticastAddress, version: int) -> IPAddress:
    """Return the address of a host, which may carry a scope. Raises MulticastExpertError for a group or a name."""
    try:
        parsed = ip_address(address)
    except ValueError:
        raise MulticastExpertError(
            f"{address!r} is not an IP address; look up a host's address first (socket.getaddrinfo)."
        ) from None
    _refuse_mapped(parsed)
    if is_multicast(parsed.packed) or parsed.is_unspecified:
        raise MulticastExpertError(f"{address} is not the address of a host.")
    if parsed == IPv4Address("255.255.255.255"):
        raise MulticastExpertError(f"{address} is a broadcast address; send to a group or to a host.")
    _check_version(parsed, version, "address")
    return parsed


def parse_port(port: int) -> int:
    """Return the port if a receiver can use it (1 to 65535), else raise MulticastExpertError."""
    if not isinstance(port, int) or port is True:
        raise MulticastExpertError(f"port {port!r} is not a number: 1 to 65535.")
    if not 1 <= port <= 65535:
        raise MulticastExpertError(f"port {port!r} is out of range: 1 to 65535.")
    return port


def check_socket_address(address: IPv4Or6Address, version: int) -> None:
    """Raise MulticastExpertError unless it is `(ip, port)`, or with numbers that IPv6 takes behind them.

    The address itself and the scope are not looked up.
    """
    parts = len(address) if isinstance(address, tuple) else 0
    if not 2 <= parts <= (4 if version == 6 else 2) or not isinstance(address[0], str | IPv4Address | IPv6Address):
        form = "(ip, port)" if version == 4 else "(ip, port) or (ip, port, flow info, scope id)"
        raise MulticastExpertError(f"{address!r} is not an address to send to: {form}.")
    parse_port(address[1])
    for name, number, bits in zip(("flow info", "scope id"), address[2:], (20, 32), strict=False):
        if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < 1 << bits:
            raise MulticastExpertError(
                f"The {name} {number!r} of {address[0]} is not a number from 0 to {(1 << bits) - 1}."
            )


def _check_version(address: IPAddress, version: int | None, role: str) -> None:
    if version is not None and address.version != version:
        family = "AF_INET6" if version == 6 else "AF_INET"
        raise MulticastExpertError(f"{role} {address} is IPv{address.version} but this is an {family} socket!")


def is_source_specific(group: IPAddress) -> bool:
    """Whether the group lies in a range where receivers have to name the source: 232/8 and ff3x::/32 (RFC 4607)."""
    packed = group.packed
    if group.version == 4:
        return packed[0] == 232
    return packed[1] >> 4 == 3 and packed[2:4] == b"\0\0"


def scope(group: IPAddress) -> str:
    """Return how far the group may travel: "interface", "link", "site", "organization", "global" and so on.

    IPv6: the scope field (RFC 4291, RFC 7346). IPv4: the ranges of RFC 5771 and RFC 2365.
    """
    if isinstance(group, IPv6Address):
        return {1: "interface", 2: "link", 3: "realm", 4: "admin", 5: "site", 8: "organization", 14: "global"}.get(
            group.packed[1] & 0x0F, "unassigned"
        )
    for network, name in (
        ("224.0.0.0/24", "link"),
        ("239.255.0.0/16", "site"),
        ("239.192.0.0/14", "organization"),
        ("239.0.0.0/8", "admin"),
    ):
        if group in IPv4Network(network):
            return name
    return "global"


def ethernet_address(group: IPAddress) -> str:
    """Return the Ethernet address that carries the group: 32 IPv4 groups share each one (RFC 1112, RFC 2464)."""
    if isinstance(group, IPv4Address):
        low = group.packed
        octets = (0x01, 0x00, 0x5E, low[1] & 0x7F, low[2], low[3])
    else:
        octets = (0x33, 0x33, *group.packed[12:])
    return ":".join(f"{octet:02x}" for octet in octets)
