"""Healing where the kernel's messages are lost, forbidden or unknown, and in a program with much open."""

import contextlib
import errno
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import pytest

from linux.plain_sockets import FAMILY, sender_on
from multicast_expert import IfaceInfo, McastRxSocket
from multicast_expert.system import changes as reported
from multicast_expert.system import kernel, linux
from multicast_expert.system import watch as watcher
from multicast_expert.system.changes import Changes, NetlinkEvents, PolledEvents
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.testing import wait_until
from network.traffic import GROUP, PATIENCE, PORT, TwoWires, two_wires

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


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
    monkeypatch.setattr(kernel.SYSTEM, "change_events", lambda: PolledEvents(scan_interfaces))
    with hearing(wires, version):
        wires.listener.remove_interface("eth0")
        wires.listener.recreate_interface("eth0")


def test_polling_hears_new_interfaces(monkeypatch: pytest.MonkeyPatch) -> None:
    """By polling alone, a receiver on all interfaces hears one that appeared, within a second."""
    monkeypatch.setattr(kernel.SYSTEM, "change_events", lambda: PolledEvents(scan_interfaces))
    with two_wires(("eth1",)) as wires, wires.listener.entered():
        with hearing(wires, 4, iface=None):
            wires.plug("eth0")


def test_where_netlink_is_forbidden_it_polls(wires: TwoWires, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a sandbox that allows no netlink socket, a receiver opens all the same, and heals."""

    class Forbidden(NetlinkEvents):
        def __init__(self) -> None:
            raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(linux, "NetlinkEvents", Forbidden)
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

    monkeypatch.setattr(kernel.SYSTEM, "change_events", overflowing)
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

    monkeypatch.setattr(kernel.SYSTEM, "change_events", tight)
    # What the messages say counts for nothing here: only the overflow can tell that something is lost.
    monkeypatch.setattr(reported, "parse_link_events", lambda messages: Changes())
    busy, free = threading.Event(), threading.Event()

    class Busy:
        def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
            """Keep the thread busy."""
            busy.set()
            free.wait(PATIENCE)

        def restore(self, ifaces: list[IfaceInfo]) -> bool:
            """There is nothing to restore."""
            return False

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
