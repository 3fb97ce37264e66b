"""The fakes are strict about bytes, options and binding, and their tools for tests work."""

from __future__ import annotations

import selectors
from ipaddress import ip_address
from struct import pack

import pytest

from fakes import FakeFreeBSD, FakeMacOS, FakeWindows
from fakes.asking import (
    ALL,
    BSDS,
    BUSY,
    GOLDEN,
    GROUP,
    GROUP6,
    INVALID,
    MCAST,
    PORT,
    UNAVAILABLE,
    change,
    golden,
    join,
    opened,
    refused,
    request,
    send,
    start,
)


@pytest.mark.parametrize(("kind", "version"), GOLDEN)
def test_group_requests_are_read_as_c_lays_them_out(kind: type, version: int) -> None:
    """The bytes of a C compiler join the group they name; for a source too."""
    kernel = start(kind)
    kernel.host.interfaces[1].index = 5
    group = ip_address(GROUP if version == 4 else GROUP6)
    with opened(kernel, version=version) as sock:
        level = 0 if version == 4 else 41
        sock.setsockopt(level, MCAST[kind][0], golden(kind, version))
        assert sock.memberships[group, 5].excluding
        sock.setsockopt(level, MCAST[kind][1], golden(kind, version))
        assert not sock.memberships
        sock.setsockopt(level, MCAST[kind][2], golden(kind, version, source=True))
        assert sock.memberships[group, 5].sources == {ip_address("10.0.0.7" if version == 4 else "fd00::7")}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("kind", "foreign"), [(a, b) for a in ALL for b in ALL if a is not b])
def test_group_requests_of_another_system_are_refused(kind: type, foreign: type, version: int) -> None:
    """No kernel takes another one's bytes for its own."""
    kernel = start(kind)
    kernel.host.interfaces[1].index = 5
    for source, what in ((False, 0), (True, 2)):
        value = golden(foreign, version, source)
        number = 10014 if kind is FakeWindows and foreign is FakeMacOS else INVALID[kind]
        with opened(kernel, version=version) as sock, refused(number):
            sock.setsockopt(0 if version == 4 else 41, MCAST[kind][what], value)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wrong", ["length", "interface", "index 0", "not a group", "double", "never joined", "int"])
def test_wrong_requests_are_refused(kind: type, wrong: str) -> None:
    """Each mistake has its documented error."""
    kernel, number = start(kind), MCAST[kind][0]
    good = request(kind, 2, GROUP)
    with opened(kernel) as sock:
        if wrong == "length":
            with refused(10014 if kind is FakeWindows else 22):
                sock.setsockopt(0, number, good[:-1])
            with refused(INVALID[kind]):
                sock.setsockopt(0, number, good + b"\0")
        elif wrong == "interface":
            with refused(UNAVAILABLE[kind]):
                join(sock, index=77)
        elif wrong == "index 0" and kind is not FakeWindows:
            with refused(49):
                join(sock, index=0)
        elif wrong == "not a group":
            with refused(INVALID[kind]):
                join(sock, "10.0.0.9")
        elif wrong == "double":
            join(sock)
            with refused(BUSY[kind]):
                join(sock)
        elif wrong == "never joined":
            with refused(UNAVAILABLE[kind]):
                change(sock, 1, GROUP)
        elif wrong == "int":
            with pytest.raises(TypeError):
                sock.setsockopt(0, number, 1)  # type: ignore[arg-type]  # what is refused


@pytest.mark.parametrize(("kind", "unknown"), [(FakeWindows, 10042), (FakeMacOS, 42), (FakeFreeBSD, 42)])
def test_unknown_options_levels_and_families_are_refused(kind: type, unknown: int) -> None:
    """Linux's numbers, IPv6 options on an IPv4 socket, and Linux's AF_INET6 are unknown."""
    kernel = start(kind)
    with opened(kernel) as sock:
        for level, number in ((0, 49), (0, 35), (0xFFFF, 0x200 if kind is FakeWindows else 15)):
            with refused(unknown):
                sock.setsockopt(level, number, pack("=i", 1))
        with refused(unknown):
            sock.getsockopt(0, 49, 4)
        for level in (41, 1):
            with refused(INVALID[kind]):
                sock.setsockopt(level, 9, pack("=i", 2))
    with refused(10047 if kind is FakeWindows else 47):
        kernel.socket(10, 2)


@pytest.mark.parametrize("kind", BSDS)
@pytest.mark.parametrize("length", [0, 15, 28])
def test_bsd_socket_addresses_begin_with_their_length(kind: type, length: int) -> None:
    """A length byte other than 16 is EINVAL, in the group and in the source."""
    with opened(start(kind)) as sock:
        value = bytearray(request(kind, 2, GROUP, "10.0.0.7"))
        for position in (len(value) - 256, len(value) - 128):
            wrong = value.copy()
            wrong[position] = length
            with refused(22):
                sock.setsockopt(0, MCAST[kind][2], bytes(wrong))


@pytest.mark.parametrize("kind", ALL)
def test_v6only_comes_before_bind(kind: type) -> None:
    """Once bound, IPV6_V6ONLY cannot change; it reads back."""
    with opened(start(kind), version=6) as sock:
        sock.setsockopt(41, 27, pack("=i", 1))
        assert sock.getsockopt(41, 27, 4) == pack("=i", 1)
        sock.bind(("::", PORT))
        with refused(INVALID[kind]):
            sock.setsockopt(41, 27, pack("=i", 0))


def test_macos_copies_eight_bytes_of_a_classic_join() -> None:
    """The index of an ip_mreqn is lost; 0.0.0.N is an index."""
    with opened(start(FakeMacOS)) as sock:
        sock.setsockopt(0, 12, ip_address(GROUP).packed + ip_address("10.0.0.1").packed + pack("=i", 3))
        assert list(sock.memberships) == [(ip_address(GROUP), 2)]
        sock.setsockopt(0, 12, ip_address(GROUP).packed + pack("!I", 3))
        sock.setsockopt(0, 13, ip_address(GROUP).packed + pack("!I", 2))
        assert list(sock.memberships) == [(ip_address(GROUP), 3)]
        sock.setsockopt(0, 70, ip_address("232.1.1.1").packed + ip_address("10.0.0.7").packed + pack("!I", 3))
        assert (ip_address("232.1.1.1"), 3) in sock.memberships


def test_freebsd_joins_by_mreqn_and_drops_by_address() -> None:
    """The index of an ip_mreqn counts in a join only; 0.0.0.N is no index."""
    with opened(start(FakeFreeBSD)) as sock:
        mreqn = ip_address(GROUP).packed + ip_address("10.0.0.1").packed + pack("=i", 3)
        sock.setsockopt(0, 12, mreqn)
        assert list(sock.memberships) == [(ip_address(GROUP), 3)]
        with refused(49):
            sock.setsockopt(0, 13, mreqn)
        for number, value in ((12, pack("!I", 3)), (70, ip_address("10.0.0.7").packed + pack("!I", 3))):
            with refused(49):
                sock.setsockopt(0, number, ip_address(GROUP).packed + value)
        sock.setsockopt(0, 13, ip_address(GROUP).packed + ip_address("10.1.0.1").packed)
        assert not sock.memberships


@pytest.mark.parametrize("legacy", [True, False])
def test_windows_classic_joins(legacy: bool) -> None:
    """They take an address or an index, the source before the interface; a legacy stack has nothing else."""
    kernel = start(FakeWindows, legacy=legacy)
    group, source, own = (ip_address(text).packed for text in (GROUP, "10.0.0.7", "10.1.0.1"))
    with opened(kernel) as sock, opened(kernel, version=6) as six:
        sock.setsockopt(0, 12, group + pack("!I", 2))
        sock.setsockopt(0, 13, group + ip_address("10.0.0.1").packed)
        sock.setsockopt(0, 15, group + source + own)
        assert sock.memberships[ip_address(GROUP), 3].sources == {ip_address("10.0.0.7")}
        with refused(10049):
            sock.setsockopt(0, 15, group + own + source)
        six.setsockopt(41, 12, ip_address(GROUP6).packed + pack("=I", 3))
        assert list(six.memberships) == [(ip_address(GROUP6), 3)]
        if legacy:
            with refused(10042):
                join(sock)


@pytest.mark.parametrize("kind", BSDS)
def test_interfaces_without_multicast_cannot_be_joined(kind: type) -> None:
    """Without IFF_MULTICAST a join is EADDRNOTAVAIL."""
    kernel = start(kind)
    kernel.host.interfaces[1].multicast = False
    with opened(kernel) as sock, refused(49):
        join(sock)


def test_macos_ipv6_join_needs_an_index() -> None:
    """Index 0 is EADDRNOTAVAIL."""
    with opened(start(FakeMacOS), version=6) as sock, refused(49):
        sock.setsockopt(41, 12, ip_address(GROUP6).packed + bytes(4))


@pytest.mark.parametrize("kind", ALL)
def test_outgoing_interface_takes_this_systems_form_only(kind: type) -> None:
    """An index in network order on Windows and macOS, an ip_mreqn on the BSDs; IPv6: host order."""
    mreqn = bytes(8) + pack("=i", 3)
    forms = {pack("!I", 3): kind is not FakeFreeBSD, mreqn: kind is not FakeWindows, pack("=I", 3): False}
    for value, fits in forms.items():
        kernel = start(kind)
        with opened(kernel) as sock:
            if not fits:
                with refused(INVALID[kind] if len(value) == 12 else UNAVAILABLE[kind]):
                    sock.setsockopt(0, 9, value)
                continue
            sock.setsockopt(0, 9, value)
            sock.sendto(b"x", (GROUP, PORT))
            assert kernel.wire[0].link == "lan1"
    kernel = start(kind)
    with opened(kernel, version=6) as sock:
        sock.setsockopt(41, 9, pack("=I", 3))
        with pytest.raises(OSError, match="index"):
            sock.setsockopt(41, 9, pack("!I", 3))
        sock.sendto(b"x", (GROUP6, PORT))
        assert kernel.wire == [("lan1", ("fd01::1", 49152), (GROUP6, PORT), 1, b"x", 0)]


@pytest.mark.parametrize("kind", BSDS)
def test_bsd_port_sharing(kind: type) -> None:
    """SO_REUSEADDR shares a group; the wildcard needs SO_REUSEPORT on both."""
    kernel = start(kind)
    with opened(kernel, GROUP, reuse_address=True), opened(kernel, reuse_address=True) as second:
        second.bind((GROUP, PORT))
    for first, second, works in [
        ({"reuse_address": True}, {"reuse_address": True}, False),
        ({"reuse_port": True}, {"reuse_address": True}, False),
        ({"reuse_address": True}, {"reuse_port": True}, False),
        ({"reuse_port": True}, {"reuse_port": True}, True),
    ]:
        with opened(kernel, "", **first), opened(kernel, **second) as sock:
            if works:
                sock.bind(("", PORT))
            else:
                with refused(48):
                    sock.bind(("", PORT))
    with opened(kernel, "", reuse_address=True), opened(kernel) as sock, refused(48):
        sock.bind((GROUP, PORT))


@pytest.mark.parametrize("kind", ALL)
def test_bound_addresses_are_the_hosts_own(kind: type) -> None:
    """Foreign addresses, link-local ones without their scope, and a second bind are refused."""
    kernel = start(kind)
    for version, address in ((4, ("10.0.0.9", PORT)), (6, ("fe80::1", PORT)), (6, ("fe80::1", PORT, 0, 3))):
        with opened(kernel, version=version) as sock, refused(UNAVAILABLE[kind]):
            sock.bind(address)
    with opened(kernel, version=6) as sock:
        sock.bind(("fe80::1", PORT, 0, 2))
        assert sock.getsockname() == ("fe80::1", PORT, 0, 2)
        with refused(INVALID[kind]):
            sock.bind(("::", PORT))


def test_windows_binding() -> None:
    """A group cannot be bound; SO_REUSEADDR of the newcomer shares, SO_EXCLUSIVEADDRUSE prevents it."""
    kernel = start(FakeWindows)
    with opened(kernel) as sock, refused(10049) as caught:
        sock.bind((GROUP, PORT))
    assert caught.value.winerror == 10049
    with opened(kernel) as sock, refused(10022):
        sock.getsockname()
    with opened(kernel, "") as sock:
        with opened(kernel) as second, refused(10048):
            second.bind(("", PORT))
        with opened(kernel, "", reuse_address=True):
            assert len(kernel.open_sockets()) == 2
    with opened(kernel) as alone, opened(kernel, reuse_address=True) as thief:
        alone.setsockopt(0xFFFF, -5, pack("=i", 1))
        alone.bind(("", PORT))
        with pytest.raises(PermissionError, match="10013"):
            thief.bind(("", PORT))
        with refused(10022):
            thief.setsockopt(0xFFFF, -5, pack("=i", 1))


@pytest.mark.parametrize("kind", ALL)
def test_descriptor_is_readable_while_something_is_queued(kind: type) -> None:
    """A selector sees the socket exactly then."""
    kernel = start(kind)
    with opened(kernel, "") as sock, selectors.DefaultSelector() as selector:
        selector.register(sock.fileno(), selectors.EVENT_READ)
        join(sock)
        assert not selector.select(0)
        send(kernel)
        send(kernel)
        sock.recvmsg(100, 0, 2)
        sock.recvmsg(100)
        assert selector.select(0)
        sock.recvmsg(100)
        assert not selector.select(0)


def test_calls_are_recorded_and_failures_injected() -> None:
    """Order, bytes and descriptors are kept; the first two joins fail with ENOMEM, the third works."""
    kernel = start(FakeMacOS)
    kernel.fail("setsockopt", 12, level=0, number=80, times=2)
    kernel.fail("bind", 48, nth=2)
    kernel.fail("socket", 24, nth=2)
    with opened(kernel, GROUP) as sock:
        descriptor = sock.fileno()
        for _ in range(2):
            with refused(12):
                join(sock)
        join(sock)
        assert sock.memberships
        with refused(48):
            sock.bind((GROUP, PORT))
        with refused(24):
            kernel.socket(2, 2)
        assert kernel.open_sockets() == [sock]
    assert not kernel.open_sockets()
    value = request(FakeMacOS, 2, GROUP)
    assert kernel.calls == [
        (descriptor, "socket", (2, 2, 0)),
        (descriptor, "setblocking", (False,)),
        (descriptor, "bind", ((GROUP, PORT),)),
        *[(descriptor, "setsockopt", (0, 80, value))] * 3,
        (descriptor, "bind", ((GROUP, PORT),)),
        (-1, "socket", (2, 2, 0)),
        (descriptor, "close", ()),
    ]


@pytest.mark.parametrize("kind", ALL)
def test_careless_use_is_seen(kind: type) -> None:
    """A forgotten close warns, a closed socket is refused, a blocking receive that could never end fails."""
    kernel = start(kind)
    sock = opened(kernel, "")
    with pytest.warns(ResourceWarning, match="unclosed"):
        del sock
    assert not kernel.open_sockets()
    with opened(kernel, "") as sock:
        sock.setblocking(True)
        with pytest.raises(AssertionError, match="blocking"):
            sock.recvmsg(100)
    sock.close()
    assert sock.fileno() == -1
    with refused(10038 if kind is FakeWindows else 9):
        sock.setblocking(False)
