"""What is sent leaves from the right interface with the right source and hop limit, and is heard by the right ones."""

import contextlib
import os
import select
import socket
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest

from linux.plain_sockets import (
    FAMILY,
    LEVEL,
    any_address,
    join,
    member_on,
    nothing_for,
    own_address,
    sender_on,
    udp_socket,
    until,
)
from multicast_expert import McastRxSocket, McastTxSocket, MulticastExpertError, scan_interfaces
from multicast_expert.testing import Host, Interface, Lab

PORT = 5000
GROUP = {4: "239.1.2.3", 6: "ff15::1:2:3"}

# ip(7), ipv6(7): what switches the received hop limit on, and the control message that it comes in.
RECEIVE_HOPS = {4: 12, 6: 51}
HOPS = {4: 2, 6: 52}

both_versions = pytest.mark.parametrize("version", [4, 6], ids=["IPv4", "IPv6"])


@pytest.fixture(scope="module")
def host(lab: Lab) -> Iterator[Host]:
    """A host with eth0 and eth1 in one subnet, each with two addresses and its own neighbour; the tests run in it."""
    host = lab.host("host")
    for number in range(2):
        lab.link(
            host,
            lab.host(f"neighbour{number}"),
            interface=f"eth{number}",
            second_interface="eth0",
            ipv4=(f"10.1.0.{number + 1}/24", f"10.1.0.{number + 101}/24"),
            ipv6=(f"fd01::{number + 1}/64", f"fd01::{number + 101}/64"),
        )
        host.ip(
            f"addr add 10.1.1.{number + 1}/24 dev eth{number}",
            f"addr add fd01:1::{number + 1}/64 dev eth{number} nodad",
        )
    host.ip("route add default via 10.1.0.102 dev eth1", "route add ::/0 via fd01::102 dev eth1")
    host.allow_ipv6_loopback()
    with host.entered():
        yield host


@contextlib.contextmanager
def neighbours(host: Host, version: int, group: str | None = None) -> Iterator[dict[str, socket.socket]]:
    """Plain receivers behind eth0 and eth1, and on the host's own loopback interface."""
    group = group or GROUP[version]
    with contextlib.ExitStack() as opened:
        heard = {
            name: opened.enter_context(member_on(interface.peer, group, PORT))
            for name, interface in host.interfaces.items()
        }
        heard["lo"] = opened.enter_context(bound_to_group(host, group, "lo"))
        yield heard


def bound_to_group(host: Host, group: str, interface: str) -> socket.socket:
    """A plain receiver in the host itself that gets this group and nothing else."""
    version = ip_address(group).version
    index = socket.if_nametoindex(interface)
    opened = udp_socket(host, version)
    # A link-local group can be bound to only together with its interface, and then means that interface alone.
    opened.bind((group, PORT) if version == 4 else (group, PORT, 0, index))
    join(opened, group, index)
    return opened


def arrival(judge: socket.socket) -> tuple[bytes, str]:
    """The next datagram and the address that it came from."""
    data, sender = judge.recvfrom(65535)
    return data, sender[0].partition("%")[0]


@both_versions
@pytest.mark.parametrize("name", ["eth0", "eth1", "lo"])
@pytest.mark.parametrize("spelling", ["name", "first address", "IfaceInfo"])
def test_the_interface_that_was_asked_for(host: Host, version: int, name: str, spelling: str) -> None:
    """A datagram leaves from that interface only, with its address: also where two share a subnet, and on lo."""
    (info,) = (iface for iface in scan_interfaces() if iface.machine_name == name)
    loopback = {4: "127.0.0.1", 6: "::1"}[version]
    address = loopback if name == "lo" else own_address(host.interface(name), version)
    chosen = {"name": name, "first address": address, "IfaceInfo": info}[spelling]
    with neighbours(host, version) as heard, McastTxSocket(FAMILY[version], [GROUP[version]], chosen) as sender:
        assert sender.network_interface == info
        sender.sendto(b"here", (GROUP[version], PORT))
        assert arrival(heard[name])[0] == b"here"
        sender.sendto(b"again", (GROUP[version], PORT))
        data, source = arrival(heard[name])
        assert data == b"again"
        assert source in [str(own.ip).partition("%")[0] for own in info.ip_addrs(FAMILY[version])]
        if spelling == "first address" or version == 4:
            assert source == address
        assert all(nothing_for(judge) for other, judge in heard.items() if other != name)


@both_versions
def test_the_source_address_that_was_asked_for(host: Host, version: int) -> None:
    """The interface named by its second address, or its link-local one: that is where its datagrams come from."""
    sources = {4: ["10.1.1.1"], 6: ["fd01:1::1", host.interface("eth0").link_local]}[version]
    for source in sources:
        with neighbours(host, version) as heard, McastTxSocket(FAMILY[version], [GROUP[version]], source) as sender:
            assert sender.getsockname()[0].partition("%")[0] == source
            sender.sendto(b"x", (GROUP[version], PORT))
            assert arrival(heard["eth0"]) == (b"x", source)


@both_versions
def test_no_interface_named_means_the_default_route(host: Host, version: int) -> None:
    """Without an interface the datagrams leave where the default route goes."""
    with neighbours(host, version) as heard, McastTxSocket(FAMILY[version], [GROUP[version]]) as sender:
        assert sender.network_interface.machine_name == "eth1"
        sender.sendto(b"x", (GROUP[version], PORT))
        data, source = arrival(heard["eth1"])
        assert data == b"x"
        assert source in [str(own.ip) for own in sender.network_interface.ip_addrs(FAMILY[version])]
        assert nothing_for(heard["eth0"])


@both_versions
@pytest.mark.parametrize("loopback", [False, True])
def test_whether_this_host_hears_itself(host: Host, version: int, loopback: bool) -> None:
    """On a real interface, our own receivers and other programs hear us only if asked for; others hear us always."""
    group = GROUP[version]
    with (
        neighbours(host, version) as heard,
        bound_to_group(host, group, "eth0") as program,
        McastRxSocket(FAMILY[version], [group], PORT, "eth0", timeout=10) as receiver,
        McastTxSocket(FAMILY[version], [group], "eth0", enable_external_loopback=loopback) as sender,
    ):
        sender.sendto(b"x", (group, PORT))
        assert arrival(heard["eth0"])[0] == b"x"
        if loopback:
            assert receiver.recv() == b"x"
            assert program.recv(9) == b"x"
        # A datagram of the neighbour's stands behind our own, if that was looped back at all.
        neighbour_sends(host.interface("eth0").peer, group)
        assert receiver.recv() == b"neighbour"
        assert program.recv(9) == b"neighbour"


def neighbour_sends(interface: Interface, group: str) -> None:
    """Send to the group out of a neighbour's interface."""
    with sender_on(interface, ip_address(group).version) as stranger:
        stranger.sendto(b"neighbour", (group, PORT))


@both_versions
@pytest.mark.parametrize("loopback", [False, True])
def test_on_the_loopback_interface_this_host_always_hears_itself(host: Host, version: int, loopback: bool) -> None:
    """On lo the switch makes no difference: one copy, from the loopback address (not from 0.0.0.0)."""
    group = GROUP[version]
    with (
        McastRxSocket(FAMILY[version], [group], PORT, "lo", timeout=10) as receiver,
        McastTxSocket(FAMILY[version], [group], "lo", enable_external_loopback=loopback) as sender,
    ):
        sender.sendto(b"x", (group, PORT))
        received = receiver.recvfrom()
        assert received is not None
        assert (received[0], received[1][0]) == (b"x", {4: "127.0.0.1", 6: "::1"}[version])
        receiver.settimeout(0)
        assert receiver.recv() is None


@pytest.mark.parametrize(
    "group", ["ff02::1:2:3", "ff12::1:2:3", "ff14::1:2:3", "ff05::1:2:3", "ff0e::1:2:3", "224.0.0.77"]
)
def test_groups_of_every_scope(host: Host, group: str) -> None:
    """Link-local, admin-local, site-local and global groups go both ways between this library and a plain socket."""
    version = ip_address(group).version
    neighbour = host.interface("eth1").peer
    with (
        neighbours(host, version, group) as heard,
        McastTxSocket(FAMILY[version], [group], "eth1", enable_external_loopback=True) as sender,
        McastRxSocket(FAMILY[version], [group], PORT, "eth1", timeout=10) as receiver,
        McastRxSocket(FAMILY[version], [group], PORT, "eth0", timeout=0) as elsewhere,
    ):
        sender.sendto(b"out", (group, PORT))
        assert arrival(heard["eth1"])[0] == b"out"
        assert receiver.recv() == b"out"
        neighbour_sends(neighbour, group)
        assert receiver.recv() == b"neighbour"
        assert elsewhere.recv() is None
        assert nothing_for(heard["eth0"])


@pytest.mark.parametrize("group", ["ff01::1:2:3", "ff11::1:2:3"])
def test_interface_local_groups_stay_in_the_host(host: Host, group: str) -> None:
    """An interface-local IPv6 group is heard on this host, when that is asked for, and by nobody else."""
    with (
        neighbours(host, 6, group) as heard,
        McastTxSocket(socket.AF_INET6, [group, GROUP[6]], "eth0", enable_external_loopback=True) as sender,
        McastRxSocket(socket.AF_INET6, [group], PORT, "eth0", timeout=10) as receiver,
    ):
        join(heard["eth0"], GROUP[6], host.interface("eth0").peer.index())
        sender.sendto(b"inside", (group, PORT))
        assert receiver.recv() == b"inside"
        sender.sendto(b"outside", (GROUP[6], PORT))
        assert arrival(heard["eth0"])[0] == b"outside"


@both_versions
@pytest.mark.parametrize("ttl", [1, 2, 64, 255])
def test_the_ttl_that_was_asked_for(host: Host, version: int, ttl: int) -> None:
    """A datagram arrives next door with exactly the TTL (hop limit) that the sender was given."""
    with (
        neighbours(host, version) as heard,
        McastTxSocket(FAMILY[version], [GROUP[version]], "eth0", ttl=ttl) as sender,
    ):
        assert hops_of(heard["eth0"], sender, version) == ttl


@both_versions
def test_ttl_1_is_the_default(host: Host, version: int) -> None:
    """Without a TTL, a datagram stays on the link."""
    with neighbours(host, version) as heard, McastTxSocket(FAMILY[version], [GROUP[version]], "eth0") as sender:
        assert hops_of(heard["eth0"], sender, version) == 1


def hops_of(judge: socket.socket, sender: McastTxSocket, version: int) -> int:
    """Send a datagram and return the hop limit that it arrives with, from its control message."""
    judge.setsockopt(LEVEL[version], RECEIVE_HOPS[version], 1)
    sender.sendto(b"x", (GROUP[version], PORT))
    data, messages, _, _ = judge.recvmsg(100, 200)
    assert data == b"x"
    ((level, kind, value),) = messages
    assert (level, kind) == (LEVEL[version], HOPS[version])
    return int.from_bytes(value, "little" if value[0] else "big")


@both_versions
def test_ttl_0_stays_in_the_host(host: Host, version: int) -> None:
    """TTL 0 leaves no trace on the wire; a receiver on this host gets it when loopback is on."""
    group = GROUP[version]
    with (
        neighbours(host, version) as heard,
        McastRxSocket(FAMILY[version], [group], PORT, "eth0", timeout=10) as receiver,
        McastTxSocket(FAMILY[version], [group], "eth0", 0, True) as at_home,
        McastTxSocket(FAMILY[version], [group], "eth0", 1) as next_door,
    ):
        at_home.sendto(b"at home", (group, PORT))
        assert receiver.recv() == b"at home"
        next_door.sendto(b"next door", (group, PORT))
        assert arrival(heard["eth0"])[0] == b"next door"


@both_versions
def test_the_ttl_across_a_router(multicast_lab: Lab, version: int) -> None:
    """TTL 1 does not cross a multicast router; TTL 2 does, and arrives as 1."""
    group = {4: "239.9.9.9", 6: "ff18::9:9"}[version]
    near, router, far = multicast_lab.host("near"), multicast_lab.router("router"), multicast_lab.host("far")
    switch = multicast_lab.switch("switch", snooping=False)
    multicast_lab.plug(near, switch, ipv4="10.1.0.1/24", ipv6="fd01::1/64")
    local = multicast_lab.plug(multicast_lab.host("local"), switch, ipv4="10.1.0.2/24", ipv6="fd01::2/64")
    multicast_lab.plug(router, switch, ipv4="10.1.0.254/24", ipv6="fd01::ffff/64", interface="lan")
    _, remote = multicast_lab.link(
        router,
        far,
        interface="wan",
        second_interface="eth0",
        ipv4=("10.2.0.254/24", "10.2.0.1/24"),
        ipv6=("fd02::ffff/64", "fd02::1/64"),
    )
    router.route_multicast(group, "lan", ["wan"])
    with (
        member_on(local, group, PORT) as here,
        far.entered(),
        McastRxSocket(FAMILY[version], [group], PORT, "eth0", timeout=10) as beyond,
        member_on(remote, group, PORT) as hops,
    ):
        hops.setsockopt(LEVEL[version], RECEIVE_HOPS[version], 1)
        with near.entered(), contextlib.ExitStack() as opened:
            by_ttl: dict[int, Any] = {
                ttl: opened.enter_context(McastTxSocket(FAMILY[version], [group], "eth0", ttl=ttl)) for ttl in (1, 2)
            }
            # The router learns who sends from the first datagram; what it does with that one is its own affair.
            for _ in range(50):
                by_ttl[2].sendto(b"warm-up", (group, PORT))
                if select_within(hops, 0.2):
                    break
            for ttl in (1, 2):
                by_ttl[ttl].sendto(b"ttl %d" % ttl, (group, PORT))
        while (data := until([here], 1)[0][1]) != b"ttl 1":
            assert data == b"warm-up"
        while (data := beyond.recv()) == b"warm-up":
            pass
        assert data == b"ttl 2"
        messages = []
        while data := hops.recvmsg(100, 200):
            messages = data[1]
            if data[0] == b"ttl 2":
                break
        assert [max(value) for _, _, value in messages] == [1]


def select_within(judge: socket.socket, seconds: float) -> bool:
    """Whether a datagram comes within so many seconds."""
    return bool(select.select([judge], [], [], seconds)[0])


@both_versions
def test_other_spellings_of_the_destination(host: Host, version: int) -> None:
    """The destination is compared as an address: any spelling of the group, and the IPv6 4-tuple, will do."""
    group = GROUP[version]
    spellings: list[Any] = [(group, PORT)]
    if version == 6:
        index = host.interface("eth0").index()
        texts = ["FF15::1:2:3", "ff15:0::1:2:3", "ff15:0000:0000:0000:0000:0001:0002:0003", "ff15::1:2:3%eth0"]
        spellings += [(text, PORT) for text in texts] + [(group, PORT, 0, index), ("FF15::1:2:3", PORT, 0, 0)]
    with neighbours(host, version) as heard:
        for made_for in ([group], [ip_address(group)], [group, group, {4: "239.1.2.4", 6: "ff15::4"}[version]]):
            with McastTxSocket(FAMILY[version], made_for, "eth0") as sender:
                for spelling in spellings:
                    sender.sendto(b"x", spelling)
        received = until([heard["eth0"]], 3 * len(spellings))
    assert {data for _, data in received} == {b"x"}


@both_versions
def test_destinations_that_are_refused(host: Host, version: int) -> None:
    """Another group, unicast, text that is no address, the other family, ports out of range: nothing is sent."""
    group = GROUP[version]
    refused: list[tuple[Any, str]] = [
        (({4: "239.1.2.4", 6: "ff15::4"}[version], PORT), "none of the groups"),
        ((own_address(host.interface("eth0").peer, version), PORT), "not a multicast address"),
        (("nonsense", PORT), "nonsense"),
        (("", PORT), "not an IP address"),
        ((GROUP[10 - version], PORT), "IPv"),
        ((group, 0), "port 0 is out of range"),
        ((group, 65536), "port 65536 is out of range"),
        ((group, -1), "port -1 is out of range"),
        ((group, "5000"), "port '5000' is not a number"),
    ]
    with neighbours(host, version) as heard, McastTxSocket(FAMILY[version], [group], "eth0") as sender:
        for destination, words in refused:
            with pytest.raises(MulticastExpertError, match=words):
                sender.sendto(b"refused", destination)
        sender.sendto(b"accepted", (group, PORT))
        assert arrival(heard["eth0"])[0] == b"accepted"


@both_versions
def test_where_it_sends_from_can_be_asked(host: Host, version: int) -> None:
    """`getsockname` tells the port, and the address when one was named; it is the port that receivers see."""
    address = own_address(host.interface("eth0"), version)
    with neighbours(host, version) as heard, McastTxSocket(FAMILY[version], [GROUP[version]], address) as sender:
        name = sender.getsockname()
        assert name[0] == address
        assert name[1] > 0
        sender.sendto(b"", (GROUP[version], PORT))
        assert heard["eth0"].recvfrom(9) == (b"", name)
        with socket.socket(fileno=os.dup(sender.fileno())) as same:
            assert same.getsockname() == name


def test_a_receiver_hears_a_sender_that_shares_its_port(host: Host) -> None:
    """A plain program that binds the group's port before or after us, with SO_REUSEADDR, keeps working beside us."""
    group = GROUP[4]
    with udp_socket(host, 4, (any_address(4), PORT)) as before:
        join(before, group, host.interface("eth0").index())
        with McastRxSocket(socket.AF_INET, [group], PORT, "eth0", timeout=10) as receiver:
            with udp_socket(host, 4, (any_address(4), PORT)) as after:
                join(after, group, host.interface("eth0").index())
                with McastTxSocket(socket.AF_INET, [group], "eth0", enable_external_loopback=True) as sender:
                    sender.sendto(b"x", (group, PORT))
                assert receiver.recv() == before.recv(9) == after.recv(9) == b"x"
