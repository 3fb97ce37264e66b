"""Follows the querier and the members of one link from the messages on it, by the timers of RFC 3376 and RFC 3810.

RFC 9776 and RFC 9777 keep these timers. The caller gives the time in seconds; the machine reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from ipaddress import ip_address
from math import inf
from typing import NamedTuple, TypeAlias

from multicast_expert.wire.group_messages import GroupMessage, GroupQuery, GroupRecord, GroupReport, RecordKind

LIMIT = 8192
"""How many memberships, and sources in them, a link remembers: any host on the link can invent more."""
SOURCES = 512
"""How many sources of one membership it remembers; a report of 1,500 bytes names 366 at most."""

Member: TypeAlias = tuple[str, str]
"""Group and host; an empty host stands for all hosts of older versions."""


class Event(NamedTuple):
    """What happened on the link.

    `kind`: query, querier (elected), querier-lost, join, change (of the sources), leave, timeout, report (which
    changes nothing), or full (no room for the report).
    """

    time: float
    kind: str
    host: str
    group: str | None = None
    includes: bool = False
    """Whether the host receives from `sources` only; otherwise from all sources except these."""
    sources: tuple[str, ...] = ()
    version: int | None = None
    """The version of the message, None for a timeout."""
    response_time: float | None = None
    """The seconds that a query gives to answer."""


@dataclass(frozen=True, slots=True)
class Timers:
    """The timers of a link in seconds, where no query says otherwise: RFC 3376, 8, and RFC 3810, 9."""

    interval: float = 125.0
    response_time: float = 10.0
    robustness: int = 2

    @property
    def membership(self) -> float:
        """How long a membership lasts without a report: RFC 3376, 8.4."""
        return self.robustness * self.interval + self.response_time

    @property
    def other_querier(self) -> float:
        """How long a querier counts as present without a query: RFC 3376, 8.5."""
        return self.robustness * self.interval + self.response_time / 2


@dataclass(frozen=True, slots=True)
class Querier:
    """The elected querier; its times are in seconds."""

    address: str
    version: int
    timers: Timers
    since: float
    deadline: float


@dataclass(slots=True)
class Membership:
    """What a host reported about a group; a source that is excluded has no deadline."""

    includes: bool
    older: bool
    """Whether the host spoke IGMPv1, IGMPv2 or MLDv1; its deadline is that of all such members of the group."""
    deadline: float
    sources: dict[str, float] = field(default_factory=dict)


@dataclass(slots=True)
class _Group:
    hosts: dict[str, None] = field(default_factory=dict)
    older: dict[str, None] = field(default_factory=dict)
    older_until: float = -inf
    first_until: float = -inf
    """Until when a member counts as present that speaks IGMPv1."""


def rank(address: str) -> tuple[bool, bytes]:
    """Return the key of the election: the lowest wins, and the unspecified address never does."""
    packed = ip_address(address).packed
    return not any(packed), packed


class Link:
    """The querier and the members on one link, for IGMP or for MLD.

    A host that speaks IGMPv1, IGMPv2 or MLDv1 stays silent when another host reports the group first. Its membership
    therefore lasts until it leaves, or until no such host reports the group.
    """

    def __init__(self, limit: int = LIMIT, timers: Timers | None = None) -> None:
        self.querier: Querier | None = None
        self.members: dict[Member, Membership] = {}
        """By group and host."""
        self.refused: int = 0
        """How many records found no room."""
        self.is_full: bool = False
        """Whether members may be unknown for lack of room."""
        self._timers = timers or Timers()
        self._groups: dict[str, _Group] = {}
        self._limit = limit
        self._size = 0
        # When to look at which member: an entry counts while `_due` has its time, and is never too late.
        self._queue: list[tuple[float, Member]] = []
        self._due: dict[Member, float] = {}

    @property
    def next_timeout(self) -> float:
        """The time when `expire` may have something to do; infinite without members and querier."""
        first = self._queue[0][0] if self._queue else inf
        return min(first, self.querier.deadline) if self.querier else first

    def hosts(self, group: str) -> list[str]:
        """Return the hosts that are known as members of a group."""
        return list(self._groups[group].hosts) if group in self._groups else []

    def has_older(self, group: str) -> bool:
        """Return whether a member of the group speaks an older version, which names no sources."""
        return group in self._groups and bool(self._groups[group].older)

    def keeps_leavers(self, now: float, group: str) -> bool:
        """Return whether leaves must not end the group: a member speaks IGMPv1, and answers no query for a group.

        RFC 3376, 7.3.2.
        """
        return group in self._groups and self._groups[group].first_until > now

    def until(self, group: str, host: str) -> float:
        """Return when a membership in all sources times out; -inf for any other."""
        member = self.members.get((group, host))
        if member is None or member.includes:
            return -inf
        return self._groups[group].older_until if member.older else member.deadline

    def take(self, now: float, message: GroupMessage) -> list[Event]:
        """Return what a message says and changes, after what timed out before it."""
        events = self.expire(now)
        if isinstance(message.content, GroupQuery):
            return events + self._query(now, message.host, message.content)
        for record in message.content.records:
            events += self._record(now, message.host, record, message.content)
        return events

    def expire(self, now: float) -> list[Event]:
        """Return what has timed out by now."""
        events = []
        if self.querier and self.querier.deadline <= now:
            events.append(Event(now, "querier-lost", self.querier.address))
            self.querier = None
        while self._queue and self._queue[0][0] <= now:
            due, key = heappop(self._queue)
            if self._due.get(key) == due:
                del self._due[key]
                events += self._expire_member(now, *key)
        return events

    def _expire_member(self, now: float, group: str, host: str) -> list[Event]:
        """Return what has timed out of a membership, and look at the rest of it later."""
        known, member = self._groups[group], self.members.get((group, host))
        if member is not None and member.includes:
            return self._expire_sources(now, group, host, member)
        end = member.deadline if member else known.older_until
        due = [host] if member else list(known.older)
        if member and member.older:
            # It was due as another kind of member; now it is among those of the group.
            due = []
        elif end > now:
            due = []
            self._look_at((group, host), end)
        return [self._time_out(now, group, each) for each in due]

    def _expire_sources(self, now: float, group: str, host: str, member: Membership) -> list[Event]:
        left = {source: end for source, end in member.sources.items() if end > now}
        if not left:
            return [self._time_out(now, group, host)]
        self._look_at((group, host), min(left.values()))
        if len(left) == len(member.sources):
            return []
        self._size -= len(member.sources) - len(left)
        member.sources = left
        return [_state(now, "change", host, group, member, None)]

    def _time_out(self, now: float, group: str, host: str) -> Event:
        self._forget(group, host)
        return Event(now, "timeout", host, group)

    def _forget(self, group: str, host: str) -> None:
        self._size -= 1 + len(self.members.pop((group, host)).sources)
        self._due.pop((group, host), None)
        known = self._groups[group]
        known.hosts.pop(host)
        known.older.pop(host, None)
        if not known.older:
            self._due.pop((group, ""), None)
        if not known.hosts:
            del self._groups[group]
        if self._size <= self._limit // 2:
            self.is_full = False

    def _look_at(self, key: Member, end: float) -> None:
        """Have `expire` look at a membership by then; later than it is due already is soon enough."""
        if end >= self._due.get(key, inf):
            return
        self._due[key] = end
        heappush(self._queue, (end, key))
        if len(self._queue) > 2 * len(self._due) + 64:
            # Most entries are of members that have gone or are due sooner.
            self._queue = [(due, key) for key, due in self._due.items()]
            heapify(self._queue)

    def _query(self, now: float, host: str, query: GroupQuery) -> list[Event]:
        about = query.group, bool(query.sources), query.sources, query.version, query.response_time
        events = [Event(now, "query", host, *about)]
        current = self.querier
        if not rank(host)[0] and (current is None or rank(host) <= rank(current.address)):
            self._elect(now, host, query)
            if current is None or current.address != host:
                events.append(Event(now, "querier", host, version=query.version))
        if query.group is not None and not query.keeps_timers:
            self._lower(now, query.group, query)
        return events

    def _elect(self, now: float, host: str, query: GroupQuery) -> None:
        current = self.querier if self.querier and self.querier.address == host else None
        known = current.timers if current else self._timers
        # Only a general query carries the response time of the link; others carry that of the last member.
        response = query.response_time if query.group is None else known.response_time
        timers = Timers(query.interval or known.interval, response, query.robustness)
        since = current.since if current else now
        self.querier = Querier(host, query.version, timers, since, now + timers.other_querier)

    def _lower(self, now: float, group: str, query: GroupQuery) -> None:
        """Let the members that do not answer a specific query time out sooner: RFC 3376, 6.6.1.

        A query for the group concerns those that receive from all sources, others keep the timers of their sources.
        """
        known = self._groups.get(group)
        if known is None:
            return
        end = now + query.robustness * query.response_time
        for host in known.hosts:
            member = self.members[group, host]
            if member.includes:
                for source in member.sources.keys() & set(query.sources):
                    member.sources[source] = min(member.sources[source], end)
                self._look_at((group, host), min(member.sources.values()))
            elif not query.sources and not member.older:
                member.deadline = min(member.deadline, end)
                self._look_at((group, host), member.deadline)
        if known.older and not query.sources:
            known.older_until = min(known.older_until, end)
            self._look_at((group, ""), known.older_until)

    def _record(self, now: float, host: str, record: GroupRecord, report: GroupReport) -> list[Event]:
        group = record.group
        before = self.members.get((group, host))
        older = report.version < (2 if ":" in group else 3)
        end = now + (self.querier.timers if self.querier else self._timers).membership
        after = _applied(before, record, older, end)
        said = Event(now, "report", host, group, _names_included(record), record.sources, report.version)
        if after is None:
            if before is None:
                return [said]
            self._forget(group, host)
            return [said._replace(kind="leave")]
        # With `before` None, the membership itself takes room too.
        grown = len(after.sources) - (len(before.sources) if before else -1)
        if grown > 0 and (self._size + grown > self._limit or len(after.sources) > SOURCES):
            self.refused += 1
            was_full, self.is_full = self.is_full, True
            return [said] if was_full else [said, Event(now, "full", host, group)]
        self._size += grown
        self._keep(group, host, after, end if older and record.kind is RecordKind.IS_EXCLUDE else None)
        if report.version == 1 and ":" not in group:
            self._groups[group].first_until = end
        if before and before.includes == after.includes and before.sources.keys() == after.sources.keys():
            return [said]
        return [_state(now, "change" if before else "join", host, group, after, report.version)]

    def _keep(self, group: str, host: str, member: Membership, older_until: float | None) -> None:
        known = self._groups.setdefault(group, _Group())
        known.hosts[host] = None
        self.members[group, host] = member
        if not member.older:
            known.older.pop(host, None)
            self._look_at((group, host), min(member.sources.values()) if member.includes else member.deadline)
            return
        known.older[host] = None
        if older_until is not None:
            known.older_until = older_until
        self._look_at((group, ""), known.older_until)


def _state(now: float, kind: str, host: str, group: str, member: Membership, version: int | None) -> Event:
    return Event(now, kind, host, group, member.includes, tuple(sorted(member.sources)), version)


def _names_included(record: GroupRecord) -> bool:
    return record.kind in (RecordKind.IS_INCLUDE, RecordKind.TO_INCLUDE, RecordKind.ALLOW)


def _applied(before: Membership | None, record: GroupRecord, older: bool, end: float) -> Membership | None:
    """Return the membership after a record; None if the host is not a member then."""
    kind, given = record.kind, dict.fromkeys(record.sources, end)
    if kind in (RecordKind.IS_EXCLUDE, RecordKind.TO_EXCLUDE):
        return Membership(False, older, end, dict.fromkeys(record.sources, inf))
    excludes = before is not None and not before.includes
    sources = before.sources if before else {}
    if kind is RecordKind.BLOCK:
        if excludes and before:
            return Membership(False, before.older, before.deadline, sources | dict.fromkeys(given, inf))
        kept = {source: deadline for source, deadline in sources.items() if source not in given}
    elif kind is RecordKind.TO_INCLUDE:
        kept = given
    elif excludes and before:
        # A host that excludes answers a query for sources with IS_INCLUDE and stays a member (RFC 3376, 5.2).
        allowed = given if kind is RecordKind.ALLOW else {}
        rest = {source: deadline for source, deadline in sources.items() if source not in allowed}
        return Membership(False, before.older, before.deadline, rest)
    else:
        kept = sources | given
    return Membership(True, older, end, kept) if kept else None
