"""Bpf: the calls of bpf(2), and the descriptors that they open. Touches Linux only."""

from __future__ import annotations

import ctypes
import os
from struct import pack

from multicast_expert.system.drops.running_kernel import system_call

_PROGRAM_LOAD = 5
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

    def close(self) -> None:
        """Close the descriptors; what they attached is gone then."""
        while self._descriptors:
            os.close(self._descriptors.pop())
