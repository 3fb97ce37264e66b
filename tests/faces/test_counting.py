"""Loss is counted by the kernel and told at the moment of asking; the receive buffer is asked for and read back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faces.faces import PLAIN_FACES, Awaited, Face
from faces.network import GROUP, OTHER_GROUP, PORT, Network, family
from multicast_expert import MulticastWarning


@pytest.fixture(params=PLAIN_FACES, ids=lambda face: face.name)
def face(request: pytest.FixtureRequest) -> Face:
    """Each face in turn; how it waits does not matter here."""
    chosen: Face = request.param
    return chosen


def receiver_of(face: Face, version: int, *groups: str, **keywords: Any) -> Any:
    """A receiver on eth0 that does not wait, unless told otherwise."""
    keywords = {"iface": "eth0", "timeout": 0, **keywords}
    return face.receiver(family(version), groups or [GROUP[version]], PORT, **keywords)


def overflow(network: Network, group: str, count: int, cable: int = 0) -> None:
    """Send more than a small buffer holds."""
    with network.sender(6 if ":" in group else 4, cable) as sender:
        for number in range(count):
            sender.sendto(b"%04d" % number + bytes(1000), (group, PORT))


async def drained(receiver: Any) -> int:
    """Receive what is there and return how many datagrams it was."""
    count = 0
    async for datagram in receiver:
        assert int(datagram.data[:4]) >= count
        count += 1
    return count


async def test_drops_are_exact_at_the_moment_of_asking(face: Face, network: Network, version: int) -> None:
    """After an overflow, drops and what waits are what was sent; no other datagram has to come to learn of them."""
    async with receiver_of(face, version, receive_buffer=8192) as receiver:
        assert receiver.stats() == (0, 0, 0, 0, 0)
        overflow(network, GROUP[version], 200)
        drops = receiver.stats().kernel_drops
        assert 0 < drops < 200
        received = await drained(receiver)
        assert received + drops == 200
        assert receiver.stats() == (received, received * 1004, 0, drops, 0)
        network.send(b"9999", GROUP[version])
        assert (await receiver.receive()).data == b"9999"
        assert receiver.stats().kernel_drops == drops


async def test_drops_of_all_groups_and_interfaces(face: Face, network: Network, version: int) -> None:
    """Drops add up over all sockets; those of a group that was left since still count; reopened, it begins with 0."""
    places = [(group, cable) for group in (GROUP[version], OTHER_GROUP[version]) for cable in range(2)]
    receiver = receiver_of(
        face, version, GROUP[version], OTHER_GROUP[version], iface=None, ifaces=["eth0", "eth1"], receive_buffer=8192
    )
    async with receiver:
        for group, cable in places:
            overflow(network, group, 100, cable)
        received = 0
        while True:
            try:
                received += len(await receiver.receive_many())
            except TimeoutError:
                break
        assert received + receiver.stats().kernel_drops == 400
        receiver.leave_group(GROUP[version])
        assert received + receiver.stats().kernel_drops == 400
    async with receiver:
        assert receiver.stats() == (0, 0, 0, 0, 0)


async def test_what_is_read_by_any_method_is_counted(face: Face, network: Network, version: int) -> None:
    """Datagrams and bytes count what was handed out, whichever method did it."""
    async with receiver_of(face, version, timeout=10) as receiver:
        for _ in range(6):
            network.send(b"12345", GROUP[version])
        await receiver.recv()
        await receiver.recvfrom()
        await receiver.receive()
        assert len(await receiver.receive_many()) == 3
        assert receiver.stats() == (6, 30, 0, 0, 0)


async def test_the_receive_buffer_as_asked_for(face: Face, network: Network, version: int) -> None:
    """`receive_buffer` gives back what was granted, and holds that much more; without it, the system's default."""
    default = int(Path("/proc/sys/net/core/rmem_default").read_text()) // 2
    async with receiver_of(face, version) as receiver:
        assert receiver.receive_buffer == default
    held = {}
    for size in (20_000, 200_000):
        async with receiver_of(face, version, receive_buffer=size) as receiver:
            assert receiver.receive_buffer == size
            receiver.join_group(OTHER_GROUP[version])
            assert receiver.receive_buffer == size
            overflow(network, OTHER_GROUP[version], 1000)
            held[size] = await drained(receiver)
            assert held[size] + receiver.stats().kernel_drops == 1000
    assert held[200_000] > 5 * held[20_000]


def opened(receiver: Any) -> None:
    """Open it by its method."""
    receiver.open()


def entered(receiver: Any) -> None:
    """Open it as a with block does."""
    receiver.__enter__()


@pytest.mark.parametrize("way", [opened, entered])
async def test_a_buffer_that_the_system_does_not_grant(
    face: Face, network: Network, version: int, way: Callable[[Any], None]
) -> None:
    """Less than asked for is a MulticastWarning that names the sysctl and both sizes; what was granted can be read."""
    most = int(Path("/proc/sys/net/core/rmem_max").read_text())
    receiver = receiver_of(face, version, receive_buffer=most + 12_345)
    words = rf"{most} bytes, not the {most + 12_345} .*net\.core\.rmem_max={most + 12_345}"
    with pytest.warns(MulticastWarning, match=words) as caught:
        way(receiver)
    try:
        assert [warning.filename for warning in caught] in ([__file__], [Awaited.__enter__.__code__.co_filename])
        assert receiver.receive_buffer == most
    finally:
        receiver.close()
