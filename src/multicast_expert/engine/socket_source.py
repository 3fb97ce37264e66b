"""SocketSource: the open sockets of one receiver as a Reader's source; takes from them in fair turns, and waits.

It never waits, except in `wait`. Several threads may take at once, while another adds and retires sockets. Each thread
lets the intake put what the kernel hands over straight into a list, and the lines that move a datagram on contain no
call: CPython runs signal handlers and switches threads between calls, so an interrupt loses and doubles nothing.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import repeat
from threading import get_ident
from time import monotonic
from typing import Any, Protocol

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.datagram_buffer import Rows
from multicast_expert.core.errors import MulticastExpertError, NotOpenError
from multicast_expert.engine.intake import Intake, NativeIntake, choose
from multicast_expert.engine.opening import error_name, os_error
from multicast_expert.engine.places import Places
from multicast_expert.engine.receive_socket import ReceiveSocket
from multicast_expert.engine.waitset import PATIENCE, WaitSet
from multicast_expert.system.kernel import Kernel

# How many datagrams are taken from the sockets known to be readable before the others are looked at again.
TURNS = 64
# How often a receive waits right away after it had to wait: a program that answers each datagram would try in vain.
IDLE = 8
# How many foreign datagrams one attempt throws away before its caller can look at the clock.
REFUSALS = 64
# How many datagrams of a socket that has to go are kept at most.
DRAIN_LIMIT = 65536

# What a datagram that this socket once sent can bring back; it says nothing about the next datagram to receive.
_STALE_ERRORS = ("ECONNRESET", "ENETRESET", "ECONNREFUSED")


class Echo(Protocol):
    """Recognises what was sent by its receiver."""

    def is_own(self, datagram: Datagram, /) -> bool:
        """Return whether the receiver itself sent the datagram."""


class SocketSource:
    """The open sockets of one receiver. `backlog` is the Reader's list, newest datagram first."""

    def __init__(self, system: Kernel, coalesced: bool, backlog: list[Datagram]) -> None:
        self._kernel = system
        self._backlog = backlog
        self._sockets: dict[ReceiveSocket, None] = {}
        self._places = Places(system, self._sockets)
        self.intake: Intake = choose(system, coalesced, self._places.learn)
        self.by_descriptor: bool = hasattr(self.intake, "expect")
        """Whether the intake is the extension's: it takes descriptors, and waits."""
        self._native: NativeIntake = self.intake  # type: ignore[assignment]  # where it is not, nothing uses it
        self._sweeps = hasattr(self.intake, "sweep")
        self.changes: threading.RLock = threading.RLock()
        """Held while the memberships of its sockets change."""
        self.queue: set[object] = set()
        """What stands for the threads that wait for `changes` to change memberships."""
        self._lock = threading.RLock()
        """Held while a socket is added or removed; never while a thread waits. A thread that may need `changes` takes
        that first, and so does one whose signal handlers may: they come while it holds this."""
        self._sole: ReceiveSocket | None = None
        """The only socket, where there is but one: it needs no turns."""
        self.quick: ReceiveSocket | None = None
        """The same, unless its datagrams have to be filtered here."""
        self.turns: Iterator[ReceiveSocket] = iter(())
        """The only one of several sockets that is known to be readable, as often as its turn lasts."""
        self._filters = False
        """Whether the destination of datagrams has to be looked at here."""
        self._ready: deque[ReceiveSocket] = deque()
        self._turns = 0
        self._waitset: WaitSet[ReceiveSocket] | None = None
        self._retired: list[ReceiveSocket] = []
        self.closed: bool = False
        self.idle: int = 0
        """For how many more receives it is worth while to wait at once."""
        self.filtered: int = 0
        """How many datagrams were refused because of their destination."""
        self._refused_bytes = self._refused_truncated = 0
        self.echo: Echo | None = None
        """What recognises by its payload what the owner of the sockets sent itself."""

    # Sockets

    def add(self, sock: ReceiveSocket) -> None:
        """Take from this socket too."""
        with self._lock:
            self._sockets[sock] = None
            self._filters = self._filters or sock.accepts is not None
            if self._waitset is not None:
                try:
                    self._waitset.add(sock.socket.fileno(), sock)
                except OSError as error:
                    raise os_error(self._kernel, error, "wait", "wait for datagrams") from error
            self._choose_sole()

    def _choose_sole(self) -> None:
        self._sole = None
        if len(self._sockets) == 1:
            (self._sole,) = self._sockets
        self.quick = None if self._filters else self._sole
        self.turns = iter(())
        self.idle = 0
        if self._waitset is not None:
            # A thread that waits for a single socket does not see another one.
            self._waitset.ring()

    def retire(self, sockets: Iterable[ReceiveSocket]) -> None:
        """Close sockets, as soon as no thread uses their descriptors any longer.

        What an interrupt, or a thread that does not come out, leaves open is closed by the next call.
        """
        with self._lock:
            for sock in sockets:
                if sock in self._sockets:
                    if self._waitset is not None:
                        self._waitset.remove(sock.socket.fileno())
                    self._retired += (sock,)
                    del self._sockets[sock]
                sock.retire()
            self._choose_sole()
        self.close_retired()

    def close_retired(self) -> None:
        """Close what an earlier call left open, unless a thread still uses it."""
        retired = list(self._retired)
        if retired and self._settle():
            for sock in retired:
                # Twice does no harm: another thread may close them as well.
                sock.close()
                with suppress(ValueError):
                    self._retired.remove(sock)

    def _settle(self) -> bool:
        """Return whether no other thread uses a descriptor that it took before."""
        waitset = self._waitset
        # A wait in epoll or kqueue does not hold the descriptors of the sockets; a wait in select does.
        if waitset is not None and waitset.descriptor < 0 and not waitset.settle():
            return False
        deadline = monotonic() + PATIENCE
        while True:
            if waitset is not None:
                # Again, because a thread that has come back to wait for the other sockets looks like one that stayed.
                waitset.ring_threads()
            if self.intake.settle(0.002):
                return True
            # The thread that does not come out may be one whose signal handler waits for the end of this change. It
            # closes what is left open after its own change.
            if self.queue or monotonic() > deadline:
                return False

    def close(self) -> None:
        """Close everything and wake every waiting thread; may be called again, after an interrupt for instance."""
        self.closed = True
        with self._lock:
            waitset = self._waitset
        if waitset is not None:
            waitset.closed = True
        self.retire(list(self._sockets))
        self._close_waitset()

    def abandon(self) -> None:
        """Let the child of a fork wait with descriptors of its own; it shares the sockets' queues with its parent."""
        self._lock, self.changes = threading.RLock(), threading.RLock()
        self.intake.abandon()
        waitset, self._waitset = self._waitset, None
        if waitset is not None:
            waitset.abandon()
        self._ready.clear()
        for sock in self._sockets:
            sock.queued = False
            sock.landing.clear()

    def name_interface(self, index: int, name: str) -> None:
        """Call the interface so in datagrams from now on."""
        if self._places.rename(index, name):
            self.intake.forget_places()

    # Taking

    def one(self, backlog: list[Datagram]) -> bool:
        """Put the datagrams of one message into the backlog, the oldest last; return whether there was one."""
        quick = self.quick
        found = self._one_in_turn(backlog) if quick is None else self._one(quick, backlog)
        if len(backlog) > 1:
            self.ring()
        return found

    def has_next(self, empty: ReceiveSocket) -> bool:
        """Return whether another socket is known to be readable, now that this one holds nothing."""
        self.turns = iter(())
        ready = self._ready
        if ready and ready[0] is empty:
            del ready[0]
            empty.queued = False
        return len(ready) > 0

    def _one(self, sock: ReceiveSocket, backlog: list[Datagram]) -> bool:
        while True:
            try:
                found = self.intake.one(sock.handle, backlog)
            except OSError as error:
                if self.is_over(error, sock):
                    return False
            else:
                return found

    def _one_in_turn(self, backlog: list[Datagram]) -> bool:
        """Try the sockets that are known to be readable, each in its turn; a busy one must not starve the rest."""
        if self._sole is not None:
            return self._one_own(self._sole, backlog)
        ready = self._ready
        if self._turns <= 0 or not ready:
            self._look(0)
        while True:
            if not ready:
                return False
            sock = ready[0]
            found = self._one(sock, backlog) if sock.accepts is None else self._one_own(sock, backlog)
            if ready and ready[0] is sock:
                del ready[0]
                sock.queued = False
                if found:
                    ready += (sock,)
                    sock.queued = True
            if found:
                self._turns -= 1
                if len(ready) == 1 and not self._filters:
                    self.turns, self._turns = repeat(sock, self._turns), 0
                return True

    def _one_own(self, sock: ReceiveSocket, backlog: list[Datagram]) -> bool:
        """As `one`, for a socket that other datagrams reach too; some at most are refused at a time."""
        for _ in range(REFUSALS):
            try:
                if not sock.landing and not self.intake.batch(sock.handle, 1, sock.landing) and not sock.landing:
                    return False
            except OSError as error:
                if self.is_over(error, sock):
                    return False
            if self._filter(sock, backlog, newest_first=True):
                return True
        return False

    def many(self, limit: int, datagrams: list[Datagram]) -> None:
        """Append what is there, oldest first, without waiting: `limit` datagrams and perhaps the rest of a run."""
        sole = self._sole
        if sole is not None:
            self._take(sole, limit, datagrams)
        elif not self._sweep(limit, datagrams):
            self._take_rounds(limit, datagrams)

    def into(self, rows: Rows, backlog: list[Datagram]) -> None:
        """Move what is there into the rows, without waiting, as far as there is room; the rest goes to the backlog."""
        quick, room = self.quick, rows.capacity - len(rows)
        # To the extension, rows are as good as a list.
        target: Any = rows
        while quick is not None and self.by_descriptor:
            try:
                self.intake.batch(quick.handle, room, target)
            except OSError as error:
                if not self.is_over(error, quick):
                    continue
            return
        if self._sole is None and self._sweeps and self._sweep(room, target):
            return
        fresh: list[Datagram] = []
        try:
            self.many(min(room, TURNS), fresh)
        finally:
            backlog[:0] = fresh[::-1]
        rows.take(backlog)

    def _take(self, sock: ReceiveSocket, limit: int, datagrams: list[Datagram]) -> bool:
        """Append what a socket holds; return whether it may hold more."""
        first = len(datagrams)
        more, refused = True, 0
        # The caller can look at the clock in between, however many foreign ones come.
        while more and refused < REFUSALS and len(datagrams) - first < limit:
            room = limit - len(datagrams) + first
            target = datagrams if sock.accepts is None else sock.landing
            try:
                more = self.intake.batch(sock.handle, room, target)
            except OSError as error:
                more = not self.is_over(error, sock)
            if sock.accepts is not None and not self._filter(sock, datagrams):
                refused += 1
        return more

    def _take_rounds(self, limit: int, datagrams: list[Datagram]) -> None:
        """Append what the sockets hold, a share of each in its turn, until there is nothing or the list is so long."""
        ready = self._ready
        before = len(datagrams)
        end = before + limit
        while before < end:
            if self._turns <= 0 or not ready:
                self._look(0)
            if not ready:
                return
            sock = ready[0]
            more = self._take(sock, min(TURNS, end - before), datagrams)
            if ready and ready[0] is sock:
                del ready[0]
                sock.queued = False
                if more:
                    ready += (sock,)
                    sock.queued = True
            after = len(datagrams)
            self._turns -= after - before or 1
            before = after

    def _sweep(self, limit: int, datagrams: list[Datagram]) -> bool:
        """As `_take_rounds`, by the extension; return False where that cannot."""
        waitset = self._waitset or self.waitset()
        if self._filters or not self._sweeps or waitset.epoll < 0:
            return False
        # The extension asks for all of them anew, so nothing is known to be ready.
        ready = self._ready
        while True:
            if not ready:
                break
            ready[0].queued = False
            del ready[0]
        end = len(datagrams) + limit
        while len(datagrams) < end:
            room = end - len(datagrams)
            if waitset.closed:
                # No call stands between this and the use of the descriptors.
                break
            try:
                self._native.sweep(waitset.epoll, waitset.alarm, room, datagrams)
                break
            except OSError as error:
                self.is_over(error, None)
        return True

    def _filter(self, sock: ReceiveSocket, datagrams: list[Datagram], newest_first: bool = False) -> bool:
        """Move what has landed into the list, and count what is foreign instead; return whether any was its own."""
        landing, echo = sock.landing, self.echo
        moved = False
        while True:
            if not landing:
                return moved
            first = landing[0]
            foreign = sock.is_foreign(first) or (echo is not None and echo.is_own(first))
            size, truncated = len(first.data), first.truncated
            # Another thread may have moved it; from here on to the end nothing can come between.
            if landing and landing[0] is first:
                if foreign:
                    self.filtered += 1
                    self._refused_bytes += size
                    self._refused_truncated += truncated
                elif newest_first:
                    datagrams[:0] = (first,)
                    moved = True
                else:
                    datagrams += (first,)
                    moved = True
                del landing[0]

    def is_over(self, error: OSError, sock: ReceiveSocket | None, /) -> bool:
        """Return whether a failed receive means that the socket was closed meanwhile; raise an error that matters."""
        if self.closed or (sock is not None and sock.closed):
            return True
        if isinstance(error, MulticastExpertError):
            raise error
        if error_name(self._kernel, error) not in _STALE_ERRORS:
            raise os_error(self._kernel, error, "receive", "receive") from error
        return False

    def drain(self, sock: ReceiveSocket) -> None:
        """Put what a socket that is about to be closed still holds behind everything in the backlog."""
        fresh: list[Datagram] = []
        try:
            self._take(sock, DRAIN_LIMIT, fresh)
        except MulticastExpertError:
            # It is closed because it is broken.
            pass
        finally:
            self._backlog[:0] = fresh[::-1]
        self.ring()

    # Waiting

    def waitset(self) -> WaitSet[ReceiveSocket]:
        """Return what waits for the sockets. Raises NotOpenError once this is closed, and MulticastOSError."""
        with self.changes, self._lock:
            if self._waitset is None and not self.closed:
                try:
                    self._waitset = self._new_waitset()
                except OSError as error:
                    raise os_error(self._kernel, error, "wait", "wait for datagrams") from error
            if self.closed or self._waitset is None:
                # By a signal handler, perhaps, since this began.
                self._close_waitset()
                raise NotOpenError("The receiver was closed while it was being used.")
            return self._waitset

    def _new_waitset(self) -> WaitSet[ReceiveSocket]:
        """Return a set with all sockets, those included that a signal handler adds meanwhile."""
        waitset: WaitSet[ReceiveSocket] = WaitSet(self.has_kept)
        known: set[ReceiveSocket] = set()
        try:
            while missing := [sock for sock in list(self._sockets) if sock not in known]:
                sock = missing[0]
                known.add(sock)
                try:
                    waitset.add(sock.socket.fileno(), sock)
                except (OSError, ValueError):
                    # A signal handler may have closed it just now.
                    if not sock.closed:
                        raise
        except BaseException:
            waitset.close()
            raise
        return waitset

    def _close_waitset(self) -> None:
        waitset = self._waitset
        if waitset is not None:
            waitset.close()
            self._waitset = None

    def ring(self) -> None:
        """Wake every thread that waits: the backlog holds something."""
        if self._waitset is not None:
            self._waitset.ring()

    def shown(self) -> int:
        """Return the descriptor that `show_kept` is about; -1 where there is none. Raises MulticastOSError."""
        waitset = self.waitset()
        try:
            return waitset.shown()
        except OSError as error:
            raise os_error(self._kernel, error, "wait", "wait for datagrams") from error

    def show_kept(self) -> None:
        """Let the descriptor for selectors of the user's own be readable as long as something is kept."""
        if self._waitset is not None:
            self._waitset.show()

    def wait(self, timeout: float | None, backlog: list[Datagram]) -> bool:
        """Wait until a datagram may be there, and perhaps put it into the backlog; return whether one may be.

        None waits for ever. May return False early. Raises NotOpenError when the receiver is closed meanwhile.
        """
        sole = self.quick
        waitset = self._waitset or self.waitset()
        if self._filters or not self.by_descriptor or (sole is None and waitset.epoll < 0):
            found = self._look(timeout)
        else:
            # The extension waits and receives in one step, and needs no selector for a single socket.
            self.idle = self.idle - 1 if self.idle else IDLE
            intake, inside, token, thread = self._native, waitset.inside, object(), get_ident()
            seconds = waitset.glance if timeout is None or timeout > waitset.glance else timeout
            found = False
            try:
                inside[token] = thread
                # A thread that changed one of them since either saw this token, or is seen here.
                if backlog or waitset.closed or sole is not self.quick:
                    pass
                elif sole is None:
                    found = intake.expect_any(waitset.epoll, backlog, waitset.alarm, seconds)
                else:
                    found = intake.expect(sole.handle, backlog, waitset.alarm, seconds)
            except OSError as error:
                self.is_over(error, sole)
            finally:
                if token in inside:
                    del inside[token]
                if not found or waitset.rung or waitset.closed:
                    waitset.left()
            if not found:
                found = self.has_kept()
            elif (inside or waitset.watchers) and len(backlog) > 1:
                waitset.ring()
        if self.closed:
            raise NotOpenError("The receiver was closed while it was waiting.")
        return found

    def _look(self, timeout: float | None) -> bool:
        """Put the sockets that are readable behind those that are known to be; return whether there are any."""
        ready = self._ready
        if timeout != 0 and self._sole is None and ready:
            return True
        waitset = self._waitset or self.waitset()
        found = waitset.wait(timeout)
        if self._sole is not None:
            return bool(found) or self.has_kept()
        if self.intake.unread:
            # Any socket will do to take it.
            found += [*self._sockets][:1]
        for sock in found:
            if not sock.queued:
                ready += (sock,)
                sock.queued = True
        # Those that are known have their turn before there is another look, which costs as much as they are many.
        self._turns = max(TURNS, 2 * len(ready))
        return bool(found or ready or self._backlog)

    def has_kept(self) -> bool:
        """Return whether something was taken from the OS that no selector reports any longer."""
        return bool(self._backlog) or self.intake.unread

    # Counting

    def counts(self) -> tuple[int, int, int]:
        """Return how many datagrams, bytes and cut datagrams were received."""
        intake = self.intake
        return (
            intake.datagrams - self.filtered,
            intake.payload_bytes - self._refused_bytes,
            intake.truncated - self._refused_truncated,
        )
