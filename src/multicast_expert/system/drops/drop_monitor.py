"""The messages of the kernel's drop monitor (generic netlink, NET_DM), to and from bytes. Pure: touches no OS.

The numbers are those of linux/genetlink.h and linux/net_dropmon.h. A cut or senseless message is passed over.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address
from struct import Struct
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.system.drops.dropped import NO_REASON, Dropped
from multicast_expert.system.netlink import attribute, attributes, each_attribute, number_of, request

GENERIC = 16
"""The netlink protocol."""
NAME = "NET_DM"
_EVENTS = "events"
CAPTURED = 128
"""How many bytes of each dropped packet the kernel copies."""
QUEUED = 1000
"""How many of them wait for each processor."""
_CONTROLLER, _GET_FAMILY = 16, 3
_CONFIG, _START, _STOP, _PACKET_ALERT = 2, 3, 4, 5
_ALERT_MODE, _SYMBOL, _IN_PORT, _PAYLOAD, _TRUNC_LEN, _QUEUE_LEN, _ORIGIN, _REASON = 1, 3, 4, 7, 9, 11, 14, 23
_WHOLE_PACKETS = b"\x01"
_SHORT = Struct("=H")
_BY_HARDWARE = _SHORT.pack(1)
_ACKNOWLEDGE, _DUMP = 4, 0x300
_GENERIC_HEADER = Struct("=BBxx")
_UNSIGNED = Struct("=I")
_ETHERNET, _TAGS = 14, (b"\x81\x00", b"\x88\xa8")
_IP_TYPES = (b"\x08\x00", b"\x86\xdd")
_UDP, _UDP_LITE, _HOP_BY_HOP, _FRAGMENT = 17, 136, 0, 44


class Family(NamedTuple):
    """The drop monitor of the running kernel."""

    number: int
    group: int
    """The netlink group that hears its alerts."""


def families_request() -> bytes:
    """Return the request for all families; to ask for one by its name would make the kernel load its module."""
    return request(_CONTROLLER, _DUMP, _GENERIC_HEADER.pack(_GET_FAMILY, 1))


def parse_family(body: bytes) -> Family | None:
    """Return the drop monitor in an answer; None for every other family, and for a cut one."""
    found = attributes(body, _GENERIC_HEADER.size)
    number = found.get(1, b"")
    if found.get(2, b"").rstrip(b"\0") != NAME.encode() or len(number) != _SHORT.size:
        return None
    for _, each in each_attribute(found.get(7, b"")):
        group = attributes(each)
        if group.get(1, b"").rstrip(b"\0") == _EVENTS.encode() and (index := number_of(group.get(2))):
            return Family(_SHORT.unpack(number)[0], index)
    return None


def configuration(family: Family) -> bytes:
    """Return the request to report each packet with its beginning; the kernel refuses it while the monitor is on."""
    limits = attribute(_TRUNC_LEN, _UNSIGNED.pack(CAPTURED)) + attribute(_QUEUE_LEN, _UNSIGNED.pack(QUEUED))
    return _message(family, _CONFIG, attribute(_ALERT_MODE, _WHOLE_PACKETS) + limits)


def start(family: Family) -> bytes:
    """Return the request to switch the monitor on, for the whole machine."""
    return _message(family, _START)


def stop(family: Family) -> bytes:
    """Return the request to switch it off."""
    return _message(family, _STOP)


def _message(family: Family, command: int, body: bytes = b"") -> bytes:
    return request(family.number, _ACKNOWLEDGE, _GENERIC_HEADER.pack(command, 2) + body)


def parse_alert(body: bytes) -> Dropped | None:
    """Return the datagram of a group that an alert is about; None if it is about anything else, or cut."""
    if len(body) < _GENERIC_HEADER.size or _GENERIC_HEADER.unpack_from(body)[0] != _PACKET_ALERT:
        return None
    found = attributes(body, _GENERIC_HEADER.size)
    packet = _datagram(found.get(_PAYLOAD, b""))
    if packet is None or found.get(_ORIGIN) == _BY_HARDWARE:
        return None
    # `nft_do_chain+0x3c/0x510 [nf_tables]`, also with what a compiler adds.
    function = _text(found.get(_SYMBOL)).partition("+")[0].partition(".")[0]
    reason = _text(found.get(_REASON)).removeprefix("SKB_DROP_REASON_") or NO_REASON
    interface = number_of(attributes(found.get(_IN_PORT, b"")).get(0)) or None
    return Dropped(reason, function, interface, *packet, False, "", None, 1)


def _text(value: bytes | None) -> str:
    return (value or b"").partition(b"\0")[0].decode("ascii", "replace")


def _datagram(frame: bytes) -> tuple[IPAddress, int | None, IPAddress] | None:
    """Return group, port and source of a datagram to a group; the port is None in a fragment."""
    packet = _packet(frame)
    if len(packet) >= 20 and packet[0] >> 4 == 4 and packet[0] & 15 >= 5:
        group, source = IPv4Address(packet[16:20]), IPv4Address(packet[12:16])
        protocol, place = packet[9], (packet[0] & 15) * 4
        is_fragment = bool(packet[6] & 0x3F or packet[7])
        return _kept(group, source, protocol, packet[place + 2 : place + 4], is_fragment=is_fragment)
    if len(packet) >= 48 and packet[0] >> 4 == 6:
        protocol, place = packet[6], 40
        if protocol == _HOP_BY_HOP:
            protocol, place = packet[40], 48 + packet[41] * 8
        is_fragment = protocol == _FRAGMENT
        protocol = packet[place] if is_fragment and place < len(packet) else protocol
        port = packet[place + 2 : place + 4]
        return _kept(IPv6Address(packet[24:40]), IPv6Address(packet[8:24]), protocol, port, is_fragment=is_fragment)
    return None


def _kept(
    group: IPAddress, source: IPAddress, protocol: int, port: bytes, *, is_fragment: bool
) -> tuple[IPAddress, int | None, IPAddress] | None:
    if not group.is_multicast or protocol not in (_UDP, _UDP_LITE):
        return None
    return group, None if is_fragment or len(port) < 2 else int.from_bytes(port, "big"), source


def _packet(frame: bytes) -> bytes:
    """Return the IP packet in a frame; a packet without a link header is one itself."""
    place = _ETHERNET - 2
    while frame[place : place + 2] in _TAGS:
        place += 4
    return frame[place + 2 :] if frame[place : place + 2] in _IP_TYPES else frame
