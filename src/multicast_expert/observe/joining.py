"""Joins many groups at once and receives what comes to some ports, without privileges. Linux only.

A socket that belongs to a port receives all groups that any socket of this host has joined, as long as its
IP_MULTICAST_ALL is on (ip(7)). So the memberships need not be those of the ports' sockets: as many sockets as
net.ipv4.igmp_max_memberships demands share them.
"""

from __future__ import annotations

import selectors
import socket
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from time import monotonic, time, time_ns
from typing import Any

from multicast_expert.core.addresses import IPAddress, address_text, is_multicast
from multicast_expert.core.datagram import MAX_DATAGRAM, decode_arrival
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.plan import Join
from multicast_expert.engine.opening import change_membership
from multicast_expert.observe.streams import Streams
from multicast_expert.system import kernel

PORTS = (
    1234, 1900, 3671, 3702, 4321, 5000, 5001, 5004, 5005, 5353, 5568, 5683, 6454, 7400, 7401, 7667, 9522, 9875, 14550,
    30490,
)  # fmt: skip
"""Ports that are listened to unless others are named: those of the protocols that streams are named by."""
_BATCH = 64
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
        family = socket.AF_INET if join.group.version == 4 else socket.AF_INET6
        for is_fresh in (False, True):
            if is_fresh or not sockets:
                sockets.append(kernel.SYSTEM.socket(family, socket.SOCK_DGRAM))
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
    """Receives from all groups that this host has joined, on some ports. Linux only: MulticastExpertError elsewhere.

    A port that this user may not have, or that another program does not share, is left out: see `missing`.
    """

    def __init__(self, ports: Iterable[int], ifaces: Sequence[IfaceInfo], streams: Streams) -> None:
        if kernel.SYSTEM.platform.name != "linux":
            raise MulticastExpertError(
                "On this system a scan would need the ports. Use a Linux host of the same network."
            )
        self._streams = streams
        self._names = {each.index: each.machine_name for each in ifaces}
        self._ignored = _ignored()
        self.missing: list[int] = []
        with ExitStack() as opened:
            self._selector = opened.enter_context(selectors.DefaultSelector())
            for port in sorted(set(ports)):
                for family in (socket.AF_INET, socket.AF_INET6):
                    sock: Any = _listener(family, port)
                    if sock is None:
                        self.missing.append(port)
                    else:
                        opened.enter_context(sock)
                        self._selector.register(sock, selectors.EVENT_READ, port)
            self._close = opened.pop_all().close

    def run(self, seconds: float) -> None:
        """Receive for so long, with a tick each second."""
        deadline = monotonic() + seconds
        next_tick = monotonic() + 1
        self._streams.tick(time())
        while (now := monotonic()) < deadline:
            for key, _ in self._selector.select(max(0.0, min(deadline, next_tick) - now)):
                self._take(key.fileobj, key.data)
            if monotonic() >= next_tick:
                next_tick += 1
                self._streams.tick(time())

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
                now = (arrival.timestamp_ns or time_ns()) / 1e9
                self._streams.take_payload(place, payload, sender[1], arrival.hop_limit, now)

    def unseen(self) -> int:
        """Return how many datagrams to groups came to ports without a socket, in this network namespace."""
        return _ignored() - self._ignored

    def close(self) -> None:
        """Close the sockets."""
        self._close()


def _listener(family: int, port: int) -> Any:
    platform = kernel.SYSTEM.platform
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        wanted = ("IP_PKTINFO", "IP_RECVTTL", "IP_MULTICAST_ALL")
        if family == socket.AF_INET6:
            wanted = ("IPV6_RECVPKTINFO", "IPV6_RECVHOPLIMIT", "IPV6_MULTICAST_ALL")
        for name in wanted:
            level, number = platform.options[name]
            with suppress(OSError):
                sock.setsockopt(level or 0, number, 1)
        sock.bind(("", port))
    except OSError:
        sock.close()
        return None
    return sock


def _ignored() -> int:
    """Return what the kernel counts as datagrams to groups that no socket took."""
    total = 0
    for path, start, column in _COUNTERS:
        with suppress(OSError, ValueError, IndexError):
            lines = [line.split() for line in path.read_text().splitlines() if line.startswith(start)]
            total += int(lines[1][lines[0].index(column)] if column else lines[0][1])
    return total
