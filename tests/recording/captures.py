"""Capture files as other programs write them, made by hand from the formats' documents."""

from struct import pack

from multicast_expert.wire.frames import ipv4_packet, udp_packet

GROUP, PORT, SENDER = "239.1.2.3", 5000, ("10.9.0.7", 4000)
GROUP6, SENDER6 = "ff15::1", ("fd09::7", 4000)
START_NS = 1_700_000_000_123_456_789
MULTICAST_MAC, SENDER_MAC = bytes.fromhex("01005e010203"), bytes.fromhex("020000000007")


def v4(data: bytes) -> bytes:
    """An IPv4 packet with a datagram."""
    return udp_packet(SENDER, (GROUP, PORT), data, hop_limit=5)


def v6(data: bytes) -> bytes:
    """An IPv6 packet with a datagram."""
    return udp_packet(SENDER6, (GROUP6, PORT), data, hop_limit=5)


def fragments_v4(data: bytes, size: int) -> list[bytes]:
    """The fragments of an IPv4 packet with a datagram, each with `size` bytes of it, a multiple of 8."""
    whole = v4(data)[20:]
    found = []
    for start in range(0, len(whole), size):
        piece = bytearray(ipv4_packet(SENDER[0], GROUP, 17, whole[start : start + size], ttl=5, identity=77))
        more = start + size < len(whole)
        piece[6:8] = pack("!H", (0x2000 if more else 0) | start // 8)
        found.append(bytes(piece))
    return found


def fragments_v6(data: bytes, size: int) -> list[bytes]:
    """The same for IPv6."""
    packet = v6(data)
    whole = packet[40:]
    found = []
    for start in range(0, len(whole), size):
        piece = whole[start : start + size]
        header = pack("!BxHI", 17, start | (start + size < len(whole)), 88)
        found.append(packet[:4] + pack("!HBB", 8 + len(piece), 44, 5) + packet[8:40] + header + piece)
    return found


def ethernet(packet: bytes, *vlans: int) -> bytes:
    """An Ethernet frame, padded as the shortest one is."""
    tags = b"".join(pack("!HH", 0x8100, vlan) for vlan in vlans)
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return (MULTICAST_MAC + SENDER_MAC + tags + pack("!H", kind) + packet).ljust(60, b"\0")


def cooked(packet: bytes) -> bytes:
    """A packet of `tcpdump -i any` (LINKTYPE_LINUX_SLL)."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return pack("!HHH8sH", 2, 1, 6, SENDER_MAC, kind) + packet


def cooked2(packet: bytes) -> bytes:
    """A packet of `tcpdump -i any` of today (LINKTYPE_LINUX_SLL2)."""
    kind = 0x0800 if packet[0] >> 4 == 4 else 0x86DD
    return pack("!HHIHBB8s", kind, 0, 3, 1, 2, 6, SENDER_MAC) + packet


LINKS = {
    "ethernet": (1, ethernet),
    "vlan": (1, lambda packet: ethernet(packet, 10)),
    "vlan in vlan": (1, lambda packet: ethernet(packet, 10, 20)),
    "cooked": (113, cooked),
    "cooked 2": (276, cooked2),
    "raw": (101, lambda packet: packet),
    "bsd loopback": (0, lambda packet: pack("<I", 2 if packet[0] >> 4 == 4 else 30) + packet),
}
"""How each kind of link frames a packet, with its LINKTYPE."""


def pcap(link: int, frames: list[bytes], order: str = "<", nanoseconds: bool = False) -> bytes:
    """A file in the old format, a millisecond from frame to frame."""
    unit = 1 if nanoseconds else 1000
    head = pack(order + "IHHiIII", 0xA1B23C4D if nanoseconds else 0xA1B2C3D4, 2, 4, 0, 0, 262144, link)
    for number, frame in enumerate(frames):
        seconds, rest = divmod(START_NS + number * 1_000_000, 1_000_000_000)
        head += pack(order + "IIII", seconds, rest // unit, len(frame), len(frame)) + frame
    return head


def block(kind: int, body: bytes, order: str) -> bytes:
    """A block of pcapng."""
    body += bytes(-len(body) % 4)
    length = pack(order + "I", 12 + len(body))
    return pack(order + "I", kind) + length + body + length


def pcapng(
    link: int, frames: list[bytes], order: str = "<", resolution: int | None = None, strange: bool = True
) -> bytes:
    """A file of another program; resolution: the value of if_tsresol, usually 6; strange: with an unknown block."""
    option = b"" if resolution is None else pack(order + "HHB3xHH", 9, 1, resolution, 0, 0)
    power = 6 if resolution is None else resolution
    units = 2 ** (power & 0x7F) if power & 0x80 else 10**power
    file = block(0x0A0D0D0A, pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1), order)
    file += block(1, pack(order + "HHI", link, 0, 0) + pack(order + "HH4s", 2, 4, b"eth0") + option, order)
    file += block(0x0BAD, b"unknown", order) if strange else b""
    blocks = [file]
    for number, frame in enumerate(frames):
        time = (START_NS + number * 1_000_000) * units // 1_000_000_000
        head = pack(order + "IIIII", 0, time >> 32, time & 0xFFFFFFFF, len(frame), len(frame))
        blocks.append(block(6, head + frame, order))
    return b"".join(blocks)
