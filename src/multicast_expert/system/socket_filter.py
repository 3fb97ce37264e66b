"""Attaches classic BPF programs to sockets: socket(7), SO_ATTACH_FILTER; Documentation/networking/filter.rst."""

from __future__ import annotations

import ctypes
import socket
from collections.abc import Sequence
from struct import Struct
from typing import Any, TypeAlias

Instruction: TypeAlias = tuple[int, int, int, int]
"""Code, instructions to skip if equal and if not, value: linux/filter.h and linux/bpf_common.h."""

_INSTRUCTION = Struct("=HBBI")
_PROGRAM = Struct("@HP")
_SO_ATTACH_FILTER = 26


def attach(sock: Any, program: Sequence[Instruction]) -> None:
    """Let the socket take only what the program accepts, instead of what an earlier one accepted. Raises OSError."""
    code = b"".join([_INSTRUCTION.pack(*each) for each in program])
    # `cast`, because a ctypes array would be a new type for every length.
    address = ctypes.cast(ctypes.c_char_p(code), ctypes.c_void_p).value
    sock.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, _PROGRAM.pack(len(program), address))
