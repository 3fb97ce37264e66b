"""Senders go on sending after their interface was deleted and recreated, or got other addresses."""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from linux.plain_sockets import FAMILY, member_on, nothing_for, udp_socket, until
from multicast_expert import (
    AsyncMcastTxSocket,
    McastRxSocket,
    McastSocket,
    McastTxSocket,
    MulticastExpertError,
    MulticastOSError,
)
from multicast_expert.testing import Host
from network.faults import ADDRESS, FAULTS, NEW_ADDRESS, delete_and_recreate, readdress
from network.traffic import GROUP, PORT, TwoWires, two_wires

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@contextlib.contextmanager
def judges(wires: TwoWires, version: int) -> Iterator[dict[str, socket.socket]]:
    """Plain receivers at the other ends: a on the wire of eth0, b on that of eth1."""
    with contextlib.ExitStack() as opened:
        yield {
            name: opened.enter_context(member_on(talker, GROUP[version], PORT))
            for name, talker in wires.talkers.items()
        }


def sources(receiver: socket.socket, payload: bytes) -> str:
    """The address of the sender of the next datagram, which has this payload."""
    data, sender = receiver.recvfrom(100)
    assert data == payload
    return str(sender[0])


@both_versions
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_sends_again_at_once(wires: TwoWires, version: int, fault: Callable[[Host], None]) -> None:
    """The first datagram after eth0 is usable again goes out of it, from its address of then, and from the same port.

    That holds for a sender that was given the interface by name, and for one that was given it by address; except that
    Linux lets an IPv6 socket go on sending from the address that it was given after that was taken away.
    """
    source = NEW_ADDRESS[version] if fault is readdress else ADDRESS[version]
    given_address = ADDRESS[version] if version == 6 else source
    destination = GROUP[version], PORT
    with (
        judges(wires, version) as judge,
        McastTxSocket(FAMILY[version], [GROUP[version]], "eth0") as by_name,
        McastTxSocket(FAMILY[version], [GROUP[version]], ADDRESS[version]) as by_address,
    ):
        for sender in (by_name, by_address):
            sender.sendto(b"before", destination)
            assert sources(judge["a"], b"before") == ADDRESS[version]
        ports = by_name.getsockname()[1], by_address.getsockname()[1]
        fault(wires.listener)
        for sender, expected in ((by_name, source), (by_address, given_address)):
            sender.sendto(b"after", destination)
            assert sources(judge["a"], b"after") == expected
        assert (by_name.getsockname()[1], by_address.getsockname()[1]) == ports


@both_versions
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_many_go_on(wires: TwoWires, version: int, fault: Callable[[Host], None]) -> None:
    """What `send_many` has yet to send when the fault comes goes out when the interface is back, each payload once."""
    payloads = [b"%02d" % number for number in range(60)]

    def with_a_fault() -> Iterator[bytes]:
        yield from payloads[:20]
        fault(wires.listener)
        yield from payloads[20:]

    with judges(wires, version) as judge, McastTxSocket(FAMILY[version], [GROUP[version]], "eth0") as sender:
        assert sender.send_many(with_a_fault(), (GROUP[version], PORT)) == 60
        assert [data for _, data in until([judge["a"]], 60)] == payloads
        assert nothing_for(judge["a"])


@pytest.mark.slow
@both_versions
@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_sends_again_on_an_event_loop(wires: TwoWires, version: int, loop: str) -> None:
    """The awaited sender finds its interface again in the same way."""
    destination = GROUP[version], PORT

    async def scenario() -> None:
        async with AsyncMcastTxSocket(FAMILY[version], [GROUP[version]], "eth0") as sender:
            await sender.sendto(b"before", destination)
            delete_and_recreate(wires.listener)
            await sender.sendto(b"after", destination)

    with judges(wires, version) as judge:
        anyio.run(scenario, backend=loop)
        assert [sources(judge["a"], payload) for payload in (b"before", b"after")] == [ADDRESS[version]] * 2


@both_versions
def test_without_healing_it_reports_the_loss_for_ever(wires: TwoWires, version: int) -> None:
    """With heal=False, sending goes on to fail after the interface is back with another index."""
    with McastTxSocket(FAMILY[version], [GROUP[version]], "eth0", heal=False) as sender:
        delete_and_recreate(wires.listener)
        for _ in range(2):
            with pytest.raises(MulticastOSError):
                sender.sendto(b"lost", (GROUP[version], PORT))


@both_versions
def test_the_other_interfaces_go_on(wires: TwoWires, version: int) -> None:
    """While one of two interfaces is away, its error is raised after the other has sent; once it is back, both send."""
    destination = GROUP[version], PORT
    with (
        judges(wires, version) as judge,
        McastTxSocket(FAMILY[version], [GROUP[version]], ifaces=["eth0", "eth1"]) as sender,
    ):
        wires.listener.remove_interface("eth0")
        for _ in range(2):
            with pytest.raises(MulticastOSError, match="eth0"):
                sender.sendto(b"half", destination)
        assert until([judge["b"]], 2) == [(judge["b"], b"half")] * 2
        wires.listener.recreate_interface("eth0")
        sender.sendto(b"whole", destination)
        assert until([judge["a"]], 1) == [(judge["a"], b"whole")]
        assert until([judge["b"]], 1) == [(judge["b"], b"whole")]


@both_versions
def test_the_hop_limit_of_the_call_is_kept(wires: TwoWires, version: int) -> None:
    """The datagram that finds its interface changed has the hop limit of its own call; the next the usual one."""
    level, receive, kind = {
        4: (socket.IPPROTO_IP, 12, 2),  # IP_RECVTTL, IP_TTL of linux/in.h
        6: (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT, socket.IPV6_HOPLIMIT),
    }[version]
    with judges(wires, version) as judge, McastTxSocket(FAMILY[version], [GROUP[version]], "eth0", ttl=3) as sender:
        judge["a"].setsockopt(level, receive, 1)
        delete_and_recreate(wires.listener)
        sender.sendto(b"far", (GROUP[version], PORT), hop_limit=7)
        sender.sendto(b"near", (GROUP[version], PORT))
        hops = []
        for _ in range(2):
            _, messages, _, _ = judge["a"].recvmsg(100, 100)
            hops += [int.from_bytes(data, "little") for _, number, data in messages if number == kind]
    assert hops == [7, 3]


@both_versions
@pytest.mark.parametrize("kind", [McastTxSocket, McastSocket], ids=["one way", "both ways"])
def test_a_priority_that_was_changed_is_kept(wires: TwoWires, version: int, kind: Any) -> None:
    """A `dscp` that was set meanwhile holds on the new socket; what the child of a fork sets is the child's alone."""
    with (
        wires.talkers["a"].node.entered(),
        McastRxSocket(FAMILY[version], [GROUP[version]], PORT, "eth0", timeout=5, traffic_class=True) as judge,
    ):
        with wires.listener.entered(), kind(FAMILY[version], [GROUP[version]], iface="eth0", dscp=10) as sender:
            sender.sendto(b"first", (GROUP[version], PORT))
            sender.dscp = 46
            assert sender.dscp == 46
            delete_and_recreate(wires.listener)
            sender.sendto(b"back", (GROUP[version], PORT))
            child = os.fork()
            if child == 0:
                status = 1
                try:
                    sender.dscp = 8
                    sender.sendto(b"child", (GROUP[version], PORT))
                    status = 0
                finally:
                    os._exit(status)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
            sender.sendto(b"parent", (GROUP[version], PORT))
        heard = [judge.receive() for _ in range(4)]
    assert [(each.data, (each.traffic_class or 0) >> 2) for each in heard] == [
        (b"first", 10), (b"back", 46), (b"child", 8), (b"parent", 46),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", [McastTxSocket, McastSocket], ids=["one way", "both ways"])
def test_a_priority_is_set_before_and_taken_back(kind: Any) -> None:
    """It may be set before the socket is opened, and None is the system's own; what makes no sense changes nothing."""
    with two_wires() as wires, wires.listener.entered():
        sender = kind(FAMILY[6], [GROUP[6]], iface="eth0")
        sender.dscp = 46
        with sender:
            own = sender._outlets if kind is McastTxSocket else list(sender._equipment.outlets.values())
            marks = [own[0].socket.socket.getsockopt(41, 67)]
            with pytest.raises(MulticastExpertError, match="dscp '8'"):
                sender.dscp = "8"
            assert sender.dscp == 46
            sender.dscp = None
            marks.append(own[0].socket.socket.getsockopt(41, 67))
        assert marks == [46 << 2, 0]


@pytest.mark.slow
def test_an_address_that_cannot_be_used_yet_is_tried_again() -> None:
    """While duplicate address detection runs on the interface that came back, sending fails; then it goes on."""
    with two_wires(dad=True) as wires, wires.listener.entered(), judges(wires, 6) as judge:
        with McastTxSocket(socket.AF_INET6, [GROUP[6]], ADDRESS[6]) as sender:
            eth0 = wires.listener.interface("eth0")
            wires.listener.remove_interface("eth0")
            eth0.addresses.remove("fd01::1/64")
            wires.listener.recreate_interface("eth0")
            wires.listener.ip("addr add fd01::1/64 dev eth0")
            with pytest.raises(MulticastOSError):
                sender.sendto(b"too early", (GROUP[6], PORT))
            eth0.wait_until_addresses_are_usable()
            sender.sendto(b"in time", (GROUP[6], PORT))
            assert sources(judge["a"], b"in time") == ADDRESS[6]


def test_a_port_that_another_program_has_taken_is_given_up(wires: TwoWires) -> None:
    """If another program has got hold of the old port on the new address, sending goes on from another port."""
    with judges(wires, 4) as judge, McastTxSocket(socket.AF_INET, [GROUP[4]], "eth0") as sender:
        port = sender.getsockname()[1]
        wires.listener.replace_address("eth0", f"{NEW_ADDRESS[4]}/24")
        with udp_socket(wires.listener, 4, (NEW_ADDRESS[4], port), reuse=False):
            sender.sendto(b"from elsewhere", (GROUP[4], PORT))
            assert sources(judge["a"], b"from elsewhere") == NEW_ADDRESS[4]
            assert sender.getsockname()[1] != port
