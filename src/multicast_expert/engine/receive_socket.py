"""Channel: one open receiving socket with its memberships. Touches no OS."""

from __future__ import annotations

from multicast_expert.core.addresses import address_text
from multicast_expert.core.plan import Join, JoinKey, SocketKey
from multicast_expert.system.kernel import Socket


class Channel:
    """One open receiving socket with its memberships."""

    __slots__ = ("accepts", "closed", "expects", "handle", "joins", "key", "queued", "socket")

    def __init__(self, key: SocketKey, sock: Socket, filtered: bool, by_descriptor: bool) -> None:
        self.key: SocketKey = key
        self.socket: Socket = sock
        self.handle: Socket | int = sock.fileno() if by_descriptor else sock
        """What an Intake receives from; a descriptor becomes -1 when the socket is closed."""
        self.joins: dict[JoinKey, Join] = {}
        self.closed: bool = False
        self.queued: bool = False
        """Whether it is among those known to be readable."""
        self.accepts: set[tuple[str | None, int | None]] | None = set() if filtered else None
        """Group and interface index of the datagrams to let through; None: the kernel sees to it."""
        self.expects: bool = by_descriptor and not filtered
        """Whether the extension can wait for it and receive in one step."""

    def add(self, key: JoinKey, join: Join) -> None:
        """Note a membership that the socket has."""
        self.joins[key] = join
        if self.accepts is not None:
            self.accepts.add(_place(join))

    def discard(self, join: Join) -> None:
        """Forget a membership that the socket no longer has."""
        self.joins.pop(join.key, None)
        if self.accepts is not None:
            self.accepts = {_place(held) for held in self.joins.values()}

    def sources(self, join: Join) -> int:
        """Return how many sources of the group are joined on the interface already."""
        index = join.interface.iface.index
        return sum(group == join.group.packed and held == index for group, _, held in self.joins)

    def close(self) -> None:
        """Close the socket."""
        self.closed = True
        if isinstance(self.handle, int):
            # Its number may soon be that of another socket.
            self.handle = -1
        self.socket.close()


def _place(join: Join) -> tuple[str, int]:
    return address_text(join.group.packed), join.interface.iface.index
