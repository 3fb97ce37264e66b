"""Waits for sockets: one selector for all of a receiver or transmitter, and a way to wake who waits. Touches the OS."""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

Data = TypeVar("Data")

LONGEST = 86400.0
"""Seconds: no `wait` is longer, because selectors refuse to wait for months."""


class Waiter(Generic[Data]):
    """A set of descriptors that may change, and be closed, from other threads while one waits for it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        try:
            self._waker, self._alarm = socket.socketpair()
        except OSError:
            self._selector.close()
            raise
        self._waker.setblocking(False)
        self._alarm.setblocking(False)
        self._selector.register(self._alarm, selectors.EVENT_READ, None)
        self._idle = threading.Condition()
        self._waiting = 0
        self._ringing = False
        self._closed = False
        self.on_close: Callable[[], None] | None = None
        """Called before the selector's own descriptor is closed, for who lets an event loop watch it."""

    def add(self, descriptor: int, data: Data, events: int = selectors.EVENT_READ) -> None:
        """Wait for this descriptor too, until it is readable; `data` is what `wait` returns for it.

        `events`: EVENT_WRITE of `selectors`, to wait until it is writable instead.
        """
        self._selector.register(descriptor, events, data)
        if self._waiting:
            self.wake()

    def remove(self, descriptor: int) -> None:
        """Wait for this descriptor no longer; to be called before it is closed."""
        self._selector.unregister(descriptor)

    def wait(self, timeout: float | None) -> list[Data]:
        """Return the data of the descriptors that are ready, after `timeout` seconds at the latest (None: never).

        May return early and empty, after a `wake`.
        """
        with self._idle:
            if self._closed:
                return []
            self._waiting += 1
        try:
            ready = self._selector.select(None if timeout is None else min(timeout, LONGEST))
        except OSError:
            if self.fileno() is not None:
                raise
            # select(2) of Windows refuses a set of which a socket was closed meanwhile (WSAENOTSOCK).
            ready = []
        finally:
            with self._idle:
                self._waiting -= 1
                if not self._waiting:
                    # The last one to leave: every other has seen the alarm by now.
                    self._silence()
                    self._idle.notify_all()
        return [key.data for key, _ in ready if key.data is not None]

    def wake(self) -> None:
        """Make every `wait` in other threads return."""
        with self._idle:
            if not (self._ringing or self._closed):
                self._ringing = True
                self._waker.send(b"\0")

    def _silence(self) -> None:
        if self._ringing:
            # Windows makes the pair of TCP sockets: the byte may still be on its way.
            with suppress(BlockingIOError):
                self._alarm.recv(1)
                self._ringing = False

    def fileno(self) -> int | None:
        """Return a descriptor that is readable while any of the set is ready; None where the OS has no such thing."""
        fileno = getattr(self._selector, "fileno", None)
        return None if fileno is None else fileno()

    def close(self) -> None:
        """Wake whoever waits, wait until nobody does, and close; a second call does nothing."""
        if self._closed:
            return
        if self.on_close is not None:
            self.on_close()
        with self._idle:
            self.wake()
            self._closed = True
            while self._waiting:
                self._idle.wait()
        self._selector.close()
        self._waker.close()
        self._alarm.close()
