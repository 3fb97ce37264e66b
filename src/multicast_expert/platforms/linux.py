"""Linux: its numbers, layouts and rules, as data. Pure: touches no OS.

Sources: ip(7), ipv6(7), socket(7), linux/in.h, linux/in6.h, linux/udp.h, asm-generic/socket.h; the isolation rules were
measured on kernel 6.18.
"""

from __future__ import annotations

from struct import calcsize

from multicast_expert.platforms.layouts import Layouts
from multicast_expert.platforms.table import (
    IPPROTO_IP,
    IPPROTO_IPV6,
    LARGEST_BUFFER,
    Ancillary,
    Platform,
    ReceiveLayout,
    make_option,
)

SOL_SOCKET = 1
SOL_UDP = 17
OPTIONS = {
    "SO_REUSEADDR": (SOL_SOCKET, 2),
    "SO_SNDBUF": (SOL_SOCKET, 7),
    "SO_RCVBUF": (SOL_SOCKET, 8),
    "SO_REUSEPORT": (SOL_SOCKET, 15),
    "SO_BINDTODEVICE": (SOL_SOCKET, 25),
    "SO_RCVBUFFORCE": (SOL_SOCKET, 33),
    "SO_MEMINFO": (SOL_SOCKET, 55),
    "SO_TIMESTAMPNS_NEW": (SOL_SOCKET, 64),
    "SO_TIMESTAMPNS": (SOL_SOCKET, 35),
    "SO_NETNS_COOKIE": (SOL_SOCKET, 71),
    "IP_TOS": (IPPROTO_IP, 1),
    "IP_TTL": (IPPROTO_IP, 2),
    "IP_PKTINFO": (IPPROTO_IP, 8),
    "IP_RECVTTL": (IPPROTO_IP, 12),
    "IP_RECVTOS": (IPPROTO_IP, 13),
    "IP_MULTICAST_IF": (IPPROTO_IP, 32),
    "IP_MULTICAST_TTL": (IPPROTO_IP, 33),
    "IP_MULTICAST_LOOP": (IPPROTO_IP, 34),
    "IP_ADD_MEMBERSHIP": (IPPROTO_IP, 35),
    "IP_DROP_MEMBERSHIP": (IPPROTO_IP, 36),
    "IP_UNBLOCK_SOURCE": (IPPROTO_IP, 37),
    "IP_BLOCK_SOURCE": (IPPROTO_IP, 38),
    "IP_ADD_SOURCE_MEMBERSHIP": (IPPROTO_IP, 39),
    "IP_DROP_SOURCE_MEMBERSHIP": (IPPROTO_IP, 40),
    "MCAST_JOIN_GROUP": (IPPROTO_IP, 42),
    "MCAST_BLOCK_SOURCE": (IPPROTO_IP, 43),
    "MCAST_UNBLOCK_SOURCE": (IPPROTO_IP, 44),
    "MCAST_LEAVE_GROUP": (IPPROTO_IP, 45),
    "MCAST_JOIN_SOURCE_GROUP": (IPPROTO_IP, 46),
    "MCAST_LEAVE_SOURCE_GROUP": (IPPROTO_IP, 47),
    "IP_MULTICAST_ALL": (IPPROTO_IP, 49),
    "IPV6_UNICAST_HOPS": (IPPROTO_IPV6, 16),
    "IPV6_MULTICAST_IF": (IPPROTO_IPV6, 17),
    "IPV6_MULTICAST_HOPS": (IPPROTO_IPV6, 18),
    "IPV6_MULTICAST_LOOP": (IPPROTO_IPV6, 19),
    "IPV6_JOIN_GROUP": (IPPROTO_IPV6, 20),
    "IPV6_LEAVE_GROUP": (IPPROTO_IPV6, 21),
    "IPV6_V6ONLY": (IPPROTO_IPV6, 26),
    "IPV6_MULTICAST_ALL": (IPPROTO_IPV6, 29),
    "IPV6_RECVPKTINFO": (IPPROTO_IPV6, 49),
    "IPV6_RECVHOPLIMIT": (IPPROTO_IPV6, 51),
    "IPV6_RECVTCLASS": (IPPROTO_IPV6, 66),
    "IPV6_TCLASS": (IPPROTO_IPV6, 67),
    "UDP_SEGMENT": (SOL_UDP, 103),
    "UDP_GRO": (SOL_UDP, 104),
}

LINUX = Platform(
    name="linux",
    title="Linux",
    layouts=Layouts(af_inet6=10, length_byte=False, request_padding=calcsize("P") - 4, interface_before_source=True),
    options=OPTIONS,
    errors={
        1: "EPERM", 11: "EAGAIN", 12: "ENOMEM", 13: "EACCES", 19: "ENODEV", 22: "EINVAL", 23: "ENFILE", 24: "EMFILE",
        90: "EMSGSIZE", 92: "ENOPROTOOPT", 97: "EAFNOSUPPORT", 98: "EADDRINUSE", 99: "EADDRNOTAVAIL", 100: "ENETDOWN",
        101: "ENETUNREACH", 104: "ECONNRESET", 105: "ENOBUFS", 111: "ECONNREFUSED", 113: "EHOSTUNREACH",
    },
    receive={
        # The kernel compares group and interface of every membership; bound to the group, unicast stays out as well.
        4: ReceiveLayout(
            per_group=True,
            per_interface=False,
            capacity=20,
            options=(
                make_option(OPTIONS, "SO_REUSEADDR", 1),
                make_option(OPTIONS, "IP_MULTICAST_ALL", 0, may_fail=("ENOPROTOOPT",), isolates=True),
            ),
            binds_to_device=False,
            filtered=False,
        ),
        # For IPv6 it compares the group only, so the socket itself has to belong to the interface. IPV6_MULTICAST_ALL
        # came with Linux 4.20.
        6: ReceiveLayout(
            per_group=True,
            per_interface=True,
            capacity=None,
            options=(
                make_option(OPTIONS, "SO_REUSEADDR", 1),
                make_option(OPTIONS, "IPV6_V6ONLY", 1),
                make_option(OPTIONS, "IPV6_MULTICAST_ALL", 0, may_fail=("ENOPROTOOPT",)),
            ),
            binds_to_device=True,
            filtered=False,
        ),
    },
    ancillary=Ancillary(
        options={
            4: (make_option(OPTIONS, "IP_PKTINFO", 1), make_option(OPTIONS, "IP_RECVTTL", 1)),
            6: (make_option(OPTIONS, "IPV6_RECVPKTINFO", 1), make_option(OPTIONS, "IPV6_RECVHOPLIMIT", 1)),
        },
        # SO_TIMESTAMPNS_NEW came with Linux 5.1. The older option has 32-bit seconds on 32-bit machines.
        timestamp=make_option(OPTIONS, "SO_TIMESTAMPNS_NEW", 1, fallback=make_option(OPTIONS, "SO_TIMESTAMPNS", 1)),
        traffic_class={4: make_option(OPTIONS, "IP_RECVTOS", 1), 6: make_option(OPTIONS, "IPV6_RECVTCLASS", 1)},
        fields={
            (IPPROTO_IP, 8): "pktinfo",
            (IPPROTO_IP, 2): "hop_limit",
            (IPPROTO_IP, 1): "traffic_class",
            (IPPROTO_IPV6, 50): "pktinfo6",
            (IPPROTO_IPV6, 52): "hop_limit",
            (IPPROTO_IPV6, 67): "traffic_class",
            (SOL_SOCKET, 35): "timespec",
            (SOL_SOCKET, 64): "timespec",
            (SOL_UDP, 104): "segment_size",
        },
    ),
    interface_by_mreqn=True,
    classic_join="mreqn",
    classic_source_join="address",
    loopback_at="sender",
    msg_trunc=0x20,
    # A program that sets only one of the two shares with no program that sets only the other.
    sharing=(make_option(OPTIONS, "SO_REUSEADDR", 1), make_option(OPTIONS, "SO_REUSEPORT", 1)),
    # Both are reserved (RFC 5771, 4; RFC 4291, 2.7.1). Linux sends with the address of the interface instead.
    silent={4: "224.0.0.0", 6: "ff00::"},
    hop_limit_control={4: (IPPROTO_IP, 2), 6: (IPPROTO_IPV6, 52)},
    origin_control={4: (IPPROTO_IP, 8), 6: (IPPROTO_IPV6, 50)},
    buffer_factor=2,
    buffer_limit="net.core.rmem_max",
    largest_buffer=(
        make_option(OPTIONS, "SO_RCVBUF", LARGEST_BUFFER),
        # Beyond the limit, for programs with CAP_NET_ADMIN.
        make_option(OPTIONS, "SO_RCVBUFFORCE", LARGEST_BUFFER, may_fail=("EPERM",)),
    ),
    segments=True,
)  # fmt: skip
