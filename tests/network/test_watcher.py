"""The thread that watches the interfaces: whom it tells, what it understands, and that it leaves nothing behind."""

import contextlib
import errno
import gc
import queue
import socket
import struct
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from linux.plain_sockets import FAMILY, open_descriptors, sender_on
from multicast_expert import IfaceInfo, McastRxSocket, watcher
from multicast_expert.testing import Host, wait_until
from multicast_expert.watcher import Changes, NetlinkEvents, PolledEvents, parse_link_events
from network.traffic import GROUP, PATIENCE, PORT, TwoWires, two_wires

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


@pytest.fixture
def wires() -> Iterator[TwoWires]:
    """A listener with eth0 and eth1, and the test runs in it."""
    with two_wires() as made, made.listener.entered():
        yield made


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


# Healing by other ways than netlink messages


@contextlib.contextmanager
def hearing(wires: TwoWires, version: int, **options: Any) -> Iterator[McastRxSocket]:
    """A receiver on eth0, open inside the block; after that it must hear again, within a second."""
    told: list[str] = []
    options = {"iface": "eth0", "on_event": lambda event: told.append(f"{event.kind} {event.interface}"), **options}
    with McastRxSocket(FAMILY[version], [GROUP[version]], PORT, timeout=PATIENCE, **options) as receiver:
        yield receiver
        usable = monotonic()
        wait_until(lambda: "joined eth0" in told, f"it has joined again: {told}")
        assert monotonic() - usable < 1
        with sender_on(wires.talkers["a"], version) as sender:
            sender.sendto(b"heard again", (GROUP[version], PORT))
        assert receiver.recv() == b"heard again"


@both_versions
def test_polling_heals(wires: TwoWires, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """By polling alone, an interface that came back with another index is heard again within a second."""
    monkeypatch.setattr(watcher, "_events", PolledEvents)
    with hearing(wires, version):
        wires.listener.remove_interface("eth0")
        wires.listener.recreate_interface("eth0")


def test_polling_hears_new_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """By polling alone, a receiver on all interfaces hears one that appeared, within a second."""
    monkeypatch.setattr(watcher, "_events", PolledEvents)
    with two_wires(("eth1",)) as wires, wires.listener.entered():
        with hearing(wires, 4, iface=None):
            wires.plug("eth0")


def test_where_netlink_is_forbidden_it_polls(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sandbox that allows no netlink socket, a receiver opens all the same, and heals."""

    class Forbidden(NetlinkEvents):
        def __init__(self) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(watcher, "NetlinkEvents", Forbidden)
    with hearing(wires, 4):
        wires.listener.remove_interface("eth0")
        wires.listener.recreate_interface("eth0")


class Overflow:
    """In place of a netlink socket: its queue has overflowed once, and what was in it is lost."""

    def __init__(self, replaced: socket.socket) -> None:
        self._replaced = replaced
        self._overflowed = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._replaced, name)

    def recv(self, size: int) -> bytes:
        """Throw away what is there, and say that it overflowed."""
        received = self._replaced.recv(size)
        if self._overflowed:
            return received
        self._overflowed = True
        self._replaced.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            while True:
                self._replaced.recv(size)
        raise OSError(errno.ENOBUFS, "No buffer space available")


@both_versions
def test_lost_messages_are_made_up_for(wires: TwoWires, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the queue of messages overflows, everything is joined anew, because anything may have happened."""
    made: list[NetlinkEvents] = []

    def overflowing() -> NetlinkEvents:
        events = NetlinkEvents()
        events._socket = Overflow(events._socket)  # type: ignore[assignment]  # it does what a socket does
        made.append(events)
        return events

    monkeypatch.setattr(watcher, "_events", overflowing)
    with hearing(wires, version):
        wires.listener.ip("link set eth1 down")
        assert len(made) == 1


@both_versions
def test_a_real_overflow(wires: TwoWires, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue that can hold next to nothing overflows while eth0 is replaced by one of its index; it is heard again."""

    def tight() -> NetlinkEvents:
        events = NetlinkEvents()
        events._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        return events

    monkeypatch.setattr(watcher, "_events", tight)
    # What the messages say counts for nothing here: only the overflow can tell that something is lost.
    monkeypatch.setattr(watcher, "parse_link_events", lambda messages: Changes())
    busy, free = threading.Event(), threading.Event()

    class Busy(Recorder):
        def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
            busy.set()
            free.wait(PATIENCE)

    with hearing(wires, version) as receiver:
        blocker = Busy()
        assert receiver._namespace is not None
        watcher.watch(blocker, receiver._namespace, soon=True)
        assert busy.wait(PATIENCE)
        wires.listener.remove_interface("eth0")
        wires.listener.recreate_interface("eth0", same_index=True)
        watcher.unwatch(blocker, receiver._namespace)
        free.set()


@both_versions
def test_a_program_with_many_descriptors(wires: TwoWires, version: int) -> None:
    """With more than 1,024 descriptors open, which select(2) cannot handle, healing works as ever."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 4096)), hard))
    with contextlib.ExitStack() as opened:
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        for _ in range(1100):
            opened.enter_context(Path("/dev/null").open("rb"))
        with hearing(wires, version):
            wires.listener.remove_interface("eth0")
            wires.listener.recreate_interface("eth0")


# What it leaves behind


def receiver_on(host: Host, version: int = 4) -> McastRxSocket:
    """A receiver on eth0 of the host, not open yet."""
    with host.entered():
        return McastRxSocket(FAMILY[version], [GROUP[version]], PORT, "eth0")


def watching_threads() -> set[threading.Thread]:
    """The threads that watch interfaces now, in any namespace."""
    return {thread for thread in threading.enumerate() if thread.name == "multicast_expert interfaces"}


@pytest.fixture
def nothing_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """The watches of earlier tests linger no longer."""
    with monkeypatch.context() as hurried:
        hurried.setattr(watcher, "LINGER", -1.0)
        for thread in watching_threads():
            thread.join(PATIENCE)
    assert not watching_threads()


@pytest.mark.usefixtures("nothing_watched")
def test_the_thread_ends_after_the_last_receiver(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """One thread serves all receivers of a namespace; a while after the last was closed, all is gone."""
    descriptors = open_descriptors()
    receivers = [receiver_on(wires.listener, version).open() for version in (4, 6) * 10]
    (thread,) = watching_threads()
    for receiver in receivers:
        receiver.close()
    assert thread.is_alive(), "it lingers: the next receiver may be near"
    again = receiver_on(wires.listener).open()
    assert watching_threads() == {thread}
    monkeypatch.setattr(watcher, "LINGER", 0.0)
    assert thread.is_alive()
    again.close()
    thread.join(PATIENCE)
    assert not thread.is_alive()
    assert open_descriptors() == descriptors
    with receiver_on(wires.listener):
        assert len(watching_threads()) == 1, "a later receiver starts another"


@pytest.mark.usefixtures("nothing_watched")
def test_opening_and_closing_leaks_nothing(wires: TwoWires) -> None:
    """Two hundred receivers one after the other leave no descriptor, no thread and no subscription behind."""
    receiver = receiver_on(wires.listener)
    with receiver:
        namespace = receiver._namespace
    threads, descriptors = watching_threads(), open_descriptors()
    for _ in range(100):
        for version in (4, 6):
            with receiver_on(wires.listener, version):
                pass
    assert open_descriptors() == descriptors
    assert watching_threads() == threads
    assert namespace is not None
    assert subscribers_of(namespace) == []


@pytest.mark.usefixtures("nothing_watched")
def test_a_forgotten_receiver_is_not_kept_alive(wires: TwoWires) -> None:
    """The watch holds receivers weakly: one that was forgotten is collected with a ResourceWarning, and closed."""
    with receiver_on(wires.listener):
        descriptors = open_descriptors()
        forgotten = receiver_on(wires.listener).open()
        namespace, reference = forgotten._namespace, weakref.ref(forgotten)
        with pytest.warns(ResourceWarning, match="unclosed <McastRxSocket"):
            forgotten = None
        gc.collect()
        assert reference() is None
        assert namespace is not None
        assert len(subscribers_of(namespace)) == 1
        assert open_descriptors() == descriptors


def run_program(host: Host, program: str) -> subprocess.CompletedProcess[str]:
    """Run a Python program on the host, with all warnings as errors."""
    return host.run(
        subprocess.run,
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


def test_a_program_ends_quietly(wires: TwoWires) -> None:
    """A program that closed its receivers ends without a word, although the watch still lingers, and without delay."""
    finished = run_program(
        wires.listener,
        """
        import socket, time, atexit
        from multicast_expert import McastRxSocket
        with McastRxSocket(socket.AF_INET, ["239.1.1.1"], 5000, "eth0"):
            pass
        ended = time.monotonic()
        atexit._run_exitfuncs()
        assert time.monotonic() - ended < 1
        """,
    )
    assert (finished.returncode, finished.stdout, finished.stderr) == (0, "", "")


def test_the_child_of_a_fork_has_a_watch_of_its_own(wires: TwoWires) -> None:
    """After a fork, even at a moment when the watch is being changed, the child opens receivers that are watched."""
    finished = run_program(
        wires.listener,
        """
        import os, signal, socket, threading, warnings
        from multicast_expert import McastRxSocket, watcher

        def receiver():
            return McastRxSocket(socket.AF_INET, ["239.1.1.1"], 5000, "eth0")

        with receiver():
            held, over = threading.Event(), threading.Event()
            def hold():
                with watcher._lock:
                    held.set()
                    over.wait(0.3)  # a fork waits for it
            thread = threading.Thread(target=hold)
            thread.start()
            held.wait()
            with warnings.catch_warnings(action="ignore"):  # the very warning that threads and fork don't mix
                child = os.fork()
            if child == 0:
                signal.alarm(5)
                with receiver() as opened:
                    (watching,) = watcher._watchers.values()
                    alive = watching.thread.is_alive() and id(opened) in watching.subscribers
                os._exit(0 if alive else 1)
            _, status = os.waitpid(child, 0)
            over.set()
            thread.join()
        print("status", status)
        """,
    )
    assert (finished.stdout, finished.stderr) == ("status 0\n", "")
