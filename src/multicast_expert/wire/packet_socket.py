"""Packet sockets: frames as they are on the wire, before the kernel decides about them. The one file that opens them.

Linux, with CAP_NET_RAW. A filter in the kernel lets only the wanted frames through, so other traffic costs nothing.
Nothing is joined, and no interface changes its mode: what the network card discards stays unseen.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from contextlib import suppress
from struct import Struct, pack
from typing import Any

from multicast_expert.core.datagram import decode_arrival
from multicast_expert.system import kernel
from multicast_expert.system.socket_filter import attach
from multicast_expert.wire.frame import ETHERNET_LIKE, ETHERNET_SIZE, Frame
from multicast_expert.wire.packet_filter import Instruction
from multicast_expert.wire.packet_ring import PacketRing

# packet(7) and raw(7), by the numbers of linux/if_packet.h and asm-generic/socket.h.
_AF_PACKET = 17
_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, _PACKET_STATISTICS, _PACKET_AUXDATA = 263, 1, 6, 8
_ONE_GROUP, _ALL_GROUPS = 0, 2  # PACKET_MR_MULTICAST, PACKET_MR_ALLMULTI
_AUXDATA = Struct("=IIIHHHH")
_OUTGOING = 4
_CHECKSUM_NOT_READY, _VLAN_VALID = 0x8, 0x10
_LONGEST = 65535 + 64
_BACKLOG = 10000


class FrameSocket:
    """Frames of all interfaces, also of those that come later, as the filter lets them through.

    `ring`: bytes of memory that the kernel shares for them, which makes each one cheaper; without it, or where the
    kernel has none, they wait in the socket's `buffer`. Raises PermissionError without CAP_NET_RAW, or another OSError.
    """

    def __init__(self, program: Sequence[Instruction], *, buffer: int | None = None, ring: int | None = None) -> None:
        # Type checkers know recvmsg and packet sockets on Linux only.
        self._socket: Any = socket.socket(_AF_PACKET, socket.SOCK_RAW, socket.htons(_ETH_P_ALL))
        self._lost = 0
        self._ring: PacketRing | None = None
        try:
            self._prepare(program, buffer)
            self._ring = _open_ring(self._socket, ring) if ring else None
        except BaseException:
            self._socket.close()
            raise

    def _prepare(self, program: Sequence[Instruction], buffer: int | None) -> None:
        self._socket.setblocking(False)
        self._socket.setsockopt(_SOL_PACKET, _PACKET_AUXDATA, 1)
        option = kernel.SYSTEM.platform.ancillary.timestamp
        while option is not None:
            with suppress(OSError):
                self._socket.setsockopt(option.level or 0, option.number, option.value)
                break
            option = option.fallback
        if buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        self.filter(program)
        # Drop the frames that came in before the filter was attached.
        with suppress(BlockingIOError):
            for _ in range(_BACKLOG):
                self._socket.recv(1)

    def fileno(self) -> int:
        """Return the descriptor that is readable while frames wait."""
        descriptor: int = self._socket.fileno()
        return descriptor

    def filter(self, program: Sequence[Instruction]) -> None:
        """Attach another filter in place of the present one; no frame is lost."""
        attach(self._socket, program)
        if self._ring is not None:
            self._ring.forget_names()

    def pass_all_groups(self, index: int) -> None:
        """Let the network card pass all groups until the socket is closed; an interface that has gone is left out."""
        with suppress(OSError):
            self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, pack("=iHH8x", index, _ALL_GROUPS, 0))

    def pass_group(self, index: int, station: str) -> None:
        """Let the network card pass an Ethernet address of groups until the socket is closed, as above."""
        address = bytes.fromhex(station.replace(":", ""))
        with suppress(OSError):
            membership = pack("=iHH8s", index, _ONE_GROUP, len(address), address)
            self._socket.setsockopt(_SOL_PACKET, _PACKET_ADD_MEMBERSHIP, membership)

    def take(self, limit: int) -> list[Frame]:
        """Return up to `limit` of the frames that wait; it never blocks."""
        if self._ring is not None:
            return self._ring.take(limit)
        frames: list[Frame] = []
        fields = kernel.SYSTEM.platform.ancillary.fields
        for _ in range(limit):
            try:
                frame, messages, _, address = self._socket.recvmsg(_LONGEST, 128)
            except OSError:
                # The socket is empty, or an interface went down, which the kernel reports once.
                break
            interface, _, direction, link_type, *_ = address
            checked, vlan, length, start = True, None, len(frame), 0
            for level, kind, data in messages:
                if (level, kind) == (_SOL_PACKET, _PACKET_AUXDATA) and len(data) >= _AUXDATA.size:
                    status, length, _, _, start, tag, _ = _AUXDATA.unpack_from(data)
                    checked = not status & _CHECKSUM_NOT_READY
                    # A tag of VLAN 0 carries a priority only (IEEE 802.1Q).
                    vlan = (tag & 0x0FFF or None) if status & _VLAN_VALID else None
            header = frame[:ETHERNET_SIZE] if link_type in ETHERNET_LIKE else b""
            time, outgoing = decode_arrival(messages, fields).timestamp_ns, direction == _OUTGOING
            frames.append(Frame(interface, outgoing, time, header, vlan, checked, frame[start:], length - start))
        return frames

    def lost(self) -> int:
        """Return how many frames found no room in the buffer so far."""
        # The kernel begins anew after each answer.
        _, dropped = Struct("=II").unpack(self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8))
        self._lost += dropped
        return self._lost

    def close(self) -> None:
        """Close the socket."""
        if self._ring is not None:
            self._ring.close()
        self._socket.close()


def _open_ring(sock: Any, size: int) -> PacketRing | None:
    """Return a ring for the socket; None where the kernel, or its memory, does not allow it."""
    try:
        return PacketRing(sock, size)
    except OSError:
        return None


def frame_sender() -> socket.socket:
    """Return a packet socket that sends IP packets as they are, behind a link-layer header. Raises OSError."""
    return socket.socket(_AF_PACKET, socket.SOCK_DGRAM, 0)


def may_capture() -> bool:
    """Return whether this process may open packet sockets."""
    try:
        socket.socket(_AF_PACKET, socket.SOCK_RAW, 0).close()
    except PermissionError:
        return False
    except OSError as error:
        return kernel.SYSTEM.platform.errors.get(error.errno or 0) in ("EMFILE", "ENFILE")
    return True
