"""Parses and builds the messages of IGMPv1 to v3 and MLDv1 and v2. Pure: touches no OS.

RFC 1112, RFC 2236, RFC 3376 and RFC 9776 (IGMP); RFC 2710, RFC 3810 and RFC 9777 (MLD).
"""

from __future__ import annotations

from enum import IntEnum
from ipaddress import ip_address
from struct import pack, unpack_from
from typing import NamedTuple

from multicast_expert.core.addresses import address_text
from multicast_expert.wire.frames import (
    HOP_BY_HOP,
    ICMPV6,
    IGMP,
    ROUTER_ALERT_V4,
    internet_checksum,
    ipv4_packet,
    ipv6_packet,
    upper_layer_checksum,
)

MLD_QUERY = 130
ALL_HOSTS, ALL_NODES = "224.0.0.1", "ff02::1"
_ALL_ROUTERS, _ALL_REPORTS = {4: "224.0.0.2", 6: "ff02::2"}, {4: "224.0.0.22", 6: "ff02::16"}
_ROUTER_ALERT_V6 = bytes.fromhex("050200000100")  # RFC 2711, and two bytes of padding
_INTERNETWORK_CONTROL = 0xC0  # the type of service of RFC 3376, 4
_IGMP_QUERY = 0x11
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


# Parsing


def parse_group_message(packet: bytes) -> GroupMessage | None:
    """Return the message in an IPv4 or IPv6 packet; None for any packet that a router must ignore.

    That is: another protocol, a wrong checksum, a truncated message, and an MLD message with another hop limit than 1,
    without the router alert option or from an address that is not link-local (RFC 3810, 5.1.14, 5.2.13 and 6.2).
    """
    if len(packet) >= 20 and packet[0] >> 4 == 4 and packet[9] == IGMP:
        return _parse_ipv4(packet)
    if len(packet) >= 48 and packet[0] >> 4 == 6 and packet[6] == HOP_BY_HOP and packet[40] == ICMPV6:
        return _parse_ipv6(packet)
    return None


def _parse_ipv4(packet: bytes) -> GroupMessage | None:
    start = (packet[0] & 0x0F) * 4
    length, fragment = unpack_from("!H2xH", packet, 2)
    message = packet[start:length]
    is_whole = start >= 20 and start + 8 <= length <= len(packet) and not fragment & 0x3FFF
    if not is_whole or internet_checksum(message):
        return None
    content = _igmp_content(message)
    return content and GroupMessage(address_text(packet[12:16]), content)


def _igmp_content(message: bytes) -> GroupQuery | GroupReport | None:
    kind, group = message[0], message[4:8]
    if kind == _IGMP_QUERY:
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
    if packet[7] != 1 or not 48 <= length <= len(packet):
        return None
    start = 48 + packet[41] * 8
    host, message = address_text(packet[8:24]), packet[start:length]
    if not _has_router_alert(packet[42:start]):
        return None
    if upper_layer_checksum(host, address_text(packet[24:40]), ICMPV6, message):
        return None
    content = parse_mld(message)
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


def parse_mld(message: bytes) -> GroupQuery | GroupReport | None:
    """Return what an ICMPv6 message says about groups, whatever carried it; None for other messages."""
    if len(message) >= 8 and message[0] == _MLD_V2_REPORT:
        return _report(2, message, 16)
    if len(message) < 24:
        return None
    kind = message[0]
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


# Building


def build_group_message(message: GroupMessage) -> bytes:
    """Return the IP packet that carries a message to where it belongs: hop limit 1, and the router alert option.

    Response times and intervals become the next lower ones that the version can carry. Raises ValueError for what no
    message of the version says, such as two groups in a report of version 2.
    """
    host, content = message
    version = ip_address(host).version
    if isinstance(content, GroupQuery):
        destination = content.group or (ALL_HOSTS if version == 4 else ALL_NODES)
        body = (_igmp_query_body if version == 4 else _mld_query_body)(content)
    elif content.version == (3 if version == 4 else 2):
        destination, body = _ALL_REPORTS[version], _report_body(content, version)
    else:
        destination, body = _older_body(content, version)
    if version == 4:
        body = body[:2] + pack("!H", internet_checksum(body)) + body[4:]
        return ipv4_packet(host, destination, IGMP, body, tos=_INTERNETWORK_CONTROL, options=ROUTER_ALERT_V4)
    body = body[:2] + pack("!H", upper_layer_checksum(host, destination, ICMPV6, body)) + body[4:]
    return ipv6_packet(host, destination, HOP_BY_HOP, bytes([ICMPV6, 0]) + _ROUTER_ALERT_V6 + body)


def _igmp_query_body(query: GroupQuery) -> bytes:
    tenths, group = round(query.response_time * 10), _packed(query.group, 4)
    if query.version < 3:
        # A response time of 0 would make it a query of version 1 (RFC 2236, 4).
        return pack("!BBH4s", _IGMP_QUERY, min(max(tenths, 1), 255) if query.version == 2 else 0, 0, group)
    return pack("!BBH4s", _IGMP_QUERY, _code(tenths, 4), 0, group) + _query_end(query)


def _mld_query_body(query: GroupQuery) -> bytes:
    milliseconds, group = round(query.response_time * 1000), _packed(query.group, 16)
    code = min(milliseconds, 0xFFFF) if query.version == 1 else _code(milliseconds, 12)
    head = pack("!BBHHH16s", MLD_QUERY, 0, 0, code, 0, group)
    return head if query.version == 1 else head + _query_end(query)


def _query_end(query: GroupQuery) -> bytes:
    robustness = query.robustness if query.robustness < 8 else 0  # RFC 3376, 4.1.6
    # An interval of 0 would mean the default.
    interval = 0 if query.interval is None else _code(max(1, round(query.interval)), 4)
    flags = query.keeps_timers << 3 | robustness
    return pack("!BBH", flags, interval, len(query.sources)) + b"".join(map(_packed, query.sources))


def _report_body(report: GroupReport, version: int) -> bytes:
    body = pack("!BBHHH", _IGMP_V3_REPORT if version == 4 else _MLD_V2_REPORT, 0, 0, 0, len(report.records))
    for record in report.records:
        body += pack("!BBH", record.kind, 0, len(record.sources)) + _packed(record.group)
        body += b"".join(map(_packed, record.sources))
    return body


def _older_body(report: GroupReport, version: int) -> tuple[str, bytes]:
    """Return the destination and the message of a report or leave of an older version."""
    (record,) = report.records
    leaves = record.kind is RecordKind.TO_INCLUDE
    if record.sources or record.kind not in (RecordKind.TO_INCLUDE, RecordKind.IS_EXCLUDE):
        raise ValueError(f"{record} does not fit into a message of version {report.version}")
    destination, group = _ALL_ROUTERS[version] if leaves else record.group, _packed(record.group)
    if version == 6:
        return destination, pack("!BBHI16s", _MLD_DONE if leaves else _MLD_V1_REPORT, 0, 0, 0, group)
    kind = _IGMP_V1_REPORT if report.version == 1 else _IGMP_LEAVE if leaves else _IGMP_V2_REPORT
    return destination, pack("!BBH4s", kind, 0, 0, group)


def _code(number: int, bits: int) -> int:
    """Return the code of the largest number up to `number` that `_floating` can give."""
    if number < 1 << bits + 3:
        return number
    exponent = number.bit_length() - bits - 4
    if exponent > 7:
        return (1 << bits + 4) - 1
    return 1 << bits + 3 | exponent << bits | number >> exponent + 3 & (1 << bits) - 1


def _packed(address: str | None, size: int = 0) -> bytes:
    return bytes(size) if address is None else ip_address(address).packed
