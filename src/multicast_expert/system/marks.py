"""SendMarks: the kernel marks what one socket sends, and a filter keeps it from others. Touches Linux only.

A socket that was connected once keeps a random number (`sk_txhash`), and every packet that it sends carries it, also
those that the kernel cuts from a long one (GSO) and fragments. A packet that comes back to this host, as a copy for its
own groups or over the loopback interface, still has it; so a classic BPF filter recognises it exactly, also if other
sockets have the same address and port. Needs no privilege. Measured on Linux 6.18.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
from functools import lru_cache
from typing import Any

from multicast_expert.system.base import Mark, Screen, Socket
from multicast_expert.system.socket_filter import Instruction, attach

_LOAD, _LOAD_HALF, _LOAD_BYTE, _TO_INDEX, _SHIFT_BY_INDEX = 0x20, 0x28, 0x30, 0x07, 0x7C
_AND, _ADD, _JUMP, _EQUAL, _RETURN, _RETURN_SUM = 0x54, 0x04, 0x05, 0x15, 0x06, 0x16
_PACKET_TYPE, _INTERFACE, _NUMBER, _IPV6_HEADER = 0xFFFFF004, 0xFFFFF008, 0xFFFFF020, 0xFFF00000
_IPV6_SOURCE = _IPV6_HEADER + 8
_LABEL_BITS = 0x000FFFFF
_SOURCE_PORT = 0
_TO_THIS_HOST, _TO_A_GROUP, _COPY_OF_OWN = 0, 2, 5
_LOOPBACK_INTERFACE = 1
_ALL = 0xFFFFFFFF
_UDP_HEADER = 8
_PATIENCE = 2.0
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_DISCARD = 9


def own_filter(screen: Screen) -> list[Instruction]:
    """Return the program that drops what the screen says.

    A packet from the wire has a number of its network card, so numbers count for copies and for what came over the
    loopback interface only. What left one interface and came in on another one, on the same link, is known by its flow
    label, its port and its address. (IPv4 drops such a packet before any socket: `accept_local` of ip-sysctl.)
    """
    program: list[Instruction] = []
    if screen.hosts_only:
        program += [(_LOAD, 0, 0, _PACKET_TYPE), (_EQUAL, 1, 0, _TO_THIS_HOST), (_RETURN, 0, 0, 0)]
    looped = [
        (_LOAD, 0, 0, _PACKET_TYPE),
        (_EQUAL, 2, 0, _COPY_OF_OWN),
        (_LOAD, 0, 0, _INTERFACE),
        (_EQUAL, 0, 1, _LOOPBACK_INTERFACE),
        (_RETURN, 0, 0, 0),
    ]
    program += [(_LOAD, 0, 0, _NUMBER), *_unless({mark.number for mark in screen.marks}, looped)]
    labels = {mark.label for mark in screen.marks} - {0}
    if labels and screen.hosts:
        wired = [
            (_LOAD, 0, 0, _PACKET_TYPE),
            (_EQUAL, 1, 0, _TO_A_GROUP),
            (_RETURN, 0, 0, _ALL),
            (_LOAD_HALF, 0, 0, _SOURCE_PORT),
            (_EQUAL, 1, 0, screen.port),
            (_RETURN, 0, 0, _ALL),
        ]
        for host in screen.hosts:
            upper, lower = int.from_bytes(host[8:12], "big"), int.from_bytes(host[12:], "big")
            wired += [
                (_LOAD, 0, 0, _IPV6_SOURCE + 8),
                (_EQUAL, 0, 3, upper),
                (_LOAD, 0, 0, _IPV6_SOURCE + 12),
                (_EQUAL, 0, 1, lower),
                (_RETURN, 0, 0, 0),
            ]
        program += [
            (_LOAD, 0, 0, _IPV6_HEADER),
            (_AND, 0, 0, _LABEL_BITS),
            *_unless(labels, [*wired, (_RETURN, 0, 0, _ALL)]),
        ]
    return [*program, (_RETURN, 0, 0, _ALL)]


def _unless(values: set[int], body: list[Instruction]) -> list[Instruction]:
    """Return the program that skips the body unless what was loaded is one of the values."""
    program: list[Instruction] = []
    for place, value in enumerate(sorted(values), 1):
        # A conditional jump goes 255 instructions far at most.
        program += [(_EQUAL, 0, 1, value), (_JUMP, 0, 0, 2 * (len(values) - place) + 1)]
    return [*program, (_JUMP, 0, 0, len(body)), *body]


# Cuts a datagram so that its length tells a byte of what is loaded; the payload begins with which, by bits.
def _telling(*load: Instruction) -> list[Instruction]:
    return [
        (_LOAD_BYTE, 0, 0, _UDP_HEADER),
        (_TO_INDEX, 0, 0, 0),
        *load,
        (_SHIFT_BY_INDEX, 0, 0, 0),
        (_AND, 0, 0, 0xFF),
        (_ADD, 0, 0, _UDP_HEADER + 1),
        (_RETURN_SUM, 0, 0, 0),
    ]


class SendMarks:
    """Gives sockets marks, reads them, and filters by them. Every method may raise OSError."""

    def give(self, sock: Socket, version: int) -> None:
        """Let the kernel mark what the socket sends; it must not be bound yet."""
        made: Any = sock
        made.connect((_LOOPBACK[version], _DISCARD))
        # Python's own `connect` knows no AF_UNSPEC (0), which dissolves the association.
        if _connect(made.fileno(), bytes(28), 28) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))

    def read(self, sock: Socket, version: int) -> Mark:
        """Return the mark of a bound socket; it sends itself a few bytes over the loopback interface."""
        tells_number = _telling((_LOAD, 0, 0, _NUMBER))
        number = _told(sock, version, tells_number)
        # Without a mark the packets of all sockets have none (IPv4), or one that depends on the destination (IPv6).
        if number == 0 or number != _told(sock, version, tells_number):
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
        if version == 4:
            return Mark(number)
        # The kernel makes the flow label out of the number, unless it is told not to (auto_flowlabels of ip-sysctl).
        return Mark(number, _told(sock, version, _telling((_LOAD, 0, 0, _IPV6_HEADER), (_AND, 0, 0, _LABEL_BITS))))

    def screen(self, sock: Socket, screen: Screen) -> None:
        """Let the socket drop what the screen says, and nothing else."""
        attach(sock, own_filter(screen))


def _told(sock: Socket, version: int, program: list[Instruction]) -> int:
    """Return the number that the program tells of what the socket sends."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    number = 0
    with socket.socket(family, socket.SOCK_DGRAM) as judge:
        judge.settimeout(_PATIENCE)
        attach(judge, program)
        judge.bind((_LOOPBACK[version], 0))
        for bits in (0, 8, 16, 24):
            sock.sendto(bytes([bits, *bytes(0xFF)]), judge.getsockname())
        for _ in range(4):
            told = judge.recv(0xFFFF)
            number |= len(told) - 1 << told[0]
    return number


def _connect(descriptor: int, address: bytes, size: int) -> int:
    answer: int = _c_library().connect(descriptor, address, size)
    return answer


@lru_cache(maxsize=1)
def _c_library() -> Any:
    return ctypes.CDLL(None, use_errno=True)
