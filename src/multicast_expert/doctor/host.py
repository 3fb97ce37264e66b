"""What every OS tells about itself: the collector that all systems share, and that those which tell more extend.

Touches the OS, sends nothing, judges nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterable
from ipaddress import ip_address
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.doctor.facts import Bridge, InterfaceFacts, Machine, Route, Rule, Target, Unread
from multicast_expert.system import groups, routes
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.system.kernel import SYSTEM
from multicast_expert.system.listings import JoinedGroup, UdpSocket
from multicast_expert.wire.capture import Capture


class Counters(NamedTuple):
    """Counters of the kernel and of each interface, at one moment."""

    kernel: dict[str, int]
    interfaces: dict[str, dict[str, int]]


def again_as_root(target: Target) -> str:
    """Return the command that asks the same with all privileges."""
    group = f"[{target.group}]" if target.group_version == 6 and target.port is not None else target.group
    source = "" if target.source is None else f"{target.source}@"
    port = "" if target.port is None else f":{target.port}"
    words = ["sudo", "mcast", "doctor", f"{source}{group}{port}"]
    # Names may hold anything, and a shell is to read them.
    return shlex.join(words if target.interface is None else [*words, "-i", target.interface])


class Host:
    """This host, as far as any OS describes it; what it does not tell is Unread."""

    def __init__(self, target: Target, chosen: Collection[int] = ()) -> None:
        self.target = target
        self.chosen = chosen
        """The indexes of the interfaces that the target would be received on."""
        self.scanned: list[IfaceInfo] = scan_interfaces()
        self.names: dict[int, str] = {iface.index: iface.display_name for iface in self.scanned}

    def machine(self) -> Machine:
        """Return what it is and who asks."""
        user = os.geteuid() if hasattr(os, "geteuid") else None
        return Machine(SYSTEM.platform.name, SYSTEM.release(), user, False, self.container())

    def container(self) -> str | Unread | None:
        """Return what it runs in."""
        return None

    def interfaces(self) -> tuple[InterfaceFacts, ...] | Unread:
        """Return all network interfaces."""
        return tuple(
            InterfaceFacts(
                iface.display_name,
                iface.index,
                iface.is_up,
                iface.is_up,
                iface.is_loopback,
                iface.supports_multicast,
                iface.mtu,
                addresses(iface),
                chosen=iface.index in self.chosen,
            )
            for iface in self.scanned
        )

    def route(self, destination: IPAddress) -> Route:
        """Return where datagrams to the address would leave."""
        index = routes.interface_index(destination)
        source = routes.source_address(destination.version, str(destination))
        return Route(str(destination), None if index is None else self.name(index), source)

    def name(self, index: int) -> str:
        """Return the name of the interface, or its index where it is gone."""
        return self.names.get(index, str(index))

    def loopback_route(self, group: IPAddress) -> bool | Unread | None:
        """Return whether an IPv6 group can be sent to on the loopback interface."""
        return None

    def memberships(self) -> tuple[JoinedGroup, ...] | Unread:
        """Return what the host has joined."""
        try:
            return tuple(groups.joined_groups())
        except (OSError, MulticastExpertError, UserWarning) as error:
            return Unread(f"The memberships could not be read: {error}")

    def settings(self, interfaces: Iterable[str]) -> dict[str, str | Unread]:
        """Return the settings of the kernel that decide about multicast."""
        return {}

    def sockets(self) -> tuple[UdpSocket, ...] | Unread:
        """Return the UDP sockets with the target's port, or bound to its group."""
        return Unread(f"{SYSTEM.platform.title} shows who holds a port by other programs only.")

    def firewall(self, senders: Collection[tuple[str, str]] = ()) -> tuple[Rule, ...] | Unread:
        """Return the rules that refuse something. `senders`: interfaces and addresses that datagrams came from."""
        return Unread(f"The firewall of {SYSTEM.platform.title} cannot be read by this program.")

    def bridges(self) -> tuple[Bridge, ...] | Unread:
        """Return the bridges that this host has."""
        return ()

    def counters(self) -> Counters:
        """Return the counters as they are now; empty where there are none."""
        return Counters({}, {})

    def open_capture(self) -> Capture | Unread:
        """Begin to watch the raw frames and the queries, where that is allowed."""
        return Unread(f"This program does not look at raw frames on {SYSTEM.platform.title}.")


def addresses(iface: IfaceInfo) -> tuple[str, ...]:
    """Return the addresses with their prefix lengths, without scopes."""
    return tuple(
        f"{ip_address(own.packed)}/{own.network.prefixlen}" for version in (4, 6) for own in iface.addresses(version)
    )
