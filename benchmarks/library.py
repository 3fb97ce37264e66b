"""The receivers and senders of the library that the interpreter has under our name: this one, or the incumbent's."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from importlib import import_module
from typing import Any

import multicast_expert
from benchmarks.load import LOOPBACK, Load, enlarge_buffers


def _parameters(load: Load, timeout: float | None) -> dict[str, Any]:
    parameters = {"mcast_ips": load.addresses, "port": load.port, "iface": LOOPBACK, "timeout": timeout}
    # The incumbent has no parameter `gro`.
    return parameters if load.gro else {**parameters, "gro": False}


@contextmanager
def opened_receiver(load: Load, timeout: float | None = 5) -> Iterator[Any]:
    """A blocking receiver of the load's groups, open."""
    with multicast_expert.McastRxSocket(socket.AF_INET, **_parameters(load, timeout)) as receiver:
        enlarge_buffers(receiver.filenos())
        yield receiver


@contextmanager
def opened_both_ways(load: Load) -> Iterator[Any]:
    """A socket of this library that receives the load's groups, receives unicast too, and could send, open."""
    with multicast_expert.McastSocket(socket.AF_INET, **_parameters(load, 5)) as both_ways:
        enlarge_buffers(both_ways.filenos())
        yield both_ways


@contextmanager
def opened_async_receiver(load: Load, loop: asyncio.AbstractEventLoop, timeout: float | None = 5) -> Iterator[Any]:
    """An asynchronous one, open on this loop."""

    async def opened() -> Any:
        receiver: Any = multicast_expert.AsyncMcastRxSocket(socket.AF_INET, **_parameters(load, timeout))
        # The incumbent's is a plain context manager.
        if hasattr(receiver, "__aenter__"):
            await stack.enter_async_context(receiver)
        else:
            stack.enter_context(receiver)
        enlarge_buffers(receiver.filenos())
        return receiver

    stack = AsyncExitStack()
    receiver = loop.run_until_complete(opened())
    try:
        yield receiver
    finally:
        loop.run_until_complete(stack.aclose())


@contextmanager
def opened_sender(load: Load) -> Iterator[Any]:
    """A blocking sender to the load's groups, open."""
    with multicast_expert.McastTxSocket(socket.AF_INET, load.addresses, iface=LOOPBACK) as sender:
        yield sender


@contextmanager
def opened_async_sender(load: Load, loop: asyncio.AbstractEventLoop) -> Iterator[Any]:
    """An asynchronous one, of this library, open on this loop."""
    sender = multicast_expert.AsyncMcastTxSocket(socket.AF_INET, load.addresses, iface=LOOPBACK)
    loop.run_until_complete(sender.__aenter__())
    try:
        yield sender
    finally:
        loop.run_until_complete(sender.__aexit__(None, None, None))


def new_loop(uvloop: bool) -> asyncio.AbstractEventLoop:
    """An event loop of asyncio, or of uvloop."""
    if not uvloop:
        return asyncio.new_event_loop()
    # The interpreter that has the incumbent need not have it.
    loop: asyncio.AbstractEventLoop = import_module("uvloop").new_event_loop()
    return loop
