"""A strict Winsock multicast layer (Windows 10 x64). Pure.

Sources: ws2ipdef.h, ws2def.h, mswsock.h; learn.microsoft.com on IP_MULTICAST_LOOP, ip_mreq_source, SO_EXCLUSIVEADDRUSE
and recvfrom. Assumed: a double join is 10048 as under Wine, other misuse of memberships 10022 or 10049; a value that is
too short is 10014, too long 10022; IP_TOS and IPV6_TCLASS are taken and ignored; a bound address does not choose the
outgoing interface; an interface that is down is 10051 to send on.
"""

from __future__ import annotations

from ipaddress import IPv4Address
from struct import pack
from typing import ClassVar

from . import options
from .kernel import FakeKernel
from .layouts import Layout, integer, ip_mreq, ip_mreq_source, ipv6_mreq
from .network import Address, FakeInterface, FakeNetwork, Packet
from .options import MembershipCall, Option, Table, flag, number, unbound_flag
from .rules import Control
from .sockets import FakeSocket

IP, IPV6, SOL_SOCKET = 0, 41, 0xFFFF
IP_TTL, IP_HOPLIMIT = 4, 21
NEW = "MCAST_", "IP_RECVTOS", "IPV6_RECVTCLASS"
SIO_UDP_CONNRESET = 0x9800000C
SIO_UDP_NETRESET = 0x9800000F
LAYOUT = Layout(group_offset=8, length_byte=False, af_inet6=23)


class WindowsSocket(FakeSocket):
    """Has WSAIoctl; has no sendmsg."""

    def ioctl_bytes(self, code: int, value: bytes) -> None:
        """WSAIoctl with an input of these bytes: whether ICMP errors come back as 10054 and 10052."""
        self._enter("ioctl_bytes", code, value)
        names = {SIO_UDP_CONNRESET: "report_port_unreachable", SIO_UDP_NETRESET: "report_time_exceeded"}
        if code not in names:
            raise self.kernel.error("EOPNOTSUPP", f"control code {code:#x}")
        if len(value) != 4:
            raise self.kernel.error("EFAULT", "a BOOL has four bytes")
        self.options[names[code]] = int(any(value))


def _find(kernel: FakeKernel, address: IPv4Address) -> FakeInterface | None:
    """An interface address, 0.x.x.x for an index in network order, None for 0.0.0.0."""
    if int(address) >> 24 == 0:
        return kernel.interface(int(address)) if int(address) else None
    return kernel.owner(address)


def _classic(name: str, action: MembershipCall) -> Option:
    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        group, address = ip_mreq(value)
        action(kernel, sock, group, _find(kernel, address))

    return Option(name, (8,), apply)


def _classic_source(name: str, action: MembershipCall) -> Option:
    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        group, source, address = ip_mreq_source(value)
        action(kernel, sock, group, _find(kernel, address), source)

    return Option(name, (12,), apply)


def _classic6(name: str, action: MembershipCall) -> Option:
    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        group, index = ipv6_mreq(value)
        action(kernel, sock, group, kernel.interface(index) if index else None)

    return Option(name, (20,), apply)


def _by_index(name: str, size: int, action: MembershipCall) -> Option:
    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        index, group, source = LAYOUT.group_request(value, sock.version)
        action(kernel, sock, group, kernel.interface(index) if index else None, source)

    return Option(name, (size,), apply)


def _group_requests(level: int) -> Table:
    one, two = LAYOUT.group_req, LAYOUT.group_source_req
    return {
        (level, 41): _by_index("MCAST_JOIN_GROUP", one, options.join),
        (level, 42): _by_index("MCAST_LEAVE_GROUP", one, options.leave),
        (level, 43): _by_index("MCAST_BLOCK_SOURCE", two, options.block),
        (level, 44): _by_index("MCAST_UNBLOCK_SOURCE", two, options.unblock),
        (level, 45): _by_index("MCAST_JOIN_SOURCE_GROUP", two, options.join),
        (level, 46): _by_index("MCAST_LEAVE_SOURCE_GROUP", two, options.leave),
    }


def _multicast_interface4(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    interface = _find(kernel, IPv4Address(value))
    sock.options["multicast_interface"] = interface.index if interface else 0


def _multicast_interface6(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
    index = integer(value)
    sock.options["multicast_interface"] = kernel.interface(index).index if index else 0


def _exclusive(name: str, key: str, other: str) -> Option:
    """SO_REUSEADDR and SO_EXCLUSIVEADDRUSE refuse each other."""
    plain = flag(name, key)

    def apply(kernel: FakeKernel, sock: FakeSocket, value: bytes) -> None:
        if any(value) and sock.option(other):
            raise kernel.error("EINVAL", f"{name} beside {other}")
        plain.apply(kernel, sock, value)

    return plain._replace(apply=apply)


class FakeWindows(FakeKernel):
    """Windows. ``legacy``: an old stack, which lacks what is NEW, and labels the hop limit IP_HOPLIMIT."""

    AF_INET6 = 23
    ERRORS: ClassVar = {
        "EACCES": 10013,
        "EFAULT": 10014,
        "EINVAL": 10022,
        "EAGAIN": 10035,
        "EBADF": 10038,  # WSAENOTSOCK
        "EMSGSIZE": 10040,
        "ENOPROTOOPT": 10042,
        "EPROTONOSUPPORT": 10043,
        "EOPNOTSUPP": 10045,
        "EAFNOSUPPORT": 10047,
        "EADDRINUSE": 10048,
        "EADDRNOTAVAIL": 10049,
        "ENXIO": 10049,
        "ENETDOWN": 10051,
        "ENETUNREACH": 10051,
        "ENETRESET": 10052,
        "ECONNRESET": 10054,
    }
    ERROR_KINDS: ClassVar = {10013: PermissionError, 10035: BlockingIOError, 10054: ConnectionResetError}
    MSG_CTRUNC = 0x200
    CONTROL_HEADER = 16
    CONTROL_ALIGNMENT = 8
    SOCKET = WindowsSocket
    DEFAULTS: ClassVar = {
        "unicast_hops": 128,
        "multicast_hops": 1,
        "multicast_loop": 1,
        "send_buffer": 65536,
        "receive_buffer": 65536,
        "v6_only": 1,
        "report_port_unreachable": 1,
        "report_time_exceeded": 1,
    }
    OPTIONS: ClassVar = {
        (SOL_SOCKET, 0x0004): _exclusive("SO_REUSEADDR", "reuse_address", "exclusive"),
        (SOL_SOCKET, -5): _exclusive("SO_EXCLUSIVEADDRUSE", "exclusive", "reuse_address"),
        (SOL_SOCKET, 0x0020): flag("SO_BROADCAST", "broadcast"),
        (SOL_SOCKET, 0x1001): number("SO_SNDBUF", "send_buffer", 0, 2**31 - 1),
        (SOL_SOCKET, 0x1002): number("SO_RCVBUF", "receive_buffer", 0, 2**31 - 1),
        (SOL_SOCKET, 0x3008): flag("SO_REUSE_MULTICASTPORT", "reuse_multicast_port"),
        (IP, 3): number("IP_TOS", "ignored_type_of_service", 0, 255),
        (IP, 4): number("IP_TTL", "unicast_hops", 1, 255),
        (IP, 9): Option("IP_MULTICAST_IF", (4,), _multicast_interface4),
        (IP, 10): number("IP_MULTICAST_TTL", "multicast_hops", 0, 255),
        (IP, 11): flag("IP_MULTICAST_LOOP", "multicast_loop"),
        (IP, 12): _classic("IP_ADD_MEMBERSHIP", options.join),
        (IP, 13): _classic("IP_DROP_MEMBERSHIP", options.leave),
        (IP, 15): _classic_source("IP_ADD_SOURCE_MEMBERSHIP", options.join),
        (IP, 16): _classic_source("IP_DROP_SOURCE_MEMBERSHIP", options.leave),
        (IP, 17): _classic_source("IP_BLOCK_SOURCE", options.block),
        (IP, 18): _classic_source("IP_UNBLOCK_SOURCE", options.unblock),
        (IP, 19): flag("IP_PKTINFO", "receive_packet_info"),
        (IP, 21): flag("IP_HOPLIMIT", "receive_hop_limit"),
        (IP, 40): flag("IP_RECVTOS", "receive_traffic_class"),
        (IPV6, 40): flag("IPV6_RECVTCLASS", "receive_traffic_class"),
        (IPV6, 4): number("IPV6_UNICAST_HOPS", "unicast_hops", -1, 255),
        (IPV6, 9): Option("IPV6_MULTICAST_IF", (4,), _multicast_interface6, options.read_multicast_interface),
        (IPV6, 10): number("IPV6_MULTICAST_HOPS", "multicast_hops", -1, 255),
        (IPV6, 11): flag("IPV6_MULTICAST_LOOP", "multicast_loop"),
        (IPV6, 12): _classic6("IPV6_JOIN_GROUP", options.join),
        (IPV6, 13): _classic6("IPV6_LEAVE_GROUP", options.leave),
        (IPV6, 19): flag("IPV6_PKTINFO", "receive_packet_info"),
        (IPV6, 21): flag("IPV6_HOPLIMIT", "receive_hop_limit"),
        (IPV6, 27): unbound_flag("IPV6_V6ONLY", "v6_only"),
        (IPV6, 39): number("IPV6_TCLASS", "ignored_type_of_service", 0, 255),
        **_group_requests(IP),
        **_group_requests(IPV6),
    }
    CONTROL = (
        Control(
            4, "receive_packet_info", IP, 19, lambda a: pack("=4sI", a.packet.destination.packed, a.interface.index)
        ),
        Control(4, "receive_hop_limit", IP, IP_TTL, lambda a: pack("=i", a.packet.hop_limit)),
        Control(
            6, "receive_packet_info", IPV6, 19, lambda a: pack("=16sI", a.packet.destination.packed, a.interface.index)
        ),
        Control(6, "receive_hop_limit", IPV6, 21, lambda a: pack("=i", a.packet.hop_limit)),
        Control(4, "receive_traffic_class", IP, 3, lambda a: pack("=i", a.packet.traffic_class)),
        Control(6, "receive_traffic_class", IPV6, 39, lambda a: pack("=i", a.packet.traffic_class)),
    )

    def __init__(self, network: FakeNetwork, host: str, *, legacy: bool = False) -> None:
        super().__init__(network, host)
        if legacy:
            self.options = {key: row for key, row in self.options.items() if not row.name.startswith(NEW)}
            self.CONTROL = tuple(  # type: ignore[misc]  # of this kernel only
                row._replace(type=IP_HOPLIMIT) if (row.version, row.type) == (4, IP_TTL) else row
                for row in self.CONTROL
            )

    def time_exceeded(self, sock: FakeSocket) -> None:
        """A router reported that something this socket sent ran out of hops."""
        if sock.option("report_time_exceeded"):
            sock.enqueue(self.error("ENETRESET", "time to live exceeded"))

    def os_error(self, number: int, text: str) -> OSError:
        """Python's OSError on Windows carries the Winsock number twice."""
        error = super().os_error(number, text)
        error.winerror = number  # type: ignore[attr-defined, unused-ignore]  # an attribute on Windows only
        return error

    def wrong_length(self, option: Option, length: int) -> OSError:
        """Too short is WSAEFAULT."""
        kind = "EFAULT" if length < min(option.lengths) else "EINVAL"
        return self.error(kind, f"{option.name} takes {option.lengths} bytes, not {length}")

    def check_join(self, sock: FakeSocket, interface: FakeInterface, group: Address) -> None:
        """The adapter must work, have more than an automatic (APIPA) address, and be the one the socket is bound to."""
        automatic = group.version == 4 and all(one.is_link_local for one in interface.addresses(4))
        if not interface.up or not interface.multicast or automatic:
            raise self.error("EADDRNOTAVAIL", f"{interface.name} is down or has no configured address")
        if not sock.address.is_unspecified and sock.address not in interface.addresses(sock.version):
            raise self.error("EINVAL", f"bound to {sock.address}, which is not on {interface.name}")

    def check_group_bind(self, group: Address) -> None:
        """Winsock binds addresses of its own host only."""
        raise self.error("EADDRNOTAVAIL", f"{group} is a group")

    def check_port_free(self, sock: FakeSocket, address: Address, port: int) -> None:
        """Microsoft's table of SO_REUSEADDR and SO_EXCLUSIVEADDRUSE: the newcomer's SO_REUSEADDR shares or steals."""
        for other in self.open_sockets():
            if other is sock or other.version != sock.version or other.port != port:
                continue
            same = other.address == address
            alone = other.option("exclusive") and (same or other.address.is_unspecified)
            if alone and (sock.option("reuse_address") or not same):
                raise self.error("EACCES", f"{other!r} has port {port} to itself")
            if same and not sock.option("reuse_address"):
                raise self.error("EADDRINUSE", f"{other!r} has port {port}")

    def check_group_send(self, sock: FakeSocket, interface: FakeInterface, packet: Packet) -> None:
        """On the loopback interface a group that nobody joined there is unreachable."""
        if interface.loopback and not any(
            (packet.destination, interface.index) in other.memberships for other in self.open_sockets()
        ):
            raise self.error("ENETUNREACH", f"nobody joined {packet.destination} on {interface.name}")

    def loop_back(self, sock: FakeSocket, interface: FakeInterface, packet: Packet) -> None:
        """Always: the option acts where the copy is received."""
        self.receive(interface, packet, looped=True)

    def group_takers(
        self, sockets: list[FakeSocket], interface: FakeInterface, packet: Packet, looped: bool
    ) -> list[FakeSocket]:
        """Members, bound to any address or one of this interface; what the host sent, only with their LOOP on."""
        here = interface.addresses(packet.source.version)
        return [
            sock
            for sock in sockets
            if self.joined(sock, interface, packet)
            and (sock.address.is_unspecified or sock.address in here)
            and (sock.option("multicast_loop") or not looped)
        ]

    def unicast_sent(self, sock: FakeSocket, taken: int | None) -> None:
        """The port is closed: the next receive fails, unless SIO_UDP_CONNRESET was switched off."""
        if taken == 0 and sock.option("report_port_unreachable"):
            sock.enqueue(self.error("ECONNRESET", "port unreachable"))

    def check_name_known(self, sock: FakeSocket) -> None:
        """An unbound socket has no name."""
        if not sock.port:
            raise self.error("EINVAL", "not bound")

    def check_readable(self, sock: FakeSocket, flags: int) -> None:
        """Nor can it be read."""
        super().check_readable(sock, flags)
        if not sock.port:
            raise self.error("EINVAL", "not bound")

    def cut(self, data: bytes, size: int) -> int:
        """An error; the datagram is gone."""
        raise self.error("EMSGSIZE", f"{len(data)} bytes for a buffer of {size}")
