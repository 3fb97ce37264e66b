"""A responder of mDNS (RFC 6762) beside a running Avahi, on one host and one port."""

import contextlib
import struct
from collections.abc import Iterator

import pytest

from both_ways.avahi import GROUP, HOST_ADDRESS, PATIENCE, PORT, THEIRS, ask, avahi, is_answer, question
from both_ways.kinds import KINDS, Kind, everything
from linux.plain_sockets import FAMILY
from multicast_expert import Datagram, McastSocket
from multicast_expert.testing import Interface, Lab

OURS = b"\x04ours\x05local\x00"


def answer(name: bytes) -> bytes:
    """Tell it."""
    record = name + struct.pack("!HHIH4s", HOST_ADDRESS[4], 0x8001, 120, 4, bytes((10, 1, 0, 1)))
    return struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + record


@pytest.fixture(scope="module")
def cable(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Interface, Interface]]:
    """A host that runs Avahi, and another one."""
    near, far = lab.host("near"), lab.host("far")
    interfaces = lab.link(near, far, ipv4=("10.1.0.1/24", "10.1.0.2/24"), ipv6=("fd01::1/64", "fd01::2/64"))
    with avahi(near, tmp_path_factory.mktemp("avahi")):
        yield interfaces


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.name in ("blocking", "asyncio")], ids=lambda kind: kind.name
)
async def test_both_answer_and_neither_hears_itself(
    kind: Kind, cable: tuple[Interface, Interface], version: int
) -> None:
    """Both get each question and answer it, from one port; ours hears Avahi and the asker, and never itself."""
    near, far = cable
    with contextlib.ExitStack() as opened:
        with near.node.entered():
            responder = kind.socket(
                FAMILY[version], [GROUP[version]], PORT, iface="eth0", ttl=255, unicast=False
            ).open()
        opened.callback(responder.close)
        with far.node.entered():
            asker = opened.enter_context(McastSocket(FAMILY[version], [GROUP[version]], PORT, iface="eth0", ttl=255))
        theirs = ask(asker, version, THEIRS)
        assert theirs.sender[1] == PORT
        heard = await everything(responder)
        questions = [datagram for datagram in heard if datagram.data == question(THEIRS, version)]
        assert questions
        assert any(is_answer(datagram, THEIRS) for datagram in heard)
        # To the group, as most answers go, and to the asker.
        await responder.sendto(answer(OURS), (GROUP[version], PORT))
        await responder.reply(questions[-1], answer(OURS))
        ours: list[Datagram] = []
        while len(ours) < 2:
            datagram = asker.receive(timeout=PATIENCE)
            ours += [datagram] if is_answer(datagram, OURS) else []
        assert {datagram.group for datagram in ours} == {GROUP[version], None}
        assert {datagram.sender[1] for datagram in ours} == {PORT}
        assert is_answer(ask(asker, version, THEIRS), THEIRS)
        assert not any(is_answer(datagram, OURS) for datagram in await everything(responder))
