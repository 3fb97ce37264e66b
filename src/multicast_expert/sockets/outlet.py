"""Outlet: one interface that datagrams leave from, wherever it is now; and the steps of sending out of several."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from contextlib import suppress
from time import sleep
from typing import Literal, NamedTuple, Protocol, TypeVar

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError, NotOpenError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice, missing_interface
from multicast_expert.core.plan import SocketPlan, dscp_option, plan_waiting
from multicast_expert.core.tracking import Place, asked_name, holds, locate, seen
from multicast_expert.engine import SendSocket, error_name
from multicast_expert.engine.batches import LONGEST_BATCH, batches
from multicast_expert.engine.opening import set_option
from multicast_expert.engine.waitset import WaitSet
from multicast_expert.sockets.healing import Events, HealingEvent
from multicast_expert.system import kernel
from multicast_expert.system.changes import Changes
from multicast_expert.system.interfaces import interface_exists, scan_interfaces
from multicast_expert.system.kernel import Socket

Result = TypeVar("Result")

_PAUSES = (0.001, 0.002, 0.004, 0.008, 0.016, 0.0)
"""Seconds between attempts to bind the port of a socket that was just closed: a program that is just being started by
another thread holds it open until it runs."""

# What a send answers when its interface was deleted, or lost the address that the socket is bound to.
_INTERFACE_CHANGED = ("ENODEV", "ENXIO", "ENETUNREACH", "EADDRNOTAVAIL", "EINVAL", "ENETDOWN", "EHOSTUNREACH")


class Absence(NamedTuple):
    """What its owner wants to be done and told while an interface is missing."""

    allowed: bool
    """Whether the interface may be missing from the start."""
    events: Events
    groups: int
    """How many groups are sent to, for the events."""


class Owner(Protocol):
    """Receives by the sockets that outlets send by."""

    port: int
    """The port to send from, which is shared with others."""

    def lock(self) -> threading.RLock | None:
        """Return the lock that `opened` and `closing` take; None: each outlet has its own."""

    def opened(self, sock: SendSocket, plan: SocketPlan, /) -> None:
        """Use each new socket, too."""

    closing: Callable[[Socket], None] | None
    """Closes a socket that its owner uses, too."""


class Outlet:
    """One interface that a transmitter sends from, with its open socket; finds the interface again when it is back.

    One reentrant lock covers sending, renewing and closing: of many threads that meet a lost interface, one renews the
    socket, and none uses it afterwards. A signal handler may send, and close, while its own thread sends. The watch for
    interface changes calls `give_up` and `restore`.

    It always has a socket. While the interface is missing, that one only keeps the port, and every send looks for the
    interface and raises if it is still missing.
    """

    def __init__(
        self,
        version: int,
        choice: InterfaceChoice,
        hop_limit: int,
        dscp: int | None,
        planned: Callable[[InterfaceChoice, int, int | None], SocketPlan],
        heal: bool,
        absence: Absence,
        owner: Owner | None = None,
    ) -> None:
        """`planned` returns the socket to open for an interface, a port and a DSCP."""
        self.asked: InterfaceChoice = choice
        """The interface that was asked for, as it was last seen; another one is in use while it is a port of that."""
        if absence.allowed and not choice.iface.addresses(version):
            choice = InterfaceChoice(missing_interface(choice.iface.display_name))
        self.choice: InterfaceChoice = choice
        """The interface in use, as it was last seen."""
        self.is_missing: bool = choice.iface.index == 0
        """Whether there is no interface to send from at this moment."""
        self._version = version
        self._hop_limit, self._dscp = hop_limit, dscp
        self._plan_present = planned
        self._heal = heal
        self._absence = absence
        self._owner = owner
        self._plan = self._planned(choice, self._shared_port)
        self._lock = self._new_lock()
        self._busy = False
        """Whether a thread sends now. A send that finds it set interrupts another one of its own thread."""
        self._inherited = False
        """Whether the socket is a parent's, from before a fork: to send with, and not to be changed."""
        self._closed = True
        self._is_refused = False
        """Whether the OS refused the socket for an interface that is there."""
        self.socket: SendSocket

    def _planned(self, choice: InterfaceChoice, port: int) -> SocketPlan:
        if not choice.iface.index:
            return plan_waiting(kernel.SYSTEM.platform, self._version, port)
        return self._plan_present(choice, port, self._dscp)

    @property
    def _shared_port(self) -> int:
        return 0 if self._owner is None else self._owner.port

    def _new_lock(self) -> threading.RLock:
        return (None if self._owner is None else self._owner.lock()) or threading.RLock()

    @property
    def plan(self) -> SocketPlan:
        """What its socket was opened by."""
        return self._plan

    def open(self) -> None:
        """Open the socket."""
        if self._heal and self.choice.iface.master is not None:
            self._divert()
        self.is_missing = self.choice.iface.index == 0
        self.socket = self._opened(self._plan)
        self._inherited = False
        self._closed = False

    def _divert(self) -> None:
        """Use the bridge or bond that the interface is a port of, if that has an address."""
        place = self._locate(scan_interfaces(), Changes())
        if place is not None and place.used.index != self.choice.iface.index:
            with suppress(MulticastExpertError):
                choice = self._source(place)
                self._plan = self._planned(choice, 0)
                self.choice = choice
                self._note("sending", place.reason(self.asked, self.choice.iface), soon=True)

    def _opened(self, plan: SocketPlan, iface: IfaceInfo | None = None) -> SendSocket:
        owner = self._owner
        closing = None if owner is None else owner.closing
        opened = SendSocket(kernel.SYSTEM, plan, iface or self.choice.iface, self._hop_limit, closing)
        if owner is not None:
            try:
                owner.opened(opened, plan)
            except BaseException:
                opened.close()
                raise
        return opened

    def send(self, data: bytes, address: IPv4Or6Address, hop_limit: int) -> bool:
        """Send one datagram; return False when there is no room for it yet. Raises MulticastExpertError."""
        return self._attempt(lambda sock: sock.try_send(data, address), address, hop_limit)

    def send_many(self, payloads: Sequence[bytes], address: IPv4Or6Address, hop_limit: int) -> int:
        """Send as many datagrams as there is room for now; return how many. Raises only where none went."""
        return self._attempt(lambda sock: sock.try_send_many(payloads, address), address, hop_limit)

    def send_to_host(
        self, data: bytes, address: IPv4Or6Address, hop_limit: int | None, origin: tuple[bytes, int] | None = None
    ) -> bool:
        """Send one datagram to a host; see `SendSocket.try_send_to_host`. Raises MulticastExpertError."""
        return self._attempt(lambda sock: sock.try_send_to_host(data, address, hop_limit, origin), address, None)

    def _attempt(self, send: Callable[[SendSocket], Result], address: IPv4Or6Address, hop_limit: int | None) -> Result:
        with self._lock:
            before = self.socket.hop_limit
            interrupting, self._busy = self._busy, True
            try:
                while True:
                    if self.is_missing and not self._follow(self._look(), settle=True) and not self._closed:
                        raise self._missing_error(address)
                    sock = self.socket
                    try:
                        if hop_limit is None:
                            return send(sock)
                        if self._inherited and hop_limit != sock.hop_limit:
                            self._own_socket()
                            continue
                        sock.set_hop_limit(hop_limit)
                        return send(sock)
                    except MulticastOSError as error:
                        if sock.closed and sock is self.socket:
                            raise NotOpenError("The sender was closed while it was being used.") from None
                        if sock is self.socket and not self._renew(error):
                            raise
            finally:
                self._busy = interrupting
                if interrupting and before < 0:
                    # The interrupted send was about to set its own.
                    self.socket.forget_hop_limit()
                elif interrupting and self.socket.hop_limit != before:
                    self.socket.set_hop_limit(before)

    def change_dscp(self, dscp: int | None) -> None:
        """Let what leaves from now on have another priority mark, or with None that of the system, which is 0.

        Raises MulticastOSError.
        """
        with self._lock:
            self._dscp = dscp
            self._plan = self._planned(self.choice, self._plan.address[1])
            if self._closed or self.is_missing:
                return
            if self._inherited:
                self._own_socket()
            else:
                option = dscp_option(kernel.SYSTEM.platform, self._version, dscp or 0)
                set_option(kernel.SYSTEM, self.socket.socket, option)

    def _own_socket(self) -> None:
        """In the child of a fork: send with a socket that is not the parent's."""
        old, self.socket = self.socket, self._opened(self._planned(self.choice, self._shared_port))
        self._inherited = False
        # The copy of the parent's holds the port until it is closed.
        old.close()

    def cope(self, error: OSError, data: bytes, address: IPv4Or6Address) -> None:
        """Raise the error of a datagram that the shortcut could not send, unless there is a new socket to try."""
        with self._lock:
            failure = self.socket.refusal(error, data, address)
            if not self._renew(failure):
                raise failure from error

    def wait(self) -> None:
        """Wait until there is room to send, or this is closed or renewed."""
        self.room()[1].wait(None)

    def room(self) -> tuple[SendSocket, WaitSet[bool]]:
        """Return the socket of this moment, and the set to wait in until it has room to send."""
        with self._lock:
            return self.socket, self.socket.waitset()

    def _with_its_port(self, iface: IfaceInfo) -> SendSocket | None:
        """Return the socket of the plan; None where its port is taken, or the interface is gone already."""
        for pause in _PAUSES:
            try:
                return self._opened(self._plan, iface)
            except MulticastOSError as error:
                if error_name(kernel.SYSTEM, error) != "EADDRINUSE":
                    break
            sleep(pause)
        return None

    # The interface comes, goes and moves

    def _missing_error(self, address: IPv4Or6Address) -> MulticastOSError:
        """Return the error to raise for a datagram while the interface is missing."""
        doing = f"send to {address[0]} port {address[1]} out of {asked_name(self.asked)}"
        return MulticastOSError(
            errno.ENODEV,
            "send",
            f"Cannot {doing}: {os.strerror(errno.ENODEV)} (ENODEV {errno.ENODEV})",
            f"the interface is missing, or has no IPv{self._version} address",
            "send again when it is there (mcast interfaces lists those that are)",
        )

    def _note(self, kind: Literal["silent", "sending"], reason: str = "", soon: bool = False) -> None:
        absence = self._absence
        absence.events.note(HealingEvent(kind, self.choice.iface.display_name, absence.groups, reason), soon)

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Send nothing any more from an interface that is gone; called by the watch for interface changes."""
        with self._lock:
            if self._closed:
                return
            place = self._locate(ifaces, changes)
            used = self.choice.iface.index
            is_gone = used in changes.deleted or not (
                any(iface.index == used for iface in ifaces) or interface_exists(used)
            )
            if not self.is_missing and (is_gone or (place is None and not self.asked.iface.index)):
                self.is_missing = True
                self.socket.mute()
                self._note("silent")

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Send from where the interface is now; return whether to be called again soon. Called by the watch."""
        with self._lock:
            self._is_refused = False
            self._follow(ifaces, settle=False)
            return self._is_refused

    def _look(self) -> list[IfaceInfo]:
        return scan_interfaces() if self._heal else []

    def _locate(self, ifaces: Iterable[IfaceInfo], changes: Changes) -> Place | None:
        """Return where the interface is that was asked for, and note what it looks like now."""
        by_index = {iface.index: iface for iface in ifaces}
        index = self.asked.iface.index
        is_deleted = not index or index in changes.deleted or not (index in by_index or interface_exists(index))
        self.asked = seen(self.asked, by_index, is_deleted, changes.names)
        place = locate(self.asked, by_index, kernel.SYSTEM.platform.names_ignore_case)
        if place is not None:
            self.asked = self.asked._replace(iface=place.asked)
        return place

    def _source(self, place: Place) -> InterfaceChoice:
        """Return the interface to use with the address that was asked for, else the one of now, else any."""
        choice = place.choice(self.asked)
        if choice.address is None or choice.address.version != self._version:
            own = [entry.ip for entry in place.used.addresses(self._version)]
            kept = [each for each in own if str(each).partition("%")[0] == self._plan.address[0]]
            choice = choice._replace(address=kept[0] if kept else None)
        return choice

    def _should_move(self, place: Place) -> bool:
        """Return whether to open a socket in this place before a send fails.

        An address that was asked for is waited for; and as long as the interface stays the same, a send finds out.
        """
        address = self.asked.address
        if address is not None and address.version == self._version:
            if holds(place.used, address):
                return True
            if not holds(place.asked, address):
                return False
        return self.is_missing or place.used.index != self.choice.iface.index

    def _renew(self, error: MulticastOSError) -> bool:
        """Open the socket anew if the interface is there with another index or address; return whether it was."""
        if not self._heal or error_name(kernel.SYSTEM, error) not in _INTERFACE_CHANGED:
            return False
        ifaces = scan_interfaces()
        asked = self.asked.iface
        # Another interface may have the index already, which the watch will find out in a moment.
        replaced = {
            asked.index for each in ifaces if each.machine_name == asked.machine_name and each.index != asked.index
        }
        return self._follow(ifaces, settle=True, deleted=replaced)

    def _follow(self, ifaces: list[IfaceInfo], settle: bool, deleted: Collection[int] = ()) -> bool:
        """Open the socket anew where the interface is now; return whether there is a new one.

        `settle`: do so with another address than the one that was asked for, if need be.
        """
        if self._closed:
            return False
        place = self._locate(ifaces, Changes(frozenset(deleted)))
        if place is None:
            return False
        if place.used.index == self.choice.iface.index:
            self.choice = self.choice._replace(iface=place.used)
        if not settle and not self._should_move(place):
            return False
        choice = self._source(place)
        try:
            if self._planned(choice, self._plan.address[1]) == self._plan and not self.is_missing:
                return False
            # An address may still be tentative; then the old socket stays, for the next attempt to start from.
            spare = self._opened(self._planned(choice, self._shared_port), place.used)
        except MulticastExpertError as error:
            self._is_refused = isinstance(error, MulticastOSError)
            return False
        old, self.socket = self.socket, spare
        before, self.choice = self.choice.iface, choice
        port = self._shared_port or old.socket.getsockname()[1]
        self._plan = self._planned(choice, port)
        old.close()
        # Better another port than no socket.
        kept = None if self._shared_port else self._with_its_port(place.used)
        if kept is not None:
            self.socket = kept
            spare.close()
        self._inherited = False
        was_missing, self.is_missing = self.is_missing, False
        if self._closed:
            # By a signal handler, since this began.
            self.socket.close()
        if place.used.index == before.index and not was_missing:
            self._note("sending", "its address has changed", soon=settle)
        elif was_missing and place.asked.index == place.used.index:
            self._note("sending", soon=settle)
        else:
            self._note("sending", place.reason(self.asked, before), soon=settle)
        return True

    def follow(self, choice: InterfaceChoice) -> None:
        """Send out of the interface as it is now: it may have another index or address. Raises MulticastExpertError."""
        with self._lock:
            plan = self._planned(choice, self._plan.address[1])
            if plan != self._plan and not self.socket.closed:
                fresh = self._opened(plan, choice.iface)
                old, self.socket, self._plan = self.socket, fresh, plan
                old.close()
            self.asked = self.choice = choice

    def close(self) -> None:
        """Close the socket and wake every waiting thread."""
        with self._lock:
            self._closed = True
            self.socket.close()

    def abandon(self) -> None:
        """In the child of a fork: send with the parent's socket, and open an own one for another hop limit."""
        self._lock = self._new_lock()
        self._busy = False
        self._inherited = True
        self.socket.abandon()


def sending_one(
    outlets: Sequence[Outlet], send: Callable[[Outlet], bool], check: Callable[[], None]
) -> Generator[Outlet, None, None]:
    """Send one datagram out of every interface; yields an outlet that has to be waited for.

    `send` sends it out of one, and returns False when there is no room. All are tried before an error of one is raised;
    that of an interface which the user did not name matters only if nothing left at all. `check` is called after each
    wait, and raises when all is over.
    """
    failure: MulticastOSError | None = None
    matters, left = True, False
    for outlet in outlets:
        try:
            while not send(outlet):
                yield outlet
                check()
        except MulticastOSError as error:
            if failure is None or (outlet.asked.required and not matters):
                failure, matters = error, outlet.asked.required
        else:
            left = True
    if failure is not None and (matters or not left):
        raise failure


def sending_many(
    outlets: Sequence[Outlet],
    payloads: Iterable[bytes],
    send: Callable[[Outlet, Sequence[bytes]], int],
    check: Callable[[], None],
    limit: int = LONGEST_BATCH,
) -> Generator[Outlet | None, None, int]:
    """Send many datagrams out of every interface; return how many went out of all.

    Yields an outlet that has to be waited for, and None after each batch of at most `limit` payloads. `send` sends as
    many as there is room for out of one, and `check` is called before, and raises when all is over.
    """
    total = 0
    for batch in batches(payloads, limit, at_once=len(outlets) == 1):
        failure: MulticastOSError | None = None
        gone = len(batch)
        for outlet in outlets:
            sent = 0
            try:
                while True:
                    check()
                    went = send(outlet, batch[sent:])
                    sent += went
                    if sent == len(batch):
                        break
                    if not went:
                        yield outlet
            except MulticastOSError as error:
                if failure is None or sent < gone:
                    failure, gone = error, sent
                # The other interfaces send up to the datagram that this one refused.
                batch = batch[: gone + 1]  # noqa: PLW2901
        total += gone
        if failure is not None:
            if not total:
                raise failure
            break
        yield None
    return total
