"""open_watch: counts the datagrams that the kernel drops, in the best way that it allows. Touches Linux only."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from typing import Protocol

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.dropped import Dropped
from multicast_expert.system.drops.kernel_watch import KernelWatch
from multicast_expert.system.drops.refusals import refusal
from multicast_expert.system.drops.symbols import Symbols
from multicast_expert.system.kernel import SYSTEM

_KALLSYMS = Path("/proc/kallsyms")
_BY_RULE = "NETFILTER_DROP"
_NETFILTER = ("nf_", "nft_", "ipt_", "ip6t_")
_PREFIX = "SKB_DROP_REASON_"
FREED_REASONS = ("SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "SOCKET_CLOSE", "QUEUE_PURGE", "PACKET_SOCK_ERROR")
"""Reasons of frees that are no drops: what was delivered, what waited at a closed socket, and copies for captures."""
FREEING_FUNCTIONS = (
    "udp_destruct_common", "udpv6_destruct_common", "udp_destruct_sock", "udpv6_destruct_sock", "inet_sock_destruct",
    "udp_destroy_sock", "skb_queue_purge", "skb_queue_purge_reason", "__skb_queue_purge", "skb_rbtree_purge",
    "packet_rcv", "packet_rcv_spkt", "tpacket_rcv", "packet_sock_destruct",
)  # fmt: skip
"""Functions whose frees are no drops, for kernels that have no reason of their own for them."""


_HIDDEN = "The kernel hides the names of its functions (kernel.kptr_restrict)."


@lru_cache(maxsize=1)
def kernel_symbols() -> Symbols:
    """Return the functions of the running kernel; none if it hides them. Raises OSError."""
    with _KALLSYMS.open("rb") as file:
        return Symbols(file.read())


class Watch(Protocol):
    """Counts what the kernel drops, from its creation on until it is closed."""

    limits: str
    """What it cannot tell and why, in sentences; empty: nothing is missing."""

    def drops(self) -> list[Dropped]:
        """Return what was dropped so far. Raises OSError."""

    def close(self) -> None:
        """Stop counting; nothing is left in the kernel."""


class BpfWatch:
    """Counts by a BPF program, which tells everything.

    groups: those to count; none: all. Raises OSError, or MulticastExpertError if this kernel cannot tell.
    """

    def __init__(self, groups: Collection[IPAddress]) -> None:
        self._wanted = frozenset(groups)
        self._kernel = KernelWatch(groups)
        self.limits: str = ""

    def drops(self) -> list[Dropped]:
        """Return what was dropped so far. Raises OSError."""
        counts = self._kernel.counts()
        symbols = kernel_symbols() if counts else None
        self.limits = "" if symbols or not counts else _HIDDEN
        found: Counter[Dropped] = Counter()
        for kind, count in counts.items():
            reason = self._kernel.layout.reasons.get(kind.reason, f"{_PREFIX}{kind.reason:#x}").removeprefix(_PREFIX)
            function = symbols.function(kind.call) if symbols else ""
            if kind.group is None:
                self.limits = f"{self.limits} {count} datagrams of too many kinds were not told apart.".strip()
            elif _is_drop(reason, function) and (not self._wanted or kind.group in self._wanted):
                hook = kind.hook if reason == _BY_RULE or function.startswith(_NETFILTER) else ""
                interface, packet = kind.interface or None, (kind.group, kind.port, kind.source)
                found[Dropped(reason, function, interface, *packet, kind.outgoing, hook, kind.socket, 0)] += count
        return [each._replace(number=count) for each, count in found.items()]

    def close(self) -> None:
        """Detach the program."""
        self._kernel.close()


def _is_drop(reason: str, function: str) -> bool:
    return reason not in FREED_REASONS and function not in FREEING_FUNCTIONS


def open_watch(groups: Collection[IPAddress] = ()) -> Watch:
    """Return a watch of the network namespace of the calling thread; the caller closes it.

    groups: those to count, without scopes; none: all. Raises MulticastExpertError with the reason if the kernel allows
    no way, and OSError if no descriptor is left.
    """
    if SYSTEM.platform.name != "linux":
        raise MulticastExpertError(f"{SYSTEM.platform.title} does not tell which datagrams its kernel drops, and why.")
    try:
        return BpfWatch(groups)
    except OSError as error:
        raise MulticastExpertError(refusal(error)) from error
