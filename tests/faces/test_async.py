"""Async receivers under traffic, on asyncio, uvloop and trio: nothing lost or left behind, and everyone gets a turn."""

import asyncio
import gc
import itertools
import random
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from time import monotonic, sleep
from typing import Any

import anyio
import anyio.lowlevel
import anyio.to_thread
import pytest

from faces.faces import ASYNC_FACES, LIKE_WINDOWS, PATIENCE, Face, by_turns, wait_like_windows, wait_until
from faces.network import GROUP, OTHER_GROUP, PORT, Network, family, watched_descriptors
from linux.plain_sockets import open_descriptors
from multicast_expert import AsyncMcastRxSocket, Datagram, MulticastExpertError
from multicast_expert.sockets.aio import YIELD_EVERY

WINDOW = 100
"""A sender that is no more than so many datagrams ahead never fills the receive buffer that Linux gives by default."""
TURN = 4 * YIELD_EVERY
"""Datagrams after which another task has to have had its turn."""


FACES = [*ASYNC_FACES, *LIKE_WINDOWS[1:]]


@pytest.fixture(params=FACES, ids=lambda face: face.name)
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
        assert open_descriptors() == before[0]
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


@pytest.mark.slow
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


# What a task leaves, or cannot take


async def test_leaving_the_loop_in_the_middle_loses_nothing(face: Face, network: Network, version: int) -> None:
    """Iterating takes many at a time; who leaves the loop finds the others by any method, in order."""
    async with async_receiver(version) as receiver:
        with network.sender(version) as sender:
            for number in range(12):
                sender.sendto(b"%d" % number, (GROUP[version], PORT))
        got = []
        for _ in range(3):
            async for datagram in receiver:
                got.append(datagram.data)
                if len(got) % 2 == 0:
                    break
        got.append((await receiver.receive()).data)
        got.append(await receiver.recv())
        got += [datagram.data for datagram in await receiver.receive_many(2)]
        got += [datagram.data for datagram in await receiver.receive_many()]
        assert got == [b"%d" % number for number in range(12)]


async def test_a_step_of_an_iteration_that_nobody_awaits(face: Face, network: Network, version: int) -> None:
    """It takes nothing, whether the backlog holds something or not; awaited twice, it gives nothing twice."""
    with async_receiver(version) as receiver:
        for number in range(5):
            network.send(b"%d" % number, GROUP[version])
        iteration = aiter(receiver)
        received = [(await anext(iteration)).data]
        for _ in range(2):
            step = anext(iteration)
            if hasattr(step, "close"):
                step.close()
            del step
            received.append((await anext(iteration)).data)
        step = anext(iteration)
        received.append((await step).data)
        with pytest.raises(RuntimeError, match="cannot reuse"):
            await step
        received.append((await anext(receiver)).data)
    assert received == [b"%d" % number for number in range(5)]


async def test_what_one_task_leaves_another_gets(face: Face, network: Network, version: int) -> None:
    """A task that waits gets its part of what another took at once and does not use yet."""
    async with async_receiver(version, timeout=None) as receiver:
        async with face.beside(receiver.receive, receiver.receive) as waiting:
            with network.sender(version) as sender:
                for number in range(10):
                    sender.sendto(b"%d" % number, (GROUP[version], PORT))
            # Takes all of them before any other task runs, and then does something else.
            first = await anext(receiver)
            outcomes = await waiting.outcomes()
        rest = await receiver.receive_many()
        assert first.data == b"0"
        assert sorted(outcome.data for outcome in outcomes) == [b"1", b"2"]
        assert [datagram.data for datagram in rest] == [b"%d" % number for number in range(3, 10)]


async def test_closing_forgets_what_was_taken(face: Face, network: Network, version: int) -> None:
    """Iterating a closed receiver is an error, although it had taken datagrams that nobody got."""
    receiver = async_receiver(version).open()
    for payload in (b"a", b"b", b"c"):
        network.send(payload, GROUP[version])
    assert (await anext(receiver)).data == b"a"
    receiver.close()
    with pytest.raises(MulticastExpertError, match="not open"):
        await anext(receiver)


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


# One receiver, several waits


async def test_each_wait_ends_at_its_own_time(face: Face, network: Network, version: int) -> None:
    """Tasks that wait at once with different timeouts: each ends when its own has passed, the last get what comes."""
    timeouts = [0.2, 0.05, None, 0.1, 30, 0.15]
    ended: list[float | None] = []
    async with async_receiver(version) as receiver:

        async def wait(timeout: float | None) -> Datagram:
            start = monotonic()
            try:
                return await receiver.receive(timeout)
            except TimeoutError:
                ended.append(timeout)
                assert timeout is not None
                assert timeout - 0.005 <= monotonic() - start < timeout + 2
                raise

        async with face.beside(*(partial(wait, timeout) for timeout in timeouts)) as waiting:
            while len(ended) < 4:
                await anyio.sleep(0.01)
            network.send(b"a", GROUP[version])
            network.send(b"b", GROUP[version])
            outcomes = await waiting.outcomes()
    assert [getattr(outcome, "data", type(outcome)) for outcome in outcomes] in (
        [TimeoutError, TimeoutError, b"a", TimeoutError, b"b", TimeoutError],
        [TimeoutError, TimeoutError, b"b", TimeoutError, b"a", TimeoutError],
    )
    if not face.like_windows and face.backend == "asyncio":
        assert ended == [0.05, 0.1, 0.15, 0.2]


@pytest.mark.parametrize("version", [4])
@pytest.mark.parametrize("face", ASYNC_FACES[:2], ids=lambda face: face.name)
async def test_nobody_watches_what_nobody_waits_for(face: Face, network: Network, version: int) -> None:
    """When something comes and nobody waits, the loop stops watching instead of being called for ever."""
    async with async_receiver(version) as receiver:
        await anyio.sleep(0.001)  # the loops, too, begin to watch something when they first wait
        before = watched_descriptors()
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await receiver.receive(0.001)
            assert watched_descriptors() == before + 1
            network.send(b"x", GROUP[version])
            with anyio.fail_after(PATIENCE):
                while watched_descriptors() > before:
                    await asyncio.sleep(0)
            assert await receiver.recv() == b"x"


@pytest.mark.parametrize("version", [4])
@pytest.mark.parametrize("face", ASYNC_FACES, ids=lambda face: face.name)
async def test_a_receiver_that_is_forgotten_after_a_wait(face: Face, network: Network, version: int) -> None:
    """An event loop that goes on watching does not keep a receiver alive that its user forgot to close."""
    await anyio.sleep(0.001)  # the loops, too, begin to watch something when they first wait
    before = open_descriptors(), watched_descriptors()
    receiver = async_receiver(version).open()
    with pytest.raises(TimeoutError):
        await receiver.receive(0.001)
    with pytest.warns(ResourceWarning, match="unclosed"):  # noqa: PT031 - who collects is who warns
        del receiver
        gc.collect()
    assert (open_descriptors(), watched_descriptors()) == before


@pytest.mark.parametrize("version", [4])
@pytest.mark.parametrize("face", ASYNC_FACES[:2], ids=lambda face: face.name)
def test_one_receiver_in_several_event_loops_at_once(face: Face, network: Network, version: int) -> None:
    """Tasks of three loops in three threads wait for one receiver: nothing is lost between them; closing wakes all."""
    received: list[int] = []
    refused: list[MulticastExpertError] = []
    count = 300

    async def use(receiver: AsyncMcastRxSocket) -> None:
        closed = r"not open|was closed"
        with pytest.raises(MulticastExpertError, match=closed) as refusal:  # noqa: PT012 - any of them may raise
            while True:
                received.append(int(await receiver.recv()))
        refused.append(refusal.value)

    with async_receiver(version, timeout=None) as receiver:
        threads = [threading.Thread(target=face.run, args=(partial(use, receiver),), daemon=True) for _ in range(3)]
        for thread in threads:
            thread.start()
        with network.sender(version) as sender:
            for number in range(count):
                sender.sendto(b"%d" % number, (GROUP[version], PORT))
                if number % 50 == 0:
                    # All of them wait again.
                    wait_until(lambda sent=number + 1: len(received) == sent, f"{number + 1} datagrams")
        wait_until(lambda: len(received) == count, f"{count} datagrams")
        receiver.close()
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()
    assert sorted(received) == list(range(count))
    assert len(refused) == 3


@pytest.mark.parametrize("version", [4])
@pytest.mark.parametrize("face", ASYNC_FACES[:2], ids=lambda face: face.name)
async def test_many_groups_and_sockets_while_it_waits(face: Face, network: Network, version: int) -> None:
    """A task goes on hearing everything while so many groups are joined and left that sockets come and go."""
    async with async_receiver(version, timeout=PATIENCE) as receiver:
        groups = [f"239.77.0.{number}" for number in range(1, 61)]
        async with face.beside(receiver.receive) as waiting:
            for group in groups:
                receiver.join_group(group)
            network.send(b"x", groups[-1])
            (outcome,) = await waiting.outcomes()
        assert (outcome.data, outcome.group) == (b"x", groups[-1])
        assert len(receiver.filenos()) > 1
        async with face.beside(receiver.receive) as waiting:
            for group in groups:
                receiver.leave_group(group)
            network.send(b"y", GROUP[version])
            (outcome,) = await waiting.outcomes()
        assert outcome.data == b"y"
        assert len(receiver.filenos()) == 1
