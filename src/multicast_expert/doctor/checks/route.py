"""Checks of routes, and of datagrams on unexpected interfaces. Pure: touches no OS."""

from __future__ import annotations

import shlex
from ipaddress import ip_network

from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import background, counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Arrivals, Facts, PolicyRule, Route, Unread, address_of, known, same
from multicast_expert.doctor.path import endings, sending
from multicast_expert.doctor.report import Finding, finding, ok, problem, suspect, unknown
from multicast_expert.wire.tallies import Frames


def send_route(facts: Facts) -> Finding:
    """A program on this host sends to the group, and there is no route for it, or one that refuses it.

    Where a program names no interface, the routing table chooses it, for sending and, over IPv4, for joining too.
    Without a route to the group (usually the default route) sending fails with `ENETUNREACH` and joining with `ENODEV`;
    with a default route everything goes to that one interface, be it the right one or not. So a machine without a
    gateway, or a program started at boot before the network is up, cannot use groups unless it names the interface.

    A route of the type `blackhole`, `unreachable` or `prohibit`, or a policy rule with such an action, refuses it with
     `EINVAL`, `EHOSTUNREACH` or `EACCES`, and no counter shows that. Root sees the lookups of each program.

    Over IPv4, programs that name the interface (as this library and `mcast` always do) need no route.

    A socket that is bound to an IPv4 address which its host has lost since, as after a new lease of DHCP, fails with
    `ENETUNREACH` or `EINVAL` whatever the routes are, and goes on failing. Since Linux 6.4 root sees what fails.

    **How to see it:** which way the group goes, and how often a datagram had none.

        ip route get 239.1.2.3; ip rule show
        nstat -az IpOutNoRoutes Ip6OutNoRoutes
        ss -uanp; ip -br addr

    **Cure:** name the interface in the program (`iface=`, `-i`; IP_MULTICAST_IF), or add a route for groups:

        ip route add 224.0.0.0/4 dev eth0
        ip route replace 239.1.2.3/32 dev eth0
    """
    if found := _without_its_address(facts):
        return found
    known(facts.routes)
    route, lost = this_host.route_to(facts, facts.target.group), counters.moved(facts, "Ip.OutNoRoutes") or 0
    if route is None:
        return unknown("The route to the group is not known.")
    refused = sending.refused(facts)
    evidence: dict[str, object] = {"interface": route.interface}
    if refused:
        return _refused(facts, route, refused)
    if route.interface is not None:
        summary = f"Programs that name no interface send to the group, and join it, on {route.interface}."
        return ok(summary, evidence | {"gateway": route.gateway})
    evidence["datagrams without a route, to any destination"] = lost
    if refused == 0 or received(facts) or not sending.may_be_refused(facts):
        summary = "There is no route to the group: programs must name the interface to send, or to join over IPv4."
        return ok(summary, evidence)
    text = "There is no route to the group, and only root sees whether a program of this host tries to send to it."
    if facts.machine.user_id == 0:
        text = "There is no route to the group, and the kernel does not tell whether a program tries to send to it."
    if route.kind in _LEADING_NOWHERE:
        evidence["type of the route"] = route.kind
        text = f"The route to the group is of the type {route.kind}: no program that lets it choose can send or join."
        return suspect(text, evidence, phrases.remedy(trial_of(facts).lookups))
    return unknown(text, evidence, phrases.remedy(trial_of(facts).lookups))


def _without_its_address(facts: Facts) -> Finding | None:
    """Judge programs of this host that are bound to an address which it has lost, so that all that they send fails."""
    failed = sending.without_its_address(facts)
    certain = [each for each in failed if each.peer is not None]
    # Where they send to is not known if they are not connected; who receives the group here may well not send it.
    if not failed or sending.left(facts) != 0 or (not certain and (received(facts) or this_host.was_joined(facts))):
        return None
    first = (certain or failed)[0]
    evidence: dict[str, object] = {"program": first.program, "bound to": first.own, "sends that failed": first.count}
    summary = f"{first.program} is bound to {first.own}, which no interface of this host has: all that it sends fails."
    steps = (
        f"Start {first.program} again, so that it binds to an address of this host.",
        f"Or give {first.own} back to its interface, as with `ip addr add {first.own}/24 dev eth0`.",
    )
    verdict = problem if certain and not sending.others_arrive(facts) else suspect
    return verdict(summary, evidence, steps)


_LEADING_NOWHERE = ("blackhole", "unreachable", "prohibit")


def _refused(facts: Facts, route: Route, refused: int) -> Finding:
    """Judge datagrams that programs of this host wanted to send, and that the routing tables refused."""
    version, group = facts.target.group_version, facts.target.group
    evidence: dict[str, object] = {"programs": ", ".join(sending.programs(facts)), "datagrams refused": refused}
    names = [each.name for each in this_host.chosen(facts) if not each.is_loopback]
    name = shlex.quote(names[0]) if names else "eth0"
    ip = "ip -6" if version == 6 else "ip"
    guilty = _rejecting_rules(facts)
    tried = f"A program on this host tried to send {phrases.counted(refused, 'datagram')}, and"
    if guilty:
        evidence |= {f"rule {rule.preference}": rule.text for rule in guilty}
        summary = f"{tried} a policy rule refuses them: `{guilty[0].text}`."
        steps = tuple(f"{ip} rule del pref {rule.preference}" for rule in guilty)
    elif route.kind in _LEADING_NOWHERE:
        evidence["type of the route"] = route.kind
        summary = f"{tried} the route to the group refuses them: it is of the type {route.kind}."
        # A route to this group alone precedes every other one, and replaces one that is there.
        command = f"ip route replace {group}/32 dev {name}"
        if version == 6:
            command = f"ip -6 route replace multicast {group}/128 dev {name} table local metric 1"
        steps = (f"Remove that route (`{ip} route show table all type {route.kind}`), or precede it.", command)
    else:
        summary = f"{tried} there is no route."
        command = f"ip route add 224.0.0.0/4 dev {name}"
        if version == 6:
            command = f"ip -6 route add multicast ff00::/8 dev {name} table local"
        steps = ("Name the interface in the sending program, or add a route.", command)
        if route.interface is not None:
            evidence["route for other programs"] = route.interface
            steps = (f"Look at the policy rules and at what marks packets: `{ip} rule show`.",)
    verdict = suspect if sending.others_arrive(facts) else problem
    return verdict(summary, evidence, steps)


def loopback_route(facts: Facts) -> Finding:
    """IPv6 groups have no route on the loopback interface.

    Linux gives every interface a route for ff00::/8 in its table `local`, except `lo`. Sending there fails with
    `ENETUNREACH`, and the route that seems to help (`ip -6 route add ff00::/8 dev lo`) makes it worse: sending then
    succeeds, and the kernel throws the datagrams away, for all groups but ffx1::. Only a route of the type `local`
    works. IPv4 needs nothing of this kind.

    It matters for tests, and for programs on one machine that talk by a group over `lo`.

    **How to see it:** a line for `ff00::/8 dev lo` in the table local, which begins with `local`; the counter grows
    with each datagram that was thrown away.

        ip -6 route show table local
        nstat -az Ip6OutNoRoutes

    **Cure:**

        ip -6 route add local ff00::/8 dev lo table local

    It changes nothing for other interfaces. Remove the wrong route first, if there is one: `ip -6 route del ff00::/8
    dev lo`.
    """
    loopback = [each.name for each in this_host.chosen(facts) if each.is_loopback]
    if facts.target.group_version != 6 or facts.loopback_route is None:
        return ok("IPv4 groups need no route on loopback.")
    if isinstance(facts.loopback_route, Unread):
        fact = facts.loopback_route
        return finding("unknown" if loopback else "ok", fact.reason, {}, phrases.remedy(fact))
    lost = counters.moved(facts, "Ip.OutNoRoutes") or 0
    evidence = {"route on lo": bool(facts.loopback_route), "datagrams without a route": lost}
    if facts.loopback_route or received(facts):
        return ok("IPv6 groups can be sent to on loopback.", evidence)
    if not loopback and not lost:
        return ok("There is no route on loopback, and it is not used here.", evidence)
    remedy = ("ip -6 route add local ff00::/8 dev lo table local",)
    if loopback and len(loopback) == len(this_host.chosen(facts)):
        summary = "IPv6 groups have no route on the loopback interface: nothing can be sent to them there."
        return problem(summary, evidence, remedy)
    summary = "A program could not send to IPv6 groups, and they have no route on the loopback interface."
    return suspect(summary, evidence, remedy)


def group_route(facts: Facts) -> Finding:
    """The routing tables of this host reject what comes in for the group.

    IPv6 routes each packet that comes in, groups too: each interface has a route for ff00::/8 in the table `local`,
    which the kernel makes. A script that flushes that table, or a rule of `ip -6 rule` with a smaller number than that
    of the table, takes the route away, and then the kernel drops every group, with all memberships in place. IPv4 needs
    no such route. There only the way back to the sender is looked up, see `reverse-path-filter`.

    **How to see it:** what the kernel would do with a datagram that comes in; `multicast` or no answer is right.

        ip -6 route get ff15::1:2:3 from fd01::2 iif eth0
        ip -6 route show table local | grep ff00::
        ip -6 rule show

    **Cure:** give the interface its route back, or delete the rule.

        ip -6 route add multicast ff00::/8 dev eth0 table local
        ip -6 rule del pref 0
    """
    known(facts.trial)
    dropped = endings.lost_to(facts, "group-route")
    names = {*this_host.chosen_names(facts)} - this_host.loopback_names(facts)
    rejected = [each for each in trial_of(facts).passages if each.error and each.interface in names]
    joined = any(each.error is None for each in trial_of(facts).joins)
    # Without a membership the kernel drops the group at the same place.
    if facts.target.group_version != 6 or received(facts) or not joined or not (rejected or dropped):
        return ok("The routing tables accept the group.")
    evidence: dict[str, object] = {f"routing on {each.interface}": each.error for each in rejected}
    evidence |= {"datagrams that it dropped": dropped} if dropped else {}
    name = rejected[0].interface if rejected else next(iter(names), "eth0")
    guilty = _rejecting_rules(facts)
    if guilty:
        evidence |= {f"rule {rule.preference}": rule.text for rule in guilty}
        summary = f"A policy rule rejects what comes in for the group: `{guilty[0].text}`."
        return problem(summary, evidence, tuple(f"ip -6 rule del pref {rule.preference}" for rule in guilty))
    summary = f"No route of {name} takes what comes in for the group: ff00::/8 is missing in the table `local`."
    return problem(summary, evidence, (f"ip -6 route replace multicast ff00::/8 dev {shlex.quote(name)} table local",))


def _rejecting_rules(facts: Facts) -> list[PolicyRule]:
    """Return the rules that reject packets to the group."""
    rules = () if isinstance(facts.rules, Unread) else facts.rules
    group = address_of(facts.target.group)
    found = []
    for rule in rules:
        words = rule.text.split()
        network = words[words.index("to") + 1] if "to" in words[:-1] else None
        rejects = words[-1] in ("blackhole", "unreachable", "prohibit") and words[0] != "not"
        if rejects and rule.version == facts.target.group_version and _holds(network, group):
            found.append(rule)
    return found


def _holds(network: str | None, group: IPAddress | None) -> bool:
    try:
        return network is None or (group is not None and group in ip_network(network, strict=False))
    except ValueError:
        return False


def wrong_interface(facts: Facts) -> Finding:
    """The datagrams come in on another interface than the one that listens.

    A membership belongs to one interface. What comes in on another one is dropped, even if it is the same group and
    port. The usual ways to get there: a program that names no interface, so that the routing table chose one; a VPN,
    virtual machine or container engine that added an interface and took the default route; two cables into the same
    network; a name that means another card after a reboot.

    Two special cases: a port of a bridge receives nothing for the host itself, only the bridge does; and frames with a
    VLAN tag belong to the VLAN's interface (`eth0.5`), not to the one they come in on.

    **How to see it:** where the frames come in, and where the group is joined.

        tcpdump -ni any host 239.1.2.3
        mcast groups

    **Cure:** join on the interface that the evidence names.

        mcast recv 239.1.2.3:5000%eth1
    """
    known(facts.interfaces)
    names = this_host.chosen_names(facts)
    if received(facts):
        return ok("Datagrams come in on the expected interface.")
    if not names:
        return unknown(this_host.missing(facts) or "There is no interface to listen on.")
    port_of = {each.name: each.bridge for each in this_host.chosen(facts) if each.bridge}
    if port_of and len(port_of) == len(names):
        name, bridge = next(iter(port_of.items()))
        summary = f"{name} is a port of the bridge {bridge}, so datagrams reach this host on {bridge} only."
        step = f"Listen on the bridge, as in `mcast recv {phrases.endpoint(facts, interface=bridge)}`."
        return problem(summary, {"port": name, "bridge": bridge}, (step,))
    tagged = [each for each in sightings.frames(facts) or () if each.vlan and each.interface in names]
    if tagged and not sightings.wanted(facts):
        return _tagged(facts, tagged[0])
    if sightings.wanted(facts) or sightings.on_ports(facts):
        return ok("Datagrams come in on the expected interface, too.")
    elsewhere = _elsewhere(facts)
    if elsewhere:
        places = list(dict.fromkeys(each.interface for each in elsewhere))
        evidence = {
            "expected on": phrases.named(names),
            "come in on": phrases.named(places),
            "from": phrases.named(sightings.senders(elsewhere)),
            "datagrams": sum(each.count for each in elsewhere),
        }
        if sightings.frames(facts) is None and (background.beyond_usual(facts, counters.filtered) or 0) > 0:
            text = "Datagrams come in on another interface, and packets were dropped that may have come in on this one."
            return unknown(text, evidence, phrases.remedy(trial_of(facts).frames))
        count = sum(each.count for each in elsewhere)
        if any((each.packets or 0) >= counters.MOST * count for each in this_host.diverting_filters(facts)):
            text = f"The datagrams reach {phrases.named(places)}, and a filter of traffic control may send them there."
            return unknown(text, evidence, phrases.remedy(trial_of(facts).frames))
        if all(sightings.is_diverted(facts, each) for each in elsewhere):
            text = f"The datagrams reach {phrases.named(places)} by no wire: something on this host sends them there."
            return unknown(text, evidence, phrases.remedy(trial_of(facts).frames))
        if this_host.own_addresses(facts).issuperset(map(address_of, sightings.senders(elsewhere))):
            summary = f"This host itself sends them, out of {phrases.named(places)}, not out of {phrases.named(names)}."
            step = f"Send there, as in `mcast send {phrases.endpoint(facts, interface=names[0])} hello`."
            return problem(summary, evidence, (step,))
        summary = f"The datagrams come in on {phrases.named(places)}, not on {phrases.named(names)}."
        step = f"Listen there, as in `mcast recv {phrases.endpoint(facts, interface=places[0])}`."
        return problem(summary, evidence, (step,))
    if not known(facts.trial).widened and sightings.frames(facts) is None:
        return unknown("The trial did not listen on other interfaces.")
    return ok("Nothing of the target came in on another interface.")


def _elsewhere(facts: Facts) -> list[Arrivals | Frames]:
    """Return the datagrams of the target that came in on unexpected interfaces."""
    target, names = facts.target, set(this_host.chosen_names(facts))
    ports_of_chosen = {each.name for each in this_host.interfaces(facts) if each.bridge in names}
    arrived: list[Arrivals | Frames] = [*sightings.others_received(facts)]
    if not arrived and not sightings.wanted(facts):
        arrived = [each for each in sightings.frames(facts) or () if target.port in (None, each.port)]
    return [
        each
        for each in arrived
        if each.interface not in names | ports_of_chosen
        and same(each.group, target.group)
        and (target.source is None or same(each.sender, target.source))
    ]


def _tagged(facts: Facts, frame: Frames) -> Finding:
    name = f"{frame.interface}.{frame.vlan}"
    evidence = {"interface": frame.interface, "VLAN": frame.vlan, "from": frame.sender}
    summary = (
        f"The frames come in on {frame.interface} with the tag of VLAN {frame.vlan}; only {name} would receive them."
    )
    device, link = shlex.quote(name), shlex.quote(frame.interface)
    remedy = (
        f"ip link add link {link} name {device} type vlan id {frame.vlan}",
        f"ip link set {device} up",
        f"Listen there, as in `mcast recv {phrases.endpoint(facts, interface=name)}`.",
    )
    return problem(summary, evidence, remedy)
