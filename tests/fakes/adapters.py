"""The list that GetAdaptersAddresses writes, built by hand from the offsets of the Windows headers (iptypes.h)."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv6Interface
from struct import pack_into
from typing import NamedTuple

START = 0x7FF6_1000
"""The address that the list is said to be at."""


class Offsets(NamedTuple):
    """Where the fields are, for one size of pointers."""

    next: int
    name: int
    unicast: int
    friendly: int
    hardware: int
    hardware_size: int
    flags: int
    mtu: int
    type: int
    status: int
    ipv6_index: int
    size: int
    address_next: int
    sockaddr: int
    sockaddr_size: int
    prefix_length: int
    address_size: int


# Printed by C programs that were compiled for the two kinds of machines, from mingw's headers.
OFFSETS = {
    8: Offsets(8, 16, 24, 72, 80, 88, 92, 96, 100, 104, 108, 448, 8, 16, 24, 56, 64),
    4: Offsets(8, 12, 16, 40, 44, 52, 56, 60, 64, 68, 72, 376, 8, 12, 16, 44, 48),
}


class Adapter(NamedTuple):
    """An adapter of the fake host."""

    name: str
    friendly: str
    index: int
    ipv6_index: int
    addresses: Sequence[IPv4Interface | IPv6Interface] = ()
    scope: int = 0
    """The scope of its link-local addresses."""
    hardware: bytes = b""
    flags: int = 0x1C1
    type: int = 6
    status: int = 1
    mtu: int = 1500


class _Image:
    """Memory that grows; every piece is aligned to 8 bytes."""

    def __init__(self, pointer_size: int) -> None:
        self.data = bytearray()
        self.pointer = "<Q" if pointer_size == 8 else "<I"

    def place(self, content: bytes) -> int:
        """Append these bytes and return their offset."""
        offset = len(self.data)
        self.data += content + bytes(-len(content) % 8)
        return offset

    def point(self, offset: int, target: int) -> None:
        """Write a pointer to what stands at another offset."""
        pack_into(self.pointer, self.data, offset, START + target)


def adapters_addresses(adapters: Sequence[Adapter], pointer_size: int = 8) -> tuple[bytes, int]:
    """Return the bytes of the list, and the address that they are at."""
    image, at = _Image(pointer_size), OFFSETS[pointer_size]
    before = None
    for adapter in adapters:
        own = image.place(bytes(at.size))
        if before is not None:
            image.point(before + at.next, own)
        before = own
        fields = {0: at.size, 4: adapter.index, at.hardware_size: len(adapter.hardware), at.flags: adapter.flags}
        fields |= {at.mtu: adapter.mtu, at.type: adapter.type, at.status: adapter.status}
        for offset, value in {**fields, at.ipv6_index: adapter.ipv6_index}.items():
            pack_into("<I", image.data, own + offset, value)
        image.data[own + at.hardware : own + at.hardware + len(adapter.hardware)] = adapter.hardware
        image.point(own + at.name, image.place(adapter.name.encode() + b"\0"))
        image.point(own + at.friendly, image.place(adapter.friendly.encode("utf-16-le") + b"\0\0"))
        _place_addresses(image, own + at.unicast, adapter, at)
    return bytes(image.data), START


def _place_addresses(image: _Image, link: int, adapter: Adapter, at: Offsets) -> None:
    for address in adapter.addresses:
        if isinstance(address, IPv4Interface):
            sockaddr = b"\x02\0\0\0" + address.packed + bytes(8)
        else:
            scope = adapter.scope if address.is_link_local else 0
            sockaddr = b"\x17\0" + bytes(6) + address.packed + scope.to_bytes(4, "little")
        entry = image.place(bytes(at.address_size))
        image.point(link, entry)
        image.point(entry + at.sockaddr, image.place(sockaddr))
        pack_into("<I", image.data, entry + at.sockaddr_size, len(sockaddr))
        image.data[entry + at.prefix_length] = address.network.prefixlen
        link = entry + at.address_next
