"""Which message belongs to which link, and when: frames by hand, without a network."""

import time
from collections.abc import Iterable
from typing import Any

import pytest

from multicast_expert.observe.links import VLAN_LIMIT, VLANS
from multicast_expert.observe.messages import Watch, read_message
from multicast_expert.wire.group_messages import GroupMessage, GroupRecord, GroupReport, RecordKind, build_group_message
from multicast_expert.wire.packet_socket import Frame

GROUP = "239.1.2.3"


class Source:
    """A source with these frames, a few at a time."""

    def __init__(self, frames: Iterable[Frame]) -> None:
        self.frames = list(frames)

    def wait(self, timeout: float | None, *others: int) -> list[int]:
        """Wait for nothing."""
        return []

    def take(self, limit: int = 3) -> list[Frame]:
        """Return the next frames."""
        taken, self.frames = self.frames[:limit], self.frames[limit:]
        return taken


def report(host: str, *, ago: float = 0.0, vlan: int | None = None, group: str = GROUP) -> Frame:
    """A frame with a report of IGMPv3."""
    content = GroupReport(3, (GroupRecord(RecordKind.IS_EXCLUDE, group),))
    packet = build_group_message(GroupMessage(host, content))
    return Frame("eth0", False, time.time_ns() - int(ago * 1e9), b"", vlan, True, packet, len(packet))


def watched(frames: Iterable[Frame]) -> tuple[Watch, list[str]]:
    """A watch that has read these frames, and what happened."""
    source: Any = Source(frames)
    watch, found = Watch(source), list[str]()
    while source.frames:
        found += [each.event.kind for each in watch.step(0)]
    return watch, found


def test_a_stopped_program_reads_old_frames_at_their_time() -> None:
    """Reports that waited for minutes renew the membership when they came, not when they are read."""
    frames = [report("10.0.0.7", ago=ago) for ago in (700, 500, 300, 100)]
    watch, found = watched([*frames[:1], report("10.0.0.8", ago=700), *frames[1:]])
    assert found == ["join", "join", "report", "timeout", "report", "report"]
    assert [host for link in watch.links.known.values() for _, host in link.members] == ["10.0.0.7"]


def test_what_a_look_at_memberships_joins_is_no_membership() -> None:
    """The other groups of the same report are."""
    records = [GroupRecord(RecordKind.IS_EXCLUDE, group) for group in ("232.255.255.254", GROUP)]
    both, alone = (
        build_group_message(GroupMessage("10.0.0.7", GroupReport(3, tuple(each)))) for each in (records, records[:1])
    )
    assert read_message(alone) is None
    assert read_message(both) == GroupMessage("10.0.0.7", GroupReport(3, tuple(records[1:])))
    assert read_message(b"") is None


@pytest.mark.slow
def test_vlans_are_bounded() -> None:
    """Tags that a host invents make a limited number of links with a limited number of members each."""
    tags = [report("10.0.0.7", vlan=1 + number % 4000) for number in range(4000)]
    groups = [report("10.0.0.7", vlan=7, group=f"239.2.{number >> 8}.{number & 255}") for number in range(3000)]
    watch, found = watched([report("10.0.0.7"), *tags, *groups])
    assert found.count("full") == 1
    assert len(watch.links.known) == VLANS
    assert watch.links.ignored == 4000 - (VLANS - 1)
    assert len(watch.links.known["eth0 VLAN 7", 4].members) == VLAN_LIMIT
    assert len(watch.links.known["eth0", 4].members) == 1
