"""What the sockets of other programs have joined, by duplicates of their descriptors: pidfd_getfd(2), Linux 5.6.

Root may look into every program, an ordinary user into those that it may debug. A duplicate is closed at once.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from ipaddress import ip_address
from pathlib import Path
from struct import Struct

from multicast_expert.core.addresses import IPAddress
from multicast_expert.system.listings import JoinedGroup, Member, Membership, UdpSocket

_PIDFD_GETFD = 438
"""The number of the system call, on every architecture."""
_IP, _IPV6 = 0, 41
_MSFILTER, _MULTICAST_ALL, _IPV6_MULTICAST_ALL, _BINDTODEVICE, _GET_FILTER = 48, 49, 29, 25, 26
_SOURCES = 64
"""How many sources of a membership are listed at most."""
_HEAD, _COUNTS = Struct("=I4x"), Struct("=II")
_ADDRESS = 128
"""Bytes of a struct sockaddr_storage."""
_LONGEST_NAME = 16


def members(sockets: Iterable[UdpSocket], groups: Collection[JoinedGroup], vrfs: Collection[str] = ()) -> list[Member]:
    """Return the sockets with what they have joined of these groups, as far as this user may look into them.

    `vrfs`: the interfaces that stand for several (VRF). A socket that the user may not look into is left out, and so is
    one of this process.
    """
    library = ctypes.CDLL(None, use_errno=True)
    found = []
    for each in sockets:
        holders = [process.pid for process in each.processes if process.pid != os.getpid()]
        for pid in holders if len(holders) == len(each.processes) else ():
            with _duplicate(library, pid, each.inode) as copied:
                if copied is not None:
                    found.append(_describe(library, copied, each, groups, vrfs))
                    break
    return found


@contextmanager
def _duplicate(library: ctypes.CDLL, pid: int, inode: int) -> Iterator[socket.socket | None]:
    """Give a duplicate of a process's socket for a moment; None if the kernel does not allow it."""
    copied: socket.socket | None = None
    with suppress(OSError, KeyError):  # the process ended, belongs to another user, or the kernel is older
        number = _number(pid, inode)
        # By name: type checkers know it on Linux only.
        process: int = -1 if number is None else vars(os)["pidfd_open"](pid)
        if number is not None:
            try:
                descriptor = library.syscall(_PIDFD_GETFD, process, number, 0)
            finally:
                os.close(process)
            copied = socket.socket(fileno=descriptor) if descriptor >= 0 else None
    try:
        yield copied
    finally:
        if copied is not None:
            copied.close()


def _number(pid: int, inode: int) -> int | None:
    """Return the process's descriptor of the socket; None if it has none any more."""
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if str(entry.readlink()) == f"socket:[{inode}]":
                return int(entry.name)
    return None


def _describe(
    library: ctypes.CDLL,
    copied: socket.socket,
    listed: UdpSocket,
    groups: Iterable[JoinedGroup],
    vrfs: Collection[str],
) -> Member:
    six = copied.family == socket.AF_INET6
    joined = [
        membership
        for each in groups
        if each.interface_index is not None
        and (six or each.group.version == 4)
        and (membership := _membership(library, copied.fileno(), each, each.interface_index)) is not None
    ]
    device = _option(copied, socket.SOL_SOCKET, _BINDTODEVICE, _LONGEST_NAME) or b""
    name = device.partition(b"\0")[0].decode("utf-8", "surrogateescape")
    level, number = (_IPV6, _IPV6_MULTICAST_ALL) if six else (_IP, _MULTICAST_ALL)
    is_open = _option(copied, level, number, 4) != bytes(4)
    return Member(
        listed,
        tuple(joined),
        name,
        name in vrfs,
        _peer(copied),
        _has_filter(library, copied.fileno()),
        is_open,
    )


def _membership(library: ctypes.CDLL, descriptor: int, joined: JoinedGroup, index: int) -> Membership | None:
    """Return the socket's membership, by MCAST_MSFILTER (RFC 3678); None if it has not joined."""
    level = _IP if joined.group.version == 4 else _IPV6
    request = _HEAD.pack(index) + _storage(joined.group) + _COUNTS.pack(0, _SOURCES)
    answer = ctypes.create_string_buffer(request, len(request) + _SOURCES * _ADDRESS)
    length = ctypes.c_uint(len(answer))
    if library.getsockopt(descriptor, level, _MSFILTER, answer, ctypes.byref(length)) < 0:
        return None
    mode, count = _COUNTS.unpack_from(answer.raw, len(request) - _COUNTS.size)
    starts = (len(request) + number * _ADDRESS for number in range(min(count, _SOURCES)))
    sources = tuple(_address(answer.raw[start : start + _ADDRESS], level) for start in starts)
    return Membership(joined.group, joined.interface, mode == 1, sources)


def _storage(address: IPAddress) -> bytes:
    # The family, then port and IPv4 address, or port, flow label and IPv6 address.
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    gap = 2 if address.version == 4 else 6
    return (Struct("=H").pack(family) + bytes(gap) + address.packed).ljust(_ADDRESS, b"\0")


def _address(storage: bytes, level: int) -> IPAddress:
    return ip_address(storage[4:8] if level == _IP else storage[8:24])


def _option(copied: socket.socket, level: int, number: int, length: int) -> bytes | None:
    try:
        return copied.getsockopt(level, number, length)
    except OSError:
        return None


def _peer(copied: socket.socket) -> str:
    try:
        address, port, *_ = copied.getpeername()
    except OSError:
        return ""
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _has_filter(library: ctypes.CDLL, descriptor: int) -> bool:
    """Return whether a filter is attached; the kernel does not return an extended one, and says EACCES."""
    # The length counts instructions, not bytes, and 0 asks for their number only (sk_get_filter() in the kernel's
    # net/core/filter.c): any other length would let the kernel write behind the buffer.
    length = ctypes.c_uint(0)
    if library.getsockopt(descriptor, socket.SOL_SOCKET, _GET_FILTER, None, ctypes.byref(length)) < 0:
        return ctypes.get_errno() == errno.EACCES
    return length.value > 0
