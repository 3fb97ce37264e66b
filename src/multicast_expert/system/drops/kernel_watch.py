"""KernelWatch: counts the dropped datagrams of groups by a BPF program of its own. Touches Linux only.

The program is attached as long as its descriptors are open: when they are closed, or the process ends in any way, the
kernel removes it.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from pathlib import Path

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.bpf import Bpf
from multicast_expert.system.drops.btf import LONGEST
from multicast_expert.system.drops.program import (
    KEY_SIZE,
    REST,
    DropKind,
    Layout,
    drop_program,
    parse_key,
    read_layout,
)
from multicast_expert.system.kernel import network_namespace

BTF = Path("/sys/kernel/btf/vmlinux")
KINDS = 4096
"""How many kinds are counted separately; all further ones are counted together."""
GROUPS = 64
"""How many groups a program compares; for more of them it counts those of all groups."""
TRACEPOINT = b"kfree_skb"


class KernelWatch:
    """Counts what the kernel drops in the network namespace of the calling thread, from its creation on.

    groups: those to count; none: all groups. Raises OSError, or MulticastExpertError if this kernel cannot tell.
    """

    def __init__(self, groups: Collection[IPAddress] = ()) -> None:
        self._bpf = Bpf()
        try:
            self._counts = self._bpf.open_counts(KEY_SIZE, KINDS)
            # What takes long comes after what the kernel allows to few.
            self.layout: Layout = read_kernel_layout()
            self._bpf.set_count(self._counts, REST, 0)
            compared = groups if len(groups) <= GROUPS else ()
            self._bpf.attach(TRACEPOINT, drop_program(self.layout, compared, network_namespace(), self._counts))
        except BaseException:
            self.close()
            raise

    def counts(self) -> dict[DropKind, int]:
        """Return how many datagrams of each kind were dropped so far. Raises OSError."""
        return {parse_key(key): count for key, count in self._bpf.counts(self._counts, KEY_SIZE, KINDS) if count}

    def close(self) -> None:
        """Detach the program."""
        self._bpf.close()


@lru_cache(maxsize=1)
def read_kernel_layout() -> Layout:
    """Return the layout of the running kernel's types. Raises OSError, or MulticastExpertError if it has none."""
    try:
        with BTF.open("rb") as file:
            data = file.read(LONGEST + 1)
    except FileNotFoundError:
        raise MulticastExpertError(
            "This kernel has no BTF (CONFIG_DEBUG_INFO_BTF), which describes its types."
        ) from None
    return read_layout(data)
