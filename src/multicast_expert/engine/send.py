"""SendEngine: the open socket that sends out of one interface. Never waits, except in `wait`."""

from __future__ import annotations

import selectors

from multicast_expert.addresses import IPv4Or6Address
from multicast_expert.engine.opening import error_name, open_socket, os_error, set_option
from multicast_expert.interfaces import IfaceInfo
from multicast_expert.kernel import Kernel
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
        self.socket, _ = open_socket(kernel, plan)

    def set_hop_limit(self, hop_limit: int) -> None:
        """Let the datagrams that follow go so many hops."""
        if hop_limit != self._hop_limit:
            set_option(self._kernel, self.socket, self._kernel.platform.hop_limit(self._version, hop_limit))
            self._hop_limit = hop_limit

    def try_send(self, data: bytes, address: IPv4Or6Address) -> bool:
        """Send one datagram; return False when the socket would have to wait for room."""
        try:
            self.socket.sendto(data, address)
        except BlockingIOError:
            return False
        except OSError as error:
            if error_name(self._kernel, error) == self._unheard:
                return True
            doing = f"send {len(data)} bytes to {address[0]} port {address[1]} out of {self._interface}"
            words = {"group": address[0], "interface": self._interface, "port": address[1]}
            raise os_error(self._kernel, error, "send", doing, **words) from error
        return True

    def wait(self, timeout: float | None) -> bool:
        """Wait until there is room to send; return whether there is."""
        with selectors.DefaultSelector() as selector:
            selector.register(self.socket.fileno(), selectors.EVENT_WRITE)
            return bool(selector.select(timeout))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close()
