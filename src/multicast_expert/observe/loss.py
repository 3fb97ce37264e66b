"""Counts the numbers of a stream: what is lost, came twice or out of order. Pure: touches no OS."""

from __future__ import annotations

from array import array

BLOCK = 1_024
"""Consecutive numbers whose arrival is remembered together, a bit for each; a multiple of 8."""
BLOCKS = 64
"""Blocks that are remembered of a stream: 8 KiB of bits."""
_NONE = -(1 << 62)


class Sequence:
    """The numbers of one run of a sender that came.

    Numbers below the lowest one that came and above the highest one do not count as lost.
    """

    __slots__ = (
        "_bits", "_blocks", "_remembered", "duplicates", "highest", "lowest", "received", "reordered", "undecided",
    )  # fmt: skip

    def __init__(self, blocks: int = BLOCKS) -> None:
        self.received: int = 0
        """Datagrams that came, duplicates included."""
        self.duplicates: int = 0
        """Datagrams whose number had come before."""
        self.reordered: int = 0
        """Datagrams that came after one with a higher number, duplicates not included."""
        self.undecided: int = 0
        """Datagrams that came too late to tell, each either a duplicate or one that counts as lost."""
        self.lowest: int = 0
        self.highest: int = 0
        self._remembered = 0
        # For each place in the window the newest block of numbers that fell there, and bits for those that came.
        self._blocks = array("q", [_NONE]) * blocks
        self._bits = bytearray(BLOCK // 8 * blocks)

    @property
    def window(self) -> int:
        """A datagram that comes at most so many numbers late is counted exactly."""
        return BLOCK * (len(self._blocks) - 1)

    @property
    def expected(self) -> int:
        """How many numbers there are from the lowest to the highest one that came."""
        return self.highest - self.lowest + 1 if self.received else 0

    @property
    def lost(self) -> int:
        """How many numbers between the lowest and the highest one have not come."""
        return self.expected - (self.received - self.duplicates - self.undecided)

    def see(self, number: int) -> None:
        """Count a datagram by its number."""
        if number == self.highest + 1 and self.received:
            # The usual case: remembered later, together with those that follow.
            self.highest = number
            self.received += 1
            return
        self._remember()
        came_before = self._mark(number)
        if self.received == 0:
            self.lowest = self.highest = number
        elif came_before or number == self.lowest:
            self.duplicates += 1
        elif number > self.highest:
            self.highest = number
        elif came_before is None and number > self.lowest:
            self.undecided += 1
        else:
            self.reordered += 1
            self.lowest = min(self.lowest, number)
        self.received += 1
        self._remembered = self.highest

    def see_all(self, numbers: tuple[int, ...]) -> None:
        """Count datagrams by their numbers."""
        first, after = numbers[0], numbers[0] + len(numbers)
        if first == self.highest + 1 and self.received and numbers == tuple(range(first, after)):
            self.highest = after - 1
            self.received += len(numbers)
            return
        for number in numbers:
            self.see(number)

    def _remember(self) -> None:
        """Remember those that came in order since the last call."""
        number = max(self._remembered, self.highest - BLOCK * len(self._blocks)) + 1
        while number <= self.highest:
            block = number // BLOCK
            last = min(self.highest, block * BLOCK + BLOCK - 1)
            self._mark(number)
            if last - number + 1 == BLOCK:
                start = BLOCK // 8 * (block % len(self._blocks))
                self._bits[start : start + BLOCK // 8] = b"\xff" * (BLOCK // 8)
            else:
                for each in range(number + 1, last + 1):
                    self._mark(each)
            number = last + 1

    def _mark(self, number: int) -> bool | None:
        """Remember a number and return whether it had come before; None where a newer block took its place."""
        block, offset = divmod(number, BLOCK)
        place = block % len(self._blocks)
        newest = self._blocks[place]
        if newest > block:
            return None
        start = BLOCK // 8 * place
        if newest < block:
            self._blocks[place] = block
            self._bits[start : start + BLOCK // 8] = bytes(BLOCK // 8)
        byte, bit = start + (offset >> 3), 1 << (offset & 7)
        came_before = self._bits[byte] & bit
        self._bits[byte] |= bit
        return bool(came_before)
