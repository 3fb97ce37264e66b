"""System: the questions that each OS answers in its own way. One file per OS extends it; `kernel` chooses one."""

from __future__ import annotations

import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from errno import EMFILE, ENFILE, ENOBUFS, ENOMEM
from typing import Any, NamedTuple, Protocol

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.core.specifiers import Readings
from multicast_expert.platforms import Platform
from multicast_expert.system.changes import Events, PolledEvents
from multicast_expert.system.listings import JoinedGroup, Member, UdpSocket
from multicast_expert.system.netlink import RouteAnswer

_WSAENOBUFS = 10055


def is_scarcity(error: OSError) -> bool:
    """Return whether descriptors or memory ran out, so that the failed step proves nothing."""
    return error.errno in (EMFILE, ENFILE, ENOBUFS, ENOMEM, _WSAENOBUFS)


class Socket(Protocol):
    """The methods of a socket that the engine uses; Python's own on Unix, a subclass of it on Windows."""

    def fileno(self) -> int: ...
    def setsockopt(self, level: int, number: int, value: bytes, /) -> None: ...
    def getsockopt(self, level: int, number: int, length: int, /) -> bytes: ...
    def bind(self, address: Any, /) -> None: ...
    def getsockname(self) -> Any: ...
    def sendto(self, data: bytes, address: Any, /) -> int: ...
    def recvfrom(self, bufsize: int, flags: int = 0, /) -> tuple[bytes, Any]: ...
    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]: ...
    def close(self) -> None: ...


class Kernel(Protocol):
    """An OS to open sockets on: the running one, or a fake."""

    platform: Platform

    def socket(self, family: int, kind: int) -> Socket:
        """Return a new socket of the family and kind, by the OS's own numbers; it never blocks."""

    def interface_name(self, sock: Socket, index: int) -> str | None:
        """Return the name to show of an interface where the socket is; None where the OS does not tell."""


class Mark(NamedTuple):
    """What the packets of one socket have in common, and no others of this host."""

    number: int
    """Of the packet within this host."""
    label: int = 0
    """The flow label in its IPv6 header, which stays on the wire too; 0: none."""


class Screen(NamedTuple):
    """What a socket shall drop."""

    marks: tuple[Mark, ...] = ()
    """What sockets with these marks sent."""
    port: int = 0
    """The port that they send from."""
    hosts: tuple[bytes, ...] = ()
    """The IPv6 addresses that they send from, 16 bytes each: what left one interface may come in on another one."""
    hosts_only: bool = False
    """Broadcasts and groups too."""


class Marks(Protocol):
    """How a kernel marks what a socket sends, so that a filter keeps it from others. All may raise OSError."""

    def give(self, sock: Socket, version: int) -> None:
        """Let the kernel mark what the socket sends; it must not be bound yet."""

    def read(self, sock: Socket, version: int) -> Mark:
        """Return the mark of a bound socket."""

    def screen(self, sock: Socket, screen: Screen) -> None:
        """Let the socket drop what the screen says, and nothing else."""


class System:
    """The OS that runs this program. Every method may raise OSError, and MulticastExpertError for a failed command."""

    platform: Platform
    marks: Marks | None = None
    """How the kernel marks what a socket sends; None where it does not."""
    routes_are_cheap: bool = True
    """Whether `route_interface` asks the kernel itself; if not, it runs a command."""

    @property
    def interrupts_waits(self) -> bool:
        """Whether Ctrl-C interrupts a thread that waits in select or poll."""
        return self.platform.interrupts_waits

    def socket(self, family: int, kind: int) -> Socket:
        """Return a new socket of the family and kind; it never blocks."""
        made: Any = socket.socket(family, kind)  # without recvmsg on Windows, which makes its own
        made.setblocking(False)
        opened: Socket = made
        return opened

    def release(self) -> str:
        """Return the version of the kernel, as the OS writes it."""
        import platform  # noqa: PLC0415 - only a report needs it

        return platform.release()

    def machine(self) -> str:
        """Return the kind of processor, as the OS writes it: `x86_64`."""
        import platform  # noqa: PLC0415 - only a report needs it

        return platform.machine()

    def interfaces(self, meant: Collection[Readings] | None = None) -> list[IfaceInfo]:
        """Return the network interfaces, by index.

        `meant`: what specifiers may mean; interfaces that fit none of them may be left out, and those that fit by their
        MAC address only.
        """
        raise NotImplementedError

    def interface_name(self, sock: Socket, index: int) -> str | None:
        """Return the name to show of an interface where the socket is; None where the OS does not tell."""
        with suppress(OSError, MulticastExpertError):
            return next((each.display_name for each in self.interfaces() if each.index == index), None)
        return None

    def has_interface(self, index: int) -> bool:
        """Return whether there is an interface of this index."""
        return any(iface.index == index for iface in self.interfaces())

    def duplicate_addresses(self) -> set[str]:
        """Return the addresses that the OS found on another host too, and the names of their interfaces."""
        return set()

    def route_interface(self, destination: IPAddress) -> int | None:
        """Return the index of the interface that a datagram to `destination` would leave from; None without a route."""
        raise NotImplementedError

    def group_routes(self, groups: Iterable[IPAddress]) -> dict[IPAddress, RouteAnswer]:
        """Return the routes that lead each group somewhere, as far as the OS tells them from those it made by itself.

        A default route may be among them. Empty where the OS tells nothing, as on Windows: it makes routes for all
        groups on every interface and does not mark them.
        """
        return {}

    def joined_groups(self, sockets: Iterable[UdpSocket] | None = None) -> list[JoinedGroup]:
        """Return the groups that this host has joined; see `groups.joined_groups`."""
        raise NotImplementedError

    def udp_sockets(self, chosen: Callable[[UdpSocket], bool] | None = None) -> list[UdpSocket]:
        """Return the open UDP sockets, empty where the OS has no list of them; see `groups.udp_sockets`."""
        return []

    def members(self, sockets: Sequence[UdpSocket], groups: Sequence[JoinedGroup]) -> list[Member]:
        """Return what the sockets have joined, empty where the OS does not tell; see `groups.group_members`."""
        return []

    def change_events(self) -> Events:
        """Return a source of changes of the interfaces; the caller closes it."""
        return PolledEvents(self.interfaces)
