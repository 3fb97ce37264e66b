"""Read and write the stamp of `mcast send --stamp`. Pure: touches no OS.

A stamp is the first 40 bytes of a datagram, all integers in network byte order:

    offset  bytes
         0      8  8b 6d 63 61 73 74 0d 0a: no text in UTF-8 begins like this
         8      1  version of this format: 1
         9      1  0; 1 in an end mark
        10      2  length of the datagram, this stamp included
        12      2  length of the payload behind the stamp; the rest of the datagram is padding
        14      2  0
        16      8  stream: a random number for each run of a sender
        24      8  number of the datagram in its stream, from 1
        32      8  time of sending, in nanoseconds since 1970 by the sender's clock

An end mark follows the last datagram of a stream, several times. Its number is that of the last datagram, and so the
total; its payload is 8 bytes with the time of sending of the first one. So receivers know what they lost at both ends.
"""

from __future__ import annotations

from struct import Struct
from typing import NamedTuple

MAGIC = b"\x8bmcast\r\n"
VERSION = 1
LAYOUT = Struct("!8sBBHHxxQQQ")
_PAYLOAD = Struct("!H")
_BEGINNING = Struct("!Q")
SIZE = LAYOUT.size
"""Length of a stamp in bytes."""


class Stamp(NamedTuple):
    """The fields that a sender writes at the head of a datagram."""

    stream: int
    """0 to 2**64 - 1, the same for all datagrams of one run of the sender."""
    number: int
    """From 1, one more for each datagram."""
    sent_ns: int
    """Time of sending, in nanoseconds since 1970 by the sender's clock."""
    is_end: bool = False
    """Whether it is an end mark, which is no datagram of the stream."""

    @property
    def stream_text(self) -> str:
        """The stream in 16 hexadecimal digits."""
        return f"{self.stream:016x}"


def stamped(stamp: Stamp, payload: bytes, size: int = 0) -> bytes:
    """Return the datagram: stamp, payload, and zeros up to `size` bytes; struct.error above 65535 bytes."""
    length = max(size, SIZE + len(payload))
    stream, number, sent_ns, is_end = stamp
    head = LAYOUT.pack(MAGIC, VERSION, is_end, length, len(payload), stream, number, sent_ns)
    return (head + payload).ljust(length, b"\0")


def end_mark(stamp: Stamp, began_ns: int) -> bytes:
    """Return the end mark of a stream; the stamp has the number of the last datagram and the time of now."""
    return stamped(stamp._replace(is_end=True), _BEGINNING.pack(began_ns))


def read_head(datagram: bytes) -> Stamp | None:
    """Return the stamp of a datagram; None without a stamp or if the datagram was cut."""
    if len(datagram) < SIZE:
        return None
    magic, version, flags, length, payload, stream, number, sent_ns = LAYOUT.unpack_from(datagram)
    if magic != MAGIC or version != VERSION or length != len(datagram) or SIZE + payload > length:
        return None
    return Stamp(stream, number, sent_ns, bool(flags & 1))


def read_stamp(datagram: bytes) -> tuple[Stamp, bytes] | None:
    """Return the stamp of a datagram and the payload behind it; None without a stamp or if the datagram was cut."""
    stamp = read_head(datagram)
    return None if stamp is None else (stamp, datagram[SIZE : SIZE + _PAYLOAD.unpack_from(datagram, 12)[0]])


def read_beginning(datagram: bytes) -> int | None:
    """Return when the first datagram of the stream was sent, from the end mark; None where that makes no sense."""
    return _BEGINNING.unpack_from(datagram, SIZE)[0] if len(datagram) >= SIZE + _BEGINNING.size else None
