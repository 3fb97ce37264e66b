"""What the kernel's counters prove about the target, and what they leave open. Pure: touches no OS.

Counters tell how many packets met which fate, not which packets. A question that they do not answer is answered with
None.
"""

from __future__ import annotations

from multicast_expert.doctor.checks import reach
from multicast_expert.doctor.checks.pace import STRAY, beyond_usual, was_joined
from multicast_expert.doctor.facts import Facts, Unread

_IGMP_REPORT = 40
"""Bytes of an IPv4 packet with the router alert option and a report of IGMPv3 on one group; queries are shorter."""
_NEIGHBOURS = 10
"""Packets to groups that IPv6 may send for its own purposes."""
_SKEW = 1
"""Packets that one counter may have seen and another not."""


def nothing_came(facts: Facts) -> bool:
    """Whether it is certain that nothing of the group came in: no frame was seen, or counters leave no room for any.

    They leave none where every packet that an interface took in was delivered to somebody, and every datagram of a
    joined group to a socket.
    """
    found = reach.frames(facts)
    if found is not None or reach.trial_of(facts).arrivals:
        return found == () and not reach.trial_of(facts).arrivals and not lost_below(facts)
    kept = refused(facts)
    unaccounted = (kept, without_a_socket(facts), moved(facts, "Udp.InErrors"), uncounted(facts))
    if kept is None or None in unaccounted:
        return False
    certain = kept <= own_reports(facts) and not any(unaccounted[1:]) and not _given_to_others(facts)
    # What a program on this host sends does not come in, and only frames tell where it goes.
    return certain and not (unsent(facts) or held_fragments(facts) > 0 or lost_below(facts) or sent_to_groups(facts))


def _given_to_others(facts: Facts) -> bool:
    """Whether datagrams that may be the target's were delivered: on other ports, to other programs of this host."""
    if was_joined(facts):
        return bool(_delivered(facts))
    return bool(beyond_usual(facts, _delivered))


def _delivered(facts: Facts) -> int | None:
    """Return how many packets of groups were delivered to programs at most."""
    groups, delivered = moved(facts, "IpExt.InMcastPkts"), moved(facts, "Ip.InDelivers")
    if groups is None or delivered is None or only_igmp(facts):
        return 0
    # Neighbours speak to groups with IPv6, and are told apart by their protocol.
    messages = reach.trial_of(facts).counters.get("Icmp6.InMsgs", 0) if facts.target.group_version == 6 else 0
    return min(groups, max(0, delivered - messages))


def lost_below(facts: Facts) -> int:
    """Return how many frames the chosen interfaces dropped before anybody could see them."""
    counters, names = reach.trial_of(facts).interface_counters, reach.chosen_names(facts)
    return sum(counters.get(name, {}).get(which, 0) for name in names for which in ("rx_dropped", "rx_errors"))


def uncounted(facts: Facts) -> int | None:
    """Return how many packets the interfaces took in that neither IPv4 nor IPv6 has counted: ARP, VLANs, ingress."""
    came = [each.get("rx_packets") for each in reach.trial_of(facts).interface_counters.values()]
    if not came or None in came:
        return None
    counters = reach.trial_of(facts).counters
    return max(0, sum(each or 0 for each in came) - sum(counters.get(f"{ip}.InReceives", 0) for ip in ("Ip", "Ip6")))


def unsent(facts: Facts) -> int:
    """Return how many packets this host tried to send that never left; 0 also where the kernel does not count it."""
    asked, sent = moved(facts, "Ip.OutRequests"), moved(facts, "Ip.OutTransmits")
    counts = f"{'Ip6' if facts.target.group_version == 6 else 'Ip'}.OutTransmits" in reach.trial_of(facts).counters
    return max(0, (asked or 0) - (sent or 0)) if counts else 0


def reports_kept(facts: Facts) -> int:
    """Return how many packets could not leave, where they can only be our own reports of memberships; 0 elsewhere.

    They are that where we joined and not a single packet to a group left, and where no more were kept than we have to
    say and none before.
    """
    trial, kept = reach.trial_of(facts), unsent(facts)
    speaking = {
        each.name for each in reach.interfaces(facts) if each.is_up and each.has_carrier and not each.is_loopback
    }
    joined = any(each.error is None and each.interface in speaking for each in trial.joins)
    if not joined or was_joined(facts) or moved(facts, "IpExt.OutMcastPkts") or kept > _most_reports(facts):
        return 0
    ip = "Ip6" if facts.target.group_version == 6 else "Ip"
    before = trial.usual.get(f"{ip}.OutRequests", 0.0) > trial.usual.get(f"{ip}.OutTransmits", 0.0)
    return 0 if before else kept


def moved(facts: Facts, name: str) -> int | None:
    """Return by how much a counter of the kernel grew, for the target's IP version: `Ip.InReceives`."""
    counters = reach.trial_of(facts).counters
    six = facts.target.group_version == 6
    if six:
        name = name.replace("IpExt.", "Ip.").replace("Ip.", "Ip6.").replace("Udp.", "Udp6.")
    # The collector leaves out what stood still on Linux; other systems do not have all of these counters.
    known = facts.machine.system == "linux" and ("Ip6.InReceives" if six else "Ip.InReceives") in counters
    return counters.get(name, 0 if known else None)


def held_fragments(facts: Facts) -> int:
    """Return how many packets went into others, or still wait for their missing parts."""
    return (moved(facts, "Ip.ReasmReqds") or 0) - (moved(facts, "Ip.ReasmOKs") or 0)


def pieces_dropped(facts: Facts) -> int:
    """Return how many fragments of the target were on the wire and never got to where the kernel joins them."""
    seen = sum(each.fragments for each in reach.wanted(facts) or ())
    joined = moved(facts, "Ip.ReasmReqds")
    return 0 if not joined or seen - joined <= max(STRAY, seen // 10) else seen - joined


def refused(facts: Facts) -> int | None:
    """Return how many packets of the IP version reached the kernel and were passed on to nobody, on any interface."""
    came, delivered = moved(facts, "Ip.InReceives"), moved(facts, "Ip.InDelivers")
    if came is None or delivered is None:
        return None
    return came - delivered - held_fragments(facts) - (moved(facts, "Ip.ForwDatagrams") or 0)


def refused_after_routing(facts: Facts) -> int | None:
    """Return how many IPv4 packets of joined groups were certainly refused between routing and the sockets.

    All that is delivered counts as delivered, unicast too, so there may have been more. IPv6 counts groups that nobody
    joined as well, and so does IPv4 on a multicast router: there it tells nothing.
    """
    forwards = any(
        reach.setting(facts, interface, "mc_forwarding") not in (None, 0)
        for interface in ("all", *reach.chosen_names(facts))
    )
    multicast, delivered = moved(facts, "IpExt.InMcastPkts"), moved(facts, "Ip.InDelivers")
    if facts.target.group_version != 4 or forwards or multicast is None or delivered is None:
        return None
    gap = multicast - held_fragments(facts) - delivered - own_reports(facts)
    # The two counters are read one after the other, so what came in between is in one of them only.
    return gap if gap > max(_SKEW, multicast // 200) else 0


def own_reports(facts: Facts) -> int:
    """Return how many packets that came in and were for nobody are our own reports of memberships.

    Linux hands every IPv4 packet to a group that this host sends back to itself, and drops it where nobody has joined.
    A join is reported twice.
    """
    if facts.target.group_version != 4:
        return 0
    return min(reach.trial_of(facts).counters.get("IpExt.OutMcastPkts", 0), _most_reports(facts))


def _most_reports(facts: Facts) -> int:
    return 2 * (len(reach.trial_of(facts).joins) + len(reach.interfaces(facts)))


def sent_to_groups(facts: Facts) -> int:
    """Return how many packets programs on this host sent to groups; what the kernel itself has to say is taken off."""
    sent = moved(facts, "IpExt.OutMcastPkts") or 0
    # With IPv6 neighbours and routers are looked for by groups, too.
    own = _most_reports(facts) + (_NEIGHBOURS if facts.target.group_version == 6 else 0)
    return max(0, sent - own)


def queries_were_dropped(facts: Facts) -> bool | None:
    """Whether the kernel dropped packets that may have been queries for memberships; None: cannot be told."""
    queries = reach.trial_of(facts).queries
    if not isinstance(queries, Unread):
        return any(each.delivered is not None and each.delivered < each.seen for each in queries)
    if facts.target.group_version == 4:
        by_filter, after_routing = filtered(facts), refused_after_routing(facts)
        return None if by_filter is None or after_routing is None else bool(by_filter or after_routing)
    # IPv6 counts groups that nobody has joined among these, such as those of neighbour discovery.
    came, delivered = moved(facts, "IpExt.InMcastPkts"), moved(facts, "Ip.InDelivers")
    if came is None or delivered is None or came - held_fragments(facts) - delivered > max(STRAY, came // 200):
        return None
    return False


def only_queries(facts: Facts) -> bool:
    """Whether all IPv4 packets that came in are so short that they can only be messages of IGMP, not datagrams."""
    packets, octets = moved(facts, "Ip.InReceives"), reach.trial_of(facts).counters.get("IpExt.InOctets")
    if facts.target.group_version != 4 or not packets or not octets:
        return False
    return octets <= _IGMP_REPORT * packets  # our own reports come back on loopback


def only_igmp(facts: Facts) -> bool:
    """Whether all IPv4 packets to joined groups are as short as messages of IGMP."""
    counters = reach.trial_of(facts).counters
    packets, octets = counters.get("IpExt.InMcastPkts", 0), counters.get("IpExt.InMcastOctets", 0)
    return facts.target.group_version == 4 and bool(packets and octets) and octets <= _IGMP_REPORT * packets


def filtered(facts: Facts) -> int | None:
    """Return how many packets the reverse path filter of IPv4 dropped."""
    counters = reach.trial_of(facts).counters
    return counters.get("TcpExt.IPReversePathFilter", 0) if "Ip.InReceives" in counters else None


def without_a_socket(facts: Facts) -> int | None:
    """Return how many datagrams of joined groups found no socket; broadcasts are taken off."""
    ignored = moved(facts, "Udp.IgnoredMulti")
    return None if ignored is None else max(0, ignored - reach.trial_of(facts).counters.get("IpExt.InBcastPkts", 0))
