"""Facts: what is known about a host and the multicast on it, as plain data that can be saved. Pure: touches no OS.

A fact that may be impossible to read has a type with `Unread`, which says why; it is never left out and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TypeVar

from multicast_expert.core.addresses import IPAddress
from multicast_expert.system.listings import JoinedGroup, Member, UdpSocket
from multicast_expert.wire.tallies import Frames, Queries, Reporter

Known = TypeVar("Known")


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for a fact that could not be read."""

    reason: str
    """Why, as a sentence: "Only root can read the rules of the firewall."."""
    remedy: str = ""
    """The command that reads it, or a sentence; empty if nothing helps."""


class NotRead(Exception):  # noqa: N818 - it carries an answer and ends only one check
    """Ends a check that needs a fact that is Unread."""

    def __init__(self, fact: Unread) -> None:
        super().__init__(fact.reason)
        self.fact = fact


def known(fact: Known | Unread) -> Known:
    """Return the fact. Raises NotRead if it could not be read."""
    if isinstance(fact, Unread):
        raise NotRead(fact)
    return fact


def address_of(text: str | None) -> IPAddress | None:
    """Return the address in a text, without its scope; None if the text is not an address."""
    try:
        return ip_address((text or "").partition("%")[0])
    except ValueError:
        return None


def same(first: str, second: str) -> bool:
    """Return whether two texts stand for the same address."""
    return first == second or (address_of(first) is not None and address_of(first) == address_of(second))


def interface_setting(version: int, interface: str, name: str) -> str:
    """Return the name in sysctl(8) of a per-interface setting; "all" and "default" are interfaces there.

    sysctl(8) writes a dot in the name of an interface as a slash.
    """
    return f"net.ipv{version}.conf.{interface.replace('.', '/')}.{name}"


@dataclass(frozen=True, slots=True)
class Target:
    """What is expected to arrive."""

    group: str
    """As text, without a scope; not necessarily a multicast address."""
    port: int | None = None
    """None: any."""
    source: str | None = None
    """The only requested source; None: all."""
    interface: str | None = None
    """The named interface; None: all that a receiver would listen on."""
    group_version: int | None = None
    """The IP version of the group; None if it is not an address."""
    port_found: bool = False
    """Whether no port was named, and the doctor took the one that datagrams of the group go to."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The host that the facts are about."""

    system: str
    """`linux`, `macos`, `windows` or `freebsd`."""
    release: str
    """The version of its kernel, as the OS writes it."""
    user_id: int | None
    """The user who asked; None on Windows."""
    may_capture: bool
    """Whether frames could be captured."""
    container: str | Unread | None = None
    """The engine that made this network: `docker`, `podman`, `kubernetes`, `lxc`, `wsl`; None: none of them."""


@dataclass(frozen=True, slots=True)
class InterfaceFacts:
    """A network interface."""

    name: str
    """As the OS displays it."""
    index: int
    is_up: bool
    """Whether it is switched on."""
    has_carrier: bool
    """Whether the cable, or what replaces it, is connected."""
    is_loopback: bool
    supports_multicast: bool
    mtu: int | None
    addresses: tuple[str, ...]
    """With prefix lengths and without scopes: `10.1.0.1/24`, `fe80::1/64`."""
    tentative: tuple[str, ...] = ()
    """The addresses that IPv6 does not use, because it still looks for duplicates, or found one."""
    kind: str | None = None
    """The kind by its name in the OS: `veth`, `bridge`, `tun`, `macvlan`; None for hardware and if not known."""
    is_wireless: bool = False
    bridge: str | None = None
    """The bridge of this host that it is a port of."""
    master: str | None = None
    """The interface that takes its packets: a bridge, a bond, a team; for a VRF it takes only the routes."""
    parent: str | None = None
    """The interface that it is made from: of a VLAN, a macvlan, a VXLAN."""
    mode: str = ""
    """The mode of a macvlan: `private`, `vepa`, `bridge`, `passthru`, `source`; of an ipvlan: `l2`, `l3`, `l3s`."""
    remote: str | None = None
    """Where a tunnel or a VXLAN sends groups: a group, or its one peer."""
    is_point_to_point: bool = False
    """Whether it has one peer, as tunnels have."""
    xdp: str | None = None
    """An XDP program on it, as `xdpgeneric 42`: the way to switch it off, and its number."""
    chosen: bool = False
    """Whether a receiver of the target listens on it."""
    floods_to: tuple[str, ...] | None = None
    """All places that a VXLAN sends groups to: groups or peers. None: it is not a VXLAN, or that is not known."""
    stations: tuple[str, ...] = ()
    """The only Ethernet addresses that a macvlan in mode `source` takes frames of."""
    ethernet_address: str = ""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the OS would send datagrams to an address."""

    destination: str
    """The address that was looked up."""
    interface: str | None
    """None: there is no route."""
    source: str | None = None
    """The source address of datagrams on this route."""
    gateway: str | None = None
    """The router on the way; None: the destination is on the link."""
    kind: str = "unicast"
    """`local` for this host's own addresses; `broadcast`; `blackhole`, `unreachable` and `prohibit` reject."""


@dataclass(frozen=True, slots=True)
class Passage:
    """How the kernel would route a packet of the target that comes in: it was asked while the group was joined."""

    interface: str
    sender: str
    error: str | None = None
    """The name of the errno, or the type of the route, for a packet that is dropped; None: it is delivered."""


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """A rule of `ip rule`, without those that every host has."""

    version: int
    """The IP version."""
    preference: int
    """Rules are tried by this number, the smallest first; the table `local` has 0 at first."""
    text: str
    """As in ip-rule(8): `to 10.1.0.0/24 lookup 100`."""
    by_mark: bool = False
    """Whether it is about marked packets only."""


@dataclass(frozen=True, slots=True)
class IpsecPolicy:
    """A policy of IPsec (xfrm)."""

    direction: str
    """`in`, `out` or `fwd`."""
    action: str
    """`allow` or `block`."""
    source: str
    destination: str
    """Networks with their prefix lengths."""

    @property
    def selector(self) -> str:
        """Its packets as ip-xfrm(8) writes them: `src 0.0.0.0/0 dst 239.1.2.3/32`."""
        return f"src {self.source} dst {self.destination}"

    def concerns(self, group: IPAddress) -> bool:
        """Return whether it is about packets to the group."""
        try:
            return group in ip_network(self.destination, strict=False)
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """A queueing discipline of tc(8)."""

    interface: str
    kind: str
    """`ingress`, `clsact`, `fq_codel`, `tbf`, `netem`, …"""
    handle: int
    """The first half of its handle, as in `8001:`."""
    is_ingress: bool
    drops: int | None
    """How many packets it dropped, since it exists or during the trial; None: not counted."""
    waiting: int = 0
    """How many packets wait in it, now or more than before the trial."""
    held: int = 0
    """How many packets waited in it before and after the trial."""


@dataclass(frozen=True, slots=True)
class FilterFacts:
    """A filter of tc(8) with its actions, which may take packets without dropping them."""

    interface: str
    hook: str
    """`ingress`, `egress`, or `queue` for those that sort packets into the classes of a queue."""
    kind: str
    """`u32`, `flower`, `bpf`, `matchall`, …"""
    preference: int
    """Filters are tried by this number, the smallest first."""
    action: str
    """As tc(8) writes it: `mirred redirect ifb0`, `gact stolen`; `bpf` alone for a program that decides itself."""
    diverts: bool | None
    """Whether what the action gets goes no further on its way; None: a program decides."""
    packets: int | None
    """How many packets the action got, since it exists or during the trial; None: not counted."""
    handle: int = 0
    """Its number beside others of the same preference."""


@dataclass(frozen=True, slots=True)
class Lookups:
    """How often a program of this host looked up the route to the group in order to send there."""

    program: str
    interface: str | None
    """The interface that it named; None: it lets the routing tables choose."""
    asked: int
    """Once or, over IPv6, twice for each datagram."""
    refused: int
    """How often there was no route, or one that leads nowhere."""


@dataclass(frozen=True, slots=True)
class FailedSends:
    """How often sends of a program of this host failed, from one socket and for one reason."""

    program: str
    own: str
    """The address that the socket is bound to; 0.0.0.0 and :: stand for any."""
    peer: str | None
    """The address that it is connected to; None: it is not, and where it sends to is not known."""
    peer_port: int | None
    is_for_groups: bool
    """Whether its program set an interface or a hop limit for groups over IPv4."""
    error: str
    """The name of the errno: `EINVAL`."""
    count: int


@dataclass(frozen=True, slots=True)
class Rule:
    """A firewall rule that drops something, or the policy of a chain that does."""

    tool: str
    """The tool that changes it: `nftables`, `iptables`, `ip6tables`, `iptables-legacy`, `windows`, `pf`, …"""
    chain: str
    """Its family, table and chain, as the tool writes them: `inet filter input`."""
    hook: str
    """Its place on a packet's way: `ingress`, `prerouting`, `input`; for what this host sends `output` and so on."""
    text: str
    """The rule, or `policy drop`, as the tool writes it."""
    matches: bool | None = None
    """Whether it drops datagrams of the target; None: undecidable."""
    matches_queries: bool | None = None
    """Whether it drops the queries of IGMP and MLD; None: undecidable."""
    packets: int | None = None
    """How many packets it dropped during the trial; None: it does not count."""
    handle: int | None = None
    """The number by which nftables deletes it, or its position in a chain of iptables."""
    matches_reports: bool | None = False
    """Whether it drops this host's own reports of memberships; then the hook is an outgoing one. None: undecidable."""
    action: str = "drop"
    """`drop`; `translate`: it changes the destination; `divert`: it sends elsewhere; `queue`: a program decides."""
    matches_carrier: bool | None = False
    """Whether it drops the packets of a tunnel that the target comes in by. None: undecidable."""
    matches_own: bool | None = False
    """Whether it drops datagrams that programs of this host send to the target. None: undecidable."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of this host: a switch in software."""

    name: str
    ports: tuple[str, ...]
    snooping: bool
    """Whether it sends groups only to ports with members."""
    querier: bool
    """Whether it sends queries itself."""
    other_querier: str | None = None
    """The address of the querier that it knows."""
    members: tuple[tuple[str, str], ...] | Unread = ()
    """The known memberships: group and port."""
    ports_without_flooding: tuple[str, ...] = ()
    """Ports that do not get groups without known members."""
    barred_ports: tuple[tuple[str, str], ...] = ()
    """Ports with what bars frames there: `blocking`, `isolated`, `locked`, …"""
    filters_vlans: bool = False
    """Whether it drops frames of VLANs that a port does not belong to."""


@dataclass(frozen=True, slots=True)
class JoinTrial:
    """An attempt to join."""

    interface: str
    source: str | None
    error: str | None = None
    """The name of the errno, such as `ENOBUFS`; None: it succeeded."""
    text: str = ""
    """The error with its reason and remedy."""


@dataclass(frozen=True, slots=True)
class Arrivals:
    """Datagrams of one kind that reached a socket of the doctor."""

    interface: str
    group: str
    sender: str
    sender_port: int
    hop_limit: int | None
    count: int
    first: float
    """Seconds after the start of the trial."""
    last: float
    asked: bool
    """Whether a receiver with the requested memberships gets them; else they came because the trial joined more."""
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """A datagram of the doctor, sent to the group on one interface with loopback on; it never leaves the host."""

    interface: str
    came_back: bool
    error: str | None = None
    """The name of the errno if it could not be sent."""
    sender: str | None = None
    """Its source address."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """The receive buffer of a socket, in the bytes that a program requests."""

    asked: int
    granted: int
    maximum: int | Unread | None = None
    """The most that the OS grants without privileges (`net.core.rmem_max`)."""


@dataclass(frozen=True, slots=True)
class Drop:
    """Datagrams of one kind that the kernel dropped in this network namespace, and its reason."""

    reason: str
    """By its name in the kernel, without SKB_DROP_REASON_: `NETFILTER_DROP`. NOT_SPECIFIED: only `function` tells."""
    function: str
    """The function of the kernel that dropped them, without what a compiler adds; empty if the kernel hides it."""
    interface: str | None
    """The one that they came in on; for those that this host sends, where they would leave. None: not known."""
    group: str | None
    """Their destination. None: not known, so that they may be any packets of this host."""
    port: int | None
    """Their destination port; None: not known, as in a fragment."""
    source: str | None
    """The address of their sender; None: not known."""
    outgoing: bool
    """Whether this host sent them; the copy for its own receivers comes in."""
    count: int
    """How many datagrams; how many packets if they were fragments."""
    hook: str = ""
    """The hook of netfilter where a rule dropped them, by the name that nftables has for it; empty if none did."""
    socket: int | None = None
    """The inode number of the socket that did not take them, as in UdpSocket; None: none, or not known."""


@dataclass(frozen=True, slots=True)
class Moment:
    """The growth of the kernel's counters from the start of the trial to a moment of it."""

    seconds: float
    """Since the start."""
    counters: dict[str, int]
    """Without those that stood still."""


@dataclass(frozen=True, slots=True)
class SiteBridge:
    """A bridge between sites (`mcast bridge`) that greeted on a network of this host."""

    interface: str
    address: str
    is_connected: bool
    """Whether it reaches another site."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What happened while the doctor joined and listened."""

    seconds: float
    """How long it listened."""
    widened: bool
    """Whether it listened to all sources on all interfaces for the second half, because nothing had come."""
    joins: tuple[JoinTrial, ...] = ()
    arrivals: tuple[Arrivals, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    """The growth of the kernel's counters: `Ip.InReceives`, `TcpExt.IPReversePathFilter`, `Ip6.InReceives`, …"""
    interface_counters: dict[str, dict[str, int]] = field(default_factory=dict)
    """The same for each interface: `rx_packets`, `rx_dropped`, `rx_errors`, `multicast`, `Icmp6InGroupMembQueries`."""
    frames: tuple[Frames, ...] | Unread = ()
    queries: tuple[Queries, ...] | Unread = ()
    probes: tuple[Probe, ...] = ()
    socket_drops: int | None = None
    """Datagrams that the doctor's sockets lost to a full receive buffer; None if the OS does not say."""
    sockets: tuple[UdpSocket, ...] = ()
    """The sockets of `Facts.sockets` after the trial."""
    buffer: Buffer | None = None
    revived: bool | None = None
    """Whether a stream that had stopped came again after a leave and a new join; None: not tried."""
    usual: dict[str, float] = field(default_factory=dict)
    """The growth of the kernel's counters per second just before the join, without those that stood still."""
    afterwards: dict[str, float] | None = None
    """The same just after the leave; None: not watched."""
    passages: tuple[Passage, ...] = ()
    """The routing of packets from known senders; only the kernels of Linux answer."""
    queues: tuple[QueueFacts, ...] | Unread = ()
    """The queueing disciplines, with what they dropped during the trial."""
    filters: tuple[FilterFacts, ...] | Unread = ()
    """The filters of traffic control, with what their actions got during the trial."""
    lookups: tuple[Lookups, ...] | Unread = Unread("The kernel was not asked who sends to the group.")
    failed_sends: tuple[FailedSends, ...] | Unread = Unread("The kernel was not asked whose sends fail.")
    aside: float = 0.0
    """For how many seconds the counters were watched without our membership, before and after."""
    course: tuple[Moment, ...] = ()
    """The growth of the counters at moments of the trial; only if no frames were captured."""
    drops: tuple[Drop, ...] | Unread = Unread("The kernel was not asked which datagrams it dropped.")
    """What the kernel dropped while the doctor listened; empty: nothing of the group."""
    drops_limits: str = ""
    """What `drops` does not tell, and why, in sentences."""
    any_drops: tuple[Drop, ...] = ()
    """Where `drops` is Unread: what the kernel dropped while the doctor listened, of any packets of this machine."""
    reporters: tuple[Reporter, ...] | Unread = Unread("The reports of other hosts were not captured.")
    """Other hosts that reported their membership of the group."""
    site_bridges: tuple[SiteBridge, ...] = ()
    """Listened to after the trial, if nothing arrived."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What restricts this process beyond the rights of its user."""

    seccomp: bool
    """Whether a seccomp filter decides which system calls it may make."""
    label: str = ""
    """The profile of AppArmor or the context of SELinux that it runs in; empty for none."""


@dataclass(frozen=True, slots=True)
class ReceiverFacts:
    """An open receiver to explain."""

    memberships: tuple[tuple[str, str | None, str], ...]
    """Group, source and interface."""
    blocked: tuple[tuple[str, str, str], ...]
    """Group, blocked source and interface."""
    datagrams: int
    kernel_drops: int | None
    buffer: Buffer | None = None
    port_varies: bool = False
    """Whether the OS chose the port: the next run of the program has another one."""


@dataclass(frozen=True, slots=True)
class Facts:
    """All that is known about a host and a target."""

    program: str
    """The version of this program that collected them."""
    time: float
    """When, in seconds since 1970."""
    target: Target
    machine: Machine
    interfaces: tuple[InterfaceFacts, ...] | Unread = ()
    routes: tuple[Route, ...] | Unread = ()
    """To the group, to the named source, and to every sender that was seen."""
    loopback_route: bool | Unread | None = None
    """Whether IPv6 groups can be sent to on the loopback interface; None: not relevant here."""
    memberships: tuple[JoinedGroup, ...] | Unread = ()
    """Before the trial."""
    settings: dict[str, str | Unread] = field(default_factory=dict)
    """Kernel settings by their names in sysctl(8): `net.ipv4.conf.eth0.rp_filter`."""
    sockets: tuple[UdpSocket, ...] | Unread = ()
    """UDP sockets with the target's port, or bound to its group."""
    members: tuple[Member, ...] = ()
    """The same sockets with what their programs joined, as far as this user may look into them."""
    members_elsewhere: tuple[Member, ...] = ()
    """Sockets with other ports whose programs joined the group, as far as this user may look into them."""
    firewall: tuple[Rule, ...] | Unread = ()
    """Only rules that drop."""
    bridges: tuple[Bridge, ...] | Unread = ()
    rules: tuple[PolicyRule, ...] | Unread = ()
    """Policy rules, except the usual ones."""
    ipsec: tuple[IpsecPolicy, ...] | Unread = ()
    sandbox: Sandbox | None = None
    """None where the OS does not say."""
    trial: Trial | Unread = Unread("There was no trial.")
    receiver: ReceiverFacts | None = None
