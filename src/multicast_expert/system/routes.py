"""Which interface the OS would send to an address from, by its own answer. Touches the OS, sends nothing."""

from __future__ import annotations

import re
import socket
import subprocess
from struct import Struct, pack

from multicast_expert.core.addresses import IPAddress
from multicast_expert.system.kernel import SYSTEM

AF_NETLINK = 16
_RTM_GETROUTE = 26
_NLM_F_REQUEST = 1
_NLMSG_ERROR = 2
_RTA_DST = 1
_RTA_OIF = 4
_NETLINK_HEADER = Struct("=IHHII")
_RTMSG = Struct("=BBBBBBBBI")
_ATTRIBUTE = Struct("=HH")


def source_address(version: int, destination: str) -> str | None:
    """Return the address that a datagram to `destination` would leave with, None without a route.

    A UDP socket is connected, which asks the routing tables and sends nothing.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((destination, 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def interface_index(destination: IPAddress) -> int | None:
    """Return the interface index that a datagram to `destination` would leave from; None when the OS won't say."""
    try:
        if SYSTEM.platform.name == "linux":
            return parse_route_reply(_ask_netlink(destination))
        if SYSTEM.platform.name == "windows":
            return SYSTEM.best_interface(SYSTEM.platform.layouts.sockaddr(destination.packed))
        family = "-inet" if destination.version == 4 else "-inet6"
        command = ["route", "-n", "get", family, str(destination)]
        reply = subprocess.run(command, capture_output=True, text=True, check=False, timeout=5)
        name = parse_route_get(reply.stdout)
        return None if name is None else socket.if_nametoindex(name)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _ask_netlink(destination: IPAddress) -> bytes:
    address = destination.packed
    family = socket.AF_INET if destination.version == 4 else socket.AF_INET6
    attribute = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(address), _RTA_DST) + address
    body = _RTMSG.pack(family, len(address) * 8, 0, 0, 0, 0, 0, 0, 0) + attribute
    head = _NETLINK_HEADER.pack(_NETLINK_HEADER.size + len(body), _RTM_GETROUTE, _NLM_F_REQUEST, 1, 0)
    with socket.socket(AF_NETLINK, socket.SOCK_RAW, 0) as netlink:
        netlink.settimeout(5)
        netlink.send(head + body)
        return netlink.recv(65536)


def parse_route_reply(reply: bytes) -> int | None:
    """Return the outgoing interface of an RTM_NEWROUTE message (rtnetlink(7)); None for an error or a cut message."""
    if len(reply) < _NETLINK_HEADER.size:
        return None
    length, kind, *_ = _NETLINK_HEADER.unpack_from(reply)
    if kind == _NLMSG_ERROR:
        return None
    start = _NETLINK_HEADER.size + _RTMSG.size
    while start + _ATTRIBUTE.size <= min(length, len(reply)):
        size, name = _ATTRIBUTE.unpack_from(reply, start)
        if size < _ATTRIBUTE.size:
            return None
        if name == _RTA_OIF and start + 8 <= len(reply):
            return int.from_bytes(reply[start + 4 : start + 8], "little" if pack("=H", 1)[0] else "big")
        start += (size + 3) // 4 * 4
    return None


def parse_route_get(text: str) -> str | None:
    """Return the interface in the output of `route -n get` (macOS, FreeBSD); None where there is none."""
    match = re.search(r"^[ \t]*interface:[ \t]*(\S+)", text, re.MULTILINE)
    return match and match[1]
