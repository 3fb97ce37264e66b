"""macOS and FreeBSD: their interfaces by psutil, their routes and groups by commands."""

from __future__ import annotations

import re
import socket
from collections.abc import Collection, Iterable
from dataclasses import replace
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Address, IPv6Interface
from typing import Any

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.core.specifiers import Readings
from multicast_expert.platforms import Platform
from multicast_expert.system.base import System, is_scarcity
from multicast_expert.system.commands import run
from multicast_expert.system.listings import JoinedGroup, UdpSocket, parse_ifmcstat
from multicast_expert.system.netlink import RouteAnswer

_FAMILY = {4: "-inet", 6: "-inet6"}
_DEFAULT = ("default", "0.0.0.0", "::")


class BsdSystem(System):
    """macOS or FreeBSD."""

    routes_are_cheap = False

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def interfaces(self, meant: Collection[Readings] | None = None) -> list[IfaceInfo]:
        """Return the network interfaces, by index; one that vanished in between is left out."""
        import psutil  # noqa: PLC0415 - other systems do without it

        states = psutil.net_if_stats()
        found = []
        for name, entries in psutil.net_if_addrs().items():
            if (index := _index(name)) is not None:
                found.append(_interface(name, index, entries, states.get(name), psutil.AF_LINK))
        return sorted(found, key=lambda iface: iface.index)

    def route_interface(self, destination: IPAddress) -> int | None:
        """Return the index of the interface that a datagram to `destination` would leave from; None without a route."""
        name = parse_route_get(run(["route", "-n", "get", _FAMILY[destination.version], str(destination)], timeout=5))
        return None if name is None else socket.if_nametoindex(name)

    def group_routes(self, groups: Iterable[IPAddress]) -> dict[IPAddress, RouteAnswer]:
        """Return the routes that lead each group somewhere, from `route get`; a default route is none of them."""
        found = {}
        for group in groups:
            name = parse_group_route(run(["route", "-n", "get", _FAMILY[group.version], str(group)], timeout=5))
            index = None if name is None else _index(name)
            if index is not None:
                found[group] = RouteAnswer(index)
        return found

    def joined_groups(self, sockets: Iterable[UdpSocket] | None = None) -> list[JoinedGroup]:
        """Return the groups that this host has joined, from ifmcstat(8)."""
        found = list(parse_ifmcstat(run(["ifmcstat", "-v"])))
        if not found:
            raise MulticastExpertError("Joined groups could not be told: ifmcstat -v lists none.")
        return [replace(each, interface_index=_index(each.interface)) for each in found]


def _index(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError as error:
        if is_scarcity(error):
            raise
        return None


def _interface(name: str, index: int, entries: Iterable[Any], state: Any, af_link: int) -> IfaceInfo:
    """Return the interface; a state that psutil does not report is assumed to be as usual."""
    ipv4: dict[str, IPv4Interface] = {}
    ipv6: dict[str, IPv6Interface] = {}
    link = None
    for entry in entries:
        if entry.family == socket.AF_INET:
            ipv4[entry.address] = IPv4Interface((entry.address, entry.netmask or 32))
        elif entry.family == socket.AF_INET6:
            prefix_length = _prefix_length(entry.netmask) if entry.netmask else 128
            ipv6[entry.address] = IPv6Interface((entry.address, prefix_length))
        elif entry.family == af_link and entry.address.strip("0:-"):
            link = entry.address
    flags = state.flags.split(",") if state is not None and state.flags else []
    loopback = "loopback" in flags
    return IfaceInfo(
        name,
        index,
        link,
        tuple(ipv4.values()),
        tuple(ipv6.values()),
        name,
        state is None or state.isup,
        not flags or loopback or "multicast" in flags,
        loopback,
        state.mtu or None if state is not None else None,
    )


@lru_cache(maxsize=256)
def _prefix_length(netmask: str) -> int:
    return int(IPv6Address(netmask)).bit_count()


def parse_route_get(text: str) -> str | None:
    """Return the interface in the output of `route -n get`; None where there is none."""
    match = re.search(r"^[ \t]*interface:[ \t]*(\S+)", text, re.MULTILINE)
    return match and match[1]


def parse_group_route(text: str) -> str | None:
    """Return the interface in the output of `route -n get`; None for a default route, and one that rejects."""
    lines = dict(re.findall(r"^[ \t]*(destination|interface|flags):[ \t]*(\S+)", text, re.MULTILINE))
    flags = lines.get("flags", "").strip("<>").split(",")
    if lines.get("destination") in (None, *_DEFAULT) or not {"REJECT", "BLACKHOLE"}.isdisjoint(flags):
        return None
    return lines.get("interface")
