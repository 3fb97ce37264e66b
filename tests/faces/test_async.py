"""Async receivers under traffic, on asyncio, uvloop and trio: nothing lost or left behind, and everyone gets a turn."""

import asyncio
import gc
import itertools
import random
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import sleep
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from faces.faces import ASYNC_FACES, LIKE_WINDOWS, PATIENCE, Face, wait_like_windows
from faces.network import GROUP, OTHER_GROUP, PORT, Network, family, watched_descriptors
from linux.plain_sockets import open_descriptors
from multicast_expert import AsyncMcastRxSocket

WINDOW = 100
"""A sender that is no more than so many datagrams ahead never fills the receive buffer that Linux gives by default."""
TURN = 512
"""Datagrams after which another task has to have had its turn."""


@pytest.fixture(params=[*ASYNC_FACES, *LIKE_WINDOWS[1:]], ids=lambda face: face.name)
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Face:
    """Each async face in turn."""
    chosen: Face = request.param
    if chosen.like_windows:
        wait_like_windows(monkeypatch)
    return chosen


def async_receiver(version: int, *groups: str, **keywords: Any) -> AsyncMcastRxSocket:
    """A receiver on eth0."""
    keywords = {"timeout": PATIENCE, **keywords}
    return AsyncMcastRxSocket(family(version), groups or [GROUP[version]], PORT, "eth0", **keywords)


class Traffic:
    """Numbered datagrams from a thread, until it is stopped or has sent so many; no more than `window` ahead."""

    def __init__(self, network: Network, version: int, count: int | None, window: int | None) -> None:
        self._sender = network.sender(version)
        self._address = GROUP[version], PORT
        self._count = count
        self._window = window
        self.sent = 0
        self.received: list[int] = []
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        for number in itertools.count() if self._count is None else range(self._count):
            if self._stop.is_set():
                break
            if self._window is not None:
                while number - len(self.received) >= self._window and not self._stop.is_set():
                    sleep(0.0001)
                if number % 3 == 0:
                    # Lets the receiver run dry, so that it has to wait.
                    sleep(0.0005)
            self._sender.sendto(b"%d" % number, self._address)
            self.sent += 1

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End it, if it has not ended by itself."""
        self._stop.set()
        self._thread.join()

    @property
    def is_over(self) -> bool:
        """Whether all is sent."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """End it and close its socket."""
        self.stop()
        self._sender.close()


@contextmanager
def traffic(network: Network, version: int, count: int | None = None, window: int | None = None) -> Iterator[Traffic]:
    """Numbered datagrams from the far host, for the time of the block."""
    running = Traffic(network, version, count, window)
    interval = sys.getswitchinterval()
    # A receiver that never sleeps would hold the sender up for the usual 5 ms each time.
    sys.setswitchinterval(0.0001)
    running.start()
    try:
        yield running
    finally:
        running.close()
        sys.setswitchinterval(interval)


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
async def test_a_long_flood(face: Face, network: Network, version: int) -> None:
    """200,000 datagrams, with a large receive buffer: nothing is lost but what the kernel reports."""
    async with async_receiver(version, receive_buffer=4_000_000) as receiver:
        received, drops = await flooded(receiver, network, version, 200_000)
        print(f"{face.name} IPv{version}: {received} received, {drops} dropped by the kernel")
        assert received + drops == 200_000


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
        assert (open_descriptors(), watched_descriptors()) == before
        assert receiver.stats()[:1] + receiver.stats()[3:] == (paced.sent, 0, 0)
    gc.collect()  # a forgotten transport or future would warn now


@pytest.mark.parametrize("version", [4])
async def test_cancelling_loses_nothing(face: Face, network: Network, version: int) -> None:
    """Receives that are cancelled at any moment, in every way that the loops know, lose no datagram."""
    for give_up in ways_to_give_up(face):
        await cancelled_often(face, network, version, give_up, 20)


@pytest.mark.slow
async def test_a_thousand_cancellations(face: Face, network: Network, version: int) -> None:
    """1,000 cancellations under traffic, in each of the ways, lose no datagram."""
    for give_up in ways_to_give_up(face):
        await cancelled_often(face, network, version, give_up, 1000)


async def test_tasks_share_one_receiver(face: Face, network: Network, version: int) -> None:
    """Four tasks that receive from one receiver lose nothing between them, and each gets a fair share."""
    shares: list[list[int]] = [[], [], [], []]
    count = 4000
    async with async_receiver(version, timeout=None) as receiver:
        with traffic(network, version, count, WINDOW) as paced, anyio.fail_after(100):
            async with anyio.create_task_group() as tasks:

                async def take(share: list[int]) -> None:
                    async for datagram in receiver:
                        share.append(int(datagram.data))
                        paced.received.append(int(datagram.data))
                        if len(paced.received) == count:
                            tasks.cancel_scope.cancel()

                for share in shares:
                    tasks.start_soon(take, share)
    assert sorted(itertools.chain(*shares)) == list(range(count))
    assert min(len(share) for share in shares) > count / 40, [len(share) for share in shares]


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


@pytest.mark.parametrize("limit", [1, 100])
async def test_other_tasks_get_their_turn(face: Face, network: Network, version: int, limit: int) -> None:
    """While datagrams are always there, taken singly or many at a time, others run after a bounded number of them."""
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
                for _ in range(6000 // limit):
                    for _ in range(limit):
                        sender.sendto(b"x", (GROUP[version], PORT))
                    got = len(await receiver.receive_many(limit)) if limit > 1 else bool(await receiver.receive())
                    since += got
                tasks.cancel_scope.cancel()
        assert receiver.stats().datagrams > 5000, "too few datagrams: this test shows nothing"
    assert 0 < max(longest, since) <= TURN


async def test_a_group_that_is_joined_by_another_thread(face: Face, network: Network, version: int) -> None:
    """A task that waits hears a group that another thread joins meanwhile, and goes on when one is left."""
    async with async_receiver(version, GROUP[version], timeout=None) as receiver:
        for _ in range(3):
            async with face.beside(receiver.receive) as waiting:
                await anyio.to_thread.run_sync(receiver.join_group, OTHER_GROUP[version])
                network.send(b"x", OTHER_GROUP[version])
                (outcome,) = await waiting.outcomes()
            assert outcome.data == b"x"
            async with face.beside(receiver.receive) as waiting:
                await anyio.to_thread.run_sync(receiver.leave_group, OTHER_GROUP[version])
                network.send(b"y", GROUP[version])
                (outcome,) = await waiting.outcomes()
            assert outcome.data == b"y"


@pytest.mark.parametrize("version", [4])
def test_one_receiver_in_one_event_loop_after_another(face: Face, network: Network, version: int) -> None:
    """A receiver that stays open can be used in an event loop, and in another one after that has ended."""
    with async_receiver(version) as receiver:

        async def use() -> None:
            async with face.beside(receiver.receive) as waiting:
                network.send(b"x", GROUP[version])
                (outcome,) = await waiting.outcomes()
            assert outcome.data == b"x"

        for _ in range(3):
            face.run(use)
