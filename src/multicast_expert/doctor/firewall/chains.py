"""Chains, rules and packets of a firewall, and logic with three values: yes, no, and None for undecidable. Pure."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple, TypeAlias

from multicast_expert.core.addresses import IPAddress

Truth: TypeAlias = bool | None
Verdict: TypeAlias = Literal["drop", "translate", "divert", "queue", "accept", "return", "jump", "goto", "unclear"]
TAKING = ("drop", "translate", "divert", "queue")
"""The verdicts after which the packet does not go on as it was."""

UDP, IGMP, ICMPV6 = "udp", "igmp", "ipv6-icmp"
HOOKS = ("ingress", "prerouting", "input")
"""The hooks that a packet passes on its way to a socket of this host."""
OUTGOING_HOOKS = ("output", "postrouting", "egress")
"""The hooks that a packet passes on its way out."""


class Packet(NamedTuple):
    """A packet that is expected; None stands for an unknown property."""

    destination: IPAddress
    interface: str
    protocol: str
    source: IPAddress | None = None
    port: int | None = None
    """The destination port of UDP."""
    outgoing: bool = False
    """Whether this host sends it; else it receives it."""
    is_bridged: bool = False
    """Whether it passes a bridge of this host."""

    @property
    def version(self) -> int:
        """The IP version."""
        return self.destination.version


Test: TypeAlias = Callable[[Packet], Truth]


class Step(NamedTuple):
    """What happens to the packets that pass a test."""

    test: Test
    verdict: Verdict
    chain: str = ""
    """The destination of jump and goto."""


class ChainRule(NamedTuple):
    """A rule: each step gets the packets that the steps before it left."""

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
    """Where the kernel enters the chain; None: only other chains lead to it."""
    drops: bool = False
    """Whether its policy is to drop."""
    packets: int | None = None
    """How many packets its policy has dropped."""
    applies: Test = lambda packet: True
    """Whether the kernel sends such packets through the chain."""


def both(first: Truth, second: Truth) -> Truth:
    """Return whether both hold."""
    return False if first is False or second is False else None if first is None or second is None else True


def either(first: Truth, second: Truth) -> Truth:
    """Return whether at least one of them holds."""
    return True if first or second else None if first is None or second is None else False


def opposite(truth: Truth) -> Truth:
    """Return whether it does not hold."""
    return None if truth is None else not truth


def undecidable(packet: Packet) -> Truth:
    """Return None: the test of a form that is not known here."""
    return None


MAY_DROP = Step(undecidable, "drop")
"""Stands for a rule of unknown form: it may drop the packet, end its way otherwise, or do nothing."""
