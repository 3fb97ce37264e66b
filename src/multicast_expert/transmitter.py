"""McastTxSocket: sends to multicast groups, blocking."""

from __future__ import annotations

from collections.abc import Iterable

from multicast_expert import kernel
from multicast_expert.addresses import IPv4Or6Address, MulticastAddress, parse_group, parse_port
from multicast_expert.discovery import choose_for_sending
from multicast_expert.engine import SendEngine
from multicast_expert.errors import MulticastExpertError
from multicast_expert.interfaces import IfaceInfo, IfaceSpecifier, one_spelling
from multicast_expert.kernel import ip_version
from multicast_expert.lifecycle import Openable
from multicast_expert.plan import plan_send
from multicast_expert.receiver import listed, unique


class McastTxSocket(Openable):
    """Sends datagrams to its groups out of one interface.

    addr_family: `socket.AF_INET` or `socket.AF_INET6`.
    mcast_ips: the groups that it may send to, text or `ipaddress` objects.
    iface: the interface to send from: an address, a name or an IfaceInfo; `iface_ip` is an older name of it. Neither:
        the interface of the default gateway.
    ttl: how many hops a datagram may go, 0 to 255; 1 stays on the link, every router takes one.
    enable_external_loopback: whether receivers on this host hear it too. On the loopback interface they always do; on
        Windows the receiver decides.

    Raises MulticastExpertError for input that cannot work, before any socket exists.
    """

    def __init__(
        self,
        addr_family: int,
        mcast_ips: Iterable[MulticastAddress],
        iface: IfaceSpecifier | None = None,
        ttl: int = 1,
        enable_external_loopback: bool = False,
        iface_ip: IfaceSpecifier | None = None,
    ) -> None:
        version = ip_version(addr_family)
        self._version = version
        self._groups = unique(parse_group(group, version) for group in listed(mcast_ips, "mcast_ips"))
        if not self._groups:
            raise MulticastExpertError("mcast_ips is empty: name at least one group.")
        specifiers = one_spelling({"iface": iface, "iface_ip": iface_ip}, {})
        self._interface = choose_for_sending(specifiers[0] if specifiers else None, version)
        self._plan = plan_send(kernel.SYSTEM.platform, version, self._interface, ttl, enable_external_loopback)
        self._allowed = {str(group) for group in self._groups}
        self.addr_family = addr_family
        self.ttl = ttl

    def _open(self) -> None:
        iface = self._interface.iface
        self._engine = SendEngine(kernel.SYSTEM, self._plan, iface.display_name, iface.is_localhost())

    def _close(self) -> None:
        self._engine.close()

    def sendto(self, data: bytes, address: IPv4Or6Address) -> None:
        """Send one datagram to `address`: `(ip, port)`, or the IPv6 form `(ip, port, flow info, scope id)`.

        Waits while the send buffer is full. Raises MulticastExpertError for an address that is none of `mcast_ips`, and
        MulticastOSError.
        """
        self._check_open()
        if address[0] not in self._allowed:
            self._allow(address[0])
        parse_port(address[1])
        while self._engine.try_send(data, address) is None:
            self._engine.wait(None)

    def _allow(self, text: str) -> None:
        """Accept another spelling of one of the groups, or raise."""
        group = parse_group(text.partition("%")[0] if isinstance(text, str) else text, self._version)
        if group not in self._groups:
            raise MulticastExpertError(
                f"The destination {text} is none of the groups that this socket was made for: "
                f"{', '.join(str(known) for known in self._groups)}."
            )

    def fileno(self) -> int:
        """Return the descriptor of the OS socket."""
        self._check_open()
        return self._engine.socket.fileno()

    def getsockname(self) -> IPv4Or6Address:
        """Return the address and port that datagrams leave from; `::` where the OS chooses the source for each."""
        self._check_open()
        return self._engine.socket.getsockname()

    @property
    def network_interface(self) -> IfaceInfo:
        """The interface that it sends from."""
        return self._interface.iface

    @property
    def mcast_ips(self) -> list[str]:
        """The groups, as text."""
        return [str(group) for group in self._groups]

    def __repr__(self) -> str:
        state = "open" if self.is_opened else "closed"
        return f"<McastTxSocket {', '.join(self.mcast_ips[:4])} on {self._interface.iface.display_name} {state}>"
