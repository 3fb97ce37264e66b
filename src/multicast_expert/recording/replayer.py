"""Sends the datagrams of a recording on its schedule.

The schedule is absolute: each datagram has a time counted from the beginning, so lateness never adds up. Between two
departures the next datagrams are read, as long as there is time for it.
"""

from __future__ import annotations

import math
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic, sleep
from typing import Any, Protocol

from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.recording.departures import NOT_JOINED, Departure, Score
from multicast_expert.sockets.transmitter import McastTxSocket

_AHEAD, _FIRST_AHEAD = 4096, 256
"""How many datagrams are read before their time, and how many before the first one leaves."""
_AHEAD_BYTES = 16 << 20
"""How many bytes of the file they may take."""
_TIME_TO_READ = 0.0004
"""Seconds that have to be left to read another one."""
_TIME_TO_IDLE = 0.004
_IDLE_EVERY, _IDLE_AT_LEAST_EVERY = 0.2, 1.0
"""Seconds between two calls of `idle` where so much time is left, and where it never is: few datagrams are late so."""
_SPIN = 0.00008
"""Seconds that the clock is watched before a departure: a sleep may last so much longer."""
_LONGEST_SLEEP = 0.1
_RUN = 64
"""How many datagrams leave in one call where no time is kept."""
LATE = 0.001
"""Seconds after which a departure counts as late."""
_STEP, _STEPS = 2e-6, 5000


class Audience(Protocol):
    """The members of groups."""

    def has(self, group: str, /) -> bool:
        """Return whether a host has joined the group."""

    def has_any(self) -> bool:
        """Return whether a host has joined a group of the recording."""


class Punctuality:
    """How late datagrams left, to two microseconds."""

    def __init__(self) -> None:
        self._counts = [0] * (_STEPS + 1)
        self.count: int = 0
        self.late: int = 0
        """How many left more than LATE seconds late."""
        self.longest: float = 0.0

    def note(self, seconds: float) -> None:
        """Take note of a departure."""
        self.count += 1
        self._counts[min(int(seconds / _STEP), _STEPS)] += 1
        self.late += seconds > LATE
        self.longest = max(self.longest, seconds)

    def percentile(self, percent: float) -> float:
        """Return how late, in seconds, so many per cent of the datagrams were at most."""
        left = self.count * percent / 100
        for step, count in enumerate(self._counts):
            left -= count
            if left <= 0 and step < _STEPS:
                return min(self.longest, (step + 1) * _STEP)
        return self.longest


class Replayer:
    """One replay: what it sends, how far it is, how punctual it was.

    score: what is sent. ifaces: the interfaces to send from, by any name; none: that of the default route, or of a
    route for the group. loopback: whether receivers on this host hear it. audience: while no host has joined a group of
    the recording it waits, and it skips what goes to a group without a member.
    """

    def __init__(
        self, score: Score, ifaces: Sequence[str] = (), loopback: bool = True, audience: Audience | None = None
    ) -> None:
        self._score, self._ifaces, self._loopback, self._audience = score, ifaces, loopback, audience
        self.punctuality: Punctuality = Punctuality()
        self.sent: int = 0
        self.reached: int = 0
        """How many bytes of the file hold what has left, in this turn."""
        self.bytes: int = 0
        self.failed: int = 0
        self.paused: float = 0.0
        """Seconds that it waited for members, or was stopped (SIGSTOP, Ctrl-Z)."""
        self.elapsed: float = 0.0
        self._opened = ExitStack()
        self._transmitters: dict[tuple[bool, int], McastTxSocket] = {}
        self._queue: deque[Departure] = deque()
        self._was_stopped = False
        self._deadline = math.inf
        self._failure: MulticastExpertError | None = None

    def run(self, departures: Iterator[Departure], duration: float | None, idle: Callable[[], None]) -> None:
        """Send them all, for so many seconds at most.

        `idle` is called a few times a second where there is time, and once a second where there is none.

        Raises MulticastOSError if the first cannot be sent (later failures are counted), and the damage of a file.
        """
        with self._opened, _on_continue(self._note_stop):
            # So that sleeps end in time. It holds for this thread, and no privilege is needed.
            with suppress(OSError):
                Path("/proc/thread-self/timerslack_ns").write_text("1")
            while len(self._queue) < _FIRST_AHEAD and self._read(departures):
                pass
            start = monotonic()
            shown = 0.0
            if duration is not None:
                self._deadline = start + duration
            while self._queue or self._read(departures):
                due = start + self.paused + self._queue[0].due
                now = monotonic()
                self.elapsed = now - start
                if max(now, due) >= self._deadline:
                    return
                left = due - now
                if self.elapsed > shown + (_IDLE_EVERY if left > _TIME_TO_IDLE else _IDLE_AT_LEAST_EVERY):
                    shown = self.elapsed
                    idle()
                    continue
                if left > _TIME_TO_READ and self._may_read_ahead() and self._read(departures):
                    continue
                if left > _SPIN:
                    sleep(min(left - _SPIN, _LONGEST_SLEEP))
                elif left <= 0 and not self._has_to_wait(now - due, idle):
                    self._send(start + self.paused)
        if self._failure is not None:
            raise self._failure

    def _note_stop(self, *_: Any) -> None:
        self._was_stopped = True

    def _may_read_ahead(self) -> bool:
        queue = self._queue
        # With --loop those of the next turn wait until the last turn has left.
        return len(queue) < _AHEAD and abs(queue[-1].read - queue[0].read) < _AHEAD_BYTES

    def _read(self, departures: Iterator[Departure]) -> bool:
        """Read the next datagram, and open what it leaves from; return whether there is one."""
        try:
            departure = next(departures, None)
        except MulticastExpertError as error:
            # Of a damaged file; what comes before the damage is sent.
            self._failure = error
            departure = None
        if departure is None:
            return False
        way = ":" in departure.address[0], departure.dscp
        if way not in self._transmitters:
            family = socket.AF_INET6 if way[0] else socket.AF_INET
            self._transmitters[way] = self._opened.enter_context(
                McastTxSocket(
                    family,
                    ifaces=self._ifaces or None,
                    enable_external_loopback=self._loopback,
                    dscp=departure.dscp or None,
                )
            )
        self._queue.append(departure)
        return True

    def _has_to_wait(self, late: float, idle: Callable[[], None]) -> bool:
        """Wait while nothing may leave; return whether times have changed."""
        if self._was_stopped:
            self._was_stopped = False
            self.paused += late
            return True
        if self._audience is None or self._audience.has_any():
            return False
        begin = monotonic()
        while not self._audience.has_any() and monotonic() < self._deadline:
            idle()
            sleep(0.02)
        self.paused += late + monotonic() - begin
        return True

    def _send(self, start: float) -> None:
        """Send the next datagram; as fast as it goes, with those behind it that go the same way."""
        queue, audience = self._queue, self._audience
        first = last = queue.popleft()
        run = [first.data]
        if self._score.speed is not None:
            self.punctuality.note(monotonic() - start - first.due)
        else:
            while queue and len(run) < _RUN and queue[0][2:5] == first[2:5]:
                last = queue.popleft()
                run.append(last.data)
        self.reached = last.read
        if audience is not None and not audience.has(first.address[0]):
            self._score.skipped[NOT_JOINED] += len(run)
            return
        transmitter = self._transmitters[":" in first.address[0], first.dscp]
        try:
            if len(run) == 1:
                transmitter.sendto(first.data, first.address, hop_limit=first.hop_limit)
                sent = 1
            else:
                sent = transmitter.send_many(run, first.address, hop_limit=first.hop_limit)
        except MulticastOSError:
            if not self.sent:
                raise
            sent = 0
        self.sent += sent
        self.bytes += sum(map(len, run[:sent]))
        self.failed += len(run) - sent


@contextmanager
def _on_continue(call: Callable[..., None]) -> Iterator[None]:
    """Inside the block, `call` is called when the process goes on after a stop, where the system knows such a thing."""
    number, before = getattr(signal, "SIGCONT", None), None
    # Only the main thread may set a handler.
    with suppress(ValueError):
        before = None if number is None else signal.signal(number, call)
    try:
        yield
    finally:
        if number is not None and before is not None:
            signal.signal(number, before)
