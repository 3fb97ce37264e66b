"""Multicast by Python's own sockets, so that the lab is tested without the library that it tests."""

import ipaddress
import itertools
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from multicast_expert.testing import Interface

PORT = 5000
PATIENCE = 30.0  # seconds to wait for what must come; it takes microseconds on any idle machine
QUIET = 0.15  # seconds to wait for what must not come: a cable of the lab delivers before sendto() returns

_serials = itertools.count(1)


def join(member: socket.socket, interface: Interface, group: str) -> None:
    """Make the socket a member of the group on this interface."""
    if ipaddress.ip_address(group).version == 6:
        member.setsockopt(
            socket.IPPROTO_IPV6,
            socket.IPV6_JOIN_GROUP,
            struct.pack("=16sI", socket.inet_pton(socket.AF_INET6, group), interface.index()),
        )
    else:
        member.setsockopt(
            socket.IPPROTO_IP,
            socket.IP_ADD_MEMBERSHIP,
            struct.pack("=4s4sI", socket.inet_aton(group), bytes(4), interface.index()),
        )


@contextmanager
def member_of(group: str, interface: Interface) -> Iterator[socket.socket]:
    """A socket in the interface's host that has joined the group and gets nothing else."""
    family = socket.AF_INET6 if ":" in group else socket.AF_INET
    with interface.node.entered():
        member = socket.socket(family, socket.SOCK_DGRAM)
    with member:
        # A link-local group needs its scope; the kernel ignores one for any other group
        member.bind((group, PORT, 0, interface.index()) if family == socket.AF_INET6 else (group, PORT))
        join(member, interface, group)
        yield member


def send(data: bytes, group: str, interface: Interface, *, ttl: int = 1, source: str | None = None) -> None:
    """Send one datagram to the group out of this interface, never to this host's own members."""
    with interface.node.entered():
        index = socket.if_nametoindex(interface.name)
        if ":" in group:
            with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, ttl)
                sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, 0)
                if source:
                    sender.bind((source, 0))
                sender.sendto(data, (group, PORT))
        else:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
                request = struct.pack("=4s4sI", bytes(4), bytes(4), index)
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, request)
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
                sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
                if source:
                    sender.bind((source, 0))
                sender.sendto(data, (group, PORT))


def received(member: socket.socket, timeout: float) -> tuple[bytes, str] | None:
    """The next datagram and the address of its sender, or None."""
    member.settimeout(timeout)
    try:
        data, address = member.recvfrom(65535)
    except TimeoutError:
        return None
    return data, address[0].partition("%")[0]


def arrives(group: str, sender: Interface, member: socket.socket, *, ttl: int = 1, source: str | None = None) -> bool:
    """Whether a datagram sent now gets to the member; where the answer is expected to be no."""
    return _delivered(group, sender, member, QUIET, ttl, source)


def surely_arrives(
    group: str, sender: Interface, member: socket.socket, *, ttl: int = 1, source: str | None = None
) -> bool:
    """The same where the answer is expected to be yes: it is waited for."""
    return _delivered(group, sender, member, PATIENCE, ttl, source)


def _delivered(
    group: str, sender: Interface, member: socket.socket, timeout: float, ttl: int, source: str | None
) -> bool:
    marker = f"datagram {next(_serials)}".encode()
    send(marker, group, sender, ttl=ttl, source=source)
    while (delivery := received(member, timeout)) is not None:
        if delivery[0] == marker:
            return True
    return False
