"""Recognisers of sound, pictures and their announcements. Pure: touches no OS."""

from __future__ import annotations

import re
from struct import unpack_from
from typing import NamedTuple

from multicast_expert.wire.recognise.recogniser import Recogniser, joined, text
from multicast_expert.wire.transport_stream import PACKET, SYNC

_MOST_AHEAD = 100
"""How many numbers the next RTP packet of a stream may be ahead of the last one."""
_ENOUGH_PACKETS = 3
"""Packets of a transport stream in one datagram that cannot be by chance."""
_MOST_LINES, _LONGEST_LINE = 200, 200
_MOST_PARTS = 64
_RTCP = {200: "sender report", 201: "receiver report"}
_RTPMAP = re.compile(r"rtpmap:(\d{1,3}) (\S{1,40})")
STATIC_TYPES = {
    0: ("PCMU", 8000), 3: ("GSM", 8000), 4: ("G723", 8000), 5: ("DVI4", 8000), 6: ("DVI4", 16000), 7: ("LPC", 8000),
    8: ("PCMA", 8000), 9: ("G722", 8000), 10: ("L16 stereo", 44100), 11: ("L16 mono", 44100), 12: ("QCELP", 8000),
    13: ("CN", 8000), 14: ("MPA", 90000), 15: ("G728", 8000), 16: ("DVI4", 11025), 17: ("DVI4", 22050),
    18: ("G729", 8000), 25: ("CelB", 90000), 26: ("JPEG", 90000), 28: ("nv", 90000), 31: ("H261", 90000),
    32: ("MPV", 90000), 33: ("MPEG-TS", 90000), 34: ("H263", 90000),
}  # fmt: skip
"""Names and clock rates in Hz of RTP payload types: RFC 3551, 6."""
DYNAMIC_TYPES = range(96, 128)


class RtpHeader(NamedTuple):
    """What RFC 3550, 5.1, puts before the payload."""

    payload_type: int
    number: int
    timestamp: int
    source: int
    """The SSRC."""
    size: int
    """Bytes of the header."""


def rtp_header(payload: bytes) -> RtpHeader | None:
    """Return the header of an RTP packet; None for a payload that cannot be RTP."""
    if len(payload) < 12 or payload[0] >> 6 != 2:
        return None
    kind = payload[1] & 0x7F
    size = 12 + 4 * (payload[0] & 0x0F)
    if payload[0] & 0x10:
        if len(payload) < size + 4:
            return None
        size += 4 + 4 * int(unpack_from("!H", payload, size + 2)[0])
    padding = payload[-1] if payload[0] & 0x20 else 0
    if (kind not in STATIC_TYPES and kind not in DYNAMIC_TYPES) or size + padding > len(payload):
        return None
    number, timestamp, source = unpack_from("!HII", payload, 2)
    return RtpHeader(kind, number, timestamp, source, size)


def _rtp(payload: bytes) -> str | None:
    header = rtp_header(payload)
    return None if header is None else type_name(header.payload_type)


def type_name(payload_type: int) -> str:
    """Return what RFC 3551 says of an RTP payload type."""
    name, clock = STATIC_TYPES.get(payload_type, (f"dynamic type {payload_type}", 0))
    return f"{name} {clock / 1000:g} kHz" if clock and clock != 90000 else name


def _rtp_follows(earlier: bytes, later: bytes) -> bool:
    first, second = rtp_header(earlier), rtp_header(later)
    if first is None or second is None:
        return False
    is_same = (first.payload_type, first.source) == (second.payload_type, second.source)
    return is_same and 0 < (second.number - first.number) & 0xFFFF <= _MOST_AHEAD


def _rtp_with_packets(payload: bytes) -> str | None:
    header = rtp_header(payload)
    if header is None:
        return None
    packets = _packets(payload[header.size :])
    enough = 1 if STATIC_TYPES.get(header.payload_type, ("",))[0] == "MPEG-TS" else _ENOUGH_PACKETS
    return "MPEG-TS" if packets >= enough else None


def _rtcp(payload: bytes) -> str | None:
    """Return the kind of a compound packet's first part, by the checks of RFC 3550, A.2."""
    at = 0
    kinds: list[int] = []
    while at + 4 <= len(payload) and len(kinds) < _MOST_PARTS:
        first, kind, length = unpack_from("!BBH", payload, at)
        if first >> 6 != 2 or not 192 <= kind <= 213:
            return None
        kinds.append(kind)
        at += 4 * (length + 1)
    has_place = at == len(payload) and len(payload) >= 8
    return _RTCP[kinds[0]] if has_place and kinds[0] in _RTCP else None


def _packets(payload: bytes) -> int:
    """Return how many packets of a transport stream there are; 0 if there is anything else."""
    count = len(payload) // PACKET
    if len(payload) % PACKET or payload[::PACKET] != bytes([SYNC]) * count:
        return 0
    # The standard reserves an adaptation field control of 0.
    return count if all(flags & 0x30 for flags in payload[3::PACKET]) else 0


def _few_packets(payload: bytes) -> str | None:
    """Return an empty detail: the services stand in several datagrams, which TransportStream reads."""
    return "" if _packets(payload) else None


def _many_packets(payload: bytes) -> str | None:
    return "" if _packets(payload) >= _ENOUGH_PACKETS else None


def _packets_follow(earlier: bytes, later: bytes) -> bool:
    return bool(_packets(earlier)) and bool(_packets(later))


class Medium(NamedTuple):
    """A medium that SDP announces."""

    kind: str
    group: str
    port: int
    formats: tuple[str, ...]
    """Such as `L24/48000/2`; payload types without a name as their number."""
    payload_types: tuple[int, ...]


class Announcement(NamedTuple):
    """What a SAP message says (RFC 2974)."""

    name: str
    media: tuple[Medium, ...]
    is_withdrawn: bool


def read_announcement(payload: bytes) -> Announcement | None:
    """Return what a SAP message announces; None for another payload, or one that is compressed or encrypted."""
    if len(payload) < 12 or payload[0] >> 5 != 1 or payload[0] & 0x03:
        return None
    start = 8 + (12 if payload[0] & 0x10 else 0) + 4 * payload[1]
    if payload[start : start + 16] == b"application/sdp\0":
        start += 16
    if payload[start : start + 3] not in (b"v=0", b"o=-") and payload[start : start + 2] != b"o=":
        return None
    is_withdrawn = bool(payload[0] & 0x04)
    if payload[start : start + 1] == b"o" and not is_withdrawn:
        return None
    name, media = _read_sdp(payload[start:])
    return Announcement(name, media, is_withdrawn)


def _read_sdp(description: bytes) -> tuple[str, tuple[Medium, ...]]:
    """Return name and media of a session description (RFC 8866); a part that makes no sense is left out."""
    lines = description.decode("utf-8", "replace").splitlines()[:_MOST_LINES]
    name, everywhere, media = "", "", []
    for line in lines:
        key, _, value = line[:_LONGEST_LINE].partition("=")
        if key == "s":
            name = text(value.encode())
        elif key == "m":
            words = value.split()
            port = words[1].partition("/")[0] if len(words) > 3 else ""
            types = tuple(int(word) for word in words[3:] if word.isascii() and word.isdigit() and len(word) < 4)
            if port.isascii() and port.isdigit() and len(port) <= 5:
                formats = tuple(type_name(each) for each in types)
                media.append(Medium(text(words[0].encode()), everywhere, int(port), formats, types))
        elif key == "c" and (words := value.split())[2:]:
            group = text(words[2].partition("/")[0].encode())
            everywhere = everywhere if media else group
            media[-1:] = [each._replace(group=group) for each in media[-1:]]
        elif key == "a" and media and (mapped := _RTPMAP.match(value)):
            media[-1] = _with_format(media[-1], int(mapped[1]), text(mapped[2].encode()))
    return name, tuple(media)


def _with_format(medium: Medium, payload_type: int, name: str) -> Medium:
    pairs = zip(medium.payload_types, medium.formats, strict=True)
    return medium._replace(formats=tuple(name if kind == payload_type else known for kind, known in pairs))


def _sap(payload: bytes) -> str | None:
    found = read_announcement(payload)
    if found is None:
        return None
    if found.is_withdrawn:
        return "withdrawal"
    first = found.media[0] if found.media else None
    what = f"{first.kind} {' '.join(first.formats[:1])}" if first else ""
    where = f"at {first.group} port {first.port}" if first else ""
    return joined(f"“{found.name}”", f"{what} {where}".strip())


MEDIA = (
    Recogniser("SAP", "RFC 2974, 3; RFC 8866", _sap),
    Recogniser("RTP", "RFC 3550, 5.1; RFC 2250, 2", _rtp_with_packets),
    Recogniser("MPEG-TS", "ISO/IEC 13818-1, 2.4.3", _many_packets),
    Recogniser("RTCP", "RFC 3550, 6 and A.2", _rtcp),
    Recogniser("RTP", "RFC 3550, 5.1; RFC 3551, 6", _rtp, frozenset({5004}), follows=_rtp_follows),
    Recogniser("MPEG-TS", "ISO/IEC 13818-1, 2.4.3", _few_packets, follows=_packets_follow),
)
