"""Names that hold any bytes: Linux lets an interface and a process have a name that is not UTF-8."""

import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from multicast_expert import (
    McastRxSocket,
    McastTxSocket,
    find_interfaces,
    get_default_gateway_iface,
    get_interface_ips,
    scan_interfaces,
)
from multicast_expert.system.groups import joined_groups, udp_sockets
from multicast_expert.testing import Host, Lab, lab_unavailable, wait_until

pytestmark = pytest.mark.skipif(lab_unavailable() is not None, reason=f"no multicast lab: {lab_unavailable()}")

NAMES = (b"\xff\xfe", b"eth\xe9", b"a\x1cb", b"\xe2\x80\xa8line", b"caf\xc3\xa9caf\xc3\xa9", b"\x1b[31mred")
"""Not UTF-8, Latin-1, a separator of records, one of lines, UTF-8 that /proc/net/mcfilter cuts, an escape sequence."""
GROUP, PORT = "239.1.2.3", 5000


@pytest.fixture(params=NAMES, ids=repr)
def odd(request: pytest.FixtureRequest) -> Iterator[tuple[Host, bytes]]:
    """A host with an interface of an odd name; the test runs in it."""
    with Lab() as lab:
        host = lab.host("odd")
        with host.entered():
            for command in (
                [b"link", b"add", request.param, b"type", b"veth", b"peer", b"name", b"peer"],
                [b"link", b"set", request.param, b"addrgenmode", b"none"],  # else an address appears a moment later
                [b"addr", b"add", b"10.7.0.1/24", b"dev", request.param],
                [b"-6", b"addr", b"add", b"fe80::7/64", b"dev", request.param, b"nodad"],
                [b"link", b"set", request.param, b"up"],
                [b"link", b"set", b"peer", b"up"],
                [b"route", b"add", b"default", b"via", b"10.7.0.254"],
            ):
                subprocess.run([b"ip", *command], check=True)
            yield host, request.param


def test_an_interface(odd: tuple[Host, bytes]) -> None:
    """It is found by name, by address and by route, and named as `os.fsdecode` would name it."""
    name = odd[1].decode("utf-8", "surrogateescape")
    (iface,) = (each for each in scan_interfaces() if "10.7.0.1" in [str(own.ip) for own in each.ip4_addrs])
    assert (iface.machine_name, iface.index) == (name, socket.if_nametoindex(name))
    for specifier in (name, "10.7.0.1", f"fe80::7%{name}"):
        assert [each.index for each in find_interfaces([specifier])] == [iface.index]
    assert f"fe80::7%{name}" in get_interface_ips()
    gateway = get_default_gateway_iface(socket.AF_INET)
    assert gateway is not None
    assert gateway.machine_name == name


def test_receiving_and_groups(odd: tuple[Host, bytes]) -> None:
    """A receiver opens there, and the joined groups are listed with its name, source filters included."""
    name = odd[1].decode("utf-8", "surrogateescape")
    with (
        McastRxSocket(socket.AF_INET, [GROUP], PORT, iface=name, timeout=5) as receiver,
        McastRxSocket(socket.AF_INET, ["232.1.2.3"], PORT, iface=name, source_ips=["10.7.0.9"]),
        McastTxSocket(socket.AF_INET, [GROUP], iface=name, enable_external_loopback=True) as sender,
    ):
        sender.sendto(b"odd", (GROUP, PORT))
        assert receiver.recv() == b"odd"
        found = {str(each.group): each for each in joined_groups(udp_sockets()) if each.interface == name}
    assert {GROUP, "232.1.2.3", "224.0.0.1", "ff02::1"} <= found.keys()
    assert [str(use.source) for use in found["232.1.2.3"].included] == ["10.7.0.9"]


def test_it_ends_no_healing(odd: tuple[Host, bytes]) -> None:
    """An interface with such a name that comes and goes does not end the watch of other receivers."""
    events: list[str] = []
    name = odd[1]
    with McastRxSocket(
        socket.AF_INET, [GROUP], PORT, iface="peer", timeout=5, on_event=lambda event: events.append(event.kind)
    ):
        subprocess.run([b"ip", b"link", b"delete", name], check=True)
        subprocess.run([b"ip", b"link", b"add", name, b"type", b"veth", b"peer", b"name", b"peer"], check=True)
        subprocess.run([b"ip", b"link", b"set", b"peer", b"up"], check=True)
        wait_until(lambda: events == ["lost", "joined"], "it is restored")


def test_a_process() -> None:
    """A process with such a name is listed, and harms no list."""
    program = """
import ctypes, socket, sys
ctypes.CDLL(None).prctl(15, b"\\xff\\x1b[31m\\n", 0, 0, 0)
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as opened:
    opened.bind(("239.7.7.7", 5007))
    print("ready", flush=True)
    sys.stdin.read()
"""
    with Lab() as lab, lab.host("odd").entered():
        with subprocess.Popen([sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
            assert child.stdout is not None
            assert child.stdout.readline() == b"ready\n"
            (found,) = (each for each in udp_sockets() if each.port == 5007)
    assert [(each.pid, each.name) for each in found.processes] == [(child.pid, "\ufffd\x1b[31m\n")]
