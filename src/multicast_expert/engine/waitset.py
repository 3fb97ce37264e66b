"""Waits for sockets: one selector for all of a receiver or transmitter, and a way to wake who waits. Touches the OS."""

from __future__ import annotations

import select
import selectors
import socket
import threading
from collections.abc import Callable, Sized
from contextlib import suppress
from typing import Any, Generic, TypeVar

Data = TypeVar("Data")

LONGEST = 86400.0
"""Seconds: no `wait` is longer, because selectors refuse to wait for months."""
# How many ready descriptors one look of epoll tells at most; the others are told by the next, in turn.
MOST_EVENTS = 256
# linux/eventpoll.h
_EPOLLIN, _EPOLLOUT = 1, 4


class _Selector(Generic[Data]):
    """The selector of this OS."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.register = self._selector.register
        self.unregister = self._selector.unregister
        self.close = self._selector.close

    def select(self, timeout: float | None) -> list[Data]:
        return [key.data for key, _ in self._selector.select(timeout) if key.data is not None]

    def fileno(self) -> int | None:
        fileno = getattr(self._selector, "fileno", None)
        return None if fileno is None else fileno()


class _Epoll(Generic[Data]):
    """As `selectors.EpollSelector`; but what a look costs does not grow with the number of descriptors."""

    def __init__(self) -> None:
        # By name: type checkers know it on Linux only.
        self._epoll: Any = vars(select)["epoll"]()
        self._data: dict[int, Data | None] = {}
        self.close = self._epoll.close

    def register(self, descriptor: int, events: int, data: Data | None) -> None:
        self._epoll.register(descriptor, _EPOLLIN if events == selectors.EVENT_READ else _EPOLLOUT)
        self._data[descriptor] = data

    def unregister(self, descriptor: int) -> None:
        del self._data[descriptor]
        with suppress(OSError):
            self._epoll.unregister(descriptor)

    def select(self, timeout: float | None) -> list[Data]:
        # Another thread may have removed one of them meanwhile.
        known = self._data.get
        found = self._epoll.poll(timeout, MOST_EVENTS)
        return [data for descriptor, _ in found if (data := known(descriptor)) is not None]

    def fileno(self) -> int:
        descriptor: int = self._epoll.fileno()
        return descriptor


class Waiter(Generic[Data]):
    """A set of descriptors that may change, and be closed, from other threads while one waits for it.

    `kept`: while there is anything in it, nobody has to wait.
    """

    def __init__(self, kept: Sized = ()) -> None:
        self._selector: _Selector[Data] | _Epoll[Data]
        self.epoll: int | None = None
        """The descriptor of the epoll instance, where it is one (Linux)."""
        by_epoll = selectors.DefaultSelector is getattr(selectors, "EpollSelector", None)
        if by_epoll:
            self._selector = _Epoll()
            self.epoll = self._selector.fileno()
        else:
            self._selector = _Selector()
        self._kept = kept
        try:
            self._waker, self._alarm = socket.socketpair()
        except OSError:
            self._selector.close()
            raise
        self._waker.setblocking(False)
        self._alarm.setblocking(False)
        self.alarm: int = self._alarm.fileno()
        """A descriptor that is readable while who waits shall stop it."""
        self._selector.register(self.alarm, selectors.EVENT_READ, None)
        self._lock = threading.RLock()
        self._idle = threading.Condition(self._lock)
        self.waiting: list[None] = []
        """As long as there are threads that wait; a list, because it grows and shrinks without a lock."""
        self._ringing = False
        self._closed = False
        self.on_close: Callable[[], None] | None = None
        """Called before the selector's own descriptor is closed, for who lets an event loop watch it."""

    def add(self, descriptor: int, data: Data, events: int = selectors.EVENT_READ) -> None:
        """Wait for this descriptor too, until it is readable; `data` is what `wait` returns for it.

        `events`: EVENT_WRITE of `selectors`, to wait until it is writable instead.
        """
        self._selector.register(descriptor, events, data)
        if self.waiting:
            self.wake()

    def remove(self, descriptor: int) -> None:
        """Wait for this descriptor no longer; to be called before it is closed.

        Who waits looks up: the kernel keeps a socket alive, memberships included, while somebody waits for it.
        """
        self._selector.unregister(descriptor)
        if self.waiting:
            self.wake()

    def wait(self, timeout: float | None) -> list[Data]:
        """Return the data of the descriptors that are ready, after `timeout` seconds at the latest (None: never).

        May return early and empty, after a `wake`.
        """
        if not self.enter():
            return []
        try:
            # Who put something there since either saw that this one waits, or is seen here.
            longest = 0 if self._kept else None if timeout is None else min(timeout, LONGEST)
            return self._selector.select(longest)
        except OSError:
            if self.fileno() is not None:
                raise
            # select(2) of Windows refuses a set of which a socket was closed meanwhile (WSAENOTSOCK).
            return []
        finally:
            self.leave()

    def enter(self) -> bool:
        """Note that the caller is about to wait, in its own way, until `alarm` is readable; return whether it may.

        If so, it has to `leave` afterwards.
        """
        self.waiting.append(None)
        if self._closed:
            self.leave()
            return False
        return True

    def leave(self) -> None:
        """Note that the caller does not wait any longer."""
        self.waiting.pop()
        if self._ringing or self._closed:
            with self._lock:
                if self._closed:
                    self._idle.notify_all()
                elif not self.waiting:
                    # The last one to leave: every other has seen the alarm by now.
                    self._silence()

    def wake(self) -> None:
        """Make every `wait` in other threads return."""
        with self._lock:
            self._ring()

    def _ring(self) -> None:
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
        return self._selector.fileno()

    def close(self) -> None:
        """Wake whoever waits, wait until nobody does, and close; a second call does nothing."""
        if self._closed:
            return
        if self.on_close is not None:
            self.on_close()
        with self._idle:
            self._ring()
            self._closed = True
            while self.waiting:
                self._idle.wait()
        self._selector.close()
        self._waker.close()
        self._alarm.close()
