"""What a task took and does not use is not lost, and not kept."""

import pytest

from faces.faces import Face
from faces.network import GROUP, PORT, Network
from faces.tasks.traffic import async_receiver
from multicast_expert import MulticastExpertError


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
