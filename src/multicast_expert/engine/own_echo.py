"""OwnEcho: keeps from a socket what it sent itself, and nothing else. Touches the OS; never waits for a datagram.

Where the kernel marks what a socket sends (Linux), a filter on every receiving socket drops it, exactly. Elsewhere each
payload that was sent is remembered for a moment, and the first datagram with this payload from the own port is dropped:
if an echo is lost, the same payload from another socket of this host that shares the port may be dropped instead.
"""

from __future__ import annotations

import threading
from collections import deque
from ipaddress import ip_address
from time import monotonic
from weakref import WeakKeyDictionary

from multicast_expert.core.datagram import Datagram
from multicast_expert.engine.send import SendSocket
from multicast_expert.system.base import Mark, Marks, Screen, System, is_scarcity
from multicast_expert.system.kernel import Kernel, Socket

MEMORY = 2.0
"""Seconds after which an echo does not come any more."""
MOST_REMEMBERED = 4096
# How many marks of one outlet are kept: what a socket sent just before it was replaced may still come back.
_MARKS_OF_AN_OUTLET = 3


class OwnEcho:
    """What one owner sent; any thread may call it. `wanted`: whether the owner wants it back."""

    def __init__(self, system: Kernel, version: int, port: int, wanted: bool = False) -> None:
        self._version = version
        self._marks: Marks | None = system.marks if isinstance(system, System) else None
        self._lock = threading.RLock()
        self._screened: WeakKeyDictionary[Socket, bool] = WeakKeyDictionary()
        self._known: dict[int, list[Mark]] = {}
        self._sent: deque[tuple[float, bytes]] = deque()
        self._is_wanted = wanted
        self.by_payload: bool = self._marks is None and not wanted
        """Whether payloads have to be compared, because the kernel has no marks."""
        self._hosts: set[str] = set()
        self._port = port

    def screen(self, sock: Socket, hosts_only: bool) -> None:
        """Let a socket that is about to be bound drop what the owner sends. Raises OSError."""
        if self._marks is not None:
            with self._lock:
                self._screened[sock] = hosts_only
                self._marks.screen(sock, self._screen(hosts_only))

    def _screen(self, hosts_only: bool) -> Screen:
        marks = tuple(mark for marks in self._known.values() for mark in marks)
        hosts = tuple(sorted(ip_address(host).packed for host in self._hosts)) if self._version == 6 else ()
        return Screen(marks, self._port, hosts, hosts_only)

    def _screen_all(self) -> None:
        for sock, hosts_only in list(self._screened.items()):
            if self._marks is not None and sock.fileno() >= 0:
                self._marks.screen(sock, self._screen(hosts_only))

    def send_from(self, hosts: set[str]) -> None:
        """Note the addresses that the owner sends from, without scopes. Raises OSError."""
        with self._lock:
            if hosts != self._hosts:
                self._hosts = hosts
                self._screen_all()

    def learn(self, index: int, sender: SendSocket) -> None:
        """Recognise what this socket sends from now on; it is the one of interface `index`. Raises OSError."""
        if self._marks is None or self._is_wanted or self.by_payload:
            return
        try:
            mark = self._marks.read(sender.socket, self._version)
        except OSError as error:
            if self._known or is_scarcity(error):
                raise
            # The loopback interface is down, or a firewall keeps it silent.
            self.by_payload = True
            return
        with self._lock:
            self._known[index] = [*self._known.get(index, []), mark][-_MARKS_OF_AN_OUTLET:]
            self._screen_all()

    def abandon(self) -> None:
        """Let the child of a fork go on; another thread of the parent may have held the lock."""
        self._lock = threading.RLock()

    def note(self, payload: bytes) -> None:
        """Remember what is about to be sent, out of one interface."""
        with self._lock:
            now = monotonic()
            while self._sent and (self._sent[0][0] < now - MEMORY or len(self._sent) >= MOST_REMEMBERED):
                self._sent.popleft()
            self._sent.append((now, bytes(payload)))

    def is_own(self, datagram: Datagram) -> bool:
        """Return whether the owner sent it, as far as payloads tell; an echo is recognised once."""
        if not self._sent or datagram.sender[1] != self._port:
            return False
        if datagram.sender[0].partition("%")[0] not in self._hosts:
            return False
        with self._lock:
            for place, (_, payload) in enumerate(self._sent):
                if payload == datagram.data:
                    del self._sent[place]
                    return True
        return False
