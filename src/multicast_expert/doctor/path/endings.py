"""Where the target's datagrams end, as the kernel's own verdict on each drop says. Pure: touches no OS.

The station where the kernel dropped a datagram decides which check has to explain it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from multicast_expert.doctor.evidence import this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of, wanted
from multicast_expert.doctor.facts import Drop, Facts, Unread, same
from multicast_expert.doctor.path.stations import place_of

_STRAY = 2
"""So many drops may belong to other packets of the group, such as reports."""

# The check that judges what ended at a station, by the step there; an empty step stands for all others.
_CHECKS: Mapping[str, Mapping[str, str]] = {
    "driver and XDP": {"XDP program": "xdp"},
    "tc ingress": {"": "traffic-control"}, "tc egress": {"": "traffic-control"},
    "Ethernet and VLAN": {"Ethernet type": "malformed", "": "ethernet-address"},
    "bridge": {"port of a bridge": "bridge-port"},
    "IP": {
        "header": "malformed", "source address": "local-source", "reverse path": "reverse-path-filter",
        "fragments": "fragments", "IPv6 is disabled": "interface-address",
    },
    "IPsec": {"": "ipsec"},
    "UDP": {"length": "malformed", "protocol": "malformed", "checksum": "checksum"},
    "socket": {"filter": "socket-filter", "buffer": "receive-buffer", "security module": "sandbox"},
    "route": {"hop limit": "ttl"},
    "output": {"BPF program of a control group": "socket-filter"},
}  # fmt: skip


def check_of(drop: Drop) -> str:
    """Return the name of the check that judges such a drop; empty if it tells nothing."""
    place = place_of(drop)
    if drop.hook or drop.reason == "NETFILTER_DROP" or place.step.startswith(("nf_", "nfqnl_", "nft_", "ipt_")):
        return "firewall"
    if drop.reason == "IP_CSUM":
        return "checksum"
    if place.step == "route or membership":
        # IPv4 looks up no route for what comes in for a group.
        return "group-route" if drop.group and ":" in drop.group else ""
    steps = _CHECKS.get(place.station, {})
    return steps.get(place.step, steps.get("", ""))


def drops(facts: Facts, *, outgoing: bool = False) -> tuple[Drop, ...] | None:
    """Return what the kernel dropped of the target, on the chosen interfaces; None if it did not say."""
    found = trial_of(facts).drops
    if isinstance(found, Unread) or isinstance(facts.trial, Unread):
        return None
    passed = {None, *(each.name for each in this_host.below(facts))}
    # Where a route discards what this host sends, the kernel names the loopback interface.
    passed |= this_host.loopback_names(facts) if outgoing else set()
    return tuple(
        each
        for each in found
        if each.outgoing is outgoing and each.interface in passed and _is_targets(facts, each) and each.count
    )


def _is_targets(facts: Facts, drop: Drop) -> bool:
    target = facts.target
    return (
        drop.group is not None
        and same(drop.group, target.group)
        and (target.port is None or drop.port in (None, target.port))
        and (target.source is None or drop.source is None or same(drop.source, target.source))
    )


def by_check(facts: Facts, *, outgoing: bool = False) -> Counter[str] | None:
    """Return how many datagrams of the target the kernel dropped, by the check that judges it; None if it did not say.

    What the sockets of other programs did not take is left out.
    """
    found = drops(facts, outgoing=outgoing)
    if found is None:
        return None
    others = {each.inode for each in (() if isinstance(facts.sockets, Unread) else facts.sockets)}
    counts: Counter[str] = Counter()
    for each in found:
        if each.socket is None or each.socket not in others:
            counts[check_of(each)] += each.count
    return counts


def lost_to(facts: Facts, check: str, *, outgoing: bool = False) -> int | None:
    """Return how many datagrams of the target were lost in the way that a check judges; None if that is not known."""
    counts = by_check(facts, outgoing=outgoing)
    if counts is None:
        return None
    count = counts[check]
    # A few that are lost beside many that arrive are no fault: a stream that just began, a report of a membership.
    arrived = sum(each.count for each in wanted(facts, outgoing=True) or ()) if outgoing else received(facts)
    return count if count > max(_STRAY, arrived // 50) else 0


def by_socket(facts: Facts, check: str) -> Counter[int]:
    """Return how many datagrams of the target each socket did not take in the way that a check judges, by inode."""
    counts: Counter[int] = Counter()
    for each in drops(facts) or ():
        if each.socket is not None and check_of(each) == check:
            counts[each.socket] += each.count
    return counts
