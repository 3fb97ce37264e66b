"""What a kernel would silently take for something else is refused, with words, and nothing is changed by it."""

import errno
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any

import pytest

from faces.faces import PLAIN_FACES, Face
from faces.network import ABSENT_SOURCE, GROUP, OTHER_GROUP, PORT, SECOND_SOURCE, Network, family
from multicast_expert import MulticastExpertError, MulticastOSError

THIRD_GROUP = {4: "239.1.2.5", 6: "ff15::1:2:5"}
SOURCES_PER_MEMBERSHIP = {4: 10, 6: 64}
LIMIT = {4: "igmp_max_msf", 6: "mld_max_msf"}

Change = Callable[[Any, int], object]


@pytest.fixture(params=PLAIN_FACES, ids=lambda face: face.name)
def face(request: pytest.FixtureRequest) -> Face:
    """Each face in turn; how it waits does not matter here."""
    chosen: Face = request.param
    return chosen


# Joined before each: GROUP from all sources but SECOND_SOURCE, OTHER_GROUP from SECOND_SOURCE alone.
TRAPS: list[tuple[str, Change, str]] = [
    ("a source after the whole group",
     lambda receiver, v: receiver.join_group(GROUP[v], source=ABSENT_SOURCE[v]), "from all sources already"),
    ("the whole group after a source",
     lambda receiver, v: receiver.join_group(OTHER_GROUP[v]), "from some sources only"),
    ("the whole group twice", lambda receiver, v: receiver.join_group(GROUP[v]), "joined already"),
    ("a source twice",
     lambda receiver, v: receiver.join_group(OTHER_GROUP[v], source=SECOND_SOURCE[v]), "joined from .* already"),
    ("leaving what was never joined", lambda receiver, v: receiver.leave_group(THIRD_GROUP[v]), "not joined"),
    ("leaving it on an interface where it is not joined",
     lambda receiver, v: receiver.leave_group(GROUP[v], iface="eth1"), "not joined on eth1"),
    ("leaving a source that was never joined",
     lambda receiver, v: receiver.leave_group(OTHER_GROUP[v], source=ABSENT_SOURCE[v]), "not joined"),
    ("leaving one source of the whole group",
     lambda receiver, v: receiver.leave_group(GROUP[v], source=ABSENT_SOURCE[v]), r"block_source\(\)"),
    ("a multicast address as source",
     lambda receiver, v: receiver.join_group(OTHER_GROUP[v], source=GROUP[v]), "multicast"),
    ("blocking a multicast address", lambda receiver, v: receiver.block_source(GROUP[v], OTHER_GROUP[v]), "multicast"),
    ("blocking in include mode",
     lambda receiver, v: receiver.block_source(OTHER_GROUP[v], ABSENT_SOURCE[v]), "from some sources only"),
    ("blocking twice", lambda receiver, v: receiver.block_source(GROUP[v], SECOND_SOURCE[v]), "blocked already"),
    ("unblocking what is not blocked",
     lambda receiver, v: receiver.unblock_source(GROUP[v], ABSENT_SOURCE[v]), "not blocked"),
    ("blocking in a group that is not joined",
     lambda receiver, v: receiver.block_source(THIRD_GROUP[v], ABSENT_SOURCE[v]), "not joined"),
    ("a group of the other family", lambda receiver, v: receiver.join_group(GROUP[10 - v]), "IPv"),
    ("a source of the other family",
     lambda receiver, v: receiver.join_group(THIRD_GROUP[v], source=SECOND_SOURCE[10 - v]), "IPv"),
    ("blocking a source of the other family",
     lambda receiver, v: receiver.block_source(GROUP[v], SECOND_SOURCE[10 - v]), "IPv"),
    ("a group that is none", lambda receiver, v: receiver.join_group(SECOND_SOURCE[v]), "not a multicast address"),
    ("a source that is none",
     lambda receiver, v: receiver.join_group(THIRD_GROUP[v], source="nobody"), "nobody"),
    ("an interface that does not exist",
     lambda receiver, v: receiver.join_group(THIRD_GROUP[v], iface="eth7"), "eth7"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "words"), [trap[1:] for trap in TRAPS], ids=[trap[0] for trap in TRAPS])
async def test_a_trap_is_refused_and_changes_nothing(
    face: Face, network: Network, version: int, change: Change, words: str
) -> None:
    """Each raises a MulticastExpertError that says why; memberships, kernel and what is heard stay as they were."""
    async with face.receiver(family(version), [GROUP[version]], PORT, "eth0", timeout=10) as receiver:
        receiver.block_source(GROUP[version], SECOND_SOURCE[version])
        receiver.join_group(OTHER_GROUP[version], source=SECOND_SOURCE[version])
        before = repr(receiver.memberships), receiver.filenos(), network.kernel_memberships()
        with pytest.raises(MulticastExpertError, match=words):
            change(receiver, version)
        assert (repr(receiver.memberships), receiver.filenos(), network.kernel_memberships()) == before
        for group, source in ((GROUP, network.source(version)), (OTHER_GROUP, SECOND_SOURCE[version])):
            network.send(b"unwanted", group[version], source=({*sources(network, version)} - {source}).pop())
            network.send(b"wanted", group[version], source=source)
            assert (await receiver.receive()).data == b"wanted"


# What a program that catches OSError is told, with the state of TRAPS.
NUMBERED = {
    "leaving what was never joined": errno.EADDRNOTAVAIL,
    "leaving it on an interface where it is not joined": errno.EADDRNOTAVAIL,
    "leaving a source that was never joined": errno.EADDRNOTAVAIL,
    "leaving one source of the whole group": errno.EADDRNOTAVAIL,
    "blocking in a group that is not joined": errno.EADDRNOTAVAIL,
    "an interface that does not exist": errno.ENODEV,
}


async def test_traps_that_the_os_has_a_number_for(face: Face, network: Network, version: int) -> None:
    """An unknown interface and a group that is not joined are OSErrors, too; other misuse is not."""
    async with face.receiver(family(version), [GROUP[version]], PORT, "eth0") as receiver:
        receiver.block_source(GROUP[version], SECOND_SOURCE[version])
        receiver.join_group(OTHER_GROUP[version], source=SECOND_SOURCE[version])
        left = receiver.join_group(THIRD_GROUP[version])
        left.leave()
        for name, change, _ in [*TRAPS, ("leaving what was never joined", lambda _, __: left.leave(), "")]:
            with pytest.raises(MulticastExpertError) as refused:
                change(receiver, version)
            number = refused.value.errno if isinstance(refused.value, OSError) else None
            assert number == NUMBERED.get(name), name


def sources(network: Network, version: int) -> list[str]:
    """The addresses that the far host sends from."""
    return [network.source(version), SECOND_SOURCE[version]]


REFUSED_AT_ONCE: list[tuple[str, dict[str, Any], str]] = [
    ("no group", {"mcast_ips": []}, "at least one group"),
    ("groups as one text", {"mcast_ips": "239.1.2.3"}, "brackets"),
    ("a multicast address as source", {"source_ips": ["239.1.1.1"]}, "multicast"),
    ("a source of the other family", {"source_ips": ["fd01::1"]}, "IPv"),
    ("a group of the other family", {"mcast_ips": ["ff15::1"]}, "IPv"),
    ("a port out of range", {"port": 65536}, "65536"),
    ("a buffer of no size", {"receive_buffer": 0}, "receive_buffer"),
    ("interfaces named twice", {"iface": "eth0", "ifaces": ["eth0"]}, "iface and ifaces"),
]


@pytest.mark.parametrize(
    ("parameters", "words"), [case[1:] for case in REFUSED_AT_ONCE], ids=[case[0] for case in REFUSED_AT_ONCE]
)
async def test_input_that_cannot_work(face: Face, network: Network, parameters: dict[str, Any], words: str) -> None:
    """Input that cannot work is refused before any socket exists."""
    complete = {"addr_family": family(4), "mcast_ips": [GROUP[4]], "port": PORT, **parameters}
    with pytest.raises(MulticastExpertError, match=words):
        face.receiver(**complete)


async def test_as_many_sources_as_the_kernel_takes(face: Face, network: Network, version: int) -> None:
    """One source too many names the sysctl, changes nothing, and the others still work; a source less makes room."""
    limit = SOURCES_PER_MEMBERSHIP[version]
    wanted = network.source(version)
    others = [str(ip_address(ABSENT_SOURCE[version]) + number) for number in range(limit)]
    async with face.receiver(
        family(version), [GROUP[version]], PORT, "eth0", source_ips=[wanted, *others[:-1]], timeout=10
    ) as receiver:
        before = receiver.memberships, network.kernel_memberships()
        assert len(before[0]) == limit
        with pytest.raises(MulticastOSError, match=rf"{LIMIT[version]}=N") as refused:
            receiver.join_group(GROUP[version], source=others[-1])
        assert (refused.value.errno, refused.value.step) == (errno.ENOBUFS, "join source")
        assert f"{limit} held" in str(refused.value)
        assert (repr(receiver.memberships), network.kernel_memberships()) == (repr(before[0]), before[1])
        network.send(b"unwanted", GROUP[version], source=SECOND_SOURCE[version])
        network.send(b"wanted", GROUP[version])
        assert (await receiver.receive()).data == b"wanted"
        receiver.leave_group(GROUP[version], source=others[0])
        receiver.join_group(GROUP[version], source=SECOND_SOURCE[version])
        network.send(b"second", GROUP[version], source=SECOND_SOURCE[version])
        assert (await receiver.receive()).data == b"second"


async def test_sources_held_on_another_interface_do_not_count(face: Face, network: Network, version: int) -> None:
    """The limit is for each interface, and the error tells how many sources the full membership holds."""
    limit = SOURCES_PER_MEMBERSHIP[version]
    others = [str(ip_address(ABSENT_SOURCE[version]) + number) for number in range(limit + 1)]
    async with face.receiver(
        family(version), [GROUP[version]], PORT, ifaces=["eth0", "eth1"], source_ips=others[:-1], timeout=10
    ) as receiver:
        with pytest.raises(MulticastOSError, match=rf"\({limit} held"):
            receiver.join_group(GROUP[version], source=others[-1], iface="eth1")


async def test_as_many_blocked_sources_as_the_kernel_takes(face: Face, network: Network, version: int) -> None:
    """One blocked source too many names the sysctl and changes nothing."""
    limit = SOURCES_PER_MEMBERSHIP[version]
    others = [str(ip_address(ABSENT_SOURCE[version]) + number) for number in range(limit)]
    async with face.receiver(family(version), [GROUP[version]], PORT, "eth0", timeout=10) as receiver:
        for source in (SECOND_SOURCE[version], *others[:-1]):
            receiver.block_source(GROUP[version], source)
        with pytest.raises(MulticastOSError, match=rf"\({limit} held.*{LIMIT[version]}=N") as refused:
            receiver.block_source(GROUP[version], others[-1])
        assert (refused.value.errno, refused.value.step) == (errno.ENOBUFS, "block source")
        with pytest.raises(MulticastExpertError, match="not blocked"):
            receiver.unblock_source(GROUP[version], others[-1])
        network.send(b"blocked", GROUP[version], source=SECOND_SOURCE[version])
        network.send(b"wanted", GROUP[version])
        assert (await receiver.receive()).data == b"wanted"


async def test_too_many_sources_at_once(face: Face, network: Network, version: int) -> None:
    """A receiver that asks for one source too many does not open; nothing stays joined, and no descriptor open."""
    limit = SOURCES_PER_MEMBERSHIP[version]
    others = [str(ip_address(ABSENT_SOURCE[version]) + number) for number in range(limit + 1)]
    before = network.kernel_memberships()
    receiver = face.receiver(family(version), [GROUP[version]], PORT, "eth0", source_ips=others)
    with pytest.raises(MulticastOSError, match=LIMIT[version]):
        receiver.open()
    assert not receiver.is_opened
    assert network.kernel_memberships() == before
