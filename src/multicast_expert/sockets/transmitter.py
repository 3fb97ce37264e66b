"""McastTxSocket: sends to multicast groups, blocking; and what it shares with the async transmitter."""

from __future__ import annotations

from collections.abc import Generator, Iterable

from multicast_expert.core.addresses import IPv4Or6Address, MulticastAddress, parse_group, parse_groups, parse_port
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, InterfaceChoice, one_spelling
from multicast_expert.core.plan import SocketPlan, check_hop_limit, plan_send
from multicast_expert.engine.batches import LONGEST_BATCH
from multicast_expert.engine.send import Shortcut
from multicast_expert.sockets.lifecycle import Openable
from multicast_expert.sockets.outlet import Outlet, sending_many, sending_one
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import choose_for_sending
from multicast_expert.system.kernel import ip_version


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
    ) -> None:
        self._version = version = ip_version(addr_family)
        groups = None
        if mcast_ips is not None:
            groups = parse_groups(mcast_ips, version)
        self._groups = groups
        self._known = {str(group): str(group) for group in groups or ()}
        specifiers = one_spelling(iface=iface, iface_ip=iface_ip, ifaces=ifaces)

        def planned(choice: InterfaceChoice, port: int) -> SocketPlan:
            platform = kernel.SYSTEM.platform
            return plan_send(platform, version, choice, ttl, enable_external_loopback, dscp, port)

        self._outlets = [Outlet(choice, ttl, planned, heal) for choice in choose_for_sending(specifiers, version)]
        self._shortcut: Shortcut | None = None
        """That of the socket that sent last, where there is but one."""
        self.addr_family = addr_family
        self.ttl = ttl

    def _open(self) -> None:
        opened: list[Outlet] = []
        try:
            for outlet in self._outlets:
                outlet.open()
                opened += (outlet,)
        except BaseException:
            for outlet in opened:
                outlet.close()
            raise

    def _close(self) -> None:
        self._shortcut = None
        for outlet in self._outlets:
            outlet.close()

    def _abandon(self) -> None:
        for outlet in self._outlets:
            outlet.abandon()

    def _checked(self, address: IPv4Or6Address, hop_limit: int | None) -> tuple[IPv4Or6Address, int]:
        """Check where a datagram shall go; return the destination with its usual spelling, and the hop limit."""
        self._check_open()
        group = self._known.get(address[0]) or self._learn(address[0])
        parse_port(address[1])
        if hop_limit is None:
            hop_limit = self.ttl
        check_hop_limit(hop_limit)
        return (address if group == address[0] else (group, *address[1:])), hop_limit

    def _learn(self, text: str) -> str:
        """Remember a spelling of a group that may be sent to and return its usual one, or raise.

        A scope is left out: the interface is chosen already, and getaddrinfo knows scopes of link-local groups only.
        """
        group = parse_group(text.partition("%")[0] if isinstance(text, str) else text, self._version)
        if self._groups is not None and group not in self._groups:
            raise MulticastExpertError(
                f"The destination {text} is none of the groups that this socket was made for: "
                f"{', '.join(str(known) for known in self._groups)}."
            )
        if len(self._known) < 4096:
            self._known[text] = str(group)
        return str(group)

    def _learn_shortcut(self, address: IPv4Or6Address) -> None:
        """Let further datagrams for an address that was checked go the short way, if there is a single one."""
        if len(self._outlets) == 1:
            self._shortcut = self._outlets[0].socket.shortcut
            if self._shortcut is not None:
                self._shortcut.learn(address)

    def _sending(
        self, payloads: Iterable[bytes], address: IPv4Or6Address, hop_limit: int | None, limit: int = LONGEST_BATCH
    ) -> Generator[Outlet | None, None, int]:
        """Do all of `send_many` but the waiting; return how many datagrams went out of every interface.

        Yields an outlet that has to be waited for, and None after each batch of at most `limit` payloads.
        """
        address, hops = self._checked(address, hop_limit)
        send = lambda outlet, batch: outlet.send_many(batch, address, hops)  # noqa: E731 - one expression
        return (yield from sending_many(self._outlets, payloads, send, self._check_open, limit))

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
        """The interfaces that it sends from."""
        return [outlet.choice.iface for outlet in self._outlets]

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
    mcast_ips: the groups that it may send to, text or `ipaddress` objects; None: any.
    iface, ifaces: the interface or interfaces to send from: an address, a name or an IfaceInfo; `iface_ip` is an older
        name of `iface`. None of them: the interface of the default gateway.
    ttl: how many hops a datagram may go, 0 to 255; 1 stays on the link, every router takes one.
    enable_external_loopback: whether receivers on this host hear it too. On the loopback interface they always do; on
        Windows the receiver decides.
    dscp: the priority mark of the datagrams, 0 to 63 (RFC 2474); None leaves it as it is.
    heal: whether the socket is opened anew when its interface was deleted and is back, or got another address.

    Raises MulticastExpertError for input that cannot work, before any socket exists.
    """

    def sendto(self, data: bytes, address: IPv4Or6Address, *, hop_limit: int | None = None) -> None:
        """Send one datagram to `address`: `(ip, port)`, or the IPv6 form `(ip, port, flow info, scope id)`.

        `hop_limit`: how many hops this one may go, instead of `ttl`. Waits while the send buffer is full. With several
        interfaces, all are tried before an error of one is raised. Raises MulticastExpertError for an address that is
        none of `mcast_ips`, and MulticastOSError.
        """
        try:
            shortcut = self._shortcut
            if shortcut is not None and shortcut.send(data, address, self.ttl if hop_limit is None else hop_limit):
                return
        except OSError as error:
            self._outlets[0].cope(error, data, address)
        destination, hops = self._checked(address, hop_limit)
        send = lambda outlet: outlet.send(data, destination, hops)  # noqa: E731 - one expression
        for outlet in sending_one(self._outlets, send, self._check_open):
            outlet.wait()
        if destination is address:
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
