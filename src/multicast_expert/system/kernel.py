"""The OS that this program runs on: its table, and sockets of it. The one place that asks which OS it is."""

from __future__ import annotations

import socket
import sys
from pathlib import Path
from typing import Any, Protocol

from multicast_expert.core.addresses import MulticastAddress, parse_group
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.platforms import PLATFORMS, Platform


class Socket(Protocol):
    """What the engine uses of a socket; Python's own on Unix, a subclass of it on Windows."""

    def fileno(self) -> int: ...
    def setsockopt(self, level: int, number: int, value: bytes, /) -> None: ...
    def getsockopt(self, level: int, number: int, length: int, /) -> bytes: ...
    def bind(self, address: Any, /) -> None: ...
    def getsockname(self) -> Any: ...
    def sendto(self, data: bytes, address: Any, /) -> int: ...
    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]: ...
    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]: ...
    def close(self) -> None: ...


class Kernel(Protocol):
    """An OS to open sockets on."""

    platform: Platform

    def socket(self, family: int, kind: int) -> Socket:
        """Return a new socket of the family and kind, by the OS's own numbers; it never blocks."""


class SystemKernel:
    """The OS that runs this program."""

    platform: Platform

    def __init__(self) -> None:
        for prefix, name in (("linux", "linux"), ("darwin", "macos"), ("win", "windows"), ("freebsd", "freebsd")):
            if sys.platform.startswith(prefix):
                self.platform = PLATFORMS[name]
                return
        raise MulticastExpertError(f"{sys.platform} is not supported: only Linux, macOS, Windows and FreeBSD are.")

    def socket(self, family: int, kind: int) -> Socket:
        """Return a new socket of the family and kind; it never blocks."""
        if sys.platform == "linux":
            return socket.socket(family, kind | socket.SOCK_NONBLOCK)
        if sys.platform == "win32":
            from multicast_expert.system.winsock import WinSocket  # noqa: PLC0415 - exists on Windows only

            opened = WinSocket(family, kind)
        else:
            opened = socket.socket(family, kind)
        opened.setblocking(False)
        return opened

    def release(self) -> str:
        """Return the version of the kernel, as the OS writes it."""
        import platform  # noqa: PLC0415 - only who makes a report of it needs it

        return platform.release()

    def best_interface(self, sockaddr: bytes) -> int:
        """Return the index of the interface that Windows would send to the address from (GetBestInterfaceEx)."""
        if sys.platform == "win32":
            from multicast_expert.system.winsock import best_interface  # noqa: PLC0415 - exists on Windows only

            return best_interface(sockaddr)
        raise MulticastExpertError("Only Windows answers this.")


SYSTEM = SystemKernel()


def network_namespace() -> int:
    """Return a number for the network namespace of this thread; 0 where there is no such thing."""
    try:
        return Path("/proc/thread-self/ns/net").stat().st_ino
    except OSError:
        return 0


def ip_version(addr_family: int) -> int:
    """Return 4 for `socket.AF_INET`, 6 for `socket.AF_INET6`; else raise MulticastExpertError."""
    if addr_family == socket.AF_INET:
        return 4
    if addr_family == socket.AF_INET6:
        return 6
    raise MulticastExpertError(f"addr_family {addr_family!r} is neither socket.AF_INET nor socket.AF_INET6.")


def validate_mcast_ip(mcast_ip: MulticastAddress, addr_family: int) -> None:
    """Raise MulticastExpertError unless `mcast_ip` is a multicast address of the family (AF_INET or AF_INET6)."""
    parse_group(mcast_ip, ip_version(addr_family))
