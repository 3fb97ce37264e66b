"""Receivers and senders that take part in a network of bridges by themselves, without any local multicast."""

from __future__ import annotations

import atexit
import os
import socket
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import suppress
from ctypes import py_object, pythonapi
from itertools import islice
from math import inf
from time import monotonic, time_ns
from types import TracebackType
from typing import NoReturn, Self
from weakref import WeakSet

from multicast_expert.bridge.frames import (
    ID_BYTES,
    Frame,
    MalformedFrameError,
    Origin,
    build_frame,
    integers,
    parse_frame,
)
from multicast_expert.bridge.interest import Group, Keys, Wish
from multicast_expert.bridge.network import Connection, Subscriber, ZenohNetwork, listed
from multicast_expert.bridge.streams import Streams
from multicast_expert.core.addresses import IPAddress, IPv4Or6Address
from multicast_expert.core.datagram import MAX_PAYLOAD, Datagram, arrived
from multicast_expert.core.datagram import Origin as DatagramParts
from multicast_expert.core.endpoints import Endpoint, parse_endpoint
from multicast_expert.core.errors import MulticastExpertError, NotOpenError
from multicast_expert.core.plan import check_hop_limit

MOST_WAITING = 64 << 20
"""Bytes of payload that wait to be received, at most; then the newest are dropped, and counted in `dropped`."""
MOST_FRAMES = 8192
"""The same of frames that a thread has not read yet."""
MOST_TOGETHER = 64
"""Datagrams of a frame that a sender makes."""
LARGEST_TOGETHER = 49152


class _Participant:
    """A program that takes part: opened once, closed once."""

    def __init__(
        self, endpoint: str | Endpoint, connect: Sequence[str], connection: Connection | None, network: str
    ) -> None:
        parsed = parse_endpoint(endpoint, needs_port=True) if isinstance(endpoint, str) else endpoint
        self.group: Group = Group(parsed.group, parsed.port or 0)
        self._source: IPAddress | None = parsed.source
        self._connection = (connection or Connection(mode="client"))._replace(
            connect=[*(connection.connect if connection else ()), *listed(connect, "connect")]
        )
        if not self._connection.connect and not self._connection.listen and self._connection.config is None:
            raise MulticastExpertError("Say where a bridge is: connect=['tcp/192.0.2.1:7447'].")
        try:
            self._keys = Keys(network)
        except ValueError as error:
            raise MulticastExpertError(f"{error}.") from None
        self._own = os.urandom(ID_BYTES)
        self._session: ZenohNetwork | None = None

    @property
    def is_opened(self) -> bool:
        """Whether it is open."""
        return self._session is not None

    def open(self) -> Self:
        """Open it and return it; the same as entering a `with` block. Raises MulticastExpertError."""
        if self._session is not None:
            raise MulticastExpertError("It is open already.")
        session = ZenohNetwork(self._connection)
        try:
            session.announce(self._keys.here(self._own, socket.gethostname()))
            self._begin(session)
        except BaseException:
            session.close()
            raise
        self._session = session
        _opened.add(self)
        return self

    def _begin(self, session: ZenohNetwork) -> None:
        raise AssertionError

    def close(self) -> None:
        """Leave the network of bridges. A second call does nothing."""
        session, self._session = self._session, None
        _opened.discard(self)
        if session is not None:
            self._end()
            session.close()

    def _end(self) -> None:
        raise AssertionError

    def abandon(self) -> None:
        """In the child of a fork, where Zenoh has no threads: it is closed, without a word to the network."""
        self._inherited, self._session = self._session, None
        # Zenoh would wait for its threads for ever when what belongs to it is collected, also at the end of the child.
        pythonapi.Py_IncRef(py_object(self))

    def _check_open(self) -> ZenohNetwork:
        if self._session is None:
            raise NotOpenError("It is not open: use it in a with block, or call open().")
        return self._session

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, exc_type: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()


_opened: WeakSet[_Participant] = WeakSet()


@atexit.register
def _close_all() -> None:
    """Close what the program has not: Zenoh aborts a process whose interpreter ends while a thread waits in it."""
    for each in list(_opened):
        each.close()


def _abandon_all() -> None:
    inherited = list(_opened)
    _opened.clear()
    for each in inherited:
        each.abandon()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_abandon_all)


class RemoteReceiver(_Participant):
    """Receives one endpoint from the sites of a network of bridges. Any thread may receive, and close it.

    A datagram's `sender` and `hop_limit` are those that it had at its own site. The methods with `async_` before their
    name are for asyncio and trio.
    """

    dropped: int = 0
    """Datagrams that came faster than they were received."""
    lost: int = 0
    """Datagrams that are missing on the way from other sites."""
    malformed: int = 0
    """What came and is no frame."""

    def _begin(self, session: ZenohNetwork) -> None:
        self._waiting: deque[Datagram] = deque()
        self._bytes = 0
        self._change = threading.Condition()
        self._streams = Streams()
        self._subscriber = session.subscriber(self._keys.data(self.group), MOST_FRAMES)
        session.announce(self._keys.want(self._own, Wish(self.group, self._source)))
        self._thread = threading.Thread(target=self._run, args=(self._subscriber,), daemon=True)
        self._thread.start()

    def _end(self) -> None:
        self._subscriber.close()
        with self._change:
            self._change.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(5.0)

    def _run(self, subscriber: Subscriber) -> None:
        while (data := subscriber.receive()) is not None:
            try:
                frame = parse_frame(data)
            except MalformedFrameError:
                self.malformed += 1
                continue
            verdict = self._streams.take(frame.sender, frame.first, frame.size)
            self.lost += verdict.lost
            if verdict.is_new and (frame.group, frame.port) == (str(self.group.group), self.group.port):
                self._keep(frame)

    def _keep(self, frame: Frame) -> None:
        datagrams = list(self._datagrams(frame))
        size = sum(len(each.data) for each in datagrams)
        with self._change:
            if self._bytes + size > MOST_WAITING:
                self.dropped += len(datagrams)
                return
            self._bytes += size
            self._waiting += datagrams
            self._change.notify_all()

    def _datagrams(self, frame: Frame) -> Iterator[Datagram]:
        origins = [self._described(each, frame.group) for each in frame.origins]
        wanted = None if self._source is None else str(self._source)
        places, times = integers(frame.sources, "i"), integers(frame.times, "q")
        for place, stamp, payload in zip(places, times, frame.payloads(), strict=True):
            if wanted in (None, frame.origins[place].address):
                yield arrived(payload, origins[place], stamp or None, False)

    @staticmethod
    def _described(origin: Origin, group: str) -> DatagramParts:
        sender: IPv4Or6Address = (
            (origin.address, origin.port) if ":" not in group else (origin.address, origin.port, 0, 0)
        )
        traffic_class = None if origin.dscp is None else origin.dscp << 2
        return sender, group, None, None, origin.hop_limit, group, traffic_class

    def _take(self, limit: int) -> list[Datagram]:
        """Return what waits; to be called with the lock."""
        found = list(islice(self._waiting, limit))
        for each in found:
            self._waiting.popleft()
            self._bytes -= len(each.data)
        return found

    def receive_many(self, limit: int = 1024, timeout: float | None = None) -> list[Datagram]:
        """Return the datagrams that are there, 1 to `limit`; waits only for the first. Raises TimeoutError."""
        self._check_open()
        with self._change:
            self._change.wait_for(lambda: self._waiting or not self.is_opened, timeout)
            found = self._taken(limit)
        return found or self._time_out(timeout)

    def _taken(self, limit: int) -> list[Datagram]:
        with self._change:
            found = self._take(max(1, limit))
        if not found:
            self._check_open()
        return found

    @staticmethod
    def _time_out(timeout: float | None) -> NoReturn:
        raise TimeoutError(f"Nothing was received within {timeout} s.")

    def receive(self, timeout: float | None = None) -> Datagram:
        """Return the next datagram. timeout: seconds; None: for ever. Raises TimeoutError."""
        return self.receive_many(1, timeout)[0]

    def __iter__(self) -> Iterator[Datagram]:
        """Yield datagrams as they come, until it is closed."""
        with suppress(NotOpenError):
            while True:
                yield self.receive()

    async def async_receive_many(self, limit: int = 1024, timeout: float | None = None) -> list[Datagram]:
        """As `receive_many`; a cancelled call loses nothing."""
        from multicast_expert.sockets.loops import checkpoint, in_thread  # noqa: PLC0415 - takes long to import

        self._check_open()
        # Other tasks get their turn, also while datagrams come without a pause.
        await checkpoint()
        deadline = inf if timeout is None else monotonic() + timeout
        while not (found := self._taken(limit)):
            left = min(1.0, deadline - monotonic())
            if left <= 0:
                self._time_out(timeout)
            await in_thread(lambda left=left: self._wait(left))  # type: ignore[misc]
        return found

    def _wait(self, timeout: float) -> bool:
        with self._change:
            return self._change.wait_for(lambda: bool(self._waiting) or not self.is_opened, timeout)

    async def async_receive(self, timeout: float | None = None) -> Datagram:
        """As `receive`; a cancelled call loses nothing."""
        return (await self.async_receive_many(1, timeout))[0]

    async def __aiter__(self) -> AsyncIterator[Datagram]:
        """Yield datagrams as they come, until it is closed."""
        with suppress(NotOpenError):
            while True:
                yield await self.async_receive()


class RemoteSender(_Participant):
    """Sends to one endpoint at the sites of a network of bridges that want it. Any thread may send."""

    hop_limit: int = 32

    @property
    def is_wanted(self) -> bool:
        """Whether any site or program wants what it sends, and is connected. Other datagrams are dropped."""
        return self.is_opened and self._publisher.is_wanted()

    def _begin(self, session: ZenohNetwork) -> None:
        self._lock = threading.Lock()
        self._publisher = session.publisher(self._keys.data(self.group))
        self._next = 0

    def _end(self) -> None:
        self._publisher.close()

    def send(self, data: bytes) -> None:
        """Send one datagram. Never waits: what a site cannot take is dropped, and counted there as lost."""
        self.send_many([data])

    def send_many(self, payloads: Iterable[bytes]) -> int:
        """Send several datagrams; return how many. Raises MulticastExpertError for one that is too long for UDP."""
        self._check_open()
        sent, together, size = 0, [], 0
        for payload in payloads:
            if len(payload) > MAX_PAYLOAD[self.group.group.version]:
                raise MulticastExpertError(f"{len(payload)} bytes are too long for a datagram.")
            together.append(bytes(payload))
            size += len(payload)
            if len(together) == MOST_TOGETHER or size >= LARGEST_TOGETHER:
                sent += self._put(together)
                together, size = [], 0
        return sent + (self._put(together) if together else 0)

    def _put(self, payloads: Sequence[bytes]) -> int:
        count, version = len(payloads), self.group.group.version
        origin = Origin("0.0.0.0" if version == 4 else "::", 0, self.hop_limit)
        with self._lock:
            frame = Frame(
                self._own,
                self._next,
                str(self.group.group),
                self.group.port,
                [self._own],
                [origin],
                b"".join(len(each).to_bytes(4, "little") for each in payloads),
                bytes(4 * count),
                time_ns().to_bytes(8, "little") * count,
                b"".join(payloads),
            )
            self._next += count
            self._publisher.put(build_frame(frame))
        return count


def receiver(
    endpoint: str | Endpoint,
    connect: Sequence[str] = (),
    *,
    connection: Connection | None = None,
    network: str = "default",
) -> RemoteReceiver:
    """Return a receiver of `[source@]group:port` from the sites of a network of bridges: no multicast, no privilege.

    connect: locators of bridges or Zenoh routers, such as `tcp/192.0.2.1:7447`. connection: more about the connection,
    such as certificates. network: the name that the bridges have. Raises MulticastExpertError.
    """
    return RemoteReceiver(endpoint, connect, connection, network)


def sender(
    endpoint: str | Endpoint,
    connect: Sequence[str] = (),
    *,
    connection: Connection | None = None,
    network: str = "default",
    hop_limit: int = 32,
) -> RemoteSender:
    """Return a sender to `group:port` at the sites that want it; see `receiver`.

    hop_limit: how many hops the datagrams may go at those sites.
    """
    check_hop_limit(hop_limit)
    made = RemoteSender(endpoint, connect, connection, network)
    made.hop_limit = hop_limit
    return made
