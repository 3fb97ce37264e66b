"""The classic BPF program that keeps frames of other groups from a packet socket. Pure: touches no OS."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TypeAlias

from multicast_expert.core.addresses import IPAddress, ethernet_address
from multicast_expert.wire.frames import FRAGMENT_HEADER, HOP_BY_HOP, IGMP, UDP

Instruction: TypeAlias = tuple[int, int, int, int]
"""Code, instructions to skip if equal and if not, value: linux/filter.h and linux/bpf_common.h."""
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE, _AND, _JUMP_EQUAL, _RETURN = 0x20, 0x28, 0x30, 0x54, 0x15, 0x06
_AT_NETWORK_HEADER = 0xFFF00000
_PROTOCOL = 0xFFFFF000
_ALL = 0x00040000


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
