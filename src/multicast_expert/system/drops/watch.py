"""open_watch: counts what the kernel drops, in the best way that it allows. Touches Linux only.

The ways, by what they tell: a BPF program (everything), the tracepoint by perf (reason and function of any packet of
the machine), the drop monitor (group, reason and function, also in lockdown). Behind them only counters are left.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from typing import Final, Protocol

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.dropped import NO_REASON, Dropped, is_drop
from multicast_expert.system.drops.kernel_watch import KernelWatch
from multicast_expert.system.drops.monitor_watch import MonitorWatch
from multicast_expert.system.drops.program import DropKind
from multicast_expert.system.drops.refusals import ONLY_ROOT, refusal
from multicast_expert.system.drops.running_kernel import HIDDEN, kernel_symbols
from multicast_expert.system.drops.tracepoint_watch import TracepointWatch
from multicast_expert.system.kernel import SYSTEM

_BY_RULE = "NETFILTER_DROP"
_NETFILTER = ("nf_", "nft_", "ipt_", "ip6t_")
_PREFIX = "SKB_DROP_REASON_"
_UNNAMED = "This kernel has no reasons for drops (Linux before 5.17), so that only its functions tell."


class Watch(Protocol):
    """Counts what the kernel drops, from its creation on until it is closed."""

    is_exact: bool
    """Whether it counts each dropped datagram of the groups in the network namespace, and nothing else."""
    limits: str
    """What it cannot tell and why, in sentences; empty: nothing is missing."""

    def drops(self) -> list[Dropped]:
        """Return what was dropped so far. Raises OSError."""

    def restart(self) -> None:
        """Forget what was dropped so far. Raises OSError."""

    def close(self) -> None:
        """Stop counting; nothing is left in the kernel."""


class BpfWatch:
    """Counts by a BPF program, which tells everything.

    groups: those to count; none: all. because: why there is no better way. Raises OSError, or MulticastExpertError if
    this kernel cannot tell.
    """

    is_exact = True

    def __init__(self, groups: Collection[IPAddress], because: str = "") -> None:
        self._wanted = frozenset(groups)
        self._before = Counter[DropKind]()
        self._kernel = KernelWatch(groups)
        self._always = because if self._kernel.layout.reasons else f"{because} {_UNNAMED}".strip()
        self.limits: str = self._always

    def drops(self) -> list[Dropped]:
        """Return what was dropped so far. Raises OSError."""
        counts = {
            kind: new for kind, count in self._kernel.counts().items() if (new := count - self._before.get(kind, 0))
        }
        symbols = kernel_symbols() if counts else None
        limits = [self._always, "" if symbols or not counts else HIDDEN]
        found: Counter[Dropped] = Counter()
        for kind, count in counts.items():
            reason = self._reason(kind.reason)
            function = symbols.function(kind.call) if symbols else ""
            if kind.group is None:
                limits.append(f"{count} datagrams of too many kinds were not told apart.")
            elif is_drop(reason, function) and (not self._wanted or kind.group in self._wanted):
                hook = kind.hook if reason == _BY_RULE or function.startswith(_NETFILTER) else ""
                interface, packet = kind.interface or None, (kind.group, kind.port, kind.source)
                found[Dropped(reason, function, interface, *packet, kind.outgoing, hook, kind.socket, 0)] += count
        self.limits = " ".join(filter(None, limits))
        return [each._replace(number=count) for each, count in found.items()]

    def restart(self) -> None:
        """Forget what was dropped so far. Raises OSError."""
        self._before = Counter(self._kernel.counts())

    def _reason(self, number: int) -> str:
        reasons = self._kernel.layout.reasons
        return reasons.get(number, f"{_PREFIX}{number:#x}").removeprefix(_PREFIX) if reasons else NO_REASON

    def close(self) -> None:
        """Detach the program."""
        self._kernel.close()


_WAYS: Final[dict[str, Callable[[Collection[IPAddress], str], Watch]]] = {
    "bpf(2)": BpfWatch,
    "perf_event_open(2)": TracepointWatch,
    "its drop monitor": MonitorWatch,
}
"""The ways to count, the one that tells most first, by what the kernel has to allow."""


def open_watch(groups: Collection[IPAddress] = ()) -> Watch:
    """Return a watch of the network namespace of the calling thread; the caller closes it.

    groups: those to count, without scopes; none: all. A watch that is not exact says in its `limits` why there is no
    better one. Raises MulticastExpertError with the reasons if the kernel allows no way, and OSError if no descriptor
    is left.
    """
    if SYSTEM.platform.name != "linux":
        raise MulticastExpertError(f"{SYSTEM.platform.title} does not tell which datagrams its kernel drops, and why.")
    refusals: list[str] = []
    for needed, way in _WAYS.items():
        try:
            return way(groups, " ".join(dict.fromkeys(refusals)))
        except OSError as error:
            refusals.append(refusal(error, needed))
        except MulticastExpertError as error:
            refusals.append(str(error))
    # What only root may is worth no other word.
    raise MulticastExpertError(ONLY_ROOT if ONLY_ROOT in refusals else " ".join(dict.fromkeys(refusals)))
