"""Lays out the blocks of a pcapng file: sections, interfaces, packets, statistics. Pure: touches no OS.

The format is that of draft-ietf-opsawg-pcapng. All blocks are little-endian, all times are in nanoseconds since 1970.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from struct import Struct, pack
from typing import TypeAlias

from multicast_expert import extension
from multicast_expert.core.datagram_buffer import DatagramOrigin
from multicast_expert.wire.frames import UDP, internet_checksum

SECTION, INTERFACE, OLD_PACKET, SIMPLE_PACKET, STATISTICS, PACKET = 0x0A0D0D0A, 1, 2, 3, 5, 6
BYTE_ORDER_MAGIC = 0x1A2B3C4D
COMMENT, APPLICATION, NAME, RESOLUTION, TIME_OFFSET, FLAGS = 1, 4, 2, 9, 14, 2
"""Numbers of options; those of different blocks overlap."""
RECEIVED, DROPPED, DROPPED_BY_SYSTEM = 4, 5, 7
INBOUND, OUTBOUND, TO_GROUP = 1, 2, 2 << 2
"""Bits of the flags of a packet."""
ETHERNET, RAW_IP = 1, 101
"""Types of links (LINKTYPE_… of libpcap)."""
WHOLE = 0
"""The snap length that keeps whole packets."""
Columns: TypeAlias = tuple[memoryview, memoryview, memoryview, memoryview, memoryview]
"""`data`, `offsets`, `lengths`, `timestamps_ns` and `sources` of a DatagramBuffer."""
_NANOSECONDS = 9
_SECTION_LENGTH_UNKNOWN = -1
_HEAD = Struct("<IIIIIII")
_LENGTH = Struct("<I")
_USUAL_HOPS = 64


def block(kind: int, body: bytes) -> bytes:
    """Return a block; the body is padded to a multiple of 4 bytes."""
    padded = body + bytes(-len(body) % 4)
    length = pack("<I", 12 + len(padded))
    return pack("<I", kind) + length + padded + length


def _options(*pairs: tuple[int, bytes]) -> bytes:
    """Return the options that have a value, and the end mark; nothing if none has."""
    found = b"".join(pack("<HH", code, len(value)) + value + bytes(-len(value) % 4) for code, value in pairs if value)
    return found and found + bytes(4)


def _text(text: str) -> bytes:
    return text.encode("utf-8", "backslashreplace")[:0xFFFC]


def section(application: str = "", comment: str = "") -> bytes:
    """Return the header that a file begins with."""
    body = pack("<IHHq", BYTE_ORDER_MAGIC, 1, 0, _SECTION_LENGTH_UNKNOWN)
    return block(SECTION, body + _options((COMMENT, _text(comment)), (APPLICATION, _text(application))))


def interface(name: str, link_type: int) -> bytes:
    """Return the description of an interface; packets refer to it by its turn in the section, from 0 on."""
    body = pack("<HHI", link_type, 0, WHOLE)
    return block(INTERFACE, body + _options((NAME, _text(name)), (RESOLUTION, bytes([_NANOSECONDS]))))


def packet(number: int, time_ns: int, data: bytes, length: int, *, flags: int = 0, comment: str = "") -> bytes:
    """Return a packet of interface `number` that had `length` bytes on the wire."""
    head = pack("<IIIII", number, time_ns >> 32, time_ns & 0xFFFFFFFF, len(data), length)
    more = _options((FLAGS, pack("<I", flags) if flags else b""), (COMMENT, _text(comment)))
    return block(PACKET, head + data + bytes(-len(data) % 4) + more)


def statistics(number: int, time_ns: int, received: int, dropped: int | None, comment: str = "") -> bytes:
    """Return the counts of interface `number`: packets received, and dropped by the kernel (None: not known)."""
    drops = b"" if dropped is None else pack("<Q", dropped)
    counts = _options(
        (COMMENT, _text(comment)), (RECEIVED, pack("<Q", received)), (DROPPED, drops), (DROPPED_BY_SYSTEM, drops)
    )
    return block(STATISTICS, pack("<III", number, time_ns >> 32, time_ns & 0xFFFFFFFF) + counts)


# Datagrams, as packets of raw IP with headers that are made from what the kernel reports


def datagram_head(number: int, origin: DatagramOrigin, port: int) -> bytes:
    """Return what the packets of an origin share: the interface's number, and IP and UDP headers without lengths.

    What no system reports to a receiver is 0 (identity, flow label), as is an unknown traffic class; an unknown hop
    limit is 64. Raises ValueError where sender and destination are of two IP versions.
    """
    sender, sender_port = origin.sender[0].partition("%")[0], origin.sender[1]
    source = ip_address(sender)
    destination = ip_address((origin.destination or ("0.0.0.0" if source.version == 4 else "::")).partition("%")[0])
    if source.version != destination.version:
        raise ValueError(f"{source} cannot send to {destination}")
    hops = _USUAL_HOPS if origin.hop_limit is None else origin.hop_limit
    traffic_class = origin.traffic_class or 0
    if source.version == 4:
        ip = pack("!BBHHHBBH", 0x45, traffic_class, 0, 0, 0, hops, UDP, 0)
    else:
        ip = pack("!IHBB", 6 << 28 | traffic_class << 20, 0, UDP, hops)
    ports = pack("!HHHH", sender_port, port, 0, 0)
    return _LENGTH.pack(number) + ip + source.packed + destination.packed + ports


def datagram_packet(head: bytes, data: bytes) -> bytes:
    """Return the IP packet of a datagram, with its lengths and checksums. IPv4 needs none of UDP, so it has none."""
    size = 8 + len(data)
    if head[4] >> 4 == 4:
        ip = bytearray(head[4:24])
        ip[2:4] = (20 + size & 0xFFFF).to_bytes(2, "big")
        ip[10:12] = internet_checksum(bytes(ip)).to_bytes(2, "big")
        return bytes(ip) + head[24:28] + pack("!HH", size, 0) + data
    length = size.to_bytes(2, "big")
    addresses, udp = head[12:44], head[44:48] + length
    checksum = internet_checksum(addresses + pack("!HI", size, UDP) + udp + b"\0\0" + data) or 0xFFFF
    return head[4:8] + length + head[10:44] + udp + checksum.to_bytes(2, "big") + data


def lay_datagrams(
    room: memoryview, at: int, columns: Columns, heads: list[bytes], first: int, end: int, now: int, /
) -> tuple[int, int]:
    """Lay datagrams out as packets in `room` from `at` on; return where they end, and the next row: no room for it.

    columns: those of a DatagramBuffer, of which the rows from `first` to `end` are taken. heads: what `datagram_head`
    returns, by source. now: the time of rows without one.
    """
    data, offsets, lengths, times, sources = columns
    for row in range(first, end):
        start, time = offsets[row], times[row] or now
        content = datagram_packet(heads[sources[row]], bytes(data[start : start + lengths[row]]))
        size = len(content)
        total = 32 + size + -size % 4
        if at + total > len(room):
            return at, row
        number = int.from_bytes(heads[sources[row]][:4], "little")
        _HEAD.pack_into(room, at, PACKET, total, number, time >> 32, time & 0xFFFFFFFF, size, size)
        room[at + 28 : at + 28 + size] = content
        room[at + 28 + size : at + total] = bytes(-size % 4) + _LENGTH.pack(total)
        at += total
    return at, end


lay_datagrams_quickly: Callable[[memoryview, int, Columns, list[bytes], int, int, int], tuple[int, int]]
lay_datagrams_quickly = extension.lay_datagrams or lay_datagrams
"""`lay_datagrams`, by the extension where it is there."""
