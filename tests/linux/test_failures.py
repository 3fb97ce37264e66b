"""What fails says what, where, why and what to do, and leaves nothing behind; what is only partly gone goes on."""

import contextlib
import errno
import socket
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest

from linux.plain_sockets import (
    FAMILY,
    all_closed,
    any_address,
    descriptors_left,
    member_on,
    open_descriptors,
    sender_on,
    udp_socket,
    until,
)
from multicast_expert import (
    McastRxSocket,
    McastTxSocket,
    MulticastExpertError,
    MulticastOSError,
    MulticastWarning,
    scan_interfaces,
)
from multicast_expert.testing import Host, Lab, wait_until
from network.watching import end_watches

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}
SSM_GROUP = {4: "232.1.2.3", 6: "ff35::8000:123"}

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture
def host(multicast_lab: Lab) -> Iterator[Host]:
    """A host with two interfaces, eth0 and eth1, and a neighbour at each; the test runs in it.

    Watches for interfaces that earlier tests left behind are ended first, so that their descriptors confuse no count.
    """
    end_watches()
    host = multicast_lab.host("host")
    for number in range(2):
        multicast_lab.link(
            host,
            multicast_lab.host(f"neighbour{number}"),
            interface=f"eth{number}",
            ipv4=(f"10.1.{number}.1/24", f"10.1.{number}.2/24"),
            ipv6=(f"fd01:{number}::1/64", f"fd01:{number}::2/64"),
        )
    with host.entered():
        yield host


def receiver(version: int, *ifaces: str, groups: int = 1, sources: int = 0) -> McastRxSocket:
    """A receiver that is not open yet; no interface named means all of them."""
    names = [f"{GROUP[version]}{number or ''}" for number in range(groups)]
    source_ips = [f"10.1.0.{last}" if version == 4 else f"fd01::{last:x}" for last in range(2, 2 + sources)]
    names = [SSM_GROUP[version]] if sources else names
    return McastRxSocket(FAMILY[version], names, PORT, ifaces=ifaces or None, source_ips=source_ips, timeout=10)


def sender(version: int, iface: str = "eth0", heal: bool = True) -> McastTxSocket:
    """A sender that is not open yet."""
    return McastTxSocket(FAMILY[version], [GROUP[version]], iface, heal=heal)


def judge(host: Host, version: int, interface: str = "eth0") -> socket.socket:
    """A plain receiver at the other end of the cable."""
    return member_on(host.interface(interface).peer, GROUP[version], PORT)


def send_to(host: Host, version: int, payload: bytes, interface: str = "eth0") -> None:
    """Send to the group from the other end of the cable."""
    with sender_on(host.interface(interface).peer, version) as stranger:
        stranger.sendto(payload, (GROUP[version], PORT))


class Failure(NamedTuple):
    """Something that fails, and what the error has to say. The words may contain {group}."""

    version: int
    provoke: Callable[[Host, int], contextlib.AbstractContextManager[Callable[[], object]]]
    """A block in which the call that it gives fails."""
    number: int
    step: str
    words: tuple[str, ...]


Provoked = Iterator[Callable[[], object]]


@contextlib.contextmanager
def named_interface_gone(host: Host, version: int) -> Provoked:
    """The interface of a receiver vanishes before it is opened."""
    made = receiver(version, "eth0", "eth1", groups=3)
    host.remove_interface("eth1")
    yield made.open


@contextlib.contextmanager
def all_interfaces_gone(host: Host, version: int) -> Provoked:
    """A receiver on all interfaces, and before it is opened none of them is left."""
    made = receiver(version, groups=3)
    for name in ("eth0", "eth1"):
        host.remove_interface(name)
    yield made.open


@contextlib.contextmanager
def port_taken(host: Host, version: int) -> Provoked:
    """Another program holds the port for itself alone."""
    with udp_socket(host, version, (any_address(version), PORT), reuse=False):
        yield receiver(version, "eth0", groups=3).open


@contextlib.contextmanager
def too_many_memberships(host: Host, version: int) -> Provoked:
    """The kernel allows one socket a single membership, and two interfaces are asked for."""
    host.limit_memberships(1)
    yield receiver(version, "eth0", "eth1").open


@contextlib.contextmanager
def too_many_sources(host: Host, version: int) -> Provoked:
    """More sources than a membership may have."""
    yield receiver(version, "eth0", sources={4: 11, 6: 65}[version]).open


@contextlib.contextmanager
def too_many_descriptors(host: Host, version: int) -> Provoked:
    """The process may open a few more descriptors, but not one for every group."""
    made = receiver(version, "eth0", groups=8)
    with descriptors_left(4):
        yield made.open


@contextlib.contextmanager
def sending_interface_gone(host: Host, version: int) -> Provoked:
    """The interface of a sender vanishes before it is opened."""
    made = sender(version, "eth1")
    host.remove_interface("eth1")
    yield made.open


@contextlib.contextmanager
def interface_gone_while_sending(host: Host, version: int) -> Provoked:
    """The interface of an open sender vanishes."""
    with sender(version, "eth1", heal=False) as opened:
        host.remove_interface("eth1")
        yield lambda: opened.sendto(b"x", (GROUP[version], PORT))


@contextlib.contextmanager
def interface_missed_while_sending(host: Host, version: int) -> Provoked:
    """The interface of an open sender vanishes, which the sender finds out by itself."""
    with sender(version, "eth1") as opened:
        host.remove_interface("eth1")
        wait_until(lambda: opened.missing_interfaces == ["eth1"], "it knows")
        yield lambda: opened.sendto(b"x", (GROUP[version], PORT))
    end_watches()


@contextlib.contextmanager
def interface_down_while_sending(host: Host, version: int) -> Provoked:
    """The interface of an open sender is taken down."""
    with sender(version, heal=False) as opened:
        host.set_link("eth0", up=False)
        yield lambda: opened.sendto(b"x", (GROUP[version], PORT))


@contextlib.contextmanager
def datagram_too_large(host: Host, version: int) -> Provoked:
    """A datagram larger than UDP can carry."""
    with sender(version, heal=False) as opened:
        yield lambda: opened.sendto(bytes(65528), (GROUP[version], PORT))


@contextlib.contextmanager
def firewall(host: Host, version: int) -> Provoked:
    """A rule that rejects what this host sends."""
    with sender(version, heal=False) as opened, host.firewall_drop("udp", direction="output"):
        yield lambda: opened.sendto(b"x", (GROUP[version], PORT))


FAILURES = [
    Failure(4, named_interface_gone, errno.ENODEV, "join", ("{group}", "eth1", "gone", "mcast interfaces")),
    Failure(6, named_interface_gone, errno.ENODEV, "bind to device", ("{group}", "eth1", "gone", "mcast interfaces")),
    Failure(4, all_interfaces_gone, errno.ENODEV, "join", ("{group}", "eth1", "gone", "mcast interfaces")),
    Failure(6, all_interfaces_gone, errno.ENODEV, "bind to device", ("{group}", "eth1", "gone", "mcast interfaces")),
    Failure(4, port_taken, errno.EADDRINUSE, "bind", ("{group}", "5000", "another program", "ss -ulpn")),
    Failure(6, port_taken, errno.EADDRINUSE, "bind", ("{group}", "5000", "another program", "ss -ulpn")),
    Failure(4, too_many_memberships, errno.ENOBUFS, "join", ("{group}", "eth1", "net.ipv4.igmp_max_memberships")),
    Failure(4, too_many_sources, errno.ENOBUFS, "join source", (SSM_GROUP[4], "from 10.1.0.", "eth0", "igmp_max_msf")),
    Failure(6, too_many_sources, errno.ENOBUFS, "join source", (SSM_GROUP[6], "from fd01::", "eth0", "mld_max_msf")),
    Failure(4, too_many_descriptors, errno.EMFILE, "socket", ("{group}", "IPv4", "limit", "ulimit -n")),
    Failure(6, too_many_descriptors, errno.EMFILE, "socket", ("{group}", "IPv6", "limit", "ulimit -n")),
    Failure(4, sending_interface_gone, errno.EADDRNOTAVAIL, "set interface", ("eth1", "gone", "mcast interfaces")),
    Failure(6, sending_interface_gone, errno.ENODEV, "set interface", ("eth1", "gone", "mcast interfaces")),
    Failure(
        4, interface_gone_while_sending, errno.ENETUNREACH, "send", ("{group}", "5000", "eth1", "route", "ip link")
    ),
    Failure(
        6, interface_gone_while_sending, errno.ENETUNREACH, "send", ("{group}", "5000", "eth1", "route", "ip link")
    ),
    *(
        Failure(
            version,
            interface_missed_while_sending,
            errno.ENODEV,
            "send",
            ("{group}", "5000", "eth1", "missing", "again"),
        )
        for version in (4, 6)
    ),
    Failure(4, interface_down_while_sending, errno.ENETUNREACH, "send", ("{group}", "5000", "eth0", "up", "ip link")),
    Failure(6, interface_down_while_sending, errno.ENETUNREACH, "send", ("{group}", "5000", "eth0", "up", "ip link")),
    Failure(4, datagram_too_large, errno.EMSGSIZE, "send", ("{group}", "65528 bytes", "eth0", "65,507", "pieces")),
    Failure(6, datagram_too_large, errno.EMSGSIZE, "send", ("{group}", "65528 bytes", "eth0", "65,527", "pieces")),
    Failure(4, firewall, errno.EPERM, "send", ("{group}", "eth0", "firewall", "nft list ruleset")),
    Failure(6, firewall, errno.EPERM, "send", ("{group}", "eth0", "firewall", "nft list ruleset")),
]


@contextlib.contextmanager
def ignored_warnings() -> Iterator[None]:
    """Inside the block nobody hears of skipped interfaces."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", MulticastWarning)
        yield


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure.provoke.__name__}-IPv{failure.version}")
def test_what_a_failure_says(host: Host, failure: Failure) -> None:
    """An error keeps the errno and names step, group, interface, cause and cure; nothing stays open."""
    before = open_descriptors()
    with failure.provoke(host, failure.version) as fail:
        inside = open_descriptors()
        with pytest.raises(MulticastExpertError) as caught, ignored_warnings():
            fail()
        all_closed(inside)
    all_closed(before)
    error = caught.value
    assert isinstance(error, MulticastOSError)
    assert isinstance(error, OSError)
    assert (error.errno, error.step) == (failure.number, failure.step)
    assert errno.errorcode[failure.number] in str(error)
    missing = [
        word for word in failure.words if word.format(group=GROUP[failure.version]).lower() not in str(error).lower()
    ]
    assert not missing, f"{missing} not in: {error}"
    assert error.reason
    assert error.remedy


@pytest.mark.parametrize("failure", FAILURES[:11], ids=lambda f: f"{f.provoke.__name__}-IPv{f.version}")
def test_a_hundred_failed_opens_leave_no_descriptor(host: Host, failure: Failure) -> None:
    """Whatever made them fail, and however much was open by then: a hundred failed opens leave no descriptor behind.

    With its eleven kinds of failure this test fails more than 1,000 times in all.
    """
    before = open_descriptors()
    with failure.provoke(host, failure.version) as fail:
        for _ in range(100):
            with pytest.raises(MulticastOSError), ignored_warnings():
                fail()
    all_closed(before)


@both_versions
def test_a_warning_that_is_made_an_error_leaves_nothing_open(host: Host, version: int) -> None:
    """Where a program turns warnings into errors, a skipped interface is a failed open like any other."""
    made = receiver(version)
    host.remove_interface("eth1")
    before = open_descriptors()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(MulticastWarning, match=r"eth1.*skipped"):
            made.open()
    all_closed(before)
    assert not made.is_opened


@both_versions
def test_after_a_failed_open_the_same_object_can_be_opened(host: Host, version: int) -> None:
    """A receiver that could not be opened is simply not open: no half state, and a later open works."""
    made = receiver(version, "eth0", groups=3)
    with udp_socket(host, version, (any_address(version), PORT), reuse=False), pytest.raises(MulticastOSError):
        made.open()
    assert not made.is_opened
    with pytest.raises(MulticastExpertError, match="not open"):
        made.close()
    with made:
        send_to(host, version, b"works")
        assert made.recv() == b"works"


@both_versions
@pytest.mark.parametrize("way", ["with", "open()"])
def test_part_of_all_interfaces_gone_is_a_warning(host: Host, version: int, way: str) -> None:
    """An interface that was only part of all of them is skipped with a warning that points at the caller."""
    made = receiver(version)
    host.remove_interface("eth1")
    with pytest.warns(MulticastWarning, match=r"eth1.*skipped") as caught:
        heard = hear_with(host, version, made) if way == "with" else hear_between_open_and_close(host, version, made)
    assert heard == b"still here"
    assert [warning.filename for warning in caught] == [__file__]


def hear_with(host: Host, version: int, made: McastRxSocket) -> bytes | None:
    """Receive a datagram in a `with` block."""
    with made:
        send_to(host, version, b"still here")
        return made.recv()


def hear_between_open_and_close(host: Host, version: int, made: McastRxSocket) -> bytes | None:
    """Receive a datagram without a `with` block."""
    made.open()
    send_to(host, version, b"still here")
    heard = made.recv()
    made.close()
    return heard


@both_versions
def test_no_interface_to_receive_on(host: Host, version: int) -> None:
    """All interfaces, where none but loopback has an address of the family: an error before anything is opened."""
    for name in ("eth0", "eth1"):
        host.remove_addresses(name, ipv4=version == 4, ipv6=version == 6)
    with pytest.raises(MulticastExpertError, match=f"only loopback has an IPv{version} address"):
        receiver(version)


@both_versions
def test_sending_from_an_interface_without_an_address(host: Host, version: int) -> None:
    """The interface has no address of the family: an error, with the interface and the cure, before a socket exists."""
    host.remove_addresses("eth0", ipv4=version == 4, ipv6=version == 6)
    before = open_descriptors()
    with pytest.raises(MulticastExpertError, match=rf"eth0 has no IPv{version} address.*mcast interfaces") as caught:
        sender(version)
    assert not isinstance(caught.value, OSError)
    all_closed(before)


@both_versions
def test_receiving_on_an_interface_without_an_address(host: Host, version: int) -> None:
    """An interface that is named needs no address to receive: DHCP may not have answered yet."""
    host.remove_addresses("eth0", ipv4=version == 4, ipv6=False)
    with receiver(version, "eth0") as made:
        send_to(host, version, b"no address needed")
        assert made.recv() == b"no address needed"


def test_ipv6_switched_off(host: Host) -> None:
    """With IPv6 off, sending and receiving say that there is no IPv6 address; a named receiver waits for it."""
    host.disable_ipv6("all")
    with pytest.raises(MulticastExpertError, match="eth0 has no IPv6 address"):
        sender(6)
    with pytest.raises(MulticastExpertError, match="only loopback has an IPv6 address"):
        receiver(6)
    with receiver(6, "eth0") as made:
        host.disable_ipv6("all", disabled=False)
        send_to(host, 6, b"back again")
        assert made.recv() == b"back again"


@both_versions
def test_opened_while_the_interface_is_down(host: Host, version: int) -> None:
    """A receiver that is opened while its interface is down receives as soon as that is up."""
    host.set_link("eth0", up=False)
    with receiver(version, "eth0") as made:
        host.set_link("eth0", up=True)
        send_to(host, version, b"up")
        assert made.recv() == b"up"


@both_versions
def test_down_and_up_again(host: Host, version: int) -> None:
    """An interface that goes down and up takes nothing away from open sockets: the sender's error passes."""
    with sender(version) as sending, receiver(version, "eth0") as made, judge(host, version) as neighbour:
        host.set_link("eth0", up=False)
        with pytest.raises(MulticastOSError):
            sending.sendto(b"lost", (GROUP[version], PORT))
        host.set_link("eth0", up=True)
        sending.sendto(b"out", (GROUP[version], PORT))
        assert [data for _, data in until([neighbour], 1)] == [b"out"]
        send_to(host, version, b"in")
        assert made.recv() == b"in"


@both_versions
def test_two_interfaces_with_one_address(host: Host, version: int) -> None:
    """An address that two interfaces have is refused for sending, with the advice to pass an IfaceInfo; that works."""
    shared = {4: "10.1.0.1", 6: "fd01::1"}[version]
    host.ip("addr add 10.1.0.1/24 dev eth1", "addr add fd01::1/64 dev eth1 nodad")
    with pytest.raises(MulticastExpertError, match=r"fits several interfaces: eth0, eth1.*IfaceInfo"):
        sender(version, shared)
    for iface in scan_interfaces():
        if iface.machine_name.startswith("eth"):
            with (
                McastTxSocket(FAMILY[version], [GROUP[version]], iface) as sending,
                judge(host, version, "eth0") as first,
                judge(host, version, "eth1") as second,
            ):
                sending.sendto(iface.machine_name.encode(), (GROUP[version], PORT))
                assert until([first, second], 1) == [
                    (first if iface.machine_name == "eth0" else second, iface.machine_name.encode())
                ]
