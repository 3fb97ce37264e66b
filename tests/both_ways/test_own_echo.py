"""What a socket sent is not handed back to it, exactly; every other socket of the host hears it."""

import contextlib
import socket
from typing import Any

import pytest

from both_ways.kinds import Kind, everything
from both_ways.networks import TwoLinks, two_links
from linux.plain_sockets import FAMILY, any_address, join, own_address, udp_socket, until
from multicast_expert import McastSocket
from multicast_expert.core.datagram import Datagram
from multicast_expert.engine.own_echo import OwnEcho
from multicast_expert.system import kernel
from multicast_expert.system.marks import Mark, Screen, own_filter
from multicast_expert.testing import Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
LONG = b"long" * 2000
"""Does not fit a frame."""
RUN = [bytes([65 + number]) * 1000 for number in range(20)]
"""Payloads that Linux takes in one piece (GSO)."""
PATIENCE = 10.0


@pytest.fixture(scope="module")
def network(lab: Lab) -> TwoLinks:
    """A host with two links."""
    return two_links(lab)


def opened_on(network: TwoLinks, kind: Kind, version: int, **options: Any) -> Any:
    """An open socket on both links."""
    with network.host.entered():
        return kind.socket(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"], **options).open()


async def send_everything(sock: Any, version: int) -> list[bytes]:
    """Send short, long and many datagrams; return what was sent out of each interface."""
    address = GROUP[version], PORT
    await sock.sendto(b"short", address)
    await sock.sendto(LONG, address)
    assert await sock.send_many(RUN, address) == len(RUN)
    return sorted([b"short", LONG, *RUN])


async def heard_by(sock: Any, count: int) -> list[Datagram]:
    """So many datagrams, and what else is there."""
    datagrams: list[Datagram] = []
    while len(datagrams) < count:
        datagrams += await sock.receive_many(timeout=PATIENCE)
    return datagrams + await everything(sock)


@pytest.mark.parametrize("gro", [True, False], ids=["gro", "no gro"])
async def test_a_second_instance_with_the_same_address_and_port(
    kind: Kind, network: TwoLinks, version: int, gro: bool
) -> None:
    """Two sockets of this process share address and port, and send the same: each hears the other, and never itself.

    Short datagrams, fragments, and runs that the kernel cuts.
    """
    with contextlib.ExitStack() as opened:
        first, second = (opened_on(network, kind, version, unicast=False, gro=gro) for _ in range(2))
        opened.callback(first.close)
        opened.callback(second.close)
        judge = opened.enter_context(udp_socket(network.host, version, (any_address(version), PORT)))
        for interface in network.near:
            join(judge, GROUP[version], interface.index())
        judge.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        sent = await send_everything(first, version)
        await second.sendto(b"second", (GROUP[version], PORT))
        to_second = await heard_by(second, 2 * len(sent))
        to_first = await heard_by(first, 2)
        to_judge = [data for _, data in until([judge], 2 * len(sent) + 2)]
    assert sorted(datagram.data for datagram in to_second) == sorted(2 * sent)
    assert [(datagram.data, datagram.interface_name) for datagram in to_first] == [
        (b"second", "eth0"),
        (b"second", "eth1"),
    ]
    assert sorted(to_judge) == sorted([*sent, *sent, b"second", b"second"])


async def test_unicast_to_oneself(kind: Kind, network: TwoLinks, version: int) -> None:
    """What it sends to an address of its own does not come back either; what another socket sends there does."""
    address = own_address(network.near[0], version), PORT
    with contextlib.closing(opened_on(network, kind, version)) as sock, udp_socket(network.host, version) as other:
        await sock.sendto(b"own", address)
        other.sendto(b"other", address)
        assert (await sock.receive(timeout=PATIENCE)).data == b"other"
        assert await everything(sock) == []


async def test_own_when_asked_for(kind: Kind, network: TwoLinks, version: int) -> None:
    """With own=True it hears itself, once for each interface."""
    with contextlib.closing(opened_on(network, kind, version, own=True)) as sock:
        await sock.sendto(b"own", (GROUP[version], PORT))
        datagrams = await heard_by(sock, 2)
    assert [(datagram.data, datagram.interface_name) for datagram in datagrams] == [(b"own", "eth0"), (b"own", "eth1")]


async def test_a_socket_that_was_closed_before(kind: Kind, network: TwoLinks, version: int) -> None:
    """Each opening has marks of its own: what an earlier one of the same object sent is not its own any more."""
    sock = opened_on(network, kind, version, unicast=False)
    other = opened_on(network, kind, version, unicast=False)
    with contextlib.closing(other):
        sock.close()
        with network.host.entered():
            sock.open()
        await other.sendto(b"other", (GROUP[version], PORT))
        assert [each.data for each in await heard_by(sock, 2)] == [b"other"] * 2
        sock.close()


async def test_two_interfaces_of_one_link(kind: Kind, lab: Lab, version: int) -> None:
    """What leaves one interface and comes in on the other one over the wire is its own, too.

    A second socket of the same process hears it on both.
    """
    name = f"{kind.name}-{version}"
    host, switch = lab.host(f"host-{name}"), lab.switch(f"link-{name}")
    for number in range(2):
        ipv4, ipv6 = f"10.7.0.{number + 1}/24", f"fd07::{number + 1}/64"
        lab.plug(host, switch, ipv4=ipv4, ipv6=ipv6, interface=f"eth{number}")
    with contextlib.ExitStack() as opened:
        with host.entered():
            sockets = [
                kind.socket(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"], unicast=False).open()
                for _ in range(2)
            ]
        for each in sockets:
            opened.callback(each.close)
        sent = await send_everything(sockets[0], version)
        # IPv4 drops what comes from the wire with an address of its own.
        ways = 4 if version == 6 else 2
        to_other = await heard_by(sockets[1], ways * len(sent))
        await sockets[1].sendto(b"second", (GROUP[version], PORT))
        to_itself = await heard_by(sockets[0], ways)
    assert sorted(datagram.data for datagram in to_other) == sorted(ways * sent)
    assert [datagram.data for datagram in to_itself] == [b"second"] * ways


async def test_without_marks(kind: Kind, network: TwoLinks, version: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel has no marks, payloads are compared: a second instance hears it all, and it hears nothing."""
    monkeypatch.setattr(type(kernel.SYSTEM), "marks", None)
    with contextlib.ExitStack() as opened:
        first, second = (opened_on(network, kind, version, unicast=False) for _ in range(2))
        opened.callback(first.close)
        opened.callback(second.close)
        sent = await send_everything(first, version)
        to_second = await heard_by(second, 2 * len(sent))
        await second.sendto(b"second", (GROUP[version], PORT))
        to_first = await heard_by(first, 2)
    assert sorted(datagram.data for datagram in to_second) == sorted(2 * sent)
    assert [datagram.data for datagram in to_first] == [b"second"] * 2


async def test_a_kernel_that_keeps_no_number(
    kind: Kind, network: TwoLinks, version: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets of all sockets have the number 0 there, so payloads are compared: nothing of others is dropped."""
    monkeypatch.setattr("multicast_expert.system.marks.SendMarks.give", lambda *_: None)
    with contextlib.ExitStack() as opened:
        sock = opened_on(network, kind, version, unicast=False)
        opened.callback(sock.close)
        other = opened.enter_context(udp_socket(network.host, version, (any_address(version), PORT)))
        if version == 6:
            other.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, network.near[0].index())
        else:
            other.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(network.near[0].ipv4))
        await sock.sendto(b"own", (GROUP[version], PORT))
        other.sendto(b"other", (GROUP[version], PORT))
        assert [each.data for each in await heard_by(sock, 1)] == [b"other"]


def test_without_a_loopback_interface(lab: Lab, version: int) -> None:
    """Where lo is down no mark can be read, and payloads are compared."""
    host, other = lab.host(f"no-lo-{version}"), lab.host(f"no-lo-other-{version}")
    lab.link(host, other, ipv4=("10.8.0.1/24", "10.8.0.2/24"), ipv6=("fd08::1/64", "fd08::2/64"))
    host.ip("link set lo down")
    with host.entered():
        first = McastSocket(FAMILY[version], [GROUP[version]], PORT, iface="eth0", unicast=False, timeout=PATIENCE)
        second = McastSocket(FAMILY[version], [GROUP[version]], PORT, iface="eth0", unicast=False, timeout=PATIENCE)
        with first, second:
            first.sendto(b"first", (GROUP[version], PORT))
            second.sendto(b"second", (GROUP[version], PORT))
            assert [sock.recv() for sock in (first, second)] == [b"second", b"first"]
            for sock in (first, second):
                sock.settimeout(0)
                assert sock.recv() is None


def test_an_echo_is_recognised_once() -> None:
    """The same payload a second time, or from another port or host, is another socket's."""
    echo = OwnEcho(object(), 4, PORT)  # type: ignore[arg-type] # a kernel without marks
    echo.send_from({"10.0.0.1"})
    mine = Datagram(b"payload", ("10.0.0.1", PORT), "239.1.2.3")
    assert not echo.is_own(mine)
    echo.note(b"payload")
    assert not echo.is_own(Datagram(b"payload", ("10.0.0.1", PORT + 1), "239.1.2.3"))
    assert not echo.is_own(Datagram(b"payload", ("10.0.0.2", PORT), "239.1.2.3"))
    assert [echo.is_own(mine), echo.is_own(mine)] == [True, False]


@pytest.mark.parametrize("count", [0, 1, 300])
def test_the_kernel_takes_the_filter(lab: Lab, count: int) -> None:
    """Of any number of marks and addresses, as on a host with hundreds of interfaces."""
    from multicast_expert.system.socket_filter import attach

    marks = tuple(Mark(number + 1, number) for number in range(count))
    screen = Screen(marks, PORT, tuple(bytes([254, 128, *bytes(12), *divmod(number, 256)]) for number in range(count)))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as receiver:
        attach(receiver, own_filter(screen))
        attach(receiver, own_filter(screen._replace(hosts_only=True)))
