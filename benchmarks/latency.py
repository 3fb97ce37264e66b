"""Ping-pong between two processes on a core each: the time of a round trip. Opens sockets, forks."""

from __future__ import annotations

import asyncio
import ctypes
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial
from operator import attrgetter, itemgetter
from time import perf_counter_ns
from typing import Any, NamedTuple, Protocol

from benchmarks.library import new_loop, opened_async_receiver, opened_async_sender, opened_receiver, opened_sender
from benchmarks.load import MAX_DATAGRAM, Load, joined_socket, sending_socket

PR_SET_PDEATHSIG = 1  # linux/prctl.h
ANSWERS = 5_000
"""What is added to the port for the way back."""


class Route(NamedTuple):
    """Where one side listens, and where it sends to."""

    heard: Load
    spoken: Load

    @property
    def target(self) -> tuple[str, int]:
        """The address that it sends to."""
        return self.spoken.targets[0]


class Side(Protocol):
    """One side of the ping-pong, open."""

    def ask(self, payload: bytes, count: int) -> list[float]:
        """Send, wait for the answer, so many times; return the seconds of each."""

    def answer(self) -> None:
        """Send back whatever comes, for ever."""


# Blocking


class Blocking:
    """A side that waits in a system call."""

    def __init__(
        self,
        recvfrom: Callable[[], Any],
        sendto: Callable[[bytes, tuple[str, int]], Any],
        route: Route,
        payload: Callable[[Any], bytes] = itemgetter(0),
    ) -> None:
        self._recvfrom, self._sendto, self._target, self._payload = recvfrom, sendto, route.target, payload

    def ask(self, payload: bytes, count: int) -> list[float]:
        """Send and wait."""
        recvfrom, sendto, target = self._recvfrom, self._sendto, self._target
        samples = []
        for _ in range(count):
            start = perf_counter_ns()
            sendto(payload, target)
            recvfrom()
            samples.append((perf_counter_ns() - start) / 1e9)
        return samples

    def answer(self) -> None:
        """Wait and send."""
        recvfrom, sendto, target, payload = self._recvfrom, self._sendto, self._target, self._payload
        while True:
            sendto(payload(recvfrom()), target)


def _raw(stack: ExitStack, route: Route) -> Side:
    receiver = stack.enter_context(joined_socket(*route.heard.targets[0]))
    return Blocking(partial(receiver.recvfrom, MAX_DATAGRAM), stack.enter_context(sending_socket()).sendto, route)


def _blocking(method: str, stack: ExitStack, route: Route) -> Side:
    receiver = stack.enter_context(opened_receiver(route.heard, timeout=None))
    payload = attrgetter("data") if method == "receive" else itemgetter(0)
    sender = stack.enter_context(opened_sender(route.spoken))
    return Blocking(getattr(receiver, method), sender.sendto, route, payload)


# Awaited


class Awaiting:
    """A side that awaits."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        recvfrom: Callable[[], Awaitable[tuple[bytes, Any]]],
        sendto: Callable[[bytes, tuple[str, int]], Any],
        route: Route,
    ) -> None:
        self._loop, self._recvfrom, self._sendto, self._target = loop, recvfrom, sendto, route.target

    def ask(self, payload: bytes, count: int) -> list[float]:
        """Send and await."""
        return self._loop.run_until_complete(self._ask(payload, count))

    async def _ask(self, payload: bytes, count: int) -> list[float]:
        recvfrom, sendto, target = self._recvfrom, self._sendto, self._target
        samples = []
        for _ in range(count):
            start = perf_counter_ns()
            if (sent := sendto(payload, target)) is not None:
                await sent
            await recvfrom()
            samples.append((perf_counter_ns() - start) / 1e9)
        return samples

    def answer(self) -> None:
        """Await and send."""
        self._loop.run_until_complete(self._answer())

    async def _answer(self) -> None:
        recvfrom, sendto, target = self._recvfrom, self._sendto, self._target
        while True:
            if (sent := sendto((await recvfrom())[0], target)) is not None:
                await sent


def _awaited(async_sender: bool, uvloop: bool, stack: ExitStack, route: Route) -> Side:
    loop = new_loop(uvloop)
    stack.callback(loop.close)
    receiver = stack.enter_context(opened_async_receiver(route.heard, loop, timeout=None))
    sender = opened_async_sender(route.spoken, loop) if async_sender else opened_sender(route.spoken)
    return Awaiting(loop, receiver.recvfrom, stack.enter_context(sender).sendto, route)


class _Future(asyncio.DatagramProtocol):
    """Hands each datagram to who awaits it."""

    def __init__(self) -> None:
        self._arrived = asyncio.get_running_loop().create_future()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        self._arrived.set_result((data, addr))

    async def recvfrom(self) -> tuple[bytes, Any]:
        received: tuple[bytes, Any] = await self._arrived
        self._arrived = asyncio.get_running_loop().create_future()
        return received


def _protocol_and_future(stack: ExitStack, route: Route) -> Side:
    loop = new_loop(False)
    stack.callback(loop.close)
    _, protocol = _endpoint(stack, loop, _Future, joined_socket(*route.heard.targets[0]))
    sender, _ = _endpoint(stack, loop, asyncio.DatagramProtocol, sending_socket())
    return Awaiting(loop, protocol.recvfrom, sender.sendto, route)


def _endpoint(
    stack: ExitStack,
    loop: asyncio.AbstractEventLoop,
    factory: Callable[[], asyncio.DatagramProtocol],
    sock: socket.socket,
) -> tuple[asyncio.DatagramTransport, Any]:
    sock.setblocking(False)
    transport, protocol = loop.run_until_complete(loop.create_datagram_endpoint(factory, sock=sock))

    def close() -> None:
        transport.close()
        loop.run_until_complete(asyncio.sleep(0))

    stack.callback(close)
    return transport, protocol


# Called back


class CalledBack(asyncio.DatagramProtocol):
    """A side that does its work in the callback, the fastest that a DatagramProtocol can do it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sender: asyncio.DatagramTransport, route: Route) -> None:
        self._loop, self._sendto, self._target = loop, sender.sendto, route.target
        self._missing, self._start = 0, 0
        self._samples: list[float] = []
        self._finished: asyncio.Future[None]

    def ask(self, payload: bytes, count: int) -> list[float]:
        """Send the first one; the callback sends the others."""
        return self._loop.run_until_complete(self._ask(payload, count))

    async def _ask(self, payload: bytes, count: int) -> list[float]:
        self._samples, self._missing = [], count
        self._finished = self._loop.create_future()
        self._start = perf_counter_ns()
        self._sendto(payload, self._target)
        await self._finished
        return self._samples

    def answer(self) -> None:
        """Let the callback answer."""
        self._missing = -1
        self._loop.run_forever()

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Answer; or note the time and send the next."""
        if self._missing > 0:
            now = perf_counter_ns()
            self._samples.append((now - self._start) / 1e9)
            self._missing -= 1
            if not self._missing:
                self._finished.set_result(None)
                return
            self._start = perf_counter_ns()
        self._sendto(data, self._target)


def _called_back(uvloop: bool, stack: ExitStack, route: Route) -> Side:
    loop = new_loop(uvloop)
    stack.callback(loop.close)
    sender, _ = _endpoint(stack, loop, asyncio.DatagramProtocol, sending_socket())
    receiver = joined_socket(*route.heard.targets[0])
    side: Side = _endpoint(stack, loop, lambda: CalledBack(loop, sender, route), receiver)[1]
    return side


SIDES: dict[str, Callable[[ExitStack, Route], Side]] = {
    "raw": _raw,
    "recvfrom": partial(_blocking, "recvfrom"),
    "receive": partial(_blocking, "receive"),
    "awaited": partial(_awaited, False, False),
    "awaited_both": partial(_awaited, True, False),
    "uvloop_awaited": partial(_awaited, False, True),
    "asyncio_called_back": partial(_called_back, False),
    "uvloop_called_back": partial(_called_back, True),
    "asyncio_future": _protocol_and_future,
}


@contextmanager
def _answering_process(subject: str, route: Route) -> Iterator[None]:
    """Another process, on another core where there is one, that sends everything back."""
    cores = sorted(os.sched_getaffinity(0))
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            os.sched_setaffinity(0, {cores[-1]})
            with ExitStack() as stack:
                side = SIDES[subject](stack, route)
                os.write(writing, b"r")
                side.answer()
        finally:
            os._exit(1)
    os.close(writing)
    try:
        os.sched_setaffinity(0, {cores[0]})
        if os.read(reading, 1) != b"r":
            raise RuntimeError("the answering process could not start")
        yield
    finally:
        os.close(reading)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


@contextmanager
def measure_latency(load: Load) -> Iterator[Callable[[], list[float]]]:
    """Seconds of each round trip."""
    back = replace(load, port=load.port + ANSWERS)
    with ExitStack() as stack:
        stack.enter_context(_answering_process(load.subject, Route(load, back)))
        side = SIDES[load.subject](stack, Route(back, load))
        payload = bytes(load.size)
        yield lambda: side.ask(payload, load.batch)
