"""What programs on a host do all the time: send datagrams, hold ports, join and never read. Opens sockets, a thread."""

from __future__ import annotations

import ipaddress
import itertools
import socket
import struct
import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Self

from multicast_expert.core.addresses import ethernet_address
from multicast_expert.testing.node import Node
from multicast_expert.wire.capture import frame_sender
from multicast_expert.wire.frames import ALL_HOSTS, ALL_NODES, igmp_query, mld_query, udp_packet

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class Traffic:
    """Datagrams that are sent again and again until `stop()`, or the end of its `with` block, or that of the lab."""

    def __init__(
        self,
        sender: socket.socket,
        send: Callable[[int], object],
        interval: float,
        pauses: tuple[float, float] | None = None,
    ) -> None:
        self.sent: int = 0
        """How many went out."""
        self.failed: int = 0
        """How many the kernel refused to send, as from an interface that is down."""
        self._sender = sender
        self._send = send
        self._interval = interval
        self._pauses = pauses
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lab-traffic", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        began = monotonic()
        for number in itertools.count():
            try:
                self._send(number)
            except OSError:
                self.failed += 1
            else:
                self.sent += 1
            if self._over.wait(self._until_next(monotonic() - began)):
                return

    def _until_next(self, elapsed: float) -> float:
        """Seconds to wait, so many seconds after the beginning."""
        if self._pauses is None:
            return self._interval
        sending, silent = self._pauses
        into = elapsed % (sending + silent)
        return self._interval if into < sending else sending + silent - into

    def stop(self) -> None:
        """Send no more; stopping again does nothing."""
        self._over.set()
        self._thread.join()
        self._sender.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()


def family_of(group: str) -> socket.AddressFamily:
    """Whether the group is one of IPv4 or of IPv6."""
    return socket.AF_INET6 if ipaddress.ip_address(group).version == 6 else socket.AF_INET


def send_datagrams(
    node: Node,
    group: str,
    port: int,
    interface: str | None,
    *,
    source: str | None,
    size: int,
    hop_limit: int,
    loop: bool,
    interval: float,
    pauses: tuple[float, float] | None,
) -> Traffic:
    """Send by a socket, as any program does."""
    family = family_of(group)
    with node.entered():
        index = 0 if interface is None else socket.if_nametoindex(interface)  # 0: the routing table is to choose
        sender = socket.socket(family, socket.SOCK_DGRAM)
    if family == socket.AF_INET6:
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hop_limit)
        sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(loop))
    else:
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index))
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hop_limit)
        sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(loop))
    if source:
        sender.bind((source, 0))
    scope = (0, index) if ipaddress.ip_address(group).is_link_local else ()  # the kernel ignores one for other groups

    def send(number: int) -> None:
        sender.sendto(_payload(number, size), (group, port, *scope))

    return Traffic(sender, send, interval, pauses)


def forge_datagrams(
    node: Node,
    group: str,
    port: int,
    interface: str,
    *,
    source: str,
    size: int,
    hop_limit: int,
    wrong_checksum: bool,
    only_first_fragment: bool,
    station: str | None,
    interval: float,
) -> Traffic:
    """Put packets on the wire as they are, past everything that the kernel would put right."""
    protocol = ETH_P_IPV6 if ":" in group else ETH_P_IP
    with node.entered():
        sender = frame_sender()
    only_first = size // 2 // 8 * 8 if only_first_fragment else None
    destination = _ethernet(station or ethernet_address(ipaddress.ip_address(group)))

    def send(number: int) -> None:
        packet = udp_packet(
            (source, 4000),
            (group, port),
            _payload(number, size),
            hop_limit=hop_limit,
            wrong_checksum=wrong_checksum,
            only_first=only_first,
            identity=number % 0x10000,
        )
        sender.sendto(packet, (interface, protocol, 0, 0, destination))

    return Traffic(sender, send, interval)


def _ethernet(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def _payload(number: int, size: int) -> bytes:
    return f"datagram {number} ".encode().ljust(size, b".")[:size]


def send_queries(node: Node, interface: str, source: str, source6: str, response: float) -> None:
    """Ask once, by IGMPv3 and MLDv2, who has joined what; hosts have `response` seconds to answer."""
    igmp = igmp_query(source, max(1, round(response * 10)))
    mld = mld_query(source6, round(response * 1000))
    with node.entered(), frame_sender() as sender:
        sender.sendto(igmp, (interface, ETH_P_IP, 0, 0, _ethernet(ethernet_address(ipaddress.ip_address(ALL_HOSTS)))))
        sender.sendto(mld, (interface, ETH_P_IPV6, 0, 0, _ethernet(ethernet_address(ipaddress.ip_address(ALL_NODES)))))


def hold_port(node: Node, family: socket.AddressFamily, port: int) -> socket.socket:
    """Bind without sharing, as a program that was not written for multicast."""
    with node.entered():
        holder = socket.socket(family, socket.SOCK_DGRAM)
    holder.bind((ANY[family], port))
    return holder


def join(node: Node, group: str, port: int, interface: str, buffer: int | None) -> socket.socket:
    """Join as a program does that lets others share its port; `buffer` is the size of its receive buffer in bytes."""
    family = family_of(group)
    with node.entered():
        index = socket.if_nametoindex(interface)
        member = socket.socket(family, socket.SOCK_DGRAM)
    member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if buffer is not None:
        member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    packed = ipaddress.ip_address(group).packed
    if family == socket.AF_INET6:
        member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16sI", packed, index))
    else:
        member.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", packed, bytes(4), index))
    member.bind((ANY[family], port))
    return member
