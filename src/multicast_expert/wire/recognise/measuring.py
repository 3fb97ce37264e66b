"""Recognisers of programs that measure. Pure: touches no OS."""

from __future__ import annotations

from struct import Struct, unpack_from
from typing import NamedTuple

from multicast_expert.stamp import read_stamp
from multicast_expert.wire.recognise.recogniser import Recogniser

IPERF = Struct("!iIIi")
_MOST_AHEAD, _MOST_LATER = 1000, 10
EARLIEST = 1_000_000_000
"""Seconds since 1970: a sender's clock is at least so late."""

_PING_KINDS = {ord("I"): "init", ord("S"): "server response", ord("Q"): "request", ord("A"): "reply"}
_CLIENT, _NUMBER, _MOST_OPTIONS = 1, 2, 80


class IperfHeader(NamedTuple):
    """The head of a datagram of iperf 2."""

    number: int
    """From 0 or 1; the last one of a run has a negative sign."""
    sent_ns: int
    """In nanoseconds since 1970 by the sender's clock."""


def iperf_header(payload: bytes) -> IperfHeader | None:
    """Return the head of a datagram of iperf 2; None for a payload that cannot be of it."""
    if len(payload) < IPERF.size:
        return None
    low, seconds, microseconds, high = IPERF.unpack_from(payload)
    if seconds < EARLIEST or microseconds >= 1_000_000 or high not in (0, -1):
        return None
    return IperfHeader(low, seconds * 1_000_000_000 + microseconds * 1_000)


def _iperf(payload: bytes) -> str | None:
    return None if iperf_header(payload) is None else "version 2"


def _iperf_follows(earlier: bytes, later: bytes) -> bool:
    first, second = iperf_header(earlier), iperf_header(later)
    if first is None or second is None:
        return False
    seconds = (second.sent_ns - first.sent_ns) / 1e9
    return 0 < abs(second.number) - abs(first.number) <= _MOST_AHEAD and 0 <= seconds <= _MOST_LATER


def _stamped(payload: bytes) -> str | None:
    found = read_stamp(payload)
    return None if found is None else f"stream {found[0].stream_text}"


def _multicast_ping(payload: bytes) -> str | None:
    """Return the kind of a message, and its number; ssmping, asmping and RFC 6450 share the form of the options."""
    kind, options, at = _PING_KINDS.get(payload[0]) if payload else None, dict[int, bytes](), 1
    while kind and at + 4 <= len(payload) and len(options) < _MOST_OPTIONS:
        option, size = unpack_from("!HH", payload, at)
        options[option] = payload[at + 4 : at + 4 + size]
        at += 4 + size
    if kind is None or at != len(payload) or _CLIENT not in options:
        return None
    number = options.get(_NUMBER, b"")
    if len(number) == 4:
        return f"{kind} {int.from_bytes(number, 'big')}"
    return None if kind in ("request", "reply") else kind


MEASURING = (
    Recogniser("mcast stamp", "multicast_expert.stamp", _stamped),
    Recogniser("multicast ping", "RFC 6450, 3; draft-ietf-mboned-ssmping-07", _multicast_ping),
    Recogniser("iperf", "iperf 2, struct UDP_datagram", _iperf, frozenset({5001}), follows=_iperf_follows),
)
