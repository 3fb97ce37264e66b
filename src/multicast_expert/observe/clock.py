"""A clock for rates and timers: seconds since 1970 that never jump, whatever sets the clock of the system."""

from __future__ import annotations

from time import monotonic, time


class Clock:
    """The system's clock as it was at the start, continued by the monotonic one."""

    __slots__ = ("_begin",)

    def __init__(self) -> None:
        self._begin = time() - monotonic()

    def now(self) -> float:
        """Return the seconds since 1970."""
        return self._begin + monotonic()

    def ahead(self) -> float:
        """Return the seconds to add to a time of the system's clock, such as the kernel's time of a frame."""
        return self.now() - time()
