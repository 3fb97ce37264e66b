"""AsyncMcastRxSocket and AsyncMcastTxSocket: the same sockets, awaited, on asyncio, uvloop and trio.

What an event loop took from the kernel for a receive that is cancelled goes back to the backlog: nothing is lost.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from functools import partial
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self
from weakref import WeakKeyDictionary

from multicast_expert.core.addresses import IPv4Or6Address, MulticastAddress
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram
from multicast_expert.core.errors import MulticastOSError
from multicast_expert.engine import ReceiveEngine, SendEngine
from multicast_expert.sockets.lifecycle import Openable
from multicast_expert.sockets.reception import DEFAULT, Default, Receiver
from multicast_expert.sockets.transmitter import Transmitter

if TYPE_CHECKING:
    from multicast_expert.doctor.report import Report
    from multicast_expert.sockets.loops import Readiness

YIELD_EVERY = 128
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


def _fetch(engine: ReceiveEngine) -> Datagram | None:
    """Return the next datagram, or None when nothing is there, by asking the OS."""
    datagram = engine.try_receive_datagram()
    # Looking ends a wake, too, that no socket is the reason of.
    if datagram is None and engine.look():
        datagram = engine.try_receive_datagram()
    return datagram


class AsyncMcastRxSocket(Receiver, AsyncOpenable):
    """McastRxSocket for asyncio, uvloop and trio: the same parameters and methods; those that wait are awaited.

    Where the blocking `recvfrom` and `recv` return None after the timeout, these raise TimeoutError.
    """

    _until_yield = YIELD_EVERY
    _arrivals: Readiness[Datagram]

    def _open(self) -> None:
        from multicast_expert.sockets.loops import Readiness  # noqa: PLC0415 - takes long to import, and few need it

        super()._open()
        try:
            self._arrivals = Readiness(self._engine.waiter(), partial(_fetch, self._engine), self._engine.backlog)
        except BaseException:
            super()._close()
            raise

    def _close(self) -> None:
        super()._close()
        # Iteration looks there first.
        self._engine.backlog.clear()

    async def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address]:
        """Return the payload and the sender's socket address of the next datagram. Raises TimeoutError."""
        if self._is_turn_over():
            await self._give_way()
        engine = self._engine
        received = engine.try_receive(bufsize, flags)
        while received is None:
            datagram = await self._next(self.timeout)
            if not flags and len(datagram.data) <= bufsize:
                received = datagram.data, datagram.sender
            else:
                engine.backlog.appendleft(datagram)
                received = engine.try_receive(bufsize, flags)
        if engine.backlog:
            self._arrivals.share()
        return received

    async def recv(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> bytes:
        """Return the payload of the next datagram. Raises TimeoutError."""
        return (await self.recvfrom(bufsize, flags))[0]

    async def receive(self, timeout: float | Default | None = DEFAULT) -> Datagram:
        """Return the next datagram with all that the kernel knows about it. Raises TimeoutError when nothing came."""
        if self._is_turn_over():
            await self._give_way()
        engine = self._engine
        datagram = engine.try_receive_datagram()
        if datagram is None:
            datagram = await self._next(self._effective(timeout))
        if engine.backlog:
            self._arrivals.share()
        return datagram

    async def receive_many(self, limit: int = 1024, timeout: float | Default | None = DEFAULT) -> list[Datagram]:
        """Return the datagrams that are there, 1 to `limit` of them; waits only for the first. Raises TimeoutError."""
        if self._is_turn_over():
            await self._give_way()
        engine = self._engine
        datagrams = engine.receive_batch(limit)
        if not datagrams:
            datagrams = [await self._next(self._effective(timeout))]
            engine.receive_more(datagrams, limit)
        self._until_yield -= len(datagrams) - 1
        if engine.backlog:
            self._arrivals.share()
        return datagrams

    async def explain(self, group: MulticastAddress | None = None, *, listen: float = 5.0) -> Report:
        """Return why nothing arrives here, or that it does. See `McastRxSocket.explain`; a thread does the work."""
        from multicast_expert.sockets.loops import in_thread  # noqa: PLC0415 - takes long to import, and few need it

        cancelled = False
        try:
            return await in_thread(lambda: self._explain(group, listen, lambda seconds, received: not cancelled))
        finally:
            cancelled = True

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Datagram:
        """Return the next datagram; the iteration ends when the receiver's timeout passes without one."""
        if self._until_yield > 0:
            try:
                datagram = self._engine.backlog.popleft()
            except IndexError:
                pass
            else:
                self._until_yield -= 1
                return datagram
        return await self._next_of_batch()

    async def _next_of_batch(self) -> Datagram:
        if self._is_turn_over():
            await self._give_way()
        engine = self._engine
        datagrams = engine.receive_batch(YIELD_EVERY)
        if not datagrams:
            try:
                return await self._next(self.timeout)
            except TimeoutError:
                raise StopAsyncIteration from None
        datagrams.reverse()
        datagram = datagrams.pop()
        engine.backlog.extendleft(datagrams)
        if engine.backlog:
            self._arrivals.share()
        return datagram

    def _is_turn_over(self) -> bool:
        """Whether other tasks have to run before another datagram is handed out."""
        if not self.is_opened:
            self._check_open()
        self._until_yield -= 1
        return self._until_yield < 0

    async def _give_way(self) -> None:
        self._until_yield = YIELD_EVERY
        await _checkpoint()
        self._check_open()

    async def _next(self, timeout: float | None) -> Datagram:
        """Wait for a datagram and return it. Raises TimeoutError."""
        deadline = None if timeout is None else monotonic() + timeout
        remaining = timeout
        while True:
            if remaining == 0:
                # Who only looks, again and again, must let others run, too.
                await _checkpoint()
                datagram = None
            else:
                datagram = await self._arrivals.wait(remaining)
            if datagram is None:
                self._check_open()
                datagram = _fetch(self._engine)
            if datagram is not None:
                return datagram
            if deadline is not None:
                remaining = deadline - monotonic()
                if remaining <= 0:
                    raise TimeoutError(f"Nothing was received within {timeout} s.")


class AsyncMcastTxSocket(Transmitter, AsyncOpenable):
    """McastTxSocket for asyncio, uvloop and trio: the same parameters and methods; those that may wait are awaited."""

    def _open(self) -> None:
        super()._open()
        self._rooms: WeakKeyDictionary[SendEngine, Readiness[bool]] = WeakKeyDictionary()

    async def sendto(self, data: bytes, address: IPv4Or6Address, *, hop_limit: int | None = None) -> None:
        """Send one datagram; waits while the send buffer is full. See `McastTxSocket.sendto`."""
        address, hops = self._checked(address, hop_limit)
        failure: MulticastOSError | None = None
        for outlet in self._outlets:
            try:
                while not outlet.try_send(data, address, hops, self._heal):
                    await self._wait_for_room(outlet.engine)
                    self._check_open()
            except MulticastOSError as error:
                failure = failure or error
        if failure is not None:
            raise failure

    async def _wait_for_room(self, engine: SendEngine) -> None:
        from multicast_expert.sockets.loops import Readiness  # noqa: PLC0415 - takes long to import, and few need it

        room = self._rooms.get(engine)
        if room is None:
            room = self._rooms[engine] = Readiness(engine.waiter(), lambda: True, deque(maxlen=0))
        await room.wait()
        engine.wait(0)

    async def send_many(
        self, payloads: Iterable[bytes], address: IPv4Or6Address, *, hop_limit: int | None = None
    ) -> int:
        """Send several datagrams to one address; return how many went. See `McastTxSocket.send_many`."""
        steps = self._sending(payloads, address, hop_limit, YIELD_EVERY)
        while True:
            try:
                engine = next(steps)
            except StopIteration as finished:
                sent: int = finished.value
                return sent
            await (_checkpoint() if engine is None else self._wait_for_room(engine))
