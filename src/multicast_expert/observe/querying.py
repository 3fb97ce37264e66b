"""Runs queriers on interfaces: feeds their state machines with what is on the wire, and sends what they ask."""

from __future__ import annotations

from collections.abc import Mapping
from time import monotonic, time_ns
from typing import NamedTuple

from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.observe.members import Event
from multicast_expert.observe.messages import Happening, Heard, Messages
from multicast_expert.observe.outlet import Outlet
from multicast_expert.observe.querier import LinkQuerier, QuerierSettings, Step
from multicast_expert.observe.source import FrameSource


class _Place(NamedTuple):
    """Where a querier is; it begins anew when any of this changes."""

    interface: str
    number: int
    """Its index."""
    address: str

    @property
    def version(self) -> int:
        return 6 if ":" in self.address else 4


class Querying:
    """The queriers of the source's interfaces, also of those that come, go up or change their address later.

    settings: by version of IP.
    sources: the addresses to ask from, by version of IP, in place of the interface's own. Without either, IGMP is asked
    from 0.0.0.0, which never wins an election, and MLD is not asked at all.
    """

    def __init__(
        self, source: FrameSource, settings: Mapping[int, QuerierSettings], sources: Mapping[int, str] | None = None
    ) -> None:
        self._source, self._messages = source, Messages(source)
        self._settings, self._sources = dict(settings), dict(sources or {})
        self._running: dict[_Place, tuple[LinkQuerier, Outlet]] = {}
        self._seen: list[IfaceInfo] | None = None
        self.failures: list[MulticastOSError] = []
        """Why queries were not sent, since the caller emptied it."""

    @property
    def queriers(self) -> list[tuple[str, LinkQuerier]]:
        """The running queriers with their interfaces."""
        return [(place.interface, querier) for place, (querier, _) in self._running.items()]

    def step(self, timeout: float | None = None) -> list[Happening]:
        """Wait for messages or timers, at most so many seconds, send what is due, and return what happened."""
        happened = self._follow_interfaces()
        due = min((querier.next_timeout for querier, _ in self._running.values()), default=float("inf"))
        left = max(0.0, min(due - monotonic(), float("inf") if timeout is None else timeout))
        self._source.wait(0 if happened else None if left == float("inf") else left)
        heard = self._messages.take()
        happened += [each for message in heard for each in self._take(message)]
        # A timer runs out only when every message that may renew it was read.
        now, stamp = (heard[-1].time, heard[-1].timestamp_ns) if heard else (monotonic(), time_ns())
        for place, (querier, _) in self._running.items():
            happened += self._done(place, querier.step(now), stamp)
        return happened

    def close(self) -> None:
        """Close what sends; the source stays open."""
        for _, outlet in self._running.values():
            outlet.close()
        self._running.clear()

    def _take(self, heard: Heard) -> list[Happening]:
        return [
            each
            for place, (querier, _) in self._running.items()
            if (place.interface, place.version) == (heard.interface, heard.version)
            for each in self._done(place, querier.step(heard.time, heard.message), heard.timestamp_ns)
        ]

    def _done(self, place: _Place, step: Step, stamp: int) -> list[Happening]:
        """Send the queries of a step and return its events."""
        for query in step.queries:
            try:
                self._running[place][1].send(query)
            except MulticastOSError as error:
                self.failures.append(error)
        return [Happening(place.interface, place.version, stamp, event) for event in step.events]

    def _follow_interfaces(self) -> list[Happening]:
        """Start queriers where interfaces or addresses are new, and end those whose place is gone."""
        if self._seen is self._source.interfaces:
            return []
        self._seen = self._source.interfaces
        wanted = {place: iface for iface in self._seen if iface.is_up is not False for place in self._places(iface)}
        happened = []
        for place in [place for place in self._running if place not in wanted]:
            self._running.pop(place)[1].close()
            happened.append(_told(place, "ended"))
        for place, iface in wanted.items():
            if place not in self._running:
                try:
                    outlet = Outlet(iface, place.address)
                except MulticastOSError as error:
                    self.failures.append(error)
                    continue
                querier = LinkQuerier(place.address, self._settings[place.version], monotonic())
                self._running[place] = querier, outlet
                happened.append(_told(place, "started"))
        return happened

    def _places(self, iface: IfaceInfo) -> list[_Place]:
        addresses = {4: [str(each.ip) for each in iface.addresses(4)] or ["0.0.0.0"]}
        addresses[6] = [str(each.ip).partition("%")[0] for each in iface.addresses(6) if each.ip.is_link_local]
        return [
            _Place(iface.machine_name, iface.index, self._sources.get(version, own[0]))
            for version, own in addresses.items()
            if version in self._settings and (own or version in self._sources)
        ]


def _told(place: _Place, kind: str) -> Happening:
    return Happening(place.interface, place.version, time_ns(), Event(monotonic(), kind, place.address))
