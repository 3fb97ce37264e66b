"""Which groups this host has joined, and who holds the sockets: asks the OS, sends nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from multicast_expert.core.errors import MulticastExpertError, warn
from multicast_expert.platforms.table import IPPROTO_IP, IPPROTO_IPV6
from multicast_expert.system.kernel import SYSTEM
from multicast_expert.system.listings import (
    ByteOrder,
    JoinedGroup,
    Process,
    SourceFilter,
    UdpSocket,
    parse_ifmcstat,
    parse_igmp,
    parse_igmp6,
    parse_netsh_joins,
    parse_source_filters,
    parse_udp,
    with_source_filters,
)

_BYTE_ORDER: ByteOrder = sys.byteorder
# /proc/net is the network namespace of the main thread, this the one of the current thread (proc(5)).
_NET = Path("/proc/thread-self/net")
# What is joined for a moment to have the source filters listed: groups that do not leave this host.
_MARKERS = {
    4: (socket.AF_INET, IPPROTO_IP, "232.255.255.254", "127.0.0.1", "mcfilter"),
    6: (socket.AF_INET6, IPPROTO_IPV6, "ff31::6d63:6173:7400", "::1", "mcfilter6"),
}
_LOOPBACK = 1
"""The index of the loopback interface, in every network namespace (LOOPBACK_IFINDEX in the kernel's net/flow.h)."""
_ATTEMPTS = 5


def joined_groups(sockets: Iterable[UdpSocket] | None = None) -> list[JoinedGroup]:
    """Return the groups that this host has joined, by interface, with source filters and the version of IGMP or MLD.

    Linux: from /proc/net/igmp, igmp6, mcfilter and mcfilter6 (proc(5)), for the network namespace of this thread, each
    with those of `sockets` (see `udp_sockets`) that are bound to it. To have the source filters listed whole, a group
    is joined on the loopback interface for a moment. macOS, FreeBSD: from ifmcstat(8). Windows: from `netsh`, without
    source filters. The version of MLD is known only where it is forced (Linux), or told by ifmcstat.

    Raises OSError and MulticastExpertError when the OS cannot be asked; a MulticastWarning says when source filters may
    be missing.
    """
    if SYSTEM.platform.name == "linux":
        return _linux_groups(sockets)
    if SYSTEM.platform.name == "windows":
        commands = (["netsh", "interface", version, "show", "joins"] for version in ("ipv4", "ipv6"))
        return [each for command in commands for each in parse_netsh_joins(command_output(command, "oem"))]
    found = parse_ifmcstat(command_output(["ifmcstat", "-v"]))
    return [replace(each, interface_index=_index(each.interface)) for each in found]


def _index(name: str) -> int | None:
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return None


def command_output(command: list[str], encoding: str = "utf-8") -> str:
    """Return what a command of the OS writes. Raises MulticastExpertError when it fails."""
    try:
        done = subprocess.run(
            command, capture_output=True, encoding=encoding, errors="replace", check=False, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise MulticastExpertError(f"This OS cannot be asked for its groups: {error}.") from error
    if done.returncode:
        raise MulticastExpertError(f"{' '.join(command)} failed: {(done.stderr or done.stdout).strip()}")
    return done.stdout


# Linux


def _linux_groups(sockets: Iterable[UdpSocket] | None) -> list[JoinedGroup]:
    groups = [
        *parse_igmp(_read(_NET / "igmp"), _BYTE_ORDER),
        *(replace(each, protocol_version=_mld_version(each.interface)) for each in parse_igmp6(_read(_NET / "igmp6"))),
    ]
    # What the kernel keeps for itself has no filters.
    versions = {each.group.version for each in groups if not each.kept_by_system}
    found = [*with_source_filters(groups, chain(*(_source_filters(*_MARKERS[version]) for version in versions)))]
    if sockets is None:
        return found
    bound: dict[object, list[UdpSocket]] = {}
    for each in sockets:
        bound.setdefault(each.address, []).append(each)
    return [replace(each, sockets=tuple(bound.get(each.group, ()))) for each in found]


def _read(path: Path) -> str:
    """Return the text of a file; empty where the kernel lacks what it is about, such as IPv6."""
    try:
        return path.read_text()
    except FileNotFoundError:
        if _NET.exists():
            return ""
        raise


def _mld_version(interface: str) -> int | None:
    """Return the version of MLD that an administrator has forced; what the kernel speaks otherwise it does not tell.

    net.ipv6.conf.all goes first (mld_in_v1_mode() in the kernel's net/ipv6/mcast.c).
    """
    for scope in ("all", interface):
        with suppress(OSError, ValueError):
            if version := int(Path(f"/proc/sys/net/ipv6/conf/{scope}/force_mld_version").read_text()):
                return version
    return None


def _source_filters(family: int, level: int, group: str, source: str, file: str) -> list[SourceFilter]:
    """Return the lines of a filter file, all of them.

    The kernel begins its list at the first interface whose newest group has a source filter, and leaves out whatever
    comes before (igmp_mcf_get_first() in net/ipv4/igmp.c, measured on 6.18): often everything. So the newest group of
    the first interface, which is the loopback one, has to be one with a filter.
    """
    for _ in range(_ATTEMPTS):
        try:
            with _membership_on_loopback(family, level, group, source):
                filters = [*parse_source_filters(_read(_NET / file))]
        except OSError:
            break
        others = [each for each in filters if str(each.group) != group]
        # Somebody else may have joined on loopback in between.
        if len(others) < len(filters):
            return others
    warn(f"/proc/net/{file} may be incomplete, so some source filters may be missing.")
    return [*parse_source_filters(_read(_NET / file))]


@contextmanager
def _membership_on_loopback(family: int, level: int, group: str, source: str) -> Iterator[None]:
    request = SYSTEM.platform.layouts.group_source_req(
        socket.inet_pton(family, group), socket.inet_pton(family, source), _LOOPBACK
    )
    _, number = SYSTEM.platform.options["MCAST_JOIN_SOURCE_GROUP"]
    with socket.socket(family, socket.SOCK_DGRAM) as member:
        member.setsockopt(level, number, request)
        yield


def udp_sockets(chosen: Callable[[UdpSocket], bool] | None = None) -> list[UdpSocket]:
    """Return the UDP sockets that are bound to a group or to no address, with the processes that hold them.

    `chosen`: says which sockets are wanted instead.

    Those bound to a group receive nothing else; one bound to no address may have joined any group, and nobody but its
    program knows which. Linux only, from /proc/net/udp, udp6 and /proc/PID/fd (proc(5)); empty elsewhere. Other users'
    processes are seen by root only. Raises OSError.
    """
    if SYSTEM.platform.name != "linux":
        return []
    found = [
        each
        for file in ("udp", "udp6")
        for each in parse_udp(_read(_NET / file), _BYTE_ORDER)
        if (chosen(each) if chosen else each.address.is_multicast or each.address.is_unspecified)
    ]
    holders = _holders({each.inode for each in found})
    return [each._replace(processes=tuple(holders.get(each.inode, ()))) for each in found]


def _holders(inodes: set[int]) -> dict[int, list[Process]]:
    """Return the processes that hold the sockets with these numbers."""
    wanted = {f"socket:[{inode}]": inode for inode in inodes}
    holders: dict[int, list[Process]] = {}
    for directory in Path("/proc").iterdir() if wanted else ():
        if not directory.name.isdecimal():
            continue
        # It may end meanwhile, or belong to somebody else.
        with suppress(OSError):
            held = {wanted[link] for link in _links(directory / "fd") if link in wanted}
            if held:
                name = (directory / "comm").read_text(errors="surrogateescape").rstrip("\n")
                process = Process(int(directory.name), name)
                for inode in held:
                    holders.setdefault(inode, []).append(process)
    return holders


def _links(directory: Path) -> Iterator[str]:
    for entry in os.scandir(directory):
        with suppress(OSError):
            yield os.readlink(entry.path)  # noqa: PTH115 - there may be many thousands
