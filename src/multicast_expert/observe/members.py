"""Follows the querier and the members of one link from the messages on it, by the timers of RFC 3376 and RFC 3810.

RFC 9776 and RFC 9777 keep these timers. The caller gives the time in seconds; the machine reads no clock.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from math import inf
from typing import NamedTuple

from multicast_expert.wire.group_messages import GroupMessage, GroupQuery, GroupRecord, GroupReport, RecordKind

DEFAULT_INTERVAL, DEFAULT_RESPONSE, DEFAULT_ROBUSTNESS = 125.0, 10.0, 2
LIMIT = 8192
"""How many memberships, and sources in them, a link remembers: anyone on the link can invent more."""
_UNSPECIFIED = ("0.0.0.0", "::")


class Event(NamedTuple):
    """A change on the link: `kind` is query, querier, querier-lost, join, change, leave, timeout or full."""

    time: float
    kind: str
    host: str
    group: str | None = None
    includes: bool = False
    """Whether the host receives from `sources` only; otherwise from all sources except these."""
    sources: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Querier:
    """The elected querier; its times are in seconds."""

    address: str
    version: int
    interval: float
    response_time: float
    robustness: int
    since: float
    deadline: float

    @property
    def membership_interval(self) -> float:
        """How long a membership lasts without a report: RFC 3376, 8.4."""
        return self.robustness * self.interval + self.response_time


@dataclass(slots=True)
class Membership:
    """What a host reported about a group; a source that is excluded has no deadline."""

    includes: bool
    older: bool
    deadline: float
    sources: dict[str, float] = field(default_factory=dict)

    @property
    def ends(self) -> float:
        """When the first part of the membership times out."""
        return min(self.sources.values(), default=-inf) if self.includes else self.deadline


class Link:
    """The querier and the members on one link, for IGMP or for MLD.

    A host that speaks IGMPv1, IGMPv2 or MLDv1 stays silent when another host reports the group first. Its membership
    therefore lasts until it leaves, or until no such host reports the group.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self.querier: Querier | None = None
        self.members: dict[tuple[str, str], Membership] = {}
        """By group and host."""
        self.refused = 0
        """How many records found no room."""
        self._limit = limit
        self._size = 0
        self._is_full = False
        self._next = inf

    @property
    def next_timeout(self) -> float:
        """The time when `expire` may have something to do; infinite without members and querier."""
        return self._next

    def take(self, now: float, message: GroupMessage) -> list[Event]:
        """Return what a message changes, after what timed out before it."""
        events = self.expire(now)
        if isinstance(message.content, GroupQuery):
            return events + self._query(now, message.host, message.content)
        for record in message.content.records:
            events += self._record(now, message.host, record, message.content)
        return events

    def expire(self, now: float) -> list[Event]:
        """Return what has timed out by now."""
        if now < self._next:
            return []
        events = []
        if self.querier and self.querier.deadline <= now:
            events.append(Event(now, "querier-lost", self.querier.address))
            self.querier = None
        for (group, host), member in [each for each in self.members.items() if each[1].ends <= now]:
            before = len(member.sources)
            if member.includes:
                member.sources = {source: end for source, end in member.sources.items() if end > now}
            if member.includes and member.sources:
                self._size -= before - len(member.sources)
                events.append(_told(now, "change", host, group, member))
            else:
                del self.members[group, host]
                self._size -= 1 + before
                events.append(Event(now, "timeout", host, group))
        self._is_full = self._is_full and self._size >= self._limit
        ends = [member.ends for member in self.members.values()]
        self._next = min(ends + ([self.querier.deadline] if self.querier else []), default=inf)
        return events

    def _query(self, now: float, host: str, query: GroupQuery) -> list[Event]:
        events = [Event(now, "query", host, query.group, bool(query.sources), query.sources)]
        if host not in _UNSPECIFIED:
            current = self.querier
            if current is None or ip_address(host).packed <= ip_address(current.address).packed:
                is_new = current is None or current.address != host
                self._elect(now, host, query)
                events += [Event(now, "querier", host)] if is_new else []
        if query.group is not None and not query.keeps_timers:
            self._lower(now, query.group, query)
        return events

    def _elect(self, now: float, host: str, query: GroupQuery) -> None:
        current = self.querier if self.querier and self.querier.address == host else None
        interval = query.interval or (current.interval if current else DEFAULT_INTERVAL)
        # Only a general query carries the response time of the link; others carry that of the last member.
        response = query.response_time if query.group is None else current.response_time if current else None
        response = DEFAULT_RESPONSE if response is None else response
        deadline = now + query.robustness * interval + response / 2  # RFC 3376, 8.5
        since = current.since if current else now
        self.querier = Querier(host, query.version, interval, response, query.robustness, since, deadline)
        self._next = min(self._next, deadline)

    def _lower(self, now: float, group: str, query: GroupQuery) -> None:
        """Let the members that do not answer a specific query time out sooner: RFC 3376, 6.6.1."""
        end = now + query.robustness * query.response_time
        for (named, _), member in self.members.items():
            if named != group:
                continue
            if not query.sources and not member.includes:
                member.deadline = min(member.deadline, end)
            for source in member.sources if member.includes else ():
                if source in query.sources or not query.sources:
                    member.sources[source] = min(member.sources[source], end)
            self._next = min(self._next, member.ends)

    def _record(self, now: float, host: str, record: GroupRecord, report: GroupReport) -> list[Event]:
        key = record.group, host
        before = self.members.get(key)
        older = report.version < (3 if ip_address(record.group).version == 4 else 2)
        end = now + (self.querier.membership_interval if self.querier else _DEFAULT_MEMBERSHIP)
        after = _applied(before, record, older, end)
        if after is None:
            if before is None:
                return []
            del self.members[key]
            self._size -= 1 + len(before.sources)
            return [Event(now, "leave", host, record.group)]
        size = self._size - (1 + len(before.sources) if before else 0) + 1 + len(after.sources)
        if size > self._limit and size > self._size:
            self.refused += 1
            was_full, self._is_full = self._is_full, True
            return [] if was_full else [Event(now, "full", host, record.group)]
        self.members[key], self._size = after, size
        if older and record.kind is RecordKind.IS_EXCLUDE:
            for (group, _), member in self.members.items():
                if group == record.group and member.older:
                    member.deadline = end
        self._next = min(self._next, after.ends)
        is_same = before and before.includes == after.includes and before.sources.keys() == after.sources.keys()
        return [] if is_same else [_told(now, "change" if before else "join", host, record.group, after)]


_DEFAULT_MEMBERSHIP = DEFAULT_ROBUSTNESS * DEFAULT_INTERVAL + DEFAULT_RESPONSE


def _told(now: float, kind: str, host: str, group: str, member: Membership) -> Event:
    return Event(now, kind, host, group, member.includes, tuple(sorted(member.sources)))


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
