"""Keeps a row for each stream on the wire: rates, loss, jitter, protocol. Pure: the caller gives packets and times.

A stream is what one host sends to one group and port, as seen on one interface. Times are seconds since 1970.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from math import exp
from struct import Struct

from multicast_expert.core.addresses import address_text, is_multicast
from multicast_expert.observe.sequence import HEAD, NUMBERED, Numbering, Numbers
from multicast_expert.wire.frames import UDP
from multicast_expert.wire.recognise.media import DYNAMIC_TYPES, read_announcement, rtp_header
from multicast_expert.wire.recognise.table import Protocol, recognise
from multicast_expert.wire.transport_stream import TransportStream
from multicast_expert.wire.udp_place import udp_place

LIMIT = 8192
"""Rows at most. Any host can send as if it were any number of hosts."""
SECONDS = 60
"""Seconds that a row remembers the rates of."""
_HEAD = 2048
"""Bytes of a packet that are kept and looked at."""
_SMOOTHING = 3.0
"""Seconds in which two thirds of a change of rate are shown."""
_SILENCE, _ACTIVE, _SHARE = 2.0, 5, 0.8
"""A stream has stalled that is silent for so long after traffic in so many seconds, and in such a share of them."""
_FORGOTTEN, _STRAY_AGE, _STRAY = 60.0, 3.0, 2
"""When rows give way to new ones: seconds of silence, and those of rows with hardly a datagram."""
_FIRST_TRIES, _TRIES = 32, 4
"""How many datagrams a nameless stream is named by at first, and in each second after that."""
_ANNOUNCED = 1024
_MOST_TABLES, _MOST_STRAYS = 20_000, 32
"""Datagrams of a transport stream in which its tables must come, and those that may be something else."""
_PORTS = Struct("!HHH")


@dataclass(frozen=True, slots=True)
class Stream:
    """One row, as it is at one moment."""

    interface: str
    group: str
    port: int
    source: str
    outgoing: bool
    """Whether this host sends it out of the interface."""
    datagrams: int
    payload_bytes: int
    datagrams_per_second: float
    bits_per_second: float
    """Of payload; like the rate of datagrams smoothed over some seconds."""
    history: tuple[tuple[float, float], ...]
    """Datagrams and bits per second in each of the last 60 seconds, the latest last."""
    first: float
    last: float
    longest_gap: float
    """Seconds between two datagrams."""
    hop_limit: int | None
    dscp: int | None
    senders: int
    """How many ports of the source it came from; 9 stands for more."""
    is_stalled: bool
    protocol: Protocol | None
    numbers: Numbers | None
    """None: its datagrams have no numbers that we can read."""
    head: bytes
    """The beginning of the latest payload."""

    @property
    def mean_rates(self) -> tuple[float, float]:
        """Datagrams and bits per second from the first datagram to the last one."""
        span = self.last - self.first
        if self.datagrams < 2 or span <= 0:
            return 0.0, 0.0
        share = (self.datagrams - 1) / self.datagrams
        return (self.datagrams - 1) / span, 8 * self.payload_bytes * share / span


class _Row:
    """What is counted about one stream."""

    __slots__ = (
        "announced", "before", "bytes", "datagrams", "dscp", "earlier", "end", "first", "gap", "history", "hops",
        "is_steady", "last", "numbering", "outgoing", "packet", "place", "ports", "protocol", "rates", "start",
        "tables", "tries",
    )  # fmt: skip

    def __init__(self, place: tuple[str, str, int, str], outgoing: bool, now: float) -> None:
        self.place, self.outgoing = place, outgoing
        self.datagrams = self.bytes = 0
        self.before = 0, 0
        self.first = self.last = now
        self.gap = 0.0
        self.hops: int | None = None
        self.dscp: int | None = None
        self.ports: tuple[int, ...] = ()
        self.rates = 0.0, 0.0
        self.history: deque[tuple[float, float]] = deque(maxlen=SECONDS)
        self.protocol: Protocol | None = None
        self.numbering: Numbering | None = None
        self.tables: TransportStream | None = None
        self.announced = False
        self.tries = _FIRST_TRIES
        self.packet = b""
        self.start = self.end = 0
        self.earlier: tuple[bytes, int, float] | None = None
        self.is_steady = False

    def payload(self) -> bytes:
        return self.packet[self.start : self.end]


class Streams:
    """All streams, up to a limit. One thread may use it."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.limit: int = limit
        """How many rows there may be."""
        self._rows: dict[object, _Row] = {}
        self._announced: dict[tuple[str, int, int], str] = {}
        self._ticked: float | None = None
        self.unfollowed: int = 0
        """Datagrams of streams that found no room."""
        self.forgotten: int = 0
        """Streams that gave their room to others."""

    def __len__(self) -> int:
        return len(self._rows)

    def take_packet(self, interface: str, outgoing: bool, packet: bytes, now: float) -> None:
        """Count an IP packet if it carries a datagram to a group; its end may be missing."""
        # Plain IPv4 by fixed offsets; udp_place finds its way through options and other headers.
        if len(packet) >= 28 and packet[0] == 0x45 and packet[9] == UDP and not packet[6] & 0x3F and not packet[7]:
            start, hops, traffic_class = 20, packet[8], packet[1]
            source, group = packet[12:16], packet[16:20]
        else:
            place = udp_place(packet)
            if place is None:
                return
            source, group, start, hops, traffic_class = place
        sender_port, port, size = _PORTS.unpack_from(packet, start)
        if size < 8:
            return
        key = interface, source, group, port, outgoing
        row = self._rows.get(key)
        if row is None:
            if not is_multicast(group):
                return
            row = self._new(key, (interface, address_text(group), port, address_text(source)), outgoing, now)
            if row is None:
                return
        row.hops, row.dscp = hops, traffic_class >> 2
        if len(packet) > _HEAD:
            packet = packet[:_HEAD]
        self._count(row, packet, (start + 8, start + size), sender_port, now)

    def take_payload(
        self, place: tuple[str, str, int, str], payload: bytes, sender_port: int, hop_limit: int | None, now: float
    ) -> None:
        """Count a datagram that a socket received; `place`: interface, group, port and source."""
        row = self._rows.get(place) or self._new(place, place, False, now)
        if row is not None:
            row.hops = hop_limit
            self._count(row, payload[:_HEAD], (0, len(payload)), sender_port, now)

    def _new(self, key: object, place: tuple[str, str, int, str], outgoing: bool, now: float) -> _Row | None:
        if len(self._rows) >= self.limit:
            self.unfollowed += 1
            return None
        row = self._rows[key] = _Row(place, outgoing, now)
        return row

    def _count(self, row: _Row, packet: bytes, ends: tuple[int, int], sender_port: int, now: float) -> None:
        gap = now - row.last
        if gap > row.gap:  # noqa: PLR1730 - max() would cost a third of the time of this function
            row.gap = gap
        row.datagrams += 1
        row.last = now
        row.start, row.end = ends
        row.bytes += row.end - row.start
        row.packet = packet
        if sender_port not in row.ports:
            row.ports = (*row.ports, sender_port)[-9:]
        if row.numbering is not None:
            row.numbering.take(packet[row.start : row.start + HEAD], row.end - row.start, sender_port, now)
        elif row.tries and (row.protocol is None or row.announced):
            row.tries -= 1
            self._look(row, sender_port)
        if row.tables is not None:
            self._read_tables(row, row.tables)

    def _look(self, row: _Row, sender_port: int) -> None:
        """Try to name the stream, and read the announcements of a known one."""
        payload = row.payload()
        if row.announced:
            self._read_announcement(payload)
            return
        _, group, port, _ = row.place
        earlier, row.earlier = row.earlier, (payload, sender_port, row.last)
        row.protocol = recognise(payload, port, group, earlier[0] if earlier else None)
        if row.protocol is None:
            return
        name, detail = row.protocol
        if name in NUMBERED:
            row.numbering = Numbering(name)
            for data, its_port, moment in filter(None, (earlier, row.earlier)):
                row.numbering.take(data[:HEAD], len(data), its_port, moment)
        row.earlier = None
        if name == "SAP":
            row.announced = True
            self._read_announcement(payload)
        if "MPEG-TS" in (name, detail):
            row.tables = TransportStream()

    def _read_announcement(self, payload: bytes) -> None:
        found = read_announcement(payload)
        for medium in found.media if found else ():
            for kind, name in zip(medium.payload_types, medium.formats, strict=True):
                if kind in DYNAMIC_TYPES and len(self._announced) < _ANNOUNCED:
                    self._announced[medium.group, medium.port, kind] = name

    def _read_tables(self, row: _Row, tables: TransportStream) -> None:
        payload = row.payload()
        if row.protocol and row.protocol.name == "RTP":
            header = rtp_header(payload)
            payload = payload[header.size :] if header else b""
        tables.take(payload)
        if tables.is_complete or row.datagrams > _MOST_TABLES or tables.strays > _MOST_STRAYS:
            row.protocol = _with_services(row)
            row.tables = None

    def tick(self, now: float) -> None:
        """End a second: take the rates since the last tick, and make room if the table is full."""
        elapsed = SECONDS if self._ticked is None else max(now - self._ticked, 1e-3)
        first, self._ticked = self._ticked is None, now
        share = 1 - exp(-elapsed / _SMOOTHING)
        for row in self._rows.values():
            since = max(now - row.first, 1e-3) if first or row.first > now - elapsed else elapsed
            since = max(since, min(elapsed, 1.0))
            datagrams, size = row.before
            recent = (row.datagrams - datagrams) / since, 8 * (row.bytes - size) / since
            row.before = row.datagrams, row.bytes
            is_new = not row.history
            if not is_new and row.history[-1][0] and not recent[0]:
                row.is_steady = _is_steady(row.history)
            row.history.append(recent)
            row.rates = recent if is_new else _between(row.rates, recent, share)
            row.tries = max(row.tries, _TRIES)
        if len(self._rows) >= self.limit:
            self._make_room(now)

    def _make_room(self, now: float) -> None:
        old = [
            key
            for key, row in self._rows.items()
            if now - row.last > (_STRAY_AGE if row.datagrams <= _STRAY else _FORGOTTEN)
        ]
        for key in old:
            del self._rows[key]
        self.forgotten += len(old)

    def streams(self, now: float) -> Iterator[Stream]:
        """Yield the rows as they are now, in the order of their first datagrams."""
        for row in self._rows.values():
            interface, group, port, source = row.place
            yield Stream(
                interface, group, port, source, row.outgoing, row.datagrams, row.bytes, *row.rates,
                tuple(row.history), row.first, row.last, max(row.gap, now - row.last), row.hops, row.dscp,
                len(row.ports), row.is_steady and now - row.last > _SILENCE, self._named(row),
                row.numbering.numbers() if row.numbering else None, row.payload(),
            )  # fmt: skip

    def _named(self, row: _Row) -> Protocol | None:
        """Return the protocol with what SAP announced or the tables say so far."""
        if row.tables is not None and row.tables.services:
            return _with_services(row)
        if self._announced and row.protocol and row.protocol.name == "RTP":
            header = rtp_header(row.payload())
            _, group, port, _ = row.place
            name = self._announced.get((group, port, header.payload_type)) if header else None
            return row.protocol._replace(detail=name) if name else row.protocol
        return row.protocol


def _with_services(row: _Row) -> Protocol | None:
    if row.protocol is None or row.tables is None:
        return row.protocol
    services = "; ".join(
        (each.name or f"program {each.number}") + (f" ({', '.join(dict.fromkeys(each.kinds))})" if each.kinds else "")
        for each in row.tables.services
    )
    carrier = "MPEG-TS" if row.protocol.name == "RTP" else ""
    return row.protocol._replace(detail=": ".join(part for part in (carrier, services) if part))


def _between(before: tuple[float, float], after: tuple[float, float], share: float) -> tuple[float, float]:
    return before[0] + share * (after[0] - before[0]), before[1] + share * (after[1] - before[1])


def _is_steady(history: Iterable[tuple[float, float]]) -> bool:
    """Return whether a stream kept coming that ended just now."""
    active = [bool(datagrams) for datagrams, _ in history]
    return sum(active) >= max(_ACTIVE, _SHARE * len(active))
