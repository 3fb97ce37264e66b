"""IGMP and MLD messages from a source of frames, and what they change on each link. Joins and sends nothing."""

from __future__ import annotations

from time import monotonic, time_ns
from typing import NamedTuple

from multicast_expert.observe.links import Links
from multicast_expert.observe.members import LIMIT, Event
from multicast_expert.observe.source import FrameSource
from multicast_expert.system.proc import MARKER_GROUPS
from multicast_expert.wire.frame import link_name
from multicast_expert.wire.group_messages import GroupMessage, GroupReport, parse_group_message


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


def read_message(packet: bytes) -> GroupMessage | None:
    """Return the IGMP or MLD message of a packet, None if it has none.

    It is without the groups that a command such as `mcast groups` joins for a moment to look at memberships.
    """
    message = parse_group_message(packet)
    if message is None or not isinstance(message.content, GroupReport):
        return message
    records = tuple(each for each in message.content.records if each.group not in MARKER_GROUPS)
    if len(records) == len(message.content.records):
        return message
    return message._replace(content=message.content._replace(records=records)) if records else None


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
                message = read_message(frame.packet)
                if message is not None:
                    stamp = frame.timestamp_ns or time_ns()
                    # A program that was stopped for a while reads old frames: their own time counts, not that of now.
                    self._last = max(self._last, min(now, (stamp - offset) / 1e9))
                    name = link_name(frame.interface, frame.vlan)
                    heard.append(Heard(name, frame.vlan is not None, self._last, stamp, message))
        return heard


class Watch:
    """Follows all links that a source of frames shows."""

    def __init__(self, source: FrameSource, limit: int = LIMIT) -> None:
        self.links: Links = Links(limit)
        self._source, self._messages = source, Messages(source)

    def step(self, timeout: float | None, *others: int) -> list[Happening]:
        """Wait for messages or timers, at most so many seconds; return what happened. `others` end the wait, too."""
        until = self.links.next_timeout - monotonic()
        left = min(max(0.0, until), float("inf") if timeout is None else timeout)
        self._source.wait(None if left == float("inf") else left, *others)
        heard = self._messages.take()
        happened = [
            Happening(each.interface, each.version, each.timestamp_ns, event)
            for each in heard
            for event in self.links.take(each.interface, each.is_tagged, each.time, each.message)
        ]
        # A timer runs out only when every message that may renew it was read.
        now, stamp = (heard[-1].time, heard[-1].timestamp_ns) if heard else (monotonic(), time_ns())
        happened += [Happening(name, version, stamp, event) for name, version, event in self.links.expire(now)]
        return happened
