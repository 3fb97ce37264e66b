"""What Linux reports about this host, by /proc and netlink. Touches the OS, sends nothing, judges nothing.

All of it is about the network namespace of the calling thread: /proc/thread-self/net, /proc/sys/net and netlink are;
/sys may show another one.
"""

from __future__ import annotations

import errno
import shlex
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from ipaddress import IPv6Address, ip_address
from pathlib import Path
from typing import TypeAlias

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import (
    Bridge,
    FilterFacts,
    InterfaceFacts,
    IpsecPolicy,
    Machine,
    Passage,
    PolicyRule,
    QueueFacts,
    Route,
    Rule,
    Sandbox,
    Target,
    Unread,
    interface_setting,
)
from multicast_expert.doctor.firewall.chains import UDP, Packet
from multicast_expert.doctor.host import linux_counters, linux_filters, linux_messages
from multicast_expert.doctor.host.any_os import Counters, Host, again_as_root
from multicast_expert.doctor.host.linux_container import container
from multicast_expert.doctor.host.linux_firewall import read_firewall
from multicast_expert.system import groups, netlink
from multicast_expert.system.drops.counting_watch import CountingWatch, Found
from multicast_expert.system.drops.refusals import ONLY_ROOT
from multicast_expert.system.drops.watch import Watch, open_watch
from multicast_expert.system.kernel import SYSTEM
from multicast_expert.system.linux import ask
from multicast_expert.system.listings import JoinedGroup, Member, UdpSocket, parse_loopback_route, parse_tentative
from multicast_expert.wire.capture import Capture
from multicast_expert.wire.packet_socket import may_capture

LISTED = 100
"""Policy rules that are kept at most."""
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}
_WITHOUT_QUEUES = ("noqueue", "")
_PORT_STATES = {0: "disabled", 1: "listening", 2: "learning", 4: "blocking"}
_NET = Path("/proc/thread-self/net")
_SYSCTL = Path("/proc/sys")
_SETTINGS = (
    "net.ipv4.igmp_max_memberships",
    "net.ipv4.igmp_max_msf",
    "net.ipv4.ip_forward",
    "net.ipv6.mld_max_msf",
    "net.core.rmem_max",
    "net.core.rmem_default",
    "net.core.optmem_max",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ipfrag_high_thresh",
    "net.ipv6.ip6frag_high_thresh",
)
_INTERFACE_SETTINGS = {
    4: (
        "rp_filter",
        "accept_local",
        "force_igmp_version",
        "mc_forwarding",
        "src_valid_mark",
        "disable_policy",
    ),
    6: ("disable_ipv6", "force_mld_version", "mc_forwarding"),
}
# The groups that each bridge knows with their ports, by the index of the bridge.
_Members: TypeAlias = dict[int, list[tuple[str, int]]] | Unread


class LinuxHost(Host):
    """This host, running Linux."""

    def __init__(self, target: Target, chosen: Collection[int] = ()) -> None:
        super().__init__(target, chosen)
        self._links = self._read_links()

    def _read_links(self) -> dict[int, netlink.Link] | Unread:
        try:
            found = (netlink.parse_link(body) for body in ask(netlink.link_request()))
            return {link.number: link for link in found if link is not None}
        except OSError as error:
            return Unread(f"The kernel's list of links (rtnetlink) could not be read: {error.strerror}.")

    def machine(self) -> Machine:
        """Return the OS, its release, the user, and what it runs in."""
        return replace(super().machine(), may_capture=may_capture(), container=container())

    def interfaces(self) -> tuple[InterfaceFacts, ...] | Unread:
        """Return all network interfaces, with the details that netlink adds."""
        common = super().interfaces()
        if isinstance(common, Unread) or isinstance(self._links, Unread):
            return common
        tentative = parse_tentative(_read(_NET / "if_inet6"))
        wireless = {line.partition(":")[0].strip() for line in _read(_NET / "wireless").splitlines()}
        return tuple(
            self._interface(facts, tentative.get(facts.index, ()), facts.name in wireless or _is_wireless(facts))
            for facts in common
        )

    def _interface(self, facts: InterfaceFacts, tentative: Iterable[str], is_wireless: bool) -> InterfaceFacts:
        link = None if isinstance(self._links, Unread) else self._links.get(facts.index)
        facts = replace(facts, tentative=tuple(tentative), is_wireless=is_wireless)
        if link is None:
            return facts
        bridge = self._bridge_of(link)
        return replace(
            facts,
            is_up=link.is_up,
            has_carrier=link.has_carrier,
            mtu=link.mtu,
            kind=link.kind,
            bridge=None if bridge is None else bridge.name,
            master=self._link_name(link.master),
            parent=self._link_name(link.parent) if link.kind != "veth" else None,
            mode=link.mode,
            remote=None if link.remote is None else str(link.remote),
            is_point_to_point=link.is_point_to_point,
            xdp=None if link.xdp is None else " ".join(map(str, link.xdp)),
            floods_to=_flooding(link.number) if link.kind == "vxlan" and facts.chosen else None,
            stations=tuple(each.hex(":") for each in link.stations),
            ethernet_address=link.hardware_address.hex(":"),
        )

    def _link_name(self, index: int | None) -> str | None:
        link = None if isinstance(self._links, Unread) or not index else self._links.get(index)
        return None if link is None else link.name

    def _bridge_of(self, link: netlink.Link) -> netlink.Link | None:
        if link.master is None or isinstance(self._links, Unread):
            return None
        master = self._links.get(link.master)
        return master if master is not None and master.bridge is not None else None

    def route(self, destination: IPAddress) -> Route:
        """Return where datagrams to the address would leave, as the kernel decides."""
        family = _FAMILIES[destination.version]
        kind = "unicast"
        try:
            for body in ask(netlink.route_request(destination, family)):
                kind = linux_messages.parse_route_type(body) or kind
                found = netlink.parse_route(body)
                if found is not None:
                    source, gateway = (None if each is None else str(each) for each in (found.source, found.gateway))
                    return Route(str(destination), self.name(found.interface_index), source, gateway, kind)
        except OSError as error:
            # What a rejecting route answers to a sender: fib_props in the kernel's net/ipv4/fib_semantics.c.
            kind = {errno.EINVAL: "blackhole", errno.EACCES: "prohibit", errno.EHOSTUNREACH: "unreachable"}.get(
                error.errno or 0, kind
            )
        return Route(str(destination), None, kind=kind)

    def passages(self, group: IPAddress, senders: Iterable[tuple[str, str]]) -> tuple[Passage, ...]:
        """Return how the kernel would route packets of the group from these interfaces and senders."""
        found = []
        for interface, sender in senders:
            index = next((index for index, name in self.names.items() if name == interface), None)
            source = None if not sender else ip_address(sender)
            if index is None or source is None or source.version != group.version:
                continue
            request = linux_messages.arrival_request(group, source, index, _FAMILIES[group.version])
            error = None
            try:
                for body in ask(request):
                    kind = linux_messages.parse_route_type(body)
                    error = None if kind in ("local", "broadcast") else kind
            except OSError as refusal:
                # Where IPv6 would deliver to this host, its answer does not fit the message (ip6mr_get_route()).
                error = None if refusal.errno == errno.EMSGSIZE else errno.errorcode.get(refusal.errno or 0, "error")
            found.append(Passage(interface, sender, error))
        return tuple(found)

    def rules(self) -> tuple[PolicyRule, ...] | Unread:
        """Return the policy rules that not every host has."""
        found: list[PolicyRule] = []
        try:
            for version, family in _FAMILIES.items():
                parsed = (
                    linux_messages.parse_rule(body, version) for body in ask(linux_messages.rules_request(family))
                )
                found += [each for each in parsed if each is not None]
        except OSError as error:
            return Unread(f"The policy rules could not be read: {error.strerror}.", "ip rule show")
        return tuple(found[:LISTED])

    def ipsec(self) -> tuple[IpsecPolicy, ...] | Unread:
        """Return the policies of IPsec."""
        try:
            found = map(linux_messages.parse_policy, ask(linux_messages.policies_request(), linux_messages.IPSEC))
            return tuple(each for each in found if each is not None)[:LISTED]
        except OSError as error:
            return Unread(f"The policies of IPsec could not be read: {error.strerror}.", "sudo ip xfrm policy show")

    def queues(self) -> tuple[QueueFacts, ...] | Unread:
        """Return the queueing disciplines, with all that they have dropped so far."""
        try:
            parsed = (linux_messages.parse_queue(body, self.names) for body in ask(linux_messages.queues_request()))
            return tuple(each for each in parsed if each is not None and each.kind not in _WITHOUT_QUEUES)
        except OSError as error:
            return Unread(f"The queues of the interfaces could not be read: {error.strerror}.", "tc -s qdisc show")

    def filters(self) -> tuple[FilterFacts, ...] | Unread:
        """Return the filters of traffic control, with all that their actions got so far."""
        queues = self.queues()
        if isinstance(queues, Unread):
            return queues
        found: list[FilterFacts] = []
        indexes = {name: index for index, name in self.names.items()}
        for question, hook in linux_filters.filters_requests(queues[:LISTED], indexes):
            try:
                for body in ask(question):
                    found += linux_filters.parse_filter(body, hook, self.names)
            except OSError as error:
                # A queue without classes has no filters (EOPNOTSUPP), one that is gone neither (EINVAL).
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL, errno.ENODEV):
                    return Unread(f"The filters of traffic control could not be read: {error.strerror}.")
        return tuple(found[:LISTED])

    def members(self, joined: Sequence[JoinedGroup], sockets: Sequence[UdpSocket]) -> tuple[Member, ...]:
        """Return the sockets with what they joined of the target's group, as far as this user may look into them."""
        group = [each for each in joined if str(each.group) == self.target.group]
        return tuple(SYSTEM.members(sockets, group))

    def members_elsewhere(self, joined: Sequence[JoinedGroup]) -> tuple[Member, ...]:
        """Return the sockets with other ports whose programs joined the target's group."""
        port, group = self.target.port, self.target.group
        if port is None or all(str(each.group) != group for each in joined):
            return ()
        others = groups.udp_sockets(lambda each: each.port != port and each.address.is_unspecified)
        return tuple(each for each in self.members(joined, others[:LISTED]) if each.memberships)

    def sandbox(self) -> Sandbox | None:
        """Return what restricts this process."""
        status = dict(line.split(":", 1) for line in _read(Path("/proc/self/status")).splitlines() if ":" in line)
        if "Seccomp" not in status:
            return None
        label = _read(Path("/proc/self/attr/current")).strip("\0\n ")
        return Sandbox(status["Seccomp"].strip() == "2", "" if label == "unconfined" else label)

    def loopback_route(self, group: IPAddress) -> bool | Unread | None:
        """Return whether the routing tables have a route for the IPv6 group on the loopback interface."""
        if group.version == 4:
            return None
        try:
            text = (_NET / "ipv6_route").read_text()
        except OSError as error:
            return Unread(f"The IPv6 routes could not be read: {error.strerror}.")
        assert isinstance(group, IPv6Address)
        return parse_loopback_route(text, group)

    def settings(self, interfaces: Iterable[str]) -> dict[str, str | Unread]:
        """Return the kernel settings that concern multicast, by their names in sysctl(8)."""
        names = [*_SETTINGS]
        for version, settings in _INTERFACE_SETTINGS.items():
            for interface in ("all", *interfaces):
                names += [interface_setting(version, interface, setting) for setting in settings]
        return {name: _setting(name) for name in names}

    def sockets(self, own: Collection[int] = ()) -> tuple[UdpSocket, ...] | Unread:
        """Return the UDP sockets with the target's port, or bound to its group; without those with `own` inodes."""
        port, group = self.target.port, self.target.group
        found = groups.udp_sockets(
            lambda each: each.inode not in own and (each.port == port or str(each.address) == group)
        )
        return tuple(found)

    def firewall(self, senders: Collection[tuple[str, str]] = ()) -> tuple[Rule, ...] | Unread:
        """Return the rules of nftables and iptables that drop anything."""
        chosen = [self.name(index) for index in self.chosen]
        links = (
            [] if isinstance(self._links, Unread) else [each for each in self._links.values() if each.name in chosen]
        )
        bridges = [each.name for each in links if each.bridge is not None]
        carriers = [packet for each in links for packet in self._carriers(each)]
        return read_firewall(self.target, chosen, senders, again_as_root(self.target), bridges, carriers)

    def _carriers(self, link: netlink.Link) -> Iterator[Packet]:
        """Yield the packets by which the peer of a tunnel sends what comes out of it here."""
        below = next((each for each in self.scanned if each.index == link.parent), None)
        if link.tunnel_port is None or below is None or link.remote is None:
            return
        source = None if link.remote.is_multicast else link.remote
        places = (
            [link.remote] if link.remote.is_multicast else [each.ip for each in below.addresses(link.remote.version)]
        )
        for place in places:
            yield Packet(ip_address(place.packed), below.display_name, UDP, source, link.tunnel_port)

    def bridges(self) -> tuple[Bridge, ...] | Unread:
        """Return the bridges of this host, the groups that they know, and their queriers."""
        if isinstance(self._links, Unread):
            return self._links
        links = self._links.values()
        members = _bridge_members() if any(link.bridge for link in links) else {}
        return tuple(
            self._bridge(link, link.bridge, [port for port in links if port.master == link.number], members)
            for link in links
            if link.bridge is not None
        )

    def _bridge(
        self, link: netlink.Link, state: netlink.BridgeState, ports: Sequence[netlink.Link], members: _Members
    ) -> Bridge:
        others = [str(querier.address) for querier in state.queriers if querier.is_other]
        known: tuple[tuple[str, str], ...] | Unread
        if isinstance(members, Unread):
            known = members
        else:
            known = tuple((group, self.name(port)) for group, port in members.get(link.number, ()))
        return Bridge(
            link.name,
            tuple(port.name for port in ports),
            state.snooping,
            state.querier,
            others[0] if others else None,
            known,
            tuple(link.name for link in ports if link.port is not None and not link.port.floods),
            tuple((link.name, why) for link in ports if (why := _barred(link))),
            state.filters_vlans,
        )

    def counters(self) -> Counters:
        """Return the counters of the kernel and of each interface at this moment."""
        kernel = linux_counters.parse_snmp(_read(_NET / "snmp")) | linux_counters.parse_snmp(_read(_NET / "netstat"))
        kernel |= linux_counters.parse_snmp6(_read(_NET / "snmp6"))
        kernel |= linux_counters.parse_xfrm(_read(_NET / "xfrm_stat"))
        interfaces = linux_counters.parse_devices(_read(_NET / "dev"))
        for name in {self.name(index) for index in self.chosen} & {*interfaces}:
            interfaces[name] |= linux_counters.parse_interface_snmp6(_read(_NET / "dev_snmp6" / name))
        return Counters(kernel, interfaces)

    def open_drop_watch(self) -> Watch | Unread:
        """Begin to count the datagrams of the group that the kernel drops, which it allows to root."""
        try:
            return open_watch([ip_address(self.target.group)])
        except MulticastExpertError as refused:
            helps = str(refused) == ONLY_ROOT
            return Unread(str(refused), again_as_root(self.target) if helps else "")
        except OSError as error:
            return Unread(f"The kernel could not count what it drops: {error.strerror}.")

    def open_counting_watch(self, kind: Callable[[IPAddress], CountingWatch[Found]]) -> CountingWatch[Found] | Unread:
        """Begin to count how programs send to the group, which the kernel allows to root."""
        try:
            return kind(ip_address(self.target.group))
        except MulticastExpertError as refused:
            return Unread(str(refused), again_as_root(self.target) if str(refused) == ONLY_ROOT else "")

    def open_capture(self) -> Capture | Unread:
        """Begin to capture frames and queries, which the kernel allows to root (CAP_NET_RAW)."""
        links = {} if isinstance(self._links, Unread) else self._links
        # Packets on these ports belong to their master (bridge, bond), not to our sockets.
        parts = [link.name for link in links.values() if link.master is not None]
        try:
            return Capture(ip_address(self.target.group), parts, self.chosen)
        except PermissionError:
            return Unread("Only root can capture frames and queries (CAP_NET_RAW).", again_as_root(self.target))
        except OSError as error:
            return Unread(f"Frames and queries could not be captured: {error.strerror}.")


def _flooding(index: int) -> tuple[str, ...] | None:
    """Return the places that a VXLAN sends groups to; None if they could not be read."""
    try:
        found = [netlink.parse_flooding(body) for body in ask(netlink.flooding_request())]
        return tuple(str(each[1]) for each in found if each is not None and each[0] == index)
    except OSError:
        return None


def _barred(link: netlink.Link) -> str:
    """Return what keeps frames from passing between this port of a bridge and others; empty for nothing."""
    if link.port is None:
        return ""
    # A bridge disables a port without a carrier or a port that is switched off by itself.
    state = _PORT_STATES.get(link.port.state, "") if link.is_up and link.has_carrier else ""
    bars = [state, "isolated" if link.port.isolated else "", "locked" if link.port.locked else ""]
    return ", ".join(each for each in bars if each)


def _bridge_members() -> _Members:
    members: dict[int, list[tuple[str, int]]] = {}
    try:
        for body in ask(netlink.members_request()):
            for each in netlink.parse_members(body):
                members.setdefault(each.bridge, []).append((str(each.group), each.port))
    except OSError as error:
        return Unread(f"The group tables of the bridges could not be read: {error.strerror}.", "bridge mdb show")
    return members


def _read(path: Path) -> str:
    """Return the text of a file, with names as Python writes them; empty if the file is missing or not readable.

    Raises OSError if there is no descriptor left: an empty text would look like counters that went back to zero.
    """
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape")
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise
        return ""


def _setting(name: str) -> str | Unread:
    """Return a setting; in sysctl(8) a slash in a name stands for a dot in an interface's name."""
    path = _SYSCTL / name.translate(str.maketrans("./", "/."))
    try:
        return path.read_bytes().decode("utf-8", "surrogateescape").strip()
    except FileNotFoundError:
        return Unread("This kernel has no such setting.")
    except OSError as error:
        return Unread(f"The setting could not be read: {error.strerror}.", shlex.join(["sudo", "sysctl", name]))


def _is_wireless(facts: InterfaceFacts) -> bool:
    """Return whether /sys lists it as wireless, unless /sys shows the interface of another namespace."""
    directory = Path("/sys/class/net") / facts.name
    return (directory / "phy80211").exists() and _read(directory / "ifindex").strip() == str(facts.index)
