"""Many groups, many interfaces, many descriptors, large datagrams, a flood; and how long a receive waits."""

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from ipaddress import ip_address
from time import monotonic

import pytest

from linux.plain_sockets import FAMILY, descriptor_limit, own_address, sender_on, two_hosts
from multicast_expert import McastRxSocket
from multicast_expert.testing import Interface, Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
OTHER_GROUP = {4: "239.1.2.4", 6: "ff15::1:2:4"}

# A receiver that knows a busy group to be readable may go on with it for a while before it looks at the others again.
BOUND = 128

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def cable(lab: Lab) -> tuple[Interface, Interface]:
    """A cable between two hosts: the receivers run on the near one."""
    return two_hosts(lab)


@contextlib.contextmanager
def receiving(near: Interface, version: int, groups: list[str], timeout: float | None = 10) -> Iterator[McastRxSocket]:
    """A receiver on the near host."""
    with near.node.entered():
        receiver = McastRxSocket(FAMILY[version], groups, PORT, iface=near.name, timeout=timeout)
        with receiver:
            yield receiver


def consecutive(version: int, count: int) -> list[str]:
    """So many groups, one after the other."""
    return [str(ip_address(GROUP[version]) + number) for number in range(count)]


@both_versions
@pytest.mark.parametrize("count", [1, 21, 500])
def test_each_of_many_groups_receives_its_own(cable: tuple[Interface, Interface], version: int, count: int) -> None:
    """A receiver has as many groups as it likes; what is sent to each comes once."""
    near, far = cable
    groups = consecutive(version, count)
    with receiving(near, version, groups) as receiver, sender_on(far, version) as sender:
        for group in groups:
            sender.sendto(group.encode(), (group, PORT))
        assert sorted(receiver.recv() or b"" for _ in groups) == sorted(group.encode() for group in groups)
        receiver.settimeout(0)
        assert receiver.recv() is None


def test_one_group_on_25_interfaces(lab: Lab) -> None:
    """More interfaces than one socket may have memberships on Linux (20): every one of them receives, once."""
    near, far = lab.host("many-legged"), lab.host("opposite")
    cables = [
        lab.link(
            near,
            far,
            interface=f"eth{number}",
            ipv4=(f"10.2.{number}.1/24", f"10.2.{number}.2/24"),
            ipv6=(f"fd02:{number}::1/64", f"fd02:{number}::2/64"),
        )
        for number in range(25)
    ]
    for version in (4, 6):
        with near.entered(), McastRxSocket(FAMILY[version], [GROUP[version]], PORT, timeout=10) as receiver:
            for _, opposite in cables:
                with sender_on(opposite, version) as sender:
                    sender.sendto(opposite.name.encode(), (GROUP[version], PORT))
            received = [receiver.recv() for _ in cables]
            receiver.settimeout(0)
            assert receiver.recv() is None
        assert sorted(data or b"" for data in received) == sorted(near.name.encode() for near, _ in cables)


@both_versions
def test_descriptors_above_1023(cable: tuple[Interface, Interface], version: int) -> None:
    """A program with 1,100 open descriptors receives and waits like any other: select(2) would end at 1023."""
    near, far = cable
    with contextlib.ExitStack() as opened:
        opened.enter_context(descriptor_limit(2000))
        occupied: list[int] = []
        opened.callback(lambda: [os.close(descriptor) for descriptor in occupied])
        while not occupied or occupied[-1] < 1100:
            occupied.append(os.open("/dev/null", os.O_RDONLY))
        receiver = opened.enter_context(receiving(near, version, [GROUP[version], OTHER_GROUP[version]], timeout=0.01))
        sender = opened.enter_context(sender_on(far, version))
        assert min(receiver.filenos()) > 1023
        assert receiver.recv() is None
        sender.sendto(b"high", (GROUP[version], PORT))
        receiver.settimeout(10)
        assert receiver.recv() == b"high"


@both_versions
@pytest.mark.parametrize("size", [0, 1, 60_000, "largest"])
def test_datagrams_of_any_size_arrive_whole(cable: tuple[Interface, Interface], version: int, size: int | str) -> None:
    """Without a buffer size named, no datagram is cut; and an empty one is an empty one, not a timeout."""
    near, far = cable
    payload = os.urandom({4: 65507, 6: 65527}[version] if isinstance(size, str) else size)
    with receiving(near, version, [GROUP[version]]) as receiver, sender_on(far, version) as sender:
        sender.sendto(payload, (GROUP[version], PORT))
        received = receiver.recvfrom()
        assert received is not None
        assert received[0] == payload
        assert received[1][:2] == sender.getsockname()[:2]


@both_versions
def test_a_buffer_size_cuts(cable: tuple[Interface, Interface], version: int) -> None:
    """A buffer size that is named cuts longer datagrams, and the rest does not come as another one."""
    near, far = cable
    with receiving(near, version, [GROUP[version]]) as receiver, sender_on(far, version) as sender:
        for payload in (b"0123456789", b"next"):
            sender.sendto(payload, (GROUP[version], PORT))
        assert receiver.recv(4) == b"0123"
        assert receiver.recv(4) == b"next"


@both_versions
def test_a_peek_takes_nothing(cable: tuple[Interface, Interface], version: int) -> None:
    """The flags of recv(2) are passed on: what was only peeked at is there again."""
    near, far = cable
    with receiving(near, version, [GROUP[version]]) as receiver, sender_on(far, version) as sender:
        sender.sendto(b"once", (GROUP[version], PORT))
        assert receiver.recv(flags=socket.MSG_PEEK) == b"once"
        receiver.settimeout(0)
        assert receiver.recv() == b"once"
        assert receiver.recv() is None


@both_versions
def test_a_group_that_is_never_empty_does_not_starve_the_others(
    cable: tuple[Interface, Interface], version: int
) -> None:
    """While one group always has a datagram waiting, one on any other group comes after a bounded number of those."""
    near, far = cable
    busy, *quiet = consecutive(version, 20)
    with receiving(near, version, [busy, *quiet]) as receiver, sender_on(far, version) as sender:
        for _ in range(50):
            sender.sendto(b"flood", (busy, PORT))
        waits = []
        for group in quiet:
            sender.sendto(group.encode(), (group, PORT))
            waits.append(0)
            while (data := receiver.recv()) == b"flood":
                waits[-1] += 1
                assert waits[-1] <= BOUND
                sender.sendto(b"flood", (busy, PORT))
            assert data == group.encode()
        assert sum(waits), "the flood never came through: this test shows nothing"


@both_versions
def test_a_busy_group_gets_its_share(cable: tuple[Interface, Interface], version: int) -> None:
    """Two groups that have datagrams waiting take turns, and each keeps its order."""
    near, far = cable
    with (
        receiving(near, version, [GROUP[version], OTHER_GROUP[version]]) as receiver,
        sender_on(far, version) as sender,
    ):
        for number in range(40):
            for group in (GROUP[version], OTHER_GROUP[version]):
                sender.sendto(f"{group} {number:02}".encode(), (group, PORT))
        received = [(receiver.recv() or b"").decode() for _ in range(80)]
        for group in (GROUP[version], OTHER_GROUP[version]):
            assert [text for text in received if text.startswith(f"{group} ")] == [f"{group} {n:02}" for n in range(40)]
            assert 10 <= sum(text.startswith(f"{group} ") for text in received[:40]) <= 30


@both_versions
def test_a_trickle_beside_a_real_flood(cable: tuple[Interface, Interface], version: int) -> None:
    """A sender that floods one group as fast as it can, from its own thread, does not hold up a trickle on another."""
    near, far = cable
    stop = threading.Event()
    flooded = threading.Event()

    def flood(sender: socket.socket) -> None:
        while not stop.is_set():
            sender.sendto(b"flood", (GROUP[version], PORT))
            flooded.set()

    with (
        receiving(near, version, [GROUP[version], OTHER_GROUP[version]]) as receiver,
        sender_on(far, version) as flooder,
        sender_on(far, version) as sender,
    ):
        thread = threading.Thread(target=flood, args=(flooder,))
        thread.start()
        try:
            assert flooded.wait(10)
            seen = 0
            for number in range(20):
                sender.sendto(b"%d" % number, (OTHER_GROUP[version], PORT))
                between = 0
                while (data := receiver.recv()) == b"flood":
                    between += 1
                    assert between <= BOUND
                assert data == b"%d" % number
                seen += between
        finally:
            stop.set()
            thread.join()
        assert seen, "the flood never came through: this test shows nothing"


@both_versions
def test_how_long_a_receive_waits(cable: tuple[Interface, Interface], version: int) -> None:
    """Timeout 0 does not wait, a number waits that long and no longer, None until something comes."""
    near, far = cable
    with receiving(near, version, [GROUP[version]], timeout=0) as receiver, sender_on(far, version) as sender:
        start = monotonic()
        assert receiver.recv() is None
        assert receiver.recvfrom() is None
        assert monotonic() - start < 0.5

        receiver.settimeout(0.1)
        start = monotonic()
        assert receiver.recv() is None
        assert 0.1 <= monotonic() - start < 1

        receiver.settimeout(None)
        later = threading.Timer(0.05, sender.sendto, (b"at last", (GROUP[version], PORT)))
        later.start()
        received = receiver.recvfrom()
        later.join()
        assert received is not None
        assert received[0] == b"at last"
        assert received[1][0] == own_address(far, version)


def test_the_older_form_of_the_timeout(cable: tuple[Interface, Interface]) -> None:
    """`blocking=False` does not wait whatever `timeout` says, and `blocking=True` waits until something comes."""
    near, far = cable
    with near.node.entered(), sender_on(far, 4) as sender:
        with McastRxSocket(socket.AF_INET, [GROUP[4]], PORT, near.name, timeout=30, blocking=False) as receiver:
            start = monotonic()
            assert receiver.recv() is None
            assert monotonic() - start < 1
        with McastRxSocket(socket.AF_INET, [GROUP[4]], PORT, near.name, timeout=0, blocking=True) as receiver:
            later = threading.Timer(0.05, sender.sendto, (b"at last", (GROUP[4], PORT)))
            later.start()
            assert receiver.recv() == b"at last"
            later.join()
