"""The faults that a test can provoke on a host of the lab."""

import errno
import os
import socket
import struct

import pytest

from multicast_expert.testing import Host, Interface, Lab, LabError, wait_until
from testing.networks import Pair, Star
from testing.plain_sockets import PATIENCE, PORT, arrives, join, member_of, received, send, surely_arrives

GROUPS = ["239.1.2.3", "ff15::1:2:3"]
V4, V6 = GROUPS


def host_of(interface: Interface) -> Host:
    """The host that the interface is in."""
    assert isinstance(interface.node, Host)
    return interface.node


@pytest.mark.parametrize("scope", ["eth0", "all"])
@pytest.mark.parametrize("mode", [1, 2])
def test_reverse_path_filter_drops_unroutable_sources(pair: Pair, scope: str, mode: int) -> None:
    """A source that the receiver has no route to is heard with rp_filter 0, and not with 1 or 2."""
    source = pair.first.add_unroutable_address("eth0")
    with member_of(V4, pair.far) as member:
        assert surely_arrives(V4, pair.near, member, source=source)
        pair.second.set_reverse_path_filter(scope, mode)  # type: ignore[arg-type]  # pytest gives an int
        assert not arrives(V4, pair.near, member, source=source)
        assert surely_arrives(V4, pair.near, member), "a routable source is not filtered"
        pair.second.set_reverse_path_filter(scope, 0)
        assert surely_arrives(V4, pair.near, member, source=source)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("traffic", ["multicast", "multicast-udp", "udp", f"udp dport {PORT}"])
def test_a_firewall_swallows_datagrams(pair: Pair, group: str, traffic: str) -> None:
    """The rule drops and counts what it names until its block ends."""
    with member_of(group, pair.far) as member:
        with pair.second.firewall_drop(traffic) as rule:
            assert not arrives(group, pair.near, member)
            assert rule.dropped() >= 1
        assert surely_arrives(group, pair.near, member)


def test_a_firewall_leaves_the_rest_alone(pair: Pair) -> None:
    """A rule for one group does not drop another, and counts nothing for it."""
    rule = pair.second.firewall_drop("ip daddr 239.7.7.7")
    with member_of(V4, pair.far) as member:
        assert surely_arrives(V4, pair.near, member)
    assert rule.dropped() == 0
    rule.remove()
    with pytest.raises(LabError):
        rule.remove()


@pytest.mark.parametrize("group", GROUPS)
def test_a_firewall_can_stop_a_sender(pair: Pair, group: str) -> None:
    """An output rule makes the sender's own call fail with EPERM."""
    with pair.first.firewall_drop("udp", direction="output"), pytest.raises(PermissionError):
        send(b"no", group, pair.near)


@pytest.mark.parametrize(("traffic", "group"), [("igmp", V4), ("mld", V6)])
def test_a_firewall_can_hide_a_member(star: Star, traffic: str, group: str) -> None:
    """Where reports are dropped, the switch never learns of the member; it does when they are let through."""
    star.switch.start_querier(response=0.1)
    rule = host_of(star.two).firewall_drop(traffic, direction="output")
    with member_of(group, star.two) as member:
        wait_until(lambda: rule.dropped() > 0, "a report was dropped")
        assert star.switch.members(group) == []
        rule.remove()
        star.switch.wait_for_member(group, star.two)
        assert surely_arrives(group, star.one, member)


def test_every_third_datagram_is_lost(pair: Pair) -> None:
    """lose_datagrams(every=3) lets two of three through, in a fixed pattern."""
    with member_of(V4, pair.far) as member, pair.second.lose_datagrams(every=3) as rule:
        for number in range(9):
            send(bytes([number]), V4, pair.near)
        got = [delivery[0][0] for _ in range(6) if (delivery := received(member, PATIENCE))]
        assert got == [0, 1, 3, 4, 6, 7]
        assert rule.dropped() == 3


def test_datagrams_are_lost_by_chance(pair: Pair) -> None:
    """With probability 1 all are lost; with one half, of 200 about one half."""
    with member_of(V6, pair.far) as member:
        with pair.second.lose_datagrams(probability=1.0):
            assert not arrives(V6, pair.near, member)
        with pair.second.lose_datagrams(probability=0.5) as rule:
            for _ in range(200):
                send(b"perhaps", V6, pair.near)
            assert 50 < rule.dropped() < 150


@pytest.mark.parametrize(("every", "probability"), [(None, None), (0, None), (None, 0.0), (None, 1.5), (2, 0.5)])
def test_how_much_is_lost_must_be_said_in_one_way(pair: Pair, every: int | None, probability: float | None) -> None:
    """Neither, both, or a number out of range is refused."""
    with pytest.raises(LabError, match="every=N"):
        pair.second.lose_datagrams(every=every, probability=probability)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("same_index", [False, True])
def test_a_recreated_interface_has_lost_its_memberships(pair: Pair, group: str, same_index: bool) -> None:
    """After remove and recreate, the old membership is dead with the new and with the same index; a new one works."""
    with member_of(group, pair.far) as member:
        before = pair.far.index()
        pair.second.remove_interface(pair.far)
        assert not pair.far.exists()
        with pytest.raises(OSError, match=r"eth0|device|interface"):
            pair.far.index()
        pair.second.recreate_interface(pair.far, same_index=same_index)
        assert (pair.far.index() == before) is same_index
        assert not arrives(group, pair.near, member)
        if not same_index:
            join(member, pair.far, group)
            assert surely_arrives(group, pair.near, member)
    with member_of(group, pair.far) as fresh:
        assert surely_arrives(group, pair.near, fresh)


def test_a_port_comes_back_with_its_interface(star: Star) -> None:
    """A host's interface that is removed and recreated is in the same switch again."""
    host_of(star.two).remove_interface("eth0")
    host_of(star.two).recreate_interface("eth0")
    with member_of(V4, star.two) as member:
        assert surely_arrives(V4, star.one, member)


@pytest.mark.parametrize("group", GROUPS)
def test_a_renamed_interface_keeps_its_memberships(pair: Pair, group: str) -> None:
    """The new name is the kernel's and the handle's; what was joined stays joined."""
    with member_of(group, pair.far) as member:
        index = pair.far.index()
        pair.second.rename_interface("eth0", "lan0")
        assert pair.second.interface("lan0") is pair.far
        with pytest.raises(LabError, match="no interface eth0, only lan0"):
            pair.second.interface("eth0")
        assert pair.far.index() == index
        with pair.second.entered():
            assert socket.if_indextoname(index) == "lan0"
        assert surely_arrives(group, pair.near, member)


@pytest.mark.parametrize("group", GROUPS)
def test_a_link_goes_down_and_up(pair: Pair, group: str) -> None:
    """Down nothing is heard, up everything is again, with the address that the lab gave."""
    with member_of(group, pair.far) as member:
        pair.second.set_link("eth0", up=False)
        assert not arrives(group, pair.near, member)
        pair.second.set_link("eth0", up=True)
        assert surely_arrives(group, pair.near, member)
    with member_of(group, pair.near) as other:
        send(b"back", group, pair.far)
        assert received(other, PATIENCE) == (b"back", pair.far.ipv6 if ":" in group else pair.far.ipv4)


@pytest.mark.parametrize("group", GROUPS)
def test_a_cable_is_pulled_and_put_back(star: Star, group: str) -> None:
    """A pulled cable silences a host whose interface stays administratively up."""
    with member_of(group, star.two) as member:
        host_of(star.two).set_cable("eth0", plugged=False)
        flags = host_of(star.two).command("ip", "link", "show", "eth0")
        assert "NO-CARRIER" in flags
        assert ",UP" in flags
        assert not arrives(group, star.one, member)
        host_of(star.two).set_cable("eth0", plugged=True)
        assert surely_arrives(group, star.one, member)


def test_mtu_changes(pair: Pair) -> None:
    """A smaller MTU is the kernel's; below 1280 the IPv6 membership is lost and stays lost, IPv4 goes on."""
    with member_of(V4, pair.far) as member4, member_of(V6, pair.far) as member6:
        pair.second.set_mtu("eth0", 1279)
        assert "mtu 1279 " in pair.second.command("ip", "link", "show", "eth0")
        pair.second.set_mtu("eth0", 1500)
        assert surely_arrives(V4, pair.near, member4)
        assert not arrives(V6, pair.near, member6)
        pair.second.replace_address("eth0", "fd09::2/64")
    with member_of(V6, pair.far) as fresh:
        assert surely_arrives(V6, pair.near, fresh)


@pytest.mark.parametrize(("group", "address"), [(V4, "10.9.0.77/24"), (V6, "fd09::77/64")])
def test_an_address_is_replaced(pair: Pair, group: str, address: str) -> None:
    """The sender speaks from its new address, the old one is gone, the other IP version is as before."""
    kept = (pair.near.ipv4, pair.near.ipv6)[":" not in group]
    with member_of(group, pair.far) as member:
        pair.first.replace_address(pair.near, address)
        send(b"moved", group, pair.near)
        assert received(member, PATIENCE) == (b"moved", address.partition("/")[0])
    listed = pair.first.command("ip", "-o", "addr", "show", "dev", "eth0")
    assert ("10.9.0.1/24" in listed, "fd09::1/64" in listed) == (":" in group, ":" not in group)
    assert kept in (pair.near.ipv4, pair.near.ipv6)
    assert address.partition("/")[0] in (pair.near.ipv4, pair.near.ipv6)


def test_addresses_are_removed(pair: Pair) -> None:
    """Without addresses IPv4 leaves from 0.0.0.0, which nobody accepts, until there is one again."""
    pair.first.remove_addresses("eth0", ipv6=False)
    assert pair.near.ipv6 == "fd09::1"
    with pytest.raises(LabError, match="no IPv4 address"):
        assert pair.near.ipv4
    with member_of(V4, pair.far) as member:
        assert not arrives(V4, pair.near, member)
    pair.first.remove_addresses("eth0")
    assert pair.first.command("ip", "-o", "addr", "show", "dev", "eth0") == ""
    pair.first.replace_address("eth0", "10.9.0.5/24")
    with member_of(V4, pair.far) as member:
        assert surely_arrives(V4, pair.near, member)


def first_report(interface: Interface, other: Interface, group: str) -> int:
    """The type of the first IGMP or MLD message for the group that the interface sends when the group is joined."""
    version6 = ":" in group
    protocol = 0x86DD if version6 else 0x0800
    address = socket.inet_pton(socket.AF_INET6, group) if version6 else socket.inet_aton(group)
    with other.node.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
        wire.bind((other.name, protocol))
        wire.settimeout(PATIENCE)
    with wire, member_of(group, interface):
        while True:
            packet = wire.recv(65535)
            is_report = packet[6] == 0 if version6 else packet[9] == socket.IPPROTO_IGMP
            message = packet[48:] if version6 else packet[(packet[0] & 15) * 4 :]
            if is_report and address in message:
                return message[0]


@pytest.mark.parametrize(("version", "report"), [(1, 0x12), (2, 0x16), (3, 0x22), (0, 0x22)])
def test_an_igmp_version_is_forced(pair: Pair, version: int, report: int) -> None:
    """The host joins with the report of the version that it was told (RFC 1112, 2236, 3376)."""
    pair.first.force_igmp_version("eth0", version)  # type: ignore[arg-type]  # pytest gives an int
    assert first_report(pair.near, pair.far, V4) == report


@pytest.mark.parametrize(("version", "report"), [(1, 131), (2, 143), (0, 143)])
def test_an_mld_version_is_forced(pair: Pair, version: int, report: int) -> None:
    """The host joins with the report of the version that it was told (RFC 2710, 3810)."""
    pair.first.force_mld_version("eth0", version)  # type: ignore[arg-type]  # pytest gives an int
    assert first_report(pair.near, pair.far, V6) == report


def test_memberships_are_limited(pair: Pair) -> None:
    """The fourth group of a socket is refused with ENOBUFS where three are allowed."""
    pair.first.limit_memberships(3)
    with pair.first.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:
        for number in range(3):
            join(member, pair.near, f"239.1.1.{number}")
        with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
            join(member, pair.near, "239.1.1.3")


def test_sources_are_limited(pair: Pair) -> None:
    """The third source of a group is refused with ENOBUFS where two are allowed."""
    pair.first.limit_sources(2)
    add_source_membership = 39  # linux/in.h; Python names it from 3.12 on
    with pair.first.entered(), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as member:

        def add(source: str) -> None:
            addresses = [socket.inet_aton(text) for text in ("232.1.1.1", pair.near.ipv4, source)]
            member.setsockopt(socket.IPPROTO_IP, add_source_membership, struct.pack("=4s4s4s", *addresses))

        add("10.9.0.101")
        add("10.9.0.102")
        with pytest.raises(OSError, match=os.strerror(errno.ENOBUFS)):
            add("10.9.0.103")


@pytest.mark.parametrize("scope", ["eth0", "all"])
def test_ipv6_is_switched_off_and_on(pair: Pair, scope: str) -> None:
    """Without IPv6 a sender has no route, IPv4 goes on; afterwards IPv6 works with the address that the lab gave."""
    with member_of(V4, pair.far) as member4, member_of(V6, pair.far) as member6:
        pair.first.disable_ipv6(scope)
        with pytest.raises(OSError, match=r"unreachable|Cannot assign"):
            send(b"no", V6, pair.near)
        assert surely_arrives(V4, pair.near, member4)
        pair.first.disable_ipv6(scope, False)
        send(b"again", V6, pair.near)
        assert received(member6, PATIENCE) == (b"again", "fd09::1")


def test_an_interface_is_added_at_run_time(pair: Pair) -> None:
    """It is up, has its addresses, and one can join and send on it, though nobody is at the other end."""
    added = pair.first.add_interface("usb0", ipv4="10.8.0.1/24", ipv6="fd08::1/64")
    assert added.index() not in (pair.near.index(), pair.far.index())
    for group in GROUPS:
        with member_of(group, added) as member:
            send(b"nobody", group, added)
            assert not arrives(group, pair.far, member)


@pytest.mark.parametrize("allowed", [False, True])
def test_loopback_of_a_host_is_that_of_linux(multicast_lab: Lab, allowed: bool) -> None:
    """A host's lo carries no IPv6 multicast, like any Linux machine's, until it is allowed."""
    host = multicast_lab.host("h")
    loopback = Interface(host, "lo")
    if allowed:
        host.allow_ipv6_loopback()
        host.allow_ipv6_loopback()
        with member_of(V6, loopback) as member:
            assert surely_arrives(V6, loopback, member)
    else:
        with pytest.raises(OSError, match=os.strerror(errno.ENETUNREACH)):
            send(b"no", V6, loopback)
