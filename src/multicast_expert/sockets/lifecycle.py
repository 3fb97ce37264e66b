"""Openable: what all sockets of this library share. Opened once, closed once, also across interrupts and forks.

The contract
- Of several threads that close at once, one does it; the others get NotOpenError. The check and the change are
  neighbouring bytecodes, between which CPython lets nothing come.
- An interrupt while it closes is held back until everything is closed. What a second interrupt leaves open, `__del__`
  closes. So `_close` has to be callable again.
- When the interpreter ends, daemon threads stand still, perhaps with a lock. From then on nothing is closed here; the
  descriptors close themselves.
- In the child of a fork, `_abandon` is called for every open socket before any other code runs.
"""

from __future__ import annotations

import os
import sys
import warnings
import weakref
from contextlib import suppress
from types import TracebackType
from typing import Self

from multicast_expert.core.errors import MulticastExpertError, NotOpenError


class Openable:
    """Base of the sockets: `open()` and `close()`, or a `with` block."""

    is_opened: bool = False
    _entered = False
    _is_closing = False
    _was_opened = False

    def _open(self) -> None:
        raise AssertionError

    def _close(self) -> None:
        raise AssertionError

    def _abandon(self) -> None:
        raise AssertionError

    def open(self) -> Self:
        """Open the socket and return it; the same as entering a `with` block.

        Raises MulticastExpertError when it is open already, MulticastOSError when the OS refuses a step.
        """
        if self.is_opened:
            raise MulticastExpertError(f"This {type(self).__name__} is open already.")
        if self._is_closing:
            self._finish()
        _open_sockets[id(self)] = weakref.ref(self)
        try:
            self._open()
        except BaseException:
            _open_sockets.pop(id(self), None)
            raise
        self.is_opened = self._was_opened = True
        return self

    def close(self) -> None:
        """Close the socket. Raises NotOpenError when it is not open.

        Any thread may call it, and a signal handler. Receives and sends that wait elsewhere end with NotOpenError.
        """
        if not self.is_opened:
            self._check_open()
        try:
            self._is_closing = True
            self.is_opened = False
            self._finish()
        except BaseException:
            self._finish()
            raise

    def _finish(self) -> None:
        if not sys.is_finalizing():
            self._close()
        _open_sockets.pop(id(self), None)
        self._is_closing = False

    def _check_open(self) -> None:
        if not self.is_opened:
            if self._was_opened:
                raise NotOpenError(f"This {type(self).__name__} is not open any more: it was closed.")
            raise NotOpenError(f"This {type(self).__name__} is not open: use it in a with block, or call open().")

    def __enter__(self) -> Self:
        try:
            self.open()
            self._entered = True
        except KeyboardInterrupt:
            if self.is_opened:
                self.close()
            raise
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        entered, self._entered = self._entered, False
        # Closing it inside the block, or from another thread to end a receive, is fine.
        if self.is_opened or not entered:
            self.close()

    def __getstate__(self) -> object:
        # A copy would close the descriptors of the original when it is forgotten.
        if self.is_opened:
            raise TypeError(f"cannot copy or pickle an open {type(self).__name__}")
        return super().__getstate__()

    def __del__(self) -> None:
        try:
            if self.is_opened:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
        finally:
            if self.is_opened or self._is_closing:
                self.is_opened = False
                self._finish()


_open_sockets: dict[int, weakref.ref[Openable]] = {}


def _abandon_all() -> None:
    for reference in list(_open_sockets.values()):
        opened = reference()
        if opened is not None:
            # One that another thread of the parent was just opening, or closing, lacks some of its parts.
            with suppress(AttributeError):
                opened._abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)
