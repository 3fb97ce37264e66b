"""Checks of queriers, and of bridges that snoop. Pure: touches no OS."""

from __future__ import annotations

import shlex

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Bridge, Facts, Unread, address_of, known
from multicast_expert.doctor.report import Finding, finding, ok, problem, suspect, unknown
from multicast_expert.wire.tallies import Queries

_USUAL_INTERVAL = 125
"""Seconds between two general queries by default (RFC 3376, 8.2 and RFC 3810, 9.2)."""
_LONG_ENOUGH = 130.0
_FORGOTTEN_AFTER = 260
"""Seconds after which a switch forgets an unconfirmed membership: two intervals and a response time."""
_MISSING = 5
"""So many datagrams must be missing before a bridge is blamed."""


def querier(facts: Facts) -> Finding:
    """The network has no querier, so a snooping switch forgets the receivers.

    A switch with IGMP snooping sends a group only to ports behind which a host has joined it, and forgets a port after
    about 260 seconds without a new report. Hosts report again only when a querier asks: normally the multicast router.
    In a network without a querier, the stream arrives when a program starts (its host reports the join) and stops after
    a few minutes. While they know no querier, some switches flood every group to all ports, and others drop it.

    Queries come every 125 seconds as a rule, so five seconds of silence prove nothing. Linux counts queries of MLD, but
    not of IGMP.

    **How to see it:** as root, listen for longer than the interval.

        mcast doctor 239.1.2.3:5000 --listen 130
        tcpdump -vni eth0 'igmp or (icmp6 and ip6[48] == 130)'
        grep GroupMembQueries /proc/net/dev_snmp6/eth0

    **Cure:** switch on the querier of one switch ("IGMP snooping querier") or router, or that of a Linux bridge:

        ip link set br0 type bridge mcast_querier 1

    Where you may not touch the network, a Linux host that is always on can be the querier:

        sudo mcast querier -i eth0

    Where there is no such host either, leave and join again every minute or two.
    """
    trial, evidence = known(facts.trial), _queries_heard(facts)
    links = [each for each in this_host.chosen(facts) if not each.is_loopback]
    if not links:
        return ok("Loopback needs no querier.")
    ask = shlex.join(["sudo", "mcast", "querier", *(word for each in links for word in ("-i", each.name))])
    steps = (
        "Switch on the querier of a switch or router in this network, with IGMPv3 and MLDv2.",
        f"Or let a Linux host that is always on be the querier, such as this one: `{ask}`.",
        "Until then, leave and join again every minute or two.",
    )
    silence = sightings.silence(facts)
    if trial.revived:
        return _forgotten(facts, evidence, steps)
    if evidence:
        return ok(f"There is a querier on {phrases.named(evidence)}.", evidence)
    listen = f"mcast doctor {phrases.endpoint(facts)} --listen {_LONG_ENOUGH:.0f}"
    if silence is not None:
        evidence = {"queries": 0, "silent since": f"{silence:.1f} s"}
        summary = "The datagrams came and stopped, and no query came: a switch may have forgotten this host."
        return suspect(summary, evidence, steps)
    evidence = {"queries": 0, "seconds listened": round(trial.seconds, 1)}
    if isinstance(trial.queries, Unread):
        evidence["queries"] = None
        text = "Linux does not count IGMP queries, and only root can capture them." if _four(facts) else ""
        return unknown(text or trial.queries.reason, evidence, phrases.remedy(trial.queries))
    if trial.seconds >= _LONG_ENOUGH:
        summary = (
            f"No query in {trial.seconds:.0f} s: a snooping switch forgets this host {_FORGOTTEN_AFTER} s after a join."
        )
        return suspect(summary, evidence, steps)
    summary = f"No query in {trial.seconds:.0f} s; queriers ask every {_USUAL_INTERVAL} s, so listen longer to be sure."
    return unknown(summary, evidence, (f"sudo {listen}",))


def _forgotten(facts: Facts, heard: dict[str, object], steps: tuple[str, ...]) -> Finding:
    """Judge a stream that stopped and that a new join revived: a device on the way had forgotten this host."""
    silence = sightings.silence(facts)
    evidence: dict[str, object] = {"queries": phrases.named(heard.values())}
    evidence |= {"silent for": None if silence is None else f"{silence:.1f} s", "after joining anew": "they came again"}
    summary = "The datagrams stopped, and came again after a new join: a switch or router had forgotten this host"
    if heard or counters.queries_were_dropped(facts) is not False:
        return suspect(f"{summary}, although there may be a querier.", evidence, steps)
    # One that asks more rarely than the switch forgets is no help either, and may not have been heard.
    often = "If there is a querier, have it ask more often than the switch forgets."
    return problem(f"{summary}, and no query came.", evidence, (*steps, often))


def _four(facts: Facts) -> bool:
    return facts.target.group_version == 4


def _queries_heard(facts: Facts) -> dict[str, object]:
    """Return the queriers by interface."""
    trial, names = trial_of(facts), this_host.chosen_names(facts)
    heard: dict[str, object] = {}
    for query in () if isinstance(trial.queries, Unread) else trial.queries:
        if query.interface in names and _is_general(query, facts.target.group_version):
            protocol = "IGMP" if _four(facts) else "MLD"
            every = "" if query.interval is None else f", every {query.interval:.1f} s"
            heard[query.interface] = f"{protocol}v{query.version} of {query.querier}{every}"
    for name in names:
        counted = trial.interface_counters.get(name, {}).get("Icmp6InGroupMembQueries", 0)
        if counted and not _four(facts) and name not in heard:
            heard[name] = f"{counted} {'query' if counted == 1 else 'queries'}"
    return heard


def _is_general(query: Queries, version: int | None) -> bool:
    address = address_of(query.querier)
    return not query.for_group and address is not None and address.version == version


def snooping(facts: Facts) -> Finding:
    """A bridge on this host keeps the group from some of its ports.

    A Linux bridge, such as container engines and virtual machines use, is a switch with IGMP snooping switched on. As
    long as it knows no querier it sends every group to all ports, and snooping does nothing. With a querier it sends a
    group to the ports that have joined. Where the bridge knows none and flooding is off on a port (`mcast_flood off`),
    nothing gets through there, even after a join.

    Another trap: the bridge's own queries ask in IGMPv2 unless told otherwise, so hosts behind it stop naming sources.

    **How to see it:** what the bridge knows, whom it hears, and the flooding of the ports.

        bridge mdb show
        ip -d link show type bridge
        bridge -d link show

    **Cure:** give the bridge a querier, or switch its snooping off if there are few ports.

        ip link set br0 type bridge mcast_querier 1 mcast_igmp_version 3 mcast_mld_version 2
        ip link set br0 type bridge mcast_snooping 0
    """
    if received(facts) and isinstance(facts.bridges, Unread):
        return ok(facts.bridges.reason, {}, phrases.remedy(facts.bridges))
    bridges = known(facts.bridges)
    if not bridges:
        return ok("There is no bridge on this host.")
    evidence: dict[str, object] = {each.name: _state(each) for each in bridges}
    for bridge in bridges:
        if bridge.snooping and bridge.name in this_host.chosen_names(facts) and (kept := _kept(facts, bridge)):
            evidence["datagrams it kept"] = kept
            name = shlex.quote(bridge.name)
            summary = (
                f"The bridge {bridge.name} forgot that this host has joined, and keeps the datagrams that come in."
            )
            remedy = (
                f"ip link set {name} type bridge mcast_snooping 0",
                f"Or give it a querier that works: `ip link set {name} type bridge mcast_querier 1`.",
            )
            return problem(summary, evidence, remedy)
    starved = [(each, ports) for each in bridges if (ports := _starved(facts, each))]
    if not starved:
        return ok("The bridges of this host do not hold the group back.", evidence)
    bridge, ports = starved[0]
    evidence[f"ports of {bridge.name} without flooding"] = ", ".join(ports)
    name = shlex.quote(bridge.name)
    remedy = (
        f"ip link set {name} type bridge mcast_igmp_version 3 mcast_mld_version 2 mcast_querier 1",
        "Or flood unknown groups to the ports: `bridge link set dev PORT mcast_flood on`.",
    )
    passes = {bridge.name, *bridge.ports}
    seen = [each for each in sightings.frames(facts) or () if each.interface in passes]
    seen_by_sockets = [each for each in trial_of(facts).arrivals if each.interface in passes]
    summary = f"The bridge {bridge.name} knows no querier, and keeps the group from {phrases.named(ports)}."
    certain = bool(seen or seen_by_sockets) and not received(facts)
    return finding("problem" if certain else "suspect", summary, evidence, remedy)


def _kept(facts: Facts, bridge: Bridge) -> int:
    """Return how many datagrams of a stopped stream came in on the bridge's ports and not on the bridge itself."""
    trial, silence = trial_of(facts), sightings.silence(facts)
    asked = [each for each in trial.arrivals if each.asked and each.interface == bridge.name]
    came = sum(each.count for each in asked)
    if silence is None or not asked:
        return 0
    frames = sightings.frames(facts)
    if frames is not None:
        missing = sum(each.count for each in frames if each.interface in bridge.ports) - came
        return missing if missing > _MISSING else 0
    passed = trial.interface_counters
    on_ports = sum(passed.get(port, {}).get("rx_packets", 0) for port in bridge.ports)
    missing = on_ports - passed.get(bridge.name, {}).get("rx_packets", 0)
    # Other traffic passes the bridge, too, so most of the stream must fit into what is missing.
    expected = round(sum(each.count * silence / max(each.last - each.first, 0.1) for each in asked))
    return expected if trial.revived and missing > 0.5 * expected > _MISSING else 0


def _state(bridge: Bridge) -> str:
    if not bridge.snooping:
        return "snooping off"
    return f"snooping on, querier: {'itself' if bridge.querier else bridge.other_querier or 'none'}"


def _starved(facts: Facts, bridge: Bridge) -> list[str]:
    """Return the ports that never get the group, even after a join behind them."""
    if not bridge.snooping or bridge.querier or bridge.other_querier:
        return []
    return [each for each in bridge.ports_without_flooding if each in bridge.ports]
