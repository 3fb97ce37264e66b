"""Windows: its interfaces by GetAdaptersAddresses, its routes by GetBestInterfaceEx, its groups by netsh.

Sources: iptypes.h, ipifcons.h and the reference pages of the functions. Seen under Wine only, not on a real system.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator
from importlib import import_module
from ipaddress import IPv4Interface, IPv6Interface
from struct import Struct, calcsize
from struct import error as struct_error
from typing import Any, NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.core.specifiers import Readings
from multicast_expert.platforms import WINDOWS
from multicast_expert.platforms.layouts import socket_address
from multicast_expert.system.base import Socket, System
from multicast_expert.system.commands import run
from multicast_expert.system.listings import JoinedGroup, UdpSocket, parse_netsh_joins

_IF_TYPE_SOFTWARE_LOOPBACK = 24
_IP_ADAPTER_NO_MULTICAST = 0x10
_IF_OPER_STATUS_UP = 1


def _winsock() -> Any:
    """Return the module that calls the DLLs, which exist on Windows only."""
    return import_module("multicast_expert.system.winsock")


class WindowsSystem(System):
    """Windows."""

    platform = WINDOWS

    def socket(self, family: int, kind: int) -> Socket:
        """Return a new socket of the family and kind; it never blocks."""
        opened: Socket = _winsock().WinSocket(family, kind)
        return opened

    def interfaces(self, meant: Collection[Readings] | None = None) -> list[IfaceInfo]:
        """Return the network interfaces that have an index, by index."""
        found = parse_adapters(*_winsock().adapters_addresses())
        return sorted(found, key=lambda iface: iface.index)

    def route_interface(self, destination: IPAddress) -> int | None:
        """Return the index of the interface that a datagram to `destination` would leave from."""
        index: int = _winsock().best_interface(self.platform.layouts.sockaddr(destination.packed))
        return index

    def joined_groups(self, sockets: Iterable[UdpSocket] | None = None) -> list[JoinedGroup]:
        """Return the groups that this host has joined, from netsh."""
        commands = [["netsh", "interface", version, "show", "joins"] for version in ("ipv4", "ipv6")]
        found = [each for command in commands for each in parse_netsh_joins(run(command, "oem"))]
        if not found:
            raise MulticastExpertError("Joined groups could not be told: netsh interface ipv4 show joins lists none.")
        return found


class _Layout(NamedTuple):
    """IP_ADAPTER_ADDRESSES and IP_ADAPTER_UNICAST_ADDRESS, for programs of one size of pointers."""

    adapter: Struct
    """Index, name, addresses, friendly name, hardware address and its length, flags, MTU, type, status, IPv6 index."""
    address: Struct
    """Next, sockaddr and its length, prefix length."""


_LAYOUTS = {
    8: _Layout(Struct("<4xI3Q32x8xQ8s6I"), Struct("<8x2Qi4x24xB")),
    4: _Layout(Struct("<4xI3I16x4xI8s6I"), Struct("<8x2Ii24xB")),
}


class _Memory(NamedTuple):
    """The bytes that GetAdaptersAddresses wrote, and the address that they were at: all its pointers lead into them."""

    data: bytes
    start: int

    def read(self, pointer: int, layout: Struct) -> tuple[Any, ...]:
        """Return the fields of the structure that the pointer leads to. Raises struct.error."""
        return layout.unpack_from(self.data, self._offset(pointer))

    def bytes_at(self, pointer: int, size: int) -> bytes:
        """Return up to so many bytes."""
        return self.data[self._offset(pointer) :][:size]

    def text(self, pointer: int, width: int, encoding: str) -> str:
        """Return the text that ends before the first zero; `width` is the size of a character in bytes."""
        start = end = self._offset(pointer)
        while self.data[end : end + width].strip(b"\0"):
            end += width
        return self.data[start:end].decode(encoding, "replace")

    def _offset(self, pointer: int) -> int:
        if not 0 <= pointer - self.start < len(self.data):
            raise struct_error("a pointer leads out of the buffer")
        return pointer - self.start


def parse_adapters(data: bytes, start: int, pointer_size: int = calcsize("P")) -> Iterator[IfaceInfo]:
    """Yield the adapters in the buffer of GetAdaptersAddresses, which was at the address `start`.

    An adapter that has an index for neither IP version cannot be joined on and is left out; so are the IPv4 addresses
    of one that has none for IPv4. A cut buffer ends the list.
    """
    memory, layout = _Memory(data, start), _LAYOUTS[pointer_size]
    pointer = start
    seen = set()
    while pointer and pointer not in seen:
        seen.add(pointer)
        try:
            following, iface = _adapter(memory, pointer, layout)
        except struct_error:
            return
        if iface.index:
            yield iface
        pointer = following


def _adapter(memory: _Memory, pointer: int, layout: _Layout) -> tuple[int, IfaceInfo]:
    """Return the pointer to the next adapter, and this one; its index is 0 where it has none."""
    (index4, following, name, first, friendly, hardware, size, flags, mtu, kind, status, index6) = memory.read(
        pointer, layout.adapter
    )
    # Both IP versions use the same number, but a version that is switched off has 0. Wine never sets that of IPv6.
    index = index4 or index6
    ipv4: list[IPv4Interface] = []
    ipv6: list[IPv6Interface] = []
    for sockaddr, prefix_length in _unicast(memory, first, layout):
        text = socket_address(sockaddr)[0]
        if ":" in text:
            ipv6.append(IPv6Interface((text, prefix_length)))
        elif index4:
            ipv4.append(IPv4Interface((text, prefix_length)))
    loopback = kind == _IF_TYPE_SOFTWARE_LOOPBACK
    return following, IfaceInfo(
        memory.text(name, 1, "ascii"),
        index,
        hardware[:size].hex("-").upper() if any(hardware[:size]) else None,
        tuple(ipv4),
        tuple(ipv6),
        memory.text(friendly, 2, "utf-16-le"),
        status == _IF_OPER_STATUS_UP,
        loopback or not flags & _IP_ADAPTER_NO_MULTICAST,
        loopback,
        # The loopback adapter has no limit, written as all ones.
        mtu if 0 < mtu < 0xFFFFFFFF else None,
    )


def _unicast(memory: _Memory, pointer: int, layout: _Layout) -> Iterator[tuple[bytes, int]]:
    """Yield the sockaddrs of the IP addresses in the list that begins there, with their prefix lengths."""
    seen = set()
    while pointer and pointer not in seen:
        seen.add(pointer)
        pointer, sockaddr, size, prefix_length = memory.read(pointer, layout.address)
        packed = memory.bytes_at(sockaddr, size)
        if (size, packed[:2]) in ((16, b"\x02\0"), (28, b"\x17\0")) and len(packed) == size:
            # Windows writes 255 where it knows none.
            yield packed, min(prefix_length, 32 if size == 16 else 128)
