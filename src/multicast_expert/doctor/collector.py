"""Collects the facts about a target on this host, and tries to receive it. Touches the OS; judges nothing.

Each OS has a class of its own that tells what only it knows; see `doctor.host`. The trial is the same everywhere.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from importlib import import_module, metadata
from ipaddress import IPv4Address, IPv6Address, ip_address

from multicast_expert.core.addresses import IPAddress, parse_address, parse_port, parse_source
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceSpecifier, InterfaceChoice, missing_interface
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.ear import Progress
from multicast_expert.doctor.facts import Facts, ReceiverFacts, Route, Rule, Target, Trial, Unread
from multicast_expert.doctor.host import Host
from multicast_expert.doctor.trial import Attempt, maximum_buffer
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import choose_for_receiving

LISTEN = 5.0
"""Seconds that are listened, unless asked otherwise."""
SENDERS = 32
"""How many senders' routes are looked up."""
# Loaded by name, because each works on its own system only.
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
    """Return what there is to know about the reception of a group on this host; takes about `listen` seconds.

    group: as text; where it is not a multicast address, nothing is tried.
    port: the UDP port; None: any, and then the trial cannot receive but only watch.
    source: the only source that is wanted; None: all.
    iface: the interface, else all that a receiver would listen on.
    listen: seconds.
    progress: called about ten times a second with the seconds listened and the datagrams received so far; returns
        whether to go on listening.

    It joins, listens, and sends one datagram on each interface that never leaves the host; it changes nothing. It works
    in the thread that calls it, in the network namespace of that thread. A name or an address that no interface has is
    a finding; a source or a port that cannot be raises MulticastExpertError.
    """
    address = _group(group)
    version = None if address is None else address.version
    if port is not None:
        parse_port(port)
    wanted = None if source is None else str(parse_source(source, version))
    choices: Sequence[InterfaceChoice] = ()
    if version is not None:
        choices = _choose(iface, version)
    name = choices[0].iface.display_name if iface is not None and choices else None
    text = group if address is None else str(address)
    target = Target(text, port, wanted, name, version)
    joins: list[Join] = []
    if address is not None and address.is_multicast:
        there = [choice for choice in choices if choice.iface.index]
        joins = [Join(address, None if wanted is None else ip_address(wanted), choice) for choice in there]
    return collect_facts(target, joins, listen, progress=progress)


def _choose(iface: IfaceSpecifier | None, version: int) -> list[InterfaceChoice]:
    """Return the interfaces to listen on; a name or address that none has stands for a missing one."""
    try:
        return choose_for_receiving(None if iface is None else [iface], version, allow_missing=True)
    except MulticastExpertError:
        if not isinstance(iface, str | IPv4Address | IPv6Address):
            raise
        return [InterfaceChoice(missing_interface(str(iface)))]


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
    receive_buffer: int | None = None,
    receiver: ReceiverFacts | None = None,
    progress: Progress | None = None,
) -> Facts:
    """Return the facts about a target that is received by these memberships. `receive_buffer`: bytes to ask for."""
    host = _this_host(target, {join.interface.iface.index for join in joins})
    address = _group(target.group)
    attempt = None
    if address is not None and address.is_multicast:
        settings = ReceiveSettings(address.version, target.port or 0, receive_buffer=receive_buffer)
        attempt = Attempt(host, settings, address, joins)
    facts = Facts(
        metadata.version("multicast_expert"),
        time.time(),
        target,
        host.machine(),
        host.interfaces(),
        loopback_route=_loopback_route(host, address, joins),
        memberships=host.memberships(),
        settings=host.settings(host.names.values()),
        sockets=host.sockets(),
        bridges=host.bridges(),
        receiver=receiver,
    )
    if receiver is not None and receiver.buffer is not None:
        buffer = replace(receiver.buffer, maximum=maximum_buffer(facts))
        facts = replace(facts, receiver=replace(receiver, buffer=buffer))
    if attempt is not None:
        attempt.watch_beforehand()
    rules = host.firewall()
    trial: Trial | Unread
    if attempt is None:
        trial = Unread(f"{target.group} is not a multicast address, so it cannot be joined.")
    else:
        trial = attempt.run(listen, facts, progress)
        if not isinstance(rules, Unread) and rules:
            rules = _counted(rules, host.firewall(_senders(trial)))
    routes = _routes(host, address, trial)
    return replace(facts, routes=routes, firewall=rules, trial=trial)


def _this_host(target: Target, chosen: Collection[int]) -> Host:
    home, name = _HOSTS[kernel.SYSTEM.platform.name]
    host: Host = getattr(import_module(f"multicast_expert.doctor.{home}"), name)(target, chosen)
    return host


def _loopback_route(host: Host, group: IPAddress | None, joins: Iterable[Join]) -> bool | Unread | None:
    if group is None or not any(join.interface.iface.is_localhost() for join in joins):
        return None
    return host.loopback_route(group)


def _counted(before: Sequence[Rule], after: tuple[Rule, ...] | Unread) -> tuple[Rule, ...] | Unread:
    """Return the rules of afterwards, with the packets that they refused in between."""
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
    """Return the interfaces and addresses that datagrams of the target were seen to come from."""
    seen = {(arrived.interface, arrived.sender) for arrived in trial.arrivals}
    if not isinstance(trial.frames, Unread):
        seen |= {(frame.interface, frame.sender) for frame in trial.frames if not frame.outgoing}
    return seen if len(seen) <= SENDERS else set()


def _routes(host: Host, group: IPAddress | None, trial: Trial | Unread) -> tuple[Route, ...]:
    """Return the routes to the group, to the source, and to the senders that were seen."""
    if group is None:
        return ()
    destinations = [str(group), *([host.target.source] if host.target.source else [])]
    if isinstance(trial, Trial):
        destinations += [arrived.sender for arrived in trial.arrivals]
        destinations += [] if isinstance(trial.frames, Unread) else [frame.sender for frame in trial.frames]
        destinations += [] if isinstance(trial.queries, Unread) else [query.querier for query in trial.queries]
    wanted = list(dict.fromkeys(destinations))[: SENDERS + 2]
    return tuple(host.route(ip_address(destination)) for destination in wanted)
