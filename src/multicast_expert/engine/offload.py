"""Sends many datagrams in few system calls: those of equal size as one piece that the kernel cuts. Never waits.

Generic segmentation offload (GSO): one message with a UDP_SEGMENT control message leaves as datagrams of that size,
the last one shorter where the rest is (udp(7); `udp_send_skb` of Linux). The extension hands over several such messages
at once; without it, each is one call. Where there is no such option, every datagram goes alone.
"""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Sequence
from itertools import takewhile
from operator import eq
from struct import Struct
from typing import Any, NamedTuple

from multicast_expert import extension
from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.platforms import Platform
from multicast_expert.system.kernel import Socket

# The IP header, where it counts as payload of IP (IPv4 does, IPv6 does not), and the UDP header.
_HEADERS = {4: 28, 6: 48}
_MOST_BYTES = {4: 65535 - 28, 6: 65535 - 8}
# UDP_MAX_SEGMENTS of Linux since 6.9; it was 64 before.
_MOST_SEGMENTS = 128
_OLD_MOST_SEGMENTS = 64
_SEGMENT_SIZE = Struct("=H")
# So many datagrams of one size are cheaper as one piece than one by one, where Python does it.
WORTHWHILE = 4


class Limits(NamedTuple):
    """What the kernel takes as one piece."""

    datagrams: int
    """How many; 1: every datagram goes alone."""
    size: int = 0
    """The longest datagram: what the interface carries unfragmented."""
    total: int = 0
    """How many bytes together."""
    option: tuple[int, int] = (0, 0)
    """Level and type of the control message that tells the size."""

    def after(self, error: str, datagrams: int, size: int) -> Limits:
        """Return the limits to keep after the kernel refused a piece and took its datagrams one by one."""
        if error == "EMSGSIZE":
            return self._replace(size=size - 1)
        if error == "EINVAL" and datagrams > _OLD_MOST_SEGMENTS:
            return self._replace(datagrams=_OLD_MOST_SEGMENTS)
        return ALONE


ALONE = Limits(1)


class Outcome(NamedTuple):
    """How far sending came."""

    sent: int
    """How many datagrams went."""
    refused: int = 0
    """How many were in the piece that the OS refused; 0: all went."""
    error: OSError | None = None
    """Why."""


def limits(platform: Platform, sock: Socket, version: int, mtu: int | None) -> Limits:
    """Return what the kernel takes as one piece on this socket, as far as that is known before the first one.

    Asking for the option is not idle: a kernel without it would ignore the control message and send one long datagram.
    """
    if not platform.segments or mtu is None:
        return ALONE
    level, number = platform.options["UDP_SEGMENT"]
    buffer_level, buffer_size = platform.options["SO_SNDBUF"]
    assert level is not None
    assert buffer_level is not None
    try:
        sock.setsockopt(level, number, bytes(4))
        room = int.from_bytes(sock.getsockopt(buffer_level, buffer_size, 4), sys.byteorder)
    except OSError:
        return ALONE
    # A message of any length is let in where anything is free (socket(7): the size is doubled for the bookkeeping); a
    # program that made the buffer small wants little to wait in it.
    total = min(_MOST_BYTES[version], room // 2)
    return Limits(_MOST_SEGMENTS, mtu - _HEADERS[version], total, (level, number))


def send(
    sock: Socket, payloads: tuple[bytes, ...], first: int, stop: int, address: IPv4Or6Address, most: Limits
) -> Outcome:
    """Send the payloads from `first` up to `stop`, in order, until the OS refuses a piece."""
    if most.datagrams == 1:
        return _send_alone(sock, payloads[first:stop], address)
    if extension.native is None or not isinstance(sock, socket.socket):
        return _send_in_python(sock, payloads[first:stop], address, most)
    sent, refused, number = extension.native.send(sock.fileno(), payloads, first, stop, address, *most)
    return Outcome(sent, refused, OSError(number, os.strerror(number)) if number else None)


def _send_alone(sock: Socket, payloads: tuple[bytes, ...], address: IPv4Or6Address) -> Outcome:
    sent = 0
    try:
        for payload in payloads:
            sock.sendto(payload, address)
            sent += 1
    except OSError as error:
        return Outcome(sent, 1, error)
    return Outcome(sent)


def _send_in_python(sock: Any, payloads: tuple[bytes, ...], address: IPv4Or6Address, most: Limits) -> Outcome:
    sizes = list(map(len, payloads))
    # Where a run may begin. Where sizes vary that is hardly anywhere, and the rest is a plain loop.
    begins = list(map(eq, sizes, sizes[WORTHWHILE - 1 :]))
    begins += [False] * (len(sizes) - len(begins)) + [True]
    sent = 0
    while sent < len(payloads):
        begin = begins.index(True, sent)
        count = run_length(sizes, sent, most) if begin == sent else begin - sent
        if begin > sent or count == 1:
            went, refused, error = _send_alone(sock, payloads[sent : sent + count], address)
        else:
            went, refused, error = _send_piece(sock, payloads[sent : sent + count], address, most)
        sent += went
        if error is not None:
            return Outcome(sent, refused, error)
    return Outcome(sent)


def _send_piece(sock: Any, payloads: tuple[bytes, ...], address: IPv4Or6Address, most: Limits) -> Outcome:
    try:
        # One long buffer: the kernel copies it much faster than as many short ones.
        size = _SEGMENT_SIZE.pack(len(payloads[0]))
        sock.sendmsg((b"".join(payloads),), ((*most.option, size),), 0, address)
    except OSError as error:
        return Outcome(0, len(payloads), error)
    return Outcome(len(payloads))


def run_length(sizes: Sequence[int], first: int, most: Limits) -> int:
    """Return how many payloads from `first` on go as one piece: some of one size, and then perhaps a shorter one."""
    size = sizes[first]
    room = min(most.datagrams, most.total // size) if 0 < size <= most.size else 1
    window = sizes[first : first + room]
    equal = room if window.count(size) == room else sum(1 for _ in takewhile(size.__eq__, window))
    if equal < WORTHWHILE:
        return 1
    return equal + (equal < len(window) and 0 < window[equal] < size)
