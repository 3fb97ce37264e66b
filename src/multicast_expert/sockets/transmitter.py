"""McastTxSocket: sends to multicast groups, blocking; and what it shares with the async transmitter."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence

from multicast_expert.core.addresses import IPAddress, IPv4Or6Address, MulticastAddress, check_socket_address
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, InterfaceChoice, one_spelling
from multicast_expert.core.plan import SocketPlan, check_dscp, check_hop_limit, plan_send
from multicast_expert.core.scopes import (
    Scope,
    ScopedGroup,
    in_scope,
    parse_scoped_group,
    parse_scoped_groups,
)
from multicast_expert.core.tracking import asked_name
from multicast_expert.engine import namespace_of
from multicast_expert.engine.batches import LONGEST_BATCH
from multicast_expert.engine.send import Shortcut
from multicast_expert.sockets.healing import Events, HealingEvent
from multicast_expert.sockets.lifecycle import Openable
from multicast_expert.sockets.outlet import Absence, Outlet, sending_many, sending_one
from multicast_expert.system import kernel
from multicast_expert.system.changes import Changes
from multicast_expert.system.interfaces import (
    choose_for_sending,
    find_route,
    scan_interfaces,
    warn_of_other_route,
)
from multicast_expert.system.kernel import ip_version
from multicast_expert.system.watch import unwatch, watch


class Transmitter(Openable):
    """What the blocking and the async transmitter share: everything but the waiting."""

    def __init__(
        self,
        addr_family: int,
        mcast_ips: Iterable[MulticastAddress] | None = None,
        iface: IfaceSpecifier | None = None,
        ttl: int = 1,
        enable_external_loopback: bool = False,
        iface_ip: IfaceSpecifier | None = None,
        *,
        ifaces: Iterable[IfaceSpecifier] | None = None,
        dscp: int | None = None,
        heal: bool = True,
        allow_missing: bool = False,
        on_event: Callable[[HealingEvent], None] | None = None,
    ) -> None:
        self._version = version = ip_version(addr_family)
        groups = None if mcast_ips is None else parse_scoped_groups(mcast_ips, version)
        specifiers = one_spelling(iface=iface, iface_ip=iface_ip, ifaces=ifaces)
        allow_missing = allow_missing and heal
        wanted = [group for group, _ in groups or ()]
        choices = choose_for_sending(specifiers, version, wanted, allow_missing)
        self._awaits_route = specifiers is None and not choices[0].iface.index
        """Whether no interface was named, and no route has led to one yet."""
        self._heal = heal
        self._namespace: int | None = None
        self._events = Events(on_event)

        def planned(choice: InterfaceChoice, port: int, dscp: int | None) -> SocketPlan:
            platform = kernel.SYSTEM.platform
            return plan_send(platform, version, choice, ttl, enable_external_loopback, dscp, port)

        check_hop_limit(ttl)
        check_dscp(dscp)
        self._dscp = dscp
        absence = Absence(allow_missing, self._events, len(set(wanted)))
        self._outlets = [Outlet(version, choice, ttl, dscp, planned, heal, absence) for choice in choices]
        self._groups = None if groups is None else self._ways(groups)
        self._is_routed = specifiers is None
        """Whether the interface was chosen by the routes of this host."""
        self._known: dict[str, tuple[str, list[Outlet]]] = {}
        """By the spelling of a group without a scope: its usual spelling, and where it leaves."""
        self._shortcut: Shortcut | None = None
        """That of the socket that sent last, where there is but one."""
        self.addr_family = addr_family
        self.ttl = ttl

    @property
    def dscp(self) -> int | None:
        """The priority mark of what it sends; it may be changed. Raises MulticastExpertError and MulticastOSError."""
        return self._dscp

    @dscp.setter
    def dscp(self, dscp: int | None) -> None:
        check_dscp(dscp)
        self._dscp = dscp
        for outlet in self._outlets:
            outlet.change_dscp(dscp)

    def _open(self) -> None:
        opened: list[Outlet] = []
        self._namespace = None
        try:
            for outlet in self._outlets:
                outlet.open()
                opened += (outlet,)
            if self._heal:
                self._watch()
        except BaseException:
            for outlet in opened:
                outlet.close()
            raise

    def _watch(self) -> None:
        namespace = namespace_of(kernel.SYSTEM, (outlet.socket.socket for outlet in self._outlets))
        try:
            # The watch may call before this returns.
            watch(self, namespace, self._events.is_waiting or any(outlet.is_missing for outlet in self._outlets))
        except MulticastOSError:
            raise
        except MulticastExpertError:
            # The program is ending: what it has to say now it sends at once, and a failed send looks for itself.
            return
        self._namespace = self._events.namespace = namespace

    def _close(self) -> None:
        self._shortcut = None
        if self._namespace is not None:
            unwatch(self, self._namespace)
        for outlet in self._outlets:
            outlet.close()

    def _abandon(self) -> None:
        self._namespace = self._events.namespace = None
        for outlet in self._outlets:
            outlet.abandon()

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Send nothing any more from interfaces that are gone; called by the watch for interface changes."""
        for outlet in self._outlets:
            outlet.give_up(changes, ifaces)

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Send from where the interfaces are now; called by the watch for interface changes, after `give_up`."""
        if self._awaits_route:
            way = find_route(self._version, list(self._groups or ()))
            if way is None:
                return True
            self._outlets[0].asked = way.choice
            self._awaits_route = False
        outcomes = [outlet.restore(ifaces) for outlet in self._outlets]
        return any(outcomes)

    def report(self) -> None:
        """Report what became of the interfaces; called by the watch, in a thread of its own and without a lock."""
        self._events.report()

    def _ways(self, groups: Iterable[ScopedGroup]) -> dict[IPAddress, list[Outlet]]:
        """Return where each group leaves: all interfaces, or those of its scopes. Raises MulticastExpertError."""
        ways: dict[IPAddress, list[Outlet]] = {}
        for group, scope in groups:
            ways.setdefault(group, [])
            ways[group] += self._outlets if scope is None else self._in_scope(group, scope, self._outlets)
        return {group: [each for each in self._outlets if each in chosen] for group, chosen in ways.items()}

    def _in_scope(self, group: object, scope: Scope, outlets: Iterable[Outlet]) -> list[Outlet]:
        """Return the outlets that the scope means. Raises MulticastExpertError for none."""

        def among() -> list[Outlet]:
            places = [(outlet, [outlet.asked.iface, outlet.choice.iface]) for outlet in outlets]
            return in_scope(group, scope, places, kernel.SYSTEM.platform.names_ignore_case)

        try:
            return among()
        except MulticastExpertError:
            if not self._heal or not self.is_opened:
                raise
        # An interface may have come back with another index or name, just now.
        ifaces = scan_interfaces()
        self.give_up(Changes(), ifaces)
        self.restore(ifaces)
        return among()

    def _checked(self, address: IPv4Or6Address, hop_limit: int | None) -> tuple[IPv4Or6Address, int, Sequence[Outlet]]:
        """Check where a datagram shall go; return the destination with its usual spelling, hop limit and outlets.

        The destination has no scope: its outlet chooses the interface.
        """
        self._check_open()
        check_socket_address(address, self._version)
        text = address[0]
        group, outlets = self._known.get(text) or self._learn(text)
        scope = address[3] if len(address) > 3 else 0
        if scope:
            outlets = self._in_scope(group, scope, outlets)
        if hop_limit is None:
            hop_limit = self.ttl
        check_hop_limit(hop_limit)
        if group != text or scope:
            address = (group, *address[1:3], 0) if len(address) > 3 else (group, *address[1:])
        return address, hop_limit, outlets

    def _learn(self, text: str) -> tuple[str, list[Outlet]]:
        """Return the usual spelling of a group that may be sent to, and where it leaves, or raise."""
        group, scope = parse_scoped_group(text, self._version)
        outlets = self._outlets if self._groups is None else self._groups.get(group)
        if outlets is None:
            raise MulticastExpertError(
                f"The destination {text} is none of the groups that this socket was made for: "
                f"{', '.join(self.mcast_ips)}."
            )
        if scope is not None:
            return str(group), self._in_scope(group, scope, outlets)
        if self._is_routed and self._groups is None:
            warn_of_other_route(group, self.network_interface)
        if len(self._known) < 4096:
            self._known[text] = str(group), outlets
        return str(group), outlets

    def _learn_shortcut(self, address: IPv4Or6Address) -> None:
        """Let further datagrams for an address that was checked go the short way, if there is a single one."""
        if len(self._outlets) == 1:
            opened = self._outlets[0].socket
            self._shortcut = opened.shortcut
            # The kernel obeys a scope more than the interface of the socket, which may have moved meanwhile.
            if self._shortcut is not None and (len(address) < 4 or address[3] in (0, opened.interface_index)):
                self._shortcut.learn(address)

    def _sending(
        self, payloads: Iterable[bytes], address: IPv4Or6Address, hop_limit: int | None, limit: int = LONGEST_BATCH
    ) -> Generator[Outlet | None, None, int]:
        """Do all of `send_many` but the waiting; return how many datagrams went out of every interface.

        Yields an outlet that has to be waited for, and None after each batch of at most `limit` payloads.
        """
        address, hops, outlets = self._checked(address, hop_limit)
        send = lambda outlet, batch: outlet.send_many(batch, address, hops)  # noqa: E731 - one expression
        return (yield from sending_many(outlets, payloads, send, self._check_open, limit))

    def fileno(self) -> int:
        """Return the descriptor of the OS socket; with several interfaces, of the first."""
        return self.filenos()[0]

    def filenos(self) -> list[int]:
        """Return the descriptors of the OS sockets, one for each interface."""
        self._check_open()
        return [outlet.socket.socket.fileno() for outlet in self._outlets]

    def getsockname(self) -> IPv4Or6Address:
        """Return the address and port that datagrams leave from; `::` where the OS chooses the source for each."""
        self._check_open()
        address: IPv4Or6Address = self._outlets[0].socket.socket.getsockname()
        return address

    @property
    def network_interface(self) -> IfaceInfo:
        """The interface that it sends from; with several, the first."""
        return self._outlets[0].choice.iface

    @property
    def network_interfaces(self) -> list[IfaceInfo]:
        """The interfaces that it sends from, without those that are missing."""
        return [outlet.choice.iface for outlet in self._outlets if not outlet.is_missing]

    @property
    def missing_interfaces(self) -> list[str]:
        """The interfaces that are not there at this moment, by the names or addresses that they were given by."""
        return [asked_name(outlet.asked) for outlet in self._outlets if outlet.is_missing]

    @property
    def mcast_ips(self) -> list[str]:
        """The groups that it may send to, as text; empty: any."""
        return [str(group) for group in self._groups or ()]

    def __repr__(self) -> str:
        names = ", ".join(iface.display_name for iface in self.network_interfaces)
        groups = ", ".join(self.mcast_ips[:4]) or "any group"
        return f"<{type(self).__name__} {groups} on {names} {'open' if self.is_opened else 'closed'}>"


class McastTxSocket(Transmitter):
    """Sends datagrams to its groups out of one interface, or several.

    addr_family: `socket.AF_INET` or `socket.AF_INET6`.
    mcast_ips: the groups that it may send to, text or `ipaddress` objects; None: any. `ff02::5%eth1`: this group out of
        that one of its interfaces only.
    iface, ifaces: the interface or interfaces to send from, by any name, address or number (see IfaceSpecifier);
        `iface_ip` is an older name of `iface`. None of them, 0.0.0.0 or ::: the interface of the default gateway, or
        without one that of a route for the group; a MulticastWarning names both where they differ.
    ttl: how many hops a datagram may go, 0 to 255; 1 stays on the link, every router takes one.
    enable_external_loopback: whether receivers on this host hear it too. On the loopback interface they always do; on
        Windows the receiver decides.
    dscp: the priority mark of the datagrams, 0 to 63 (RFC 2474); None leaves it as it is. The attribute may be changed.
    heal: whether the socket is opened anew when its interface was deleted and is back, got another address, or became a
        port of a bridge or bond, and when the address that names the interface moved to another one.
    allow_missing: whether named interfaces may be missing, or have no address, to be used once they are there; without
        a name, whether the default route may be missing. Sends raise a MulticastOSError (ENODEV) meanwhile.
    on_event: called with a HealingEvent, in a background thread, when an interface went or is used (again).

    Raises MulticastExpertError for input that cannot work, before any socket exists.
    """

    def sendto(self, data: bytes, address: IPv4Or6Address, *, hop_limit: int | None = None) -> None:
        """Send one datagram to `address`: `(ip, port)`, or the IPv6 form `(ip, port, flow info, scope id)`.

        A scope, as the last number or as in `ff02::5%eth1`, chooses among the interfaces of this socket.
        `hop_limit`: how many hops this one may go, instead of `ttl`. Waits while the send buffer is full. With several
        interfaces, all are tried before an error of one is raised. Raises MulticastExpertError for an address that is
        none of `mcast_ips` and for a scope that is none of its interfaces, and MulticastOSError.
        """
        try:
            shortcut = self._shortcut
            if shortcut is not None and shortcut.send(data, address, self.ttl if hop_limit is None else hop_limit):
                return
        except OSError as error:
            self._outlets[0].cope(error, data, address)
        destination, hops, outlets = self._checked(address, hop_limit)
        send = lambda outlet: outlet.send(data, destination, hops)  # noqa: E731 - one expression
        for outlet in sending_one(outlets, send, self._check_open):
            outlet.wait()
        if destination[0] == address[0]:
            self._learn_shortcut(address)

    def send_many(self, payloads: Iterable[bytes], address: IPv4Or6Address, *, hop_limit: int | None = None) -> int:
        """Send several datagrams to one address; return how many went.

        Fewer than given means that the OS refused the next one; where it is the first, its error is raised. See
        `sendto`. On Linux datagrams of equal size cost least: they go to the kernel many at a time (GSO) and arrive one
        by one, as from `sendto`. An iterator is read ahead, by up to 1024 payloads while it yields them quickly.
        """
        steps = self._sending(payloads, address, hop_limit)
        while True:
            try:
                outlet = next(steps)
            except StopIteration as finished:
                sent: int = finished.value
                return sent
            if outlet is not None:
                outlet.wait()
