"""Payloads whose protocol is known: captured ones in captured.pcap, and those written down here.

The captured ones were sent by ffmpeg, iperf 2.1, linuxptp, avahi, minidlna and this package, and by the Python packages
sacn, stupidArtnet, pymavlink, xknx, aiocoap, cyclonedds, lcm, someip and WSDiscovery.
"""

from collections.abc import Iterator
from pathlib import Path
from struct import unpack_from
from typing import NamedTuple

from multicast_expert.core.addresses import address_text

CAPTURED = Path(__file__).with_name("captured.pcap")
"""Its packets begin with their IP header."""
RAW_IP = 101
"""That kind of link: LINKTYPE_RAW."""


class Sample(NamedTuple):
    group: str
    port: int
    payload: bytes


def captured() -> Iterator[Sample]:
    """Every captured datagram, in order."""
    data, at = CAPTURED.read_bytes(), 24
    while at < len(data):
        size = unpack_from("<I", data, at + 8)[0]
        packet = data[at + 16 : at + 16 + size]
        yield Sample(address_text(packet[16:20]), unpack_from("!H", packet, 22)[0], packet[28:])
        at += 16 + size


SEARCH = (
    b'M-SEARCH * HTTP/1.1\r\nHOST: 239.255.255.250:1900\r\nMAN: "ssdp:discover"\r\nMX: 2\r\n'
    b"ST: urn:schemas-upnp-org:device:ZonePlayer:1\r\n\r\n"
)
AES67 = b"\x20\0\x12\x34\x0a\x09\0\x01application/sdp\0" + "\r\n".join(
    ["v=0", "o=- 1 0 IN IP4 10.9.0.1", "s=Studio 1", "c=IN IP4 239.69.1.1/32", "t=0 0", "m=audio 5004 RTP/AVP 98",
     "a=rtpmap:98 L24/48000/2", ""]
).encode()  # fmt: skip
WITHDRAWAL = b"\x24\0\x12\x34\x0a\x09\0\x01application/sdp\0o=- 1 0 IN IP4 10.9.0.1\r\n"
# ISO 22510 has no samples for lost messages: two of them, and the state of the device.
KNX_LOST = bytes.fromhex("06100531000a04000002")
SACN_SYNC = bytes.fromhex("0010 0000 4153432d45312e3137000000 7021 00000008") + bytes(16) + bytes.fromhex(
    "700b 00000001 05 0007 0000"
)  # fmt: skip
METER = (
    b"SMA\0" + bytes.fromhex("000402a0 00000001 0244 0010 6069 010e 714f6a3e 0f5a5b3c 00010400 00000d8d") + bytes(548)
)
SMA_SEARCH = b"SMA\0" + bytes.fromhex("000402a0 ffffffff 00000020 00000000")
# A Sync of version 1, as audio devices send it: IEEE 1588-2002, annex D.
SYNC_V1 = (
    bytes.fromhex("00010001")
    + b"_DFLT".ljust(16, b"\0")
    + bytes.fromhex("0101001dc1 0102030001 0001 0001 00")
    + bytes(91)
)
COAP_PUT = bytes.fromhex("52 03 1234 aabb bb") + b"temperature" + bytes.fromhex("04") + b"room" + b"\xff21"
RTP_JPEG2000 = (
    bytes.fromhex("806b 0001 00000010 0000abcd") + bytes(8),
    bytes.fromhex("806b 0002 00000020 0000abcd") + bytes(8),
)
# As ssmpingd 0.9.1 answered to a group, and an Init of RFC 6450 with a version, a client and a prefix.
PING_REPLY = bytes.fromhex("41 0001 0004 00002981 0002 0004 00000007 0003 0008 6b082de4000bf364 0004 0005 01ef0707ea")
PING_INIT = bytes.fromhex("49 0000 0001 02 0001 0004 00002981 000a 0007 0001 08 e8000000")
LCM_FRAGMENT = b"LC03" + bytes.fromhex("00000001 00001388 00000000 0000 0004") + b"BIG\0" + bytes(20)

WRITTEN = (
    ("SSDP", "search urn:schemas-upnp-org:device:ZonePlayer:1", Sample("239.255.255.250", 1900, SEARCH)),
    ("SAP", "“Studio 1”, audio L24/48000/2 at 239.69.1.1 port 5004", Sample("239.255.255.255", 9875, AES67)),
    ("SAP", "withdrawal", Sample("239.255.255.255", 9875, WITHDRAWAL)),
    ("KNXnet/IP", "routing, lost messages", Sample("224.0.23.12", 3671, KNX_LOST)),
    ("sACN", "synchronisation of universe 7", Sample("239.255.0.7", 5568, SACN_SYNC)),
    ("SMA Speedwire", "meter 1901029950", Sample("239.12.255.254", 9522, METER)),
    ("SMA Speedwire", "discovery", Sample("239.12.255.254", 9522, SMA_SEARCH)),
    ("PTP", "Sync, version 1, _DFLT", Sample("224.0.1.129", 319, SYNC_V1)),
    ("CoAP", "PUT /temperature/room", Sample("ff05::fd", 5683, COAP_PUT)),
    ("multicast ping", "reply 7", Sample("239.7.7.234", 51270, PING_REPLY)),
    ("multicast ping", "init", Sample("ff3e::4321:1234", 9903, PING_INIT)),
    ("LCM", "channel BIG", Sample("239.255.76.67", 7667, LCM_FRAGMENT)),
)
