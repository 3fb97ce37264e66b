"""Facts: what is known about a host and the multicast on it, as plain data that can be saved. Pure: touches no OS.

Whatever may be impossible to read has a type with `Unread`, which says why; it is never left out and never guessed.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeVar

from multicast_expert.core.addresses import IPAddress
from multicast_expert.system.listings import JoinedGroup, UdpSocket
from multicast_expert.wire.tallies import Frames, Queries

Known = TypeVar("Known")


@dataclass(frozen=True, slots=True)
class Unread:
    """Stands for a fact that could not be read."""

    reason: str
    """Why, as a sentence: "The firewall's rules are shown to root only."."""
    remedy: str = ""
    """What to run instead; empty where nothing helps."""


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
    """Return the name in sysctl(8) of a setting that each interface has; "all" and "default" are interfaces there.

    A dot in the name of an interface is written as a slash, as sysctl(8) wants it.
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
    """The only source that is wanted; None: all."""
    interface: str | None = None
    """The interface that was named; None: all that a receiver would take."""
    group_version: int | None = None
    """The IP version of the group; None where it is no address at all."""


@dataclass(frozen=True, slots=True)
class Machine:
    """The host that the facts are about."""

    system: str
    """`linux`, `macos`, `windows` or `freebsd`."""
    release: str
    """The version of its kernel, as the OS writes it."""
    user_id: int | None
    """Who asked; None on Windows."""
    may_capture: bool
    """Whether raw frames could be read."""
    container: str | Unread | None = None
    """What it runs in: `docker`, `podman`, `kubernetes`, `lxc`, `wsl`; None: none of them."""


@dataclass(frozen=True, slots=True)
class InterfaceFacts:
    """A network interface."""

    name: str
    """As people know it."""
    index: int
    is_up: bool
    """Whether it is switched on."""
    has_carrier: bool
    """Whether there is a cable, or whatever carries it."""
    is_loopback: bool
    supports_multicast: bool
    mtu: int | None
    addresses: tuple[str, ...]
    """With prefix lengths and without scopes: `10.1.0.1/24`, `fe80::1/64`."""
    tentative: tuple[str, ...] = ()
    """Those of them that IPv6 does not use yet, because it still looks for duplicates, or found one."""
    kind: str | None = None
    """What the OS calls its kind: `veth`, `bridge`, `tun`, `macvlan`; None for hardware and where it is not told."""
    is_wireless: bool = False
    bridge: str | None = None
    """The bridge of this host that it is a port of."""
    chosen: bool = False
    """Whether it is one that the target would be received on."""


@dataclass(frozen=True, slots=True)
class Route:
    """Where the OS would send datagrams to an address."""

    destination: str
    """The address that was asked about."""
    interface: str | None
    """None: there is no route."""
    source: str | None = None
    """The address that they would leave with."""
    gateway: str | None = None
    """The router on the way; None: the destination is on the link."""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of the firewall that refuses something, or the policy of a chain that does."""

    tool: str
    """What shows and changes it: `nftables`, `iptables`, `ip6tables`, `iptables-legacy`, `windows`, `pf`, …"""
    chain: str
    """Where it stands: family, table and chain, as the tool writes them: `inet filter input`."""
    hook: str
    """The point on the way of a packet: `prerouting`, `input`, `ingress`; `output` and so on where this host sends."""
    text: str
    """The rule, or `policy drop`, as the tool writes it."""
    matches: bool | None = None
    """Whether it refuses datagrams of the target; None: cannot be told."""
    matches_queries: bool | None = None
    """Whether it refuses the queries of IGMP and MLD; None: cannot be told."""
    packets: int | None = None
    """How many packets it refused while we listened; None: it does not count."""
    handle: int | None = None
    """The number that nftables deletes it by, or its position in a chain of iptables."""
    matches_reports: bool | None = False
    """Whether it keeps this host's own reports of its memberships from leaving; then the hook is `output`,
    `postrouting` or `egress`. None: cannot be told."""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge of this host: a switch made of software."""

    name: str
    ports: tuple[str, ...]
    snooping: bool
    """Whether it sends groups only where somebody has joined."""
    querier: bool
    """Whether it asks for memberships itself."""
    other_querier: str | None = None
    """The querier that it has heard."""
    members: tuple[tuple[str, str], ...] | Unread = ()
    """Group and port of what it knows to be joined."""
    ports_without_flooding: tuple[str, ...] = ()
    """Ports that groups nobody is known to have joined are not sent to."""


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
    """Datagrams that reached one of our sockets; those of a kind are counted together."""

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
    """Whether a receiver as it was asked for gets them; else they came only because the trial joined more widely."""
    truncated: int = 0


@dataclass(frozen=True, slots=True)
class Probe:
    """A datagram of our own, sent to a group of ours on one interface with loopback on; it never leaves the host."""

    interface: str
    came_back: bool
    error: str | None = None
    """The name of the errno where it could not be sent."""
    sender: str | None = None
    """The address that it left with."""


@dataclass(frozen=True, slots=True)
class Buffer:
    """The receive buffer of a socket, in the bytes that a program asks for."""

    asked: int
    granted: int
    maximum: int | Unread | None = None
    """What the OS grants at most without privileges (`net.core.rmem_max`)."""


@dataclass(frozen=True, slots=True)
class Moment:
    """How far the kernel's counters had grown at a moment of the trial."""

    seconds: float
    """After its start."""
    counters: dict[str, int]
    """Those that stood still are missing."""


@dataclass(frozen=True, slots=True)
class Trial:
    """What happened while we joined and listened."""

    seconds: float
    """How long."""
    widened: bool
    """Whether the second half of the time was listened to all sources and on all interfaces, since nothing came."""
    joins: tuple[JoinTrial, ...] = ()
    arrivals: tuple[Arrivals, ...] = ()
    counters: dict[str, int] = field(default_factory=dict)
    """By how much the kernel's counters grew: `Ip.InReceives`, `TcpExt.IPReversePathFilter`, `Ip6.InReceives`, …"""
    interface_counters: dict[str, dict[str, int]] = field(default_factory=dict)
    """The same for each interface: `rx_packets`, `rx_dropped`, `rx_errors`, `multicast`, `Icmp6InGroupMembQueries`."""
    frames: tuple[Frames, ...] | Unread = ()
    queries: tuple[Queries, ...] | Unread = ()
    probes: tuple[Probe, ...] = ()
    socket_drops: int | None = None
    """Datagrams that our sockets lost because their receive buffer was full; None where the OS does not say."""
    sockets: tuple[UdpSocket, ...] = ()
    """The sockets of `Facts.sockets` after the trial."""
    buffer: Buffer | None = None
    revived: bool | None = None
    """Whether datagrams that had come and stopped came again after we had left and joined anew; None: not tried."""
    usual: dict[str, float] = field(default_factory=dict)
    """By how much the kernel's counters grew in a second just before we joined; those that stood still are missing."""
    afterwards: dict[str, float] | None = None
    """The same just after we had left; None: was not looked at."""
    aside: float = 0.0
    """For how many seconds the counters were watched without our membership, before and after."""
    course: tuple[Moment, ...] = ()
    """How the counters grew meanwhile; only where frames were not seen."""


@dataclass(frozen=True, slots=True)
class ReceiverFacts:
    """An open receiver that is to be explained."""

    memberships: tuple[tuple[str, str | None, str], ...]
    """Group, source and interface."""
    blocked: tuple[tuple[str, str, str], ...]
    """Group, blocked source and interface."""
    datagrams: int
    kernel_drops: int | None
    buffer: Buffer | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """All that was found out about a host and a target."""

    program: str
    """Which version of this program collected them."""
    time: float
    """When, in seconds since 1970."""
    target: Target
    machine: Machine
    interfaces: tuple[InterfaceFacts, ...] | Unread = ()
    routes: tuple[Route, ...] | Unread = ()
    """To the group, to the source that was named, and to every sender that was seen."""
    loopback_route: bool | Unread | None = None
    """Whether IPv6 groups can be sent to on the loopback interface; None: that is no question here."""
    memberships: tuple[JoinedGroup, ...] | Unread = ()
    """Before the trial."""
    settings: dict[str, str | Unread] = field(default_factory=dict)
    """Settings of the kernel by their names in sysctl(8): `net.ipv4.conf.eth0.rp_filter`."""
    sockets: tuple[UdpSocket, ...] | Unread = ()
    """UDP sockets with the target's port, or bound to its group."""
    firewall: tuple[Rule, ...] | Unread = ()
    """Only what refuses."""
    bridges: tuple[Bridge, ...] | Unread = ()
    trial: Trial | Unread = Unread("Nothing was tried.")
    receiver: ReceiverFacts | None = None
