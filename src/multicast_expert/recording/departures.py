"""When each datagram of a recording is to leave again, and for where."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from multicast_expert.core.endpoints import Endpoint
from multicast_expert.recording.recording import Recording
from multicast_expert.wire.captured import CapturedDatagram

NOT_TO_A_GROUP, CUT, NOT_JOINED = "not to a group", "cut by the capture", "to a group without a member"
TO_NO_PORT = "to port 0"
"""Why datagrams are skipped."""
_BILLION = 1e9
_DISORDER_NS = 1_000_000_000
"""Nanoseconds by which a packet may stand behind later ones, as in captures of several interfaces."""
_PAUSE = 1.0
"""Seconds between two turns of a recording that has one time only."""


class Departure(NamedTuple):
    """A datagram that is to leave."""

    due: float
    """Seconds from the beginning."""
    data: bytes
    address: tuple[str, int]
    hop_limit: int
    dscp: int
    read: int = 0
    """How many bytes of the file were read to its end."""


@dataclass(slots=True)
class Score:
    """What is replayed of a recording, and how.

    speed: 2.0 is twice as fast; None as fast as it goes. begin, end: as `Recording.seek` takes them. maps: other groups
    and ports, by those of the recording; a port that is left out is any, and stays. hop_limit, dscp: instead of those
    of the recording.
    """

    speed: float | None = 1.0
    begin: float | datetime | None = None
    end: float | datetime | None = None
    loop: bool = False
    maps: tuple[tuple[Endpoint, Endpoint], ...] = ()
    hop_limit: int | None = None
    dscp: int | None = None
    skipped: Counter[str] = field(default_factory=Counter)
    """How many datagrams are left out, by reason."""
    mapped: set[tuple[str, int | None]] = field(default_factory=set)
    """The groups and ports of `maps` that a datagram went to."""
    found: int = 0
    """How many datagrams were read between `begin` and `end`."""
    is_read: bool = False
    """Whether these were all read, at least once."""

    @property
    def unmapped(self) -> list[Endpoint]:
        """Those of `maps` that no datagram went to."""
        return [old for old, _ in self.maps if (str(old.group), old.port) not in self.mapped]

    def departures(self, recording: Recording) -> Iterator[Departure]:
        """Yield the datagrams in the order of the file; when one is older than the one before, they leave together."""
        targets = {(str(old.group), old.port): new for old, new in self.maps}
        earliest = -math.inf if self.begin is None else recording.time_ns(self.begin)
        latest = math.inf if self.end is None else recording.time_ns(self.end)
        start = 0.0
        while True:
            # Packets without a time may stand before the first one that has one.
            recording.seek(-math.inf if self.begin is None else self.begin)
            first = None
            last, count = start, 0
            for entry in recording.entries():
                if entry.time_ns is not None and not earliest <= entry.time_ns <= latest:
                    if entry.time_ns > latest + _DISORDER_NS:
                        break
                    continue
                if first is None:
                    first = entry.time_ns
                self.found += 1
                if self.speed is not None and first is not None and entry.time_ns is not None:
                    last = max(last, start + (entry.time_ns - first) / _BILLION / self.speed)
                address = self._address(entry, targets)
                if address is not None:
                    hops = entry.hop_limit if self.hop_limit is None else self.hop_limit
                    dscp = entry.traffic_class >> 2 if self.dscp is None else self.dscp
                    count += 1
                    yield Departure(last, entry.data, address, hops, dscp, recording.read_bytes)
            self.is_read = True
            if not self.loop or not count:
                return
            if self.speed is not None:
                # The pause between two turns is as long as it is between two datagrams on average.
                start = last + ((last - start) / max(1, count - 1) or _PAUSE)

    def _address(
        self, entry: CapturedDatagram, targets: dict[tuple[str, int | None], Endpoint]
    ) -> tuple[str, int] | None:
        """Return where a datagram goes; None to skip it."""
        named = [key for port in (entry.port, None) if (key := (entry.destination, port)) in targets]
        self.mapped.update(named)
        new = targets[named[0]] if named else None
        if entry.truncated:
            self.skipped[CUT] += 1
        elif not entry.port:
            self.skipped[TO_NO_PORT] += 1
        elif new is not None:
            return str(new.group), entry.port if new.port is None else new.port
        elif entry.is_to_group:
            return entry.destination, entry.port
        else:
            self.skipped[NOT_TO_A_GROUP] += 1
        return None
