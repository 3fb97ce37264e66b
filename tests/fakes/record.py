"""The record of what a program asked a fake kernel for, and the failures that a test orders in advance. Pure."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import NamedTuple


class Call(NamedTuple):
    """One recorded call; ``socket`` itself has the new descriptor, or -1 when refused."""

    fd: int
    call: str
    args: tuple


@dataclass
class _Failure:
    call: str
    error: int
    option: tuple[int | None, int | None]
    passing: int
    failing: int

    def strikes(self, call: str, arguments: tuple) -> bool:
        fits = all(limit in (None, given) for limit, given in zip(self.option, arguments, strict=False))
        if call != self.call or not fits or not self.failing:
            return False
        if self.passing:
            self.passing -= 1
            return False
        self.failing -= 1
        return True


class CallRecord(ABC):
    """``calls`` in order; ``fail`` orders a failure."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self._failures: list[_Failure] = []

    def fail(
        self,
        call: str,
        error: int,
        *,
        level: int | None = None,
        number: int | None = None,
        nth: int = 1,
        times: int = 1,
    ) -> None:
        """Make the nth call that fits, and the ``times - 1`` after it, fail with this error number of the OS.

        ``level`` and ``number`` narrow setsockopt and getsockopt down to one option.
        """
        self._failures.append(_Failure(call, error, (level, number), nth - 1, times))

    def record(self, fd: int, call: str, *arguments: object) -> None:
        """Remember a call."""
        self.calls.append(Call(fd, call, arguments))

    def check_injected(self, call: str, arguments: tuple) -> None:
        """Raise what a test ordered for this call."""
        for failure in self._failures:
            if failure.strikes(call, arguments):
                raise self.os_error(failure.error, "injected by the test")

    @abstractmethod
    def os_error(self, number: int, text: str) -> OSError:
        """An error by this OS's number."""
