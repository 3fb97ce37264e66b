"""AsyncMcastRxSocket and AsyncMcastTxSocket: the same sockets, awaited, on asyncio, uvloop and trio.

A datagram is never taken from the kernel before an await, so cancelling loses none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from types import TracebackType
from typing import Any, Self
from weakref import WeakKeyDictionary

import anyio
import anyio.lowlevel
import anyio.to_thread

from multicast_expert.addresses import IPv4Or6Address
from multicast_expert.datagram import MAX_DATAGRAM, Datagram
from multicast_expert.engine import SendEngine
from multicast_expert.engine.waiter import Waiter
from multicast_expert.errors import MulticastOSError
from multicast_expert.lifecycle import Openable
from multicast_expert.receiver import Result
from multicast_expert.reception import DEFAULT, Default, Receiver
from multicast_expert.transmitter import Transmitter

_FOREVER = nullcontext()
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


class Readiness:
    """Waits, on whatever event loop runs, until one of the sockets of a waiter is ready."""

    def __init__(self, waiter: Waiter[Any]) -> None:
        self._waiter = waiter
        waiter.on_close = self._close
        self._futures: dict[asyncio.Future[None], None] = {}
        self._watched: tuple[asyncio.AbstractEventLoop, int] | None = None
        self._gate: anyio.Lock | None = None
        self._closed = False

    async def wait(self) -> None:
        """Return when a socket may be ready, or the waiter was closed; several tasks may wait at once."""
        if self._closed:
            return
        descriptor = self._waiter.fileno()
        loop = _asyncio_loop()
        if descriptor is None or loop is None or not self._start(loop, descriptor):
            await self._wait_in_turn(descriptor)
            return
        future = loop.create_future()
        self._futures[future] = None
        try:
            await future
        finally:
            del self._futures[future]
            if not self._futures:
                self._stop()

    def _start(self, loop: asyncio.AbstractEventLoop, descriptor: int) -> bool:
        """Let asyncio watch the selector's own descriptor; return whether this loop can (the Proactor cannot)."""
        if self._watched is None:
            try:
                loop.add_reader(descriptor, self._wake)
            except NotImplementedError:
                return False
            self._watched = loop, descriptor
        return True

    def _stop(self) -> None:
        if self._watched is not None:
            loop, descriptor = self._watched
            self._watched = None
            loop.remove_reader(descriptor)

    def _wake(self) -> None:
        """Wake who waits longest; while there is more, the loop calls this again."""
        for future in self._futures:
            if not future.done():
                future.set_result(None)
                return

    async def _wait_in_turn(self, descriptor: int | None) -> None:
        """Wait where only one task may wait for a descriptor at a time."""
        if self._gate is None:
            self._gate = anyio.Lock()
        async with self._gate:
            if self._closed:
                return
            if descriptor is None:
                await self._wait_in_thread()
                return
            with suppress(anyio.ClosedResourceError):
                await anyio.wait_readable(descriptor)

    async def _wait_in_thread(self) -> None:
        """Wait as the blocking receiver does, where the selector has no descriptor that an event loop could watch."""
        try:
            await anyio.to_thread.run_sync(
                self._waiter.wait, None, abandon_on_cancel=True, limiter=anyio.CapacityLimiter(1)
            )
        finally:
            # The thread of a cancelled task would wait on.
            self._waiter.wake()

    def _close(self) -> None:
        """Let nobody wait any longer: a descriptor that an event loop watches must not be closed."""
        self._closed = True
        for future in self._futures:
            if not future.done():
                future.set_result(None)
        self._stop()
        descriptor = self._waiter.fileno()
        if descriptor is not None and self._gate is not None and self._gate.statistics().locked:
            anyio.notify_closing(descriptor)


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


async def _checkpoint() -> None:
    """Give other tasks their turn."""
    if _asyncio_loop() is not None:
        await asyncio.sleep(0)
    else:
        await anyio.lowlevel.checkpoint()


class AsyncMcastRxSocket(Receiver, AsyncOpenable):
    """McastRxSocket for asyncio, uvloop and trio: the same parameters and methods; those that wait are awaited.

    Where the blocking `recvfrom` and `recv` return None after the timeout, these raise TimeoutError.
    """

    _until_yield = YIELD_EVERY

    def _open(self) -> None:
        super()._open()
        try:
            self._arrivals = Readiness(self._engine.waiter())
        except BaseException:
            super()._close()
            raise

    async def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address]:
        """Return the payload and the sender's socket address of the next datagram. Raises TimeoutError."""
        return await self._get(lambda: self._engine.try_receive(bufsize, flags), self.timeout)

    async def recv(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> bytes:
        """Return the payload of the next datagram. Raises TimeoutError."""
        return (await self.recvfrom(bufsize, flags))[0]

    async def receive(self, timeout: float | Default | None = DEFAULT) -> Datagram:
        """Return the next datagram with all that the kernel knows about it. Raises TimeoutError when nothing came."""
        return await self._get(self._take, self._effective(timeout))

    async def receive_many(self, limit: int = 1024, timeout: float | Default | None = DEFAULT) -> list[Datagram]:
        """Return the datagrams that are there, 1 to `limit` of them; waits only for the first. Raises TimeoutError."""
        datagrams = [await self.receive(timeout)]
        self._engine.receive_more(datagrams, limit)
        self._until_yield -= len(datagrams) - 1
        return datagrams

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Datagram:
        """Return the next datagram; the iteration ends when the receiver's timeout passes without one."""
        try:
            return await self.receive()
        except TimeoutError:
            raise StopAsyncIteration from None

    def _take(self) -> Datagram | None:
        return self._engine.try_receive_datagram()

    async def _get(self, attempt: Callable[[], Result | None], timeout: float | None) -> Result:
        """Return what the attempt yields, waiting for it if need be."""
        self._check_open()
        self._until_yield -= 1
        if self._until_yield < 0:
            self._until_yield = YIELD_EVERY
            await _checkpoint()
        engine = self._engine
        received = attempt()
        if received is None and engine.look():
            received = attempt()
        if received is not None:
            return received
        with _FOREVER if timeout is None else anyio.move_on_after(timeout):
            while True:
                await self._arrivals.wait()
                self._check_open()
                engine.look()
                received = attempt()
                if received is not None:
                    return received
        raise TimeoutError(f"Nothing was received within {timeout} s.")


class AsyncMcastTxSocket(Transmitter, AsyncOpenable):
    """McastTxSocket for asyncio, uvloop and trio: the same parameters and methods; those that may wait are awaited."""

    def _open(self) -> None:
        super()._open()
        self._rooms: WeakKeyDictionary[SendEngine, Readiness] = WeakKeyDictionary()

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
        room = self._rooms.get(engine)
        if room is None:
            room = self._rooms[engine] = Readiness(engine.waiter())
        await room.wait()
        engine.wait(0)

    async def send_many(
        self, payloads: Iterable[bytes], address: IPv4Or6Address, *, hop_limit: int | None = None
    ) -> int:
        """Send several datagrams to one address; return how many went. See `McastTxSocket.send_many`."""
        sent = 0
        for payload in payloads:
            try:
                await self.sendto(payload, address, hop_limit=hop_limit)
            except MulticastOSError:
                if sent == 0:
                    raise
                break
            sent += 1
            if sent % YIELD_EVERY == 0:
                await _checkpoint()
        return sent
