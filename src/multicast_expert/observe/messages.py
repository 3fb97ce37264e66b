"""IGMP and MLD messages from a source of frames, and what they change on each link. Joins and sends nothing."""

from __future__ import annotations

from time import monotonic, time_ns
from typing import NamedTuple

from multicast_expert.observe.members import LIMIT, Event, Link
from multicast_expert.observe.source import FrameSource
from multicast_expert.wire.group_messages import GroupMessage, parse_group_message


class Heard(NamedTuple):
    """A message on the wire of an interface."""

    interface: str
    time: float
    """When the kernel got it, by the monotonic clock in seconds."""
    timestamp_ns: int
    """The same in nanoseconds since 1970."""
    message: GroupMessage

    @property
    def version(self) -> int:
        """The version of IP: 4 for IGMP, 6 for MLD."""
        return 6 if ":" in self.message.host else 4


class Happening(NamedTuple):
    """What happened on one link."""

    interface: str
    version: int
    """The version of IP: 4 for IGMP, 6 for MLD."""
    timestamp_ns: int
    """When, in nanoseconds since 1970."""
    event: Event


class Messages:
    """The messages in the frames of a source, in the order in which they came."""

    def __init__(self, source: FrameSource) -> None:
        self._source = source
        self._last = 0.0

    def take(self) -> list[Heard]:
        """Return messages that wait; empty when all frames were read."""
        heard: list[Heard] = []
        while not heard and (frames := self._source.take()):
            now = monotonic()
            offset = time_ns() - int(now * 1e9)
            for frame in frames:
                message = parse_group_message(frame.packet)
                if message is not None:
                    stamp = frame.timestamp_ns or time_ns()
                    # A program that was stopped for a while reads old frames: their own time counts, not that of now.
                    self._last = max(self._last, min(now, (stamp - offset) / 1e9))
                    heard.append(Heard(frame.interface, self._last, stamp, message))
        return heard


class Watch:
    """Follows all links that a source of frames shows."""

    def __init__(self, source: FrameSource, limit: int = LIMIT) -> None:
        self._source, self._messages, self._limit = source, Messages(source), limit
        self.links: dict[tuple[str, int], Link] = {}
        """By interface and version of IP; a link without querier and members is left out."""

    def step(self, timeout: float | None, *others: int) -> list[Happening]:
        """Wait for messages or timers, at most so many seconds; return what happened. `others` end the wait, too."""
        until = min((link.next_timeout for link in self.links.values()), default=float("inf")) - monotonic()
        left = min(max(0.0, until), float("inf") if timeout is None else timeout)
        self._source.wait(None if left == float("inf") else left, *others)
        happened: list[Happening] = []
        heard = self._messages.take()
        for each in heard:
            link = self.links.setdefault((each.interface, each.version), Link(self._limit))
            events = link.take(each.time, each.message)
            happened += [Happening(each.interface, each.version, each.timestamp_ns, event) for event in events]
        # A timer runs out only when every message that may renew it was read.
        now, stamp = (heard[-1].time, heard[-1].timestamp_ns) if heard else (monotonic(), time_ns())
        for (interface, version), link in list(self.links.items()):
            happened += [Happening(interface, version, stamp, event) for event in link.expire(now)]
            if link.querier is None and not link.members:
                del self.links[interface, version]
        return happened
