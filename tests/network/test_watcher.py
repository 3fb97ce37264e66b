"""The thread that watches the interfaces: whom it tells, and what it makes of what the kernel says."""

import contextlib
import errno
import queue
import socket
import struct
import threading
from collections.abc import Iterator
from itertools import pairwise
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import IfaceInfo
from multicast_expert.system import watch as watcher
from multicast_expert.system.watch import Changes, NetlinkEvents, PolledEvents, parse_link_events
from multicast_expert.testing import wait_until
from network.traffic import PATIENCE, TwoWires

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])

NOWHERE = -1
"""Stands for a network namespace that no test is in."""


class ScriptedEvents:
    """Changes as a test tells them."""

    def __init__(self) -> None:
        self.changes: queue.Queue[Changes | Exception] = queue.Queue()
        self.closed = threading.Event()

    def wait(self, timeout: float) -> Changes | None:
        """Return the next of the script."""
        try:
            following = self.changes.get(timeout=min(timeout, 0.01))
        except queue.Empty:
            return None
        if isinstance(following, Exception):
            raise following
        return following

    def close(self) -> None:
        """Note it."""
        self.closed.set()


class Recorder:
    """A subscriber that notes what it is told, in a list that several may share."""

    def __init__(self, name: str = "", notes: list[str] | None = None) -> None:
        self.name = name
        self.notes = [] if notes is None else notes
        self.deleted: list[set[int]] = []
        self.again = False

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Note it."""
        self.notes.append(f"{self.name} gives up")
        self.deleted.append(set(changes.deleted))

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Note it."""
        self.notes.append(f"{self.name} restores")
        again, self.again = self.again, False
        return again


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEvents]:
    """What the watch of NOWHERE is told; the watch ends with the test."""
    events = ScriptedEvents()
    monkeypatch.setattr(watcher, "_events", lambda: events)
    monkeypatch.setattr(watcher, "scan_interfaces", list)
    yield events
    monkeypatch.setattr(watcher, "LINGER", 0.0)
    watching = watcher._watchers.pop(NOWHERE)
    watching.subscribers.clear()
    watching.thread.join(PATIENCE)
    assert events.closed.is_set()


def subscribers_of(namespace: int) -> list[Any]:
    """Who is told of changes there."""
    watching = watcher._watchers.get(namespace)
    return [] if watching is None else [reference() for reference in list(watching.subscribers.values())]


def test_all_give_up_before_any_restores(script: ScriptedEvents) -> None:
    """Every subscriber is told what is gone before the first one is asked to restore."""
    notes: list[str] = []
    first, second = Recorder("first", notes), Recorder("second", notes)
    watcher.watch(first, NOWHERE)
    watcher.watch(second, NOWHERE)
    script.changes.put(Changes(frozenset({7})))
    wait_until(lambda: len(notes) == 4, "both are told")
    assert notes == ["first gives up", "second gives up", "first restores", "second restores"]
    assert first.deleted == second.deleted == [{7}]


def test_who_wants_to_be_called_again_is(script: ScriptedEvents) -> None:
    """A subscriber that could not restore everything is called again without any change, until it is content."""
    recorder = Recorder()
    recorder.again = True
    watcher.watch(recorder, NOWHERE)
    script.changes.put(Changes(frozenset({7})))
    wait_until(lambda: len(recorder.deleted) == 2, "it is called again")
    assert recorder.deleted == [{7}, set()]


def test_soon_is_told_at_once(script: ScriptedEvents) -> None:
    """With soon=True a subscriber is told although nothing changed; without, nobody is."""
    patient, hasty = Recorder(), Recorder()
    watcher.watch(patient, NOWHERE)
    watcher.watch(hasty, NOWHERE, soon=True)
    wait_until(lambda: hasty.deleted == [set()], "it is told")
    script.changes.put(Changes(frozenset({7})))
    wait_until(lambda: len(hasty.deleted) == 2, "both are told")
    assert patient.deleted == hasty.deleted == [set(), {7}], "whoever asks, all are told"


def test_a_wish_during_a_call_is_not_forgotten(script: ScriptedEvents) -> None:
    """Who subscribes with soon=True while others are being told is told, too."""
    late = Recorder()

    class Opens(Recorder):
        def restore(self, ifaces: list[IfaceInfo]) -> bool:
            if not self.notes[:-1]:
                watcher.watch(late, NOWHERE, soon=True)
            return super().restore(ifaces)

    opens = Opens()
    watcher.watch(opens, NOWHERE)
    script.changes.put(Changes())
    wait_until(lambda: late.deleted == [set()], "the late one is told")


def test_a_subscriber_that_fails_harms_nobody(script: ScriptedEvents, caplog: pytest.LogCaptureFixture) -> None:
    """An exception in one subscriber is logged, the others are told, and it is called again."""

    class Fails(Recorder):
        def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
            super().give_up(changes, ifaces)
            if len(self.deleted) == 1:
                raise RuntimeError("a bug")

    failing, other = Fails(), Recorder()
    for subscriber in (failing, other):
        watcher.watch(subscriber, NOWHERE)
    script.changes.put(Changes(frozenset({7})))
    wait_until(lambda: len(failing.deleted) == 2, "it is called again")
    assert other.deleted[0] == {7}
    assert "a bug" in caplog.text


def test_what_changed_is_not_forgotten_when_looking_fails(
    script: ScriptedEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """While the interfaces cannot be listed (too many open files), changes are kept, and told once they can."""
    refusals = [OSError(errno.EMFILE, "Too many open files")] * 2

    def scan() -> list[IfaceInfo]:
        if refusals:
            raise refusals.pop()
        return []

    monkeypatch.setattr(watcher, "scan_interfaces", scan)
    recorder = Recorder()
    watcher.watch(recorder, NOWHERE)
    script.changes.put(Changes(frozenset({7})))
    script.changes.put(Changes(frozenset({8})))
    wait_until(lambda: bool(recorder.deleted), "it is told after all")
    assert set().union(*recorder.deleted) == {7, 8}
    assert "Too many open files" in caplog.text


def test_the_next_receiver_gets_a_watch_that_works(
    script: ScriptedEvents, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the watch itself breaks, that is logged, and the next subscriber starts another."""
    watcher.watch(recorder := Recorder(), NOWHERE)
    broken = watcher._watchers[NOWHERE]
    script.changes.put(OSError(errno.EIO, "broken"))
    broken.thread.join(PATIENCE)
    assert not broken.thread.is_alive()
    assert script.closed.is_set()
    assert "no longer restored" in caplog.text
    script.closed.clear()
    watcher.watch(later := Recorder(), NOWHERE)
    script.changes.put(Changes(frozenset({7})))
    wait_until(lambda: later.deleted == [{7}], "the later one is told")
    assert recorder.deleted == []


# The kernel's messages


@given(st.binary(max_size=300))
def test_no_message_is_too_strange(messages: bytes) -> None:
    """Whatever bytes come from the netlink socket, parsing them ends, and without an exception."""
    assert isinstance(parse_link_events(messages), Changes)


@st.composite
def link_messages(draw: st.DrawFn) -> bytes:
    """Rtnetlink messages as linux/netlink.h has them, with lengths that may lie and ends that may be missing."""
    message = b""
    for _ in range(draw(st.integers(0, 4))):
        attributes = b""
        for _ in range(draw(st.integers(0, 3))):
            value = draw(st.binary(max_size=9))
            length = draw(st.sampled_from([len(value) + 4, 0, 3, 4, 0xFFFF]))
            kind = draw(st.sampled_from([4, 3, 0x8004]))
            attributes += struct.pack("=HH", length, kind) + value + bytes(-len(value) % 4)
        body = bytes([draw(st.sampled_from([0, 7, 10]))]) + draw(st.binary(min_size=15, max_size=15)) + attributes
        length = draw(st.sampled_from([16 + len(body), 0, 15, 16, 31, 32, 0xFFFFFFFF]))
        kind = draw(st.sampled_from([16, 17, 20, 21, 3]))
        message += struct.pack("=IH10x", length, kind) + body
    return message[: draw(st.integers(0, len(message)))]


@given(link_messages())
def test_no_link_message_is_too_strange(messages: bytes) -> None:
    """Messages that look real but lie about their lengths are survived, too."""
    assert isinstance(parse_link_events(messages), Changes)


def changes_until(events: NetlinkEvents | PolledEvents, deleted: int) -> Changes:
    """All changes up to that of this deletion."""
    changes = Changes()
    deadline = monotonic() + PATIENCE
    while deleted not in changes.deleted:
        assert monotonic() < deadline
        changes = changes.and_then(events.wait(0.1) or Changes())
    return changes


def test_what_the_kernel_says(wires: TwoWires) -> None:
    """A deletion and an MTU below 1280 are told by index; going down, renaming and leaving a bridge are neither."""
    host = wires.listener
    with contextlib.closing(NetlinkEvents()) as events:
        eth0, eth1 = (host.interface(name).index() for name in ("eth0", "eth1"))
        host.set_link("eth0", up=False)
        host.rename_interface("eth0", "uplink")
        host.ip("link add bridge type bridge", "link set uplink master bridge", "link set uplink nomaster")
        host.set_mtu("uplink", 1280)
        bridge = socket.if_nametoindex("bridge")
        host.ip("link del bridge")
        assert changes_until(events, bridge) == Changes(frozenset({bridge}))
        host.set_mtu("uplink", 1279)
        host.remove_interface("eth1")
        assert changes_until(events, eth1) == Changes(frozenset({eth1}), frozenset({eth0}))


def test_polling_sees_the_same(wires: TwoWires) -> None:
    """Where nothing wakes us, a look at the interfaces tells what was deleted and what has too small an MTU."""
    host = wires.listener
    with contextlib.closing(PolledEvents()) as events:
        eth0, eth1 = (host.interface(name).index() for name in ("eth0", "eth1"))
        host.set_mtu("eth0", 1279)
        host.remove_interface("eth1")
        assert changes_until(events, eth1) == Changes(frozenset({eth1}), frozenset({eth0}))


def test_polling_looks_no_more_often_than_it_says(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks POLL_INTERVAL passes, however often it is asked: a look at many interfaces costs much."""
    looks: list[float] = []
    scan = watcher.scan_interfaces
    monkeypatch.setattr(watcher, "scan_interfaces", lambda: [looks.append(monotonic()), scan()][1])
    monkeypatch.setattr(watcher, "POLL_INTERVAL", 0.1)
    events = PolledEvents()
    while len(looks) < 4:
        events.wait(0.02)
    assert all(later - earlier > 0.09 for earlier, later in pairwise(looks))
