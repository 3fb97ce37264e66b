"""Counts the frames of a group, and queries on the wire and as delivered. Linux, with CAP_NET_RAW."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection
from contextlib import ExitStack
from struct import pack
from time import monotonic
from typing import Any

from multicast_expert.core.addresses import IPAddress, ethernet_address
from multicast_expert.core.datagram import decode_arrival
from multicast_expert.system import kernel
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.frames import ICMPV6, IGMP, UdpPacket, parse_packet
from multicast_expert.wire.group_messages import MLD_QUERY, GroupQuery, parse_group_message, parse_mld
from multicast_expert.wire.packet_filter import frame_filter
from multicast_expert.wire.packet_socket import FrameSocket
from multicast_expert.wire.tallies import Frames, FrameTally, Queries, QueryTally

BATCH = 64
"""How many frames are taken before other sockets have their turn."""

_ICMP6_FILTER = 1  # linux/icmpv6.h
_ETHERNET_TYPES = {4: 0x0800, 6: 0x86DD}
_LONGEST = 65535


class Capture:
    """Counts frames and queries from its creation on. Raises PermissionError without CAP_NET_RAW, or another OSError.

    unheard: interfaces whose packets another interface receives, such as the ports of a bridge, by name.
    """

    def __init__(self, group: IPAddress, unheard: Collection[str] = ()) -> None:
        self._unheard = frozenset(unheard)
        self._frames = FrameTally()
        self._queries = QueryTally()
        self._version = group.version
        self._group, self._station = str(group), ethernet_address(group)
        with ExitStack() as opened:
            self._wire = FrameSocket(frame_filter(group))
            opened.callback(self._wire.close)
            family, protocol = (socket.AF_INET, IGMP) if group.version == 4 else (socket.AF_INET6, ICMPV6)
            # Type checkers know recvmsg on Unix only.
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
        for frame in self._wire.take(BATCH):
            message = parse_group_message(frame.packet)
            if message is None:
                found = self._datagram(frame)
                if found is not None:
                    self._frames.note(frame.interface, found, frame.ethernet, frame.vlan, frame.outgoing)
            elif isinstance(message.content, GroupQuery) and not frame.outgoing:
                self._note_query(frame.interface, message.host, message.content, delivered=False)

    def _datagram(self, frame: Frame) -> UdpPacket | None:
        """Return the datagram in a frame; of another Ethernet type it is a flawed datagram."""
        found, header = parse_packet(frame.packet, frame.checked), frame.ethernet
        kind = int.from_bytes(header[12:14], "big")
        if not header or kind == _ETHERNET_TYPES[self._version] or self._station != header[:6].hex(":"):
            return found
        if kind in _ETHERNET_TYPES.values():  # the other IP version may have a group with this Ethernet address
            return None
        if found is not None:
            return found._replace(flaw=_type_flaw(kind))
        return UdpPacket(self._group, "", 0, len(header) + frame.length, flaw=_type_flaw(kind))

    def _take_delivered(self) -> None:
        for _ in range(BATCH):
            try:
                data, messages, _, address = self._delivered.recvmsg(_LONGEST, 64)
            except OSError:
                return
            index = decode_arrival(messages, kernel.SYSTEM.platform.ancillary.fields).interface_index
            # An IPv6 raw socket delivers what follows the IP header, an IPv4 one the whole packet (raw(7)).
            if self._version == 4:
                message = parse_group_message(data)
                content = message and message.content
            else:
                content = parse_mld(data)
            if isinstance(content, GroupQuery) and index is not None:
                querier = str(address[0]).partition("%")[0]
                self._note_query(_interface_name(index), querier, content, delivered=True)

    def _note_query(self, interface: str, querier: str, query: GroupQuery, *, delivered: bool) -> None:
        for_group = query.group is not None
        self._queries.note(interface, querier, query.version, monotonic(), for_group=for_group, delivered=delivered)

    def frames(self) -> tuple[Frames, ...]:
        """Return the frames seen so far, by kind."""
        return self._frames.frames()

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


def _listen_to_queries(delivered: socket.socket, version: int) -> None:
    delivered.setblocking(False)
    level, number = kernel.SYSTEM.platform.options["IP_PKTINFO" if version == 4 else "IPV6_RECVPKTINFO"]
    delivered.setsockopt(level or 0, number, 1)
    if version == 6:
        # A set bit blocks a type; the bits are in words of 32 in host order (RFC 3542, 3.2).
        blocked = [0xFFFFFFFF] * 8
        blocked[MLD_QUERY // 32] ^= 1 << MLD_QUERY % 32
        delivered.setsockopt(ICMPV6, _ICMP6_FILTER, pack("=8I", *blocked))
