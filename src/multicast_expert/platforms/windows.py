"""Windows: its numbers, layouts and rules, as data. Pure: touches no OS.

Sources: ws2ipdef.h, ws2tcpip.h, mswsock.h and the Winsock reference. Not yet seen on a real system.
"""

from __future__ import annotations

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

SOL_SOCKET = 0xFFFF
OPTIONS: dict[str, tuple[int | None, int]] = {
    "SO_REUSEADDR": (SOL_SOCKET, 0x0004),
    "SO_RCVBUF": (SOL_SOCKET, 0x1002),
    "SIO_UDP_CONNRESET": (None, 0x9800000C),
    "SIO_UDP_NETRESET": (None, 0x9800000F),
    "IP_TOS": (IPPROTO_IP, 3),
    "IP_TTL": (IPPROTO_IP, 4),
    "IP_MULTICAST_IF": (IPPROTO_IP, 9),
    "IP_MULTICAST_TTL": (IPPROTO_IP, 10),
    "IP_MULTICAST_LOOP": (IPPROTO_IP, 11),
    "IP_ADD_MEMBERSHIP": (IPPROTO_IP, 12),
    "IP_DROP_MEMBERSHIP": (IPPROTO_IP, 13),
    "IP_ADD_SOURCE_MEMBERSHIP": (IPPROTO_IP, 15),
    "IP_DROP_SOURCE_MEMBERSHIP": (IPPROTO_IP, 16),
    "IP_BLOCK_SOURCE": (IPPROTO_IP, 17),
    "IP_UNBLOCK_SOURCE": (IPPROTO_IP, 18),
    "IP_PKTINFO": (IPPROTO_IP, 19),
    "IP_HOPLIMIT": (IPPROTO_IP, 21),
    "IP_RECVTOS": (IPPROTO_IP, 40),
    "MCAST_JOIN_GROUP": (IPPROTO_IP, 41),
    "MCAST_LEAVE_GROUP": (IPPROTO_IP, 42),
    "MCAST_BLOCK_SOURCE": (IPPROTO_IP, 43),
    "MCAST_UNBLOCK_SOURCE": (IPPROTO_IP, 44),
    "MCAST_JOIN_SOURCE_GROUP": (IPPROTO_IP, 45),
    "MCAST_LEAVE_SOURCE_GROUP": (IPPROTO_IP, 46),
    "IPV6_UNICAST_HOPS": (IPPROTO_IPV6, 4),
    "IPV6_MULTICAST_IF": (IPPROTO_IPV6, 9),
    "IPV6_MULTICAST_HOPS": (IPPROTO_IPV6, 10),
    "IPV6_MULTICAST_LOOP": (IPPROTO_IPV6, 11),
    "IPV6_JOIN_GROUP": (IPPROTO_IPV6, 12),
    "IPV6_LEAVE_GROUP": (IPPROTO_IPV6, 13),
    "IPV6_PKTINFO": (IPPROTO_IPV6, 19),
    "IPV6_HOPLIMIT": (IPPROTO_IPV6, 21),
    "IPV6_V6ONLY": (IPPROTO_IPV6, 27),
    "IPV6_TCLASS": (IPPROTO_IPV6, 39),
    "IPV6_RECVTCLASS": (IPPROTO_IPV6, 40),
}

# A datagram that one of our replies provoked ("port unreachable", "TTL expired") would make the next receive fail.
RESETS_OFF = (
    make_option(OPTIONS, "SIO_UDP_CONNRESET", 0, may_fail=("EOPNOTSUPP", "EINVAL")),
    make_option(OPTIONS, "SIO_UDP_NETRESET", 0, may_fail=("EOPNOTSUPP", "EINVAL")),
)

WINDOWS = Platform(
    name="windows",
    title="Windows",
    largest_buffer=(make_option(OPTIONS, "SO_RCVBUF", LARGEST_BUFFER),),
    # sockaddr_storage is aligned to 8 bytes in 32-bit programs too.
    layouts=Layouts(af_inet6=23, length_byte=False, request_padding=4, interface_before_source=False),
    options=OPTIONS,
    # Those below 10000 are of the C library, which starts threads and opens files.
    errors={
        11: "EAGAIN", 12: "ENOMEM", 23: "ENFILE", 24: "EMFILE",
        10013: "EACCES", 10022: "EINVAL", 10024: "EMFILE", 10040: "EMSGSIZE", 10042: "ENOPROTOOPT", 10045: "EOPNOTSUPP",
        10047: "EAFNOSUPPORT", 10048: "EADDRINUSE", 10049: "EADDRNOTAVAIL", 10050: "ENETDOWN", 10051: "ENETUNREACH",
        10052: "ENETRESET", 10054: "ECONNRESET", 10055: "ENOBUFS", 10065: "EHOSTUNREACH",
    },
    # A group cannot be bound (10049), so a socket belongs to an interface and takes unicast too: the engine filters.
    receive={
        4: ReceiveLayout(
            per_group=False,
            per_interface=True,
            capacity=None,
            options=(make_option(OPTIONS, "SO_REUSEADDR", 1), *RESETS_OFF),
            binds_to_device=False,
            filtered=True,
        ),
        6: ReceiveLayout(
            per_group=False,
            per_interface=True,
            capacity=None,
            options=(make_option(OPTIONS, "SO_REUSEADDR", 1), make_option(OPTIONS, "IPV6_V6ONLY", 1), *RESETS_OFF),
            binds_to_device=False,
            filtered=True,
        ),
    },
    ancillary=Ancillary(
        options={
            4: (make_option(OPTIONS, "IP_PKTINFO", 1), make_option(OPTIONS, "IP_HOPLIMIT", 1)),
            6: (make_option(OPTIONS, "IPV6_PKTINFO", 1), make_option(OPTIONS, "IPV6_HOPLIMIT", 1)),
        },
        timestamp=None,
        # They came with Windows 10.
        traffic_class={
            4: make_option(OPTIONS, "IP_RECVTOS", 1, may_fail=("ENOPROTOOPT", "EINVAL")),
            6: make_option(OPTIONS, "IPV6_RECVTCLASS", 1, may_fail=("ENOPROTOOPT", "EINVAL")),
        },
        fields={
            (IPPROTO_IP, 19): "pktinfo_windows",
            # The hop limit comes as IP_TTL on current versions of Windows, as IP_HOPLIMIT on older ones.
            (IPPROTO_IP, 4): "hop_limit",
            (IPPROTO_IP, 21): "hop_limit",
            (IPPROTO_IP, 3): "traffic_class",
            (IPPROTO_IPV6, 19): "pktinfo6",
            (IPPROTO_IPV6, 21): "hop_limit",
            (IPPROTO_IPV6, 39): "traffic_class",
        },
    ),
    interface_by_mreqn=False,
    classic_join="index as address",
    classic_source_join="index as address",
    loopback_at="receiver",
    unheard_error="ENETUNREACH",
    interrupts_waits=False,
    msg_trunc=0x100,
    sharing=(make_option(OPTIONS, "SO_REUSEADDR", 1),),
    silent={},
    origin_control={},
    hop_limit_control={},
    names_ignore_case=True,
)  # fmt: skip
