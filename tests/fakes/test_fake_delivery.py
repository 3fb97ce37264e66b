"""The fakes send, deliver and describe datagrams as each OS documents."""

from __future__ import annotations

from ipaddress import IPv4Interface, ip_address
from struct import pack

import pytest

from fakes import FakeFreeBSD, FakeMacOS, FakeWindows
from fakes.asking import (
    ALL,
    BSDS,
    GROUP,
    GROUP6,
    INVALID,
    OTHER,
    OTHER6,
    PORT,
    UNAVAILABLE,
    change,
    is_empty,
    join,
    opened,
    refused,
    send,
    start,
    unpacked,
)


@pytest.mark.parametrize("kind", BSDS)
def test_bsd_ipv4_needs_any_or_the_group_and_the_receiving_interface(kind: type) -> None:
    """bind(interface address) hears nothing; a membership on eth0 does not hear eth1."""
    kernel = start(kind)
    everyone = {"reuse_address": True, "reuse_port": True}
    with opened(kernel, GROUP, **everyone) as bound, opened(kernel, "10.0.0.1", **everyone) as local:
        join(bound)
        join(local)
        assert send(kernel) == 1
        assert send(kernel, link="lan1", source="10.1.0.2") == 0
        assert bound.recvmsg(100)[0] == b"x"
        assert is_empty(local)


@pytest.mark.parametrize("kind", BSDS)
def test_bsd_ipv6_does_not_compare_the_bound_group(kind: type) -> None:
    """The membership filters, not the bind; a socket without options hears every group that the host takes in."""
    kernel = start(kind)
    everyone = {"reuse_address": True, "reuse_port": True}
    with opened(kernel, GROUP6, 6, **everyone) as sock, opened(kernel, "::", 6, **everyone) as careless:
        join(sock)
        join(sock, OTHER6)
        assert send(kernel, GROUP6) == send(kernel, OTHER6) == 2
        assert [sock.recvmsg(100)[0] for _ in range(2)] == [b"x"] * 2
        careless.setsockopt(41, 11, pack("=I", 1))
        assert send(kernel, GROUP6) == 1
        assert send(kernel, "ff15::7777") == 0


def test_sockets_without_options_on_ipv4() -> None:
    """FreeBSD gives them what anyone on the host joined, macOS nothing."""
    for kind, expected in ((FakeFreeBSD, 1), (FakeMacOS, 0)):
        kernel = start(kind)
        with opened(kernel, "") as sock:
            assert send(kernel) == 0
            kernel.other_program_joins(GROUP, 2)
            assert send(kernel) == expected
            sock.setsockopt(0, 11, pack("=i", 1))
            assert send(kernel) == 0


@pytest.mark.parametrize("kind", BSDS)
def test_bsd_delivery_stops_at_a_socket_that_does_not_share(kind: type) -> None:
    """An older socket gets nothing when a newer one has no sharing option."""
    kernel = start(kind)
    with opened(kernel, GROUP, reuse_address=True) as older, opened(kernel, reuse_address=True) as newer:
        newer.bind(("", PORT))
        join(older)
        join(newer)
        assert send(kernel) == 2
        newer.setsockopt(0xFFFF, 4, pack("=i", 0))
        assert send(kernel) == 1


@pytest.mark.parametrize("kind", ALL)
def test_source_filters(kind: type) -> None:
    """Chosen sources only, or all but the blocked; the two do not mix."""
    kernel = start(kind)
    with opened(kernel, "") as sock:
        change(sock, 2, GROUP, "10.0.0.2")
        assert [send(kernel), send(kernel, source="10.0.0.7")] == [1, 0]
        with refused(INVALID[kind]):
            join(sock)
        with refused(INVALID[kind]):
            change(sock, 4, GROUP, "10.0.0.2")
        with refused(UNAVAILABLE[kind]):
            change(sock, 3, GROUP, "10.0.0.7")
        change(sock, 3, GROUP, "10.0.0.2")
        join(sock)
        change(sock, 4, GROUP, "10.0.0.2")
        assert [send(kernel), send(kernel, source="10.0.0.7")] == [0, 1]
        for what in (3, 4):
            with refused(UNAVAILABLE[kind]):
                change(sock, what, GROUP, "10.0.0.2")
        change(sock, 5, GROUP, "10.0.0.2")
        assert send(kernel) == 1


def test_windows_delivers_joined_groups_and_unicast_to_any() -> None:
    """bind(ANY): other groups on the port are not delivered, unicast is; bound to an interface, only its groups."""
    kernel = start(FakeWindows)
    with opened(kernel, "") as sock:
        join(sock)
        kernel.other_program_joins(OTHER, 2)
        assert [send(kernel), send(kernel, OTHER), send(kernel, "10.0.0.1")] == [1, 0, 1]
    with opened(kernel, "10.0.0.1") as sock:
        join(sock)
        assert send(kernel) == 1
        with refused(10022):
            join(sock, index=3)


@pytest.mark.parametrize("kind", ALL)
def test_interfaces_that_are_down_carry_nothing(kind: type) -> None:
    """Nothing comes in, sending fails, and so nothing loops back."""
    kernel = start(kind)
    with opened(kernel, "") as sock:
        join(sock)
        kernel.host.interfaces[1].up = False
        assert send(kernel) == 0
        with refused(10051 if kind is FakeWindows else 50):
            sock.sendto(b"x", (GROUP, PORT))
        assert is_empty(sock)


@pytest.mark.parametrize("trouble", ["down", "automatic address"])
def test_windows_adapters_that_cannot_be_joined(trouble: str) -> None:
    """10049 for an adapter that is down or has an APIPA address only."""
    kernel = start(FakeWindows)
    if trouble == "down":
        kernel.host.interfaces[1].up = False
    else:
        kernel.host.interfaces[1].ip4_addrs = [IPv4Interface("169.254.3.4/16")]
    with opened(kernel) as sock, refused(10049):
        join(sock)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("index", [1, 2])
def test_loop_option_acts_where_this_system_says(kind: type, index: int) -> None:
    """At the receiver on Windows, at the sender on the BSDs, on the loopback interface too."""
    kernel = start(kind)
    with opened(kernel, "") as receiver, opened(kernel) as sender:
        join(receiver, index=index)
        sender.setsockopt(0, 9, pack("!I", index) if kind is FakeWindows else bytes(8) + pack("=i", index))
        sender.sendto(b"x", (GROUP, PORT))
        assert not is_empty(receiver)
        silent, other = (receiver, sender) if kind is FakeWindows else (sender, receiver)
        other.setsockopt(0, 11, pack("=i", 0))
        sender.sendto(b"x", (GROUP, PORT))
        assert not is_empty(receiver)
        silent.setsockopt(0, 11, pack("=i", 0))
        sender.sendto(b"x", (GROUP, PORT))
        assert is_empty(receiver)


@pytest.mark.parametrize("kind", ALL)
def test_hop_limit_and_links(kind: type) -> None:
    """Hop limit 0 stays on the host, 1 reaches another fake kernel, loopback leaves nothing on a link."""
    kernel = start(kind)
    peer = FakeMacOS(kernel.network, "b")
    with opened(kernel) as sender, opened(peer, "") as receiver:
        join(receiver)
        sender.setsockopt(0, 10, pack("=i", 0))
        sender.sendto(b"x", (GROUP, PORT))
        assert is_empty(receiver)
        assert not kernel.wire
        sender.setsockopt(0, 10, pack("=i", 7))
        sender.sendto(b"x", (GROUP, PORT))
        assert receiver.recvmsg(100)[3] == ("10.0.0.1", sender.getsockname()[1])
        assert kernel.wire[0].hop_limit == 7
        kernel.host.default_interface = None
        with refused(10051 if kind is FakeWindows else 51):
            sender.sendto(b"x", (GROUP, PORT))


CONTROL = {
    (FakeWindows, 4): ([(0, 19), (0, 21)], [(0, 19, "ef010203 02000000"), (0, 4, "09000000")]),
    (FakeMacOS, 4): ([(0, 26), (0, 24)], [(0, 24, "09"), (0, 26, "02000000 z4 ef010203")]),
    (FakeFreeBSD, 4): (
        [(0, 7), (0, 20), (0, 65)],
        [(0, 7, "ef010203"), (0, 65, "09"), (0, 20, "3612 0200 06 04 0000 65746830 z42")],
    ),
    (FakeWindows, 6): (
        [(41, 19), (41, 21)],
        [(41, 19, "ff15 z12 1234 02000000"), (41, 21, "09000000")],
    ),
    (FakeMacOS, 6): ([(41, 61), (41, 37)], [(41, 46, "ff15 z12 1234 02000000"), (41, 47, "09000000")]),
    (FakeFreeBSD, 6): ([(41, 36), (41, 37)], [(41, 46, "ff15 z12 1234 02000000"), (41, 47, "09000000")]),
}


@pytest.mark.parametrize(("kind", "version"), CONTROL)
def test_control_messages(kind: type, version: int) -> None:
    """Only what was switched on comes, in this system's form; what does not fit is cut off and said to be."""
    kernel = start(kind)
    switches, expected = CONTROL[kind, version]
    group, source = (GROUP, "10.0.0.2") if version == 4 else (GROUP6, "fe80::2")
    sender = ("10.0.0.2", 40000) if version == 4 else ("fe80::2", 40000, 0, 2)
    with opened(kernel, "", version) as sock:
        join(sock)
        kernel.network.inject("lan0", source, group, PORT, b"one")
        assert sock.recvmsg(100, 500) == (b"one", [], 0, sender)
        for level, number in switches:
            sock.setsockopt(level, number, pack("=i", 1))
        for _ in range(2):
            kernel.network.inject("lan0", source, group, PORT, b"two", hop_limit=9)
        messages = [(level, number, unpacked(text)) for level, number, text in expected]
        assert sock.recvmsg(100, 500) == (b"two", messages, 0, sender)
        assert sock.recvmsg(100, 0) == (b"two", [], 0x200 if kind is FakeWindows else 0x20, sender)


@pytest.mark.parametrize("kind", ALL)
def test_datagrams_longer_than_the_buffer(kind: type) -> None:
    """Winsock raises 10040 and the datagram is gone; the BSDs cut it and set MSG_TRUNC."""
    kernel = start(kind)
    with opened(kernel, "") as sock:
        join(sock)
        send(kernel, data=b"12345")
        if kind is FakeWindows:
            with refused(10040):
                sock.recvmsg(4)
        else:
            assert sock.recvmsg(4, 0, 2)[::2] == (b"1234", 0x10)
            assert sock.recvfrom(4) == (b"1234", ("10.0.0.2", 40000))
        assert is_empty(sock)
        with refused(10040 if kind is FakeWindows else 40):
            sock.sendto(bytes(65508), (GROUP, PORT))


@pytest.mark.parametrize("kind", BSDS)
def test_bsd_buffers(kind: type) -> None:
    """The send buffer limits a datagram, a full receive buffer drops, and too large a buffer is ENOBUFS."""
    kernel = start(kind)
    with opened(kernel, "") as sock:
        with refused(40):
            sock.sendto(bytes(9217), (GROUP, PORT))
        sock.setsockopt(0xFFFF, 0x1001, pack("=i", 20000))
        assert sock.sendmsg([bytes(9000), bytes(9000)], address=(GROUP, PORT)) == 18000
        with refused(55):
            sock.setsockopt(0xFFFF, 0x1002, pack("=i", 100 * 1024 * 1024))
        sock.setsockopt(0xFFFF, 0x1002, pack("=i", 10))
        assert sock.getsockopt(0xFFFF, 0x1002, 4) == pack("=i", 10)
        join(sock)
        assert [send(kernel, data=b"123456"), send(kernel, data=b"123456"), sock.dropped] == [1, 0, 1]


def test_windows_reports_closed_ports() -> None:
    """The next receive is 10054 after unicast to a closed port, and 10052 after expiry, unless switched off."""
    kernel = start(FakeWindows)
    with opened(kernel, "") as sock:
        sock.sendto(b"x", ("10.0.0.2", 9))
        with pytest.raises(ConnectionResetError, match="10054"):
            sock.recvmsg(100)
        kernel.time_exceeded(sock)
        with refused(10052):
            sock.recvmsg(100)
        sock.ioctl_bytes(0x9800000C, pack("=I", 0))
        sock.ioctl_bytes(0x9800000F, pack("=I", 0))
        sock.sendto(b"x", ("10.0.0.2", 9))
        kernel.time_exceeded(sock)
        assert is_empty(sock)
        with refused(10045):
            sock.ioctl_bytes(1, bytes(4))
        with refused(10014):
            sock.ioctl_bytes(0x9800000C, b"\0")
        assert not hasattr(sock, "sendmsg")


def test_windows_loopback_needs_a_member() -> None:
    """A group on the loopback interface is unreachable until someone joins it there."""
    kernel = start(FakeWindows)
    with opened(kernel, "") as receiver, opened(kernel) as sender:
        sender.setsockopt(0, 9, ip_address("127.0.0.1").packed)
        with refused(10051):
            sender.sendto(b"x", (GROUP, PORT))
        join(receiver, index=1)
        sender.sendto(b"x", (GROUP, PORT))
        assert receiver.recvmsg(100)[0] == b"x"


def test_macos_privacy() -> None:
    """Without the user's consent sends are refused, except on loopback."""
    kernel = start(FakeMacOS, privacy_denied=True)
    with opened(kernel) as sock:
        for address in (GROUP, "10.0.0.2"):
            with refused(65):
                sock.sendto(b"x", (address, PORT))
        sock.setsockopt(0, 9, ip_address("127.0.0.1").packed)
        assert sock.sendto(b"x", (GROUP, PORT)) == 1


@pytest.mark.parametrize("kind", BSDS)
def test_bsd_link_local_groups_need_a_scope(kind: type) -> None:
    """ff02:: goes where its scope or IPV6_MULTICAST_IF says, and nowhere by default; its bind keeps the scope."""
    kernel = start(kind)
    with opened(kernel, version=6) as sock:
        with refused(65):
            sock.sendto(b"x", ("ff02::7", PORT))
        sock.sendto(b"x", ("ff02::7", PORT, 0, 3))
        assert kernel.wire[0][:2] == ("lan1", ("fe80::1:1", 49152))
    for text, scope in (("ff02::7", 3), ("ff15::7", 0)):
        with opened(kernel, version=6) as sock:
            sock.bind((text, PORT, 0, 3))
            assert sock.getsockname()[3] == scope
