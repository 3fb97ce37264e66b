"""Datagrams in columns: looked at together, they cost less than one by one. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from struct import Struct
from typing import Any, NamedTuple


class Columns(NamedTuple):
    """Datagrams of one host, in the order of their arrival: a column for each fact, a row for each datagram."""

    memory: bytes | memoryview
    """All payloads."""
    offsets: tuple[int, ...]
    """Where in the memory each payload begins."""
    lengths: tuple[int, ...]
    moments_ns: tuple[int, ...]
    """When each arrived, in nanoseconds since 1970."""
    ports: tuple[int, ...]
    """From which port each was sent."""

    def payload(self, row: int) -> bytes:
        """Return one payload."""
        start = self.offsets[row]
        return bytes(self.memory[start : start + self.lengths[row]])

    def chosen(self, rows: Sequence[int]) -> Columns:
        """Return some of the rows, in this order."""
        if len(rows) == len(self.lengths):
            return self
        return Columns(self.memory, *(tuple([column[row] for row in rows]) for column in self[1:]))

    def fields(self, layout: Struct) -> list[tuple[Any, ...]] | None:
        """Return the columns of what each payload begins with; None if one is shorter."""
        least, start, end = min(self.lengths), self.offsets[0], self.offsets[-1] + self.lengths[-1]
        if least < layout.size:
            return None
        if least == max(self.lengths) and end - start == least * len(self.lengths) and end <= len(self.memory):
            # One behind the other, all of one length
            rows = Struct(f"{layout.format}{least - layout.size}x").iter_unpack(self.memory[start:end])
        else:
            rows = map(layout.unpack_from, repeat(self.memory), self.offsets)
        return list(zip(*rows, strict=True))
