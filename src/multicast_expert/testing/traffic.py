"""Programs on a host of the lab: they send datagrams, hold ports, join and never read. Opens sockets and threads.

Their functions are methods of Host. A program runs until it is ended, or until the lab's exit.
"""

from __future__ import annotations

import contextlib
import ipaddress
import itertools
import socket
import struct
import threading
from collections.abc import Callable
from time import monotonic
from types import TracebackType
from typing import Literal, Self

from multicast_expert.core.addresses import ethernet_address
from multicast_expert.testing.interface import Interface
from multicast_expert.testing.node import Node
from multicast_expert.wire.frames import udp_packet
from multicast_expert.wire.group_messages import ALL_HOSTS, ALL_NODES, GroupMessage, GroupQuery, build_group_message
from multicast_expert.wire.packet_socket import frame_sender

ETH_P_IP, ETH_P_IPV6 = 0x0800, 0x86DD
ANY = {socket.AF_INET: "0.0.0.0", socket.AF_INET6: "::"}


class Traffic:
    """Datagrams that a thread sends until `stop()`, or the end of its `with` block, or that of the lab."""

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
        """How many the kernel rejected, as from an interface that is down."""
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
        """Return the seconds to the next datagram, `elapsed` seconds after the first."""
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
    """Return the address family of the group."""
    return socket.AF_INET6 if ipaddress.ip_address(group).version == 6 else socket.AF_INET


def _ethernet(address: str) -> bytes:
    return bytes.fromhex(address.replace(":", ""))


def _payload(number: int, size: int) -> bytes:
    return f"datagram {number} ".encode().ljust(size, b".")[:size]


def send_queries(node: Node, interface: str, source: str, source6: str, response: float) -> None:
    """Send one IGMPv3 and one MLDv2 general query; hosts have `response` seconds to answer."""
    igmp = build_group_message(GroupMessage(source, GroupQuery(3, None, (), max(0.1, response), interval=125.0)))
    mld = build_group_message(GroupMessage(source6, GroupQuery(2, None, (), response, interval=125.0)))
    with node.entered(), frame_sender() as sender:
        sender.sendto(igmp, (interface, ETH_P_IP, 0, 0, _ethernet(ethernet_address(ipaddress.ip_address(ALL_HOSTS)))))
        sender.sendto(mld, (interface, ETH_P_IPV6, 0, 0, _ethernet(ethernet_address(ipaddress.ip_address(ALL_NODES)))))


class Stage(Node):
    """A node that programs run on: each ends with it, or when it is told to."""

    def __init__(self, name: str, *, dad: bool = False) -> None:
        super().__init__(name, dad=dad)
        self.programs: contextlib.ExitStack = contextlib.ExitStack()
        """Ends them with the node."""

    def name_of(self, interface: Interface | str) -> str:
        """Return the name of an interface of this node."""
        return interface if isinstance(interface, str) else interface.name

    def close(self) -> None:
        """End the programs and processes of this node and give its network up."""
        try:
            self.programs.close()
        finally:
            super().close()

    def send_datagrams(
        self,
        group: str,
        port: int,
        *,
        interface: Interface | str | None,
        source: str | None = None,
        size: int = 100,
        hop_limit: int = 1,
        loop: bool = False,
        interval: float = 0.02,
        pauses: tuple[float, float] | None = None,
    ) -> Traffic:
        """Let a program send a datagram of `size` bytes every `interval` seconds; `source` is an address of the host.

        With `interface=None` the program names none, so that the routing table chooses, or refuses. `pauses` are the
        seconds for which it sends and those for which it is then silent, again and again.
        """
        family = family_of(group)
        with self.entered():
            index = 0 if interface is None else socket.if_nametoindex(self.name_of(interface))
            sender = socket.socket(family, socket.SOCK_DGRAM)
        if family == socket.AF_INET6:
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, index)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, hop_limit)
            sender.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_LOOP, int(loop))
        else:
            sender.setsockopt(
                socket.IPPROTO_IP, socket.IP_MULTICAST_IF, struct.pack("=4s4si", bytes(4), bytes(4), index)
            )
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, hop_limit)
            sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, int(loop))
        if source:
            sender.bind((source, 0))
        scope = (
            (0, index) if ipaddress.ip_address(group).is_link_local else ()
        )  # the kernel ignores one for other groups

        def send(number: int) -> None:
            sender.sendto(_payload(number, size), (group, port, *scope))

        return self.programs.enter_context(Traffic(sender, send, interval, pauses))

    def forge_datagrams(
        self,
        group: str,
        port: int,
        *,
        interface: Interface | str,
        source: str,
        size: int = 100,
        hop_limit: int = 1,
        wrong_checksum: bool = False,
        only_first_fragment: bool = False,
        station: str | None = None,
        interval: float = 0.02,
    ) -> Traffic:
        """Put packets on the wire that no program can send: from any address, with a wrong checksum, or never complete.

        `station` is the Ethernet address that they go to instead of the group's, such as "02:00:00:00:00:99".
        """
        name = self.name_of(interface)
        protocol = ETH_P_IPV6 if ":" in group else ETH_P_IP
        with self.entered():
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
            sender.sendto(packet, (name, protocol, 0, 0, destination))

        return self.programs.enter_context(Traffic(sender, send, interval))

    def hold_port(self, port: int, *, version: Literal[4, 6] = 4) -> socket.socket:
        """Let a program hold a port without sharing it; close the returned socket to end it."""
        family = socket.AF_INET if version == 4 else socket.AF_INET6
        with self.entered():
            holder = self.programs.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        holder.bind((ANY[family], port))
        return holder

    def join_and_never_read(
        self, group: str, port: int, *, interface: Interface | str, buffer: int | None = None
    ) -> socket.socket:
        """Let a program join, share its port and never read; `buffer` is its receive buffer in bytes.

        Close the returned socket to end it.
        """
        family = family_of(group)
        with self.entered():
            index = socket.if_nametoindex(self.name_of(interface))
            member = self.programs.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        member.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if buffer is not None:
            member.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        packed = ipaddress.ip_address(group).packed
        if family == socket.AF_INET6:
            member.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, struct.pack("=16sI", packed, index))
        else:
            member.setsockopt(
                socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, struct.pack("=4s4si", packed, bytes(4), index)
            )
        member.bind((ANY[family], port))
        return member
