"""Recording: the datagrams of a capture file, in its order, from any time on. Opens the file."""

from __future__ import annotations

import math
import os
import struct
import threading
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from io import FileIO
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.datagram_buffer import DatagramOrigin
from multicast_expert.core.endpoints import Endpoint, parse_endpoints
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.wire import pcapng
from multicast_expert.wire.capture_file import CaptureFile
from multicast_expert.wire.captured import CapturedDatagram, Fragments, datagram_in

Made = TypeVar("Made")

_BILLION = 1_000_000_000
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_EVER = 1e10
"""Seconds: more than the times of a file, 63 bits of nanoseconds, lie apart."""


class _OwnPlace(FileIO):
    """Reads at a place that the child of a fork does not share, except from a pipe."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._place = 0
        # By name: Windows has none.
        self._read_at: Any = getattr(os, "pread", None) if self.seekable() else None

    def read(self, size: int | None = -1, /) -> Any:
        if self._read_at is None or size is None:
            return super().read(size)
        data = self._read_at(self.fileno(), size, self._place)
        self._place += len(data)
        return data

    def seek(self, offset: int, whence: int = 0, /) -> int:
        self._place = super().seek(offset, whence)
        return self._place


class Recording:
    """The datagrams of a capture file: one that `mcast record` wrote, or pcapng or pcap of another program.

    path: the file. It is read as it is iterated, and takes little memory however long it is.
    endpoints: only datagrams to these, as text or Endpoint, ranges included; the port and the source may be left out.
        None: all datagrams of UDP, unicast included.

    An iteration yields Datagrams and goes on where the last one ended; `seek` goes elsewhere. Frames of Ethernet (with
    VLANs), Linux cooked captures and raw IP are understood, and fragments are joined. What the file does not hold is
    None, as `interface_index` always is. Raises OSError, and MulticastExpertError for what is no capture file; where a
    file is damaged, it raises after all that comes before. A file that ends within a packet is whole but for that.
    """

    def __init__(self, path: str | PathLike[str], endpoints: Iterable[str | Endpoint] | str | None = None) -> None:
        self.path: Path = Path(path)
        """The file."""
        self._wanted = None if endpoints is None else list(_wanted(endpoints))
        self._file = _OwnPlace(self.path)
        try:
            self._packets = CaptureFile(self._file)
        except BaseException as error:
            self._file.close()
            if isinstance(error, MulticastExpertError):
                raise MulticastExpertError(f"{self.path}: {error}") from None
            raise
        self._size = os.fstat(self._file.fileno()).st_size
        self._fragments = Fragments()
        self._lock = threading.RLock()
        self._start_ns: int | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __iter__(self) -> Iterator[Datagram]:
        return self._read(as_datagram)

    def entries(self) -> Iterator[CapturedDatagram]:
        """Yield the datagrams as tuples that have the port, too.

        They come from the same place in the file as those of `__iter__`.
        """
        return self._read(lambda entry: entry)

    def _read(self, made: Callable[[CapturedDatagram], Made]) -> Iterator[Made]:
        left: list[Made] = []
        while self.take(made, left, 0):
            yield left.pop()

    def take(self, made: Callable[[CapturedDatagram], Made], into: list[Made], at: int) -> bool:
        """Put what is made of the next datagram into a list, at a place; return whether there was one.

        Any thread may call it. After an exception (Ctrl-C) the datagram is in the list, or comes next. No generator
        takes part: one that an exception passes through has ended.
        """
        with self._lock:
            try:
                while (packet := self._packets.read()) is not None:
                    entry = datagram_in(packet, self._fragments)
                    if entry is not None and self._is_wanted(entry):
                        result = (made(entry),)
                        into[at:at] = result
                        self._packets.is_taken = True
                        return True
            except BaseException:
                self._packets.again()
                raise
        return False

    def abandon(self) -> None:
        """In the child of a fork: go on, though another thread of the parent was just reading."""
        self._lock = threading.RLock()
        self._packets.again()

    def _is_wanted(self, entry: CapturedDatagram) -> bool:
        if self._wanted is None:
            return True
        for group, port, source, iface in self._wanted:
            if (
                entry.destination == group
                and port in (None, entry.port)
                and source in (None, entry.source)
                and iface in (None, entry.interface)
            ):
                return True
        return False

    @property
    def start_ns(self) -> int:
        """The time of the first packet in the file, in nanoseconds since 1970; 0 if none has a time."""
        if self._start_ns is None:
            with self.path.open("rb") as file:
                packets = CaptureFile(file)
                while (packet := packets.read()) is not None and packet.time_ns is None:
                    pass
                self._start_ns = 0 if packet is None or packet.time_ns is None else packet.time_ns
        return self._start_ns

    def seek(self, time: float | datetime) -> bool:
        """Let the next iteration begin at a time; return whether there is anything from then on.

        time: seconds since the first packet, or the time of day as a datetime. The first time it reads the file up to
        there, later it remembers. Raises MulticastExpertError for nan.
        """
        with self._lock:
            self._fragments = Fragments()
            return self._packets.seek(self.time_ns(time))

    def time_ns(self, time: float | datetime) -> int:
        """Return nanoseconds since 1970 for what `seek` takes."""
        if isinstance(time, datetime):
            # In whole numbers: a float of today's seconds is 0.2 microseconds off.
            aware = time if time.tzinfo else time.astimezone()
            return (aware - _EPOCH) // timedelta(microseconds=1) * 1000
        if math.isnan(time):
            raise MulticastExpertError("nan is not a number of seconds.")
        return self.start_ns + round(max(-_EVER, min(time, _EVER)) * _BILLION)

    @property
    def read_ns(self) -> int:
        """How many nanoseconds after the first packet the latest one was captured that was read."""
        return max(0, self._packets.latest_ns - self.start_ns)

    @property
    def read_bytes(self) -> int:
        """How many bytes of the file were read."""
        return self._packets.offset

    @property
    def position(self) -> float:
        """How much of the file was read, from 0 to 1."""
        if not self._file.closed:
            self._size = os.fstat(self._file.fileno()).st_size
        return min(1.0, self.read_bytes / (self._size or 1))

    @property
    def is_cut(self) -> bool:
        """Whether the end was read, and the file ends within a packet, as after a crash of its writer."""
        return self._packets.is_cut

    @property
    def dropped(self) -> dict[str | None, int]:
        """By interface, what the kernel had no room for while the file was written, as far as the file was read."""
        return dict(self._packets.dropped)


def _wanted(
    endpoints: Iterable[str | Endpoint] | str,
) -> Iterator[tuple[str, int | None, str | None, str | None]]:
    for each in [endpoints] if isinstance(endpoints, str) else endpoints:
        for group, port, source, iface in parse_endpoints(each) if isinstance(each, str) else [each]:
            yield str(group), port, None if source is None else str(source), iface


def as_datagram(entry: CapturedDatagram) -> Datagram:
    """Return the Datagram that a receiver would have handed out."""
    address = entry.source, entry.source_port
    return Datagram(
        entry.data,
        (*address, 0, 0) if ":" in entry.source else address,
        entry.destination if entry.is_to_group else None,
        None,
        entry.interface,
        entry.hop_limit,
        entry.time_ns,
        entry.truncated,
        entry.destination,
        entry.traffic_class,
    )


def write_recording(path: str | PathLike[str], arrivals: Iterable[tuple[Datagram, int]], *, comment: str = "") -> int:
    """Write datagrams, each with the port that it was sent to, as a recording; return how many.

    It is meant for tests and replaces an existing file; `mcast record` writes faster. A datagram without a time gets
    that of the one before. Raises MulticastExpertError for a datagram without a destination, or with what no packet has
    room for (a time before 1970, say), and OSError.
    """
    numbers: dict[str, int] = {}
    count = time_ns = 0
    with Path(path).open("wb") as file:
        file.write(pcapng.section("multicast_expert", comment))
        for datagram, port in arrivals:
            if datagram.destination is None:
                raise MulticastExpertError("A datagram without a destination cannot be recorded.")
            name = datagram.interface_name or ""
            if name not in numbers:
                numbers[name] = len(numbers)
                file.write(pcapng.interface(name, pcapng.RAW_IP))
            origin = DatagramOrigin(
                datagram.sender, None, None, None, datagram.hop_limit, datagram.destination, datagram.traffic_class
            )
            time_ns = time_ns if datagram.timestamp_ns is None else datagram.timestamp_ns
            try:
                content = pcapng.datagram_packet(pcapng.datagram_head(numbers[name], origin, port), datagram.data)
                if content[0] >> 4 == 4 and len(content) > 0xFFFF:
                    raise ValueError(f"{len(datagram.data):,} bytes are more than a packet of IPv4 has room for")
                block = pcapng.packet(numbers[name], time_ns, content, len(content))
            except (ValueError, OverflowError, struct.error) as error:
                raise MulticastExpertError(f"Datagram {count} cannot be recorded: {error}.") from None
            file.write(block)
            count += 1
    return count
