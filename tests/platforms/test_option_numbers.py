"""The numbers of every option on every OS, from the headers: an independent list beside the tables."""

import socket
import sys

import pytest

from multicast_expert.platforms import PLATFORMS

SYSTEMS = ("linux", "macos", "windows", "freebsd")
IP, IPV6, UDP, ANY_SOCKET = 0, 41, 17, "SOL_SOCKET"
SOL_SOCKET = {"linux": 1, "macos": 0xFFFF, "windows": 0xFFFF, "freebsd": 0xFFFF}

# (level, name, number on Linux, macOS, Windows, FreeBSD); None where the OS has no such option.
OPTIONS = [
    (IP, "IP_TTL", 2, 4, 4, 4),
    (IP, "IP_MULTICAST_IF", 32, 9, 9, 9),
    (IP, "IP_MULTICAST_TTL", 33, 10, 10, 10),
    (IP, "IP_MULTICAST_LOOP", 34, 11, 11, 11),
    (IP, "IP_ADD_MEMBERSHIP", 35, 12, 12, 12),
    (IP, "IP_DROP_MEMBERSHIP", 36, 13, 13, 13),
    (IP, "IP_ADD_SOURCE_MEMBERSHIP", 39, 70, 15, 70),
    (IP, "IP_DROP_SOURCE_MEMBERSHIP", 40, 71, 16, 71),
    (IP, "IP_BLOCK_SOURCE", 38, 72, 17, 72),
    (IP, "IP_UNBLOCK_SOURCE", 37, 73, 18, 73),
    (IP, "MCAST_JOIN_GROUP", 42, 80, 41, 80),
    (IP, "MCAST_LEAVE_GROUP", 45, 81, 42, 81),
    (IP, "MCAST_JOIN_SOURCE_GROUP", 46, 82, 45, 82),
    (IP, "MCAST_LEAVE_SOURCE_GROUP", 47, 83, 46, 83),
    (IP, "MCAST_BLOCK_SOURCE", 43, 84, 43, 84),
    (IP, "MCAST_UNBLOCK_SOURCE", 44, 85, 44, 85),
    (IP, "IP_PKTINFO", 8, 26, 19, None),
    (IP, "IP_RECVDSTADDR", None, None, None, 7),
    (IP, "IP_RECVIF", None, None, None, 20),
    (IP, "IP_RECVTTL", 12, 24, None, 65),
    (IP, "IP_HOPLIMIT", None, None, 21, None),
    (IP, "IP_TOS", 1, 3, 3, 3),
    (IP, "IP_RECVTOS", 13, 27, 40, 68),
    (IP, "IP_MULTICAST_ALL", 49, None, None, None),
    (IPV6, "IPV6_UNICAST_HOPS", 16, 4, 4, 4),
    (IPV6, "IPV6_MULTICAST_IF", 17, 9, 9, 9),
    (IPV6, "IPV6_MULTICAST_HOPS", 18, 10, 10, 10),
    (IPV6, "IPV6_MULTICAST_LOOP", 19, 11, 11, 11),
    (IPV6, "IPV6_JOIN_GROUP", 20, 12, 12, 12),
    (IPV6, "IPV6_LEAVE_GROUP", 21, 13, 13, 13),
    (IPV6, "IPV6_V6ONLY", 26, 27, 27, 27),
    (IPV6, "IPV6_RECVPKTINFO", 49, 61, None, 36),
    (IPV6, "IPV6_RECVHOPLIMIT", 51, 37, None, 37),
    (IPV6, "IPV6_PKTINFO", None, None, 19, None),
    (IPV6, "IPV6_HOPLIMIT", None, None, 21, None),
    (IPV6, "IPV6_TCLASS", 67, 36, 39, 61),
    (IPV6, "IPV6_RECVTCLASS", 66, 35, 40, 57),
    (IPV6, "IPV6_MULTICAST_ALL", 29, None, None, None),
    (ANY_SOCKET, "SO_REUSEADDR", 2, 4, 4, 4),
    (ANY_SOCKET, "SO_REUSEPORT", 15, 0x200, None, 0x200),
    (ANY_SOCKET, "SO_SNDBUF", 7, None, None, None),
    (ANY_SOCKET, "SO_RCVBUF", 8, 0x1002, 0x1002, 0x1002),
    (ANY_SOCKET, "SO_RCVBUFFORCE", 33, None, None, None),
    (ANY_SOCKET, "SO_BINDTODEVICE", 25, None, None, None),
    (ANY_SOCKET, "SO_MEMINFO", 55, None, None, None),
    (ANY_SOCKET, "SO_NETNS_COOKIE", 71, None, None, None),
    (ANY_SOCKET, "SO_TIMESTAMPNS", 35, None, None, None),
    (ANY_SOCKET, "SO_TIMESTAMPNS_NEW", 64, None, None, None),
    (ANY_SOCKET, "SO_TIMESTAMP", None, 0x400, None, 0x400),
    (UDP, "UDP_SEGMENT", 103, None, None, None),
    (UDP, "UDP_GRO", 104, None, None, None),
    (None, "SIO_UDP_CONNRESET", None, None, 0x9800000C, None),
    (None, "SIO_UDP_NETRESET", None, None, 0x9800000F, None),
]
EXPECTED = {name: (level, dict(zip(SYSTEMS, numbers, strict=True))) for level, name, *numbers in OPTIONS}


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_number_is_the_one_of_the_headers(system: str) -> None:
    """No number of the table differs from the headers, and none stands there that the headers lack."""
    for name, (level, number) in PLATFORMS[system].options.items():
        expected_level, numbers = EXPECTED[name]
        assert (name, level) == (name, SOL_SOCKET[system] if expected_level is ANY_SOCKET else expected_level)
        assert (name, number) == (name, numbers[system])


@pytest.mark.parametrize("system", SYSTEMS)
def test_families(system: str) -> None:
    """AF_INET is 2 everywhere, AF_INET6 differs on each."""
    expected = {"linux": 10, "macos": 30, "windows": 23, "freebsd": 28}
    assert PLATFORMS[system].family(4) == 2
    assert PLATFORMS[system].family(6) == expected[system]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_flag_of_a_cut_datagram(system: str) -> None:
    """MSG_TRUNC of sys/socket.h, and of ws2def.h: by another flag, the loss of the end would stay unseen."""
    expected = {"linux": 0x20, "macos": 0x10, "windows": 0x100, "freebsd": 0x10}
    assert PLATFORMS[system].msg_trunc == expected[system]


@pytest.mark.parametrize("system", SYSTEMS)
def test_facts_that_no_plan_shows(system: str) -> None:
    """How an OS waits and counts, what it spells without regard to case, and where it limits a receive buffer."""
    expected = {
        "linux": (True, 2, False, "net.core.rmem_max"),
        "macos": (True, 1, False, "kern.ipc.maxsockbuf"),
        "windows": (False, 1, True, None),
        "freebsd": (True, 1, False, "kern.ipc.maxsockbuf"),
    }
    table = PLATFORMS[system]
    facts = table.interrupts_waits, table.buffer_factor, table.names_ignore_case, table.buffer_limit
    assert facts == expected[system]


@pytest.mark.parametrize("system", SYSTEMS)
def test_control_messages(system: str) -> None:
    """The types that the kernels label their control messages with, which differ from the options that ask for them."""
    expected = {
        "linux": {
            "pktinfo": {(0, 8)}, "pktinfo6": {(41, 50)}, "hop_limit": {(0, 2), (41, 52)},
            "traffic_class": {(0, 1), (41, 67)}, "timespec": {(1, 35), (1, 64)}, "segment_size": {(17, 104)},
        },
        "macos": {
            "pktinfo": {(0, 26)}, "pktinfo6": {(41, 46)}, "hop_limit": {(0, 24), (41, 47)},
            "traffic_class": {(0, 27), (41, 36)}, "timeval": {(0xFFFF, 2)},
        },
        "windows": {
            "pktinfo_windows": {(0, 19)}, "pktinfo6": {(41, 19)}, "hop_limit": {(0, 4), (0, 21), (41, 21)},
            "traffic_class": {(0, 3), (41, 39)},
        },
        "freebsd": {
            "destination": {(0, 7)}, "sockaddr_dl": {(0, 20)}, "pktinfo6": {(41, 46)},
            "hop_limit": {(0, 65), (41, 47)}, "traffic_class": {(0, 68), (41, 61)}, "timeval": {(0xFFFF, 2)},
        },
    }  # fmt: skip
    found: dict[str, set[tuple[int, int]]] = {}
    for message, field in PLATFORMS[system].ancillary.fields.items():
        found.setdefault(field, set()).add(message)
    assert found == expected[system]


@pytest.mark.parametrize("system", SYSTEMS)
def test_the_largest_receive_buffer(system: str) -> None:
    """64 MiB at once where the kernel cuts what is too much; else from 256 KiB on, as far as the kernel goes."""
    found = [
        (option.name, int.from_bytes(option.value, sys.byteorder), option.may_fail)
        for option in PLATFORMS[system].largest_buffer
    ]
    growing = [("SO_RCVBUF", 1 << bits, ("ENOBUFS",)) for bits in range(18, 27)]
    expected = {
        "linux": [("SO_RCVBUF", 1 << 26, ()), ("SO_RCVBUFFORCE", 1 << 26, ("EPERM",))],
        "macos": growing,
        "windows": [("SO_RCVBUF", 1 << 26, ())],
        "freebsd": growing,
    }
    assert found == expected[system]


def test_this_host_agrees() -> None:
    """Where Python knows an option of the OS that runs it, the number is the same."""
    here = {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform, "freebsd")
    compared = {name: number for name, (_, number) in PLATFORMS[here].options.items() if hasattr(socket, name)}
    assert compared
    assert compared == {name: getattr(socket, name) for name in compared}
