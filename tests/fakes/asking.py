"""Asking fake kernels for things, in bytes written by hand: what their own tests share."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack
from typing import Any

import pytest

from fakes import FakeFreeBSD, FakeKernel, FakeMacOS, FakeNetwork, FakeSocket, FakeWindows

GROUP, OTHER, GROUP6, OTHER6 = "239.1.2.3", "239.9.9.9", "ff15::1234", "ff15::9999"
PORT = 5000
BSDS = [FakeMacOS, FakeFreeBSD]
ALL = [FakeWindows, *BSDS]
# number of (join, leave, join source, leave source, block, unblock)
MCAST = {FakeWindows: (41, 42, 45, 46, 43, 44), FakeMacOS: (80, 81, 82, 83, 84, 85), FakeFreeBSD: range(80, 86)}
BUSY = {FakeWindows: 10048, FakeMacOS: 48, FakeFreeBSD: 48}
INVALID = {FakeWindows: 10022, FakeMacOS: 22, FakeFreeBSD: 22}
UNAVAILABLE = {FakeWindows: 10049, FakeMacOS: 49, FakeFreeBSD: 49}

# For group 239.1.2.3 or ff15::1234, source 10.0.0.7 or fd00::7, index 5, from C programs; see unpacked().
GOLDEN = {
    (FakeWindows, 4): ("05000000 z4 02000000 ef010203 z120", "02000000 0a000007 z120"),
    (FakeMacOS, 4): ("05000000 10020000 ef010203 z120", "10020000 0a000007 z120"),
    (FakeFreeBSD, 4): ("05000000 z4 10020000 ef010203 z120", "10020000 0a000007 z120"),
    (FakeWindows, 6): ("05000000 z4 1700 z6 ff15 z12 1234 z104", "1700 z6 fd00 z12 0007 z104"),
    (FakeMacOS, 6): ("05000000 1c1e z6 ff15 z12 1234 z104", "1c1e z6 fd00 z12 0007 z104"),
    (FakeFreeBSD, 6): ("05000000 z4 1c1c z6 ff15 z12 1234 z104", "1c1c z6 fd00 z12 0007 z104"),
}


def unpacked(text: str) -> bytes:
    """Bytes from hex, with "z" and a number for so many zero bytes."""
    return b"".join(bytes(int(part[1:])) if part[0] == "z" else bytes.fromhex(part) for part in text.split())


def golden(kind: type, version: int, source: bool = False) -> bytes:
    """What a C compiler lays out for this kernel: a group_req, or a group_source_req."""
    group, origin = GOLDEN[kind, version]
    return unpacked(group) + (unpacked(origin) if source else b"")


def request(kind: type, index: int, *addresses: str) -> bytes:
    """A group_req or group_source_req."""
    value = pack("=I", index) + (b"" if kind is FakeMacOS else bytes(4))
    for text in addresses:
        packed = ip_address(text).packed
        family = {4: 2, 16: {FakeWindows: 23, FakeMacOS: 30, FakeFreeBSD: 28}[kind]}[len(packed)]
        head = pack("=H", family) if kind is FakeWindows else bytes([16 if len(packed) == 4 else 28, family])
        value += (head + (bytes(2) if len(packed) == 4 else bytes(6)) + packed).ljust(128, b"\0")
    return value


def start(kind: type[FakeKernel], **switches: bool) -> FakeKernel:
    """A kernel on host a of two."""
    return kind(FakeNetwork.two_hosts(), "a", **switches)


def opened(kernel: FakeKernel, bound: str | None = None, version: int = 4, **options: bool) -> FakeSocket:
    """A socket that does not block, with sharing options, bound if an address is given."""
    sock = kernel.socket(2 if version == 4 else kernel.AF_INET6, 2)
    sock.setblocking(False)
    if options.get("reuse_address"):
        sock.setsockopt(0xFFFF, 4, pack("=i", 1))
    if options.get("reuse_port"):
        sock.setsockopt(0xFFFF, 0x200, pack("=i", 1))
    if bound is not None:
        sock.bind((bound, PORT))
    return sock


def change(sock: FakeSocket, what: int, *addresses: str, index: int = 2) -> None:
    """One of the six MCAST_* calls, by its place in MCAST."""
    kind = type(sock.kernel)
    sock.setsockopt(0 if sock.version == 4 else 41, MCAST[kind][what], request(kind, index, *addresses))


def join(sock: FakeSocket, group: str = "", index: int = 2) -> None:
    """Join as MCAST_JOIN_GROUP does."""
    change(sock, 0, group or (GROUP if sock.version == 4 else GROUP6), index=index)


def send(kernel: FakeKernel, group: str = GROUP, data: bytes = b"x", link: str = "lan0", source: str = "") -> int:
    """A datagram from a silent machine on a link; how many sockets took it."""
    return kernel.network.inject(link, source or ("fd00::2" if ":" in group else "10.0.0.2"), group, PORT, data)


def refused(number: int) -> Any:
    """An OSError with this number is raised."""
    return pytest.raises(OSError, match=rf"\[Errno {number}\]")


def is_empty(sock: FakeSocket) -> bool:
    """Whether nothing was queued; takes what was."""
    try:
        sock.recvmsg(100)
    except BlockingIOError:
        return True
    return False
