"""A responder of mDNS (RFC 6762) beside a running Avahi, on one host and one port."""

import contextlib
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

from both_ways.kinds import KINDS, Kind, everything
from linux.plain_sockets import FAMILY
from multicast_expert import Datagram, McastSocket
from multicast_expert.testing import Interface, Lab
from multicast_expert.testing.private_network import find_tool

PORT = 5353
GROUP = {4: "224.0.0.251", 6: "ff02::fb"}
PATIENCE = 20.0
OURS, THEIRS = b"\x04ours\x05local\x00", b"\x05avahi\x05local\x00"
HOST_ADDRESS = {4: 1, 6: 28}
"""The types A and AAAA of DNS records."""
CONFIGURATION = """[server]
host-name=avahi
domain-name=local
use-ipv4=yes
use-ipv6=yes
enable-dbus=no
allow-interfaces=eth0
[wide-area]
enable-wide-area=no
[publish]
publish-hinfo=no
publish-workstation=no
"""


def question(name: bytes, version: int) -> bytes:
    """Ask for the address of a name."""
    return struct.pack("!6H", 0, 0, 1, 0, 0, 0) + name + struct.pack("!HH", HOST_ADDRESS[version], 1)


def answer(name: bytes) -> bytes:
    """Tell it."""
    record = name + struct.pack("!HHIH4s", HOST_ADDRESS[4], 0x8001, 120, 4, bytes((10, 1, 0, 1)))
    return struct.pack("!6H", 0, 0x8400, 0, 1, 0, 0) + record


def is_answer(datagram: Datagram, name: bytes) -> bool:
    """Whether it tells something about the name."""
    return len(datagram.data) > 12 and datagram.data[2] & 0x80 != 0 and name.lower() in datagram.data.lower()


@pytest.fixture(scope="module")
def cable(lab: Lab, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Interface, Interface]]:
    """A host that runs Avahi, and another one."""
    daemon = find_tool("avahi-daemon")
    if daemon is None:
        pytest.skip("the program avahi-daemon is not installed (Debian package avahi-daemon)")
    near, far = lab.host("near"), lab.host("far")
    interfaces = lab.link(near, far, ipv4=("10.1.0.1/24", "10.1.0.2/24"), ipv6=("fd01::1/64", "fd01::2/64"))
    configuration = tmp_path_factory.mktemp("avahi") / "avahi-daemon.conf"
    Path(configuration).write_text(CONFIGURATION)
    # It keeps its process number in a fixed place.
    script = (
        "mount -t tmpfs tmpfs /run && mkdir /run/avahi-daemon && "
        f"exec {daemon} --no-drop-root --no-chroot --no-rlimits -f {configuration}"
    )
    running = near.popen(["unshare", "-m", "sh", "-c", script], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    yield interfaces
    near.end_process(running)


def ask(asker: McastSocket, version: int, name: bytes) -> Datagram:
    """Ask until there is an answer: Avahi takes a while to begin."""
    deadline = monotonic() + PATIENCE
    while monotonic() < deadline:
        for datagram in asker.query(question(name, version), (GROUP[version], PORT), timeout=0.5):
            if is_answer(datagram, name):
                return datagram
    pytest.fail(f"nobody answered for {name!r}")


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
