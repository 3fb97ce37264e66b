"""Names of the kernel's functions by addresses in them, from /proc/kallsyms. Pure: touches no OS."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Collection, Iterable

_CODE = b"tTwW"


def parse_functions(lines: Iterable[bytes], addresses: Collection[int]) -> dict[int, str]:
    """Return the functions that calls return into, by the addresses that they return to.

    lines: of /proc/kallsyms; they may be in any order. A compiler's additions (`.isra.0`) are left out. An address that
    no function lies before is missing, and so are all if the kernel hides its addresses: then they are 0.
    """
    if not addresses:
        return {}
    starts: dict[int, bytes] = {}
    for line in lines:
        if line[17:18] in _CODE and line[16:17] == b" ":
            try:
                starts[int(line[:16], 16)] = line
            except ValueError:
                continue
    starts.pop(0, None)
    ordered = sorted(starts)
    found = {}
    for address in addresses:
        # A call at the very end of a function returns to the first byte of the next one.
        place = bisect_left(ordered, address) - 1
        if place >= 0:
            name = starts[ordered[place]][19:].split(maxsplit=1)[:1]
            found[address] = name[0].decode("ascii", "replace").partition(".")[0] if name else ""
    return found
