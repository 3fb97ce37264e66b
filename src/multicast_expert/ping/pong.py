"""The server of multicast ping on this host: its sockets, and the measuring of other hosts for clients."""

from __future__ import annotations

import asyncio
import os
import socket
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from ipaddress import ip_address
from time import monotonic

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.errors import MulticastExpertError, MulticastWarning
from multicast_expert.ping.conversation import Conversation
from multicast_expert.ping.measuring import Request, Result, build_reports, read_request, result_of
from multicast_expert.ping.messages import CLIENT_ID, MEASURE, MalformedMessageError, parse_message
from multicast_expert.ping.pinger import Pinger, Unsent, answer
from multicast_expert.ping.server import Client, PingServer, ServerSettings
from multicast_expert.ping.wish import Wish
from multicast_expert.sockets.aio import AsyncMcastSocket

KEEP = 3.0
"""Seconds after which a measurement ends that no client asks for again."""
MOST_MEASURED = 256
"""How many hosts are measured at once."""
LEAST_INTERVAL = 0.1
"""Seconds between two queries to one of them, at least."""
LARGEST = 9000
"""Bytes of such a query, at most."""
_Key = tuple[IPAddress, int, Request]


@dataclass(slots=True)
class _Measured:
    conversation: Conversation
    asked_at: float


@dataclass(slots=True)
class _Station:
    """What measures by one version of IP, while there is something to measure."""

    version: int
    measured: dict[_Key, _Measured] = field(default_factory=dict)
    wanted: asyncio.Event = field(default_factory=asyncio.Event)
    pinger: Pinger | None = None


class Pong:
    """Answers multicast pings on some ports, versions of IP and interfaces (None: all, also those that come later).

    measures: whether clients with a session may have it measure hosts that run a server too. on_failure: is called with
    each answer that could not be sent.
    """

    def __init__(
        self,
        settings: ServerSettings,
        *,
        ports: Sequence[int],
        versions: Sequence[int] = (4, 6),
        ifaces: Sequence[str] | None = None,
        measures: bool = True,
        on_failure: Callable[[Unsent], None] = lambda _: None,
    ) -> None:
        self.server: PingServer = PingServer(settings, os.urandom(32))
        self.failed: Counter[bool] = Counter()
        """Answers that could not be sent: by multicast (True), and others."""
        self._on_failure = on_failure
        self._ifaces = None if ifaces is None else list(ifaces)
        self._stations = {version: _Station(version) for version in versions} if measures else {}
        self._sockets = [
            AsyncMcastSocket(
                socket.AF_INET if version == 4 else socket.AF_INET6,
                (),
                port,
                ifaces=self._ifaces,
                ttl=settings.ttl,
                unicast="any" if ifaces is None else True,
                allow_missing=True,
            )
            for version in versions
            for port in ports
        ]

    @property
    def missing_interfaces(self) -> list[str]:
        """The interfaces that were named and are not there yet; the server uses them as soon as they are."""
        return list(dict.fromkeys(name for each in self._sockets for name in each.missing_interfaces))

    async def run(self, ready: asyncio.Event | None = None) -> None:
        """Serve until cancelled. Raises MulticastExpertError if a port cannot be had."""
        async with AsyncExitStack() as opened:
            with warnings.catch_warnings():
                # That nothing is sent on an interface without an address is no news to a server.
                warnings.simplefilter("ignore", MulticastWarning)
                for each in self._sockets:
                    await opened.enter_async_context(each)
            if ready is not None:
                ready.set()
            async with asyncio.TaskGroup() as tasks:
                for each in self._sockets:
                    tasks.create_task(self._serve(each))
                for station in self._stations.values():
                    tasks.create_task(self._measure(station))

    async def _serve(self, sock: AsyncMcastSocket) -> None:
        while True:
            for datagram in await sock.receive_many(256):
                if datagram.data[:1] == bytes((MEASURE,)):
                    await self._take_request(sock, datagram)
                else:
                    for unsent in await answer(sock, self.server, datagram):
                        self._fail(unsent)

    def _fail(self, unsent: Unsent) -> None:
        self.failed[unsent.is_multicast] += 1
        self._on_failure(unsent)

    async def _take_request(self, sock: AsyncMcastSocket, datagram: Datagram) -> None:
        client = datagram.sender[0].partition("%")[0], datagram.sender[1]
        try:
            message = parse_message(datagram.data)
        except MalformedMessageError:
            return
        now = monotonic()
        station = self._stations.get(6 if ":" in client[0] else 4)
        if station is None or not self.server.may_measure(message, client, now):
            return
        request = read_request(message)
        results = [] if request is None else self._results(station, request, client, now)
        heard = self.server.heard(client, message.value(CLIENT_ID) or b"")
        for report in build_reports(message, heard, results):
            try:
                await sock.reply(datagram, report)
            except MulticastExpertError as error:
                self._fail(Unsent(False, str(error)))

    def _results(self, station: _Station, request: Request, client: Client, now: float) -> list[Result]:
        """Return what is known of the peers, and measure those that are new."""
        wish = Request(
            request.range,
            request.source_specific,
            max(LEAST_INTERVAL, request.interval),
            min(request.size, LARGEST),
            (),
        )
        results = []
        for peer in request.peers:
            address, port = (ip_address(client[0]), client[1]) if peer.address is None else (peer.address, peer.port)
            key = address, port, wish
            known = station.measured.get(key)
            if known is None and station.pinger is not None and len(station.measured) < MOST_MEASURED:
                conversation = station.pinger.add(address, _wish(wish, address.version), port=port)
                known = station.measured[key] = _Measured(conversation, now)
            station.wanted.set()
            if known is None:
                results.append(Result())
                continue
            known.asked_at = now
            # It is asked for a session as often as the client asks for results: that multiplies nothing.
            known.conversation.ask_again(now)
            results.append(result_of(known.conversation))
        return results

    async def _measure(self, station: _Station) -> None:
        while True:
            await station.wanted.wait()
            try:
                async with Pinger(station.version, self._ifaces, ttl=self.server.settings.ttl) as pinger:
                    station.pinger = pinger
                    await self._follow(station, pinger)
            except MulticastExpertError as error:
                self._fail(Unsent(False, str(error)))
                await asyncio.sleep(KEEP)
            finally:
                station.pinger = None
                station.measured.clear()
                station.wanted.clear()

    async def _follow(self, station: _Station, pinger: Pinger) -> None:
        began = monotonic()
        while station.measured or monotonic() < began + KEEP:
            await pinger.step(monotonic() + LEAST_INTERVAL)
            for key, measured in list(station.measured.items()):
                if monotonic() > measured.asked_at + KEEP:
                    del station.measured[key]
                    pinger.remove(measured.conversation)


def _wish(request: Request, version: int) -> Wish:
    only = request.range.network_address if request.range.num_addresses == 1 else None
    return Wish(version, only, request.source_specific, request.interval, size=request.size)
