"""Ears of the trial: receivers that count what comes by kind, and listening to several at once. Touches the OS."""

from __future__ import annotations

import os
import selectors
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.facts import Arrivals, JoinTrial
from multicast_expert.engine import error_name, receiving
from multicast_expert.system import kernel

Progress = Callable[[float, int], bool]
"""Is given the seconds that were listened so far and the datagrams received; returns whether to go on."""

LONGEST_SLICE = 0.1
"""Seconds between two reports of progress."""
BATCH, BATCHES = 256, 8
"""How many datagrams of a receiver are taken at a time, and how often before the others have their turn."""
STREAM = 5
"""How many datagrams make a stream, of which it can be told that it stopped."""
KINDS = 512
"""How many kinds of datagrams are told apart; what comes then is counted with one that is like it."""

_Kind = tuple[str, str, str, int, int | None]
_Place = tuple[int, str | None]
"""The index of an interface, and the only source that is wanted on it."""


@dataclass(slots=True)
class _Count:
    """How many datagrams of a kind came, and when."""

    first: float
    last: float
    count: int = 0
    truncated: int = 0


class Ear:
    """A receiver of the trial, which counts what it gets by kind."""

    def __init__(self, settings: ReceiveSettings, asked: bool, clock: Callable[[], float]) -> None:
        self._sockets, self._reader, _ = receiving(kernel.SYSTEM, settings)
        self._asked = asked
        self._clock = clock
        self._counts: dict[_Kind, _Count] = {}
        self.joins: list[JoinTrial] = []
        self.places: set[_Place] = set()
        """What it has joined."""
        self.blocked: set[_Place] = set()
        """The sources that it refuses."""
        self.elder: Ear | None = None
        """The one whose datagrams are not to be counted a second time."""
        self.received: int = 0
        self._first = self._last = 0.0
        self.longest_gap: float = 0.0
        """Seconds between two datagrams, at most."""

    def join(self, joins: Iterable[Join]) -> None:
        """Join, one after the other; what is refused is noted."""
        for join in joins:
            iface = join.interface.iface
            source = None if join.source is None else str(join.source)
            error, text = None, ""
            if not iface.index:
                self.joins.append(JoinTrial(iface.display_name, source, "ENODEV", "There is no such interface now."))
                continue
            try:
                self._sockets.add([join._replace(interface=join.interface._replace(required=True))])
                self.places.add((iface.index, source))
            except MulticastOSError as refused:
                error, text = error_name(kernel.SYSTEM, refused) or f"error {refused.errno}", str(refused)
            self.joins.append(JoinTrial(iface.display_name, source, error, text))

    def block(self, joins: Iterable[Join]) -> None:
        """Refuse the sources of these, where all are joined."""
        for join in joins:
            index = join.interface.iface.index
            with suppress(MulticastOSError):
                self._sockets.change_source(join, "block source", sum(held == index for held, _ in self.blocked))
                self.blocked.add((index, str(join.source)))

    def takes(self, index: int, sender: str) -> bool:
        """Whether it gets what comes from the sender on the interface with this index."""
        by_name = (index, sender)
        return by_name in self.places or ((index, None) in self.places and by_name not in self.blocked)

    def drain(self) -> None:
        """Take what is there, but no more than some batches, so that others have their turn."""
        for _ in range(BATCHES):
            datagrams: list[Datagram] = []
            # What the OS reports on an interface that goes away says nothing about the next datagram.
            with suppress(MulticastOSError):
                datagrams = self._reader.take(BATCH)
            now = self._clock()
            for datagram in datagrams:
                self._note(datagram, now)
            if len(datagrams) < BATCH:
                return

    def _note(self, datagram: Datagram, now: float) -> None:
        sender = str(datagram.sender[0]).partition("%")[0]
        index = datagram.interface_index or 0
        if self.elder is not None and self.elder.takes(index, sender):
            return
        if self.received:
            self.longest_gap = max(self.longest_gap, now - self._last)
        self._first = self._first if self.received else now
        self.received, self._last = self.received + 1, now
        interface = datagram.interface_name or str(index)
        kind = interface, datagram.group or "", sender, datagram.sender[1], datagram.hop_limit
        count = self._counts.get(kind)
        if count is None:
            if len(self._counts) >= KINDS:
                kind = next((known for known in self._counts if known[0] == interface), next(iter(self._counts)))
            count = self._counts.setdefault(kind, _Count(now, now))
        count.count += 1
        count.last = now
        count.truncated += datagram.truncated

    def has_stopped(self, now: float) -> bool:
        """Whether a steady stream came for more than a second and is silent now, as long and five of its longest gaps.

        What comes for a shorter time may be one of several bursts, and the next of them would look like a revival.
        """
        silence, lasted = now - self._last, self._last - self._first
        return self.received >= STREAM and lasted > 1.0 and silence > max(1.0, 5 * self.longest_gap)

    def arrivals(self) -> tuple[Arrivals, ...]:
        """Return what came."""
        return tuple(
            Arrivals(*kind, each.count, each.first, each.last, self._asked, each.truncated)
            for kind, each in self._counts.items()
        )

    def filenos(self) -> list[int]:
        """Return the descriptors of its sockets."""
        return self._sockets.filenos()

    def inodes(self) -> set[int]:
        """Return the numbers that Linux lists its sockets by; none elsewhere."""
        listed = kernel.SYSTEM.platform.name == "linux"
        return {os.fstat(each).st_ino for each in self.filenos()} if listed else set()

    @property
    def drops(self) -> int | None:
        """How many datagrams were lost because the receive buffer was full; None where the OS does not say."""
        return self._sockets.kernel_drops()

    def buffer(self) -> int | None:
        """Return the smallest receive buffer, in the bytes that a program asks for (Linux counts twice as many)."""
        sizes = self._sockets.receive_buffers()
        return min(sizes) if sizes else None

    def close(self) -> None:
        """Leave and close."""
        self._sockets.close()


@dataclass
class Listening:
    """What is listened to at the same time, and for how long."""

    progress: Progress | None = None
    started: float = field(default_factory=monotonic)
    stopped: bool = False
    """Whether `progress` said to stop."""
    _selector: selectors.BaseSelector = field(default_factory=selectors.DefaultSelector)
    _told: float = 0.0

    def clock(self) -> float:
        """Return the seconds since the start."""
        return monotonic() - self.started

    def add(self, descriptors: Iterable[int], drain: Callable[[], None]) -> None:
        """Call `drain` whenever one of them is readable."""
        for descriptor in descriptors:
            self._selector.register(descriptor, selectors.EVENT_READ, drain)

    def run(self, until: float, received: Callable[[], int]) -> None:
        """Listen until so many seconds after the start, or until progress is no longer wanted."""
        while not self.stopped and (left := until - self.clock()) > 0:
            self.look(min(left, LONGEST_SLICE))
            now = self.clock()
            if self.progress is not None and now - self._told >= LONGEST_SLICE:
                self._told = now
                self.stopped = not self.progress(now, received())
        for drain in dict.fromkeys(key.data for key in self._selector.get_map().values()):
            drain()

    def look(self, timeout: float) -> None:
        """Wait that long at most, and take what is there."""
        # Several descriptors of a receiver are drained in one go.
        for drain in dict.fromkeys(key.data for key, _ in self._selector.select(timeout)):
            drain()

    def close(self) -> None:
        """Close what waits; the descriptors stay open."""
        self._selector.close()
