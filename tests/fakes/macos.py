"""A strict macOS (xnu 11417) multicast socket layer. Pure.

Sources: xnu's in.h, in6.h, socket.h, in_mcast.c, in6_mcast.c, ip_output.c, udp_usrreq.c; Apple TN3179 for local network
privacy. Assumed: IP_BOUND_IF and IPV6_BOUND_IF steer sending only.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from struct import pack
from typing import ClassVar

from . import options
from .bsd import (
    IP,
    IPV6,
    SOL_SOCKET,
    BsdKernel,
    common_options,
    in6_pktinfo,
    multicast_interface4,
    set_multicast_interface,
    source_requests,
)
from .kernel import FakeKernel
from .layouts import Layout, integer, ip_mreq, ipv6_mreq
from .network import Address, FakeInterface, FakeNetwork
from .options import Option, flag, number
from .rules import Control
from .sockets import Arrival, FakeSocket

LAYOUT = Layout(group_offset=4, length_byte=True, af_inet6=30)


def _find(kernel: FakeKernel, address: IPv4Address) -> FakeInterface | None:
    """imr_interface: an address, 0.0.0.N for the index N (RFC 1724 section 3.3), None for 0.0.0.0."""
    if int(address) >> 24 == 0:
        return kernel.interface(int(address)) if int(address) else None
    return kernel.owner(address)


def _join4(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    group, address = ip_mreq(value[:8])  # exactly eight bytes are copied: the index of an ip_mreqn is lost
    options.join(kernel, sock, group, _find(kernel, address))


def _leave4(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    group, address = ip_mreq(value[:8])
    options.leave(kernel, sock, group, _find(kernel, address))


def _join6(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    group, index = ipv6_mreq(value)
    options.join(kernel, sock, group, kernel.interface(index))  # index 0 is EADDRNOTAVAIL


def _multicast_ifindex(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    index = integer(value)
    set_multicast_interface(kernel, sock, kernel.interface(index) if index else None)


def _bound_interface(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    index = integer(value)
    sock.options["bound_interface"] = kernel.interface(index).index if index else 0


def _link_address(arrival: Arrival) -> bytes:
    """struct sockaddr_dl of 20 bytes."""
    name = arrival.interface.name.encode()
    return pack("=BBHBBBB", 20, 18, arrival.interface.index, 6, len(name), 0, 0) + name.ljust(12, b"\0")[:12]


class FakeMacOS(BsdKernel):
    """macOS. ``privacy_denied``: the user did not allow this program the local network (macOS 15)."""

    AF_INET6 = 30
    CONTROL_HEADER = 12
    CONTROL_ALIGNMENT = 4
    DEFAULTS: ClassVar = {
        "unicast_hops": 64,
        "multicast_hops": 1,
        "multicast_loop": 1,
        "send_buffer": 9216,
        "receive_buffer": 786896,
    }
    OPTIONS: ClassVar = {
        **common_options(LAYOUT, 8 * 1024 * 1024, _join6),
        **source_requests(_find),
        (SOL_SOCKET, 0x1104): flag("SO_RECV_ANYIF", "receive_any_interface"),
        (IP, 9): multicast_interface4(_find),
        (IP, 12): Option("IP_ADD_MEMBERSHIP", (8, 12), _join4),
        (IP, 13): Option("IP_DROP_MEMBERSHIP", (8, 12), _leave4),
        (IP, 24): flag("IP_RECVTTL", "receive_hop_limit"),
        (IP, 25): Option("IP_BOUND_IF", (4,), _bound_interface),
        (IP, 26): flag("IP_RECVPKTINFO", "receive_packet_info"),
        (IP, 66): Option("IP_MULTICAST_IFINDEX", (4,), _multicast_ifindex),
        (IP, 27): flag("IP_RECVTOS", "receive_traffic_class"),
        (IPV6, 35): flag("IPV6_RECVTCLASS", "receive_traffic_class"),
        (IPV6, 36): number("IPV6_TCLASS", "traffic_class", -1, 255),
        (IPV6, 61): flag("IPV6_RECVPKTINFO", "receive_packet_info"),
        (IPV6, 125): Option("IPV6_BOUND_IF", (4,), _bound_interface),
    }
    CONTROL = (
        Control(0, "timestamp", SOL_SOCKET, 2, lambda a: pack("=qi4x", a.timestamp_ns // 10**9, a.microseconds)),
        Control(4, "receive_destination", IP, 7, lambda a: a.packet.destination.packed),
        Control(4, "receive_interface", IP, 20, _link_address),
        Control(4, "receive_hop_limit", IP, 24, lambda a: pack("B", a.packet.hop_limit)),
        Control(
            4, "receive_packet_info", IP, 26, lambda a: pack("=I4x4s", a.interface.index, a.packet.destination.packed)
        ),
        Control(6, "receive_packet_info", IPV6, 46, in6_pktinfo),
        Control(6, "receive_hop_limit", IPV6, 47, lambda a: pack("=i", a.packet.hop_limit)),
        Control(4, "receive_traffic_class", IP, 27, lambda a: pack("B", a.packet.traffic_class)),
        Control(6, "receive_traffic_class", IPV6, 36, lambda a: pack("=i", a.packet.traffic_class)),
    )

    def __init__(self, network: FakeNetwork, host: str, *, privacy_denied: bool = False) -> None:
        super().__init__(network, host)
        self.privacy_denied = privacy_denied

    def check_send(self, interface: FakeInterface) -> None:
        """Without consent every send to the local network is refused; loopback is exempt."""
        if self.privacy_denied and not interface.loopback:
            raise self.error("EHOSTUNREACH", "No route to host")

    def outgoing(self, sock: FakeSocket, group: Address, scope: int) -> FakeInterface:
        """IP_BOUND_IF stands in where no multicast interface was chosen."""
        if sock.option("bound_interface") and not sock.option("multicast_interface") and not scope:
            return self.interface(sock.option("bound_interface"))
        return super().outgoing(sock, group, scope)
