"""What the fake kernels have in common: sockets, addressing, options, sending and delivery.

An OS is a subclass, see rules.py for what it says. Not modelled: broadcast, IPv4 traffic on dual-stack IPv6 sockets,
connect, fragmentation.
"""

from __future__ import annotations

import itertools
import re
import socket as host_socket
import weakref
from ipaddress import ip_address

from .layouts import LayoutError
from .network import Address, FakeInterface, FakeNetwork, Packet, Sent
from .options import Option
from .rules import MSG_PEEK, Rules
from .sockets import ANY, Arrival, FakeSocket

ALL_NODES = frozenset(ip_address(group) for group in ("224.0.0.1", "ff01::1", "ff02::1"))  # every host is a member
MULTICAST_OPTION = re.compile("MULTICAST|MCAST|MEMBERSHIP|GROUP|SOURCE")


def is_scoped(address: Address) -> bool:
    """Whether an IPv6 address means something only together with an interface (RFC 4007: ff01, ff02, fe80)."""
    if address.version == 4:
        return False
    return address.packed[1] & 0x0F in (1, 2) if address.is_multicast else address.is_link_local


class FakeKernel(Rules):
    """One host's network stack. ``wire`` is what left it, ``calls`` what its program asked for, in order."""

    def __init__(self, network: FakeNetwork, host: str) -> None:
        super().__init__()
        self.network = network
        self.host = network.hosts[host]
        if self.host.kernel is not None:
            raise ValueError(f"host {host!r} runs a kernel already")
        self.host.kernel = self
        self.options = dict(self.OPTIONS)
        self.wire: list[Sent] = []
        self.other_programs: set[tuple[Address, int]] = set()
        self._sockets: dict[int, weakref.ref[FakeSocket]] = {}
        self._serial = itertools.count()
        self._ephemeral = itertools.count(49152)

    # what tests ask

    def open_sockets(self) -> list[FakeSocket]:
        """Every socket that is not closed, oldest first."""
        return [sock for reference in list(self._sockets.values()) if (sock := reference()) is not None]

    def other_program_joins(self, group: str, index: int) -> None:
        """Another program of this host is a member: the host takes the group in, whoever then gets it."""
        self.other_programs.add((ip_address(group), index))

    # sockets

    def socket(self, family: int, type: int, proto: int = 0) -> FakeSocket:
        """A UDP socket; families by this OS's numbers."""
        try:
            self.check_injected("socket", (family, type, proto))
            if family not in (2, self.AF_INET6):
                raise self.error("EAFNOSUPPORT", f"family {family}")
            if type != 2 or proto not in (0, 17):
                raise self.error("EPROTONOSUPPORT", f"type {type}, protocol {proto}")
        except OSError:
            self.record(-1, "socket", family, type, proto)
            raise
        sock = self.SOCKET(self, 4 if family == 2 else 6)
        self._sockets[next(self._serial)] = weakref.ref(sock)
        self.record(sock.fileno(), "socket", family, type, proto)
        return sock

    def forget(self, sock: FakeSocket) -> None:
        """A socket was closed."""
        self._sockets = {key: one for key, one in self._sockets.items() if one() not in (sock, None)}

    def endpoint(self, sock: FakeSocket, address: tuple) -> tuple[Address, int, int]:
        """``(address, port, scope)``, refused as socket.socket refuses; a ``%scope`` in the text counts for nothing."""
        host, port, *rest = address
        if len(rest) > (2 if sock.version == 6 else 0):
            raise TypeError(f"not an address of IPv{sock.version}: {address!r}")
        try:
            parsed = ip_address(host.partition("%")[0]) if host else ANY[sock.version]
        except ValueError:
            parsed = None
        if parsed is None or parsed.version != sock.version:
            raise host_socket.gaierror(host_socket.EAI_NONAME, f"not an address of IPv{sock.version}: {host!r}")
        if not 0 <= port <= 65535:
            raise OverflowError("port must be 0-65535.")
        return parsed, port, rest[1] if len(rest) == 2 else 0

    # options

    def set_option(self, sock: FakeSocket, level: int, number: int, value: bytes) -> None:
        """Find the row, check the size, let it act."""
        option = self._option(sock, level, number)
        if len(value) not in option.lengths:
            raise self.wrong_length(option, len(value))
        try:
            option.apply(self, sock, value)
        except LayoutError as problem:
            raise self.error("EINVAL", f"{option.name}: {problem}") from None
        sock.has_multicast_options |= bool(MULTICAST_OPTION.search(option.name))

    def get_option(self, sock: FakeSocket, level: int, number: int, length: int) -> bytes:
        """Read back; what can only be set is ENOPROTOOPT."""
        option = self._option(sock, level, number)
        if option.read is None:
            raise self.error("ENOPROTOOPT", f"{option.name} cannot be read")
        return option.read(self, sock)[:length]

    def _option(self, sock: FakeSocket, level: int, number: int) -> Option:
        if level not in (0xFFFF, 0 if sock.version == 4 else 41):
            raise self.error("EINVAL", f"level {level} on a socket of IPv{sock.version}")
        option = self.options.get((level, number))
        if option is None:
            raise self.error("ENOPROTOOPT", f"no option {number} at level {level}")
        return option

    # interfaces

    def interface(self, index: int) -> FakeInterface:
        """The interface of an index, 0 being none."""
        found = self.host.interface(index)
        if found is None:
            raise self.error("EADDRNOTAVAIL", f"no interface has index {index}")
        return found

    def owner(self, address: Address) -> FakeInterface:
        """The interface of an address."""
        found = self.host.owner(address)
        if found is None:
            raise self.error("EADDRNOTAVAIL", f"no interface has address {address}")
        return found

    # binding

    def bind(self, sock: FakeSocket, address: Address, port: int, scope: int) -> None:
        """Bind, once."""
        if sock.port:
            raise self.error("EINVAL", "bound already")
        if address.is_multicast:
            self.check_group_bind(address)
        scope = scope if is_scoped(address) else 0
        if scope and self.host.interface(scope) is None:
            raise self.error("ENXIO", f"no interface {scope}")
        if not address.is_multicast and not address.is_unspecified and self.host.owner(address, scope) is None:
            raise self.error("EADDRNOTAVAIL", f"{address} (scope {scope}) is not of this host")
        if port:
            self.check_port_free(sock, address, port)
        sock.address, sock.port, sock.scope = address, port or next(self._ephemeral), scope

    # sending

    def send(self, sock: FakeSocket, data: bytes, destination: Address, port: int, scope: int) -> int:
        """Send one datagram; binds the socket when it is not."""
        if len(data) > self.largest_datagram(sock):
            raise self.error("EMSGSIZE", f"{len(data)} bytes")
        if not port:
            raise self.error("EADDRNOTAVAIL", "port 0")
        sock.port = sock.port or next(self._ephemeral)
        interface = (self.outgoing if destination.is_multicast else self._route)(sock, destination, scope)
        if not interface.up:
            raise self.error("ENETDOWN", f"{interface.name} is down")
        packet = self._packet(sock, interface, destination, port, data)
        if destination.is_multicast:
            self.check_group_send(sock, interface, packet)
            self.loop_back(sock, interface, packet)
            if packet.hop_limit and interface.link and destination.packed[:2] != b"\xff\x01":
                self._transmit(interface, packet)
        else:
            self.check_send(interface)
            local = destination in interface.addresses(sock.version)
            self.unicast_sent(sock, self.receive(interface, packet) if local else self._transmit(interface, packet))
        return len(data)

    def outgoing(self, sock: FakeSocket, group: Address, scope: int) -> FakeInterface:
        """The interface for a group: the address's own scope, the socket's option, the default route."""
        index = (scope if is_scoped(group) else 0) or sock.option("multicast_interface") or self.host.default_interface
        if not index:
            raise self.error("ENETUNREACH", f"no route to {group}")
        return self.interface(index)

    def _route(self, sock: FakeSocket, destination: Address, scope: int) -> FakeInterface:
        if is_scoped(destination):
            found = self.host.interface(scope)
        else:
            near = [one for one in self.host.interfaces if one.reaches(destination)]
            found = self.host.owner(destination) or next(iter(near), None)
            found = found or self.host.interface(self.host.default_interface or 0)
        if found is None:
            raise self.error("ENETUNREACH", f"no route to {destination}")
        return found

    def _packet(
        self, sock: FakeSocket, interface: FakeInterface, destination: Address, port: int, data: bytes
    ) -> Packet:
        source = sock.address
        if source.is_unspecified:
            own = interface.addresses(sock.version)
            own.sort(key=lambda one: is_scoped(one) != is_scoped(destination))
            if not own:
                raise self.error("EADDRNOTAVAIL", f"{interface.name} has no address of IPv{sock.version}")
            source = own[0]
        hops = sock.option("multicast_hops" if destination.is_multicast else "unicast_hops")
        if hops < 0:
            hops = 1 if destination.is_multicast else self.DEFAULTS["unicast_hops"]
        return Packet(source, sock.port, destination, port, hops, data, sock.option("traffic_class"))

    def _transmit(self, interface: FakeInterface, packet: Packet) -> int | None:
        if interface.link is None:
            return None
        source, destination = (str(packet.source), packet.source_port), (str(packet.destination), packet.port)
        self.wire.append(Sent(interface.link, source, destination, packet.hop_limit, packet.data, packet.traffic_class))
        return self.network.carry(interface.link, packet, sender=interface)

    # receiving

    def receive(self, interface: FakeInterface, packet: Packet, looped: bool = False) -> int:
        """Hand a datagram to the sockets that this OS gives it to; how many took it."""
        if packet.source.is_multicast:
            return 0
        sockets = [s for s in self.open_sockets() if s.version == packet.source.version and s.port == packet.port]
        if packet.destination.is_multicast:
            takers = self.group_takers(sockets, interface, packet, looped) if self._hears(interface, packet) else []
        else:  # one socket: bound to the address rather than to any, then the newest (which of several is assumed)
            exact = [s for s in sockets if s.address == packet.destination and s.scope in (0, interface.index)]
            takers = (exact or [s for s in sockets if s.address.is_unspecified])[-1:]
        arrival = Arrival(packet, interface, self.network.clock())
        return sum(sock.enqueue(arrival) for sock in takers)

    def joined(self, sock: FakeSocket, interface: FakeInterface, packet: Packet) -> bool:
        """Whether the socket itself is a member there, and for this source."""
        membership = sock.memberships.get((packet.destination, interface.index))
        return membership is not None and membership.accepts(packet.source)

    def _hears(self, interface: FakeInterface, packet: Packet) -> bool:
        """Whether any program of this host joined the group there: the IP layer drops it otherwise."""
        key = (packet.destination, interface.index)
        return (
            packet.destination in ALL_NODES
            or key in self.other_programs
            or any(key in sock.memberships for sock in self.open_sockets())
        )

    def read(
        self, sock: FakeSocket, bufsize: int, ancbufsize: int, flags: int
    ) -> tuple[bytes, list[tuple[int, int, bytes]], int, tuple]:
        """The next datagram or queued error."""
        self.check_readable(sock, flags)
        item = sock.take(peek=bool(flags & MSG_PEEK))
        if item is None:
            if sock.blocking:
                raise AssertionError("this receive would wait for ever: the socket was left blocking")
            raise self.error("EAGAIN", "nothing to receive")
        if isinstance(item, OSError):
            raise item
        packet = item.packet
        result = self.cut(packet.data, bufsize) if len(packet.data) > bufsize else 0
        control = self._control(sock, item)
        while sum(self._space(value) for _, _, value in control) > ancbufsize:
            control.pop()
            result |= self.MSG_CTRUNC
        scope = item.interface.index if is_scoped(packet.source) else 0
        sender = (str(packet.source), packet.source_port) + ((0, scope) if sock.version == 6 else ())
        return packet.data[:bufsize], control, result, sender

    def _control(self, sock: FakeSocket, arrival: Arrival) -> list[tuple[int, int, bytes]]:
        return [
            (one.level, one.type, one.encode(arrival))
            for one in self.CONTROL
            if one.version in (0, sock.version) and sock.option(one.option)
        ]

    def _space(self, value: bytes) -> int:
        return self.CONTROL_HEADER + -(-len(value) // self.CONTROL_ALIGNMENT) * self.CONTROL_ALIGNMENT
