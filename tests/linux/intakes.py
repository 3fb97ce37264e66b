"""What the tests of intakes share: the three forms, a socket pair with all metadata, and short ways to receive."""

import socket
from collections.abc import Mapping
from contextlib import ExitStack
from struct import pack
from typing import Any

import pytest

from linux.plain_sockets import FAMILY
from multicast_expert import Datagram, extension
from multicast_expert.engine.intake.recvmmsg import BatchIntake
from multicast_expert.engine.intake.recvmsg import PythonIntake
from multicast_expert.platforms import LINUX

LOOPBACK = {4: "127.0.0.1", 6: "::1"}
MSG_TRUNC = 0x20
SOL_UDP, UDP_SEGMENT, UDP_GRO = 17, 103, 104
SO_TIMESTAMPNS_NEW = 64
INTERFACE = "an interface"
FIELDS = LINUX.ancillary.fields


class Form:
    """One of them, and what it knows."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.learned: list[tuple[bytes | None, int | None]] = []
        self.interface: str | None = INTERFACE
        self.failure: BaseException | None = None
        """What asking for a place raises."""

    def learn(self, destination: bytes | None, index: int | None) -> tuple[str | None, str | None, str | None]:
        """What a receiver's engine knows about a place."""
        if self.failure is not None:
            raise self.failure
        self.learned.append((destination, index))
        if destination is None:
            return None, None, None
        text = socket.inet_ntop(FAMILY[4 if len(destination) == 4 else 6], destination)
        return text, text, self.interface

    def intake(self, fields: Mapping[tuple[int, int], str] = FIELDS) -> Any:
        """A new one."""
        if self.name == "python":
            return PythonIntake(fields, MSG_TRUNC, self.learn)
        if self.name == "recvmmsg":
            return BatchIntake(fields, MSG_TRUNC, self.learn)
        return native().Intake(fields, MSG_TRUNC, self.learn)

    def handle(self, sock: socket.socket) -> Any:
        """What it takes for the socket."""
        return sock.fileno() if self.name == "extension" else sock


def native() -> Any:
    """The extension."""
    if extension.native is None:
        pytest.skip("the extension is not there")
    return extension.native


class Link:
    """A sender and a receiving socket with all its metadata switched on, on the loopback interface."""

    def __init__(self, version: int, stack: ExitStack, *, timestamps: bool = False, gro: bool = True) -> None:
        self.version = version
        self._stack = stack
        self.receiver = self._open()
        self.receiver.setblocking(False)
        self.receiver.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_000_000)
        for option in LINUX.ancillary.options[version]:
            self.receiver.setsockopt(option.level or 0, option.number, option.value)
        if timestamps:
            self.receiver.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS_NEW, 1)
        if gro:
            self.receiver.setsockopt(SOL_UDP, UDP_GRO, 1)
        self.receiver.bind((LOOPBACK[version], 0))
        self.sender = self._open()
        self.sender.bind((LOOPBACK[version], 0))
        self.sender.connect(self.receiver.getsockname())

    def _open(self) -> socket.socket:
        return self._stack.enter_context(socket.socket(FAMILY[self.version], socket.SOCK_DGRAM))

    def send(self, *payloads: bytes) -> None:
        """Send each alone."""
        for payload in payloads:
            self.sender.send(payload)

    def send_run(self, data: bytes, size: int) -> None:
        """Send as one piece, which comes as one piece too where the receiver coalesces."""
        self.sender.sendmsg([data], [(SOL_UDP, UDP_SEGMENT, pack("=H", size))])

    def expected(self, data: bytes, **known: Any) -> Datagram:
        """The datagram that arrives."""
        return Datagram(data, self.sender.getsockname(), LOOPBACK[self.version], 1, INTERFACE, 64, **known)


def drained(intake: Any, handle: Any, limit: int = 10_000) -> list[Datagram]:
    """What is there."""
    datagrams: list[Datagram] = []
    intake.batch(handle, limit, datagrams)
    return datagrams


def taken(intake: Any, handle: Any) -> Datagram | None:
    """The one datagram that is received alone."""
    waiting: list[Datagram] = []
    found = intake.one(handle, waiting)
    assert found is bool(waiting)
    assert len(waiting) <= 1
    return waiting[0] if waiting else None


def pieces(data: bytes, size: int) -> list[bytes]:
    """The payloads that the kernel sends of a piece."""
    return [data[offset : offset + size] for offset in range(0, len(data), size)]
