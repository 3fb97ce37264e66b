"""Places: what a receiver calls the groups and interfaces that its datagrams name in binary form."""

from __future__ import annotations

from collections.abc import Iterable

from multicast_expert.core.addresses import address_text, is_multicast
from multicast_expert.engine.receive_socket import ReceiveSocket
from multicast_expert.system.kernel import Kernel

# A hostile sender of unicast to many addresses of this host must not fill the memory.
_MOST_TEXTS = 65536


class Places:
    """The texts of destinations and the names of interfaces. An intake asks it once for each pair of them.

    It is apart from SocketSource, which holds the intake that holds this: a receiver that nobody holds any longer is
    freed at once, without the collector.
    """

    __slots__ = ("_kernel", "_names", "_sockets", "_texts")

    def __init__(self, system: Kernel, sockets: Iterable[ReceiveSocket]) -> None:
        """`sockets`: those of the receiver at any later moment."""
        self._kernel = system
        self._sockets = sockets
        self._texts: dict[bytes, str] = {}
        self._names: dict[int, str] = {}

    def rename(self, index: int, name: str) -> bool:
        """Call the interface so from now on; return whether it was called otherwise."""
        if self._names.get(index) == name:
            return False
        self._names[index] = name
        return True

    def learn(self, destination: bytes | None, index: int | None) -> tuple[str | None, str | None, str | None]:
        """Return the group (None: the destination is none) and the destination as text, and the interface's name."""
        name = None if index is None else self._names.get(index)
        if destination is None:
            return None, None, name
        if name is None and index is not None and not is_multicast(destination):
            # Unicast may come in on an interface that the receiver does not have.
            # None of the sockets is closed before the intake, which calls this, is done.
            for each in list(self._sockets)[:1]:
                name = self._kernel.interface_name(each.socket, index)
        text = self._texts.get(destination)
        if text is None:
            text = address_text(destination)
            if len(self._texts) < _MOST_TEXTS:
                self._texts[destination] = text
        return text if is_multicast(destination) else None, text, name
