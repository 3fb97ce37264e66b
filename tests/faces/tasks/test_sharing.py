"""One receiver for several tasks, threads and event loops: each gets its part, and nothing is lost between them."""

import asyncio
import gc
import itertools
import threading
from collections.abc import Callable
from functools import partial
from time import monotonic

import anyio
import pytest

from faces.faces import ASYNC_FACES, PATIENCE, Face, wait_until
from faces.network import GROUP, OTHER_GROUP, PORT, Network, watched_descriptors
from faces.tasks.traffic import WINDOW, async_receiver, traffic
from linux.plain_sockets import all_closed, open_descriptors
from multicast_expert import AsyncMcastRxSocket, Datagram, MulticastExpertError


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


async def in_new_thread(function: Callable[[str], None], group: str) -> None:
    """Call it in a thread of its own: those that trio keeps may still be in the network of an earlier test."""
    thread = threading.Thread(target=function, args=(group,))
    thread.start()
    while thread.is_alive():
        await anyio.sleep(0.001)


async def test_a_group_that_is_joined_by_another_thread(face: Face, network: Network, version: int) -> None:
    """A task that waits hears a group that another thread joins meanwhile, and goes on when one is left."""
    async with async_receiver(version, GROUP[version], timeout=None) as receiver:
        for _ in range(3):
            async with face.beside(receiver.receive) as waiting:
                await in_new_thread(receiver.join_group, OTHER_GROUP[version])
                network.send(b"x", OTHER_GROUP[version])
                (outcome,) = await waiting.outcomes()
            assert outcome.data == b"x"
            async with face.beside(receiver.receive) as waiting:
                await in_new_thread(receiver.leave_group, OTHER_GROUP[version])
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
    all_closed(before[0])
    assert watched_descriptors() <= before[1]


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
