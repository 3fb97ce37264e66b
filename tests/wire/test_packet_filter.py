"""The filter programs, run by a small interpreter of the instructions that they use."""

import socket
from collections.abc import Sequence
from ipaddress import ip_address

import pytest

from multicast_expert.wire.frames import FRAGMENT_HEADER, HOP_BY_HOP, ipv4_packet, ipv6_packet, udp_packet
from multicast_expert.wire.group_messages import GroupMessage, GroupQuery, build_group_message
from multicast_expert.wire.packet_filter import INTERFACES, Instruction, frame_filter, traffic_filter

SENDERS = {4: "10.0.0.7", 6: "fd00::7"}
GROUPS = {4: "239.1.2.3", 6: "ff15::1234"}
QUERIES = {
    4: build_group_message(GroupMessage("10.0.0.1", GroupQuery(3, None, (), 1.0))),
    6: build_group_message(GroupMessage("fe80::1", GroupQuery(2, None, (), 1.0))),
}


def kept(program: Sequence[Instruction], packet: bytes, interface: int = 1, direction: int = 0, link: int = 1) -> int:
    """How many bytes of the packet's frame the program keeps."""
    protocol = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    beside = {0xFFFFF000: protocol, 0xFFFFF004: direction, 0xFFFFF008: interface, 0xFFFFF01C: link}
    value, place = 0, 0
    while True:
        code, jump, other, number = program[place]
        assert max(jump, other) < 256
        place += 1
        if code == 0x06:
            return number
        if code == 0x05:
            place += number
        elif code == 0x15:
            place += jump if value == number else other
        elif code == 0x54:
            value &= number
        elif number in beside:
            value = beside[number]
        else:
            size = {0x20: 4, 0x28: 2, 0x30: 1}[code]
            start = number - 0xFFF00000
            value = int.from_bytes(packet[start : start + size], "big")


def datagram(version: int, destination: str) -> bytes:
    """A UDP datagram in an IP packet."""
    return udp_packet((SENDERS[version], 4000), (destination, 5000), b"x")


@pytest.mark.parametrize("version", [4, 6])
def test_the_filter_takes_the_group_and_its_neighbours(version: int) -> None:
    """UDP to the group, or to one with the same Ethernet address, in fragments too, and queries; nothing else."""
    program = frame_filter(ip_address(GROUPS[version]))
    neighbour, stranger = {4: ("224.129.2.3", "239.1.2.4"), 6: ("ff05::9:0:1234", "ff15::1235")}[version]
    assert kept(program, datagram(version, GROUPS[version]))
    assert kept(program, datagram(version, neighbour))
    assert not kept(program, datagram(version, stranger))
    assert not kept(program, datagram(version, {4: "10.1.2.3", 6: "fd00::1234"}[version]))
    assert kept(program, QUERIES[version])
    assert not kept(program, datagram(10 - version, GROUPS[10 - version]))
    if version == 6:
        assert kept(program, ipv6_packet(SENDERS[6], GROUPS[6], FRAGMENT_HEADER, bytes(20)))
        assert not kept(program, ipv6_packet(SENDERS[6], stranger, FRAGMENT_HEADER, bytes(20)))
    tcp = bytearray(datagram(version, GROUPS[version]))
    tcp[9 if version == 4 else 6] = socket.IPPROTO_TCP
    assert not kept(program, bytes(tcp))


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("udp", [False, True])
def test_traffic(version: int, udp: bool) -> None:
    """IGMP and MLD always; datagrams and fragments to groups if they are wanted; no unicast and nothing else."""
    program = traffic_filter(udp=udp, keep=100)
    assert kept(program, QUERIES[version]) == 100
    assert kept(program, datagram(version, GROUPS[version])) == (100 if udp else 0)
    assert kept(program, datagram(version, SENDERS[version])) == 0
    if version == 4:
        for no_group in ("255.255.255.255", "240.0.0.1", "223.255.255.255"):
            assert kept(program, datagram(4, no_group)) == 0
        assert kept(program, ipv4_packet("10.0.0.7", "239.1.2.3", socket.IPPROTO_TCP, bytes(20))) == 0
    else:
        fragment = ipv6_packet("fd00::7", "ff15::1", FRAGMENT_HEADER, bytes(20))
        options = ipv6_packet("fd00::7", "ff15::1", HOP_BY_HOP, bytes([socket.IPPROTO_TCP]) + bytes(20))
        assert kept(program, fragment) == (100 if udp else 0)
        assert kept(program, options) == 0
        behind = ipv6_packet("fd00::7", "ff15::1", HOP_BY_HOP, bytes([socket.IPPROTO_UDP]) + bytes(20))
        assert kept(program, behind) == (100 if udp else 0)
        assert kept(program, behind[:24] + ip_address("fd00::8").packed + behind[40:]) == 0


@pytest.mark.parametrize("interfaces", [(), (1, 2)])
def test_what_a_loopback_interface_sends_is_seen_once(interfaces: Sequence[int]) -> None:
    """It comes in there, too. What other interfaces send is seen nowhere else."""
    program = traffic_filter(udp=True, interfaces=interfaces)
    seen = {
        (direction, link): kept(program, QUERIES[4], 1, direction, link) for direction in (0, 2, 4) for link in (1, 772)
    }
    assert [place for place, size in seen.items() if not size] == [(4, 772)]


def test_interfaces() -> None:
    """Frames of the named interfaces only, however many they are."""
    program = traffic_filter(udp=False, interfaces=range(2, 2 + INTERFACES))
    assert len(program) <= 4096  # BPF_MAXINSNS
    accepted = [index for index in range(INTERFACES + 9) if kept(program, QUERIES[4], index)]
    assert accepted == list(range(2, 2 + INTERFACES))
