"""What every OS reports about this host; a class for each OS adds what only that one reports. Touches the OS.

Sends nothing and judges nothing.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Callable, Collection, Iterable, Sequence
from ipaddress import ip_address
from typing import NamedTuple, TypeVar

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.doctor.facts import (
    Bridge,
    Drop,
    FailedSends,
    FilterFacts,
    InterfaceFacts,
    IpsecPolicy,
    Lookups,
    Machine,
    Passage,
    PolicyRule,
    QueueFacts,
    Route,
    Rule,
    Sandbox,
    Target,
    Unread,
)
from multicast_expert.doctor.host.drops import named_drops
from multicast_expert.doctor.host.linux_counters import INTERFACE_COUNTERS, KERNEL_COUNTERS, growth
from multicast_expert.system import groups, routes
from multicast_expert.system.drops.counting_watch import CountingWatch, Found
from multicast_expert.system.drops.lookups import RouteLookups
from multicast_expert.system.drops.sends import FailedSend
from multicast_expert.system.drops.watch import Watch
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.system.kernel import SYSTEM
from multicast_expert.system.listings import JoinedGroup, Member, UdpSocket
from multicast_expert.wire.capture import Capture

Fact = TypeVar("Fact")


class Counters(NamedTuple):
    """Counters of the kernel and of each interface, at one moment or as grown since another."""

    kernel: dict[str, int]
    interfaces: dict[str, dict[str, int]]

    def since(self, before: Counters) -> Counters:
        """Return by how much they have grown."""
        return Counters(
            growth(before.kernel, self.kernel, KERNEL_COUNTERS),
            {
                name: growth(before.interfaces.get(name, {}), counted, INTERFACE_COUNTERS)
                for name, counted in self.interfaces.items()
            },
        )


def again_as_root(target: Target) -> str:
    """Return the command that asks the same with all privileges, quoted for a shell."""
    group = f"[{target.group}]" if target.group_version == 6 and target.port is not None else target.group
    source = "" if target.source is None else f"{target.source}@"
    port = "" if target.port is None else f":{target.port}"
    words = ["sudo", "mcast", "doctor", f"{source}{group}{port}"]
    return shlex.join(words if target.interface is None else [*words, "-i", target.interface])


class Host:
    """This host; a fact that this OS does not report is Unread.

    chosen: the indexes of the interfaces that a receiver of the target listens on.
    Every method may raise OSError when the system has no descriptors left.
    """

    def __init__(self, target: Target, chosen: Collection[int] = ()) -> None:
        self.target = target
        self.chosen = chosen
        self.scanned: list[IfaceInfo] = scan_interfaces()
        self.names: dict[int, str] = {iface.index: iface.display_name for iface in self.scanned}

    def machine(self) -> Machine:
        """Return the OS, its release, and the user."""
        user = os.geteuid() if hasattr(os, "geteuid") else None
        return Machine(SYSTEM.platform.name, SYSTEM.release(), user, False)

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
                _addresses(iface),
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
        """Return the name of the interface, or its index if it is gone."""
        return self.names.get(index, str(index))

    def loopback_route(self, group: IPAddress) -> bool | Unread | None:
        """Return whether an IPv6 group can be sent to on the loopback interface."""
        return None

    def memberships(self) -> tuple[JoinedGroup, ...] | Unread:
        """Return the groups that the host has joined."""
        try:
            return tuple(groups.joined_groups())
        except (MulticastExpertError, UserWarning) as error:
            return Unread(f"The memberships could not be read: {error}")

    def settings(self, interfaces: Iterable[str]) -> dict[str, str | Unread]:
        """Return the kernel settings that concern multicast."""
        return {}

    def sockets(self, own: Collection[int] = ()) -> tuple[UdpSocket, ...] | Unread:
        """Return the UDP sockets with the target's port, or bound to its group; without those with `own` inodes."""
        return Unread(f"{SYSTEM.platform.title} reports sockets only through other programs.")

    def firewall(self, senders: Collection[tuple[str, str]] = ()) -> tuple[Rule, ...] | Unread:
        """Return the rules that drop anything. `senders`: interfaces and addresses that datagrams came from."""
        return Unread(f"This program cannot read the firewall of {SYSTEM.platform.title}.")

    def rules(self) -> tuple[PolicyRule, ...] | Unread:
        """Return the policy rules that not every host has."""
        return ()

    def ipsec(self) -> tuple[IpsecPolicy, ...] | Unread:
        """Return the policies of IPsec."""
        return ()

    def queues(self) -> tuple[QueueFacts, ...] | Unread:
        """Return the queueing disciplines, with all that they have dropped so far."""
        return ()

    def filters(self) -> tuple[FilterFacts, ...] | Unread:
        """Return the filters of traffic control, with all that their actions got so far."""
        return ()

    def passages(self, group: IPAddress, senders: Iterable[tuple[str, str]]) -> tuple[Passage, ...]:
        """Return how the kernel would route packets of the group from these interfaces and senders."""
        return ()

    def members(self, joined: Sequence[JoinedGroup], sockets: Sequence[UdpSocket]) -> tuple[Member, ...]:
        """Return the sockets with what they joined of the target's group, as far as this user may look into them."""
        return ()

    def members_elsewhere(self, joined: Sequence[JoinedGroup]) -> tuple[Member, ...]:
        """Return the sockets with other ports whose programs joined the target's group."""
        return ()

    def sandbox(self) -> Sandbox | None:
        """Return what restricts this process; None if this OS does not say."""
        return None

    def bridges(self) -> tuple[Bridge, ...] | Unread:
        """Return the bridges of this host."""
        return ()

    def counters(self) -> Counters:
        """Return the counters at this moment; empty if this OS has none."""
        return Counters({}, {})

    def open_drop_watch(self) -> Watch | Unread:
        """Begin to count the datagrams of the group that the kernel drops, if that is allowed; close it afterwards."""
        return Unread(f"{SYSTEM.platform.title} does not tell which datagrams its kernel drops, and why.")

    def drops(self, watch: Watch) -> tuple[Drop, ...] | Unread:
        """Return what the kernel dropped since the watch began."""
        try:
            found = watch.drops()
        except OSError as error:
            return Unread(f"What the kernel dropped could not be read: {error.strerror or error}.")
        return named_drops(found, self.names)

    def open_counting_watch(self, kind: Callable[[IPAddress], CountingWatch[Found]]) -> CountingWatch[Found] | Unread:
        """Begin to count how programs send to the group, if that is allowed; close it afterwards."""
        return Unread(f"{SYSTEM.platform.title} does not report which programs send to a group.")

    def lookups(self, watch: CountingWatch[RouteLookups] | Unread) -> tuple[Lookups, ...] | Unread:
        """Return the lookups since the watch began."""

        def fact(each: RouteLookups) -> Lookups:
            interface = self.name(each.interface) if each.interface else None
            return Lookups(each.program, interface, each.asked, each.refused)

        return _counted(watch, fact)

    def failed_sends(self, watch: CountingWatch[FailedSend] | Unread) -> tuple[FailedSends, ...] | Unread:
        """Return the sends that failed since the watch began."""
        return _counted(
            watch,
            lambda each: FailedSends(
                each.program,
                str(each.own),
                None if each.peer.is_unspecified else str(each.peer),
                each.peer_port or None,
                each.is_for_groups,
                SYSTEM.platform.errors.get(each.number, str(each.number)),
                each.times,
            ),
        )

    def open_capture(self) -> Capture | Unread:
        """Begin to capture frames and queries, if that is allowed."""
        return Unread(f"This program does not capture frames on {SYSTEM.platform.title}.")


def _counted(watch: CountingWatch[Found] | Unread, fact: Callable[[Found], Fact]) -> tuple[Fact, ...] | Unread:
    """Return what a watch has counted, as facts."""
    if isinstance(watch, Unread):
        return watch
    try:
        return tuple(map(fact, watch.found()))
    except OSError as error:
        return Unread(f"The kernel could not report {watch.subject}: {error.strerror or error}.")


def _addresses(iface: IfaceInfo) -> tuple[str, ...]:
    """Return the addresses with their prefix lengths, without scopes."""
    return tuple(
        f"{ip_address(own.packed)}/{own.network.prefixlen}" for version in (4, 6) for own in iface.addresses(version)
    )
