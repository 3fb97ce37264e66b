"""Traffic as fast as it can be sent: nothing is lost but what the kernel reports, and other tasks get their turn."""

from collections.abc import Awaitable, Callable

import anyio
import anyio.lowlevel
import pytest

from faces.faces import Face, by_turns
from faces.network import GROUP, PORT, Network
from faces.tasks.traffic import FACES, WINDOW, async_receiver, traffic
from multicast_expert import AsyncMcastRxSocket
from multicast_expert.sockets.aio import YIELD_EVERY

TURN = 4 * YIELD_EVERY
"""Datagrams after which another task has to have had its turn."""


async def flooded(receiver: AsyncMcastRxSocket, network: Network, version: int, count: int) -> tuple[int, int]:
    """Send so many as fast as can be; return how many were received and how many the kernel says that it dropped."""
    received = 0
    last = -1
    with traffic(network, version, count) as flood, anyio.fail_after(100):
        while True:
            over = flood.is_over
            try:
                batch = await receiver.receive_many(timeout=0.5)
            except TimeoutError:
                if over:
                    break
                continue
            received += len(batch)
            for datagram in batch:
                assert int(datagram.data) > last
                last = int(datagram.data)
        assert flood.sent == count
    return received, receiver.stats().kernel_drops or 0


async def test_a_flood(face: Face, network: Network, version: int) -> None:
    """10,000 datagrams as fast as they can be sent: in order, and what is missing the kernel has counted as dropped."""
    async with async_receiver(version) as receiver:
        received, drops = await flooded(receiver, network, version, 10_000)
        assert received > 0
        assert received + drops == 10_000
        assert receiver.stats().datagrams == received


@pytest.mark.slow
@by_turns(FACES, 4, 6)
async def test_a_long_flood(face: Face, network: Network, version: int) -> None:
    """100,000 datagrams, with a large receive buffer: nothing is lost but what the kernel reports."""
    async with async_receiver(version, receive_buffer=4_000_000) as receiver:
        received, drops = await flooded(receiver, network, version, 100_000)
        print(f"{face.name} IPv{version}: {received} received, {drops} dropped by the kernel")
        assert received + drops == 100_000


async def test_a_paced_flood_arrives_whole(face: Face, network: Network, version: int) -> None:
    """With a sender that waits for the receiver, every single datagram arrives, by iterating."""
    async with async_receiver(version) as receiver:
        with traffic(network, version, 3000, WINDOW) as paced:
            async for datagram in receiver:
                paced.received.append(int(datagram.data))
                if len(paced.received) == 3000:
                    break
        assert paced.received == list(range(3000))
        assert receiver.stats().kernel_drops == 0


async def receive_one(receiver: AsyncMcastRxSocket) -> int:
    """Take one; return how many."""
    await receiver.receive()
    return 1


async def receive_some(receiver: AsyncMcastRxSocket) -> int:
    """Take what is there; return how many."""
    return len(await receiver.receive_many(100))


async def iterate(receiver: AsyncMcastRxSocket) -> int:
    """Take one by iterating; return how many."""
    async for _ in receiver:
        return 1
    return 0


@pytest.mark.parametrize("take", [receive_one, receive_some, iterate])
async def test_other_tasks_get_their_turn(
    face: Face, network: Network, version: int, take: Callable[[AsyncMcastRxSocket], Awaitable[int]]
) -> None:
    """While datagrams are always there, taken singly or many at a time, others run after a bounded number of them."""
    burst = 100
    longest = since = 0
    async with async_receiver(version) as receiver:

        async def tick() -> None:
            nonlocal longest, since
            while True:
                longest, since = max(longest, since), 0
                await anyio.lowlevel.checkpoint()

        with network.sender(version) as sender:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(tick)
                await anyio.lowlevel.checkpoint()
                for _ in range(6000 // burst):
                    for _ in range(burst):
                        sender.sendto(b"x", (GROUP[version], PORT))
                    missing = burst
                    while missing > 0:
                        got = await take(receiver)
                        missing -= got
                        since += got
                tasks.cancel_scope.cancel()
        assert receiver.stats().datagrams > 5000, "too few datagrams: this test shows nothing"
    assert 0 < max(longest, since) <= TURN
