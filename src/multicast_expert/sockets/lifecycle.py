"""What all sockets of this library share: opened once, closed once, and a forgotten close is a ResourceWarning."""

from __future__ import annotations

import warnings
from types import TracebackType
from typing import Self

from multicast_expert.core.errors import MulticastExpertError


class Openable:
    """Base of the sockets: `open()` and `close()`, or a `with` block."""

    is_opened: bool = False
    _entered = False

    def _open(self) -> None:
        raise AssertionError

    def _close(self) -> None:
        raise AssertionError

    def open(self) -> Self:
        """Open the socket and return it; the same as entering a `with` block.

        Raises MulticastExpertError when it is open already, MulticastOSError when the OS refuses a step.
        """
        if self.is_opened:
            raise MulticastExpertError(f"This {type(self).__name__} is open already.")
        self._open()
        self.is_opened = True
        return self

    def close(self) -> None:
        """Close the socket. Raises MulticastExpertError when it is not open."""
        self._check_open()
        self.is_opened = False
        self._close()

    def _check_open(self) -> None:
        if not self.is_opened:
            raise MulticastExpertError(
                f"This {type(self).__name__} is not open: use it in a with block, or call open()."
            )

    def __enter__(self) -> Self:
        self.open()
        self._entered = True
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, False
        # Closing it inside the block, or from another thread to end a receive, is fine.
        if self.is_opened or not entered:
            self.close()

    def __del__(self) -> None:
        if self.is_opened:
            warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            self.is_opened = False
            self._close()
