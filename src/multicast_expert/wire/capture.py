"""Looks at raw frames of a group, and at queries on the wire and as the kernel delivers them. Linux, with CAP_NET_RAW.

A filter in the kernel lets only what is wanted through, so that other traffic costs nothing.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from struct import Struct, pack
from time import monotonic
from typing import Any

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.datagram import decode_arrival
from multicast_expert.system import kernel
from multicast_expert.wire.frames import (
    ICMPV6,
    IGMP,
    Frames,
    Instruction,
    Queries,
    Query,
    UdpPacket,
    frame_filter,
    parse_igmp_query,
    parse_mld_query,
    parse_packet,
)

BATCH = 64
"""How many frames are taken before others have their turn."""
KINDS = 512
"""How many kinds of frames, or queriers, are told apart."""

# packet(7), socket(7) and raw(7), by the numbers of linux/if_packet.h, asm-generic/socket.h and linux/icmpv6.h.
AF_PACKET = 17
_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_SO_ATTACH_FILTER = 26
_ICMP6_FILTER = 1
_AUXDATA = Struct("=IIIHHHH")
_OUTGOING = 4
_CHECKSUM_NOT_READY, _VLAN_VALID = 0x8, 0x10
# Links whose frames begin with an Ethernet header: ARPHRD_ETHER, ARPHRD_LOOPBACK of linux/if_arp.h.
_ETHERNET_LIKE = (1, 772)
_ETHERNET_SIZE = 14
_LONGEST = 65535 + 64
_BACKLOG = 10000

_FrameKind = tuple[str, str, str, int | None, int | None, int, str, str, int | None, bool]
_QueryKind = tuple[str, int, str, bool]


@dataclass(slots=True)
class _FrameCount:
    count: int = 0
    longest: int = 0
    bad_checksums: int = 0
    fragments: int = 0


@dataclass(slots=True)
class _QueryCount:
    seen: int = 0
    delivered: int = 0
    first: float | None = None
    last: float = 0.0


class Capture:
    """Frames and queries since it was made. Raises PermissionError without the privilege, other OSErrors as they come.

    unheard: interfaces whose packets others receive, such as the ports of a bridge, by name.
    """

    def __init__(self, group: IPAddress, unheard: Collection[str] = ()) -> None:
        self._unheard = unheard
        self._frames: dict[_FrameKind, _FrameCount] = {}
        self._queries: dict[_QueryKind, _QueryCount] = {}
        self._version = group.version
        # Python's types know recvmsg and packet sockets on Linux only.
        self._wire: Any = _open_wire(group)
        try:
            self._delivered: Any = _open_igmp() if group.version == 4 else _open_mld()
        except BaseException:
            self._wire.close()
            raise

    def drains(self) -> list[tuple[int, Callable[[], None]]]:
        """Return each descriptor with what to call when it is readable."""
        return [(self._wire.fileno(), self._take_frames), (self._delivered.fileno(), self._take_delivered)]

    def close(self) -> None:
        """Close the sockets; what was counted remains."""
        self._wire.close()
        self._delivered.close()

    def _take_frames(self) -> None:
        for _ in range(BATCH):
            try:
                frame, messages, _, address = self._wire.recvmsg(_LONGEST, 64)
            except OSError:
                # Nothing more is there, or an interface went down, which is told once.
                return
            checked, vlan = True, None
            for level, kind, data in messages:
                if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
                    status, _, _, _, _, tag, _ = _AUXDATA.unpack_from(data)
                    checked = not status & _CHECKSUM_NOT_READY
                    vlan = tag & 0x0FFF if status & _VLAN_VALID else None
            interface, _, direction, link_type, *_ = address
            header = frame[:_ETHERNET_SIZE] if link_type in _ETHERNET_LIKE else b""
            found = parse_packet(frame[len(header) :], checked)
            outgoing = direction == _OUTGOING
            if isinstance(found, UdpPacket):
                self._note_datagram(interface, found, header, vlan, outgoing)
            elif found is not None and not outgoing:
                self._note_query(interface, found).seen += 1

    def _note_datagram(
        self, interface: str, packet: UdpPacket, header: bytes, vlan: int | None, outgoing: bool
    ) -> None:
        kind: _FrameKind = (
            interface,
            packet.group,
            packet.sender,
            packet.sender_port,
            packet.port,
            packet.hop_limit,
            header[6:12].hex(":"),
            header[:6].hex(":"),
            vlan,
            outgoing,
        )
        if kind not in self._frames and len(self._frames) >= KINDS:
            kind = next((known for known in self._frames if known[0] == interface), next(iter(self._frames)))
        count = self._frames.setdefault(kind, _FrameCount())
        count.count += 1
        count.longest = max(count.longest, packet.length)
        count.bad_checksums += packet.is_damaged
        count.fragments += packet.is_fragment

    def _take_delivered(self) -> None:
        for _ in range(BATCH):
            try:
                data, messages, _, address = self._delivered.recvmsg(_LONGEST, 64)
            except OSError:
                return
            index = decode_arrival(messages, kernel.SYSTEM.platform.ancillary.fields).interface_index
            # An IPv6 raw socket gives what follows the IP header, an IPv4 one all of the packet (raw(7)).
            querier = str(address[0]).partition("%")[0]
            start = (data[0] & 0x0F) * 4 if self._version == 4 and data else 0
            parse = parse_igmp_query if self._version == 4 else parse_mld_query
            query = parse(data[start:], querier)
            if query is not None and index is not None:
                self._note_query(_interface_name(index), query).delivered += 1

    def _note_query(self, interface: str, query: Query) -> _QueryCount:
        now = monotonic()
        kind = interface, query.version, query.querier, query.for_group
        if kind not in self._queries and len(self._queries) >= KINDS:
            kind = next(iter(self._queries))
        count = self._queries.setdefault(kind, _QueryCount())
        count.first = now if count.first is None else count.first
        count.last = now
        return count

    def frames(self) -> tuple[Frames, ...]:
        """Return the frames seen so far, by kind."""
        return tuple(
            Frames(
                *kind[:6],
                each.count,
                each.longest,
                each.bad_checksums,
                each.fragments,
                ethernet_source=kind[6],
                ethernet_destination=kind[7],
                vlan=kind[8],
                outgoing=kind[9],
            )
            for kind, each in self._frames.items()
        )

    def queries(self) -> tuple[Queries, ...]:
        """Return the queries seen so far, by querier."""
        return tuple(
            Queries(
                interface,
                version,
                querier,
                # Both sockets get the same packets, and either may miss some when there are too many.
                max(each.seen, each.delivered),
                None if interface in self._unheard else each.delivered,
                (each.last - each.first) / (max(each.seen, each.delivered) - 1)
                if each.first is not None and max(each.seen, each.delivered) > 1
                else None,
                for_group,
            )
            for (interface, version, querier, for_group), each in self._queries.items()
        )


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _open_wire(group: IPAddress) -> socket.socket:
    """Return a packet socket that gets the frames of the group, and the queries of its IP version."""
    opened = socket.socket(AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
    try:
        opened.setblocking(False)
        opened.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        _attach(opened, frame_filter(group))
        # What came in before the filter was there is of no interest.
        with suppress(BlockingIOError):
            for _ in range(_BACKLOG):
                opened.recv(1)
    except BaseException:
        opened.close()
        raise
    return opened


def _open_igmp() -> socket.socket:
    return _raw_socket(socket.AF_INET, IGMP)


def _open_mld() -> socket.socket:
    opened = _raw_socket(socket.AF_INET6, ICMPV6)
    blocked = bytearray(b"\xff" * 32)
    # A set bit keeps a type out; they are in words of 32 bits (RFC 3542, 3.2).
    blocked[16:20] = pack("=I", 0xFFFFFFFF ^ 1 << (130 & 31))
    opened.setsockopt(ICMPV6, _ICMP6_FILTER, bytes(blocked))
    return opened


def _raw_socket(family: int, protocol: int) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_RAW, protocol)
    opened.setblocking(False)
    name = "IP_PKTINFO" if family == socket.AF_INET else "IPV6_RECVPKTINFO"
    level, number = kernel.SYSTEM.platform.options[name]
    opened.setsockopt(level or 0, number, 1)
    return opened


def _attach(sock: socket.socket, program: list[Instruction]) -> None:
    import ctypes  # noqa: PLC0415 - costs milliseconds, and only who captures needs it

    code = b"".join(pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pack("@HP", len(program), ctypes.addressof(buffer)))
