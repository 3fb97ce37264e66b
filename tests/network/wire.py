"""What passes on a wire, seen by a neighbour: IGMPv3 and MLDv2 reports, and datagrams. Knows nothing of the library."""

import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import ip_address
from time import monotonic
from types import TracebackType
from typing import NamedTuple, Self

from multicast_expert.testing import Interface

PATIENCE = 20.0
"""Seconds to wait for a report. A processor sends the MLD reports of all network namespaces one after the other: those
of other tests, which may just be taking theirs down, come first (mld_wq in net/ipv6/mcast.c)."""

# Record types: RFC 3376, 4.2.12; RFC 3810, 5.2.12
IS_INCLUDE, IS_EXCLUDE, TO_INCLUDE, TO_EXCLUDE, ALLOW, BLOCK = range(1, 7)

IGMP_V3_REPORT, MLD_V2_REPORT = 0x22, 143
HOP_BY_HOP, IGMP, UDP, ICMPV6 = 0, 2, 17, 58
ETH_P_ALL = 3  # linux/if_ether.h


class Record(NamedTuple):
    """What a host reports about one group."""

    kind: int
    group: str
    sources: frozenset[str]


class Packet(NamedTuple):
    """An IP packet without its headers."""

    source: str
    destination: str
    protocol: int
    payload: bytes


def parse_packet(packet: bytes) -> Packet | None:
    """Take off the IP header, and the hop-by-hop header that MLD carries; None for what is neither IPv4 nor IPv6."""
    version = packet[0] >> 4 if packet else 0
    if version == 4:
        length = (packet[0] & 15) * 4
        (total,) = struct.unpack_from("!H", packet, 2)
        source, destination = (str(ip_address(packet[start : start + 4])) for start in (12, 16))
        return Packet(source, destination, packet[9], packet[length:total])
    if version == 6:
        protocol, payload = packet[6], packet[40:]
        if protocol == HOP_BY_HOP:
            protocol, payload = payload[0], payload[8 * (payload[1] + 1) :]
        source, destination = (str(ip_address(packet[start : start + 16])) for start in (8, 24))
        return Packet(source, destination, protocol, payload)
    return None


def parse_report(packet: Packet) -> Iterator[Record]:
    """The records of an IGMPv3 (RFC 3376, 4.2) or MLDv2 report (RFC 3810, 5.2); nothing for any other packet."""
    kind = (packet.protocol, packet.payload[0]) if packet.payload else None
    if kind not in ((IGMP, IGMP_V3_REPORT), (ICMPV6, MLD_V2_REPORT)):
        return
    size = 4 if packet.protocol == IGMP else 16
    (count,) = struct.unpack_from("!H", packet.payload, 6)
    start = 8
    for _ in range(count):
        kind_of_record, words, sources = struct.unpack_from("!BBH", packet.payload, start)
        addresses = [
            str(ip_address(packet.payload[at : at + size]))
            for at in range(start + 4, start + 4 + size * (sources + 1), size)
        ]
        yield Record(kind_of_record, addresses[0], frozenset(addresses[1:]))
        start += 4 + size * (sources + 1) + 4 * words


class Wiretap:
    """Records what passes an interface, from the moment it is entered, in both directions."""

    def __init__(self, interface: Interface) -> None:
        self._interface = interface
        self.packets: list[Packet] = []

    def __enter__(self) -> Self:
        with self._interface.node.entered():
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
        self._socket.bind((self._interface.name, ETH_P_ALL))
        self._socket.settimeout(PATIENCE)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._socket.close()

    def _read(self) -> None:
        with suppress(TimeoutError):
            packet = parse_packet(self._socket.recv(65535))
            if packet is not None:
                self.packets.append(packet)

    def records(self, group: str) -> list[Record]:
        """All that was reported about the group so far."""
        return [record for packet in self.packets for record in parse_report(packet) if record.group == group]

    def wait_for_report(self, kind: int, group: str, *sources: str) -> None:
        """Return when a host has reported this since the last wait; the kernel may put more sources into the record."""
        seen = len(self.packets)
        deadline = monotonic() + PATIENCE
        while not any(
            record.kind == kind and record.group == group and record.sources >= set(sources)
            for packet in self.packets[seen:]
            for record in parse_report(packet)
        ):
            assert monotonic() < deadline, f"no record {kind} {group} {sources}, only {self.records(group)}"
            self._read()

    def wait_for_payload(self, payload: bytes) -> None:
        """Return when a UDP datagram with this payload has passed."""
        deadline = monotonic() + PATIENCE
        while not self.has_seen(payload):
            assert monotonic() < deadline, f"{payload!r} did not come by"
            self._read()

    def has_seen(self, payload: bytes) -> bool:
        """Whether a UDP datagram with this payload has passed, among the packets read so far."""
        return any(packet.protocol == UDP and packet.payload[8:] == payload for packet in self.packets)
