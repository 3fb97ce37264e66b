"""Checks of source addresses that the kernel drops, and of senders on this host. Pure: touches no OS."""

from __future__ import annotations

import shlex
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import background, counters, sightings, this_host, whose_losses
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, Route, Unread, address_of, interface_setting
from multicast_expert.doctor.path import endings
from multicast_expert.doctor.report import Finding, finding, ok, problem, unknown
from multicast_expert.wire.tallies import Frames

_OFF, _STRICT, _LOOSE = 0, 1, 2
_MODES = {_OFF: "off", _STRICT: "strict", _LOOSE: "loose"}
_NEVER_A_SOURCE = ("127.0.0.0/8", "224.0.0.0/4", "255.255.255.255/32")


def reverse_path_filter(facts: Facts) -> Finding:
    """The reverse path filter drops the datagrams, since the way back to their sender leads elsewhere.

    For every IPv4 packet Linux can ask where it would send a reply to. In strict mode (1) that has to be the interface
    that the packet came in on; in loose mode (2) there has to be a route at all, on any interface. What fails is
    dropped without a message: tcpdump shows it, programs get nothing. Groups meet this filter more often than
    connections: the sender may be in a network that this host has no route to, or the stream comes in on a second
    interface while the default route leads out of the first.

    The larger of two settings counts, `all` and that of the interface. So `all` = 1 makes every interface strict, and
    setting one interface to 2 loosens it even then; switching the filter off needs both to be 0. IPv6 has no such
    filter, except by firewall rules (`fib saddr`, `rpfilter`).

    **How to see it:** the counter grows with each datagram that was dropped; compare the way back with the interface.

        nstat -az TcpExtIPReversePathFilter
        sysctl net.ipv4.conf.all.rp_filter net.ipv4.conf.eth0.rp_filter
        ip route get 10.9.9.9

    **Cure:** loosen it where a route back exists; else add one. Settings are kept in /etc/sysctl.d/.

        sysctl -w net.ipv4.conf.eth0.rp_filter=2
        ip route add 10.9.9.9/32 dev eth0
    """
    if facts.target.group_version == 6 or facts.machine.system != "linux":
        return ok("Only IPv4 on Linux has a reverse path filter.")
    dropped = counters.filtered(facts)
    modes = {each.name: _mode(facts, each.name) for each in this_host.chosen(facts)}
    evidence: dict[str, object] = {} if dropped is None else {"packets dropped by it": dropped}
    evidence |= {f"rp_filter of {name}": _MODES.get(mode, mode) for name, mode in modes.items() if mode is not None}
    if dropped == 0 or (modes and all(mode == _OFF for mode in modes.values())):
        return ok("The reverse path filter dropped nothing.", evidence)
    if dropped is None:
        why = phrases.reason(facts.trial, *facts.settings.values())
        return unknown(why[0] or "Its counter is not known.", evidence, why[1])
    lost = _lost_sources(facts)
    if lost is None:
        if background.beyond_usual(facts, counters.filtered) == 0:
            return ok(f"It dropped {phrases.counted(dropped, 'packet')}, no more than before the join.", evidence)
        return _filter_by_counters(facts, dropped, modes, evidence)
    verdict = endings.lost_to(facts, "reverse-path-filter")
    if verdict == 0:
        return ok("The reverse path filter dropped none of the datagrams.", evidence)
    for frame in lost:
        refused = _is_refused(facts, frame.sender, modes.get(frame.interface), frame.interface)
        if verdict or refused or (refused is None and not received(facts)):
            return _filtered(facts, frame.sender, frame.interface, evidence, certain=True)
    return ok(f"It dropped {phrases.counted(dropped, 'packet')}, but none of the target.", evidence)


def _mode(facts: Facts, interface: str) -> int | None:
    """Return the effective mode of the filter on an interface."""
    values = [this_host.setting(facts, each, "rp_filter") for each in ("all", interface)]
    known = [value for value in values if value is not None]
    return max(known) if known else None


def _lost_sources(facts: Facts) -> list[Frames] | None:
    """Return frames of the target from senders that none of our sockets received."""
    wanted = sightings.wanted(facts)
    if wanted is None:
        return None
    heard = sightings.heard(facts)
    return [each for each in wanted if (each.interface, each.sender) not in heard]


def _is_refused(facts: Facts, sender: str, mode: int | None, interface: str) -> bool | None:
    """Return whether the filter drops a source on an interface; None: the way back is not known."""
    passage = this_host.passage(facts, interface, sender)
    route = this_host.route_to(facts, sender)
    if mode in (None, _OFF) or route is None or passage is not None:
        # The kernel was asked whether it takes a packet from there.
        return False if mode == _OFF or (passage and not passage.error) else True if passage else None
    return route.interface is None or (mode == _STRICT and route.interface != interface)


def _filter_by_counters(
    facts: Facts, dropped: int, modes: dict[str, int | None], evidence: dict[str, object]
) -> Finding:
    """Judge without frames: the counter tells how many packets were dropped, not which."""
    if received(facts):
        return ok(f"It dropped {phrases.counted(dropped, 'packet')}, but datagrams of the target arrive.", evidence)
    why = phrases.reason(trial_of(facts).frames)
    if counters.may_be_queries(facts):
        text = f"It dropped {phrases.counted(dropped, 'packet')}, so few and so short that they may be IGMP queries."
        return unknown(text, evidence, why[1])
    if unclear := whose_losses.unclear(facts):
        return unknown(unclear, evidence, why[1])
    taken_in = trial_of(facts).interface_counters
    filtering = [name for name, mode in modes.items() if mode != _OFF]
    filtering = [name for name in filtering if taken_in.get(name, {}).get("rx_packets", 1)] or filtering
    source = facts.target.source
    if source is not None:
        verdicts = {name: _is_refused(facts, source, modes[name], name) for name in filtering}
        guilty = [name for name, verdict in verdicts.items() if verdict is not False]
        if not guilty:
            text = (
                f"It dropped {phrases.counted(dropped, 'packet')}, not those of {source}: the way back to it is right."
            )
            return ok(text, evidence)
        certain = any(verdicts.values())
        return _filtered(facts, source, next((name for name in guilty if verdicts[name]), guilty[0]), evidence, certain)
    if not filtering:
        return ok("It is off on the interfaces of the target.", evidence)
    found = _filtered(facts, None, filtering[0], evidence, certain=False)
    if len(filtering) == 1:
        return found
    summary = f"The reverse path filter drops datagrams on one of {phrases.named(filtering)}: the way back differs."
    remedy = dict.fromkeys(line for name in filtering for line in _let_through(facts, None, name))
    return replace(found, summary=summary, evidence=evidence, remedy=tuple(remedy))


def _filtered(facts: Facts, sender: str | None, interface: str, evidence: dict[str, object], certain: bool) -> Finding:
    mode = _mode(facts, interface)
    every, own = (this_host.setting(facts, name, "rp_filter") or 0 for name in ("all", interface))
    decides = interface_setting(4, "all" if every >= own else interface, "rp_filter")
    route = this_host.route_to(facts, sender) if sender is not None else None
    evidence = evidence | {"decided by": f"{decides} = {mode}"}
    rules = () if isinstance(facts.rules, Unread) else facts.rules
    evidence |= {f"policy rule {each.preference}": each.text for each in rules[:4] if each.version == 4}
    if sender is not None:
        kind = f" ({route.kind})" if route is not None and route.kind != "unicast" else ""
        back = f"no route{kind}" if route is None or route.interface is None else route.interface
        evidence |= {"sender": sender, "came in on": interface, "way back to it": back}
    text = f"The reverse path filter ({_MODES.get(mode or _OFF)}) of {interface} drops datagrams"
    summary = f"{text} of {sender}." if sender else f"{text}: the way back to their sender leads elsewhere."
    return finding("problem" if certain else "suspect", summary, evidence, _let_through(facts, sender, interface))


def _let_through(facts: Facts, sender: str | None, interface: str) -> tuple[str, ...]:
    """Return the smallest change by which the filter lets a sender's datagrams through."""
    route = this_host.route_to(facts, sender) if sender is not None else None
    loose = interface_setting(4, interface, "rp_filter")
    rules = () if isinstance(facts.rules, Unread) else facts.rules
    if sender is not None and route is not None and route.interface is None and not rules:
        # A rejecting route may be there already, so `add` could fail.
        verb = "add" if route.kind == "unicast" else "replace"
        return (f"ip route {verb} {shlex.quote(sender)}/32 dev {shlex.quote(interface)}",)
    if sender is not None and route is not None and route.interface is not None:
        return (phrases.set_command(loose, _LOOSE),)
    # Without a known way back only switching the filter off is sure to help; a policy rule would win over a route.
    both = (interface_setting(4, "all", "rp_filter"), loose)
    active = [name for name in both if this_host.number(facts, name) not in (None, _OFF)]
    return tuple(phrases.set_command(name, _OFF) for name in active or [loose])


def local_source(facts: Facts) -> Finding:
    """The datagrams come from outside with a source address that cannot be outside.

    Linux drops packets that come in on a wire with an address of this host as their source, or with one of 127.0.0.0/8
    or of a group; it counts them in `Ip: InReceives` and nowhere else. That happens when

    - two hosts have the same address, often after a machine was cloned;
    - two interfaces of this host are in one network, so that what one sends comes in on the other;
    - a switch, tap or wireless bridge sends back what it got from us;
    - the sender bound its socket to 127.0.0.1.

    **How to see it:** the source in tcpdump, and whether it is one of this host's.

        tcpdump -eni eth0 host 239.1.2.3
        ip -br addr
        arping -D -I eth0 10.0.0.7

    **Cure:** give every host an address of its own, and have senders use the address of their interface. If it is meant
    to be so (two interfaces in one network), let the host take its own address:

        sysctl -w net.ipv4.conf.eth0.accept_local=1
    """
    wanted = sightings.wanted(facts)
    if wanted is None:
        why = phrases.reason(facts.trial, trial_of(facts).frames)
        refused = counters.refused(facts)
        if received(facts) or (refused is not None and refused <= counters.own_reports(facts)):
            return ok("No packet was dropped for its source.")
        return unknown(why[0], {}, why[1])
    heard = sightings.heard(facts)
    own = this_host.own_addresses(facts)
    loopback = this_host.loopback_names(facts)
    for frame in wanted:
        address = address_of(frame.sender)
        if address is None or (frame.interface, frame.sender) in heard or frame.interface in loopback:
            continue
        evidence: dict[str, object] = {"source": frame.sender, "came in on": frame.interface}
        evidence["sent by"] = frame.ethernet_source
        spoofed = address in own and isinstance(address, IPv4Address) and not address.is_loopback
        if spoofed and not _accepts_local(facts, frame.interface):
            summary = f"Datagrams come in on {frame.interface} from {frame.sender}, which is this host's own address."
            command = phrases.set_command(interface_setting(4, frame.interface, "accept_local"), 1)
            step = "Give the sender an address of its own; if the source is meant to be this host, accept it."
            return problem(summary, evidence, (step, command))
        route = this_host.route_to(facts, frame.sender)
        if route is not None and route.kind in ("local", "broadcast") and address not in own and address.version == 4:
            return _taken_for_own(facts, frame, route, evidence)
        impossible = any(address in IPv4Network(each) for each in _NEVER_A_SOURCE if isinstance(address, IPv4Address))
        if impossible or (address.version == 6 and (address.is_loopback or address.is_multicast)):
            summary = f"Datagrams come in from {frame.sender}, an address that no datagram on a wire may come from."
            step = "Have the sender use the address of its interface: it is bound to the wrong one."
            return problem(summary, evidence, (step,))
    return ok("No datagram of the target comes from an impossible source.")


def _taken_for_own(facts: Facts, frame: Frames, route: Route, evidence: dict[str, object]) -> Finding:
    """Judge a sender whose address a route of this host claims, as routes of the type local do (AnyIP)."""
    evidence = evidence | {"type of the route to it": route.kind}
    if route.kind == "broadcast":
        summary = (
            f"Datagrams come from {frame.sender}, which is a broadcast address here: no datagram may come from it."
        )
        return problem(summary, evidence, ("Have the sender use another address, or correct the prefix length here.",))
    summary = f"A route of the type local claims {frame.sender}, so its datagrams count as forged."
    remedy = (f"ip route del local {shlex.quote(frame.sender)}",)
    text = "If that route covers more than this address, delete it whole: `ip route show table local`."
    return problem(summary, evidence, (*remedy, text))


def _accepts_local(facts: Facts, interface: str) -> bool:
    return any(this_host.number(facts, interface_setting(4, each, "accept_local")) == 1 for each in ("all", interface))


def local_sender(facts: Facts) -> Finding:
    """The sender is on this host and keeps its datagrams from receivers on the same host.

    What a program sends to a group leaves on the wire, and a copy goes to the receivers on its own host, unless the
    sender has switched that off (`IP_MULTICAST_LOOP` = 0, in IPv6 `IPV6_MULTICAST_LOOP`). On Linux and macOS it is the
    sender's setting that counts, and that of the receiver does nothing; on Windows it is the receiver's. Many programs
    switch it off so as not to hear themselves, and cut off every other receiver on the host with it. `McastTxSocket` of
    this library has it off unless `enable_external_loopback` is true.

    **How to see it:** frames leave this host (`Out`), other hosts receive them, programs here do not.

        tcpdump -ni any host 239.1.2.3

    **Cure:** switch the loopback on in the sender, and let programs that hear themselves throw their own away by sender
    address and port.

        mcast send 239.1.2.3:5000 hello
    """
    sent = sightings.wanted(facts, outgoing=True)
    if sent is None:
        why = phrases.reason(facts.trial, trial_of(facts).frames)
        count = counters.sent_to_groups(facts)
        if received(facts) or not (count or isinstance(facts.trial, Unread) or not facts.trial.counters):
            return ok("No sender on this host keeps its datagrams from it.")
        text = f"This host sent {phrases.counted(count, 'packet')} to groups; only root can see which."
        return unknown(text if count else why[0], {}, why[1])
    evidence = {"frames sent": sum(each.count for each in sent), "interfaces": phrases.named(x.interface for x in sent)}
    if not sent or sightings.wanted(facts) or trial_of(facts).arrivals or isinstance(facts.trial, Unread):
        return ok("No sender on this host keeps its datagrams from it.", evidence)
    summary = "A program on this host sends the datagrams, with loopback off: no program here can receive them."
    step = "Switch loopback on in that program: IP_MULTICAST_LOOP, or `enable_external_loopback=True` in this library."
    return problem(summary, evidence, (step,))
