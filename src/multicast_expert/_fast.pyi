"""Batch receive and send for Linux, in C; absent where it was not built. Use it through `multicast_expert.engine`."""

from collections import deque
from collections.abc import Callable, Mapping

from multicast_expert.addresses import IPv4Or6Address
from multicast_expert.datagram import Datagram
from multicast_expert.platforms import Option

class Intake:
    """As `multicast_expert.engine.intake.Intake`; a handle is a descriptor."""

    datagrams: int
    payload_bytes: int
    truncated: int
    def __new__(
        cls,
        datagram: type[Datagram],
        fields: Mapping[tuple[int, int], str],
        msg_trunc: int,
        learn: Callable[[bytes | None, int | None], tuple[str | None, str | None]],
        /,
    ) -> Intake: ...
    def batch(self, handle: int, limit: int, datagrams: list[Datagram], /) -> bool: ...
    def datagram(self, handle: int, bufsize: int, flags: int, rest: deque[Datagram], /) -> Datagram | None: ...
    def payload(
        self, handle: int, bufsize: int, flags: int, rest: deque[Datagram], /
    ) -> tuple[bytes, IPv4Or6Address] | None: ...
    def expect(
        self, handle: int, bufsize: int, flags: int, rest: deque[Datagram], pair: bool, alarm: int, timeout: float, /
    ) -> Datagram | tuple[bytes, IPv4Or6Address] | None: ...
    def forget_places(self) -> None: ...

def set_options(
    descriptor: int, options: tuple[tuple[str, int, int, bytes] | Option, ...], first: int, /
) -> tuple[int, int]: ...
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
