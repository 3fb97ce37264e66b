"""Watches for interfaces that come, go and change: netlink wakes it on Linux, elsewhere it looks twice a second.

Touches the OS. One background thread serves all sockets of a network namespace; it ends when nobody has needed it for a
while.
"""

from __future__ import annotations

import atexit
import errno
import logging
import os
import socket
import threading
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from struct import Struct
from time import monotonic, sleep
from typing import NamedTuple, Protocol

from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.system.kernel import SYSTEM
from multicast_expert.system.routes import AF_NETLINK

logger: logging.Logger = logging.getLogger("multicast_expert")

RETRY_INTERVAL = 0.2
"""Seconds until a subscriber that could not restore everything is called again."""
POLL_INTERVAL = 0.5
"""Seconds between two looks where the OS has nothing to wake us."""
LINGER = 5.0
"""Seconds that the thread stays after its last subscriber has gone, so that sockets in quick succession share it."""
MIN_IPV6_MTU = 1280
"""Below it, Linux takes IPv6 off the interface and all its memberships with it (RFC 8200, 5)."""

_RTM_NEWLINK = 16
_RTM_DELLINK = 17
# The multicast groups of rtnetlink(7) for links, IPv4 and IPv6 addresses.
_RTMGRP = 0x1 | 0x10 | 0x100
_IFLA_MTU = 4
_HEADER = Struct("=IHHII")
_IFINFO = Struct("=BxHiII")
_ATTRIBUTE = Struct("=HH")
_UNSIGNED = Struct("=I")


class Changes(NamedTuple):
    """What happened to interfaces since the last look, by index."""

    deleted: frozenset[int] = frozenset()
    """Deleted, though one of the same index may be there again."""
    without_ipv6: frozenset[int] = frozenset()
    """Lost IPv6, though it may be back."""

    def and_then(self, later: Changes) -> Changes:
        """Return these changes and later ones together."""
        return Changes(self.deleted | later.deleted, self.without_ipv6 | later.without_ipv6)


class Subscriber(Protocol):
    """Who wants to know. All give up before any restores.

    When a stale socket is closed, Linux takes its membership from whatever interface has the index now
    (ip_mc_drop_socket, ipv6_sock_mc_close): it would be that which another receiver has just restored.
    """

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Give up what the changes took away; `ifaces` are those of now."""

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Restore what can be; return whether to be called again soon."""


class Events(Protocol):
    """Where changes come from."""

    def wait(self, timeout: float) -> Changes | None:
        """Return what changed, or None after `timeout` seconds."""

    def close(self) -> None:
        """Give back what it holds."""


def parse_link_events(messages: bytes) -> Changes:
    """Return what the rtnetlink messages tell about deleted interfaces and lost IPv6; a cut message ends it."""
    deleted = set()
    without_ipv6 = set()
    start = 0
    while start + _HEADER.size <= len(messages):
        length, kind, *_ = _HEADER.unpack_from(messages, start)
        if length < _HEADER.size or start + length > len(messages):
            break
        if kind in (_RTM_NEWLINK, _RTM_DELLINK) and length >= _HEADER.size + _IFINFO.size:
            family, _, index, _, _ = _IFINFO.unpack_from(messages, start + _HEADER.size)
            # Other families speak of a bridge port that was taken out of its bridge, not of the interface itself.
            if family == 0 and kind == _RTM_DELLINK:
                deleted.add(index)
            elif family == 0 and _mtu(messages[start + _HEADER.size + _IFINFO.size : start + length]) < MIN_IPV6_MTU:
                without_ipv6.add(index)
        start += (length + 3) // 4 * 4
    return Changes(frozenset(deleted), frozenset(without_ipv6))


def _mtu(attributes: bytes) -> int:
    start = 0
    while start + _ATTRIBUTE.size <= len(attributes):
        size, name = _ATTRIBUTE.unpack_from(attributes, start)
        if size < _ATTRIBUTE.size:
            break
        if name == _IFLA_MTU and len(attributes) >= start + 8:
            return int(_UNSIGNED.unpack_from(attributes, start + 4)[0])
        start += (size + 3) // 4 * 4
    return MIN_IPV6_MTU


class NetlinkEvents:
    """Changes as Linux tells them (rtnetlink(7)); needs no privilege."""

    def __init__(self) -> None:
        self._socket = socket.socket(AF_NETLINK, socket.SOCK_RAW, 0)
        try:
            self._socket.bind((0, _RTMGRP))
        except OSError:
            self._socket.close()
            raise

    def wait(self, timeout: float) -> Changes | None:
        """Return what changed, or None after `timeout` seconds."""
        self._socket.settimeout(timeout)
        try:
            changes = self._read(Changes())
        except (TimeoutError, BlockingIOError):
            return None
        self._socket.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                changes = self._read(changes)
        return changes

    def _read(self, changes: Changes) -> Changes:
        try:
            more = parse_link_events(self._socket.recv(262144))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # The queue overflowed and events are lost: every interface may have been deleted and come back.
            every = frozenset(index for index, _ in socket.if_nameindex())
            more = Changes(every, every)
        return changes.and_then(more)

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()


class PolledEvents:
    """Changes found by looking again and again: a new interface of the same index in between stays unseen."""

    def __init__(self) -> None:
        self._seen = {iface.index: iface for iface in scan_interfaces()}
        self._looked_at = monotonic()

    def wait(self, timeout: float) -> Changes | None:
        """Return what changed, or None after `timeout` seconds."""
        remaining = max(0.0, self._looked_at + POLL_INTERVAL - monotonic())
        sleep(min(timeout, remaining))
        if timeout < remaining:
            return None
        self._looked_at = monotonic()
        now = {iface.index: iface for iface in scan_interfaces()}
        before, self._seen = self._seen, now
        if now == before:
            return None
        shrunk = [index for index, iface in now.items() if iface.mtu is not None and iface.mtu < MIN_IPV6_MTU]
        return Changes(frozenset(before.keys() - now.keys()), frozenset(shrunk))

    def close(self) -> None:
        """Nothing is held."""


class Watcher:
    """The thread that watches the interfaces of one network namespace."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._idle_since = monotonic()
        self.subscribers: dict[int, weakref.ref[Subscriber]] = {}
        self._untold = Changes()
        self.again: bool = False
        """Whether somebody wants to be told although nothing changed."""
        self.stopped: bool = False
        self.thread: threading.Thread = threading.Thread(
            target=self._run, name="multicast_expert interfaces", daemon=True
        )
        self.thread.start()

    def _run(self) -> None:
        try:
            while not self._is_over():
                changes = self._events.wait(RETRY_INTERVAL)
                if changes is not None or self.again:
                    self._untold = self._untold.and_then(changes or Changes())
                    self._tell()
        except Exception:
            logger.exception("The watch for interface changes ended; memberships are no longer restored")
        finally:
            self.stopped = True
            self._events.close()

    def _is_over(self) -> bool:
        with _lock:
            if self.subscribers:
                self._idle_since = monotonic()
            elif monotonic() - self._idle_since > LINGER:
                self.stopped = True
            return self.stopped

    def _tell(self) -> None:
        self.again = False
        with _lock:
            subscribers = [subscriber for reference in self.subscribers.values() if (subscriber := reference())]
        try:
            ifaces = scan_interfaces() if subscribers else []
        except OSError:
            # It passes: EMFILE, when the program has too much open.
            logger.exception("Cannot look at the interfaces; trying again")
            self.again = True
            return
        changes, self._untold = self._untold, Changes()
        for subscriber in subscribers:
            with self._going_on():
                subscriber.give_up(changes, ifaces)
        for subscriber in subscribers:
            with self._going_on():
                if subscriber.restore(ifaces):
                    self.again = True

    @contextmanager
    def _going_on(self) -> Iterator[None]:
        try:
            yield
        except Exception:
            logger.exception("Restoring memberships failed")
            self.again = True


_watchers: dict[int, Watcher] = {}
# Reentrant, because a forgotten receiver may be collected, and so unwatched, while it is held.
_lock = threading.RLock()


def watch(subscriber: Subscriber, namespace: int, soon: bool = False) -> None:
    """Tell the subscriber, in a background thread, whenever interfaces change. It is held weakly.

    `namespace`: a number for the network namespace that this thread is in. `soon`: tell it once without waiting for a
    change.
    """
    with _lock:
        watcher = _watchers.get(namespace)
        if watcher is None or watcher.stopped:
            watcher = Watcher(_events())
            _watchers[namespace] = watcher
        watcher.subscribers[id(subscriber)] = weakref.ref(subscriber)
        if soon:
            watcher.again = True


def _events() -> Events:
    if SYSTEM.platform.name == "linux":
        # Some sandboxes allow no netlink sockets.
        with suppress(OSError):
            return NetlinkEvents()
    return PolledEvents()


def unwatch(subscriber: Subscriber, namespace: int) -> None:
    """End what `watch` began."""
    with _lock:
        watcher = _watchers.get(namespace)
        if watcher is not None:
            watcher.subscribers.pop(id(subscriber), None)


def _stop_all() -> None:
    watchers = list(_watchers.values())
    for watcher in watchers:
        watcher.stopped = True
    for watcher in watchers:
        watcher.thread.join()


def _forget_all() -> None:
    """The child of a fork has no such threads."""
    _watchers.clear()
    _lock.release()


atexit.register(_stop_all)
if hasattr(os, "register_at_fork"):
    # A lock that another thread holds would stay held in the child for ever.
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_forget_all)
