"""AsyncMcastRxSocket and AsyncMcastTxSocket: the same sockets, awaited, on asyncio, uvloop and trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

from multicast_expert import extension
from multicast_expert.core.addresses import IPv4Or6Address, MulticastAddress
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram
from multicast_expert.core.datagram_buffer import DatagramBuffer
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceSpecifier
from multicast_expert.engine import SendSocket, os_error
from multicast_expert.sockets.both_ways import BothWays
from multicast_expert.sockets.lifecycle import Openable
from multicast_expert.sockets.outlet import Outlet, sending_one
from multicast_expert.sockets.receiver import DEFAULT, Default, Receiver
from multicast_expert.sockets.transmitter import Transmitter
from multicast_expert.system import kernel

if TYPE_CHECKING:
    from multicast_expert.doctor.report import Report
    from multicast_expert.sockets.loops import LoopWaits

YIELD_EVERY = 256
"""How many datagrams are handed out before other tasks get their turn, although more are there."""


class AsyncOpenable(Openable):
    """Base of the async sockets: they open under `async with` as well as under `with`."""

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(exc_type, exc, traceback)


async def _checkpoint() -> None:
    from multicast_expert.sockets.loops import checkpoint  # noqa: PLC0415 - takes long to import, and few need it

    await checkpoint()


class AsyncMcastRxSocket(Receiver, AsyncOpenable):
    """McastRxSocket for asyncio, uvloop and trio: the same parameters and methods; those that wait are awaited.

    Where the blocking `recvfrom` and `recv` return None after the timeout, these raise TimeoutError. Any number of
    tasks may receive at once, and any thread may close it. A cancelled receive loses no datagram.
    """

    _until_yield = YIELD_EVERY
    _arrivals: LoopWaits | None = None
    _promised: Sequence[None] = ()

    def _waits(self) -> LoopWaits:
        arrivals = self._arrivals
        if arrivals is None:
            from multicast_expert.sockets.loops import LoopWaits  # noqa: PLC0415 - takes long to import

            reader = self._reader
            arrivals = self._arrivals = LoopWaits(self._source.waitset(), reader.fetch, self._source.has_kept)
            self._promised = arrivals.promised
        return arrivals

    def _open(self) -> None:
        super()._open()
        try:
            self._waits()
        except BaseException as error:
            self._close()
            # For the import of an event loop, too, there may be no descriptor left.
            if isinstance(error, OSError) and not isinstance(error, MulticastExpertError):
                raise os_error(kernel.SYSTEM, error, "wait", "wait in an event loop") from error
            raise

    def _close(self) -> None:
        super()._close()
        self._arrivals = None

    def _abandon(self) -> None:
        super()._abandon()
        self._arrivals = None

    async def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address]:
        """Return the payload and the sender's socket address of the next datagram. Raises TimeoutError."""
        datagram = await self._next(self.timeout, bufsize, flags)
        return datagram.data, datagram.sender

    async def recv(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> bytes:
        """Return the payload of the next datagram. Raises TimeoutError."""
        return (await self._next(self.timeout, bufsize, flags)).data

    async def receive(self, timeout: float | Default | None = DEFAULT) -> Datagram:
        """Return the next datagram with all that the kernel knows about it. Raises TimeoutError when nothing came."""
        return await self._next(self._effective(timeout))

    async def _next(self, timeout: float | None, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> Datagram:
        if self._is_turn_over():
            await self._give_way()
        reader = self._reader
        datagram = reader.take_one(bufsize, flags)
        if datagram is None:
            deadline = None if timeout is None else monotonic() + timeout
            while datagram is None:
                await self._wait(timeout, deadline)
                datagram = reader.take_one(bufsize, flags)
        return datagram

    async def receive_many(self, limit: int = 1024, timeout: float | Default | None = DEFAULT) -> list[Datagram]:
        """Return the datagrams that are there, 1 to `limit` of them; waits only for the first. Raises TimeoutError."""
        if self._is_turn_over():
            await self._give_way()
        limit = max(limit, 1)
        reader = self._reader
        datagrams = reader.take(limit)
        if not datagrams:
            timeout = self._effective(timeout)
            deadline = None if timeout is None else monotonic() + timeout
            while not datagrams:
                await self._wait(timeout, deadline)
                datagrams = reader.take(limit)
        self._until_yield -= len(datagrams) - 1
        return datagrams

    async def receive_into(self, buffer: DatagramBuffer, *, timeout: float | Default | None = DEFAULT) -> int:
        """Add the datagrams that are there to the buffer. See `McastRxSocket.receive_into`. Raises TimeoutError."""
        if self._is_turn_over():
            await self._give_way()
        rows, reader = buffer._rows, self._reader
        found = reader.take_into(rows)
        if not (found or rows.refused):
            timeout = self._effective(timeout)
            deadline = None if timeout is None else monotonic() + timeout
            while not (found or rows.refused):
                await self._wait(timeout, deadline)
                found = reader.take_into(rows)
        self._until_yield -= found - 1
        return found

    async def explain(self, group: MulticastAddress | None = None, *, listen: float = 5.0) -> Report:
        """Return why nothing arrives here, or that it does. See `McastRxSocket.explain`; a thread does the work."""
        from multicast_expert.sockets.loops import in_thread  # noqa: PLC0415 - takes long to import, and few need it

        cancelled = False
        try:
            return await in_thread(lambda: self._explain(group, listen, lambda seconds, received: not cancelled))
        finally:
            cancelled = True

    def __aiter__(self) -> AsyncIterator[Datagram]:
        """Iterate over datagrams as they come; ends when the receiver's timeout passes without one."""
        if extension.Handout is None or not self.is_opened:
            return self
        iteration: AsyncIterator[Datagram] = extension.Handout(self._reader.backlog, self._promised, self.__anext__)
        return iteration

    async def __anext__(self) -> Datagram:
        """Return the next datagram; the iteration ends when the receiver's timeout passes without one."""
        reader = self._reader
        if not reader.backlog or self._promised:
            if self._is_turn_over():
                await self._give_way()
            timeout = self.timeout
            deadline = None if timeout is None else monotonic() + timeout
            while not reader.backlog:
                if reader.fill(YIELD_EVERY, 0):
                    # They are handed out before it asks for its turn again.
                    self._until_yield -= len(reader.backlog) - 1
                    break
                try:
                    await self._wait(timeout, deadline)
                except TimeoutError:
                    raise StopAsyncIteration from None
        return reader.take_kept() or await self._next(self.timeout)

    def _is_turn_over(self) -> bool:
        """Return whether other tasks have to run before another datagram is handed out."""
        if not self.is_opened:
            self._check_open()
        self._until_yield -= 1
        return self._until_yield < 0 or bool(self._promised)

    async def _give_way(self) -> None:
        self._until_yield = YIELD_EVERY
        await _checkpoint()
        self._check_open()

    async def _wait(self, timeout: float | None, deadline: float | None) -> None:
        """Wait until a datagram may be there. Raises TimeoutError after the deadline, and when this is closed."""
        if deadline is None:
            await self._waits().wait(None)
        else:
            remaining = deadline - monotonic()
            if remaining > 0:
                await self._waits().wait(remaining)
            else:
                # Polling with timeout 0 must still yield to other tasks.
                await _checkpoint()
                self._check_open()
                self._reader.fetch()
                if not self._reader.backlog:
                    raise self._timed_out(timeout)
        if not self.is_opened:
            self._check_open()


class Rooms:
    """Waits for room to send, in event loops."""

    def __init__(self) -> None:
        self._waits: WeakKeyDictionary[SendSocket, LoopWaits] = WeakKeyDictionary()

    async def wait(self, outlet: Outlet) -> None:
        """Wait until there is room to send out of this outlet, or it is closed or renewed."""
        from multicast_expert.sockets.loops import LoopWaits  # noqa: PLC0415 - takes long to import, and few need it

        socket, waitset = outlet.room()
        room = self._waits.get(socket)
        if room is None:
            room = self._waits[socket] = LoopWaits(waitset, lambda: None, lambda: False)
        await room.wait()

    async def send_one(self, steps: Iterable[Outlet]) -> None:
        """Do what the steps say, and wait for each outlet that they yield."""
        for outlet in steps:
            await self.wait(outlet)

    async def send_many(self, steps: Generator[Outlet | None, None, int]) -> int:
        """Do the same, and let other tasks run where they yield None; return what the steps return."""
        while True:
            try:
                outlet = next(steps)
            except StopIteration as finished:
                sent: int = finished.value
                return sent
            await (_checkpoint() if outlet is None else self.wait(outlet))


class AsyncMcastTxSocket(Transmitter, AsyncOpenable):
    """McastTxSocket for asyncio, uvloop and trio: the same parameters and methods; those that may wait are awaited."""

    def _open(self) -> None:
        super()._open()
        self._rooms = Rooms()

    def _abandon(self) -> None:
        super()._abandon()
        self._rooms = Rooms()

    async def sendto(self, data: bytes, address: IPv4Or6Address, *, hop_limit: int | None = None) -> None:
        """Send one datagram; waits while the send buffer is full. See `McastTxSocket.sendto`."""
        address, hops, outlets = self._checked(address, hop_limit)
        send = lambda outlet: outlet.send(data, address, hops)  # noqa: E731 - one expression
        await self._rooms.send_one(sending_one(outlets, send, self._check_open))

    async def send_many(
        self, payloads: Iterable[bytes], address: IPv4Or6Address, *, hop_limit: int | None = None
    ) -> int:
        """Send several datagrams to one address; return how many went. See `McastTxSocket.send_many`."""
        self._check_open()
        return await self._rooms.send_many(self._sending(payloads, address, hop_limit, YIELD_EVERY))


class AsyncMcastSocket(BothWays, AsyncMcastRxSocket):
    """McastSocket for asyncio, uvloop and trio: the same parameters and methods; those that may wait are awaited.

    `query` is an async iterator, which sends when the iteration begins. Any number of tasks may receive and send at
    once.
    """

    def _open(self) -> None:
        self._rooms = Rooms()
        super()._open()

    def _abandon(self) -> None:
        super()._abandon()
        self._rooms = Rooms()

    async def sendto(
        self,
        data: bytes,
        address: IPv4Or6Address,
        *,
        hop_limit: int | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> None:
        """Send one datagram; waits while the send buffer is full. See `McastSocket.sendto`."""
        route = self._route(address, iface)
        await self._rooms.send_one(self._sending_one(route, data, hop_limit))

    async def reply(self, datagram: Datagram, data: bytes) -> None:
        """Send to the sender of a datagram, out of the interface it came in on. See `McastSocket.reply`."""
        if self._went_short(datagram, data):
            return
        route = self._route_back(datagram)
        await self._rooms.send_one(self._sending_one(route, data, None))
        self._learn_reply(datagram, route)

    def sending_to(self, data: bytes, address: IPv4Or6Address) -> Generator[Outlet, None, None]:
        """Return the steps of `sendto`, for code that has its own way to wait."""
        return self._sending_one(self._route(address, None), data, None)

    def replying_to(
        self,
        datagram: Datagram,
        data: bytes,
        *,
        to: IPv4Or6Address | None = None,
        hop_limit: int | None = None,
    ) -> Generator[Outlet, None, None]:
        """Return the steps of `reply`, for code that has its own way to wait.

        `to`: a group and port to send to instead, also from the address that the datagram was sent to.
        """
        route = self._route_back(datagram) if to is None else self._route_beside(datagram, to)
        return self._sending_one(route, data, hop_limit)

    async def wait_through(self, steps: Generator[Outlet, None, None]) -> None:
        """Go through the steps to their end, and wait for each outlet that they yield."""
        await self._rooms.send_one(steps)

    async def send_many(
        self,
        payloads: Iterable[bytes],
        address: IPv4Or6Address,
        *,
        hop_limit: int | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> int:
        """Send several datagrams to one address; return how many went. See `McastSocket.send_many`."""
        self._check_open()
        return await self._rooms.send_many(self._sending_many(payloads, address, hop_limit, iface, YIELD_EVERY))

    async def query(
        self,
        data: bytes,
        address: IPv4Or6Address,
        *,
        timeout: float,
        hop_limit: int | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> AsyncIterator[Datagram]:
        """Send one datagram, and iterate over all that is received in the next `timeout` seconds.

        See `McastSocket.query`.
        """
        await self.sendto(data, address, hop_limit=hop_limit, iface=iface)
        deadline = monotonic() + timeout
        while (remaining := deadline - monotonic()) > 0:
            try:
                datagram = await self.receive(remaining)
            except TimeoutError:
                return
            yield datagram
