"""What transmitters do in all faces: several interfaces, DSCP, any group, full buffers, addresses not yet ready."""

import contextlib
import errno
import os
import socket
from time import monotonic
from typing import Any

import anyio
import pytest

from faces.faces import ALL_FACES, ASYNC_FACES, PATIENCE, PLAIN_FACES, Face, each_of, wait_until
from faces.network import GROUP, OTHER_GROUP, PORT, Network, family
from linux.judges import slow_line
from linux.plain_sockets import LEVEL, all_closed, join, member_on, nothing_for, open_descriptors
from multicast_expert import MulticastExpertError, MulticastOSError, NotOpenError
from multicast_expert.testing import Host, Interface, Lab

# ip(7), ipv6(7): what switches the received traffic class on, and the control message that it comes in; then hop limit.
RECEIVE_CLASS = {4: 13, 6: 66}
CLASS = {4: 1, 6: 67}
RECEIVE_HOPS = {4: 12, 6: 51}
HOPS = {4: 2, 6: 52}


face = each_of(PLAIN_FACES)


every_selector = pytest.mark.parametrize("face", ALL_FACES, indirect=True, ids=lambda face: face.name)


def judge_on(interface: Interface, group: str) -> socket.socket:
    """A plain socket that gets what is sent to the group through this interface, and nothing that comes by another."""
    judge = member_on(interface, group, PORT)
    judge.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode() + b"\0")
    return judge


def heard(judge: socket.socket, count: int) -> list[bytes]:
    """The next datagrams that a plain socket gets."""
    return [judge.recv(65535) for _ in range(count)]


def control(judge: socket.socket) -> dict[tuple[int, int], int]:
    """The control messages of the next datagram; all of these hold a small number, in their first byte."""
    _, messages, _, _ = judge.recvmsg(65535, 256)
    return {(level, kind): data[0] for level, kind, data in messages}


async def test_many_at_once(face: Face, network: Network, version: int) -> None:
    """`send_many` sends each payload once, in order, from any iterable, and returns how many."""
    with judge_on(network.far[0], GROUP[version]) as judge:
        async with face.transmitter(family(version), [GROUP[version]], "eth0") as transmitter:
            payloads = [b"%d" % number for number in range(200)]
            assert await transmitter.send_many(iter(payloads), (GROUP[version], PORT)) == 200
            assert await transmitter.send_many([], (GROUP[version], PORT)) == 0
        assert heard(judge, 200) == payloads
        assert nothing_for(judge)


async def test_a_payload_that_is_refused_ends_it(face: Face, network: Network, version: int) -> None:
    """`send_many` stops at a payload that the OS refuses and tells how many went; where it is the first, it raises."""
    too_long = bytes(65_536)
    with judge_on(network.far[0], GROUP[version]) as judge:
        async with face.transmitter(family(version), [GROUP[version]], "eth0") as transmitter:
            assert await transmitter.send_many([b"1", b"2", too_long, b"4"], (GROUP[version], PORT)) == 2
            with pytest.raises(MulticastOSError, match="larger than UDP can carry"):
                await transmitter.send_many([too_long, b"4"], (GROUP[version], PORT))
        assert heard(judge, 2) == [b"1", b"2"]
        assert nothing_for(judge)


async def test_several_interfaces(face: Face, network: Network, version: int) -> None:
    """With several interfaces, each datagram leaves each of them once, with that interface's own address."""
    with contextlib.ExitStack() as judges:
        far = [judges.enter_context(judge_on(each, GROUP[version])) for each in network.far]
        async with face.transmitter(
            family(version), [GROUP[version]], ifaces=["eth0", "eth1", "eth0"], ttl=3
        ) as transmitter:
            assert [iface.machine_name for iface in transmitter.network_interfaces] == ["eth0", "eth1"]
            assert len(set(transmitter.filenos())) == 2
            assert transmitter.fileno() == transmitter.filenos()[0]
            await transmitter.sendto(b"one", (GROUP[version], PORT))
            assert await transmitter.send_many([b"two", b"three"], (GROUP[version], PORT)) == 2
        for judge, near in zip(far, network.near, strict=True):
            received = [judge.recvfrom(100) for _ in range(3)]
            assert [data for data, _ in received] == [b"one", b"two", b"three"]
            assert {sender[0] for _, sender in received} == {near.ipv4 if version == 4 else near.ipv6}
            assert nothing_for(judge)


@pytest.mark.parametrize("dscp", [None, 0, 46, 63])
async def test_dscp(face: Face, network: Network, version: int, dscp: int | None) -> None:
    """`dscp=` arrives in the upper six bits of the traffic class; without it they are 0."""
    with judge_on(network.far[0], GROUP[version]) as judge:
        judge.setsockopt(LEVEL[version], RECEIVE_CLASS[version], 1)
        async with face.transmitter(family(version), [GROUP[version]], "eth0", dscp=dscp) as transmitter:
            await transmitter.sendto(b"x", (GROUP[version], PORT))
        assert control(judge)[LEVEL[version], CLASS[version]] == (dscp or 0) << 2


async def test_the_hop_limit_of_each(face: Face, network: Network, version: int) -> None:
    """`hop_limit=` is for one datagram, out of every interface, and the next one goes as far as `ttl` says."""
    with contextlib.ExitStack() as judges:
        far = [judges.enter_context(judge_on(each, GROUP[version])) for each in network.far]
        async with face.transmitter(family(version), [GROUP[version]], ifaces=["eth0", "eth1"], ttl=9) as transmitter:
            for hop_limit in (None, 1, 255, None):
                await transmitter.sendto(b"x", (GROUP[version], PORT), hop_limit=hop_limit)
        for judge in far:
            # It is switched on after the datagrams are there: the kernel reads the hop limit from the packet.
            judge.setsockopt(LEVEL[version], RECEIVE_HOPS[version], 1)
            assert [control(judge)[LEVEL[version], HOPS[version]] for _ in range(4)] == [9, 1, 255, 9]


async def test_any_group(face: Face, network: Network, version: int) -> None:
    """Without groups it sends to any group, and to nothing else."""
    with judge_on(network.far[0], GROUP[version]) as judge:
        join(judge, OTHER_GROUP[version], network.far[0].index())
        async with face.transmitter(family(version), iface="eth0") as transmitter:
            assert transmitter.mcast_ips == []
            for group in (GROUP[version], OTHER_GROUP[version]):
                await transmitter.sendto(group.encode(), (group, PORT))
            for address in (network.source(version), GROUP[10 - version], "nonsense"):
                with pytest.raises(MulticastExpertError):
                    await transmitter.sendto(b"refused", (address, PORT))
        assert heard(judge, 2) == [GROUP[version].encode(), OTHER_GROUP[version].encode()]
        assert nothing_for(judge)


async def test_a_closed_transmitter(face: Face, network: Network, version: int) -> None:
    """It opens and closes like a receiver, and says so when it is used while closed."""
    before = open_descriptors()
    transmitter = face.transmitter(family(version), [GROUP[version]], "eth0")
    for use in (
        lambda: transmitter.sendto(b"x", (GROUP[version], PORT)),
        lambda: transmitter.send_many([b"x"], (GROUP[version], PORT)),
    ):
        with pytest.raises(MulticastExpertError, match="not open") as refused:
            await use()
        assert isinstance(refused.value, OSError)
        assert refused.value.errno == errno.EBADF
    for ask in (transmitter.close, transmitter.fileno, transmitter.filenos, transmitter.getsockname):
        with pytest.raises(NotOpenError, match="not open"):
            ask()
    for _ in range(2):
        transmitter.open()
        with pytest.raises(MulticastExpertError, match="already"):
            transmitter.open()
        await transmitter.sendto(b"x", (GROUP[version], PORT))
        transmitter.close()
    all_closed(before)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"ttl": 256}, "out of range"),
        ({"ttl": -1}, "out of range"),
        ({"dscp": 64}, "dscp 64"),
        ({"dscp": -1}, "dscp -1"),
        ({"mcast_ips": []}, "at least one group"),
        ({"mcast_ips": ["10.1.0.1"]}, "not a multicast address"),
        ({"ifaces": []}, "at least one interface"),
        ({"ifaces": ["eth0"], "iface": "eth1"}, "iface and ifaces"),
    ],
)
async def test_input_that_cannot_work(face: Face, network: Network, parameters: dict[str, Any], words: str) -> None:
    """Input that cannot work is refused before any socket exists."""
    complete = {"mcast_ips": [GROUP[4]], **({} if "ifaces" in parameters else {"iface": "eth0"}), **parameters}
    with pytest.raises(MulticastExpertError, match=words):
        face.transmitter(family(4), **complete)


# A slow line: what is sent waits in the queue of the interface and counts as the sender's until it has left.


def shrink_send_buffer(transmitter: Any) -> None:
    """Make the send buffer as small as the kernel allows: it holds four datagrams of this file at most."""
    for descriptor in transmitter.filenos():
        with socket.socket(fileno=os.dup(descriptor)) as same:
            same.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)


PAYLOAD = bytes(1000)


@every_selector
async def test_a_full_send_buffer_waits(face: Face, network: Network, version: int) -> None:
    """A sender that is faster than the line waits for room, and everything arrives, once and in order."""
    payloads = [b"%03d" % number + PAYLOAD for number in range(60)]
    with slow_line(network.near[0], "4mbit"), judge_on(network.far[0], GROUP[version]) as judge:
        async with face.transmitter(family(version), [GROUP[version]], "eth0") as transmitter:
            shrink_send_buffer(transmitter)
            start = monotonic()
            assert await transmitter.send_many(payloads, (GROUP[version], PORT)) == 60
            assert monotonic() - start > 0.05, "it never had to wait: this test shows nothing"
        assert [data[:3] for data in heard(judge, 60)] == [payload[:3] for payload in payloads]
        assert nothing_for(judge)


@every_selector
async def test_hop_limits_while_others_wait_for_room(face: Face, network: Network, version: int) -> None:
    """Of several that send at once over a full line, each datagram goes with the hop limit that was given for it."""
    with slow_line(network.near[0], "4mbit"), judge_on(network.far[0], GROUP[version]) as judge:
        judge.setsockopt(LEVEL[version], RECEIVE_HOPS[version], 1)
        async with face.transmitter(family(version), [GROUP[version]], "eth0", ttl=1) as transmitter:
            shrink_send_buffer(transmitter)

            def sends(hop_limit: int) -> Any:
                async def send() -> None:
                    payload = bytes([hop_limit]) + PAYLOAD
                    for _ in range(8):
                        await transmitter.sendto(payload, (GROUP[version], PORT), hop_limit=hop_limit)

                return send

            async with face.beside(*(sends(hop_limit) for hop_limit in (10, 20, 30))) as sending:
                assert await sending.outcomes() == [None] * 3
        for _ in range(24):
            data, messages, _, _ = judge.recvmsg(2000, 256)
            assert [value[0] for _, _, value in messages] == [data[0]]


@every_selector
async def test_closing_wakes_who_waits_for_room(face: Face, network: Network, version: int) -> None:
    """Who waits for room when the transmitter is closed gets a NotOpenError, promptly."""
    before = open_descriptors()
    with slow_line(network.near[0], "8kbit"):
        transmitter = face.transmitter(family(version), [GROUP[version]], "eth0").open()
        shrink_send_buffer(transmitter)
        payloads = [PAYLOAD] * 20
        async with face.beside(lambda: transmitter.send_many(payloads, (GROUP[version], PORT))) as sending:
            start = monotonic()
            transmitter.close()
            (outcome,) = await sending.outcomes()
            assert monotonic() - start < 1
    assert isinstance(outcome, NotOpenError)
    all_closed(before)


@pytest.mark.parametrize("version", [4])
@pytest.mark.parametrize("face", ASYNC_FACES, ids=lambda face: face.name)
async def test_giving_up_waiting_for_room(face: Face, network: Network, version: int) -> None:
    """An async send that is cancelled while it waits sends nothing, and the transmitter goes on."""
    with slow_line(network.near[0], "400kbit"), judge_on(network.far[0], GROUP[version]) as judge:
        async with face.transmitter(family(version), [GROUP[version]], "eth0") as transmitter:
            shrink_send_buffer(transmitter)
            sent = 0
            with anyio.move_on_after(0.05):
                while True:
                    await transmitter.sendto(b"%d" % sent + PAYLOAD, (GROUP[version], PORT))
                    sent += 1
            await transmitter.sendto(b"last", (GROUP[version], PORT))
        received = [data.rstrip(b"\0") for data in heard(judge, sent + 1)]
        assert received == [*(b"%d" % number for number in range(sent)), b"last"]


# Duplicate address detection


@pytest.fixture(scope="module")
def detecting(lab: Lab) -> tuple[Host, Interface]:
    """A host whose new IPv6 addresses are checked for duplicates before use, and the far end of its cable."""
    host = lab.host("detecting", dad=True)
    _, far = lab.link(host, lab.host("neighbour"), ipv6=("fd07::1/64", "fd07::2/64"))
    return host, far


async def test_sending_before_the_address_can_be_used(face: Face, detecting: tuple[Host, Interface]) -> None:
    """While the only IPv6 addresses are being checked, a send says so; a moment later the same socket sends."""
    host, far = detecting
    with host.entered(), judge_on(far, GROUP[6]) as judge:
        async with face.transmitter(family(6), [GROUP[6]], "eth0") as transmitter:
            host.ip("link set eth0 down", "link set eth0 up")
            wait_until(lambda: "tentative" in host.command("ip", "-6", "addr", "show", "dev", "eth0"), "it is checked")
            with pytest.raises(MulticastOSError, match="checked for duplicates") as refused:
                await transmitter.sendto(b"too early", (GROUP[6], PORT))
            assert (refused.value.errno, refused.value.step) == (99, "send")
            deadline = monotonic() + PATIENCE
            while True:
                try:
                    await transmitter.sendto(b"in time", (GROUP[6], PORT))
                    break
                except MulticastOSError:
                    assert monotonic() < deadline
        # The far host keeps its membership while the cable is out.
        assert judge.recv(100) == b"in time"


@pytest.mark.parametrize("face", PLAIN_FACES[:2], ids=lambda face: face.name)
async def test_opening_on_an_address_that_cannot_be_used_yet(face: Face, detecting: tuple[Host, Interface]) -> None:
    """An address can be sent from only when it was checked: opening a transmitter on a new one says so."""
    host, _ = detecting
    host.ip("addr add fd07::7/64 dev eth0")
    try:
        with host.entered():
            transmitter = face.transmitter(family(6), [GROUP[6]], "fd07::7")
            with pytest.raises(MulticastOSError, match="a new IPv6 address is one after about two seconds"):
                transmitter.open()
    finally:
        host.ip("addr del fd07::7/64 dev eth0")
