"""plain_sockets, join and leave: sockets of Python for programs that have a loop of their own."""

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import pytest

from both_ways.networks import TwoLinks, two_links
from linux.plain_sockets import (
    FAMILY,
    any_address,
    member_on,
    nothing_for,
    open_sockets,
    own_address,
    sender_on,
    udp_socket,
    until,
)
from multicast_expert import MulticastExpertError, MulticastOSError, join, leave, plain_sockets
from multicast_expert.testing import Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
OTHER = {4: "239.1.2.4", 6: "ff15::1:2:4"}


@pytest.fixture(scope="module")
def links(lab: Lab) -> TwoLinks:
    """A host with two links."""
    return two_links(lab)


@pytest.fixture
def network(links: TwoLinks) -> Iterator[TwoLinks]:
    """The same; the test runs in the host."""
    with links.host.entered():
        yield links


def send(network: TwoLinks, version: int, group: str, data: bytes, link: int = 0) -> None:
    """Send to a group from the other host of a link."""
    with sender_on(network.far[link][0], version) as sender:
        sender.sendto(data, (group, PORT))


def test_one_for_each_interface(network: TwoLinks, version: int) -> None:
    """Each receives its groups on its interface only, and unicast, and sends out of its interface from the port."""
    with contextlib.ExitStack() as opened:
        made = plain_sockets(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"], ttl=3)
        for sock, _ in made:
            opened.enter_context(sock)
        assert [iface.machine_name for _, iface in made] == ["eth0", "eth1"]
        eavesdropper = opened.enter_context(member_on(network.near[0], OTHER[version], PORT))
        for sock, _ in made:
            assert (type(sock), sock.getblocking(), sock.proto) == (socket.socket, False, socket.IPPROTO_UDP)
        for link in (0, 1):
            send(network, version, OTHER[version], b"other group", link)
            send(network, version, GROUP[version], b"link %d" % link, link)
        assert sorted(data for _, data in until([sock for sock, _ in made], 2)) == [b"link 0", b"link 1"]
        until([eavesdropper], 1)
        for link, (sock, _) in enumerate(made):
            far = network.far[link][0]
            with member_on(far, GROUP[version], PORT) as judge:
                sock.sendto(b"out", (GROUP[version], PORT))
                assert judge.recvfrom(99)[1][:2] == (own_address(network.near[link], version), PORT)
            assert until([sock], 1)[0][1] == b"out"
        assert all(nothing_for(sock) for sock, _ in made)


def test_in_an_event_loop(network: TwoLinks, version: int) -> None:
    """`create_datagram_endpoint(sock=…)` takes it as it is."""
    received: list[bytes] = []

    class Protocol(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, addr: object) -> None:
            received.append(data)

    async def body() -> None:
        ((sock, _),) = plain_sockets(FAMILY[version], [GROUP[version]], PORT, "eth0")
        transport, _ = await asyncio.get_running_loop().create_datagram_endpoint(Protocol, sock=sock)
        send(network, version, GROUP[version], b"hello")
        while not received:
            await asyncio.sleep(0.001)
        transport.close()

    asyncio.run(asyncio.wait_for(body(), 10))
    assert received == [b"hello"]


def test_a_free_port_and_no_bind(network: TwoLinks, version: int) -> None:
    """Port 0: one for all; `bind=False`: the program binds."""
    made = plain_sockets(FAMILY[version], ifaces=["eth0", "eth1"])
    assert len({sock.getsockname()[1] for sock, _ in made} - {0}) == 1
    ((unbound, _),) = plain_sockets(FAMILY[version], [GROUP[version]], PORT, "eth0", bind=False)
    with unbound:
        assert unbound.getsockname()[1] == 0
        unbound.bind((GROUP[version], PORT))
        send(network, version, GROUP[version], b"hello")
        assert until([unbound], 1)[0][1] == b"hello"
    for sock, _ in made:
        sock.close()


def test_a_refused_step_leaves_nothing(network: TwoLinks, version: int) -> None:
    """When the port is another program's, no socket stays open."""
    with udp_socket(network.host, version, (any_address(version), PORT), reuse=False):
        before = open_sockets()
        with pytest.raises(MulticastOSError, match=f"Cannot bind to .* port {PORT}"):
            plain_sockets(FAMILY[version], [GROUP[version]], PORT, ifaces=["eth0", "eth1"])
        assert open_sockets() <= before


def test_joining_with_a_socket_of_the_program(network: TwoLinks, version: int) -> None:
    """On one interface or on all; leaving ends it; a source of its own; leaving twice is an error."""
    with udp_socket(network.host, version, (any_address(version), PORT)) as sock:
        join(sock, GROUP[version])
        for link in (0, 1):
            send(network, version, GROUP[version], b"link %d" % link, link)
        assert sorted(data for _, data in until([sock], 2)) == [b"link 0", b"link 1"]
        leave(sock, GROUP[version])
        join(sock, GROUP[version], iface="eth1", source=own_address(network.far[1][0], version))
        send(network, version, GROUP[version], b"again", 1)
        assert until([sock], 1)[0][1] == b"again"
        leave(sock, GROUP[version], iface="eth1", source=own_address(network.far[1][0], version))
        send(network, version, GROUP[version], b"too late", 1)
        with pytest.raises(MulticastOSError, match="leave"):
            leave(sock, GROUP[version], iface="eth1")
        with pytest.raises(MulticastExpertError, match="not a multicast address"):
            join(sock, own_address(network.far[1][0], version))


def test_a_join_that_fails_on_one_interface_is_undone(network: TwoLinks, version: int) -> None:
    """The group is joined already on the last interface: then it is joined on no other one, either."""
    with udp_socket(network.host, version, (any_address(version), PORT)) as sock:
        join(sock, GROUP[version], iface="eth1")
        with pytest.raises(MulticastOSError, match="join"):
            join(sock, GROUP[version])
        with pytest.raises(MulticastOSError, match="leave"):
            leave(sock, GROUP[version], iface="eth0")
        leave(sock, GROUP[version], iface="eth1")


def test_leaving_after_the_interfaces_have_changed(lab: Lab, version: int) -> None:
    """One has come, and one has lost its address: the group is left wherever it was joined."""
    host = two_links(lab, name=f"changing{version}").host
    with host.entered(), udp_socket(host, version, (any_address(version), PORT)) as sock:
        join(sock, GROUP[version])
        host.ip(
            "addr flush dev eth1",
            "link add also0 type veth peer name also1",
            "addr add 10.3.0.1/24 dev also0",
            "addr add fd03::1/64 dev also0",
            "link set also0 up",
        )
        leave(sock, GROUP[version])
        for iface in ("eth0", "eth1", None):
            with pytest.raises(MulticastOSError, match="leave"):
                leave(sock, GROUP[version], iface=iface)


def test_a_dual_stack_socket(network: TwoLinks) -> None:
    """One IPv6 socket that takes IPv4 too joins groups of both."""
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        sock.bind(("::", PORT))
        for version in (4, 6):
            join(sock, GROUP[version], iface="eth0")
            send(network, version, GROUP[version], b"IPv%d" % version)
            assert until([sock], 1)[0][1] == b"IPv%d" % version
