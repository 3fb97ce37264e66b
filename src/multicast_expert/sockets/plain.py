"""plain_sockets, join and leave: the choices of this library for programs that have a loop and sockets of their own."""

from __future__ import annotations

import socket
from collections.abc import Iterable
from typing import Any

from multicast_expert.core.addresses import (
    IPAddress,
    MulticastAddress,
    parse_group,
    parse_port,
    parse_source,
    parse_sources,
)
from multicast_expert.core.both_ways import SendSettings, plan_plain
from multicast_expert.core.errors import MulticastExpertError, NotJoinedError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, InterfaceChoice, one_spelling
from multicast_expert.core.plan import Join, ReceiveSettings, check_dscp, check_hop_limit, check_receive_buffer
from multicast_expert.core.scopes import Scope, in_scope, parse_scoped_groups
from multicast_expert.engine.opening import change_membership, dress_socket
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import choose_for_receiving, scan_interfaces
from multicast_expert.system.kernel import Socket, ip_version


def plain_sockets(
    addr_family: int,
    mcast_ips: Iterable[MulticastAddress] = (),
    port: int = 0,
    iface: IfaceSpecifier | None = None,
    ifaces: Iterable[IfaceSpecifier] | None = None,
    source_ips: Iterable[MulticastAddress] | None = None,
    *,
    ttl: int = 1,
    enable_external_loopback: bool = True,
    dscp: int | None = None,
    receive_buffer: int | None = None,
    bind: bool = True,
) -> list[tuple[socket.socket, IfaceInfo]]:
    """Return sockets of Python that are ready for a loop of your own, one for each interface; you close them.

    Each is non-blocking, shares its port, has joined the groups on its interface, and sends to groups out of it. It is
    bound to the port on any address, so unicast arrives too, and what it sends to its groups comes back to it; with
    `bind=False` you bind it. The parameters are those of McastSocket. Raises MulticastExpertError and MulticastOSError;
    then no socket is left open.
    """
    version = ip_version(addr_family)
    groups = parse_scoped_groups(mcast_ips, version, may_be_empty=True)
    sources: list[IPAddress | None] = [*parse_sources(source_ips or (), version)] or [None]
    check_hop_limit(ttl)
    check_dscp(dscp)
    check_receive_buffer(receive_buffer)
    if port != 0:
        parse_port(port)
    specifiers = one_spelling(iface=iface, ifaces=ifaces)
    settings = ReceiveSettings(
        version, port, receive_buffer=receive_buffer, loopback=enable_external_loopback, gro=False, shares=True
    )
    sending = SendSettings(ttl, enable_external_loopback, dscp)
    made: list[tuple[socket.socket, IfaceInfo]] = []
    try:
        choices = choose_for_receiving(specifiers, version)
        wanted: dict[IPAddress, list[InterfaceChoice]] = {}
        for group, scope in groups:
            wanted.setdefault(group, []).extend(_in_scope(group, scope, choices))
        for choice in choices:
            sock = socket.socket(addr_family, socket.SOCK_DGRAM, socket.IPPROTO_UDP)
            made.append((sock, choice.iface))
            sock.setblocking(False)
            joins = [Join(group, source, choice) for group in wanted if choice in wanted[group] for source in sources]
            plan = plan_plain(kernel.SYSTEM.platform, settings, sending, choice, joins)
            dress_socket(kernel.SYSTEM, _dressable(sock), plan, bind)
            if bind and settings.port == 0:
                settings = settings._replace(port=sock.getsockname()[1])
            for change in plan.joins:
                change_membership(kernel.SYSTEM, _dressable(sock), change)
    except BaseException:
        for sock, _ in made:
            sock.close()
        raise
    return made


def _in_scope(group: IPAddress, scope: Scope | None, choices: list[InterfaceChoice]) -> list[InterfaceChoice]:
    if scope is None:
        return choices
    return in_scope(group, scope, [(each, [each.iface]) for each in choices], kernel.SYSTEM.platform.names_ignore_case)


def join(
    sock: socket.socket,
    group: MulticastAddress,
    *,
    iface: IfaceSpecifier | None = None,
    source: MulticastAddress | None = None,
) -> None:
    """Join a group with a socket of your own, on one interface or on all but loopback.

    `source`: from this host only. An IPv6 socket that is dual-stack (IPV6_V6ONLY off) joins IPv4 groups as well. Raises
    MulticastExpertError and MulticastOSError; then the group is joined nowhere.
    """
    joins = _joins(group, iface, source)
    done: list[Join] = []
    try:
        for each in joins:
            change_membership(kernel.SYSTEM, _dressable(sock), each.change(kernel.SYSTEM.platform, each.join_operation))
            done.append(each)
    except BaseException:
        for each in done:
            change_membership(
                kernel.SYSTEM, _dressable(sock), each.change(kernel.SYSTEM.platform, each.leave_operation)
            )
        raise


def leave(
    sock: socket.socket,
    group: MulticastAddress,
    *,
    iface: IfaceSpecifier | None = None,
    source: MulticastAddress | None = None,
) -> None:
    """Leave what `join` joined with the same arguments, also if interfaces have come or lost their addresses since.

    Raises MulticastExpertError and MulticastOSError, if the group can be left nowhere.
    """
    joins = _joins(group, iface, source, everywhere=iface is None)
    changes = [each.change(kernel.SYSTEM.platform, each.leave_operation) for each in joins]
    failures: list[MulticastExpertError] = []
    for change in changes:
        try:
            change_membership(kernel.SYSTEM, _dressable(sock), change)
        except MulticastExpertError as error:
            failures.append(error)
    if len(failures) == len(changes):
        raise next(iter(failures), NotJoinedError(f"{group} is not joined."))


def _dressable(sock: Any) -> Socket:
    """Return the socket as the engine takes it; on Windows it lacks `recvmsg`, which nothing here calls."""
    taken: Socket = sock
    return taken


def _joins(
    group: MulticastAddress, iface: IfaceSpecifier | None, source: MulticastAddress | None, everywhere: bool = False
) -> list[Join]:
    parsed = parse_group(group)
    parsed_source = None if source is None else parse_source(source, parsed.version)
    if everywhere:
        choices = [InterfaceChoice(each, required=False) for each in scan_interfaces() if not each.is_localhost()]
    else:
        choices = choose_for_receiving(None if iface is None else [iface], parsed.version)
    return [Join(parsed, parsed_source, choice) for choice in choices]
