"""Watches for interface changes as tests see them: what they are told, whom they serve, and their end."""

import errno
import queue
import socket
import threading
from typing import Any

from multicast_expert import IfaceInfo
from multicast_expert.system import watch as watcher
from multicast_expert.system.changes import Changes

PATIENCE = 10.0


class ScriptedEvents:
    """Changes as a test tells them."""

    def __init__(self) -> None:
        self.interval: float | None = None
        self.closed = threading.Event()
        self._changes: queue.Queue[Changes | Exception] = queue.Queue()
        self._readable, self._writable = socket.socketpair()
        self._readable.setblocking(False)

    def tell(self, changes: Changes | Exception) -> None:
        """Report this to the watch."""
        self._changes.put(changes)
        self._writable.send(b"!")

    def fileno(self) -> int:
        """Return a descriptor that is readable while something was told."""
        return self._readable.fileno()

    def take(self) -> Changes | None:
        """Return the next of the script."""
        try:
            self._readable.recv(1)
        except BlockingIOError:
            return None
        following = self._changes.get()
        if isinstance(following, Exception):
            raise following
        return following

    def close(self) -> None:
        """Note it."""
        self._readable.close()
        self._writable.close()
        self.closed.set()


class Recorder:
    """A subscriber that notes what it is told, in a list that several may share."""

    def __init__(self, name: str = "", notes: list[str] | None = None) -> None:
        self.name = name
        self.notes = [] if notes is None else notes
        self.deleted: list[set[int]] = []
        self.again = False

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Note it."""
        self.notes.append(f"{self.name} gives up")
        self.deleted.append(set(changes.deleted))

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Note it."""
        self.notes.append(f"{self.name} restores")
        again, self.again = self.again, False
        return again


def subscribers_of(namespace: int) -> list[Any]:
    """Whom the watch there serves."""
    watching = watcher._watchers.get(namespace)
    return [] if watching is None else [reference() for reference in list(watching.subscribers.values())]


def end_watches() -> None:
    """End all watches now, so that their descriptors confuse no count."""
    with watcher._lock:
        watching = list(watcher._watchers.values())
        for each in watching:
            each.wake()
            each.stopped = True
    for each in watching:
        each.thread.join(PATIENCE)
        assert not each.thread.is_alive()


TOO_MANY_FILES = OSError(errno.EMFILE, "Too many open files")
