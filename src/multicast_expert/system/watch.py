"""Watches for interfaces that come, go and change, and calls the subscribers that restore memberships.

One daemon thread serves all subscribers of a network namespace. It blocks until the OS reports a change. It uses a
timer only while a subscriber asked to be called again, on a system that has to be polled, and for a while after its
last subscriber has gone. A second thread calls `report`, which runs the user's code. Neither delays the program's end.

Contract. You may call `watch` and `unwatch` from every thread, from signal handlers and from the garbage collector;
they never wait for a subscriber. Only the thread of a watcher closes its descriptors. After a fork the child closes its
copies of them, which changes nothing for the parent, and starts with no watcher and a fresh lock.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING, Protocol

from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.system import kernel
from multicast_expert.system.changes import Changes, Events
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.system.kernel import os_error

if TYPE_CHECKING:
    import logging

__all__ = ["Changes", "Subscriber", "get_logger", "look_soon", "unwatch", "watch"]


RETRY_INTERVAL = 0.2
"""Seconds until a subscriber that could not restore everything is called again."""
LINGER = 5.0
"""Seconds that a thread stays with nothing to do, so that sockets in quick succession share it."""
# poll(2) has no limit of descriptors and needs none of its own; Windows has select only.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)


class Subscriber(Protocol):
    """A receiver or sender to restore. All subscribers give up before any restores.

    When a stale socket is closed, Linux takes its membership from the interface that has the index now
    (ip_mc_drop_socket, ipv6_sock_mc_close): that could be one that another receiver has just restored.

    A subscriber may also have a method `report()`, which takes and returns nothing. It is called after `restore`, in
    another thread, so it may block.
    """

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Give up the memberships on the interfaces that changed; `ifaces` are those of now."""

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Restore all memberships that can be; return whether to be called again soon."""


class Watcher:
    """The watch over the interfaces of one network namespace: its thread, its descriptors and its subscribers."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._wake_up, self._bell = socket.socketpair()
        self._wake_up.setblocking(False)
        self._bell.setblocking(False)
        self.subscribers: dict[int, weakref.ref[Subscriber]] = {}
        self.again: bool = False
        """Whether the subscribers are to be called although nothing changed."""
        self.stopped: bool = False
        """Whether the thread ends, so that it serves no further subscriber."""
        self._pending = Changes()
        self._owed: dict[int, Changes] = {}
        """The changes that a subscriber failed to give up, by its id."""
        self._failures: set[object] = set()
        """The kinds of failures that were logged since the last success."""
        self._idle_since: float | None = None
        """When the last subscriber went; None: longer ago than matters."""
        self._is_timed = False
        """Whether the thread will wake by itself."""
        self._reporter = Reporter()
        self.thread: threading.Thread = threading.Thread(
            target=self._run, name="multicast_expert interfaces", daemon=True
        )

    def add(self, subscriber: Subscriber, soon: bool) -> None:
        """Serve a subscriber; `_lock` is held."""
        self.subscribers[id(subscriber)] = weakref.ref(subscriber)
        if soon:
            self.again = True
            self.wake()

    def remove(self, subscriber: Subscriber) -> None:
        """Serve it no longer; `_lock` is held."""
        self.subscribers.pop(id(subscriber), None)
        self._owed.pop(id(subscriber), None)
        if not self.subscribers:
            self._idle_since = monotonic()
            if not self._is_timed:
                self.wake()

    def wake(self) -> None:
        """End the wait of the thread; `_lock` is held."""
        if not self.stopped:
            # A full buffer wakes it as well; a program may have closed all descriptors that it does not know.
            with suppress(OSError):
                self._bell.send(b"\0")

    def close(self) -> None:
        """Close the descriptors: the thread does it at its end, the child of a fork with its copies."""
        for each in (self._events, self._wake_up, self._bell):
            each.close()

    def _run(self) -> None:
        try:
            while (timeout := self._patience()) is None or timeout >= 0:
                is_done = False
                with self._surviving("The watch for interface changes failed"):
                    self._turn(timeout)
                    is_done = True
                if not is_done:
                    # A wait that fails again and again must not keep the processor busy.
                    sleep(RETRY_INTERVAL)
        finally:
            with _lock:
                self.stopped = True
                self.close()

    def _patience(self) -> float | None:
        """Return how many seconds to wait, None: for a change only, negative: the thread is over."""
        with _lock:
            if not self.subscribers and self._idle_since is None:
                # The last one was forgotten, not closed.
                self._idle_since = monotonic()
            timers = [] if self._events.interval is None else [self._events.interval]
            if self._idle_since is not None:
                left = self._idle_since + LINGER - monotonic()
                if left >= 0:
                    # Also where another one came meanwhile: where many come and go, none of them has to ring.
                    timers.append(left)
                elif self.subscribers:
                    self._idle_since = None
                else:
                    self.stopped = True
            if self.again and self.subscribers:
                timers.append(RETRY_INTERVAL)
            self._is_timed = bool(timers)
            return -1 if self.stopped else min(timers, default=None)

    def _turn(self, timeout: float | None) -> None:
        """Wait for a change, the bell or the time, and serve the subscribers if there is a reason."""
        descriptor = self._events.fileno()
        with _Selector() as selector:
            selector.register(self._wake_up, selectors.EVENT_READ)
            if descriptor >= 0:
                selector.register(descriptor, selectors.EVENT_READ)
            ready = {key.fd for key, _ in selector.select(timeout)}
        with suppress(BlockingIOError):
            while self._wake_up.recv(4096):
                pass
        with _lock:
            again, self.again = self.again, False
            known = [each for reference in self.subscribers.values() if (each := reference()) is not None]
            if len(known) < len(self.subscribers):
                self.subscribers = {id(each): weakref.ref(each) for each in known}
        changed = self._take() if descriptor in ready or descriptor < 0 else False
        if known and (changed or again):
            self._serve(known)

    def _take(self) -> bool:
        """Add the reported changes to the pending ones; return whether there are any."""
        with self._surviving("Reading interface changes failed"):
            changes = self._events.take()
            if changes is not None:
                self._pending = self._pending.and_then(changes)
            return changes is not None
        if self._events.interval is None:
            # The source is broken, and its reports are lost.
            broken, self._events = self._events, kernel.SYSTEM.change_events()
            broken.close()
            self._pending = Changes(everything=True)
        return True

    def _serve(self, known: list[Subscriber]) -> None:
        """Let all subscribers give up, then restore, then report."""
        ifaces = None
        # It may fail for a while: the program has too many descriptors open, for instance.
        with self._surviving("Looking at the interfaces failed"):
            ifaces = scan_interfaces()
        if ifaces is None:
            return
        # What the interfaces show already was reported before: a deletion, with the name that an interface had at last.
        if self._events.interval is None and self._take():
            # It may also be later than they are.
            with _lock:
                self.again = True
                self.wake()
        changes, self._pending = self._pending.among(ifaces), Changes()
        for subscriber in known:
            owed = self._owed.setdefault(id(subscriber), Changes()).and_then(changes)
            self._owed[id(subscriber)] = owed
            with self._surviving("Giving up memberships failed"):
                subscriber.give_up(owed, ifaces)
                self._owed.pop(id(subscriber), None)
        for subscriber in known:
            with self._surviving("Restoring memberships failed"):
                if subscriber.restore(ifaces):
                    self.again = True
        with self._surviving("Reporting what happened to memberships failed"):
            self._reporter.call(known)
        if not self.again:
            self._failures.clear()

    @contextmanager
    def _surviving(self, words: str) -> Iterator[None]:
        """Log an exception, once for each kind until everything works again, and have the work repeated."""
        try:
            yield
        except Exception as error:
            self.again = True
            kind = words, type(error), getattr(error, "errno", None)
            if kind not in self._failures:
                self._failures.add(kind)
                logger = get_logger()
                logger.exception("%s; trying again", words)


def get_logger() -> logging.Logger:
    """Return the log of the library. Most programs never need it, so Python loads its module on first use."""
    import logging  # noqa: PLC0415

    return logging.getLogger("multicast_expert")


class Reporter:
    """Calls `report` of subscribers in a daemon thread, which starts when needed and ends when it has been idle."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: dict[int, weakref.ref[Subscriber]] = {}
        self._thread: threading.Thread | None = None

    def call(self, subscribers: list[Subscriber]) -> None:
        """Have them called soon. Raises RuntimeError when the system has no thread for it; then call again later."""
        reporting = {id(each): weakref.ref(each) for each in subscribers if hasattr(each, "report")}
        with self._changed:
            self._waiting |= reporting
            self._changed.notify()
            if self._waiting and self._thread is None:
                thread = threading.Thread(target=self._run, name="multicast_expert reports", daemon=True)
                thread.start()
                self._thread = thread

    def _run(self) -> None:
        while True:
            with self._changed:
                if not self._waiting:
                    self._changed.wait(LINGER)
                if not self._waiting:
                    self._thread = None
                    return
                subscriber = self._waiting.pop(next(iter(self._waiting)))()
            try:
                if subscriber is not None:
                    getattr(subscriber, "report")()  # noqa: B009 - a subscriber need not have it
            except (Exception, SystemExit):
                logger = get_logger()
                logger.exception("Reporting what happened to memberships failed")
            del subscriber  # else it would not be collected while this thread waits


_watchers: dict[int, Watcher] = {}
# Reentrant, because a signal handler or the collector may call `watch` or `unwatch` while this thread holds it.
_lock = threading.RLock()


def watch(subscriber: Subscriber, namespace: int, soon: bool = False) -> None:
    """Call the subscriber, in a background thread, whenever interfaces change. It is held weakly.

    `namespace`: a number for the network namespace that this thread is in. `soon`: call it once without waiting for a
    change. Raises MulticastOSError when the system has no descriptor or no thread for it.
    """
    with _lock:
        watcher = _watchers.get(namespace)
        if watcher is not None and not watcher.stopped:
            watcher.add(subscriber, soon)
            return
        try:
            events = kernel.SYSTEM.change_events()
            try:
                watcher = _watchers[namespace] = Watcher(events)
            except BaseException:
                events.close()
                raise
        except OSError as error:
            raise _refusal(error) from error
        watcher.add(subscriber, soon)
        try:
            watcher.thread.start()
        except BaseException as error:
            del _watchers[namespace]
            watcher.stopped = True
            watcher.close()
            if isinstance(error, RuntimeError):
                raise _no_thread(error) from error
            raise


def look_soon(namespace: int) -> None:
    """Call all subscribers of a network namespace without waiting for a change."""
    with _lock:
        watcher = _watchers.get(namespace)
        if watcher is not None:
            watcher.again = True
            watcher.wake()


def _refusal(error: OSError) -> MulticastOSError:
    return os_error(kernel.SYSTEM, error, "watch", "watch for interface changes")


def _no_thread(error: RuntimeError) -> MulticastExpertError:
    if "start new thread" in str(error):
        return _refusal(OSError(errno.EAGAIN, str(error)))
    # The program is ending, or this is an interpreter within another one.
    return MulticastExpertError(f"Changes of the interfaces cannot be watched here: {error}. Pass heal=False.")


def unwatch(subscriber: Subscriber, namespace: int) -> None:
    """End the calls that `watch` began."""
    with _lock:
        watcher = _watchers.get(namespace)
        if watcher is not None:
            watcher.remove(subscriber)


def forget_watchers() -> None:
    """Begin anew in the child of a fork, which has no such threads: close its copies of their descriptors."""
    global _lock, _watchers  # noqa: PLW0603 - another thread of the parent may hold the lock, for ever in the child
    _lock = threading.RLock()
    inherited, _watchers = _watchers, {}
    for watcher in inherited.values():
        watcher.close()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=forget_watchers)
