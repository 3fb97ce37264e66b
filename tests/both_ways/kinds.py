"""McastSocket and AsyncMcastSocket in one shape: a test body is a coroutine, which the blocking one never suspends."""

from collections.abc import AsyncIterator
from typing import Any

from faces.faces import ASYNC_FACES, BLOCKING, Awaited, Face
from multicast_expert import AsyncMcastSocket, Datagram, McastSocket


class AwaitedBothWays(Awaited):
    """McastSocket with the waiting methods awaited."""

    async def reply(self, *args: Any, **kwargs: Any) -> None:
        """As McastSocket."""
        self._socket.reply(*args, **kwargs)

    async def query(self, *args: Any, **kwargs: Any) -> AsyncIterator[Datagram]:
        """As McastSocket."""
        for datagram in self._socket.query(*args, **kwargs):
            yield datagram


class Kind(Face):
    """One way to use the sockets."""

    def socket(self, *args: Any, **kwargs: Any) -> Any:
        """Return a closed socket of this kind."""
        if self.backend is None:
            return AwaitedBothWays(McastSocket(*args, **kwargs))
        return AsyncMcastSocket(*args, **kwargs)


KINDS = [Kind(face.name, face.backend, face.uvloop) for face in (BLOCKING, *ASYNC_FACES)]


async def everything(sock: Any) -> list[Datagram]:
    """Return all that is there now."""
    datagrams: list[Datagram] = []
    while True:
        try:
            datagrams += await sock.receive_many(timeout=0)
        except TimeoutError:
            return datagrams
