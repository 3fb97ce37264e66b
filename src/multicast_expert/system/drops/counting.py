"""CountingProgram: a BPF program that reads the kernel's memory, and counts by kind in a map. Pure: touches no OS."""

from __future__ import annotations

from multicast_expert.system.drops.assembler import FRAME, R0, R1, R2, R3, R4, R9, Assembler, Register

# Helpers by their numbers in linux/bpf.h.
_LOOKUP, _UPDATE, _CURRENT_COMMAND, _CURRENT_TASK, _PROBE_READ_KERNEL = 1, 2, 16, 35, 113
_IF_MISSING = 1
"""BPF_NOEXIST."""
COMMAND_SIZE = 16
"""Bytes of the name of a thread, with its end."""


class CountingProgram(Assembler):
    """A program whose stack begins with a key, of a multiple of 8 bytes, that tells what kind is counted."""

    def __init__(self, key_size: int, counts: int) -> None:
        """Begin a program; `counts`: the descriptor of the map."""
        super().__init__()
        self._counts = counts
        self.at_key: int = -key_size
        """The places of the key, of what was read last, and below of what else the program keeps."""
        self.at_value: int = self.at_key - 8
        self._at_count = self.at_value - 8
        self.at_rest: int = self._at_count

    def clear_key(self) -> None:
        """Let all bytes of the key be 0."""
        for place in range(self.at_key, 0, 8):
            self.store_number(FRAME, place, 0, 8)

    def read(self, place: int, size: int, base: Register, offset: int) -> None:
        """Copy bytes of the kernel to a place of the stack; R0 is 0 if that worked, else the bytes are."""
        self.compute(R3, "=", base)
        self.compute(R3, "+", offset)
        self._point(R1, place)
        self.compute(R2, "=", size)
        self.call(_PROBE_READ_KERNEL)

    def member(self, target: Register, size: int, base: Register, offset: int) -> None:
        """Let `target` become the member at an offset of the struct at `base`; 0 if it could not be read."""
        self.read(self.at_value, size, base, offset)
        self.load(target, FRAME, self.at_value, size)

    def current_task(self, target: Register) -> None:
        """Let `target` become the address of the thread in whose name the kernel works."""
        self.call(_CURRENT_TASK)
        self.compute(target, "=", R0)

    def current_command(self, place: int) -> None:
        """Write the name of that thread to a place of the stack, in COMMAND_SIZE bytes."""
        self._point(R1, place)
        self.compute(R2, "=", COMMAND_SIZE)
        self.call(_CURRENT_COMMAND)

    def add_and_end(self) -> None:
        """Add R9 to the count of the key, and end the program with 0; also where jumps to "end" go.

        Where the map has no room for another kind, the key of zeros counts, if it is there.
        """
        self.store(FRAME, self._at_count, R9, 8)
        self._add_or_go_on("new kind")
        self._map_and_key()
        self._point(R3, self._at_count)
        self.compute(R4, "=", _IF_MISSING)
        self.call(_UPDATE)
        self.jump_if(R0, "==", 0, "end")
        # Another processor was faster, or there is no room.
        self._add_or_go_on("no room")
        self.clear_key()
        self._add_or_go_on("end")
        self.compute(R0, "=", 0)
        self.exit()

    def _add_or_go_on(self, missing: str) -> None:
        """Add R9 to the count of the key and end, or go on here, at `missing`."""
        self._map_and_key()
        self.call(_LOOKUP)
        self.jump_if(R0, "==", 0, missing)
        self.add_atomically(R0, 0, R9)
        if missing != "end":
            self.jump("end")
        self.label(missing)

    def _map_and_key(self) -> None:
        self.map(R1, self._counts)
        self._point(R2, self.at_key)

    def _point(self, target: Register, place: int) -> None:
        """Let `target` become the address of a place of the stack."""
        self.compute(target, "=", FRAME)
        self.compute(target, "+", place)
