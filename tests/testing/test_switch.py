"""Switches of the lab: what they forward, with and without snooping and a querier."""

import socket
import struct
from pathlib import Path

import pytest

from multicast_expert.testing import Host, Interface, Lab, LabError, wait_until
from multicast_expert.wire.frames import internet_checksum
from multicast_expert.wire.group_messages import GroupMessage, GroupQuery, build_group_message
from testing.networks import Star
from testing.plain_sockets import arrives, member_of, surely_arrives

GROUPS = ["239.1.2.3", "ff15::1:2:3"]


def frames_for(group: str, interface: Interface) -> socket.socket:
    """A socket that sees every frame for the group's Ethernet address on the interface's wire."""
    protocol = 0x86DD if ":" in group else 0x0800
    with interface.node.entered():
        wire = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(protocol))
        wire.bind((interface.name, protocol))
    return wire


def wire_carries(group: str, sender: Interface, wire: socket.socket, member: socket.socket) -> bool:
    """Whether a datagram that the member gets is on the other wire too."""
    wire.setblocking(False)
    while True:
        try:
            wire.recv(65535)
        except BlockingIOError:
            break
    assert surely_arrives(group, sender, member)
    address = socket.inet_pton(socket.AF_INET6, group) if ":" in group else socket.inet_aton(group)
    packets = []
    while True:
        try:
            packets.append(wire.recv(65535))
        except BlockingIOError:
            return any(packet[24:40] == address or packet[16:20] == address for packet in packets)


@pytest.mark.parametrize("group", GROUPS)
def test_without_a_querier_it_floods(star: Star, group: str) -> None:
    """A snooping switch that knows no querier sends every group to every port."""
    with member_of(group, star.two) as member, frames_for(group, star.three) as wire:
        assert wire_carries(group, star.one, wire, member)


@pytest.mark.parametrize("group", GROUPS)
def test_with_a_querier_it_forwards_to_members_only(star: Star, group: str) -> None:
    """With a querier a group goes to those ports only whose host has joined, and the switch says which."""
    star.switch.start_querier()
    with member_of(group, star.two) as member, frames_for(group, star.three) as wire:
        star.switch.wait_for_member(group, star.two)
        assert star.switch.members(group) == [star.two]
        assert not wire_carries(group, star.one, wire, member)
        with member_of(group, star.three):
            star.switch.wait_for_member(group, star.three)
            assert wire_carries(group, star.one, wire, member)
    wait_until(lambda: star.switch.members(group) == [], "the switch noticed that both have left")


@pytest.mark.parametrize("group", GROUPS)
def test_a_switch_can_be_made_with_a_querier(multicast_lab: Lab, group: str) -> None:
    """switch(querier=True) filters as soon as the hosts are plugged in."""
    switch = multicast_lab.switch("switch", querier=True)
    one, two, three = (
        multicast_lab.plug(multicast_lab.host(f"h{n}"), switch, ipv4=f"10.1.0.{n}/24", ipv6=f"fd01::{n}/64")
        for n in (1, 2, 3)
    )
    with member_of(group, two) as member, frames_for(group, three) as wire:
        switch.wait_for_member(group, two)
        wait_until(lambda: not wire_carries(group, one, wire, member), "the switch filters")


@pytest.mark.parametrize("group", GROUPS)
def test_without_snooping_it_floods_even_with_a_querier(multicast_lab: Lab, group: str) -> None:
    """switch(snooping=False) does not look at who wants what."""
    switch = multicast_lab.switch("switch", snooping=False, querier=True)
    one, two, three = (
        multicast_lab.plug(multicast_lab.host(f"h{n}"), switch, ipv4=f"10.1.0.{n}/24", ipv6=f"fd01::{n}/64")
        for n in (1, 2, 3)
    )
    with member_of(group, two) as member, frames_for(group, three) as wire:
        assert wire_carries(group, one, wire, member)
        assert switch.members(group) == []


@pytest.mark.slow
def test_members_are_kept_by_the_queries(star: Star) -> None:
    """A member that stays is not forgotten when the membership time is over: the querier asks in time."""
    star.switch.start_querier(interval=1.0, response=0.1, membership=2.0)
    with member_of("239.1.2.3", star.two) as member:
        star.switch.wait_for_member("239.1.2.3", star.two)
        for _ in range(12):
            assert not received_late(member)
            assert surely_arrives("239.1.2.3", star.one, member)


def received_late(member: socket.socket) -> bool:
    """Whether something comes within a quarter of a second."""
    member.settimeout(0.25)
    try:
        return bool(member.recv(100))
    except TimeoutError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_a_dead_querier_silences_a_group(star: Star, group: str) -> None:
    """After one query and no more, a member hears its group, then no longer, and again once the switch floods."""
    with member_of(group, star.two) as member:
        star.switch.one_query(membership=1.2, silence=3.0)
        star.switch.wait_for_member(group, star.two)
        assert surely_arrives(group, star.one, member)
        wait_until(lambda: star.switch.members(group) == [], "the switch has forgotten the member")
        assert not arrives(group, star.one, member)
        wait_until(lambda: arrives(group, star.one, member), "the switch floods again")
        assert star.switch.members(group) == []


@pytest.mark.parametrize("mode", [0, 1])
def test_a_query_from_an_unroutable_source(star: Star, mode: int) -> None:
    """A host with strict rp_filter does not answer a query from a source that it has no route to; without, it does."""
    with member_of("239.1.2.3", star.two):
        star.two.node.set_sysctl("net/ipv4/conf/eth0/rp_filter", mode)
        before = int(igmp_queries_dropped(star.two))
        star.switch.one_query(source="9.9.9.9")
        if mode:
            wait_until(lambda: int(igmp_queries_dropped(star.two)) > before, "rp_filter dropped the query")
        else:
            star.switch.wait_for_member("239.1.2.3", star.two)
            assert int(igmp_queries_dropped(star.two)) == before


def igmp_queries_dropped(interface: Interface) -> str:
    """How many IPv4 packets rp_filter has dropped on the interface's host."""
    with interface.node.entered():
        rows = [line.split() for line in Path("/proc/thread-self/net/netstat").read_text().splitlines()]
    for names, values in zip(rows[::2], rows[1::2], strict=True):
        if "IPReversePathFilter" in names:
            return values[names.index("IPReversePathFilter")]
    raise AssertionError("no such counter")


@pytest.mark.slow
@pytest.mark.parametrize("group", GROUPS)
def test_a_stopped_querier_is_forgotten(star: Star, group: str) -> None:
    """After stop_querier() the members run out and the switch floods as before."""
    star.switch.start_querier(response=0.1, membership=1.2)
    with member_of(group, star.two) as member, frames_for(group, star.three) as wire:
        star.switch.wait_for_member(group, star.two)
        assert not wire_carries(group, star.one, wire, member)
        star.switch.stop_querier()
        wait_until(lambda: wire_carries(group, star.one, wire, member), "the switch floods")


@pytest.mark.parametrize("group", GROUPS)
def test_a_switch_that_drops_what_nobody_asked_for(star: Star, group: str) -> None:
    """With unknown groups off on its port, a member hears nothing as long as no querier is there; others still do."""
    star.switch.set_flood_unknown(star.two, False)
    with member_of(group, star.two) as two, member_of(group, star.three) as three:
        assert not arrives(group, star.one, two)
        assert surely_arrives(group, star.one, three)
        star.switch.set_flood_unknown(star.two, True)
        assert surely_arrives(group, star.one, two)


def test_a_port_keeps_its_setting(star: Star) -> None:
    """Unknown groups stay off on a port whose host's interface goes and comes; a port of no such switch is refused."""
    assert isinstance(star.two.node, Host)
    star.switch.set_flood_unknown(star.two, False)
    star.two.node.remove_interface(star.two)
    star.two.node.recreate_interface(star.two)
    with member_of("239.1.2.3", star.two) as member:
        assert not arrives("239.1.2.3", star.one, member)
    stranger = star.two.node.add_interface("eth1")
    with pytest.raises(LabError, match="h2 eth1 is not plugged into switch"):
        star.switch.set_flood_unknown(stranger, False)


def test_unknown_groups_can_be_off_from_the_start(multicast_lab: Lab) -> None:
    """switch(flood_unknown=False) drops every group on every port until somebody's wish for it is known."""
    switch = multicast_lab.switch("switch", flood_unknown=False)
    one, two = (multicast_lab.plug(multicast_lab.host(f"h{n}"), switch, ipv4=f"10.1.0.{n}/24") for n in (1, 2))
    with member_of("239.1.2.3", two) as member:
        assert not arrives("239.1.2.3", one, member)
        switch.start_querier()
        switch.wait_for_member("239.1.2.3", two)
        assert surely_arrives("239.1.2.3", one, member)


def test_the_crafted_queries_are_sound() -> None:
    """Both queries have the lengths of RFC 3376 and RFC 3810 and checksums that verify."""
    igmp = build_group_message(GroupMessage("10.1.0.254", GroupQuery(3, None, (), 1.0)))
    assert struct.unpack("!H", igmp[2:4])[0] == len(igmp) == 24 + 12
    assert internet_checksum(igmp[:24]) == internet_checksum(igmp[24:]) == 0
    mld = build_group_message(GroupMessage("fe80::1", GroupQuery(2, None, (), 1.0)))
    assert struct.unpack("!H", mld[4:6])[0] == len(mld) - 40 == 8 + 28
    assert internet_checksum(mld[8:40] + struct.pack("!II", 28, 58) + mld[48:]) == 0
