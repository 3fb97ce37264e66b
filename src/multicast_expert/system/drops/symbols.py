"""Names of the kernel's functions by addresses in them, from /proc/kallsyms. Pure: touches no OS."""

from __future__ import annotations

import re

_DIGITS = 16
_IS_SHOWN = re.compile(rb"^(?!0{16})[0-9a-f]{16} ", re.MULTILINE)


class Symbols:
    """The functions of a kernel, by the text of /proc/kallsyms; none if the kernel hides its addresses.

    The text has more than 100,000 lines, in no order, and only a few functions are asked for: each is searched.
    """

    def __init__(self, text: bytes) -> None:
        self._lines = b"\n" + text if _IS_SHOWN.search(text) else b""
        self._known: dict[int, str] = {}

    def __bool__(self) -> bool:
        return bool(self._lines)

    def function(self, call: int) -> str:
        """Return the function that a call returns into; empty if unknown. `call`: the address behind the call."""
        if call not in self._known:
            self._known[call] = self._search(b"%016x" % call)
        return self._known[call]

    def _search(self, call: bytes) -> str:
        """Return the last function that begins before an address, without what compilers add (`.isra.0`).

        It is among those that have most digits with the address in common, if any of these begins before it.
        """
        for common in reversed(range(_DIGITS)):
            # Text that is the same in all of them, from its beginning on, makes the search fast.
            line = rb"\n%b([0-9a-f]{%d}) [tTwW] ([^\s.]+)" % (call[:common], _DIGITS - common)
            # A call at the very end of a function returns to the first byte of the next one.
            before: list[tuple[bytes, bytes]] = [
                each for each in re.findall(line, self._lines) if each[0] < call[common:]
            ]
            if before:
                return max(before)[1].decode("ascii", "replace")
        return ""
