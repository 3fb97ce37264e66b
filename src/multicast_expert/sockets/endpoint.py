"""create_multicast_endpoint: a datagram transport of asyncio and uvloop that receives groups and unicast, and sends.

It behaves as asyncio's own datagram transports do: what the OS refuses goes to `error_received`, a protocol that
returns late is told to pause, and `connection_lost` is the last call. All methods belong to the thread of the loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Generator, Iterable
from typing import Any, TypeVar

from multicast_expert.core.addresses import MulticastAddress
from multicast_expert.core.both_ways import UnicastWish
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceSpecifier
from multicast_expert.sockets.aio import AsyncMcastSocket
from multicast_expert.sockets.healing import HealingEvent
from multicast_expert.sockets.outlet import Outlet

Protocol = TypeVar("Protocol", bound=asyncio.BaseProtocol)

_HIGH_WATER = 65536
"""Bytes that may wait for room before the protocol is told to pause, as in asyncio."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.001, 0.1
"""Seconds between attempts to receive that fail one after the other."""
_AT_ONCE = 64
"""How many datagrams are handed to the protocol before other tasks get their turn."""


class MulticastTransport(asyncio.DatagramTransport):
    """Made by `create_multicast_endpoint`."""

    def __init__(self, loop: asyncio.AbstractEventLoop, sock: AsyncMcastSocket, protocol: asyncio.BaseProtocol) -> None:
        super().__init__()
        self._loop = loop
        self._socket = sock
        self._protocol: Any = protocol
        self._is_closing = False
        self._is_over = False
        self._waiting: deque[tuple[Generator[Outlet, None, None], int]] = deque()
        """What waits for room, oldest first, each with its size; the first one has begun."""
        self._size = 0
        self._high, self._low = _HIGH_WATER, _HIGH_WATER // 4
        self._is_paused = False
        self._flushing: asyncio.Task[None] | None = None
        self._reading: asyncio.Task[None] | None = None
        self._facts: dict[str, Any] = {}
        self._look()

    def start(self) -> None:
        """Begin to hand datagrams to the protocol."""
        if not self._is_closing:
            self._reading = self._begin(self._read())

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        """End with a task that somebody cancelled with all others, or that the protocol left by SystemExit."""
        error = None if task.cancelled() else task.exception()
        if task in (self._reading, self._flushing):
            self._end(error if isinstance(error, Exception) else None)

    # Receiving

    async def _read(self) -> None:
        pause = 0.0
        while not self._is_closing:
            try:
                datagrams = await self._socket.receive_many(_AT_ONCE, None)
            except MulticastOSError as error:
                self._report(error)
                # An error may be about one datagram only, so it goes on; if every attempt fails, it must not spin.
                await asyncio.sleep(pause)
                pause = min(_LONGEST_PAUSE, 2 * pause or _FIRST_PAUSE)
                continue
            except MulticastExpertError as error:
                # Somebody closed the socket itself.
                if not self._is_closing:
                    self._end(error)
                return
            pause = 0.0
            for datagram in datagrams:
                if self._is_closing:
                    return
                self._deliver(datagram)

    def _deliver(self, datagram: Datagram) -> None:
        received = getattr(self._protocol, "multicast_received", None)
        if received is not None:
            self._call(received, datagram)
        else:
            self._call(self._protocol.datagram_received, datagram.data, datagram.sender)

    def _report(self, error: Exception) -> None:
        self._call(self._protocol.error_received, error)

    def _call(self, method: Callable[..., object], *arguments: object) -> None:
        """Call the protocol; what it raises goes to the exception handler of the loop."""
        try:
            method(*arguments)
        except Exception as error:  # noqa: BLE001 - whatever the program did wrong
            self._loop.call_exception_handler(
                {
                    "message": f"{type(self._protocol).__name__} raised an exception",
                    "exception": error,
                    "transport": self,
                    "protocol": self._protocol,
                }
            )

    # Sending

    def sendto(self, data: Any, addr: Any = None) -> None:
        """Send to a group, out of each interface, or to a host; see `McastSocket.sendto`.

        `addr` is needed. What is refused goes to `error_received`; what there is no room for waits.
        """
        if addr is None:
            raise ValueError("This transport has no remote address: sendto() needs one.")
        payload = _payload(data)
        self._send(payload, lambda: self._socket.sending_to(payload, addr))

    def reply(self, datagram: Datagram, data: Any) -> None:
        """Send to the sender of a datagram, out of the interface it came in on; see `McastSocket.reply`."""
        payload = _payload(data)
        self._send(payload, lambda: self._socket.replying_to(datagram, payload))

    def _send(self, payload: bytes, begin: Callable[[], Generator[Outlet, None, None]]) -> None:
        if self._is_closing:
            return
        try:
            steps = begin()
            if not self._waiting and next(steps, None) is None:
                return
        except MulticastExpertError as error:
            self._report(error)
            return
        self._waiting.append((steps, len(payload)))
        self._size += len(payload)
        self._mind_the_limits()
        if self._flushing is None:
            self._flushing = self._begin(self._flush())

    async def _flush(self) -> None:
        """Send what waits for room."""
        while self._waiting:
            steps, size = self._waiting[0]
            try:
                await self._socket.wait_through(steps)
            except MulticastExpertError as error:
                if not self._is_over:
                    self._report(error)
            if self._waiting:
                self._waiting.popleft()
                self._size -= size
                self._mind_the_limits()
        self._flushing = None
        if self._is_closing:
            self._end(None)

    def _mind_the_limits(self) -> None:
        if not self._is_paused and self._size > self._high:
            self._is_paused = True
            self._call(self._protocol.pause_writing)
        elif self._is_paused and self._size <= self._low:
            self._is_paused = False
            self._call(self._protocol.resume_writing)

    def get_write_buffer_size(self) -> int:
        """Return how many bytes wait for room."""
        return self._size

    def get_write_buffer_limits(self) -> tuple[int, int]:
        """Return the sizes at which the protocol is told to resume and to pause."""
        return self._low, self._high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        """Set how many bytes may wait before the protocol is told to pause, and to resume."""
        if high is None:
            high = _HIGH_WATER if low is None else 4 * low
        if low is None:
            low = high // 4
        if not high >= low >= 0:
            raise ValueError(f"high ({high!r}) must be >= low ({low!r}) must be >= 0")
        self._high, self._low = high, low
        self._mind_the_limits()

    # Closing

    def is_closing(self) -> bool:
        """Return whether it is closed, or about to be."""
        return self._is_closing

    def close(self) -> None:
        """Receive nothing more, send what waits, and close; a second call does nothing."""
        if not self._is_closing:
            self._stop_reading()
            if not self._waiting:
                self._loop.call_soon(self._end, None)

    def abort(self) -> None:
        """Close at once; what waits for room is lost."""
        self._stop_reading()
        self._waiting.clear()
        self._size = 0
        self._loop.call_soon(self._end, None)

    def _stop_reading(self) -> None:
        self._is_closing = True
        if self._reading is not None and self._reading is not _current_task(self._loop):
            self._reading.cancel()
        self._reading = None

    def _end(self, error: Exception | None) -> None:
        if self._is_over:
            return
        self._is_closing = self._is_over = True
        self._waiting.clear()
        self._size = 0
        self._look()
        self._socket.close()
        self._call(self._protocol.connection_lost, error)

    # Facts

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return "sockname"; "socket", the first OS socket; "sockets", all; or "multicast_socket".

        After the end, the first three are as they were last known.
        """
        if name == "multicast_socket":
            return self._socket
        self._look()
        return self._facts.get(name, default)

    def _look(self) -> None:
        """Note what `get_extra_info` returns, which stays when the socket is closed, as in asyncio."""
        if self._socket.is_opened:
            found = self._socket.os_sockets()
            self._facts = {"sockname": self._socket.getsockname(), "sockets": found}
            if found:
                self._facts["socket"] = found[0]

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        """Hand everything to another protocol from now on."""
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        """Return the protocol."""
        found: asyncio.BaseProtocol = self._protocol
        return found

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'closing' if self._is_closing else 'open'} {self._socket!r}>"


def _payload(data: Any) -> bytes:
    if not isinstance(data, bytes | bytearray | memoryview):
        raise TypeError(f"data must be a bytes-like object, not {type(data).__name__}")
    # The program may change its buffer before there is room.
    return bytes(data)


def _current_task(loop: asyncio.AbstractEventLoop) -> asyncio.Task[Any] | None:
    try:
        return asyncio.current_task(loop)
    except RuntimeError:
        return None


async def create_multicast_endpoint(
    protocol_factory: Callable[[], Protocol],
    addr_family: int,
    mcast_ips: Iterable[MulticastAddress] = (),
    port: int = 0,
    iface: IfaceSpecifier | None = None,
    ifaces: Iterable[IfaceSpecifier] | None = None,
    source_ips: Iterable[MulticastAddress] | None = None,
    *,
    ttl: int = 1,
    unicast: UnicastWish = True,
    own: bool = False,
    enable_external_loopback: bool = True,
    dscp: int | None = None,
    receive_buffer: int | None = None,
    timestamps: bool = False,
    heal: bool = True,
    allow_missing: bool = False,
    on_event: Callable[[HealingEvent], None] | None = None,
    gro: bool = True,
    traffic_class: bool = False,
) -> tuple[MulticastTransport, Protocol]:
    """Return a datagram transport and a protocol, as `loop.create_datagram_endpoint` does, on asyncio and uvloop.

    The parameters behind the first are those of McastSocket. The transport also has `reply(datagram, data)`. A protocol
    that has a method `multicast_received(datagram)` gets each Datagram there, any other one `datagram_received`.
    `connection_made` comes before any datagram. Raises what McastSocket raises.
    """
    loop = asyncio.get_running_loop()
    sock = AsyncMcastSocket(
        addr_family,
        mcast_ips,
        port,
        iface,
        ifaces,
        source_ips,
        ttl=ttl,
        unicast=unicast,
        own=own,
        enable_external_loopback=enable_external_loopback,
        dscp=dscp,
        receive_buffer=receive_buffer,
        timestamps=timestamps,
        heal=heal,
        allow_missing=allow_missing,
        on_event=on_event,
        gro=gro,
        traffic_class=traffic_class,
    ).open()
    try:
        protocol = protocol_factory()
        transport = MulticastTransport(loop, sock, protocol)
        protocol.connection_made(transport)
    except BaseException:
        sock.close()
        raise
    transport.start()
    return transport, protocol
