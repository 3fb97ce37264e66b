"""Carries one group and port between this network and the other sites, as far as either side wants it.

One McastSocket takes in what this network has, and sends what comes from other sites; the kernel keeps from it what it
sent itself. A thread each: taking ends with the socket, giving with the subscriber.
"""

from __future__ import annotations

import socket
import threading
from array import array
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from operator import itemgetter
from time import monotonic, sleep
from typing import Protocol

from multicast_expert.bridge.frames import (
    Buffer,
    Frame,
    MalformedFrameError,
    Origin,
    build_frame,
    integers,
    packed,
    parse_frame,
)
from multicast_expert.bridge.guards import Allowance, Echoes, Fuse
from multicast_expert.bridge.interest import Group
from multicast_expert.bridge.ledger import Ledger
from multicast_expert.bridge.network import Publisher, Subscriber
from multicast_expert.bridge.streams import Streams
from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.datagram_buffer import DatagramBuffer
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.sockets.both_ways import McastSocket
from multicast_expert.sockets.subscriptions import Membership

LINGER = 0.001
"""Seconds that a frame waits for more datagrams, if they come so quickly that it is worth while."""
WORTH_WHILE = 4
"""How many datagrams have to come in that time."""
_WINDOW = 0.01
CAPACITY, MEMORY, ENOUGH = 1024, 65535, 49152
"""Datagrams and bytes of a frame, at most; and the bytes that need not wait for more."""
_MOST_SOURCES = 4096


class Network(Protocol):
    """What a carrier needs of the network of bridges."""

    def publisher(self, key: str, /) -> Publisher:
        """Return what sends frames with this key."""

    def subscriber(self, key: str, /) -> Subscriber:
        """Return what receives frames with this key."""


class Spoof(Protocol):
    """Sends datagrams with the source that they had."""

    def send(self, origin: Origin, payloads: Sequence[bytes], group: Group, /) -> int:
        """Send datagrams to the group as if they came from their origin; return how many the OS took."""

    def close(self) -> None:
        """Send nothing more."""


@dataclass(slots=True)
class Station:
    """What all carriers of one bridge share."""

    own: bytes
    """The id of the bridge."""
    ifaces: Sequence[str] | None
    ttl: int | None
    """How many hops the datagrams of this network may go elsewhere; None: one less than they have."""
    allowance: Allowance
    spoof: Spoof | None = None
    """None: they are sent from this host's own address."""
    speaking: bool = False
    neighbours: dict[bytes, frozenset[str]] = field(default_factory=dict)
    """The other bridges on this network, with their addresses."""


class Carrier:
    """Carries one group and port. Its methods are called by one thread at a time."""

    def __init__(self, group: Group, key: str, network: Network, station: Station) -> None:
        self.group = group
        self.ledger: Ledger = Ledger()
        self._key, self._network, self._station = key, network, station
        self._address = str(group.group), group.port
        self._family = socket.AF_INET if group.group.version == 4 else socket.AF_INET6
        self._socket: McastSocket | None = None
        self._publisher = network.publisher(key)
        self._numbering = threading.Lock()
        self._fed = False
        self._subscriber: Subscriber | None = None
        self._memberships: dict[IPAddress | None, Membership] = {}
        self._threads: list[threading.Thread] = []
        self._echoes, self._echo_lock = Echoes(), threading.Lock()
        self._remote_sources: set[str] = set()
        self._fuse = Fuse()
        self._streams = Streams()
        self._next = 0
        self._lingers = False
        self._window_at, self._window_count = 0.0, 0

    @property
    def takes(self) -> bool:
        """Whether another site wants the group."""
        return bool(self._memberships)

    @property
    def gives(self) -> bool:
        """Whether this site wants the group."""
        return self._subscriber is not None or self._fed

    @property
    def is_stopped(self) -> bool:
        """Whether the fuse stopped the group."""
        return self._fuse.is_blown(monotonic())

    def update(self, sources: Collection[IPAddress | None], wanted_here: bool, fed: bool = False) -> None:
        """Take what other sites want, from these sources (None: all), and give if it is wanted here.

        fed: whether what comes from other sites is given to `feed`. Raises MulticastExpertError for what the OS
        refuses; called again, it goes on from there.
        """
        wanted: set[IPAddress | None] = {None} if None in sources else set(sources)
        if (wanted or wanted_here or fed) and self._socket is None:
            self._open()
        self._join(wanted)
        if fed and not self._fed:
            self._streams.clear()
        self._fed = fed
        if wanted_here and self._subscriber is None:
            self._streams.clear()
            self._subscriber = self._network.subscriber(self._key)
            self._start(self._give, self._subscriber)
        elif not wanted_here and self._subscriber is not None:
            self._subscriber.close()
            self._subscriber = None
        if not (wanted or wanted_here or fed):
            self._close_socket()

    def close(self) -> None:
        """Stop carrying, and wait for the threads."""
        self._close_socket()
        self._publisher.close()

    def _close_socket(self) -> None:
        self._memberships.clear()
        subscriber, self._subscriber = self._subscriber, None
        if subscriber is not None:
            subscriber.close()
        opened, self._socket = self._socket, None
        if opened is not None:
            opened.close()
        for thread in self._threads:
            thread.join(5.0)
        self._threads.clear()

    def count_kernel_drops(self) -> None:
        """Note in the ledger what the kernel dropped. It counts the own echo, too, where there may be any."""
        opened = self._socket
        with suppress(MulticastExpertError):
            if opened is not None:
                self.ledger.kernel_drops = None if self.gives else opened.stats().kernel_drops

    def _open(self) -> None:
        opened = McastSocket(
            self._family,
            (),
            self.group.port,
            ifaces=self._station.ifaces,
            unicast=False,
            timestamps=True,
            traffic_class=True,
            receive_buffer="largest",
            allow_missing=True,
        )
        opened.open()
        self._socket = opened
        self._start(self._take, opened)

    def _start(self, work: object, *arguments: object) -> None:
        self._threads = [each for each in self._threads if each.is_alive()]
        thread = threading.Thread(target=work, args=arguments, name=f"mcast-bridge {self.group}", daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _join(self, wanted: Collection[IPAddress | None]) -> None:
        for source in [each for each in self._memberships if each not in wanted]:
            with suppress(MulticastExpertError):
                self._memberships[source].leave()
            del self._memberships[source]
        for source in wanted:
            if source not in self._memberships and self._socket is not None:
                self._memberships[source] = self._socket.join_group(self.group.group, source=source)

    # From this network

    def _take(self, opened: McastSocket) -> None:
        buffer = DatagramBuffer(CAPACITY, MEMORY)
        with suppress(MulticastExpertError):  # closed
            while True:
                opened.receive_into(buffer, timeout=None)
                self._linger(opened, buffer)
                self._publish(buffer)
                buffer.clear()

    def _linger(self, opened: McastSocket, buffer: DatagramBuffer) -> None:
        """Let more datagrams come into the buffer, if they come quickly."""
        now = monotonic()
        if now > self._window_at + _WINDOW:
            self._lingers = self._window_count * LINGER >= WORTH_WHILE * (now - self._window_at)
            self._window_at, self._window_count = now, 0
        deadline = now + LINGER
        while self._lingers and not buffer.is_full and len(buffer.data) < ENOUGH and now < deadline:
            sleep(LINGER / 2)
            with suppress(TimeoutError):
                opened.receive_into(buffer, timeout=0)
            now = monotonic()
        self._window_count += len(buffer)

    def _publish(self, buffer: DatagramBuffer) -> None:
        now, count, ledger, station = monotonic(), len(buffer), self.ledger, self._station
        ledger.taken += count
        if not station.speaking:
            ledger.taking_drops["standby"] += count
            return
        if self._fuse.inspecting:
            self._fuse.inspect((each.data, (each.sender, each.hop_limit)) for each in buffer)
        if self._fuse.count(count, now):
            ledger.blown += 1
        if self._fuse.is_blown(now):
            ledger.taking_drops["fuse"] += count
            return
        origins, kept = self._judge(buffer)
        parts = (buffer.lengths, buffer.sources, buffer.timestamps_ns)
        lengths, sources, times = (packed(part, code) for part, code in zip(parts, "iiq", strict=True))
        data: bytes | memoryview = buffer.data
        if kept is not None:
            if not kept:
                return
            lengths, sources, times = (
                packed(memoryview(array(code, [part[row] for row in kept])), code)
                for part, code in zip(parts, "iiq", strict=True)
            )
            data = b"".join(buffer[row].data for row in kept)
            count = len(kept)
        self._put(count, origins, lengths, sources, times, data)

    def _put(
        self, count: int, origins: list[Origin], lengths: Buffer, sources: Buffer, times: Buffer, data: Buffer
    ) -> None:
        station, port = self._station, self.group.port
        hops = [station.own, *station.neighbours]
        with self._numbering:
            parts = (hops, origins, lengths, sources, times, data)
            self._publisher.put(build_frame(Frame(station.own, self._next, self._address[0], port, *parts)))
            self._next += count
        self.ledger.published += count

    def take_found(self, origin: Origin, timestamp_ns: int, payload: bytes) -> None:
        """Publish a datagram that was seen on the wire before this received the port; its origin as it was there."""
        ttl, ledger = self._station.ttl, self.ledger
        hops = origin.hop_limit - 1 if ttl is None else ttl
        ledger.taken += 1
        if not self._station.speaking:
            ledger.taking_drops["standby"] += 1
        elif hops < 1:
            ledger.taking_drops["hop limit"] += 1
        elif origin.address in frozenset[str]().union(*self._station.neighbours.values()) | self._remote_sources:
            # Another bridge re-sent it.
            ledger.taking_drops["echo"] += 1
        else:
            length, time = len(payload).to_bytes(4, "little"), timestamp_ns.to_bytes(8, "little")
            self._put(1, [origin._replace(hop_limit=hops)], length, bytes(4), time, payload)

    def _judge(self, buffer: DatagramBuffer) -> tuple[list[Origin], list[int] | None]:
        """Return the origins as other sites see them, and which rows may go there; None: all."""
        station, ttl = self._station, self._station.ttl
        bridges = frozenset[str]().union(*station.neighbours.values())
        origins, dead, doubtful = [], set(), set()
        for place, origin in enumerate(buffer.origins):
            hops = (origin.hop_limit or 1) - 1 if ttl is None else ttl
            address = origin.sender[0].partition("%")[0]
            dscp = None if origin.traffic_class is None else origin.traffic_class >> 2
            origins.append(Origin(address, origin.sender[1], hops, dscp))
            if hops < 1:
                dead.add(place)
            elif address in bridges or address in self._remote_sources:
                doubtful.add(place)
        if not dead and not doubtful:
            return origins, None
        kept, drops = [], self.ledger.taking_drops
        with self._echo_lock:
            for row, place in enumerate(buffer.sources):
                if place in dead:
                    drops["hop limit"] += 1
                elif place in doubtful and self._echoes.is_echo(buffer[row].data):
                    drops["echo"] += 1
                else:
                    kept.append(row)
        return origins, kept

    # From other sites

    def feed(self, frame: Frame, size: int) -> None:
        """Take a frame of another site, of so many bytes."""
        self._take_frame(frame, size, None)

    def _give(self, subscriber: Subscriber) -> None:
        while (data := subscriber.receive()) is not None:
            try:
                frame = parse_frame(data)
            except MalformedFrameError:
                self.ledger.malformed += 1
                continue
            if (frame.group, frame.port) != self._address:
                self.ledger.malformed += 1
                continue
            self._take_frame(frame, len(data), subscriber)

    def _take_frame(self, frame: Frame, size: int, subscriber: Subscriber | None) -> None:
        ledger, station, drops, count = self.ledger, self._station, self.ledger.sending_drops, frame.size
        ledger.arrived += count
        if station.own in frame.hops or station.own == frame.sender:
            drops["loop"] += count
            return
        verdict = self._streams.take(frame.sender, frame.first, count)
        ledger.lost += verdict.lost
        payloads = frame.payloads()
        self._fuse.expect(payloads)
        if verdict.is_new and (station.neighbours or station.spoof is not None):
            self._expect_echoes(frame, payloads)
        if not verdict.is_new:
            drops["duplicate"] += count
        elif self._subscriber is not subscriber or not self.gives:
            drops["unwanted"] += count
        elif not station.speaking:
            drops["standby"] += count
        elif not station.allowance.allows(size, monotonic()):
            drops["too fast"] += count
        else:
            sent = self._send(frame, payloads)
            ledger.delivered += sent
            if sent < count:
                drops["refused"] += count - sent

    def _expect_echoes(self, frame: Frame, payloads: Sequence[bytes]) -> None:
        """Remember what another bridge on this network may re-send, or this one with the source that it had."""
        if len(self._remote_sources) > _MOST_SOURCES:
            self._remote_sources.clear()
        self._remote_sources.update(each.address for each in frame.origins)
        with self._echo_lock:
            self._echoes.note(payloads, monotonic())

    def _send(self, frame: Frame, payloads: Sequence[bytes]) -> int:
        """Send the datagrams of a frame to this network; return how many the OS took."""
        if len(frame.origins) == 1:
            return self._send_run(frame.origins[0], payloads)
        # What only differs in its sender travels together, unless it is sent from there.
        whole = self._station.spoof is not None
        keys = [each if whole else Origin("", 0, each.hop_limit, each.dscp or 0) for each in frame.origins]
        origins = map(keys.__getitem__, integers(frame.sources, "i"))
        runs = groupby(zip(origins, payloads, strict=True), itemgetter(0))
        return sum(self._send_run(origin, [payload for _, payload in rows]) for origin, rows in runs)

    def _send_run(self, origin: Origin, payloads: Sequence[bytes]) -> int:
        opened, spoof = self._socket, self._station.spoof
        if opened is None or origin.hop_limit < 1:
            return 0
        if spoof is not None:
            return spoof.send(origin, payloads, self.group)
        dscp = origin.dscp or 0
        if dscp != (opened.dscp or 0):
            with suppress(MulticastExpertError):  # its interface is just going
                opened.dscp = dscp
        return _send_all(opened, payloads, self._address, origin.hop_limit)


def _send_all(opened: McastSocket, payloads: Sequence[bytes], address: tuple[str, int], hop_limit: int) -> int:
    """Send as many of the payloads as the OS takes, and go on behind what it refuses; return how many went."""
    sent = place = 0
    while place < len(payloads):
        rest: Iterable[bytes] = payloads[place:] if place else payloads
        went = 0
        with suppress(MulticastExpertError):
            went = opened.send_many(rest, address, hop_limit=hop_limit)
        sent += went
        place += went + 1
    return sent
