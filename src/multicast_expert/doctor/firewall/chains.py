"""Follows packets through the chains of a firewall, where some tests cannot be decided. Pure: touches no OS.

Truth has three values: yes, no, and None for what cannot be told from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple, TypeAlias

from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor.facts import Rule

Truth: TypeAlias = bool | None
Verdict: TypeAlias = Literal["drop", "accept", "return", "jump", "goto", "unclear"]

UDP, IGMP, ICMPV6 = "udp", "igmp", "ipv6-icmp"
HOOKS = ("ingress", "prerouting", "input")
"""The hooks on the way of a packet to a socket of this host."""
OUTGOING_HOOKS = ("output", "postrouting", "egress")
"""The hooks on the way out."""
_DEEPEST = 16
"""Jumps within jumps that nftables allows (NFT_JUMP_STACK_SIZE)."""


class Packet(NamedTuple):
    """A packet that is expected to arrive; None stands for what is not known of it."""

    destination: IPAddress
    interface: str
    protocol: str
    source: IPAddress | None = None
    port: int | None = None
    """The UDP port that it goes to."""
    outgoing: bool = False
    """Whether this host sends it; else it receives it."""

    @property
    def version(self) -> int:
        """The IP version."""
        return self.destination.version


Test: TypeAlias = Callable[[Packet], Truth]


class Step(NamedTuple):
    """What becomes of the packets that pass a test."""

    test: Test
    verdict: Verdict
    chain: str = ""
    """Where jump and goto lead."""


class ChainRule(NamedTuple):
    """A rule: its steps, each for those packets that the ones before it left."""

    text: str
    steps: tuple[Step, ...]
    packets: int | None = None
    handle: int | None = None


class Chain(NamedTuple):
    """A chain of rules."""

    name: str
    """As the tool writes it: `inet filter input`."""
    rules: Sequence[ChainRule]
    hook: str | None = None
    """Where the kernel enters it; None: only other chains lead to it."""
    drops: bool = False
    """Whether its policy is to drop."""
    packets: int | None = None
    """How many packets its policy has dropped."""
    applies: Test = lambda packet: True
    """Whether packets like this one come here at all."""


def both(first: Truth, second: Truth) -> Truth:
    """Whether both hold."""
    return False if first is False or second is False else None if first is None or second is None else True


def either(first: Truth, second: Truth) -> Truth:
    """Whether one of them holds."""
    return True if first or second else None if first is None or second is None else False


def opposite(truth: Truth) -> Truth:
    """Whether it does not hold."""
    return None if truth is None else not truth


_Refused = dict[tuple[str, int], Truth]
"""Whether a rule, by its chain and its place in it (-1: the policy), refuses the packet."""


class _Walk:
    """One packet on its way through the chains that begin at one hook."""

    def __init__(self, chains: Mapping[str, Chain], packet: Packet) -> None:
        self._chains = chains
        self._packet = packet
        self.refused: _Refused = {}

    def enter(self, name: str, chain: Chain) -> None:
        """Let it enter where the kernel begins."""
        if (chain.hook in OUTGOING_HOOKS) != self._packet.outgoing:
            return
        left = self._follow(name, chain.applies(self._packet), 0)
        if chain.drops:
            self._note((name, -1), left)

    def _note(self, place: tuple[str, int], truth: Truth) -> None:
        self.refused[place] = either(self.refused.get(place, False), truth)

    def _follow(self, name: str, here: Truth, depth: int) -> Truth:
        """Return whether the packet leaves the chain at its end, when it enters it with this certainty."""
        chain = self._chains.get(name)
        if chain is None or depth > _DEEPEST:
            return both(here, None)
        returned: Truth = False
        for place, rule in enumerate(chain.rules):
            for step in rule.steps:
                taken = False if here is False else both(here, step.test(self._packet))
                passed = here if taken is False else both(here, opposite(step.test(self._packet)))
                if step.verdict == "drop":
                    self._note((name, place), taken)
                elif step.verdict == "return":
                    returned = either(returned, taken)
                elif step.verdict == "unclear":
                    passed = either(passed, both(taken, None))
                elif step.verdict in ("jump", "goto") and taken is not False:
                    back = self._follow(step.chain, taken, depth + 1)
                    if step.verdict == "jump":
                        passed = either(passed, back)
                    else:
                        returned = either(returned, back)
                here = passed
        return either(here, returned)


def refusals(
    tool: str,
    chains: Mapping[str, Chain],
    wanted: Iterable[Packet],
    queries: Iterable[Packet] = (),
    reports: Iterable[Packet] = (),
) -> list[Rule]:
    """Return the rules and policies that refuse something, and whether they refuse any of the packets.

    wanted: the target's datagrams, one for each interface; queries: the same of IGMP or MLD; reports: this host's own.
    """
    hooks: dict[str, str] = {}
    for name, chain in chains.items():
        if chain.hook is not None:
            _reach(chains, name, chain.hook, hooks)
    refused = [_walk_all(chains, packets) for packets in (wanted, queries, reports)]
    return [
        _finding(tool, chains[name].name, hook, rule, [each.get((name, place), False) for each in refused])
        for name, hook in hooks.items()
        for place, rule in _refusing(chains[name])
    ]


def _refusing(chain: Chain) -> Iterator[tuple[int, ChainRule]]:
    """Yield the rules that refuse anything with their places, and the policy as if it were one."""
    for place, rule in enumerate(chain.rules):
        if any(step.verdict == "drop" for step in rule.steps):
            yield place, rule
    if chain.drops:
        yield -1, ChainRule("policy drop", (), chain.packets)


def _finding(tool: str, chain: str, hook: str, rule: ChainRule, refused: Sequence[Truth]) -> Rule:
    datagrams, queries, reports = refused
    return Rule(tool, chain, hook, rule.text, datagrams, queries, rule.packets, rule.handle, reports)


def _reach(chains: Mapping[str, Chain], name: str, hook: str, hooks: dict[str, str]) -> None:
    """Note the hook of a chain and of all that it leads to."""
    if name in hooks or name not in chains:
        return
    hooks[name] = hook
    for rule in chains[name].rules:
        for step in rule.steps:
            if step.chain:
                _reach(chains, step.chain, hook, hooks)


def _walk_all(chains: Mapping[str, Chain], packets: Iterable[Packet]) -> _Refused:
    refused: _Refused = {}
    for packet in packets:
        walk = _Walk(chains, packet)
        for name, chain in chains.items():
            if chain.hook is not None:
                walk.enter(name, chain)
        for place, truth in walk.refused.items():
            refused[place] = either(refused.get(place, False), truth)
    return refused
