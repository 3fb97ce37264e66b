"""Facts as a person would make them up: a healthy Linux host, one on which nothing arrives, and their parts."""

from dataclasses import replace
from ipaddress import ip_address
from typing import Any

from multicast_expert.doctor.facts import (
    Arrivals,
    Bridge,
    Facts,
    InterfaceFacts,
    JoinTrial,
    Machine,
    Probe,
    Route,
    Rule,
    Target,
    Trial,
    Unread,
)
from multicast_expert.system.listings import JoinedGroup, Process, UdpSocket
from multicast_expert.wire.tallies import Frames, Queries

GROUP, GROUP6, PORT = "239.1.2.3", "ff15::1:2:3", 5000
OWN, TALKER, OWN6, TALKER6 = "10.1.0.1", "10.1.0.2", "fd01::1", "fd01::2"
ETHERNET, ETHERNET6 = "01:00:5e:01:02:03", "33:33:00:02:00:03"
SUDO = "sudo mcast doctor 239.1.2.3:5000"
ROOT_ONLY = Unread("Raw frames and queries are shown to root only.", SUDO)
RULES_UNREAD = Unread("The rules of the firewall are shown to root only.", SUDO)

ETH0 = InterfaceFacts(
    "eth0", 2, True, True, False, True, 1500, ("10.1.0.1/24", "fd01::1/64", "fe80::1/64"), kind="veth", chosen=True
)
ETH1 = InterfaceFacts("eth1", 3, True, True, False, True, 1500, ("10.7.0.1/24", "fd07::1/64"), kind="veth")
LO = InterfaceFacts("lo", 1, True, True, True, False, 65536, ("127.0.0.1/8", "::1/128"))
SILENT = {
    "Ip.InReceives": 0,
    "Ip.InDelivers": 0,
    "IpExt.InMcastPkts": 0,
    "TcpExt.IPReversePathFilter": 0,
    "Udp.InErrors": 0,
    "Udp.RcvbufErrors": 0,
    "Udp.InCsumErrors": 0,
    "Udp.IgnoredMulti": 0,
    "Ip6.InReceives": 0,
    "Ip6.InDelivers": 0,
    "Ip6.InMcastPkts": 0,
    "Udp6.InErrors": 0,
    "Udp6.RcvbufErrors": 0,
    "Udp6.IgnoredMulti": 0,
}
SETTINGS: dict[str, str | Unread] = {
    "net.ipv4.conf.all.rp_filter": "0",
    "net.ipv4.conf.eth0.rp_filter": "0",
    "net.ipv4.conf.all.accept_local": "0",
    "net.ipv4.conf.eth0.accept_local": "0",
    "net.ipv4.conf.all.force_igmp_version": "0",
    "net.ipv4.conf.eth0.force_igmp_version": "0",
    "net.ipv6.conf.eth0.disable_ipv6": "0",
    "net.ipv6.conf.eth0.force_mld_version": "0",
    "net.ipv4.igmp_max_memberships": "20",
    "net.ipv4.igmp_max_msf": "10",
    "net.core.optmem_max": "131072",
    "net.core.rmem_max": "212992",
}
QUERY = Queries("eth0", 3, "10.1.0.254", 3, 3, interval=1.0)


def arrivals(count: int = 100, interface: str = "eth0", **changes: Any) -> Arrivals:
    """Datagrams that arrived, 50 a second and until the end, as they were asked for."""
    made = Arrivals(interface, GROUP, TALKER, 40000, 1, count, 0.01, 1.99, True)
    return replace(made, **changes)


def frames(count: int = 100, interface: str = "eth0", **changes: Any) -> Frames:
    """Frames of the target that came in."""
    made = Frames(
        interface, GROUP, TALKER, 40000, PORT, 1, count, 128,
        ethernet_source="02:00:00:00:00:02", ethernet_destination=ETHERNET,
    )  # fmt: skip
    return replace(made, **changes)


def frames6(count: int = 100, **changes: Any) -> Frames:
    """The same with IPv6."""
    return frames(count, **{"group": GROUP6, "sender": TALKER6, "ethernet_destination": ETHERNET6, **changes})


def joined(interface: str = "eth0", group: str = GROUP, **changes: Any) -> JoinedGroup:
    """A membership of the host."""
    return replace(JoinedGroup(ip_address(group), interface, 2, 3, 1), **changes)


def socket(drops: int = 0, address: str = "0.0.0.0", inode: int = 77) -> UdpSocket:
    """A socket of another program on the port."""
    return UdpSocket(ip_address(address), PORT, 1000, inode, drops, (Process(4711, "player"),))


def healthy(group: str = GROUP, port: int | None = PORT, source: str | None = None, **changes: Any) -> Facts:
    """A host where datagrams arrive, looked at as root. Changes are fields of Facts, of Target, or of Trial."""
    version = ip_address(group).version
    six = version == 6
    seen = frames6() if six else frames()
    came = arrivals(group=group, sender=TALKER6) if six else arrivals(group=group)
    trial = Trial(
        2.0,
        False,
        (JoinTrial("eth0", source),),
        (came,),
        {**SILENT, "Ip.InReceives": 103, "Ip.InDelivers": 103, "IpExt.InMcastPkts": 103},
        {"eth0": {"rx_packets": 103, "rx_dropped": 0, "rx_errors": 0}, "lo": {"rx_packets": 0}},
        (replace(seen, group=group),),
        (replace(QUERY, querier="fe80::fe", version=2),) if six else (QUERY,),
        (Probe("eth0", True, None, OWN),),
        0,
    )
    facts = Facts(
        "2.0",
        1.0,
        Target(group, port, source, None, version),
        Machine("linux", "6.18", 0, True),
        interfaces=(LO, ETH0),
        routes=(Route(group, "eth0", OWN), Route(TALKER, "eth0", OWN)),
        memberships=(JoinedGroup(ip_address("224.0.0.1"), "eth0", 2, 3, 1),),
        settings=dict(SETTINGS),
        trial=trial,
    )
    return change(facts, **changes)


def deaf(group: str = GROUP, port: int | None = PORT, source: str | None = None, **changes: Any) -> Facts:
    """The same host where nothing comes in at all, not even frames; the trial was widened."""
    silent: dict[str, Any] = {
        "arrivals": (),
        "frames": (),
        "queries": (),
        "widened": True,
        "counters": dict(SILENT),
        "interface_counters": {"eth0": {"rx_packets": 0, "rx_dropped": 0, "rx_errors": 0}, "lo": {"rx_packets": 0}},
    }
    return healthy(group, port, source, **{**silent, **changes})


def unprivileged(facts: Facts, **changes: Any) -> Facts:
    """What somebody without privileges learns of it."""
    hidden = {"frames": ROOT_ONLY, "queries": ROOT_ONLY, "firewall": RULES_UNREAD}
    machine = replace(facts.machine, user_id=1000, may_capture=False)
    # What was lost was lost from the join until the leave, and nothing before and after.
    apart = {"afterwards": {}, "aside": 0.8}
    return change(facts, **{**hidden, **apart, "machine": machine, **changes})


def counted(**growth: int) -> dict[str, int]:
    """Counters that stood still, except these; a double underscore stands for the dot."""
    return {**SILENT, **{name.replace("__", "."): by for name, by in growth.items()}}


def change(facts: Facts, **changes: Any) -> Facts:
    """Facts with other values of their fields, of those of the target, or of those of the trial."""
    target = {name: value for name, value in changes.items() if name in Target.__slots__}
    of_trial = {name: value for name, value in changes.items() if name in Trial.__slots__ and name != "sockets"}
    rest = {name: value for name, value in changes.items() if name not in target and name not in of_trial}
    after = rest.pop("sockets_after", None)
    if isinstance(facts.trial, Trial):
        trial = replace(facts.trial, **of_trial, **({} if after is None else {"sockets": after}))
        rest.setdefault("trial", trial)
    return replace(facts, target=replace(facts.target, **target), **rest)


def rule(text: str = "udp dport 5000 drop", **changes: Any) -> Rule:
    """A rule of nftables that drops the target and counted it."""
    made = Rule("nftables", "inet filter input", "input", text, True, False, packets=98)
    return replace(made, **changes)


def bridge(**changes: Any) -> Bridge:
    """A snooping bridge of this host, with a port that gets only what was joined behind it."""
    return replace(Bridge("br0", ("eth0", "vnet1"), True, False, None, (), ("vnet1",)), **changes)


def set_to(facts: Facts, **values: str) -> Facts:
    """Facts with other settings; a double underscore stands for the dot."""
    changed = {f"net.{name.replace('__', '.')}": value for name, value in values.items()}
    return replace(facts, settings={**facts.settings, **changed})
