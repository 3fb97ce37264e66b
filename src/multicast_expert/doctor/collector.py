"""Collects the facts about a target on this host, and tries to receive it. Touches the OS; judges nothing."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from importlib import import_module, metadata
from ipaddress import ip_address
from typing import TypeVar

from multicast_expert.core.addresses import IPAddress, parse_address, parse_port, parse_source
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, InterfaceChoice, means_any, missing_interface
from multicast_expert.core.plan import BufferSize, Join, ReceiveSettings
from multicast_expert.doctor.facts import Facts, ReceiverFacts, Route, Rule, Target, Trial, Unread
from multicast_expert.doctor.host.any_os import Host
from multicast_expert.doctor.trial.attempt import Attempt, maximum_buffer
from multicast_expert.doctor.trial.port import find_port
from multicast_expert.doctor.trial.receiver import Progress
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import choose_for_receiving

Fact = TypeVar("Fact")

LISTEN = 5.0
"""Seconds to listen by default."""
SENDERS = 32
"""How many senders' routes are looked up."""
# Loaded by name, because each works only on its own OS.
_HOSTS = {
    "linux": ("linux", "LinuxHost"),
    "macos": ("bsd", "BsdHost"),
    "freebsd": ("bsd", "BsdHost"),
    "windows": ("windows", "WindowsHost"),
}


def collect(
    group: str,
    port: int | None = None,
    source: str | None = None,
    iface: IfaceSpecifier | None = None,
    listen: float = LISTEN,
    *,
    progress: Progress | None = None,
) -> Facts:
    """Return the facts about the reception of a group on this host; takes about `listen` seconds.

    group: as text; if it is not a multicast address, nothing is tried.
    port: the UDP port; None: the one that datagrams of the group go to. If none is seen, the trial receives nothing.
    source: the only requested source; None: all.
    iface: the interface; None: all that a receiver would listen on.
    listen: seconds.
    progress: gets the seconds listened and the datagrams received so far, about ten times a second; returns whether to
        go on listening.

    It joins, listens, and sends one datagram on each interface that never leaves the host; it changes nothing. It works
    in the thread that calls it, in that thread's network namespace. A name or an address that no interface has becomes
    a finding. Raises MulticastExpertError for an impossible source or port, and if the interfaces cannot be listed.
    """
    if iface is not None and means_any(iface):
        iface = None
    address = _group(group)
    version = None if address is None else address.version
    if port is not None:
        parse_port(port)
    wanted = None if source is None else str(parse_source(source, version))
    choices = [] if version is None else _choose(iface, version)
    name = choices[0].iface.display_name if iface is not None and choices else None
    target = Target(group if address is None else str(address), port, wanted, name, version)
    joins: list[Join] = []
    if address is not None and address.is_multicast:
        there = [choice for choice in choices if choice.iface.index]
        joins = [Join(address, None if wanted is None else ip_address(wanted), choice) for choice in there]
    if port is None and joins:
        began = time.monotonic()
        target = _with_port(target, joins, listen / 2, progress)
        listen -= 0 if target.port_found else min(time.monotonic() - began, listen / 2)
    return collect_facts(target, joins, listen, progress=progress)


def _with_port(target: Target, joins: Sequence[Join], seconds: float, progress: Progress | None) -> Target:
    """Return the target with the port that the datagrams go to, if one is seen in so many seconds."""
    try:
        host = _this_host(target, {join.interface.iface.index for join in joins})
        port = find_port(host, joins, seconds, progress)
    except OSError:
        return target
    return target if port is None else replace(target, port=port, port_found=True)


def _choose(iface: IfaceSpecifier | None, version: int) -> list[InterfaceChoice]:
    """Return the interfaces to listen on; a missing one stands for a name or address that no interface has."""
    try:
        return choose_for_receiving(None if iface is None else [iface], version, allow_missing=True)
    except MulticastOSError:
        # It says nothing about the interface.
        raise
    except MulticastExpertError:
        if iface is None or isinstance(iface, IfaceInfo):
            raise
        return [InterfaceChoice(missing_interface(str(iface)))]
    except OSError as error:
        raise _cannot_list(error) from error


def _cannot_list(error: OSError) -> MulticastExpertError:
    if isinstance(error, MulticastOSError):
        return error
    return MulticastExpertError(f"The interfaces of this host cannot be listed: {error.strerror or error}.")


def _group(text: str) -> IPAddress | None:
    try:
        return parse_address(text, "group")
    except MulticastExpertError:
        return None


def collect_facts(
    target: Target,
    joins: Sequence[Join],
    listen: float,
    *,
    receive_buffer: BufferSize | None = None,
    receiver: ReceiverFacts | None = None,
    progress: Progress | None = None,
) -> Facts:
    """Return the facts about a target and these memberships. `receive_buffer`: bytes to request."""
    try:
        host = _this_host(target, {join.interface.iface.index for join in joins})
        machine = host.machine()
    except OSError as error:
        raise _cannot_list(error) from error
    address = _group(target.group)
    attempt: Attempt | Unread
    if address is not None and address.is_multicast:
        settings = ReceiveSettings(address.version, target.port or 0, receive_buffer=receive_buffer)
        attempt = _asked("The kernel's counters could not be read", Attempt, host, settings, address, joins)
    else:
        attempt = Unread(f"{target.group} is not a multicast address, so it cannot be joined.")
    facts = Facts(
        metadata.version("multicast_expert"),
        time.time(),
        target,
        machine,
        _asked("The interfaces could not be read", host.interfaces),
        loopback_route=_loopback_route(host, address, joins),
        settings=host.settings(host.names.values()),
        bridges=_asked("The bridges could not be read", host.bridges),
        receiver=receiver,
        rules=_asked("The policy rules could not be read", host.rules),
        ipsec=_asked("The policies of IPsec could not be read", host.ipsec),
        sandbox=host.sandbox(),
    )
    if receiver is not None and receiver.buffer is not None:
        buffer = replace(receiver.buffer, maximum=maximum_buffer(facts))
        facts = replace(facts, receiver=replace(receiver, buffer=buffer))
    facts = _try(host, attempt, listen, facts, progress)
    return replace(facts, routes=_asked("The routes could not be read", _routes, host, address, facts.trial))


def _try(host: Host, attempt: Attempt | Unread, listen: float, facts: Facts, progress: Progress | None) -> Facts:
    """Return the facts with the trial, the sockets, and the firewall rules with what they dropped during the trial."""
    if isinstance(attempt, Attempt):
        failed = _asked("The kernel's counters could not be read", attempt.watch_beforehand)
        attempt = failed if isinstance(failed, Unread) else attempt
    rules = _asked("The firewall's rules could not be read", host.firewall)
    # Last, because the losses of each socket are compared with the kernel's counters during the trial.
    sockets = _asked("The open sockets could not be read", host.sockets)
    # Behind them: a socket that is just being opened joins after it was bound.
    memberships = _asked("The memberships could not be read", host.memberships)
    facts = replace(facts, sockets=sockets, memberships=memberships)
    if not isinstance(facts.memberships, Unread) and not isinstance(facts.sockets, Unread):
        elsewhere = host.members_elsewhere(facts.memberships)
        facts = replace(facts, members=host.members(facts.memberships, facts.sockets), members_elsewhere=elsewhere)
    if isinstance(attempt, Unread):
        return replace(facts, firewall=rules, trial=attempt)
    trial = _asked("The trial could not run", attempt.run, listen, facts, progress)
    if isinstance(trial, Trial) and not isinstance(rules, Unread) and rules:
        rules = _counted(rules, _asked("The firewall's rules could not be read", host.firewall, _senders(trial)))
    return replace(facts, firewall=rules, trial=trial)


def _asked(failure: str, question: Callable[..., Fact | Unread], *arguments: object) -> Fact | Unread:
    """Return the answer of this host, or why it could not be had."""
    try:
        return question(*arguments)
    except OSError as error:
        step = "Close other programs, or raise the limit of open files with `ulimit -n 65536`."
        shortage = kernel.SYSTEM.platform.errors.get(error.errno or 0) in ("EMFILE", "ENFILE")
        return Unread(f"{failure}: {error.strerror or error}.", step if shortage else "")


def _this_host(target: Target, chosen: Collection[int]) -> Host:
    home, name = _HOSTS[kernel.SYSTEM.platform.name]
    host: Host = getattr(import_module(f"multicast_expert.doctor.host.{home}"), name)(target, chosen)
    return host


def _loopback_route(host: Host, group: IPAddress | None, joins: Iterable[Join]) -> bool | Unread | None:
    if group is None or not any(join.interface.iface.is_localhost() for join in joins):
        return None
    return host.loopback_route(group)


def _counted(before: Sequence[Rule], after: tuple[Rule, ...] | Unread) -> tuple[Rule, ...]:
    """Return the rules after the trial, with the packets that they dropped in between."""
    if isinstance(after, Unread):
        return tuple(replace(rule, packets=None) for rule in before)
    earlier = {_identity(rule): rule.packets for rule in before}
    return tuple(
        rule if rule.packets is None else replace(rule, packets=rule.packets - (earlier.get(_identity(rule)) or 0))
        for rule in after
    )


def _identity(rule: Rule) -> tuple[str, str, int | None, str]:
    return rule.tool, rule.chain, rule.handle, rule.text


def _senders(trial: Trial) -> set[tuple[str, str]]:
    """Return the interfaces and addresses that datagrams of the target came from; nothing if there are too many."""
    seen = {(arrived.interface, arrived.sender) for arrived in trial.arrivals}
    if not isinstance(trial.frames, Unread):
        seen |= {(frame.interface, frame.sender) for frame in trial.frames if not frame.outgoing and frame.sender}
    return seen if len(seen) <= SENDERS else set()


def _routes(host: Host, group: IPAddress | None, trial: Trial | Unread) -> tuple[Route, ...]:
    """Return the routes to the group, to the source, and to the senders that were seen."""
    if group is None:
        return ()
    destinations = [str(group), *([host.target.source] if host.target.source else [])]
    if isinstance(trial, Trial):
        destinations += [arrived.sender for arrived in trial.arrivals]
        destinations += (
            [] if isinstance(trial.frames, Unread) else [frame.sender for frame in trial.frames if frame.sender]
        )
        destinations += [] if isinstance(trial.queries, Unread) else [query.querier for query in trial.queries]
    wanted = list(dict.fromkeys(destinations))[: SENDERS + 2]
    return tuple(host.route(ip_address(destination)) for destination in wanted)
