"""The frames that bridges send each other: many datagrams of one group and port, to and from bytes. Pure.

A frame begins with a header of 48 bytes, all numbers little-endian: mark and version, how many hops, origins and
datagrams follow, the id of the sender, the number of the first datagram among all that the sender ever sent to this
group and port, the port and the group. Then come the hops (8 bytes each: the bridges whose networks have these
datagrams already), the origins (24 bytes each: sender, hop limit, priority mark), and, as a DatagramBuffer holds them,
the lengths, the places among the origins (int32 each) and the times (int64) of all datagrams; last the payloads, one
after the other. So neither side handles a datagram by itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from ipaddress import ip_address
from itertools import accumulate, pairwise
from struct import Struct
from typing import NamedTuple, TypeAlias

from multicast_expert.core.addresses import address_text, is_multicast

MARK = b"mcB\x01"
"""Begins every frame; the last byte is the version."""
ID_BYTES = 8
"""Of the id of a bridge: random, and another one each time that it starts."""
MOST_DATAGRAMS, MOST_ORIGINS, MOST_HOPS = 4096, 1024, 64
"""In one frame, at most."""
LONGEST_PAYLOAD = 65527
"""Bytes of a UDP datagram over IPv6 (over IPv4: 65,507)."""
LARGEST_FRAME = 1 << 17
"""Bytes of a frame that is read at all; those that a bridge makes are shorter."""
_MOST_DSCP, _NO_DSCP = 63, 255
"""The greatest priority mark (RFC 2474), and what stands for one that the taking side does not know."""

_HEADER = Struct("<4sBxHI8sQH2x16s")
_ORIGIN = Struct("<BBBxHxx16s")
_LENGTH, _SOURCE, _TIME = 4, 4, 8
_IS_LITTLE = array("H", [1]).tobytes()[0] == 1


Buffer: TypeAlias = bytes | bytearray | memoryview


class MalformedFrameError(ValueError):
    """What came is no frame."""


class Origin(NamedTuple):
    """Where datagrams came from, and how they travel."""

    address: str
    """The sender's address; unspecified (0.0.0.0 or ::) if it is a program without a socket."""
    port: int
    hop_limit: int
    """How many hops are left to it."""
    dscp: int | None = None
    """Their priority mark; None: not known."""


class Frame(NamedTuple):
    """Datagrams to one group and port. The arrays have an item for each: int32, int32 and int64, little-endian."""

    sender: bytes
    """The id of the bridge or program that took them in."""
    first: int
    """The number of the first one; the others follow it."""
    group: str
    port: int
    hops: Sequence[bytes]
    """The ids of the bridges whose networks have the datagrams already."""
    origins: Sequence[Origin]
    lengths: Buffer
    sources: Buffer
    times: Buffer
    data: Buffer

    @property
    def size(self) -> int:
        """How many datagrams it holds."""
        return len(memoryview(self.lengths).cast("B")) // _LENGTH

    def payloads(self) -> list[bytes]:
        """Return the payload of each datagram."""
        data, lengths = bytes(self.data), integers(self.lengths, "i")
        size = lengths[0] if lengths else 0
        if size and len(data) == size * len(lengths) and lengths.count(size) == len(lengths):
            return [data[start : start + size] for start in range(0, len(data), size)]
        return [data[start:end] for start, end in pairwise(accumulate(lengths, initial=0))]


def integers(data: Buffer, code: str) -> array[int]:
    """Return little-endian integers of this type code of `array`."""
    numbers: array[int] = array(code)
    numbers.frombytes(memoryview(data).cast("B"))
    if not _IS_LITTLE:
        numbers.byteswap()
    return numbers


def packed(numbers: memoryview, code: str) -> Buffer:
    """Return the bytes of integers of this machine as little-endian ones."""
    if _IS_LITTLE:
        return numbers.tobytes()
    swapped = array(code, numbers.tobytes())
    swapped.byteswap()
    return swapped.tobytes()


def build_frame(frame: Frame) -> bytes:
    """Return the bytes of a frame."""
    group = ip_address(frame.group).packed
    counts = len(frame.hops), len(frame.origins), frame.size
    return b"".join(
        (
            _HEADER.pack(MARK, *counts, frame.sender, frame.first, frame.port, group),
            *frame.hops,
            *map(_pack_origin, frame.origins),
            frame.lengths,
            frame.sources,
            frame.times,
            frame.data,
        )
    )


def _pack_origin(origin: Origin) -> bytes:
    address = ip_address(origin.address).packed
    dscp = _NO_DSCP if origin.dscp is None else origin.dscp
    return _ORIGIN.pack(4 if len(address) == 4 else 6, origin.hop_limit, dscp, origin.port, address)


def parse_frame(data: bytes) -> Frame:
    """Return the frame; its parts are views of the bytes. Raises MalformedFrameError for anything else."""
    if not _HEADER.size <= len(data) <= LARGEST_FRAME:
        raise MalformedFrameError(f"{len(data)} bytes are no frame")
    mark, hop_count, origin_count, count, sender, first, port, group = _HEADER.unpack_from(data)
    if mark != MARK:
        raise MalformedFrameError("no frame of this version")
    if not (port and count) or count > MOST_DATAGRAMS or origin_count > MOST_ORIGINS or hop_count > MOST_HOPS:
        raise MalformedFrameError("impossible counts")
    packed_group = group if group[0] == 0xFF else group[:4]
    if not is_multicast(packed_group) or (len(packed_group) == 4 and any(group[4:])):
        raise MalformedFrameError("no group")
    hops_end = _HEADER.size + ID_BYTES * hop_count
    origins_end = hops_end + _ORIGIN.size * origin_count
    lengths_end = origins_end + _LENGTH * count
    sources_end = lengths_end + _SOURCE * count
    times_end = sources_end + _TIME * count
    view = memoryview(data)
    if times_end > len(data):
        raise MalformedFrameError("cut short")
    lengths, sources = view[origins_end:lengths_end], view[lengths_end:sources_end]
    _check_arrays(integers(lengths, "i"), integers(sources, "i"), len(data) - times_end, origin_count)
    return Frame(
        sender,
        first,
        address_text(packed_group),
        port,
        [data[start : start + ID_BYTES] for start in range(_HEADER.size, hops_end, ID_BYTES)],
        [_parse_origin(each, len(packed_group)) for each in _ORIGIN.iter_unpack(view[hops_end:origins_end])],
        lengths,
        sources,
        view[sources_end:times_end],
        view[times_end:],
    )


def _check_arrays(lengths: array[int], sources: array[int], size: int, origin_count: int) -> None:
    if min(lengths) < 0 or max(lengths) > LONGEST_PAYLOAD or sum(lengths) != size:
        raise MalformedFrameError("lengths that do not fit the payloads")
    if min(sources) < 0 or max(sources) >= origin_count:
        raise MalformedFrameError("a datagram without origin")


def _parse_origin(parts: tuple[int, int, int, int, bytes], size: int) -> Origin:
    version, hop_limit, dscp, port, address = parts
    if version != (4 if size == 4 else 6) or any(address[size:]) or is_multicast(address[:size]):
        raise MalformedFrameError("an origin that is no host of this version of IP")
    return Origin(address_text(address[:size]), port, hop_limit, dscp if dscp <= _MOST_DSCP else None)
