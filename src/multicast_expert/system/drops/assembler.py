"""Assembles programs for the BPF machine of the Linux kernel (RFC 9669). Pure: touches no OS.

A program is built instruction by instruction, with names as targets of jumps.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from multicast_expert.core.errors import MulticastExpertError

_INSTRUCTION = Struct("<BBhi")


class Register(IntEnum):
    """A register; calls leave R6 to R9 alone, take R1 to R5 and return R0. FRAME points behind 512 bytes of stack."""

    R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = range(11)


R0, R1, R2, R3, R4, R5, R6, R7, R8, R9, FRAME = Register

# RFC 9669: classes and sources (4), arithmetic (4.1), jumps (4.3), modes and sizes (5).
_LOAD_IMMEDIATE, _LOAD, _STORE_NUMBER, _STORE, _JUMP, _JUMP_32, _ARITHMETIC = 0x00, 0x01, 0x02, 0x03, 0x05, 0x06, 0x07
_BY_REGISTER = 0x08
_MEMORY, _ATOMIC = 0x60, 0xC0
_SIZES: Final = {1: 0x10, 2: 0x08, 4: 0x00, 8: 0x18}
_OPERATIONS: Final = {"+": 0x00, "*": 0x20, "&": 0x50, "<<": 0x60, ">>": 0x70, "=": 0xB0}
_CONDITIONS: Final = {"==": 0x10, ">": 0x20, "!=": 0x50}
_ALWAYS, _CALL, _EXIT = 0x00, 0x80, 0x90
_ATOMIC_ADD = 0
_MAP_DESCRIPTOR = 1
"""The pseudo source register by which the kernel replaces a descriptor of a map by its address."""


class Assembler:
    """A BPF program in the making."""

    def __init__(self) -> None:
        self._code: list[tuple[int, int, int, int | str, int]] = []
        self._labels: dict[str, int] = {}

    def label(self, name: str) -> None:
        """Let jumps to this name come here."""
        if name in self._labels:
            raise MulticastExpertError(f"The label {name} of a BPF program is there twice.")
        self._labels[name] = len(self._code)

    def compute(self, target: Register, operation: str, value: int) -> None:
        """Let `target` become itself, `operation` (one of + * & << >> =) and a number or a Register, in 64 bits."""
        self._two(_ARITHMETIC | _OPERATIONS[operation], target, value)

    def number(self, target: Register, value: int) -> None:
        """Let `target` become a number of 64 bits."""
        self._wide(target, 0, value)

    def map(self, target: Register, descriptor: int) -> None:
        """Let `target` become the map of this descriptor."""
        self._wide(target, _MAP_DESCRIPTOR, descriptor)

    def load(self, target: Register, base: Register, offset: int, size: int) -> None:
        """Let `target` become the `size` bytes at `base + offset`, a stack or context address."""
        self._add(_LOAD | _MEMORY | _SIZES[size], target, base, offset, 0)

    def store(self, base: Register, offset: int, value: Register, size: int) -> None:
        """Write the last `size` bytes of a register to `base + offset`."""
        self._add(_STORE | _MEMORY | _SIZES[size], base, value, offset, 0)

    def store_number(self, base: Register, offset: int, value: int, size: int) -> None:
        """Write a number of `size` bytes to `base + offset`."""
        self._add(_STORE_NUMBER | _MEMORY | _SIZES[size], base, 0, offset, value)

    def add_atomically(self, base: Register, offset: int, value: Register) -> None:
        """Add a register to the 8 bytes at `base + offset`, as one step for all processors."""
        self._add(_STORE | _ATOMIC | _SIZES[8], base, value, offset, _ATOMIC_ADD)

    def jump(self, label: str) -> None:
        """Go on at the label."""
        self._add(_JUMP | _ALWAYS, 0, 0, label, 0)

    def jump_if(self, left: Register, condition: str, right: int, label: str, *, bits: int = 64) -> None:
        """Go on at the label if `left` and a number or a Register are so (one of == != >), unsigned."""
        self._two((_JUMP if bits == 64 else _JUMP_32) | _CONDITIONS[condition], left, right, label)

    def call(self, function: int) -> None:
        """Call the helper of this number (linux/bpf.h)."""
        self._add(_JUMP | _CALL, 0, 0, 0, function)

    def exit(self) -> None:
        """End the program with R0 as its result."""
        self._add(_JUMP | _EXIT, 0, 0, 0, 0)

    def assemble(self) -> bytes:
        """Return the program. Raises MulticastExpertError for a label that is missing."""
        code = bytearray()
        for place, (operation, target, source, offset, value) in enumerate(self._code):
            distance = self._distance(place, offset) if isinstance(offset, str) else offset
            code += _INSTRUCTION.pack(operation, target | source << 4, distance, value)
        return bytes(code)

    def _distance(self, place: int, label: str) -> int:
        if label not in self._labels:
            raise MulticastExpertError(f"The label {label} of a BPF program is missing.")
        return self._labels[label] - place - 1

    def _two(self, operation: int, target: Register, value: int, offset: int | str = 0) -> None:
        if isinstance(value, Register):
            self._add(operation | _BY_REGISTER, target, value, offset, 0)
        else:
            self._add(operation, target, 0, offset, value)

    def _wide(self, target: Register, source: int, value: int) -> None:
        low, high = value & 0xFFFFFFFF, value >> 32 & 0xFFFFFFFF
        self._add(_LOAD_IMMEDIATE | _SIZES[8], target, source, 0, low)
        self._add(0, 0, 0, 0, high)

    def _add(self, operation: int, target: int, source: int, offset: int | str, value: int) -> None:
        signed = value - (1 << 32) if value >= 1 << 31 else value
        self._code.append((operation, target, source, offset, signed))
