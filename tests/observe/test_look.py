"""What a look makes of frames by hand: its clock, its seconds, and links with tags."""

from collections.abc import Iterator
from typing import Any

import pytest

from multicast_expert.observe import clock
from multicast_expert.observe.look import Look
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.frames import udp_packet
from tests.hostile.frames import MESSAGES
from tests.hostile.targets import Waiting

DAY = 86400.0


class Clocks:
    """The clock of the system, which can be set, and the monotonic one, which cannot."""

    def __init__(self) -> None:
        self.system, self.monotonic = 1_700_000_000.0, 50.0

    def wait(self, seconds: float) -> None:
        """Let the time pass."""
        self.system += seconds
        self.monotonic += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    """Clocks that only the test moves."""
    clocks = Clocks()
    monkeypatch.setattr(clock, "time", lambda: clocks.system)
    monkeypatch.setattr(clock, "monotonic", lambda: clocks.monotonic)
    return clocks


def frame(clocks: Clocks, packet: bytes, vlan: int | None = None) -> Frame:
    """A frame that the kernel got now."""
    return Frame("eth0", False, int(clocks.system * 1e9), b"", vlan, True, packet, len(packet))


@pytest.mark.parametrize("step", [-DAY, DAY])
def test_a_clock_that_is_set_changes_no_rate_and_no_member(clocks: Clocks, step: float) -> None:
    """While something sets the clock of the system by a day, rates go on, and no member times out."""
    source: Any = Waiting()
    look = Look(source)
    datagram = udp_packet(("10.0.0.1", 40000), ("239.1.2.3", 5000), bytes(100))
    source.frames.append(frame(clocks, MESSAGES[0]))
    for number in range(100):
        if number == 50:
            clocks.system += step
        clocks.wait(0.1)
        source.frames.append(frame(clocks, datagram))
        look.take()
        look.tick()
    (row,) = look.streams.streams(look.clock.now())
    assert len(row.history) in (9, 10, 11)
    assert all(8 <= datagrams <= 12 for datagrams, _ in row.history[1:])
    assert row.longest_gap == pytest.approx(0.1, abs=0.01)
    assert not row.is_stalled
    assert len(look.members()) == 1


def test_a_look_that_was_stopped_for_a_while(clocks: Clocks) -> None:
    """A second that took a minute is one second of the history, and the next one is whole again."""
    source: Any = Waiting()
    look = Look(source)
    clocks.wait(60)
    look.tick()
    clocks.wait(0.5)
    look.tick()
    source.frames.append(frame(clocks, udp_packet(("10.0.0.1", 40000), ("239.1.2.3", 5000), bytes(100))))
    look.take()
    (row,) = look.streams.streams(look.clock.now())
    assert row.history == ()


def test_a_vlan_is_a_link_of_its_own(clocks: Clocks) -> None:
    """Streams and members of a VLAN have its number, by the same name."""
    source: Any = Waiting()
    look = Look(source)
    datagram = udp_packet(("10.0.0.1", 40000), ("239.1.2.3", 5000), bytes(100))
    source.frames += [frame(clocks, each, 10) for each in (datagram, MESSAGES[0])]
    look.take()
    assert [each.interface for each in look.streams.streams(look.clock.now())] == ["eth0 VLAN 10"]
    assert [each.interface for each in look.members()] == ["eth0 VLAN 10"]
