"""The check of traffic control: filters that drop or divert, and queues that drop or hold. Pure: touches no OS."""

from __future__ import annotations

import shlex

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, FilterFacts, QueueFacts, Unread, address_of, known, same
from multicast_expert.doctor.path import endings, sending
from multicast_expert.doctor.report import Finding, Verdict, finding, ok, problem, suspect, unknown


def traffic_control(facts: Facts) -> Finding:
    """Traffic control (tc) takes the datagrams: a filter, a policer, a shaper or a full queue.

    A filter of tc, often a BPF program of a container network, sees each packet right after tcpdump did and before the
    firewall; no list of firewall rules shows it. It may drop, send the packets to another interface (`mirred redirect`,
    often to an `ifb` with a shaper), keep them (`stolen`, `trap`) or change their port. On the way out a shaper (`tbf`,
    `htb`), an emulator of bad networks (`netem`) or a queue that is full drops or holds what a program here has sent,
    without an error for the program; receivers on the same host still get their copies.

    **How to see it:** `dropped` and `backlog` grow; the filters of both directions, and what their actions got.

        tc -s qdisc show dev eth0
        tc -s filter show dev eth0 ingress; tc -s filter show dev eth0 egress
        bpftool net

    **Cure:** change the filter, or remove it; give a shaper more rate.

        tc qdisc del dev eth0 clsact
    """
    known(facts.trial)
    found = _on_the_way_in(facts) or _on_the_way_out(facts) or _forwarded(facts)
    if found:
        return found
    dropping = [each for each in _queues(facts) if each.drops]
    evidence: dict[str, object] = {f"{each.kind} of {each.interface}": f"{each.drops} dropped" for each in dropping}
    told = endings.by_check(facts) is not None
    if told or not dropping:
        return ok("Traffic control takes none of the datagrams.", evidence)
    if received(facts) and not sightings.missing(facts):
        return ok("Traffic control dropped packets, and the datagrams arrive.", evidence)
    text = (
        f"Traffic control dropped packets on {phrases.named(each.interface for each in dropping)}; whose is not known."
    )
    step = "Look at the filters: `tc -s filter show dev INTERFACE ingress`."
    return unknown(text, evidence, phrases.remedy(trial_of(facts).frames) or (step,))


def _queues(facts: Facts) -> list[QueueFacts]:
    """Return the queues that the target may pass, those that dropped most first."""
    queues = trial_of(facts).queues
    names = {each.name for each in this_host.below(facts)} | _redirected_to(facts)
    listed = () if isinstance(queues, Unread) else queues
    return sorted((each for each in listed if each.interface in names), key=lambda each: -(each.drops or 0))


def _filters(facts: Facts, hook: str) -> list[FilterFacts]:
    filters = trial_of(facts).filters
    names = {each.name for each in this_host.below(facts)}
    return [
        each
        for each in (() if isinstance(filters, Unread) else filters)
        if each.interface in names and each.hook == hook and each.diverts is not False
    ]


def _redirected_to(facts: Facts) -> set[str]:
    """Return the interfaces that filters at the ingress send packets to."""
    return {each.action.rpartition(" dev ")[2] for each in _filters(facts, "ingress") if " dev " in each.action}


def _on_the_way_in(facts: Facts) -> Finding | None:
    missing, dropped = sightings.missing(facts), endings.lost_to(facts, "traffic-control")
    at_ingress = [each for each in _queues(facts) if each.is_ingress and each.drops]
    if missing and dropped:
        return _at_ingress(facts, {"datagrams that it dropped": dropped})
    if sightings.frames(facts) is None:
        return _by_counters_alone(facts)
    if not missing:
        return None
    if found := _sent_out_again(facts, missing):
        return found
    counts = endings.by_check(facts)
    if counts is None:
        # Only the counters tell: what the ingress dropped never reached IP.
        if sum(each.drops or 0 for each in at_ingress) >= counters.MOST * missing and not counters.reached_ip(facts):
            return _at_ingress(facts, {"packets that it dropped": at_ingress[0].drops})
    elif sum(count for check, count in counts.items() if check) > missing // 2:
        return None
    return _diverted(facts, missing) or _rewritten(facts, missing)


def _at_ingress(facts: Facts, evidence: dict[str, object]) -> Finding:
    """Judge a proved loss of what comes in: by a filter, or in the queue that a filter sends packets to."""
    elsewhere = [each for each in _queues(facts) if each.interface in _redirected_to(facts)]
    beyond = next((each for each in elsewhere if each.drops or each.waiting), None)
    dropping = [each for each in _queues(facts) if each.is_ingress]
    name = dropping[0].interface if dropping else next(iter(this_host.chosen_names(facts)), "INTERFACE")
    evidence |= {f"filter of {each.interface}": each.action for each in _filters(facts, "ingress")[:4]}
    if beyond is not None:
        evidence[f"{beyond.kind} of {beyond.interface}"] = f"{beyond.drops} dropped, {beyond.waiting} wait"
        takes = "drops" if beyond.drops else "holds"
        summary = (
            f"A filter of traffic control (tc) sends what comes in on {name} to {beyond.interface}, whose queue "
            f"({beyond.kind}) {takes} the datagrams."
        )
        return problem(summary, evidence, _easier(beyond))
    summary = f"A filter of traffic control (tc) at the ingress of {name} drops the datagrams."
    step = f"Look at the filters (`tc filter show dev {name} ingress`, `bpftool net`), and remove the one that drops."
    return problem(summary, evidence, (step, *_remove_all(dropping)))


def _easier(queue: QueueFacts) -> tuple[str, str]:
    step = f"Give the queue more rate or room, or remove it (`tc -s qdisc show dev {queue.interface}`)."
    return step, f"tc qdisc del dev {shlex.quote(queue.interface)} root"


def _remove_all(queues: list[QueueFacts]) -> tuple[str, ...]:
    return tuple(f"tc qdisc del dev {shlex.quote(each.interface)} {each.kind}" for each in queues[:1])


def _remove(guilty: FilterFacts) -> tuple[str, ...]:
    place, command = shlex.quote(guilty.interface), f"{guilty.hook} pref {guilty.preference}"
    step = "Let the filter spare UDP to the group, or remove it"
    step = f"{step} (`tc -s filter show dev {guilty.interface} {guilty.hook}`)."
    return step, f"tc filter del dev {place} {command}"


def _diverted(facts: Facts, missing: int) -> Finding | None:
    """Judge datagrams that came in, were dropped nowhere and did not reach IP: an action of a filter took them."""
    if counters.reached_ip(facts):
        return None
    filters = _filters(facts, "ingress")
    guilty = [each for each in filters if each.diverts and (each.packets or 0) >= counters.MOST * missing]
    programs = [] if guilty or _unclear_rules(facts, "ingress") else [each for each in filters if each.diverts is None]
    if not guilty and not programs:
        return None
    one = (guilty or programs)[0]
    evidence: dict[str, object] = {"datagrams that came in": missing, "action": one.action}
    evidence |= {} if one.packets is None else {"packets that it got": one.packets}
    beyond = next((each for each in _queues(facts) if one.action.endswith(f" dev {each.interface}")), None)
    if beyond is not None and beyond.waiting >= counters.MOST * missing:
        return _at_ingress(facts, evidence)
    does = f"takes the datagrams (`{one.action}`)" if guilty else "takes the datagrams: it is a BPF program"
    summary = f"A filter of traffic control (tc) at the ingress of {one.interface} {does}."
    return problem(summary, evidence, _remove(one))


def _sent_out_again(facts: Facts, missing: int) -> Finding | None:
    """Judge datagrams that a filter sent out of another interface: they may come back to IP by the far end of it."""
    own = this_host.own_addresses(facts)
    for each in this_host.diverting_filters(facts):
        place = each.action.rpartition(" dev ")[2]
        out = [one for one in sightings.frames(facts, outgoing=True) or () if one.interface == place]
        count = sum(one.count for one in out if address_of(one.sender) not in own)
        if min(each.packets or 0, count) >= counters.MOST * missing:
            evidence: dict[str, object] = {"datagrams that came in": missing, f"frames out of {place}": count}
            summary = f"A filter of traffic control (tc) at the ingress of {each.interface} takes the datagrams"
            return problem(f"{summary} (`{each.action}`).", evidence, _remove(each))
    return None


def _rewritten(facts: Facts, missing: int) -> Finding | None:
    """Judge datagrams that were on the wire with one port, and were dropped with another: a filter changed it."""
    drops, target = trial_of(facts).drops, facts.target
    filters = [each for each in _filters(facts, "ingress") if each.diverts is None]
    seen = {(each.sender, each.port) for each in sightings.frames(facts) or ()}
    if isinstance(drops, Unread) or not filters or target.port is None:
        return None
    changed = [
        each
        for each in drops
        if not each.outgoing and each.port not in (None, target.port) and (each.source, each.port) not in seen
        and each.group is not None and same(each.group, target.group)
    ]  # fmt: skip
    if sum(each.count for each in changed) < counters.MOST * missing:
        return None
    name, port = filters[0].interface, changed[0].port
    evidence: dict[str, object] = {"port on the wire": target.port, "port at UDP": port, "filter": filters[0].action}
    summary = f"A filter of traffic control (tc) at the ingress of {name} changes the port {target.port} to {port}."
    return problem(summary, evidence, _remove(filters[0]))


def _unclear_rules(facts: Facts, hook: str) -> bool:
    """Return whether a firewall may take packets at the same place."""
    rules = None if isinstance(facts.firewall, Unread) else facts.firewall
    return rules is None or any(
        each.hook == hook and (each.matches is not False or each.matches_own is not False) for each in rules
    )


def _by_counters_alone(facts: Facts) -> Finding | None:
    """Judge without frames: an action got packets that no IP version counted."""
    if received(facts):
        return None
    for each in _filters(facts, "ingress"):
        got = each.packets or 0
        if each.diverts and got > counters.A_STREAM and (counters.uncounted(facts) or 0) >= counters.MOST * got:
            summary = (
                f"A filter of traffic control (tc) at the ingress of {each.interface} takes packets away "
                f"(`{each.action}`), maybe the datagrams."
            )
            return suspect(summary, {"action": each.action, "packets that it got": got}, _remove(each))
    diverted = [each for each in trial_of(facts).arrivals if sightings.is_diverted(facts, each)]
    programs = [each for each in _filters(facts, "ingress") if each.diverts is None]
    if diverted and programs:
        place, one = diverted[0].interface, programs[0]
        evidence: dict[str, object] = {"datagrams on " + place: sum(each.count for each in diverted)}
        evidence |= {"sender": diverted[0].sender, "filter": one.action}
        summary = f"A filter of traffic control (tc) at the ingress of {one.interface} sends the datagrams to {place}."
        return suspect(summary, evidence, _remove(one))
    return None


def _on_the_way_out(facts: Facts) -> Finding | None:
    """Judge what this host sends; if datagrams of others arrive, it is only a part of the group."""
    dropped = endings.lost_to(facts, "traffic-control", outgoing=True)
    verdict: Verdict = "suspect" if sending.others_arrive(facts) else "problem"
    evidence: dict[str, object] = {"programs that send": programs} if (programs := sending.programs(facts)) else {}
    queues = [each for each in _queues(facts) if not each.is_ingress and each.interface not in _redirected_to(facts)]
    if dropped:
        evidence["datagrams that it dropped"] = dropped
        reasons = {each.reason for each in endings.drops(facts, outgoing=True) or ()}
        if "TC_EGRESS" in reasons:
            return _filter_out(facts, evidence)
        queue = next((each for each in queues if each.drops), None)
        kind = f"of {queue.interface} ({queue.kind}) " if queue else ""
        summary = f"Traffic control (tc) {kind}drops what this host sends to the group."
        return finding(verdict, summary, evidence, _easier(queue) if queue else ())
    kept = sending.kept_by_counters(facts)
    for queue in queues if kept else ():
        if (queue.drops or 0) >= counters.MOST * kept.get(queue.interface, float("inf")):
            evidence["datagrams that it dropped"] = queue.drops
            summary = (
                f"Traffic control (tc) of {queue.interface} ({queue.kind}) drops what this host sends to the group."
            )
            return finding(verdict, summary, evidence, _easier(queue))
    for one in _filters(facts, "egress"):
        if one.interface in kept:
            summary = f"What this host sends does not leave {one.interface}, maybe for the filter at its egress."
            return suspect(summary, {"filter": one.action, "did not leave": kept[one.interface]}, _remove(one))
    vanished = sending.vanished(facts)
    if not vanished:
        return _stuck(facts, evidence)
    evidence["datagrams sent that did not leave"] = vanished
    held = next((each for each in queues if each.waiting >= counters.MOST * vanished), None)
    if held is not None:
        evidence["packets that wait in it"] = held.waiting
        summary = f"A queue of traffic control (tc) of {held.interface} ({held.kind}) holds what this host sends."
        return finding(verdict, summary, evidence, _easier(held))
    filters = _filters(facts, "egress")
    guilty = [each for each in filters if each.diverts and (each.packets or 0) >= counters.MOST * vanished]
    if not guilty and not _unclear_rules(facts, "egress") and not sending.left(facts):
        guilty = [each for each in filters if each.diverts is None]
    if not guilty:
        return _stuck(facts, evidence)
    evidence["action"] = guilty[0].action
    summary = (
        f"A filter of traffic control (tc) at the egress of {guilty[0].interface} takes what this host sends to the "
        f"group (`{guilty[0].action}`)."
    )
    return finding(verdict, summary, evidence, _remove(guilty[0]))


def takes_at_egress(facts: Facts, interface: str) -> bool:
    """Return whether a queue that dropped packets, or a filter, may keep what this host sends out of an interface."""
    queues = [each for each in _queues(facts) if each.interface == interface and each.drops and not each.is_ingress]
    return bool(queues) or any(each.interface == interface for each in _filters(facts, "egress"))


def stuck_queue(facts: Facts) -> QueueFacts | None:
    """Return the queue in which most packets wait while fewer than these leave the interface; None if there is none.

    A program that sends into such a queue stops as soon as its send buffer is full, so that no counter grows.
    """
    sent = {name: counts.get("tx_packets", 0) for name, counts in trial_of(facts).interface_counters.items()}
    waiting = {each: each.held + each.waiting for each in _queues(facts) if not each.is_ingress}
    stuck = {
        each: many for each, many in waiting.items() if many > max(counters.A_STREAM, sent.get(each.interface, many))
    }
    return max(stuck, key=lambda each: stuck[each], default=None)


def _stuck(facts: Facts, evidence: dict[str, object]) -> Finding | None:
    """Judge a queue that is stuck; it is proved if this host sends to the group, or asked for the way there."""
    queue = stuck_queue(facts)
    if queue is None or received(facts):
        return None
    evidence["packets that wait in it"] = queue.held + queue.waiting
    summary = f"A queue of traffic control (tc) of {queue.interface} ({queue.kind}) holds what this host sends."
    verdict = problem if sending.left(facts) or sending.asked(facts) else suspect
    return verdict(summary, evidence, _easier(queue))


def _filter_out(facts: Facts, evidence: dict[str, object]) -> Finding:
    hooks = [each for each in _queues(facts) if each.kind == "clsact" and each.drops]
    name = hooks[0].interface if hooks else next(iter(this_host.chosen_names(facts)), "INTERFACE")
    summary = f"A filter of traffic control (tc) at the egress of {name} drops what this host sends to the group."
    step = f"Look at the filters (`tc filter show dev {name} egress`, `bpftool net`), and remove the one that drops."
    verdict = suspect if sending.others_arrive(facts) else problem
    return verdict(
        summary, evidence, (step, *(f"tc filter del dev {shlex.quote(each.interface)} egress" for each in hooks[:1]))
    )


def _forwarded(facts: Facts) -> Finding | None:
    """Judge what a bridge of this host passes on to receivers behind a port, whose queue drops it."""
    dropped = endings.lost_to(facts, "traffic-control")
    bridges = () if isinstance(facts.bridges, Unread) else facts.bridges
    members = {port for each in bridges if not isinstance(each.members, Unread)
               for group, port in each.members if same(group, facts.target.group)}  # fmt: skip
    queue = next((each for each in _queues(facts) if each.interface in members and not each.is_ingress), None)
    if not dropped or queue is None or (queue.drops or 0) < counters.MOST * dropped:
        return None
    summary = f"The queue of {queue.interface} ({queue.kind}) drops what the bridge passes on to receivers there."
    return problem(summary, {"datagrams that it dropped": dropped}, _easier(queue))
