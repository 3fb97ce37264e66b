"""Reads frames from a ring of memory that the kernel fills (TPACKET_V3), many for each call of the kernel.

Linux, with CAP_NET_RAW. Numbers and layouts are those of linux/if_packet.h; see packet(7) and the kernel's
Documentation/networking/packet_mmap.rst.
"""

from __future__ import annotations

import select
from contextlib import suppress
from functools import partial
from importlib import import_module
from struct import Struct, pack
from typing import Any

from multicast_expert.wire.frame import ETHERNET_LIKE, ETHERNET_SIZE, Frame

_SOL_PACKET, _PACKET_RX_RING, _PACKET_VERSION, _TPACKET_V3 = 263, 5, 10, 2
_BLOCK = 1 << 20
_FRAME = 2048
"""Only checked by the kernel: a block divides into frames of any size."""
_PATIENCE_MS = 50
"""After so long the kernel hands over a block that is not full."""
_SIOCGIFNAME = 0x8910
_NAME_REQUEST = Struct("=16si20x")
_KERNEL = bytes(4)
_STATUS = 8
"""Where the owner of a block stands in it."""
_BLOCK_HEADER = Struct("=12xII")
"""Number of frames, offset of the first."""
# struct tpacket3_hdr, and behind it the struct sockaddr_ll: offset of the next frame, seconds, nanoseconds, bytes kept,
# length, status, offsets of the link-layer and the network header, VLAN tag; interface, kind of link, direction.
_FRAME_HEADER = Struct("=IIIIIIHH4xI16xiHB")
_OUTGOING = 4
_CHECKSUM_NOT_READY, _VLAN_VALID = 0x8, 0x10


class PacketRing:
    """The ring of one packet socket, of about `size` bytes. One thread may use it. Raises OSError without memory.

    It is to be made before the first frame is wanted: what the socket's own queue holds stays there.
    """

    def __init__(self, sock: Any, size: int) -> None:
        self._socket = sock
        sock.setsockopt(_SOL_PACKET, _PACKET_VERSION, _TPACKET_V3)
        self._blocks = max(2, size // _BLOCK)
        total = self._blocks * _BLOCK
        request = pack("=7I", _BLOCK, self._blocks, _FRAME, total // _FRAME, _PATIENCE_MS, 0, 0)
        sock.setsockopt(_SOL_PACKET, _PACKET_RX_RING, request)
        mmap: Any = import_module("mmap")  # type checkers know its flags on Unix only
        self._memory: Any = mmap.mmap(sock.fileno(), total, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
        self._names: dict[int, str] = {}
        self._current = 0
        self._left = 0
        """Frames of the current block that were not taken yet."""
        self._next = 0
        """Where the next of them begins."""

    def take(self, limit: int) -> list[Frame]:
        """Return up to `limit` of the frames that wait; it never blocks."""
        frames: list[Frame] = []
        while len(frames) < limit and (self._left or self._open_block()):
            count = min(self._left, limit - len(frames))
            self._read(frames, count)
            self._left -= count
            if not self._left:
                start = self._current * _BLOCK
                self._memory[start + _STATUS : start + _STATUS + 4] = _KERNEL
                self._current = (self._current + 1) % self._blocks
        return frames

    def _open_block(self) -> bool:
        start = self._current * _BLOCK
        if self._memory[start + _STATUS] & 1 == 0:
            return False
        # On processors that read ahead, what the kernel wrote before it gave the block away is in place after a call.
        select.select([], [], [], 0)
        self._left, first = _BLOCK_HEADER.unpack_from(self._memory, start)
        self._next = start + first
        return True

    def _read(self, frames: list[Frame], count: int) -> None:
        memory, unpack, names, place = self._memory, _FRAME_HEADER.unpack_from, self._names, self._next
        make = partial(tuple.__new__, Frame)  # a third of the time that the constructor of a named tuple takes
        for _ in range(count):
            fields = unpack(memory, place)
            step, seconds, nanoseconds, kept, length, status, link, network, tag, index, kind, direction = fields
            header = memory[place + link : place + link + ETHERNET_SIZE] if kind in ETHERNET_LIKE else b""
            name = names.get(index)
            if name is None:
                name = names[index] = self._name(index)
            vlan = (tag & 0x0FFF or None) if status & _VLAN_VALID else None
            packet = memory[place + network : place + link + kept]
            moment, checked = seconds * 1_000_000_000 + nanoseconds, not status & _CHECKSUM_NOT_READY
            length -= network - link
            frames.append(make((name, direction == _OUTGOING, moment, header, vlan, checked, packet, length)))
            place += step
        self._next = place

    def forget_names(self) -> None:
        """Ask for the names of interfaces anew: one was renamed, or came."""
        self._names.clear()

    def _name(self, index: int) -> str:
        # By the socket: this thread may be in another network namespace.
        with suppress(OSError):
            fcntl: Any = import_module("fcntl")
            answer = fcntl.ioctl(self._socket.fileno(), _SIOCGIFNAME, _NAME_REQUEST.pack(b"", index))
            name: bytes = _NAME_REQUEST.unpack(answer)[0]
            return name.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        return ""

    def close(self) -> None:
        """Give the memory back."""
        self._memory.close()
