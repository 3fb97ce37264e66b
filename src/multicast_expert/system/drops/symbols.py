"""Names of the kernel's functions by addresses in them, from /proc/kallsyms. Pure: touches no OS."""

from __future__ import annotations

import re
from bisect import bisect_left

_FUNCTION = re.compile(rb"^([0-9a-f]{16}) [tTwW] ([^\s.]+)", re.MULTILINE)
"""The address and the name of a function, without what compilers add (`.isra.0`)."""
_HIDDEN = b"0" * 16


class Symbols:
    """The functions of a kernel, by the text of /proc/kallsyms; none if the kernel hides its addresses."""

    def __init__(self, text: bytes) -> None:
        # Numbers of one length and base are in the same order as their texts.
        self._functions: list[tuple[bytes, bytes]] = sorted(_FUNCTION.findall(text))
        if self._functions and self._functions[-1][0] == _HIDDEN:
            self._functions = []

    def __bool__(self) -> bool:
        return bool(self._functions)

    def function(self, call: int) -> str:
        """Return the function that a call returns into; empty if unknown. `call`: the address behind the call."""
        # A call at the very end of a function returns to the first byte of the next one.
        place = bisect_left(self._functions, (b"%016x" % call,)) - 1
        return self._functions[place][1].decode("ascii", "replace") if place >= 0 else ""
