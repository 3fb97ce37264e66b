"""ReceiveEngine: the open sockets of one receiver, their memberships, and the fair turn of their datagrams.

It never waits, except in `wait`. Memberships may change in one thread while another receives.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from struct import Struct
from typing import TypeVar

from multicast_expert.addresses import IPv4Or6Address, address_text
from multicast_expert.datagram import MAX_DATAGRAM, Datagram, ReceiveStats, decode_arrival
from multicast_expert.engine.opening import change_membership, error_name, open_socket, os_error
from multicast_expert.engine.waiter import Waiter
from multicast_expert.errors import MulticastExpertError, MulticastOSError, warn
from multicast_expert.kernel import Kernel, Socket, network_namespace
from multicast_expert.plan import Join, JoinKey, ReceiveSettings, SocketKey, SocketPlan, plan_receive
from multicast_expert.platforms.table import Operation

Result = TypeVar("Result")

ANCILLARY_SIZE = 256
"""Bytes: more than all control messages of one datagram take on any OS."""
# How many datagrams are taken from the sockets known to be readable before the others are looked at again.
TURNS = 64
# How many foreign datagrams one attempt throws away before it lets its caller look at the clock.
REFUSALS = 64
MSG_PEEK = 2
# How many datagrams of a dying socket are kept at most.
DRAIN_LIMIT = 65536
_MEMINFO = Struct("=9I")
_INT = Struct("=i")

# Errors that mean "this interface cannot", as opposed to "this program cannot".
_INTERFACE_ERRORS = ("ENODEV", "ENXIO", "EADDRNOTAVAIL", "EINVAL", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH")
# What a datagram that this socket once sent can bring back; it says nothing about the next datagram to receive.
_STALE_ERRORS = ("ECONNRESET", "ENETRESET", "ECONNREFUSED")


class Channel:
    """One open receiving socket with its memberships."""

    __slots__ = ("accepts", "closed", "joins", "key", "queued", "socket")

    def __init__(self, key: SocketKey, sock: Socket, filtered: bool) -> None:
        self.key: SocketKey = key
        self.socket: Socket = sock
        self.joins: dict[JoinKey, Join] = {}
        self.closed: bool = False
        self.queued: bool = False
        """Whether it is among those known to be readable."""
        self.accepts: set[tuple[bytes, int]] | None = set() if filtered else None
        """Destination and interface index of the datagrams to let through; None: the kernel sees to it."""

    def add(self, key: JoinKey, join: Join) -> None:
        """Note a membership that the socket has."""
        self.joins[key] = join
        if self.accepts is not None:
            self.accepts.add((join.group.packed, join.interface.iface.index))

    def discard(self, join: Join) -> None:
        """Forget a membership that the socket no longer has."""
        self.joins.pop(join.key, None)
        if self.accepts is not None:
            self.accepts = {(held.group.packed, held.interface.iface.index) for held in self.joins.values()}


def _sources_held(channel: Channel, join: Join) -> int:
    """Return how many sources of the group are joined on the interface already."""
    index = join.interface.iface.index
    return sum(group == join.group.packed and held == index for group, _, held in channel.joins)


Receive = Callable[[Channel, int, int], Result | None]


class ReceiveEngine:
    """The open sockets of one receiver."""

    def __init__(self, kernel: Kernel, settings: ReceiveSettings) -> None:
        self._kernel = kernel
        self._settings = settings
        self._lock = threading.RLock()
        self._channels: dict[SocketKey, Channel] = {}
        self._homes: dict[JoinKey, Channel] = {}
        self._ready: deque[Channel] = deque()
        self._turns = 0
        self._waiter: Waiter[Channel] | None = None
        self._closed = False
        self._names: dict[int, str] = {}
        self._places: dict[tuple[bytes | None, int | None], tuple[str | None, str | None]] = {}
        self.backlog: deque[Datagram] = deque()
        """Datagrams taken from the sockets and not yet handed out; they come first."""
        self._datagrams = self._bytes = self._truncated = self._filtered = self._past_drops = 0

    # Memberships

    def add(self, joins: Iterable[Join]) -> None:
        """Join, opening the sockets that are needed; on failure nothing of it remains.

        An interface that the user did not name may fail with a MulticastWarning, unless no membership is left.
        """
        done: list[Join] = []
        skipped: MulticastOSError | None = None
        with self._lock:
            try:
                for plan in plan_receive(self._kernel.platform, self._settings, joins, self._channels):
                    skipped = self._carry_out(plan, done) or skipped
                if skipped is not None and not self._homes:
                    raise skipped
            except BaseException:
                self._give_up(done)
                raise

    def _carry_out(self, plan: SocketPlan, done: list[Join]) -> MulticastOSError | None:
        """Open the socket of the plan unless it is open, and join; return the error of a skipped interface, if any."""
        skipped: MulticastOSError | None = None
        channel = self._channels.get(plan.key)
        if channel is None:
            try:
                channel = self._open_channel(plan)
            except MulticastOSError as error:
                self._skip_or_raise(error, plan.joins)
                return error
        try:
            for join in plan.joins:
                try:
                    held = 0 if join.source is None else _sources_held(channel, join)
                    change_membership(self._kernel, channel.socket, join, join.join_operation, held)
                except MulticastOSError as error:
                    self._skip_or_raise(error, (join,))
                    skipped = error
                else:
                    key = join.key
                    channel.add(key, join)
                    self._homes[key] = channel
                    self.name_interface(join.interface.iface.index, join.interface.iface.display_name)
                    done.append(join)
        finally:
            if not channel.joins:
                self._close_channel(channel)
        return skipped

    def _skip_or_raise(self, error: MulticastOSError, joins: Iterable[Join]) -> None:
        named = any(join.interface.required for join in joins)
        if named or error_name(self._kernel, error) not in _INTERFACE_ERRORS:
            raise error
        warn(f"{error} This interface is skipped, because it was only part of all interfaces.")

    def remove(self, joins: Iterable[Join]) -> None:
        """Leave; a socket without memberships is closed."""
        with self._lock:
            for join in joins:
                channel = self._homes.get(join.key)
                if channel is None:
                    # It was part of all interfaces and could not be joined.
                    continue
                if len(channel.joins) > 1:
                    change_membership(self._kernel, channel.socket, join, join.leave_operation)
                self._drop(join, channel)

    def change_source(self, join: Join, operation: Operation, count: int) -> None:
        """Block or unblock the source of `join` in the any-source membership of its group and interface."""
        with self._lock:
            channel = self._homes.get(join._replace(source=None).key)
            if channel is not None:
                change_membership(self._kernel, channel.socket, join, operation, count)

    def forget(self, interface_index: int) -> None:
        """Give up the memberships on an interface that is gone or has lost them; what was received on it is kept.

        The kernel leaves the dead entries on the socket, where they take up room until they are left.
        """
        with self._lock:
            lost = [join for channel in self._channels.values() for join in channel.joins.values()]
            self._give_up([join for join in lost if join.interface.iface.index == interface_index])

    def _give_up(self, joins: Iterable[Join]) -> None:
        """Leave, whatever the kernel says to it."""
        for join in joins:
            channel = self._homes[join.key]
            if len(channel.joins) == 1:
                self._drain(channel)
            # Closing the socket is not enough: a program that is just being started holds it open until it runs, and at
            # that later moment Linux would leave, by the index, what was joined anew meanwhile.
            with suppress(MulticastOSError):
                change_membership(self._kernel, channel.socket, join, join.leave_operation)
            self._drop(join, channel)

    def _drop(self, join: Join, channel: Channel) -> None:
        del self._homes[join.key]
        channel.discard(join)
        if not channel.joins:
            self._close_channel(channel)

    # Sockets

    def _open_channel(self, plan: SocketPlan) -> Channel:
        sock, filtered = open_socket(self._kernel, plan)
        channel = Channel(plan.key, sock, filtered)
        self._channels[plan.key] = channel
        if self._waiter is not None:
            self._waiter.add(sock.fileno(), channel)
        return channel

    def _close_channel(self, channel: Channel) -> None:
        del self._channels[channel.key]
        if self._waiter is not None:
            self._waiter.remove(channel.socket.fileno())
        self._past_drops += self._drops_of(channel) or 0
        channel.closed = True
        channel.socket.close()

    def _drain(self, channel: Channel) -> None:
        """Put what the socket holds into the backlog."""
        for _ in range(DRAIN_LIMIT):
            datagram = self._receive_datagram(channel, MAX_DATAGRAM, 0)
            if datagram is None:
                break
            self.backlog.append(datagram)
        if self.backlog and self._waiter is not None:
            # Who found the backlog empty and is about to wait for the sockets would not notice.
            self._waiter.wake()

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def close(self) -> None:
        """Close everything and wake whoever waits; a second call does nothing."""
        with self._lock:
            self._closed = True
            for channel in self._channels.values():
                channel.closed = True
                channel.socket.close()
            self._channels.clear()
            self._homes.clear()
            waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.close()

    def network_namespace(self) -> int:
        """Return a number for the network namespace of its sockets: the same for all sockets of a namespace."""
        option = self._kernel.platform.options.get("SO_NETNS_COOKIE")
        if option is not None and self._channels:
            try:
                # Linux 5.14; much cheaper than looking into /proc.
                sock = next(iter(self._channels.values())).socket
                return int.from_bytes(sock.getsockopt(option[0] or 0, option[1], 8), "little")
            except OSError:
                pass
        return network_namespace()

    def filenos(self) -> list[int]:
        """Return the descriptors of the open sockets."""
        with self._lock:
            return [channel.socket.fileno() for channel in self._channels.values()]

    # Receiving

    def try_receive(self, bufsize: int, flags: int) -> tuple[bytes, IPv4Or6Address] | None:
        """Return the payload and sender of the next datagram, or None when nothing is there."""
        if self.backlog:
            # Another thread may take the last one first.
            with suppress(IndexError):
                datagram = self.backlog[0] if flags & MSG_PEEK else self.backlog.popleft()
                return datagram.data[:bufsize], datagram.sender
        return self._take_turns(self._receive_payload, bufsize, flags)

    def try_receive_datagram(self) -> Datagram | None:
        """Return the next datagram with all that is known about it, or None when nothing is there."""
        if self.backlog:
            # Another thread may take the last one first.
            with suppress(IndexError):
                return self.backlog.popleft()
        return self._take_turns(self._receive_datagram, MAX_DATAGRAM, 0)

    def receive_more(self, datagrams: list[Datagram], limit: int) -> None:
        """Append what is there, without waiting, until the list is `limit` long."""
        while len(datagrams) < limit:
            datagram = self.try_receive_datagram()
            if datagram is None:
                if not self.look():
                    return
                continue
            datagrams.append(datagram)

    def look(self) -> bool:
        """Return whether a datagram may be there, by asking the OS, without waiting."""
        return self.wait(0)

    def waiter(self) -> Waiter[Channel]:
        """Return what waits for the sockets of this receiver."""
        with self._lock:
            if self._closed:
                raise MulticastExpertError("The receiver was closed while it was being used.")
            if self._waiter is None:
                try:
                    self._waiter = Waiter()
                except OSError as error:
                    raise os_error(self._kernel, error, "wait", "wait for datagrams") from error
                for channel in self._channels.values():
                    self._waiter.add(channel.socket.fileno(), channel)
            return self._waiter

    def wait(self, timeout: float | None) -> bool:
        """Wait until a datagram is there; return whether one may be. None waits for ever.

        Raises MulticastExpertError when the receiver is closed meanwhile.
        """
        if self._ready or self.backlog:
            return True
        self._look(timeout)
        if self._closed:
            raise MulticastExpertError("The receiver was closed while it was waiting.")
        return bool(self._ready or self.backlog)

    def _look(self, timeout: float | None) -> None:
        """Put the sockets that are readable behind those that are known to be."""
        for channel in self.waiter().wait(timeout):
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
            try:
                channel = ready.popleft()
            except IndexError:
                # Another thread took the last one first.
                return None
            received = receive(channel, bufsize, flags)
            if received is not None:
                ready.append(channel)
                self._turns -= 1
                return received
            channel.queued = False
        return None

    def _receive_payload(self, channel: Channel, bufsize: int, flags: int) -> tuple[bytes, IPv4Or6Address] | None:
        # Only recvmsg says whether the buffer was too small.
        if channel.accepts is not None or bufsize < MAX_DATAGRAM:
            datagram = self._receive_datagram(channel, bufsize, flags)
            return None if datagram is None else (datagram.data, datagram.sender)
        while True:
            try:
                received = channel.socket.recvfrom(bufsize, flags)
            except BlockingIOError:
                return None
            except OSError as error:
                if self._is_over(channel, error):
                    return None
            else:
                if not flags & MSG_PEEK:
                    self._datagrams += 1
                    self._bytes += len(received[0])
                return received

    def _receive_datagram(self, channel: Channel, bufsize: int, flags: int) -> Datagram | None:
        for _ in range(REFUSALS):
            try:
                data, messages, arrived, sender = channel.socket.recvmsg(bufsize, ANCILLARY_SIZE, flags)
            except BlockingIOError:
                return None
            except OSError as error:
                if self._is_over(channel, error):
                    return None
                continue
            destination, index, hop_limit, timestamp = decode_arrival(messages, self._kernel.platform.ancillary.fields)
            if channel.accepts is not None and (destination, index) not in channel.accepts:
                self._filtered += 1
                if flags & MSG_PEEK:
                    # A look left it in the queue, where it would hide the next one.
                    with suppress(OSError):
                        channel.socket.recvmsg(1)
                continue
            place = self._places.get((destination, index)) or self._learn_place(destination, index)
            truncated = bool(arrived & self._kernel.platform.msg_trunc)
            if not flags & MSG_PEEK:
                self._datagrams += 1
                self._bytes += len(data)
                self._truncated += truncated
            return Datagram(data, sender, place[0], index, place[1], hop_limit, timestamp, truncated)
        return None

    def _is_over(self, channel: Channel, error: OSError) -> bool:
        """Whether a failed receive means that this socket was closed meanwhile; an error that matters is raised."""
        if channel.closed:
            return True
        if error_name(self._kernel, error) in _STALE_ERRORS:
            return False
        raise os_error(self._kernel, error, "receive", "receive") from error

    def _learn_place(self, destination: bytes | None, index: int | None) -> tuple[str | None, str | None]:
        """Return the group as text and the name of the interface, and remember them."""
        group = None if destination is None else address_text(destination)
        place = group, None if index is None else self._names.get(index)
        if place[1] is not None:
            self._places[destination, index] = place
        return place

    def name_interface(self, index: int, name: str) -> None:
        """Call the interface so from now on."""
        if self._names.get(index) != name:
            self._names[index] = name
            self._places.clear()

    # Counting

    def stats(self) -> ReceiveStats:
        """Return what was received and lost so far; `kernel_drops` is right at this moment."""
        with self._lock:
            drops = [self._drops_of(channel) for channel in self._channels.values()]
        known = [count for count in drops if count is not None]
        kernel_drops = None if len(known) < len(drops) else self._past_drops + sum(known)
        return ReceiveStats(self._datagrams, self._bytes, self._truncated, kernel_drops, self._filtered)

    def _drops_of(self, channel: Channel) -> int | None:
        """Return how many datagrams the kernel dropped because the buffer was full; None where it won't say."""
        option = self._kernel.platform.options.get("SO_MEMINFO")
        if option is None:
            return None
        memory = channel.socket.getsockopt(option[0] or 0, option[1], _MEMINFO.size)
        return int(_MEMINFO.unpack(memory)[8])

    def receive_buffers(self) -> list[int]:
        """Return the receive buffer of every socket in bytes, as the OS counts it."""
        level, number = self._kernel.platform.options["SO_RCVBUF"]
        with self._lock:
            return [
                _INT.unpack(channel.socket.getsockopt(level or 0, number, _INT.size))[0]
                for channel in self._channels.values()
            ]
