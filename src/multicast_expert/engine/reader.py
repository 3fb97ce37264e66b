"""Reader: hands out the datagrams of a source, one or many, at once or after waiting. Touches no OS.

The source is a seam: sockets (SocketSource), or anything else that keeps the protocol. The backlog is a list with the
newest datagram first, so that the next one is taken from its end in two bytecodes. The lines that take from it contain
no call, because CPython runs signal handlers and switches threads between calls: a datagram is in the backlog, or it is
the caller's.
"""

from __future__ import annotations

from collections.abc import Iterator
from time import monotonic
from typing import Protocol

from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, cut
from multicast_expert.core.datagram_buffer import Rows
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.engine.intake import Intake
from multicast_expert.engine.receive_socket import ReceiveSocket
from multicast_expert.extension import FREE_THREADED

MSG_PEEK = 2
# Without the interpreter lock another thread can come between any two bytecodes.


class Source(Protocol):
    """Where a Reader takes datagrams from."""

    intake: Intake
    quick: ReceiveSocket | None
    """The only socket, whose handle the Reader may give to the intake itself; None: `turns` has one, or ask `one`."""
    turns: Iterator[ReceiveSocket]
    """The sockets whose handles the Reader may give to the intake, in turn, before it asks `one` again."""
    idle: int
    """For how many more receives it is worth while to wait at once, without a try before."""

    def one(self, backlog: list[Datagram], /) -> bool:
        """Put the datagrams of one message into the backlog, the oldest last; return whether there was one."""

    def has_next(self, empty: ReceiveSocket, /) -> bool:
        """Return whether another socket than this one, which held nothing, is known to hold something."""

    def many(self, limit: int, datagrams: list[Datagram], /) -> None:
        """Append what is there, oldest first, without waiting: `limit` datagrams and perhaps the rest of a run."""

    def into(self, rows: Rows, backlog: list[Datagram], /) -> None:
        """Move what is there into the rows, without waiting, as far as there is room; the rest goes to the backlog."""

    def wait(self, timeout: float | None, backlog: list[Datagram], /) -> bool:
        """Wait until a datagram may be there, and perhaps put it into the backlog; return whether one may be."""

    def is_over(self, error: OSError, quick: ReceiveSocket | None, /) -> bool:
        """Return whether the error means that `quick` is closed; raise it unless it says nothing about datagrams."""

    def ring(self) -> None:
        """Wake every thread that waits."""


class Reader:
    """Hands out the datagrams of one source. Any number of threads may take at once."""

    def __init__(self, source: Source, backlog: list[Datagram]) -> None:
        self._source = source
        self._intake = source.intake
        self.backlog: list[Datagram] = backlog
        """Datagrams that were taken from the source and not handed out, newest first; they come before all others."""
        self.cut: int = 0
        """How many datagrams a small `bufsize` cut that had been taken whole."""
        self.cut_bytes: int = 0

    def take_one(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> Datagram | None:
        """Return the next datagram, or None when nothing is there."""
        if bufsize < MAX_DATAGRAM or flags:
            return self._take_part(bufsize, flags)
        backlog, source = self.backlog, self._source
        while True:
            sock = source.quick
            try:
                if not backlog:
                    sock = sock or next(source.turns, None)
                    if sock is None:
                        if not source.one(backlog):
                            return None
                    else:
                        # An operator: no signal handler comes between it and `return`.
                        datagram = self._intake[sock.handle, backlog]
                        if datagram is not None or not (backlog or source.has_next(sock)):
                            return datagram
                        source.ring()
                if FREE_THREADED:
                    return backlog.pop()
                newest = backlog[-1]
                del backlog[-1]
                return newest
            except IndexError:
                # Another thread took it first.
                pass
            except OSError as error:
                if source.is_over(error, sock) and not (sock and source.has_next(sock)):
                    return None

    def take_kept(self) -> Datagram | None:
        """As `take_one`, and quicker where the backlog holds something, as it mostly does in an iteration."""
        backlog = self.backlog
        if backlog and not FREE_THREADED:
            newest = backlog[-1]
            del backlog[-1]
            return newest
        return self.take_one()

    def _take_part(self, bufsize: int, flags: int) -> Datagram | None:
        """As `take_one`, for a small buffer, or a look that takes nothing."""
        if bufsize < 0:
            raise ValueError("negative buffer size")
        backlog = self.backlog
        peeking = flags & MSG_PEEK
        while True:
            # Taken whole: another thread may be the one that gets it.
            if not backlog and not self._source.one(backlog):
                return None
            if not backlog:
                # Another thread took it first.
                continue
            datagram = backlog[-1]
            size, whole = len(datagram.data), not datagram.truncated
            part = datagram if size <= bufsize else cut(datagram, bufsize)
            if peeking:
                # No selector reports it any longer.
                self._source.ring()
                return part
            if backlog and backlog[-1] is datagram:
                if size > bufsize:
                    self.cut += whole
                    self.cut_bytes += size - bufsize
                del backlog[-1]
                return part

    def take(self, limit: int) -> list[Datagram]:
        """Return what is there, at most `limit` datagrams, oldest first, without waiting; nothing: an empty list."""
        datagrams: list[Datagram] = []
        backlog = self.backlog
        try:
            if backlog:
                datagrams = backlog[: -limit - 1 : -1]
                del backlog[-limit:]
            if len(datagrams) < limit:
                self._source.many(limit - len(datagrams), datagrams)
            if len(datagrams) > limit:
                # The rest of a coalesced run.
                backlog += datagrams[: limit - 1 : -1]
                del datagrams[limit:]
            if backlog:
                self._source.ring()
        except BaseException:
            backlog += datagrams[::-1]
            if backlog:
                self._source.ring()
            raise
        return datagrams

    def wait_for_one(self, timeout: float | None, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> Datagram | None:
        """Wait for a datagram and return it; None when the timeout (seconds; None: no limit) passes first.

        To be called when `take_one` found nothing, or was left out because the source is idle.

        Raises MulticastExpertError when the source is closed meanwhile, and what the OS refuses as MulticastOSError.
        """
        if flags or bufsize < MAX_DATAGRAM:
            return self._wait_for_part(timeout, bufsize, flags)
        source, backlog = self._source, self.backlog
        if timeout == 0:
            # Among several sockets, the first try may have looked only at those that were ready before.
            return self.take_one() if source.idle or source.quick is None else None
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if source.wait(timeout, backlog):
                if backlog and not FREE_THREADED:
                    newest = backlog[-1]
                    del backlog[-1]
                    return newest
                datagram = self.take_one()
                if datagram is not None:
                    return datagram
            if deadline is not None:
                timeout = deadline - monotonic()
                if timeout <= 0:
                    return None

    def _wait_for_part(self, timeout: float | None, bufsize: int, flags: int) -> Datagram | None:
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            datagram = self._take_part(bufsize, flags)
            if datagram is not None:
                return datagram
            if deadline is not None:
                timeout = deadline - monotonic()
                if timeout <= 0:
                    return None
            self._source.wait(timeout, self.backlog)

    def receive_many(self, limit: int, timeout: float | None) -> list[Datagram]:
        """Return the datagrams that are there, at most `limit`; waits only for the first. Empty after the timeout."""
        datagrams = self.take(limit)
        if datagrams or timeout == 0:
            return datagrams
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if self._source.wait(timeout, self.backlog):
                datagrams = self.take(limit)
                if datagrams:
                    return datagrams
            if deadline is not None:
                timeout = deadline - monotonic()
                if timeout <= 0:
                    return datagrams

    def take_into(self, rows: Rows) -> int:
        """Move what is there into the rows, as far as there is room, without waiting; return how many.

        Raises MulticastExpertError if the rows are full already.
        """
        if rows.is_full:
            raise MulticastExpertError("The buffer is full: process what it holds, then call clear().")
        backlog, before = self.backlog, len(rows)
        try:
            if backlog:
                rows.take(backlog)
            if not backlog:
                self._source.into(rows, backlog)
        finally:
            if backlog or self._intake.unread:
                self._source.ring()
        return len(rows) - before

    def wait_into(self, rows: Rows, timeout: float | None) -> int:
        """Wait for a datagram, then `take_into`; 0 after the timeout, and if the first finds no room.

        To be called when `take_into` found nothing and the rows refused nothing.
        """
        if timeout == 0:
            return 0
        deadline = None if timeout is None else monotonic() + timeout
        while True:
            if self._source.wait(timeout, self.backlog):
                found = self.take_into(rows)
                if found or rows.refused:
                    return found
            if deadline is not None:
                timeout = deadline - monotonic()
                if timeout <= 0:
                    return 0

    def fill(self, limit: int, timeout: float | None) -> bool:
        """Move what is there, about `limit` datagrams, into the backlog, waiting for the first; False: nothing came."""
        fresh = self.receive_many(limit, timeout)
        self.backlog += fresh[::-1]
        if len(fresh) > 1:
            self._source.ring()
        return bool(fresh)

    def fetch(self) -> None:
        """Move what one look at the source finds into the backlog."""
        if not self.backlog:
            self._source.one(self.backlog)
