"""Ten thousand groups on one receiver, and what it says when the process may not have so many descriptors."""

import errno
import resource
from collections.abc import Iterator
from ipaddress import ip_address
from time import monotonic
from typing import Any

import pytest

from faces.faces import ASYNC_FACES, BLOCKING, Face, by_turns, wait_until
from faces.network import GROUP, PORT, Network, family
from linux.plain_sockets import all_closed, descriptor_limit, descriptors_left, open_descriptors
from multicast_expert import Datagram, MulticastOSError
from multicast_expert.system import watch as watcher
from multicast_expert.testing import Lab

MANY = 10_000


FACES = [BLOCKING, ASYNC_FACES[0]]


@pytest.fixture(params=FACES, ids=lambda face: face.name)
def face(request: pytest.FixtureRequest) -> Face:
    """Without and with an event loop."""
    chosen: Face = request.param
    return chosen


@pytest.fixture
def enough_descriptors() -> Iterator[None]:
    """The process may open one descriptor for every group and some more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < MANY + 200:
        pytest.skip(f"this process may have {hard} descriptors at most (ulimit -Hn)")
    with descriptor_limit(MANY + 200):
        yield


def consecutive(version: int, count: int) -> list[str]:
    """So many groups, one after the other."""
    return [str(ip_address(GROUP[version]) + number) for number in range(count)]


async def one_from_each(receiver: Any, network: Network, version: int, groups: list[str]) -> float:
    """Send to each group and receive what was sent, a thousand at a time; return the seconds that receiving took."""
    took = 0.0
    for start in range(0, len(groups), 1000):
        some = groups[start : start + 1000]
        with network.sender(version) as sender:
            for group in some:
                sender.sendto(group.encode(), (group, PORT))
        before = monotonic()
        received: list[Datagram] = []
        while len(received) < len(some):
            received += await receiver.receive_many(timeout=10)
        took += monotonic() - before
        assert sorted(datagram.data.decode() for datagram in received) == sorted(some)
        assert all(datagram.group == datagram.data.decode() for datagram in received)
    return took


@pytest.mark.slow
@by_turns(FACES, 4, 6)
async def test_ten_thousand_groups(face: Face, network: Network, version: int, enough_descriptors: None) -> None:
    """10,000 groups are joined, each is heard, and all are left while it runs; nothing stays joined."""
    groups = consecutive(version, MANY)
    joined_before, descriptors = network.kernel_memberships(), open_descriptors()
    start = monotonic()
    async with face.receiver(family(version), groups[:1], PORT, "eth0", timeout=10) as receiver:
        memberships = [receiver.join_group(group) for group in groups[1:]]
        joined = monotonic()
        assert len(receiver.memberships) == MANY
        receiving = await one_from_each(receiver, network, version, groups)
        left = monotonic()
        for membership in memberships:
            membership.leave()
        print(
            f"{face.name} IPv{version}: joined in {joined - start:.2f} s, received in {receiving:.2f} s, "
            f"left in {monotonic() - left:.2f} s"
        )
        assert receiver.mcast_ips == groups[:1]
        network.send(b"too late", groups[-1])
        network.send(b"first", groups[0])
        assert (await receiver.receive()).data == b"first"
    all_closed(descriptors)
    assert network.kernel_memberships() == joined_before


@pytest.mark.slow
@by_turns(FACES, 6, 4)
async def test_ten_thousand_groups_at_once(
    face: Face, network: Network, version: int, enough_descriptors: None
) -> None:
    """The same with all groups given when it is made."""
    groups = consecutive(version, MANY)
    start = monotonic()
    async with face.receiver(family(version), groups, PORT, "eth0", timeout=10) as receiver:
        opened = monotonic()
        receiving = await one_from_each(receiver, network, version, groups)
        closing = monotonic()
    print(
        f"{face.name} IPv{version} at once: opened in {opened - start:.2f} s, received in {receiving:.2f} s, "
        f"closed in {monotonic() - closing:.2f} s"
    )


async def test_more_groups_than_descriptors(face: Face, network: Network, version: int) -> None:
    """Where the limit of descriptors is reached, the error says so and how to raise it; all is closed again."""
    groups = consecutive(version, 300)
    joined_before, descriptors = network.kernel_memberships(), open_descriptors()
    receiver = face.receiver(family(version), groups, PORT, "eth0")
    with (
        descriptors_left(100),
        pytest.raises(MulticastOSError, match="limit of open descriptors") as refused,
    ):
        receiver.open()
    assert refused.value.errno == errno.EMFILE
    assert "ulimit -n" in str(refused.value)
    all_closed(descriptors)
    assert network.kernel_memberships() == joined_before


async def test_a_join_too_many(face: Face, network: Network, version: int) -> None:
    """A join at run time that meets the limit changes nothing, and the other groups are still heard."""
    groups = consecutive(version, 100)
    async with face.receiver(family(version), groups[:1], PORT, "eth0", timeout=10) as receiver:
        membership_by_membership = map(receiver.join_group, groups[1:])
        with (
            descriptors_left(20),
            pytest.raises(MulticastOSError, match="limit of open descriptors"),
        ):
            list(membership_by_membership)
        joined = receiver.mcast_ips
        assert joined == groups[: len(joined)]
        assert 10 < len(joined) < 30
        await one_from_each(receiver, network, version, joined)
        receiver.join_group(groups[-1])
        await one_from_each(receiver, network, version, groups[-1:])


def is_explained(refused: MulticastOSError) -> bool:
    """Whether the error says that the process has too many descriptors open."""
    return refused.errno == errno.EMFILE and "limit of open descriptors" in str(refused)


async def test_the_last_descriptors(face: Face, network: Network, version: int) -> None:
    """However few descriptors are left, opening and waiting succeed or say why not, and none stays open."""
    with face.receiver(family(version), [GROUP[version]], PORT, "eth0", timeout=0) as receiver:
        with pytest.raises(TimeoutError):
            await receiver.receive()  # the first one imports, which takes a descriptor, too
    before = open_descriptors()
    outcomes = []
    for spare in range(8):
        receiver = face.receiver(family(version), [GROUP[version]], PORT, "eth0", timeout=0)
        with descriptors_left(spare):
            try:
                with receiver, pytest.raises(TimeoutError):
                    await receiver.receive()
                outcomes.append(True)
            except MulticastOSError as refused:
                outcomes.append(not is_explained(refused))
        all_closed(before)
    assert sorted(outcomes) == outcomes
    assert len(set(outcomes)) == 2


@pytest.mark.parametrize("version", [4])
@pytest.mark.parametrize("face", [BLOCKING], ids=lambda face: face.name)
async def test_no_descriptor_to_watch_interfaces_with(
    face: Face, network: Network, lab: Lab, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first receiver of a host starts to watch its interfaces; where that is a descriptor too many, it says so."""
    monkeypatch.setattr(watcher, "LINGER", 0)
    for watching in list(watcher._watchers.values()):
        watching.wake()
    wait_until(
        lambda: all(each.subscribers or not each.thread.is_alive() for each in watcher._watchers.values()),
        "watches that nobody needs any longer have ended",
    )
    fresh = lab.host(f"fresh{len(lab.nodes)}")
    with fresh.entered():
        receiver = face.receiver(family(version), [GROUP[version]], PORT, "lo", timeout=0)
        before = open_descriptors()
        explained: list[bool] = []
        while True:
            with descriptors_left(len(explained)):
                try:
                    receiver.open()
                    break
                except MulticastOSError as refused:
                    explained.append(is_explained(refused))
            all_closed(before)
        receiver.close()
        # Counted in here, too: outside of the block, the host that it entered has a descriptor less.
        all_closed(before)
    assert explained == [True] * len(explained)
    assert len(explained) >= 2
