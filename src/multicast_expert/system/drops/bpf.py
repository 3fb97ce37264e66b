"""Bpf: the calls of bpf(2), and the descriptors that they open. Touches Linux only."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from struct import Struct, pack
from typing import Final

from multicast_expert.system.drops.running_kernel import system_call

_MAP_CREATE, _MAP_LOOKUP, _MAP_UPDATE, _MAP_NEXT, _PROGRAM_LOAD, _TRACEPOINT_OPEN = 0, 1, 2, 4, 5, 17
_HASH_MAP, _RAW_TRACEPOINT = 1, 17
COUNT: Final = Struct("<Q")
_LICENSE = b"Dual MIT/GPL"
"""What the kernel is told: it lends helpers that read its memory to programs under a licence like its own only."""
NAME = b"mcast"
"""The name of programs and maps, as `bpftool prog` lists it; at most 15 bytes."""


class Bpf:
    """Makes the calls, and keeps the descriptors that they open until it is closed."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def ask(self, command: int, attributes: bytes) -> int:
        """Return the answer to one command. Raises OSError, or MulticastExpertError on an unknown processor."""
        buffer = ctypes.create_string_buffer(attributes, len(attributes))
        return system_call("bpf", command, ctypes.addressof(buffer), len(attributes))

    def open(self, command: int, attributes: bytes) -> int:
        """Return the descriptor that a command opens. Raises OSError."""
        descriptor = self.ask(command, attributes)
        self._descriptors.append(descriptor)
        return descriptor

    def load(self, kind: int, code: bytes, attach_type: int = 0) -> int:
        """Return the descriptor of a program, after the kernel has verified it. Raises OSError."""
        instructions = ctypes.create_string_buffer(code, len(code))
        license_text = ctypes.create_string_buffer(_LICENSE)
        places = ctypes.addressof(instructions), ctypes.addressof(license_text)
        head = pack("=IIQQ", kind, len(code) // 8, *places)
        # In between: a log, the version of the kernel, and flags, all of them unused.
        return self.open(_PROGRAM_LOAD, head + pack("=IIQII16sII", 0, 0, 0, 0, 0, NAME, 0, attach_type))

    def open_counts(self, key_size: int, kinds: int) -> int:
        """Return the descriptor of a new map from keys to counts, for so many kinds. Raises OSError."""
        return self.open(_MAP_CREATE, pack("=7I16s", _HASH_MAP, key_size, COUNT.size, kinds, 0, 0, 0, NAME))

    def set_count(self, counts: int, key: bytes, count: int) -> None:
        """Write one count into such a map. Raises OSError."""
        entry, value = ctypes.create_string_buffer(key, len(key)), ctypes.create_string_buffer(COUNT.pack(count))
        self.ask(_MAP_UPDATE, pack("=I4xQQQ", counts, ctypes.addressof(entry), ctypes.addressof(value), 0))

    def counts(self, counts: int, key_size: int, kinds: int) -> Iterator[tuple[bytes, int]]:
        """Yield the keys and counts of such a map. Raises OSError."""
        key, following, value = (ctypes.create_string_buffer(size) for size in (key_size, key_size, COUNT.size))
        before = 0
        # Entries are only added, so that a walk ends; a bound holds even against a kernel that errs.
        for _ in range(2 * kinds):
            try:
                self.ask(_MAP_NEXT, pack("=I4xQQQ", counts, before, ctypes.addressof(following), 0))
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return
                raise
            ctypes.memmove(key, following, key_size)
            before = ctypes.addressof(key)
            self.ask(_MAP_LOOKUP, pack("=I4xQQQ", counts, before, ctypes.addressof(value), 0))
            yield key.raw, COUNT.unpack(value.raw)[0]

    def attach(self, tracepoint: bytes, code: bytes) -> None:
        """Run a program at a raw tracepoint until this is closed. Raises OSError."""
        name = ctypes.create_string_buffer(tracepoint)
        program = self.load(_RAW_TRACEPOINT, code)
        self.open(_TRACEPOINT_OPEN, pack("=QI4x", ctypes.addressof(name), program))

    def close(self) -> None:
        """Close the descriptors; what they attached is gone then."""
        while self._descriptors:
            os.close(self._descriptors.pop())
