"""A receiver of the trial, the loop that serves several at once, and the probe's sender: all that uses the engine."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings, plan_send
from multicast_expert.doctor.facts import JoinTrial
from multicast_expert.engine import SendSocket, error_name, receiving
from multicast_expert.system.kernel import SYSTEM

LONGEST_SLICE = 0.1
"""Seconds between two reports of progress."""
BATCH, BATCHES = 256, 8
"""How many datagrams a receiver takes at a time, and how often before the others have their turn."""

Progress = Callable[[float, int], bool]
"""Gets the seconds listened so far and the datagrams received; returns whether to go on."""


class Receiver:
    """Joins groups and hands each datagram to `note`."""

    def __init__(self, settings: ReceiveSettings, note: Callable[[Datagram], None]) -> None:
        self._sockets, self._reader, _ = receiving(SYSTEM, settings)
        self._note = note

    def join(self, join: Join) -> JoinTrial:
        """Join, and return whether that worked."""
        iface = join.interface.iface
        source = None if join.source is None else str(join.source)
        if not iface.index:
            return JoinTrial(iface.display_name, source, "ENODEV", "There is no such interface now.")
        try:
            self._sockets.add([join._replace(interface=join.interface._replace(required=True))])
        except MulticastOSError as error:
            return JoinTrial(iface.display_name, source, error_text(error), str(error))
        return JoinTrial(iface.display_name, source)

    def block(self, join: Join, held: int) -> None:
        """Block a source of an any-source membership that has `held` blocked ones. Raises MulticastOSError."""
        self._sockets.change_source(join, "block source", held)

    def drain(self) -> None:
        """Take the waiting datagrams, but only a few batches, so that other receivers have their turn."""
        for _ in range(BATCHES):
            datagrams: list[Datagram] = []
            # An error of an interface that goes away says nothing about the next datagram.
            with suppress(MulticastOSError):
                datagrams = self._reader.take(BATCH)
            for datagram in datagrams:
                self._note(datagram)
            if len(datagrams) < BATCH:
                return

    def filenos(self) -> list[int]:
        """Return the descriptors of its sockets."""
        return self._sockets.filenos()

    def inodes(self) -> set[int]:
        """Return the inode numbers of its sockets, as Linux lists them; none elsewhere."""
        listed = SYSTEM.platform.name == "linux"
        return {os.fstat(each).st_ino for each in self.filenos()} if listed else set()

    def drops(self) -> int | None:
        """Return how many datagrams a full receive buffer lost; None if the OS does not say."""
        return self._sockets.kernel_drops()

    def buffer(self) -> int | None:
        """Return the smallest receive buffer in the bytes that a program requests."""
        return min(self._sockets.receive_buffers(), default=None)

    def close(self) -> None:
        """Leave all groups and close the sockets."""
        self._sockets.close()


def send_once(data: bytes, group: str, port: int, version: int, choice: InterfaceChoice) -> str | None:
    """Send a datagram with hop limit 0 and loopback on; return the name of the error that prevented it, or None."""
    index = choice.iface.index
    try:
        sender = SendSocket(SYSTEM, plan_send(SYSTEM.platform, version, choice, 0, True), choice.iface, 0)
        try:
            sender.try_send(data, (group, port) if version == 4 else (group, port, 0, index))
        finally:
            sender.close()
    except MulticastOSError as error:
        return error_text(error)
    except MulticastExpertError:
        return "EADDRNOTAVAIL"
    return None


def error_text(error: OSError) -> str:
    """Return the name of an OS error (`ENOBUFS`), or its number if it has no known name."""
    return error_name(SYSTEM, error) or f"error {error.errno}"


class Listening:
    """Serves several receivers and captures until a time."""

    def __init__(self, progress: Progress | None = None) -> None:
        self._progress = progress
        self._started = monotonic()
        self._reported = 0.0
        self._selector = selectors.DefaultSelector()
        self.stopped: bool = False
        """Whether `progress` ended the listening."""

    def clock(self) -> float:
        """Return the seconds since the start."""
        return monotonic() - self._started

    def add(self, descriptors: Iterable[int], drain: Callable[[], None]) -> None:
        """Call `drain` whenever one of the descriptors is readable."""
        for descriptor in descriptors:
            self._selector.register(descriptor, selectors.EVENT_READ, drain)

    def run(self, until: float, received: Callable[[], int]) -> None:
        """Listen until so many seconds after the start, or until `progress` ends it."""
        while not self.stopped and (left := until - self.clock()) > 0:
            self.look(min(left, LONGEST_SLICE))
            now = self.clock()
            if self._progress is not None and now - self._reported >= LONGEST_SLICE:
                self._reported = now
                self.stopped = not self._progress(now, received())
        for drain in dict.fromkeys(key.data for key in self._selector.get_map().values()):
            drain()

    def look(self, timeout: float) -> None:
        """Wait for at most `timeout` seconds, and take what has arrived."""
        # Several descriptors of one receiver are drained together.
        for drain in dict.fromkeys(key.data for key, _ in self._selector.select(timeout)):
            drain()

    def close(self) -> None:
        """Close the selector; the descriptors stay open."""
        self._selector.close()
