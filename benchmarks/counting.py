"""Ways to count what arrives until nothing more comes: for the highest rate without loss. Opens sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

from benchmarks.library import new_loop, opened_async_receiver, opened_receiver
from benchmarks.load import MAX_DATAGRAM, Load, joined_socket

Count = Callable[[], int]

PATIENCE, IDLE = 5.0, 0.1
"""Seconds: for the first datagram, and for each that follows."""


@contextmanager
def raw_recvfrom(load: Load) -> Iterator[Count]:
    """`socket.recvfrom` in a loop."""
    with joined_socket(load.addresses[0], load.port) as sock:

        def wait_for(seconds: float) -> None:
            timeval = struct.pack("=qq", int(seconds), int(seconds % 1 * 1e6))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval)

        def count() -> int:
            received = 0
            wait_for(PATIENCE)
            with suppress(BlockingIOError):
                sock.recvfrom(MAX_DATAGRAM)
                wait_for(IDLE)
                while True:
                    received += 1
                    sock.recvfrom(MAX_DATAGRAM)
            return received

        yield count


@contextmanager
def receive_many(load: Load) -> Iterator[Count]:
    """`receiver.receive_many()`."""
    with opened_receiver(load) as receiver:

        def count() -> int:
            received = 0
            timeout = PATIENCE
            with suppress(TimeoutError):
                while True:
                    received += len(receiver.receive_many(timeout=timeout))
                    timeout = IDLE
            return received

        yield count


@contextmanager
def async_iterate(load: Load) -> Iterator[Count]:
    """`async for datagram in receiver` on asyncio."""
    with closing(new_loop(False)) as loop, opened_async_receiver(load, loop) as receiver:

        async def count() -> int:
            received = 0
            receiver.settimeout(PATIENCE)
            async for _ in receiver:
                if not received:
                    receiver.settimeout(IDLE)
                received += 1
            return received

        yield lambda: loop.run_until_complete(count())


class _Counting(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.received = 0

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.received += 1

    async def count(self) -> int:
        """Return how many have come once that has not changed for a while."""
        loop = asyncio.get_running_loop()
        before, deadline = 0, loop.time() + PATIENCE
        while loop.time() < deadline:
            await asyncio.sleep(IDLE)
            if self.received != before:
                before, deadline = self.received, loop.time() + IDLE
        self.received = 0
        return before


@contextmanager
def asyncio_protocol(load: Load) -> Iterator[Count]:
    """asyncio's DatagramProtocol."""
    with closing(new_loop(False)) as loop:
        sock = joined_socket(load.addresses[0], load.port)
        sock.setblocking(False)
        transport, protocol = loop.run_until_complete(loop.create_datagram_endpoint(_Counting, sock=sock))
        try:
            yield lambda: loop.run_until_complete(protocol.count())
        finally:
            transport.close()
            loop.run_until_complete(asyncio.sleep(0))


COUNTERS = {function.__name__: function for function in (raw_recvfrom, receive_many, async_iterate, asyncio_protocol)}
