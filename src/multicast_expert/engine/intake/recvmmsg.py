"""BatchIntake: many messages in one system call without the extension, through the C library. Touches Linux only.

recvmmsg(2) writes into an arena: memory of which slices are bytes objects already. What comes again and again, the
sender's address and the control messages, is looked up by its bytes.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import sys
from struct import Struct
from typing import Any

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, arrived
from multicast_expert.engine.intake.recvmsg import ANCILLARY_SIZE, MOST_KNOWN, Facts, Messages, PythonIntake, split
from multicast_expert.system.kernel import Socket

SLOTS = 64
SPARE_ARENAS = 4
# Not a power of two: the beginnings of the payloads would compete for the same few lines of the processor's cache.
_STRIDE = 65536 + 320
_NAME_SIZE = 28
_MSG_DONTWAIT = 0x40
_MAP_PRIVATE_ANONYMOUS = 0x22

_SOCKADDR_IN = Struct("!2xH4s")
_SOCKADDR_IN6 = Struct("!2xHI16s")
_SCOPE = Struct("=24xI")
# struct cmsghdr; its data follow at once, and the next one is aligned like a size_t (cmsg(3)).
_CMSGHDR = Struct("@Nii")
_ALIGNMENT = ctypes.sizeof(ctypes.c_size_t)


class _Iovec(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Msghdr(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("pieces", ctypes.c_void_p),
        ("piece_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Mmsghdr(ctypes.Structure):
    _fields_ = (("header", _Msghdr), ("length", ctypes.c_uint32))


_HEADER = ctypes.sizeof(_Mmsghdr)
_NAME_LENGTH = _Msghdr.name_length.offset
# The lower half of a size_t.
_CONTROL_LENGTH = _Msghdr.control_length.offset + (0 if sys.byteorder == "little" else _ALIGNMENT - 4)
_FLAGS = _Msghdr.flags.offset
_LENGTH = _Mmsghdr.length.offset


class _Arena:
    """Room for what one system call receives; used by one thread at a time. Untouched pages cost nothing."""

    def __init__(self) -> None:
        headers = SLOTS * _STRIDE
        pieces = headers + SLOTS * _HEADER
        controls = pieces + SLOTS * ctypes.sizeof(_Iovec)
        names = controls + SLOTS * ANCILLARY_SIZE
        self.payloads = range(0, headers, _STRIDE)
        self.controls = range(controls, names, ANCILLARY_SIZE)
        self.names = range(names, names + SLOTS * _NAME_SIZE, _NAME_SIZE)
        make: Any = mmap.mmap  # its parameters differ by OS
        self.memory: mmap.mmap = make(-1, self.names.stop, flags=_MAP_PRIVATE_ANONYMOUS)
        start = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
        self.headers: Any = (_Mmsghdr * SLOTS).from_buffer(self.memory, headers)
        vectors: Any = (_Iovec * SLOTS).from_buffer(self.memory, pieces)
        for slot in range(SLOTS):
            vectors[slot] = _Iovec(start + self.payloads[slot], MAX_DATAGRAM)
            self.headers[slot].header = _Msghdr(
                start + self.names[slot],
                _NAME_SIZE,
                start + pieces + slot * ctypes.sizeof(_Iovec),
                1,
                start + self.controls[slot],
                ANCILLARY_SIZE,
            )
        self._start = headers
        self._unused = self.memory[headers:pieces]
        self._words = memoryview(self.memory)[headers:pieces].cast("I")

    def column(self, offset: int, count: int) -> list[int]:
        """Return the 32-bit numbers at this offset of so many headers."""
        step = _HEADER // 4
        return self._words[offset // 4 : count * step : step].tolist()

    def ready(self, count: int) -> None:
        """Take back what the kernel wrote into so many headers."""
        end = count * _HEADER
        self.memory[self._start : self._start + end] = self._unused[:end]


# Taking from and giving back to a list is safe among threads.
_arenas: list[_Arena] = []


def _find_recvmmsg() -> Any:
    try:
        found = ctypes.CDLL(None, use_errno=True).recvmmsg
    except (AttributeError, OSError, TypeError):
        return None
    found.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p]
    return found


_recvmmsg = _find_recvmmsg()


def available() -> bool:
    """Whether the C library of this host has the call."""
    return _recvmmsg is not None


class BatchIntake(PythonIntake):
    """Takes batches by `recvmmsg`, single datagrams as its base does."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._senders: dict[bytes, IPv4Or6Address | None] = {}
        self._told: dict[bytes, Facts] = {}
        self._run = 1

    def forget_places(self) -> None:
        """Ask anew for the texts of groups and interfaces."""
        super().forget_places()
        self._told = {}

    def batch(self, handle: Socket, limit: int, datagrams: list[Datagram], /) -> bool:
        """Append what the socket holds; see `Intake.batch`."""
        stop = len(datagrams) + limit
        arena = _arenas.pop() if _arenas else _Arena()
        try:
            while len(datagrams) < stop:
                wanted = min(SLOTS, (stop - len(datagrams) - 1) // self._run + 1)
                received = _recvmmsg(handle.fileno(), ctypes.addressof(arena.headers), wanted, _MSG_DONTWAIT, None)
                if received < 0:
                    number = ctypes.get_errno()
                    if number == errno.EINTR:
                        continue
                    if number in (errno.EAGAIN, errno.EWOULDBLOCK):
                        return False
                    raise OSError(number, os.strerror(number))
                before = len(datagrams)
                try:
                    self._append(arena, received, datagrams)
                finally:
                    arena.ready(received)
                self._run = max(1, (len(datagrams) - before) // received)
                if received < wanted:
                    return False
        finally:
            if len(_arenas) < SPARE_ARENAS:
                _arenas.append(arena)
        return True

    def _append(self, arena: _Arena, count: int, datagrams: list[Datagram]) -> None:
        """Append what the first slots hold."""
        memory, senders, told, trunc = arena.memory, self._senders, self._told, self._msg_trunc
        append, first = datagrams.append, len(datagrams)
        lengths = arena.column(_LENGTH, count)
        truncated = 0
        for payload, length, name, name_size, control, control_size, flags in zip(
            arena.payloads,
            lengths,
            arena.names,
            arena.column(_NAME_LENGTH, count),
            arena.controls,
            arena.column(_CONTROL_LENGTH, count),
            arena.column(_FLAGS, count),
            strict=False,
        ):
            address = memory[name : name + name_size]
            sender: Any = senders.get(address) or self._learn_sender(address)
            said = memory[control : control + control_size]
            facts = told.get(said) or self._learn_facts(said)
            data = memory[payload : payload + length]
            place, timestamp, segment_size = facts
            cut = flags & trunc != 0
            truncated += cut
            if length <= segment_size:
                append(arrived(data, (sender, *place), timestamp, cut))
            else:
                datagrams += split(data, sender, facts, cut)
        self._count(len(datagrams) - first, sum(lengths), truncated)

    def _learn_sender(self, address: bytes) -> IPv4Or6Address | None:
        """Return the sender as `socket.recvfrom` gives it, and remember it."""
        if len(self._senders) >= MOST_KNOWN:
            self._senders.clear()
        sender = self._senders[address] = sender_of(address)
        return sender

    def _learn_facts(self, said: bytes) -> Facts:
        facts = self._facts(messages_of(said))
        if self._last[0] is not None:
            # It is true for the next message as well.
            if len(self._told) >= MOST_KNOWN:
                self._told.clear()
            self._told[said] = facts
        return facts


def sender_of(address: bytes) -> IPv4Or6Address | None:
    """Return a socket address as `socket.recvfrom` gives it; None when there is none."""
    if len(address) == 16:
        port, packed = _SOCKADDR_IN.unpack_from(address)
        return socket.inet_ntop(socket.AF_INET, packed), port
    if len(address) == _NAME_SIZE:
        port, flow, packed = _SOCKADDR_IN6.unpack_from(address)
        return socket.inet_ntop(socket.AF_INET6, packed), port, flow, _SCOPE.unpack_from(address)[0]
    return None


def messages_of(control: bytes) -> Messages:
    """Return the control messages as `socket.recvmsg` does."""
    messages = []
    start = 0
    while start + _CMSGHDR.size <= len(control):
        length, level, kind = _CMSGHDR.unpack_from(control, start)
        if length < _CMSGHDR.size:
            break
        messages.append((level, kind, control[start + _CMSGHDR.size : start + length]))
        start += (length + _ALIGNMENT - 1) // _ALIGNMENT * _ALIGNMENT
    return messages
