"""The scope of a group chooses among the interfaces of a socket; a scope that means none of them is an error."""

import contextlib
import socket
from collections.abc import Iterator
from ipaddress import IPv6Address
from typing import Any

import pytest

from faces.faces import PLAIN_FACES, Face
from faces.network import GROUP, OTHER_GROUP, PORT, Network, family
from linux.plain_sockets import join, member_on, nothing_for
from multicast_expert import MulticastExpertError
from multicast_expert.testing import Interface

LINK_GROUP = "ff02::4:5"
"""A group of the scope "link": the kernel obeys the scope number of such an address, and of no other."""


@pytest.fixture(params=PLAIN_FACES, ids=lambda face: face.name)
def face(request: pytest.FixtureRequest) -> Face:
    """Each face in turn."""
    chosen: Face = request.param
    return chosen


def judge_on(interface: Interface, group: str) -> socket.socket:
    """A plain socket that gets what is sent to the group through this interface only."""
    judge = member_on(interface, group, PORT)
    judge.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, interface.name.encode() + b"\0")
    return judge


@contextlib.contextmanager
def judges(network: Network, group: str) -> Iterator[list[socket.socket]]:
    """One at the far end of each cable."""
    with contextlib.ExitStack() as opened:
        yield [opened.enter_context(judge_on(each, group)) for each in network.far]


def spellings(network: Network, group: str, cable: int) -> list[Any]:
    """All addresses that mean the group on this interface; an IPv4 address has no number for it."""
    near = network.near[cable]
    texts = [(f"{group}%{near.name}", PORT), (f"{group}%{near.index()}", PORT)]
    if ":" not in group:
        return texts
    numbered = (group, PORT, 0, near.index())
    return [*texts, numbered, (group.upper(), PORT, 0, near.index()), (f"{group}%{near.name}", PORT, 0, near.index())]


async def test_it_chooses_among_the_interfaces(face: Face, network: Network, version: int) -> None:
    """With two interfaces, a datagram with a scope leaves by that one, in every spelling; without, by both."""
    for group in (GROUP[version], *([LINK_GROUP] if version == 6 else [])):
        with judges(network, group) as far:
            async with face.transmitter(family(version), [group], ifaces=["eth0", "eth1"]) as transmitter:
                for cable in (0, 1):
                    for address in spellings(network, group, cable):
                        for _ in range(2):
                            await transmitter.sendto(b"one", address)
                            assert far[cable].recv(100) == b"one"
                        assert await transmitter.send_many([b"two", b"three"], address) == 2
                        assert [far[cable].recv(100) for _ in range(2)] == [b"two", b"three"]
                        assert nothing_for(far[1 - cable])
                await transmitter.sendto(b"both", (group, PORT))
                assert [judge.recv(100) for judge in far] == [b"both"] * 2


async def test_anything_else_is_refused(face: Face, network: Network, version: int) -> None:
    """A scope of an interface that the socket does not have, or that does not exist, is refused, also after a send."""
    groups = [GROUP[version], *([LINK_GROUP] if version == 6 else [])]
    wrong = [
        *(address for group in groups for address in spellings(network, group, 1)),
        *((f"{group}%{scope}", PORT) for group in groups for scope in ("eth9", "4711", "lo", "eth0%eth0")),
        *((group, PORT, 0, 4711) for group in groups if version == 6),
    ]
    if version == 6:
        contradicting = (f"{LINK_GROUP}%eth0", PORT, 0, network.near[1].index())
        wrong += [contradicting, (LINK_GROUP, PORT, 0, "eth0"), (LINK_GROUP, PORT, 0, True), (LINK_GROUP, PORT, 0, -1)]
    with judges(network, groups[-1]) as far:
        async with face.transmitter(family(version), groups, "eth0") as transmitter:
            for address in wrong:
                for send in (transmitter.sendto, lambda payload, address: transmitter.send_many([payload], address)):
                    await transmitter.sendto(b"right", (groups[-1], PORT))
                    with pytest.raises(MulticastExpertError, match=r"scope|interfaces"):
                        await send(b"wrong", address)
            with pytest.raises(MulticastExpertError, match=rf"eth9.*eth0 \(index {network.near[0].index()}\)"):
                await transmitter.sendto(b"wrong", (f"{groups[-1]}%eth9", PORT))
        assert [far[0].recv(100) for _ in range(2 * len(wrong))] == [b"right"] * 2 * len(wrong)
        assert nothing_for(far[1])


async def test_zero_is_no_scope(face: Face, network: Network) -> None:
    """The number 0 stands for no scope, as in the socket addresses of the OS; so does `%0`."""
    with judges(network, LINK_GROUP) as far:
        async with face.transmitter(family(6), [LINK_GROUP], ifaces=["eth0", "eth1"]) as transmitter:
            for address in ((LINK_GROUP, PORT, 0, 0), (f"{LINK_GROUP}%0", PORT)):
                await transmitter.sendto(b"both", address)
                assert [judge.recv(100) for judge in far] == [b"both"] * 2


async def test_a_group_made_with_a_scope(face: Face, network: Network, version: int) -> None:
    """A scope in `mcast_ips` binds all datagrams to that group; a send with another one is refused."""
    group, other = GROUP[version], OTHER_GROUP[version]
    made_for: list[Any] = [f"{group}%eth1", other]
    if version == 6:
        made_for = [IPv6Address(f"{group}%eth1"), other]
    with judges(network, group) as far:
        for judge, interface in zip(far, network.far, strict=True):
            join(judge, other, interface.index())
        async with face.transmitter(family(version), made_for, ifaces=["eth0", "eth1"]) as transmitter:
            assert transmitter.mcast_ips == [group, other]
            await transmitter.sendto(b"bound", (group, PORT))
            await transmitter.sendto(b"bound", (f"{group}%eth1", PORT))
            await transmitter.sendto(b"free", (other, PORT))
            with pytest.raises(MulticastExpertError, match=r"eth0.*eth1 \(index"):
                await transmitter.sendto(b"wrong", (f"{group}%eth0", PORT))
        assert [far[1].recv(100) for _ in range(3)] == [b"bound", b"bound", b"free"]
        assert far[0].recv(100) == b"free"
        assert nothing_for(far[0])


async def test_sockets_are_not_made_for_other_scopes(face: Face, network: Network, version: int) -> None:
    """A scope in `mcast_ips` that means none of the socket's interfaces is refused before anything is opened."""
    for scope in ("eth1", "eth9", str(network.near[1].index())):
        groups = [f"{GROUP[version]}%{scope}"]
        for make in (
            lambda groups=groups: face.transmitter(family(version), groups, "eth0"),
            lambda groups=groups: face.receiver(family(version), groups, PORT, "eth0"),
        ):
            with pytest.raises(MulticastExpertError, match=rf"scope {scope} of {GROUP[version]}.*eth0"):
                make()
    with pytest.raises(MulticastExpertError, match="scope lo"):
        face.receiver(family(version), [f"{GROUP[version]}%lo"], PORT)


def places(receiver: Any) -> list[tuple[str, str]]:
    """Where a receiver is a member of what, by its own account."""
    return sorted((each.group, each.interface.machine_name) for each in receiver.memberships)


async def test_a_receiver_joins_where_the_scope_says(face: Face, network: Network, version: int) -> None:
    """A group with a scope is joined there only, in the constructor and at run time, and left and blocked there."""
    group, other = GROUP[version], OTHER_GROUP[version]
    made_for = [f"{group}%eth1", f"{group}%{network.near[1].index()}"]
    async with face.receiver(family(version), made_for, PORT, ifaces=["eth0", "eth1"], timeout=10) as receiver:
        assert places(receiver) == [(group, "eth1")]
        for cable in (0, 1):
            network.send(b"%d" % cable, group, cable=cable)
        assert (await receiver.receive()).data == b"1"
        with pytest.raises(TimeoutError):
            await receiver.receive(0)
        receiver.join_group(f"{other}%eth0")
        receiver.block_source(f"{other}%eth0", network.source(version, 0))
        assert places(receiver) == sorted([(group, "eth1"), (other, "eth0")])
        receiver.join_group(f"{group}%{network.near[0].index()}", iface="eth0")
        receiver.leave_group(f"{group}%eth1")
        assert places(receiver) == sorted([(group, "eth0"), (other, "eth0")])
        wanted = receiver.memberships
        for wrong in (
            lambda: receiver.join_group(f"{other}%eth9"),
            lambda: receiver.join_group(f"{other}%lo"),
            lambda: receiver.join_group(f"{other}%eth1", iface="eth0"),
            lambda: receiver.leave_group(f"{other}%eth1"),
            lambda: receiver.leave_group(f"{other}%eth9"),
            lambda: receiver.block_source(f"{other}%eth1", network.source(version, 1)),
            lambda: receiver.unblock_source(f"{other}%eth1", network.source(version, 0)),
        ):
            with pytest.raises(MulticastExpertError, match=r"scope (eth9|lo|eth1) .*eth0 \(index"):
                wrong()
        assert places(receiver) == sorted((each.group, each.interface.machine_name) for each in wanted)


async def test_a_group_on_all_and_on_one(face: Face, network: Network, version: int) -> None:
    """A group that is named with a scope and without is wanted on all interfaces, each once."""
    group = GROUP[version]
    async with face.receiver(
        family(version), [f"{group}%eth1", group, f"{group}%eth0"], PORT, ifaces=["eth0", "eth1"]
    ) as receiver:
        assert places(receiver) == [(group, "eth0"), (group, "eth1")]


async def test_a_receiver_on_all_interfaces(face: Face, network: Network, version: int) -> None:
    """Where no interface is named, a scope chooses among all."""
    async with face.receiver(family(version), [f"{GROUP[version]}%eth0"], PORT) as receiver:
        assert places(receiver) == [(GROUP[version], "eth0")]
