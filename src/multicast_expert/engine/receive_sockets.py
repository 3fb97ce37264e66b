"""ReceiveEngine: opens the sockets of one receiver, changes their memberships, and closes them. Touches the OS.

Memberships may change in one thread while another receives.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.errors import MulticastOSError, warn
from multicast_expert.core.plan import Join, JoinKey, ReceiveSettings, SocketPlan, plan_receive
from multicast_expert.engine.opening import change_membership, error_name, open_socket
from multicast_expert.engine.reader import Receiving
from multicast_expert.engine.receive_socket import Channel
from multicast_expert.platforms.table import Operation
from multicast_expert.system.kernel import Kernel, network_namespace

# How many datagrams of a dying socket are kept at most.
DRAIN_LIMIT = 65536

# Errors that mean "this interface cannot", as opposed to "this program cannot".
_INTERFACE_ERRORS = ("ENODEV", "ENXIO", "EADDRNOTAVAIL", "EINVAL", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH")


class ReceiveEngine(Receiving):
    """The sockets of one receiver and their memberships."""

    def __init__(self, kernel: Kernel, settings: ReceiveSettings) -> None:
        super().__init__(kernel, settings.gro)
        self._settings = settings
        self._homes: dict[JoinKey, Channel] = {}

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
                    held = 0 if join.source is None else channel.sources(join)
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
        channel = Channel(plan.key, sock, filtered, self._sweeping is not None)
        self._channels[plan.key] = channel
        # Before who waits looks up because of the new socket.
        self._sole = channel if len(self._channels) == 1 else None
        if self._waiter is not None:
            self._waiter.add(sock.fileno(), channel)
        return channel

    def _close_channel(self, channel: Channel) -> None:
        del self._channels[channel.key]
        self._sole = next(iter(self._channels.values())) if len(self._channels) == 1 else None
        if self._waiter is not None:
            self._waiter.remove(channel.socket.fileno())
        if self._sweeping is not None:
            channel.closed, channel.handle = True, -1
            self._sweeping.settle(60)
        self._past_drops += self._drops_of(channel) or 0
        channel.close()

    def _drain(self, channel: Channel) -> None:
        """Put what the socket holds into the backlog."""
        datagrams: list[Datagram] = []
        self._take(channel, DRAIN_LIMIT, datagrams)
        self.backlog.extend(datagrams)
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
            channels = list(self._channels.values())
            self._channels.clear()
            self._sole = None
            self._homes.clear()
            waiter, self._waiter = self._waiter, None
        # Whoever waits or sweeps has the descriptors; afterwards nobody has.
        if waiter is not None:
            waiter.close()
        for channel in channels:
            channel.close()

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
