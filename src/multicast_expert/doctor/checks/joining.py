"""Checks of memberships: their interfaces, limits, sources and protocol versions. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.core.addresses import is_source_specific
from multicast_expert.doctor import phrases
from multicast_expert.doctor.checks.program import needs_privilege, refusals
from multicast_expert.doctor.evidence import counters, sightings, this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Arrivals, Facts, JoinTrial, Unread, address_of, interface_setting, known, same
from multicast_expert.doctor.report import Finding, finding, ok, problem, suspect, unknown
from multicast_expert.wire.tallies import Frames

_LIMITED = ("ENOBUFS", "ENOMEM", "EMFILE")
# Other checks explain these.
_EXPLAINED_ELSEWHERE = (*_LIMITED, "EADDRINUSE", "EHOSTUNREACH")
_LITTLE_MEMORY = 1024
"""Bytes of option memory that hold only a few memberships."""
_MEMBERSHIPS, _MEMORY = "net.ipv4.igmp_max_memberships", "net.core.optmem_max"


def membership(facts: Facts) -> Finding:
    """The group is joined on another interface than the datagrams come in on, or it cannot be joined.

    A host takes a group only on the interfaces that somebody has joined it on. If no interface was named when joining,
    the routing table chose one, by the routes of that moment. The kernel's list of memberships tells what is joined
    where, for the host as a whole; it does not tell whose memberships they are.

    A program without any membership may still seem to work, because on Linux a socket that is bound to any address gets
    what other programs have joined (`IP_MULTICAST_ALL`); it goes deaf when they end.

    **How to see it:** the interface and, with root, the programs; then where the frames come in.

        mcast groups
        ip maddr show
        tcpdump -ni any host 239.1.2.3

    **Cure:** have the program join on the interface of the frames: `iface="eth0"` with this library, `%eth0` or `-i`
    with `mcast`, `imr_ifindex` or `gr_interface` in C.

        mcast recv 239.1.2.3:5000%eth0
    """
    trial = trial_of(facts)
    known(facts.trial)
    asked = _asked_joins(facts)
    failed = [each for each in asked if each.error and each.error not in _EXPLAINED_ELSEWHERE]
    if needs_privilege(facts) or refusals(facts):
        return ok("The join failed for want of a permission; that is not about memberships.")
    if failed and len(failed) == len(asked):
        evidence = {each.interface: each.error for each in failed}
        step = "Look at the interface with `mcast interfaces`; the error names the reason."
        return problem(f"The group cannot be joined. {failed[0].text}", evidence, (step,))
    came_on = [each.interface for each in trial.arrivals if same(each.group, facts.target.group)]
    came_on += [each.interface for each in sightings.wanted(facts) or ()]
    joined = _joined_on(facts)
    if joined is None:
        why = phrases.reason(facts.memberships)
        return unknown(why[0], {}, why[1])
    evidence = {"joined on": phrases.named(joined), "datagrams come in on": phrases.named(came_on)}
    if came_on and joined and not set(joined) & set(came_on) and _somebody_listens(facts):
        summary = f"The group is joined on {phrases.named(joined)}, but datagrams come in on {phrases.named(came_on)}."
        step = f'Have the program join on {came_on[0]}: `iface="{came_on[0]}"`, or `%{came_on[0]}` with `mcast recv`.'
        return problem(summary, evidence, (step,))
    if came_on and not joined and _somebody_listens(facts):
        summary = "A program listens on the port, but no program on this host has joined the group."
        return suspect(summary, evidence, ("Have the program join the group; being bound to the port is not enough.",))
    if joined:
        return ok(f"The group was joined already on {phrases.named(joined)}.", evidence)
    return ok("The group can be joined; no other program on this host has joined it.", evidence)


def _asked_joins(facts: Facts) -> list[JoinTrial]:
    """Return the joins of a receiver with the requested memberships."""
    names, source = this_host.chosen_names(facts), facts.target.source
    return [each for each in trial_of(facts).joins if each.interface in names and each.source == source]


def _joined_on(facts: Facts) -> list[str] | None:
    """Return the interfaces on which the explained receiver, or any program on this host, has joined the group."""
    group = facts.target.group
    if facts.receiver is not None:
        return [interface for joined, _, interface in facts.receiver.memberships if same(joined, group)]
    if isinstance(facts.memberships, Unread):
        return None
    address = address_of(group)
    return [each.interface for each in facts.memberships if each.group == address]


def _somebody_listens(facts: Facts) -> bool:
    return facts.receiver is not None or (not isinstance(facts.sockets, Unread) and bool(facts.sockets))


def membership_limit(facts: Facts) -> Finding:
    """The kernel refuses to join any more.

    Linux limits memberships at several places, and two of them give the same error:

    - `ENOBUFS` from a join: one socket may hold 20 IPv4 groups (`net.ipv4.igmp_max_memberships`).
    - `ENOBUFS` from a join with a source: one membership may name 10 IPv4 sources (`net.ipv4.igmp_max_msf`), or 64 of
      IPv6 (`net.ipv6.mld_max_msf`).
    - `ENOMEM`: the memory for options of one socket is full (`net.core.optmem_max`); for IPv6 groups this is the only
      limit.
    - `EMFILE`: the program has no descriptors left.

    A program that ignores the error listens to the first 20 groups and is deaf for the others.

    **How to see it:** the limits, and how many groups a host has joined:

        sysctl net.ipv4.igmp_max_memberships net.ipv4.igmp_max_msf net.ipv6.mld_max_msf net.core.optmem_max
        mcast groups

    **Cure:** raise the limit that is meant, or use several sockets (this library opens one for each group).

        sysctl -w net.ipv4.igmp_max_memberships=200
    """
    known(facts.trial)
    limited = [each for each in _asked_joins(facts) if each.error in _LIMITED]
    if not limited:
        return ok("No join met a limit.")
    join = limited[0]
    evidence: dict[str, object] = {"error": join.error, "interface": join.interface}
    if facts.machine.system == "macos":
        step = "Try again after a pause: macOS rejects joins for a moment when there are many."
        return problem(f"The kernel rejected the join. {join.text}", evidence, (step,))
    if join.error == "EMFILE" or facts.machine.system != "linux":
        step = "Close unneeded files, or raise the limit of open files with `ulimit -n 65536`."
        return problem(f"The kernel rejected the join. {join.text}", evidence, (step,))
    name, usual = _limit(facts, join)
    value = this_host.number(facts, name)
    evidence |= {"limit": name, "value": value}
    summary = f"The kernel rejects the join ({join.error}): {name} is {'reached' if value is None else value}."
    command = phrases.set_command(name, max(usual, 2 * (value or 0)))
    return problem(summary, evidence, (command,))


def _limit(facts: Facts, join: JoinTrial) -> tuple[str, int]:
    """Return the setting that a rejected join met, and its usual value."""
    memberships, memory = this_host.number(facts, _MEMBERSHIPS), this_host.number(facts, _MEMORY)
    # Without any memory for options, an IPv4 join fails with ENOBUFS, too.
    if join.error == "ENOMEM" or (memory is not None and memory < _LITTLE_MEMORY and memberships != 0):
        return _MEMORY, 131072
    if facts.target.group_version == 6:
        return "net.ipv6.mld_max_msf", 64
    # Both limits concern a join with a source; only that of memberships concerns the first one of a socket.
    if join.source is None or memberships == 0:
        return _MEMBERSHIPS, 20
    return "net.ipv4.igmp_max_msf", 10


def source_filter(facts: Facts) -> Finding:
    """Datagrams come, but from another source than the membership names.

    A membership with a source (SSM) lets only datagrams of that source address through, and one that blocks a source
    lets all others through. The comparison is exact. The source of a datagram is not always the address by which its
    sender is known: a host with several addresses sends with the first of the interface, a VPN or a translating router
    replaces it, and a redundant sender took over with its own.

    **How to see it:** what is asked for, and what comes. The kernel lists filters with the number of sockets that
    include and exclude each source.

        mcast groups
        cat /proc/net/mcfilter /proc/net/mcfilter6
        tcpdump -ni eth0 host 239.1.2.3

    **Cure:** name the source that sends, or join without one where the group is not from an SSM range.

        mcast recv 10.0.0.8@239.1.2.3:5000
        mcast recv 239.1.2.3:5000

    Or have the sender use the expected address: bind its socket to it, or take it with `ip addr`.
    """
    source, names = facts.target.source, set(this_host.chosen_names(facts))
    blocked = () if facts.receiver is None else facts.receiver.blocked
    if source is None and not blocked:
        return ok("All sources are taken.")
    evidence: dict[str, object] = {"asked for": source or "all but " + phrases.named(each for _, each, _ in blocked)}
    found = [each for each in sightings.seen(facts) if each.interface in names and _fits(facts, each)]
    unwanted = [each for each in found if _is_filtered(facts, each)]
    if unwanted and len(unwanted) == len(found):
        evidence |= {"come from": phrases.named(sightings.senders(unwanted)), "interface": unwanted[0].interface}
        summary = f"Datagrams come from {evidence['come from']}, not from {source or 'an accepted source'}."
        example = phrases.endpoint(facts, source=unwanted[0].sender)
        steps = (
            f"Name the source that sends, as in `mcast recv {example}`.",
            f"Or have {source or 'the sender'} send, and check that it sends from this address.",
        )
        return problem(summary, evidence, steps)
    if found:
        return ok("Datagrams come from an accepted source.", evidence)
    trial = trial_of(facts)
    if isinstance(facts.trial, Unread) or not (trial.widened or sightings.frames(facts) is not None):
        return unknown("The trial did not listen to other sources.", evidence)
    return ok("Nothing came from other sources either.", evidence)


def _fits(facts: Facts, each: Arrivals | Frames) -> bool:
    port_fits = isinstance(each, Arrivals) or facts.target.port in (None, each.port)
    return port_fits and same(each.group, facts.target.group)


def _is_filtered(facts: Facts, each: Arrivals | Frames) -> bool:
    if facts.target.source is not None:
        return not same(each.sender, facts.target.source)
    blocked = () if facts.receiver is None else facts.receiver.blocked
    return any(same(each.sender, sender) and each.interface == interface for _, sender, interface in blocked)


def igmp_version(facts: Facts) -> Finding:
    """The host speaks an old version of IGMP or MLD, which cannot name sources.

    IGMPv3 and MLDv2 tell the network which sources are wanted; IGMPv1, IGMPv2 and MLDv1 tell only the group. Linux
    falls back by itself when it hears a query of an old version, and stays there for minutes, or for good where
    `force_igmp_version` is set. It tells no program. A membership with a source then still filters in the host, but the
    network sends all sources, or, in the SSM range 232.0.0.0/8, nothing at all, because routers ignore old reports
    there.

    **How to see it:** the column Querier in the first line of each interface, V3 or V2.

        cat /proc/net/igmp
        sysctl net.ipv4.conf.all.force_igmp_version net.ipv4.conf.eth0.force_igmp_version

    **Cure:** set the querier of the network (a switch or router) to IGMPv3 and MLDv2. A Linux bridge asks in version 2
    unless told otherwise:

        ip link set br0 type bridge mcast_igmp_version 3 mcast_mld_version 2

    Where it is forced on this host, unforce it:

        sysctl -w net.ipv4.conf.eth0.force_igmp_version=0
    """
    version = facts.target.group_version
    protocol, newest = ("IGMP", 3) if version == 4 else ("MLD", 2)
    forced = _forced(facts)
    spoken = _spoken(facts)
    evidence: dict[str, object] = {name: f"{protocol}v{spoken[name]}" for name in spoken}
    evidence |= forced
    old = [name for name, number in spoken.items() if number < newest]
    if not old and not forced:
        if not spoken and facts.target.source is not None and isinstance(trial_of(facts).queries, Unread):
            why = phrases.reason(facts.memberships, trial_of(facts).queries)
            return unknown(why[0], evidence, why[1])
        return ok(f"Nothing makes this host speak an old version of {protocol}.", evidence)
    what = f"an old version of {protocol} on {phrases.named(old or this_host.chosen_names(facts))}"
    if facts.target.source is None and not forced:
        return ok(f"This host speaks {what}; no source is requested.", evidence)
    remedy = tuple(phrases.set_command(name, 0) for name in forced) or (
        f"Set the querier of this network to {protocol}v{newest}: it asks in an old version.",
    )
    group = address_of(facts.target.group)
    served = group is None or not is_source_specific(group)
    if served or received(facts) or sightings.frames(facts) or sightings.others_received(facts):
        # Outside the SSM range the network then delivers the datagrams of all sources.
        text = f"This host speaks {what}; its reports name no source."
        doubtful = bool(facts.target.source) and bool(received(facts))
        return finding("suspect" if doubtful else "ok", text, evidence, remedy)
    text = f"This host speaks {what}, so its reports name no source, and the network may ignore them."
    return finding("problem" if counters.nothing_came(facts) else "suspect", text, evidence, remedy)


def _forced(facts: Facts) -> dict[str, object]:
    """Return the settings that force an old version, with their values."""
    version = facts.target.group_version or 4
    name, newest = ("force_igmp_version", 3) if version == 4 else ("force_mld_version", 2)
    values = {
        interface_setting(version, interface, name): this_host.setting(facts, interface, name)
        for interface in ("all", *this_host.chosen_names(facts))
    }
    return {name: value for name, value in values.items() if value is not None and 0 < value < newest}


def _spoken(facts: Facts) -> dict[str, int]:
    """Return the protocol version on each interface, as the kernel or the queriers show."""
    version, names = facts.target.group_version, this_host.chosen_names(facts)
    queries, memberships = trial_of(facts).queries, facts.memberships
    found: dict[str, int] = {}
    for query in () if isinstance(queries, Unread) else queries:
        address = address_of(query.querier)
        if query.interface in names and address is not None and address.version == version:
            found[query.interface] = min(query.version, found.get(query.interface, query.version))
    for each in () if isinstance(memberships, Unread) else memberships:
        if each.interface in names and each.group.version == version and each.protocol_version is not None:
            found[each.interface] = each.protocol_version
    return found
