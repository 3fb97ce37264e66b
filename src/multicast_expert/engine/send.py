"""SendEngine: the open socket that sends out of one interface. Never waits, except in `wait`.

Several threads may send at once, and one may close it while others wait.
"""

from __future__ import annotations

import selectors
import threading

from multicast_expert.addresses import IPv4Or6Address
from multicast_expert.engine.opening import error_name, open_socket, os_error, set_option
from multicast_expert.engine.waiter import Waiter
from multicast_expert.errors import MulticastOSError
from multicast_expert.interfaces import IfaceInfo
from multicast_expert.kernel import Kernel, Socket
from multicast_expert.plan import SocketPlan


class SendEngine:
    """The open socket that sends out of one interface."""

    def __init__(self, kernel: Kernel, plan: SocketPlan, iface: IfaceInfo, hop_limit: int) -> None:
        self._kernel = kernel
        self._interface = iface.display_name
        self._version = plan.version
        self._hop_limit = hop_limit
        # Windows refuses a datagram to the loopback interface with "network unreachable" while nobody has joined there.
        unheard = iface.is_localhost() and kernel.platform.name == "windows"
        self._unheard = "ENETUNREACH" if unheard else None
        self._lock = threading.Lock()
        self._waiter: Waiter[bool] | None = None
        self._closed = False
        self.socket: Socket = open_socket(kernel, plan)[0]

    def _set_hop_limit(self, hop_limit: int) -> None:
        if hop_limit != self._hop_limit:
            set_option(self._kernel, self.socket, self._kernel.platform.hop_limit(self._version, hop_limit))
            self._hop_limit = hop_limit

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
            doing = f"send {len(data)} bytes to {address[0]} port {address[1]} out of {self._interface}"
            words = {"group": address[0], "interface": self._interface, "port": address[1]}
            raise os_error(self._kernel, error, "send", doing, **words) from error
        return True

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
        self.socket.close()
