"""The extension and its Python twins turn what sockets hold into the same Datagrams: each test runs on all."""

import errno
import gc
import os
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from functools import partial
from struct import pack
from time import monotonic, time_ns
from typing import Any, TypeAlias

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from linux.intakes import FIELDS, INTERFACE, LOOPBACK, Form, Link, drained, native, pieces, taken
from linux.plain_sockets import FAMILY, PATIENCE
from multicast_expert import Datagram
from multicast_expert.core.datagram import decode_arrival
from multicast_expert.engine.intake.recvmsg import ANCILLARY_SIZE
from multicast_expert.platforms import LINUX, Option
from multicast_expert.testing import Lab

SO_RXQ_OVFL = 40
Ends: TypeAlias = tuple[socket.socket, socket.socket]
Expect: TypeAlias = Callable[..., bool]


@pytest.fixture(params=["extension", "recvmmsg", "python"])
def form(request: pytest.FixtureRequest) -> Form:
    """The extension, then Python with the C library's call for batches, then without."""
    return Form(request.param)


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> int:
    """The IP version."""
    return int(request.param)


@pytest.fixture
def link(version: int) -> Iterator[Link]:
    """Such a pair."""
    with ExitStack() as stack:
        yield Link(version, stack)


class TestIntake:
    """What all forms do, in every way to receive."""

    def test_everything_that_is_known(self, form: Form, link: Link) -> None:
        """Payload, sender, group, interface and hop limit, the same by every method."""
        intake, handle = form.intake(), form.handle(link.receiver)
        link.send(b"one", b"two", b"three", b"four")
        datagrams: list[Datagram] = []
        assert intake.batch(handle, 2, datagrams) is True
        assert datagrams == [link.expected(b"one"), link.expected(b"two")]
        assert taken(intake, handle) == link.expected(b"three")
        waiting = [link.expected(b"before")]
        assert intake.one(handle, waiting) is True
        assert waiting == [link.expected(b"before"), link.expected(b"four")]
        assert (intake.datagrams, intake.payload_bytes, intake.truncated) == (4, 15, 0)
        assert intake.unread is False

    def test_nothing_there(self, form: Form, link: Link) -> None:
        """An empty list, without an error and without waiting."""
        intake, handle = form.intake(), form.handle(link.receiver)
        datagrams: list[Datagram] = []
        assert intake.batch(handle, 100, datagrams) is False
        assert datagrams == []
        assert taken(intake, handle) is None
        assert intake.datagrams == 0

    def test_real_datagrams(self, form: Form, link: Link) -> None:
        """They are of the class itself, with all that it can; neither they nor the senders are ever lost or shared."""
        intake, handle = form.intake(), form.handle(link.receiver)
        link.send(*[b"%d" % number for number in range(500)])
        datagrams = drained(intake, handle)
        gc.collect()
        assert {type(each) for each in datagrams} == {Datagram}
        assert [int(each.data) for each in datagrams] == list(range(500))
        assert datagrams[7] == link.expected(b"7")
        assert hash(datagrams[7]) == hash(link.expected(b"7"))
        del datagrams[:400]
        assert [int(each.data) for each in datagrams] == list(range(400, 500))

    def test_empty_and_largest(self, form: Form, link: Link) -> None:
        """A datagram without payload is one; the largest comes whole."""
        intake, handle = form.intake(), form.handle(link.receiver)
        largest = bytes(range(256)) * 255
        link.send(b"", largest, b"", b"", b"")
        assert drained(intake, handle, 3) == [link.expected(b""), link.expected(largest), link.expected(b"")]
        assert [taken(intake, handle), taken(intake, handle)] == [link.expected(b"")] * 2
        assert (intake.datagrams, intake.payload_bytes) == (5, len(largest))

    @pytest.mark.parametrize("limit", [1, 2, 63, 64, 65, 200, 10**15])
    def test_limits(self, form: Form, link: Link, limit: int) -> None:
        """No more than asked, in order, and nothing is lost between two batches."""
        intake, handle = form.intake(), form.handle(link.receiver)
        payloads = [b"%d" % number for number in range(200)]
        link.send(*payloads)
        received: list[bytes] = []
        while batch := drained(intake, handle, limit):
            assert len(batch) <= limit
            received += [each.data for each in batch]
        assert received == payloads

    def test_no_room(self, form: Form, link: Link) -> None:
        """A limit of nothing takes nothing."""
        intake, handle = form.intake(), form.handle(link.receiver)
        link.send(b"stays")
        assert drained(intake, handle, 0) == []
        assert drained(intake, handle, -5) == []
        assert drained(intake, handle, 1) == [link.expected(b"stays")]

    def test_timestamps(self, form: Form, version: int) -> None:
        """The kernel's nanoseconds, between those before sending and after receiving."""
        with ExitStack() as stack:
            link = Link(version, stack, timestamps=True)
            intake, handle = form.intake(), form.handle(link.receiver)
            before = time_ns()
            link.send(b"a", b"b", b"c")
            datagrams = drained(intake, handle, 2)
            last = taken(intake, handle)
            assert last is not None
            times = [before, *(each.timestamp_ns or 0 for each in (*datagrams, last)), time_ns()]
            assert times == sorted(times)
            assert datagrams[0] == link.expected(b"a", timestamp_ns=times[1])

    @pytest.mark.parametrize("size", [1, 100, 1000, 1400])
    def test_coalesced_runs(self, form: Form, link: Link, size: int) -> None:
        """They come out as they were sent, each with its metadata, the last one shorter; all are counted."""
        intake, handle = form.intake(), form.handle(link.receiver)
        data = bytes(range(256)) * 30
        data = data[: 40 * size + size // 2]
        link.send_run(data, size)
        link.send(b"alone")
        sent = [*pieces(data, size), b"alone"]
        assert drained(intake, handle) == [link.expected(each) for each in sent]
        assert (intake.datagrams, intake.payload_bytes, intake.truncated) == (len(sent), len(data) + 5, 0)

    def test_a_run_and_a_limit(self, form: Form, link: Link) -> None:
        """The rest of a run comes with the batch: it is out of the kernel."""
        intake, handle = form.intake(), form.handle(link.receiver)
        for _ in range(3):
            link.send_run(bytes(1000), 100)
        datagrams: list[Datagram] = []
        intake.batch(handle, 4, datagrams)
        assert 10 <= len(datagrams) <= 30
        assert len(datagrams) + len(drained(intake, handle)) == 30

    def test_one_of_a_run(self, form: Form, link: Link) -> None:
        """All come, newest first, behind what was there."""
        intake, handle = form.intake(), form.handle(link.receiver)
        whole = [link.expected(data) for data in (b"0123456789" * 5, b"0123456789" * 10, b"0123456789" * 10)]
        link.send_run(b"0123456789" * 25, 100)
        waiting = [link.expected(b"before")]
        assert intake.one(handle, waiting) is True
        assert waiting == [link.expected(b"before"), *whole]
        assert (intake.datagrams, intake.payload_bytes, intake.truncated) == (3, 250, 0)

    @settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(
        runs=st.lists(st.tuples(st.integers(1, 1400), st.integers(1, 60), st.integers(0, 1399)), max_size=4),
        limit=st.integers(1, 200),
    )
    def test_any_runs(self, form: Form, version: int, runs: list[tuple[int, int, int]], limit: int) -> None:
        """A receiver that coalesces gets what one gets that does not, whatever is sent."""
        with ExitStack() as stack:
            coalescing, plain = (Link(version, stack, gro=gro) for gro in (True, False))
            for size, count, rest in runs:
                data = (b"%06d" % size * size * count)[: min(size * count + rest % size, 60_000)]
                for link in (coalescing, plain):
                    link.send_run(data, size)
            received = []
            for link in (coalescing, plain):
                intake, handle = form.intake(), form.handle(link.receiver)
                all_of_it: list[Datagram] = []
                while batch := drained(intake, handle, limit):
                    all_of_it += batch
                assert intake.payload_bytes == sum(len(each.data) for each in all_of_it)
                received.append([(each.data, each.group, each.hop_limit, each.truncated) for each in all_of_it])
        assert received[0] == received[1]

    def test_other_control_messages(self, form: Form, link: Link) -> None:
        """Messages that nobody asked this for are passed over; what one is called decides how it is read."""
        link.receiver.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        level, option = (0, 13) if link.version == 4 else (41, 66)  # IP_RECVTOS: one byte; IPV6_RECVTCLASS
        link.receiver.setsockopt(level, option, 1)
        link.sender.setsockopt(level, *((1, 0x28) if link.version == 4 else (67, 0x28)))
        handle = form.handle(link.receiver)
        link.send(b"unknown")
        assert drained(form.intake(), handle) == [link.expected(b"unknown", traffic_class=0x28)]
        kind = (0, 1) if link.version == 4 else (41, 67)
        link.send(b"a byte, or an int")
        assert drained(form.intake({kind: "hop_limit"}), handle)[0].hop_limit == 0x28
        for field in ("timespec", "pktinfo", "pktinfo6"):
            link.send(b"too short for this")
            assert drained(form.intake({kind: field}), handle) == [
                Datagram(b"too short for this", link.sender.getsockname())
            ]

    @pytest.mark.parametrize(
        "field",
        [
            "pktinfo",
            "pktinfo6",
            "destination",
            "sockaddr_dl",
            "hop_limit",
            "traffic_class",
            "timespec",
            "timeval",
            "segment_size",
        ],
    )
    def test_every_kind_of_field(self, form: Form, version: int, field: str) -> None:
        """Whatever a message is called, all forms read the same out of it, and take no more than it has."""
        with ExitStack() as stack:
            link = Link(version, stack, timestamps=True)
            for kind in LINUX.ancillary.fields:
                link.send(b"x")
                messages = link.receiver.recvmsg(9, ANCILLARY_SIZE, socket.MSG_PEEK)[1]
                told = decode_arrival(messages, {kind: field})
                [received] = drained(form.intake({kind: field}), form.handle(link.receiver))
                assert (received.interface_index, received.hop_limit) == (told.interface_index, told.hop_limit)
                assert received.traffic_class == told.traffic_class
                assert (received.timestamp_ns is None) == (told.timestamp_ns is None)
                # The extension has 64 bits for what no clock will show.
                assert ((received.timestamp_ns or 0) - (told.timestamp_ns or 0)) % 2**64 == 0
                assert received.group == form.learn(told.destination, None)[0]

    def test_cut_control_messages(self, form: Form) -> None:
        """Where the kernel has more to say than there is room for, what was cut is passed over."""
        with ExitStack() as stack:
            link, twin = (Link(4, stack, timestamps=True) for _ in range(2))
            for each in (link, twin):
                # SO_TIMESTAMPING (software), SO_RCVMARK; IP_RECVTOS, RECVOPTS, ORIGDSTADDR, CHECKSUM, RECVFRAGSIZE
                for level, option, value in (
                    (1, 65, 0x18), (1, 75, 1), (0, 13, 1), (0, 6, 1), (0, 20, 1), (0, 23, 1), (0, 25, 1),
                ):  # fmt: skip
                    each.receiver.setsockopt(level, option, value)
                each.sender.setsockopt(0, 4, b"\x07\x27\x04" + bytes(37))  # IP_OPTIONS: record the route
                each.send(b"x")
            _, messages, told, _ = twin.receiver.recvmsg(100, ANCILLARY_SIZE)
            assert told & socket.MSG_CTRUNC
            kinds = {(level, kind): "hop_limit" for level, kind, _ in messages}
            for fields in (FIELDS, {**kinds, (0, 8): "pktinfo"}):
                twin.send(b"x")
                link.send(b"x")
                _, messages, _, _ = twin.receiver.recvmsg(100, ANCILLARY_SIZE)
                arrival = decode_arrival(messages, fields)
                received = drained(form.intake(fields), form.handle(link.receiver))[-1]
                assert received.interface_index == arrival.interface_index == 1
                if fields is not FIELDS:
                    assert received.hop_limit == arrival.hop_limit

    def test_many_senders(self, form: Form, link: Link) -> None:
        """More senders than are remembered: each datagram has its own, again and again."""
        intake, handle = form.intake(), form.handle(link.receiver)
        link.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        expected = []
        with ExitStack() as stack:
            sources = [stack.enter_context(socket.socket(FAMILY[link.version], socket.SOCK_DGRAM)) for _ in range(2000)]
            for number, source in enumerate(sources):
                host = f"127.1.{number // 200}.{number % 200 + 1}" if link.version == 4 else "::1"
                source.bind((host, 0))
            for _ in range(2):
                for source in sources:
                    source.sendto(b"", link.receiver.getsockname())
                    expected.append(source.getsockname())
                    received = drained(intake, handle)
                    assert [each.sender for each in received] == expected[-1:]
        assert len(set(expected)) == 2000

    def test_link_local_senders(self, form: Form, documentation_network: Lab) -> None:
        """The sender is told as socket.recvfrom tells it, scope included."""
        with ExitStack() as stack:
            one, two = (stack.enter_context(socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)) for _ in range(2))
            index = socket.if_nametoindex("eth0")
            for each in (one, two):
                each.bind(("fe80::1", 0, 0, index))
            # On a busy machine a fresh interface may lose the first ones.
            two.settimeout(0.5)
            for _ in range(20):
                one.sendto(b"probe", two.getsockname())
                with suppress(TimeoutError):
                    two.recvfrom(10)
                    break
            else:
                raise AssertionError("nothing came in 20 attempts")
            two.setblocking(False)
            with suppress(BlockingIOError):
                while True:
                    two.recvfrom(10)
            two.settimeout(10)
            for _ in range(4):
                one.sendto(b"x", two.getsockname())
            expected = two.recvfrom(10)
            two.setblocking(False)
            intake, handle = form.intake({}), form.handle(two)
            assert taken(intake, handle) == Datagram(*expected)
            assert drained(intake, handle) == [Datagram(*expected)] * 2
            assert expected[1] == ("fe80::1", one.getsockname()[1], 0, index)

    def test_names(self, form: Form, link: Link) -> None:
        """A place is asked for once, until it is to be forgotten; one without a name in each call."""
        intake, handle = form.intake(), form.handle(link.receiver)
        form.interface = None
        link.send(b"a", b"b", b"c", b"d", b"e", b"f")
        assert [drained(intake, handle, 1)[0].interface_name for _ in range(2)] == [None, None]
        form.interface = "eth7"
        assert [each.interface_name for each in drained(intake, handle, 2)] == ["eth7", "eth7"]
        form.interface = "renamed"
        assert drained(intake, handle, 1)[0].interface_name == "eth7"
        intake.forget_places()
        last = taken(intake, handle)
        assert last is not None
        assert last.interface_name == "renamed"
        packed = socket.inet_pton(FAMILY[link.version], LOOPBACK[link.version])
        assert form.learned == [(packed, 1)] * 4

    def test_a_failing_name(self, form: Form, link: Link) -> None:
        """What the callback raises is raised by every method; the datagrams come once it succeeds."""
        form.failure = ZeroDivisionError()
        intake, handle = form.intake(), form.handle(link.receiver)
        link.send(b"a", b"b", b"c", b"d")
        for take in (
            lambda: drained(intake, handle, 1),
            lambda: intake.one(handle, []),
            lambda: drained(intake, handle, 3),
        ):
            with pytest.raises(ZeroDivisionError):
                take()
            assert intake.unread is True
        assert intake.datagrams == 0
        form.failure = None
        assert [each.data for each in drained(intake, handle)] == [b"a", b"b", b"c", b"d"]
        assert (intake.datagrams, intake.payload_bytes, intake.unread) == (4, 4, False)

    def test_forgetting_while_a_name_is_learned(self, form: Form, link: Link) -> None:
        """What was learned before the places were forgotten is not remembered after that."""
        learn = form.learn

        def rename(destination: bytes | None, index: int | None) -> tuple[str | None, str | None]:
            place = learn(destination, index)
            if form.interface == INTERFACE:
                form.interface = "renamed"
                intake.forget_places()
            return place

        form.learn = rename  # type: ignore[method-assign] # another thread renames meanwhile
        intake, handle = form.intake(), form.handle(link.receiver)
        link.send(b"a", b"b")
        assert drained(intake, handle, 1)[0].interface_name == INTERFACE
        assert drained(intake, handle, 1)[0].interface_name == "renamed"

    def test_two_threads(self, form: Form, link: Link) -> None:
        """Two threads share one socket and one intake: each datagram goes to one of them, whole."""
        intake, handle = form.intake(), form.handle(link.receiver)
        total, received = 20_000, [list[Datagram](), list[Datagram]()]
        stop = threading.Event()

        def receive(mine: list[Datagram]) -> None:
            while not stop.is_set():
                select.select([link.receiver], [], [], 0.05)
                intake.batch(handle, 7, mine)
                intake.one(handle, mine)

        threads = [threading.Thread(target=receive, args=(mine,)) for mine in received]
        for thread in threads:
            thread.start()
        deadline = monotonic() + PATIENCE
        sent = 0
        while sent < total and monotonic() < deadline:
            if sent - len(received[0]) - len(received[1]) < 500:
                link.send(b"%d" % sent * 20)
                sent += 1
        while len(received[0]) + len(received[1]) < total and monotonic() < deadline:
            stop.wait(0.001)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)
        everything = sorted(each.data for each in received[0] + received[1])
        assert everything == sorted(b"%d" % number * 20 for number in range(total))
        assert (intake.datagrams, intake.unread) == (total, False)

    def test_closed(self, form: Form, link: Link) -> None:
        """A socket that is closed is an error; what came before it in a batch stays in the list."""
        intake, handle = form.intake(), form.handle(link.receiver)
        link.receiver.close()
        handle = -1 if form.name == "extension" else handle
        for take in (
            lambda: intake.batch(handle, 5, []),
            lambda: intake.one(handle, []),
        ):
            with pytest.raises(OSError, match="Bad file descriptor") as caught:
                take()
            assert caught.value.errno == errno.EBADF

    def test_errors_of_the_network(self, form: Form, link: Link) -> None:
        """What came back for an earlier datagram is raised once, and the datagrams behind it are there."""
        intake, handle = form.intake(), form.handle(link.sender)
        link.sender.setblocking(False)
        link.receiver.close()
        link.sender.send(b"nobody is there")
        with pytest.raises(ConnectionRefusedError):
            intake.batch(handle, 5, [])
        assert drained(intake, handle) == []


class TestExpecting:
    """What the extension alone can: waiting for a socket and receiving in one step."""

    @pytest.fixture
    def intake(self) -> Any:
        """The extension's."""
        return Form("extension").intake()

    @pytest.fixture
    def alarm(self) -> Iterator[Ends]:
        """A pair whose first end is readable when the other one rings."""
        ends = socket.socketpair()
        yield ends
        for end in ends:
            end.close()

    @pytest.fixture(params=["socket", "epoll"])
    def expect(self, request: pytest.FixtureRequest, intake: Any, link: Link, alarm: Ends) -> Iterator[Expect]:
        """Waits for the receiver alone, or for what an epoll instance watches."""
        descriptor = link.receiver.fileno()
        if request.param == "socket":
            yield partial(intake.expect, descriptor)
            return
        with select.epoll() as epoll, socket.socket(FAMILY[link.version], socket.SOCK_DGRAM) as silent:
            for watched in (descriptor, silent.fileno(), alarm[0].fileno()):
                epoll.register(watched, select.EPOLLIN)
            yield partial(intake.expect_any, epoll.fileno())

    def test_what_is_there(self, expect: Expect, link: Link, alarm: Ends) -> None:
        """It comes at once, a run newest first."""
        waiting: list[Datagram] = []
        link.send_run(b"abcdef", 3)
        assert expect(waiting, alarm[0].fileno(), -1) is True
        assert waiting == [link.expected(b"def"), link.expected(b"abc")]

    def test_what_comes(self, expect: Expect, link: Link, alarm: Ends) -> None:
        """It is in the list when it comes."""
        received: list[Datagram] = []
        arguments = (received, alarm[0].fileno(), PATIENCE)
        thread = threading.Thread(target=lambda: expect(*arguments))
        thread.start()
        link.send(b"late")
        thread.join(PATIENCE)
        assert received == [link.expected(b"late")]

    def test_nothing_in_time(self, expect: Expect, link: Link, alarm: Ends) -> None:
        """Nothing after the timeout, not before."""
        start = monotonic()
        assert expect([], alarm[0].fileno(), 0.02) is False
        assert 0.02 <= monotonic() - start < PATIENCE

    def test_the_alarm(self, expect: Expect, link: Link, alarm: Ends) -> None:
        """It ends the wait, and keeps a socket from being read that may be another one by now."""
        alarm[1].send(b"!")
        link.send(b"stays")
        waiting: list[Datagram] = []
        arguments = (waiting, alarm[0].fileno(), -1)
        assert expect(*arguments) is False
        alarm[0].recv(1)
        assert expect(*arguments) is True
        assert waiting == [link.expected(b"stays")]

    def test_signals(self, expect: Expect, link: Link, alarm: Ends) -> None:
        """A handler runs at once, and what it raises is raised; else the wait ends early."""
        handled = []

        def handle(number: int, frame: object) -> None:
            handled.append(number)
            if len(handled) == 2:
                raise InterruptedError("from the handler")

        before = signal.signal(signal.SIGALRM, handle)
        try:
            arguments = ([], alarm[0].fileno(), PATIENCE)
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            assert expect(*arguments) is False
            signal.setitimer(signal.ITIMER_REAL, 0.02)
            with pytest.raises(InterruptedError, match="from the handler"):
                expect(*arguments)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
        assert handled == [signal.SIGALRM] * 2

    @pytest.mark.parametrize(
        ("arguments", "error"),
        [
            ((1,), TypeError),
            (("x", []), TypeError),
            ((1, ()), TypeError),
            ((2**40, []), OverflowError),
        ],
    )
    def test_wrong_arguments(self, intake: Any, arguments: tuple[Any, ...], error: type[Exception]) -> None:
        """They are refused before any system call."""
        with pytest.raises(error):
            intake.one(*arguments)
        with pytest.raises(error):
            intake.expect(*arguments, -1, 0)
        with pytest.raises(error):
            intake.batch(*arguments[:1], 1, *arguments[1:])

    @pytest.mark.parametrize(
        "arguments",
        [(), ({},), ({}, 0), ({}, 0, print, print), ({}, "x", print)],
    )
    def test_wrong_construction(self, arguments: tuple[Any, ...]) -> None:
        """So are these."""
        with pytest.raises(TypeError):
            native().Intake(*arguments)

    @pytest.mark.parametrize(
        ("fields", "error"),
        [
            ([], AttributeError),
            ({(1, 2): "unheard of"}, ValueError),
            ({"x": "pktinfo"}, TypeError),
            ({(0, kind): "pktinfo" for kind in range(17)}, ValueError),
        ],
    )
    def test_wrong_tables(self, fields: Any, error: type[Exception]) -> None:
        """A table that it cannot read is refused."""
        with pytest.raises(error):
            native().Intake(fields, 0, print)


class TestOptions:
    """Options that the extension sets in one go."""

    def test_up_to_the_first_refusal(self) -> None:
        """It sets all, or those before one that the kernel refuses, and tells which."""
        set_options = native().set_options
        options = tuple(
            Option(name, level, number, pack("=i", value))
            for name, level, number, value in (
                ("SO_REUSEADDR", 1, 2, 1), ("no such option", 0, 9999, 1), ("IP_MULTICAST_TTL", 0, 33, 7),
            )
        )  # fmt: skip
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            assert set_options(sock.fileno(), options) is False
            assert (sock.getsockopt(1, 2), sock.getsockopt(0, 33)) == (1, 1)
            assert set_options(sock.fileno(), options[2:]) is True
            assert set_options(sock.fileno(), ()) is True
            assert sock.getsockopt(0, 33) == 7
        assert set_options(-1, options) is False

    @pytest.mark.parametrize("options", [[], (7,), (("name", 1, 2),), (("name", "1", 2, b""),), (("name", 1, 2, 3),)])
    def test_wrong_options(self, options: Any) -> None:
        """What is no option is refused."""
        with pytest.raises(TypeError):
            native().set_options(0, options)


@pytest.mark.parametrize(("variable", "pure"), [("", False), ("1", True)])
def test_the_choice(variable: str, pure: bool) -> None:
    """MULTICAST_EXPERT_PURE, not empty, keeps the extension out."""
    native()
    program = "from multicast_expert import extension; print(extension.native is None)"
    environment = {**os.environ, "MULTICAST_EXPERT_PURE": variable}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == str(pure)
