"""KernelWatch: counts the dropped datagrams of groups by a BPF program of its own. Touches Linux only.

The program is attached as long as its descriptors are open: when they are closed, or the process ends in any way, the
kernel removes it.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Collection
from functools import lru_cache
from pathlib import Path
from struct import pack
from typing import Any, Final

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system.drops.btf import LONGEST
from multicast_expert.system.drops.program import (
    COUNT,
    KEY_SIZE,
    LICENSE,
    REST,
    DropKind,
    Layout,
    drop_program,
    parse_key,
    read_layout,
)
from multicast_expert.system.kernel import SYSTEM, network_namespace

BTF = Path("/sys/kernel/btf/vmlinux")
KINDS = 4096
"""How many kinds are counted separately; all further ones are counted together."""
GROUPS = 64
"""How many groups a program compares; for more of them it counts those of all groups."""
TRACEPOINT = b"kfree_skb"
NAME = b"mcast_drops"
"""The name of the program and its map, as `bpftool prog` lists it; at most 15 bytes."""

# bpf(2): the number of the call, by machine, and of its commands and types.
_CALLS: Final = {"x86_64": 321, "aarch64": 280}
_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_NEXT, _PROGRAM_LOAD, _TRACEPOINT_OPEN = 0, 1, 2, 4, 5, 17
_HASH_MAP, _RAW_TRACEPOINT = 1, 17
_LOG_SIZE = 1 << 16


class KernelWatch:
    """Counts what the kernel drops in the network namespace of the calling thread, from its creation on.

    groups: those to count; none: all groups. Raises OSError, or MulticastExpertError if this kernel cannot tell.
    """

    def __init__(self, groups: Collection[IPAddress] = ()) -> None:
        self._call = _call_number()
        self._descriptors: list[int] = []
        try:
            self._counts = self._open(
                _MAP_CREATE, pack("=7I16s", _HASH_MAP, KEY_SIZE, COUNT.size, KINDS, 0, 0, 0, NAME)
            )
            # What takes long comes after what the kernel allows to few.
            self.layout: Layout = read_kernel_layout()
            self._write(REST, 0)
            code = drop_program(self.layout, groups if len(groups) <= GROUPS else (), network_namespace(), self._counts)
            program = self._load(code)
            name = ctypes.create_string_buffer(TRACEPOINT)
            self._open(_TRACEPOINT_OPEN, pack("=QI4x", ctypes.addressof(name), program))
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
                self._ask(_MAP_NEXT, places)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    break
                raise
            ctypes.memmove(key, following, KEY_SIZE)
            before = ctypes.addressof(key)
            self._ask(_MAP_LOOKUP, pack("=I4xQQQ", self._counts, before, ctypes.addressof(value), 0))
            (count,) = COUNT.unpack(value.raw)
            if count:
                found[parse_key(key.raw)] = count
        return found

    def close(self) -> None:
        """Detach the program."""
        while self._descriptors:
            os.close(self._descriptors.pop())

    def _write(self, key: bytes, count: int) -> None:
        entry, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(COUNT.pack(count))
        places = ctypes.addressof(entry), ctypes.addressof(value)
        self._ask(_MAP_UPDATE, pack("=I4xQQQ", self._counts, *places, 0))

    def _load(self, code: bytes) -> int:
        """Return a descriptor of the program, after the kernel has verified it."""
        instructions, license_text = (
            ctypes.create_string_buffer(code, len(code)),
            ctypes.create_string_buffer(LICENSE.encode()),
        )
        places = ctypes.addressof(instructions), ctypes.addressof(license_text)
        return self._open(
            _PROGRAM_LOAD,
            pack("=IIQQIIQII16s", _RAW_TRACEPOINT, len(code) // 8, *places, 0, 0, 0, 0, 0, NAME),
        )

    def _open(self, command: int, attributes: bytes) -> int:
        descriptor = self._ask(command, attributes)
        self._descriptors.append(descriptor)
        return descriptor

    def _ask(self, command: int, attributes: bytes) -> int:
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        answer: int = _c_library().syscall(self._call, command, buffer, len(attributes))
        if answer < 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
        return answer


def _call_number() -> int:
    machine = SYSTEM.machine()
    if machine not in _CALLS or ctypes.sizeof(ctypes.c_void_p) != 8:
        raise MulticastExpertError(f"This program has no BPF call for the processor {machine}, only for {_known()}.")
    return _CALLS[machine]


def _known() -> str:
    return " and ".join(_CALLS)


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


@lru_cache(maxsize=1)
def _c_library() -> Any:
    return ctypes.CDLL(None, use_errno=True)
