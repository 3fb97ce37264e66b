"""Captures the frames of a group, and queries on the wire and as delivered: the one file that opens packet sockets.

Linux, with CAP_NET_RAW. A filter in the kernel lets only the wanted frames through, so other traffic costs nothing.
"""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Callable, Collection
from contextlib import ExitStack, suppress
from struct import Struct, pack
from time import monotonic
from typing import Any

from multicast_expert.core.addresses import IPAddress, ethernet_address, parse_group
from multicast_expert.core.datagram import decode_arrival
from multicast_expert.system import kernel
from multicast_expert.wire.frames import (
    ICMPV6,
    IGMP,
    MLD_QUERY,
    Query,
    UdpPacket,
    parse_igmp_query,
    parse_mld_query,
    parse_packet,
)
from multicast_expert.wire.group_messages import GroupQuery, GroupReport, parse_group_message
from multicast_expert.wire.packet_filter import Instruction, frame_filter
from multicast_expert.wire.tallies import Frames, FrameTally, Queries, QueryTally, Reporter, ReportTally

BATCH = 64
"""How many frames are taken before other sockets have their turn."""

# packet(7), socket(7) and raw(7), by the numbers of linux/if_packet.h, asm-generic/socket.h and linux/icmpv6.h.
_AF_PACKET = 17
_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_AUXDATA = 263, 8
_ADD_MEMBERSHIP, _MULTICAST = 1, 0
_SO_ATTACH_FILTER = 26
_ICMP6_FILTER = 1
_AUXDATA = Struct("=IIIHHHH")
_OUTGOING = 4
_CHECKSUM_NOT_READY, _VLAN_VALID = 0x8, 0x10
# Links whose frames begin with an Ethernet header: ARPHRD_ETHER, ARPHRD_LOOPBACK of linux/if_arp.h.
_ETHERNET, _LOOPBACK = 1, 772
_ETHERNET_LIKE = (_ETHERNET, _LOOPBACK)
_ETHERNET_SIZE = 14
_ETHERNET_TYPES = {4: 0x0800, 6: 0x86DD}
_REPORTED_TO = {4: parse_group("224.0.0.22"), 6: parse_group("ff02::16")}
_LONGEST = 65535 + 64
_BACKLOG = 10000


def frame_sender() -> socket.socket:
    """Return a packet socket that sends IP packets as they are, behind a link-layer header. Raises OSError."""
    return socket.socket(_AF_PACKET, socket.SOCK_DGRAM, 0)


def may_capture() -> bool:
    """Return whether this process may open packet sockets."""
    try:
        socket.socket(_AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        return False
    except OSError as error:
        return kernel.SYSTEM.platform.errors.get(error.errno or 0) in ("EMFILE", "ENFILE")
    return True


class Capture:
    """Counts frames and queries from its creation on. Raises PermissionError without CAP_NET_RAW, or another OSError.

    unheard: interfaces whose packets another interface receives, such as the ports of a bridge, by name.
    indexes: those of the interfaces on which reports of other hosts are captured too.
    """

    def __init__(self, group: IPAddress, unheard: Collection[str] = (), indexes: Collection[int] = ()) -> None:
        self._unheard = frozenset(unheard)
        self._frames = FrameTally()
        self._queries = QueryTally()
        self._reports = ReportTally(str(group))
        self._version = group.version
        self._group, self._station = str(group), ethernet_address(group)
        with ExitStack() as opened:
            # Type checkers know recvmsg and packet sockets on Linux only.
            self._wire: Any = opened.enter_context(socket.socket(_AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL)))
            _listen_to_wire(self._wire, group)
            _let_reports_in(self._wire, group, indexes)
            family, protocol = (socket.AF_INET, IGMP) if group.version == 4 else (socket.AF_INET6, ICMPV6)
            self._delivered: Any = opened.enter_context(socket.socket(family, socket.SOCK_RAW, protocol))
            _listen_to_queries(self._delivered, group.version)
            opened.pop_all()

    def drains(self) -> list[tuple[int, Callable[[], None]]]:
        """Return each descriptor with the function to call when it is readable."""
        return [(self._wire.fileno(), self._take_frames), (self._delivered.fileno(), self._take_delivered)]

    def close(self) -> None:
        """Close the sockets; the counts remain."""
        self._wire.close()
        self._delivered.close()

    def _take_frames(self) -> None:
        for _ in range(BATCH):
            try:
                frame, messages, _, address = self._wire.recvmsg(_LONGEST, 64)
            except OSError:
                # The socket is empty, or an interface went down, which the kernel reports once.
                return
            checked, vlan = True, None
            for level, kind, data in messages:
                if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
                    status, _, _, _, _, tag, _ = _AUXDATA.unpack_from(data)
                    checked = not status & _CHECKSUM_NOT_READY
                    # A tag of VLAN 0 carries a priority only (IEEE 802.1Q).
                    vlan = (tag & 0x0FFF or None) if status & _VLAN_VALID else None
            interface, _, direction, link_type, *_ = address
            header = frame[:_ETHERNET_SIZE] if link_type in _ETHERNET_LIKE else b""
            found = self._parse(frame, header, checked)
            outgoing = direction == _OUTGOING
            if isinstance(found, UdpPacket):
                self._frames.note(interface, found, header, vlan, outgoing)
            elif not outgoing:
                message = parse_group_message(frame[len(header) :])
                content = None if message is None else message.content
                if message is not None and isinstance(content, GroupReport) and link_type != _LOOPBACK:
                    self._reports.note(interface, message.host, content)
                elif found is not None:
                    announced = content.interval if isinstance(content, GroupQuery) else None
                    self._queries.note(interface, found, monotonic(), delivered=False, announced=announced)

    def _parse(self, frame: bytes, header: bytes, checked: bool) -> UdpPacket | Query | None:
        """Return what a frame carries; of another Ethernet type it is a flawed datagram."""
        found = parse_packet(frame[len(header) :], checked)
        kind = int.from_bytes(header[12:14], "big")
        if not header or kind == _ETHERNET_TYPES[self._version] or self._station != header[:6].hex(":"):
            return found
        if kind in _ETHERNET_TYPES.values():  # the other IP version may have a group with this Ethernet address
            return None
        if isinstance(found, UdpPacket):
            return found._replace(flaw=_type_flaw(kind))
        return UdpPacket(self._group, "", 0, len(frame), flaw=_type_flaw(kind))

    def _take_delivered(self) -> None:
        for _ in range(BATCH):
            try:
                data, messages, _, address = self._delivered.recvmsg(_LONGEST, 64)
            except OSError:
                return
            index = decode_arrival(messages, kernel.SYSTEM.platform.ancillary.fields).interface_index
            # An IPv6 raw socket delivers what follows the IP header, an IPv4 one the whole packet (raw(7)).
            querier = str(address[0]).partition("%")[0]
            start = (data[0] & 0x0F) * 4 if self._version == 4 and data else 0
            parse = parse_igmp_query if self._version == 4 else parse_mld_query
            query = parse(data[start:], querier)
            if query is not None and index is not None:
                self._queries.note(_interface_name(index), query, monotonic(), delivered=True)

    def frames(self) -> tuple[Frames, ...]:
        """Return the frames seen so far, by kind."""
        return self._frames.frames()

    def restart(self) -> None:
        """Forget the frames so far, so that those that came before the join do not count."""
        for _ in range(_BACKLOG // BATCH):
            self._take_frames()
        self._frames = FrameTally()

    def reporters(self) -> tuple[Reporter, ...]:
        """Return the other hosts that reported their membership of the group."""
        return self._reports.reporters()

    def queries(self) -> tuple[Queries, ...]:
        """Return the queries seen so far, by querier."""
        return self._queries.queries(self._unheard)


def _type_flaw(kind: int) -> str:
    expected = "0x0800 (IPv4) or 0x86dd (IPv6)"
    if kind in (0x8100, 0x88A8):
        return f"a second VLAN tag (Ethernet type {kind:#06x})"
    return f"the Ethernet type {kind:#06x} instead of {expected}"


def _interface_name(index: int) -> str:
    try:
        return socket.if_indextoname(index)
    except OSError:
        return str(index)


def _listen_to_wire(wire: socket.socket, group: IPAddress) -> None:
    wire.setblocking(False)
    wire.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
    _attach(wire, frame_filter(group))
    # Drop the frames that came in before the filter was attached.
    with suppress(BlockingIOError):
        for _ in range(_BACKLOG):
            wire.recv(1)


def _let_reports_in(wire: socket.socket, group: IPAddress, indexes: Collection[int]) -> None:
    """Have network cards pass on the frames of reports (RFC 3376, 4.2.14, and RFC 3810, 5.2.14); nothing is sent."""
    station = bytes.fromhex(ethernet_address(_REPORTED_TO[group.version]).replace(":", ""))
    for index in indexes:
        # An interface may have gone, or have no such filter.
        with suppress(OSError):
            wire.setsockopt(_SOL_PACKET, _ADD_MEMBERSHIP, pack("@iHH8s", index, _MULTICAST, len(station), station))


def _listen_to_queries(delivered: socket.socket, version: int) -> None:
    delivered.setblocking(False)
    level, number = kernel.SYSTEM.platform.options["IP_PKTINFO" if version == 4 else "IPV6_RECVPKTINFO"]
    delivered.setsockopt(level or 0, number, 1)
    if version == 6:
        # A set bit blocks a type; the bits are in words of 32 in host order (RFC 3542, 3.2).
        blocked = [0xFFFFFFFF] * 8
        blocked[MLD_QUERY // 32] ^= 1 << MLD_QUERY % 32
        delivered.setsockopt(ICMPV6, _ICMP6_FILTER, pack("=8I", *blocked))


def _attach(wire: socket.socket, program: list[Instruction]) -> None:
    code = b"".join(pack("=HBBI", *instruction) for instruction in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    wire.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, pack("@HP", len(program), ctypes.addressof(buffer)))
