"""C structures as each kernel lays them out, read strictly from bytes. Pure.

Written from the systems' headers and apart from the library's own packers, so that an error there is caught here.
Integers in host order unless said otherwise.
"""

from __future__ import annotations

import sys
from ipaddress import IPv4Address, IPv6Address
from struct import unpack, unpack_from
from typing import NamedTuple

from .network import Address

STORAGE = 128  # sizeof(struct sockaddr_storage) on all of them


class LayoutError(ValueError):
    """The bytes are not the structure that this kernel reads."""


class Layout(NamedTuple):
    """What differs in the structures that hold a socket address."""

    group_offset: int  # of gr_group in group_req: 4 under darwin's #pragma pack(4), else 8
    length_byte: bool  # BSD socket addresses begin with their own length
    af_inet6: int

    @property
    def group_req(self) -> int:
        """sizeof(struct group_req)."""
        return self.group_offset + STORAGE

    @property
    def group_source_req(self) -> int:
        """sizeof(struct group_source_req)."""
        return self.group_offset + 2 * STORAGE

    def group_request(self, value: bytes, version: int) -> tuple[int, Address, Address | None]:
        """``(interface index, group, source or None)`` of a group_req or group_source_req."""
        (index,) = unpack_from("=I", value)
        group = self._socket_address(value[self.group_offset : self.group_offset + STORAGE], version)
        if len(value) == self.group_req:
            return index, group, None
        return index, group, self._socket_address(value[self.group_offset + STORAGE :], version)

    def _socket_address(self, value: bytes, version: int) -> Address:
        family = 2 if version == 4 else self.af_inet6
        head = bytes([16 if version == 4 else 28, family]) if self.length_byte else family.to_bytes(2, sys.byteorder)
        if value[:2] != head:
            raise LayoutError(f"a socket address of IPv{version} begins with {head.hex()}, not {value[:2].hex()}")
        return IPv4Address(value[4:8]) if version == 4 else IPv6Address(value[8:24])


def ip_mreq(value: bytes) -> tuple[IPv4Address, IPv4Address]:
    """``(group, interface address)``."""
    group, interface = unpack("4s4s", value)
    return IPv4Address(group), IPv4Address(interface)


def ip_mreqn(value: bytes) -> tuple[IPv4Address, IPv4Address, int]:
    """``(group, interface address, interface index)``."""
    group, interface, index = unpack("=4s4si", value)
    return IPv4Address(group), IPv4Address(interface), index


def ip_mreq_source(value: bytes) -> tuple[IPv4Address, IPv4Address, IPv4Address]:
    """``(group, source, interface address)``: this order on all three; Linux has the last two swapped."""
    group, source, interface = unpack("4s4s4s", value)
    return IPv4Address(group), IPv4Address(source), IPv4Address(interface)


def ipv6_mreq(value: bytes) -> tuple[IPv6Address, int]:
    """``(group, interface index)``."""
    group, index = unpack("=16sI", value)
    return IPv6Address(group), index


def integer(value: bytes) -> int:
    """A u_char or an int."""
    return value[0] if len(value) == 1 else int(unpack("=i", value)[0])
