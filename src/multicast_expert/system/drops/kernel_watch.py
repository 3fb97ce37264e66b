"""KernelWatch: counts the dropped datagrams of groups by a BPF program of its own. Touches Linux only.

The program is attached as long as its descriptors are open: when they are closed, or the process ends in any way, the
kernel removes it.
"""

from __future__ import annotations

import ctypes
import errno
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from struct import pack

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.bpf import NAME, Bpf
from multicast_expert.system.drops.btf import LONGEST
from multicast_expert.system.drops.program import (
    COUNT,
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

# bpf(2): commands and types.
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_NEXT, _TRACEPOINT_OPEN = 0, 1, 2, 4, 17
_HASH_MAP, _RAW_TRACEPOINT = 1, 17


class KernelWatch:
    """Counts what the kernel drops in the network namespace of the calling thread, from its creation on.

    groups: those to count; none: all groups. Raises OSError, or MulticastExpertError if this kernel cannot tell.
    """

    def __init__(self, groups: Collection[IPAddress] = ()) -> None:
        self._bpf = Bpf()
        try:
            sizes = KEY_SIZE, COUNT.size, KINDS
            self._counts = self._bpf.open(_MAP_CREATE, pack("=7I16s", _HASH_MAP, *sizes, 0, 0, 0, NAME))
            # What takes long comes after what the kernel allows to few.
            self.layout: Layout = read_kernel_layout()
            self._write(REST, 0)
            compared = groups if len(groups) <= GROUPS else ()
            code = drop_program(self.layout, compared, network_namespace(), self._counts)
            program = self._bpf.load(_RAW_TRACEPOINT, code)
            name = ctypes.create_string_buffer(TRACEPOINT)
            self._bpf.open(_TRACEPOINT_OPEN, pack("=QI4x", ctypes.addressof(name), program))
        except BaseException:
            self.close()
            raise

    def counts(self) -> dict[DropKind, int]:
        """Return how many datagrams of each kind were dropped so far."""
        found: dict[DropKind, int] = {}
        key, following, value = (ctypes.create_string_buffer(size) for size in (KEY_SIZE, KEY_SIZE, COUNT.size))
        before = 0
        # Entries are only added, so that a walk ends; a bound holds even against a kernel that errs.
        for _ in range(2 * KINDS):
            places = pack("=I4xQQQ", self._counts, before, ctypes.addressof(following), 0)
            try:
                self._bpf.ask(_MAP_NEXT, places)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise
            ctypes.memmove(key, following, KEY_SIZE)
            before = ctypes.addressof(key)
            self._bpf.ask(_MAP_LOOKUP, pack("=I4xQQQ", self._counts, before, ctypes.addressof(value), 0))
            (count,) = COUNT.unpack(value.raw)
            if count:
                found[parse_key(key.raw)] = count
        return found

    def close(self) -> None:
        """Detach the program."""
        self._bpf.close()

    def _write(self, key: bytes, count: int) -> None:
        entry, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(COUNT.pack(count))
        places = ctypes.addressof(entry), ctypes.addressof(value)
        self._bpf.ask(_MAP_UPDATE, pack("=I4xQQQ", self._counts, *places, 0))


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
