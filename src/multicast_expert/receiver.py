"""McastRxSocket: receives from multicast groups, blocking."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import product
from time import monotonic
from typing import TypeVar

from multicast_expert import kernel
from multicast_expert.addresses import IPv4Or6Address, MulticastAddress, parse_group, parse_port, parse_source
from multicast_expert.discovery import choose_for_receiving
from multicast_expert.engine import ReceiveEngine
from multicast_expert.errors import MulticastExpertError
from multicast_expert.interfaces import IfaceInfo, IfaceSpecifier, one_spelling
from multicast_expert.kernel import ip_version
from multicast_expert.lifecycle import Openable
from multicast_expert.plan import Join, ReceiveSettings, plan_receive

Value = TypeVar("Value")

MAX_DATAGRAM = 65535
"""Bytes: no UDP datagram is larger (RFC 768)."""


class Receiver(Openable):
    """What the blocking and the async receiver share: everything but the waiting."""

    def __init__(
        self,
        addr_family: int,
        mcast_ips: Iterable[MulticastAddress],
        port: int,
        iface: IfaceSpecifier | None = None,
        ifaces: Iterable[IfaceSpecifier] | None = None,
        source_ips: Iterable[MulticastAddress] | None = None,
        timeout: float | None = None,
        blocking: bool | None = None,
        enable_external_loopback: bool = False,
        iface_ip: IfaceSpecifier | None = None,
        iface_ips: Iterable[IfaceSpecifier] | None = None,
    ) -> None:
        version = ip_version(addr_family)
        groups = unique(parse_group(group, version) for group in listed(mcast_ips, "mcast_ips"))
        if not groups:
            raise MulticastExpertError("mcast_ips is empty: name at least one group.")
        sources = unique(parse_source(source, version) for source in listed(source_ips or (), "source_ips"))
        self._settings = ReceiveSettings(version, parse_port(port), enable_external_loopback)
        specifiers = one_spelling(
            {"iface": iface, "iface_ip": iface_ip}, {"ifaces": ifaces, "iface_ips": iface_ips}
        )
        self._interfaces = choose_for_receiving(specifiers, version)
        self._joins = [
            Join(group, source, interface)
            for group, source, interface in product(groups, sources or (None,), self._interfaces)
        ]
        self.addr_family = addr_family
        self.port = port
        self.settimeout((None if blocking else 0) if blocking is not None else timeout)

    def _open(self) -> None:
        system = kernel.SYSTEM
        self._engine = ReceiveEngine(system)
        self._engine.open(plan_receive(system.platform, self._settings, self._joins))

    def _close(self) -> None:
        self._engine.close()

    def settimeout(self, timeout: float | None) -> None:
        """Set how long a receive waits, in seconds; None: for ever; 0: not at all."""
        if timeout is not None and not timeout >= 0:
            raise MulticastExpertError(f"timeout {timeout!r} is neither None nor a number of seconds, 0 or more.")
        self.timeout = timeout

    def filenos(self) -> list[int]:
        """Return the descriptors of all OS sockets of this receiver, for a selector of your own."""
        self._check_open()
        return self._engine.filenos()

    @property
    def network_interfaces(self) -> list[IfaceInfo]:
        """The interfaces that it listens on."""
        return [choice.iface for choice in self._interfaces]

    @property
    def mcast_ips(self) -> list[str]:
        """The groups, as text."""
        return unique(str(join.group) for join in self._joins)

    def __repr__(self) -> str:
        state = "open" if self.is_opened else "closed"
        return f"<{type(self).__name__} {', '.join(self.mcast_ips[:4])} port {self.port} {state}>"


class McastRxSocket(Receiver):
    """Receives the datagrams of its own groups on its own interfaces, and nothing else.

    addr_family: `socket.AF_INET` or `socket.AF_INET6`.
    mcast_ips: the groups, text or `ipaddress` objects.
    port: the UDP port, 1 to 65535.
    iface, ifaces: the interface or interfaces to listen on: an address, a name or an IfaceInfo. `iface_ip` and
        `iface_ips` are older names of the two; at most one of the four may be given. None of them: every interface that
        has an address of the family, except the loopback interface.
    source_ips: only datagrams from these hosts (source-specific multicast, RFC 4607); None or empty: from any.
    timeout: seconds that a receive waits; None: for ever; 0: not at all.
    blocking: older form of timeout, and stronger: True is None, False is 0.
    enable_external_loopback: also receive what this host sends on other interfaces than loopback. Windows decides this
        at the receiver; on Unix the sender decides.

    Raises MulticastExpertError for input that cannot work, before any socket exists.
    """

    def recvfrom(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> tuple[bytes, IPv4Or6Address] | None:
        """Return the payload and the sender's socket address of the next datagram; None when the timeout passes first.

        A payload longer than `bufsize` bytes is cut; the default never cuts. `flags` are those of recv(2).
        Raises MulticastOSError.
        """
        self._check_open()
        engine = self._engine
        received = engine.try_receive(bufsize, flags)
        if received is not None:
            return received
        deadline = None if self.timeout is None else monotonic() + self.timeout
        remaining = self.timeout
        while engine.wait(remaining):
            received = engine.try_receive(bufsize, flags)
            if received is not None:
                return received
            if deadline is not None:
                remaining = deadline - monotonic()
                if remaining <= 0:
                    break
        return None

    def recv(self, bufsize: int = MAX_DATAGRAM, flags: int = 0) -> bytes | None:
        """Return the payload of the next datagram; None when the timeout passes first. See `recvfrom`."""
        received = self.recvfrom(bufsize, flags)
        return None if received is None else received[0]


def listed(values: Iterable[MulticastAddress], name: str) -> Iterable[MulticastAddress]:
    """Return the values; a lone text is refused, because its characters would be taken for addresses."""
    if isinstance(values, str) or not isinstance(values, Iterable):
        raise MulticastExpertError(f"{name} is a list of addresses; {values!r} alone goes into brackets.")
    return values


def unique(values: Iterable[Value]) -> list[Value]:
    """Return the values without duplicates, in order."""
    return list(dict.fromkeys(values))
