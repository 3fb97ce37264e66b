"""What the kernel's counters prove about the target. Pure: touches no OS.

Counters tell how many packets were lost in which way, not which packets. None stands for what they do not tell.
"""

from __future__ import annotations

from multicast_expert.doctor.evidence import sightings, this_host
from multicast_expert.doctor.evidence.background import STRAY, beyond_usual
from multicast_expert.doctor.evidence.sightings import trial_of
from multicast_expert.doctor.evidence.this_host import was_joined
from multicast_expert.doctor.facts import Facts, Unread

_IGMP_REPORT = 40
"""Bytes of an IPv4 packet with the router alert option and a report of IGMPv3 on one group; queries are shorter."""
_MOST_QUERIES = 2
"""Queries that come in a second on an interface at most, where a querier asks far more often than usual."""
A_STREAM, _A_SECOND = 5, 3
"""So many packets that vanished, and so many a second, are more than ARP and other neighbours' protocols make."""
MOST = 0.9
"""The part of a loss that a counter must cover before it explains the loss."""
_NEIGHBOURS = 10
"""Packets that IPv6 may send to groups for its own purposes."""
_SKEW = 1
"""Packets by which two counters may differ because they are read one after the other."""


def nothing_came(facts: Facts) -> bool:
    """Return whether certainly nothing of the group came in: no frame was seen, or the counters rule it out.

    They rule it out if every packet that an interface took in was delivered, and every datagram of a joined group found
    a socket.
    """
    found = sightings.frames(facts)
    if found is not None or trial_of(facts).arrivals:
        silent = found == () and not sightings.flawed(facts) and not sightings.on_ports(facts)
        doubtful = lost_below(facts) or vanished(facts, [each.name for each in this_host.below(facts)])
        return silent and not trial_of(facts).arrivals and not doubtful
    kept = refused(facts)
    unaccounted = (kept, without_a_socket(facts), moved(facts, "Udp.InErrors"), uncounted(facts))
    if kept is None or None in unaccounted:
        return False
    # Reports of other hosts come in, too, and are not for this one.
    reports = may_be_queries(facts) and not filtered(facts) and not refused_after_routing(facts)
    certain = (kept <= own_reports(facts) or reports) and not any(unaccounted[1:]) and not _given_to_others(facts)
    # The counters do not tell whether a program on this host sends to the group.
    kept_by_ipsec = any(name.startswith("Xfrm.XfrmOut") and by for name, by in trial_of(facts).counters.items())
    # Address translation makes unicast of a group's datagrams.
    translated = moved(facts, "Udp.NoPorts")
    return certain and not (
        translated
        or kept_by_ipsec
        or unsent(facts)
        or held_fragments(facts) > 0
        or lost_below(facts)
        or sent_to_groups(facts)
    )


def _given_to_others(facts: Facts) -> bool:
    """Return whether datagrams that may be the target's were delivered to other programs, on other ports."""
    if was_joined(facts):
        return bool(_delivered(facts))
    return bool(beyond_usual(facts, _delivered))


def _delivered(facts: Facts) -> int | None:
    """Return how many packets of groups were delivered to programs, at most."""
    groups, delivered = moved(facts, "IpExt.InMcastPkts"), moved(facts, "Ip.InDelivers")
    if groups is None or delivered is None or (may_be_igmp(facts) and not _any_udp(facts)):
        return 0
    # With IPv6, neighbour discovery uses groups, too; ICMPv6 counts its messages.
    messages = trial_of(facts).counters.get("Icmp6.InMsgs", 0) if facts.target.group_version == 6 else 0
    return min(groups, max(0, delivered - messages))


def _any_udp(facts: Facts) -> bool:
    """Return whether UDP counted any datagram: read, without a socket, or lost."""
    return any(moved(facts, f"Udp.{name}") for name in ("InDatagrams", "IgnoredMulti", "NoPorts", "InErrors"))


def lost_below(facts: Facts) -> int:
    """Return how many frames the chosen interfaces dropped before any program could capture them."""
    counters, names = trial_of(facts).interface_counters, this_host.chosen_names(facts)
    return sum(counters.get(name, {}).get(which, 0) for name in names for which in ("rx_dropped", "rx_errors"))


def uncounted(facts: Facts) -> int | None:
    """Return how many packets of the interfaces neither IPv4 nor IPv6 counted: ARP, VLANs, drops at ingress."""
    came = [each.get("rx_packets") for each in trial_of(facts).interface_counters.values()]
    if not came or None in came:
        return None
    counters = trial_of(facts).counters
    return max(0, sum(each or 0 for each in came) - sum(counters.get(f"{ip}.InReceives", 0) for ip in ("Ip", "Ip6")))


def vanished(facts: Facts, names: list[str]) -> int:
    """Return how many packets came in on these interfaces that IP does not account for; 0 for a few.

    A packet that passes a port and its bridge, or a VLAN and what it is made from, is counted by both interfaces, and
    by IP once. Segments of TCP may be merged before IP counts them (GRO).
    """
    taken_in, counters = trial_of(facts).interface_counters, trial_of(facts).counters
    upper = {each.name for each in this_host.interfaces(facts) if each.parent or each.name in _masters(facts)}
    came = sum(taken_in.get(name, {}).get("rx_packets", 0) for name in names)
    once = sum(each.get("rx_packets", 0) for name, each in taken_in.items() if name not in upper)
    lost = min(came, once - sum(counters.get(each, 0) for each in ("Ip.InReceives", "Ip6.InReceives", "Tcp.InSegs")))
    return lost if lost > max(A_STREAM, _A_SECOND * trial_of(facts).seconds) else 0


def _masters(facts: Facts) -> set[str | None]:
    return {each.master for each in this_host.interfaces(facts)}


def reached_ip(facts: Facts) -> bool:
    """Return whether IP took in as many packets as frames of the target came in, by the interfaces of the target."""
    seen = sum(each.count for each in sightings.wanted(facts) or ())
    return bool(seen) and (moved(facts, "Ip.InReceives") or 0) - sightings.diverted(facts) >= seen


def unsent(facts: Facts) -> int:
    """Return how many packets this host failed to send; 0 also if the kernel does not count them."""
    asked, sent = moved(facts, "Ip.OutRequests"), moved(facts, "Ip.OutTransmits")
    counts = f"{'Ip6' if facts.target.group_version == 6 else 'Ip'}.OutTransmits" in trial_of(facts).counters
    return max(0, (asked or 0) - (sent or 0)) if counts else 0


def reports_kept(facts: Facts) -> int:
    """Return how many packets could not leave, if they can only be our own reports of memberships; else 0.

    That is so if we joined, no packet to a group left, no more were kept than we send, and none before the join; or if
    nothing left at all.
    """
    trial, kept = trial_of(facts), unsent(facts)
    speaking = {
        each.name for each in this_host.interfaces(facts) if each.is_up and each.has_carrier and not each.is_loopback
    }
    joined = any(each.error is None and each.interface in speaking for each in trial.joins)
    if not joined or was_joined(facts) or moved(facts, "IpExt.OutMcastPkts"):
        return 0
    if kept and not moved(facts, "Ip.OutTransmits"):
        # Nothing at all left.
        return kept
    if kept > _most_reports(facts):
        return 0
    ip = "Ip6" if facts.target.group_version == 6 else "Ip"
    before = trial.usual.get(f"{ip}.OutRequests", 0.0) > trial.usual.get(f"{ip}.OutTransmits", 0.0)
    return 0 if before else kept


def moved(facts: Facts, name: str) -> int | None:
    """Return by how much a counter of the kernel grew, for the target's IP version: `Ip.InReceives`."""
    counters = trial_of(facts).counters
    six = facts.target.group_version == 6
    if six:
        name = name.replace("IpExt.", "Ip.").replace("Ip.", "Ip6.").replace("Udp.", "Udp6.")
    # On Linux a missing counter stood still; other systems do not have all of these counters.
    known = facts.machine.system == "linux" and ("Ip6.InReceives" if six else "Ip.InReceives") in counters
    return counters.get(name, 0 if known else None)


def held_fragments(facts: Facts) -> int:
    """Return how many packets were joined to others, or still wait for missing fragments."""
    return (moved(facts, "Ip.ReasmReqds") or 0) - (moved(facts, "Ip.ReasmOKs") or 0)


def pieces_dropped(facts: Facts) -> int:
    """Return how many fragments of the target were on the wire and did not reach the kernel's reassembly."""
    seen = sum(each.fragments for each in sightings.wanted(facts) or ())
    joined = moved(facts, "Ip.ReasmReqds")
    return 0 if not joined or seen - joined <= max(STRAY, seen // 10) else seen - joined


def refused(facts: Facts) -> int | None:
    """Return how many packets of the IP version the kernel neither delivered nor forwarded, on any interface."""
    came, delivered = moved(facts, "Ip.InReceives"), moved(facts, "Ip.InDelivers")
    if came is None or delivered is None:
        return None
    return came - delivered - held_fragments(facts) - (moved(facts, "Ip.ForwDatagrams") or 0)


def refused_after_routing(facts: Facts) -> int | None:
    """Return how many IPv4 packets of joined groups were certainly dropped between routing and the sockets.

    There may have been more, because delivered unicast packets are counted, too. On a multicast router, and with IPv6,
    the counter includes groups that no program joined, so it proves nothing.
    """
    forwards = any(
        this_host.setting(facts, interface, "mc_forwarding") not in (None, 0)
        for interface in ("all", *this_host.chosen_names(facts))
    )
    multicast, delivered = moved(facts, "IpExt.InMcastPkts"), moved(facts, "Ip.InDelivers")
    if facts.target.group_version != 4 or forwards or multicast is None or delivered is None:
        return None
    unknown = moved(facts, "Ip.InUnknownProtos") or 0
    gap = multicast - held_fragments(facts) - delivered - own_reports(facts) - unknown
    # The two counters are read one after the other, so packets in between are in one of them only.
    return gap if gap > max(_SKEW, multicast // 200) else 0


def own_reports(facts: Facts) -> int:
    """Return how many packets without a receiver were our own reports of memberships.

    A join is reported twice. A report of IGMPv3 comes back on a loopback interface alone, since no program joins
    224.0.0.22; one of IGMPv2 goes to the group itself, and is delivered.
    """
    if facts.target.group_version != 4:
        return 0
    most = min(trial_of(facts).counters.get("IpExt.OutMcastPkts", 0), _most_reports(facts))
    taken_in = [trial_of(facts).interface_counters.get(name, {}) for name in this_host.loopback_names(facts)]
    known = taken_in and all("rx_packets" in each for each in taken_in)
    return min(most, sum(each["rx_packets"] for each in taken_in)) if known else most


def _most_reports(facts: Facts) -> int:
    return 2 * (len(trial_of(facts).joins) + len(this_host.interfaces(facts)))


def sent_to_groups(facts: Facts) -> int:
    """Return how many packets programs on this host sent to groups, without those of the kernel itself."""
    sent = moved(facts, "IpExt.OutMcastPkts") or 0
    # With IPv6, the kernel looks for neighbours and routers by groups, too.
    own = _most_reports(facts) + (_NEIGHBOURS if facts.target.group_version == 6 else 0)
    return max(0, sent - own)


def queries_were_dropped(facts: Facts) -> bool | None:
    """Return whether the kernel dropped packets that may have been membership queries; None: not known."""
    queries = trial_of(facts).queries
    if not isinstance(queries, Unread):
        return any(each.delivered is not None and each.delivered < each.seen for each in queries)
    if facts.target.group_version == 4:
        by_filter, after_routing = filtered(facts), refused_after_routing(facts)
        return None if by_filter is None or after_routing is None else bool(by_filter or after_routing)
    # IPv6 includes groups that no program joined, such as those of neighbour discovery.
    came, delivered = moved(facts, "IpExt.InMcastPkts"), moved(facts, "Ip.InDelivers")
    if came is None or delivered is None or came - held_fragments(facts) - delivered > max(STRAY, came // 200):
        return None
    return False


def may_be_queries(facts: Facts) -> bool:
    """Return whether all incoming IPv4 packets are so few and so short that they may be messages of IGMP."""
    return _like_igmp(facts, "Ip.InReceives", "IpExt.InOctets")


def may_be_igmp(facts: Facts) -> bool:
    """Return whether all IPv4 packets to joined groups are so few and so short that they may be messages of IGMP."""
    return _like_igmp(facts, "IpExt.InMcastPkts", "IpExt.InMcastOctets")


def _like_igmp(facts: Facts, packets: str, octets: str) -> bool:
    """Return whether packets may be IGMP, by two counters of them.

    Linux does not count IGMP by itself. A datagram of 12 bytes or less is as short as a message of IGMP, so that length
    alone proves nothing; but queries are rare, and a stream is not.
    """
    counters = trial_of(facts).counters
    many, long = counters.get(packets, 0), counters.get(octets, 0)
    queries = _MOST_QUERIES * (1 + int(trial_of(facts).seconds)) * max(1, len(this_host.chosen(facts)))
    few = 0 < many <= own_reports(facts) + queries
    # Our own reports come back on loopback.
    return facts.target.group_version == 4 and few and 0 < long <= _IGMP_REPORT * many


def only_loss(facts: Facts, lost: int) -> bool:
    """Return whether a stream was lost in this way, nothing else was lost, and nothing of the group arrived.

    For losses that do not depend on memberships: then either they are the target's, or nothing of it came.
    """
    kept = refused(facts)
    if kept is None or trial_of(facts).arrivals or lost <= max(A_STREAM, _A_SECOND * trial_of(facts).seconds):
        return False
    return abs(kept - own_reports(facts) - lost) <= max(STRAY, lost // 10)


def filtered(facts: Facts) -> int | None:
    """Return how many packets the reverse path filter of IPv4 dropped."""
    counters = trial_of(facts).counters
    return counters.get("TcpExt.IPReversePathFilter", 0) if "Ip.InReceives" in counters else None


def dropped_by_ipsec(facts: Facts) -> int | None:
    """Return how many incoming packets IPsec dropped, of both IP versions."""
    return sum(by for name, by in trial_of(facts).counters.items() if name.startswith("Xfrm.XfrmIn"))


def without_a_socket(facts: Facts) -> int | None:
    """Return how many datagrams of joined groups found no socket, without broadcasts."""
    ignored = moved(facts, "Udp.IgnoredMulti")
    return None if ignored is None else max(0, ignored - trial_of(facts).counters.get("IpExt.InBcastPkts", 0))
