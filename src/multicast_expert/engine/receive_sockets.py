"""ReceiveSockets: opens the sockets of one receiver, changes their memberships, and closes them. Touches the OS.

It owns the lock under which memberships change. Another thread may take datagrams meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress

from multicast_expert.core.errors import MulticastExpertError, MulticastOSError, NotOpenError, warn
from multicast_expert.core.plan import Change, Join, JoinKey, ReceiveSettings, SocketKey, SocketPlan, plan_receive
from multicast_expert.engine.opening import change_membership, error_name, namespace_of, open_socket, os_error
from multicast_expert.engine.own_echo import OwnEcho
from multicast_expert.engine.receive_socket import ReceiveSocket
from multicast_expert.engine.socket_source import SocketSource
from multicast_expert.platforms.table import Operation
from multicast_expert.system.kernel import Kernel, Socket

# Errors that mean "this interface cannot", as opposed to "this program cannot".
_INTERFACE_ERRORS = ("ENODEV", "ENXIO", "EADDRNOTAVAIL", "EINVAL", "ENETDOWN", "ENETUNREACH", "EHOSTUNREACH")

GLIMPSE = 0.05
"""Seconds to wait for a change that is under way before the facts of this moment are read."""


class ReceiveSockets:
    """The sockets of one receiver and their memberships; `source` takes datagrams from them."""

    def __init__(self, system: Kernel, settings: ReceiveSettings, source: SocketSource) -> None:
        self._kernel = system
        self._settings = settings
        self._source = source
        self._open: dict[SocketKey, ReceiveSocket] = {}
        self._homes: dict[JoinKey, ReceiveSocket] = {}
        self._past_drops = 0
        self.lock: threading.RLock = source.changes
        """Held while memberships change."""
        self._changing = False
        self.echo: OwnEcho | None = None
        """What keeps from these sockets what their owner sent; None: nothing is kept from them."""
        self.closed: bool = False
        self.inherited: bool = False
        """Whether the sockets are a parent's, from before a fork: to be read, and not to be changed."""

    # Memberships

    @contextmanager
    def change(self) -> Iterator[None]:
        """Hold `lock` for a change of memberships.

        Raises MulticastExpertError in a signal handler that came between the steps of another change: the change that
        it interrupted would undo or overwrite what it does.
        """
        queue, token = self._source.queue, object()
        try:
            queue.add(token)
            with self.lock:
                queue.discard(token)
                if self._changing:
                    raise MulticastExpertError(
                        "This signal handler interrupted a change of memberships of the same receiver. It may close "
                        "the receiver; let it join, leave or block later, or in another thread."
                    )
                try:
                    self._changing = True
                    yield
                finally:
                    self._changing = False
                    self._source.close_retired()
        finally:
            queue.discard(token)

    def add(self, joins: Iterable[Join]) -> None:
        """Join, opening the sockets that are needed; on failure nothing of it remains.

        An interface that the user did not name may fail with a MulticastWarning, unless no membership is left.
        """
        wanted = list(joins)
        skipped: MulticastOSError | None = None
        with self.lock:
            try:
                for plan in plan_receive(self._kernel.platform, self._settings, wanted, self._open):
                    skipped = self._carry_out(plan) or skipped
                if skipped is not None and not self._homes:
                    raise skipped
            except BaseException:
                self.undo(wanted)
                raise

    def _carry_out(self, plan: SocketPlan) -> MulticastOSError | None:
        """Open the socket of the plan unless it is open, and join; return the error of a skipped interface, if any."""
        skipped: MulticastOSError | None = None
        held = self._open.get(plan.key)
        if held is None:
            try:
                held = self._open_socket(plan)
            except MulticastOSError as error:
                self._skip_or_raise(error, plan.joins)
                return error
        try:
            for change in plan.joins:
                join = change.join
                try:
                    sources = 0 if join.source is None else held.sources(join)
                    # Noted first: what is interrupted is then known, and can be undone.
                    self._homes[change.key] = held
                    held.add(change.key, join)
                    change_membership(self._kernel, held.socket, change, sources)
                    iface = join.interface.iface
                    self._source.name_interface(iface.index, iface.display_name)
                except MulticastOSError as error:
                    self._drop(join, held)
                    self._skip_or_raise(error, (change,))
                    skipped = error
        finally:
            if not (held.joins or held.standing):
                self._forget_sockets([held])
        return skipped

    def _skip_or_raise(self, error: MulticastOSError, changes: Iterable[Change]) -> None:
        named = any(change.join.interface.required for change in changes)
        if named or error_name(self._kernel, error) not in _INTERFACE_ERRORS:
            raise error
        warn(f"{error} This interface is skipped, because it was only part of all interfaces.")

    def remove(self, joins: Iterable[Join]) -> None:
        """Leave; a socket without memberships is closed."""
        with self.lock:
            emptied = []
            try:
                for join in joins:
                    held = self._homes.get(join.key)
                    if held is None:
                        # It was part of all interfaces and could not be joined.
                        continue
                    if len(held.joins) > 1 or held.standing:
                        self._leave(held, join)
                    emptied += self._drop(join, held)
            finally:
                self._forget_sockets(emptied)

    def _leave(self, held: ReceiveSocket, join: Join) -> None:
        change_membership(self._kernel, held.socket, join.change(self._kernel.platform, join.leave_operation))

    def change_source(self, join: Join, operation: Operation, count: int) -> None:
        """Block or unblock the source of `join` in the any-source membership of its group and interface."""
        with self.lock:
            held = self._homes.get(join._replace(source=None).key)
            if held is not None:
                change_membership(self._kernel, held.socket, join.change(self._kernel.platform, operation), count)

    def forget(self, interface_index: int) -> None:
        """Give up the memberships on an interface that is gone or has lost them; what was received on it is kept.

        The kernel leaves the dead entries on the socket, where they take up room until they are left.
        """
        with self.lock:
            lost = [join for held in self._open.values() for join in held.joins.values()]
            self.give_up([join for join in lost if join.interface.iface.index == interface_index])

    def holds(self, join: Join) -> bool:
        """Return whether this membership is held already."""
        return join.key in self._homes

    def undo(self, joins: Iterable[Join]) -> None:
        """Leave, wherever an interrupt or an error has left what concerns these memberships."""
        with self.lock:
            self.give_up(joins, keep=False)
            self._forget_sockets([held for held in self._open.values() if not (held.joins or held.standing)])

    def give_up(self, joins: Iterable[Join], keep: bool = True) -> None:
        """Leave, whatever the kernel says to it; `keep`: what was received is kept. `lock` is held."""
        emptied = []
        for join in joins:
            held = self._homes.get(join.key)
            if held is None:
                continue
            if keep and len(held.joins) == 1 and not held.standing:
                self._source.drain(held)
            # Closing the socket is not enough: a program that is just being started holds it open until it runs, and at
            # that later moment Linux would leave, by the index, what was joined anew meanwhile.
            with suppress(MulticastOSError):
                self._leave(held, join)
            emptied += self._drop(join, held)
        self._forget_sockets(emptied)

    def _drop(self, join: Join, held: ReceiveSocket) -> list[ReceiveSocket]:
        """Forget a membership; return its socket if that has no other."""
        held.discard(join)
        # Last: as long as it is here, an interrupted change is found again.
        self._homes.pop(join.key, None)
        return [] if held.joins or held.standing else [held]

    # Sockets

    def _open_socket(self, plan: SocketPlan) -> ReceiveSocket:
        sock, filtered = open_socket(self._kernel, plan, self._screened(plan))
        return self._hold(plan, sock, filtered)

    def _screened(self, plan: SocketPlan) -> Callable[[Socket], None] | None:
        """Return what keeps from a new socket what its owner sends."""
        echo, system = self.echo, self._kernel
        if echo is None:
            return None

        def screen(sock: Socket) -> None:
            try:
                echo.screen(sock, not plan.joins)
            except OSError as error:
                raise os_error(system, error, "set option", "keep out what this program sends itself") from error

        return screen

    def _hold(self, plan: SocketPlan, sock: Socket, filtered: bool) -> ReceiveSocket:
        filtered = filtered or (self.echo is not None and self.echo.by_payload)
        held = ReceiveSocket(plan.key, sock, filtered, self._source.by_descriptor)
        if plan.hosts:
            held.hosts = frozenset(plan.hosts)
        held.standing = not plan.joins
        try:
            self._source.add(held)
            if self.closed:
                # By a signal handler, since this began.
                raise NotOpenError("The receiver was closed while it was being used.")
            self._open[plan.key] = held
        except BaseException:
            self._source.retire([held])
            raise
        return held

    def stand(self, plans: Iterable[SocketPlan]) -> list[MulticastOSError]:
        """Keep exactly these sockets open beside those of the memberships and the lent ones.

        Returns the errors of those whose address is not there yet, or whose port another socket had first.
        """
        refused = []
        with self.lock:
            wanted = {plan.key: plan for plan in plans}
            gone = [
                held for held in list(self._open.values()) if held.standing and not held.lent and held.key not in wanted
            ]
            self._forget_sockets(gone)
            for key, plan in wanted.items():
                if key not in self._open:
                    try:
                        self._open_socket(plan)
                    except MulticastOSError as error:
                        yielded = bool(plan.sharing) and error_name(self._kernel, error) == "EADDRINUSE"
                        if not yielded and error_name(self._kernel, error) not in _INTERFACE_ERRORS:
                            raise
                        refused.append(error)
        return refused

    def lend(self, plan: SocketPlan, sock: Socket) -> None:
        """Receive from a socket that a sender opened; `take_back` closes it."""
        with self.lock:
            before = self._open.get(plan.key)
            joins = [] if before is None else list(before.joins.values())
            if before is not None:
                self.take_back(before.socket)
            held = self._hold(plan, sock, plan.filtered)
            held.lent = True
            self.add(joins)

    def take_back(self, sock: Socket) -> None:
        """Close a socket that was lent, which keeps its memberships from being used any longer."""
        with self.lock:
            lent = [held for held in list(self._open.values()) if held.socket is sock]
            for held in lent:
                for join in held.joins.values():
                    self._homes.pop(join.key, None)
            self._forget_sockets(lent)

    def bound_to(self, address: str) -> Socket | None:
        """Return the socket that is bound to an address of this host (ANY_HOST: to all), if there is one."""
        with self._looking():
            return next((held.socket for held in list(self._open.values()) if address in held.hosts), None)

    def _forget_sockets(self, sockets: list[ReceiveSocket]) -> None:
        drops = sum(held.drops(self._kernel.platform) or 0 for held in sockets)
        self._source.retire(sockets)
        self._past_drops += drops
        for held in sockets:
            if self._open.get(held.key) is held:
                del self._open[held.key]

    def close(self) -> None:
        """Close everything and wake every waiting thread; a second call finishes what an interrupt left undone."""
        self.closed = True
        self._source.close()
        # New ones: another thread, or the one that this interrupts, may go through the old ones.
        self._open, self._homes = {}, {}

    def abandon(self) -> None:
        """Let the child of a fork keep what it inherited, to read; a change has to open sockets of its own first."""
        self._source.abandon()
        self.lock = self._source.changes
        self._changing = False
        self.inherited = True

    @contextmanager
    def own(self) -> Iterator[None]:
        """In the child of a fork: a block that opens sockets of its own; then close the copies of the parent's.

        The parent's memberships stay, and sockets that receive unicast stay shared with it: a second one would take it
        away. What the block raises leaves the copies in use.
        """
        with self.lock:
            copies, homes = self._open, self._homes
            self._open = {key: held for key, held in copies.items() if held.standing}
            self._homes = {}
            try:
                yield
                self.inherited = False
            except BaseException:
                self._forget_sockets([held for held in list(self._open.values()) if not held.standing])
                self._open, self._homes = copies, homes
                raise
            self._forget_sockets([held for held in copies.values() if not held.standing])

    def network_namespace(self) -> int:
        """Return a number for the network namespace of its sockets, or of this thread when none is open."""
        return namespace_of(self._kernel, [held.socket for held in list(self._open.values())])

    def name_interface(self, index: int, name: str) -> None:
        """Call the interface so in datagrams from now on."""
        self._source.name_interface(index, name)

    # Facts

    @contextmanager
    def _looking(self) -> Iterator[None]:
        """Wait for a change that is under way, but only a moment.

        The thread that makes it may wait for this one, whose signal handler asks.
        """
        held: list[bool] = []
        try:
            # One step of C takes the lock and notes it: an interrupt cannot leave it taken.
            held.extend(map(self.lock.acquire, (True,), (GLIMPSE,)))
            yield
        finally:
            if True in held:
                self.lock.release()

    def sockets(self) -> list[Socket]:
        """Return the open sockets."""
        with self._looking():
            return [held.socket for held in list(self._open.values()) if not held.closed]

    def filenos(self) -> list[int]:
        """Return the descriptors of the open sockets."""
        with self._looking():
            return [held.socket.fileno() for held in list(self._open.values()) if not held.closed]

    def receive_buffers(self) -> list[int]:
        """Return the receive buffer of every socket, in the bytes that `receive_buffer=` asks for."""
        platform = self._kernel.platform
        with self._looking():
            try:
                return [held.receive_buffer(platform) // platform.buffer_factor for held in list(self._open.values())]
            except OSError as error:
                if not self.closed:
                    raise os_error(self._kernel, error, "option", "read the receive buffer") from error
                raise NotOpenError("The receiver was closed while it was being used.") from None

    def kernel_drops(self) -> int | None:
        """Return how many datagrams the kernel dropped so far because a buffer was full; None: it does not say."""
        with self._looking():
            drops = [held.drops(self._kernel.platform) for held in list(self._open.values())]
        known = [count for count in drops if count is not None]
        return None if len(known) < len(drops) else self._past_drops + sum(known)
