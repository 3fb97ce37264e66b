"""The thread that watches the interfaces: whom it calls, when it sleeps, and how it reads the kernel's messages."""

import contextlib
import errno
import itertools
import select
import selectors
import socket
import struct
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from time import monotonic, sleep
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linux.plain_sockets import descriptors_left, open_descriptors
from multicast_expert import IfaceInfo, MulticastExpertError, MulticastOSError
from multicast_expert.system import changes as reported
from multicast_expert.system import kernel
from multicast_expert.system import watch as watcher
from multicast_expert.system.changes import Changes, NetlinkEvents, PolledEvents, parse_link_events
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.testing import wait_until
from network.traffic import PATIENCE, TwoWires
from network.watching import TOO_MANY_FILES, Recorder, ScriptedEvents, end_watches

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])

NOWHERE = -1
"""Stands for a network namespace that no test is in."""


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> Iterator[ScriptedEvents]:
    """What the watch of NOWHERE is told; the watch ends with the test."""
    end_watches()  # one of an earlier test would run with what this one patches
    events = ScriptedEvents()
    monkeypatch.setattr(kernel.SYSTEM, "change_events", lambda: events)
    monkeypatch.setattr(watcher, "scan_interfaces", list)
    yield events
    end_watches()
    watcher._watchers.pop(NOWHERE, None)
    assert events.closed.is_set()


def test_changes_together() -> None:
    """Nothing of earlier ones is forgotten; of two names of an index the later one counts."""
    first = Changes(frozenset({7}), frozenset({3}), names={7: "usb0", 9: "old"})
    both = first.and_then(Changes(frozenset({9}), frozenset(), True, {9: "new"}))
    assert both == Changes(frozenset({7, 9}), frozenset({3}), True, {7: "usb0", 9: "new"})


def test_all_give_up_before_any_restores(script: ScriptedEvents) -> None:
    """Every subscriber is told what is gone before the first one is asked to restore."""
    notes: list[str] = []
    first, second = Recorder("first", notes), Recorder("second", notes)
    watcher.watch(first, NOWHERE)
    watcher.watch(second, NOWHERE)
    script.tell(Changes(frozenset({7})))
    wait_until(lambda: len(notes) == 4, "both are told")
    assert notes == ["first gives up", "second gives up", "first restores", "second restores"]
    assert first.deleted == second.deleted == [{7}]


def test_who_wants_to_be_called_again_is(script: ScriptedEvents) -> None:
    """A subscriber that could not restore everything is called again without any change, until it is content."""
    recorder = Recorder()
    recorder.again = True
    watcher.watch(recorder, NOWHERE)
    script.tell(Changes(frozenset({7})))
    wait_until(lambda: len(recorder.deleted) == 2, "it is called again")
    assert recorder.deleted == [{7}, set()]


def test_soon_is_told_at_once(script: ScriptedEvents) -> None:
    """With soon=True a subscriber is told although nothing changed; without, nobody is."""
    patient, hasty = Recorder(), Recorder()
    watcher.watch(patient, NOWHERE)
    watcher.watch(hasty, NOWHERE, soon=True)
    wait_until(lambda: hasty.deleted == [set()], "it is told")
    script.tell(Changes(frozenset({7})))
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
    script.tell(Changes())
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
    script.tell(Changes(frozenset({7})))
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
    script.tell(Changes(frozenset({7})))
    script.tell(Changes(frozenset({8})))
    wait_until(lambda: bool(recorder.deleted), "it is told after all")
    assert set().union(*recorder.deleted) == {7, 8}
    assert "Too many open files" in caplog.text


def test_a_source_that_breaks_is_replaced(script: ScriptedEvents, caplog: pytest.LogCaptureFixture) -> None:
    """An error of the netlink socket costs a new one, and everything counts as lost; the thread goes on."""
    watcher.watch(recorder := Recorder(), NOWHERE)
    watching = watcher._watchers[NOWHERE]
    fresh = ScriptedEvents()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel.SYSTEM, "change_events", lambda: fresh)
        patch.setattr(watcher, "scan_interfaces", lambda: [IfaceInfo("eth7", 7, None, (), ())])
        script.tell(OSError(errno.EIO, "broken"))
        wait_until(lambda: bool(recorder.deleted), "it is called")
        assert recorder.deleted[0] == {7}
        assert script.closed.is_set()
        fresh.tell(Changes(frozenset({8})))
        wait_until(lambda: {8} in recorder.deleted, "it is told by the new one")
    assert watching.thread.is_alive()
    assert caplog.text.count("Traceback") == 1


def test_no_odd_fact_ends_the_watch(
    script: ScriptedEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An exception of any kind in any phase is logged once for each kind, and everything is tried again."""
    looks = itertools.count()

    def odd_scan() -> list[IfaceInfo]:
        number = next(looks)
        if number < 6:
            raise UnicodeDecodeError("utf-8", b"\xff", 0, 1, "odd") if number % 2 else ValueError("odd")
        return []

    monkeypatch.setattr(watcher, "scan_interfaces", odd_scan)
    monkeypatch.setattr(watcher, "RETRY_INTERVAL", 0.01)
    watcher.watch(recorder := Recorder(), NOWHERE)
    script.tell(Changes(frozenset({7})))
    wait_until(lambda: bool(recorder.deleted), "it is told after all")
    assert recorder.deleted == [{7}]
    assert watcher._watchers[NOWHERE].thread.is_alive()
    assert caplog.text.count("Looking at the interfaces failed") == 2


def test_a_wait_that_fails_does_not_spin(
    script: ScriptedEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A program may close descriptors that it does not know; the watch then neither ends nor eats the processor."""
    turns: list[float] = []

    class Broken(selectors.SelectSelector):
        def select(self, timeout: float | None = None) -> Any:
            turns.append(monotonic())
            raise OSError(errno.EBADF, "Bad file descriptor")

    watcher.watch(recorder := Recorder(), NOWHERE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(watcher, "_Selector", Broken)
        patch.setattr(watcher, "RETRY_INTERVAL", 0.05)
        script.tell(Changes())
        wait_until(lambda: len(turns) >= 4, "it tries again")
        assert all(later - earlier > 0.04 for earlier, later in pairwise(turns))
    script.tell(Changes(frozenset({7})))
    wait_until(lambda: {7} in recorder.deleted, "it is told")
    assert caplog.text.count("The watch for interface changes failed") == 1


def test_what_was_not_given_up_is_owed(script: ScriptedEvents) -> None:
    """A subscriber that failed to give up something is told of it again."""

    class Fails(Recorder):
        def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
            super().give_up(changes, ifaces)
            if len(self.deleted) < 3:
                raise TOO_MANY_FILES

    watcher.watch(failing := Fails(), NOWHERE)
    script.tell(Changes(frozenset({7})))
    wait_until(lambda: len(failing.deleted) == 3, "it is called again")
    assert failing.deleted == [{7}, {7}, {7}]
    script.tell(Changes(frozenset({8})))
    wait_until(lambda: len(failing.deleted) == 4, "it is called again")
    assert failing.deleted[3] == {8}


# The thread sleeps


def waits_of(monkeypatch: pytest.MonkeyPatch) -> list[float | None]:
    """The timeouts that the watch waits with, from now on."""
    waits: list[float | None] = []
    usual = watcher._Selector

    class Counting(usual):  # type: ignore[valid-type, misc]  # it differs by system
        def select(self, timeout: float | None = None) -> Any:
            waits.append(timeout)
            return super().select(timeout)

    monkeypatch.setattr(watcher, "_Selector", Counting)
    return waits


def test_it_waits_without_a_timeout(script: ScriptedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """With nothing to do, the thread blocks until something is reported; it uses a timer only to call again."""
    waits = waits_of(monkeypatch)
    monkeypatch.setattr(watcher, "RETRY_INTERVAL", 0.03)
    watcher.watch(recorder := Recorder(), NOWHERE)
    wait_until(lambda: waits == [None], "it waits")
    recorder.again = True
    script.tell(Changes(frozenset({7})))
    wait_until(lambda: len(waits) == 3, "it was called twice and waits again")
    assert waits == [None, 0.03, None]
    assert recorder.deleted == [{7}, set()]


def test_a_look_at_the_clock_tells_the_end(script: ScriptedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """One timer runs after the last subscriber has gone, however many come and go meanwhile; then the thread ends."""
    waits = waits_of(monkeypatch)
    monkeypatch.setattr(watcher, "LINGER", 0.3)
    recorder = Recorder()
    watcher.watch(recorder, NOWHERE)
    wait_until(lambda: waits == [None], "it waits")
    thread = watcher._watchers[NOWHERE].thread
    for _ in range(100):
        watcher.unwatch(recorder, NOWHERE)
        watcher.watch(recorder, NOWHERE)
    watcher.unwatch(recorder, NOWHERE)
    # It may look up again where one rang while it looked at the clock.
    assert len(waits) <= 3, waits
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert len(waits) <= 5, waits


# Reports


class Reports(Recorder):
    """A subscriber with a report that may block."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = threading.Event()
        self.let_go.set()
        self.threads: list[threading.Thread] = []

    def report(self) -> None:
        """Note in which thread."""
        self.threads.append(threading.current_thread())
        self.let_go.wait(PATIENCE)


def test_a_report_that_blocks_delays_nobody(script: ScriptedEvents) -> None:
    """While one `report` blocks, all are restored as ever; afterwards the others are reported too."""
    slow, other, plain = Reports(), Reports(), Recorder()
    slow.let_go.clear()
    for subscriber in (slow, other, plain):
        watcher.watch(subscriber, NOWHERE)
    for index in range(5):
        script.tell(Changes(frozenset({index})))
        wait_until(lambda index=index: all({index} in each.deleted for each in (slow, other, plain)), "all are told")
    wait_until(lambda: len(slow.threads) == 1, "it reports")
    slow.let_go.set()
    wait_until(lambda: len(other.threads) > 0, "so does the other")
    watching = watcher._watchers[NOWHERE].thread
    reporting = {*slow.threads, *other.threads}
    assert len(reporting) == 1
    assert watching not in reporting
    assert all(thread.daemon for thread in reporting)


def test_the_thread_of_reports_ends(script: ScriptedEvents, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends when it has been idle; the next report starts another, and a report that fails harms none."""
    monkeypatch.setattr(watcher, "LINGER", 0.05)
    watcher.watch(subscriber := Reports(), NOWHERE)
    script.tell(Changes())
    wait_until(lambda: len(subscriber.threads) == 1, "it reports")
    subscriber.threads[0].join(PATIENCE)
    assert not subscriber.threads[0].is_alive()
    script.tell(Changes())
    wait_until(lambda: len(subscriber.threads) == 2, "it reports again")
    assert subscriber.threads[1] is not subscriber.threads[0]


def test_a_report_that_exits(script: ScriptedEvents) -> None:
    """`sys.exit` in the code of the user ends that report only."""

    class Exiting(Reports):
        def report(self) -> None:
            super().report()
            sys.exit(1)

    watcher.watch(subscriber := Exiting(), NOWHERE)
    for count in (1, 2):
        script.tell(Changes())
        wait_until(lambda count=count: len(subscriber.threads) == count, "it reports")


# No thread to be had


@pytest.mark.parametrize(
    "words",
    [
        "can't start new thread",
        "can't create new thread at interpreter shutdown",
        "thread is not supported for isolated subinterpreters",
    ],
)
def test_no_thread(script: ScriptedEvents, monkeypatch: pytest.MonkeyPatch, words: str) -> None:
    """It is explained, nothing is left open, and the next attempt works."""
    with monkeypatch.context() as patch:

        def start(self: threading.Thread) -> None:
            raise RuntimeError(words)

        patch.setattr(threading.Thread, "start", start)
        before = open_descriptors(watches=True)
        with pytest.raises(MulticastExpertError) as caught:
            watcher.watch(Recorder(), NOWHERE)
        assert script.closed.is_set()
        assert open_descriptors(watches=True) == before - 2, "those of the script were open before"
    if "start" not in words:
        assert not isinstance(caught.value, MulticastOSError)
        assert words in str(caught.value)
        assert "heal=False" in str(caught.value)
    else:
        assert isinstance(caught.value, MulticastOSError)
        assert (caught.value.errno, caught.value.step) == (errno.EAGAIN, "watch")
        assert "limit of threads or processes" in caught.value.reason
        assert "ulimit -u N" in caught.value.remedy
    assert NOWHERE not in watcher._watchers


def test_no_thread_for_reports(
    script: ScriptedEvents, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Memberships are restored all the same, and what happened is reported once there is a thread."""
    monkeypatch.setattr(watcher, "RETRY_INTERVAL", 0.02)
    watcher.watch(subscriber := Reports(), NOWHERE)
    with monkeypatch.context() as patch:

        def start(self: threading.Thread) -> None:
            raise RuntimeError("can't start new thread")

        patch.setattr(threading.Thread, "start", start)
        script.tell(Changes(frozenset({7})))
        wait_until(lambda: len(subscriber.deleted) > 3, "it is restored, again and again")
        assert subscriber.threads == []
    wait_until(lambda: len(subscriber.threads) > 0, "it reports after all")
    assert caplog.text.count("Reporting what happened to memberships failed") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="counts descriptors in /proc")
def test_no_descriptor() -> None:
    """With too few descriptors for a watch, that is explained and nothing is left open."""
    before = open_descriptors(watches=True)
    for spare in range(3):
        with descriptors_left(spare):
            with pytest.raises(MulticastOSError, match="Cannot watch for interface changes") as caught:
                watcher.watch(Recorder(), NOWHERE)
        assert open_descriptors(watches=True) == before
        assert caught.value.errno == errno.EMFILE
        assert caught.value.step == "watch"
        assert "ulimit -n" in caught.value.remedy


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
        changes = changes.and_then(events.take() or Changes())
        sleep(0.01)
    return changes


def test_what_the_kernel_says(wires: TwoWires) -> None:
    """A deletion, with the last name, and an MTU below 1280; going down, renaming and leaving a bridge are neither."""
    host = wires.listener
    with contextlib.closing(NetlinkEvents()) as events:
        eth0, eth1 = (host.interface(name).index() for name in ("eth0", "eth1"))
        host.set_link("eth0", up=False)
        host.rename_interface("eth0", "uplink")
        host.ip("link add bridge type bridge", "link set uplink master bridge", "link set uplink nomaster")
        host.set_mtu("uplink", 1280)
        bridge = socket.if_nametoindex("bridge")
        host.ip("link del bridge")
        assert changes_until(events, bridge) == Changes(frozenset({bridge}), names={bridge: "bridge"})
        host.set_mtu("uplink", 1279)
        host.rename_interface("eth1", "downlink")
        host.remove_interface("downlink")
        assert changes_until(events, eth1) == Changes(frozenset({eth1}), frozenset({eth0}), names={eth1: "downlink"})


@both_versions
def test_an_address_wakes(wires: TwoWires, version: int) -> None:
    """A new address is a change, though the link stays as it is: receivers on all interfaces wait for it."""
    host = wires.listener
    with contextlib.closing(NetlinkEvents()) as events:
        events.take()
        host.ip({4: "addr add 10.9.0.1/24 dev eth0", 6: "addr add fd09::1/64 dev eth0 nodad"}[version])
        assert select.select([events], [], [], PATIENCE)[0] == [events]
        assert events.take() == Changes()


def test_polling_sees_the_same(wires: TwoWires) -> None:
    """Where nothing wakes us, a look at the interfaces tells what was deleted and what has too small an MTU."""
    host = wires.listener
    with contextlib.closing(PolledEvents(scan_interfaces)) as events:
        eth0, eth1 = (host.interface(name).index() for name in ("eth0", "eth1"))
        host.set_mtu("eth0", 1279)
        host.remove_interface("eth1")
        assert changes_until(events, eth1) == Changes(frozenset({eth1}), frozenset({eth0}))


def test_polling_looks_no_more_often_than_it_says(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between two looks POLL_INTERVAL passes, however often it is asked: a look at many interfaces costs much."""
    looks: list[float] = []
    monkeypatch.setattr(reported, "POLL_INTERVAL", 0.1)
    events = PolledEvents(lambda: [looks.append(monotonic()), []][1])  # type: ignore[func-returns-value]
    while len(looks) < 4:
        events.take()
        sleep(0.02)
    assert all(later - earlier > 0.09 for earlier, later in pairwise(looks))
