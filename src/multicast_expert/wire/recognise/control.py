"""Recognisers of lighting, buildings, vehicles, clocks and meters. Pure: touches no OS."""

from __future__ import annotations

from itertools import islice
from struct import unpack_from
from typing import NamedTuple

from multicast_expert.wire.recognise.recogniser import Recogniser, joined, text

_ART_NET = {
    0x2000: "ArtPoll", 0x2100: "ArtPollReply", 0x2300: "ArtDiagData", 0x2400: "ArtCommand", 0x5000: "ArtDmx",
    0x5100: "ArtNzs", 0x5200: "ArtSync", 0x6000: "ArtAddress", 0x7000: "ArtInput", 0x8000: "ArtTodRequest",
    0x8100: "ArtTodData", 0x8300: "ArtRdm", 0x9700: "ArtTimeCode", 0xF800: "ArtIpProg",
}  # fmt: skip
_KNX = {
    0x0201: "search request", 0x0202: "search response", 0x0203: "description request",
    0x0204: "description response", 0x0205: "connect request", 0x0206: "connect response",
    0x020B: "extended search request", 0x020C: "extended search response", 0x0530: "routing",
    0x0531: "routing, lost messages", 0x0532: "routing, busy", 0x0533: "system broadcast", 0x0950: "secure",
    0x0955: "secure timer",
}  # fmt: skip
_PTP = {
    0: "Sync", 1: "Delay_Req", 2: "Pdelay_Req", 3: "Pdelay_Resp", 8: "Follow_Up", 9: "Delay_Resp",
    10: "Pdelay_Resp_Follow_Up", 11: "Announce", 12: "Signaling", 13: "Management",
}  # fmt: skip
_PTP_V1 = {0: "Sync", 1: "Delay_Req", 2: "Follow_Up", 3: "Delay_Resp", 4: "Management"}
_MOST_FRAMES = 32
_SMA_HEAD = b"SMA\0\0\4\2\xa0"
_SMA_PROTOCOLS = {0x6069: "meter", 0x6081: "meter", 0x6065: "inverter"}
# The messages of MAVLink's common set that most vehicles send, and the byte that seals the checksum of each.
_MAVLINK_SEALS = {
    0: 50, 1: 124, 2: 137, 22: 220, 24: 24, 30: 39, 31: 246, 32: 185, 33: 104, 36: 222, 65: 118, 74: 20, 76: 152,
    77: 143, 147: 154, 148: 178, 241: 90, 242: 104, 253: 83,
}  # fmt: skip


def _art_net(payload: bytes) -> str | None:
    if len(payload) < 10 or payload[:8] != b"Art-Net\0":
        return None
    operation = int.from_bytes(payload[8:10], "little")
    name = _ART_NET.get(operation, f"operation 0x{operation:04x}")
    if operation != 0x5000 or len(payload) < 18:
        return name
    return f"{name} universe {payload[15] << 8 | payload[14]}"


def _sacn(payload: bytes) -> str | None:
    if len(payload) < 44 or payload[:16] != b"\0\x10\0\0ASC-E1.17\0\0\0":
        return None
    root, framing = unpack_from("!I", payload, 18)[0], unpack_from("!I", payload, 40)[0]
    if (root, framing) == (4, 2) and len(payload) >= 126:
        return joined(f"universe {unpack_from('!H', payload, 113)[0]}", text(payload[44:108]))
    if (root, framing) == (8, 1) and len(payload) >= 49:
        return f"synchronisation of universe {unpack_from('!H', payload, 45)[0]}"
    return joined("universe discovery", text(payload[44:108])) if (root, framing) == (8, 2) else None


def _knx(payload: bytes) -> str | None:
    if len(payload) < 6 or payload[:2] != b"\x06\x10" or unpack_from("!H", payload, 4)[0] != len(payload):
        return None
    service = unpack_from("!H", payload, 2)[0]
    name = _KNX.get(service)
    if service != 0x0530 or len(payload) < 8 or len(payload) < 14 + payload[7]:
        return name
    control, source, target = unpack_from("!BHH", payload, 9 + payload[7])
    to_group = f"{target >> 11}/{target >> 8 & 7}/{target & 0xFF}"
    return f"{name} {_individual(source)} to {to_group if control & 0x80 else _individual(target)}"


def _individual(address: int) -> str:
    return f"{address >> 12}.{address >> 8 & 0xF}.{address & 0xFF}"


class _MavlinkFrame(NamedTuple):
    end: int
    system: int
    component: int
    message: int
    is_sealed: bool
    """Whether its message is known and its checksum right."""


def _mavlink(payload: bytes) -> str | None:
    start, sealed = 0, None
    for _ in range(_MOST_FRAMES):
        if start == len(payload):
            break
        frame = _mavlink_frame(payload, start, check=sealed is None)
        if frame is None:
            return None
        sealed = sealed or (frame if frame.is_sealed else None)
        start = frame.end
    if sealed is None:
        return None
    version = {0xFD: 2, 0xFE: 1}[payload[0]]
    return f"version {version}, system {sealed.system}, component {sealed.component}"


def _mavlink_frame(payload: bytes, start: int, *, check: bool) -> _MavlinkFrame | None:
    head = payload[start : start + 10]
    if len(head) >= 6 and head[0] == 0xFE:
        size, system, component, message, behind = 6, *head[3:6], 0
    elif len(head) == 10 and head[0] == 0xFD:
        size, (system, component), message = 10, head[5:7], int.from_bytes(head[7:10], "little")
        behind = 13 if head[2] & 1 else 0  # a signature
    else:
        return None
    checksum = start + size + head[1]
    if checksum + 2 + behind > len(payload):
        return None
    seal = _MAVLINK_SEALS.get(message) if check else None
    is_sealed = seal is not None and _x25(payload[start + 1 : checksum] + bytes([seal])) == int.from_bytes(
        payload[checksum : checksum + 2], "little"
    )
    return _MavlinkFrame(checksum + 2 + behind, system, component, message, is_sealed)


def _x25(data: bytes) -> int:
    """Return the checksum of ITU X.25 in the form that MAVLink uses (CRC-16/MCRF4XX)."""
    crc = 0xFFFF
    for byte in data:
        low = (byte ^ crc) & 0xFF
        low = (low ^ low << 4) & 0xFF
        crc = crc >> 8 ^ low << 8 ^ low << 3 ^ low >> 4
    return crc


def _ptp(payload: bytes) -> str | None:
    if len(payload) >= 40 and payload[:4] == b"\0\1\0\1" and payload[32] in _PTP_V1:
        return joined(_PTP_V1[payload[32]], "version 1", text(payload[4:20]))
    if len(payload) < 34 or payload[1] & 0x0F != 2:
        return None
    kind, length = _PTP.get(payload[0] & 0x0F), unpack_from("!H", payload, 2)[0]
    if kind is None or not 34 <= length <= len(payload):
        return None
    master = f"grandmaster {payload[53:61].hex('-', 2)}" if kind == "Announce" and length >= 64 else ""
    return joined(kind, f"domain {payload[4]}", master)


def _speedwire(payload: bytes) -> str | None:
    if len(payload) < 16 or payload[:8] != _SMA_HEAD:
        return None
    if payload[8:12] == b"\xff\xff\xff\xff":
        return "discovery"
    protocol = unpack_from("!H", payload, 16)[0] if len(payload) >= 24 else None
    name = _SMA_PROTOCOLS.get(protocol or 0)
    if name is None or protocol == 0x6065:
        return name or "control"
    return f"{name} {unpack_from('!I', payload, 20)[0]}"


def _lcm(payload: bytes) -> str | None:
    if len(payload) < 9 or payload[:4] not in (b"LC02", b"LC03"):
        return None
    start = 8
    if payload[:4] == b"LC03":
        if len(payload) < 20:
            return None
        number, total = unpack_from("!HH", payload, 16)
        if number >= total:
            return None
        if number:
            return "a fragment"
        start = 20
    channel, end, _ = payload[start : start + 64].partition(b"\0")
    is_name = bool(end and channel) and all(0x20 < byte < 0x7F for byte in islice(channel, 64))
    return f"channel {text(channel)}" if is_name else None


CONTROL = (
    Recogniser("Art-Net", "Art-Net 4, Artistic Licence", _art_net),
    Recogniser("sACN", "ANSI E1.31-2018, 4 to 8", _sacn),
    Recogniser("KNXnet/IP", "ISO 22510, 5 and 6; KNX 3/8/2, 3/8/5", _knx),
    Recogniser("LCM", "LCM UDP multicast protocol description", _lcm),
    Recogniser("SMA Speedwire", "SMA Energy Meter protocol, EMETER-Protokoll-TI-en-10", _speedwire),
    Recogniser("MAVLink", "MAVLink developer guide, packet serialization", _mavlink),
    Recogniser("PTP", "IEEE 1588-2019, 13 and annexes C and D; version 1: IEEE 1588-2002", _ptp, frozenset({319, 320})),
)
