"""Carries plans out: the only code that opens, binds, joins, sends and receives."""

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.plan import ReceiveSettings
from multicast_expert.engine.opening import error_name, free_port, namespace_of, os_error
from multicast_expert.engine.reader import Reader
from multicast_expert.engine.receive_sockets import ReceiveSockets
from multicast_expert.engine.send import SendSocket
from multicast_expert.engine.shown_reader import ShownReader
from multicast_expert.engine.socket_source import SocketSource
from multicast_expert.system.kernel import Kernel

__all__ = [
    "Reader",
    "ReceiveSockets",
    "SendSocket",
    "ShownReader",
    "SocketSource",
    "error_name",
    "free_port",
    "namespace_of",
    "os_error",
    "receiving",
]


def receiving(system: Kernel, settings: ReceiveSettings) -> tuple[ReceiveSockets, Reader, SocketSource]:
    """Return what joins, what hands out datagrams, and what takes them from the sockets in between."""
    backlog: list[Datagram] = []
    source = SocketSource(system, settings.gro, backlog)
    return ReceiveSockets(system, settings, source), Reader(source, backlog), source
