"""FreeBSD: its numbers, layouts and rules, as data. Pure: touches no OS.

Sources: netinet/in.h, netinet6/in6.h, netinet/in_mcast.c. Not yet seen on a real system, so every datagram's
destination is checked as well.
"""

from __future__ import annotations

from struct import calcsize

from multicast_expert.platforms.layouts import Layouts
from multicast_expert.platforms.table import (
    IPPROTO_IP,
    IPPROTO_IPV6,
    Ancillary,
    Platform,
    ReceiveLayout,
    growing_buffer,
    make_option,
)

SOL_SOCKET = 0xFFFF
OPTIONS = {
    "SO_REUSEADDR": (SOL_SOCKET, 0x0004),
    "SO_REUSEPORT": (SOL_SOCKET, 0x0200),
    "SO_RCVBUF": (SOL_SOCKET, 0x1002),
    "SO_TIMESTAMP": (SOL_SOCKET, 0x0400),
    "IP_TOS": (IPPROTO_IP, 3),
    "IP_TTL": (IPPROTO_IP, 4),
    "IP_RECVDSTADDR": (IPPROTO_IP, 7),
    "IP_MULTICAST_IF": (IPPROTO_IP, 9),
    "IP_MULTICAST_TTL": (IPPROTO_IP, 10),
    "IP_MULTICAST_LOOP": (IPPROTO_IP, 11),
    "IP_ADD_MEMBERSHIP": (IPPROTO_IP, 12),
    "IP_DROP_MEMBERSHIP": (IPPROTO_IP, 13),
    "IP_RECVIF": (IPPROTO_IP, 20),
    "IP_RECVTTL": (IPPROTO_IP, 65),
    "IP_RECVTOS": (IPPROTO_IP, 68),
    "IP_ADD_SOURCE_MEMBERSHIP": (IPPROTO_IP, 70),
    "IP_DROP_SOURCE_MEMBERSHIP": (IPPROTO_IP, 71),
    "IP_BLOCK_SOURCE": (IPPROTO_IP, 72),
    "IP_UNBLOCK_SOURCE": (IPPROTO_IP, 73),
    "MCAST_JOIN_GROUP": (IPPROTO_IP, 80),
    "MCAST_LEAVE_GROUP": (IPPROTO_IP, 81),
    "MCAST_JOIN_SOURCE_GROUP": (IPPROTO_IP, 82),
    "MCAST_LEAVE_SOURCE_GROUP": (IPPROTO_IP, 83),
    "MCAST_BLOCK_SOURCE": (IPPROTO_IP, 84),
    "MCAST_UNBLOCK_SOURCE": (IPPROTO_IP, 85),
    "IPV6_UNICAST_HOPS": (IPPROTO_IPV6, 4),
    "IPV6_MULTICAST_IF": (IPPROTO_IPV6, 9),
    "IPV6_MULTICAST_HOPS": (IPPROTO_IPV6, 10),
    "IPV6_MULTICAST_LOOP": (IPPROTO_IPV6, 11),
    "IPV6_JOIN_GROUP": (IPPROTO_IPV6, 12),
    "IPV6_LEAVE_GROUP": (IPPROTO_IPV6, 13),
    "IPV6_V6ONLY": (IPPROTO_IPV6, 27),
    "IPV6_RECVPKTINFO": (IPPROTO_IPV6, 36),
    "IPV6_RECVHOPLIMIT": (IPPROTO_IPV6, 37),
    "IPV6_RECVTCLASS": (IPPROTO_IPV6, 57),
    "IPV6_TCLASS": (IPPROTO_IPV6, 61),
}

# SO_REUSEPORT is what lets sockets share a wildcard port here; SO_REUSEPORT_LB would spread datagrams over them.
SHARING = (make_option(OPTIONS, "SO_REUSEADDR", 1), make_option(OPTIONS, "SO_REUSEPORT", 1))

FREEBSD = Platform(
    name="freebsd",
    title="FreeBSD",
    layouts=Layouts(af_inet6=28, length_byte=True, request_padding=calcsize("P") - 4, interface_before_source=False),
    options=OPTIONS,
    errors={
        1: "EPERM", 6: "ENXIO", 12: "ENOMEM", 13: "EACCES", 19: "ENODEV", 22: "EINVAL", 23: "ENFILE", 24: "EMFILE",
        35: "EAGAIN", 40: "EMSGSIZE", 42: "ENOPROTOOPT", 47: "EAFNOSUPPORT", 48: "EADDRINUSE", 49: "EADDRNOTAVAIL",
        50: "ENETDOWN", 51: "ENETUNREACH", 54: "ECONNRESET", 55: "ENOBUFS", 61: "ECONNREFUSED", 65: "EHOSTUNREACH",
    },
    receive={
        4: ReceiveLayout(
            per_group=True,
            per_interface=False,
            capacity=None,
            options=SHARING,
            binds_to_device=False,
            filtered=True,
        ),
        6: ReceiveLayout(
            per_group=True,
            per_interface=True,
            capacity=None,
            options=(*SHARING, make_option(OPTIONS, "IPV6_V6ONLY", 1)),
            binds_to_device=False,
            filtered=True,
        ),
    },
    ancillary=Ancillary(
        options={
            4: (
                make_option(OPTIONS, "IP_RECVDSTADDR", 1),
                make_option(OPTIONS, "IP_RECVIF", 1),
                make_option(OPTIONS, "IP_RECVTTL", 1),
            ),
            6: (make_option(OPTIONS, "IPV6_RECVPKTINFO", 1), make_option(OPTIONS, "IPV6_RECVHOPLIMIT", 1)),
        },
        timestamp=make_option(OPTIONS, "SO_TIMESTAMP", 1),
        traffic_class={4: make_option(OPTIONS, "IP_RECVTOS", 1), 6: make_option(OPTIONS, "IPV6_RECVTCLASS", 1)},
        fields={
            (IPPROTO_IP, 7): "destination",
            (IPPROTO_IP, 20): "sockaddr_dl",
            (IPPROTO_IP, 65): "hop_limit",
            (IPPROTO_IP, 68): "traffic_class",
            (IPPROTO_IPV6, 46): "pktinfo6",
            (IPPROTO_IPV6, 47): "hop_limit",
            (IPPROTO_IPV6, 61): "traffic_class",
            (SOL_SOCKET, 2): "timeval",
        },
    ),
    interface_by_mreqn=True,
    classic_join="mreqn",
    classic_source_join="address",
    loopback_at="sender",
    buffer_limit="kern.ipc.maxsockbuf",
    largest_buffer=growing_buffer(OPTIONS),
    msg_trunc=0x10,
    sharing=SHARING,
    silent={},
    origin_control={},
    hop_limit_control={},
)  # fmt: skip
