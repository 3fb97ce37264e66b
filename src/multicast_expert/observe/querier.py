"""The querier of one link as a state machine: when to ask, whom, and when to stay silent. Pure: no clock, no network.

RFC 2236 and RFC 3376 (RFC 9776) for IGMP, RFC 2710 and RFC 3810 (RFC 9777) for MLD.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

from multicast_expert.observe.members import LIMIT, Event, Link, Membership, Timers, rank
from multicast_expert.wire.group_messages import GroupMessage, GroupQuery, GroupReport, RecordKind

PENDING = 1024
"""In how many groups the last members are looked for at once; further leaves are only counted."""
RETRY = 1.0
"""Seconds after which a query is repeated that could not be sent."""
QUERY_SOURCES = 64
"""How many sources one query names, so that it fits into a packet of 1280 bytes."""


@dataclass(frozen=True, slots=True)
class QuerierSettings:
    """The version and the timers of a querier, in seconds; the defaults are those of the RFCs.

    Raises ValueError for timers that contradict each other or that no query can carry.
    """

    version: int
    """2 or 3 of IGMP, 1 or 2 of MLD."""
    interval: float = 125.0
    response_time: float = 10.0
    robustness: int = 2
    last_member_interval: float = 1.0

    def __post_init__(self) -> None:
        if not 1 <= self.robustness <= 7:
            raise ValueError(f"robustness {self.robustness}: it must be from 1 to 7")
        if not 0.1 <= self.last_member_interval <= 25.5:
            raise ValueError(f"last-member interval {self.last_member_interval:g}: it must be from 0.1 to 25.5 s")
        if not 0.1 <= self.response_time <= 25.5:
            raise ValueError(f"response time {self.response_time:g}: it must be from 0.1 to 25.5 s")
        if not self.response_time < self.interval <= 31744:
            raise ValueError(f"query interval {self.interval:g}: it must be above the response time, up to 31744 s")

    @property
    def timers(self) -> Timers:
        """The timers that hold where no query says otherwise."""
        return Timers(self.interval, self.response_time, self.robustness)

    @property
    def last_member_time(self) -> float:
        """How long after a leave the last member is forgotten: RFC 3376, 8.8 and 8.9."""
        return self.last_member_interval * self.robustness


class Step(NamedTuple):
    """What happened, and the queries to send now."""

    events: list[Event]
    queries: list[GroupQuery]


@dataclass(slots=True)
class _Search:
    """The queries to repeat for a group whose last member may have left."""

    at: float
    whole: int = 0
    """How many queries for the group are left to send."""
    sources: dict[str, int] = field(default_factory=dict)
    """How many queries for each source are left to send."""


class LinkQuerier:
    """The querier of one link for one protocol.

    It asks from its start on. It is silent while a querier with a lower address is there, and asks again when that one
    is lost. A querier at 0.0.0.0 is silent while any other is there.
    """

    def __init__(self, address: str, settings: QuerierSettings, now: float, limit: int = LIMIT) -> None:
        self.address = address
        self.link: Link = Link(limit, settings.timers)
        self.neglected: int = 0
        """How many leaves no query followed, because too many groups were left at once."""
        self._settings = settings
        self._newest = settings.version == (2 if ":" in address else 3)
        self._start_up = settings.robustness
        self._general_at = now
        self._searches: dict[str, _Search] = {}
        self._warned: tuple[str, int] | None = None

    @property
    def is_elected(self) -> bool:
        """Whether this querier asks, and not another one."""
        other = self.link.querier
        return other is None or rank(self.address) <= rank(other.address)

    @property
    def next_timeout(self) -> float:
        """The time when `step` has something to do without a message."""
        own = (self._general_at, *(search.at for search in self._searches.values())) if self.is_elected else ()
        return min(self.link.next_timeout, *own) if own else self.link.next_timeout

    def step(self, now: float, message: GroupMessage | None = None) -> Step:
        """Return what a message, if any, and the time change, and the queries to send now."""
        was_elected = self.is_elected
        events = self.link.expire(now)
        if message is not None and not (message.host == self.address and isinstance(message.content, GroupQuery)):
            events += self._take(now, message)
        if not self.is_elected:
            self._searches.clear()
            self._start_up = 0
            return Step(events, [])
        if not was_elected:
            # RFC 3376, 6.6.2: when the other querier is lost, a general query begins.
            self._general_at = now
        queries = self._general(now)
        for group in [group for group, search in self._searches.items() if search.at <= now]:
            queries += self._search(now, group)
        for query in queries:
            events += self.link.take(now, GroupMessage(self.address, query))
        return Step(events, queries)

    def repeat(self, now: float) -> None:
        """Start up anew in a second, because a query could not be sent."""
        self._general_at = now + RETRY
        self._start_up = self._settings.robustness

    def _take(self, now: float, message: GroupMessage) -> list[Event]:
        content = message.content
        if isinstance(content, GroupQuery):
            events = self.link.take(now, message)
            other = message.host, content.version
            if content.version != self._settings.version and other != self._warned:
                self._warned = other
                events.append(Event(now, "version", message.host, version=content.version))
            return events
        events = []
        for record in content.records:
            before = self.link.members.get((record.group, message.host))
            was_known = bool(self.link.hosts(record.group)) or self.link.is_full
            events += self.link.take(now, GroupMessage(message.host, GroupReport(content.version, (record,))))
            after = self.link.members.get((record.group, message.host))
            leaves = record.kind is RecordKind.TO_INCLUDE and was_known and before is None and not record.sources
            if leaves or (before and not before.includes and (after is None or after.includes)):
                self._look_for(now, record.group)
            elif before and self._newest and not self.link.has_older(record.group):
                self._look_for(now, record.group, _lost(before, after))
        return events

    def _look_for(self, now: float, group: str, sources: set[str] | None = None) -> None:
        """Ask soon whether a group still has members, or members that receive from these sources."""
        if self.link.keeps_leavers(now, group) if sources is None else not sources:
            return
        if group not in self._searches and len(self._searches) >= PENDING:
            self.neglected += 1
            return
        search = self._searches.setdefault(group, _Search(now))
        count = self._settings.robustness
        if sources is None:
            search.whole = count
        else:
            search.sources.update(dict.fromkeys(sorted(sources), count))
        search.at = now

    def _general(self, now: float) -> list[GroupQuery]:
        if now < self._general_at:
            return []
        settings = self._settings
        self._start_up = max(0, self._start_up - 1)
        # RFC 3376, 8.6: the first queries follow each other four times as fast.
        self._general_at = now + settings.interval / (4 if self._start_up else 1)
        return [self._query(None, (), settings.response_time)]

    def _search(self, now: float, group: str) -> list[GroupQuery]:
        """Return the queries for a group, and note when the next ones are due: RFC 3376, 6.6.3."""
        settings, search = self._settings, self._searches[group]
        late = now + settings.last_member_time
        queries = []
        if search.whole:
            answered = search.whole < settings.robustness and any(
                self.link.until(group, host) > late for host in self.link.hosts(group)
            )
            queries.append(self._query(group, (), settings.last_member_interval, answered))
            search.whole -= 1
        queries += self._source_queries(group, search, late)
        search.sources = {source: left - 1 for source, left in search.sources.items() if left > 1}
        search.at = now + settings.last_member_interval
        if not search.whole and not search.sources:
            del self._searches[group]
        return queries

    def _source_queries(self, group: str, search: _Search, late: float) -> list[GroupQuery]:
        """Return the queries for sources: those that members answered already are asked apart, with the S flag."""
        ends: dict[str, float] = {}
        for host in self.link.hosts(group):
            member = self.link.members[group, host]
            for source, end in member.sources.items() if member.includes else ():
                ends[source] = max(end, ends.get(source, end))
        parts: dict[bool, list[str]] = {False: [], True: []}
        for source, left in search.sources.items():
            parts[left < self._settings.robustness and ends.get(source, late) > late].append(source)
        return [
            self._query(group, tuple(part[at : at + QUERY_SOURCES]), self._settings.last_member_interval, answered)
            for answered, part in parts.items()
            for at in range(0, len(part), QUERY_SOURCES)
        ]

    def _query(
        self, group: str | None, sources: tuple[str, ...], response: float, answered: bool = False
    ) -> GroupQuery:
        settings = self._settings
        interval = settings.interval if self._newest else None
        return GroupQuery(
            settings.version, group, sources, response, answered and self._newest, settings.robustness, interval
        )


def _lost(before: Membership, after: Membership | None) -> set[str]:
    """Return the sources that a host received from by name and may receive from no longer."""
    if not before.includes:
        return set(after.sources) - set(before.sources) if after else set()
    if after is None or after.includes:
        return set(before.sources) - (set(after.sources) if after else set())
    return set(before.sources) & set(after.sources)
