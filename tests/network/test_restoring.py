"""What is restored when an interface came back, what is reported of it, and what must not go wrong on the way."""

import contextlib
import errno
import logging
import os
import socket
import threading
from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any

import pytest

from linux.plain_sockets import member_on, own_address, until
from multicast_expert import HealingEvent, MulticastOSError
from multicast_expert.core.plan import Join
from multicast_expert.platforms.table import Operation
from multicast_expert.system import watch as watcher
from multicast_expert.testing import Host, wait_until
from network.faults import delete_and_recreate, delete_and_recreate_with_its_index, dip_of_the_mtu
from network.listener import Listener, send
from network.traffic import GROUP, PATIENCE, PORT, TwoWires

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


def second_source(wires: TwoWires, version: int) -> str:
    """Another address of talker a."""
    address = {4: "10.1.0.3", 6: "fd01::3"}[version]
    wires.talkers["a"].node.ip(f"addr add {address} dev eth0" + (" nodad" if version == 6 else ""))
    return address


@both_versions
def test_events_and_log(wires: TwoWires, version: int, caplog: pytest.LogCaptureFixture) -> None:
    """The loss is reported as a warning and the restoration as information, to the callback and to the log alike."""
    caplog.set_level(logging.INFO, "multicast_expert")
    with Listener(version, ifaces=["eth0", "eth1"], iface=None) as receiver:
        receiver.join_group(GROUP[version].replace("1", "2", 1))
        wires.listener.remove_interface("eth0")
        receiver.wait_for_event("lost")
        wires.listener.recreate_interface("eth0")
        receiver.wait_for_event("joined")
        assert receiver.events == [HealingEvent("lost", "eth0", 2), HealingEvent("joined", "eth0", 2)]
    wait_until(lambda: len(caplog.records) == 2, "both are logged")
    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        ("multicast_expert", "WARNING", "2 groups lost with eth0"),
        ("multicast_expert", "INFO", "2 groups joined on eth0"),
    ]


def test_a_failure_is_reported_once(
    wires: TwoWires, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While an MTU keeps IPv6 off an interface, joining is tried again and again, but reported once; then restored."""
    looks: list[float] = []
    scan = watcher.scan_interfaces
    monkeypatch.setattr(watcher, "scan_interfaces", lambda: [looks.append(monotonic()), scan()][1])
    with Listener(6) as receiver:
        wires.listener.set_mtu("eth0", 1200)
        receiver.wait_for_event("failed")
        tried = len(looks)
        wait_until(lambda: len(looks) >= tried + 3, "three more attempts")
        wires.listener.set_mtu("eth0", 1500)
        receiver.wait_for_event("joined")
        assert [event.kind for event in receiver.events] == ["lost", "failed", "joined"]
        assert "eth0" in receiver.events[1].reason
        send(wires, GROUP[6], b"again")
        assert receiver.recv() == b"again"
    assert [record.levelname for record in caplog.records if record.levelno > logging.INFO] == ["WARNING", "WARNING"]


@both_versions
def test_a_new_name_is_told(wires: TwoWires, version: int) -> None:
    """After a rename, datagrams and network_interfaces carry the new name, and the old memberships hold."""
    with Listener(version) as receiver:
        wires.listener.rename_interface("eth0", "uplink")
        wait_until(lambda: receiver.network_interfaces[0].machine_name == "uplink", "the receiver knows the new name")
        send(wires, GROUP[version], b"by the new name")
        assert receiver.receive().interface_name == "uplink"
        assert receiver.events == []


@both_versions
def test_source_filters_are_restored(wires: TwoWires, version: int) -> None:
    """After the interface came back, one receiver hears its source alone, the other all but the blocked one."""
    wanted, other = own_address(wires.talkers["a"], version), second_source(wires, version)
    with Listener(version, source_ips=[wanted]) as one, Listener(version) as all_but_one:
        all_but_one.block_source(GROUP[version], wanted)
        delete_and_recreate_with_its_index(wires.listener)
        for receiver in (one, all_but_one):
            receiver.wait_for_event("joined")
        for source in (wanted, other, wanted):
            send(wires, GROUP[version], source.encode(), source=source)
        assert [one.recv(), one.recv()] == [wanted.encode()] * 2
        send(wires, GROUP[version], b"last", source=other)
        assert [all_but_one.recv(), all_but_one.recv()] == [other.encode(), b"last"]
        assert one.drain() == []


def test_a_source_that_cannot_be_blocked_yet_is_tried_again(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """If only the block fails, the group is left again: the next attempt joins and blocks, and does not stumble."""
    wanted, other = own_address(wires.talkers["a"], 4), second_source(wires, 4)
    with Listener(4) as receiver:
        receiver.block_source(GROUP[4], other)
        change, refused = receiver._sockets.change_source, []

        def refuse_once(join: Join, operation: Operation, count: int) -> None:
            if not refused:
                refused.append(join)
                raise MulticastOSError(errno.ENOBUFS, operation, "for now", "", "")
            change(join, operation, count)

        monkeypatch.setattr(receiver._sockets, "change_source", refuse_once)
        delete_and_recreate(wires.listener)
        receiver.wait_for_event("joined")
        assert [event.kind for event in receiver.events] == ["lost", "failed", "joined"]
        for source in (other, wanted):
            send(wires, GROUP[4], source.encode(), source=source)
        assert receiver.recv() == wanted.encode()


@both_versions
def test_changes_at_run_time_are_restored(wires: TwoWires, version: int) -> None:
    """What was joined and left at run time, before and while the interface was away, is what holds once it is back."""
    first, second, third = (GROUP[version][:-1] + digit for digit in "789")
    with Listener(version, first) as receiver:
        receiver.join_group(second, iface="eth0")
        receiver.join_group(third)
        wires.listener.remove_interface("eth0")
        receiver.wait_for_event("lost")
        receiver.leave_group(third)
        receiver.block_source(second, own_address(wires.talkers["a"], version))
        other = second_source(wires, version)
        wires.listener.recreate_interface("eth0")
        receiver.wait_for_event("joined")
        send(wires, third, b"left")
        send(wires, second, b"blocked")
        send(wires, second, b"second", source=other)
        send(wires, first, b"first")
        assert {receiver.receive().data for _ in range(2)} == {b"first", b"second"}
        assert receiver.drain() == []
        assert {membership.group for membership in receiver.memberships} == {first, second}


@both_versions
def test_a_membership_at_run_time_on_another_interface_is_restored(wires: TwoWires, version: int) -> None:
    """A group that was joined at run time on an interface that the receiver did not start with is restored on it."""
    group = GROUP[version][:-1] + "7"
    with Listener(version) as receiver:
        receiver.join_group(group, iface="eth1")
        wires.listener.remove_interface("eth1")
        receiver.wait_for_event("lost", "eth1")
        wires.listener.recreate_interface("eth1")
        receiver.wait_for_event("joined", "eth1")
        send(wires, group, b"on eth1", talker="b")
        heard = receiver.receive()
        assert (heard.data, heard.interface_name) == (b"on eth1", "eth1")


@both_versions
def test_leaving_on_an_interface_that_is_away(wires: TwoWires, version: int) -> None:
    """A membership can be left, by the name of the interface, while that is away; it is not restored then."""
    with Listener(version, iface=None, ifaces=["eth0", "eth1"]) as receiver:
        wires.listener.remove_interface("eth0")
        receiver.wait_for_event("lost")
        receiver.leave_group(GROUP[version], iface="eth0")
        assert [each.interface and each.interface.machine_name for each in receiver.memberships] == ["eth1"]


@both_versions
def test_what_had_arrived_is_not_lost(wires: TwoWires, version: int) -> None:
    """Datagrams that wait in the socket when the interface goes are handed out all the same, in their order."""
    with Listener(version) as receiver, member_on(wires.listener.interface("eth0"), GROUP[version], PORT) as judge:
        for number in range(10):
            send(wires, GROUP[version], b"%d" % number)
        until([judge], 10)
        delete_and_recreate(wires.listener)
        receiver.wait_for_event("joined")
        send(wires, GROUP[version], b"10")
        assert [receiver.recv() for _ in range(11)] == [b"%d" % number for number in range(11)]


@both_versions
def test_what_had_arrived_keeps_its_order(wires: TwoWires, version: int) -> None:
    """What the receiver had taken from the socket before the interface went comes before what the socket still held."""
    with Listener(version) as receiver, member_on(wires.listener.interface("eth0"), GROUP[version], PORT) as judge:
        received = []
        for first in (0, 5):
            for number in range(first, first + 5):
                send(wires, GROUP[version], b"%d" % number)
            until([judge], 5)
            if not received:
                # An iteration takes all that is there, and hands out one after the other.
                received.append(next(iter(receiver)).data)
        delete_and_recreate(wires.listener)
        receiver.wait_for_event("joined")
        received += [receiver.recv() for _ in range(9)]
        assert received == [b"%d" % number for number in range(10)]


@both_versions
def test_the_counts_go_on(wires: TwoWires, version: int) -> None:
    """Received and dropped by the kernel together are what was sent, although healing replaced the socket."""
    sent = taken = 0
    with Listener(version, receive_buffer=4096) as receiver:
        for _ in range(3):
            with member_on(wires.listener.interface("eth0"), GROUP[version], PORT) as judge:
                for _ in range(50):
                    send(wires, GROUP[version], bytes(1000))
                sent += len(until([judge], 50))
            assert (receiver.stats().kernel_drops or 0) > 0
            receiver.events.clear()
            delete_and_recreate(wires.listener)
            receiver.wait_for_event("joined")
        taken += len(receiver.drain())
        stats = receiver.stats()
        assert (stats.datagrams, stats.datagrams + (stats.kernel_drops or 0)) == (taken, sent)


# What must not go wrong on the way


@contextlib.contextmanager
def events_held_back(host: Host) -> Iterator[None]:
    """What happens to interfaces inside the block becomes known all at once, after it: the watching thread is busy."""
    busy, free = threading.Event(), threading.Event()
    host.add_interface("decoy", ipv4="10.99.0.1/24")

    def keep_busy(event: HealingEvent) -> None:
        busy.set()
        free.wait(PATIENCE)

    with Listener(4, iface="decoy", on_event=keep_busy):
        try:
            host.remove_interface("decoy")
            assert busy.wait(PATIENCE)
            yield
        finally:
            free.set()


@both_versions
def test_a_callback_that_fails_spoils_nothing(wires: TwoWires, version: int, caplog: pytest.LogCaptureFixture) -> None:
    """Two interfaces are replaced at once by others of their indexes: both are restored, though the callback raises."""
    told: list[str] = []

    def fail(event: HealingEvent) -> None:
        told.append(f"{event.kind} {event.interface}")
        raise RuntimeError("a bug of the user")

    with Listener(version, iface=None, ifaces=["eth0", "eth1"], on_event=fail) as receiver:
        with events_held_back(wires.listener):
            for name in ("eth0", "eth1"):
                wires.listener.remove_interface(name)
                wires.listener.recreate_interface(name, same_index=True)
        wait_until(lambda: {"joined eth0", "joined eth1"} <= set(told), f"both are restored: {told}")
        for talker in "ab":
            send(wires, GROUP[version], talker.encode(), talker=talker)
        assert {receiver.recv(), receiver.recv()} == {b"a", b"b"}
    assert "a bug of the user" in caplog.text


@both_versions
@pytest.mark.parametrize("fault", [delete_and_recreate_with_its_index, dip_of_the_mtu])
def test_receivers_of_one_group_do_not_undo_each_other(
    wires: TwoWires, version: int, fault: Callable[[Host], None]
) -> None:
    """Two receivers of a group are both restored; when one of them is closed, the other still hears.

    Closing a socket whose membership is stale takes one from the new interface of the same index: Linux looks it up so.
    """
    first, second = Listener(version).open(), Listener(version).open()
    with contextlib.closing(second):
        with contextlib.closing(first):
            with events_held_back(wires.listener):
                fault(wires.listener)
            wait_until_told(wires.listener)
        send(wires, GROUP[version], b"still heard")
        assert second.recv() == b"still heard"


@both_versions
def test_a_copy_of_the_dead_socket_takes_nothing_away(wires: TwoWires, version: int) -> None:
    """A copy of the replaced socket, as a program that is being started has it for a moment, does no harm."""
    with Listener(version) as receiver:
        copy = os.dup(receiver.filenos()[0])
        with events_held_back(wires.listener):
            delete_and_recreate_with_its_index(wires.listener)
        receiver.wait_for_event("joined")
        os.close(copy)
        send(wires, GROUP[version], b"still heard")
        assert receiver.recv() == b"still heard"


def wait_until_told(host: Host) -> None:
    """Return when the watching thread has told everybody of all that has happened up to now."""
    host.add_interface("last", ipv4="10.98.0.1/24")
    with Listener(4, iface="last") as told_last:
        host.remove_interface("last")
        told_last.wait_for_event("lost", "last")


@both_versions
def test_closing_it_in_the_callback(wires: TwoWires, version: int) -> None:
    """A callback may close its receiver when it hears of a loss: nothing is joined or left open after that."""
    closed = threading.Event()

    def close(event: HealingEvent) -> None:
        receiver.close()
        closed.set()

    receiver = Listener(version, on_event=close).open()
    with events_held_back(wires.listener):
        delete_and_recreate_with_its_index(wires.listener)
    assert closed.wait(PATIENCE)
    wait_until_told(wires.listener)
    assert GROUP[version] not in wires.listener.command("ip", "maddr")
    assert receiver._sockets.filenos() == []


@both_versions
def test_another_thread_may_use_it_while_the_callback_runs(wires: TwoWires, version: int) -> None:
    """A callback may wait for a thread that changes memberships: the two don't wait for each other."""
    called, changed, outcome = threading.Event(), threading.Event(), []

    def wait_for_the_other(event: HealingEvent) -> None:
        called.set()
        outcome.append(changed.wait(3))

    with Listener(version, iface=None, ifaces=["eth0", "eth1"], on_event=wait_for_the_other) as receiver:
        wires.listener.remove_interface("eth0")
        assert called.wait(PATIENCE)
        receiver.join_group(GROUP[version][:-1] + "9", iface="eth1")
        changed.set()
        wait_until(lambda: bool(outcome), "the callback is over")
    assert outcome == [True]


@both_versions
def test_an_interface_with_the_index_of_a_lost_one_is_not_mistaken_for_it(wires: TwoWires, version: int) -> None:
    """Another interface that gets the index of a deleted one is not joined in its place; the one with the name is."""
    host = wires.listener
    index = host.interface("eth0").index()
    everywhere = Listener(version, GROUP[version][:-1] + "9", iface=None)
    with everywhere, Listener(version) as receiver:
        host.remove_interface("eth0")
        receiver.wait_for_event("lost")
        host.ip(
            f"link add other index {index} type veth peer name end",
            "addr add 10.5.0.1/24 dev other",
            "addr add fd05::1/64 dev other nodad",
            "link set other up",
        )
        everywhere.wait_for_event("joined", "other")
        assert GROUP[version] not in host.command("ip", "maddr", "show", "dev", "other")
        assert [event.kind for event in receiver.events] == ["lost"]
        host.recreate_interface("eth0")
        receiver.wait_for_event("joined")
        send(wires, GROUP[version], b"on eth0")
        assert receiver.receive().interface_name == "eth0"


def test_what_a_dying_socket_held_wakes_who_waits(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thread about to wait, while healing takes over a datagram, gets that at once, not after its timeout."""
    about_to_wait, go_on, received = threading.Event(), threading.Event(), []
    with Listener(6) as receiver, member_on(wires.listener.interface("eth0"), GROUP[6], PORT) as judge:
        wait = receiver._source.wait

        def wait_late(*arguments: Any) -> bool:
            about_to_wait.set()
            go_on.wait(PATIENCE)
            return wait(*arguments)

        monkeypatch.setattr(receiver._source, "wait", wait_late)
        thread = threading.Thread(target=lambda: received.append((receiver.recv(), monotonic())))
        thread.start()
        assert about_to_wait.wait(PATIENCE)
        send(wires, GROUP[6], b"taken over")
        until([judge], 1)
        wires.listener.remove_interface("eth0")
        receiver.wait_for_event("lost")
        asked = monotonic()
        go_on.set()
        thread.join()
    ((data, at),) = received
    assert data == b"taken over"
    assert at - asked < 1


@pytest.mark.slow
def test_all_interfaces_come_and_go(wires: TwoWires) -> None:
    """A receiver on all interfaces survives the loss of the last one, and hears those that come back, by any name."""
    with Listener(4, iface=None) as receiver:
        for name in ("eth0", "eth1"):
            wires.listener.remove_interface(name)
            receiver.wait_for_event("lost", name)
        with pytest.raises(TimeoutError):
            receiver.receive(timeout=0)
        wires.listener.recreate_interface("eth1")
        receiver.wait_for_event("joined", "eth1")
        send(wires, GROUP[4], b"b is back", talker="b")
        assert receiver.recv() == b"b is back"
        assert socket.if_indextoname(receiver.network_interfaces[-1].index) == "eth1"
