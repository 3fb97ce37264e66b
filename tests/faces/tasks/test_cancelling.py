"""Receives that are cancelled at any moment, in every way that the loops know, lose nothing."""

import asyncio
import gc
import random
from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from faces.faces import ASYNC_FACES, PATIENCE, Face, by_turns
from faces.network import GROUP, Network, watched_descriptors
from faces.tasks.traffic import FACES, WINDOW, async_receiver, traffic
from linux.plain_sockets import all_closed, open_descriptors
from multicast_expert import AsyncMcastRxSocket, Datagram


async def by_scope(receiver: AsyncMcastRxSocket, delay: float) -> bytes | None:
    """Receive, or give up after the delay."""
    with anyio.move_on_after(delay):
        return (await receiver.receive()).data
    return None


async def by_timeout(receiver: AsyncMcastRxSocket, delay: float) -> bytes | None:
    """Receive with a timeout of the receiver's own."""
    try:
        return (await receiver.receive(delay)).data
    except TimeoutError:
        return None


async def by_another_task(receiver: AsyncMcastRxSocket, delay: float) -> bytes | None:
    """Receive in a task that this one cancels."""
    received: list[bytes] = []

    async def receive() -> None:
        received.append(await receiver.recv())

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(receive)
        for _ in range(int(delay * 20_000)):
            await anyio.lowlevel.checkpoint()
        tasks.cancel_scope.cancel()
    return received[0] if received else None


async def by_task_cancel(receiver: AsyncMcastRxSocket, delay: float) -> bytes | None:
    """Receive in a task that is cancelled as asyncio does it."""
    task = asyncio.create_task(receiver.receive())
    for _ in range(int(delay * 20_000)):
        await asyncio.sleep(0)
    task.cancel()
    try:
        return (await task).data
    except asyncio.CancelledError:
        return None


async def by_asyncio_timeout(receiver: AsyncMcastRxSocket, delay: float) -> bytes | None:
    """Receive under a timeout of asyncio's."""
    try:
        async with asyncio.timeout(delay):
            return await receiver.recv()
    except TimeoutError:
        return None


async def by_wait_for(receiver: AsyncMcastRxSocket, delay: float) -> bytes | None:
    """Receive under the older timeout of asyncio's."""
    try:
        return await asyncio.wait_for(receiver.recv(), delay)
    except TimeoutError:
        return None


GiveUp = Callable[[AsyncMcastRxSocket, float], Awaitable[bytes | None]]


def ways_to_give_up(face: Face) -> list[GiveUp]:
    """The ways to cancel a receive that the event loop of this face knows."""
    everywhere: list[GiveUp] = [by_scope, by_timeout, by_another_task]
    return everywhere if face.backend == "trio" else [*everywhere, by_task_cancel, by_asyncio_timeout, by_wait_for]


async def cancelled_often(face: Face, network: Network, version: int, give_up: GiveUp, times: int) -> None:
    """Let receives be cancelled so many times under traffic; nothing may be lost, come twice, or be left behind."""
    delays = random.Random(1)
    async with async_receiver(version) as receiver:
        await give_up(receiver, 0.001)
        before = open_descriptors(), watched_descriptors()
        cancelled = 0
        with traffic(network, version, window=WINDOW) as paced, anyio.fail_after(100):
            while min(cancelled, len(paced.received)) < times:
                data = await give_up(receiver, delays.uniform(0, 0.0005))
                if data is None:
                    cancelled += 1
                else:
                    paced.received.append(int(data))
            paced.stop()
            while len(paced.received) < paced.sent:
                paced.received.append(int((await receiver.receive()).data))
        assert paced.received == list(range(paced.sent))
        all_closed(before[0])
        # A loop goes on watching after a wait, until something comes and nobody waits for it.
        assert watched_descriptors() in {before[1], before[1] - 1}
        assert receiver.stats()[:1] + receiver.stats()[3:] == (paced.sent, 0, 0)
    gc.collect()  # a forgotten transport or future would warn now


@pytest.mark.parametrize("version", [4])
async def test_cancelling_loses_nothing(face: Face, network: Network, version: int) -> None:
    """Receives that are cancelled at any moment, in every way that the loops know, lose no datagram."""
    for give_up in ways_to_give_up(face):
        await cancelled_often(face, network, version, give_up, 20)


@pytest.mark.slow
@by_turns(FACES, 6, 4)
async def test_a_thousand_cancellations(face: Face, network: Network, version: int) -> None:
    """1,000 cancellations under traffic, in all of the ways, lose no datagram."""
    ways = ways_to_give_up(face)
    for give_up in ways:
        await cancelled_often(face, network, version, give_up, 1000 // len(ways))


@pytest.mark.parametrize("version", [4])
@pytest.mark.parametrize("face", ASYNC_FACES[:2], ids=lambda face: face.name)
@pytest.mark.parametrize("others", [0, 1])
async def test_cancelling_who_was_just_given_a_datagram(
    face: Face, network: Network, version: int, monkeypatch: pytest.MonkeyPatch, others: int
) -> None:
    """A task that is cancelled after the loop took a datagram for it gives it back: to who waits, or to the next."""
    async with async_receiver(version, timeout=None) as receiver:
        unlucky = asyncio.create_task(receiver.receive())
        await anyio.wait_all_tasks_blocked()
        waiting = [asyncio.create_task(receiver.receive()) for _ in range(others)]
        await anyio.wait_all_tasks_blocked()
        one = receiver._source.one
        taken = []

        def take_and_cancel(backlog: list[Datagram]) -> bool:
            found = bool(one(backlog))
            if found and not taken:
                taken.append(backlog[-1].data)
                unlucky.cancel()
            return found

        monkeypatch.setattr(receiver._source, "one", take_and_cancel)
        network.send(b"a", GROUP[version])
        with pytest.raises(asyncio.CancelledError), anyio.fail_after(PATIENCE):
            await unlucky
        assert taken == [b"a"]
        async with asyncio.timeout(PATIENCE):
            got = [(await task).data for task in waiting]
            network.send(b"b", GROUP[version])
            while len(got) < 2:
                got.append((await receiver.receive()).data)
        assert got == [b"a", b"b"]


async def test_one_task_that_is_cancelled_does_not_stop_the_others(face: Face, network: Network, version: int) -> None:
    """Of several tasks that wait, one is cancelled: the others still get what comes."""
    async with async_receiver(version, timeout=None) as receiver:
        received: list[bytes] = []

        async def take() -> None:
            received.append((await receiver.receive()).data)

        with anyio.fail_after(PATIENCE):
            async with anyio.create_task_group() as tasks:
                scopes = [anyio.CancelScope() for _ in range(4)]

                async def take_in(scope: anyio.CancelScope) -> None:
                    with scope:
                        await take()

                for scope in scopes:
                    tasks.start_soon(take_in, scope)
                await anyio.wait_all_tasks_blocked()
                scopes[0].cancel()
                scopes[2].cancel()
                await anyio.wait_all_tasks_blocked()
                for payload in (b"a", b"b"):
                    network.send(payload, GROUP[version])
        assert sorted(received) == [b"a", b"b"]
