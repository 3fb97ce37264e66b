"""Joins many groups at once and receives what comes to some ports, without privileges. Linux only.

A socket that belongs to a port receives all groups that any socket of this host has joined, as long as its
IP_MULTICAST_ALL is on (ip(7)). So the memberships need not be those of the ports' sockets: as many sockets as
net.ipv4.igmp_max_memberships demands share them.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from multicast_expert.core.addresses import IPAddress, address_text, is_multicast
from multicast_expert.core.datagram import MAX_DATAGRAM, decode_arrival
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.plan import Join
from multicast_expert.engine.opening import change_membership
from multicast_expert.observe.clock import Clock
from multicast_expert.observe.streams import Streams
from multicast_expert.system import kernel

PORTS = (
    1234, 1900, 3671, 3702, 4321, 5000, 5001, 5004, 5005, 5353, 5568, 5683, 6454, 7400, 7401, 7667, 9522, 9875, 9903,
    14550, 30490,
)  # fmt: skip
"""Ports that are listened to unless others are named: those of the protocols that streams are named by."""
_BATCH = 64
_FAMILY = {4: socket.AF_INET, 6: socket.AF_INET6}
_COUNTERS = ((Path("/proc/net/snmp"), "Udp:", "IgnoredMulti"), (Path("/proc/net/snmp6"), "Udp6IgnoredMulti", ""))
_FULL = ("ENOBUFS", "ENOMEM")


class Memberships:
    """Holds memberships of many groups until it is closed. Raises MulticastOSError; then nothing is joined."""

    def __init__(self, groups: Sequence[IPAddress], ifaces: Sequence[IfaceInfo]) -> None:
        self._sockets: dict[int, list[Any]] = {4: [], 6: []}
        try:
            for group in groups:
                for iface in ifaces:
                    if iface.addresses(group.version):
                        self._join(Join(group, None, InterfaceChoice(iface)))
        except BaseException:
            self.close()
            raise

    def _join(self, join: Join) -> None:
        platform, sockets = kernel.SYSTEM.platform, self._sockets[join.group.version]
        for is_fresh in (False, True):
            if is_fresh or not sockets:
                sockets.append(kernel.SYSTEM.socket(_FAMILY[join.group.version], socket.SOCK_DGRAM))
            try:
                change_membership(kernel.SYSTEM, sockets[-1], join.change(platform, join.join_operation))
            except MulticastOSError as error:
                if is_fresh or platform.errors.get(error.errno or 0) not in _FULL:
                    raise
            else:
                return

    @property
    def sockets(self) -> int:
        """How many sockets share them."""
        return sum(map(len, self._sockets.values()))

    def close(self) -> None:
        """Leave the groups."""
        for each in (each for sockets in self._sockets.values() for each in sockets):
            each.close()


class Ports:
    """Receives from all groups of some IP versions that this host has joined, on some ports.

    A port that this user may not have, or that another program does not share, is left out: see `missing`.
    Linux only: MulticastExpertError elsewhere.
    """

    def __init__(
        self,
        ports: Iterable[int],
        versions: Collection[int],
        ifaces: Sequence[IfaceInfo],
        streams: Streams,
        clock: Clock,
    ) -> None:
        if kernel.SYSTEM.platform.name != "linux":
            raise MulticastExpertError(
                "On this system a scan would need the ports. Use a Linux host of the same network."
            )
        self._streams, self._clock = streams, clock
        self._names = {each.index: each.machine_name for each in ifaces}
        self._ignored = _ignored()
        self.heard: list[int] = []
        self.missing: list[int] = []
        """The ports that are not heard by all of the IP versions."""
        with ExitStack() as opened:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            for port in sorted(set(ports)):
                listeners = [each for each in (_listener(version, port) for version in versions) if each is not None]
                (self.heard if len(listeners) == len(versions) else self.missing).append(port)
                for sock in listeners:
                    opened.enter_context(sock)
                    self._selector.register(sock, selectors.EVENT_READ, port)
            self._close = opened.pop_all().close

    def run(self, seconds: float, stopped: Callable[[], bool] = lambda: False) -> None:
        """Receive for so long or until `stopped` returns True, with a tick each second."""
        now = self._clock.now()
        deadline, next_tick = now + seconds, now
        while now < deadline and not stopped():
            if now >= next_tick:
                next_tick = now + 1
                self._streams.tick(now)
            for key, _ in self._selector.select(min(deadline, next_tick) - now):
                self._take(key.fileobj, key.data)
            now = self._clock.now()

    def _take(self, sock: Any, port: int) -> None:
        fields = kernel.SYSTEM.platform.ancillary.fields
        for _ in range(_BATCH):
            try:
                payload, messages, _, sender = sock.recvmsg(MAX_DATAGRAM, 256)
            except OSError:
                return
            arrival = decode_arrival(messages, fields)
            if arrival.destination is None or not is_multicast(arrival.destination):
                continue
            name = self._names.get(arrival.interface_index or 0)
            if name is not None:
                place = name, address_text(arrival.destination), port, sender[0].partition("%")[0]
                self._streams.take_payload(place, payload, sender[1], arrival.hop_limit, self._clock.now())

    def unseen(self) -> int:
        """Return how many datagrams to groups came to ports without a socket, in this network namespace."""
        return _ignored() - self._ignored

    def close(self) -> None:
        """Close the sockets."""
        self._close()


def _listener(version: int, port: int) -> Any:
    """Return a socket that receives from all joined groups of an IP version; None where there may be none."""
    platform = kernel.SYSTEM.platform
    wanted = ["IP_PKTINFO", "IP_RECVTTL", "IP_MULTICAST_ALL"]
    if version == 6:
        wanted = ["IPV6_RECVPKTINFO", "IPV6_RECVHOPLIMIT", "IPV6_MULTICAST_ALL"]
    with ExitStack() as opened, suppress(OSError):
        sock = opened.enter_context(socket.socket(_FAMILY[version], socket.SOCK_DGRAM))
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if version == 6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        for name in wanted:
            level, number = platform.options[name]
            with suppress(OSError):
                sock.setsockopt(level or 0, number, 1)
        sock.bind(("", port))
        opened.pop_all()
        return sock
    return None


def _ignored() -> int:
    """Return what the kernel counts as datagrams to groups that no socket took."""
    total = 0
    for path, start, column in _COUNTERS:
        with suppress(OSError, ValueError, IndexError):
            lines = [line.split() for line in path.read_text().splitlines() if line.startswith(start)]
            total += int(lines[1][lines[0].index(column)] if column else lines[0][1])
    return total
