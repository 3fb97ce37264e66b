"""BatchIntake: receives many messages in one system call, through the C library. Touches Linux only.

recvmmsg(2) writes into an arena, of which each slice is a bytes object. The sender's address and the control messages
mostly repeat, so they are looked up by their bytes. An arena is read again, from its beginning, if an exception came
between the system call and the line that commits what it holds.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import socket
import sys
from struct import Struct
from threading import get_ident
from typing import Any

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, arrived
from multicast_expert.engine.intake.recvmsg import (
    ANCILLARY_SIZE,
    MOST_KNOWN,
    Facts,
    Messages,
    PythonIntake,
    Received,
    split,
)
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
# The length of a message that the kernel has not written.
_UNTOUCHED = 0xFFFFFFFF


class _Arena:
    """Memory for what one system call receives; used by one thread at a time. Untouched pages cost nothing."""

    def __init__(self) -> None:
        self.next: _Arena | None = None
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
        self.address: int = start + headers
        vectors: Any = (_Iovec * SLOTS).from_buffer(self.memory, pieces)
        slots: Any = (_Mmsghdr * SLOTS).from_buffer(self.memory, headers)
        for slot in range(SLOTS):
            piece = start + pieces + slot * ctypes.sizeof(_Iovec)
            vectors[slot] = _Iovec(start + self.payloads[slot], MAX_DATAGRAM)
            slots[slot].header = _Msghdr(
                start + self.names[slot], _NAME_SIZE, piece, 1, start + self.controls[slot], ANCILLARY_SIZE
            )
            slots[slot].length = _UNTOUCHED
        self._start = headers
        self._unused = self.memory[headers:pieces]
        self._words = memoryview(self.memory)[headers:pieces].cast("I")

    def column(self, offset: int, count: int) -> list[int]:
        """Return the 32-bit numbers at this offset of so many headers."""
        step = _HEADER // 4
        return self._words[offset // 4 : count * step : step].tolist()

    def unused(self, count: int) -> tuple[slice, bytes]:
        """Return the place of so many headers in the memory, and what they hold before the kernel writes."""
        size = count * _HEADER
        return slice(self._start, self._start + size), self._unused[:size]

    def messages(self, count: int) -> list[Received]:
        """Return what so many slots hold, as `recvmsg` returns it."""
        columns = [self.column(offset, count) for offset in (_LENGTH, _NAME_LENGTH, _CONTROL_LENGTH, _FLAGS)]
        return [
            (
                self.memory[self.payloads[slot] : self.payloads[slot] + length],
                messages_of(self.memory[self.controls[slot] : self.controls[slot] + control_size]),
                flags,
                sender_of(self.memory[self.names[slot] : self.names[slot] + name_size]),
            )
            for slot, (length, name_size, control_size, flags) in enumerate(zip(*columns, strict=True))
        ]


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
    """Return whether the C library of this host has the call."""
    return _recvmmsg is not None


class BatchIntake(PythonIntake):
    """Takes batches by `recvmmsg`, single datagrams as its base does; see `engine.intake.Intake`."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._senders: dict[bytes, IPv4Or6Address | None] = {}
        self._told: dict[bytes, Facts] = {}
        self._interrupted: _Arena | None = None
        """The first of the arenas that an exception kept from being read."""

    @property
    def unread(self) -> bool:
        """Whether an exception kept something for the next call."""
        return self._interrupted is not None or super().unread

    def forget_places(self) -> None:
        """Ask anew for the texts of groups and interfaces."""
        super().forget_places()
        self._told = {}

    def abandon(self) -> None:
        """Forget what belongs to the parent; see `Intake.abandon`."""
        super().abandon()
        self._interrupted = None

    def one(self, handle: Socket, waiting: list[Datagram], /) -> bool:
        """Receive one message; see `Intake.one`."""
        if self._interrupted is not None:
            self._rescue()
        return super().one(handle, waiting)

    def batch(self, handle: Socket, limit: int, datagrams: list[Datagram], /) -> bool:
        """Append what the socket holds; see `Intake.batch`."""
        stop = len(datagrams) + limit
        token, thread = object(), get_ident()
        arena = _arenas.pop() if _arenas else _Arena()
        more = clean = True
        try:
            self._inside[token] = thread
            if self.unread:
                self._rescue()
                self._take(handle, 0, datagrams)
            while more and len(datagrams) < stop:
                wanted = min(SLOTS, (stop - len(datagrams) - 1) // self._run + 1)
                arguments = (arena.address,), (wanted,), (_MSG_DONTWAIT,), (None,)
                call = map(_recvmmsg, iter(handle.fileno, None), *arguments)
                clean = False
                # C code asks for the descriptor and makes the call: no signal handler can close the socket in between.
                (received,) = call
                if received < 0:
                    clean = True
                    number = ctypes.get_errno()
                    if number in (errno.EAGAIN, errno.EWOULDBLOCK):
                        more = False
                    elif number != errno.EINTR:
                        raise OSError(number, os.strerror(number))
                else:
                    self._append(arena, received, datagrams)
                    clean = True
                    more = received == wanted
        finally:
            if not clean:
                arena.next, self._interrupted = self._interrupted, arena
            self._inside.pop(token, None)
        if len(_arenas) < SPARE_ARENAS:
            _arenas.append(arena)
        return more

    def _append(self, arena: _Arena, count: int, datagrams: list[Datagram]) -> None:
        """Append what the first slots hold, count it and make the slots ready again; all of this, or nothing."""
        memory, senders, told, trunc = arena.memory, self._senders, self._told, self._msg_trunc
        fresh: list[Datagram] = []
        append = fresh.append
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
            facts = told.get(said) or self._learn_facts(said, told)
            data = memory[payload : payload + length]
            place, timestamp, segment_size = facts
            lost = flags & trunc != 0
            truncated += lost
            if length <= segment_size:
                append(arrived(data, (sender, *place), timestamp, lost))
            else:
                fresh += split(data, sender, facts, lost)
        self._run = max(1, len(fresh) // count)
        self._commit(fresh, sum(lengths), truncated, datagrams, memory, *arena.unused(count))

    def _rescue(self) -> None:
        """Move what arenas hold since an exception to the messages that the next call begins with."""
        while (arena := self._interrupted) is not None:
            count = [*arena.column(_LENGTH, SLOTS), _UNTOUCHED].index(_UNTOUCHED)
            messages = arena.messages(count)
            place, unused = arena.unused(count)
            if self._interrupted is arena:
                # No other thread has moved it, and there is no call from here on that an interrupt could follow.
                self._left += messages
                arena.memory[place] = unused
                self._interrupted = arena.next

    def _learn_sender(self, address: bytes) -> IPv4Or6Address | None:
        """Return the sender as `socket.recvfrom` gives it, and remember it."""
        if len(self._senders) >= MOST_KNOWN:
            self._senders.clear()
        sender = self._senders[address] = sender_of(address)
        return sender

    def _learn_facts(self, said: bytes, told: dict[bytes, Facts]) -> Facts:
        lasting, facts = self._facts(messages_of(said))
        if lasting is not None:
            if len(told) >= MOST_KNOWN:
                told.clear()
            told[said] = facts
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
