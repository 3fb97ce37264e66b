"""Sockets made without the library, in a host of the lab: the other programs, and the judges of the library."""

import contextlib
import itertools
import os
import selectors
import socket
import struct
from collections.abc import Iterable, Iterator
from ipaddress import ip_address
from itertools import filterfalse, islice
from pathlib import Path
from time import monotonic

from multicast_expert.system import watch
from multicast_expert.testing import Interface, Lab, wait_until
from multicast_expert.testing.node import Node

FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
PATIENCE = 10.0
"""Seconds after which a datagram counts as lost; on a sound machine nothing waits that long."""

MCAST_JOIN_GROUP = 42  # linux/in.h; Python's socket lacks it before 3.13
LEVEL = {4: socket.IPPROTO_IP, 6: socket.IPPROTO_IPV6}


def udp_socket(
    host: Node, version: int, address: tuple[str, int] | None = None, *, reuse: bool = True
) -> socket.socket:
    """A UDP socket of this host, bound if an address is given."""
    with host.entered():
        opened = socket.socket(FAMILY[version], socket.SOCK_DGRAM)
    if version == 6:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    if reuse:
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if address is not None:
        opened.bind(address)
    opened.settimeout(PATIENCE)
    return opened


def any_address(version: int) -> str:
    """What a program binds to that wants everything on its port."""
    return "0.0.0.0" if version == 4 else "::"


def own_address(interface: Interface, version: int) -> str:
    """The first address of this IP version that the lab gave to the interface."""
    return interface.ipv4 if version == 4 else interface.ipv6


def sender_on(
    interface: Interface, version: int, *, source: str | None = None, hops: int = 1, loop: bool = False
) -> socket.socket:
    """A socket that sends to groups out of this interface."""
    opened = udp_socket(interface.node, version, (source or own_address(interface, version), 0))
    if version == 4:
        chosen = struct.pack("=4s4si", bytes(4), bytes(4), interface.index())
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, chosen)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hops)
        opened.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(loop))
    else:
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface.index())
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hops)
        opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(loop))
    return opened


def group_request(group: str, interface_index: int) -> bytes:
    """A membership from any source: struct group_req of linux/in.h."""
    packed = ip_address(group).packed
    if len(packed) == 4:
        sockaddr = struct.pack("=HH4s", socket.AF_INET, 0, packed)
    else:
        sockaddr = struct.pack("=HHI16sI", socket.AF_INET6, 0, 0, packed, 0)
    return struct.pack("@I0L128s", interface_index, sockaddr)


def join(opened: socket.socket, group: str, interface_index: int) -> None:
    """Join the group on the interface, from any source."""
    opened.setsockopt(LEVEL[ip_address(group).version], MCAST_JOIN_GROUP, group_request(group, interface_index))


def member_on(interface: Interface, group: str, port: int) -> socket.socket:
    """A receiver of one group on a host whose other traffic does not matter."""
    version = ip_address(group).version
    opened = udp_socket(interface.node, version, (any_address(version), port))
    join(opened, group, interface.index())
    return opened


def until(sockets: Iterable[socket.socket], count: int) -> list[tuple[socket.socket, bytes]]:
    """Return the next `count` datagrams with the socket that each came to; AssertionError if they don't come."""
    received: list[tuple[socket.socket, bytes]] = []
    deadline = monotonic() + PATIENCE
    with selectors.DefaultSelector() as selector:
        for each in sockets:
            selector.register(each, selectors.EVENT_READ)
        while len(received) < count:
            ready = selector.select(deadline - monotonic())
            assert ready, f"only {len(received)} of {count} datagrams came: {[data for _, data in received]}"
            for key, _ in ready:
                each = key.fileobj
                assert isinstance(each, socket.socket)
                received.append((each, each.recv(65535)))
    return received


def nothing_for(opened: socket.socket) -> bool:
    """Whether no datagram waits in this socket now."""
    with selectors.DefaultSelector() as selector:
        selector.register(opened, selectors.EVENT_READ)
        return not selector.select(0)


def open_descriptors(*, watches: bool = False) -> int:
    """How many descriptors this process has open.

    Those of the threads that watch interfaces count with `watches` only: they outlive the last receiver for a while,
    also that of an earlier test.
    """
    with watch._lock:
        of_watches = {
            each.fileno() for own in watch._watchers.values() for each in (own._events, own._wake_up, own._bell)
        }
        found = {int(name) for name in os.listdir("/proc/self/fd")}  # noqa: PTH208 - a Path would open one more
    return len(found if watches else found - of_watches)


def all_closed(before: int) -> None:
    """Return as soon as this process has no more descriptors open than before; LabError if it keeps one.

    A thread that watches interfaces may have one open for a moment, as it asks the kernel; so may it have had before.
    """
    wait_until(lambda: open_descriptors() <= before, f"no more than {before} descriptors are open")


def open_sockets() -> set[str]:
    """The sockets that this process has open, by their inodes: what another thread closes meanwhile opens none."""
    found = set()
    for descriptor in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            found.add(str(descriptor.readlink()))
    return {name for name in found if name.startswith("socket:")}


@contextlib.contextmanager
def descriptor_limit(soft: int) -> Iterator[None]:
    """Inside the block this process may open no descriptor from this number on."""
    import resource

    before, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, hard))


def descriptors_left(count: int) -> contextlib.AbstractContextManager[None]:
    """Inside the block this process may open so many more descriptors; each gets the lowest free number."""
    return descriptor_limit(next(islice(filterfalse(_is_open, itertools.count()), count, None)))


def _is_open(descriptor: int) -> bool:
    try:
        os.fstat(descriptor)
    except OSError:
        return False
    return True


def two_hosts(lab: Lab) -> tuple[Interface, Interface]:
    """Two hosts and a cable between them: the interfaces of the near and the far one, both named eth0."""
    near, far = lab.host("near"), lab.host("far")
    return lab.link(near, far, ipv4=("10.1.0.1/24", "10.1.0.2/24"), ipv6=("fd01::1/64", "fd01::2/64"))
