"""A host of the lab and its faults, a method for each. Runs `ip` and `nft`, writes sysctls.

A fault stays until you undo it, by the method's own opposite or by the object that it returns, or until the lab's exit.
"""

from __future__ import annotations

import contextlib
from typing import Literal

from multicast_expert.testing import firewall, traffic
from multicast_expert.testing.firewall import Direction, DropRule
from multicast_expert.testing.interface import Cables, Interface, address_lines
from multicast_expert.testing.namespaces import LabError
from multicast_expert.testing.node import wait_until
from multicast_expert.testing.private_network import route_ipv6_multicast_to_loopback
from multicast_expert.testing.traffic import Stage


class Host(Stage):
    """A machine with interfaces. Methods take an interface or its name."""

    def __init__(self, name: str, cables: Cables, *, dad: bool = False) -> None:
        super().__init__(name, dad=dad)
        self.interfaces: dict[str, Interface] = {}
        self._cables = cables

    def interface(self, interface: Interface | str) -> Interface:
        """Return the interface of this name; LabError if this host was never given it."""
        name = interface.name if isinstance(interface, Interface) else interface
        try:
            return self.interfaces[name]
        except KeyError:
            raise LabError(f"{self.name} has no interface {name}, only {', '.join(self.interfaces) or 'lo'}") from None

    # Interfaces that come, go and change

    def add_interface(self, name: str, *, ipv4: str | None = None, ipv6: str | None = None) -> Interface:
        """Add an interface that is up, with a cable to nowhere, as when a USB adapter or a VPN appears."""
        if name in self.interfaces:
            raise LabError(f"{self.name} has an interface {name} already")
        added = Interface(self, name, [address for address in (ipv4, ipv6) if address])
        self._cables.connect_to_the_wall(added)
        self.interfaces[name] = added
        return added

    def remove_interface(self, interface: Interface | str) -> None:
        """Remove the interface, its memberships and the far end of its cable, like an adapter that is pulled out."""
        removed = self.interface(interface)
        self.ip(f"link del {removed.name}")
        # The kernel removes the other end a moment later
        wait_until(lambda: not removed.peer.exists(), f"{removed.peer.node.name} has lost {removed.peer.name}")

    def recreate_interface(self, interface: Interface | str, *, same_index: bool = False) -> Interface:
        """Restore a removed interface with its name, addresses and cable, and a new index unless `same_index`."""
        again = self.interface(interface)
        self._cables.connect(again, again.peer, same_indexes=same_index)
        return again

    def rename_interface(self, interface: Interface | str, new_name: str) -> None:
        """Rename the interface, as udev does. Kernels before 6.2 need it down for a moment."""
        renamed = self.interface(interface)
        try:
            self.ip(f"link set {renamed.name} name {new_name}")
        except LabError:
            old = renamed.name
            self.ip(f"link set {old} down", f"link set {old} name {new_name}", f"link set {new_name} up")
        del self.interfaces[renamed.name]
        renamed.name = new_name
        self.interfaces[new_name] = renamed

    def set_link(self, interface: Interface | str, up: bool) -> None:
        """Take the interface down or up, as an administrator does.

        Down, it loses its IPv6 addresses, as on any Linux; up again, it has those that the lab gave it.
        """
        changed = self.interface(interface)
        if not up:
            self.ip(f"link set {changed.name} down")
            return
        lost = [address for address in changed.addresses if ":" in address]
        self.ip(f"link set {changed.name} up", *address_lines("replace", changed.name, lost, dad=self.dad))
        changed.wait_until_connected()

    def set_cable(self, interface: Interface | str, plugged: bool) -> None:
        """Pull the cable out at the far end, or put it back: the interface stays up and keeps its addresses."""
        changed = self.interface(interface)
        changed.peer.node.ip(f"link set {changed.peer.name} {'up' if plugged else 'down'}")
        if plugged:
            changed.wait_until_connected()

    def set_mtu(self, interface: Interface | str, mtu: int) -> None:
        """Set the largest packet, on this side of the cable only.

        Below 1280 Linux drops IPv6 from the interface, memberships included. The addresses that went that way come back
        only with `replace_address`, as on a real machine.
        """
        self.ip(f"link set {self.interface(interface).name} mtu {mtu}")

    def replace_address(self, interface: Interface | str, address: str) -> None:
        """Replace the addresses of this family by another one (with prefix length), as DHCP or a new router does."""
        changed = self.interface(interface)
        same_family = [old for old in changed.addresses if (":" in old) == (":" in address)]
        changed.addresses = [old for old in changed.addresses if old not in same_family] + [address]
        # New before old, and the new one stays without the old: else the interface would lose its routes in between
        self.set_sysctl(f"net/ipv4/conf/{changed.name}/promote_secondaries", 1)
        self.ip(*address_lines("replace", changed.name, [address], dad=self.dad))
        for old in same_family:
            if old != address:
                with contextlib.suppress(LabError):  # another fault has taken it away already
                    self.ip(*address_lines("del", changed.name, [old], dad=self.dad))
        changed.wait_until_addresses_are_usable()

    def remove_addresses(self, interface: Interface | str, *, ipv4: bool = True, ipv6: bool = True) -> None:
        """Remove the addresses, as when a DHCP lease ends; of IPv6 the link-local one too."""
        changed = self.interface(interface)
        families = [family for family, wanted in (("-4", ipv4), ("-6", ipv6)) if wanted]
        for family in families:
            self.command("ip", family, "addr", "flush", "dev", changed.name)
        gone = {":": ipv6, ".": ipv4}
        changed.addresses = [kept for kept in changed.addresses if not gone[":" if ":" in kept else "."]]

    def add_unroutable_address(self, interface: Interface | str, address: str = "172.16.9.9/32") -> str:
        """Add an address that receivers have no route to, and return it without its prefix length, to bind to."""
        self.ip(*address_lines("add", self.interface(interface).name, [address], dad=self.dad))
        return address.partition("/")[0]

    # Settings of the kernel: each returns nothing and is undone by calling it again

    def set_reverse_path_filter(self, interface: Interface | str, mode: Literal[0, 1, 2]) -> None:
        """Set rp_filter: 0 off; 1 strict and 2 loose silently drop IPv4 from sources without a (matching) route back.

        The larger of the interface's mode and that of `"all"` counts. IPv6 has no such filter.
        """
        self.set_sysctl(f"net/ipv4/conf/{self._scope(interface)}/rp_filter", mode)

    def force_igmp_version(self, interface: Interface | str, version: Literal[0, 1, 2, 3]) -> None:
        """Make the host speak this IGMP version with any querier; below 3 it cannot name sources. 0 is automatic."""
        self.set_sysctl(f"net/ipv4/conf/{self._scope(interface)}/force_igmp_version", version)

    def force_mld_version(self, interface: Interface | str, version: Literal[0, 1, 2]) -> None:
        """Make the host speak this MLD version with any querier; version 1 cannot name sources. 0 is automatic."""
        self.set_sysctl(f"net/ipv6/conf/{self._scope(interface)}/force_mld_version", version)

    def disable_ipv6(self, interface: Interface | str, disabled: bool = True) -> None:
        """Switch IPv6 off on the interface, or on again; the lab then restores the addresses that it gave."""
        scope = self._scope(interface)
        self.set_sysctl(f"net/ipv6/conf/{scope}/disable_ipv6", int(disabled))
        if not disabled:
            for changed in list(self.interfaces.values()) if scope == "all" else [self.interface(interface)]:
                lost = [address for address in changed.addresses if ":" in address]
                self.ip(*address_lines("replace", changed.name, lost, dad=self.dad))
                changed.wait_until_ready()

    def limit_memberships(self, maximum: int) -> None:
        """Limit the IPv4 groups that a socket may join before ENOBUFS (igmp_max_memberships; Linux starts with 20)."""
        self.set_sysctl("net/ipv4/igmp_max_memberships", maximum)

    def limit_sources(self, maximum: int) -> None:
        """Limit the sources that an IPv4 membership may name before ENOBUFS (igmp_max_msf; Linux starts with 10)."""
        self.set_sysctl("net/ipv4/igmp_max_msf", maximum)

    def limit_option_memory(self, maximum: int) -> None:
        """Limit the bytes of options, memberships among them, that a socket may have (net.core.optmem_max).

        IPv6 knows no other limit: beyond it a join fails with ENOMEM.
        """
        self.set_sysctl("net/core/optmem_max", maximum)

    def _scope(self, interface: Interface | str) -> str:
        return "all" if interface == "all" else self.interface(interface).name

    # Lost datagrams

    def firewall_drop(self, traffic: str = "multicast", *, direction: Direction = "input") -> DropRule:
        """Drop traffic (a sender gets EPERM) until the end of a `with` block or `remove()`; `dropped()` counts.

        `traffic`: "multicast" (all but ICMPv6), "multicast-udp", "udp", "igmp", "mld", or any nft match such as
        "ip daddr 239.1.2.3 udp dport 5000".
        """
        return firewall.drop(self, traffic, direction)

    def firewall_refuse(self, *accepted: str) -> DropRule:
        """Drop all incoming traffic except for these nft matches, such as "icmpv6 type 130"."""
        return firewall.refuse(self, list(accepted))

    def lose_datagrams(
        self,
        *,
        every: int | None = None,
        probability: float | None = None,
        traffic: str = "udp",
        direction: Direction = "input",
    ) -> DropRule:
        """Drop every n-th datagram, or each with a probability, as a bad line does. Otherwise as `firewall_drop`."""
        return firewall.lose(self, traffic, direction, every=every, probability=probability)

    # Programs

    def send_queries(
        self, interface: Interface | str, *, source: str = "0.0.0.0", source6: str = "fe80::1", response: float = 0.1
    ) -> None:
        """Send one IGMPv3 and one MLDv2 general query, like a querier that dies afterwards. See Switch.one_query."""
        traffic.send_queries(self, self.name_of(interface), source, source6, response)

    def name_of(self, interface: Interface | str) -> str:
        """Return the name of an interface of this host, `lo` included; LabError if this host was never given it."""
        return "lo" if interface == "lo" else self.interface(interface).name

    # Bridges

    def put_into_bridge(
        self, interface: Interface | str, bridge: str = "br0", *, snooping: bool = True, membership: float = 260.0
    ) -> None:
        """Make the interface a port of a new bridge, which takes its addresses, as for virtual machines.

        With `snooping`, the bridge forgets a group `membership` seconds after its last report once it has seen a query.
        """
        port = self.interface(interface)
        interval = round(membership * 100)
        self.ip(
            f"link add {bridge} type bridge mcast_snooping {int(snooping)} mcast_membership_interval {interval}",
            f"link set {bridge} up",
            f"addr flush dev {port.name}",
            f"link set {port.name} master {bridge}",
            *address_lines("add", bridge, port.addresses, dad=self.dad),
        )

    # Loopback

    def allow_ipv6_loopback(self) -> None:
        """Let `lo` carry IPv6 multicast, which no Linux machine does by itself; IPv4 multicast needs nothing."""
        with self.entered():
            route_ipv6_multicast_to_loopback()
