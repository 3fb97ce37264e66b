"""What a worker is told to do, and the plain sockets that carry it out. Opens sockets."""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

LOOPBACK = "127.0.0.1"
MAX_DATAGRAM = 65535
CONTROL_SIZE = socket.CMSG_SPACE(12) + socket.CMSG_SPACE(4)

# linux/in.h, linux/udp.h, asm-generic/socket.h
IP_PKTINFO, IP_RECVTTL, IP_MULTICAST_ALL = 8, 12, 49
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
SO_RCVBUFFORCE = 33

PATIENCE = struct.pack("=qq", 20, 0)
"""A struct timeval: how long a plain socket waits for a datagram that should be there."""


@dataclass(frozen=True, slots=True)
class Load:
    """What one worker measures, with what traffic."""

    task: str
    subject: str
    port: int
    size: int = 200
    """Bytes of each payload."""
    unequal: bool = False
    """Whether the payloads differ in length, around `size`."""
    groups: int = 1
    """How many groups are joined; the traffic goes to all of them alike."""
    busy: int = 0
    """How many of them get traffic; 0: all."""
    batch: int = 1024
    """Datagrams sent before they are received, or sent at once."""
    repeats: int = 8
    """How many such batches make a round."""
    segments: int = 1
    """How many datagrams the traffic has per send (GSO); 1: each was sent on its own."""
    coalesce: bool = False
    """Whether the plain receiver of what is sent takes coalesced datagrams (GRO)."""
    gro: bool = True
    """Whether this library's receiver may take coalesced datagrams, as it does unless told otherwise."""
    metadata: bool = False
    """Whether the C program asks for group, interface and hop limit."""
    interfaces: int = 1
    """How many interfaces the machine has."""

    @property
    def addresses(self) -> list[str]:
        """The groups that are joined."""
        first = int(ipaddress.IPv4Address("239.200.0.1"))
        return [str(ipaddress.IPv4Address(first + number)) for number in range(self.groups)]

    @property
    def targets(self) -> list[tuple[str, int]]:
        """Where the traffic goes, one address after the other."""
        return [(address, self.port) for address in self.addresses[: self.busy or self.groups]]

    def c_arguments(self) -> list[str]:
        """The same for reference.c."""
        numbers = (
            *(self.port, self.size, self.unequal, self.groups, self.busy),
            *(self.batch, self.repeats, self.segments, self.coalesce, self.metadata),
        )
        return [self.task, *(str(int(number)) for number in numbers)]

    def payloads(self) -> list[bytes]:
        """A batch of payloads, no two the same object."""
        sizes = [self.size] * self.batch
        if self.unequal:
            sizes = [max(1, self.size // 2 + number * 37 % self.size) for number in range(self.batch)]
        return [bytes([number % 256]) * size for number, size in enumerate(sizes)]

    def as_text(self) -> str:
        """What `load_from_text` reads."""
        return json.dumps(asdict(self))


def load_from_text(text: str) -> Load:
    """The load that the parent process described."""
    return Load(**json.loads(text))


def enlarge_buffer(sock: socket.socket, size: int = 8 << 20) -> int:
    """Give the socket as large a receive buffer as this process may; return what the kernel made of it."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, size)
    except OSError:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
    return sock.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF)


def enlarge_buffers(descriptors: Sequence[int]) -> None:
    """Enlarge the receive buffers of sockets that somebody else owns."""
    for descriptor in descriptors:
        sock = socket.socket(fileno=descriptor)
        try:
            enlarge_buffer(sock)
        finally:
            sock.detach()


def joined_socket(address: str, port: int, *, metadata: bool = False, coalesce: bool = False) -> socket.socket:
    """A plain blocking socket that receives one group on the loopback interface."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, PATIENCE)
    sock.setsockopt(socket.IPPROTO_IP, IP_MULTICAST_ALL, 0)
    if metadata:
        sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        sock.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
    if coalesce:
        sock.setsockopt(SOL_UDP, UDP_GRO, 1)
    enlarge_buffer(sock)
    sock.bind((address, port))
    membership = socket.inet_aton(address) + socket.inet_aton(LOOPBACK)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, membership)
    return sock


def sending_socket() -> socket.socket:
    """A plain socket that sends out of the loopback interface."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(LOOPBACK))
    sock.bind((LOOPBACK, 0))
    return sock


def filler(load: Load, sock: socket.socket) -> Callable[[], None]:
    """What fills the receive buffers with a batch of datagrams."""
    payloads, targets = load.payloads(), load.targets
    if load.segments > 1:
        control = [(SOL_UDP, UDP_SEGMENT, struct.pack("=H", load.size))]
        runs = [payloads[start : start + load.segments] for start in range(0, load.batch, load.segments)]

        def fill() -> None:
            for run in runs:
                sock.sendmsg(run, control, 0, targets[0])
    else:
        pairs = [(payload, targets[number % len(targets)]) for number, payload in enumerate(payloads)]

        def fill() -> None:
            for payload, target in pairs:
                sock.sendto(payload, target)

    return fill
