"""`mcast demo`: the main job in one command. Without -i nothing that it sends or joins leaves this host.

On the loopback interface nothing can. On others, which only IPv6 may need, it uses interface-local groups, which are
neither sent nor reported to routers (RFC 4291, 2.7; RFC 3810, 6), and hop limit 0.
"""

from __future__ import annotations

import secrets
import socket
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from time import monotonic

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import InterfaceOption, command
from multicast_expert.cli.render.demo import (
    Omission,
    Probe,
    Trial,
    conclusion,
    exit_status,
    omission_lines,
    trial_lines,
)
from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, interface_address_text, one_spelling
from multicast_expert.sockets.receiver import McastRxSocket
from multicast_expert.sockets.transmitter import McastTxSocket
from multicast_expert.system.interfaces import choose_for_sending, scan_interfaces
from multicast_expert.system.kernel import SYSTEM

# Seconds after which a datagram counts as lost. One that arrives takes microseconds.
PATIENCE = 1.0
# How many interfaces other than loopback are tried for IPv6.
CANDIDATES = 3
# The last datagram to each listener: after it, everything has arrived.
LAST = b"last"


@command(
    """
    Two receivers and a neighbour, which has joined a third group on the same port, listen. A datagram goes to each
    group, and one goes to the port by unicast. Nothing leaves this host unless -i names an interface. The exit status
    is 0 if at least one IP version was shown and every datagram arrived where it should.
    """,
    ("mcast demo", "Whether multicast works on this host; nothing leaves it"),
    ("mcast demo -i eth0", "The same on a network, where others may hear it"),
)
def run(iface: InterfaceOption = None) -> int:
    """Return 0 if at least one IP version was shown and every datagram arrived where it should, else 1."""
    ifaces = scan_interfaces()
    results: list[Trial | Omission] = []
    for version in (4, 6):
        result = _no_sockets(version) or _show(version, iface, ifaces)
        results.append(result)
        if isinstance(result, Trial):
            terminal.show_lines(trial_lines(result, terminal.size(sys.stdout)[0]), sys.stdout)
            terminal.write()
    for result in results:
        for line in [conclusion(result)] if isinstance(result, Trial) else omission_lines(result):
            terminal.write(line)
    return exit_status(results)


def _show(version: int, iface: str | None, ifaces: Sequence[IfaceInfo]) -> Trial | Omission:
    if iface is None:
        return _show_inside(version, ifaces)
    return _show_on(version, choose_for_sending(one_spelling(iface=iface), version)[0].iface)


def _no_sockets(version: int) -> Omission | None:
    """Return why this process can have no sockets of the IP version, as in a sandbox; None if it can."""
    try:
        socket.socket(socket.AF_INET if version == 4 else socket.AF_INET6, socket.SOCK_DGRAM).close()
    except OSError as error:
        return Omission(version, f"this process may open no IPv{version} socket ({error.strerror})")
    return None


def _show_on(version: int, iface: IfaceInfo) -> Trial | Omission:
    """Show one IP version on the interface that the user named."""
    if not iface.addresses(version):
        return Omission(version, f"{iface.display_name} has no IPv{version} address")
    groups = _groups(f"239.255.{_number(250)}." if version == 4 else f"ff15::{_number(0x10000):x}:")
    result = _try(version, iface, groups, 1, interface_address_text(iface.addresses(version)[0]))
    return _deaf_loopback(iface) if version == 6 and iface.is_localhost() and _is_silent(result) else result


def _show_inside(version: int, ifaces: Sequence[IfaceInfo]) -> Trial | Omission:
    """Show one IP version without anything leaving this host."""
    able = [iface for iface in ifaces if iface.addresses(version)]
    loopback = [iface for iface in able if iface.is_localhost() and iface.is_up]
    groups = _groups(f"239.255.{_number(250)}." if version == 4 else f"ff11::{_number(0x10000):x}:")
    unicast = interface_address_text(loopback[0].addresses(version)[0]) if loopback else None
    omission = _no_address(version, bool(able))
    for iface in loopback:
        result = _try(version, iface, groups, 0, unicast)
        if version == 4 or not _is_silent(result):
            return result
        omission = _deaf_loopback(iface)
    if version == 6:
        others = [iface for iface in able if iface.is_up and iface.supports_multicast and not iface.is_localhost()]
        for iface in others[:CANDIDATES]:
            result = _try(version, iface, groups, 0, unicast)
            if not _is_silent(result):
                return result
    return omission


def _is_silent(result: Trial | Omission) -> bool:
    return isinstance(result, Omission) or result.silent


def _deaf_loopback(iface: IfaceInfo) -> Omission:
    cure = "as root: ip -6 route add local ff00::/8 dev lo table local" if SYSTEM.platform.name == "linux" else ""
    return Omission(6, f"{iface.display_name} has no route for IPv6 multicast", cure)


def _no_address(version: int, elsewhere: bool) -> Omission:
    linux = SYSTEM.platform.name == "linux"
    if version == 6 and not elsewhere:
        cure = "as root: sysctl -w net.ipv6.conf.all.disable_ipv6=0, if IPv6 is switched off"
        return Omission(version, "no interface has an IPv6 address", cure if linux else "")
    cure = "as root: ip link set lo up" if linux else ""
    return Omission(version, f"no loopback interface is up and has an IPv{version} address", cure)


def _number(limit: int) -> int:
    """Return a random number, so that two demonstrations at once hardly meet."""
    return 1 + secrets.randbelow(limit - 1)


def _groups(prefix: str) -> tuple[str, str, str]:
    return f"{prefix}1", f"{prefix}2", f"{prefix}3"


def _try(
    version: int, iface: IfaceInfo, groups: tuple[str, ...], hop_limit: int, unicast: str | None
) -> Trial | Omission:
    """Return the result of sending to all groups; an error of the OS becomes an Omission."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    port = _free_port(family)
    try:
        with ExitStack() as opened:
            listeners = [
                opened.enter_context(
                    McastRxSocket(family, [group], port, iface, timeout=0, enable_external_loopback=True)
                )
                for group in groups
            ]
            transmitter = opened.enter_context(
                McastTxSocket(family, groups, iface, hop_limit, enable_external_loopback=True)
            )
            # Datagrams that only the neighbour may receive go first, so that a leak arrives before the rest.
            destinations = [*([unicast] if unicast else []), *reversed(groups)]
            if unicast:
                _send_unicast(family, unicast, port)
            for group in reversed(groups):
                transmitter.sendto(group.encode(), (group, port))
            for group in groups:
                transmitter.sendto(LAST, (group, port))
            copies = _collect(listeners)
    except MulticastOSError as error:
        reason = f"{error.summary}: {error.reason}" if error.reason else error.summary
        return Omission(version, reason[:1].lower() + reason[1:], error.remedy)
    probes = tuple(
        Probe(
            destination,
            tuple(counter[destination.encode()] for counter in copies),
            None if destination == unicast else groups.index(destination),
        )
        for destination in reversed(destinations)
    )
    return Trial(version, iface.display_name, port, hop_limit, groups, probes)


def _free_port(family: int) -> int:
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


def _send_unicast(family: int, address: str, port: int) -> None:
    with socket.socket(family, socket.SOCK_DGRAM) as sender:
        sender.sendto(address.encode(), (address, port))


def _collect(listeners: Sequence[McastRxSocket]) -> list[Counter[bytes]]:
    """Return how many copies of each payload each listener got."""
    deadline = monotonic() + PATIENCE
    return [Counter(_until_last(listener, deadline)) for listener in listeners]


def _until_last(listener: McastRxSocket, deadline: float) -> Iterator[bytes]:
    """Yield payloads until the last one or the deadline comes."""
    while (remaining := deadline - monotonic()) > 0:
        listener.settimeout(remaining)
        payload = listener.recv()
        if payload in (LAST, None):
            return
        yield payload
