"""Linux: its interfaces, routes and changes by rtnetlink(7), its groups and sockets by proc(5)."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from struct import Struct
from typing import Any, Self

from multicast_expert.core.addresses import IPAddress, address_text
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.core.specifiers import Readings
from multicast_expert.platforms import LINUX
from multicast_expert.system import netlink, proc
from multicast_expert.system.base import Marks, Socket, System, is_scarcity
from multicast_expert.system.changes import Events, NetlinkEvents
from multicast_expert.system.listings import JoinedGroup, Member, UdpSocket
from multicast_expert.system.marks import SendMarks
from multicast_expert.system.members import members
from multicast_expert.system.netlink import RouteAnswer

_SOCK_NONBLOCK: int = getattr(socket, "SOCK_NONBLOCK", 0)
_LONGEST_ALTERNATIVE_NAME = 127
_LARGEST_INDEX = 0x7FFFFFFF
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""Errors of a sandbox that allows no netlink sockets."""
_MISSING = (errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.ERANGE)
"""Errors that say that no interface has the name or index, or can have it."""
_ATTEMPTS = 10
# By name: type checkers know it on Unix only. netdevice(7), linux/sockios.h
_IOCTL: Any = vars(fcntl)["ioctl"]
_SIOCGIFNAME = 0x8910
_IFREQ = Struct("16si20x")
_TAKING_OVER = ("bridge", "bond", "team")
"""Masters that get the packets of their ports; a port of a VRF keeps its addresses and memberships."""


class Channel:
    """A netlink socket to ask the kernel over, about the network namespace of this thread. Close it with `with`."""

    def __init__(self, protocol: int = 0) -> None:
        self._socket = socket.socket(netlink.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, request: bytes) -> list[bytes]:
        """Return the bodies of the messages that answer. Raises OSError, also for an error that the kernel answers."""
        bodies, is_whole = self._ask(request)
        for _ in range(_ATTEMPTS):
            if is_whole:
                break
            bodies, is_whole = self._ask(request)
        return bodies

    def _ask(self, request: bytes) -> tuple[list[bytes], bool]:
        self._socket.send(request)
        bodies: list[bytes] = []
        is_whole = True
        while True:
            for message in netlink.messages(self._socket.recv(65536)):
                is_whole = is_whole and not message.is_interrupted
                if message.kind in (netlink.NLMSG_ERROR, netlink.NLMSG_DONE):
                    if message.error:
                        raise OSError(message.error, os.strerror(message.error))
                    return bodies, is_whole
                bodies.append(message.body)
            if not netlink.is_dump(request):
                return bodies, True


def ask(request: bytes, protocol: int = 0) -> list[bytes]:
    """Return the bodies of the messages that answer one request; see `Channel.ask`. `protocol`: 0 for rtnetlink."""
    with Channel(protocol) as channel:
        return channel.ask(request)


class LinuxSystem(System):
    """Linux, with Android."""

    platform = LINUX
    marks: Marks | None = SendMarks()

    def socket(self, family: int, kind: int) -> Socket:
        """Return a new socket of the family and kind; it never blocks."""
        made: Any = socket.socket(family, kind | _SOCK_NONBLOCK)
        opened: Socket = made
        return opened

    def interfaces(self, meant: Collection[Readings] | None = None) -> list[IfaceInfo]:
        """Return the network interfaces, by index; with `meant`, those that fit it by name, index or address."""
        with Channel() as channel:
            addresses = channel.ask(netlink.address_request())
            links = channel.ask(netlink.link_request()) if meant is None else _meant_links(channel, meant, addresses)
        found = {link.number: link for link in map(netlink.parse_link, links) if link is not None}
        by_index: dict[int, list[netlink.Address]] = {index: [] for index in sorted(found)}
        for body in addresses:
            if netlink.address_index(body) in by_index and (address := netlink.parse_address(body)) is not None:
                by_index[address.number].append(address)
        return [_describe(found[index], by_index[index]) for index in by_index]

    def interface_name(self, sock: Socket, index: int) -> str | None:
        """Return the name of an interface in the network namespace of the socket, which may not be this thread's."""
        try:
            answer = _IOCTL(sock.fileno(), _SIOCGIFNAME, _IFREQ.pack(b"", index))
        except OSError:
            return None
        name: bytes = _IFREQ.unpack(answer)[0]
        return name.partition(b"\0")[0].decode("utf-8", "surrogateescape")

    def has_interface(self, index: int) -> bool:
        """Return whether there is an interface of this index; a list of all may miss one that is being renamed."""
        try:
            return index > 0 and bool(ask(netlink.link_request(index)))
        except OSError as error:
            if error.errno not in _MISSING:
                raise
            return False

    def duplicate_addresses(self) -> set[str]:
        """Return the addresses that the kernel found on another host too, and the names of their interfaces."""
        with Channel() as channel:
            found = map(netlink.parse_address, channel.ask(netlink.address_request()))
            known = set()
            for address in found:
                if address is not None and address.is_duplicate:
                    known.add(address_text(address.packed))
                    for link in map(netlink.parse_link, channel.ask(netlink.link_request(address.number))):
                        known.add("" if link is None else link.name)
        return known

    def route_interface(self, destination: IPAddress) -> int | None:
        """Return the index of the interface that a datagram to `destination` would leave from; None without a route."""
        family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
        routes = map(netlink.parse_route, ask(netlink.route_request(destination, family)))
        return next((route.interface_index for route in routes if route is not None), None)

    def group_routes(self, groups: Iterable[IPAddress]) -> dict[IPAddress, RouteAnswer]:
        """Return the routes that lead each group somewhere; those that the kernel made by itself are left out."""
        found = {}
        with Channel() as channel:
            for group in groups:
                family = socket.AF_INET if group.version == 4 else socket.AF_INET6
                try:
                    answers = channel.ask(netlink.route_request(group, family))
                except OSError as error:
                    # The kernel answers with an error that there is no route, or one that rejects.
                    if is_scarcity(error):
                        raise
                    continue
                for route in map(netlink.parse_route, answers):
                    if route is not None and not route.is_automatic:
                        found[group] = route
        return found

    def joined_groups(self, sockets: Iterable[UdpSocket] | None = None) -> list[JoinedGroup]:
        """Return the groups that this host has joined, from /proc/net."""
        return proc.joined_groups(sockets)

    def udp_sockets(self, chosen: Callable[[UdpSocket], bool] | None = None) -> list[UdpSocket]:
        """Return the UDP sockets, from /proc/net."""
        return proc.udp_sockets(chosen)

    def members(self, sockets: Sequence[UdpSocket], groups: Sequence[JoinedGroup]) -> list[Member]:
        """Return what the sockets have joined, by duplicates of them."""
        links: list[netlink.Link | None] = []
        # Some sandboxes allow no netlink socket.
        with suppress(OSError):
            links = [netlink.parse_link(body) for body in ask(netlink.link_request())]
        return members(sockets, groups, {link.name for link in links if link is not None and link.kind == "vrf"})

    def change_events(self) -> Events:
        """Return what netlink reports; in a sandbox that forbids netlink sockets, what polling finds."""
        try:
            return NetlinkEvents()
        except OSError as error:
            if error.errno not in _FORBIDDEN:
                raise
        return super().change_events()


def _meant_links(channel: Channel, meant: Iterable[Readings], addresses: Sequence[bytes]) -> list[bytes]:
    """Return the links that the readings fit, by MAC address none: to ask for one link is cheaper than to list all."""
    links = []
    for reading in meant:
        found = _links(channel, map(_link_of, reading.names[:1]))
        if not found:
            # Not the name of an interface, so it may be all else that it can be read as.
            requests = [*map(_link_of, reading.names[1:])]
            if reading.number is not None and reading.number <= _LARGEST_INDEX:
                requests.append(netlink.link_request(reading.number))
            found = _links(channel, requests + [netlink.link_request(each) for each in _holders(reading, addresses)])
        links += found
    return links


def _link_of(name: str) -> bytes | None:
    """Return the request for the link of this name; None for a text that can be no name."""
    return netlink.link_request(name=name) if _could_be_name(name) else None


def _links(channel: Channel, requests: Iterable[bytes | None]) -> list[bytes]:
    """Return the links that there are among those that are asked for."""
    links = []
    for request in requests:
        try:
            links += [] if request is None else channel.ask(request)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
    return links


def _could_be_name(text: str) -> bool:
    try:
        return 0 < len(text.encode("utf-8", "surrogateescape")) <= _LONGEST_ALTERNATIVE_NAME
    except UnicodeEncodeError:
        return False


def _holders(reading: Readings, addresses: Iterable[bytes]) -> set[int]:
    """Return the indexes of the links that have an address of that label, that address, or one in that network."""
    network = reading.network
    wanted = [name.encode("utf-8", "surrogateescape") for name in reading.names if _could_be_name(name)]
    exact = None
    if network is not None and network.prefixlen == network.max_prefixlen:
        exact = network.network_address.packed
        wanted.append(exact)
    found = set()
    for body in addresses:
        # To look for the bytes is cheaper than to parse every address.
        if (network is not None and exact is None) or any(each in body for each in wanted):
            address = netlink.parse_address(body)
            if address is not None and (
                address.packed == exact
                or address.label in reading.names
                or (network is not None and exact is None and ip_address(address.packed) in network)
            ):
                found.add(address.number)
    return found


# To make these objects takes most of the time of a scan, and the next scan finds mostly the same.
@lru_cache(maxsize=4096)
def _ipv4(packed: bytes, prefix_length: int) -> IPv4Interface:
    return IPv4Interface((address_text(packed), prefix_length))


@lru_cache(maxsize=4096)
def _ipv6(packed: bytes, prefix_length: int, scope: str) -> IPv6Interface:
    return IPv6Interface((address_text(packed) + scope, prefix_length))


def _describe(link: netlink.Link, addresses: Iterable[netlink.Address]) -> IfaceInfo:
    ipv4: dict[bytes, IPv4Interface] = {}
    ipv6: dict[bytes, IPv6Interface] = {}
    labels = []
    for address in addresses:
        if len(address.packed) == 4:
            ipv4[address.packed] = _ipv4(address.packed, address.prefix_length)
            if address.label not in ("", link.name):
                labels.append((address.label, ipv4[address.packed].ip))
        else:
            # Link-local: fe80::/10.
            scoped = address.packed[0] == 0xFE and address.packed[1] >> 6 == 2
            ipv6[address.packed] = _ipv6(address.packed, address.prefix_length, f"%{link.name}" if scoped else "")
    hardware = link.hardware_address.hex(":") if any(link.hardware_address) else None
    return IfaceInfo(
        link.name,
        link.number,
        hardware,
        tuple(ipv4.values()),
        tuple(ipv6.values()),
        link.name,
        link.is_up and link.is_running,
        link.is_loopback or link.supports_multicast,
        link.is_loopback,
        link.mtu,
        link.alternative_names,
        tuple(labels),
        link.master if link.port_kind in _TAKING_OVER else None,
    )
