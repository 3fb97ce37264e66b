"""Linux: its interfaces, routes and changes by rtnetlink(7), its groups and sockets by proc(5)."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from typing import Any, Self

from multicast_expert.core.addresses import IPAddress, address_text
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.platforms import LINUX
from multicast_expert.system import netlink, proc
from multicast_expert.system.base import Socket, System
from multicast_expert.system.changes import Events, NetlinkEvents
from multicast_expert.system.listings import JoinedGroup, UdpSocket
from multicast_expert.system.marks import SendMarks

_SOCK_NONBLOCK: int = getattr(socket, "SOCK_NONBLOCK", 0)
_LONGEST_NAME = 15
_FORBIDDEN = (errno.EACCES, errno.EPERM, errno.EAFNOSUPPORT, errno.EPROTONOSUPPORT)
"""Errors of a sandbox that allows no netlink sockets."""
_MISSING = (errno.ENODEV, errno.ENXIO, errno.EINVAL, errno.ERANGE)
"""Errors that say that no interface has the name or index, or can have it."""
_ATTEMPTS = 10


class Channel:
    """A netlink socket to ask the kernel over, about the network namespace of this thread. Close it with `with`."""

    def __init__(self) -> None:
        self._socket = socket.socket(netlink.AF_NETLINK, socket.SOCK_RAW, 0)
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


def ask(request: bytes) -> list[bytes]:
    """Return the bodies of the messages that answer one request; see `Channel.ask`."""
    with Channel() as channel:
        return channel.ask(request)


class LinuxSystem(System):
    """Linux, with Android."""

    platform = LINUX
    marks = SendMarks()

    def socket(self, family: int, kind: int) -> Socket:
        """Return a new socket of the family and kind; it never blocks."""
        made: Any = socket.socket(family, kind | _SOCK_NONBLOCK)
        opened: Socket = made
        return opened

    def interfaces(self, meant: Collection[str] | None = None) -> list[IfaceInfo]:
        """Return the network interfaces, by index; with `meant`, those that it names, or all where it names none."""
        with Channel() as channel:
            addresses = channel.ask(netlink.address_request())
            links = [] if meant is None else _meant_links(channel, meant, addresses)
            links = links or channel.ask(netlink.link_request())
        found = {link.number: link for link in map(netlink.parse_link, links) if link is not None}
        by_index: dict[int, list[netlink.Address]] = {index: [] for index in sorted(found)}
        for body in addresses:
            if netlink.address_index(body) in by_index and (address := netlink.parse_address(body)) is not None:
                by_index[address.number].append(address)
        return [_describe(found[index], by_index[index]) for index in by_index]

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

    def joined_groups(self, sockets: Iterable[UdpSocket] | None = None) -> list[JoinedGroup]:
        """Return the groups that this host has joined, from /proc/net."""
        return proc.joined_groups(sockets)

    def udp_sockets(self, chosen: Callable[[UdpSocket], bool] | None = None) -> list[UdpSocket]:
        """Return the UDP sockets, from /proc/net."""
        return proc.udp_sockets(chosen)

    def change_events(self) -> Events:
        """Return what netlink reports; in a sandbox that forbids netlink sockets, what polling finds."""
        try:
            return NetlinkEvents()
        except OSError as error:
            if error.errno not in _FORBIDDEN:
                raise
        return super().change_events()


def _meant_links(channel: Channel, meant: Collection[str], addresses: Iterable[bytes]) -> list[bytes]:
    """Return the links with these names or addresses: to ask for one link is cheaper than to list all."""
    packed = set()
    requests = []
    for text in meant:
        with suppress(ValueError):
            packed.add(ip_address(text).packed)
        with suppress(UnicodeEncodeError):
            if 0 < len(text.encode("utf-8", "surrogateescape")) <= _LONGEST_NAME:
                requests.append(netlink.link_request(name=text))
    for body in addresses if packed else ():
        if any(each in body for each in packed) and (address := netlink.parse_address(body)) is not None:
            requests += [netlink.link_request(address.number)] if address.packed in packed else []
    links = []
    for request in requests:
        try:
            links += channel.ask(request)
        except OSError as error:
            if error.errno not in _MISSING:
                raise
    return links


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
    for address in addresses:
        if len(address.packed) == 4:
            ipv4[address.packed] = _ipv4(address.packed, address.prefix_length)
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
    )
