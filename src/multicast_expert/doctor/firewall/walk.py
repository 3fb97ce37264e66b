"""Follows packets through the chains of a firewall, and reports the rules that drop them. Pure: touches no OS.

The time is linear in the number of rules and packets: how much of a packet leaves a chain does not depend on where it
came from, so each chain is evaluated once for a packet, as if the packet certainly entered it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple, TypeAlias

from multicast_expert.doctor.facts import Rule
from multicast_expert.doctor.firewall.chains import (
    OUTGOING_HOOKS,
    TAKING,
    Chain,
    ChainRule,
    Packet,
    Truth,
    both,
    either,
    opposite,
)

_Place: TypeAlias = tuple[str, int]
"""A chain, and the number of a rule in it; -1 stands for the policy."""


def refusals(
    tool: str,
    chains: Mapping[str, Chain],
    wanted: Iterable[Packet],
    queries: Iterable[Packet] = (),
    reports: Iterable[Packet] = (),
    carriers: Iterable[Packet] = (),
    own: Iterable[Packet] = (),
) -> list[Rule]:
    """Return the rules and policies that drop or divert anything, and whether they do it to any of these packets.

    wanted: the target's datagrams, one for each interface; queries: of IGMP or MLD; reports: those this host sends;
    carriers: those of a tunnel that the target comes in by; own: datagrams that this host sends to the target.
    """
    order = _callees_first(chains)
    dropped = [_dropped(chains, order, packets) for packets in (wanted, queries, reports, carriers, own)]
    return [
        _as_fact(tool, chains[name].name, hook, rule, [each.get((name, number), False) for each in dropped])
        for name, hook in _hooks(chains).items()
        for number, rule in _dropping(chains[name])
    ]


def _as_fact(tool: str, chain: str, hook: str, rule: ChainRule, dropped: Sequence[Truth]) -> Rule:
    datagrams, queries, reports, carriers, own = dropped
    action = next((step.verdict for step in rule.steps if step.verdict in TAKING), "drop")
    known = datagrams, queries, rule.packets, rule.handle, reports
    return Rule(tool, chain, hook, rule.text, *known, action, carriers, own)


def _dropping(chain: Chain) -> Iterator[tuple[int, ChainRule]]:
    """Yield the rules that take anything with their numbers; a policy that drops counts as a rule."""
    for number, rule in enumerate(chain.rules):
        if any(step.verdict in TAKING for step in rule.steps):
            yield number, rule
    if chain.drops:
        yield -1, ChainRule("policy drop", (), chain.packets)


def _targets(chain: Chain) -> list[str]:
    return [step.chain for rule in chain.rules for step in rule.steps if step.chain]


def _hooks(chains: Mapping[str, Chain]) -> dict[str, str]:
    """Return the hook that leads to each chain, directly or by jumps; of several hooks the first."""
    hooks: dict[str, str] = {}
    for start, entered in chains.items():
        pending = [] if entered.hook is None else [start]
        while pending:
            name = pending.pop()
            if name in chains and name not in hooks:
                hooks[name] = entered.hook or ""
                pending += reversed(_targets(chains[name]))
    return hooks


def _callees_first(chains: Mapping[str, Chain]) -> list[str]:
    """Return the chains, each after those that it leads to, as far as there is no cycle."""
    order: dict[str, None] = {}
    visited: set[str] = set()
    for start in chains:
        pending = [start]
        while pending:
            name = pending[-1]
            if name not in visited and name in chains:
                visited.add(name)
                pending += [each for each in _targets(chains[name]) if each not in visited]
            else:
                pending.pop()
                if name in chains:
                    order.setdefault(name)
    return list(order)


class _Passage(NamedTuple):
    """What happens to a packet that certainly enters a chain."""

    leaves: Truth
    """Whether it leaves the chain at its end."""
    drops: dict[int, Truth]
    """Whether a rule drops it, by the rule's number."""
    jumps: list[tuple[str, Truth]]
    """The chains that it goes on to."""


_UNKNOWN_CHAIN = _Passage(None, {}, [])
"""Of a chain that is not listed, or that leads back to itself; the kernel accepts neither."""


def _passage(chain: Chain, packet: Packet, passages: Mapping[str, _Passage]) -> _Passage:
    here: Truth = True
    returned: Truth = False
    drops: dict[int, Truth] = {}
    jumps: list[tuple[str, Truth]] = []
    for number, rule in enumerate(chain.rules):
        for step in rule.steps:
            passes = step.test(packet)
            taken, here = both(here, passes), both(here, opposite(passes))
            if taken is False:
                continue
            if step.verdict in ("drop", "translate", "divert"):
                drops[number] = either(drops.get(number, False), taken)
            elif step.verdict == "queue":
                # A program decides; if there is none, the kernel drops the packet or lets it go on.
                drops[number] = either(drops.get(number, False), None)
                here = either(here, None)
            elif step.verdict == "return":
                returned = either(returned, taken)
            elif step.verdict == "unclear":
                here = either(here, None)
            elif step.chain:
                jumps.append((step.chain, taken))
                back = both(taken, passages.get(step.chain, _UNKNOWN_CHAIN).leaves)
                if step.verdict == "jump":
                    here = either(here, back)
                else:
                    returned = either(returned, back)
        if here is False:
            break
    return _Passage(either(here, returned), drops, jumps)


def _dropped(chains: Mapping[str, Chain], order: Sequence[str], packets: Iterable[Packet]) -> dict[_Place, Truth]:
    """Return whether each rule drops any of the packets."""
    dropped: dict[_Place, Truth] = {}
    for packet in packets:
        passages: dict[str, _Passage] = {}
        for name in order:
            passages[name] = _passage(chains[name], packet, passages)
        for name, certainty in _entered(chains, packet, passages).items():
            places = dict(passages[name].drops)
            if chains[name].drops:
                places[-1] = passages[name].leaves
            for number, truth in places.items():
                dropped[name, number] = either(dropped.get((name, number), False), both(certainty, truth))
    return dropped


def _entered(chains: Mapping[str, Chain], packet: Packet, passages: Mapping[str, _Passage]) -> dict[str, Truth]:
    """Return whether the packet enters each chain, from a hook or by jumps."""
    pending: list[tuple[str, Truth]] = [
        (name, chain.applies(packet))
        for name, chain in chains.items()
        if chain.hook is not None and (chain.hook in OUTGOING_HOOKS) == packet.outgoing
    ]
    entered: dict[str, Truth] = {}
    while pending:
        name, truth = pending.pop()
        known = entered.get(name, False)
        certainty = either(known, truth)
        if name in passages and certainty is not known:
            entered[name] = certainty
            pending += [(target, both(certainty, taken)) for target, taken in passages[name].jumps]
    return entered
