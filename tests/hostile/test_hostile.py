"""Mutated frames and floods: a short run of `python -m tests.hostile`, and what comes of them on a real wire."""

import socket
import tracemalloc
from collections.abc import Iterator
from contextlib import closing, suppress
from random import Random
from typing import Any

import pytest

from multicast_expert.observe.links import VLANS
from multicast_expert.observe.look import KEEP, MOST_QUERIERS, Look
from multicast_expert.observe.members import LIMIT
from multicast_expert.observe.scan import forgotten
from multicast_expert.observe.source import FrameSource
from multicast_expert.observe.streams import LIMIT as ROWS
from multicast_expert.testing import Host, Lab
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.recognise.table import RECOGNISERS
from tests.hostile.floods import RECORDS, flooded
from tests.hostile.frames import mutated
from tests.hostile.targets import Targets, Waiting

COUNT = 20_000
ROOM = 64 << 20
"""Bytes of memory that any flood may take."""
ENOUGH = {
    "streams": ROWS + 500, "members": 2 * LIMIT, "sources of members": 2 * LIMIT, "queriers": 2 * MOST_QUERIERS,
    "members in VLANs": 2 * VLANS * RECORDS,
}  # fmt: skip
"""How many of a flood find no room."""


@pytest.mark.slow
def test_mutated_frames() -> None:
    """No frame raises, steers a terminal or breaks a bound; many are understood, and every protocol is met."""
    targets = Targets(seed=1)
    targets.run(COUNT)
    assert targets.messages > COUNT / 10
    assert targets.names.keys() == {each.name for each in RECOGNISERS}


@pytest.mark.slow
@pytest.mark.parametrize("kind", ENOUGH)
def test_a_flood_takes_bounded_memory(kind: str) -> None:
    """More streams, members, sources, queriers or VLANs than there is room for; what is forgotten is said."""
    tracemalloc.start()
    try:
        look = flooded(kind, ENOUGH[kind])
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < ROOM
    assert list(forgotten(look)) != []


@pytest.fixture
def wire() -> Iterator[tuple[Host, socket.socket]]:
    """A host, and the other end of its cable."""
    with Lab() as lab:
        here, there = lab.host("here"), lab.host("there")
        lab.link(here, there, ipv4=("10.0.0.1/24", "10.0.0.2/24"))
        with there.entered():
            sender = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        with sender:
            sender.bind(("eth0", 0))
            yield here, sender


def test_mutated_frames_on_a_wire(wire: tuple[Host, socket.socket]) -> None:
    """A ring and a plain socket give the same of what the kernel lets through, and all of it can be looked at."""
    here, sender = wire
    random = Random(2)
    with here.entered():
        ring = FrameSource(["eth0"], udp=True, keep=KEEP, buffer=32 << 20, ring=16 << 20)
        plain = FrameSource(["eth0"], udp=True, keep=KEEP, buffer=32 << 20)
    with closing(ring), closing(plain):
        for _ in range(2000):
            with suppress(OSError):  # longer than the wire takes
                sender.send(mutated(random))
        # The kernel hands over a block of the ring when it is full, or a moment later.
        ring_frames, plain_frames = (taken(source) for source in (ring, plain))
        assert ring.lost() == plain.lost() == 0
    # The ring was read first: what the kernel itself sent after that is in the other one only.
    assert ring_frames == plain_frames[: len(ring_frames)]
    assert len(plain_frames) - len(ring_frames) < 5
    assert len(ring_frames) > 1000
    source: Any = Waiting()
    look = Look(source)
    source.frames += ring_frames
    assert look.take(len(ring_frames) + 1) is False
    assert len(look.streams) > 10


def taken(source: FrameSource) -> list[Frame]:
    """All frames that come, without their times."""
    frames: list[Frame] = []
    while source.wait(0.3):
        frames += source.take()
    return [frame._replace(timestamp_ns=None) for frame in frames]
