"""SendMarks: the kernel marks what one socket sends, and a filter keeps it from others. Touches Linux only.

A socket that was connected once keeps a random number (`sk_txhash`), and every packet that it sends carries it, also
those that the kernel cuts from a long one (GSO) and fragments. A packet that comes back to this host, as a copy for its
own groups or over the loopback interface, still has it; so a classic BPF filter recognises it exactly, whoever else has
the same address and port. Needs no privilege. Measured on Linux 6.18.
"""

from __future__ import annotations

import ctypes
import os
import socket
from collections.abc import Iterable
from struct import Struct
from typing import Any, TypeAlias

from multicast_expert.system.base import Socket

Instruction: TypeAlias = tuple[int, int, int, int]
"""Code, instructions to skip if equal and if not, value: linux/filter.h and linux/bpf_common.h."""

_INSTRUCTION = Struct("=HBBI")
_PROGRAM = Struct("@HP")
_SO_ATTACH_FILTER = 26
_LOAD, _LOAD_BYTE, _TO_INDEX, _SHIFT_BY_INDEX = 0x20, 0x30, 0x07, 0x7C
_AND, _ADD, _JUMP, _EQUAL, _RETURN, _RETURN_SUM = 0x54, 0x04, 0x05, 0x15, 0x06, 0x16
_PACKET_TYPE, _INTERFACE, _MARK = 0xFFFFF004, 0xFFFFF008, 0xFFFFF020
_TO_THIS_HOST, _COPY_OF_OWN = 0, 5
_LOOPBACK_INTERFACE = 1
_ALL = 0xFFFFFFFF
_UDP_HEADER = 8
_PATIENCE = 2.0
_LOOPBACK = {4: "127.0.0.1", 6: "::1"}
_DISCARD = 9


def own_filter(marks: Iterable[int], hosts_only: bool = False) -> list[Instruction]:
    """Return the program that drops what sockets with these marks sent.

    A packet from the wire has a mark of its network card, so only copies and what came over the loopback interface
    count. `hosts_only`: drop broadcasts and groups too.
    """
    known = sorted(set(marks))
    program: list[Instruction] = []
    if hosts_only:
        program += [(_LOAD, 0, 0, _PACKET_TYPE), (_EQUAL, 1, 0, _TO_THIS_HOST), (_RETURN, 0, 0, 0)]
    program.append((_LOAD, 0, 0, _MARK))
    for place, mark in enumerate(known, 1):
        # A conditional jump goes 255 instructions far at most.
        program += [(_EQUAL, 0, 1, mark), (_JUMP, 0, 0, 2 * (len(known) - place) + 1)]
    return [
        *program,
        (_RETURN, 0, 0, _ALL),
        (_LOAD, 0, 0, _PACKET_TYPE),
        (_EQUAL, 3, 0, _COPY_OF_OWN),
        (_LOAD, 0, 0, _INTERFACE),
        (_EQUAL, 1, 0, _LOOPBACK_INTERFACE),
        (_RETURN, 0, 0, _ALL),
        (_RETURN, 0, 0, 0),
    ]


# Cuts a datagram so that its length tells the byte of its mark that the first byte of its payload asks for, by bits.
_TELLS_MARK: list[Instruction] = [
    (_LOAD_BYTE, 0, 0, _UDP_HEADER),
    (_TO_INDEX, 0, 0, 0),
    (_LOAD, 0, 0, _MARK),
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

    def read(self, sock: Socket, version: int) -> int:
        """Return the mark of a bound socket; it sends itself a few bytes over the loopback interface."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        mark = 0
        with socket.socket(family, socket.SOCK_DGRAM) as judge:
            judge.settimeout(_PATIENCE)
            attach(judge, _TELLS_MARK)
            judge.bind((_LOOPBACK[version], 0))
            for bits in (0, 8, 16, 24):
                sock.sendto(bytes([bits, *bytes(0xFF)]), judge.getsockname())
            for _ in range(4):
                told = judge.recv(0xFFFF)
                mark |= len(told) - 1 << told[0]
        return mark

    def screen(self, sock: Socket, marks: Iterable[int], hosts_only: bool) -> None:
        """Let the socket drop what sockets with these marks sent, and if asked what is not sent to a host."""
        attach(sock, own_filter(marks, hosts_only))


def attach(sock: Any, program: list[Instruction]) -> None:
    """Let the socket take only what the program accepts."""
    instructions = ctypes.create_string_buffer(b"".join(_INSTRUCTION.pack(*each) for each in program))
    value = _PROGRAM.pack(len(program), ctypes.addressof(instructions))
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, value)


def _connect(descriptor: int, address: bytes, size: int) -> int:
    answer: int = ctypes.CDLL(None, use_errno=True).connect(descriptor, address, size)
    return answer
