"""Checks of firewalls: whether they drop datagrams or queries. Pure: touches no OS."""

from __future__ import annotations

import shlex
from collections.abc import Iterable
from dataclasses import replace

from multicast_expert.doctor import phrases
from multicast_expert.doctor.checks.traffic_control import takes_at_egress
from multicast_expert.doctor.evidence import background, counters, sightings, this_host, whose_losses
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, Rule, Unread, address_of
from multicast_expert.doctor.firewall import remedies
from multicast_expert.doctor.path import endings, sending
from multicast_expert.doctor.report import Finding, finding, ok, problem, suspect, unknown
from multicast_expert.wire.tallies import Queries

_OUTWARD = ("output", "postrouting", "egress")
_BEFORE_REASSEMBLY = ("ingress", "prerouting")
_SKEW = 2
"""Packets by which two counts of the same may differ."""
_LOOK = "Look for the rule, or for an eBPF or tc program: `nft list ruleset`, `tc filter show dev INTERFACE`."


def firewall(facts: Facts) -> Finding:
    """A firewall on this host drops the datagrams.

    A firewall that lets in only what it knows has a rule for connections that the host itself opened. Nobody opens
    anything with a group, so each group and port needs a rule of its own. tcpdump sees packets before the firewall does
    (except at its ingress hook), programs after it; so "tcpdump shows it and the program gets nothing" is the usual
    picture. What an input rule drops is counted by Linux in `IpExt: InMcastPkts` and not in `Ip: InDelivers`; what a
    prerouting rule drops in `Ip: InReceives` only.

    **How to see it:** the rules and their counters, as root; which ones grow while the stream comes in?

        nft list ruleset
        iptables -nvL INPUT; ip6tables -nvL INPUT

    **Cure:** let the group in, before the rule that drops it. If firewalld or ufw make the rules, tell them instead:
    they replace what others add.

        nft insert rule inet filter input ip daddr 239.1.2.3 udp dport 5000 accept
        firewall-cmd --add-rich-rule='rule family=ipv4 destination address=239.1.2.3 port port=5000 protocol=udp accept'
        ufw allow in proto udp to 239.1.2.3 port 5000
    """
    listed = () if isinstance(facts.firewall, Unread) else facts.firewall
    rules = [each for each in listed if each.action not in ("translate", "divert")]
    dropped = endings.lost_to(facts, "firewall")
    if dropped:
        return _proved(facts, rules, dropped)
    diverting = [each for each in listed if each.action == "divert"]
    if found := _on_the_way_out(facts, rules) or _around(facts, rules) or _diverted(facts, diverting):
        return found
    seen = sightings.frames(facts) is not None
    refused = counters.refused_after_routing
    counted = refused(facts) if seen else background.beyond_usual(facts, refused)
    evidence: dict[str, object] = {"refused after routing": counted} if counted else {}
    guilty = [] if dropped == 0 else _guilty(facts, rules)
    if guilty:
        return _refused_by_rule(facts, guilty, evidence)
    if received(facts):
        if counted and not seen and counted > received(facts) and not whose_losses.unclear(facts):
            summary = f"A firewall rule on this host drops {phrases.counted(counted, 'datagram')} of the group."
            evidence["datagrams that arrived"] = received(facts)
            # They may have gone to another port of the group.
            return suspect(summary, evidence, phrases.remedy(facts.firewall) or (_LOOK,))
        return ok("The firewall lets the datagrams in.", evidence)
    if silenced := _silenced(facts, rules):
        return silenced
    if dropped == 0:
        return ok("The kernel dropped none of the datagrams for a rule of the firewall.", evidence)
    return _by_counters(facts, rules, counted, evidence)


def _by_counters(facts: Facts, rules: list[Rule], counted: int | None, evidence: dict[str, object]) -> Finding:
    """Judge without the kernel's verdict, and without a rule that certainly dropped the datagrams."""
    seen = sightings.frames(facts) is not None
    if pieces := counters.pieces_dropped(facts):
        return _fragments_dropped(facts, rules, pieces)
    why = phrases.reason(facts.firewall)
    if counted and not seen and (unclear := whose_losses.unclear(facts)):
        return unknown(unclear, evidence, why[1])
    arrivals = trial_of(facts).arrivals
    if counted and not arrivals and not counters.may_be_igmp(facts) and (sightings.wanted(facts) or not seen):
        summary = f"A firewall rule on this host drops {phrases.counted(counted, 'packet')} of joined groups."
        steps = why[1] or (_LOOK,)
        return problem(summary, evidence | {"rule": why[0] or "not known"}, steps)
    if _unexplained(facts) and (isinstance(facts.firewall, Unread) or any(each.matches is not False for each in rules)):
        summary = "Frames come in, and something on this host drops them before they reach a socket."
        return suspect(summary, evidence, why[1] or (_LOOK,))
    if isinstance(facts.firewall, Unread):
        return unknown(why[0], evidence, why[1])
    doubtful = [rule for rule in rules if rule.hook not in _OUTWARD and rule.matches is not False]
    if doubtful and not counters.nothing_came(facts):
        return _doubtful(facts, doubtful, evidence)
    return ok("No rule of the firewall drops the datagrams.", evidence)


def _proved(facts: Facts, rules: list[Rule], dropped: int) -> Finding:
    """Judge datagrams that the kernel dropped for a rule: name the one that did, and those that would be next."""
    here = [rule for rule in rules if rule.hook not in _OUTWARD and rule.matches is not False]
    counting = [rule for rule in here if rule.packets]
    guilty = sorted(
        (rule for rule in here if rule.packets != 0),
        key=lambda rule: (
            rule.packets is None or abs(rule.packets - dropped) > max(_SKEW, dropped // 10),
            not rule.matches,
        ),
    )
    if guilty and not guilty[0].matches and not counting:
        # A program that serves a queue may be gone; else a rule that certainly matches comes before one that may.
        guilty.sort(key=lambda rule: rule.action != "queue")
    first = guilty[:1]
    following = [rule for rule in here if rule.matches and rule not in first]
    evidence: dict[str, object] = {"datagrams that the kernel dropped for it": dropped}
    evidence |= {"datagrams that arrived": received(facts)} if received(facts) else {}
    for rule in (*first, *following)[:8]:
        refused = f" ({phrases.counted(rule.packets, 'packet')} dropped)" if rule.packets else ""
        evidence[f"{rule.tool}: {rule.chain}"] = f"{rule.text}{refused}"
    if not first:
        why = phrases.reason(facts.firewall)
        summary = f"A rule of the firewall drops the datagrams: {phrases.counted(dropped, 'datagram')}."
        return problem(summary, evidence, why[1] or (_LOOK,))
    part = "part of the datagrams" if received(facts) else "the datagrams"
    rule = first[0]
    verb = "gives the datagrams to a queue that no program serves" if rule.action == "queue" else f"drops {part}"
    summary = f"The firewall {verb}: `{rule.text}` in {rule.chain} ({rule.tool})."
    in_pieces = any(each.port is None and endings.check_of(each) == "firewall" for each in endings.drops(facts) or ())
    remedy = list(remedies.accept(_portless(facts) if in_pieces else facts, [*first, *following]))
    if following:
        remedy.append(
            f"{phrases.counted(len(following), 'more rule')} would drop them next; the commands spare them there too."
        )
    return problem(summary, evidence, tuple(remedy))


def _on_the_way_out(facts: Facts, rules: Iterable[Rule]) -> Finding | None:
    """Judge rules that drop what programs of this host send to the group."""
    dropped = endings.lost_to(facts, "firewall", outgoing=True)
    if sightings.wanted(facts) or dropped == 0:
        return None
    # Receivers on this host get their copies before the egress hook, so that these prove nothing there.
    hooks = ("egress",) if received(facts) else _OUTWARD
    here = [rule for rule in rules if rule.hook in hooks and rule.matches_own is not False and rule.packets != 0]
    guilty = [rule for rule in here if rule.packets and rule.matches_own] or (here if dropped else [])
    if not guilty and not dropped:
        return _kept_back(facts)
    evidence: dict[str, object] = {
        f"{rule.tool}: {rule.chain}": f"{rule.text} ({rule.packets} dropped)" for rule in guilty[:8]
    }
    evidence |= {"datagrams that the kernel dropped for it": dropped} if dropped else {}
    what = f": `{guilty[0].text}` in {guilty[0].chain} ({guilty[0].tool})" if guilty else ""
    summary = f"The firewall drops what a program of this host sends to the group{what}."
    verdict = suspect if sending.others_arrive(facts) else problem
    return verdict(summary, evidence, remedies.accept(facts, guilty) or (_LOOK,))


def _kept_back(facts: Facts) -> Finding | None:
    """Judge datagrams of this host that certainly did not leave, if the rules could not be read."""
    kept = {name: count for name, count in sending.kept_by_counters(facts).items() if not takes_at_egress(facts, name)}
    if not kept or not isinstance(facts.firewall, Unread):
        return None
    places = phrases.named(kept)
    summary = f"Programs here receive what this host sends, and it does not leave {places}: maybe a rule at the egress."
    return suspect(summary, {"datagrams that did not leave": sum(kept.values())}, phrases.remedy(facts.firewall))


def _around(facts: Facts, rules: Iterable[Rule]) -> Finding | None:
    """Judge rules that drop the packets of a tunnel, if nothing comes out of it."""
    guilty = [rule for rule in rules if rule.matches_carrier and rule.packets]
    if not guilty or received(facts) or sightings.wanted(facts):
        return None
    tunnels = phrases.named(each.name for each in this_host.chosen(facts) if each.remote)
    evidence: dict[str, object] = {
        f"{rule.tool}: {rule.chain}": f"{rule.text} ({rule.packets} dropped)" for rule in guilty[:8]
    }
    summary = f"The firewall drops the packets of the tunnel {tunnels}: `{guilty[0].text}` in {guilty[0].chain}."
    return problem(summary, evidence, remedies.accept_carriers(facts, guilty))


def _diverted(facts: Facts, rules: Iterable[Rule]) -> Finding | None:
    """Judge rules that send what comes in to another interface: it is dropped nowhere, and does not reach IP."""
    guilty = [rule for rule in rules if rule.hook == "ingress" and rule.matches and rule.packets != 0]
    missing, otherwise = sightings.missing(facts), endings.by_check(facts)
    if not guilty or not missing or counters.reached_ip(facts) or (otherwise and otherwise.total() > missing // 2):
        return None
    rule = guilty[0]
    evidence: dict[str, object] = {f"{rule.tool}: {rule.chain}": rule.text, "datagrams that did not reach IP": missing}
    summary = f"The firewall sends the datagrams to another interface: `{rule.text}` in {rule.chain} ({rule.tool})."
    return problem(summary, evidence, remedies.accept(facts, guilty))


def _guilty(facts: Facts, rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules that certainly drop datagrams of the target, those with the highest count first."""
    here = [rule for rule in rules if rule.hook not in _OUTWARD and rule.matches is not False and rule.packets != 0]
    if received(facts):
        return _guilty_of_some(facts, here)
    if not here:
        return []
    certain = [rule for rule in here if rule.matches and rule.packets]
    # A rule without a counter is proved by frames that come in and that only such a rule can have dropped.
    proved = bool(counters.refused_after_routing(facts) and sightings.wanted(facts) != ())
    if not certain and proved and not counters.nothing_came(facts):
        certain = [rule for rule in here if rule.matches] or [rule for rule in here if rule.packets] or here
    if not certain and _unexplained(facts):
        certain = [rule for rule in here if rule.matches]
    return sorted(certain, key=lambda rule: -(rule.packets or 0))


def _guilty_of_some(facts: Facts, rules: Iterable[Rule]) -> list[Rule]:
    """Return the rules that dropped as many datagrams as are missing; some others arrived."""
    missing = sightings.missing(facts)
    if not missing:
        return []
    counted = [rule for rule in rules if rule.packets and abs(rule.packets - missing) <= max(_SKEW, missing // 10)]
    refused = counters.refused_after_routing(facts) or 0
    return counted or (list(rules) if refused >= counters.MOST * missing else [])


def _silenced(facts: Facts, rules: Iterable[Rule]) -> Finding | None:
    """Judge rules that keep the host's own reports from leaving, if nothing comes in."""
    here = [rule for rule in rules if rule.matches_reports and rule.packets != 0]
    summary = "A firewall drops the IGMP or MLD reports of this host, so the network does not know that it has joined"
    if here and counters.nothing_came(facts):
        evidence: dict[str, object] = {f"{rule.tool}: {rule.chain}": rule.text for rule in here[:8]}
        return problem(f"{summary}.", evidence, tuple(dict.fromkeys(remedies.let_reports_out(facts, here))))
    kept = counters.reports_kept(facts)
    if isinstance(facts.firewall, Unread) and kept and not trial_of(facts).arrivals:
        evidence = {"packets that could not leave": kept}
        return suspect(f"{summary}, most likely.", evidence, phrases.remedy(facts.firewall))
    return None


def _doubtful(facts: Facts, rules: list[Rule], evidence: dict[str, object]) -> Finding:
    """Judge rules that may drop the datagrams, without a count of what they dropped."""
    evidence |= {f"{rule.tool}: {rule.chain}": rule.text for rule in rules[:8]}
    certain = [rule for rule in rules if rule.matches]
    if certain and sightings.frames(facts) is None:
        first = certain[0]
        summary = f"The firewall is set to drop such datagrams: {first.text} ({first.tool})."
        return suspect(summary, evidence, remedies.accept(facts, certain))
    summary = "Some rules may or may not drop the datagrams: they test what is not known here."
    steps = ["Read the rules: `nft list ruleset`, `iptables -nvL`."]
    if facts.machine.system != "linux":
        steps = list(remedies.accept(facts, rules))
    return unknown(summary, evidence, tuple(steps))


def _unexplained(facts: Facts) -> bool:
    """Return whether good frames of the target come in, and only a firewall explains where they went."""
    wanted = sightings.wanted(facts)
    if not wanted or received(facts) or trial_of(facts).arrivals:
        return False
    own = this_host.own_addresses(facts)
    good = [
        each
        for each in wanted
        if not (each.bad_checksums or each.fragments)
        and (address := address_of(each.sender)) is not None
        and not (address in own or address.is_loopback or address.is_unspecified or address.is_multicast)
        and not (each.ethernet_destination and int(each.ethernet_destination[:2], 16) & 1 == 0)
    ]
    others = ("Udp.IgnoredMulti", "Udp.InErrors", "Ip.InHdrErrors", "Ip.ReasmReqds")
    explained = any(counters.moved(facts, name) for name in others)
    filtered = facts.target.group_version == 4 and bool(trial_of(facts).counters.get("TcpExt.IPReversePathFilter"))
    joined = any(each.error is None for each in trial_of(facts).joins)
    return (
        bool(good) and joined and not explained and not filtered and counters.moved(facts, "Ip.InReceives") is not None
    )


def _fragments_dropped(facts: Facts, rules: Iterable[Rule], pieces: int) -> Finding:
    """Judge what lets only a part of the fragments through; it must come before the kernel reassembles them."""
    early = [
        rule for rule in rules if rule.hook in _BEFORE_REASSEMBLY and rule.matches is not False and rule.packets != 0
    ]
    evidence: dict[str, object] = {f"{rule.tool}: {rule.chain}": rule.text for rule in early[:8]}
    evidence["fragments that it dropped"] = pieces
    if early:
        summary = f"The firewall drops fragments: `{early[0].text}` in {early[0].chain} ({early[0].tool})."
        return problem(summary, evidence, remedies.accept(_portless(facts), early))
    why = phrases.reason(facts.firewall)
    summary = "Fragments come in, and something on this host drops some of them before it reassembles them."
    return suspect(summary, evidence, why[1] or (_LOOK,))


def _portless(facts: Facts) -> Facts:
    """Return the facts without a port: a rule for a port lets no later fragment in, which has no UDP header."""
    return replace(facts, target=replace(facts.target, port=None))


def _refused_by_rule(facts: Facts, guilty: list[Rule], evidence: dict[str, object]) -> Finding:
    first = guilty[0]
    for rule in guilty[:8]:
        refused = "" if rule.packets is None else f" ({phrases.counted(rule.packets, 'packet')} dropped)"
        evidence[f"{rule.tool}: {rule.chain}"] = f"{rule.text}{refused}"
    summary = f"The firewall drops the datagrams: `{first.text}` in {first.chain} ({first.tool})."
    return problem(summary, evidence, remedies.accept(facts, guilty))


def query_blocked(facts: Facts) -> Finding:
    """Queries for memberships reach this host, and the kernel drops them before it could answer.

    A querier, in a router or a switch, asks about every two minutes for the members of all groups. If a host does not
    answer, a snooping switch stops delivering to it after about 260 seconds, and a router stops forwarding. The first
    minutes work, since a join sends a report without a query; then the stream stops without an error.

    Queries are packets of their own protocols. A firewall that lets in UDP port 5000 and nothing else drops IGMP (or
    ICMPv6 type 130), and the reverse path filter drops queries of a querier whose address this host has no route to. A
    source of 0.0.0.0, as snooping switches use, passes that filter.

    **How to see it:** as root, queries are there, and no reports of this host follow.

        tcpdump -vni eth0 'igmp or (icmp6 and ip6[48] == 130)'
        nstat -az TcpExtIPReversePathFilter

    **Cure:** let IGMP and MLD in, or give the host a route to the querier.

        nft insert rule inet filter input ip protocol igmp accept
        nft insert rule inet filter input icmpv6 type mld-listener-query accept
        ip route add 10.9.9.9/32 dev eth0
    """
    queries = trial_of(facts).queries
    if isinstance(facts.trial, Unread) or isinstance(queries, Unread):
        return _blocked_by_counters(facts)
    names = set(this_host.chosen_names(facts))
    mine = [each for each in queries if each.interface in names and _version(each) == facts.target.group_version]
    lost = [each for each in mine if each.delivered is not None and each.delivered < each.seen]
    # One query may still have been on its way when the trial ended.
    lost = [each for each in lost if each.delivered == 0 or each.seen - (each.delivered or 0) > 1]
    if lost:
        return _blocked(facts, lost[0])
    if not mine:
        return ok("No query came while we listened, so none was dropped.")
    evidence = {each.querier: f"{each.seen} seen, {each.delivered} delivered" for each in mine}
    return ok("The queries are delivered.", evidence)


def _version(query: Queries) -> int | None:
    address = address_of(query.querier)
    return None if address is None else address.version


def _blocked(facts: Facts, query: Queries) -> Finding:
    rules = [] if isinstance(facts.firewall, Unread) else [each for each in facts.firewall if each.matches_queries]
    evidence: dict[str, object] = {
        "querier": query.querier,
        "queries seen": query.seen,
        "delivered by the kernel": query.delivered,
    }
    summary = (
        f"Queries of {query.querier} reach {query.interface}, and this host drops them: the network will forget it."
    )
    route = this_host.route_to(facts, query.querier)
    filtered = trial_of(facts).counters.get("TcpExt.IPReversePathFilter", 0)
    if _version(query) == 4 and filtered and query.querier != "0.0.0.0":
        evidence |= {"dropped by the reverse path filter": filtered}
        if route is None or route.interface != query.interface:
            command = f"ip route add {shlex.quote(query.querier)}/32 dev {shlex.quote(query.interface)}"
            return problem(summary, evidence, (command,))
    evidence |= {f"{rule.tool}: {rule.chain}": rule.text for rule in rules}
    remedy = tuple(dict.fromkeys(remedies.accept_queries(facts, rules)))
    why = phrases.reason(facts.firewall)
    step = "Look for a firewall rule that drops IGMP or MLD, and let them in."
    return problem(summary, evidence, remedy or why[1] or (step,))


def _blocked_by_counters(facts: Facts) -> Finding:
    """Judge without captured queries: dropped packets that are as short as queries are most likely queries."""
    why = phrases.reason(facts.trial, trial_of(facts).queries)
    filtered = trial_of(facts).counters.get("TcpExt.IPReversePathFilter", 0)
    dropped = filtered or counters.refused_after_routing(facts) or 0
    by = "the reverse path filter" if filtered else "a firewall"
    evidence = {"dropped": dropped} if dropped else {}
    short = counters.may_be_queries(facts) if filtered else counters.may_be_igmp(facts)
    if dropped and short and not received(facts):
        summary = f"{by[0].upper()}{by[1:]} dropped {phrases.counted(dropped, 'packet')} as short as IGMP queries."
        return unknown(summary, evidence, why[1])
    if trial_of(facts).revived and counters.queries_were_dropped(facts) is not False:
        certain = bool(dropped)
        summary = "The datagrams stopped, and came again after a new join: queries do not reach this host"
        text = f"{summary}; {by} drops them." if certain else f"{summary}, or there is no querier."
        return finding("problem" if certain else "suspect", text, evidence, why[1])
    return unknown(why[0], {}, why[1])
