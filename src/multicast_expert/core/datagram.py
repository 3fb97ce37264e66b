"""Datagram, and ancillary data to its fields. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING, Any, NamedTuple

from multicast_expert import extension
from multicast_expert.core.addresses import IPv4Or6Address

MAX_DATAGRAM = 65535
"""Bytes: no UDP datagram is larger (RFC 768)."""
MAX_PAYLOAD = {4: MAX_DATAGRAM - 20 - 8, 6: MAX_DATAGRAM - 8}
"""Bytes in a datagram by IP version: the header of UDP counts, and for IPv4 its own (RFC 791, RFC 8200)."""


Origin = tuple[IPv4Or6Address, str | None, int | None, str | None, int | None, str | None, int | None]
"""What datagrams that came the same way share: sender, group, interface index and name, hop limit, destination, traffic
class."""


class Datagram:
    """One datagram with all that the kernel reported about it. Parts that an OS does not report are None."""

    __slots__ = ("_data", "_origin", "_sender", "_timestamp_ns", "_truncated")
    __match_args__ = (
        "data",
        "sender",
        "group",
        "interface_index",
        "interface_name",
        "hop_limit",
        "timestamp_ns",
        "truncated",
        "destination",
        "traffic_class",
    )

    def __init__(
        self,
        data: bytes,
        sender: IPv4Or6Address,
        group: str | None = None,
        interface_index: int | None = None,
        interface_name: str | None = None,
        hop_limit: int | None = None,
        timestamp_ns: int | None = None,
        truncated: bool = False,
        destination: str | None = None,
        traffic_class: int | None = None,
    ) -> None:
        self._data = data
        self._sender = sender
        self._origin: Origin = (
            sender,
            group,
            interface_index,
            interface_name,
            hop_limit,
            group if destination is None else destination,
            traffic_class,
        )
        self._timestamp_ns = timestamp_ns
        self._truncated = truncated

    @property
    def data(self) -> bytes:
        """The payload; empty for a datagram without one."""
        return self._data

    @property
    def sender(self) -> IPv4Or6Address:
        """As `recvfrom` gives it: `(ip, port)`, for IPv6 `(ip, port, flow info, scope id)`."""
        return self._sender

    @property
    def group(self) -> str | None:
        """The group that it was sent to; None: the destination is the address of a host, or unknown."""
        return self._origin[1]

    @property
    def interface_index(self) -> int | None:
        """The interface that it arrived on."""
        return self._origin[2]

    @property
    def interface_name(self) -> str | None:
        """The name of that interface."""
        return self._origin[3]

    @property
    def hop_limit(self) -> int | None:
        """The hops that it had left on arrival (IPv4: the TTL)."""
        return self._origin[4]

    @property
    def timestamp_ns(self) -> int | None:
        """When the kernel received it, in nanoseconds since 1970; only with `timestamps=True`; of a `gro` run, one."""
        return self._timestamp_ns

    @property
    def truncated(self) -> bool:
        """Whether the buffer was too small, so that the end of the payload is lost."""
        return self._truncated

    @property
    def destination(self) -> str | None:
        """The address that it was sent to: a group, or an address of this host."""
        return self._origin[5]

    @property
    def traffic_class(self) -> int | None:
        """Its traffic class (IPv4: the TOS) on arrival, DSCP * 4 + ECN, 0 to 255; only with `traffic_class=True`."""
        return self._origin[6]

    def _parts(self) -> tuple[Any, ...]:
        return self._data, *self._origin[:5], self._timestamp_ns, self._truncated, *self._origin[5:]

    def __eq__(self, other: object) -> bool:
        return self._parts() == other._parts() if isinstance(other, Datagram | PythonDatagram) else NotImplemented

    def __hash__(self) -> int:
        return hash(self._parts())

    def __repr__(self) -> str:
        parts = zip(self.__match_args__, self._parts(), strict=True)
        return f"Datagram({', '.join(f'{name}={part!r}' for name, part in parts)})"

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._parts()


PythonDatagram = Datagram
for _name in ("data", "sender"):
    # These getters are no Python functions, so that no signal handler comes between a receive and the pair that
    # `recvfrom` returns.
    _described = property(attrgetter(f"_{_name}"), doc=getattr(PythonDatagram, _name).__doc__)
    setattr(PythonDatagram, _name, _described)


def arrived(data: bytes, origin: Origin, timestamp_ns: int | None, truncated: bool, /) -> Datagram:
    """Return a Datagram of its parts, the quickest way."""
    datagram = object.__new__(PythonDatagram)
    datagram._data = data
    datagram._sender = origin[0]
    datagram._origin = origin
    datagram._timestamp_ns = timestamp_ns
    datagram._truncated = truncated
    return datagram


if not TYPE_CHECKING and extension.Datagram is not None:
    # The same with less in memory, made and freed faster.
    Datagram = extension.Datagram
    for name in ("__match_args__", "__eq__", "__hash__", "__repr__", "__reduce__"):
        setattr(Datagram, name, vars(PythonDatagram)[name])
    arrived = extension.arrived


def cut(datagram: Datagram, size: int) -> Datagram:
    """Return the datagram with its first `size` bytes only."""
    origin = (
        datagram.sender,
        datagram.group,
        datagram.interface_index,
        datagram.interface_name,
        datagram.hop_limit,
        datagram.destination,
        datagram.traffic_class,
    )
    return arrived(datagram.data[:size], origin, datagram.timestamp_ns, True)


class ReceiveStats(NamedTuple):
    """What a receiver received and lost since it was opened."""

    datagrams: int
    """Datagrams received."""
    bytes: int
    """Bytes of payload received."""
    truncated: int
    """Datagrams whose end was lost because the buffer given to `receive` was too small."""
    kernel_drops: int | None
    """Datagrams that the kernel dropped because the receive buffer was full; None if the OS does not report it.

    Linux counts a coalesced run that it drops as one: with `gro=False` the number is exact, else a lower bound.
    """
    filtered: int
    """Datagrams that reached a socket and were dropped because of their destination."""


class Arrival(NamedTuple):
    """The facts in the ancillary data of one datagram."""

    destination: bytes | None = None
    """4 or 16 bytes."""
    interface_index: int | None = None
    hop_limit: int | None = None
    timestamp_ns: int | None = None
    traffic_class: int | None = None
    segment_size: int = 0
    """Bytes of each coalesced datagram but the last, which may be shorter; 0: it is one datagram."""


# struct in_pktinfo differs between Unix and Windows; in6_pktinfo is the same everywhere (RFC 3542, 6.1).
_PKTINFO = Struct("=I4x4s")
_PKTINFO_WINDOWS = Struct("=4sI")
_PKTINFO6 = Struct("=16sI")
_SOCKADDR_DL = Struct("=2xH")
_INT = Struct("=i")
_TIMESPEC = Struct("=qq")
_TIMESPEC_OF_32_BITS = Struct("=ii")
# tv_usec is an int on macOS and a long on FreeBSD; both have their value in the first four bytes.
_TIMEVAL = Struct("=qi")


def decode_arrival(messages: Iterable[tuple[int, int, bytes]], fields: Mapping[tuple[int, int], str]) -> Arrival:
    """Decode control messages (level, type, data) by the platform's table.

    Unknown messages, and those that the kernel had to cut, are ignored.
    """
    destination: bytes | None = None
    interface_index = hop_limit = timestamp_ns = traffic_class = None
    segment_size = 0
    for level, kind, data in messages:
        field = fields.get((level, kind))
        size = len(data)
        if field == "pktinfo" and size >= _PKTINFO.size:
            interface_index, destination = _PKTINFO.unpack_from(data)
        elif field == "pktinfo6" and size >= _PKTINFO6.size:
            destination, interface_index = _PKTINFO6.unpack_from(data)
        elif field == "hop_limit" and size:
            hop_limit = _number(data)
        elif field == "traffic_class" and size:
            traffic_class = _number(data) & 0xFF
        elif field == "timespec" and size >= _TIMESPEC_OF_32_BITS.size:
            seconds, nanoseconds = (_TIMESPEC if size >= _TIMESPEC.size else _TIMESPEC_OF_32_BITS).unpack_from(data)
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
    return Arrival(destination, interface_index, hop_limit, timestamp_ns, traffic_class, segment_size)


def _number(data: bytes) -> int:
    """Return an int, or a byte where there are no more."""
    number: int = _INT.unpack_from(data)[0] if len(data) >= _INT.size else data[0]
    return number
