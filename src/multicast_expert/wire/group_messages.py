"""Parses the messages of IGMPv1 to v3 and MLDv1 and v2 with their groups and sources. Pure: touches no OS.

RFC 1112, RFC 2236, RFC 3376 and RFC 9776 (IGMP); RFC 2710, RFC 3810 and RFC 9777 (MLD).
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import ip_address
from struct import unpack_from
from typing import NamedTuple

from multicast_expert.core.addresses import address_text
from multicast_expert.wire.frames import (
    HOP_BY_HOP,
    ICMPV6,
    IGMP,
    IGMP_QUERY,
    MLD_QUERY,
    internet_checksum,
    upper_layer_checksum,
)

_IGMP_V1_REPORT, _IGMP_V2_REPORT, _IGMP_LEAVE, _IGMP_V3_REPORT = 0x12, 0x16, 0x17, 0x22
_MLD_V1_REPORT, _MLD_DONE, _MLD_V2_REPORT = 131, 132, 143
_PAD1, _ROUTER_ALERT = 0, 5


class RecordKind(IntEnum):
    """The kind of a group record: RFC 3376, 4.2.12, and RFC 3810, 5.2.12."""

    IS_INCLUDE = 1
    IS_EXCLUDE = 2
    TO_INCLUDE = 3
    TO_EXCLUDE = 4
    ALLOW = 5
    BLOCK = 6


class GroupRecord(NamedTuple):
    """What a host reports about one group."""

    kind: RecordKind
    group: str
    sources: tuple[str, ...] = ()


class GroupQuery(NamedTuple):
    """A query with its timers in seconds; `group` is None in a general query."""

    version: int
    group: str | None
    sources: tuple[str, ...]
    response_time: float
    keeps_timers: bool = False
    """The S flag: other routers must not lower their timers."""
    robustness: int = 2
    interval: float | None = None
    """None in versions that do not carry it."""


class GroupReport(NamedTuple):
    """A report or a leave. An older report becomes IS_EXCLUDE, a leave TO_INCLUDE, both without sources.

    RFC 3376, 7.3.2, and RFC 3810, 8.3.2, translate them in this way.
    """

    version: int
    records: tuple[GroupRecord, ...]


class GroupMessage(NamedTuple):
    """A message and the host that sent it."""

    host: str
    content: GroupQuery | GroupReport


def parse_group_message(packet: bytes) -> GroupMessage | None:
    """Return the message in an IPv4 or IPv6 packet; None for any packet that a router must ignore.

    That is: another protocol, a wrong checksum, a truncated message, and an MLD message with another hop limit than 1,
    without the router alert option or from an address that is not link-local (RFC 3810, 5.1.14, 5.2.13 and 6.2).
    """
    if len(packet) >= 20 and packet[0] >> 4 == 4:
        return _parse_ipv4(packet)
    if len(packet) >= 40 and packet[0] >> 4 == 6:
        return _parse_ipv6(packet)
    return None


def _parse_ipv4(packet: bytes) -> GroupMessage | None:
    start = (packet[0] & 0x0F) * 4
    length, fragment = unpack_from("!H2xH", packet, 2)
    message = packet[start:length]
    is_whole = start >= 20 and start + 8 <= length <= len(packet) and not fragment & 0x3FFF
    if packet[9] != IGMP or not is_whole or internet_checksum(message):
        return None
    content = _igmp_content(message)
    return content and GroupMessage(address_text(packet[12:16]), content)


def _igmp_content(message: bytes) -> GroupQuery | GroupReport | None:
    kind, group = message[0], message[4:8]
    if kind == IGMP_QUERY:
        return _igmp_query(message)
    if kind == _IGMP_V3_REPORT:
        return _report(3, message, 4)
    if kind in (_IGMP_V1_REPORT, _IGMP_V2_REPORT):
        return _older_report(1 if kind == _IGMP_V1_REPORT else 2, RecordKind.IS_EXCLUDE, group)
    return _older_report(2, RecordKind.TO_INCLUDE, group) if kind == _IGMP_LEAVE else None


def _igmp_query(message: bytes) -> GroupQuery | None:
    if len(message) == 8:
        # RFC 3376, 7.1: a version 1 query has no response time, which is then 10 s.
        version, response = (2, message[1] / 10) if message[1] else (1, 10.0)
        return _query(version, message[4:8], (), response)
    return _newer_query(3, message, 4, _floating(message[1], 4) / 10)


def _parse_ipv6(packet: bytes) -> GroupMessage | None:
    length = 40 + unpack_from("!H", packet, 4)[0]
    if packet[6] != HOP_BY_HOP or packet[7] != 1 or not 48 <= length <= len(packet) or packet[40] != ICMPV6:
        return None
    start = 48 + packet[41] * 8
    host, message = address_text(packet[8:24]), packet[start:length]
    if len(message) < 8 or not _has_router_alert(packet[42:start]):
        return None
    if upper_layer_checksum(host, address_text(packet[24:40]), ICMPV6, message):
        return None
    content = _mld_content(message)
    is_local = packet[8] == 0xFE and packet[9] & 0xC0 == 0x80
    # A host that has no address yet reports from :: (RFC 3810, 5.2.13).
    is_allowed = is_local or (isinstance(content, GroupReport) and not any(packet[8:24]))
    return GroupMessage(host, content) if content and is_allowed else None


def _has_router_alert(options: bytes) -> bool:
    at = 0
    while at + 1 < len(options):
        if options[at] == _PAD1:
            at += 1
            continue
        if options[at] == _ROUTER_ALERT and options[at + 1 : at + 4] == b"\x02\0\0":
            return True
        at += 2 + options[at + 1]
    return False


def _mld_content(message: bytes) -> GroupQuery | GroupReport | None:
    kind = message[0]
    if kind == _MLD_V2_REPORT:
        return _report(2, message, 16)
    if len(message) < 24:
        return None
    (code,) = unpack_from("!H", message, 4)
    if kind == MLD_QUERY and len(message) == 24:
        return _query(1, message[8:24], (), code / 1000)
    if kind == MLD_QUERY:
        return _newer_query(2, message, 16, _floating(code, 12) / 1000)
    if kind == _MLD_V1_REPORT:
        return _older_report(1, RecordKind.IS_EXCLUDE, message[8:24])
    return _older_report(1, RecordKind.TO_INCLUDE, message[8:24]) if kind == _MLD_DONE else None


def _floating(code: int, bits: int) -> int:
    """Return the number in a code with `bits` of mantissa: RFC 3376, 4.1.1, and RFC 3810, 5.1.3."""
    if code < 1 << bits + 3:
        return code
    return (code & (1 << bits) - 1 | 1 << bits) << ((code >> bits & 7) + 3)


def _newer_query(version: int, message: bytes, size: int, response: float) -> GroupQuery | None:
    """Return a query with sources; its last fields follow the group, which ends at 8 (IGMP) or 24 (MLD)."""
    end = 8 if size == 4 else 24
    if len(message) < end + 4:
        return None
    flags, code, count = unpack_from("!BBH", message, end)
    sources = _addresses(message, end + 4, count, size)
    if sources is None:
        return None
    query = _query(version, message[end - size : end], sources, response)
    # A robustness of 0 and an interval of 0 mean the default: RFC 3376, 4.1.6 and 4.1.7.
    return query and query._replace(
        keeps_timers=bool(flags & 8), robustness=flags & 7 or 2, interval=float(_floating(code, 4)) or None
    )


def _query(version: int, group: bytes, sources: tuple[str, ...], response: float) -> GroupQuery | None:
    if not any(group):
        return None if sources else GroupQuery(version, None, (), response)
    return GroupQuery(version, address_text(group), sources, response) if _is_multicast(group) else None


def _older_report(version: int, kind: RecordKind, group: bytes) -> GroupReport | None:
    return GroupReport(version, (GroupRecord(kind, address_text(group)),)) if _is_multicast(group) else None


def _report(version: int, message: bytes, size: int) -> GroupReport | None:
    """Return the records of a report; those of an unknown kind are left out (RFC 3376, 4.2.12)."""
    records, at = [], 8
    for _ in range(unpack_from("!H", message, 6)[0]):
        if at + 4 + size > len(message):
            return None
        kind, words, count = unpack_from("!BBH", message, at)
        group = message[at + 4 : at + 4 + size]
        sources = _addresses(message, at + 4 + size, count, size)
        if sources is None:
            return None
        at += 4 + size + count * size + words * 4
        if 1 <= kind <= 6 and _is_multicast(group):
            records.append(GroupRecord(RecordKind(kind), address_text(group), sources))
    return GroupReport(version, tuple(records)) if at <= len(message) else None


def _addresses(message: bytes, start: int, count: int, size: int) -> tuple[str, ...] | None:
    if start + count * size > len(message):
        return None
    return tuple(address_text(message[at : at + size]) for at in range(start, start + count * size, size))


def _is_multicast(group: bytes) -> bool:
    return ip_address(group).is_multicast
