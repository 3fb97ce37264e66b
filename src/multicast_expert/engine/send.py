"""SendEngine: the open socket that sends out of one interface. Never waits, except in `wait`.

Several threads may send at once, and one may close it while others wait.
"""

from __future__ import annotations

import selectors
import socket
import threading
from collections.abc import Sequence
from typing import Protocol

from multicast_expert import extension
from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.core.plan import SocketPlan
from multicast_expert.engine import offload as segmentation
from multicast_expert.engine.offload import ALONE, Limits
from multicast_expert.engine.opening import error_name, open_socket, os_error, set_option
from multicast_expert.engine.waitset import Waiter
from multicast_expert.system.kernel import Kernel, Socket


class Shortcut(Protocol):
    """Sends from one socket what needs no more checks; the extension has one.

    Before the socket is closed, or its hop limit changes, it has to be told.
    """

    def set_hop_limit(self, hop_limit: int, /) -> None:
        """Tell it what the socket has from now on; -1: nothing may go this way.

        Returns when no send is under way that began before.
        """

    def send(self, data: bytes, address: IPv4Or6Address, hop_limit: int, /) -> bool:
        """Send one datagram and return True; or False, and nothing happened: it has to go the long way.

        That is so where it was not told the address or the hop limit is another, and while there is no room. Raises
        OSError.
        """

    def learn(self, address: IPv4Or6Address, /) -> None:
        """Remember that datagrams may go to this address, unless it is of another form than the usual one."""


class SendEngine:
    """The open socket that sends out of one interface."""

    def __init__(self, kernel: Kernel, plan: SocketPlan, iface: IfaceInfo, hop_limit: int) -> None:
        self._kernel = kernel
        self._interface = iface.display_name
        self._mtu = iface.mtu
        self._version = plan.version
        self._hop_limit = hop_limit
        # Windows refuses a datagram to the loopback interface with "network unreachable" while nobody has joined there.
        unheard = iface.is_localhost() and kernel.platform.name == "windows"
        self._unheard = "ENETUNREACH" if unheard else None
        self._lock = threading.Lock()
        self._waiter: Waiter[bool] | None = None
        self._closed = False
        self._limits: Limits | None = None
        self.socket: Socket = open_socket(kernel, plan)[0]
        self.shortcut: Shortcut | None = None
        """Where there is one, it does the same as `try_send`, much sooner."""
        if extension.native is not None and isinstance(self.socket, socket.socket):
            self.shortcut = extension.native.Shortcut(self.socket.fileno(), hop_limit)

    def _set_hop_limit(self, hop_limit: int) -> None:
        if hop_limit != self._hop_limit:
            self._open_shortcut(-1)
            try:
                set_option(self._kernel, self.socket, self._kernel.platform.hop_limit(self._version, hop_limit))
                self._hop_limit = hop_limit
            finally:
                self._open_shortcut(self._hop_limit)

    def _open_shortcut(self, hop_limit: int) -> None:
        """Let datagrams of this hop limit go the short way; -1: none."""
        if self.shortcut is not None:
            self.shortcut.set_hop_limit(hop_limit)

    def try_send(self, data: bytes, address: IPv4Or6Address, hop_limit: int) -> bool:
        """Send one datagram that may go so many hops; return False when the socket would have to wait for room."""
        try:
            with self._lock:
                self._set_hop_limit(hop_limit)
                self.socket.sendto(data, address)
        except BlockingIOError:
            return False
        except MulticastOSError:
            raise
        except OSError as error:
            if error_name(self._kernel, error) == self._unheard:
                return True
            raise self.refusal(error, data, address) from error
        return True

    def try_send_many(self, payloads: Sequence[bytes], address: IPv4Or6Address, hop_limit: int) -> int:
        """Send datagrams in order, as far as it goes now; return how many went.

        Fewer than given: the socket would have to wait for room, or the OS refused the next one; then calling again
        with the rest returns 0, or raises its error.
        """
        waiting = tuple(payloads)
        with self._lock:
            self._set_hop_limit(hop_limit)
            if self._limits is None:
                self._limits = segmentation.limits(self._kernel.platform, self.socket, self._version, self._mtu)
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
            went, refused, error = segmentation.send(self.socket, payloads, sent, len(payloads), address, limits)
            sent += went
            if refused > 1 and error is not None and not isinstance(error, BlockingIOError):
                # Whether the piece or its datagrams are at fault, they tell themselves, one by one.
                size = len(payloads[sent])
                went, _, alone = segmentation.send(self.socket, payloads, sent, sent + refused, address, ALONE)
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

    def waiter(self) -> Waiter[bool]:
        """Return what waits until there is room to send; one that does not wait, once this is closed."""
        with self._lock:
            if self._waiter is None:
                try:
                    self._waiter = Waiter()
                except OSError as error:
                    raise os_error(self._kernel, error, "wait", "wait for room to send") from error
                if self._closed:
                    self._waiter.close()
                else:
                    self._waiter.add(self.socket.fileno(), True, selectors.EVENT_WRITE)
            return self._waiter

    def wait(self, timeout: float | None) -> None:
        """Wait until there is room to send, or this is closed."""
        self.waiter().wait(timeout)

    def close(self) -> None:
        """Close the socket and wake whoever waits."""
        with self._lock:
            self._closed = True
            waiter = self._waiter
        if waiter is not None:
            waiter.close()
        with self._lock:
            # Not while the extension sends: its next call would go to whatever has that descriptor then.
            self._open_shortcut(-1)
            self.shortcut = None
            self.socket.close()
