"""Receiving: takes datagrams from the open sockets of one receiver in fair turns, and waits for them.

It never waits, except in `wait`. Several threads may receive at once, while another opens and closes sockets.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import islice
from struct import Struct
from time import monotonic
from typing import Any, TypeVar

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, ReceiveStats
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.plan import SocketKey
from multicast_expert.engine.intake import Intake, NativeIntake, choose
from multicast_expert.engine.intake.recvmsg import MSG_PEEK, PythonIntake
from multicast_expert.engine.opening import error_name, os_error
from multicast_expert.engine.places import Places
from multicast_expert.engine.receive_socket import Channel
from multicast_expert.engine.waitset import LONGEST, Waiter
from multicast_expert.system.kernel import Kernel

Result = TypeVar("Result")
Take = Callable[[Channel, int, int], Result | None]

# How many datagrams are taken from the sockets known to be readable before the others are looked at again.
TURNS = 64
# How often a receive waits right away, once it had to: who answers each datagram would try in vain every time.
IDLE = 8
# How many foreign datagrams one attempt throws away before it lets its caller look at the clock.
REFUSALS = 64
_MEMINFO = Struct("=9I")
_INT = Struct("=i")

# What a datagram that this socket once sent can bring back; it says nothing about the next datagram to receive.
_STALE_ERRORS = ("ECONNRESET", "ENETRESET", "ECONNREFUSED")


class Receiving:
    """The open sockets of one receiver as one source of datagrams."""

    def __init__(self, kernel: Kernel, coalesced: bool) -> None:
        self._kernel = kernel
        self._places = Places()
        self._intake: Intake = choose(kernel, coalesced, self._places.learn)
        native: Any = None if isinstance(self._intake, PythonIntake) else self._intake
        self._sweeping: NativeIntake | None = native
        self._lock = threading.RLock()
        self._channels: dict[SocketKey, Channel] = {}
        self._sole: Channel | None = None
        """The only channel, where there is but one: it needs no turns."""
        self._ready: deque[Channel] = deque()
        self._turns = 0
        self._waiter: Waiter[Channel] | None = None
        self._closed = False
        self.backlog: deque[Datagram] = deque()
        """Datagrams taken from the sockets and not yet handed out; they come first."""
        self.idle: int = 0
        """For how many more times `next_datagram` and `next_payload` are worth calling without a try before."""
        self._filtered = self._past_drops = 0
        # What the intake counted and a filter refused afterwards, or a small buffer cut.
        self._refused_bytes = self._refused_truncated = self._cut = 0

    # One datagram

    def try_receive(self, bufsize: int, flags: int) -> tuple[bytes, IPv4Or6Address] | None:
        """Return the payload and sender of the next datagram, or None when nothing is there."""
        if self.backlog:
            # Another thread may take the last one first.
            with suppress(IndexError):
                return self._from_backlog(bufsize, flags)
        sole = self._sole
        if sole is None:
            return self._take_turns(self._receive_payload, bufsize, flags)
        return self._receive_payload(sole, bufsize, flags)

    def try_receive_datagram(self) -> Datagram | None:
        """Return the next datagram with all that is known about it, or None when nothing is there."""
        if self.backlog:
            # Another thread may take the last one first.
            with suppress(IndexError):
                return self.backlog.popleft()
        sole = self._sole
        if sole is None:
            return self._take_turns(self._receive_datagram, MAX_DATAGRAM, 0)
        return self._receive_datagram(sole, MAX_DATAGRAM, 0)

    def _from_backlog(self, bufsize: int, flags: int) -> tuple[bytes, IPv4Or6Address]:
        if bufsize < 0:
            raise ValueError("negative buffer size")
        peeking = flags & MSG_PEEK
        datagram = self.backlog[0] if peeking else self.backlog.popleft()
        data = datagram.data[:bufsize]
        if len(data) < len(datagram.data) and not peeking:
            self._refused_bytes += len(datagram.data) - len(data)
            self._cut += not datagram.truncated
        return data, datagram.sender

    def _receive_payload(self, channel: Channel, bufsize: int, flags: int) -> tuple[bytes, IPv4Or6Address] | None:
        if channel.accepts is not None:
            datagram = self._receive_datagram(channel, bufsize, flags)
            return None if datagram is None else (datagram.data, datagram.sender)
        while True:
            try:
                datagram = self._one(channel, bufsize, flags, self.backlog)
            except OSError as error:
                if self._is_over(channel, error):
                    return None
            else:
                if self.backlog:
                    self._share()
                return None if datagram is None else (datagram.data, datagram.sender)

    def _receive_datagram(self, channel: Channel, bufsize: int, flags: int) -> Datagram | None:
        if channel.accepts is not None:
            return self._receive_own(channel, bufsize, flags)
        while True:
            try:
                datagram = self._one(channel, bufsize, flags, self.backlog)
            except OSError as error:
                if self._is_over(channel, error):
                    return None
            else:
                if self.backlog:
                    self._share()
                return datagram

    def _one(self, channel: Channel, bufsize: int, flags: int, rest: deque[Datagram]) -> Datagram | None:
        waiting: list[Datagram] = []
        found = self._intake.one(channel.handle, bufsize, flags, waiting)
        return self._split(waiting, flags, rest) if found else None

    def _split(self, waiting: list[Datagram], flags: int, rest: deque[Datagram]) -> Datagram | None:
        if not waiting:
            return None
        datagram = waiting.pop()
        if not flags & MSG_PEEK:
            rest.extend(reversed(waiting))
        return datagram

    def _receive_own(self, channel: Channel, bufsize: int, flags: int) -> Datagram | None:
        """Receive from a socket that other datagrams reach too; some at most are refused at a time."""
        for _ in range(REFUSALS):
            rest: deque[Datagram] = deque()
            try:
                datagram = self._one(channel, bufsize, flags, rest)
            except OSError as error:
                if self._is_over(channel, error):
                    return None
                continue
            if datagram is None or channel.accepts is None:
                return datagram
            if (datagram.group, datagram.interface_index) in channel.accepts:
                self.backlog += rest
                return datagram
            if flags & MSG_PEEK:
                # A look left it in the queue, where it would hide the next one.
                with suppress(OSError):
                    datagram = self._one(channel, bufsize, 0, rest)
            self._refuse([*([] if datagram is None else [datagram]), *rest])
        return None

    def _refuse(self, datagrams: list[Datagram]) -> None:
        """Count foreign datagrams, which were taken for own ones when they were received."""
        self._filtered += len(datagrams)
        self._refused_bytes += sum(len(datagram.data) for datagram in datagrams)
        self._refused_truncated += sum(datagram.truncated for datagram in datagrams)

    def _is_over(self, channel: Channel, error: OSError) -> bool:
        """Whether a failed receive means that this socket was closed meanwhile; an error that matters is raised."""
        if not channel.closed:
            self._check(error)
        return channel.closed

    def _check(self, error: OSError) -> None:
        """Raise an error that matters."""
        if error_name(self._kernel, error) not in _STALE_ERRORS:
            raise os_error(self._kernel, error, "receive", "receive") from error

    # Many datagrams

    def receive_batch(self, limit: int) -> list[Datagram]:
        """Return what is there, at most `limit` datagrams, without waiting; nothing: an empty list."""
        datagrams: list[Datagram] = []
        backlog = self.backlog
        if backlog:
            # Another thread may take the last one first.
            with suppress(IndexError):
                datagrams.extend(backlog.popleft() for _ in range(min(limit, len(backlog))))
        if len(datagrams) < limit:
            sole = self._sole
            try:
                if sole is not None:
                    self._take(sole, limit - len(datagrams), datagrams)
                elif not self._sweep(limit, datagrams):
                    self._take_rounds(limit, datagrams)
            except BaseException:
                self.keep(datagrams)
                raise
            if len(datagrams) > limit:
                # The rest of a coalesced run.
                backlog.extend(islice(datagrams, limit, None))
                del datagrams[limit:]
        if backlog:
            self._share()
        return datagrams

    def receive_more(self, datagrams: list[Datagram], limit: int) -> None:
        """Append what is there, without waiting, until the list is `limit` long."""
        if len(datagrams) < limit:
            try:
                datagrams += self.receive_batch(limit - len(datagrams))
            except BaseException:
                self.keep(datagrams)
                raise

    def _take(self, channel: Channel, room: int, datagrams: list[Datagram]) -> bool:
        """Append what a socket holds; return whether it may hold more."""
        first = len(datagrams)
        more = True
        taken = 0
        try:
            while more and taken < room:
                try:
                    more = self._intake.batch(channel.handle, room - taken, datagrams)
                except OSError as error:
                    more = not self._is_over(channel, error)
                taken = len(datagrams) - first
        finally:
            if channel.accepts is not None:
                self._filter(channel.accepts, datagrams, first)
        return more

    def _filter(self, accepts: set[tuple[str | None, int | None]], datagrams: list[Datagram], first: int) -> None:
        """Take out what is foreign, from the index on."""
        foreign = [each for each in datagrams[first:] if (each.group, each.interface_index) not in accepts]
        if foreign:
            datagrams[first:] = [each for each in datagrams[first:] if (each.group, each.interface_index) in accepts]
            self._refuse(foreign)

    def _take_rounds(self, limit: int, datagrams: list[Datagram]) -> None:
        """Append what the sockets hold, a share of each in its turn, until there is nothing or the list is so long."""
        ready = self._ready
        batch = self._intake.batch
        before = len(datagrams)
        while before < limit:
            if self._turns <= 0 or not ready:
                self._look(0)
            try:
                channel = ready.popleft()
            except IndexError:
                return
            share = min(TURNS, limit - before)
            more = False
            try:
                if channel.accepts is None:
                    more = batch(channel.handle, share, datagrams)
                else:
                    more = self._take(channel, share, datagrams)
            except OSError as error:
                more = not self._is_over(channel, error)
            finally:
                if more:
                    ready.append(channel)
                else:
                    channel.queued = False
            after = len(datagrams)
            self._turns -= after - before or 1
            before = after

    def _sweep(self, limit: int, datagrams: list[Datagram]) -> bool:
        """As `_take_rounds`, by the extension; return False where that cannot."""
        waiter = self._waiter or self.waiter()
        if self._sweeping is None or waiter.epoll is None:
            return False
        if not waiter.enter():
            return True
        try:
            # Those known to be readable are among those that the kernel reports.
            with suppress(IndexError):
                while True:
                    self._ready.popleft().queued = False
            while len(datagrams) < limit:
                try:
                    self._sweeping.sweep(waiter.epoll, waiter.alarm, limit - len(datagrams), datagrams)
                    break
                except OSError as error:
                    self._check(error)
        finally:
            waiter.leave()
        return True

    def keep(self, datagrams: Sequence[Datagram]) -> None:
        """Put what was received and is not handed out yet before everything else."""
        self.backlog.extendleft(reversed(datagrams))
        self._share()

    def _share(self) -> None:
        """Let other threads have their part of the backlog."""
        waiter = self._waiter
        if waiter is not None and waiter.waiting:
            waiter.wake()

    # Waiting and taking turns

    def look(self) -> bool:
        """Return whether a datagram may be there, by asking the OS, without waiting."""
        return self.wait(0)

    def waiter(self) -> Waiter[Channel]:
        """Return what waits for the sockets of this receiver."""
        with self._lock:
            if self._closed:
                raise MulticastExpertError("The receiver was closed while it was being used.")
            if self._waiter is None:
                try:
                    self._waiter = Waiter(self.backlog)
                except OSError as error:
                    raise os_error(self._kernel, error, "wait", "wait for datagrams") from error
                for channel in self._channels.values():
                    self._waiter.add(channel.socket.fileno(), channel)
            return self._waiter

    def wait(self, timeout: float | None) -> bool:
        """Wait until a datagram is there; return whether one may be. None waits for ever.

        Raises MulticastExpertError when the receiver is closed meanwhile.
        """
        if self.backlog or (self._ready and self._sole is None):
            return True
        found = self._look(timeout)
        if self._closed:
            raise MulticastExpertError("The receiver was closed while it was waiting.")
        return found or bool(self.backlog)

    def next_datagram(self, timeout: float | None) -> Datagram | None:
        """Wait for a datagram and return it; None when the timeout passes first. Raises as `wait` does."""
        if timeout is None and self._sole is not None:
            # The quickest way, without a clock.
            datagram: Datagram | None = self._expect(self._sole, MAX_DATAGRAM, 0, False, -1.0)
            if datagram is not None:
                return datagram
        return self._next(self.try_receive_datagram, MAX_DATAGRAM, 0, False, timeout)

    def next_payload(self, bufsize: int, flags: int, timeout: float | None) -> tuple[bytes, IPv4Or6Address] | None:
        """Wait for a datagram and return its payload and sender; None when the timeout passes first."""
        if timeout is None and self._sole is not None:
            payload: tuple[bytes, IPv4Or6Address] | None = self._expect(self._sole, bufsize, flags, True, -1.0)
            if payload is not None:
                return payload
        return self._next(lambda: self.try_receive(bufsize, flags), bufsize, flags, True, timeout)

    def _next(
        self, attempt: Callable[[], Result | None], bufsize: int, flags: int, pair: bool, timeout: float | None
    ) -> Result | None:
        if timeout == 0 and self._sole is not None:
            return attempt()
        deadline = None if timeout is None else monotonic() + timeout
        remaining = timeout
        while True:
            received: Result | None = None
            sole = self._sole
            if sole is not None and sole.expects:
                received = self._expect(sole, bufsize, flags, pair, -1.0 if remaining is None else remaining)
                if received is None and self._closed:
                    raise MulticastExpertError("The receiver was closed while it was waiting.")
            else:
                self.wait(remaining)
            if received is None:
                received = attempt()
            if received is not None:
                return received
            if deadline is not None:
                remaining = deadline - monotonic()
                if remaining <= 0:
                    return None

    def _expect(self, channel: Channel, bufsize: int, flags: int, pair: bool, timeout: float) -> Any:
        """Wait and receive in one step of the extension, which needs no selector for a single socket.

        Returns None when nothing came, and may do so early.
        """
        backlog = self.backlog
        waiter = self._waiter or self.waiter()
        if not (channel.expects and waiter.enter()):
            return None
        try:
            # Who changed either since saw that this one waits, or is seen here.
            if backlog or channel is not self._sole:
                return None
            self.idle = self.idle - 1 if self.idle else IDLE
            intake: Any = self._sweeping
            waiting: list[Datagram] = []
            longest = min(timeout, LONGEST)
            intake.expect(channel.handle, bufsize, flags, waiting, waiter.alarm, longest)
            datagram = self._split(waiting, flags, backlog)
            return (datagram.data, datagram.sender) if pair and datagram is not None else datagram
        except OSError as error:
            self._is_over(channel, error)
            return None
        finally:
            waiter.leave()
            if backlog:
                self._share()

    def _look(self, timeout: float | None) -> bool:
        """Put the sockets that are readable behind those that are known to be; return whether there are any."""
        found = (self._waiter or self.waiter()).wait(timeout)
        if self._sole is not None:
            return bool(found)
        ready = self._ready
        for channel in found:
            if not channel.queued:
                channel.queued = True
                ready.append(channel)
        # Those that are known have their turn before there is another look, which costs as much as they are many.
        self._turns = max(TURNS, 2 * len(ready))
        return bool(ready)

    def _take_turns(self, receive: Take[Result], bufsize: int, flags: int) -> Result | None:
        """Try the sockets that are known to be readable, each in its turn; a busy one must not starve the rest."""
        ready = self._ready
        if self._turns <= 0:
            self._look(0)
        while ready:
            try:
                channel = ready.popleft()
            except IndexError:
                # Another thread took the last one first.
                return None
            received = None
            try:
                received = receive(channel, bufsize, flags)
            finally:
                if received is None:
                    channel.queued = False
            if received is not None:
                ready.append(channel)
                self._turns -= 1
                return received
        return None

    def name_interface(self, index: int, name: str) -> None:
        """Call the interface so from now on."""
        if self._places.name(index, name):
            self._intake.forget_places()

    # Counting

    def stats(self) -> ReceiveStats:
        """Return what was received and lost so far; `kernel_drops` is right at this moment."""
        with self._lock:
            drops = [self._drops_of(channel) for channel in self._channels.values()]
        known = [count for count in drops if count is not None]
        kernel_drops = None if len(known) < len(drops) else self._past_drops + sum(known)
        intake = self._intake
        return ReceiveStats(
            intake.datagrams - self._filtered,
            intake.payload_bytes - self._refused_bytes,
            intake.truncated - self._refused_truncated + self._cut,
            kernel_drops,
            self._filtered,
        )

    def _drops_of(self, channel: Channel) -> int | None:
        """Return how many datagrams the kernel dropped because the buffer was full; None where it won't say."""
        option = self._kernel.platform.options.get("SO_MEMINFO")
        if option is None:
            return None
        memory = channel.socket.getsockopt(option[0] or 0, option[1], _MEMINFO.size)
        return int(_MEMINFO.unpack(memory)[8])

    def receive_buffers(self) -> list[int]:
        """Return the receive buffer of every socket in bytes, as the OS counts it."""
        level, number = self._kernel.platform.options["SO_RCVBUF"]
        with self._lock:
            return [
                _INT.unpack(channel.socket.getsockopt(level or 0, number, _INT.size))[0]
                for channel in self._channels.values()
            ]
