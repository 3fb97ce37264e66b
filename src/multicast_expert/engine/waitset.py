"""WaitSet: waits for the sockets of one receiver or sender, and keeps the rule of waiting, waking and closing.

The contract
- Any thread may wait, and any number at once. A thread registers a token of its own inside the `try` whose `finally`
  removes it. CPython runs signal handlers and switches threads after calls only, so no interrupt comes between the
  end of the wait and the removal, and none leaves a token behind.
- `ring` ends the waits that have begun; a later one is not disturbed. What rings is drained until it is empty, by
  whichever thread finds that every rung wait has ended. No lock is involved: a drain that swallowed a newer ring rings
  again. Event loops are told by their watchers.
- `close` rings, waits until the other threads have left, but not for ever and never for its own thread, and gives the
  descriptors back; if a wait is still under way then, that thread gives them back when it leaves. So `close` may be
  called from a signal handler, from another thread, and twice.
- In the child of a fork call `abandon`: it closes the child's copies and tells the shared epoll instance nothing.
"""

from __future__ import annotations

import _socket
import os
import select
import selectors
import socket
from collections.abc import Callable
from contextlib import suppress
from threading import get_ident
from time import monotonic, sleep
from typing import Any, Generic, Protocol, TypeVar

from multicast_expert.system import kernel

Data = TypeVar("Data")

GLANCE = 1.0
"""Seconds that one wait lasts: a signal that comes just before the OS waits does not end the wait."""
SLICE = 0.2
"""The same where the OS never ends a wait for a signal."""
PATIENCE = 5.0
"""Seconds that `close` waits for other threads; a thread that the ring reaches leaves within a millisecond."""
# How many ready descriptors one look of epoll reports at most; the next look reports the others, in turn.
MOST_EVENTS = 256
# Between two steps of Python's own `socketpair` a signal handler that raises would leave a descriptor without an owner.
_SOCKETPAIR: Any = getattr(_socket, "socketpair", socket.socketpair)
# linux/eventpoll.h
_EPOLLIN, _EPOLLOUT = 1, 4


class Watcher(Protocol):
    """Waits for a set in event loops, by copies of its descriptor."""

    def share(self) -> None:
        """Wake a task, if one waits: there is something for it."""

    def close(self) -> None:
        """Wake every task: the set is closed."""

    def abandon(self) -> None:
        """Close the copies that the child of a fork has."""


class _Selector(Generic[Data]):
    """The selector of this OS."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self.register = self._selector.register
        self.unregister = self._selector.unregister
        self.close = self._selector.close
        # Event loops can watch the descriptor of a selector where it has one (kqueue).
        self.descriptor: int = getattr(self._selector, "fileno", lambda: -1)()

    def select(self, timeout: float | None) -> list[Data]:
        return [key.data for key, _ in self._selector.select(timeout) if key.data is not None]


class _Epoll(Generic[Data]):
    """As `selectors.EpollSelector`; but what a look costs does not grow with the number of descriptors."""

    def __init__(self) -> None:
        # By name: type checkers know it on Linux only.
        self._epoll: Any = vars(select)["epoll"]()
        self._data: dict[int, Data | None] = {}
        self.close = self._epoll.close
        self.descriptor: int = self._epoll.fileno()

    def register(self, descriptor: int, events: int, data: Data | None) -> None:
        self._data[descriptor] = data
        self._epoll.register(descriptor, _EPOLLIN if events == selectors.EVENT_READ else _EPOLLOUT)

    def unregister(self, descriptor: int) -> None:
        self._data.pop(descriptor, None)
        with suppress(OSError, ValueError):
            self._epoll.unregister(descriptor)

    def select(self, timeout: float | None) -> list[Data]:
        # Another thread may have removed one of them meanwhile.
        known = self._data.get
        found = self._epoll.poll(timeout, MOST_EVENTS)
        return [data for descriptor, _ in found if (data := known(descriptor)) is not None]


class _Beacon:
    """A selector around that of a set and a signal of its own, which no receive can take for a socket of the set."""

    def __init__(self, descriptor: int, selector: _Selector[Any] | _Epoll[Any]) -> None:
        self._selector = selector
        self.descriptor: int = selector.descriptor
        self._lamp, self._light = _SOCKETPAIR()
        self._lamp.setblocking(False)
        self._light.setblocking(False)
        for each in (descriptor, self._light.fileno()):
            selector.register(each, selectors.EVENT_READ, None)

    def show(self, lit: bool) -> None:
        # A full buffer shines as well as another byte.
        with suppress(OSError):
            if lit:
                self._lamp.send(b"\0")
            else:
                while self._light.recv(64):
                    pass

    def close(self) -> None:
        self._selector.close()
        self._lamp.close()
        self._light.close()


class Copy:
    """A copy of a descriptor. It is closed by `close`, or when nobody holds this object any longer."""

    descriptor: int = -1

    def __init__(self, descriptor: int) -> None:
        # Unpacking calls `dup` and assigns without a moment for a signal handler in between.
        (self.descriptor,) = map(os.dup, (descriptor,))

    def close(self) -> None:
        """Close it; once is enough."""
        descriptor, self.descriptor = self.descriptor, -1
        if descriptor >= 0:
            os.close(descriptor)

    __del__ = close


class WaitSet(Generic[Data]):
    """A set of descriptors that other threads may change and close while some wait for it; see the file's contract.

    `kept`: whether something is there already, so that no wait is needed. Raises OSError when the OS gives no
    descriptors for it.
    """

    def __init__(self, kept: Callable[[], bool] = lambda: False) -> None:
        self._kept = kept
        self.closed: bool = False
        self.inside: dict[object, int] = {}
        """The waits under way: the token of each, and its thread. A caller with a wait of its own adds to it, too."""
        self.rung: set[object] = set()
        """The tokens that a ring has to reach."""
        self.watchers: list[Watcher] = []
        self._selector: _Selector[Data] | _Epoll[Data]
        by_epoll = selectors.DefaultSelector is getattr(selectors, "EpollSelector", None)
        self._selector = _Epoll() if by_epoll else _Selector()
        try:
            self._waker, self._alarm = _SOCKETPAIR()
        except OSError:
            self._selector.close()
            raise
        self._waker.setblocking(False)
        self._alarm.setblocking(False)
        self.alarm: int = self._alarm.fileno()
        """A descriptor that is readable while a ring has not reached everybody."""
        self.descriptor: int = self._selector.descriptor
        """A descriptor that is readable while any of the set is ready, for event loops; -1 where there is none."""
        self.epoll: int = self.descriptor if by_epoll else -1
        """The same where it is an epoll instance (Linux), else -1."""
        self.glance: float = GLANCE if kernel.SYSTEM.platform.interrupts_waits else SLICE
        """For how many seconds a thread waits at once, so that signal handlers run."""
        self._selector.register(self.alarm, selectors.EVENT_READ, None)
        self._beacon: _Beacon | None = None

    def add(self, descriptor: int, data: Data, events: int = selectors.EVENT_READ) -> None:
        """Wait for this descriptor too, until it is readable; `data` is what `wait` returns for it.

        `events`: EVENT_WRITE of `selectors`, to wait until it is writable instead.
        """
        try:
            self._selector.register(descriptor, events, data)
        except (OSError, ValueError):
            # A signal handler may have closed it just now.
            if not self.closed:
                raise
        self.ring()

    def remove(self, descriptor: int) -> None:
        """Wait for this descriptor no longer. Call `settle` before you close it."""
        with suppress(KeyError, ValueError):
            self._selector.unregister(descriptor)

    def wait(self, timeout: float | None) -> list[Data]:
        """Return the data of the descriptors that are ready, after `timeout` seconds at the latest (None: never).

        May return early and empty: after a `ring`, or to let signal handlers run.
        """
        inside, token, thread = self.inside, object(), get_ident()
        if timeout is None or timeout > self.glance:
            timeout = self.glance
        found: list[Data] = []
        try:
            inside[token] = thread
            # A thread that changed one of them since either saw this token, or is seen here.
            if not self.closed:
                found = self._selector.select(0 if self._kept() else timeout)
        except (OSError, ValueError):
            # A signal handler closed it, or select(2) of Windows met a socket that was closed meanwhile (WSAENOTSOCK).
            if not self.closed and self.descriptor >= 0:
                raise
        finally:
            inside.pop(token, None)
            if self.rung or self.closed or not found:
                self.left()
        return found

    def left(self) -> None:
        """Tidy up after a wait that may have been rung, or was the last one of a closed set."""
        if self.closed:
            self._release()
            return
        ended = [token for token in list(self.rung) if token not in self.inside]
        if len(ended) == len(self.rung):
            # It is empty, or closed meanwhile.
            with suppress(OSError):
                while self._alarm.recv(64):
                    pass
            # Not a generator: CPython 3.13 crashes a moment after it had no memory to make one.
            if [token for token in list(self.rung) if token in self.inside]:
                # A newer ring was among what was drained.
                self._send()
        self.rung.difference_update(ended)

    def ring(self) -> None:
        """End the waits that are under way, and let the event loops look."""
        self.ring_threads()
        for watcher in self.watchers:
            watcher.share()

    def ring_threads(self) -> None:
        """End the waits of threads that are under way."""
        if self.inside:
            self.rung.update(self.inside)
            self._send()

    def shown(self) -> int:
        """Return a descriptor for selectors of the user's own; -1 where there is none. Raises OSError.

        It is readable while any of the set is ready, and while `show` was told that something is kept.
        """
        if self._beacon is None and self.descriptor >= 0:
            beacon = _Beacon(self.descriptor, type(self._selector)())
            # Another thread may have been faster.
            if self._beacon is None:
                self._beacon = beacon
            else:
                beacon.close()
        return -1 if self._beacon is None else self._beacon.descriptor

    def show(self) -> None:
        """Let the descriptor that `shown` returns be readable as long as something is kept."""
        if self._beacon is not None:
            self._beacon.show(self._kept())

    def duplicate(self) -> Copy | None:
        """Return a copy of the descriptor, for an event loop; None where there is none to copy. Raises OSError."""
        token = object()
        thread = get_ident()
        try:
            self.inside[token] = thread
            return None if self.closed or self.descriptor < 0 else Copy(self.descriptor)
        finally:
            self.inside.pop(token, None)
            if self.closed or self.rung:
                self.left()

    def _send(self) -> None:
        # A full buffer rings as well as another byte; after a close no wait is left to end.
        with suppress(OSError):
            self._waker.send(b"\0")

    def settle(self, patience: float = PATIENCE) -> bool:
        """Return whether no other thread is in a wait that began before, after `patience` seconds at the latest."""
        own = get_ident()
        others = [token for token, thread in list(self.inside.items()) if thread != own]
        if not others:
            return True
        self.ring_threads()
        deadline = monotonic() + patience
        pause = 0.00002
        while any(token in self.inside for token in others):
            if monotonic() > deadline:
                return False
            sleep(pause)
            pause = min(2 * pause, 0.002)
        return True

    def close(self) -> None:
        """Wake every waiting thread, wait until it has left, and give the descriptors back; see the file's contract."""
        self.closed = True
        for watcher in self.watchers:
            watcher.close()
        self.settle()
        self._release()

    def _release(self) -> None:
        if not self.inside:
            self._selector.close()
            self._waker.close()
            self._alarm.close()
            if self._beacon is not None:
                self._beacon.close()

    def abandon(self) -> None:
        """Close the copies that the child of a fork has; the parent's set goes on."""
        self.closed = True
        self.inside = {}
        for watcher in self.watchers:
            watcher.abandon()
        # Closing a descriptor that the OS did not hand to the child fails, and that is fine.
        with suppress(OSError):
            self._release()
