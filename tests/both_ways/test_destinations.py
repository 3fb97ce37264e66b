"""What an address to send to may look like, on every class that sends; and replies with no interface to send from."""

import contextlib
import socket
from ipaddress import IPv6Address
from typing import Any

import pytest

from both_ways.kinds import Kind
from both_ways.networks import TwoLinks, two_links
from linux.plain_sockets import FAMILY, own_address, udp_socket
from multicast_expert import Datagram, MulticastExpertError, UnknownInterfaceError
from multicast_expert.testing import Host, Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff02::5"}
PATIENCE = 10.0
LOOPBACK = {4: "127.0.0.1", 6: "::1"}
WRONG: dict[int, list[tuple[Any, str]]] = {
    4: [
        (("239.1.2.3",), r"is not an address to send to: \(ip, port\)\."),
        (("239.1.2.3", PORT, 0, 0), "is not an address to send to"),
        (["239.1.2.3", PORT], "is not an address to send to"),
        ("239.1.2.3:5000", "is not an address to send to"),
        (None, "None is not an address to send to"),
        ((b"239.1.2.3", PORT), "is not an address to send to"),
        ((["239.1.2.3"], PORT), "is not an address to send to"),
        ((4009754625, PORT), "is not an address to send to"),
        (("239.1.2.3%", PORT), "'239.1.2.3%' is not an IP address"),
        (("239.1.2.3", True), "port True is not a number"),
        (("239.1.2.3", "5000"), "port '5000' is not a number"),
    ],
    6: [
        ((), r"is not an address to send to: \(ip, port\) or \(ip, port, flow info, scope id\)"),
        (("ff02::5", PORT, 0, 0, 0), "is not an address to send to"),
        (("ff02::5%", PORT), "'ff02::5%' is not an IP address"),
        (("ff02::5%10.1.0.1", PORT), "The scope 10.1.0.1 of ff02::5 is none of the interfaces"),
        (("ff02::5", PORT, 1 << 20, 0), "flow info 1048576 of ff02::5 is not a number from 0 to 1048575"),
        (("ff02::5", PORT, -1), "flow info -1 of ff02::5"),
        (("ff02::5", PORT, None, 0), "flow info None of ff02::5"),
        (("ff02::5", PORT, 0, 1 << 32), "scope id 4294967296 of ff02::5"),
        (("ff02::5", PORT, 0, "eth0"), "scope id 'eth0' of ff02::5"),
        (("ff02::5", PORT, 0, True), "scope id True of ff02::5"),
        (("::ffff:239.1.1.1", PORT), "is the IPv4 address 239.1.1.1: .*AF_INET"),
        (("::ffff:10.1.0.2", PORT, 0, 0), "is the IPv4 address 10.1.0.2: .*AF_INET"),
    ],
}


@pytest.fixture(scope="module")
def network(lab: Lab) -> TwoLinks:
    """A host with two links, and another host on each."""
    return two_links(lab)


@pytest.fixture(scope="module")
def alone(lab: Lab) -> Host:
    """A host with nothing but its loopback interface."""
    return lab.host("alone")


@pytest.mark.parametrize("sends", ["socket", "transmitter"])
async def test_wrong_addresses(kind: Kind, network: TwoLinks, version: int, sends: str) -> None:
    """Each class that sends refuses the same addresses in the same words, by each call, also after right ones."""
    with network.host.entered():
        made = getattr(kind, sends)(FAMILY[version], [GROUP[version]], iface="eth0")
        async with made as sock:
            await sock.sendto(b"right", (GROUP[version], PORT))
            for address, words in WRONG[version]:
                with pytest.raises(MulticastExpertError, match=words):
                    await sock.sendto(b"wrong", address)
                with pytest.raises(MulticastExpertError, match=words):
                    await sock.send_many([b"wrong"], address)


@pytest.mark.parametrize("sends", ["socket", "transmitter"])
async def test_right_addresses(kind: Kind, network: TwoLinks, sends: str) -> None:
    """All that names the group on its interface, with the largest flow info too, is sent there."""
    near, far = network.near[0], network.far[0][0]
    index = near.index()
    with network.host.entered():
        sender = getattr(kind, sends)(socket.AF_INET6, [GROUP[6]], iface="eth0").open()
    with far.node.entered():
        receiver = kind.receiver(socket.AF_INET6, [GROUP[6]], PORT, "eth0", timeout=PATIENCE).open()
    with contextlib.closing(receiver), contextlib.closing(sender):
        for address in (
            ("ff02::5", PORT),
            ("ff02::5%eth0", PORT),
            (f"ff02::5%{index}", PORT),
            (IPv6Address("ff02::5%eth0"), PORT),
            ("ff02::5%0", PORT, 0),
            ("FF02:0::5", PORT, (1 << 20) - 1, index),
        ):
            await sender.sendto(b"one", address)
            assert (await receiver.receive()).data == b"one"
            assert await sender.send_many([b"many"], address) == 1
            assert (await receiver.receive()).data == b"many"


async def test_an_interface_that_the_socket_does_not_have(kind: Kind, network: TwoLinks) -> None:
    """One of this host is called just that; one that the host lacks is unknown, with a list of all there are."""
    index = network.near[1].index()
    with network.host.entered():
        async with kind.socket(socket.AF_INET6, iface="eth0") as sock:
            for address, iface in (
                (("ff02::5%eth1", PORT), None),
                ((f"ff02::5%{index}", PORT), None),
                (("ff02::5", PORT, 0, index), None),
                (("ff02::5", PORT), "eth1"),
                (("ff02::5", PORT), index),
                (("ff02::5", PORT), "fd01:1::1"),
                (("fd01:1::2", PORT), "eth1"),
            ):
                with pytest.raises(MulticastExpertError) as caught:
                    await sock.sendto(b"", address, iface=iface)
                assert str(caught.value).endswith(" is none of the interfaces of this socket; it sends on: eth0.")
                assert not isinstance(caught.value, UnknownInterfaceError)
            for address, iface in (
                (("ff02::5%eth9", PORT), None),
                (("ff02::5", PORT, 0, 9999), None),
                (("ff02::5", PORT), "eth9"),
                (("ff02::5", PORT), "10.99.0.1"),
            ):
                with pytest.raises(UnknownInterfaceError, match=r"lo.*eth0.*eth1"):
                    await sock.sendto(b"", address, iface=iface)


async def test_no_datagram_to_reply_to(kind: Kind, network: TwoLinks) -> None:
    """It is refused in words; when the socket is closed, that comes first."""
    with network.host.entered():
        sock = kind.socket(socket.AF_INET, iface="eth0").open()
    for thing in (None, b"data", ("10.1.0.2", PORT)):
        with pytest.raises(MulticastExpertError, match="is not a Datagram to reply to"):
            await sock.reply(thing, b"")
    sock.close()
    for thing in (None, Datagram(b"", ("10.1.0.2", PORT))):
        with pytest.raises(MulticastExpertError, match=r"not open|closed"):
            await sock.reply(thing, b"")
    with pytest.raises(MulticastExpertError, match=r"not open|closed"):
        await sock.sendto(b"", None)


@pytest.mark.parametrize("wish", ["any", "the address"])
@pytest.mark.parametrize("allow_missing", [False, True])
async def test_replies_where_there_is_only_loopback(
    kind: Kind, alone: Host, version: int, wish: str, allow_missing: bool
) -> None:
    """A socket for unicast needs no interface: it replies from the address and the port that were asked."""
    asked = "127.0.0.9" if version == 4 and wish == "any" else LOOPBACK[version]
    unicast: Any = wish if wish == "any" else [asked]
    with contextlib.ExitStack() as opened:
        with alone.entered():
            sock = kind.socket(FAMILY[version], unicast=unicast, allow_missing=allow_missing).open()
        opened.callback(sock.close)
        asker = opened.enter_context(udp_socket(alone, version, (LOOPBACK[version], 0)))
        for _ in range(2):
            asker.sendto(b"question", (asked, sock.port))
            question = await sock.receive(timeout=PATIENCE)
            assert (question.destination, question.interface_name) == (asked, "lo")
            await sock.reply(question, b"reply")
            assert [part[:2] if isinstance(part, tuple) else part for part in asker.recvfrom(99)] == [
                b"reply",
                (asked, sock.port),
            ]
        with pytest.raises(MulticastExpertError, match="No interface of this socket is there to send from"):
            await sock.sendto(b"", (LOOPBACK[version], PORT))


async def test_groups_need_an_interface(kind: Kind, alone: Host, version: int) -> None:
    """With groups to join, or unicast to the addresses of its interfaces only, a socket without any is refused."""
    with alone.entered():
        for groups, unicast in (([GROUP[version]], "any"), ([], True), ([], []), ([], False)):
            with pytest.raises(MulticastExpertError, match="No interface to listen on"):
                kind.socket(FAMILY[version], groups, unicast=unicast)


async def test_the_name_of_an_interface_that_the_socket_does_not_have(
    kind: Kind, network: TwoLinks, version: int
) -> None:
    """Unicast that comes in by eth1 to a socket of eth0 has the index and the name of eth1."""
    address = own_address(network.near[1], version)
    with contextlib.ExitStack() as opened:
        with network.host.entered():
            sock = kind.socket(FAMILY[version], iface="eth0", unicast="any").open()
        opened.callback(sock.close)
        far = network.far[1][0]
        asker = opened.enter_context(udp_socket(far.node, version, (own_address(far, version), 0)))
        asker.sendto(b"question", (address, sock.port))
        question = await sock.receive(timeout=PATIENCE)
        assert (question.interface_index, question.interface_name) == (network.near[1].index(), "eth1")
        await sock.reply(question, b"reply")
        assert asker.recvfrom(99)[1][:2] == (address, sock.port)
