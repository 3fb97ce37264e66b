"""Checks of datagrams that never reach this host. Pure: touches no OS."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from multicast_expert.core.addresses import parse_group, scope
from multicast_expert.doctor import phrases
from multicast_expert.doctor.checks.overlay import cut_off_bridge, tunnel_of
from multicast_expert.doctor.checks.traffic_control import stuck_queue
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import trial_of
from multicast_expert.doctor.facts import Facts, Unread, address_of
from multicast_expert.doctor.path import endings, sending
from multicast_expert.doctor.report import Finding, Verdict, finding, ok, problem, suspect, unknown

_LOOK_BELOW = "Look at what may take them first: `ip -d link show` (XDP), `ethtool -S INTERFACE` (drops of the card)."
_TOO_SHORT = 0.9
"""Seconds of listening that are too few to prove anything."""


def ttl(facts: Facts) -> Finding:
    """The hop limit of the datagrams is too small for the way to the receivers.

    Every router takes one off the hop limit (the TTL of IPv4) and does not forward what has none left. The usual value
    for groups is 1: programs that set nothing send no further than their own network, on purpose. So a stream works in
    the sender's network and is missing behind the first router, whatever the routers are configured to do; nobody sends
    an error message about a group.

    Across N routers the sender needs a hop limit of at least N + 1. Some routers have a threshold on top of that. With
    0, nothing leaves the sender's own host; its own receivers get copies.

    **How to see it:** in the sender's network; here, too, datagrams that come in tell what is left of it.

        tcpdump -vni eth0 host 239.1.2.3
        mcast recv --json 239.1.2.3:5000
        traceroute 10.1.0.7

    **Cure:** raise the hop limit in the sender (`ttl=`, `IP_MULTICAST_TTL`, `IPV6_MULTICAST_HOPS`).

        mcast send --ttl 8 239.1.2.3:5000 hello
    """
    target = facts.target
    if kept := sending.kept_by_hop_limit(facts):
        evidence: dict[str, object] = {"datagrams that did not leave": kept}
        summary = "This host sends with a hop limit of 0, so that its datagrams never leave it."
        verdict = suspect if sending.others_arrive(facts) else problem
        return verdict(summary, evidence, ("Have the program send with a hop limit of 1 or more.",))
    sent = _sent_no_further(facts)
    if sent:
        evidence = {"sender": sent, "hop limit": 1, "router": this_host.gateway_to(facts, target.group)}
        summary = f"This host ({sent}) sends with a hop limit of 1: receivers behind a router get nothing."
        return suspect(summary, evidence, ("If there are such receivers, raise the hop limit.",))
    limits = [each.hop_limit for each in sightings.seen(facts) if each.hop_limit is not None]
    if limits:
        return ok("The hop limit is large enough to reach this host.", {"hop limit left": min(limits)})
    if missing := this_host.missing(facts):
        return unknown(missing)
    if target.source is None:
        return unknown("Name the source to find out whether a router is in between.")
    gateway = this_host.gateway_to(facts, target.source)
    if gateway is None:
        return ok(f"No router is known to be between {target.source} and this host.")
    summary = f"{target.source} is behind the router {gateway}: its hop limit must be 2 or more, and usually it is 1."
    step = f"Have {target.source} send with a larger hop limit, as in `mcast send --ttl 8`."
    return finding("suspect" if counters.nothing_came(facts) else "unknown", summary, {"router": gateway}, (step,))


def _sent_no_further(facts: Facts) -> str | None:
    """Return the own address that sends with a hop limit of 1 although there is a router; else None."""
    group = address_of(facts.target.group)
    if group is None or not group.is_multicast or scope(parse_group(group)) in ("link", "interface"):
        return None
    if this_host.gateway_to(facts, facts.target.group) is None:
        return None
    own = this_host.own_addresses(facts)
    loopback = this_host.loopback_names(facts)
    for each in sightings.seen(facts, outgoing=True):
        address = address_of(each.sender)
        if each.hop_limit == 1 and each.interface not in loopback and address is not None and address in own:
            return each.sender
    return None


def no_traffic(facts: Facts) -> Finding:
    """Nothing of the group reaches this host: the cause is in the network, or the sender does not send.

    This is what remains when no datagram of the group comes in on any wire of this host. Everything on this host may be
    fine then, and no setting here will help. In the order of likelihood:

    - the sender does not run, sends to another group, or sends out of another interface (often the one of its default
      route);
    - its hop limit is 1, and a router is in between;
    - a snooping switch does not know of our membership: there is no querier, or our reports do not get to it;
    - a router in between does not forward groups (PIM, or an entry made by hand, is missing);
    - they are in different VLANs, or an access point or hypervisor holds groups back.

    **How to see it:** watch at several places at the same time while joined here: at the sender, at the switch (a
    mirror port), here. The first place where it is missing is the one to look at. If you have no sender, use this one:

        mcast send --stamp 239.1.2.3:5000        (on the sender's host)
        mcast top                                (there, and here)
        mcast recv 239.1.2.3:5000                (here)

    **Cure:** depends on the place. Senders that send rarely need patience: `--listen 60`.
    """
    if isinstance(facts.trial, Unread):
        return unknown(facts.trial.reason, {}, phrases.remedy(facts.trial))
    if facts.trial.arrivals:
        return ok("Datagrams of the group reach this host.")
    seen = sightings.frames(facts)
    missing = this_host.missing(facts)
    if missing and not seen:
        return unknown(missing)
    if facts.trial.seconds < _TOO_SHORT:
        summary = f"Nothing came in {facts.trial.seconds:.1f} s, too short a time to prove anything."
        return unknown(summary, {}, ("Listen for 5 seconds or more.",))
    seconds = f"{facts.trial.seconds:.0f} s"
    if seen:
        frames = sum(each.count for each in seen)
        return ok(f"{phrases.counted(frames, 'frame')} of the group reached this host.")
    if flawed := sightings.flawed(facts):
        frames = sum(each.count for each in flawed)
        return ok(f"{phrases.counted(frames, 'frame')} of the group reached this host, and none of them is sound.")
    evidence: dict[str, object] = {"seconds listened": round(facts.trial.seconds, 1)}
    evidence |= _came_in(facts)
    if seen is not None:
        if sightings.frames(facts, outgoing=True) or endings.drops(facts, outgoing=True) or sending.refused(facts):
            return ok("Only this host itself sends to the group.", evidence)
        if sending.asked(facts) > max(sending.FEW, counters.A_STREAM) and not stuck_queue(facts):
            names = phrases.named(sending.programs(facts)) or "A program"
            text = f"{names} asks for the way to the group on this host, and nothing leaves: its sends may fail."
            step = "Look at the errors of that program, such as EMSGSIZE for datagrams longer than the MTU."
            return unknown(text, evidence, (step,))
        return _nothing_seen(facts, seconds, evidence)
    return _without_frames(facts, seconds, evidence)


def _nothing_seen(facts: Facts, seconds: str, evidence: dict[str, object]) -> Finding:
    """Judge where no frame was captured: the interfaces' own counters have to agree."""
    names = [each.name for each in this_host.below(facts)]
    vanished, lost = counters.vanished(facts, names), counters.lost_below(facts)
    evidence |= {"packets that the interface dropped": lost} if lost else {}
    group, chosen = facts.target.group, this_host.chosen(facts)
    if vanished:
        evidence["packets that IP did not count"] = vanished
        places = phrases.named(each.name for each in chosen)
        summary = (
            f"No frame of {group} was seen in {seconds}, but {vanished:,} packets on {places} vanished before that."
        )
        return suspect(summary, evidence, (_LOOK_BELOW, *_ask(facts)))
    summary = f"Nothing of {group} reached this host in {seconds}: look at the network and the sender."
    tunnels = {each.name: what for each in chosen if (what := tunnel_of(facts, each))}
    if tunnels and all(each.name in tunnels or each.is_loopback for each in chosen):
        evidence |= tunnels
        summary = f"Nothing of {group} came out of {phrases.named(tunnels)} in {seconds}: look at the far end."
    # If our reports did not leave, the network has no part in it.
    doubtful = lost or counters.reports_kept(facts) or stuck_queue(facts) or _may_fail(facts)
    verdict: Verdict = "suspect" if doubtful else "problem"
    return finding(verdict, summary, evidence, tuple(_ask(facts)))


def _may_fail(facts: Facts) -> bool:
    """Return whether a program of this host may be the sender, and fail."""
    return sending.may_be_refused(facts) or bool(sending.without_its_address(facts) or sending.too_long(facts))


def _came_in(facts: Facts) -> dict[str, object]:
    """Return how many packets of any kind each interface took in."""
    taken_in = trial_of(facts).interface_counters
    return {
        f"packets of any kind on {name}": taken_in[name]["rx_packets"]
        for name in this_host.chosen_names(facts)
        if "rx_packets" in taken_in.get(name, {})
    }


def _without_frames(facts: Facts, seconds: str, evidence: dict[str, object]) -> Finding:
    """Judge by counters: they may account for every packet that came in."""
    why = phrases.reason(trial_of(facts).frames)
    refused, lost = counters.refused(facts), counters.without_a_socket(facts)
    if refused is None or lost is None:
        return unknown(f"No datagram came in {seconds}. {why[0]}", evidence, why[1])
    evidence["packets dropped before delivery"] = refused
    evidence["packets of other kinds, or dropped early"] = counters.uncounted(facts)
    if counters.nothing_came(facts):
        summary = f"Nothing of {facts.target.group} reached this host in {seconds}: look at the network and the sender."
        if sending.may_be_refused(facts):
            return unknown(summary[:-1] + ", which may be here and without a route.", evidence, why[1])
        verdict = suspect if stuck_queue(facts) else problem
        return verdict(summary, evidence, tuple(_ask(facts)))
    summary = f"No datagram came in {seconds}; only root can see whether anything of the group reached this host."
    return unknown(summary, evidence, why[1])


def _ask(facts: Facts) -> Iterator[str]:
    """Yield the next steps, the most promising first."""
    source, group = facts.target.source, facts.target.group
    loopback = bool(this_host.chosen(facts)) and all(each.is_loopback for each in this_host.chosen(facts))
    if loopback:
        yield f"Have a program on this host send to {group} on loopback: name that interface or its address."
        return
    if cut_off := cut_off_bridge(facts):
        yield f"{cut_off} reaches no other site: connect it, if the sender is at one."
    gateway = this_host.gateway_to(facts, source) if source else None
    if gateway:
        yield f"{source} is behind the router {gateway}: its hop limit (TTL) must be 2 or more; usually it is 1."
        yield f"Have the routers on the way, such as {gateway}, forward groups to this network (PIM or fixed routes)."
    yield f"Check on the sender's host, with `mcast top`, whether it sends to {group} and out of which interface."
    yield "Check on the switch whether snooping knows this port, whether there is a querier, and the VLAN."
    links = [each.name for each in this_host.chosen(facts) if not each.is_loopback]
    if facts.machine.system == "linux" and links and trial_of(facts).queries == ():
        ask = shlex.join(["sudo", "mcast", "querier", "-i", links[0], "--for", "60"])
        yield f"No querier was heard. If datagrams come while `{ask}` runs here, the switch had forgotten this host."
    yield "If it sends rarely, listen longer with `--listen 60`."
