"""Checks of the group's address, and of the Ethernet address that carries it. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.core import addresses
from multicast_expert.core.addresses import IPAddress, is_source_specific, parse_group, scope
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, Unread, address_of
from multicast_expert.doctor.report import Finding, Verdict, finding, ok, problem

_NEVER_LEAVING = (0, 1)
"""Scopes of IPv6 groups that stay on their host, or that are reserved (RFC 4291, 2.7)."""


def group_address(facts: Facts) -> Finding:
    """The group is an address that cannot do what is wanted of it.

    Not every address in 224.0.0.0/4 and ff00::/8 is meant for every use:

    - Outside of these two ranges there is no multicast at all.
    - ffx1:: (`ff01::`, `ff11::`) never leaves the host, and ffx0:: is not delivered to anybody. Tests with such a
      group pass on one machine and prove nothing about a network.
    - 224.0.0.x and ffx2:: stay on their link: no router forwards them. Switches send 224.0.0.x to every port.
    - 232.x.x.x and ff3x::/32 are for memberships that name a source (SSM, RFC 4607). Routers and switches that keep to
      the standards ignore a receiver that names none.
    - 32 IPv4 groups share one Ethernet address: 239.1.2.3, 239.129.2.3 and 224.1.2.3 do. Switches that filter by it
      deliver them all, and the host has to throw the surplus away.

    **How to see it:** compare the group with the ranges above. What a frame of it is addressed to:

        ip maddr show

    **Cure:** for use within an organization take a group from 239.192.0.0/14 or 239.255.0.0/16, of IPv6 from ff15::/16
    (site) or ff18::/16 (organization), and name the source where the group is from an SSM range:

        mcast recv 10.0.0.7@232.1.2.3:5000
    """
    try:
        group = parse_group(facts.target.group)
    except MulticastExpertError:
        summary = f"{facts.target.group} is not a multicast address, so no program can join it."
        step = "Take a group: 239.255.0.0 to 239.255.255.255 within a site, or ff15:: with IPv6."
        return problem(summary, {"group": facts.target.group}, (step,))
    evidence = {"group": str(group), "scope": scope(group), "Ethernet address": addresses.ethernet_address(group)}
    verdict, summary, step = _judge_group(facts, group)
    if sharing := _sharing(facts, group):
        evidence["groups with the same Ethernet address"] = ", ".join(sharing)
    return finding(verdict, summary, evidence, (step,) if step else ())


def _judge_group(facts: Facts, group: IPAddress) -> tuple[Verdict, str, str]:
    """Return verdict, summary and remedy for a multicast address."""
    source, arrived = facts.target.source, received(facts)
    outside = [each for each in this_host.chosen(facts) if not each.is_loopback]
    if group.version == 6 and group.packed[1] & 0x0F in _NEVER_LEAVING and outside and not arrived:
        step = f"Take a group that leaves it, such as ff15::{group.packed[-2:].hex().lstrip('0') or '1'}."
        return "problem", f"Groups such as {group} never leave the host that sends.", step
    gateway = this_host.gateway_to(facts, source) if source else None
    if scope(group) == "link" and gateway and not arrived:
        step = "Take a group that routers forward, such as 239.255.1.2 or ff15::1234, and a hop limit of 2 or more."
        return "problem", f"No router forwards {group}, and {source} is behind the router {gateway}.", step
    if is_source_specific(group) and source is None:
        verdict: Verdict = "problem" if counters.nothing_came(facts) else "suspect"
        step = f"Name the source, as in `mcast recv SOURCE@{phrases.endpoint(facts)}`."
        return verdict, f"{group} needs a membership that names a source (SSM), and none was named.", step
    if group.version == 4 and scope(group) == "link":
        return "ok", f"{group} works on this link, where switches send it to every port; no router forwards it.", ""
    return "ok", f"{group} is a usable group.", ""


def _sharing(facts: Facts, group: IPAddress) -> list[str]:
    joined = () if isinstance(facts.memberships, Unread) else facts.memberships
    groups = {each.group for each in joined if each.group.version == group.version and each.group != group}
    mine = addresses.ethernet_address(group)
    return [str(each) for each in sorted(groups, key=int) if addresses.ethernet_address(each) == mine]


def ethernet_address(facts: Facts) -> Finding:
    """The frames are addressed to a station that is not this one.

    A group has an Ethernet address that follows from its own: 01:00:5e and its last 23 bits, or 33:33 and its last 32
    bits with IPv6. Network cards let through the addresses of joined groups. A frame that carries the right group but
    goes to another Ethernet address is dropped by the card, or by the kernel without counting it, although tcpdump
    shows it, because tcpdump makes the card let everything through.

    It comes from senders that build their frames themselves, from hardware generators with a fixed address, and from
    load balancers and access points that turn groups into unicast for one station.

    **How to see it:** `-e` prints the Ethernet addresses; the second of a line is the destination.

        tcpdump -eni eth0 host 239.1.2.3

    **Cure:** the sender, or the device on the way that rewrites the frames, has to use the group's own address. The
    evidence of this check names both. Nothing on this host has to change.
    """
    wanted = sightings.wanted(facts)
    if wanted is None:
        why = phrases.reason(facts.trial, trial_of(facts).frames)
        verdict: Verdict = "ok" if received(facts) else "unknown"
        return finding(verdict, "Datagrams arrive." if verdict == "ok" else why[0], {}, why[1])
    group = address_of(facts.target.group)
    if group is None or not wanted:
        return ok("No frame of the target went to a wrong Ethernet address.")
    right = addresses.ethernet_address(group)
    wrong = [each for each in wanted if each.ethernet_destination not in ("", right)]
    evidence = {
        "destination of the frames": phrases.named(each.ethernet_destination for each in wrong or wanted),
        "address of the group": right,
        "sent by": phrases.named(each.ethernet_source for each in wrong or wanted),
    }
    # Frames that a device turned into unicast for this station reach the kernel, which counts them.
    taken_in = counters.moved(facts, "Ip.InReceives") or 0
    if len(wrong) == len(wanted) and not received(facts) and taken_in < sum(each.count for each in wrong):
        summary = f"The frames go to {evidence['destination of the frames']}, but the group's address is {right}."
        step = "Have the sender, or the device that rewrites its frames, address them to the group's Ethernet address."
        return problem(summary, evidence, (step,))
    return ok("The frames go to the group's Ethernet address.", evidence)
