"""The functions of Windows that Python lacks, by ctypes: WSARecvMsg, WSAIoctl, and those that describe the adapters.

Sources: mswsock.h, ws2def.h, iphlpapi.h and the reference pages of the functions. Seen under Wine only.
"""

from __future__ import annotations

import ctypes
import socket
import sys
from typing import Any

from multicast_expert.platforms.layouts import control_messages, socket_address

assert sys.platform == "win32"

_WSAEWOULDBLOCK = 10035
_WSAEMSGSIZE = 10040
_SIO_GET_EXTENSION_FUNCTION_POINTER = 0xC8000006
_ERROR_BUFFER_OVERFLOW = 111
_ERROR_NO_DATA = 232
# Neither anycast nor multicast addresses nor name servers.
_GAA_FLAGS = 0x2 | 0x4 | 0x8
_WSAID_WSARECVMSG = bytes.fromhex("c8d789f61f6f6b438a53e54fe351c322")


class _Buffer(ctypes.Structure):
    _fields_ = (("len", ctypes.c_ulong), ("buf", ctypes.c_void_p))


class _Message(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("namelen", ctypes.c_int),
        ("buffers", ctypes.POINTER(_Buffer)),
        ("buffer_count", ctypes.c_ulong),
        ("control", _Buffer),
        ("flags", ctypes.c_ulong),
    )


_iphlpapi = ctypes.WinDLL("iphlpapi")
_ws2_32 = ctypes.WinDLL("ws2_32", use_last_error=True)
_ws2_32.WSAIoctl.argtypes = (
    ctypes.c_size_t,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.c_void_p,
    ctypes.c_ulong,
    ctypes.POINTER(ctypes.c_ulong),
    ctypes.c_void_p,
    ctypes.c_void_p,
)
_RecvMsg = ctypes.WINFUNCTYPE(
    ctypes.c_int,
    ctypes.c_size_t,
    ctypes.POINTER(_Message),
    ctypes.POINTER(ctypes.c_ulong),
    ctypes.c_void_p,
    ctypes.c_void_p,
    use_last_error=True,
)


def _raise_last_error() -> None:
    number = ctypes.get_last_error()
    if number == _WSAEWOULDBLOCK:
        raise BlockingIOError(number, "the operation would block")
    raise OSError(None, ctypes.FormatError(number).strip(), None, number)


def _ioctl(descriptor: int, code: int, value: bytes, answer_size: int) -> bytes:
    answer = ctypes.create_string_buffer(answer_size) if answer_size else None
    returned = ctypes.c_ulong()
    if _ws2_32.WSAIoctl(descriptor, code, value, len(value), answer, answer_size, ctypes.byref(returned), None, None):
        _raise_last_error()
    return answer.raw[: returned.value] if answer is not None else b""


class WinSocket(socket.socket):
    """A socket that never blocks, with `recvmsg` and `ioctl_bytes`, which Python leaves out on Windows."""

    _receive_message: Any = None

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        self.setblocking(False)

    def ioctl_bytes(self, code: int, value: bytes) -> None:
        """Call WSAIoctl with a value; `socket.ioctl` knows three codes only."""
        _ioctl(self.fileno(), code, value, 0)

    def recvmsg(
        self, bufsize: int, ancbufsize: int = 0, flags: int = 0, /
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, Any]:
        """Receive a datagram with its control messages, in the shape of `socket.recvmsg` on Unix.

        A datagram larger than `bufsize` is cut, and MSG_TRUNC (0x100) says so.
        """
        if self._receive_message is None:
            size = ctypes.sizeof(ctypes.c_void_p)
            pointer = _ioctl(self.fileno(), _SIO_GET_EXTENSION_FUNCTION_POINTER, _WSAID_WSARECVMSG, size)
            self._receive_message = _RecvMsg(int.from_bytes(pointer, "little"))
        data = ctypes.create_string_buffer(max(bufsize, 1))
        control = ctypes.create_string_buffer(max(ancbufsize, 1))
        name = ctypes.create_string_buffer(128)
        buffer = _Buffer(bufsize, ctypes.addressof(data))
        message = _Message(
            ctypes.addressof(name),
            len(name),
            ctypes.pointer(buffer),
            1,
            _Buffer(ancbufsize, ctypes.addressof(control)),
            flags,
        )
        received = ctypes.c_ulong()
        failed = self._receive_message(self.fileno(), ctypes.byref(message), ctypes.byref(received), None, None)
        if failed and ctypes.get_last_error() != _WSAEMSGSIZE:
            _raise_last_error()
        length = bufsize if failed else received.value
        messages = control_messages(control.raw[: message.control.len])
        return ctypes.string_at(data, length), messages, message.flags, socket_address(name.raw)


def best_interface(sockaddr: bytes) -> int:
    """Return the index of the interface that the address is routed to (GetBestInterfaceEx). Raises OSError."""
    index = ctypes.c_ulong()
    number = _iphlpapi.GetBestInterfaceEx(sockaddr, ctypes.byref(index))
    if number:
        raise OSError(None, ctypes.FormatError(number).strip(), None, number)
    return index.value


def adapters_addresses() -> tuple[bytes, int]:
    """Return what GetAdaptersAddresses writes, and the address that it is at. Raises OSError."""
    size = ctypes.c_ulong(16384)
    while True:
        buffer = ctypes.create_string_buffer(size.value)
        number = _iphlpapi.GetAdaptersAddresses(0, _GAA_FLAGS, None, buffer, ctypes.byref(size))
        if number == _ERROR_NO_DATA:
            return b"", 0
        if not number:
            return buffer.raw, ctypes.addressof(buffer)
        if number != _ERROR_BUFFER_OVERFLOW:
            raise OSError(None, ctypes.FormatError(number).strip(), None, number)
