"""SendSocket: the open socket that sends out of one interface. Never waits, except in `wait`.

Its owner calls everything but `wait`, `waitset` and the shortcut under one reentrant lock (see sockets/transmitter).
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from multicast_expert import extension
from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.errors import MulticastOSError, NotOpenError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.core.plan import SocketPlan
from multicast_expert.engine import offload
from multicast_expert.engine.offload import ALONE, Limits
from multicast_expert.engine.opening import error_name, open_socket, os_error, set_option
from multicast_expert.engine.waitset import WaitSet
from multicast_expert.platforms import Platform, layouts
from multicast_expert.system.kernel import Kernel, Socket


class Shortcut(Protocol):
    """Sends from one socket what needs no more checks; the extension has one.

    Before the socket is closed, or its hop limit changes, it has to be told.
    """

    def set_hop_limit(self, hop_limit: int, /) -> None:
        """Tell it what the socket has from now on; -1: nothing may go this way."""

    def send(self, data: bytes, address: IPv4Or6Address, hop_limit: int, /) -> bool:
        """Send one datagram and return True; or False, and nothing happened: it has to go the long way.

        That is so where it was not told the address or the hop limit is another, and while there is no room. Raises
        OSError.
        """

    def learn(self, address: IPv4Or6Address, /) -> None:
        """Remember that datagrams may go to this address, unless it is of another form than the usual one."""

    def prepare(self, address: IPv4Or6Address, /) -> bytes:
        """Return the address of a host as `send_prepared` takes it."""

    def send_prepared(self, data: bytes, destination: bytes, control: bytes, /) -> bool:
        """Send one datagram to a host, with a control message; as `send` in all else."""


class Prepared(NamedTuple):
    """What datagrams to one host need to go the short way."""

    shortcut: Shortcut
    destination: bytes
    control: bytes


def _origin_control(
    platform: Platform, version: int, origin: tuple[bytes, int] | None
) -> tuple[tuple[int, int, bytes], ...]:
    """Return the control message that chooses source and interface; none where the OS has no such message."""
    if origin is None or not platform.origin_control:
        return ()
    pack = layouts.in_pktinfo if version == 4 else layouts.in6_pktinfo
    return ((*platform.origin_control[version], pack(*origin)),)


def send_through(
    system: Kernel, sock: Socket, data: bytes, address: IPv4Or6Address, origin: tuple[bytes, int] | None
) -> None:
    """Send one datagram to a host by a socket that receives; `origin` as in `try_send_to_host`. Raises OSError."""
    control = _origin_control(system.platform, 6 if len(address) > 2 else 4, origin)
    sender: Any = sock
    if control:
        sender.sendmsg((data,), control, 0, address)
    else:
        sender.sendto(data, address)


class SendSocket:
    """The open socket that sends out of one interface."""

    def __init__(
        self,
        system: Kernel,
        plan: SocketPlan,
        iface: IfaceInfo,
        hop_limit: int,
        closing: Callable[[Socket], None] | None = None,
    ) -> None:
        self._kernel = system
        self._closing = closing
        self._interface = iface.display_name
        self.interface_index: int = iface.index
        self._mtu = iface.mtu
        self._version = plan.version
        self._unheard = system.platform.unheard_error if iface.is_localhost() else None
        self._waitset: WaitSet[bool] | None = None
        self._limits: Limits | None = None
        self.hop_limit: int = hop_limit
        """How many hops its datagrams may go; -1 while that changes."""
        self._changes = 0
        self.closed: bool = False
        self._host_hops: int | None = None
        self._default_hops: bytes | None = None
        self.socket: Socket = open_socket(system, plan)[0]
        self.shortcut: Shortcut | None = None
        """Where there is one, it does the same as `try_send`, much sooner."""
        if extension.native is not None and isinstance(self.socket, socket.socket):
            self.shortcut = extension.native.Shortcut(self.socket.fileno(), hop_limit)

    def set_hop_limit(self, hop_limit: int) -> None:
        """Let its datagrams go so many hops from now on. Raises MulticastOSError."""
        while hop_limit != self.hop_limit:
            self.forget_hop_limit()
            self._changes = change = self._changes + 1
            set_option(self._kernel, self.socket, self._kernel.platform.hop_limit(self._version, hop_limit))
            # Otherwise a signal handler has sent meanwhile, with another hop limit.
            if self._changes == change:
                self.hop_limit = hop_limit
            self._open_shortcut(self.hop_limit)

    def forget_hop_limit(self) -> None:
        """Let the next send set its own hop limit."""
        # In this order: a signal handler that sends in between leaves the shortcut closed.
        self.hop_limit = -1
        self._open_shortcut(-1)

    def _open_shortcut(self, hop_limit: int) -> None:
        """Let datagrams of this hop limit go the short way; -1: none."""
        if self.shortcut is not None:
            self.shortcut.set_hop_limit(hop_limit)

    def try_send(self, data: bytes, address: IPv4Or6Address) -> bool:
        """Send one datagram; return False when the socket would have to wait for room. Raises MulticastOSError."""
        try:
            self.socket.sendto(data, address)
        except BlockingIOError:
            return False
        except OSError as error:
            if error_name(self._kernel, error) == self._unheard:
                return True
            raise self.refusal(error, data, address) from error
        return True

    def try_send_to_host(
        self, data: bytes, address: IPv4Or6Address, hop_limit: int | None, origin: tuple[bytes, int] | None
    ) -> bool:
        """Send one datagram to a host; return False when the socket would have to wait for room.

        `hop_limit`: None leaves it to the OS. `origin`: the packed source address (zeros: the OS chooses it) and the
        interface to leave from; None: as routed. Raises MulticastOSError.
        """
        platform, version = self._kernel.platform, self._version
        control = _origin_control(platform, version, origin)
        try:
            if hop_limit is not None and platform.hop_limit_control:
                control += ((*platform.hop_limit_control[version], layouts.integer(hop_limit)),)
            elif hop_limit != self._host_hops:
                self._set_host_hops(hop_limit)
            if control:
                sender: Any = self.socket
                sender.sendmsg((data,), control, 0, address)
            else:
                self.socket.sendto(data, address)
        except BlockingIOError:
            return False
        except OSError as error:
            raise self.refusal(error, data, address) from error
        return True

    def prepared(self, address: IPv4Or6Address, origin: tuple[bytes, int] | None) -> Prepared | None:
        """Return how datagrams to a host go the short way; None where there is none."""
        if self.shortcut is None:
            return None
        control = _origin_control(self._kernel.platform, self._version, origin)
        packed = b"".join(layouts.control_message(*each) for each in control)
        return Prepared(self.shortcut, self.shortcut.prepare(address), packed)

    def _set_host_hops(self, hop_limit: int | None) -> None:
        """Let datagrams to hosts go so many hops; None: as many as the OS lets them."""
        option = self._kernel.platform.host_hop_limit(self._version, hop_limit or 0)
        if self._default_hops is None:
            self._default_hops = self.socket.getsockopt(option.level or 0, option.number, len(option.value))
        value = self._default_hops if hop_limit is None else option.value
        set_option(self._kernel, self.socket, option._replace(value=value))
        self._host_hops = hop_limit

    def try_send_many(self, payloads: Sequence[bytes], address: IPv4Or6Address) -> int:
        """Send datagrams in order, as far as it goes now; return how many went.

        A smaller result means that the socket would have to wait for room, or that the OS rejected the next payload;
        then calling again with the rest returns 0, or raises that error as MulticastOSError.
        """
        waiting = tuple(payloads)
        if self._limits is None:
            self._limits = offload.limits(self._kernel.platform, self.socket, self._version, self._mtu)
        sent, error = self._send_from(waiting, address, self._limits)
        if error is not None and not sent and not isinstance(error, BlockingIOError):
            raise self.refusal(error, waiting[0], address) from error
        return sent

    def _send_from(
        self, payloads: tuple[bytes, ...], address: IPv4Or6Address, limits: Limits
    ) -> tuple[int, OSError | None]:
        """Send until something is refused; return how many went, and the error."""
        sent = 0
        while sent < len(payloads):
            went, refused, error = offload.send(self.socket, payloads, sent, len(payloads), address, limits)
            sent += went
            if refused > 1 and error is not None and not isinstance(error, BlockingIOError):
                # Sending the datagrams one by one shows whether one of them, or sending them as one piece, is at fault.
                size = len(payloads[sent])
                went, _, alone = offload.send(self.socket, payloads, sent, sent + refused, address, ALONE)
                if went:
                    self._limits = limits = limits.after(error_name(self._kernel, error), refused, size)
                sent += went
                error = alone
            if error is not None:
                if error_name(self._kernel, error) != self._unheard:
                    return sent, error
                sent += 1
        return sent, None

    def refusal(self, error: OSError, data: bytes, address: IPv4Or6Address) -> MulticastOSError:
        """Return the error to raise for a datagram that the OS refused."""
        doing = f"send {len(data)} bytes to {address[0]} port {address[1]} out of {self._interface}"
        words = {"group": address[0], "interface": self._interface, "port": address[1]}
        return os_error(self._kernel, error, "send", doing, **words)

    def mute(self) -> None:
        """Let nothing go the short way any more: its interface is gone, and another one may have the index."""
        self._open_shortcut(-1)
        self.shortcut = None

    def waitset(self) -> WaitSet[bool]:
        """Return the set that waits until there is room to send. Raises NotOpenError once this is closed."""
        if self._waitset is None:
            if self.closed:
                raise NotOpenError("The sender was closed while it was being used.")
            waitset: WaitSet[bool] | None = None
            try:
                waitset = WaitSet()
                waitset.add(self.socket.fileno(), True, selectors.EVENT_WRITE)
            except OSError as error:
                if waitset is not None:
                    waitset.close()
                raise os_error(self._kernel, error, "wait", "wait for room to send") from error
            self._waitset = waitset
        return self._waitset

    def close(self) -> None:
        """Close the socket and wake every waiting thread; a second call finishes what an interrupt left undone."""
        self.closed = True
        # The extension sends while it holds the interpreter lock: no send is under way here.
        self._open_shortcut(-1)
        waitset = self._waitset
        if waitset is not None:
            waitset.remove(self.socket.fileno())
            waitset.close()
        if self._closing is not None:
            self._closing(self.socket)
        else:
            self.socket.close()

    def abandon(self) -> None:
        """Let the child of a fork wait with descriptors of its own."""
        waitset, self._waitset = self._waitset, None
        if waitset is not None:
            waitset.abandon()
