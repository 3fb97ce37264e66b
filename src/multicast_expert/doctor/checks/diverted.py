"""Checks of what diverts datagrams after the wire: address translation, IPsec. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.doctor import phrases
from multicast_expert.doctor.evidence import background, counters, sightings, whose_losses
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Facts, IpsecPolicy, Rule, Unread, address_of, known
from multicast_expert.doctor.firewall import remedies
from multicast_expert.doctor.path import endings, sending
from multicast_expert.doctor.report import Finding, finding, ok, problem, suspect, unknown

_IPSEC_PROTOCOLS = ("protocol 50 ", "protocol 51 ")


def nat(facts: Facts) -> Finding:
    """Address translation on this host sends the datagrams elsewhere.

    A rule that redirects a port to a container or a proxy (`dnat`, `redirect`, DNAT, REDIRECT, TPROXY) usually names
    the port only, so it also catches datagrams to groups. Their destination becomes a unicast address, and no member
    of the group gets them. Published ports of containers are such rules. The rule's counter grows by one only, since
    the kernel decides once for each pair of sender and port. A rule of nftables may also write another port or address
    into each packet (`udp dport set 5002`).

    **How to see it:** the rules of translation, and what the kernel made of them.

        nft list ruleset | grep -E 'dnat|redirect|tproxy| set '
        iptables -t nat -nvL PREROUTING
        conntrack -L -p udp

    **Cure:** let the rule spare groups, or put one before it that accepts them. Running streams keep their translation
    until the entry is deleted.

        nft insert rule ip nat prerouting ip daddr 224.0.0.0/4 accept
        iptables -t nat -I PREROUTING -d 224.0.0.0/4 -j ACCEPT
        conntrack -D -p udp --orig-dst 239.1.2.3
    """
    if isinstance(facts.firewall, Unread):
        return finding(
            "ok" if received(facts) else "unknown", facts.firewall.reason, {}, phrases.remedy(facts.firewall)
        )
    rules = [each for each in facts.firewall if each.action == "translate" and each.matches is not False]
    evidence: dict[str, object] = {f"{rule.tool}: {rule.chain}": rule.text for rule in rules[:8]}
    if not rules or received(facts):
        return ok("No translation of addresses diverts the datagrams.", evidence)
    wanted = sightings.wanted(facts)
    dropped = endings.by_check(facts)
    undropped = dropped is not None and not any(count for check, count in dropped.items() if check)
    certain = [rule for rule in rules if rule.matches]
    if wanted and certain and (undropped or certain[0].packets):
        return problem(_diverts(certain[0]), evidence, _spare(facts, certain))
    if certain and not counters.nothing_came(facts) and wanted != () and dropped is None:
        return suspect(_diverts(certain[0]), evidence, _spare(facts, certain))
    return ok("Rules translate addresses; that they divert the datagrams does not show.", evidence)


def _diverts(rule: Rule) -> str:
    return f"Address translation sends the datagrams elsewhere: `{rule.text}` in {rule.chain} ({rule.tool})."


def _spare(facts: Facts, rules: list[Rule]) -> tuple[str, ...]:
    """Return the cure; what was translated already stays so while it is in use."""
    forget = (
        f"Then let the kernel forget the running translation: `conntrack -D -p udp --orig-dst {facts.target.group}`."
    )
    return (*remedies.accept(facts, rules), forget)


def ipsec(facts: Facts) -> Finding:
    """An IPsec policy of this host drops the datagrams.

    A policy (xfrm) for the group or for all UDP may block it, or demand that it comes encrypted; what comes in clear is
    dropped after the port was found. VPN software leaves such policies behind. An encrypted group needs an association
    with its key, and is dropped as well where that is missing. Policies for what this host sends (`dir out`) do the
    same to programs here. The kernel counts why in /proc/net/xfrm_stat.

    **How to see it:** which counter grows, and the policies for packets that come in.

        cat /proc/net/xfrm_stat
        ip xfrm policy show
        ip xfrm state

    **Cure:** remove the policy, or add one before it that allows the group.

        ip xfrm policy delete dir in src 0.0.0.0/0 dst 239.1.2.3/32
    """
    known(facts.trial)
    counted = {name: by for name, by in trial_of(facts).counters.items() if name.startswith("Xfrm.XfrmIn") and by}
    evidence: dict[str, object] = {name.partition(".")[2]: by for name, by in counted.items()}
    encrypted = [each for each in sightings.flawed(facts) if each.flaw.startswith(_IPSEC_PROTOCOLS)]
    dropped = endings.lost_to(facts, "ipsec")
    grown = background.beyond_usual(facts, counters.dropped_by_ipsec) or 0
    if found := _ipsec_on_the_way_out(facts):
        return found
    policies = _policies(facts)
    evidence |= {f"policy {each.direction} {each.action}": each.selector for each in policies[:4]}
    if received(facts) and not dropped:
        return ok("IPsec drops none of the datagrams.", evidence)
    if encrypted and counted:
        summary = "The group comes encrypted (IPsec), and this host has no association that decrypts it."
        return problem(
            summary, evidence, ("Set up the association of the group: `ip xfrm state` shows those there are.",)
        )
    summary = "An IPsec policy of this host drops the datagrams."
    if dropped or (grown and sightings.wanted(facts)):
        return problem(summary, evidence | {"dropped": dropped or grown}, _remove(policies))
    if grown and sightings.frames(facts) is None:
        if unclear := whose_losses.unclear(facts):
            return unknown(unclear, evidence, phrases.remedy(trial_of(facts).frames))
        return suspect(summary, evidence | {"dropped": grown}, _remove(policies))
    return ok("IPsec drops none of the datagrams.", evidence)


def _ipsec_on_the_way_out(facts: Facts) -> Finding | None:
    """Judge what this host sends: a policy demands an association that is missing, or refuses the group."""
    counted = {name: by for name, by in trial_of(facts).counters.items() if name.startswith("Xfrm.XfrmOut") and by}
    policies = _policies(facts, "out")
    grown = sum(counted.values())
    if grown <= sending.FEW or not policies:
        return None
    dropped = endings.lost_to(facts, "ipsec", outgoing=True)
    # A policy that blocks refuses the call that sends, so that there is no packet to be dropped.
    refused = not dropped and sending.left(facts) == 0 and sending.asked(facts) >= grown * counters.MOST
    evidence: dict[str, object] = {name.partition(".")[2]: by for name, by in counted.items()}
    evidence |= {f"policy out {each.action}": each.selector for each in policies[:4]}
    summary = "An IPsec policy of this host refuses what it sends to the group."
    if dropped:
        summary = "An IPsec policy demands encryption of what this host sends to the group, and no association does it."
        evidence["datagrams dropped"] = dropped
    remedy = _remove(policies, "out")
    if (dropped and grown >= dropped * counters.MOST) or refused:
        return (suspect if sending.others_arrive(facts) else problem)(summary, evidence, remedy)
    if received(facts) or dropped == 0:
        return None
    return suspect(summary, evidence, remedy)


def _policies(facts: Facts, direction: str = "in") -> list[IpsecPolicy]:
    """Return the policies of a direction that may concern the group, those that block first."""
    group = address_of(facts.target.group)
    listed = () if isinstance(facts.ipsec, Unread) else facts.ipsec
    found = [each for each in listed if each.direction == direction and (group is None or each.concerns(group))]
    return sorted(found, key=lambda each: each.action != "block")


def _remove(policies: list[IpsecPolicy], direction: str = "in") -> tuple[str, ...]:
    step = f"Look at the policies (`ip xfrm policy show dir {direction}`), and remove the one for the group."
    return (
        *(f"ip xfrm policy delete dir {direction} {each.selector}" for each in policies[:1]),
        *(() if policies else (step,)),
    )
