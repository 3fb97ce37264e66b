"""IGMP and MLD messages from a source of frames, and what they change on each link. Joins and sends nothing."""

from __future__ import annotations

from time import monotonic, time_ns
from typing import NamedTuple

from multicast_expert.observe.members import LIMIT, Event, Link
from multicast_expert.observe.source import FrameSource
from multicast_expert.wire.group_messages import GroupMessage, parse_group_message

VLANS, VLAN_LIMIT = 128, 1024
"""How many VLANs are followed, and how many members of each: any host can put any tag on a frame."""


class Heard(NamedTuple):
    """A message on the wire of an interface."""

    interface: str
    """Its name; with ` VLAN 10` behind it if the frame has a tag."""
    is_tagged: bool
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
                    # A VLAN is a link of its own, also where this host has no interface for it.
                    link = frame.interface if frame.vlan is None else f"{frame.interface} VLAN {frame.vlan}"
                    heard.append(Heard(link, frame.vlan is not None, self._last, stamp, message))
        return heard


class Watch:
    """Follows all links that a source of frames shows."""

    def __init__(self, source: FrameSource, limit: int = LIMIT) -> None:
        self._source, self._messages, self._limit = source, Messages(source), limit
        self.links: dict[tuple[str, int], Link] = {}
        """By interface and version of IP; a link without querier and members is left out."""
        self.ignored: int = 0
        """How many messages were ignored, because they were of too many VLANs."""

    def step(self, timeout: float | None, *others: int) -> list[Happening]:
        """Wait for messages or timers, at most so many seconds; return what happened. `others` end the wait, too."""
        until = min((link.next_timeout for link in self.links.values()), default=float("inf")) - monotonic()
        left = min(max(0.0, until), float("inf") if timeout is None else timeout)
        self._source.wait(None if left == float("inf") else left, *others)
        happened: list[Happening] = []
        heard = self._messages.take()
        for each in heard:
            if link := self._link(each):
                events = link.take(each.time, each.message)
                happened += [Happening(each.interface, each.version, each.timestamp_ns, event) for event in events]
        # A timer runs out only when every message that may renew it was read.
        now, stamp = (heard[-1].time, heard[-1].timestamp_ns) if heard else (monotonic(), time_ns())
        for (interface, version), link in list(self.links.items()):
            happened += [Happening(interface, version, stamp, event) for event in link.expire(now)]
            if link.querier is None and not link.members:
                del self.links[interface, version]
        return happened

    def _link(self, heard: Heard) -> Link | None:
        """Return the link of a message, a new one if it is the first; None if there are too many VLANs."""
        key = heard.interface, heard.version
        if key not in self.links:
            if heard.is_tagged and len(self.links) >= VLANS:
                self.ignored += 1
                return None
            self.links[key] = Link(min(self._limit, VLAN_LIMIT) if heard.is_tagged else self._limit)
        return self.links[key]
