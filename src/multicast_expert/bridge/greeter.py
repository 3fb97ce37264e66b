"""Greets the other bridges on this network and hears their greetings, by IPv4 and IPv6, in a thread each."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

from multicast_expert.bridge.election import GREET_EVERY, Election
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.sockets.both_ways import McastSocket
from multicast_expert.wire.bridge_greeting import GREETINGS, PORT, build_greeting, network_mark, parse_greeting

_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class Greeter:
    """Keeps an election up to date. `decided` is called, in a thread of it, whenever the outcome may have changed."""

    def __init__(
        self,
        election: Election,
        name: str,
        ifaces: Sequence[str] | None,
        is_connected: Callable[[], bool],
        decided: Callable[[], None],
    ) -> None:
        self._election, self._network = election, network_mark(name)
        self._is_connected, self._decided = is_connected, decided
        self._lock = threading.RLock()
        self._closed = threading.Event()
        self._threads: list[threading.Thread] = []
        self._sockets: list[McastSocket] = []
        try:
            self._open(ifaces)
            for each in self._sockets:
                thread = threading.Thread(target=self._run, args=(each,), name="mcast-bridge-greeter", daemon=True)
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close()
            raise

    def _open(self, ifaces: Sequence[str] | None) -> None:
        """Open a socket for each IP version that the interfaces have; they need one. Raises what the OS refuses."""
        refused: list[MulticastExpertError] = []
        for version, groups in GREETINGS.items():
            opened = McastSocket(_FAMILIES[version], groups, PORT, ifaces=ifaces, unicast=False, allow_missing=True)
            try:
                self._sockets.append(opened.open())
            except MulticastOSError:
                raise
            except MulticastExpertError as error:
                # No interface has an address of this version.
                refused.append(error)
        if not self._sockets:
            raise refused[0]

    @property
    def missing_interfaces(self) -> list[str]:
        """The named interfaces that are not there, for either IP version."""
        first, *others = (each.missing_interfaces for each in self._sockets)
        return [name for name in first if all(name in other for other in others)]

    def _run(self, opened: McastSocket) -> None:
        due = monotonic()
        while not self._closed.is_set():
            if monotonic() >= due:
                due = max(due + GREET_EVERY, monotonic())
                self._greet(opened)
            try:
                for datagram in opened.receive_many(64, timeout=max(0.0, due - monotonic())):
                    greeting = parse_greeting(datagram.data, self._network)
                    if greeting is not None:
                        address = datagram.sender[0].partition("%")[0]
                        with self._lock:
                            self._election.hear(greeting, address, monotonic())
            except TimeoutError:
                pass
            except MulticastExpertError:
                # Closed; or no interface is there.
                self._closed.wait(GREET_EVERY)
            self._decide()

    def _greet(self, opened: McastSocket) -> None:
        with self._lock:
            data = build_greeting(self._election.greeting, self._network)
        for group in opened.mcast_ips:
            with suppress(MulticastExpertError):
                opened.sendto(data, (group, PORT))

    def _decide(self) -> None:
        with self._lock:
            election = self._election
            before = election.greeting, election.neighbours, election.is_settled
            election.step(self._is_connected(), monotonic())
            changed = (election.greeting, election.neighbours, election.is_settled) != before
        if changed:
            self._decided()

    def close(self) -> None:
        """Greet no more; the others notice it after half a second."""
        self._closed.set()
        for each in self._sockets:
            each.close()
        for thread in self._threads:
            thread.join(5.0)
