"""Batches and coalesced runs on the real kernel: what was sent comes out, fairly, with and without the extension."""

import errno
import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from struct import pack
from typing import Any

import pytest

from faces.faces import is_waiting, wait_until
from linux.plain_sockets import FAMILY, PATIENCE, join
from multicast_expert import Datagram, McastRxSocket, extension
from multicast_expert.engine.intake import recvmmsg as mmsg
from multicast_expert.engine.socket_source import TURNS
from multicast_expert.system import kernel
from multicast_expert.testing import Lab

GROUP = {4: "239.1.2.3", 6: "ff15::1234"}
QUIET = {4: "239.1.2.4", 6: "ff15::1235"}
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
PORT = 5000
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
MSG_PEEK = 2


def facts(datagram: Datagram) -> tuple[Any, ...]:
    """What is known about a datagram beside its payload."""
    return tuple(getattr(datagram, name) for name in Datagram.__match_args__ if name != "data")


@pytest.fixture(params=["extension", "recvmmsg", "python"], autouse=True)
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """What receives: the extension, Python with the C library's call for batches, Python without."""
    if request.param == "extension":
        if extension.native is None:
            pytest.skip("the extension is not there")
    else:
        monkeypatch.setattr(extension, "native", None)
        monkeypatch.setattr(mmsg, "available", lambda: request.param == "recvmmsg")
    return str(request.param)


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> int:
    """The IP version."""
    return int(request.param)


class Sender:
    """Sends to groups out of one interface, to this host."""

    def __init__(self, version: int, interface: str, stack: ExitStack) -> None:
        self.version = version
        self._socket = stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
        index = socket.if_nametoindex(interface)
        if version == 4:
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, pack("=8xi", index))
        else:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)

    def send(self, *payloads: bytes, group: str | None = None) -> None:
        """Send each alone."""
        for payload in payloads:
            self._socket.sendto(payload, (group or GROUP[self.version], PORT))

    def send_run(self, data: bytes, size: int) -> None:
        """Send as one piece."""
        told = (SOL_UDP, UDP_SEGMENT, pack("=H", size))
        self._socket.sendmsg([data], [told], 0, (GROUP[self.version], PORT))


@pytest.fixture
def sender(documentation_network: Lab, version: int) -> Iterator[Sender]:
    """One on eth0."""
    with ExitStack() as stack:
        yield Sender(version, "eth0", stack)


def receiver_of(version: int, *groups: str, **options: Any) -> McastRxSocket:
    """One that listens on eth0 and does not wait."""
    options = {"timeout": 0, "heal": False, **options}
    return McastRxSocket(FAMILY[version], groups or [GROUP[version]], PORT, iface="eth0", **options)


def payloads(receiver: McastRxSocket, limit: int = 1000) -> list[bytes]:
    """What is there."""
    try:
        return [datagram.data for datagram in receiver.receive_many(limit)]
    except TimeoutError:
        return []


def granted(receiver: McastRxSocket, level: int, option: int) -> list[int]:
    """An option as the kernel has it on each of the sockets."""
    values = []
    for descriptor in receiver.filenos():
        with socket.socket(fileno=os.dup(descriptor)) as copy:
            values.append(copy.getsockopt(level, option))
    return values


class TestRuns:
    """Datagrams that the kernel hands over in one piece."""

    def test_every_method(self, sender: Sender, version: int) -> None:
        """All of them give what was sent, one after the other, and all that is known about each."""
        with receiver_of(version) as receiver, receiver_of(version, gro=False) as plain:
            data = b"".join(b"%03d" % number * 100 for number in range(40)) + b"end"
            sender.send_run(data, 300)
            assert receiver.recv(5, MSG_PEEK) == b"00000"
            received = receiver.recvfrom(3)
            assert received is not None
            assert received[0] == b"000"
            assert receiver.recv(4, MSG_PEEK) == b"0010"
            datagrams = [receiver.receive(), *receiver.receive_many(5)]
            datagrams += list(receiver)
            assert [each.data for each in datagrams] == [b"%03d" % number * 100 for number in range(1, 40)] + [b"end"]
            first = plain.receive()
            assert {facts(each) for each in datagrams} == {facts(first)}
            assert received[1] == first.sender
            assert (first.data, len(payloads(plain))) == (b"000" * 100, 40)
            assert receiver.stats()[:3] == (41, 39 * 300 + 3 + 3, 1)
            assert plain.stats()[:3] == (41, 40 * 300 + 3, 0)

    def test_cut_in_the_backlog(self, sender: Sender, version: int) -> None:
        """The rest of a run is cut where a small buffer asks for it, which counts as it does otherwise."""
        with receiver_of(version) as receiver:
            sender.send_run(b"abcdefgh", 4)
            assert [receiver.recv(3), receiver.recv(1, MSG_PEEK), receiver.recv(3), receiver.recv()] == [
                b"abc", b"e", b"efg", None,
            ]  # fmt: skip
            assert receiver.stats()[:3] == (2, 6, 2)
            sender.send_run(b"abcdefgh", 4)
            assert receiver.recv() == b"abcd"
            with pytest.raises(ValueError, match="negative buffer"):
                receiver.recv(-1)
            assert receiver.recv() == b"efgh"

    def test_switched_off(self, version: int, documentation_network: Lab) -> None:
        """The option is on unless one asks otherwise."""
        with receiver_of(version) as receiver, receiver_of(version, gro=False) as plain:
            assert granted(receiver, SOL_UDP, UDP_GRO) == [1]
            assert granted(plain, SOL_UDP, UDP_GRO) == [0]

    def test_a_kernel_without(self, sender: Sender, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A kernel before 5.0 refuses the option: the receiver opens, and gets each datagram alone."""

        class OldSocket(socket.socket):
            def setsockopt(self, level: int, number: int, value: Any) -> None:  # type: ignore[override]  # one form
                if (level, number) == (SOL_UDP, UDP_GRO):
                    raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
                super().setsockopt(level, number, value)

        def open_old(family: int, kind: int) -> socket.socket:
            return OldSocket(family, kind | socket.SOCK_NONBLOCK)

        monkeypatch.setattr(kernel.SYSTEM, "socket", open_old)
        with receiver_of(version) as receiver:
            sender.send_run(b"abcdef", 2)
            assert payloads(receiver) == [b"ab", b"cd", b"ef"]

    def test_threads_share_a_run(self, sender: Sender, version: int) -> None:
        """Two threads wait; a run of two datagrams arrives as one piece: each gets one, at once."""
        received: list[bytes] = []
        with receiver_of(version, timeout=PATIENCE) as receiver:
            threads = [threading.Thread(target=lambda: received.append(receiver.receive().data)) for _ in range(2)]
            for thread in threads:
                thread.start()
            for thread in threads:
                wait_until(lambda each=thread: is_waiting(each), "a thread waits")
            sender.send_run(b"onetwo", 3)
            for thread in threads:
                thread.join(PATIENCE / 2)
                assert not thread.is_alive()
        assert sorted(received) == [b"one", b"two"]

    @pytest.mark.parametrize("version", [4], indirect=True)  # over IPv6 the socket belongs to the interface
    def test_foreign_runs(
        self, sender: Sender, version: int, documentation_network: Lab, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Where the receiver itself has to refuse what is not its own, each datagram of a run counts."""

        class LaxSocket(socket.socket):
            def setsockopt(self, level: int, number: int, value: Any) -> None:  # type: ignore[override]  # one form
                if (level, number) == (0, 49):  # IP_MULTICAST_ALL
                    raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))
                super().setsockopt(level, number, value)

        def open_lax(family: int, kind: int) -> socket.socket:
            return LaxSocket(family, kind | socket.SOCK_NONBLOCK)

        monkeypatch.setattr(kernel.SYSTEM, "socket", open_lax)
        with receiver_of(version) as receiver, ExitStack() as stack:
            other = stack.enter_context(socket.socket(FAMILY[version], socket.SOCK_DGRAM))
            join(other, GROUP[version], socket.if_nametoindex("lo"))
            foreign = Sender(version, "lo", stack)
            foreign.send_run(b"foreign" * 10, 7)
            sender.send_run(b"abcdef", 2)
            foreign.send_run(b"foreign" * 10, 7)
            assert receiver.recv(1, MSG_PEEK) == b"a"
            assert payloads(receiver) == [b"ab", b"cd", b"ef"]
            foreign.send_run(b"foreign" * 10, 7)
            assert receiver.recv() is None
            assert receiver.stats() == (3, 6, 0, 0, 30)


class TestBatches:
    """Many datagrams at once."""

    def test_one_at_a_time(self, sender: Sender, version: int) -> None:
        """`receive` and `recvfrom` leave the others in the kernel, so that a selector of one's own stays right."""
        with receiver_of(version) as receiver:
            descriptors = receiver.filenos()
            sender.send(b"1", b"2", b"3")
            for take in (receiver.receive, receiver.recvfrom, receiver.recv):
                assert select.select(descriptors, [], [], 0)[0] == descriptors
                assert take() is not None
            assert select.select(descriptors, [], [], 0)[0] == []

    def test_an_iteration_that_is_given_up(self, sender: Sender, version: int) -> None:
        """What it took and did not hand out comes first, by every method, in order."""
        with receiver_of(version) as receiver:
            sender.send(*[b"%d" % number for number in range(10)])
            for datagram in receiver:
                assert datagram.data == b"0"
                break
            assert receiver.recv(1, MSG_PEEK) == b"1"
            assert [receiver.receive().data, receiver.recv()] == [b"1", b"2"]
            assert payloads(receiver, 3) == [b"3", b"4", b"5"]
            assert [each.data for each in receiver] == [b"6", b"7", b"8", b"9"]

    def test_limits(self, sender: Sender, version: int) -> None:
        """No more than asked, of one piece or of many; less than one means one."""
        with receiver_of(version) as receiver:
            sender.send_run(b"0123456789", 1)
            sender.send(b"a", b"b", b"c")
            assert payloads(receiver, 0) == [b"0"]
            assert payloads(receiver, 4) == [b"1", b"2", b"3", b"4"]
            assert payloads(receiver, 7) == [b"5", b"6", b"7", b"8", b"9", b"a", b"b"]
            assert payloads(receiver, 10**12) == [b"c"]
            assert payloads(receiver) == []

    @pytest.mark.parametrize("method", ["receive", "receive_many", "iteration"])
    def test_a_busy_group_does_not_starve_the_others(self, sender: Sender, version: int, method: str) -> None:
        """With much waiting for one group, the other's datagram comes within a few turns."""
        with receiver_of(version, GROUP[version], QUIET[version], receive_buffer=1_000_000) as receiver:
            sender.send(*[b"busy"] * 1000)
            assert receiver.receive().data == b"busy"
            sender.send(b"quiet", group=QUIET[version])
            received: list[bytes] = []
            if method == "receive":
                received += [receiver.receive().data for _ in range(3 * TURNS)]
            elif method == "receive_many":
                received += payloads(receiver, 3 * TURNS)
            else:
                received += [each.data for each, _ in zip(receiver, range(3 * TURNS), strict=False)]
            assert b"quiet" in received
            assert len(received) == 3 * TURNS

    def test_more_groups_than_one_look_tells(self, sender: Sender, version: int) -> None:
        """A datagram to each of many groups: all come in one batch, each with its group."""
        numbers = range(1, 601)
        groups = [f"239.2.{each // 200}.{each % 200}" if version == 4 else f"ff15::{each:x}" for each in numbers]
        with receiver_of(version, *groups) as receiver:
            for group in groups:
                sender.send(group.encode(), group=group)
            datagrams = receiver.receive_many(2000)
            assert sorted(each.data for each in datagrams) == sorted(group.encode() for group in groups)
            assert all(each.group == each.data.decode() for each in datagrams)
            assert payloads(receiver) == []

    def test_the_only_socket_changes(self, sender: Sender, version: int) -> None:
        """A receiver with one group, then two, then one again, hears what it has joined each time."""
        with receiver_of(version) as receiver:
            sender.send(b"1")
            assert payloads(receiver) == [b"1"]
            second = receiver.join_group(QUIET[version])
            sender.send(b"2")
            sender.send(b"3", group=QUIET[version])
            assert sorted(payloads(receiver)) == [b"2", b"3"]
            receiver.leave_group(GROUP[version])
            sender.send(b"4", group=QUIET[version])
            assert receiver.recv() == b"4"
            receiver.join_group(GROUP[version])
            second.leave()
            sender.send(b"5")
            assert [each.data for each in receiver] == [b"5"]

    def test_nobody_elses_datagrams(self, sender: Sender, version: int) -> None:
        """A socket that gets the descriptor of one just left keeps its datagrams, while other threads receive."""
        own = LOOPBACK[version]
        done = threading.Event()
        with receiver_of(version, GROUP[version]) as receiver, ExitStack() as stack:

            def receive() -> None:
                while not done.is_set():
                    with suppress(TimeoutError):
                        receiver.receive_many(timeout=0.01)

            threads = [threading.Thread(target=receive) for _ in range(2)]
            stack.callback(lambda: [thread.join(PATIENCE) for thread in threads])
            stack.callback(done.set)
            for thread in threads:
                thread.start()
            shared = 0
            for _ in range(200):
                receiver.join_group(QUIET[version])
                taken = set(receiver.filenos())
                sender.send(b"busy", group=GROUP[version])
                sender.send(b"quiet", group=QUIET[version])
                receiver.leave_group(QUIET[version])
                with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as other:
                    shared += other.fileno() in taken
                    other.bind((own, 0))
                    other.settimeout(PATIENCE)
                    other.sendto(b"not yours", other.getsockname())
                    sender.send(b"busy", group=GROUP[version])
                    assert other.recv(100) == b"not yours"
            assert shared > 100

    def test_what_came_before_an_error(self, sender: Sender, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
        """A batch that fails half-way loses nothing: the next one begins with what it had."""
        with receiver_of(version, GROUP[version], QUIET[version]) as receiver:
            sender.send(b"kept", b"too")
            sender.send(b"later", group=QUIET[version])
            intake: Any = receiver._source.intake
            calls = []

            class Failing:
                unread = False

                def batch(self, *arguments: Any) -> bool:
                    calls.append(arguments)
                    if len(calls) == 2:
                        raise OSError(errno.ENETDOWN, "down")
                    return bool(intake.batch(*arguments))

                def sweep(self, epoll: int, alarm: int, limit: int, datagrams: list[Datagram]) -> None:
                    intake.sweep(epoll, alarm, limit - 1, datagrams)
                    raise OSError(errno.ENETDOWN, "down")

            with monkeypatch.context() as patch:
                patch.setattr(receiver._source, "intake", Failing())
                if receiver._source._sweeps:
                    patch.setattr(receiver._source, "_native", Failing())
                with pytest.raises(OSError, match="down"):
                    receiver.receive_many()
            assert sorted(payloads(receiver)) == [b"kept", b"later", b"too"]
