"""`receive_into` on every face: what arrives in a DatagramBuffer is what `receive_many` would have returned."""

import random
import socket
from time import thread_time
from typing import Any

import pytest

from faces.faces import Face
from faces.network import GROUP, OTHER_GROUP, PORT, Network, family
from multicast_expert import Datagram, DatagramBuffer, MulticastExpertError, NotOpenError


def receiver_of(face: Face, version: int, *groups: str, **keywords: Any) -> Any:
    """A receiver on eth0 that waits ten seconds, unless told otherwise."""
    keywords = {"iface": "eth0", "timeout": 10, "receive_buffer": 1 << 20, **keywords}
    return face.receiver(family(version), groups or [GROUP[version]], PORT, **keywords)


async def rest_of(receiver: Any) -> list[Datagram]:
    """What is there, as Datagrams."""
    found: list[Datagram] = []
    try:
        while True:
            found += await receiver.receive_many(timeout=0)
    except TimeoutError:
        return found


async def test_the_same_as_receive_many(face: Face, network: Network, version: int) -> None:
    """All facts about each datagram, also of several senders and groups, and in the order of each."""
    groups = [GROUP[version], OTHER_GROUP[version]]
    async with (
        receiver_of(face, version, *groups, timestamps=True) as into,
        receiver_of(face, version, *groups, timestamps=True) as many,
    ):
        with network.sender(version, hops=3) as one, network.sender(version, hops=9) as other:
            for number in range(40):
                sender = other if number % 3 else one
                sender.sendto(bytes([number]) * (number % 7), (groups[number % 2], PORT))
        buffer = DatagramBuffer(100, 1 << 16)
        count = 0
        while count < 40:
            count += await into.receive_into(buffer)
        expected: list[Datagram] = []
        while len(expected) < 40:
            expected += await many.receive_many()

    def key(datagram: Datagram) -> tuple[Any, ...]:
        return datagram.sender, datagram.group, datagram.data, datagram.hop_limit, datagram.interface_name

    assert len(buffer) == 40
    assert sorted(map(key, buffer)) == sorted(map(key, expected))
    for group in groups:
        ours = [each.data for each in buffer if each.group == group]
        assert ours == [each.data for each in expected if each.group == group]
    assert {origin.hop_limit for origin in buffer.origins} == {3, 9}
    assert len(buffer.origins) == 4
    # Two sockets may note the same arrival at different times, if it comes as two copies.
    assert all(abs(a.timestamp_ns - b.timestamp_ns) < 1e9 for a, b in zip(buffer, expected, strict=True))  # type: ignore[operator]


@pytest.mark.parametrize("gro", [True, False], ids=["GRO", "no GRO"])
async def test_any_sizes_in_any_buffers(face: Face, network: Network, version: int, gro: bool) -> None:
    """Runs and single datagrams of any size, taken by receives of every kind and into buffers that are often full."""
    chance = random.Random(f"{face.name}{version}{gro}")
    group = GROUP[version]
    async with receiver_of(face, version, timeout=0, gro=gro) as receiver:
        with (
            network.host.entered(),
            socket.socket(family(version), socket.SOCK_DGRAM) as sender,
        ):
            level = socket.IPPROTO_IP if version == 4 else socket.IPPROTO_IPV6
            option = socket.IP_MULTICAST_IF if version == 4 else socket.IPV6_MULTICAST_IF
            index = network.near[0].index()
            sender.setsockopt(level, option, b"\0" * 8 + index.to_bytes(4, "little") if version == 4 else index)
            for _ in range(25):
                sent: list[bytes] = []
                for _ in range(chance.randrange(1, 6)):
                    size = chance.choice([0, 1, 40, 200, 200, 1000, 9000, 60000])
                    segments = chance.randrange(2, 20) if 0 < size <= 1000 else 1
                    run = [bytes([chance.randrange(256)]) * size for _ in range(segments)]
                    # UDP_SEGMENT: the kernel hands such a run on in one piece.
                    sender.setsockopt(socket.IPPROTO_UDP, 103, size if segments > 1 else 0)
                    sender.sendto(b"".join(run), (group, PORT))
                    sent += run
                got: list[bytes] = []
                buffer = DatagramBuffer(chance.choice([1, 3, 50, 1000]), chance.choice([65535, 70000, 1 << 20]))
                while len(got) + len(buffer) < len(sent):
                    how = chance.randrange(3)
                    if how < 2 or buffer.is_full:
                        assert bytes(buffer.data) == b"".join(each.data for each in buffer)
                        got += [each.data for each in buffer]
                        buffer.clear()
                    if how == 0:
                        got.append((await receiver.receive()).data)
                    elif how == 1:
                        got += [each.data for each in await receiver.receive_many(chance.randrange(1, 9))]
                    else:
                        before = len(buffer)
                        count = await receiver.receive_into(buffer)
                        assert 0 < count == len(buffer) - before
                got += [each.data for each in buffer]
                assert got == sent
        stats = receiver.stats()
        assert await rest_of(receiver) == []
        assert stats.kernel_drops == 0


async def test_each_among_equals_has_its_own_facts(face: Face, network: Network, version: int) -> None:
    """Datagrams of one length, or mostly, from two senders whose turns last long and short."""
    chance = random.Random(f"{face.name}{version}")
    buffer, total, size = DatagramBuffer(500, 1 << 17), 0, 0
    async with receiver_of(face, version, gro=False) as receiver:
        for odd in ([], [], [0, 99], [101, 3000], [], []):
            sent: list[tuple[int, bytes]] = []
            with network.sender(version, hops=3) as one, network.sender(version, hops=9) as other:
                while len(sent) < 200:
                    hops, sender = chance.choice([(3, one), (9, other)])
                    for _ in range(chance.choice([1, 2, 30])):
                        data = bytes([chance.randrange(256)]) * chance.choice([*[100] * 20, *odd])
                        sender.sendto(data, (GROUP[version], PORT))
                        sent.append((hops, data))
                ports = {3: one.getsockname()[1], 9: other.getsockname()[1]}
            buffer.clear()
            while len(buffer) < len(sent):
                await receiver.receive_into(buffer)
            assert [(each.hop_limit, each.data) for each in buffer] == sent
            assert [each.sender[1] for each in buffer] == [ports[hops] for hops, _ in sent]
            total += len(sent)
            size += sum(len(data) for _, data in sent)
        assert receiver.stats()[:3] == (total, size, 0)


@pytest.mark.parametrize("gro", [True, False], ids=["GRO", "no GRO"])
async def test_equal_runs(face: Face, network: Network, version: int, gro: bool) -> None:
    """Runs as long as the ones before are cut into their datagrams, too."""
    buffer = DatagramBuffer(500, 1 << 17)
    async with receiver_of(face, version, gro=gro) as receiver:
        for first in range(3):
            with network.sender(version) as sender:
                # UDP_SEGMENT
                sender.setsockopt(socket.IPPROTO_UDP, 103, 70)
                for number in range(20):
                    sender.sendto(bytes([first + number]) * 7 * 70, (GROUP[version], PORT))
            buffer.clear()
            while len(buffer) < 7 * 20:
                await receiver.receive_into(buffer)
            expected = [bytes([first + number]) * 70 for number in range(20) for _ in range(7)]
            assert [each.data for each in buffer] == expected


async def test_a_full_buffer(face: Face, network: Network, version: int) -> None:
    """It says so, takes nothing, and what found no room is received next, by another receive too."""
    async with receiver_of(face, version) as receiver:
        with network.sender(version) as sender:
            for number in range(5):
                sender.sendto(bytes([number]) * 30000, (GROUP[version], PORT))
        buffer = DatagramBuffer(10, 65535)
        count = 0
        while not buffer.is_full:
            count += await receiver.receive_into(buffer)
        assert count == len(buffer) == 2
        with pytest.raises(MulticastExpertError, match="full"):
            await receiver.receive_into(buffer)
        assert (await receiver.receive()).data == bytes([2]) * 30000
        buffer.clear()
        assert not buffer.is_full
        while len(buffer) < 2:
            await receiver.receive_into(buffer)
        assert [each.data[0] for each in buffer] == [3, 4]


async def test_the_next_finds_no_room(face: Face, network: Network, version: int) -> None:
    """A buffer that is full only for what comes next: the receive returns 0 at once, and the buffer says why."""
    async with receiver_of(face, version) as receiver:
        buffer = DatagramBuffer(10, 65535)
        with network.sender(version) as sender:
            for number in range(2):
                sender.sendto(bytes([number]) * 30000, (GROUP[version], PORT))
                await receiver.receive_into(buffer)
            assert (len(buffer), buffer.is_full) == (2, False)
            sender.sendto(bytes([2]) * 30000, (GROUP[version], PORT))
            begun = thread_time()
            assert await receiver.receive_into(buffer) == 0
            assert thread_time() - begun < 0.1
        assert buffer.is_full
        assert len(buffer) == 2
        buffer.clear()
        assert await receiver.receive_into(buffer) == 1
        assert buffer[0].data == bytes([2]) * 30000


async def test_nothing_comes(face: Face, network: Network, version: int) -> None:
    """As `receive` says it; a closed receiver as well."""
    buffer = DatagramBuffer(10, 65535)
    async with receiver_of(face, version) as receiver:
        for timeout in (0, 0.01):
            with pytest.raises(TimeoutError):
                await receiver.receive_into(buffer, timeout=timeout)
    with pytest.raises(NotOpenError):
        await receiver.receive_into(buffer)
    assert len(buffer) == 0
