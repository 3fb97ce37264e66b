"""What only a real system can prove, on its loopback interface: the same tests on Linux, macOS, Windows and FreeBSD."""

import socket
from collections.abc import Iterator

import pytest

from multicast_expert import IfaceInfo, McastRxSocket, McastTxSocket, scan_interfaces
from multicast_expert.system.kernel import SYSTEM

GROUPS = {socket.AF_INET: ("239.255.77.1", "239.255.77.2"), socket.AF_INET6: ("ff11::77:1", "ff11::77:2")}
LOCALHOST = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
PORT = 47771
TIMEOUT = 5

families = pytest.mark.parametrize("family", GROUPS, ids=["IPv4", "IPv6"])


@pytest.fixture
def loopback() -> IfaceInfo:
    """The loopback interface of this system."""
    return next(iface for iface in scan_interfaces() if iface.is_localhost())


@pytest.fixture
def sender(family: int, loopback: IfaceInfo) -> Iterator[McastTxSocket]:
    """A transmitter for both groups on loopback."""
    with McastTxSocket(family, GROUPS[family], loopback) as opened:
        yield opened


def test_numbers() -> None:
    """Every option number of this system's table that Python knows too is the same."""
    known = [
        (name, number, getattr(socket, name))
        for name, (_, number) in SYSTEM.platform.options.items()
        if hasattr(socket, name) and not name.startswith("MCAST_")
    ]
    assert len(known) >= 10
    assert [(name, ours) for name, ours, _ in known] == [(name, theirs) for name, _, theirs in known]
    assert SYSTEM.platform.layouts.af_inet6 == socket.AF_INET6


@families
def test_a_datagram_arrives_with_its_facts(family: int, loopback: IfaceInfo, sender: McastTxSocket) -> None:
    """The receiver hears its group on loopback once, and is told group and interface."""
    group = GROUPS[family][0]
    with McastRxSocket(family, [group], PORT, loopback, timeout=TIMEOUT) as receiver:
        sender.sendto(b"hello", (group, PORT))
        datagram = receiver.receive()
        assert (datagram.data, datagram.group, datagram.interface_index) == (b"hello", group, loopback.index)
        with pytest.raises(TimeoutError):
            receiver.receive(timeout=0.2)


@families
def test_two_receivers_on_one_port(family: int, loopback: IfaceInfo, sender: McastTxSocket) -> None:
    """Each gets its own group only, and neither gets unicast to the port."""
    first, second = GROUPS[family]
    with (
        McastRxSocket(family, [first], PORT, loopback, timeout=TIMEOUT) as one,
        McastRxSocket(family, [second], PORT, loopback, timeout=TIMEOUT) as other,
        socket.socket(family, socket.SOCK_DGRAM) as unicast,
    ):
        unicast.sendto(b"unicast", (LOCALHOST[family], PORT))
        sender.sendto(b"first", (first, PORT))
        sender.sendto(b"second", (second, PORT))
        assert (one.recv(), other.recv()) == (b"first", b"second")
        one.settimeout(0.2)
        other.settimeout(0)
        assert (one.recv(), other.recv()) == (None, None)


@families
def test_sources(family: int, loopback: IfaceInfo, sender: McastTxSocket) -> None:
    """A source-specific receiver hears the source that it asked for, and not while it asks for another."""
    group = GROUPS[family][0]
    wrong = {socket.AF_INET: "192.0.2.1", socket.AF_INET6: "2001:db8::1"}[family]
    with McastRxSocket(family, [group], PORT, loopback, source_ips=[wrong], timeout=TIMEOUT) as receiver:
        sender.sendto(b"unasked", (group, PORT))
        receiver.join_group(group, source=LOCALHOST[family])
        sender.sendto(b"asked", (group, PORT))
        assert receiver.recv() == b"asked"


@families
def test_leaving(family: int, loopback: IfaceInfo, sender: McastTxSocket) -> None:
    """After leaving one of two groups only the other one is heard."""
    first, second = GROUPS[family]
    with McastRxSocket(family, [first, second], PORT, loopback, timeout=TIMEOUT) as receiver:
        receiver.leave_group(first)
        sender.sendto(b"first", (first, PORT))
        sender.sendto(b"second", (second, PORT))
        assert receiver.recv() == b"second"


@families
def test_a_datagram_that_is_too_long(family: int, loopback: IfaceInfo, sender: McastTxSocket) -> None:
    """A small buffer cuts a datagram and does not fail, on every system."""
    group = GROUPS[family][0]
    with McastRxSocket(family, [group], PORT, loopback, timeout=TIMEOUT) as receiver:
        sender.sendto(b"0123456789", (group, PORT))
        assert receiver.recv(4) == b"0123"
        assert receiver.stats().truncated == 1
