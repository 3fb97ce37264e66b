"""AsyncMcastRxSocket and AsyncMcastTxSocket: the same sockets, awaited, on asyncio, uvloop and trio.

A datagram is never taken from the kernel before an await, so cancelling loses none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from types import TracebackType
from typing import Self

import anyio
import anyio.lowlevel

from multicast_expert.addresses import IPv4Or6Address
from multicast_expert.datagram import MAX_DATAGRAM, Datagram
from multicast_expert.errors import MulticastExpertError, MulticastOSError
from multicast_expert.lifecycle import Openable
from multicast_expert.receiver import DEFAULT, Default, Receiver, Result
from multicast_expert.transmitter import Transmitter

YIELD_EVERY = 128
"""How many datagrams are handed out before other tasks get their turn, although more are there."""


class AsyncOpenable(Openable):
    """Base of the async sockets: they open under `async with` as well as under `with`."""

    async def __aenter__(self) -> Self:
        return self.open()

    async def __aexit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


class AsyncMcastRxSocket(Receiver, AsyncOpenable):
    """McastRxSocket for asyncio, uvloop and trio: the same parameters and methods; those that wait are awaited.

    Where the blocking `recvfrom` and `recv` return None after the timeout, these raise TimeoutError.
    """

    _until_yield = YIELD_EVERY

    def _open(self) -> None:
        self._sleepers: set[asyncio.Future[None]] = set()
        super()._open()

    def _close(self) -> None:
        self._wake_sleepers()
        super()._close()

    async def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address]:
        """Return the payload and the sender's socket address of the next datagram. Raises TimeoutError."""
        return await self._get(lambda: self._engine.try_receive(bufsize, flags), self.timeout)

    async def recv(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> bytes:
        """Return the payload of the next datagram. Raises TimeoutError."""
        return (await self.recvfrom(bufsize, flags))[0]

    async def receive(self, timeout: float | None | Default = DEFAULT) -> Datagram:
        """Return the next datagram with all that the kernel knows about it. Raises TimeoutError when nothing came."""
        return await self._get(self._take, self._effective(timeout))

    async def receive_many(self, limit: int = 1024, timeout: float | None | Default = DEFAULT) -> list[Datagram]:
        """Return the datagrams that are there, 1 to `limit` of them; waits only for the first. Raises TimeoutError."""
        datagrams = [await self.receive(timeout)]
        self._engine.receive_more(datagrams, limit)
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
        with anyio.move_on_after(timeout) if timeout is not None else _FOREVER:
            while True:
                await self._readable()
                self._check_open()
                engine.look()
                received = attempt()
                if received is not None:
                    return received
        raise TimeoutError(f"Nothing was received within {timeout} s.")
