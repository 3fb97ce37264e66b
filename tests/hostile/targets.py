"""Everything of `observe` and `wire` that reads what others sent, fed with frames; each keeps its bounds."""

import json
from collections import Counter
from random import Random
from struct import unpack_from
from typing import Any

from multicast_expert.cli.render.scan import found_lines, found_object
from multicast_expert.cli.render.stream_detail import detail_lines
from multicast_expert.cli.render.streams import Surroundings
from multicast_expert.cli.render.watch import event_line, event_object
from multicast_expert.core.addresses import address_text
from multicast_expert.core.datagram import Datagram
from multicast_expert.observe.found import Found
from multicast_expert.observe.links import VLANS, Links
from multicast_expert.observe.look import KEEP, MOST_QUERIERS, Look
from multicast_expert.observe.members import Link
from multicast_expert.observe.meter import MAX_STREAMS, Meter
from multicast_expert.observe.querier import PENDING, LinkQuerier, QuerierSettings
from multicast_expert.observe.sequence import HEAD, NUMBERED, Numbering
from multicast_expert.observe.streams import Streams
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.frames import parse_packet
from multicast_expert.wire.group_messages import GroupMessage, build_group_message, parse_group_message
from multicast_expert.wire.recognise.media import read_announcement
from multicast_expert.wire.recognise.table import recognise
from multicast_expert.wire.transport_stream import MOST_PROGRAMS, TransportStream
from multicast_expert.wire.udp_place import udp_place
from tests.hostile.frames import LONGEST, as_captured, mutated

ROWS, MEMBERS = 300, 200
"""Smaller limits than those of the commands, so that they are reached."""
BATCH = 1000


class Waiting:
    """Frames that wait, as those of a packet socket."""

    interfaces = ()

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    def take(self, limit: int) -> list[Frame]:
        """Return the next frames."""
        taken, self.frames = self.frames[:limit], self.frames[limit:]
        return taken


class Targets:
    """All readers, with what they made of the frames so far."""

    def __init__(self, seed: int) -> None:
        self.random = Random(seed)
        self.frames = self.messages = 0
        self.names: Counter[str] = Counter()
        """How many payloads were taken for which protocol."""
        source: Any = Waiting()
        self._waiting: Waiting = source
        self._look = Look(source)
        self._look.streams, self._look.links = Streams(limit=ROWS), Links(MEMBERS)
        self._links, self._now = Links(MEMBERS), self._look.clock.now()
        self._queriers = {
            4: LinkQuerier("10.0.0.5", QuerierSettings(3), self._now, MEMBERS),
            6: LinkQuerier("fe80::5", QuerierSettings(2), self._now, MEMBERS),
        }
        self._meter = Meter(0)
        self._tables, self._numberings = TransportStream(), {name: Numbering(name) for name in NUMBERED}
        self._earlier: bytes | None = None

    def run(self, count: int) -> None:
        """Read so many mutated frames; AssertionError if a bound is broken or a terminal could be steered."""
        for _ in range(count):
            self._now += 30.0 if self.random.random() < 0.001 else self.random.random() / 100
            interface, outgoing = self.random.choice(("eth0", "eth0", "lo")), self.random.random() < 0.1
            frame = as_captured(mutated(self.random), interface, outgoing, int(self._now * 1e9), LONGEST)
            self.frames += 1
            self._waiting.frames.append(frame._replace(packet=frame.packet[: KEEP - 14]))
            self._read(frame)
            if self.frames % BATCH == 0:
                self._look.take(BATCH)
                self._check()

    def _read(self, frame: Frame) -> None:
        parse_packet(frame.packet)
        message = parse_group_message(frame.packet)
        if message is not None:
            self._take_message(frame, message)
        place = udp_place(frame.packet)
        if place is not None:
            port, to = unpack_from("!HH", frame.packet, place.start)
            payload = frame.packet[place.start + 8 :]
            self._take_payload(payload, (address_text(place.source), port), address_text(place.group), to)

    def _take_message(self, frame: Frame, message: GroupMessage) -> None:
        self.messages += 1
        version = 6 if ":" in message.host else 4
        vlan = frame.vlan is not None
        happened = self._links.take(f"{frame.interface} {frame.vlan}", vlan, self._now, message)
        querier = self._queriers[version]
        step = querier.step(self._now, message)
        for query in step.queries:
            assert parse_group_message(build_group_message(GroupMessage(querier.address, query)))
        for event in happened + step.events:
            line = event_line("12:00:00.000", frame.interface, version, event, {querier.address}).plain
            assert line.isprintable(), line
            json.dumps(event_object(self._now, frame.interface, version, event))

    def _take_payload(self, payload: bytes, sender: tuple[str, int], group: str, port: int) -> None:
        named = recognise(payload, port, group, self._earlier)
        if named is not None:
            self.names[named.name] += 1
            assert len(named.detail) < 300
        self._earlier = payload if self.random.random() < 0.5 else self._earlier
        read_announcement(payload)
        self._tables.take(payload)
        for each in self._numberings.values():
            each.take(payload[:HEAD], len(payload), sender[1], self._now)
        datagram = Datagram(payload, sender, group, 3, "eth0", 1, int(self._now * 1e9))
        self._meter.take([datagram], port, 0)

    def _check(self) -> None:
        look = self._look
        assert len(look.streams) <= ROWS
        assert len(look.queriers()) <= MOST_QUERIERS
        assert len(self._meter.streams) <= MAX_STREAMS
        assert len(self._tables.services) <= 2 * MOST_PROGRAMS
        for links in (look.links, self._links):
            assert len(links.known) <= VLANS + 2 * 3
            for link in links.known.values():
                check_link(link)
        for querier in self._queriers.values():
            check_link(querier.link)
            assert len(querier._searches) <= PENDING
        list(self._links.expire(self._now))
        streams = list(look.streams.streams(self._now))
        found = Found(1.0, self._now, ["eth0"], streams, look.queriers(), look.members())
        lines = list(found_lines(found, Surroundings(), 160))
        lines += [line for each in streams[:20] for line in detail_lines(each, self._now, Surroundings(), 80)]
        assert all(line.plain.isprintable() for line in lines)
        json.dumps(found_object(found, Surroundings()))
        for interval in self._meter.end_interval():
            assert interval.datagrams >= 0


def check_link(link: Link) -> None:
    """All that a link remembers is within its limit."""
    assert sum(1 + len(member.sources) for member in link.members.values()) == link._size <= MEMBERS
    assert len(link._queue) <= 4 * MEMBERS + 64
    assert len(link._due) <= 2 * MEMBERS
    assert len(link._groups) <= MEMBERS
