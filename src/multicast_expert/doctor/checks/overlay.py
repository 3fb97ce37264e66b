"""Checks of interfaces that reach one peer only or not their own host, and of bridges to other sites. Pure."""

from __future__ import annotations

import shlex
from collections.abc import Iterable

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, InterfaceFacts, address_of, known
from multicast_expert.doctor.report import Finding, ok, problem, suspect, unknown
from multicast_expert.wire.tallies import Frames

_ONE_PEER = {
    "wireguard": "WireGuard", "ipip": "an IP-in-IP tunnel", "sit": "a sit tunnel", "ip6tnl": "an IPv6 tunnel",
    "gre": "a GRE tunnel", "ip6gre": "a GRE tunnel", "gretap": "a GRE tunnel", "ip6gretap": "a GRE tunnel",
    "erspan": "an ERSPAN tunnel", "ip6erspan": "an ERSPAN tunnel", "vti": "an IPsec tunnel", "vti6": "an IPsec tunnel",
    "xfrm": "an IPsec tunnel", "geneve": "a Geneve tunnel", "ppp": "a PPP link", "vxlan": "a VXLAN",
}  # fmt: skip
_CHILDREN = ("macvlan", "macvtap", "ipvlan", "ipvtap")


def tunnel_of(facts: Facts, interface: InterfaceFacts) -> str | None:
    """Return what the interface is, in words, if it is a tunnel that floods no groups; None for every other one."""
    kind = _ONE_PEER.get(interface.kind or "")
    remote = address_of(interface.remote)
    if interface.is_loopback or (remote is not None and remote.is_multicast):
        return None
    if interface.kind == "vxlan":
        places = interface.floods_to
        if places is None or any(address is not None and address.is_multicast for address in map(address_of, places)):
            return None
        return f"{kind} that sends groups to {phrases.named(places) if places else 'no peer'}"
    if kind is not None:
        return f"{kind} to {interface.remote}" if remote is not None else kind
    return "a point-to-point link" if interface.is_point_to_point else None


def tunnel(facts: Facts) -> Finding:
    """The interface is a tunnel or an overlay that carries no groups by itself.

    A tunnel has one peer, or a peer for each destination. It floods nothing: datagrams of a group come out of it only
    if its far end puts them in. WireGuard sends a packet to the peer whose AllowedIPs hold the destination, so a group
    that no peer has there is dropped. IP-in-IP, GRE, sit and IPsec tunnels, PPP and `tun` carry whatever is routed into
    them, and a host does not route groups. A VXLAN with a group as its remote carries groups to all of its members;
    with peers instead it copies them to those in its forwarding table, and without any it drops them, our membership
    reports among them.

    **How to see it:** the kind, its remote, and where a VXLAN sends what it floods (00:00:00:00:00:00).

        ip -d link show dev wg0
        bridge fdb show dev vxlan0 | grep 00:00:00:00:00:00
        wg show wg0 allowed-ips

    **Cure:** give the VXLAN its peers; put the group into AllowedIPs of one peer; or have a router for groups (smcroute
    or pimd) at the far end send them into the tunnel.

        bridge fdb append 00:00:00:00:00:00 dev vxlan0 dst 192.0.2.7
        wg set wg0 peer KEY allowed-ips 10.8.0.2/32,239.1.2.3/32
    """
    known(facts.interfaces)
    found = {each: what for each in this_host.chosen(facts) if (what := tunnel_of(facts, each))}
    evidence: dict[str, object] = {each.name: what for each, what in found.items()}
    if not found:
        return ok("No tunnel is used.")
    seen = [each for each in sightings.seen(facts) if each.interface in evidence]
    if received(facts) or seen:
        return ok(f"{phrases.named(evidence)}: datagrams of the group come out of it.", evidence)
    if len(found) < len([each for each in this_host.chosen(facts) if not each.is_loopback]):
        return ok(f"{phrases.named(evidence)} carries groups only if its far end puts them in.", evidence)
    interface, what = next(iter(found.items()))
    name = shlex.quote(interface.name)
    kept = trial_of(facts).interface_counters.get(interface.name, {}).get("tx_dropped", 0)
    if interface.kind == "vxlan" and not interface.floods_to and kept:
        evidence["packets that it dropped"] = kept
        summary = f"{interface.name} is {what}: it drops our membership reports, and all else that goes to a group."
        step = f"Name each other end of the VXLAN: `bridge fdb append 00:00:00:00:00:00 dev {name} dst ADDRESS`."
        return problem(summary, evidence, (step,))
    summary = f"{interface.name} is {what}: groups come out of it only if the far end puts them in."
    step = "Ask for that at its far end: see with `tcpdump` there whether the group goes into the tunnel."
    return (suspect if counters.nothing_came(facts) else unknown)(summary, evidence, (step,))


def site_bridge(facts: Facts) -> Finding:
    """A bridge on this network carries groups between sites, and reaches no other site.

    Where the networks of two sites carry no groups between them, `mcast bridge` at each site does it over TCP, TLS or
    QUIC. A bridge whose connection is broken goes on listening, and nothing of the other sites comes: the sender sends,
    its network is sound, and so is this one. Each bridge greets the others on its network seven times a second, and
    says whether it reaches another site; the doctor listens to that if nothing arrives.

    **How to see it:** the bridge itself shows the sites that it reaches.

        mcast recv 239.255.77.66:7448 -c 1
        ss -tn 'sport = 7447 or dport = 7447'

    **Cure:** start the bridge at the other site; let its port (TCP 7447, unless told otherwise) through the firewalls;
    see that the locators of `--connect` and `--listen` fit, and the certificates on both sides.

        mcast bridge 239.1.2.3:5000 --connect tcp/192.0.2.7:7447
    """
    found = known(facts.trial).site_bridges
    evidence: dict[str, object] = {
        f"greeting of {each.address} on {each.interface}": "connected" if each.is_connected else "reaches no other site"
        for each in found
    }
    if received(facts) or sightings.seen(facts):
        return ok("The datagrams come to this network.", evidence)
    if cut_off := cut_off_bridge(facts):
        step = "See what that bridge shows, and whether there is one at the other site that it can connect to."
        return suspect(f"{cut_off} reaches no other site: what is sent there does not come here.", evidence, (step,))
    return ok("A bridge here reaches other sites." if found else "No bridge to other sites greets.", evidence)


def cut_off_bridge(facts: Facts) -> str | None:
    """Return the bridge that reaches no other site, in words; None if there is none, or another one that does."""
    found = trial_of(facts).site_bridges
    if not found or any(each.is_connected for each in found):
        return None
    return f"The bridge to other sites at {phrases.named(each.address for each in found)}"


def macvlan(facts: Facts) -> Finding:
    """A macvlan or ipvlan and the host that it is on do not hear each other, or it takes some stations only.

    A macvlan shares the wire of its parent with it. What one of them sends leaves by the wire, and never turns back to
    the other: a program on the host is not heard by a container with a macvlan on the same interface, nor the other way
    round, while all other hosts hear both. In mode `bridge` two macvlans of one parent hear each other, in mode
    `private` not even that, and in mode `vepa` only if the switch sends frames back. In mode `source` a macvlan takes
    frames of listed stations only. ipvlan is the same, and in the modes `l3` and `l3s` it passes no groups at all.

    **How to see it:** the kind, its mode, and the interface behind the @.

        ip -d link show dev mv0
        tcpdump -eni eth0 host 239.1.2.3

    **Cure:** give the host a macvlan of its own in mode bridge, and let its programs use that instead of the parent.

        ip link add hostside link eth0 type macvlan mode bridge
        ip link set mv0 type macvlan mode bridge
        ip link set link dev mv0 type macvlan macaddr add 02:00:00:00:00:07
    """
    known(facts.interfaces)
    here = this_host.chosen(facts)
    children = [each for each in here if each.kind in _CHILDREN]
    evidence: dict[str, object] = {each.name: _words(each) for each in children}
    if received(facts):
        return ok("No macvlan or ipvlan keeps datagrams back.", evidence)
    for each in children:
        if each.mode in ("l3", "l3s"):
            summary = f"{each.name} is an ipvlan in mode {each.mode}, which passes no groups."
            return problem(summary, evidence, (f"ip link set {shlex.quote(each.name)} type ipvlan mode l2",))
        if each.mode == "source" and (stranger := _unlisted(facts, each)):
            return _not_listed(each, stranger, evidence)
        if each.mode == "source" and each.kind == "macvlan" and not each.stations:
            summary = f"{each.name} is a macvlan in mode source, and its list of stations is empty: it takes no frame."
            step = "Add the sender's station: `ip link set link dev NAME type macvlan macaddr add ADDRESS`."
            only = all(other is each or other.is_loopback for other in here)
            return (problem if only else suspect)(summary, evidence, (step,))
    sent = sightings.frames(facts, outgoing=True) or ()
    for each in children:
        if of_host := [frame for frame in sent if frame.interface == each.parent]:
            return _not_heard(each.name, str(each.parent), of_host, evidence)
    for each in here:
        of_child = [frame for frame in sent if frame.interface == each.name and _is_of_child(facts, frame)]
        if of_child and not each.master and not sightings.frames(facts):
            return _not_heard(each.name, f"a macvlan or ipvlan of {each.name}", of_child, evidence)
    if children and counters.nothing_came(facts):
        names = phrases.named(each.name for each in children)
        summary = f"{names} hears other hosts, and not the host that it is on: {phrases.named(evidence.values())}."
        return unknown(summary, evidence, ("Check whether the sender runs on that host.",))
    return ok("No macvlan or ipvlan keeps datagrams back.", evidence)


def _words(each: InterfaceFacts) -> str:
    parent = f" of {each.parent}" if each.parent else ""
    return f"a {each.kind}{parent}{f' in mode {each.mode}' if each.mode else ''}"


def _unlisted(facts: Facts, child: InterfaceFacts) -> Frames | None:
    """Return frames of the target that came in on the parent from a station that the macvlan does not take."""
    for frame in sightings.frames(facts) or ():
        if frame.interface == child.parent and frame.ethernet_source not in ("", *child.stations):
            return frame
    return None


def _not_listed(child: InterfaceFacts, frame: Frames, evidence: dict[str, object]) -> Finding:
    evidence |= {"stations that it takes": ", ".join(child.stations) or "none", "sender": frame.sender}
    evidence["station of the sender"] = frame.ethernet_source
    summary = f"{child.name} is a macvlan in mode source, and does not take the frames of {frame.sender}."
    name = shlex.quote(child.name)
    command = f"ip link set link dev {name} type macvlan macaddr add {shlex.quote(frame.ethernet_source)}"
    return problem(summary, evidence, (command,))


def _not_heard(name: str, other: str, frames: Iterable[Frames], evidence: dict[str, object]) -> Finding:
    evidence["sent by"] = phrases.named(sightings.senders(frames))
    summary = f"The datagrams come from {other}, and {name} never hears it: a macvlan and its own host are kept apart."
    step = "Give the host a macvlan of its own in mode bridge, and let its programs use that instead."
    return problem(summary, evidence, (step,))


def _is_of_child(facts: Facts, frame: Frames) -> bool:
    """Return whether a frame that left on a parent was sent by one of its children, on this host or in a container."""
    sender = address_of(frame.sender)
    parent = next(each for each in this_host.interfaces(facts) if each.name == frame.interface)
    if frame.ethernet_source and parent.ethernet_address and sender not in this_host.own_addresses(facts):
        # The child is in another network namespace, as those of containers are.
        return frame.ethernet_source != parent.ethernet_address
    children = [each for each in this_host.interfaces(facts) if each.kind in _CHILDREN and each.parent == parent.name]
    return any(sender == address.ip for each in children for address in this_host.addresses(each))
