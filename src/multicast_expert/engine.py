"""Carries plans out: the only code that opens, binds, joins, sends and receives. It never waits, except in `wait`.

Every failure closes what was opened and leaves as a MulticastOSError that says what was being done, why it failed and what
to do.
"""

from __future__ import annotations

import selectors
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from multicast_expert.addresses import IPv4Or6Address
from multicast_expert.datagram import decode_arrival
from multicast_expert.errors import MulticastOSError, explain, warn
from multicast_expert.kernel import Kernel, Socket
from multicast_expert.plan import Join, SocketPlan
from multicast_expert.platforms import Option

Result = TypeVar("Result")

SOCK_DGRAM = 2
ANCILLARY_SIZE = 256
# How many datagrams are taken from the sockets known to be ready before the others are looked at again.
TURNS = 64
# How many foreign datagrams one attempt throws away before it lets its caller look at the clock.
REFUSALS = 64

# Errors that mean "this interface cannot", as opposed to "this program cannot".
_INTERFACE_ERRORS = ("ENODEV", "ENXIO", "EADDRNOTAVAIL", "EINVAL", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH")
# What a datagram that this socket once sent can bring back; it says nothing about the next datagram to receive.
_STALE_ERRORS = ("ECONNRESET", "ENETRESET", "ECONNREFUSED")


def os_error(kernel: Kernel, error: OSError, step: str, doing: str, **words: object) -> MulticastOSError:
    """Return the error to raise for what the OS refused; `doing` completes "Cannot ..."."""
    name = kernel.platform.errors.get(error.errno or 0, "")
    filled = {"group": "the group", "source": "", "interface": "the interface", "port": "", "count": "", **words}
    reason, remedy = explain(kernel.platform.name, name, step, **filled)
    text = error.strerror or str(error)
    summary = f"Cannot {doing}: {text} ({name or 'error'} {error.errno})"
    return MulticastOSError(error.errno, step, summary, reason, remedy)


def set_option(kernel: Kernel, sock: Any, option: Option) -> bool:
    """Set the option; return False where this kernel has no such thing and the socket can go on without it."""
    try:
        if option.level is None:
            sock.ioctl_bytes(option.number, option.value)
        else:
            sock.setsockopt(option.level, option.number, option.value)
    except OSError as error:
        if kernel.platform.errors.get(error.errno or 0) in option.may_fail:
            return False
        step = "bind to device" if option.name == "SO_BINDTODEVICE" else "set interface" if "_IF" in option.name else ""
        doing = f"set {option.name} to {option.meaning}"
        raise os_error(kernel, error, step or "set option", doing, interface=option.meaning) from error
    return True


def change_membership(kernel: Kernel, sock: Socket, join: Join, operation: Any) -> None:
    """Join, leave, block or unblock; falls back to the classic call where the kernel lacks the modern one."""
    refused: OSError | None = None
    for option in join.change(kernel.platform, operation):
        try:
            sock.setsockopt(option.level or 0, option.number, option.value)
        except OSError as error:
            refused = error
            if kernel.platform.errors.get(error.errno or 0) != "ENOPROTOOPT":
                break
        else:
            return
    if refused is not None:
        words = {"group": join.group, "source": join.source, "interface": join.interface.iface.display_name}
        raise os_error(kernel, refused, operation, f"{operation.partition(' ')[0]} {join}", **words) from refused


def open_socket(kernel: Kernel, plan: SocketPlan) -> tuple[Socket, bool]:
    """Open and bind the socket of a plan, without its memberships.

    Returns it and whether its datagrams have to be filtered by destination.
    """
    try:
        sock = kernel.socket(plan.family, SOCK_DGRAM)
    except OSError as error:
        raise os_error(kernel, error, "socket", f"open a UDP socket for IPv{plan.version}") from error
    filtered = plan.filtered
    try:
        sock.setblocking(False)
        for option in plan.options:
            if not set_option(kernel, sock, option):
                filtered = filtered or option.isolates
        try:
            sock.bind(plan.address)
        except OSError as error:
            doing = f"bind to {plan.address[0]} port {plan.address[1]}"
            raise os_error(kernel, error, "bind", doing, port=plan.address[1]) from error
    except BaseException:
        sock.close()
        raise
    return sock, filtered


class Channel:
    """One open receiving socket with its memberships."""

    __slots__ = ("accepts", "joins", "plan", "queued", "socket")

    def __init__(self, sock: Socket, plan: SocketPlan, joins: list[Join], filtered: bool) -> None:
        self.socket = sock
        self.plan = plan
        self.joins = joins
        self.queued = False
        self.accepts = {(join.group.packed, join.interface.iface.index) for join in joins} if filtered else None


Receive = Callable[[Channel, int, int], Result | None]


class ReceiveEngine:
    """The open sockets of one receiver, and the fair turn of their datagrams."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._channels: list[Channel] = []
        self._ready: deque[Channel] = deque()
        self._turns = 0
        self._selector: selectors.BaseSelector | None = None
        self.filtered = 0
        """Datagrams refused because of their destination."""

    def open(self, plans: Iterable[SocketPlan]) -> None:
        """Open all sockets and join; on failure none is left open.

        An interface that was not named by the user may fail with a MulticastWarning, unless none is left.
        """
        skipped: MulticastOSError | None = None
        try:
            for plan in plans:
                skipped = self._open_channel(plan) or skipped
            if not self._channels and skipped is not None:
                raise skipped
        except BaseException:
            self.close()
            raise

    def _open_channel(self, plan: SocketPlan) -> MulticastOSError | None:
        """Open one socket with its memberships; return the error of a skipped interface, if any was skipped."""
        try:
            sock, filtered = open_socket(self._kernel, plan)
        except MulticastOSError as error:
            self._skip_or_raise(error, not any(join.interface.required for join in plan.joins))
            return error
        joins = []
        skipped = None
        try:
            for join in plan.joins:
                try:
                    change_membership(self._kernel, sock, join, join.join_operation)
                except MulticastOSError as error:
                    self._skip_or_raise(error, not join.interface.required)
                    skipped = error
                else:
                    joins.append(join)
        except BaseException:
            sock.close()
            raise
        if joins:
            self._channels.append(Channel(sock, plan, joins, filtered))
        else:
            sock.close()
        return skipped

    def _skip_or_raise(self, error: MulticastOSError, optional: bool) -> None:
        if not optional or self._kernel.platform.errors.get(error.errno or 0) not in _INTERFACE_ERRORS:
            raise error
        warn(f"{error} This interface is skipped, because it was only part of all interfaces.", stacklevel=6)

    def close(self) -> None:
        """Close everything; a second call does nothing."""
        if self._selector is not None:
            self._selector.close()
            self._selector = None
        self._ready.clear()
        while self._channels:
            self._channels.pop().socket.close()

    def filenos(self) -> list[int]:
        """Return the descriptors of the open sockets."""
        return [channel.socket.fileno() for channel in self._channels]

    def try_receive(self, bufsize: int, flags: int) -> tuple[bytes, IPv4Or6Address] | None:
        """Return the payload and sender of the next datagram, or None when nothing is there."""
        return self._take_turns(self._receive_payload, bufsize, flags)

    def wait(self, timeout: float | None) -> bool:
        """Wait until a socket is readable; return whether one is. None waits for ever."""
        if not self._ready:
            self._look(timeout)
        return bool(self._ready)

    def _look(self, timeout: float | None) -> None:
        """Put the sockets that are readable behind those that are known to be."""
        if self._selector is None:
            self._selector = selectors.DefaultSelector()
            for channel in self._channels:
                self._selector.register(channel.socket.fileno(), selectors.EVENT_READ, channel)
        for key, _ in self._selector.select(timeout):
            channel = key.data
            if not channel.queued:
                channel.queued = True
                self._ready.append(channel)
        self._turns = TURNS

    def _take_turns(self, receive: Receive[Result], bufsize: int, flags: int) -> Result | None:
        """Try the sockets that are known to be readable, each in its turn; a busy one must not starve the rest."""
        ready = self._ready
        if self._turns <= 0:
            self._look(0)
        while ready:
            channel = ready.popleft()
            received = receive(channel, bufsize, flags)
            if received is not None:
                ready.append(channel)
                self._turns -= 1
                return received
            channel.queued = False
        return None

    def _receive_payload(self, channel: Channel, bufsize: int, flags: int) -> tuple[bytes, IPv4Or6Address] | None:
        for _ in range(REFUSALS):
            try:
                if channel.accepts is None:
                    return channel.socket.recvfrom(bufsize, flags)
                data, messages, _, sender = channel.socket.recvmsg(bufsize, ANCILLARY_SIZE, flags)
            except BlockingIOError:
                return None
            except OSError as error:
                if self._kernel.platform.errors.get(error.errno or 0) in _STALE_ERRORS:
                    continue
                raise os_error(self._kernel, error, "receive", "receive") from error
            arrival = decode_arrival(messages, self._kernel.platform.ancillary.fields)
            if (arrival.destination, arrival.interface_index) in channel.accepts:
                return data, sender
            self.filtered += 1
        return None


class SendEngine:
    """The open socket that sends out of one interface."""

    def __init__(self, kernel: Kernel, plan: SocketPlan, interface: str, on_loopback: bool) -> None:
        self._kernel = kernel
        self._interface = interface
        # Windows refuses a datagram to the loopback interface with "network unreachable" while nobody has joined there.
        self._unheard = "ENETUNREACH" if on_loopback and kernel.platform.name == "windows" else None
        self.socket, _ = open_socket(kernel, plan)

    def try_send(self, data: bytes, address: IPv4Or6Address) -> int | None:
        """Send one datagram; return its length, or None when the socket would have to wait for room."""
        try:
            return self.socket.sendto(data, address)
        except BlockingIOError:
            return None
        except OSError as error:
            if self._kernel.platform.errors.get(error.errno or 0) == self._unheard:
                return len(data)
            doing = f"send {len(data)} bytes to {address[0]} port {address[1]} out of {self._interface}"
            words = {"group": address[0], "interface": self._interface, "port": address[1]}
            raise os_error(self._kernel, error, "send", doing, **words) from error

    def wait(self, timeout: float | None) -> bool:
        """Wait until there is room to send; return whether there is."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket.fileno(), selectors.EVENT_WRITE)
            return bool(selector.select(timeout))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
