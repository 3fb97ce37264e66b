"""Whether what counters say was lost can only have been the target's. Pure: touches no OS."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, IPv6Network

from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor.checks import reach, tally
from multicast_expert.doctor.checks.pace import STRAY, Measure, beyond_usual, counting, was_joined
from multicast_expert.doctor.facts import Facts, Unread

_ABSENT = 2.5
"""Packets that would have come while we were not joined, at the pace of the trial, if they were not for us."""
_SOON = 0.4
"""The part of the trial within which losses that are due to our joining have begun."""
_ALL_HOSTS = IPv4Address("224.0.0.1")
_ALL_NODES = (IPv6Address("ff01::1"), IPv6Address("ff02::1"), IPv6Address("ff01::2"), IPv6Address("ff02::2"))
_SOLICITED = IPv6Network("ff02::1:ff00:0/104")
"""Groups that the kernel itself joins (RFC 1112, RFC 4291)."""


def losses(facts: Facts) -> dict[str, Measure]:
    """Return in what ways packets were lost while we listened, as far as counters tell.

    Counters do not tell which packets. So where there are several ways, none of them can be blamed.
    """
    measures: dict[str, Measure] = {
        "the reverse path filter": tally.filtered if facts.target.group_version == 4 else lambda _: 0,
        "a firewall": tally.refused_after_routing,
        "a port without a socket": tally.without_a_socket,
        "wrong checksums": lambda each: tally.moved(each, "Udp.InCsumErrors"),
        "missing fragments": tally.held_fragments,
    }
    return {way: measure for way, measure in measures.items() if (beyond_usual(facts, measure) or 0) > STRAY // 2}


def unclear(facts: Facts) -> str | None:
    """Return why counters alone cannot tell where the datagrams went; None if they can.

    They can if all was lost in one way, and from when we joined until we left: then it was lost for our membership.
    """
    ways = losses(facts)
    if len(ways) > 1:
        return f"Packets were lost in several ways, and counters do not tell whose: {reach.named(ways)}."
    if not was_joined(facts):
        doubts = {way: _doubt(facts, measure) for way, measure in ways.items()}
        return next((f"Packets were lost to {way}, {doubt}." for way, doubt in doubts.items() if doubt), None)
    others = _others_joined(facts)
    if ways and others:
        return f"Packets were lost before we joined, too, and counters do not tell whether of {reach.named(others)}."
    # What the filter drops is never counted as packets of groups; all else that was of a group has been.
    groups = tally.moved(facts, "IpExt.InMcastPkts") or 0
    if any((measure(facts) or 0) > groups + STRAY for measure in ways.values() if measure is not tally.filtered):
        return "Packets were lost, and counters do not tell whether they were of a group at all."
    return None


def _doubt(facts: Facts, measure: Measure) -> str | None:
    """Return why what a measure tells may have been lost by others than the target; None if it hardly can."""
    trial = reach.trial_of(facts)
    if trial.afterwards is None:
        return "and it was not watched whether that goes on without our membership"
    if (beyond_usual(facts, measure) or 0) * trial.aside < _ABSENT * trial.seconds:
        return "too few to tell whether they were of the target"
    lost = measure(facts) or 0
    told = [(each.seconds, measure(counting(facts, each.counters)) or 0) for each in trial.course]
    began = max((seconds for seconds, so_far in told if so_far <= 0), default=0.0)
    ended = min((seconds for seconds, so_far in told if so_far >= lost), default=trial.seconds)
    if began > _SOON * trial.seconds:
        return f"but not before {began:.1f} s after we had joined: rather those of other groups"
    if ended < (1 - _SOON) * trial.seconds:
        return f"but only until {ended:.1f} s after we had joined: rather those of other groups"
    return None


def _others_joined(facts: Facts) -> list[str]:
    """Return the other groups that were joined before, except those that no datagrams are sent to."""
    joined = () if isinstance(facts.memberships, Unread) else facts.memberships
    target = reach.address_of(facts.target.group)
    if target is None:
        return []
    others = {each.group for each in joined if each.group.version == target.version and each.group != target}
    return sorted(str(group) for group in others if not _is_the_kernels(group))


def _is_the_kernels(group: IPAddress) -> bool:
    if isinstance(group, IPv4Address):
        return group == _ALL_HOSTS
    return group in _ALL_NODES or group in _SOLICITED
