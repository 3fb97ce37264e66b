"""Waits for sockets: one selector for all of a receiver's, and a way to wake who waits. Touches the OS."""

from __future__ import annotations

import selectors
import socket
import threading
from typing import Generic, TypeVar

Data = TypeVar("Data")


class Waiter(Generic[Data]):
    """A set of descriptors that may change, and be closed, from other threads while one waits for it."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._waker, self._alarm = socket.socketpair()
        self._waker.setblocking(False)
        self._alarm.setblocking(False)
        self._selector.register(self._alarm, selectors.EVENT_READ, None)
        self._idle = threading.Condition()
        self._waiting = 0

    def add(self, descriptor: int, data: Data) -> None:
        """Wait for this descriptor too; `data` is what `wait` returns for it."""
        self._selector.register(descriptor, selectors.EVENT_READ, data)
        if self._waiting:
            self.wake()

    def remove(self, descriptor: int) -> None:
        """Wait for this descriptor no longer; to be called before it is closed."""
        self._selector.unregister(descriptor)

    def wait(self, timeout: float | None) -> list[Data]:
        """Return the data of the descriptors that are readable, after `timeout` seconds at the latest (None: never).

        May return early and empty, after a `wake`.
        """
        with self._idle:
            self._waiting += 1
        try:
            ready = [key.data for key, _ in self._selector.select(timeout)]
        finally:
            with self._idle:
                self._waiting -= 1
                self._idle.notify_all()
        if None in ready:
            ready.remove(None)
            try:
                self._alarm.recv(4096)
            except BlockingIOError:
                pass
        return ready

    def wake(self) -> None:
        """Make a `wait` in another thread return."""
        try:
            self._waker.send(b"\0")
        except BlockingIOError:
            pass

    def fileno(self) -> int | None:
        """Return a descriptor that is readable while any of the set is; None where the OS has no such thing."""
        fileno = getattr(self._selector, "fileno", None)
        return None if fileno is None else fileno()

    def descriptors(self) -> list[int]:
        """Return every descriptor of the set, that of `wake` included."""
        return [key.fd for key in self._selector.get_map().values()]

    def close(self) -> None:
        """Wake whoever waits, wait until nobody does, and close."""
        with self._idle:
            while self._waiting:
                self.wake()
                self._idle.wait(0.05)
        self._selector.close()
        self._waker.close()
        self._alarm.close()
