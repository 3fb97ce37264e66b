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
        self._failing: dict[_Place, str] = {}
        """Why the last query was not sent."""
        self._seen: list[IfaceInfo] | None = None
        self._mute: set[str] = set()
        """The interfaces without an address that MLD can be asked from."""
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
        """Send the queries of a step and return its events, without those queries that could not be sent."""
        querier, outlet = self._running[place]
        events = step.events
        for query in step.queries:
            try:
                outlet.send(query)
                self._failing.pop(place, None)
            except MulticastOSError as error:
                # Such as while a new IPv6 address is checked for duplicates. The same failure is told once.
                if self._failing.get(place) != str(error):
                    self._failing[place] = str(error)
                    self.failures.append(error)
                querier.repeat(monotonic())
                events = [each for each in events if (each.kind, each.host) != ("query", place.address)]
        return [Happening(place.interface, place.version, stamp, event) for event in events]

    def _follow_interfaces(self) -> list[Happening]:
        """Start queriers where interfaces or addresses are new, and end those whose place is gone."""
        if self._seen is self._source.interfaces:
            return []
        self._seen = self._source.interfaces
        up = [iface for iface in self._seen if iface.is_up]
        wanted = {place: iface for iface in up for place in self._places(iface)}
        gone = [place for place in self._running if place not in wanted]
        for place in gone:
            self._running.pop(place)[1].close()
            self._failing.pop(place, None)
        new = [place for place, iface in wanted.items() if place not in self._running and self._start(place, iface)]
        mute = {iface.machine_name for iface in up} if 6 in self._settings else set()
        mute -= {place.interface for place in wanted if place.version == 6}
        silent = [_Place(name, 0, "::") for name in sorted(mute - self._mute)]
        self._mute = mute
        told = {"ended": gone, "started": new, "mute": silent}
        return [_told(place, kind) for kind, places in told.items() for place in places]

    def _start(self, place: _Place, iface: IfaceInfo) -> bool:
        try:
            outlet = Outlet(iface, place.address)
        except MulticastOSError as error:
            self.failures.append(error)
            return False
        self._running[place] = LinkQuerier(place.address, self._settings[place.version], monotonic()), outlet
        return True

    def _places(self, iface: IfaceInfo) -> list[_Place]:
        own = {4: [str(each.ip) for each in iface.addresses(4)] or ["0.0.0.0"]}
        own[6] = [str(each.ip).partition("%")[0] for each in iface.addresses(6) if each.ip.is_link_local]
        chosen = {version: self._sources.get(version) or "".join(own[version][:1]) for version in self._settings}
        return [_Place(iface.machine_name, iface.index, address) for address in chosen.values() if address]


def _told(place: _Place, kind: str) -> Happening:
    return Happening(place.interface, place.version, time_ns(), Event(monotonic(), kind, place.address))
