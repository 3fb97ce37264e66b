"""Batch receive and send, in C; absent where it was not built. Use it through `multicast_expert.engine`.

`expect_any`, `sweep` and `send` exist on Linux only; on Windows nothing but `Datagram`, `arrived`, `Handout`, `Rows`
and `lay_datagrams` exists.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Self

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import Origin
from multicast_expert.platforms import Option

class Datagram:
    """As `multicast_expert.core.datagram.PythonDatagram`."""

    _origin: Origin

def arrived(data: bytes, origin: Origin, timestamp_ns: int | None, truncated: bool, /) -> Datagram: ...
def lay_datagrams(
    room: memoryview,
    at: int,
    columns: tuple[memoryview, memoryview, memoryview, memoryview, memoryview],
    heads: list[bytes],
    first: int,
    end: int,
    now: int,
    /,
) -> tuple[int, int]: ...

class Handout:
    """An async iterator: takes from the backlog while nothing is promised, else returns what `next` returns."""

    def __new__(
        cls, backlog: list[Datagram], promised: Sequence[None], next: Callable[[], Awaitable[Datagram]], /
    ) -> Self: ...
    def __aiter__(self) -> Self: ...
    def __anext__(self) -> Awaitable[Datagram]: ...

class Rows:
    """As `multicast_expert.core.datagram_buffer.PythonRows`."""

    capacity: int
    refused: bool
    origins: list[Origin]
    def __new__(
        cls,
        capacity: int,
        memory: bytearray,
        offsets: bytearray,
        lengths: bytearray,
        timestamps: bytearray,
        sources: bytearray,
        /,
    ) -> Self: ...
    def __len__(self) -> int: ...
    def take(self, backlog: list[Datagram], /) -> None: ...
    def clear(self) -> None: ...

class Intake:
    """As `multicast_expert.engine.intake.NativeIntake`; a handle is a descriptor."""

    datagrams: int
    payload_bytes: int
    truncated: int
    unread: bool
    def __new__(
        cls,
        fields: Mapping[tuple[int, int], str],
        msg_trunc: int,
        learn: Callable[[bytes | None, int | None], tuple[str | None, str | None, str | None]],
        /,
    ) -> Intake: ...
    def batch(self, handle: int, limit: int, datagrams: list[Datagram] | Rows, /) -> bool: ...
    def one(self, handle: int, waiting: list[Datagram], /) -> bool: ...
    def __getitem__(self, key: tuple[int, list[Datagram]], /) -> Datagram | None: ...
    def expect(self, handle: int, waiting: list[Datagram], alarm: int, timeout: float, /) -> bool: ...
    def expect_any(self, epoll: int, waiting: list[Datagram], alarm: int, timeout: float, /) -> bool: ...
    def sweep(self, epoll: int, alarm: int, limit: int, datagrams: list[Datagram] | Rows, /) -> bool: ...
    def forget_places(self) -> None: ...
    def settle(self, timeout: float, /) -> bool: ...
    def abandon(self) -> None: ...

class Shortcut:
    """As `multicast_expert.engine.send.Shortcut`."""

    def __new__(cls, descriptor: int, hop_limit: int, /) -> Self: ...
    def set_hop_limit(self, hop_limit: int, /) -> None: ...
    def send(self, data: bytes, address: IPv4Or6Address, hop_limit: int, /) -> bool: ...
    def learn(self, address: IPv4Or6Address, /) -> None: ...
    def prepare(self, address: IPv4Or6Address, /) -> bytes: ...
    def send_prepared(self, data: bytes, destination: bytes, control: bytes, /) -> bool: ...

def set_options(descriptor: int, options: tuple[tuple[str, int, int, bytes] | Option, ...], /) -> bool: ...
def send(
    descriptor: int,
    payloads: tuple[bytes, ...],
    first: int,
    stop: int,
    address: IPv4Or6Address,
    datagrams: int,
    size: int,
    total: int,
    option: tuple[int, int],
    /,
) -> tuple[int, int, int]: ...
