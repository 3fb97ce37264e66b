"""The socket that a fake kernel hands out: the shape of socket.socket as far as the library uses it.

It decides nothing: each call is recorded, may be made to fail, and goes to the kernel. The descriptor is a real one (an
end of a socket pair), readable exactly while something waits to be received and always writable, so that selectors and
event loops can wait on it. Nothing else here touches the OS.
"""

from __future__ import annotations

import socket
import warnings
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address
from typing import TYPE_CHECKING, NamedTuple, Self

from .network import Address, FakeInterface, Packet

if TYPE_CHECKING:
    from .kernel import FakeKernel


class Arrival(NamedTuple):
    """A datagram in a socket's queue, and how it came."""

    packet: Packet
    interface: FakeInterface
    timestamp_ns: int

    @property
    def microseconds(self) -> int:
        """The tv_usec of the time of arrival."""
        return self.timestamp_ns % 10**9 // 1000


@dataclass
class Membership:
    """One socket's membership of one group on one interface (RFC 3678): everyone except, or nobody but, the sources."""

    excluding: bool
    sources: set[Address] = field(default_factory=set)

    def accepts(self, source: Address) -> bool:
        """Whether the filter lets this source through."""
        return (source in self.sources) != self.excluding


ANY: dict[int, Address] = {4: IPv4Address(0), 6: IPv6Address(0)}


class FakeSocket:
    """State of one UDP socket; the kernel holds it weakly, so a forgotten close warns as it does in socket.socket."""

    def __init__(self, kernel: FakeKernel, version: int) -> None:
        self.kernel = kernel
        self.version = version
        self.address = ANY[version]
        self.port = 0
        self.scope = 0
        self.options: dict[str, int] = {}
        self.memberships: dict[tuple[Address, int], Membership] = {}
        self.has_multicast_options = False
        self.blocking = True
        self.dropped = 0
        self._queue: deque[Arrival | OSError] = deque()
        self._descriptor, self._signal = socket.socketpair()
        self._closed = False

    # what the engine calls

    def setsockopt(self, level: int, number: int, value: bytes) -> None:
        """Set an option from the very bytes that the kernel would read."""
        self._enter("setsockopt", level, number, value)
        if not isinstance(value, bytes):
            raise TypeError("a fake kernel is told every option in bytes")
        self.kernel.set_option(self, level, number, value)

    def getsockopt(self, level: int, number: int, length: int) -> bytes:
        """Read an option back, at most ``length`` bytes."""
        self._enter("getsockopt", level, number, length)
        return self.kernel.get_option(self, level, number, length)

    def bind(self, address: tuple) -> None:
        """Bind by the kernel's rules."""
        self._enter("bind", address)
        self.kernel.bind(self, *self.kernel.endpoint(self, address))

    def getsockname(self) -> tuple:
        """The local address: a pair, or the four values of IPv6."""
        self._enter("getsockname")
        self.kernel.check_name_known(self)
        return (str(self.address), self.port) if self.version == 4 else (str(self.address), self.port, 0, self.scope)

    def sendto(self, data: bytes, address: tuple) -> int:
        """Send one datagram."""
        self._enter("sendto", data, address)
        return self.kernel.send(self, bytes(data), *self.kernel.endpoint(self, address))

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, tuple]:
        """``(data, control messages, flags, sender)`` of the next datagram."""
        self._enter("recvmsg", bufsize, ancbufsize, flags)
        return self.kernel.read(self, bufsize, ancbufsize, flags)

    def recvfrom(self, bufsize: int, flags: int = 0) -> tuple[bytes, tuple]:
        """``(data, sender)`` of the next datagram."""
        self._enter("recvfrom", bufsize, flags)
        data, _, _, sender = self.kernel.read(self, bufsize, 0, flags)
        return data, sender

    def setblocking(self, flag: bool) -> None:
        """Only a socket that does not block can be read: nothing else could ever end the wait."""
        self._enter("setblocking", flag)
        self.blocking = flag

    def fileno(self) -> int:
        """A real descriptor, or -1 after close."""
        return self._descriptor.fileno()

    def close(self) -> None:
        """Leave all groups, forget what is queued. A second close does nothing."""
        if not self._closed:
            self.kernel.record(self.fileno(), "close")
        self._release()

    def detach(self) -> int:
        """Give the descriptor away; unlike a real one this socket is then gone for the kernel too."""
        self._enter("detach")
        descriptor = self._descriptor.detach()
        self._release()
        return descriptor

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        if not getattr(self, "_closed", True):
            try:
                warnings.warn(f"unclosed {self!r}", ResourceWarning, stacklevel=2, source=self)
            finally:
                self._release()

    def __repr__(self) -> str:
        return f"<{type(self.kernel).__name__} socket fd={self.fileno()} {self.address} port {self.port}>"

    # what the kernel does with it

    def enqueue(self, item: Arrival | OSError) -> bool:
        """Queue a datagram, or an error for the next receive; refused (and counted) when the buffer is full."""
        if isinstance(item, Arrival):
            waiting = sum(len(one.packet.data) for one in self._queue if isinstance(one, Arrival))
            if waiting + len(item.packet.data) > self.option("receive_buffer"):
                self.dropped += 1
                return False
        if not self._queue:
            self._signal.send(b"!")
        self._queue.append(item)
        return True

    def take(self, peek: bool) -> Arrival | OSError | None:
        """The next item, left in its place when only peeked at."""
        if not self._queue:
            return None
        if peek:
            return self._queue[0]
        item = self._queue.popleft()
        if not self._queue:
            self._descriptor.recv(1)
        return item

    def option(self, name: str) -> int:
        """The value of an integer option, or the kernel's default."""
        return self.options.get(name, self.kernel.DEFAULTS.get(name, 0))

    def reusable(self, names: Iterable[str] = ("reuse_address", "reuse_port")) -> bool:
        """Whether any of these sharing options is on."""
        return any(self.option(name) for name in names)

    def _enter(self, call: str, *arguments: object) -> None:
        self.kernel.record(self.fileno(), call, *arguments)
        if self._closed:
            raise self.kernel.error("EBADF", "the socket is closed")
        self.kernel.check_injected(call, arguments)

    def _release(self) -> None:
        if self._closed:
            return
        self._closed = True
        self.kernel.forget(self)
        self.memberships.clear()
        self._queue.clear()
        self._descriptor.close()
        self._signal.close()
