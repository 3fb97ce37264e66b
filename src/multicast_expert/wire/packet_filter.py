"""Classic BPF programs that keep unwanted frames from a packet socket. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from ipaddress import IPv4Address
from typing import TypeAlias

from multicast_expert.core.addresses import IPAddress, ethernet_address
from multicast_expert.wire.frames import FRAGMENT_HEADER, HOP_BY_HOP, ICMPV6, IGMP, UDP

Instruction: TypeAlias = tuple[int, int, int, int]
"""Code, instructions to skip if equal and if not, value: linux/filter.h and linux/bpf_common.h."""
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x54, 0x15, 0x06
_JUMP = 0x05
_AT_NETWORK_HEADER = 0xFFF00000
_PROTOCOL, _DIRECTION, _INTERFACE, _KIND_OF_LINK = 0xFFFFF000, 0xFFFFF004, 0xFFFFF008, 0xFFFFF01C
_OUTGOING, _LOOPBACK = 4, 772
"""PACKET_OUTGOING of linux/if_packet.h, ARPHRD_LOOPBACK of linux/if_arp.h."""
_ALL = 0x00040000
INTERFACES = 1000
"""How many interfaces `traffic_filter` can tell apart."""


def frame_filter(group: IPAddress) -> list[Instruction]:
    """Return the program that accepts all frames to the group's Ethernet address, UDP to the group, and IGMP or MLD.

    The Ethernet address holds the last 23 bits of an IPv4 group (RFC 1112) and the last 32 of an IPv6 group (RFC 2464).
    """
    net = _AT_NETWORK_HEADER
    low = int.from_bytes(group.packed[-4:], "big")
    if isinstance(group, IPv4Address):
        protocol = 0x0800
        body = [
            (_LOAD_BYTE, 0, 0, net + 9),
            (_JUMP_EQUAL, 5, 0, IGMP),
            (_JUMP_EQUAL, 0, 3, UDP),
            (_LOAD_WORD, 0, 0, net + 16),
            (_AND, 0, 0, 0xF07FFFFF),
            (_JUMP_EQUAL, 1, 0, low & 0xF07FFFFF),
        ]
    else:
        protocol = 0x86DD
        body = [
            (_LOAD_BYTE, 0, 0, net + 6),
            (_JUMP_EQUAL, 7, 0, HOP_BY_HOP),
            (_JUMP_EQUAL, 1, 0, FRAGMENT_HEADER),
            (_JUMP_EQUAL, 0, 4, UDP),
            (_LOAD_BYTE, 0, 0, net + 24),
            (_JUMP_EQUAL, 0, 2, 0xFF),
            (_LOAD_WORD, 0, 0, net + 36),
            (_JUMP_EQUAL, 1, 0, low),
        ]
    head = [(_LOAD_HALF, 0, 0, _PROTOCOL), (_JUMP_EQUAL, 0, len(body), protocol)]
    # On a link without an Ethernet header these are the first bytes of the IP header, which are never the same.
    station = ethernet_address(group)
    first, last = int(station.replace(":", "")[:8], 16), int(station.replace(":", "")[8:], 16)
    by_station = [
        (_LOAD_WORD, 0, 0, 0),
        (_JUMP_EQUAL, 0, 2, first),
        (_LOAD_HALF, 0, 0, 4),
        (_JUMP_EQUAL, len(head) + len(body) + 1, 0, last),
    ]
    return [*by_station, *head, *body, (_RETURN, 0, 0, 0), (_RETURN, 0, 0, _ALL)]


Step: TypeAlias = tuple[int, int, str, str]
"""Code, value, and the labels to go to if equal and if not; an empty one means the next step."""


def traffic_filter(*, udp: bool, interfaces: Collection[int] = (), keep: int = _ALL) -> list[Instruction]:
    """Return the program that accepts IGMP and MLD of all groups and, with `udp`, datagrams to all groups.

    On loopback interfaces each frame is seen twice, as it leaves and as it comes in; it accepts the latter.
    interfaces: their indexes, at most INTERFACES of them; empty for all interfaces.
    keep: how many bytes of a frame reach the socket.
    """
    net, to_udp, fragment = _AT_NETWORK_HEADER, "udp" if udp else "refuse", "udp6" if udp else "refuse"
    once: list[Step | str] = [
        (_LOAD_WORD, _DIRECTION, "", ""),
        (_JUMP_EQUAL, _OUTGOING, "", "once"),
        (_LOAD_WORD, _KIND_OF_LINK, "", ""),
        (_JUMP_EQUAL, _LOOPBACK, "", "once"),
        (_RETURN, 0, "", ""),
        "once",
    ]
    chosen: list[Step | str] = [(_LOAD_WORD, _INTERFACE, "", "")] if interfaces else []
    for index in interfaces:
        # A comparison reaches 255 steps far, a plain jump any number.
        chosen += [(_JUMP_EQUAL, index, "", f"not {index}"), (_JUMP, 0, "kind", ""), f"not {index}"]
    chosen += [(_JUMP, 0, "refuse", "")] if interfaces else []
    return _assembled(
        [
            *once,
            *chosen,
            "kind",
            (_LOAD_HALF, _PROTOCOL, "", ""),
            (_JUMP_EQUAL, 0x86DD, "ipv6", ""),
            (_JUMP_EQUAL, 0x0800, "", "refuse"),
            (_LOAD_BYTE, net + 9, "", ""),
            (_JUMP_EQUAL, IGMP, "accept", ""),
            (_JUMP_EQUAL, UDP, to_udp, "refuse"),
            "udp",
            (_LOAD_BYTE, net + 16, "", ""),
            (_AND, 0xF0, "", ""),
            (_JUMP_EQUAL, 0xE0, "accept", "refuse"),
            "ipv6",
            (_LOAD_BYTE, net + 6, "", ""),
            (_JUMP_EQUAL, HOP_BY_HOP, "options", ""),
            (_JUMP_EQUAL, FRAGMENT_HEADER, fragment, ""),
            (_JUMP_EQUAL, UDP, fragment, "refuse"),
            "options",
            (_LOAD_BYTE, net + 40, "", ""),
            (_JUMP_EQUAL, ICMPV6, "accept", ""),
            (_JUMP_EQUAL, UDP, fragment, "refuse"),
            "udp6",
            (_LOAD_BYTE, net + 24, "", ""),
            (_JUMP_EQUAL, 0xFF, "accept", "refuse"),
            "refuse",
            (_RETURN, 0, "", ""),
            "accept",
            (_RETURN, keep, "", ""),
        ]
    )


def _assembled(lines: Sequence[Step | str]) -> list[Instruction]:
    """Return the instructions of the steps; a text is the label of the step that follows."""
    places: dict[str, int] = {}
    steps: list[Step] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(steps)
        else:
            steps.append(line)
    program = []
    for at, (code, value, equal, other) in enumerate(steps):
        to_equal, to_other = (places[label] - at - 1 if label else 0 for label in (equal, other))
        program.append((code, 0, 0, to_equal) if code == _JUMP else (code, to_equal, to_other, value))
    return program
