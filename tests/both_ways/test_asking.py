"""Questions and answers: where they leave, from which address and port, and what comes back."""

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Generator, Sequence
from ipaddress import IPv4Address, IPv4Interface
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from both_ways.kinds import KINDS, Kind, everything
from both_ways.networks import TwoLinks, two_links
from linux.plain_sockets import FAMILY, any_address, join, nothing_for, own_address, udp_socket
from multicast_expert import Datagram, IfaceInfo, McastSocket, MulticastExpertError, MulticastOSError, extension
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.sockets.outlet import sending_many, sending_one
from multicast_expert.sockets.routes import Routes
from multicast_expert.testing import Interface, Lab, wait_until

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
LINK_LOCAL_GROUP = {4: "224.0.0.251", 6: "ff02::fb"}
PATIENCE = 10.0
IP_RECVTTL = 12
ASYNC_KINDS = [kind for kind in KINDS if kind.backend is not None]


@pytest.fixture(scope="module")
def network(lab: Lab) -> TwoLinks:
    """A host with two links; two other hosts on the first, three on the second."""
    return two_links(lab, (2, 3))


def opened_in(interface: Interface, kind: Kind, version: int, *args: Any, **options: Any) -> Any:
    """An open socket in the host of the interface."""
    with interface.node.entered():
        return kind.socket(FAMILY[version], *args, **options).open()


class Responder:
    """A plain program that has joined a group and answers each datagram by unicast from its own port."""

    def __init__(self, interface: Interface, group: str, port: int = PORT) -> None:
        self.version = 6 if ":" in group else 4
        self.socket = udp_socket(interface.node, self.version, (own_address(interface, self.version), 0))
        self.listening = udp_socket(interface.node, self.version, (any_address(self.version), port))
        join(self.listening, group, interface.index())
        self.name = own_address(interface, self.version)

    def answer(self) -> tuple[str, int]:
        """Answer one question; return the address and port that it came from."""
        data, asker = self.listening.recvfrom(65535)
        self.socket.sendto(b"answer to " + data, asker)
        return asker[0], asker[1]

    def close(self) -> None:
        """Close both sockets."""
        self.socket.close()
        self.listening.close()


async def test_a_search_over_two_interfaces(kind: Kind, network: TwoLinks, version: int) -> None:
    """A query from a free port over both links: five responders answer by unicast, each with its interface."""
    group = LINK_LOCAL_GROUP[version]
    with contextlib.ExitStack() as opened:
        responders = []
        for interface in (*network.far[0], *network.far[1]):
            responders.append(Responder(interface, group))
            opened.callback(responders[-1].close)
        sock = opened_in(network.near[0], kind, version, ifaces=["eth0", "eth1"])
        opened.callback(sock.close)
        assert sock.port > 0
        answers: list[Datagram] = []
        answering = threading.Thread(target=lambda: [responder.answer() for responder in responders])
        answering.start()
        opened.callback(answering.join, PATIENCE)
        async with contextlib.aclosing(sock.query(b"search", (group, PORT), timeout=PATIENCE)) as found:
            async for datagram in found:
                answers.append(datagram)
                if len(answers) == 5:
                    break
    by_address = {datagram.sender[0]: datagram for datagram in answers}
    assert set(by_address) == {responder.name for responder in responders}
    for number, interfaces in enumerate(network.far):
        for interface in interfaces:
            answer = by_address[own_address(interface, version)]
            assert (answer.data, answer.interface_name) == (b"answer to search", f"eth{number}")
            # A question to a group of the link leaves with the link-local address.
            asked_from = network.near[number].link_local if version == 6 else network.near[number].ipv4
            assert (answer.group, answer.destination) == (None, asked_from)


async def test_a_query_ends_with_its_time(kind: Kind, network: TwoLinks, version: int) -> None:
    """It yields what comes until the time is over, and then ends without an error."""
    sock = opened_in(network.near[0], kind, version, [GROUP[version]], PORT, ifaces=["eth0", "eth1"])
    with contextlib.closing(sock):
        assert [each async for each in sock.query(b"anybody", (GROUP[version], PORT), timeout=0.05)] == []


async def test_reply_to_a_question_to_the_group(kind: Kind, network: TwoLinks, version: int) -> None:
    """The reply comes from the port that was asked, and from an address of the interface that the question came to."""
    sock = opened_in(network.near[0], kind, version, [GROUP[version]], PORT, ifaces=["eth0", "eth1"])
    with contextlib.closing(sock):
        for number in (0, 1):
            far = network.far[number][0]
            asker = opened_in(far, KINDS[0], version, iface="eth0", timeout=PATIENCE)
            with contextlib.closing(asker):
                await asker.sendto(b"question", (GROUP[version], PORT))
                question = await sock.receive(timeout=PATIENCE)
                assert (question.group, question.destination) == (GROUP[version], GROUP[version])
                await sock.reply(question, b"reply")
                answer = await asker.receive()
                assert (answer.data, answer.sender[:2]) == (
                    b"reply",
                    (own_address(network.near[number], version), PORT),
                )


async def test_reply_with_the_address_that_was_asked(kind: Kind, network: TwoLinks, version: int) -> None:
    """The second address of an interface was asked, so the reply comes from there; also from a stored copy."""
    near, far = network.near[0], network.far[0][0]
    second = "10.1.0.99" if version == 4 else "fd01::99"
    network.host.ip(f"addr add {second}/{24 if version == 4 else 64} dev eth0{'' if version == 4 else ' nodad'}")
    try:
        # Linux takes up an IPv6 address a moment after it was added.
        wait_until(lambda: network.host.command("ip", "route", "get", second).startswith("local"), "the second address")
        sock = opened_in(near, kind, version, [GROUP[version]], PORT, iface="eth0")
        with contextlib.closing(sock), udp_socket(far.node, version, (own_address(far, version), 0)) as asker:
            for address in (second, own_address(near, version)):
                asker.sendto(b"question", (address, PORT))
                question = await sock.receive(timeout=PATIENCE)
                assert (question.group, question.destination) == (None, address)
                parts = {name: getattr(question, name) for name in Datagram.__match_args__}
                stored = Datagram(**{**parts, "sender": list(question.sender)})  # as JSON stores it
                await sock.reply(stored, b"reply")
                assert asker.recvfrom(99)[1][:2] == (address, PORT)
    finally:
        network.host.ip(f"addr del {second}/{24 if version == 4 else 64} dev eth0")


def captured(interface: Interface) -> socket.socket:
    """A packet socket that hears what leaves and enters one interface, from now on."""
    with interface.node.entered():
        packets = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        packets.bind((interface.name, 3))
        return packets


def udp_that_left(packets: socket.socket, version: int) -> list[tuple[str, str, bytes]]:
    """Source, destination and payload of the UDP datagrams that left meanwhile."""
    found = []
    while select.select([packets], [], [], 0.2)[0]:
        frame, (_, _, kind, *_) = packets.recvfrom(65535)
        offset, sources, udp = (14 + 20, 12, 9) if version == 4 else (14 + 40, 8, 6)
        size = 4 if version == 4 else 16
        is_ip = frame[12:14] == (b"\x08\x00" if version == 4 else b"\x86\xdd")
        if kind == socket.PACKET_OUTGOING and is_ip and frame[14 + udp] == socket.IPPROTO_UDP:
            source, target = (
                socket.inet_ntop(FAMILY[version], frame[14 + sources + at : 14 + sources + at + size])
                for at in (0, size)
            )
            found.append((source, target, frame[offset + 8 :].rstrip(b"\0")))
    return found


async def test_reply_leaves_by_the_interface_on_one_subnet(kind: Kind, lab: Lab, version: int) -> None:
    """eth0 and eth1 have addresses of one subnet and share a link: each reply leaves by the interface of its question.

    The frames on both interfaces show it, and their source address.
    """
    name = f"{kind.name}-{version}"
    host, far, switch = lab.host(f"twice-{name}"), lab.host(f"asker-{name}"), lab.switch(f"subnet-{name}")
    near = []
    for number in range(2):
        ipv4, ipv6 = f"10.6.0.{number + 1}/24", f"fd06::{number + 1}/64"
        near.append(lab.plug(host, switch, ipv4=ipv4, ipv6=ipv6, interface=f"eth{number}"))
    asking = lab.plug(far, switch, ipv4="10.6.0.9/24", ipv6="fd06::9/64")
    with contextlib.ExitStack() as opened:
        sock = opened_in(near[0], kind, version, [GROUP[version]], PORT, ifaces=["eth0", "eth1"])
        opened.callback(sock.close)
        asker = opened_in(asking, KINDS[0], version, iface="eth0", timeout=PATIENCE)
        opened.callback(asker.close)
        await asker.sendto(b"question", (GROUP[version], PORT))
        questions = [await sock.receive(timeout=PATIENCE) for _ in range(2)]
        assert {question.interface_name for question in questions} == {"eth0", "eth1"}
        captures = {each.name: opened.enter_context(captured(each)) for each in near}
        for question in questions:
            await sock.reply(question, f"by {question.interface_name}".encode())
        answers = {(await asker.receive()).data for _ in questions}
        left = {interface: udp_that_left(packets, version) for interface, packets in captures.items()}
    assert answers == {b"by eth0", b"by eth1"}
    asker_address = own_address(asking, version)
    for number, interface in enumerate(near):
        own = own_address(interface, version)
        assert left[interface.name] == [(own, asker_address, f"by eth{number}".encode())]


async def test_a_group_goes_out_of_each_interface_or_the_named_one(kind: Kind, network: TwoLinks, version: int) -> None:
    """Without a name out of each, from the one port; with iface= or a scope out of one only, whoever has joined."""
    group = LINK_LOCAL_GROUP[version]
    with contextlib.ExitStack() as opened:
        sock = opened_in(network.near[0], kind, version, ifaces=["eth0", "eth1"])
        opened.callback(sock.close)
        listeners = []
        for interfaces in network.far:
            listeners.append(opened_in(interfaces[0], KINDS[0], version, [group], PORT, iface="eth0", timeout=PATIENCE))
            opened.callback(listeners[-1].close)
        ways: list[tuple[bytes, tuple[Any, ...], dict[str, Any], set[int]]] = [
            (b"each", (group, PORT), {}, {0, 1}),
            (b"eth0 by name", (group, PORT), {"iface": "eth0"}, {0}),
            (b"eth1 by address", (group, PORT), {"iface": own_address(network.near[1], version)}, {1}),
        ]
        if version == 6:
            index = network.near[1].index()
            ways += [
                (b"eth1 by scope", (f"{group}%eth1", PORT), {}, {1}),
                (b"eth1 by index", (group, PORT, 0, index), {}, {1}),
                (b"eth1 by number", (f"{group}%{index}", PORT), {}, {1}),
                (b"eth1 twice", (f"{group}%eth1", PORT, 0, index), {"iface": "eth1"}, {1}),
            ]
        for data, address, options, links in ways:
            await sock.sendto(data, address, **options)
            await sock.send_many([data], address, **options)
            for number in links:
                for _ in range(2):
                    heard = await listeners[number].receive()
                    assert (heard.data, heard.sender[1]) == (data, sock.port)
        assert [await everything(listener) for listener in listeners] == [[], []]


@pytest.mark.parametrize(
    ("address", "options", "words"),
    [
        (("example.org", PORT), {}, "is not an IP address"),
        (("ff02::fb%eth9", PORT), {}, "eth9"),
        (("ff02::fb", PORT, 0, 9999), {}, "9999"),
        (("ff02::fb%eth0", PORT), {"iface": "eth1"}, "differ: eth0 and eth1"),
        (("ff02::fb", PORT), {"iface": "lo"}, "lo is none of the interfaces of this socket; it sends on: eth0, eth1"),
        (("239.1.1.1", PORT), {}, "IPv4"),
        (("ff02::fb", 0), {}, "port 0 is out of range"),
        (("::", PORT), {}, "not the address of a host"),
    ],
)
async def test_what_cannot_be_meant(
    kind: Kind, network: TwoLinks, address: tuple[Any, ...], options: dict[str, Any], words: str
) -> None:
    """A name, a scope that is none of its interfaces, the other IP version: each is refused and nothing is sent."""
    sock = opened_in(network.near[0], kind, 6, ifaces=["eth0", "eth1"])
    with contextlib.closing(sock), pytest.raises(MulticastExpertError, match=words):
        await sock.sendto(b"", address, **options)


@pytest.mark.parametrize("address", ["255.255.255.255", "10.1.0.255"])
async def test_broadcasts_are_refused(kind: Kind, network: TwoLinks, address: str) -> None:
    """In words, and before anything is sent."""
    sock = opened_in(network.near[0], kind, 4, ifaces=["eth0", "eth1"])
    with contextlib.closing(sock), pytest.raises(MulticastExpertError, match="is a broadcast address"):
        await sock.sendto(b"", (address, PORT))


async def test_to_a_host_as_routed(kind: Kind, network: TwoLinks, version: int) -> None:
    """A datagram to a host takes the route, comes from the one port, and goes as far as the OS lets it, or as asked."""
    hops = {4: (socket.IPPROTO_IP, IP_RECVTTL), 6: (socket.IPPROTO_IPV6, socket.IPV6_RECVHOPLIMIT)}
    sock = opened_in(network.near[0], kind, version, ifaces=["eth0", "eth1"])
    with contextlib.closing(sock):
        for number in (0, 1):
            far = network.far[number][0]
            with udp_socket(far.node, version, (own_address(far, version), PORT)) as judge:
                judge.setsockopt(*hops[version], 1)
                for asked, expected in ((None, 64), (3, 3), (None, 64)):
                    await sock.sendto(b"to you", (own_address(far, version), PORT), hop_limit=asked)
                    data, messages, _, sender = judge.recvmsg(99, 99)
                    assert (data, sender[:2]) == (b"to you", (own_address(network.near[number], version), sock.port))
                    assert struct.unpack("=i", messages[0][2])[0] == expected
                assert await sock.send_many([b"1", b"2"], (own_address(far, version), PORT)) == 2
                assert [judge.recv(99) for _ in range(2)] == [b"1", b"2"]


async def test_a_named_address_is_the_source(kind: Kind, network: TwoLinks, version: int) -> None:
    """Of two addresses of an interface, datagrams to groups leave with the one that the interface was named by."""
    second = "10.1.0.98" if version == 4 else "fd01::98"
    network.host.ip(f"addr add {second}/{24 if version == 4 else 64} dev eth0{'' if version == 4 else ' nodad'}")
    far = network.far[0][0]
    listener = opened_in(far, KINDS[0], version, [GROUP[version]], PORT, iface="eth0", timeout=PATIENCE)
    try:
        for address in (second, own_address(network.near[0], version)):
            sock = opened_in(network.near[0], kind, version, iface=address)
            with contextlib.closing(sock):
                for hops in (None, 5):
                    await sock.sendto(b"", (GROUP[version], PORT), hop_limit=hops)
                    await sock.send_many([b"1", b"2"], (GROUP[version], PORT), hop_limit=hops)
                    for _ in range(3):
                        heard = await listener.receive()
                        assert (heard.sender[:2], heard.hop_limit) == ((address, sock.port), hops or 1)
    finally:
        listener.close()
        network.host.ip(f"addr del {second}/{24 if version == 4 else 64} dev eth0")


async def test_hop_limit_of_a_group(kind: Kind, network: TwoLinks, version: int) -> None:
    """`ttl` to groups, or what the call says."""
    sock = opened_in(network.near[0], kind, version, iface="eth0", ttl=7)
    listener = opened_in(network.far[0][0], KINDS[0], version, [GROUP[version]], PORT, iface="eth0", timeout=PATIENCE)
    with contextlib.closing(sock), contextlib.closing(listener):
        for asked, expected in ((None, 7), (3, 3), (None, 7)):
            await sock.sendto(b"", (GROUP[version], PORT), hop_limit=asked)
            assert (await listener.receive()).hop_limit == expected


async def test_a_link_local_asker(kind: Kind, network: TwoLinks) -> None:
    """A question from fe80:: is answered there, by the interface that it came in on."""
    near, far = network.near[1], network.far[1][0]
    sock = opened_in(near, kind, 6, [GROUP[6]], PORT, ifaces=["eth0", "eth1"])
    with contextlib.closing(sock), udp_socket(far.node, 6) as asker:
        asker.bind((far.link_local, 0, 0, far.index()))
        asker.sendto(b"to the group", (f"{LINK_LOCAL_GROUP[6]}", PORT, 0, far.index()))
        asker.sendto(b"to the host", (near.link_local, PORT, 0, far.index()))
        question = await sock.receive(timeout=PATIENCE)
        assert (question.data, question.destination, question.group) == (b"to the host", near.link_local, None)
        await sock.reply(question, b"reply")
        data, sender = asker.recvfrom(99)
        assert (data, sender[0].partition("%")[0], sender[1]) == (b"reply", near.link_local, PORT)
        await sock.sendto(b"later", (far.link_local, asker.getsockname()[1], 0, near.index()))
        assert asker.recv(99) == b"later"


async def test_one_descriptor(kind: Kind, network: TwoLinks, version: int) -> None:
    """`fileno()` is readable while a datagram is there: in the kernel of any socket, or taken and not handed out."""
    near = network.near[0]
    sock = opened_in(near, kind, version, [GROUP[version]], PORT, ifaces=["eth0", "eth1"])
    with contextlib.closing(sock), udp_socket(network.host, version) as other:
        descriptor = sock.fileno()
        assert select.select([descriptor], [], [], 0)[0] == []
        for number in range(3):
            other.sendto(b"%d" % number, (own_address(near, version), PORT))
        asker = opened_in(network.far[1][0], KINDS[0], version, iface="eth0")
        with contextlib.closing(asker):
            await asker.send_many([bytes(100)] * 10, (GROUP[version], PORT))
        taken: list[bytes] = []
        while len(taken) < 13:
            assert select.select([descriptor], [], [], PATIENCE)[0] == [descriptor]
            # What the coalesced run leaves is kept, and told by something that must not be received itself.
            taken += [datagram.data for datagram in await sock.receive_many(limit=4 if taken else 1)]
        assert sorted(taken) == [*sorted([bytes(100)] * 10), b"0", b"1", b"2"]
        assert select.select([descriptor], [], [], 0)[0] == []


async def test_closing_twice(kind: Kind, network: TwoLinks, version: int) -> None:
    """A second close does nothing; any other call says that it is not open; it may be opened again."""
    sock = opened_in(network.near[0], kind, version, [GROUP[version]], ifaces=["eth0", "eth1"])
    first = sock.port
    sock.close()
    sock.close()
    never = kind.socket(FAMILY[version], [GROUP[version]], iface="lo")
    question = Datagram(b"", (own_address(network.far[0][0], version), PORT), GROUP[version], 1)
    for closed in (sock, never):
        calls = (
            closed.sendto(b"", (GROUP[version], PORT)),
            closed.send_many([b""], (GROUP[version], PORT)),
            closed.reply(question, b""),
            closed.receive(),
        )
        for call in calls:
            with pytest.raises(MulticastExpertError, match="is not open"):
                await call
        for function in (closed.fileno, closed.filenos, closed.getsockname, closed.stats):
            with pytest.raises(MulticastExpertError, match="is not open"):
                function()
        closed.close()
    with network.host.entered():
        sock.open()
    assert 0 not in (first, sock.port)
    sock.close()


async def test_a_free_port_is_the_same_on_all_sockets(kind: Kind, network: TwoLinks, version: int) -> None:
    """Port 0: unicast to both interfaces, the groups, and what it sends, all have the one port that `port` names."""
    sock = opened_in(network.near[0], kind, version, [GROUP[version]], ifaces=["eth0", "eth1"])
    with contextlib.closing(sock):
        assert sock.getsockname()[1] == sock.port
        for number in (0, 1):
            asker = opened_in(network.far[number][0], KINDS[0], version, iface="eth0", timeout=PATIENCE)
            with contextlib.closing(asker):
                await asker.sendto(b"group", (GROUP[version], sock.port))
                await asker.sendto(b"host", (own_address(network.near[number], version), sock.port))
                got = {(await sock.receive(timeout=PATIENCE)).data for _ in range(2)}
                assert got == {b"group", b"host"}
                await sock.sendto(b"from", (own_address(network.far[number][0], version), asker.port))
                assert (await asker.receive()).sender[1] == sock.port


@pytest.mark.parametrize("face", ASYNC_KINDS, ids=lambda kind: kind.name)
def test_many_tasks(face: Kind, network: TwoLinks) -> None:
    """Of many tasks on one socket, some ask and some answer, all at once: each answer comes once."""
    group = GROUP[4]

    async def body() -> None:
        server = opened_in(network.near[0], face, 4, [group], PORT, iface="eth0")
        client = opened_in(network.far[0][0], face, 4, iface="eth0")
        answers: list[bytes] = []

        async def serve() -> None:
            while True:
                question = await server.receive()
                await server.reply(question, b"re " + question.data)

        async def ask(number: int) -> None:
            await client.sendto(b"%d" % number, (group, PORT))
            answers.append((await client.receive(timeout=PATIENCE)).data)

        with contextlib.closing(server), contextlib.closing(client):
            async with anyio.create_task_group() as tasks:
                for _ in range(3):
                    tasks.start_soon(serve)
                async with anyio.create_task_group() as askers:
                    for number in range(50):
                        askers.start_soon(ask, number)
                tasks.cancel_scope.cancel()
        assert sorted(answers) == sorted(b"re %d" % number for number in range(50))

    face.run(body)


def test_what_was_prepared(network: TwoLinks, version: int) -> None:
    """The extension sends a prepared reply as often as asked, not through a closed socket, and nothing else."""
    if extension.native is None:
        pytest.skip("the extension is not there")
    far = network.far[0][0]
    address = own_address(far, version), PORT
    with udp_socket(network.host, version) as sender, udp_socket(far.node, version, address) as judge:
        shortcut = extension.native.Shortcut(sender.fileno(), 1)
        destination = shortcut.prepare(address)
        for payload in (b"1", b"2"):
            assert shortcut.send_prepared(payload, destination, b"")
            assert judge.recv(99) == payload
        assert not shortcut.send_prepared(bytearray(b"no bytes"), destination, b"")
        for wrong in ((b"", b"short", b""), (b"", destination, bytes(65))):
            with pytest.raises(ValueError, match="prepared"):
                shortcut.send_prepared(*wrong)
        for arguments in ((b"", destination), (b"", "text", b""), (b"", destination, None)):
            with pytest.raises(TypeError):
                shortcut.send_prepared(*arguments)
        for unlike in (("example.org", PORT), "text", ()):
            with pytest.raises((TypeError, ValueError, OSError)):
                shortcut.prepare(unlike)
        with pytest.raises(OSError, match="Message too long"):
            shortcut.send_prepared(bytes(70_000), destination, b"")
        shortcut.set_hop_limit(-1)
        assert not shortcut.send_prepared(b"", destination, b"")
        assert nothing_for(judge)


def test_wrong_parameters(network: TwoLinks) -> None:
    """Values that cannot work are refused before a socket exists."""
    with network.host.entered():
        for options, words in (
            ({"unicast": "some"}, "unicast="),
            ({"unicast": ["239.1.1.1"]}, "not the address of a host"),
            ({"ttl": 256}, "out of range"),
            ({"dscp": 64}, "out of range"),
            ({"port": 70000}, "out of range"),
            ({"mcast_ips": ["10.0.0.1"]}, "not a multicast address"),
        ):
            with pytest.raises(MulticastExpertError, match=words):
                McastSocket(socket.AF_INET, **options)
        with (
            pytest.raises(MulticastOSError, match=r"Cannot bind to 10\.99\.99\.99"),
            McastSocket(socket.AF_INET, unicast=["10.99.99.99"]) as sock,
        ):
            assert sock


async def test_an_interface_that_comes_with_a_group(kind: Kind, network: TwoLinks, version: int) -> None:
    """A group that is joined on one more interface is answered out of that."""
    sock = opened_in(network.near[0], kind, version, [], PORT, iface="eth0")
    asker = opened_in(network.far[1][0], KINDS[0], version, iface="eth0", timeout=PATIENCE)
    with contextlib.closing(sock), contextlib.closing(asker):
        with network.host.entered():
            sock.join_group(GROUP[version], iface="eth1")
        await asker.sendto(b"question", (GROUP[version], PORT))
        question = await sock.receive(timeout=PATIENCE)
        await sock.reply(question, b"answer")
        answer = await asker.receive()
        sender = own_address(network.near[1], version), PORT
        assert (answer.data, answer.sender[:2], question.interface_name) == (b"answer", sender, "eth1")


async def test_its_own_address(kind: Kind, network: TwoLinks, version: int) -> None:
    """The one interface's, where there is one; otherwise any."""
    for ifaces, own in ((["eth1"], own_address(network.near[1], version)), (["eth0", "eth1"], any_address(version))):
        sock = opened_in(network.near[0], kind, version, [], PORT, ifaces=ifaces)
        with contextlib.closing(sock):
            assert sock.getsockname()[:2] == (own, PORT)


class Exit:
    """Stands for an outlet that sends, or does not."""

    def __init__(self, works: bool, required: bool) -> None:
        self.works = works
        self.asked = SimpleNamespace(required=required)

    def send(self) -> bool:
        """Send."""
        if not self.works:
            raise MulticastOSError(99, "send", "Cannot send", "its address is tentative", "wait")
        return True


@pytest.mark.parametrize(
    ("exits", "fails"),
    [
        ([Exit(True, False), Exit(False, False)], False),
        ([Exit(False, False), Exit(True, False)], False),
        ([Exit(False, False), Exit(False, False)], True),
        ([Exit(False, True), Exit(True, True)], True),
        ([Exit(False, False), Exit(False, True), Exit(True, False)], True),
    ],
)
def test_an_interface_that_nobody_named(exits: list[Any], fails: bool) -> None:
    """It may fail where another one sends; one that was named may not."""
    steps = sending_one(exits, lambda outlet: outlet.send(), lambda: None)  # type: ignore[attr-defined]
    with pytest.raises(MulticastOSError) if fails else contextlib.nullcontext():
        assert list(steps) == []


@pytest.mark.parametrize(
    ("network", "address", "refused"),
    [
        ("10.0.0.1/24", "10.0.0.255", True),
        ("10.0.0.1/30", "10.0.0.3", True),
        # RFC 3021: a link of two hosts has no broadcast address.
        ("10.0.0.0/31", "10.0.0.1", False),
        ("10.0.0.1/32", "10.0.0.1", False),
    ],
)
def test_the_other_end_of_a_link_is_no_broadcast(network: str, address: str, refused: bool) -> None:
    """A network of two addresses, or of one, has hosts only."""
    iface = IfaceInfo("ppp0", 7, None, (IPv4Interface(network),), ())
    outlets: Any = {"ppp0": SimpleNamespace(choice=InterfaceChoice(iface))}
    routes = Routes(4, outlets, lambda _: None)
    with pytest.raises(MulticastExpertError, match="broadcast") if refused else contextlib.nullcontext():
        routes._refuse_broadcast(IPv4Address(address))


def test_a_datagram_that_one_interface_refuses() -> None:
    """It is tried on the others too, nothing is sent after it, and the count is what left from all."""
    payloads = [b"%d" % number for number in range(40)]
    sent: dict[str, list[bytes]] = {"strict": [], "easy": []}

    def send(outlet: Any, batch: Sequence[bytes]) -> int:
        count = batch.index(b"20") if outlet.name == "strict" and b"20" in batch else len(batch)
        if not count:
            raise MulticastOSError(90, "send", "Cannot send", "it is too long", "send less")
        sent[outlet.name] += batch[:count]
        return count

    exits: list[Any] = [SimpleNamespace(name=name) for name in sent]
    totals: list[int] = []

    def steps() -> Generator[Any, None, None]:
        totals.append((yield from sending_many(exits, payloads, send, lambda: None)))

    assert set(steps()) == {None}
    assert totals == [20]
    assert sent == {"strict": payloads[:20], "easy": payloads[:21]}
