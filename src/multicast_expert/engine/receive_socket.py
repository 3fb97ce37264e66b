"""ReceiveSocket: one open receiving socket with its memberships."""

from __future__ import annotations

from struct import Struct

from multicast_expert.core.addresses import address_text
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.plan import ANY_HOST, Join, JoinKey, SocketKey
from multicast_expert.platforms import Platform
from multicast_expert.system.kernel import Socket

_MEMINFO = Struct("=9I")
_INT = Struct("=i")


class ReceiveSocket:
    """One open receiving socket with its memberships. ReceiveSockets owns it and is the only one to close it."""

    __slots__ = (
        "accepts",
        "closed",
        "handle",
        "hosts",
        "joins",
        "key",
        "landing",
        "lent",
        "queued",
        "socket",
        "standing",
    )

    def __init__(self, key: SocketKey, sock: Socket, filtered: bool, by_descriptor: bool) -> None:
        self.key: SocketKey = key
        self.socket: Socket = sock
        self.handle: Socket | int = sock.fileno() if by_descriptor else sock
        """What an Intake receives from; a descriptor becomes -1 as soon as no call may use it any longer."""
        self.joins: dict[JoinKey, Join] = {}
        self.closed: bool = False
        self.queued: bool = False
        """Whether it is among those known to be readable."""
        self.accepts: set[tuple[str | None, int | None]] | None = set() if filtered else None
        """Group and interface index of the datagrams to let through; None: the kernel sees to it."""
        self.hosts: frozenset[str] = frozenset()
        """The addresses of this host to which datagrams are let through, too; ANY_HOST: all."""
        self.standing: bool = False
        """Whether it stays open without a membership."""
        self.lent: bool = False
        """Whether a sender uses it too."""
        self.landing: list[Datagram] = []
        """What was received and not filtered yet, oldest first; an interrupt leaves it here."""

    def add(self, key: JoinKey, join: Join) -> None:
        """Note a membership that the socket has."""
        self.joins[key] = join
        if self.accepts is not None:
            self.accepts.add(_place(join))

    def is_foreign(self, datagram: Datagram) -> bool:
        """Return whether the datagram has another destination than those to let through."""
        accepts = self.accepts
        if accepts is None or (datagram.group, datagram.interface_index) in accepts:
            return False
        # A Windows or macOS socket may receive groups that this receiver did not join, and a wildcard one broadcasts.
        is_to_host = datagram.group is None and datagram.destination not in (None, "255.255.255.255")
        return not (is_to_host and (ANY_HOST in self.hosts or datagram.destination in self.hosts))

    def discard(self, join: Join) -> None:
        """Forget a membership that the socket no longer has."""
        self.joins.pop(join.key, None)
        if self.accepts is not None:
            self.accepts = {_place(held) for held in self.joins.values()}

    def sources(self, join: Join) -> int:
        """Return how many sources of the group are joined on the interface already."""
        index = join.interface.iface.index
        return sum(group == join.group.packed and held == index for group, _, held in self.joins)

    def retire(self) -> None:
        """Let no call use its descriptor from now on; those under way have to end before `close`."""
        self.closed = True
        if isinstance(self.handle, int):
            self.handle = -1

    def close(self) -> None:
        """Give the descriptor back."""
        self.retire()
        self.socket.close()

    def receive_buffer(self, platform: Platform) -> int:
        """Return the receive buffer in bytes, as the OS counts it."""
        level, number = platform.options["SO_RCVBUF"]
        return int(_INT.unpack(self.socket.getsockopt(level or 0, number, _INT.size))[0])

    def drops(self, platform: Platform) -> int | None:
        """Return how many datagrams the kernel dropped because the buffer was full; None where it does not say.

        Linux says it since 4.12 (SO_MEMINFO).
        """
        option = platform.options.get("SO_MEMINFO")
        if option is None:
            return None
        try:
            memory = self.socket.getsockopt(option[0] or 0, option[1], _MEMINFO.size)
        except OSError:
            return None
        return int(_MEMINFO.unpack(memory)[8]) if len(memory) == _MEMINFO.size else None


def _place(join: Join) -> tuple[str, int]:
    return address_text(join.group.packed), join.interface.iface.index
