"""Datagram, and ancillary data to its fields. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from struct import Struct
from typing import NamedTuple

from multicast_expert.addresses import IPv4Or6Address

MAX_DATAGRAM = 65535
"""Bytes: no UDP datagram is larger (RFC 768)."""


class Datagram(NamedTuple):
    """One datagram with all that the kernel told about it. What an OS cannot tell is None."""

    data: bytes
    """The payload; empty for a datagram without one."""
    sender: IPv4Or6Address
    """As `recvfrom` gives it: `(ip, port)`, for IPv6 `(ip, port, flow info, scope id)`."""
    group: str | None = None
    """The group that it was sent to."""
    interface_index: int | None = None
    """The interface that it arrived on."""
    interface_name: str | None = None
    hop_limit: int | None = None
    """The hops that it had left on arrival (IPv4: the TTL)."""
    timestamp_ns: int | None = None
    """When the kernel received it, in nanoseconds since 1970; only with `timestamps=True`; of a `gro` run, one."""
    truncated: bool = False
    """Whether the buffer was too small, so that the end of the payload is lost."""


class ReceiveStats(NamedTuple):
    """What a receiver got and lost since it was opened."""

    datagrams: int
    """Datagrams received."""
    bytes: int
    """Bytes of payload received."""
    truncated: int
    """Datagrams whose end was lost because the buffer given to `receive` was too small."""
    kernel_drops: int | None
    """Datagrams that the kernel threw away because the receive buffer was full; None where the OS does not say.

    Linux counts those once that it throws away in one piece: with `gro=False` the number is exact, else a lower bound.
    """
    filtered: int
    """Datagrams that reached a socket and were refused because of their destination."""


class Arrival(NamedTuple):
    """What the ancillary data of one datagram say."""

    destination: bytes | None = None
    """4 or 16 bytes."""
    interface_index: int | None = None
    hop_limit: int | None = None
    timestamp_ns: int | None = None
    segment_size: int = 0
    """Bytes of each of the datagrams that the kernel coalesced, but the last; 0: it is one datagram."""


# struct in_pktinfo differs between Unix and Windows; in6_pktinfo is the same everywhere (RFC 3542, 6.1).
_PKTINFO = Struct("=I4x4s")
_PKTINFO_WINDOWS = Struct("=4sI")
_PKTINFO6 = Struct("=16sI")
_SOCKADDR_DL = Struct("=2xH")
_INT = Struct("=i")
_TIMESPEC = Struct("=qq")
# tv_usec is an int on macOS and a long on FreeBSD; both have their value in the first four bytes.
_TIMEVAL = Struct("=qi")


def decode_arrival(messages: Iterable[tuple[int, int, bytes]], fields: Mapping[tuple[int, int], str]) -> Arrival:
    """Decode control messages (level, type, data) by the platform's table.

    Unknown messages and those that the kernel had to cut are passed over.
    """
    destination: bytes | None = None
    interface_index = hop_limit = timestamp_ns = None
    segment_size = 0
    for level, kind, data in messages:
        field = fields.get((level, kind))
        size = len(data)
        if field == "pktinfo" and size >= _PKTINFO.size:
            interface_index, destination = _PKTINFO.unpack_from(data)
        elif field == "pktinfo6" and size >= _PKTINFO6.size:
            destination, interface_index = _PKTINFO6.unpack_from(data)
        elif field == "hop_limit" and size:
            hop_limit = _INT.unpack_from(data)[0] if size >= _INT.size else data[0]
        elif field == "timespec" and size >= _TIMESPEC.size:
            seconds, nanoseconds = _TIMESPEC.unpack_from(data)
            timestamp_ns = seconds * 1_000_000_000 + nanoseconds
        elif field == "timeval" and size >= _TIMEVAL.size:
            seconds, microseconds = _TIMEVAL.unpack_from(data)
            timestamp_ns = seconds * 1_000_000_000 + microseconds * 1_000
        elif field == "pktinfo_windows" and size >= _PKTINFO_WINDOWS.size:
            destination, interface_index = _PKTINFO_WINDOWS.unpack_from(data)
        elif field == "destination" and size >= 4:
            destination = data[:4]
        elif field == "sockaddr_dl" and size >= _SOCKADDR_DL.size:
            (interface_index,) = _SOCKADDR_DL.unpack_from(data)
        elif field == "segment_size" and size >= _INT.size:
            (segment_size,) = _INT.unpack_from(data)
    return Arrival(destination, interface_index, hop_limit, timestamp_ns, segment_size)
