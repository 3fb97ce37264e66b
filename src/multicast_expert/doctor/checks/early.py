"""Checks of what takes packets before IP sees them: XDP, ports of a bridge. Pure: touches no OS."""

from __future__ import annotations

import shlex

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received
from multicast_expert.doctor.facts import Bridge, Facts, InterfaceFacts, Unread, known, same
from multicast_expert.doctor.path import endings
from multicast_expert.doctor.report import Finding, finding, ok, problem, suspect

_PASSING_ON = ("br_dev_queue_push_xmit", "br_nf_dev_queue_xmit", "br_forward", "__br_forward", "deliver_clone")
"""Functions of the kernel by which a bridge sends to a port, and where it drops what is too long for it."""
_TAG, _ETHERNET_MTU = 4, 1500


def xdp(facts: Facts) -> Finding:
    """An XDP program on the interface takes the datagrams.

    XDP runs a BPF program on each packet before the kernel makes anything of it: a load balancer, a protection against
    attacks, or an accelerated capture (AF_XDP) may drop, redirect or keep it. That is before tcpdump, so nothing on
    this host shows the datagrams but the counters of the interface, and those of the program itself.

    **How to see it:** the first lines of the interface name the program; the card counts what it drops.

        ip -d link show dev eth0
        bpftool net
        ethtool -S eth0 | grep -i xdp

    **Cure:** let the program pass the group, or switch it off.

        ip link set dev eth0 xdp off

    The kernel refuses that for a program that a process holds by a link (`bpftool link`): end that process.
    """
    known(facts.interfaces)
    guarded = [each for each in this_host.below(facts) if each.xdp]
    evidence: dict[str, object] = {f"program on {each.name}": each.xdp for each in guarded}
    if not guarded:
        return ok("No XDP program is on the interfaces.")
    dropped = endings.lost_to(facts, "xdp")
    evidence |= {"datagrams that it dropped": dropped} if dropped else {}
    name = guarded[0].name
    remedy = (
        f"Let the program pass UDP to {facts.target.group}, or switch it off; a process that holds it must end:",
        f"ip link set dev {shlex.quote(name)} {(guarded[0].xdp or 'xdp').split()[0]} off",
    )
    if dropped:
        return problem(f"An XDP program on {name} drops the datagrams.", evidence, _step(remedy))
    if received(facts) or sightings.wanted(facts) or isinstance(facts.trial, Unread):
        return ok("An XDP program is on the interface, and lets datagrams pass.", evidence)
    vanished = counters.vanished(facts, [each.name for each in guarded])
    if vanished:
        evidence["packets that nothing else counted"] = vanished
        summary = (
            f"An XDP program is on {name}, and packets that come in there vanish before any program could see them."
        )
        return suspect(summary, evidence, _step(remedy))
    return ok("An XDP program is on the interface, and no packet vanishes.", evidence)


def _step(remedy: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(line[:-1] + "." if line.endswith(":") else line for line in remedy)


def bridge_port(facts: Facts) -> Finding:
    """A port of a bridge on this host lets the frames not pass.

    A port of a Linux bridge passes frames only in the state `forwarding`. Spanning tree keeps it in `blocking`,
    `listening` or `learning`, for half a minute after it came up or for good if there is a second way; and an
    administrator may set the state by hand. An isolated port exchanges nothing with other isolated ports, a locked one
    drops what comes from unknown stations, one without multicast flooding gets no group that it is not known to have
    joined, and a bridge that filters VLANs drops what a port is no member of. A port whose MTU is too small for a
    packet does not get it. No counter tells any of it.

    **How to see it:** state and flags of the ports, and their VLANs.

        bridge -d link show
        bridge vlan show

    **Cure:** the one that the evidence names.

        bridge link set dev eth0 state 3
        bridge link set dev eth0 isolated off
        bridge link set dev eth0 locked off
        bridge link set dev eth0 mcast_flood on
        ip link set dev eth0 mtu 1500
    """
    if isinstance(facts.bridges, Unread):
        return finding("ok" if received(facts) else "unknown", facts.bridges.reason, {}, phrases.remedy(facts.bridges))
    for bridge in facts.bridges:
        concerned = bridge.name in this_host.chosen_names(facts)
        if concerned and not bridge.ports and not received(facts):
            summary = f"The bridge {bridge.name} has no port, so nothing can come in: an interface has left it."
            step = f"Put the interface into it again, as with `ip link set eth0 master {bridge.name}`."
            return problem(summary, {"bridge": bridge.name, "ports": 0}, (step,))
        barred = dict(bridge.barred_ports)
        if concerned and (found := _barred_here(facts, bridge, barred) or _dropped_here(facts, bridge)):
            return found
        if found := _between_ports(facts, bridge, barred) or _too_long(facts, bridge):
            return found
    return ok("The ports of bridges let the frames pass." if facts.bridges else "There is no bridge on this host.")


def _barred_here(facts: Facts, bridge: Bridge, barred: dict[str, str]) -> Finding | None:
    """Judge the ports that the target would come in by; an isolated one still serves the bridge itself."""
    closed = {port: why for port, why in barred.items() if why != "isolated"}
    came = [each.interface for each in sightings.on_ports(facts)]
    guilty = [port for port in came if port in closed] or ([*closed] if len(closed) == len(bridge.ports) else [])
    if not guilty or received(facts):
        return None
    port = guilty[0]
    evidence: dict[str, object] = {f"port {name}": why for name, why in closed.items()}
    evidence["frames that came in there"] = came.count(port)
    summary = f"The port {port} of the bridge {bridge.name} is {closed[port]}, so no frame passes."
    return problem(summary, evidence, tuple(_open(port, closed[port])))


def _open(port: str, why: str) -> list[str]:
    """Return the commands that let frames pass."""
    device = shlex.quote(port)
    lines = [f"bridge link set dev {device} {flag} off" for flag in ("isolated", "locked") if flag in why]
    if any(state in why for state in ("disabled", "listening", "learning", "blocking")):
        lines.insert(0, f"bridge link set dev {device} state 3")
    return lines


def _dropped_here(facts: Facts, bridge: Bridge) -> Finding | None:
    """Judge what the kernel says that the bridge dropped, where no port is closed."""
    dropped = endings.lost_to(facts, "bridge-port")
    if not dropped or received(facts):
        return None
    evidence: dict[str, object] = {"datagrams that it dropped": dropped, "filters VLANs": bridge.filters_vlans}
    summary = f"The bridge {bridge.name} drops the frames that come in on its ports."
    steps = ("Look at state, flags and VLANs of its ports: `bridge -d link show`, `bridge vlan show`.",)
    if bridge.filters_vlans:
        summary = (
            f"The bridge {bridge.name} filters VLANs, and drops the frames: their port is no member of their VLAN."
        )
    return problem(summary, evidence, steps)


def _between_ports(facts: Facts, bridge: Bridge, barred: dict[str, str]) -> Finding | None:
    """Judge frames that come in on one port and leave by no other port, although receivers are known there."""
    came = {each.interface for each in sightings.frames(facts) or () if each.interface in bridge.ports}
    left = {each.interface for each in sightings.frames(facts, outgoing=True) or ()}
    members = () if isinstance(bridge.members, Unread) else bridge.members
    wanted = {port for group, port in members if same(group, facts.target.group) and port in bridge.ports}
    starving = [port for port in wanted - came - left if _starves(bridge, port, came, barred)]
    if not came or not starving:
        return None
    port = min(starving)
    if port in bridge.ports_without_flooding and port not in barred:
        why, lines = "without multicast flooding", [f"bridge link set dev {shlex.quote(port)} mcast_flood on"]
    else:
        why, lines = barred[port], _open(port, barred[port])
    evidence: dict[str, object] = {
        "frames come in on": phrases.named(sorted(came)), "joined behind": phrases.named(sorted(wanted)),
        f"port {port}": why,
    }  # fmt: skip
    summary = f"The bridge {bridge.name} passes the frames to no receiver behind {port}: the port is {why}."
    return problem(summary, evidence, tuple(lines))


def _too_long(facts: Facts, bridge: Bridge) -> Finding | None:
    """Judge frames that the bridge drops because they are longer than the MTU of the port behind which they are due."""
    came = [each for each in sightings.frames(facts) or () if each.interface in bridge.ports]
    dropped = sum(each.count for each in endings.drops(facts) or () if each.function.startswith(_PASSING_ON))
    longest = max((each.longest for each in came), default=0)
    members = () if isinstance(bridge.members, Unread) else bridge.members
    due = {port for group, port in members if same(group, facts.target.group)}
    # Without a querier a bridge knows no members, and sends groups to all ports.
    floods = not bridge.snooping or not (bridge.querier or bridge.other_querier)
    sources = {each.interface for each in came}
    small = [
        each
        for each in this_host.interfaces(facts)
        if each.name in bridge.ports and each.name not in sources and (each.name in due or floods)
        and each.mtu is not None and each.mtu + _TAG < longest
    ]  # fmt: skip
    if dropped <= counters.A_STREAM or not small:
        return None
    name = small[0].name
    evidence: dict[str, object] = {"longest packet": longest, f"MTU of {name}": small[0].mtu}
    evidence["datagrams that it dropped"] = dropped
    summary = f"The bridge {bridge.name} passes no packet of {longest} bytes on to {name}, whose MTU is {small[0].mtu}."
    return problem(summary, evidence, (f"ip link set dev {shlex.quote(name)} mtu {max(longest, _ETHERNET_MTU)}",))


def _starves(bridge: Bridge, port: str, came: set[str], barred: dict[str, str]) -> bool:
    """Return whether a setting of the port keeps the frames from it."""
    why = barred.get(port, "")
    if why == "isolated":
        return any("isolated" in barred.get(each, "") for each in came)
    return bool(why) or (port in bridge.ports_without_flooding and not bridge.snooping)


def on_a_closed_port(facts: Facts, interface: InterfaceFacts) -> bool:
    """Return whether an interface is a bridge that has no carrier only because its ports are closed by their state."""
    bridges = () if isinstance(facts.bridges, Unread) else facts.bridges
    ports = {each.name for each in this_host.interfaces(facts) if each.has_carrier and each.is_up}
    mine = [each for each in bridges if each.name == interface.name]
    return any(not each.ports or any(port in ports for port, _ in each.barred_ports) for each in mine)
