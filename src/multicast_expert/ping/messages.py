"""The messages of multicast ping, to and from bytes: RFC 6450 (version 2), and ssmping's older dialect. Pure.

A message is one byte for its kind, then options: 16 bits of number, 16 bits of length, value. The older dialect has no
option 0, no sessions, and groups with one byte for their family.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from struct import Struct, pack, unpack
from typing import NamedTuple, TypeAlias

from multicast_expert.core.addresses import IPAddress

Network: TypeAlias = IPv4Network | IPv6Network

PORT, OLD_PORT = 9903, 4321
"""UDP ports: that of RFC 6450, and that of ssmping and omping."""
VERSION = 2
MOST_OPTIONS = 80
"""A message with more options is malformed."""

INIT, RESPONSE, REQUEST, REPLY = b"ISQA"
"""Kinds of messages of RFC 6450: Init, Server Response, Echo Request, Echo Reply."""
MEASURE, REPORT = 0xFD, 0xFE
"""Kinds of our own: a request to measure other hosts, and what was measured."""

(
    VERSION_OPTION,
    CLIENT_ID,
    SEQUENCE,
    CLIENT_TIME,
    GROUP,
    REQUESTED,
    INFORMATION,
    REPLY_SIZE,
    PAD,
    TTL,
    PREFIX,
    SESSION,
    SERVER_TIME,
) = range(13)
LIMIT, SETTINGS, PEER, RESULT, HEARD = range(0xFFFA, 0xFFFF)
"""Options of our own: the queries a second that a server answers; how to measure, a host to measure, what was measured
of it; how many queries of the client the server got."""

DEFAULT_GROUPS: dict[tuple[int, bool], str] = {
    (4, True): "232.43.211.234",
    (6, True): "ff3e::4321:1234",
    (4, False): "239.43.211.234",
    (6, False): "ff15::4321:1234",
}
"""By version of IP and whether the group is source-specific."""
SOURCE_SPECIFIC: dict[int, Network] = {4: ip_network("232.0.0.0/8"), 6: ip_network("ff30::/12")}

_HEAD = Struct("!HH")
_FAMILIES = {4: 1, 6: 2}
"""The numbers of IANA for families of addresses."""
_LENGTHS = {1: 4, 2: 16}


class MalformedMessageError(ValueError):
    """Bytes that are no message of multicast ping."""


class Option(NamedTuple):
    """One option of a message."""

    number: int
    value: bytes


@dataclass(frozen=True)
class Message:
    """A message. What an option means is None where it is absent or malformed; of two equal ones the first counts."""

    kind: int
    options: tuple[Option, ...] = ()

    @cached_property
    def _values(self) -> dict[int, bytes]:
        return {option.number: option.value for option in reversed(self.options)}

    def value(self, number: int) -> bytes | None:
        """Return the value of an option."""
        return self._values.get(number)

    @property
    def is_old(self) -> bool:
        """Whether it is of ssmping's dialect."""
        return VERSION_OPTION not in self._values

    @property
    def version(self) -> int | None:
        """The version of the protocol; None for the older dialect."""
        return self._number(VERSION_OPTION, 1)

    @property
    def sequence(self) -> int | None:
        """The number of a query and of its answers."""
        return self._number(SEQUENCE, 4)

    @property
    def ttl(self) -> int | None:
        """The TTL or hop limit that an answer left with."""
        return self._number(TTL, 1)

    @property
    def heard(self) -> int | None:
        """How many queries the server got from the client."""
        return self._number(HEARD, 4)

    @property
    def limit(self) -> int | None:
        """How many queries a second the server answers."""
        return self._number(LIMIT, 4)

    @property
    def group(self) -> IPAddress | None:
        """The group of a session."""
        value = self.value(GROUP) or b""
        size = 1 if self.is_old else 2
        family = int.from_bytes(value[:size], "big")
        return ip_address(value[size:]) if len(value) == size + _LENGTHS.get(family, -9) else None

    @property
    def prefixes(self) -> list[Network]:
        """The ranges of groups that a client asks for or that a server has, malformed ones left out."""
        found = (_read_prefix(option.value) for option in self.options if option.number == PREFIX)
        return [each for each in found if each is not None]

    @property
    def requested(self) -> tuple[int, ...]:
        """The numbers of the options that the client asks the server for."""
        value = self.value(REQUESTED) or b""
        return unpack(f"!{len(value) // 2}H", value[: len(value) // 2 * 2])

    def time_ns(self, number: int) -> int | None:
        """Return the time in an option, CLIENT_TIME or SERVER_TIME, in nanoseconds since 1970."""
        value = self.value(number)
        if value is None or len(value) != 8:
            return None
        seconds, microseconds = unpack("!II", value)
        return int(seconds * 1_000_000_000 + microseconds * 1000)

    def _number(self, number: int, size: int) -> int | None:
        value = self.value(number)
        return int.from_bytes(value, "big") if value is not None and len(value) == size else None


def parse_message(data: bytes) -> Message:
    """Return the message in a datagram. Raises MalformedMessageError, also for kinds that nobody has defined."""
    if not data or data[0] not in (INIT, RESPONSE, REQUEST, REPLY, MEASURE, REPORT):
        raise MalformedMessageError(f"begins with {data[:1].hex() or 'nothing'}, which is no kind of message")
    options: list[Option] = []
    at, end = 1, len(data)
    while at < end:
        if len(options) == MOST_OPTIONS:
            raise MalformedMessageError(f"has more than {MOST_OPTIONS} options")
        if at + 4 > end:
            raise MalformedMessageError(f"ends in the head of option {len(options) + 1}")
        number, length = _HEAD.unpack_from(data, at)
        at += 4
        if at + length > end:
            raise MalformedMessageError(f"ends in option {number}, which says it has {length} bytes")
        options.append(Option(number, data[at : at + length]))
        at += length
    return Message(data[0], tuple(options))


def build_message(kind: int, options: Iterable[Option]) -> bytes:
    """Return the bytes of a message."""
    parts = [bytes((kind,))]
    for number, value in options:
        parts += (_HEAD.pack(number, len(value)), value)
    return b"".join(parts)


def number_option(number: int, value: int, size: int = 4) -> Option:
    """Return an option that holds a number of so many bytes."""
    return Option(number, value.to_bytes(size, "big"))


def version_option() -> Option:
    """Return the option that says version 2."""
    return number_option(VERSION_OPTION, VERSION, 1)


def time_option(number: int, nanoseconds: int) -> Option:
    """Return a time, CLIENT_TIME or SERVER_TIME, of nanoseconds since 1970."""
    seconds, rest = divmod(nanoseconds, 1_000_000_000)
    return Option(number, pack("!II", seconds & 0xFFFFFFFF, rest // 1000))


def group_option(group: IPAddress, *, is_old: bool = False) -> Option:
    """Return the option that names a group."""
    return Option(GROUP, _FAMILIES[group.version].to_bytes(1 if is_old else 2, "big") + group.packed)


def prefix_option(network: Network) -> Option:
    """Return the option that names a range of groups."""
    length = network.prefixlen
    address = network.network_address.packed[: (length + 7) // 8]
    return Option(PREFIX, pack("!HB", _FAMILIES[network.version], length) + address)


def requested_option(*numbers: int) -> Option:
    """Return the option that asks for others."""
    return Option(REQUESTED, pack(f"!{len(numbers)}H", *numbers))


def _read_prefix(value: bytes) -> Network | None:
    if len(value) < 3:
        return None
    family, length = unpack("!HB", value[:3])
    size = _LENGTHS.get(family, 0)
    if not size or length > size * 8 or len(value) - 3 != (length + 7) // 8:
        return None
    address = ip_address(value[3:].ljust(size, b"\0"))
    return ip_network((address, length), strict=False)
