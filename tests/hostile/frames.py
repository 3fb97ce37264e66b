"""Whole Ethernet frames, mutated from those of real programs and of queriers and hosts of all versions."""

from collections.abc import Iterator
from random import Random
from struct import pack, unpack_from

from multicast_expert.core.addresses import address_text
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.frames import ICMPV6, IGMP, internet_checksum, udp_packet, upper_layer_checksum
from multicast_expert.wire.group_messages import (
    GroupMessage,
    GroupQuery,
    GroupRecord,
    GroupReport,
    RecordKind,
    build_group_message,
)
from tests.recognise.samples import WRITTEN, captured
from tests.wire.recorded import FROM_LINUX

SOURCES = tuple(f"10.9.0.{number}" for number in range(1, 9))
HARD = (0, 1, 2, 7, 8, 0x3F, 0x40, 0x7F, 0x80, 0xC0, 0xFE, 0xFF)
"""Bytes that are the ends of ranges."""
LONGEST = 65_000
_IPV4, _IPV6, _VLAN = 0x0800, 0x86DD, 0x8100
STATIONS = bytes.fromhex("01005e010203 020000000009")


def _group_messages() -> Iterator[bytes]:
    yield from FROM_LINUX
    for host, group, newest in (("10.0.0.7", "239.1.2.3", 3), ("fe80::7", "ff15::1:2", 2)):
        sources = SOURCES if newest == 3 else ("fd00::9", "fd00::a")
        yield build_group_message(GroupMessage(host, GroupQuery(newest, None, (), 10.0, interval=125.0)))
        yield build_group_message(GroupMessage(host, GroupQuery(newest, group, sources, 1.0, interval=125.0)))
        yield build_group_message(GroupMessage(host, GroupQuery(newest - 1, None, (), 10.0)))
        yield build_group_message(GroupMessage(host, GroupQuery(newest - 1, group, (), 1.0)))
        every = tuple(GroupRecord(kind, group, sources) for kind in RecordKind)
        yield build_group_message(GroupMessage(host, GroupReport(newest, every)))
        for kind in (RecordKind.IS_EXCLUDE, RecordKind.TO_INCLUDE):
            yield build_group_message(GroupMessage(host, GroupReport(newest - 1, (GroupRecord(kind, group),))))


def _datagrams() -> Iterator[bytes]:
    for group, port, payload in (*captured(), *(sample for _, _, sample in WRITTEN)):
        yield udp_packet(("fd00::9" if ":" in group else "10.9.0.1", 40000), (group, port), payload)
        yield udp_packet(("fd00::9", 40000), ("ff15::7", port), payload)


MESSAGES, DATAGRAMS = tuple(_group_messages()), tuple(_datagrams())


def mutated(random: Random) -> bytes:
    """Return a frame that was changed in a few ways, at times with the checksum that it should have."""
    packet = bytearray(random.choice(MESSAGES if random.random() < 0.3 else DATAGRAMS))
    # The headers decide more than the payload does.
    reach = len(packet) if random.random() < 0.3 else min(len(packet), 120)
    for _ in range(random.randrange(5)):
        at, size = random.randrange(reach), random.choice((1, 1, 1, 2, 4))
        packet[at : at + size] = bytes(random.choice((random.choice(HARD), random.randrange(256))) for _ in range(size))
    way = random.random()
    if way < 0.1:
        del packet[random.randrange(len(packet)) :]
    elif way < 0.15:
        at = random.randrange(len(packet))
        packet[at:at] = packet[at // 2 : at // 2 + random.randrange(1, 64)] * random.choice((1, 2, 40))
    elif way < 0.2:
        other = random.choice(DATAGRAMS)
        packet[random.randrange(len(packet)) :] = other[random.randrange(len(other)) :]
    elif way < 0.202:
        packet += packet[-random.randrange(1, 200) :] * 500
    del packet[LONGEST:]
    if random.random() < 0.8:
        _repair(packet)
    return _framed(random, bytes(packet))


def _repair(packet: bytearray) -> None:
    """Give a packet the lengths and the checksum that fit its bytes, so that it gets past the first look."""
    if len(packet) < 48:
        return
    if packet[0] >> 4 == 4:
        start = 4 * (packet[0] & 0x0F)
        packet[2:4] = pack("!H", len(packet))
        if packet[9] == IGMP and 20 <= start <= len(packet) - 8:
            packet[start + 2 : start + 4] = b"\0\0"
            packet[start + 2 : start + 4] = pack("!H", internet_checksum(bytes(packet[start:])))
    elif packet[0] >> 4 == 6:
        packet[4:6] = pack("!H", len(packet) - 40)
        start = 48 + 8 * packet[41]
        if packet[6] == 0 and packet[40] == ICMPV6 and start <= len(packet) - 8:
            packet[start + 2 : start + 4] = b"\0\0"
            addresses = address_text(bytes(packet[8:24])), address_text(bytes(packet[24:40]))
            packet[start + 2 : start + 4] = pack("!H", upper_layer_checksum(*addresses, ICMPV6, bytes(packet[start:])))


def _framed(random: Random, packet: bytes) -> bytes:
    """Return the frame of a packet, one of eight with a tag."""
    kind = _IPV6 if packet and packet[0] >> 4 == 6 else _IPV4
    tag = pack("!HH", _VLAN, random.randrange(1 << 16)) if random.random() < 0.125 else b""
    return STATIONS + tag + pack("!H", kind) + packet


def as_captured(frame: bytes, interface: str, outgoing: bool, timestamp_ns: int, keep: int) -> Frame:
    """Return the frame as a packet socket gives it: without its tag, and cut."""
    tagged = unpack_from("!H", frame, 12)[0] == _VLAN
    vlan = (unpack_from("!H", frame, 14)[0] & 0x0FFF or None) if tagged else None
    packet = frame[18 if tagged else 14 :]
    return Frame(interface, outgoing, timestamp_ns, frame[:14], vlan, True, packet[:keep], len(packet))
