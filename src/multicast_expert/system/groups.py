"""The groups that this host has joined, and the sockets that hold them. Asks the OS, sends nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from multicast_expert.system import kernel
from multicast_expert.system.commands import run as command_output
from multicast_expert.system.kernel import os_error
from multicast_expert.system.listings import JoinedGroup, Member, UdpSocket

__all__ = ["command_output", "group_members", "joined_groups", "udp_sockets"]


def joined_groups(sockets: Iterable[UdpSocket] | None = None) -> list[JoinedGroup]:
    """Return the groups that this host has joined, by interface, with source filters and the version of IGMP or MLD.

    Linux: from /proc/net/igmp, igmp6, mcfilter and mcfilter6 (proc(5)), for the network namespace of this thread, each
    with those of `sockets` (see `udp_sockets`) that are bound to it. To have the source filters listed whole, it joins
    a group on the loopback interface for a moment. macOS, FreeBSD: from ifmcstat(8). Windows: from `netsh`, without
    source filters. The version of MLD is known only where it is forced (Linux), or reported by ifmcstat.

    Raises MulticastExpertError when the OS does not answer; a MulticastWarning says when source filters may be missing.
    """
    try:
        return kernel.SYSTEM.joined_groups(sockets)
    except OSError as error:
        raise os_error(kernel.SYSTEM, error, "list groups", "list the joined groups") from error


def udp_sockets(chosen: Callable[[UdpSocket], bool] | None = None) -> list[UdpSocket]:
    """Return the UDP sockets that are bound to a group or to no address, with the processes that hold them.

    `chosen`: selects other sockets instead.

    A socket that is bound to a group receives nothing else; one that is bound to no address may have joined any group,
    and only its program knows which. Linux only, from /proc/net/udp, udp6 and /proc/PID/fd (proc(5)); empty elsewhere.
    Only root sees the processes of other users. Raises MulticastOSError.
    """
    try:
        return kernel.SYSTEM.udp_sockets(chosen)
    except OSError as error:
        raise os_error(kernel.SYSTEM, error, "list sockets", "list the UDP sockets") from error


def group_members(sockets: Sequence[UdpSocket], groups: Sequence[JoinedGroup]) -> list[Member]:
    """Return the sockets that this user may look into, each with what it has joined of these groups.

    Linux 5.6 or newer only (pidfd_getfd(2)); empty elsewhere. Root may look into every program, an ordinary user into
    the own ones. Raises MulticastOSError.
    """
    try:
        return kernel.SYSTEM.members(sockets, groups)
    except OSError as error:
        raise os_error(kernel.SYSTEM, error, "list sockets", "list what the sockets have joined") from error
