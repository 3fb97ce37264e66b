"""A strict FreeBSD (amd64) multicast socket layer. Pure.

Sources: FreeBSD's in.h, in6.h, socket.h, in_mcast.c, in6_mcast.c, udp_usrreq.c.
Assumed: IPv6 input is as on macOS; IPV6_JOIN_GROUP with index 0 takes the default route's interface.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from struct import pack
from typing import ClassVar

from . import options
from .bsd import IP, IPV6, SOL_SOCKET, BsdKernel, common_options, in6_pktinfo, multicast_interface4, source_requests
from .kernel import FakeKernel
from .layouts import Layout, ip_mreq, ip_mreqn, ipv6_mreq
from .network import FakeInterface
from .options import Option, flag, number
from .rules import Control
from .sockets import Arrival, FakeSocket

LAYOUT = Layout(group_offset=8, length_byte=True, af_inet6=28)


def _find(kernel: FakeKernel, address: IPv4Address) -> FakeInterface | None:
    """imr_interface is an address and never an index; None for 0.0.0.0."""
    return kernel.owner(address) if int(address) else None


def _join4(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    group, address, index = ip_mreqn(value) if len(value) == 12 else (*ip_mreq(value), 0)
    interface = kernel.interface(index) if index else _find(kernel, address)
    options.join(kernel, sock, group, interface)


def _leave4(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    group, address = ip_mreq(value[:8])  # an ip_mreq is read, whatever was used to join
    options.leave(kernel, sock, group, _find(kernel, address))


def _join6(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    group, index = ipv6_mreq(value)
    options.join(kernel, sock, group, kernel.interface(index) if index else None)


def _link_address(arrival: Arrival) -> bytes:
    """struct sockaddr_dl of 54 bytes."""
    name = arrival.interface.name.encode()
    return pack("=BBHBBBB", 54, 18, arrival.interface.index, 6, len(name), 0, 0) + name.ljust(46, b"\0")[:46]


class FakeFreeBSD(BsdKernel):
    """FreeBSD on amd64."""

    AF_INET6 = 28
    CONTROL_HEADER = 16
    CONTROL_ALIGNMENT = 8
    DEFAULTS: ClassVar = {
        "unicast_hops": 64,
        "multicast_hops": 1,
        "multicast_loop": 1,
        "send_buffer": 9216,
        "receive_buffer": 42080,
        "v6_only": 1,
    }
    OPTIONS: ClassVar = {
        **common_options(LAYOUT, 2 * 1024 * 1024, _join6),
        **source_requests(_find),
        (IP, 9): multicast_interface4(_find),
        (IP, 12): Option("IP_ADD_MEMBERSHIP", (8, 12), _join4),
        (IP, 13): Option("IP_DROP_MEMBERSHIP", (8, 12), _leave4),
        (IP, 65): flag("IP_RECVTTL", "receive_hop_limit"),
        (IP, 68): flag("IP_RECVTOS", "receive_traffic_class"),
        (IPV6, 57): flag("IPV6_RECVTCLASS", "receive_traffic_class"),
        (IPV6, 36): flag("IPV6_RECVPKTINFO", "receive_packet_info"),
        (IPV6, 61): number("IPV6_TCLASS", "traffic_class", -1, 255),
    }
    CONTROL = (
        Control(0, "timestamp", SOL_SOCKET, 2, lambda a: pack("=qq", a.timestamp_ns // 10**9, a.microseconds)),
        Control(4, "receive_destination", IP, 7, lambda a: a.packet.destination.packed),
        Control(4, "receive_hop_limit", IP, 65, lambda a: pack("B", a.packet.hop_limit)),
        Control(4, "receive_interface", IP, 20, _link_address),
        Control(6, "receive_packet_info", IPV6, 46, in6_pktinfo),
        Control(6, "receive_hop_limit", IPV6, 47, lambda a: pack("=i", a.packet.hop_limit)),
        Control(4, "receive_traffic_class", IP, 68, lambda a: pack("B", a.packet.traffic_class)),
        Control(6, "receive_traffic_class", IPV6, 61, lambda a: pack("=i", a.packet.traffic_class)),
    )

    def unfiltered(self, sock: FakeSocket) -> bool:
        """IPv4 sockets too."""
        return True
