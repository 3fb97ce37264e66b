"""Recognisers of what devices and programs find each other by. Pure: touches no OS."""

from __future__ import annotations

import re
from struct import unpack_from

from multicast_expert.wire.recognise.recogniser import Recogniser, joined, text

_RECORD_TYPES = {1: "A", 12: "PTR", 16: "TXT", 28: "AAAA", 33: "SRV", 47: "NSEC", 255: "ANY"}
_LABELS = 128
"""Labels of the longest name: RFC 1035, 2.3.4."""
_SSDP_STARTS = (b"NOTIFY * HTTP/1.", b"M-SEARCH * HTTP/1.", b"HTTP/1.1 200 ")
_SSDP_SUBJECT = re.compile(rb"\r?\n(?:NT|ST) *: *([^\r\n]{1,256})", re.IGNORECASE)
_SSDP_KIND = re.compile(rb"\r?\nNTS *: *ssdp:(\w{1,16})", re.IGNORECASE)
_WS_SPACES = (
    b"http://schemas.xmlsoap.org/ws/2005/04/discovery",
    b"http://docs.oasis-open.org/ws-dd/ns/discovery/2009/01",
)
_WS_ACTION = re.compile(rb"/(Hello|Bye|Probe|ProbeMatches|Resolve|ResolveMatches)\s*<")
_WS_LONGEST = 16384
_VENDORS = {
    0x0101: "RTI Connext", 0x0102: "OpenSplice", 0x0103: "OpenDDS", 0x0105: "InterCOM DDS", 0x0106: "CoreDX",
    0x010B: "RTI Connext Micro", 0x010F: "Fast DDS", 0x0110: "Cyclone DDS", 0x0111: "GurumDDS", 0x0112: "RustDDS",
}  # fmt: skip
_SOME_IP_ENTRIES = {0: "find", 1: "offer", 6: "subscribe", 7: "acknowledge"}
_COAP_METHODS = {1: "GET", 2: "POST", 3: "PUT", 4: "DELETE", 5: "FETCH", 6: "PATCH", 7: "iPATCH"}
_COAP_GROUPS = frozenset({"224.0.1.187", *(f"ff0{scope:x}::fd" for scope in range(2, 15))})
_URI_PATH, _MOST_OPTIONS = 11, 32


def _mdns(payload: bytes) -> str | None:
    if len(payload) < 12:
        return None
    flags, questions, answers, authorities, additional = unpack_from("!5H", payload, 2)
    # RFC 6762, 18: another operation or response code is to be ignored.
    if flags & 0x780F or not questions + answers + authorities + additional:
        return None
    found = _dns_name(payload, 12)
    if found is None or len(payload) < found[1] + 4:
        return None
    name, end = found
    kind = unpack_from("!H", payload, end)[0]
    return f"{'answer' if flags & 0x8000 else 'question'} {text(name)} {_RECORD_TYPES.get(kind, f'type {kind}')}"


def _dns_name(message: bytes, start: int) -> tuple[bytes, int] | None:
    """Return the name at `start` and where it ends; None for a broken one. A pointer leads backwards only."""
    labels: list[bytes] = []
    at, end = start, None
    while at < len(message) and len(labels) <= _LABELS:
        size = message[at]
        if not size:
            return b".".join(labels), at + 1 if end is None else end
        if size < 0x40:
            labels.append(message[at + 1 : at + 1 + size])
            at += 1 + size
        else:
            if size < 0xC0 or at + 1 >= len(message):
                return None
            end = at + 2 if end is None else end
            target = (size & 0x3F) << 8 | message[at + 1]
            if target >= at:
                return None
            at = target
    return None


def _ssdp(payload: bytes) -> str | None:
    if not payload.startswith(_SSDP_STARTS):
        return None
    subject, kind = _SSDP_SUBJECT.search(payload), _SSDP_KIND.search(payload)
    if payload.startswith(b"HTTP") and subject is None:
        return None
    verb = text(kind[1]) if kind else "search" if payload.startswith(b"M-") else "answer"
    return f"{verb} {text(subject[1])}" if subject else verb


def _ws_discovery(payload: bytes) -> str | None:
    head = payload[:_WS_LONGEST]
    if not head.lstrip(b"\xef\xbb\xbf \r\n\t").startswith(b"<") or not any(space in head for space in _WS_SPACES):
        return None
    action = _WS_ACTION.search(head)
    return text(action[1]) if action else ""


def _rtps(payload: bytes) -> str | None:
    if len(payload) < 20 or payload[:4] != b"RTPS":
        return None
    vendor = unpack_from("!H", payload, 6)[0]
    return joined(f"version {payload[4]}.{payload[5]}", _VENDORS.get(vendor, f"vendor {vendor:#06x}"))


def _some_ip(payload: bytes) -> str | None:
    if len(payload) < 28 or payload[:4] != b"\xff\xff\x81\0" or payload[12:16] != b"\1\1\2\0":
        return None
    length, entries = unpack_from("!I", payload, 4)[0], unpack_from("!I", payload, 20)[0]
    if length + 8 > len(payload) or entries + 24 > len(payload):
        return None
    if entries < 16:
        return "no entries"
    kind, service, instance = unpack_from("!B3xHH", payload, 24)
    more = entries // 16 - 1
    what = f"{_SOME_IP_ENTRIES.get(kind, f'entry {kind} of')} service 0x{service:04x}"
    return joined(what, f"instance 0x{instance:04x}", f"{more} more" if more else "")


def _coap(payload: bytes) -> str | None:
    if len(payload) < 4 or payload[0] >> 6 != 1:
        return None
    tokens, code = payload[0] & 0x0F, payload[1]
    if tokens > 8 or len(payload) < 4 + tokens or code >> 5 not in (0, 2, 4, 5):
        return None
    path = _coap_path(payload, 4 + tokens)
    if path is None or (code >> 5 == 0 and code and code not in _COAP_METHODS):
        return None
    return f"{_COAP_METHODS[code]} /{text(path)}" if code in _COAP_METHODS else f"{code >> 5}.{code & 31:02}"


def _coap_path(payload: bytes, at: int) -> bytes | None:
    """Return the Uri-Path in the options at `at` (RFC 7252, 3.1); None if they are broken."""
    number, path = 0, []
    for _ in range(_MOST_OPTIONS):
        if at >= len(payload) or payload[at] == 0xFF:
            break
        parts = []
        first, at = payload[at], at + 1
        for part in (first >> 4, first & 15):
            more = {13: 1, 14: 2}.get(part, 0)
            if part == 15 or at + more > len(payload):
                return None
            parts.append(part if not more else int.from_bytes(payload[at : at + more], "big") + (13, 269)[more - 1])
            at += more
        number, end = number + parts[0], at + parts[1]
        if end > len(payload):
            return None
        if number == _URI_PATH:
            path.append(payload[at:end])
        at = end
    return b"/".join(path)


DISCOVERY = (
    Recogniser("SSDP", "UPnP Device Architecture 2.0, 1", _ssdp),
    Recogniser("WS-Discovery", "OASIS WS-Discovery 1.1, 3 to 6", _ws_discovery),
    Recogniser("RTPS", "OMG DDSI-RTPS 2.5, 8.3.3 and 9.4.4", _rtps),
    Recogniser("SOME/IP-SD", "AUTOSAR PRS_SOMEIPServiceDiscoveryProtocol, 4.1", _some_ip),
    Recogniser("mDNS", "RFC 6762, 18; RFC 1035, 4", _mdns, frozenset({5353}), frozenset({"224.0.0.251", "ff02::fb"})),
    Recogniser("CoAP", "RFC 7252, 3 and 12.8", _coap, frozenset({5683}), _COAP_GROUPS),
)
