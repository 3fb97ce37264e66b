"""create_multicast_endpoint: a transport of asyncio and uvloop that behaves as their own datagram transports do."""

import asyncio
import contextlib
import errno
import gc
import socket
import sys
from collections.abc import Callable, Coroutine
from time import monotonic
from types import SimpleNamespace
from typing import Any

import pytest
import uvloop

from both_ways.networks import TwoLinks, two_links
from linux.judges import slow_line
from linux.plain_sockets import FAMILY, own_address, sender_on, udp_socket
from multicast_expert import Datagram, MulticastExpertError, MulticastOSError, create_multicast_endpoint
from multicast_expert.sockets.aio import AsyncMcastSocket
from multicast_expert.sockets.endpoint import MulticastTransport
from multicast_expert.testing import Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
PATIENCE = 10.0

Body = Callable[[], Coroutine[Any, Any, None]]
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


@pytest.fixture(scope="module")
def network(lab: Lab) -> TwoLinks:
    """A host with two links."""
    return two_links(lab)


@pytest.fixture(params=LOOPS)
def run(request: pytest.FixtureRequest, network: TwoLinks) -> Callable[[Body], None]:
    """Runs a body in the host, on each loop; an exception that nobody handled fails the test."""

    def run_body(body: Body) -> None:
        unhandled: list[dict[str, Any]] = []
        with network.host.entered(), contextlib.closing(LOOPS[request.param]()) as loop:
            loop.set_exception_handler(lambda _, context: unhandled.append(context))
            loop.run_until_complete(asyncio.wait_for(body(), PATIENCE))
            loop.run_until_complete(loop.shutdown_asyncgens())
        assert [context for context in unhandled if "expected" not in str(context.get("exception"))] == []

    return run_body


class Recorder(asyncio.DatagramProtocol):
    """Notes all calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.changed = asyncio.Event()
        self.transport: Any = None

    def note(self, *call: Any) -> None:
        """Note one."""
        self.calls.append(call)
        self.changed.set()

    async def wait_for(self, name: str, count: int = 1) -> list[tuple[Any, ...]]:
        """Return the calls of this name, once there are so many."""
        while len(found := [call for call in self.calls if call[0] == name]) < count:
            self.changed.clear()
            await self.changed.wait()
        return found

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It has a transport."""
        self.transport = transport
        self.note("made")

    def datagram_received(self, data: bytes, addr: Any) -> None:
        """Something came."""
        self.note("datagram", data, addr)

    def error_received(self, exc: Exception) -> None:
        """Something was refused."""
        self.note("error", exc)

    def pause_writing(self) -> None:
        """Too much waits for room."""
        self.note("pause")

    def resume_writing(self) -> None:
        """There is room again."""
        self.note("resume")

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self.note("lost", exc)


class Knowing(Recorder):
    """Gets Datagrams."""

    def multicast_received(self, datagram: Datagram) -> None:
        """As the library calls it."""
        self.note("multicast", datagram)


def test_receiving_and_sending(run: Callable[[Body], None], network: TwoLinks, version: int) -> None:
    """Groups and unicast arrive, after `connection_made`; what it sends leaves from its port; nothing of its own."""
    far = network.far[0][0]

    async def body() -> None:
        with sender_on(far, version) as group_sender, udp_socket(far.node, version) as other:
            other.bind((own_address(far, version), 0))
            transport, protocol = await create_multicast_endpoint(
                Recorder, FAMILY[version], [GROUP[version]], PORT, iface="eth0"
            )
            group_sender.sendto(b"group", (GROUP[version], PORT))
            other.sendto(b"host", (own_address(network.near[0], version), PORT))
            datagrams = await protocol.wait_for("datagram", 2)
            assert protocol.calls[0] == ("made",)
            assert {call[1] for call in datagrams} == {b"group", b"host"}
            transport.sendto(bytearray(b"to the host"), other.getsockname()[:2])
            data, sender = other.recvfrom(99)
            assert (data, sender[:2]) == (b"to the host", (own_address(network.near[0], version), PORT))
            transport.sendto(b"to the group", (GROUP[version], PORT))
            await asyncio.sleep(0.05)
            assert transport.get_extra_info("sockname")[1] == PORT
            assert transport.get_extra_info("socket").getsockname()[1] == PORT
            assert transport.get_extra_info("socket") in transport.get_extra_info("sockets")
            assert transport.get_extra_info("multicast_socket").port == PORT
            assert transport.get_extra_info("peername", "none") == "none"
            assert transport.get_protocol() is protocol
            transport.close()
            transport.close()
            assert transport.is_closing()
            await protocol.wait_for("lost")
            transport.sendto(b"ignored", (GROUP[version], PORT))
            transport.abort()
            await asyncio.sleep(0)
            assert [call[0] for call in protocol.calls] == ["made", "datagram", "datagram", "lost"]
            # As asyncio's own transports do, it still tells its name, which names it in a log.
            assert transport.get_extra_info("sockname")[1] == PORT
            assert transport.get_extra_info("socket") is transport.get_extra_info("sockets")[0]
            assert transport.get_extra_info("socket").fileno() == -1

    run(body)


def test_a_protocol_that_knows_datagrams(run: Callable[[Body], None], network: TwoLinks, version: int) -> None:
    """It gets each Datagram whole, and replies to it by its interface and from its address."""
    far = network.far[1][0]

    async def body() -> None:
        with udp_socket(far.node, version, (own_address(far, version), 0)) as asker:
            transport, protocol = await create_multicast_endpoint(
                Knowing, FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"]
            )
            asker.sendto(b"question", (own_address(network.near[1], version), PORT))
            ((_, datagram),) = await protocol.wait_for("multicast")
            assert (datagram.data, datagram.interface_name, datagram.group) == (b"question", "eth1", None)
            transport.reply(datagram, b"reply")
            assert asker.recvfrom(99)[1][:2] == (own_address(network.near[1], version), PORT)
            transport.abort()
            await protocol.wait_for("lost")

    run(body)


def test_refused_sends(run: Callable[[Body], None]) -> None:
    """They go to `error_received` and raise nothing; wrong types and no address raise at once, as in asyncio."""

    async def body() -> None:
        transport, protocol = await create_multicast_endpoint(Recorder, FAMILY[4], iface="eth0")
        transport.sendto(bytes(70_000), ("10.1.0.2", PORT))
        transport.sendto(b"", ("10.99.0.1", PORT))
        transport.sendto(b"", ("example.org", PORT))
        kinds = [type(call[1]) for call in await protocol.wait_for("error", 3)]
        assert kinds == [MulticastOSError, MulticastOSError, MulticastExpertError]
        with pytest.raises(TypeError, match="bytes-like"):
            transport.sendto("text", ("10.1.0.2", PORT))
        with pytest.raises(ValueError, match="needs one"):
            transport.sendto(b"")
        transport.close()
        await protocol.wait_for("lost")

    run(body)


def test_a_protocol_that_raises(run: Callable[[Body], None], network: TwoLinks) -> None:
    """The loop's exception handler gets it, and the next datagram is handed over all the same."""

    class Raising(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            raise RuntimeError("expected")

    async def body() -> None:
        transport, protocol = await create_multicast_endpoint(Raising, FAMILY[4], [GROUP[4]], PORT, iface="eth0")
        with udp_socket(network.host, 4) as other:
            for number in range(3):
                other.sendto(b"%d" % number, (own_address(network.near[0], 4), PORT))
            await protocol.wait_for("datagram", 3)
        transport.close()
        await protocol.wait_for("lost")

    run(body)


def test_closing_within_a_callback(run: Callable[[Body], None], network: TwoLinks) -> None:
    """After a close in `datagram_received` no further datagram comes, though more had arrived."""

    class Closing(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            self.transport.close()

    async def body() -> None:
        transport, protocol = await create_multicast_endpoint(Closing, FAMILY[4], [GROUP[4]], PORT, iface="eth0")
        with udp_socket(network.host, 4) as other:
            for number in range(5):
                other.sendto(b"%d" % number, (own_address(network.near[0], 4), PORT))
        await protocol.wait_for("lost")
        assert transport.is_closing()
        assert [call[0] for call in protocol.calls] == ["made", "datagram", "lost"]

    run(body)


def test_receiving_that_fails_for_good(run: Callable[[Body], None], monkeypatch: pytest.MonkeyPatch) -> None:
    """Each error is reported, after a while ten times a second; when receiving works again, datagrams come."""
    is_broken, real = True, AsyncMcastSocket.receive_many

    async def receive_many(self: AsyncMcastSocket, *arguments: Any) -> list[Datagram]:
        if is_broken:
            raise MulticastOSError(errno.EIO, "receive", "Receiving failed", "", "")
        return await real(self, *arguments)

    monkeypatch.setattr(AsyncMcastSocket, "receive_many", receive_many)

    async def body() -> None:
        nonlocal is_broken
        transport, recorder = await create_multicast_endpoint(Recorder, socket.AF_INET, [], 0, "lo")
        start = monotonic()
        await recorder.wait_for("error", 12)
        assert monotonic() - start > 0.4
        is_broken = False
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            sender.sendto(b"hello", ("127.0.0.1", transport.get_extra_info("sockname")[1]))
        await recorder.wait_for("datagram")
        is_broken = True
        transport.close()
        await recorder.wait_for("lost")

    run(body)


def test_closing_the_socket_itself(run: Callable[[Body], None]) -> None:
    """A program that closes the multicast socket ends the transport: `connection_lost` tells why."""

    async def body() -> None:
        transport, protocol = await create_multicast_endpoint(Recorder, FAMILY[4], [GROUP[4]], PORT, iface="eth0")
        await asyncio.sleep(0)
        transport.get_extra_info("multicast_socket").close()
        ((_, reason),) = await protocol.wait_for("lost")
        assert isinstance(reason, MulticastExpertError)

    run(body)


def test_flow_control(lab: Lab, version: int) -> None:
    """Over a slow line the protocol is told to pause and to resume; what was sent before close arrives, in order."""
    for name, make in LOOPS.items():
        host, other = lab.host(f"slow-{name}-{version}"), lab.host(f"far-{name}-{version}")
        near, far = lab.link(host, other, ipv4=("10.4.0.1/24", "10.4.0.2/24"), ipv6=("fd04::1/64", "fd04::2/64"))
        address = own_address(far, version), PORT
        count = 300

        async def body(address: tuple[str, int] = address, count: int = count) -> Recorder:
            transport, protocol = await create_multicast_endpoint(Recorder, FAMILY[version], iface="eth0")
            for sock in transport.get_extra_info("sockets"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            transport.set_write_buffer_limits(high=20_000)
            assert transport.get_write_buffer_limits() == (5_000, 20_000)
            for number in range(count):
                transport.sendto(number.to_bytes(4, "big") + bytes(1000), address)
            assert transport.get_write_buffer_size() > 20_000
            await protocol.wait_for("resume")
            transport.close()
            await protocol.wait_for("lost")
            return protocol

        with udp_socket(other, version, address) as judge, slow_line(near, "20mbit"):
            judge.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
            with host.entered(), contextlib.closing(make()) as loop:
                protocol = loop.run_until_complete(asyncio.wait_for(body(), 3 * PATIENCE))
            numbers = [int.from_bytes(judge.recv(2000)[:4], "big") for _ in range(count)]
        assert numbers == list(range(count))
        assert [call[0] for call in protocol.calls] == ["made", "pause", "resume", "lost"]


@pytest.mark.parametrize("rounds", [0, 1])
def test_all_tasks_are_cancelled(run: Callable[[Body], None], version: int, rounds: int) -> None:
    """A transport whose task was cancelled by others, even before it ran, is over, and says so."""

    async def body() -> None:
        before = asyncio.all_tasks()
        transport, recorder = await create_multicast_endpoint(
            Recorder, FAMILY[version], [GROUP[version]], PORT, iface="eth0"
        )
        for _ in range(rounds):
            await asyncio.sleep(0)
        for task in asyncio.all_tasks() - before:
            task.cancel()
        await recorder.wait_for("lost")
        assert transport.is_closing()

    run(body)


def test_all_tasks_are_cancelled_while_it_sends_the_last(lab: Lab) -> None:
    """A program that ends after `close`, with something that still waits for room, leaves no socket open."""
    for name, make in LOOPS.items():
        host, other = lab.host(f"ending-{name}"), lab.host(f"beyond-{name}")
        near, far = lab.link(host, other, ipv4=("10.5.0.1/24", "10.5.0.2/24"))
        address = own_address(far, 4), PORT

        async def body(address: tuple[str, int] = address) -> Recorder:
            transport, protocol = await create_multicast_endpoint(Recorder, FAMILY[4], iface="eth0")
            for sock in transport.get_extra_info("sockets"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
            while not transport.get_write_buffer_size():
                transport.sendto(bytes(1000), address)
            transport.close()
            return protocol

        with slow_line(near, "1mbit"), host.entered(), asyncio.Runner(loop_factory=make) as runner:
            protocol = runner.run(body())
        assert [call[0] for call in protocol.calls] == ["made", "lost"]


@pytest.mark.parametrize("make", LOOPS.values(), ids=LOOPS)
def test_a_protocol_that_ends_the_program(network: TwoLinks, make: Callable[[], asyncio.AbstractEventLoop]) -> None:
    """`sys.exit` in a callback ends the program as elsewhere: the transport is over, and nothing else is reported."""
    unhandled: list[dict[str, Any]] = []
    protocols: list[Recorder] = []

    class Ending(Recorder):
        def datagram_received(self, data: bytes, addr: Any) -> None:
            super().datagram_received(data, addr)
            protocols.append(self)
            sys.exit(3)

    async def body() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
        await create_multicast_endpoint(Ending, FAMILY[4], [GROUP[4]], PORT, iface="eth0")
        with udp_socket(network.host, 4) as other:
            other.sendto(b"end", (own_address(network.near[0], 4), PORT))
        await asyncio.sleep(PATIENCE)

    with network.host.entered(), pytest.raises(SystemExit), asyncio.Runner(loop_factory=make) as runner:
        runner.run(body())
    gc.collect()
    assert [call[0] for call in protocols[0].calls] == ["made", "datagram", "lost"]
    assert unhandled == []


def test_the_marks_between_pause_and_resume() -> None:
    """Above the high mark the protocol is told to pause, and to resume not before the low one: once each."""
    told: list[str] = []
    protocol = SimpleNamespace(pause_writing=lambda: told.append("pause"), resume_writing=lambda: told.append("resume"))
    transport: Any = SimpleNamespace(
        _high=100, _low=20, _is_paused=False, _protocol=protocol, _call=lambda method: method()
    )
    for size, said in ((100, []), (101, ["pause"]), (150, []), (100, []), (21, []), (20, ["resume"]), (99, [])):
        transport._size = size
        MulticastTransport._mind_the_limits(transport)
        assert told == said
        told.clear()
