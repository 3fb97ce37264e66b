"""The format of a tracepoint, as tracefs tells it, and the samples of it in a ring buffer of perf. Pure: touches no OS.

A sample holds no packet: it tells the function, since Linux 5.17 the reason, and the Ethernet type.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from struct import Struct
from typing import NamedTuple

from multicast_expert.core.errors import MulticastExpertError

_FIELD = re.compile(r"^\tfield:[^;\n]*?(\w+);\toffset:(\d{1,4});\tsize:(\d{1,4});", re.MULTILINE)
_REASON = re.compile(r'\{ (0x[0-9a-f]{1,8}|\d{1,10}), "(\w+)" \}')
# struct perf_event_header of linux/perf_event.h: type, misc, size; behind it, in a sample, the length of the record.
_HEADER = Struct("=IHH")
_LENGTH = Struct("=I")
_SAMPLE = 9


class Sample(NamedTuple):
    """A packet that the kernel dropped."""

    call: int
    """The address in the kernel behind the call that dropped it."""
    reason: int | None
    """None: this kernel has no reasons."""


class TracepointFormat(NamedTuple):
    """Where the fields of `skb:kfree_skb` are in a record."""

    fields: dict[str, tuple[int, int]]
    """Offset and size, by name."""
    reasons: dict[int, str]
    """The names of the kernel's reasons by their numbers; empty before Linux 5.17."""

    def sample(self, record: bytes) -> Sample | None:
        """Return what a record tells; None if it is cut."""
        call = self._number(record, "location")
        return None if call is None else Sample(call, self._number(record, "reason") if self.reasons else None)

    def _number(self, record: bytes, name: str) -> int | None:
        offset, size = self.fields.get(name, (0, 0))
        return int.from_bytes(record[offset : offset + size], "little") if 0 < size <= len(record) - offset else None


def parse_format(text: str) -> TracepointFormat:
    """Return the format in the text of a file `format`. Raises MulticastExpertError if it is none of `kfree_skb`."""
    fields = {name: (int(offset), int(size)) for name, offset, size in _FIELD.findall(text)}
    if "location" not in fields or "protocol" not in fields:
        raise MulticastExpertError("The kernel describes its tracepoint kfree_skb in an unknown way.")
    reasons = {int(number, 0): name for number, name in _REASON.findall(text)} if "reason" in fields else {}
    return TracepointFormat(fields, reasons)


def records(data: bytes) -> Iterator[bytes]:
    """Yield the records of the samples in what was read from a ring buffer; a cut one ends it."""
    place = 0
    while place + _HEADER.size <= len(data):
        kind, _, size = _HEADER.unpack_from(data, place)
        end = place + size
        if size < _HEADER.size or end > len(data):
            return
        if kind == _SAMPLE and size >= _HEADER.size + _LENGTH.size:
            start = place + _HEADER.size + _LENGTH.size
            yield data[start : min(end, start + _LENGTH.unpack_from(data, place + _HEADER.size)[0])]
        place = end
