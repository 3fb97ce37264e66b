"""The C structs of the multicast options, to and from bytes. Pure: touches no OS.

Every integer that the kernels read in host order is written little-endian or big-endian as this machine does ("=").
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from struct import Struct

_INT = Struct("=i")
_FAMILY = Struct("=H")
_INDEX = Struct("=I")
_INDEX_NETWORK_ORDER = Struct("!I")
_IP_MREQN = Struct("=4s4si")
_IPV6_MREQ = Struct("=16sI")
_IN_PKTINFO = Struct("=I4s4x")
_SOCKADDR_IN = Struct("!2xH4s")
_SOCKADDR_IN6 = Struct("!2xHI16s")
_CONTROL_HEADER = Struct("@Pii")

NO_ADDRESS = bytes(4)
_TAIL4 = bytes(120)
_TAIL6 = bytes(104)


def integer(value: int) -> bytes:
    """Return a C int: what most options take."""
    return _INT.pack(value)


def index(interface_index: int) -> bytes:
    """Return an interface index in host order: IPV6_MULTICAST_IF on every OS (RFC 3493, 5.2)."""
    return _INDEX.pack(interface_index)


def index_as_address(interface_index: int) -> bytes:
    """Return the address 0.0.0.N that stands for interface N on Windows and macOS (RFC 1724, 3.3): 4 bytes."""
    return _INDEX_NETWORK_ORDER.pack(interface_index)


def ip_mreq(group: bytes, interface: bytes) -> bytes:
    """Return struct ip_mreq: group and interface address, 4 bytes each."""
    return group + interface


def ip_mreqn(group: bytes, interface: bytes, interface_index: int) -> bytes:
    """Return struct ip_mreqn: group, interface address and interface index, 12 bytes (ip(7))."""
    return _IP_MREQN.pack(group, interface, interface_index)


def in_pktinfo(source: bytes, interface_index: int) -> bytes:
    """Return struct in_pktinfo of Linux, for sending: index, source address, 12 bytes (ip(7))."""
    return _IN_PKTINFO.pack(interface_index, source)


def in6_pktinfo(source: bytes, interface_index: int) -> bytes:
    """Return struct in6_pktinfo: source address and index, 20 bytes (RFC 3542, 6.1)."""
    return _IPV6_MREQ.pack(source, interface_index)


def ipv6_mreq(group: bytes, interface_index: int) -> bytes:
    """Return struct ipv6_mreq: group and interface index, 20 bytes (RFC 3493, 5.2)."""
    return _IPV6_MREQ.pack(group, interface_index)


@dataclass(frozen=True, slots=True)
class Layouts:
    """The structs whose shape differs by OS, built from four facts about it."""

    af_inet6: int
    """The number of AF_INET6; AF_INET is 2 everywhere."""
    length_byte: bool
    """Whether a sockaddr starts with its length in one byte (the BSD family)."""
    request_padding: int
    """Bytes between the interface index and the group in group_req: the alignment of sockaddr_storage, less 4."""
    interface_before_source: bool
    """The order in ip_mreq_source: Linux differs from all others."""

    head4: bytes = field(init=False, repr=False)
    """What comes before the address in a sockaddr_in: length or family, and port 0."""
    head6: bytes = field(init=False, repr=False)
    """The same for a sockaddr_in6, with flow information 0."""

    def __post_init__(self) -> None:
        for name, size, family, room in (("head4", 16, 2, 4), ("head6", 28, self.af_inet6, 8)):
            start = bytes((size, family)) if self.length_byte else _FAMILY.pack(family)
            object.__setattr__(self, name, start.ljust(room, b"\0"))

    def sockaddr(self, address: bytes) -> bytes:
        """Return the address (4 or 16 bytes) as a sockaddr_storage: 128 bytes, port and scope 0."""
        return self.head4 + address + _TAIL4 if len(address) == 4 else self.head6 + address + _TAIL6

    def group_req(self, group: bytes, interface_index: int) -> bytes:
        """Return struct group_req: index, group (RFC 3678, 5.1)."""
        return _INDEX.pack(interface_index) + bytes(self.request_padding) + self.sockaddr(group)

    def group_source_req(self, group: bytes, source: bytes, interface_index: int) -> bytes:
        """Return struct group_source_req: index, group, source (RFC 3678, 5.1)."""
        return self.group_req(group, interface_index) + self.sockaddr(source)

    def ip_mreq_source(self, group: bytes, source: bytes, interface: bytes) -> bytes:
        """Return struct ip_mreq_source: group, then source and interface address in the order of this OS."""
        return group + (interface + source if self.interface_before_source else source + interface)


def control_message(level: int, kind: int, data: bytes) -> bytes:
    """Return one control message of Unix for sending: struct cmsghdr and the data, padded to the size of a pointer."""
    align = _CONTROL_HEADER.size - 8
    header = _CONTROL_HEADER.pack(_CONTROL_HEADER.size + len(data), level, kind)
    return header + data + bytes(-len(data) % align)


def control_messages(control: bytes) -> list[tuple[int, int, bytes]]:
    """Split a control buffer of WSARecvMsg into (level, type, data); a cut message ends the list.

    struct WSACMSGHDR: SIZE_T length of header and data, INT level, INT type; each aligned to a pointer.
    """
    messages = []
    align = _CONTROL_HEADER.size - 8
    start = 0
    while start + _CONTROL_HEADER.size <= len(control):
        length, level, kind = _CONTROL_HEADER.unpack_from(control, start)
        if length < _CONTROL_HEADER.size or start + length > len(control):
            break
        messages.append((level, kind, control[start + _CONTROL_HEADER.size : start + length]))
        start += (length + align - 1) // align * align
    return messages


def socket_address(sockaddr: bytes) -> tuple[str, int] | tuple[str, int, int, int]:
    """Return a sockaddr_in or sockaddr_in6 of Windows as Python's tuple. Raises struct.error where it is too short."""
    (family,) = _FAMILY.unpack_from(sockaddr)
    if family == 2:
        port, ipv4 = _SOCKADDR_IN.unpack_from(sockaddr)
        return str(IPv4Address(ipv4)), port
    port, flow, ipv6 = _SOCKADDR_IN6.unpack_from(sockaddr)
    (scope,) = _INDEX.unpack_from(sockaddr, _SOCKADDR_IN6.size)
    text = str(IPv6Address(ipv6))
    return (f"{text}%{scope}" if scope else text), port, flow, scope
