"""RecordedReceiver: receives from a recording as McastRxSocket does from the network. Opens the file."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from os import PathLike
from types import SimpleNamespace
from typing import Any

from multicast_expert.core.addresses import IPv4Or6Address, MulticastAddress, listed, parse_port
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, ReceiveStats
from multicast_expert.core.datagram_buffer import DatagramBuffer, Rows
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.scopes import parse_scoped_group
from multicast_expert.engine import Reader
from multicast_expert.engine.receive_socket import ReceiveSocket
from multicast_expert.recording.recording import Recording, as_datagram
from multicast_expert.sockets.lifecycle import Openable
from multicast_expert.sockets.receiver import checked_timeout
from multicast_expert.wire.captured import CapturedDatagram


class RecordingSource:
    """The datagrams of a recording, as a Reader takes them. When they end, nothing comes any more."""

    def __init__(self, recording: Recording) -> None:
        self._recording = recording
        self.intake: Any = SimpleNamespace(unread=False)
        self.quick: ReceiveSocket | None = None
        self.turns: Iterator[ReceiveSocket] = iter(())
        self.idle: int = 0
        self.datagrams: int = 0
        self.bytes: int = 0
        self.truncated: int = 0

    def one(self, backlog: list[Datagram], /) -> bool:
        """Put the next datagram into the backlog; return whether there was one."""
        return self._take(backlog, 0)

    def _take(self, into: list[Datagram], at: int) -> bool:
        return self._recording.take(self._counted, into, at)

    def _counted(self, entry: CapturedDatagram) -> Datagram:
        datagram = as_datagram(entry)
        self.datagrams += 1
        self.truncated += datagram.truncated
        self.bytes += len(datagram.data)
        return datagram

    def has_next(self, empty: ReceiveSocket, /) -> bool:
        """Return whether another socket holds something: there is none."""
        return False

    def many(self, limit: int, datagrams: list[Datagram], /) -> None:
        """Append the next datagrams, at most `limit`."""
        for _ in range(limit):
            if not self._take(datagrams, len(datagrams)):
                return

    def into(self, rows: Rows, backlog: list[Datagram], /) -> None:
        """Move datagrams into the rows, as far as there is room; the one that finds none goes to the backlog."""
        while not (rows.is_full or backlog) and self.one(backlog):
            rows.take(backlog)

    def wait(self, timeout: float | None, backlog: list[Datagram], /) -> bool:
        """Return whether a datagram may be there: a wait brings none."""
        return bool(backlog)

    def is_over(self, error: OSError, quick: ReceiveSocket | None, /) -> bool:
        """Raise the error: there is no socket that could have been closed."""
        raise error

    def ring(self) -> None:
        """Wake every thread that waits: none does."""


class RecordedReceiver(Openable):
    """Receives the groups of a port from a recording, with the methods that McastRxSocket receives with.

    path: the capture file. mcast_ips: the groups; one with a scope (`ff02::1%eth0`) from that interface only.
    port: the UDP port.

    It never waits: behind the last datagram every receive ends at once, as on a socket whose timeout passes. Raises as
    Recording does.
    """

    def __init__(self, path: str | PathLike[str], mcast_ips: Iterable[MulticastAddress], port: int) -> None:
        groups = list(dict.fromkeys(parse_scoped_group(each) for each in listed(mcast_ips, "mcast_ips")))
        if not groups:
            raise MulticastExpertError("mcast_ips is empty: name at least one group.")
        self._path = path
        self.port: int = parse_port(port)
        self.mcast_ips: list[str] = [str(each.group) for each in groups]
        self.timeout: float | None = 0
        self._endpoints = [Endpoint(group, self.port, None, scope) for group, scope in groups]

    def _open(self) -> None:
        self._recording = Recording(self._path, self._endpoints)
        self._source = RecordingSource(self._recording)
        self._reader = Reader(self._source, [])

    def _close(self) -> None:
        self._recording.close()
        self._reader.backlog.clear()

    def _abandon(self) -> None:
        """In the child of a fork: it reads on for itself; what the parent has taken, the parent hands out."""
        self._recording.abandon()
        self._reader.backlog.clear()

    def _opened(self) -> Reader:
        self._check_open()
        return self._reader

    def __repr__(self) -> str:
        state = "open" if self.is_opened else "closed"
        return f"<RecordedReceiver {', '.join(self.mcast_ips)} port {self.port} of {self._path} {state}>"

    def settimeout(self, timeout: float | None) -> None:
        """Take note of a timeout, which changes nothing. Raises MulticastExpertError for a negative one."""
        self.timeout = checked_timeout(timeout)

    def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address] | None:
        """Return the payload and the sender of the next datagram; None at the end."""
        datagram = self._opened().take_one(bufsize, flags)
        return None if datagram is None else (datagram.data, datagram.sender)

    def recv(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> bytes | None:
        """Return the payload of the next datagram; None at the end."""
        received = self.recvfrom(bufsize, flags)
        return None if received is None else received[0]

    def receive(self, timeout: float | None = None) -> Datagram:
        """Return the next datagram. Raises TimeoutError at the end."""
        datagram = self._opened().take_one()
        if datagram is None:
            raise _ended()
        return datagram

    def receive_many(self, limit: int = 1024, timeout: float | None = None) -> list[Datagram]:
        """Return the next datagrams, 1 to `limit` of them. Raises TimeoutError at the end."""
        datagrams = self._opened().take(max(1, limit))
        if not datagrams:
            raise _ended()
        return datagrams

    def receive_into(self, buffer: DatagramBuffer, *, timeout: float | None = None) -> int:
        """Add datagrams to the buffer, as far as there is room; return how many. Raises TimeoutError at the end."""
        found = self._opened().take_into(buffer._rows)
        if not (found or buffer.is_full):
            raise _ended()
        return found

    def stats(self) -> ReceiveStats:
        """Return what was received so far; the kernel's drops are those that the file reports up to here."""
        reader, source = self._opened(), self._source
        drops = sum(self._recording.dropped.values())
        size, truncated = source.bytes - reader.cut_bytes, source.truncated + reader.cut
        return ReceiveStats(source.datagrams, size, truncated, drops, 0)

    def __iter__(self) -> Iterator[Datagram]:
        while (datagram := self._opened().take_one()) is not None:
            yield datagram


def _ended() -> TimeoutError:
    return TimeoutError("The recording has ended: nothing more comes.")
