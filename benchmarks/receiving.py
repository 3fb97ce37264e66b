"""Ways to receive: plain sockets, event loops' protocols, this library, the incumbent. Opens sockets."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager
from functools import partial
from time import thread_time_ns
from typing import Any

import multicast_expert
from benchmarks.library import new_loop, opened_async_receiver, opened_both_ways, opened_receiver
from benchmarks.load import CONTROL_SIZE, IP_PKTINFO, MAX_DATAGRAM, Load, joined_socket

Timed = Callable[[int], float]
"""Receives so many datagrams and returns the processor seconds that it took."""

_PKTINFO = struct.Struct("=I4x4s")
_INT = struct.Struct("=i")
_FIELD = struct.Struct("!I")


# Plain sockets


def _raw_recvfrom(sock: socket.socket, count: int) -> None:
    for _ in range(count):
        sock.recvfrom(MAX_DATAGRAM)


def _raw_recvmsg(sock: socket.socket, count: int) -> None:
    """Leave the control messages as they come."""
    for _ in range(count):
        sock.recvmsg(MAX_DATAGRAM, CONTROL_SIZE)


def _raw_metadata(sock: socket.socket, count: int) -> None:
    """Make of each datagram by hand what a Datagram has, remembering the names of group and interface."""
    names = dict(socket.if_nameindex())
    places: dict[bytes, tuple[str, int, str]] = {}

    def learn(pktinfo: bytes) -> tuple[str, int, str]:
        index, destination = _PKTINFO.unpack_from(pktinfo)
        places[pktinfo] = place = socket.inet_ntoa(destination), index, names[index]
        return place

    def receive() -> tuple[Any, ...]:
        data, control, flags, sender = sock.recvmsg(MAX_DATAGRAM, CONTROL_SIZE)
        group = index = name = hop_limit = None
        for level, kind, value in control:
            if level == socket.IPPROTO_IP:
                if kind == IP_PKTINFO:
                    group, index, name = places.get(value) or learn(value)
                elif kind == socket.IP_TTL:
                    (hop_limit,) = _INT.unpack_from(value)
        return data, sender, group, index, name, hop_limit, bool(flags & socket.MSG_TRUNC)

    for _ in range(count):
        receive()


# This library, and the incumbent


def _receive_many(receiver: Any, count: int) -> None:
    while count > 0:
        count -= len(receiver.receive_many())


def _receive_many_64(receiver: Any, count: int) -> None:
    while count > 0:
        count -= len(receiver.receive_many(64))


def _receive_into(buffer: multicast_expert.DatagramBuffer, receiver: Any, count: int) -> None:
    while count > 0:
        count -= receiver.receive_into(buffer)
        buffer.clear()


def _sum_by_numpy(buffer: multicast_expert.DatagramBuffer, receiver: Any, count: int) -> None:
    """Add up the first field of each payload: all rows at once."""
    import numpy

    total = 0
    while count > 0:
        count -= receiver.receive_into(buffer)
        rows = numpy.asarray(buffer.rows(buffer.lengths[0]))
        total += int(rows[:, : _FIELD.size].view(">u4").sum(dtype="u8"))
        buffer.clear()


def _sum_by_loop(receiver: Any, count: int) -> None:
    total, unpack = 0, _FIELD.unpack_from
    while count > 0:
        datagrams = receiver.receive_many()
        count -= len(datagrams)
        for datagram in datagrams:
            total += unpack(datagram.data)[0]


def _receive(receiver: Any, count: int) -> None:
    for _ in range(count):
        receiver.receive()


def _iterate(receiver: Any, count: int) -> None:
    for _ in receiver:
        count -= 1
        if not count:
            return


def _recvfrom(receiver: Any, count: int) -> None:
    for _ in range(count):
        receiver.recvfrom()


async def _async_iterate(receiver: Any, count: int) -> None:
    async for _ in receiver:
        count -= 1
        if not count:
            return


async def _async_recvfrom(receiver: Any, count: int) -> None:
    for _ in range(count):
        await receiver.recvfrom()


async def _async_receive_many(receiver: Any, count: int) -> None:
    while count > 0:
        count -= len(await receiver.receive_many())


# How they are opened and timed


@contextmanager
def _with_socket(receive: Callable[[socket.socket, int], None], metadata: bool, load: Load) -> Iterator[Timed]:
    with joined_socket(load.addresses[0], load.port, metadata=metadata) as sock:
        yield _timed(partial(receive, sock))


@contextmanager
def _with_receiver(receive: Callable[[Any, int], None], load: Load) -> Iterator[Timed]:
    with opened_receiver(load) as receiver:
        yield _timed(partial(receive, receiver))


@contextmanager
def _with_buffer(receive: Callable[[multicast_expert.DatagramBuffer, Any, int], None], load: Load) -> Iterator[Timed]:
    buffer = multicast_expert.DatagramBuffer(1024, 1024 * max(load.size, 64))
    with opened_receiver(load) as receiver:
        yield _timed(partial(receive, buffer, receiver))


@contextmanager
def _with_both_ways(receive: Callable[[Any, int], None], load: Load) -> Iterator[Timed]:
    with opened_both_ways(load) as both_ways:
        yield _timed(partial(receive, both_ways))


def _timed(receive: Callable[[int], None]) -> Timed:
    def measured(count: int) -> float:
        start = thread_time_ns()
        receive(count)
        return (thread_time_ns() - start) / 1e9

    return measured


@contextmanager
def _with_async_receiver(receive: Callable[[Any, int], Awaitable[None]], uvloop: bool, load: Load) -> Iterator[Timed]:
    with closing(new_loop(uvloop)) as loop, opened_async_receiver(load, loop) as receiver:
        yield _timed_on(loop, partial(receive, receiver))


def _timed_on(loop: asyncio.AbstractEventLoop, receive: Callable[[int], Awaitable[None]]) -> Timed:
    async def measured(count: int) -> float:
        start = thread_time_ns()
        await receive(count)
        return (thread_time_ns() - start) / 1e9

    return lambda count: loop.run_until_complete(asyncio.wait_for(measured(count), 30))


class _Counting(asyncio.DatagramProtocol):
    """Counts what it receives."""

    def __init__(self) -> None:
        self.missing = 0
        self.all_there: asyncio.Future[None]

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self.missing -= 1
        if not self.missing:
            self.all_there.set_result(None)

    async def receive(self, count: int) -> None:
        self.all_there = asyncio.get_running_loop().create_future()
        self.missing += count  # the loop may have read one or two already
        await self.all_there


@contextmanager
def _with_protocol(uvloop: bool, load: Load) -> Iterator[Timed]:
    with closing(new_loop(uvloop)) as loop:
        sock = joined_socket(load.addresses[0], load.port)
        sock.setblocking(False)
        transport, protocol = loop.run_until_complete(loop.create_datagram_endpoint(_Counting, sock=sock))
        try:
            yield _timed_on(loop, protocol.receive)
        finally:
            transport.close()
            loop.run_until_complete(asyncio.sleep(0))


RECEIVERS: dict[str, Callable[[Load], AbstractContextManager[Timed]]] = {
    "raw_recvfrom": partial(_with_socket, _raw_recvfrom, False),
    "raw_recvmsg": partial(_with_socket, _raw_recvmsg, True),
    "raw_metadata": partial(_with_socket, _raw_metadata, True),
    "receive_many": partial(_with_receiver, _receive_many),
    "receive_many_64": partial(_with_receiver, _receive_many_64),
    "receive_into": partial(_with_buffer, _receive_into),
    "sum_by_numpy": partial(_with_buffer, _sum_by_numpy),
    "sum_by_loop": partial(_with_receiver, _sum_by_loop),
    "receive": partial(_with_receiver, _receive),
    "both_ways_many": partial(_with_both_ways, _receive_many),
    "both_ways": partial(_with_both_ways, _receive),
    "iterate": partial(_with_receiver, _iterate),
    "recvfrom": partial(_with_receiver, _recvfrom),
    "async_iterate": partial(_with_async_receiver, _async_iterate, False),
    "async_receive_many": partial(_with_async_receiver, _async_receive_many, False),
    "async_recvfrom": partial(_with_async_receiver, _async_recvfrom, False),
    "uvloop_iterate": partial(_with_async_receiver, _async_iterate, True),
    "asyncio_protocol": partial(_with_protocol, False),
    "uvloop_protocol": partial(_with_protocol, True),
}
"""What opens each, by the name that cases call it."""
