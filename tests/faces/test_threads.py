"""Threads on one blocking receiver: some receive, others join, leave and close; nothing is lost and nobody hangs."""

import contextlib
import functools
import itertools
import select
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from time import monotonic
from typing import Any

import pytest

from faces.faces import BLOCKING, LIKE_WINDOWS, PATIENCE, Face, is_waiting, wait_like_windows, wait_until
from faces.network import GROUP, OTHER_GROUP, PORT, Network, family
from linux.plain_sockets import all_closed, open_descriptors
from multicast_expert import Datagram, McastRxSocket, MulticastExpertError
from multicast_expert.engine.waitset import WaitSet


@pytest.fixture(params=[BLOCKING, LIKE_WINDOWS[0]], ids=lambda face: face.name)
def face(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Face:
    """The blocking face, with the selector of this OS and with one like that of Windows."""
    chosen: Face = request.param
    if chosen.like_windows:
        wait_like_windows(monkeypatch)
    return chosen


@pytest.fixture
def busy_threads() -> Iterator[None]:
    """Threads take turns as often as they can, so that they meet where they should not."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


class Thread(threading.Thread):
    """A thread that keeps what its function raised for whoever joins it."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        super().__init__(daemon=True)
        self._function = function
        self._arguments = args
        self._failure: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Call the function."""
        try:
            self._function(*self._arguments)
        except BaseException as failure:  # noqa: BLE001 - raised again in finish
            self._failure = failure

    def finish(self) -> None:
        """Wait for its end and raise what it raised."""
        self.join(PATIENCE)
        assert not self.is_alive(), "the thread never ended"
        if self._failure is not None:
            raise self._failure


def receiver_of(version: int, *groups: str, **keywords: Any) -> McastRxSocket:
    """A receiver on eth0 that waits for ever, unless told otherwise."""
    return McastRxSocket(family(version), groups or [GROUP[version]], PORT, "eth0", **keywords)


def receive_until_closed(receiver: McastRxSocket, received: list[Datagram]) -> None:
    """Receive until another thread closes the receiver."""
    with pytest.raises(MulticastExpertError, match=r"closed|not open"):
        received.extend(iter(receiver.receive, None))


def test_four_threads_join_and_leave_under_traffic(face: Face, network: Network, version: int) -> None:
    """While four threads join and leave groups, the group that stays loses nothing, and each joined one is heard."""
    heard: dict[str, threading.Event] = {}
    kept: list[int] = []
    rounds = 40

    def receive(receiver: McastRxSocket) -> None:
        datagrams = iter(receiver)
        with contextlib.suppress(MulticastExpertError):  # it is closed in the end
            for datagram in datagrams:
                if datagram.group == GROUP[version]:
                    kept.append(int(datagram.data))
                else:
                    heard[datagram.data.decode()].set()

    def join_and_leave(receiver: McastRxSocket, number: int) -> None:
        with network.sender(version) as sender:
            for turn in range(rounds):
                group = str(ip_address(OTHER_GROUP[version]) + 1 + 100 * number + turn % 3)
                said = f"{group} {turn}"
                heard[said] = threading.Event()
                membership = receiver.join_group(group)
                sender.sendto(said.encode(), (group, PORT))
                assert heard[said].wait(PATIENCE), f"{said} was never heard"
                membership.leave()

    with receiver_of(version) as receiver, network.sender(version) as sender:
        receiving = Thread(receive, receiver)
        joining = [Thread(join_and_leave, receiver, number) for number in range(4)]
        sent = 0
        while any(thread.is_alive() for thread in joining):
            if sent - len(kept) < 100:
                sender.sendto(b"%d" % sent, (GROUP[version], PORT))
                sent += 1
        for thread in joining:
            thread.finish()
        wait_until(lambda: len(kept) == sent, f"{sent} datagrams are received")
        assert receiver.stats().kernel_drops == 0
        assert receiver.mcast_ips == [GROUP[version]]
        receiver.close()
        receiving.finish()
    assert kept == list(range(sent))
    assert sent > rounds


def test_threads_share_one_receiver(face: Face, network: Network, version: int, busy_threads: None) -> None:
    """Three threads receive from one receiver with many groups: each datagram comes once, and closing ends them all."""
    groups = [str(ip_address(GROUP[version]) + number) for number in range(20)]
    shares: list[list[Datagram]] = [[], [], []]
    rounds = 100
    with receiver_of(version, *groups) as receiver, network.sender(version) as sender:
        threads = [Thread(receive_until_closed, receiver, share) for share in shares]

        def outstanding_are_at_most(sent: int, most: int) -> bool:
            return sent - sum(map(len, shares)) <= most or not all(thread.is_alive() for thread in threads)

        for number in range(rounds):
            for group in groups:
                sender.sendto(b"%d" % number, (group, PORT))
            sent = (number + 1) * len(groups)
            # The receive buffers hold what is outstanding.
            wait_until(functools.partial(outstanding_are_at_most, sent, 500), "the threads keep up")
        wait_until(functools.partial(outstanding_are_at_most, sent, 0), "all is received")
        receiver.close()
        for thread in threads:
            thread.finish()
    received = sorted((datagram.group, int(datagram.data)) for datagram in itertools.chain(*shares))
    assert received == sorted((group, number) for group in groups for number in range(rounds))


def test_a_join_by_another_thread_is_heard_at_once(face: Face, network: Network, version: int) -> None:
    """A thread that waits for ever hears a group that another one joins meanwhile, at once."""
    with receiver_of(version) as receiver:
        received: list[Datagram] = []
        thread = Thread(receive_until_closed, receiver, received)
        for number in range(10):
            wait_until(lambda: is_waiting(thread), "the thread waits")
            group = str(ip_address(OTHER_GROUP[version]) + number)
            receiver.join_group(group)
            start = monotonic()
            network.send(b"x", group)
            wait_until(lambda heard=number: len(received) > heard, f"{group} is heard")
            assert monotonic() - start < 1
        receiver.close()
        thread.finish()
    assert [datagram.group for datagram in received] == [
        str(ip_address(OTHER_GROUP[version]) + number) for number in range(10)
    ]


def test_closing_at_any_moment(face: Face, network: Network, version: int, busy_threads: None) -> None:
    """Whenever a receiver is closed while threads use it, they get a MulticastExpertError; no descriptor stays open."""
    before = open_descriptors()
    for number in range(60):
        receiver = receiver_of(version).open()
        threads = [Thread(receive_until_closed, receiver, []) for _ in range(2)]
        for _ in range(number):
            threads[0].is_alive()
        receiver.close()
        for thread in threads:
            thread.finish()
    all_closed(before)


def test_changes_by_several_threads_at_once(face: Face, network: Network, version: int, busy_threads: None) -> None:
    """Of threads that join the same group at once, one succeeds and the others are told; the same for leaving it."""
    with receiver_of(version) as receiver:
        for _ in range(10):
            for change in (receiver.join_group, receiver.leave_group):
                outcomes: list[str] = []

                def attempt(change: Callable[[str], object] = change, outcomes: list[str] = outcomes) -> None:
                    try:
                        change(OTHER_GROUP[version])
                        outcomes.append("done")
                    except MulticastExpertError:
                        outcomes.append("refused")

                threads = [Thread(attempt) for _ in range(4)]
                for thread in threads:
                    thread.finish()
                assert sorted(outcomes) == ["done", "refused", "refused", "refused"]
        assert receiver.mcast_ips == [GROUP[version]]


def test_asking_while_others_change(face: Face, network: Network, version: int, busy_threads: None) -> None:
    """Statistics, memberships and descriptors can be asked for while another thread joins and leaves."""
    with receiver_of(version) as receiver:

        def change() -> None:
            for number in range(60):
                source = str(ip_address(network.source(version)) + 100 + number % 5)
                membership = receiver.join_group(OTHER_GROUP[version], source=source)
                second = receiver.join_group(OTHER_GROUP[version], source=network.source(version))
                membership.leave()
                second.leave()

        changing = Thread(change)
        while changing.is_alive():
            assert receiver.stats().kernel_drops == 0
            assert {membership.group for membership in receiver.memberships} <= {GROUP[version], OTHER_GROUP[version]}
            assert 1 <= len(receiver.filenos()) <= 2
            assert receiver.receive_buffer > 0
            assert GROUP[version] in repr(receiver)
        changing.finish()


class RungMeanwhile:
    """The alarm of a wait set, which another thread rings just before it is drained."""

    def __init__(self, waitset: WaitSet[object], token: object) -> None:
        self._waitset = waitset
        self._token = token
        self._alarm = waitset._alarm

    def recv(self, size: int) -> bytes:
        """Begin another wait and ring it, then drain."""
        if self._token not in self._waitset.rung:
            self._waitset.inside[self._token] = 0
            self._waitset.ring_threads()
        drained: bytes = self._alarm.recv(size)
        return drained

    def close(self) -> None:
        """Close the alarm."""
        self._alarm.close()


def is_ringing(waitset: WaitSet[object]) -> bool:
    """Whether a wait would end at once."""
    return bool(select.select([waitset.alarm], [], [], 0)[0])


def test_a_ring_is_not_lost_to_a_thread_that_drains() -> None:
    """The last thread that was rung drains the alarm; if that swallows a newer ring, it rings again."""
    waitset: WaitSet[object] = WaitSet()
    older, newer = object(), object()
    waitset.inside[older] = 0
    waitset.ring_threads()
    waitset._alarm = RungMeanwhile(waitset, newer)
    del waitset.inside[older]
    waitset.left()
    assert is_ringing(waitset)
    del waitset.inside[newer]
    waitset.left()
    assert not is_ringing(waitset)
    waitset.close()
