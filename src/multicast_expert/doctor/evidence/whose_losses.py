"""Decides whether packets that the counters report as lost can only be the target's. Pure: touches no OS."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters
from multicast_expert.doctor.evidence.background import STRAY, Measure, beyond_usual, counting
from multicast_expert.doctor.evidence.sightings import trial_of
from multicast_expert.doctor.evidence.this_host import was_joined
from multicast_expert.doctor.facts import Facts, Unread, address_of

_ABSENT = 2.5
"""Packets that would have come without our membership, at the pace of the trial, if they were another group's."""
_SOON = 0.4
"""The part of the trial within which losses of the target begin: it is joined at the start."""
_ALL_HOSTS = IPv4Address("224.0.0.1")
_ALL_NODES = (IPv6Address("ff01::1"), IPv6Address("ff02::1"), IPv6Address("ff01::2"), IPv6Address("ff02::2"))
_SOLICITED = IPv6Network("ff02::1:ff00:0/104")
"""These groups the kernel joins itself (RFC 1112, RFC 4291)."""


def losses(facts: Facts) -> dict[str, Measure]:
    """Return the ways in which packets were lost during the trial, beyond the usual, each with its measure."""
    measures: dict[str, Measure] = {
        "the reverse path filter": counters.filtered if facts.target.group_version == 4 else lambda _: 0,
        "a firewall": counters.refused_after_routing,
        "a port without a socket": counters.without_a_socket,
        "wrong checksums": lambda each: counters.moved(each, "Udp.InCsumErrors"),
        "missing fragments": counters.held_fragments,
        "IPsec": counters.dropped_by_ipsec,
    }
    return {way: measure for way, measure in measures.items() if (beyond_usual(facts, measure) or 0) > STRAY // 2}


def unclear(facts: Facts) -> str | None:
    """Return why the counters alone cannot tell where the datagrams went; None if they can.

    They can if all packets were lost in one way, from our join to our leave: then the loss is due to our membership.
    """
    ways = losses(facts)
    if len(ways) > 1:
        return (
            f"Packets were lost in several ways, and the counters do not tell whose they were: {phrases.named(ways)}."
        )
    if not was_joined(facts):
        doubts = {way: _doubt(facts, measure) for way, measure in ways.items()}
        return next((f"Packets were lost to {way}, {doubt}." for way, doubt in doubts.items() if doubt), None)
    others = _others_joined(facts)
    if ways and others:
        return f"Packets were lost before the join, too; they may belong to {phrases.named(others)}."
    # The kernel counts packets of groups after the reverse path filter, and before the other ways to lose them.
    groups = counters.moved(facts, "IpExt.InMcastPkts") or 0
    if any((measure(facts) or 0) > groups + STRAY for measure in ways.values() if measure is not counters.filtered):
        return "Packets were lost, and the counters do not tell whether they belonged to a group at all."
    return None


def _doubt(facts: Facts, measure: Measure) -> str | None:
    """Return why the lost packets may be another group's; None if they are most likely the target's."""
    trial = trial_of(facts)
    if trial.afterwards is None:
        return "and the doctor did not watch whether that goes on without its membership"
    if (beyond_usual(facts, measure) or 0) * trial.aside < _ABSENT * trial.seconds:
        return "too few to tell whether they were the target's"
    lost = measure(facts) or 0
    told = [(each.seconds, measure(counting(facts, each.counters)) or 0) for each in trial.course]
    began = max((seconds for seconds, so_far in told if so_far <= 0), default=0.0)
    ended = min((seconds for seconds, so_far in told if so_far >= lost), default=trial.seconds)
    if began > _SOON * trial.seconds:
        return f"but only from {began:.1f} s after the join on: rather those of other groups"
    if ended < (1 - _SOON) * trial.seconds:
        return f"but only until {ended:.1f} s after the join: rather those of other groups"
    return None


def _others_joined(facts: Facts) -> list[str]:
    """Return the other groups that were joined before the trial, without those of the kernel."""
    joined = () if isinstance(facts.memberships, Unread) else facts.memberships
    target = address_of(facts.target.group)
    if target is None:
        return []
    others = {each.group for each in joined if each.group.version == target.version and each.group != target}
    return sorted(str(group) for group in others if not _is_the_kernels(group))


def _is_the_kernels(group: IPAddress) -> bool:
    if isinstance(group, IPv4Address):
        return group == _ALL_HOSTS
    return group in _ALL_NODES or group in _SOLICITED
