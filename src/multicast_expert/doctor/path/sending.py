"""What the facts prove about programs of this host that send to the target. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.doctor.evidence import counters, this_host
from multicast_expert.doctor.evidence.sightings import frames, trial_of
from multicast_expert.doctor.facts import Arrivals, Facts, FailedSends, Lookups, Unread, address_of, same
from multicast_expert.doctor.path import endings

FEW = 2
"""So many datagrams may be under way, or belong to another purpose than a stream."""


def others_arrive(facts: Facts) -> bool:
    """Return whether datagrams of other hosts arrive, so that what this host sends is only a part of the group."""
    own = this_host.own_addresses(facts)
    return any(each.asked and address_of(each.sender) not in own for each in trial_of(facts).arrivals)


def _copies(facts: Facts) -> list[Arrivals]:
    """Return the datagrams of this host that came back to its own receivers, without those on loopback."""
    own, loopback = this_host.own_addresses(facts), this_host.loopback_names(facts)
    arrivals = trial_of(facts).arrivals
    return [each for each in arrivals if each.interface not in loopback and address_of(each.sender) in own]


def kept_by_hop_limit(facts: Facts) -> int:
    """Return how many datagrams of this host had a hop limit of 0, so that they never leave it; 0 for a few."""
    loopback = this_host.loopback_names(facts)
    copied = sum(each.count for each in _copies(facts) if each.hop_limit == 0)
    dropped = sum(
        each.count
        for each in endings.drops(facts, outgoing=True) or ()
        if each.interface not in loopback and endings.check_of(each) == "ttl"
    )
    return max(copied, dropped) if max(copied, dropped) > FEW else 0


def lookups(facts: Facts) -> tuple[Lookups, ...]:
    """Return the programs that send to the group on chosen interfaces; none if that is not known."""
    found = trial_of(facts).lookups
    names = set(this_host.chosen_names(facts))
    route = this_host.route_to(facts, facts.target.group)
    by_route = route is None or route.interface is None or route.interface in names
    listed = () if isinstance(found, Unread) else found
    return tuple(each for each in listed if each.interface in names or (each.interface is None and by_route))


def asked(facts: Facts) -> int:
    """Return about how many datagrams programs of this host wanted to send, by their lookups of the route."""
    return sum(each.asked for each in lookups(facts)) // _per_datagram(facts)


def refused(facts: Facts) -> int | None:
    """Return how many of them the routing tables refused, 0 for a few; None if that is not known."""
    if isinstance(trial_of(facts).lookups, Unread):
        return None
    count = sum(each.refused for each in lookups(facts)) // _per_datagram(facts)
    return count if count > max(FEW, asked(facts) // 50) else 0


def failures(facts: Facts, *errors: str) -> tuple[FailedSends, ...]:
    """Return the sends of this host that failed with these errors and may be for the target; none if not known."""
    found = trial_of(facts).failed_sends
    target = facts.target
    return tuple(
        each
        for each in (() if isinstance(found, Unread) else found)
        if each.error in errors
        and each.count > FEW
        and (each.peer is None or (same(each.peer, target.group) and target.port in (None, each.peer_port)))
    )


def without_its_address(facts: Facts) -> tuple[FailedSends, ...]:
    """Return the sends that failed because the socket is bound to an address that no interface has any more.

    IPv4 only: IPv6 sends with such an address all the same.
    """
    own = this_host.own_addresses(facts)
    return tuple(
        each
        for each in failures(facts, "ENETUNREACH", "EINVAL")
        if (address := address_of(each.own)) is not None
        and address.version == facts.target.group_version == 4
        and not (address.is_unspecified or address.is_loopback or address.is_multicast or address in own)
        and (each.peer is not None or each.is_for_groups)
    )


def too_long(facts: Facts) -> tuple[FailedSends, ...]:
    """Return the sends to the target that failed because the datagrams are longer than the MTU.

    A socket that is not connected asks for the way to the group before it fails, over IPv6 once or twice: as often, if
    all fails.
    """
    found = []
    for each in failures(facts, "EMSGSIZE"):
        ways, most = sum(ask.asked for ask in lookups(facts) if ask.program == each.program), each.count / counters.MOST
        if each.peer is not None or each.count * counters.MOST <= ways <= most * _per_datagram(facts):
            found.append(each)
    return tuple(found)


def _per_datagram(facts: Facts) -> int:
    return 2 if facts.target.group_version == 6 else 1


def programs(facts: Facts) -> list[str]:
    """Return the names of the programs that send to the group, as far as they are known."""
    return list(dict.fromkeys(each.program for each in lookups(facts) if each.asked > FEW))


def left(facts: Facts) -> int | None:
    """Return how many datagrams of this host left; None if frames could not be captured.

    What leaves a VLAN's interface has left only when it is on the interface below.
    """
    found = frames(facts, outgoing=True)
    if found is None:
        return None
    chosen, own = this_host.chosen(facts), this_host.own_addresses(facts)
    plain = {each.name for each in chosen if each.kind != "vlan"}
    tagged = {each.parent for each in chosen if each.kind == "vlan"}
    port = facts.target.port
    return sum(
        each.count
        for each in found
        if address_of(each.sender) in own
        and port in (None, each.port or port)
        and each.interface in (tagged if each.vlan else plain)
    )


def vanished(facts: Facts) -> int:
    """Return how many datagrams of this host neither left nor were dropped; 0 if that is not known or few."""
    gone, dropped = left(facts), endings.drops(facts, outgoing=True)
    if gone is None or dropped is None:
        return 0
    sent = sum(each.count for each in _copies(facts) if each.hop_limit != 0) or asked(facts)
    count = sent - gone - sum(each.count for each in dropped)
    return count if count > max(FEW, sent // 50) else 0


def kept_by_counters(facts: Facts) -> dict[str, int]:
    """Return how many datagrams of this host certainly did not leave an interface, where frames could not be captured.

    Receivers on this host got more copies than packets of any kind left, and as many sends failed.
    """
    if frames(facts) is not None:
        return {}
    copies: dict[str, int] = {}
    for each in _copies(facts):
        copies[each.interface] = copies.get(each.interface, 0) + (each.count if each.hop_limit != 0 else 0)
    sent = trial_of(facts).interface_counters
    kept = {name: count - sent[name].get("tx_packets", 0) for name, count in copies.items() if name in sent}
    failed = counters.moved(facts, "Ip.OutDiscards") or 0
    return {name: count for name, count in kept.items() if count > FEW and counters.MOST * count <= failed}


def may_be_refused(facts: Facts) -> bool:
    """Return whether programs of this host may fail to send to the group for want of a route, without a trace."""
    route = this_host.route_to(facts, facts.target.group)
    if refused(facts) is not None or route is None:
        return bool(refused(facts))
    # A socket that is bound to an address which the host lost has none either, whatever the tables say.
    return (route.interface is None and route.kind != "unicast") or (counters.moved(facts, "Ip.OutNoRoutes") or 0) > FEW
