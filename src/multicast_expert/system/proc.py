"""The groups and sockets of a Linux host, and the processes that hold them, by proc(5)."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path

from multicast_expert.core.errors import warn
from multicast_expert.platforms import LINUX
from multicast_expert.platforms.table import IPPROTO_IP, IPPROTO_IPV6
from multicast_expert.system.base import is_scarcity
from multicast_expert.system.listings import (
    ByteOrder,
    JoinedGroup,
    Process,
    SourceFilter,
    UdpSocket,
    parse_igmp,
    parse_igmp6,
    parse_source_filters,
    parse_udp,
    with_source_filters,
)

_BYTE_ORDER: ByteOrder = sys.byteorder
# /proc/net shows the network namespace of the main thread, this path that of the current thread (proc(5)).
_NET = Path("/proc/thread-self/net")
# Joined for a moment to have the source filters listed: groups that do not leave this host.
_MARKERS = {
    4: (socket.AF_INET, IPPROTO_IP, "232.255.255.254", "127.0.0.1", "mcfilter"),
    6: (socket.AF_INET6, IPPROTO_IPV6, "ff31::6d63:6173:7400", "::1", "mcfilter6"),
}
MARKER_GROUPS: frozenset[str] = frozenset(marker[2] for marker in _MARKERS.values())
"""The groups that a look at memberships joins; its reports are seen on the loopback interface."""
_LOOPBACK = 1
"""The index of the loopback interface, in every network namespace (LOOPBACK_IFINDEX in the kernel's net/flow.h)."""
_ATTEMPTS = 5


def joined_groups(sockets: Iterable[UdpSocket] | None) -> list[JoinedGroup]:
    """Return the groups that this host has joined; see `groups.joined_groups`."""
    groups = [
        *parse_igmp(_read(_NET / "igmp"), _BYTE_ORDER),
        *(replace(each, protocol_version=_mld_version(each.interface)) for each in parse_igmp6(_read(_NET / "igmp6"))),
    ]
    # The groups that the kernel joins itself have no filters.
    versions = {each.group.version for each in groups if not each.kept_by_system}
    found = [*with_source_filters(groups, chain(*(_source_filters(*_MARKERS[version]) for version in versions)))]
    if sockets is None:
        return found
    bound: dict[object, list[UdpSocket]] = {}
    for each in sockets:
        bound.setdefault(each.address, []).append(each)
    return [replace(each, sockets=tuple(bound.get(each.group, ()))) for each in found]


def _read(path: Path) -> str:
    """Return the text of a file; empty where the kernel lacks the file, such as those of IPv6.

    Names of interfaces may be any bytes, and mcfilter cuts them in the middle of a character.
    """
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except FileNotFoundError:
        if _NET.exists():
            return ""
        raise


@contextmanager
def _unless_scarce() -> Iterator[None]:
    """Pass over an OSError: the file vanished, or belongs to another user. Raise one that says that we ran out."""
    try:
        yield
    except OSError as error:
        if is_scarcity(error):
            raise


def _mld_version(interface: str) -> int | None:
    """Return the version of MLD that an administrator has forced; the kernel does not report it otherwise.

    net.ipv6.conf.all goes first (mld_in_v1_mode() in the kernel's net/ipv6/mcast.c).
    """
    for scope in ("all", interface):
        with _unless_scarce(), suppress(ValueError):
            if version := int(Path(f"/proc/sys/net/ipv6/conf/{scope}/force_mld_version").read_text()):
                return version
    return None


def _source_filters(family: int, level: int, group: str, source: str, file: str) -> list[SourceFilter]:
    """Return all lines of a filter file.

    The kernel begins its list at the first interface whose newest group has a source filter, and leaves out the
    interfaces before it (igmp_mcf_get_first() in net/ipv4/igmp.c, measured on 6.18): often all of them. So the newest
    group of the first interface, which is the loopback one, has to have a filter.
    """
    for _ in range(_ATTEMPTS):
        try:
            with _membership_on_loopback(family, level, group, source):
                filters = [*parse_source_filters(_read(_NET / file))]
        except OSError:
            break
        others = [each for each in filters if str(each.group) != group]
        # Another program may have joined on loopback in between.
        if len(others) < len(filters):
            return others
    warn(f"/proc/net/{file} may be incomplete, so some source filters may be missing.")
    return [*parse_source_filters(_read(_NET / file))]


@contextmanager
def _membership_on_loopback(family: int, level: int, group: str, source: str) -> Iterator[None]:
    request = LINUX.layouts.group_source_req(
        socket.inet_pton(family, group), socket.inet_pton(family, source), _LOOPBACK
    )
    _, number = LINUX.options["MCAST_JOIN_SOURCE_GROUP"]
    with socket.socket(family, socket.SOCK_DGRAM) as member:
        member.setsockopt(level, number, request)
        yield


def udp_sockets(chosen: Callable[[UdpSocket], bool] | None = None) -> list[UdpSocket]:
    """Return the UDP sockets that are bound to a group or to no address; see `groups.udp_sockets`."""
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
        with _unless_scarce():
            held = {wanted[link] for link in _links(directory / "fd") if link in wanted}
            if held:
                # Any user may give a process any bytes as its name (PR_SET_NAME in prctl(2)).
                name = (directory / "comm").read_bytes().removesuffix(b"\n").decode("utf-8", "replace")
                process = Process(int(directory.name), name)
                for inode in held:
                    holders.setdefault(inode, []).append(process)
    return holders


def _links(directory: Path) -> Iterator[str]:
    with os.scandir(directory) as entries:
        for entry in entries:
            with _unless_scarce():
                yield os.readlink(entry.path)  # noqa: PTH115 - there may be many thousands
