"""Outlet: one interface that datagrams leave from; and the steps of sending out of several, without the waiting."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import suppress
from typing import TypeVar

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.plan import SocketPlan
from multicast_expert.engine import SendSocket, error_name
from multicast_expert.engine.batches import LONGEST_BATCH, batches
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.system.kernel import Socket

Result = TypeVar("Result")

logger: logging.Logger = logging.getLogger("multicast_expert")

# What a send answers when its interface was deleted, or lost the address that the socket is bound to.
_INTERFACE_CHANGED = ("ENODEV", "ENXIO", "ENETUNREACH", "EADDRNOTAVAIL", "EINVAL", "ENETDOWN", "EHOSTUNREACH")


class Outlet:
    """One interface that a transmitter sends from, with its open socket; finds the interface again when it is back.

    One reentrant lock covers sending, renewing and closing: of many threads that meet a lost interface, one renews the
    socket, and none uses it afterwards. A signal handler may send, and close, while its own thread sends.
    """

    def __init__(
        self,
        choice: InterfaceChoice,
        hop_limit: int,
        planned: Callable[[InterfaceChoice, int], SocketPlan],
        heal: bool,
        port: int = 0,
        opened: Callable[[SendSocket, SocketPlan], None] | None = None,
        closing: Callable[[Socket], None] | None = None,
        lock: threading.RLock | None = None,
    ) -> None:
        """`planned` returns the socket to open for an interface and a port.

        `port`: the port to send from, which is shared with others; 0: any. `opened` is called with each new socket, and
        `closing` closes one, where its owner uses it too. `lock` is the owner's, if these two take it.
        """
        self.choice: InterfaceChoice = choice
        self._hop_limit = hop_limit
        self._heal = heal
        self._planned = planned
        self._is_shared = port != 0
        self._announce = opened
        self._closing = closing
        self._plan = planned(choice, port)
        self._lock = lock or threading.RLock()
        self._busy = False
        """Whether a thread sends now. A send that finds it set interrupts another one of its own thread."""
        self._inherited = False
        """Whether the socket is a parent's, from before a fork: to send with, and not to be changed."""
        self.socket: SendSocket

    def open(self) -> None:
        """Open the socket."""
        self.socket = self._opened(self._plan)
        self._inherited = False

    def _opened(self, plan: SocketPlan, iface: IfaceInfo | None = None) -> SendSocket:
        opened = SendSocket(kernel.SYSTEM, plan, iface or self.choice.iface, self._hop_limit, self._closing)
        if self._announce is not None:
            try:
                self._announce(opened, plan)
            except BaseException:
                opened.close()
                raise
        return opened

    @property
    def plan(self) -> SocketPlan:
        """What its socket was opened by."""
        return self._plan

    def send(self, data: bytes, address: IPv4Or6Address, hop_limit: int) -> bool:
        """Send one datagram; return False when there is no room for it yet. Raises MulticastExpertError."""
        return self._attempt(lambda sock: sock.try_send(data, address), hop_limit)

    def send_many(self, payloads: Sequence[bytes], address: IPv4Or6Address, hop_limit: int) -> int:
        """Send as many datagrams as there is room for now; return how many. Raises only where none went."""
        return self._attempt(lambda sock: sock.try_send_many(payloads, address), hop_limit)

    def send_to_host(
        self, data: bytes, address: IPv4Or6Address, hop_limit: int | None, origin: tuple[bytes, int] | None = None
    ) -> bool:
        """Send one datagram to a host; see `SendSocket.try_send_to_host`. Raises MulticastExpertError."""
        return self._attempt(lambda sock: sock.try_send_to_host(data, address, hop_limit, origin), None)

    def _attempt(self, send: Callable[[SendSocket], Result], hop_limit: int | None) -> Result:
        with self._lock:
            before = self.socket.hop_limit
            interrupting, self._busy = self._busy, True
            try:
                while True:
                    sock = self.socket
                    try:
                        if hop_limit is None:
                            return send(sock)
                        if self._inherited and hop_limit != sock.hop_limit:
                            self.socket = self._opened(self._plan)
                            self._inherited = False
                            sock.close()
                            continue
                        sock.set_hop_limit(hop_limit)
                        return send(sock)
                    except MulticastOSError as error:
                        if sock.closed and sock is self.socket:
                            raise MulticastExpertError("The sender was closed while it was being used.") from None
                        if sock is self.socket and not self._renew(error):
                            raise
            finally:
                self._busy = interrupting
                if interrupting and before < 0:
                    # The interrupted send was about to set its own.
                    self.socket.hop_limit = -1
                elif interrupting and self.socket.hop_limit != before:
                    self.socket.set_hop_limit(before)

    def cope(self, error: OSError, data: bytes, address: IPv4Or6Address) -> None:
        """Raise the error of a datagram that the shortcut could not send, unless there is a new socket to try."""
        with self._lock:
            failure = self.socket.refusal(error, data, address)
            if not self._renew(failure):
                raise failure from error

    def wait(self) -> None:
        """Wait until there is room to send, or this is closed."""
        with self._lock:
            waitset = self.socket.waitset()
        waitset.wait(None)

    def _renew(self, error: MulticastOSError) -> bool:
        """Open the socket anew if the interface is there with another index or address; return whether it was."""
        if not self._heal or error_name(kernel.SYSTEM, error) not in _INTERFACE_CHANGED:
            return False
        named = self.choice.iface.machine_name
        iface = next((each for each in scan_interfaces() if each.machine_name == named), None)
        if iface is None:
            return False
        address = self.choice.address
        if address is not None and all(own.packed != address.packed for own in iface.addresses(address.version)):
            address = None
        choice = InterfaceChoice(iface, address)
        try:
            if self._planned(choice, self._plan.address[1]) == self._plan:
                return False
            # An address may still be tentative; then the old socket stays, for the next attempt to start from.
            port = self._plan.address[1] if self._is_shared else 0
            spare = self._opened(self._planned(choice, port), iface)
        except MulticastExpertError:
            return False
        old, self.socket = self.socket, spare
        self.choice = choice
        if self._is_shared:
            self._plan = self._planned(choice, port)
            old.close()
            logger.info("sending on %s again", iface.display_name)
            return True
        port = old.socket.getsockname()[1]
        self._plan = self._planned(choice, port)
        old.close()
        # Better another port than no socket.
        with suppress(MulticastOSError):
            self.socket = self._opened(self._plan, iface)
            spare.close()
        logger.info("sending on %s again", iface.display_name)
        return True

    def follow(self, choice: InterfaceChoice) -> None:
        """Send out of the interface as it is now: it may have another index or address. Raises MulticastExpertError."""
        with self._lock:
            plan = self._planned(choice, self._plan.address[1])
            if plan != self._plan and not self.socket.closed:
                fresh = self._opened(plan, choice.iface)
                old, self.socket, self._plan = self.socket, fresh, plan
                old.close()
            self.choice = choice

    def close(self) -> None:
        """Close the socket and wake every waiting thread."""
        with self._lock:
            self.socket.close()

    def abandon(self, lock: threading.RLock | None = None) -> None:
        """In the child of a fork: send with the parent's socket, and open an own one for another hop limit."""
        self._lock = lock or threading.RLock()
        self._busy = False
        self._inherited = True
        self.socket.abandon()


def sending_one(
    outlets: Sequence[Outlet], send: Callable[[Outlet], bool], check: Callable[[], None]
) -> Generator[Outlet, None, None]:
    """Send one datagram out of every interface; yields an outlet that has to be waited for.

    `send` sends it out of one, and returns False when there is no room. All are tried before an error of one is raised.
    `check` is called after each wait, and raises when all is over.
    """
    failure: MulticastOSError | None = None
    for outlet in outlets:
        try:
            while not send(outlet):
                yield outlet
                check()
        except MulticastOSError as error:
            failure = failure or error
    if failure is not None:
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
