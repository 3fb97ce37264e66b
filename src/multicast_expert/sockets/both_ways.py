"""McastSocket: receives groups and unicast, and sends, all on one port; and what it shares with the async one.

A receiver (Receiver) whose Equipment has an Outlet for each of its interfaces.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

from multicast_expert.core.addresses import IPv4Or6Address, MulticastAddress, parse_group, parse_port
from multicast_expert.core.both_ways import SendSettings, UnicastWish, parse_unicast
from multicast_expert.core.datagram import Datagram, Origin
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier
from multicast_expert.core.plan import (
    BufferSize,
    bind_address,
    check_dscp,
    check_hop_limit,
    interface_address,
    unspecified,
)
from multicast_expert.core.scopes import ScopedGroup, parse_scoped_groups, split_scope
from multicast_expert.engine import ShownReader, error_name, free_port, os_error
from multicast_expert.engine.batches import LONGEST_BATCH
from multicast_expert.engine.send import Prepared, Shortcut, send_through
from multicast_expert.sockets.equipment import Equipment
from multicast_expert.sockets.healing import HealingEvent
from multicast_expert.sockets.outlet import Outlet, sending_many, sending_one
from multicast_expert.sockets.receiver import McastRxSocket, Receiver
from multicast_expert.sockets.routes import MOST_WAYS, Route, Routes
from multicast_expert.sockets.subscriptions import Membership
from multicast_expert.system import kernel
from multicast_expert.system.kernel import Socket, ip_version

if TYPE_CHECKING:
    from multicast_expert.doctor.facts import ReceiverFacts

_ATTEMPTS = 10
"""How often a free port is looked for: another program may take the one that was found."""


class BothWays(Receiver):
    """What McastSocket and AsyncMcastSocket share: everything but the waiting."""

    def __init__(
        self,
        addr_family: int,
        mcast_ips: Iterable[MulticastAddress] = (),
        port: int = 0,
        iface: IfaceSpecifier | None = None,
        ifaces: Iterable[IfaceSpecifier] | None = None,
        source_ips: Iterable[MulticastAddress] | None = None,
        timeout: float | None = None,
        *,
        ttl: int = 1,
        unicast: UnicastWish = True,
        own: bool = False,
        enable_external_loopback: bool = True,
        dscp: int | None = None,
        receive_buffer: BufferSize | None = None,
        timestamps: bool = False,
        heal: bool = True,
        allow_missing: bool = False,
        on_event: Callable[[HealingEvent], None] | None = None,
        gro: bool = True,
        traffic_class: bool = False,
    ) -> None:
        check_hop_limit(ttl)
        check_dscp(dscp)
        wanted = parse_unicast(unicast, ip_version(addr_family))
        self._has_unicast_of_its_own = wanted.kind == "any" or bool(wanted.addresses)
        super().__init__(
            addr_family,
            mcast_ips,
            port,
            iface,
            ifaces,
            source_ips,
            timeout,
            enable_external_loopback=enable_external_loopback,
            receive_buffer=receive_buffer,
            timestamps=timestamps,
            heal=heal,
            allow_missing=allow_missing,
            on_event=on_event,
            gro=gro,
            traffic_class=traffic_class,
        )
        self.ttl = ttl
        sending = SendSettings(ttl, enable_external_loopback, dscp, own)
        self._equipment = Equipment(self._version, sending, wanted, heal)
        self._settings = self._settings._replace(shares=True)
        self._asked_port = port
        self._routes = Routes(self._version, {}, lambda address: None)
        self._replies: dict[Origin, Prepared] = {}
        self._shortcut: Shortcut | None = None
        """That of the only sending socket, for groups that were sent to before."""

    @property
    def dscp(self) -> int | None:
        """The priority mark of what it sends; it may be changed. Raises MulticastExpertError and MulticastOSError."""
        return self._equipment.dscp

    @dscp.setter
    def dscp(self, dscp: int | None) -> None:
        check_dscp(dscp)
        self._equipment.dscp = dscp

    def _parsed_groups(self, mcast_ips: Iterable[MulticastAddress]) -> list[ScopedGroup]:
        return parse_scoped_groups(mcast_ips, self._version, may_be_empty=True)

    def _parsed_port(self, port: int) -> int:
        return 0 if port == 0 and port is not False else parse_port(port)

    def _as_facts(self) -> ReceiverFacts:
        return replace(super()._as_facts(), port_varies=not self._asked_port)

    # Opening and closing

    def _open(self) -> None:
        for attempt in range(_ATTEMPTS):
            self.port: int = self._asked_port or free_port(kernel.SYSTEM, self._version)
            self._settings = self._settings._replace(port=self.port)
            try:
                super()._open()
            except BaseException as error:
                self._equipment.close()
                taken = isinstance(error, MulticastOSError) and error_name(kernel.SYSTEM, error) == "EADDRINUSE"
                if self._asked_port or not taken or attempt == _ATTEMPTS - 1:
                    raise
            else:
                return

    def _prepare(self) -> None:
        self._source.echo = self._equipment.begin(self._sockets, self._settings)
        self._equip(at_start=True)

    def _close(self) -> None:
        super()._close()
        self._equipment.close()
        self._forget_ways()

    def _forget_ways(self) -> None:
        self._shortcut = None
        self._routes = Routes(self._version, self._equipment.outlets, self._sockets.bound_to)
        self._replies = {}

    def close(self) -> None:
        """Close the socket. A second call does nothing.

        Any thread may call it, and a signal handler. Receives and sends that wait elsewhere end with
        MulticastExpertError.
        """
        if self.is_opened:
            # Another thread may be faster.
            with suppress(MulticastExpertError):
                super().close()

    def _abandon(self) -> None:
        super()._abandon()
        self._equipment.abandon()

    def _restore(self, ifaces: list[IfaceInfo]) -> bool:
        unfinished = super()._restore(ifaces)
        return not self._equip() or unfinished

    def join_group(
        self,
        group: MulticastAddress,
        *,
        source: MulticastAddress | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> Membership:
        """Join a group; see `McastRxSocket.join_group`. An interface that is new to this socket is sent from, too."""
        membership = super().join_group(group, source=source, iface=iface)
        with self._sockets.change():
            if any(each.present and each not in self._equipment.outlets for each in self._subscriptions.attachments):
                self._equip()
        return membership

    def _equip(self, at_start: bool = False) -> bool:
        try:
            return self._equipment.equip(self._subscriptions.attachments, at_start)
        finally:
            self._forget_ways()

    # Sending, without the waiting

    def _route(self, address: IPv4Or6Address, iface: IfaceSpecifier | None) -> Route:
        self._check_open()
        return self._routes.to(address, iface)

    def _route_back(self, datagram: Datagram) -> Route:
        self._check_open()
        return self._routes.back(datagram)

    def _route_beside(self, datagram: Datagram, address: IPv4Or6Address) -> Route:
        """Return the way to a group from the interface that a datagram came in on, with the address it was sent to."""
        back = self._route_back(datagram)
        group, _ = split_scope(address[0])
        parse_group(group, self._version)
        if back.through is not None or not back.outlets or back.origin is None:
            return self._routes.to(address, datagram.interface_index)
        index = back.outlets[0].choice.iface.index
        target = (group, address[1]) if self._version == 4 else (group, address[1], 0, index)
        return Route(back.outlets[:1], target, False, (back.origin[0], index))

    def _learn_way(self, address: IPv4Or6Address, route: Route) -> None:
        """Let further datagrams to a group go the short way, if there is a single one."""
        is_plain = route.is_group and route.address == address and not self._equipment.echo.by_payload
        if not is_plain or len(self._equipment.outlets) != 1 or len(route.outlets) != 1:
            return
        shortcut = route.outlets[0].socket.shortcut
        if shortcut is not None and self._named_source(route.outlets[0]) is None:
            shortcut.learn(address)
            self._shortcut = shortcut

    def _learn_reply(self, datagram: Datagram, route: Route) -> None:
        """Let further replies to datagrams that come the same way go the short way."""
        if route.through is not None or self._equipment.echo.by_payload:
            return
        # A stored datagram may have parts that only the long way takes.
        with suppress(TypeError, ValueError, OSError):
            prepared = route.outlets[0].socket.prepared(route.address, route.origin)
            if prepared is not None:
                if len(self._replies) >= MOST_WAYS:
                    self._replies = {}
                self._replies[datagram._origin] = prepared

    def _went_short(self, datagram: Datagram, data: bytes) -> bool:
        """Return whether the reply has gone the short way."""
        try:
            prepared = self._replies.get(datagram._origin)
            return prepared is not None and prepared.shortcut.send_prepared(
                data, prepared.destination, prepared.control
            )
        except (OSError, TypeError, AttributeError):
            # The long way copes with it, or raises it with words; a stored sender may be a list.
            return False

    def _hops(self, hop_limit: int | None) -> int:
        if hop_limit is None:
            return self.ttl
        check_hop_limit(hop_limit)
        return hop_limit

    def _sending_one(self, route: Route, data: bytes, hop_limit: int | None) -> Generator[Outlet, None, None]:
        """Send one datagram; yields an outlet that has to be waited for."""
        hops = self._hops(hop_limit)
        if self._equipment.echo.by_payload:
            for _ in route.outlets:
                self._equipment.echo.note(data)
        if route.is_group:
            send = lambda outlet: self._send_to_group(outlet, data, route.address, hops)  # noqa: E731
            yield from sending_one(route.outlets, send, self._check_open)
            return
        if route.through is not None:
            try:
                send_through(kernel.SYSTEM, route.through, data, route.address, route.origin)
            except OSError as error:
                # Where there is no room, the interface's own socket waits for it.
                if not isinstance(error, BlockingIOError) or not route.outlets:
                    doing = f"send {len(data)} bytes to {route.address[0]} port {route.address[1]}"
                    raise os_error(kernel.SYSTEM, error, "send", doing) from error
            else:
                return
        (outlet,) = route.outlets
        while not outlet.send_to_host(data, route.address, hop_limit, route.origin):
            yield outlet
            self._check_open()

    def _send_to_group(self, outlet: Outlet, data: bytes, address: IPv4Or6Address, hop_limit: int) -> bool:
        source = self._named_source(outlet)
        if source is None:
            return outlet.send(data, address, hop_limit)
        return outlet.send_to_host(data, address, hop_limit, (source, outlet.choice.iface.index))

    def _named_source(self, outlet: Outlet) -> bytes | None:
        """Return the IPv6 address that the user named the interface by, where the socket is not bound to it."""
        source = outlet.choice.source_address(6) if self._version == 6 else None
        return source.packed if source is not None and 6 in kernel.SYSTEM.platform.silent else None

    def _sending_many(
        self,
        payloads: Iterable[bytes],
        address: IPv4Or6Address,
        hop_limit: int | None,
        iface: IfaceSpecifier | None,
        limit: int = LONGEST_BATCH,
    ) -> Generator[Outlet | None, None, int]:
        """Do all of `send_many` but the waiting; see `sending_many`."""
        route, hops = self._route(address, iface), self._hops(hop_limit)
        echo = self._equipment.echo if self._equipment.echo.by_payload else None

        def send(outlet: Outlet, batch: Sequence[bytes]) -> int:
            if route.is_group and echo is None and self._named_source(outlet) is None:
                return outlet.send_many(batch, route.address, hops)
            if echo is not None:
                echo.note(batch[0])
            if route.is_group:
                return int(self._send_to_group(outlet, batch[0], route.address, hops))
            return int(outlet.send_to_host(batch[0], route.address, hop_limit, route.origin))

        return (yield from sending_many(route.outlets, payloads, send, self._check_open, limit))

    # Facts

    def fileno(self) -> int:
        """Return one descriptor that is readable while a datagram is there, for a selector of your own.

        It is valid until this socket is closed. Read nothing from it. Raises MulticastExpertError where the OS has no
        such descriptor (Windows); use `filenos` there.
        """
        self._check_open()
        descriptor = self._source.shown()
        if descriptor < 0:
            raise MulticastExpertError("This OS has no descriptor for several sockets; use filenos().")
        if not isinstance(self._reader, ShownReader):
            self._reader = ShownReader(self._reader, self._source.show_kept)
        self._source.show_kept()
        return descriptor

    def os_sockets(self) -> list[Socket]:
        """Return the sockets of the OS: first those that send, then those that only receive."""
        self._check_open()
        senders = [outlet.socket.socket for outlet in self._equipment.outlets.values()]
        return list(dict.fromkeys([*senders, *self._sockets.sockets()]))

    def getsockname(self) -> IPv4Or6Address:
        """Return the address and the port that this socket sends from; with several interfaces, any address."""
        self._check_open()
        outlets = list(self._equipment.outlets.values())
        own = interface_address(outlets[0].choice, self._version) if len(outlets) == 1 else None
        scope = outlets[0].choice.iface.index if own is not None and own.is_link_local else 0
        text = unspecified(self._version) if own is None else str(own).partition("%")[0]
        return bind_address(text, self._version, self.port, scope)


class McastSocket(BothWays, McastRxSocket):
    """Asks groups and gets the answers: receives its groups and unicast, and sends, all on one port.

    addr_family: `socket.AF_INET` or `socket.AF_INET6`.
    mcast_ips: the groups to join, text or `ipaddress` objects; more can be joined later.
    port: the UDP port to receive on and to send from, shared with programs that share it; 0: a free one that the OS
        chooses, which the attribute `port` names when the socket is open.
    iface, ifaces, source_ips, timeout: as for McastRxSocket. Without an interface it uses every one that has an address
        of the family, except the loopback interface.
    ttl: how many hops a datagram to a group may go, 0 to 255.
    unicast: which unicast to the port arrives. True: what is sent to an address of its interfaces, unless another
        socket of this host had the port first (Linux); "any": to any address of this host; a list of addresses: to
        these, also where another socket had them; False: none.
    own: whether it receives what it sent itself. Other sockets of this host hear it in any case.
    enable_external_loopback: whether receivers on this host hear what it sends.
    dscp: the priority mark of what it sends, 0 to 63 (RFC 2474); None leaves it as it is. The attribute may be changed.
    receive_buffer, timestamps, heal, allow_missing, on_event, gro, traffic_class: as for McastRxSocket.

    Any thread, and a signal handler, may call any method, also while others receive.

    Raises MulticastExpertError for input that cannot work, before any socket exists.
    """

    def sendto(
        self,
        data: bytes,
        address: IPv4Or6Address,
        *,
        hop_limit: int | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> None:
        """Send one datagram from `port`: to a group, out of each of its interfaces; to a host, as routed.

        `hop_limit`: how many hops it may go; left out: `ttl` to a group, the default of the OS to a host. `iface`: the
        only interface to leave from; a scope (`ff02::1%eth0`, or the fourth part of an IPv6 address) names it too.
        Waits while the send buffer is full. Raises MulticastExpertError for a name, a broadcast address and an
        interface that is none of its own, and MulticastOSError.
        """
        shortcut = self._shortcut
        if shortcut is not None and iface is None:
            # The long way copes with errors, or raises them with words.
            with suppress(OSError):
                if shortcut.send(data, address, self.ttl if hop_limit is None else hop_limit):
                    return
        route = self._route(address, iface)
        for outlet in self._sending_one(route, data, hop_limit):
            outlet.wait()
        if iface is None:
            self._learn_way(address, route)

    def reply(self, datagram: Datagram, data: bytes) -> None:
        """Send to the sender of a datagram: out of the interface it came in on, from `port`.

        It leaves from the address that the datagram was sent to, if that is a host's. The datagram may be an old one.
        Raises as `sendto` does.
        """
        if self._went_short(datagram, data):
            return
        route = self._route_back(datagram)
        for outlet in self._sending_one(route, data, None):
            outlet.wait()
        self._learn_reply(datagram, route)

    def send_many(
        self,
        payloads: Iterable[bytes],
        address: IPv4Or6Address,
        *,
        hop_limit: int | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> int:
        """Send several datagrams to one address; return how many went. See `sendto` and `McastTxSocket.send_many`."""
        steps = self._sending_many(payloads, address, hop_limit, iface)
        while True:
            try:
                outlet = next(steps)
            except StopIteration as finished:
                sent: int = finished.value
                return sent
            if outlet is not None:
                outlet.wait()

    def query(
        self,
        data: bytes,
        address: IPv4Or6Address,
        *,
        timeout: float,
        hop_limit: int | None = None,
        iface: IfaceSpecifier | None = None,
    ) -> Iterator[Datagram]:
        """Send one datagram, and return an iterator over all that this socket receives in the next `timeout` seconds.

        Sends at once, as `sendto` does. Answers to the group count too, and so does what came in before.
        """
        self.sendto(data, address, hop_limit=hop_limit, iface=iface)
        return self._until(monotonic() + timeout)

    def _until(self, deadline: float) -> Iterator[Datagram]:
        while (remaining := deadline - monotonic()) > 0:
            try:
                yield self.receive(remaining)
            except TimeoutError:
                return
