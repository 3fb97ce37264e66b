"""DatagramBuffer: many datagrams in memory that is allocated once, without an object for each. Pure: touches no OS."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sized
from typing import Any, NamedTuple, Protocol

from multicast_expert import extension
from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, Origin, arrived
from multicast_expert.core.errors import MulticastExpertError

_LENGTH, _SOURCE = 4, 4
_OFFSET, _TIME = 8, 8
_NO_TIME = 0
"""Stands for a time of arrival that is not known, in nanoseconds since 1970."""
_LONGEST_PAUSE = 0.05
_FASTEST = 2 << 30
"""Bytes a second that a receive buffer has to hold during a pause: 16 Gbit/s."""


class DatagramOrigin(NamedTuple):
    """What datagrams that came the same way share. Parts that an OS does not report are None."""

    sender: IPv4Or6Address
    """As `recvfrom` gives it: `(ip, port)`, for IPv6 `(ip, port, flow info, scope id)`."""
    group: str | None
    """The group that it was sent to; None: the destination is the address of a host, or unknown."""
    interface_index: int | None
    interface_name: str | None
    hop_limit: int | None
    """The hops that it had left on arrival (IPv4: the TTL)."""
    destination: str | None
    traffic_class: int | None = None
    """DSCP * 4 + ECN (IPv4: the TOS); only with `traffic_class=True`."""


class Rows(Sized, Protocol):
    """The rows of a buffer, one for each datagram: payloads one after the other, and facts in arrays.

    An interrupt finds each datagram either here or where it was.
    """

    @property
    def capacity(self) -> int:
        """How many there is room for."""

    @property
    def refused(self) -> bool:
        """Whether a datagram found no room since the last `clear`."""

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another, or one was refused."""

    @property
    def origins(self) -> list[Origin]:
        """The origins that `sources` counts."""

    def take(self, backlog: list[Datagram], /) -> None:
        """Move datagrams from the end of a list, as long as there is room."""

    def clear(self) -> None:
        """Forget all rows and origins."""


class PythonRows:
    """Rows without the extension."""

    def __init__(
        self, capacity: int, memory: bytearray, offsets: Any, lengths: Any, timestamps: Any, sources: Any
    ) -> None:
        self.capacity = capacity
        self.refused: bool = False
        self.origins: list[Origin] = []
        self._memory = memory
        self._offsets, self._timestamps = memoryview(offsets).cast("q"), memoryview(timestamps).cast("q")
        self._lengths, self._sources = memoryview(lengths).cast("i"), memoryview(sources).cast("i")
        self._places: dict[Origin, int] = {}
        self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another, or one was refused."""
        return self.refused or self._count >= self.capacity

    def take(self, backlog: list[Datagram], /) -> None:
        """Move datagrams from the end of a list, as long as there is room."""
        while True:
            if extension.FREE_THREADED:
                if not self._take_popped(backlog):
                    return
                continue
            # Not in the head of the loop: where a loop turns, another thread may come.
            if not backlog:
                return
            newest = backlog[-1]
            if not self._copy(newest):
                return
            count = self._count + 1
            # Another thread may have taken it. From here on nothing comes between: an interrupt neither loses nor
            # doubles it.
            if backlog and backlog[-1] is newest:
                self._count = count
                del backlog[-1]

    def _take_popped(self, backlog: list[Datagram]) -> bool:
        try:
            newest = backlog.pop()
        except IndexError:
            return False
        if self._copy(newest):
            self._count += 1
            return True
        backlog.append(newest)
        return False

    def _copy(self, datagram: Datagram) -> bool:
        """Write the next row without counting it; return False if there is no room."""
        row, size = self._count, len(datagram.data)
        offset = self._offsets[row - 1] + self._lengths[row - 1] if row else 0
        if row >= self.capacity or size > len(self._memory) - offset:
            self.refused = True
            return False
        origin = datagram._origin
        place = self._places.get(origin)
        if place is None:
            place = len(self.origins)
            self.origins.append(origin)
            self._places[origin] = place
        self._memory[offset : offset + size] = datagram.data
        self._offsets[row], self._lengths[row], self._sources[row] = offset, size, place
        self._timestamps[row] = _NO_TIME if datagram.timestamp_ns is None else datagram.timestamp_ns
        return True

    def clear(self) -> None:
        """Forget all rows and origins."""
        self._count = 0
        self.refused = False
        self._places.clear()
        self.origins.clear()


def _integers(array: bytearray, code: str) -> memoryview:
    view: Any = memoryview(array).toreadonly()
    integers: memoryview = view.cast(code)
    return integers


def gathering_seconds(receive_buffers: Iterable[int]) -> float:
    """Return how long datagrams may gather in receive buffers of so many bytes: taken together, they cost less."""
    return min([_LONGEST_PAUSE, *(each / _FASTEST for each in receive_buffers)])


class DatagramBuffer:
    """Room for datagrams that `receive_into` fills and `clear` empties; both cost the same however many there are.

    capacity: how many datagrams.
    memory: bytes for all payloads together, at least 65,535.

    The views are read-only, support the buffer protocol (`numpy.asarray` copies nothing), and keep the memory alive.
    They show what the buffer holds: after `clear`, the next `receive_into` overwrites it. Let one thread at a time use
    a buffer: while a receive into it is under way, `clear` and another receive may raise BufferError.
    Raises MulticastExpertError for a capacity or memory that is too small.
    """

    def __init__(self, capacity: int, memory: int) -> None:
        if not isinstance(capacity, int) or capacity < 1:
            raise MulticastExpertError(f"capacity {capacity!r} is not a number of datagrams, 1 or more.")
        if not isinstance(memory, int) or memory < MAX_DATAGRAM:
            raise MulticastExpertError(
                f"memory {memory!r} is not a number of bytes, {MAX_DATAGRAM} or more: a datagram may be so long."
            )
        arrays = [bytearray(capacity * size) for size in (_OFFSET, _LENGTH, _TIME, _SOURCE)]
        room = bytearray(memory)
        make: Any = extension.Rows or PythonRows
        self._rows: Rows = make(capacity, room, *arrays)
        self._memory = memoryview(room).toreadonly()
        self._offsets, self._lengths, self._times, self._sources = map(_integers, arrays, "qiqi")

    def __len__(self) -> int:
        """Return how many datagrams it holds."""
        return len(self._rows)

    @property
    def capacity(self) -> int:
        """How many datagrams there is room for."""
        return self._rows.capacity

    @property
    def is_full(self) -> bool:
        """Whether it takes no further datagram before `clear`; what found no room is received next."""
        return self._rows.is_full

    @property
    def data(self) -> memoryview:
        """All payloads, one after the other: bytes (format `B`)."""
        count = len(self._rows)
        return self._memory[: self._offsets[count - 1] + self._lengths[count - 1] if count else 0]

    @property
    def offsets(self) -> memoryview:
        """Where in `data` each payload begins: int64 (format `q`)."""
        return self._offsets[: len(self._rows)]

    @property
    def lengths(self) -> memoryview:
        """How many bytes each payload has: int32 (format `i`)."""
        return self._lengths[: len(self._rows)]

    @property
    def timestamps_ns(self) -> memoryview:
        """When the kernel received each, in nanoseconds since 1970; 0 without `timestamps=True`: int64 (format `q`)."""
        return self._times[: len(self._rows)]

    @property
    def sources(self) -> memoryview:
        """Which of `origins` each came from: int32 (format `i`)."""
        return self._sources[: len(self._rows)]

    @property
    def origins(self) -> list[DatagramOrigin]:
        """Who sent the datagrams, to where, and over which interface; each origin once, a new list."""
        return [DatagramOrigin._make(each) for each in list(self._rows.origins)]

    def rows(self, size: int) -> memoryview:
        """Return all payloads as a table of bytes, `len(buffer)` rows of `size`.

        Raises MulticastExpertError if the buffer is empty or a payload has another size.
        """
        lengths = self.lengths
        if not len(lengths) or size < 1:
            raise MulticastExpertError(f"There is no payload of {size} bytes.")
        if lengths[0] != size or lengths.tobytes() != array("i", [size]).tobytes() * len(lengths):
            odd = next(row for row, length in enumerate(lengths) if length != size)
            raise MulticastExpertError(f"Payload {odd} has {lengths[odd]} bytes, not {size}.")
        return self.data.cast("B", (len(lengths), size))

    def clear(self) -> None:
        """Forget all datagrams; views of them show whatever comes next."""
        self._rows.clear()

    def __getitem__(self, index: int) -> Datagram:
        """Return a datagram as `receive` does, with a copy of its payload. Raises IndexError."""
        count = len(self._rows)
        row = index + count if index < 0 else index
        if not 0 <= row < count:
            raise IndexError(f"There is no datagram {index} among {count}.")
        start = self._offsets[row]
        time = self._times[row]
        return arrived(
            bytes(self._memory[start : start + self._lengths[row]]),
            self._rows.origins[self._sources[row]],
            None if time == _NO_TIME else time,
            False,
        )

    def __iter__(self) -> Iterator[Datagram]:
        for row in range(len(self._rows)):
            yield self[row]

    def __repr__(self) -> str:
        used, room = len(self.data), len(self._memory)
        return f"<DatagramBuffer {len(self)} of {self.capacity} datagrams, {used} of {room} bytes>"
