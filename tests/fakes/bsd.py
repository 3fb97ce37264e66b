"""What macOS and FreeBSD share: errors, port sharing, sender-side loopback, and rows of their option tables. Pure.

Sources: the kernels' in_mcast.c, in6_mcast.c, in_pcb.c, udp_usrreq.c, ip_output.c. Assumed: no route to a group is
ENETUNREACH, a down interface ENETDOWN, an outgoing interface without IFF_MULTICAST EADDRNOTAVAIL; delivery visits the
newest socket first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from ipaddress import IPv4Address
from struct import pack
from typing import ClassVar

from . import options
from .kernel import FakeKernel, is_scoped
from .layouts import Layout, integer, ip_mreq_source, ip_mreqn, ipv6_mreq
from .network import Address, FakeInterface, Packet
from .options import MembershipCall, Option, Table, flag, number, unbound_flag
from .sockets import Arrival, FakeSocket

IP, IPV6, SOL_SOCKET = 0, 41, 0xFFFF

ERRORS = {
    "EBADF": 9,
    "ENXIO": 6,
    "EINVAL": 22,
    "EAGAIN": 35,
    "EMSGSIZE": 40,
    "ENOPROTOOPT": 42,
    "EPROTONOSUPPORT": 43,
    "EAFNOSUPPORT": 47,
    "EADDRINUSE": 48,
    "EADDRNOTAVAIL": 49,
    "ENETDOWN": 50,
    "ENETUNREACH": 51,
    "ENOBUFS": 55,
    "EHOSTUNREACH": 65,
}


class BsdSocket(FakeSocket):
    """Has sendmsg."""

    def sendmsg(
        self, buffers: Iterable[bytes], ancdata: Iterable = (), flags: int = 0, address: tuple | None = None
    ) -> int:
        """Send one datagram gathered from buffers; the fake knows no control data and no flags here."""
        buffers, ancdata = list(buffers), list(ancdata)
        self._enter("sendmsg", buffers, ancdata, flags, address)
        if ancdata or flags or address is None:
            raise AssertionError("a fake sendmsg takes buffers and an address only")
        return self.kernel.send(self, b"".join(buffers), *self.kernel.endpoint(self, address))


def buffer_size(name: str, key: str, limit: int) -> Option:
    """SO_SNDBUF or SO_RCVBUF: a size over kern.ipc.maxsockbuf is ENOBUFS and changes nothing."""
    plain = number(name, key, 1, 2**31 - 1)

    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        if integer(value) > limit:
            raise kernel.error("ENOBUFS", f"{name} is at most {limit}")
        plain.apply(kernel, sock, value)

    return plain._replace(apply=apply)


def group_requests(level: int, layout: Layout) -> Table:
    """MCAST_JOIN_GROUP to MCAST_UNBLOCK_SOURCE, 80 to 85."""

    def row(name: str, size: int, action: MembershipCall) -> Option:
        def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
            index, group, source = layout.group_request(value, sock.version)
            action(kernel, sock, group, kernel.interface(index), source)

        return Option(name, (size,), apply)

    one, two = layout.group_req, layout.group_source_req
    return {
        (level, 80): row("MCAST_JOIN_GROUP", one, options.join),
        (level, 81): row("MCAST_LEAVE_GROUP", one, options.leave),
        (level, 82): row("MCAST_JOIN_SOURCE_GROUP", two, options.join),
        (level, 83): row("MCAST_LEAVE_SOURCE_GROUP", two, options.leave),
        (level, 84): row("MCAST_BLOCK_SOURCE", two, options.block),
        (level, 85): row("MCAST_UNBLOCK_SOURCE", two, options.unblock),
    }


def source_requests(find: Callable[[FakeKernel, IPv4Address], FakeInterface | None]) -> Table:
    """IP_ADD_SOURCE_MEMBERSHIP to IP_UNBLOCK_SOURCE, 70 to 73; ``find`` reads imr_interface, None being 0.0.0.0."""

    def row(name: str, action: MembershipCall) -> Option:
        def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
            group, source, address = ip_mreq_source(value)
            action(kernel, sock, group, find(kernel, address), source)

        return Option(name, (12,), apply)

    return {
        (IP, 70): row("IP_ADD_SOURCE_MEMBERSHIP", options.join),
        (IP, 71): row("IP_DROP_SOURCE_MEMBERSHIP", options.leave),
        (IP, 72): row("IP_BLOCK_SOURCE", options.block),
        (IP, 73): row("IP_UNBLOCK_SOURCE", options.unblock),
    }


def set_multicast_interface(kernel: FakeKernel, sock: FakeSocket, interface: FakeInterface | None) -> None:
    """Keep the outgoing interface; None goes back to the routing table."""
    if interface is not None and not interface.multicast:
        raise kernel.error("EADDRNOTAVAIL", f"{interface.name} has no IFF_MULTICAST")
    sock.options["multicast_interface"] = interface.index if interface else 0


def multicast_interface4(find: Callable[[FakeKernel, IPv4Address], FakeInterface | None]) -> Option:
    """IP_MULTICAST_IF: twelve bytes are an ip_mreqn and its index counts, four an address; reads back as an address."""

    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        if len(value) == 12:
            index = ip_mreqn(value)[2]
            interface = kernel.interface(index) if index else None
        else:
            interface = find(kernel, IPv4Address(value))
        set_multicast_interface(kernel, sock, interface)

    def read(kernel: FakeKernel, sock: FakeSocket) -> bytes:
        index = sock.option("multicast_interface")
        addresses = kernel.interface(index).addresses(4) if index else []
        return addresses[0].packed if addresses else bytes(4)

    return Option("IP_MULTICAST_IF", (4, 12), apply, read)


def _multicast_interface6(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    index = integer(value)
    if index and kernel.host.interface(index) is None:
        raise kernel.error("EINVAL", f"no interface has index {index}")
    set_multicast_interface(kernel, sock, kernel.interface(index) if index else None)


def _leave6(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    group, index = ipv6_mreq(value)
    options.leave(kernel, sock, group, kernel.interface(index) if index else None)


def common_options(layout: Layout, maximum_buffer: int, join6: options.Apply) -> Table:
    """The rows with the same number and meaning on both."""
    return {
        (SOL_SOCKET, 0x0004): flag("SO_REUSEADDR", "reuse_address", reads_as=0x4),
        (SOL_SOCKET, 0x0020): flag("SO_BROADCAST", "broadcast", reads_as=0x20),
        (SOL_SOCKET, 0x0200): flag("SO_REUSEPORT", "reuse_port", reads_as=0x200),
        (SOL_SOCKET, 0x0400): flag("SO_TIMESTAMP", "timestamp", reads_as=0x400),
        (SOL_SOCKET, 0x1001): buffer_size("SO_SNDBUF", "send_buffer", maximum_buffer),
        (SOL_SOCKET, 0x1002): buffer_size("SO_RCVBUF", "receive_buffer", maximum_buffer),
        (IP, 3): number("IP_TOS", "traffic_class", 0, 255),
        (IP, 4): number("IP_TTL", "unicast_hops", 1, 255),
        (IP, 7): flag("IP_RECVDSTADDR", "receive_destination"),
        (IP, 10): number("IP_MULTICAST_TTL", "multicast_hops", 0, 255, lengths=(1, 4)),
        (IP, 11): flag("IP_MULTICAST_LOOP", "multicast_loop", lengths=(1, 4)),
        (IP, 20): flag("IP_RECVIF", "receive_interface"),
        (IPV6, 4): number("IPV6_UNICAST_HOPS", "unicast_hops", -1, 255),
        (IPV6, 9): Option("IPV6_MULTICAST_IF", (4,), _multicast_interface6, options.read_multicast_interface),
        (IPV6, 10): number("IPV6_MULTICAST_HOPS", "multicast_hops", -1, 255),
        (IPV6, 11): number("IPV6_MULTICAST_LOOP", "multicast_loop", 0, 1),
        (IPV6, 12): Option("IPV6_JOIN_GROUP", (20,), join6),
        (IPV6, 13): Option("IPV6_LEAVE_GROUP", (20,), _leave6),
        (IPV6, 27): unbound_flag("IPV6_V6ONLY", "v6_only"),
        (IPV6, 37): flag("IPV6_RECVHOPLIMIT", "receive_hop_limit"),
        **group_requests(IP, layout),
        **group_requests(IPV6, layout),
    }


def in6_pktinfo(arrival: Arrival) -> bytes:
    """Destination and interface index."""
    return pack("=16sI", arrival.packet.destination.packed, arrival.interface.index)


class BsdKernel(FakeKernel):
    """Rules that macOS and FreeBSD have in common."""

    ERRORS: ClassVar = ERRORS
    ERROR_KINDS: ClassVar = {35: BlockingIOError}
    MSG_CTRUNC = 0x20
    SOCKET = BsdSocket

    def wrong_length(self, option: Option, length: int) -> OSError:
        """sooptcopyin() knows EINVAL; longer values, which real kernels cut, are refused so that they show."""
        return self.error("EINVAL", f"{option.name} takes {option.lengths} bytes, not {length}")

    def check_join(self, sock: FakeSocket, interface: FakeInterface, group: Address) -> None:
        """A join needs IFF_MULTICAST."""
        if not interface.multicast:
            raise self.error("EADDRNOTAVAIL", f"{interface.name} has no IFF_MULTICAST")

    def check_port_free(self, sock: FakeSocket, address: Address, port: int) -> None:
        """in_pcbbind(): the same address needs a common sharing option; SO_REUSEADDR is one for groups only.

        A socket without any sharing option is also refused by an overlap with the wildcard address.
        """
        shares: tuple[str, ...] = ("reuse_port",) if sock.option("reuse_port") else ()
        if address.is_multicast and sock.option("reuse_address"):
            shares = ("reuse_address", "reuse_port")
        for other in self.open_sockets():
            if other is sock or other.version != sock.version or other.port != port:
                continue
            overlap = other.address.is_unspecified or address.is_unspecified
            clash = other.address == address or (overlap and not sock.reusable())
            if clash and not other.reusable(shares):
                raise self.error("EADDRINUSE", f"{other!r} has port {port}")

    def loop_back(self, sock: FakeSocket, interface: FakeInterface, packet: Packet) -> None:
        """The sender's option decides, on a loopback interface too: nothing else brings the datagram back."""
        if sock.option("multicast_loop"):
            self.receive(interface, packet, looped=True)

    def outgoing(self, sock: FakeSocket, group: Address, scope: int) -> FakeInterface:
        """A scoped IPv6 group goes nowhere without an interface or scope of its own."""
        if is_scoped(group) and not scope and not sock.option("multicast_interface"):
            raise self.error("EHOSTUNREACH", f"{group} needs a scope")
        return super().outgoing(sock, group, scope)

    def largest_datagram(self, sock: FakeSocket) -> int:
        """The send buffer is a limit: net.inet.udp.maxdgram (9216) unless SO_SNDBUF says more."""
        return min(super().largest_datagram(sock), sock.option("send_buffer"))

    def group_takers(
        self, sockets: list[FakeSocket], interface: FakeInterface, packet: Packet, looped: bool
    ) -> list[FakeSocket]:
        """udp_input(): each socket that passes, ending with the first one that has no sharing option."""
        takers = []
        for sock in reversed(sockets):
            if self.passes(sock, interface, packet):
                takers.append(sock)
                if not sock.reusable():
                    break
        return takers

    def passes(self, sock: FakeSocket, interface: FakeInterface, packet: Packet) -> bool:
        """IPv4 compares the bound address, IPv6 does not; without multicast options IPv6 sockets are not filtered."""
        if sock.version == 4 and sock.address not in (IPv4Address(0), packet.destination):
            return False
        if not sock.has_multicast_options and self.unfiltered(sock):
            return True
        return self.joined(sock, interface, packet)

    def unfiltered(self, sock: FakeSocket) -> bool:
        """Whether a socket without any multicast option gets every group that the host takes in."""
        return sock.version == 6

    def cut(self, data: bytes, size: int) -> int:
        """MSG_TRUNC."""
        return 0x10
