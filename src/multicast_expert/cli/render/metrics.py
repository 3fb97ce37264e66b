"""Turns streams, links and counters into metrics for Prometheus, by its conventions. Pure: touches no OS.

A stream is shown under its labels as long as `observe/` follows it, so its limits are the limits here. A stream that is
forgotten takes its metrics along; if it comes back, they begin at 0, which Prometheus knows from any restart.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from operator import add
from typing import NamedTuple, TypeAlias

from multicast_expert.cli.render.streams import Surroundings
from multicast_expert.cli.render.text import printable
from multicast_expert.cli.render.top import Snapshot
from multicast_expert.cli.render.watch import protocol_of
from multicast_expert.core.datagram import ReceiveStats
from multicast_expert.observe.measured_stream import Stream as MeterStream
from multicast_expert.observe.members import LIMIT, Event, Link
from multicast_expert.observe.meter import Meter
from multicast_expert.observe.sequence import Numbers
from multicast_expert.observe.streams import Stream

Labels: TypeAlias = tuple[str, ...]
_STREAM = ("group", "port", "source", "interface", "protocol")
_LINK = ("interface", "protocol")
EVENTS = 1024
"""Kinds of events that are counted apart; of further ones on a VLAN the VLAN is left out."""


class Family(NamedTuple):
    """A metric: its name, which ends in `_total` if it counts, and a value for each set of labels."""

    name: str
    help: str
    labels: Labels
    samples: Sequence[tuple[Labels, float]]
    falls: bool = False
    """Whether the count can be corrected downwards. The exporter shows its highest value then."""


Families: TypeAlias = Callable[[], Iterable[Family]]
"""Returns what is to be shown, from values that no longer change."""


class Counts(NamedTuple):
    """What is known about one stream; times in seconds since 1970, 0 without a datagram."""

    datagrams: int
    payload_bytes: int
    numbers: Numbers | None
    first: float
    last: float


_COUNTS: Sequence[tuple[str, str, Callable[[Counts], float | None]]] = (
    ("datagrams_total", "Datagrams that came.", lambda each: each.datagrams),
    ("payload_bytes_total", "Bytes of UDP payload that came.", lambda each: each.payload_bytes),
    ("first_datagram_timestamp_seconds", "When the first datagram came.", lambda each: each.first or None),
    ("last_datagram_timestamp_seconds", "When the latest datagram came.", lambda each: each.last or None),
)
_NUMBERS: Sequence[tuple[str, str, Callable[[Numbers], float | None]]] = (
    ("expected_datagrams_total", "Datagrams that the sender numbered so far.", lambda each: each.expected),
    ("lost_datagrams_total", "Numbers that did not come; one that comes late stays counted.", lambda each: each.lost),
    ("duplicate_datagrams_total", "Datagrams whose number had come before.", lambda each: each.duplicates),
    ("reordered_datagrams_total", "Datagrams that came after one with a higher number.", lambda each: each.reordered),
    ("jitter_seconds", "Interarrival jitter by RFC 3550.", lambda each: each.jitter),
)


def _single(name: str, text: str, value: float | None) -> Family:
    return Family(f"mcast_{name}", text, (), [] if value is None else [((), value)])


def _stream_families(streams: Mapping[Labels, Counts], labels: Labels) -> Iterator[Family]:
    for name, text, count in _COUNTS:
        yield _family(name, text, labels, ((key, count(each)) for key, each in streams.items()))
    numbered = [(key, each.numbers) for key, each in streams.items() if each.numbers is not None]
    for name, text, number in _NUMBERS:
        falls = name == "lost_datagrams_total"
        yield _family(name, text, labels, ((key, number(each)) for key, each in numbered), falls=falls)


def _family(
    name: str, text: str, labels: Labels, values: Iterable[tuple[Labels, float | None]], *, falls: bool = False
) -> Family:
    known = [(key, value) for key, value in values if value is not None]
    return Family(f"mcast_stream_{name}", text, labels, known, falls)


# Of mcast recv


def recv_families(meter: Meter, stats: Sequence[ReceiveStats], receive_buffer: int) -> Families:
    """Return the metrics of a receiving program as they are now."""
    streams: dict[Labels, Counts] = {}
    for each in meter.streams:
        place = each.place
        key = (
            place.group or "", str(place.port), place.source, printable(place.interface or ""),
            each.protocol.name if each.protocol else "",
        )  # fmt: skip
        streams[key] = _added(streams.get(key), each)
    drops = [each.kernel_drops for each in stats]
    totals = (
        _single("datagrams_total", "Datagrams that came.", meter.datagrams),
        _single("payload_bytes_total", "Bytes of UDP payload that came.", meter.bytes),
        _single(
            "kernel_drops_total",
            "Datagrams that the kernel dropped because the receive buffer was full.",
            None if None in drops else sum(each or 0 for each in drops),
        ),
        _single("truncated_datagrams_total", "Datagrams that were cut.", sum(each.truncated for each in stats)),
        _single("filtered_datagrams_total", "Datagrams of no interest to it.", sum(each.filtered for each in stats)),
        _single("unfollowed_datagrams_total", "Datagrams of streams beyond the limit.", meter.unfollowed),
        _single("receive_buffer_bytes", "Size of the smallest receive buffer.", receive_buffer),
    )
    return lambda: (*totals, *_stream_families(streams, _STREAM))


def _added(before: Counts | None, stream: MeterStream) -> Counts:
    """Return the sums over the runs of senders that have the same labels; the jitter is that of the latest."""
    numbers = None
    if stream.run is not None:
        jitter = None if stream.jitter_ns is None else stream.jitter_ns / 1e9
        own = stream.numbers
        numbers = Numbers(stream.expected, stream.lost, own.duplicates, own.reordered, jitter)
    found = Counts(stream.datagrams, stream.bytes, numbers, stream.first_ns / 1e9, stream.last_ns / 1e9)
    if before is None:
        return found
    latest = found if found.last >= before.last else before
    if numbers is not None and before.numbers is not None:
        expected, lost, duplicates, reordered = map(add, numbers[:4], before.numbers[:4])
        numbers = Numbers(expected, lost, duplicates, reordered, latest.numbers.jitter if latest.numbers else None)
    return Counts(
        before.datagrams + found.datagrams,
        before.payload_bytes + found.payload_bytes,
        numbers or before.numbers,
        min(filter(None, (before.first, found.first)), default=0.0),
        latest.last,
    )


# Of mcast top


def top_families(found: Snapshot) -> Iterator[Family]:
    """Yield the metrics of the streams on the wire."""
    labels, around = (*_STREAM, "direction"), found.around
    streams = {_top_labels(each): each for each in found.streams}
    yield _single("streams", "Streams that are followed.", len(found.streams))
    yield _single("lost_frames_total", "Frames that came faster than they were read.", found.lost)
    yield _single("unfollowed_datagrams_total", "Datagrams of streams beyond the limit.", found.unfollowed)
    counts = {
        key: Counts(each.datagrams, each.payload_bytes, each.numbers, each.first, each.last)
        for key, each in streams.items()
    }
    yield from _stream_families(counts, labels)
    for name, text, fact in _FACTS:
        falls = name == "kernel_drops_total"
        yield _family(name, text, labels, ((key, fact(each, around)) for key, each in streams.items()), falls=falls)


def _joined(stream: Stream, around: Surroundings) -> bool | None:
    return None if around.joined is None else around.programs(stream) is not None


_FACTS: Sequence[tuple[str, str, Callable[[Stream, Surroundings], float | None]]] = (
    ("stalled", "1 if it kept coming and is silent now.", lambda each, _: each.is_stalled),
    ("hop_limit", "Hop limit (TTL) of the latest datagram.", lambda each, _: each.hop_limit),
    ("joined", "1 if a program of this host has joined the group.", _joined),
    (
        "kernel_drops_total",
        "Datagrams that the kernel of this host dropped though a program expects them.",
        lambda each, around: around.dropped(each),
    ),
)


def _top_labels(stream: Stream) -> Labels:
    return (
        stream.group, str(stream.port), stream.source, printable(stream.interface),
        stream.protocol.name if stream.protocol else "", "out" if stream.outgoing else "in",
    )  # fmt: skip


# Of mcast watch


class Heard:
    """Counts events by interface, protocol and kind."""

    def __init__(self) -> None:
        self.counts: Counter[Labels] = Counter()

    def note(self, interface: str, version: int, event: Event) -> None:
        """Count an event. A sender can put any VLAN on a frame, so not each has room."""
        key = interface, protocol_of(version, None), event.kind
        if key not in self.counts and len(self.counts) >= EVENTS:
            key = interface.partition(" ")[0], *key[1:]
        self.counts[key] += 1


def watch_families(links: Mapping[tuple[str, int], Link], interfaces: Iterable[str], heard: Heard) -> Families:
    """Return the metrics of queriers and members as they are now."""
    places = [*links, *((each, version) for each in interfaces for version in (4, 6) if (each, version) not in links)]
    queriers: list[tuple[Labels, float]] = []
    asked: list[tuple[Labels, float]] = []
    groups: list[tuple[Labels, float]] = []
    members: list[tuple[Labels, float]] = []
    for place in places:
        label, link = (printable(place[0]), protocol_of(place[1], None)), links.get(place)
        querier = link.querier if link else None
        queriers.append((label, float(querier is not None)))
        if querier is not None:
            asked.append(((*label, querier.address, str(querier.version)), 1.0))
        members.append((label, float(len(link.members) if link else 0)))
        hosts = Counter(group for group, _ in link.members) if link else {}
        groups += [((*label, group), float(count)) for group, count in hosts.items()][: LIMIT - len(groups)]
    events = [((printable(interface), *rest), float(count)) for (interface, *rest), count in heard.counts.items()]
    families = (
        Family("mcast_queriers", "Elected queriers: 1 or 0.", _LINK, queriers),
        Family("mcast_querier_info", "The elected querier.", (*_LINK, "querier", "version"), asked),
        Family("mcast_memberships", "Memberships that hosts reported and that last.", _LINK, members),
        Family(
            "mcast_group_members", f"Hosts that are members, of {LIMIT:,} groups at most.", (*_LINK, "group"), groups
        ),
        Family("mcast_group_events_total", "Events, as mcast watch names them.", (*_LINK, "event"), events),
    )
    return lambda: families
