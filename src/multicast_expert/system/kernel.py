"""SYSTEM, the OS that runs this program: the one place that chooses it."""

from __future__ import annotations

import socket
import sys
from pathlib import Path

from multicast_expert.core.addresses import MulticastAddress, parse_group
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError, explain
from multicast_expert.platforms import PLATFORMS
from multicast_expert.system.base import Kernel, Socket, System, is_scarcity

__all__ = ["SYSTEM", "Kernel", "Socket", "System", "error_name", "is_scarcity", "os_error"]


def _running(name: str) -> System:
    """Return the system that Python calls by this name (`sys.platform`); the others are not imported."""
    if name.startswith(("linux", "android")):
        from multicast_expert.system.linux import LinuxSystem  # noqa: PLC0415

        return LinuxSystem()
    if name.startswith("win"):
        from multicast_expert.system.windows import WindowsSystem  # noqa: PLC0415

        return WindowsSystem()
    for prefix, platform in (("darwin", "macos"), ("freebsd", "freebsd")):
        if name.startswith(prefix):
            from multicast_expert.system.bsd import BsdSystem  # noqa: PLC0415

            return BsdSystem(PLATFORMS[platform])
    raise MulticastExpertError(f"{name} is not supported: only Linux, macOS, Windows and FreeBSD are.")


SYSTEM = _running(sys.platform)


def error_name(kernel: Kernel, error: OSError) -> str:
    """Return the name of an OS error ("ENODEV"), the same on every OS; empty for one that no table has."""
    return kernel.platform.errors.get(_number(error), "")


def _number(error: OSError) -> int:
    """Return the OS's own number: on Windows, Python translates a few of Winsock's (10013 to 13) for `errno`."""
    return getattr(error, "winerror", None) or error.errno or 0


def os_error(kernel: Kernel, error: OSError, step: str, doing: str, **words: object) -> MulticastOSError:
    """Return the error to raise for a step that the OS rejected; `doing` completes "Cannot ..."."""
    if isinstance(error, MulticastOSError):
        return error
    name = error_name(kernel, error)
    filled = {"group": "the group", "source": "", "interface": "the interface", "port": "", "count": "", **words}
    duplicate = name == "EADDRNOTAVAIL" and step in ("bind", "send") and _is_duplicate(kernel, words)
    reason, remedy = explain(kernel.platform.name, name, step, duplicate=duplicate, **filled)
    summary = f"Cannot {doing}: {error.strerror or error} ({name or 'error'} {_number(error)})"
    return MulticastOSError(error.errno, step, summary, reason, remedy, getattr(error, "winerror", None))


def _is_duplicate(kernel: Kernel, words: dict[str, object]) -> bool:
    """Return whether the interface or the address of a failed step has a duplicate on another host."""
    try:
        known = kernel.duplicate_addresses() if isinstance(kernel, System) else set()
    except OSError:
        return False
    return not known.isdisjoint({str(words.get("interface")), str(words.get("address"))})


def network_namespace() -> int:
    """Return a number for the network namespace of this thread; 0 on a system without namespaces."""
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
