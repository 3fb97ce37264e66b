"""Programs announce their names to a group, and whoever wants to know listens for them."""

from __future__ import annotations

import socket
import time

from multicast_expert import McastRxSocket, McastTxSocket

GROUP = "239.255.77.1"
PORT = 7701
LONGEST_NAME = 200


def announce(name: str, interface: str) -> None:
    """Tell the network that `name` is here."""
    if not 0 < len(name.encode()) <= LONGEST_NAME:
        raise ValueError(f"a name has 1 to {LONGEST_NAME} bytes, unlike {name!r}")
    with McastTxSocket(socket.AF_INET, [GROUP], iface=interface, enable_external_loopback=True) as sender:
        sender.sendto(name.encode(), (GROUP, PORT))


class Listener:
    """Hears who is there, from the moment that it is entered."""

    def __init__(self, interface: str) -> None:
        self._receiver = McastRxSocket(socket.AF_INET, [GROUP], PORT, iface=interface)

    def __enter__(self) -> Listener:
        self._receiver.open()
        return self

    def __exit__(self, *failure: object) -> None:
        self._receiver.close()

    def names(self, seconds: float, enough: int = 1000) -> dict[str, str]:
        """Return the names that are heard within so many seconds, or the first ones, with the address of each."""
        found: dict[str, str] = {}
        deadline = time.monotonic() + seconds
        while len(found) < enough:
            try:
                datagram = self._receiver.receive(timeout=max(0, deadline - time.monotonic()))
            except TimeoutError:
                break
            if len(datagram.data) <= LONGEST_NAME:
                found[datagram.data.decode(errors="replace")] = datagram.sender[0]
        return found
