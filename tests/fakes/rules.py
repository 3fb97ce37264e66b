"""What one OS says for itself: its tables, and the rules in which kernels differ. Pure.

Errors are raised by BSD name and get that OS's own number.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar, NamedTuple

from .network import Address, FakeInterface, Packet
from .options import Option, Table
from .record import CallRecord
from .sockets import Arrival, FakeSocket

MSG_PEEK = 0x2  # the same number on all three


class Control(NamedTuple):
    """One kind of control message: what switches it on, how it is labelled, and its bytes."""

    version: int
    option: str
    level: int
    type: int
    encode: Callable[[Arrival], bytes]


class Rules(CallRecord):
    """Tables and hooks; a kernel must have the abstract ones, the others refuse nothing."""

    AF_INET6: ClassVar[int]
    ERRORS: ClassVar[Mapping[str, int]]
    ERROR_KINDS: ClassVar[Mapping[int, type[OSError]]] = {}  # what Python makes of a number there
    OPTIONS: ClassVar[Table]
    CONTROL: ClassVar[tuple[Control, ...]]
    DEFAULTS: ClassVar[Mapping[str, int]]
    MSG_CTRUNC: ClassVar[int]
    CONTROL_HEADER: ClassVar[int]  # sizeof(cmsghdr) with its padding
    CONTROL_ALIGNMENT: ClassVar[int]
    SOCKET: ClassVar[type[FakeSocket]] = FakeSocket

    def error(self, name: str, why: str) -> OSError:
        """An error by its BSD name, with this OS's number."""
        return self.os_error(self.ERRORS[name], f"{name}: {why}")

    def os_error(self, number: int, text: str) -> OSError:
        """An error by this OS's number."""
        return self.ERROR_KINDS.get(number, OSError)(number, text)

    @abstractmethod
    def wrong_length(self, option: Option, length: int) -> OSError:
        """The error for an option value of a size that is not taken."""

    @abstractmethod
    def check_join(self, sock: FakeSocket, interface: FakeInterface, group: Address) -> None:
        """Refuse a join that this interface or socket cannot have."""

    @abstractmethod
    def check_port_free(self, sock: FakeSocket, address: Address, port: int) -> None:
        """Refuse a bind that other sockets stand against."""

    @abstractmethod
    def loop_back(self, sock: FakeSocket, interface: FakeInterface, packet: Packet) -> None:
        """Give this host its own copy of a group datagram that it sends."""

    @abstractmethod
    def group_takers(
        self, sockets: list[FakeSocket], interface: FakeInterface, packet: Packet, looped: bool
    ) -> list[FakeSocket]:
        """Which of these sockets (of the right port, oldest first) get a group datagram."""

    @abstractmethod
    def cut(self, data: bytes, size: int) -> int:
        """A datagram is longer than the buffer: the flags that say so, or an error."""

    def check_group_bind(self, group: Address) -> None:
        """Refuse to bind a group."""

    def check_send(self, interface: FakeInterface) -> None:
        """Refuse to send out of this interface."""

    def check_group_send(self, sock: FakeSocket, interface: FakeInterface, packet: Packet) -> None:
        """Refuse to send to a group."""
        self.check_send(interface)

    def unicast_sent(self, sock: FakeSocket, taken: int | None) -> None:
        """A unicast datagram went out and this many sockets took it; None: no host has the address."""

    def check_name_known(self, sock: FakeSocket) -> None:
        """Refuse getsockname."""

    def check_readable(self, sock: FakeSocket, flags: int) -> None:
        """Refuse to receive."""
        if flags & ~MSG_PEEK:
            raise self.error("EOPNOTSUPP", f"receive flags {flags:#x}")

    def largest_datagram(self, sock: FakeSocket) -> int:
        """The most bytes that can be sent at once."""
        return 65507 if sock.version == 4 else 65527
