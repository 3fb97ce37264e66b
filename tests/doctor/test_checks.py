"""Each check on facts made by hand: what they prove, what they only suggest, and what they leave open."""

from dataclasses import replace
from functools import partial
from ipaddress import ip_address
from typing import Any, NamedTuple

import pytest

from doctor.hand_made import (
    ETH0,
    ETH1,
    GROUP,
    LO,
    OWN,
    PORT,
    QUERY,
    ROOT_ONLY,
    SILENT,
    SUDO,
    TALKER,
    TALKER6,
    arrivals,
    bridge,
    change,
    counted,
    deaf,
    frames,
    frames6,
    healthy,
    joined,
    rule,
    set_to,
    socket,
    unprivileged,
)
from multicast_expert.doctor.checks import CHECKS, check_name
from multicast_expert.doctor.evidence.sightings import trial_of
from multicast_expert.doctor.facts import (
    Buffer,
    Drop,
    Facts,
    FailedSends,
    FilterFacts,
    IpsecPolicy,
    JoinTrial,
    Lookups,
    Machine,
    Moment,
    Passage,
    PolicyRule,
    Probe,
    QueueFacts,
    ReceiverFacts,
    Route,
    Sandbox,
    SiteBridge,
    Unread,
)
from multicast_expert.doctor.judgement import examine
from multicast_expert.doctor.report import Finding
from multicast_expert.system.listings import Member, Membership, SourceUse
from multicast_expert.wire.frames import HEADER_CHECKSUM

FAR = "10.2.0.2"
UNKNOWN = Unread("Could not be read.", "look elsewhere")
NOT_TRIED = change(deaf(), trial=UNKNOWN)
BEHIND_A_ROUTER = (Route(FAR, "eth0", OWN, "10.1.0.254"), Route("224.0.0.200", "eth0", OWN, "10.1.0.254"))
FLOODED = {"eth0": {"rx_packets": 90}, "lo": {"rx_packets": 0}}
CUT_OFF = SiteBridge("eth0", "10.1.0.9", False)
VXLAN = replace(ETH0, kind="vxlan", floods_to=())
MACVLAN = replace(ETH0, kind="macvlan", mode="bridge", parent="eth1")
OTHER_MACVLAN = replace(ETH1, name="mv0", kind="macvlan", mode="bridge", parent="eth0", addresses=("10.1.0.9/24",))
SOURCE_MODE = replace(MACVLAN, mode="source", stations=("02:00:00:00:00:07",))
LOSING = FailedSends("sender", "10.1.0.9", None, None, True, "ENETUNREACH", 99)
TOO_LONG = FailedSends("sender", "0.0.0.0", None, None, False, "EMSGSIZE", 99)
OWN_STATION = "02:00:00:00:00:01"
STATION = replace(ETH0, ethernet_address=OWN_STATION)
BLOCKS_ONE = ReceiverFacts((("239.1.2.3", None, "eth0"),), (("239.1.2.3", "10.1.0.7", "eth0"),), 0, 0)
STRICT = set_to(deaf(frames=(frames(sender="172.16.9.9"),)), ipv4__conf__eth0__rp_filter="1")
FILTERED = change(STRICT, counters=counted(Ip__InReceives=100, TcpExt__IPReversePathFilter=100))
FIREWALLED = counted(Ip__InReceives=100, IpExt__InMcastPkts=100)
FEW = counted(Ip__InReceives=6, IpExt__InMcastPkts=6)
SKEWED = counted(Ip__InReceives=2000, IpExt__InMcastPkts=2000, Ip__InDelivers=1992)
NO_REPORT = counted(Ip__OutRequests=4, Ip__OutTransmits=2)
MOST_REFUSED = counted(Ip__InReceives=100, IpExt__InMcastPkts=100, Ip__InDelivers=12)
BAD_HEADERS = counted(Ip__InReceives=90, Ip__InHdrErrors=90, IpExt__InCsumErrors=90)
OTHERS_REPORT = counted(Ip__InReceives=4, IpExt__OutMcastPkts=4)
LOOPED = {"eth0": {"rx_packets": 0}, "lo": {"rx_packets": 2}}
ON_LOOPBACK = arrivals(interface="lo", asked=False)
TO_OTHERS = {"Ip.InReceives": 50, "Ip.InDelivers": 50, "IpExt.InMcastPkts": 50, "IpExt.InMcastOctets": 6400}
KEPT_PIECES = deaf(
    frames=(frames(20, fragments=20), frames(40, fragments=40, port=None, sender_port=None)),
    counters=counted(Ip__InReceives=60, IpExt__InMcastPkts=20, Ip__ReasmReqds=20),
)
CEASED = healthy(arrivals=(arrivals(50, last=1.0),), seconds=5.0, queries=())
ELSEWHERE = deaf(interface="eth0", interfaces=(LO, ETH0, ETH1), arrivals=(arrivals(interface="eth1", asked=False),))
OUT_OF_ETH1 = arrivals(interface="eth1", sender="10.7.0.1", asked=False)
SENT_ELSEWHERE = deaf(interface="eth0", interfaces=(LO, ETH0, ETH1), arrivals=(OUT_OF_ETH1,))
SENT_ELSEWHERE6 = deaf(
    group="ff15::1", interface="eth0", interfaces=(LO, ETH0, replace(ETH1, addresses=("fe80::7/64",))),
    arrivals=(arrivals(interface="eth1", group="ff15::1", sender="fe80:0::7%eth1", asked=False),),
)  # fmt: skip
DOCKER = replace(ETH0, addresses=("172.17.0.2/16",))
ON_LO = (replace(LO, chosen=True), replace(ETH0, chosen=False))
BLOCKS_ALL = rule("block all", tool="windows", chain="profile Public", packets=None)
WINDOWS = unprivileged(deaf(counters={}, interface_counters={}), machine=Machine("windows", "10", None, False))
MACOS = Machine("macos", "24.1.0", 501, False)


def grown(name: str, begin: float, end: float) -> tuple[Moment, ...]:
    """The course of a trial of two seconds in which a counter grew by 100 from one moment to another, evenly."""
    seconds = [0.2 * number for number in range(1, 10)]
    return tuple(Moment(each, {name: round(100 * min(1, max(0, each - begin) / (end - begin)))}) for each in seconds)


class Row(NamedTuple):
    """What a check says of some facts."""

    check: str
    facts: Facts
    verdict: str
    says: str = ""
    """Words of the summary, or of the evidence."""
    cure: str = ""
    """A line of the remedy, or a part of one."""


def hidden_losses(address: str = GROUP, **growth: int) -> Facts:
    """Facts of an ordinary user: datagrams arrive, and the socket of another user loses as many."""
    before, after = (socket(drops, address)._replace(processes=()) for drops in (3, 101))
    return unprivileged(healthy(sockets=(before,), sockets_after=(after,), counters=counted(**growth)))


def limited(error: str, source: str | None = None, **settings: str) -> Facts:
    """Facts with a join that was refused."""
    return set_to(deaf(source=source, joins=(JoinTrial("eth0", source, error, "Refused."),)), **settings)


def tells(finding: Finding) -> str:
    """All that a finding says."""
    return f"{finding.summary} {dict(finding.evidence)}"


ROWS = [
    Row("group-address", healthy(), "ok", "239.1.2.3 is a usable group"),
    Row("group-address", healthy("224.0.0.200"), "ok", "no router forwards"),
    Row("group-address", healthy(memberships=(joined(group="239.129.2.3"),)), "ok", "239.129.2.3"),
    Row("group-address", change(NOT_TRIED, group="10.0.0.1"), "problem", "not a multicast address"),
    Row("group-address", change(NOT_TRIED, group="nonsense", group_version=None), "problem", "not a multicast address"),
    Row("group-address", deaf("ff11::1"), "problem", "never leave", "ff15::1"),
    Row("group-address", deaf("ff11::1", interfaces=ON_LO), "ok"),
    Row("group-address", deaf("224.0.0.200", source=FAR, routes=BEHIND_A_ROUTER), "problem", "10.1.0.254"),
    Row("group-address", deaf("232.1.2.3"), "problem", "(SSM)", "SOURCE@232.1.2.3:5000"),
    Row("group-address", deaf("232.1.2.3", frames=(frames(group="232.1.2.3"),)), "suspect", "(SSM)"),
    Row("group-address", healthy("ff35::1"), "suspect", "(SSM)"),
    Row("interface-down", healthy(), "ok"),
    Row("interface-down", deaf(interfaces=(LO, ETH0, replace(ETH1, is_up=False, chosen=True))), "ok", "eth1"),
    Row("interface-down", deaf(interfaces=(LO, replace(ETH0, is_up=False))), "problem", "off", "ip link set eth0 up"),
    Row("interface-down", deaf(interfaces=(replace(ETH0, has_carrier=False),)), "problem", "cable", "Connect eth0"),
    Row("interface-down", deaf(interface="eth7"), "problem", "There is no interface eth7", "mcast interfaces"),
    Row("interface-down", deaf(interface=""), "problem", "There is no interface ''"),
    Row("interface-down", deaf(interface="10.9.9.9"), "problem", "has the address 10.9.9.9", "mcast interfaces"),
    Row("interface-down", deaf(interfaces=UNKNOWN), "unknown", "Could not be read", "look elsewhere"),
    Row("macos-privacy", healthy(), "ok", "not macOS"),
    Row("macos-privacy", deaf(machine=MACOS, probes=(Probe("en0", False, "EHOSTUNREACH"),)), "problem", "EHOSTUNREACH"),
    Row("macos-privacy", deaf(machine=MACOS, probes=()), "unknown", "not known", "Privacy & Security"),
    Row("macos-privacy", deaf(machine=MACOS), "ok", "came back"),
    Row("macos-privacy", deaf(machine=replace(MACOS, release="23.6.0"), probes=()), "ok"),
    Row("mtu", healthy(), "ok"),
    Row("mtu", deaf("ff15::1", interfaces=(replace(ETH0, mtu=1200),)), "problem", "below 1280", "eth0 mtu 1500"),
    Row(
        "mtu",
        deaf(interfaces=(replace(ETH0, mtu=1400),), interface_counters={"eth0": {"rx_dropped": 9}}),
        "suspect", "dropped 9 frames", "ip link set dev eth0 mtu 1500",
    ),
    Row("mtu", deaf(interfaces=UNKNOWN), "unknown"),
    Row("interface-address", healthy(), "ok"),
    Row("interface-address", deaf(frames=(frames(sender="0.0.0.0"),)), "problem", "from 0.0.0.0", "sender's interface"),
    Row("interface-address", deaf(interfaces=(LO, replace(ETH0, addresses=()))), "suspect", "no usable IPv4", "eth0"),
    Row("interface-address", deaf(interfaces=(LO,)), "problem", "No interface but loopback has a usable IPv4 address."),
    Row("interface-address", deaf(interfaces=(replace(ETH0, addresses=(), bridge="br0"),)), "ok"),
    Row(
        "interface-address",
        set_to(deaf("ff15::1", interfaces=(replace(ETH0, addresses=(), chosen=False),)),
               ipv6__conf__all__disable_ipv6="1", ipv6__conf__eth0__disable_ipv6="1"),
        "problem", "No interface but loopback", "sysctl -w net.ipv6.conf.all.disable_ipv6=0",
    ),
    Row(
        "interface-address",
        set_to(deaf("ff15::1", interfaces=(replace(ETH0, addresses=()),)), ipv6__conf__eth0__disable_ipv6="1"),
        "problem", "no usable IPv6 address", "sysctl -w net.ipv6.conf.eth0.disable_ipv6=0",
    ),
    Row(
        "interface-address",
        deaf("ff15::1", interfaces=(replace(ETH0, addresses=("fe80::1/64",), tentative=("fe80::1/64",)),)),
        "problem", "tentative", "Wait two seconds",
    ),
    Row("interface-address", deaf(interfaces=UNKNOWN), "unknown"),
    Row("membership-limit", healthy(), "ok"),
    Row("membership-limit", limited("ENOBUFS", ipv4__igmp_max_memberships="0"), "problem", "igmp_max_memberships",
        "sysctl -w net.ipv4.igmp_max_memberships=20"),
    Row("membership-limit", limited("ENOBUFS", ipv4__igmp_max_memberships="50"), "problem", "",
        "sysctl -w net.ipv4.igmp_max_memberships=100"),
    Row("membership-limit", limited("ENOBUFS", TALKER), "problem", "", "sysctl -w net.ipv4.igmp_max_msf=20"),
    Row("membership-limit", limited("ENOBUFS", core__optmem_max="16"), "problem", "", "net.core.optmem_max=131072"),
    Row("membership-limit", limited("ENOMEM"), "problem", "", "sysctl -w net.core.optmem_max=262144"),
    Row("membership-limit", limited("EMFILE"), "problem", "", "ulimit -n"),
    Row("membership-limit", NOT_TRIED, "unknown", "Could not be read"),
    Row("port-conflict", healthy(), "ok"),
    Row("port-conflict", change(limited("EADDRINUSE"), sockets=(socket(),)),
        "problem", "player (process 4711)", "Stop"),
    Row("port-conflict", limited("EADDRINUSE"), "problem", "another program"),
    Row("port-conflict", healthy(sockets=(socket(), socket(inode=78))), "suspect", "only the last"),
    Row("port-conflict", deaf(sockets=(socket(), socket(inode=78))), "ok"),
    Row("port-conflict", change(NOT_TRIED, sockets=UNKNOWN), "unknown"),
    Row("loopback-route", healthy(), "ok"),
    Row("loopback-route", deaf("ff15::1", interfaces=ON_LO, loopback_route=False), "problem", "no route",
        "ip -6 route add local ff00::/8 dev lo table local"),
    Row("loopback-route", healthy("ff15::1", interfaces=ON_LO, loopback_route=True), "ok"),
    Row("loopback-route", deaf("ff15::1", loopback_route=False), "ok", "not used"),
    Row("loopback-route", deaf("ff15::1", loopback_route=False, counters=counted(Ip6__OutNoRoutes=9)), "suspect"),
    Row("loopback-route", deaf("ff15::1", interfaces=ON_LO, loopback_route=UNKNOWN), "unknown"),
    Row("checksum", healthy(), "ok"),
    Row("checksum", deaf(frames=(frames(bad_checksums=90),), counters=counted(Udp__InCsumErrors=90)), "problem", "90"),
    Row("checksum", deaf(frames=(frames(bad_checksums=90),), counters={}), "problem", "90 packets"),
    Row("checksum", deaf(frames=(frames(),), counters=counted(Udp__InCsumErrors=90)), "ok"),
    Row("checksum", unprivileged(deaf(counters=counted(Udp__InCsumErrors=90))), "problem", "90 packets"),
    Row("checksum", unprivileged(deaf(counters=counted(Udp__InCsumErrors=90), usual={"Udp.InCsumErrors": 45})), "ok"),
    Row("checksum", unprivileged(healthy(counters=counted(Udp__InCsumErrors=90))), "suspect"),
    Row("checksum", unprivileged(deaf(counters={})), "unknown", "", SUDO),
    # The kernel drops a wrong header before it looks at memberships, so that the loss goes on without them.
    Row("checksum", unprivileged(deaf(counters=BAD_HEADERS, usual={"IpExt.InCsumErrors": 45})), "suspect", "90 pack"),
    Row("checksum", unprivileged(deaf(counters={**BAD_HEADERS, "Ip.InReceives": 190},
                                      usual={"IpExt.InCsumErrors": 45})), "ok"),
    Row("malformed", unprivileged(deaf(counters=counted(Ip__InReceives=90, Ip__InHdrErrors=90))), "suspect", "damaged"),
    Row("malformed", unprivileged(deaf(counters=counted(Ip__InReceives=190, Ip__InHdrErrors=90))), "unknown"),
    Row("malformed", unprivileged(deaf(counters=BAD_HEADERS)), "unknown"),
    Row("malformed", unprivileged(deaf("ff15::1", counters=counted(Ip6__InReceives=90, Ip6__InHdrErrors=90))),
        "unknown"),
    Row("receive-buffer", healthy(), "ok"),
    Row(
        "receive-buffer",
        healthy(socket_drops=7, counters=counted(Udp__RcvbufErrors=7), buffer=Buffer(8000, 4000, 212992)),
        "problem", "7 datagrams", "sysctl -w net.core.rmem_max=8388608",
    ),
    Row("receive-buffer", healthy(socket_drops=7), "ok"),
    Row(
        "receive-buffer",
        healthy(sockets=(socket(3),), sockets_after=(socket(9),), counters=counted(Udp__RcvbufErrors=6)),
        "problem", "player (process 4711)", "net.core.rmem_max",
    ),
    Row("receive-buffer", healthy(counters=counted(Udp__RcvbufErrors=6)), "ok"),
    Row("receive-buffer", deaf(socket_drops=None, counters={}), "unknown"),
    Row(
        "receive-buffer",
        change(NOT_TRIED, receiver=ReceiverFacts((), (), 5, 3, Buffer(8000, 4000, 1 << 24))),
        "problem", "3 datagrams", "mcast recv --receive-buffer",
    ),
    Row("reverse-path-filter", healthy(), "ok"),
    Row("reverse-path-filter", healthy("ff15::1"), "ok", "Only IPv4"),
    Row("reverse-path-filter", FILTERED, "problem", "172.16.9.9"),
    Row(
        "reverse-path-filter",
        change(FILTERED, routes=(Route("172.16.9.9", "eth1"),)),
        "problem", "strict", "sysctl -w net.ipv4.conf.eth0.rp_filter=2",
    ),
    Row(
        "reverse-path-filter",
        set_to(change(FILTERED, routes=(Route("172.16.9.9", None),)), ipv4__conf__all__rp_filter="2"),
        "problem", "net.ipv4.conf.all.rp_filter = 2", "ip route add 172.16.9.9/32 dev eth0",
    ),
    Row("reverse-path-filter", change(FILTERED, routes=(Route("172.16.9.9", "eth0"),)), "ok", "none of the target"),
    Row("reverse-path-filter", change(FILTERED, frames=()), "ok", "none of the target"),
    Row(
        "reverse-path-filter",
        set_to(
            unprivileged(FILTERED, interfaces=(ETH0, replace(ETH1, chosen=True)), interface_counters={}),
            ipv4__conf__all__rp_filter="1",
            ipv4__conf__eth1__rp_filter="0",
        ),
        "suspect",
        "one of eth0 and eth1",
        "sysctl -w net.ipv4.conf.all.rp_filter=0",
    ),
    Row("reverse-path-filter", unprivileged(FILTERED), "suspect", "way back", "net.ipv4.conf.eth0.rp_filter=0"),
    Row(
        "reverse-path-filter",
        unprivileged(FILTERED, source="172.16.9.9", routes=(Route("172.16.9.9", "eth1"),)),
        "problem", "172.16.9.9", "net.ipv4.conf.eth0.rp_filter=2",
    ),
    Row("reverse-path-filter", unprivileged(FILTERED, usual={"TcpExt.IPReversePathFilter": 49}), "ok", "no more than"),
    Row("reverse-path-filter", unprivileged(FILTERED, arrivals=(arrivals(),)), "ok", "arrive"),
    Row(
        "reverse-path-filter",
        unprivileged(FILTERED, counters={**counted(Ip__InReceives=6, TcpExt__IPReversePathFilter=6),
                                         "IpExt.InOctets": 216}),
        "unknown", "IGMP queries", SUDO,
    ),
    Row(
        "reverse-path-filter",
        unprivileged(FILTERED, counters=counted(Udp__IgnoredMulti=90, TcpExt__IPReversePathFilter=90)),
        "unknown", "several ways",
    ),
    Row("reverse-path-filter", set_to(change(deaf(), counters={}), ipv4__conf__eth0__rp_filter="1"), "unknown"),
    Row("ethernet-address", healthy(), "ok"),
    Row("ethernet-address", healthy(frames=(frames(ethernet_destination="02:00:00:00:00:01"),)), "ok"),
    Row("ethernet-address", deaf(frames=(frames(ethernet_destination="02:00:00:00:00:99"),)),
        "problem", "02:00:00:00:00:99"),
    Row("ethernet-address", unprivileged(deaf()), "unknown", "", SUDO),
    Row("local-source", healthy(), "ok"),
    Row("local-source", deaf(frames=(frames(sender=OWN),)),
        "problem", "own address", "net.ipv4.conf.eth0.accept_local=1"),
    Row("local-source", set_to(deaf(frames=(frames(sender=OWN),)), ipv4__conf__all__accept_local="1"), "ok"),
    Row("local-source", deaf(frames=(frames(sender="127.0.0.1"),)), "problem", "127.0.0.1"),
    Row("local-source", deaf("ff15::1:2:3", frames=(frames6(sender="::1"),)), "problem", "::1"),
    Row("local-source", unprivileged(deaf()), "ok"),
    Row("local-source", unprivileged(deaf(counters=counted(Ip__InReceives=2, IpExt__OutMcastPkts=4),
                                          interface_counters=LOOPED)), "ok"),
    # Reports come back on loopback only, so that these two packets came from outside.
    Row("local-source", unprivileged(deaf(counters=counted(Ip__InReceives=2, IpExt__OutMcastPkts=2))), "unknown"),
    Row("local-source", unprivileged(deaf(counters=counted(Ip__InReceives=50))), "unknown", "", SUDO),
    Row("firewall", healthy(firewall=(rule(matches=None),)), "ok"),
    Row("firewall", deaf(counters=counted(IpExt__InMcastPkts=51, Ip__InDelivers=50)), "ok", "No rule"),
    Row("firewall", unprivileged(deaf(counters=counted(IpExt__InMcastPkts=51, Ip__InDelivers=50))), "unknown", "root"),
    Row("firewall", unprivileged(deaf(counters=SKEWED)), "unknown", "root"),
    Row("local-source", deaf(frames=(frames(sender=OWN, vlan=5),)), "ok"),
    Row("firewall", healthy(frames=(frames(198),), firewall=(rule(matches=None),)), "problem", "98 packets dropped"),
    Row("firewall", healthy(frames=(frames(198),), firewall=(rule(packets=20),)), "ok"),
    Row(
        "firewall",
        deaf(frames=(frames(),), firewall=(rule("-j DROP", tool="iptables-legacy", chain="filter INPUT"),)),
        "problem", "-j DROP", "iptables-legacy -t filter -I INPUT -d 239.1.2.3 -p udp --dport 5000 -j ACCEPT",
    ),
    Row("firewall", deaf(), "ok"),
    Row(
        "firewall",
        deaf(frames=(frames(),), firewall=(rule(),)),
        "problem", "udp dport 5000 drop", "nft insert rule inet filter input ip daddr 239.1.2.3 udp dport 5000 accept",
    ),
    Row(
        "firewall",
        deaf(frames=(frames(),), firewall=(rule("-j DROP", tool="iptables", chain="filter INPUT"),)),
        "problem", "-j DROP", "iptables -t filter -I INPUT -d 239.1.2.3 -p udp --dport 5000 -j ACCEPT",
    ),
    Row(
        "firewall",
        deaf(frames=(frames(),), counters=FIREWALLED, firewall=(rule("policy drop", matches=None, packets=None),)),
        "problem", "policy drop",
    ),
    Row(
        "firewall",
        deaf("ff15::1:2:3", frames=(frames6(),), firewall=(rule(packets=None),)),
        "problem", "udp dport", "ip6 daddr ff15::1:2:3 udp dport 5000 accept",
    ),
    Row("firewall", deaf(frames=(frames(),), counters=FIREWALLED), "problem", "100 packets"),
    Row("firewall", deaf(frames=(frames(),), counters=counted(Ip__InReceives=100)), "ok"),
    Row("firewall", deaf(frames=(frames(port=6000),), counters=FIREWALLED), "ok"),
    Row(
        "firewall",
        deaf(firewall=(rule("ip protocol igmp drop", hook="output", matches=False, matches_reports=True, packets=4,
                            chain="inet filter output"),)),
        "problem", "reports of this host", "nft insert rule inet filter output ip protocol igmp accept",
    ),
    Row("firewall", unprivileged(deaf(counters=NO_REPORT)), "suspect", "reports of this host", SUDO),
    # Others are kept from sending, and our reports left.
    Row("firewall", unprivileged(deaf(counters=counted(Ip__OutRequests=54, Ip__OutTransmits=4))), "unknown"),
    Row("firewall", unprivileged(deaf(counters={**NO_REPORT, "IpExt.OutMcastPkts": 2})), "unknown"),
    Row("firewall", unprivileged(deaf(counters=NO_REPORT, usual={"Ip.OutRequests": 1.0})), "unknown"),
    Row("firewall", unprivileged(deaf(counters=NO_REPORT, memberships=(joined(),))), "unknown"),
    # Answers to queries were kept before the join; but nothing at all left afterwards, so our reports did not.
    Row("firewall", unprivileged(deaf(counters=counted(Ip__OutRequests=14, Ip__OutTransmits=0),
                                      usual={"Ip.OutRequests": 5.0})), "suspect", "reports of this host", SUDO),
    Row("firewall", unprivileged(healthy(arrivals=(arrivals(12),), counters=MOST_REFUSED)), "suspect", "88 datagrams"),
    Row("firewall", unprivileged(healthy(arrivals=(arrivals(12),), counters=MOST_REFUSED), afterwards=None), "ok"),
    Row("firewall", unprivileged(healthy(arrivals=(arrivals(12),), counters=MOST_REFUSED,
                                         usual={"IpExt.InMcastPkts": 44.0})), "ok"),
    Row("firewall", unprivileged(deaf(counters=NO_REPORT), frames=()), "suspect", "reports of this host", SUDO),
    Row("firewall", KEPT_PIECES, "suspect", "drops some of them before it reassembles them"),
    Row(
        "firewall",
        change(KEPT_PIECES, firewall=(rule("ip frag-off != 0 drop", hook="prerouting", matches=None, packets=None),)),
        "problem", "drops fragments", "ip daddr 239.1.2.3 accept",
    ),
    Row("firewall", deaf(frames=(frames(port=6000),), firewall=(rule(matches=None, packets=3),)), "unknown", "may not"),
    # A few short packets may be queries; as many as a stream has are none, however short they are.
    Row("firewall", unprivileged(deaf(counters={**FEW, "IpExt.InMcastOctets": 216})), "unknown"),
    Row("query-blocked", unprivileged(deaf(counters={**FEW, "IpExt.InMcastOctets": 216})), "unknown", "as short as"),
    Row("firewall", unprivileged(deaf(counters={**FIREWALLED, "IpExt.InMcastOctets": 3600})), "problem"),
    Row("query-blocked", unprivileged(deaf(counters={**FIREWALLED, "IpExt.InMcastOctets": 3600})), "unknown", "root"),
    Row(
        "ethernet-address",
        deaf(
            frames=(frames(ethernet_destination="02:00:00:00:00:01"),),
            counters=counted(Ip__InReceives=100, IpExt__InMcastPkts=100),
        ),
        "ok",
    ),
    Row("snooping", healthy(bridges=(bridge(),)), "suspect"),
    Row("firewall", unprivileged(deaf(counters=FIREWALLED)), "problem", "100 packets", SUDO),
    Row("firewall", unprivileged(deaf(counters=FIREWALLED, usual={"IpExt.InMcastPkts": 50.0})), "unknown"),
    # What goes on after we left, or began long after we joined, or ended before, was not lost for our membership.
    Row("firewall", unprivileged(deaf(counters=FIREWALLED), afterwards={"IpExt.InMcastPkts": 60.0}), "unknown"),
    Row("firewall", unprivileged(deaf(counters=FIREWALLED), afterwards=None), "unknown", "did not watch", SUDO),
    Row(
        "firewall",
        unprivileged(deaf(counters=FIREWALLED, course=grown("IpExt.InMcastPkts", 0.0, 2.0))),
        "problem", "100 packets",
    ),
    Row(
        "firewall",
        unprivileged(deaf(counters=FIREWALLED, course=grown("IpExt.InMcastPkts", 1.2, 2.0))),
        "unknown", "to a firewall, but only from 1.2 s after the join", SUDO,
    ),
    Row(
        "firewall",
        unprivileged(deaf(counters=FIREWALLED, course=grown("IpExt.InMcastPkts", 0.0, 0.8))),
        "unknown", "only until 0.8 s", SUDO,
    ),
    Row("firewall", unprivileged(deaf(counters=counted(IpExt__InMcastPkts=4))), "unknown", "too few", SUDO),
    Row("firewall", unprivileged(deaf()), "unknown", "rules of the firewall", SUDO),
    Row("firewall", change(WINDOWS, firewall=(BLOCKS_ALL,)), "suspect", "block all", "New-NetFirewallRule"),
    Row("firewall", change(WINDOWS, firewall=(replace(BLOCKS_ALL, matches=None),)), "unknown", "", "-LocalPort 5000"),
    Row("firewall", unprivileged(healthy()), "ok", "lets the datagrams in"),
    Row("source-filter", healthy(), "ok", "All sources"),
    Row("source-filter", healthy(source=TALKER), "ok"),
    Row("source-filter", deaf(source="10.1.0.9", arrivals=(arrivals(asked=False),)), "problem", TALKER,
        "mcast recv 10.1.0.2@239.1.2.3:5000"),
    Row("source-filter", deaf(source="10.1.0.9", frames=(frames(),)), "problem", TALKER),
    Row("source-filter", deaf(source="10.1.0.9", frames=(frames(port=6000),)), "ok", "other sources either"),
    Row(
        "source-filter",
        healthy(receiver=ReceiverFacts((), (("239.1.2.3", TALKER, "eth0"),), 0, 0)),
        "problem",
        "10.1.0.2",
    ),
    Row("source-filter", healthy(receiver=ReceiverFacts((), (("239.1.2.3", "10.1.0.9", "eth0"),), 0, 0)), "ok"),
    Row("receive-buffer", healthy(receiver=ReceiverFacts((), (), 5, 3)), "suspect", "3 datagrams"),
    Row(
        "port", unprivileged(deaf(counters={"Ip.InReceives": 5}), machine=MACOS), "unknown",
    ),
    Row("source-filter", unprivileged(deaf(source="10.1.0.9", widened=False)), "unknown"),
    Row("port", healthy(), "ok"),
    Row("port", deaf(port=None), "unknown", "No port was named", "mcast doctor 239.1.2.3:5000"),
    Row("port", deaf(port=None, frames=(frames(port=5001),)), "unknown", "come in for 5001", "doctor 239.1.2.3:5001"),
    Row("port", deaf(), "ok"),
    Row("port", deaf(frames=(frames(port=5001),)), "problem", "5001", "mcast recv 239.1.2.3:5001"),
    Row("port", deaf(frames=(frames(port=5001), frames())), "ok"),
    Row("port", deaf(source=TALKER, frames=(frames(port=5001, sender="10.1.0.7"),)), "ok"),
    Row("port", unprivileged(deaf(counters=counted(Udp__IgnoredMulti=90))), "suspect", "90 datagrams", SUDO),
    Row(
        "port",
        unprivileged(deaf(counters=counted(Udp__IgnoredMulti=100), course=grown("Udp.IgnoredMulti", 1.0, 2.0))),
        "unknown", "to a port without a socket, but only from 1.0 s", SUDO,
    ),
    Row("port", unprivileged(deaf(counters=counted(Udp__IgnoredMulti=9)), afterwards={"Udp.IgnoredMulti": 5.0}), "ok"),
    Row("port", unprivileged(deaf("ff15::1", counters=counted(Udp6__IgnoredMulti=90))), "unknown", "no checksum"),
    Row("port", unprivileged(deaf(counters=counted(Udp__IgnoredMulti=90, IpExt__InBcastPkts=90))), "ok"),
    Row("port", unprivileged(deaf(counters=counted(Udp__IgnoredMulti=90), usual={"Udp.IgnoredMulti": 44.0})), "ok"),
    Row("port", unprivileged(deaf(counters={})), "unknown", "", SUDO),
    Row("local-sender", healthy(), "ok"),
    Row("local-sender", deaf(frames=(frames(outgoing=True, sender=OWN),)),
        "problem", "loopback off", "IP_MULTICAST_LOOP"),
    Row("local-sender", deaf(frames=(frames(outgoing=True, sender=OWN), frames())), "ok"),
    Row("local-sender", unprivileged(deaf()), "ok"),
    Row("local-sender", unprivileged(deaf(counters={})), "unknown", "", SUDO),
    Row("local-sender", unprivileged(deaf(counters=counted(IpExt__OutMcastPkts=99))), "unknown", "93 packets", SUDO),
    Row("no-traffic", unprivileged(deaf(counters=counted(IpExt__OutMcastPkts=99))), "unknown", "", SUDO),
    Row("wrong-interface", healthy(), "ok"),
    Row("wrong-interface", ELSEWHERE, "problem", "eth1", "mcast recv 239.1.2.3:5000%eth1"),
    Row("wrong-interface", SENT_ELSEWHERE, "problem", "sends them, out of eth1", "mcast send 239.1.2.3:5000%eth0"),
    Row("wrong-interface", SENT_ELSEWHERE6, "problem", "sends them, out of eth1", "mcast send '[ff15::1]:5000%eth0'"),
    Row(
        "wrong-interface",
        deaf(interface="eth0", interfaces=(LO, ETH0, ETH1), frames=(frames(interface="eth1"),)),
        "problem", "eth1",
    ),
    Row("wrong-interface", deaf(interfaces=(replace(ETH0, bridge="br0"),)), "problem", "port of the bridge", "%br0"),
    Row("wrong-interface", deaf(frames=(frames(vlan=5),)), "problem", "VLAN 5", "type vlan id 5"),
    Row("wrong-interface", deaf(), "ok"),
    Row("wrong-interface", unprivileged(deaf(widened=False)), "unknown"),
    Row("membership", healthy(), "ok", "no other program"),
    Row("membership", healthy(memberships=(joined(),), sockets=(socket(),)), "ok", "joined already on eth0"),
    Row("membership", healthy(memberships=(joined("eth1"),), sockets=(socket(),)), "problem", "joined on eth1", "eth0"),
    Row("membership", healthy(memberships=(joined("eth1"),)), "ok"),
    Row("membership", healthy(sockets=(socket(),)), "suspect", "no program on this host"),
    Row(
        "membership",
        healthy(receiver=ReceiverFacts((("239.1.2.3", None, "eth1"),), (), 0, 0)),
        "problem", "joined on eth1",
    ),
    Row("membership", limited("EINVAL"), "problem", "Refused."),
    Row("membership", healthy(memberships=UNKNOWN), "unknown", "Could not be read"),
    Row("query-blocked", healthy(), "ok", "are delivered"),
    Row("query-blocked", deaf(), "ok", "No query came"),
    Row(
        "query-blocked",
        healthy(queries=(replace(QUERY, querier="10.99.0.1", delivered=0),), routes=(Route("10.99.0.1", None),),
                counters=counted(TcpExt__IPReversePathFilter=3)),
        "problem", "10.99.0.1", "ip route add 10.99.0.1/32 dev eth0",
    ),
    Row(
        "query-blocked",
        healthy(queries=(replace(QUERY, delivered=0),), firewall=(rule("drop", matches=False, matches_queries=True),)),
        "problem", "inet filter input", "nft insert rule inet filter input ip protocol igmp accept",
    ),
    Row("query-blocked", healthy(queries=(replace(QUERY, delivered=0),)), "problem", "", "Look for a firewall rule"),
    Row("query-blocked", healthy(queries=(replace(QUERY, delivered=2),)), "ok"),
    Row(
        "query-blocked",
        unprivileged(CEASED, revived=True, counters=counted(TcpExt__IPReversePathFilter=6)),
        "problem", "the reverse path filter drops them", SUDO,
    ),
    Row(
        "query-blocked",
        unprivileged(deaf(counters={**counted(Ip__InReceives=6, TcpExt__IPReversePathFilter=6),
                                    "IpExt.InOctets": 216})),
        "unknown", "as short as IGMP queries",
    ),
    Row("query-blocked", unprivileged(healthy()), "unknown", "root only", SUDO),
    Row("snooping", healthy(), "ok", "no bridge"),
    Row("snooping", healthy(bridges=(bridge(querier=True),)), "ok"),
    Row("snooping", healthy(bridges=(bridge(ports_without_flooding=()),)), "ok"),
    Row("snooping", deaf(bridges=(bridge(),)), "suspect", "vnet1", "mcast_querier 1"),
    Row("snooping", deaf(bridges=(bridge(),), frames=(frames(),)), "problem", "vnet1"),
    Row(
        "snooping",
        change(CEASED, bridges=(bridge(other_querier="10.1.0.9"),), arrivals=(arrivals(50, "br0", last=1.0),),
               frames=(frames(250), frames(50, "br0")), interfaces=(LO, replace(ETH0, name="br0"))),
        "problem", "keeps the datagrams", "ip link set br0 type bridge mcast_snooping 0",
    ),
    Row("snooping", deaf(bridges=UNKNOWN), "unknown"),
    Row("igmp-version", healthy(), "ok"),
    Row("igmp-version", healthy(memberships=(joined(group="224.0.0.1", protocol_version=2),)), "ok", "no source"),
    Row(
        "igmp-version",
        deaf("232.1.2.3", source=TALKER, memberships=(joined(group="224.0.0.1", protocol_version=2),)),
        "problem", "an old version of IGMP on eth0", "Set the querier",
    ),
    Row(
        "igmp-version",
        set_to(deaf("232.1.2.3", source=TALKER), ipv4__conf__eth0__force_igmp_version="2"),
        "problem", "", "sysctl -w net.ipv4.conf.eth0.force_igmp_version=0",
    ),
    Row(
        "igmp-version",
        set_to(deaf("ff35::1", source=TALKER6), ipv6__conf__eth0__force_mld_version="1"),
        "problem", "", "sysctl -w net.ipv6.conf.eth0.force_mld_version=0",
    ),
    Row("igmp-version", healthy("ff35::1", source=TALKER6, queries=(replace(QUERY, version=1, querier="fe80::9"),)),
        "suspect", "MLD"),
    Row("igmp-version", deaf(source=TALKER, memberships=(joined(group="224.0.0.1", protocol_version=2),)), "ok"),
    Row("igmp-version", unprivileged(deaf("ff35::1", source=TALKER6), memberships=()), "unknown"),
    Row("querier", healthy(), "ok", "10.1.0.254"),
    Row("querier", healthy(interfaces=ON_LO), "ok", "Loopback"),
    Row("querier", healthy(queries=()), "unknown", "125 s", "--listen 130"),
    Row("querier", healthy(queries=(), seconds=131.0, arrivals=(arrivals(last=130.9),)), "suspect", "260 s"),
    Row("querier", CEASED, "suspect", "came and stopped"),
    Row("querier", change(CEASED, revived=True), "problem", "and no query came", "mcast querier -i eth0"),
    Row("querier", change(CEASED, revived=True), "problem", "forgotten this host", "ask more often"),
    Row("querier", change(CEASED, revived=True, queries=(QUERY,)), "suspect", "although"),
    Row("querier", unprivileged(CEASED, revived=True), "problem"),
    Row("querier", unprivileged(CEASED, revived=True, counters=counted(TcpExt__IPReversePathFilter=6)), "suspect"),
    Row("querier", unprivileged(healthy()), "unknown", "IGMP", SUDO),
    Row(
        "querier",
        unprivileged(healthy("ff15::1"), interface_counters={"eth0": {"Icmp6InGroupMembQueries": 2}}),
        "ok", "2 queries",
    ),
    Row("send-route", healthy(), "ok", "eth0"),
    Row("send-route", deaf(routes=(Route("239.1.2.3", None),)), "ok", "must name the interface"),
    Row(
        "send-route",
        deaf(routes=(Route("239.1.2.3", None),), lookups=(Lookups("sender", None, 99, 99),)),
        "problem", "99 datagrams", "ip route add 224.0.0.0/4 dev eth0",
    ),
    Row("send-route", deaf(routes=(Route("239.1.2.3", None),), lookups=(), counters=counted(Ip__OutNoRoutes=99)), "ok"),
    Row("send-route", deaf(routes=(Route("239.1.2.3", None),), lookups=(Lookups("sender", "eth0", 99, 0),)), "ok"),
    Row(
        "send-route",
        deaf(routes=(Route("239.1.2.3", None, kind="blackhole"),), lookups=(Lookups("sender", None, 99, 99),)),
        "problem", "blackhole", "ip route replace 239.1.2.3/32 dev eth0",
    ),
    Row("send-route", deaf(routes=(Route("239.1.2.3", None, kind="blackhole"),)), "suspect", "blackhole"),
    Row("send-route", healthy(routes=(Route("239.1.2.3", None, kind="blackhole"),)), "ok"),
    Row("send-route", deaf(routes=(Route("239.1.2.3", None, kind="blackhole"),), lookups=()), "ok"),
    Row("send-route", deaf(routes=(Route("239.1.2.3", None),), counters=counted(Ip__OutNoRoutes=99)), "unknown"),
    Row(
        "send-route",
        deaf(routes=(Route("239.1.2.3", None),), lookups=(Lookups("sender", None, 99, 99),),
             rules=(PolicyRule(4, 50, "to 239.0.0.0/8 prohibit"),)),
        "problem", "prohibit", "ip rule del pref 50",
    ),
    Row(
        "send-route",
        healthy(routes=(Route("239.1.2.3", None),), lookups=(Lookups("sender", None, 99, 99),)),
        "suspect", "no route",
    ),
    Row(
        "send-route",
        deaf(routes=(Route("239.1.2.3", None),), frames=(frames(port=6000),),
             counters=counted(Ip__OutNoRoutes=9, Ip__InReceives=9)),
        "unknown", "does not tell",
    ),
    Row("send-route", deaf(routes=UNKNOWN), "unknown"),
    Row("container", healthy(), "ok"),
    Row("container", healthy(machine=Machine("linux", "6", 0, True, "docker")), "ok", "get in"),
    Row("container", deaf(machine=Machine("linux", "6", 0, True, "docker"), interfaces=(DOCKER,)), "problem", "bridge",
        "--network host"),
    Row(
        "container",
        unprivileged(deaf(interfaces=(DOCKER,), counters=counted(Ip__InReceives=9)),
                     machine=Machine("linux", "6", 1000, False, "docker")),
        "suspect",
    ),
    *(
        Row(
            "container",
            deaf(machine=Machine("linux", release, 0, True, "docker"), interfaces=(replace(ETH0, kind=kind),)),
            *expected,
        )
        for release, kind, expected in (
            ("6", "veth", ("unknown", "from inside")),
            ("6", "macvlan", ("ok", "no interface that its engine translates")),
            ("6", None, ("ok", "no interface that its engine translates")),
            ("6.6-linuxkit", None, ("unknown", "from inside")),
        )
    ),
    Row("container", deaf(machine=Machine("linux", "6", 0, True, UNKNOWN)), "unknown"),
    Row("ttl", healthy(), "ok"),
    Row("ttl", deaf(source=FAR, routes=BEHIND_A_ROUTER), "suspect", "behind the router 10.1.0.254", "--ttl 8"),
    Row("ttl", deaf(source=TALKER), "ok", "No router"),
    Row("ttl", deaf(), "unknown", "Name the source"),
    Row(
        "ttl",
        healthy(routes=(Route("239.1.2.3", "eth0", OWN, "10.1.0.254"),), arrivals=(arrivals(sender=OWN),)),
        "suspect", "hop limit of 1",
    ),
    Row("wireless", healthy(), "ok"),
    Row("wireless", healthy(interfaces=(replace(ETH0, is_wireless=True),)), "ok", "eth0"),
    Row("wireless", deaf(interfaces=(replace(ETH0, is_wireless=True),)), "suspect", "wireless", "cable"),
    Row("wireless", unprivileged(deaf(interfaces=(replace(ETH0, is_wireless=True),), counters={})), "unknown"),
    Row(
        "firewall",
        deaf(frames=(frames(),), firewall=(rule(chain="ip filter ufw-user-input"), rule(tool="pf", chain="pf"))),
        "problem", "ufw-user-input", "configure ufw: it makes these rules",
    ),
    Row(
        "firewall",
        change(WINDOWS, firewall=(replace(BLOCKS_ALL, tool="application firewall"),), machine=MACOS),
        "suspect", "block all", "Allow incoming connections",
    ),
    Row(
        "firewall",
        deaf("ff15::1", firewall=(rule("-j DROP", tool="ip6tables", chain="filter OUTPUT", hook="output", matches=False,
                                       matches_reports=True, packets=2),)),
        "problem", "reports of this host", "ip6tables -t filter -I OUTPUT -p icmpv6 --icmpv6-type 143 -j ACCEPT",
    ),
    Row(
        "firewall",
        unprivileged(deaf(counters={**FIREWALLED, "Udp.IgnoredMulti": 90})),
        "unknown", "whose they were: a firewall and a port without a socket",
    ),
    Row(
        "query-blocked",
        healthy(queries=(replace(QUERY, delivered=0),),
                firewall=(rule("-j DROP", tool="iptables", chain="filter INPUT", matches_queries=True),)),
        "problem", "filter INPUT", "iptables -t filter -I INPUT -p igmp -j ACCEPT",
    ),
    Row(
        "query-blocked",
        unprivileged(change(CEASED, group="ff15::1", group_version=6), revived=True,
                     counters={**counted(), "Ip6.InMcastPkts": 9}),
        "suspect", "or there is no querier",
    ),
    Row(
        "interface-down",
        deaf(interfaces=(replace(ETH0, is_up=False),), machine=Machine("windows", "10", None, False)),
        "problem", "off", "Enable-NetAdapter",
    ),
    Row("membership-limit", change(limited("ENOMEM"), machine=MACOS), "problem", "", "Try again"),
    Row(
        "snooping",
        unprivileged(
            change(CEASED, bridges=(bridge(other_querier="10.1.0.9"),), arrivals=(arrivals(50, "br0", last=1.0),),
                   interfaces=(LO, replace(ETH0, name="br0")), revived=True),
            interface_counters={"eth0": {"rx_packets": 250}, "br0": {"rx_packets": 50}},
        ),
        "problem", "keeps the datagrams",
    ),
    Row("wrong-interface", deaf(interfaces=(LO,)), "unknown", "no interface to listen on"),
    Row("send-route", deaf("ff15::1", routes=(Route("ff15::1", None),), lookups=(Lookups("sender", None, 198, 198),)),
        "problem", "", "ip -6 route add multicast ff00::/8 dev eth0 table local"),
    Row(
        "reverse-path-filter",
        unprivileged(FILTERED, source="172.16.9.9", routes=(Route("172.16.9.9", "eth0"),)),
        "ok", "the way back to it is right",
    ),
    Row("no-traffic", healthy(), "ok"),
    Row("no-traffic", deaf(), "problem", "Nothing of 239.1.2.3", "Check on the sender"),
    Row("no-traffic", deaf(), "problem", "", "sudo mcast querier -i eth0 --for 60"),
    Row("no-traffic", deaf(source=FAR, routes=BEHIND_A_ROUTER), "problem", "", "hop limit (TTL) must be 2"),
    Row("no-traffic", deaf(interfaces=ON_LO), "problem", "", "on loopback"),
    Row("no-traffic", deaf(frames=(frames(port=6000),)), "ok", "100 frames"),
    Row("no-traffic", deaf(frames=(frames(group="239.129.2.3"),)), "problem"),
    Row("no-traffic", deaf(interface_counters={"eth0": {"rx_packets": 9, "rx_dropped": 9}}), "suspect"),
    Row("no-traffic", deaf(seconds=0.2), "unknown", "too short", "5 seconds"),
    Row("no-traffic", deaf(interface="eth7"), "unknown", "There is no interface eth7."),
    Row("no-traffic", unprivileged(deaf(interface="eth7")), "unknown", "There is no interface eth7."),
    Row("ttl", deaf(interface="eth7", source=FAR, routes=BEHIND_A_ROUTER), "unknown", "There is no interface eth7."),
    Row("no-traffic", deaf(interface="eth7", frames=(frames(port=6000),)), "ok", "100 frames"),
    Row("no-traffic", unprivileged(deaf()), "problem"),
    Row("no-traffic", unprivileged(deaf(counters=counted(Ip__InReceives=2, IpExt__OutMcastPkts=4),
                                        interface_counters=LOOPED)), "problem"),
    Row("no-traffic", unprivileged(deaf(counters=counted(Ip__InReceives=4, IpExt__OutMcastPkts=4),
                                        interface_counters=LOOPED)), "unknown"),
    # Reports of other hosts are as short as our own, and datagrams are longer.
    Row("no-traffic", unprivileged(deaf(counters={**OTHERS_REPORT, "IpExt.InOctets": 160}, interface_counters=LOOPED)),
        "problem"),
    Row("no-traffic", unprivileged(deaf(counters={**OTHERS_REPORT, "IpExt.InOctets": 336}, interface_counters=LOOPED)),
        "unknown"),
    Row("no-traffic", unprivileged(deaf(counters={**OTHERS_REPORT, "IpExt.InOctets": 160,
        "TcpExt.IPReversePathFilter": 2}, interface_counters=LOOPED)), "unknown"),
    # Address translation may have made unicast of them.
    Row("no-traffic", unprivileged(deaf(counters=counted(Ip__InReceives=90, Ip__InDelivers=90, Udp__NoPorts=90))),
        "unknown"),
    Row("no-traffic", unprivileged(deaf(counters=counted(Ip__InReceives=50))), "unknown", "only root", SUDO),
    # A program has joined, perhaps on the port that the datagrams go to, and is given some.
    Row(
        "no-traffic",
        unprivileged(deaf(counters={**SILENT, **TO_OTHERS}, memberships=(joined(),))), "unknown", "only root", SUDO,
    ),
    Row("no-traffic", unprivileged(deaf(counters={**SILENT, **TO_OTHERS})), "unknown", "only root", SUDO),
    Row("no-traffic", unprivileged(deaf(counters={**SILENT, **TO_OTHERS}, usual={"IpExt.InMcastPkts": 25.0,
        "Ip.InDelivers": 25.0, "Ip.InReceives": 25.0, "IpExt.InMcastOctets": 3200.0})), "problem"),
    Row("no-traffic", unprivileged(deaf(counters=NO_REPORT), frames=()), "suspect"),
    Row("no-traffic", unprivileged(deaf(interface_counters={"eth0": {"rx_packets": 9}})), "unknown", "", SUDO),
    Row("no-traffic", unprivileged(deaf(counters={})), "unknown", "", SUDO),
]  # fmt: skip


def drop(reason: str = "NETFILTER_DROP", count: int = 98, **changes: Any) -> Drop:
    """Datagrams of the target that the kernel dropped."""
    return replace(Drop(reason, "", "eth0", GROUP, PORT, TALKER, False, count), **changes)


FLAWED = frames(flaw="the Ethernet type 0x0801 instead of 0x0800 (IPv4) or 0x86dd (IPv6)")
LOST = deaf(frames=(frames(),), counters=counted(Ip__InReceives=100, Ip__InDelivers=100))
DIVERTED = rule("udp dport 5000 dnat to 172.17.0.2", action="translate", packets=1)
WANTING = Member(socket(address="10.1.0.1"), (Membership(ip_address(GROUP), "eth0", False),))
FOR_ANOTHER = joined(any_source=False, included=(SourceUse(ip_address("10.1.0.7"), 1),))
FOR_THE_TALKER = joined(any_source=False, included=(SourceUse(ip_address(TALKER), 1),))
ASTRAY = Member(socket()._replace(port=5001), (Membership(ip_address(GROUP), "eth0", False),))
BOUND_ASTRAY = ASTRAY._replace(socket=socket(address=GROUP)._replace(port=5001))
PRIVILEGED = deaf(port=500, joins=(JoinTrial("eth0", None, "EACCES"),), machine=Machine("linux", "6", 1000, False))
REFUSED = deaf(joins=(JoinTrial("eth0", None, "EPERM"),))
CLOSED = bridge(ports=("eth0", "vnet1"), barred_ports=(("eth0", "blocking"),))
UPON_BRIDGE = (LO, replace(ETH0, chosen=False, bridge="br0", master="br0"), replace(ETH1, name="br0", chosen=True))
KEPT_OUT = deaf("ff15::1", passages=(Passage("eth0", TALKER6, "ENETUNREACH"),))
FIRST_ONES = deaf(frames=(frames(20, fragments=20, longest=1500),), counters=counted(Ip__ReasmReqds=20))
LATER_ONES = (frames(20, fragments=20, port=None, sender_port=None, longest=1500),)
LAST_ONES = deaf(frames=(replace(LATER_ONES[0], longest=928),), counters=counted(Ip__ReasmReqds=20))
STUCK = deaf(queues=(QueueFacts("eth0", "tbf", 1, False, 0, held=277),))
KEPT_AT_HOME = deaf(drops=(drop("NOT_SPECIFIED", function="ip_mc_output", source=OWN, outgoing=True),))
UNJOINED = set_to(deaf(frames=(frames(fragments=9),), counters=counted(Ip__ReasmReqds=9)), ipv4__ipfrag_high_thresh="0")
STOLEN = deaf(frames=(frames(),), drops=())
STEALING = FilterFacts("eth0", "ingress", "u32", 49152, "mirred egress redirect dev eth1", True, 100)
SENT_OUT_AGAIN = change(
    STOLEN,
    frames=(frames(), frames(interface="eth1", outgoing=True)),
    drops=(drop("NOT_SPECIFIED", function="ip_rcv_finish_core", interface="eth9", count=60),),
    counters=counted(Ip__InReceives=100, IpExt__InMcastPkts=100),
)
DECIDING = FilterFacts("eth0", "ingress", "bpf", 1, "bpf", None, None)
SENDING = healthy(arrivals=(arrivals(100, sender=OWN),), frames=(), drops=())
SENT_TO_QUEUE = drop("QDISC_DROP", source=OWN, outgoing=True)
AT_THE_EGRESS = rule("udp dport 5000 drop", chain="netdev f c", hook="egress", matches=False, matches_own=True,
                     packets=None)  # fmt: skip
KEPT_AT_THE_EGRESS = change(SENDING, drops=(drop(hook="egress", source=OWN, outgoing=True),), firewall=(AT_THE_EGRESS,))
KEPT_BY_A_QUEUE = unprivileged(
    change(SENDING, queues=(QueueFacts("eth0", "tbf", 1, False, 97),), counters=counted(Ip__OutDiscards=97),
           interface_counters={"eth0": {"tx_packets": 3}}, drops=UNKNOWN)
)  # fmt: skip
SENT_TO_ETH1 = change(
    STOLEN, filters=(DECIDING,), counters=counted(Ip__InReceives=100), frames=(frames(), frames(interface="eth1")),
    interface_counters={"eth0": {"rx_packets": 100}, "eth1": {"rx_packets": 0}},
)  # fmt: skip
DISCARDED = drop("NOT_SPECIFIED", function="dst_discard_out", source=OWN, interface="lo", outgoing=True)
OUTWARD = IpsecPolicy("out", "allow", "0.0.0.0/0", "239.1.2.3/32")
WITHOUT_FAMILY = deaf("ff15::1", joins=(JoinTrial("eth0", None, "EAFNOSUPPORT"),), drops=())
NARROW = healthy(
    bridges=(bridge(ports=("eth0", "eth1"), snooping=False),), frames=(frames(longest=1028),),
    interfaces=(*UPON_BRIDGE, replace(ETH1, name="eth1", mtu=600, chosen=False, bridge="br0", master="br0")),
    drops=(drop("NOT_SPECIFIED", function="br_dev_queue_push_xmit"),),
)  # fmt: skip
BLOCKING = IpsecPolicy("in", "block", "0.0.0.0/0", "239.1.2.3/32")

FORWARDED = rule("udp dport 5000 fwd to eth1", chain="netdev t ingress", hook="ingress", action="divert", packets=100)
WRONG_HEADERS = deaf(frames=(frames(flaw=HEADER_CHECKSUM),), counters=counted(IpExt__InCsumErrors=100))
UNREAD_BY_77 = drop("SOCKET_RCVBUFF", 9, socket=77)

ROWS += [
    Row("firewall", change(STOLEN, firewall=(FORWARDED,)), "problem", "to another interface"),
    Row("firewall", change(STOLEN, firewall=(replace(FORWARDED, packets=0),)), "ok"),
    Row("firewall", change(STOLEN, firewall=(FORWARDED,), counters=FIREWALLED), "ok"),
    Row("checksum", WRONG_HEADERS, "problem", "100"),
    Row("no-traffic", WRONG_HEADERS, "ok", "none of them is sound"),
    Row(
        "receive-buffer",
        # The counters were read at another moment than the losses of the socket.
        healthy(sockets=(socket(3),), sockets_after=(socket(12),), counters=counted(Udp__RcvbufErrors=1),
                drops=(UNREAD_BY_77,)),
        "problem", "player (process 4711)",
    ),
    Row("malformed", healthy(), "ok"),
    Row("malformed", deaf(frames=(FLAWED,)), "problem", "0x0801", "Correct the sender"),
    Row("malformed", healthy(frames=(frames(), FLAWED)), "suspect", "0x0801"),
    Row("malformed", unprivileged(deaf()), "unknown", "root"),
    Row("ttl", KEPT_AT_HOME, "problem", "hop limit of 0", "1 or more"),
    Row("ttl", change(KEPT_AT_HOME, arrivals=(arrivals(9),)), "suspect", "hop limit of 0"),
    Row("ttl", deaf(arrivals=(arrivals(9, sender=OWN, hop_limit=0),)), "problem", "hop limit of 0"),
    Row("ttl", deaf(arrivals=(arrivals(9, "lo", sender=OWN, hop_limit=0),)), "ok"),
    Row("fragments", healthy(), "ok"),
    Row("fragments", UNJOINED, "problem", "joins none", "net.ipv4.ipfrag_high_thresh=4194304"),
    Row("fragments", NOT_TRIED, "unknown"),
    Row("fragments", FIRST_ONES, "problem", "none of the later ones", "no fragments: up to 1472 bytes"),
    Row("fragments", change(FIRST_ONES, drops=(drop("FRAG_REASM_TIMEOUT", 20),)), "problem", "none of the later ones"),
    Row("fragments", change(FIRST_ONES, drops=(drop("FRAG_TOO_FAR", 20),)), "suspect", "before it can join them"),
    Row("fragments", deaf(frames=LATER_ONES, counters=counted(Ip__ReasmReqds=20)), "problem", "no first one"),
    Row("fragments", LAST_ONES, "ok", "too large for the way"),
    Row("fragments", deaf(counters=counted(Ip__ReasmReqds=20)), "ok", "not the target's"),
    Row("fragments", unprivileged(deaf(counters=counted(Ip__ReasmReqds=20))), "suspect", "20 fragments"),
    Row("fragments", KEPT_PIECES, "ok", "This host dropped some"),
    Row("fragments", unprivileged(KEPT_PIECES), "unknown", "dropped 40 packets before"),
    Row("mtu", FIRST_ONES, "ok"),
    Row("mtu", LAST_ONES, "suspect", "Only the last, short fragments", "the same MTU"),
    Row("mtu", deaf(frames=LATER_ONES, counters=counted(Ip__ReasmReqds=20)), "ok"),
    Row("privileged-port", PRIVILEGED, "problem", "below 1024", "CAP_NET_BIND_SERVICE"),
    # Root of a container that drops capabilities, and root itself
    Row("privileged-port", change(PRIVILEGED, machine=Machine("linux", "6", 0, False)), "problem", "below 1024"),
    Row("privileged-port", change(PRIVILEGED, machine=Machine("linux", "6", 0, True)), "ok"),
    Row("privileged-port", healthy(), "ok"),
    Row("privileged-port", NOT_TRIED, "unknown"),
    Row("sandbox", healthy(), "ok"),
    Row("sandbox", change(REFUSED, sandbox=Sandbox(True)), "problem", "EPERM", "SystemCallFilter"),
    Row("sandbox", REFUSED, "suspect", "EPERM"),
    Row("sandbox", change(WITHOUT_FAMILY, sandbox=Sandbox(True)), "problem", "EAFNOSUPPORT"),
    Row("sandbox", change(WITHOUT_FAMILY, sandbox=Sandbox(True), counters={}), "ok"),
    Row(
        "group-route",
        change(WITHOUT_FAMILY, drops=(drop("NOT_SPECIFIED", function="ip6_mc_input", group="ff15::1"),)),
        "ok",
    ),
    Row("sandbox", NOT_TRIED, "unknown"),
    Row("bridge-port", healthy(), "ok"),
    Row(
        "bridge-port", deaf(bridges=(CLOSED,), interfaces=UPON_BRIDGE, frames=(frames(),)),
        "problem", "blocking", "bridge link set dev eth0 state 3",
    ),
    Row("bridge-port", deaf(bridges=UNKNOWN), "unknown"),
    Row("bridge-port", NARROW, "problem", "whose MTU is 600", "ip link set dev eth1 mtu 1500"),
    Row("bridge-port", change(NARROW, drops=()), "ok"),
    Row("group-route", healthy(), "ok"),
    Row("group-route", KEPT_OUT, "problem", "ff00::/8", "ip -6 route replace multicast"),
    Row(
        "group-route", change(KEPT_OUT, rules=(PolicyRule(6, 0, "to ff15::/16 prohibit"),)),
        "problem", "prohibit", "ip -6 rule del pref 0",
    ),
    Row("group-route", NOT_TRIED, "unknown"),
    Row("xdp", healthy(), "ok"),
    Row("traffic-control", STUCK, "suspect", "holds what this host sends", "tc qdisc del dev eth0 root"),
    Row("traffic-control", change(STUCK, frames=(frames(1, sender=OWN, outgoing=True),)), "problem", "holds what"),
    Row("traffic-control", change(STUCK, interface_counters={"eth0": {"tx_packets": 900}}), "ok"),
    Row("traffic-control", healthy(queues=trial_of(STUCK).queues), "ok"),
    Row("no-traffic", STUCK, "suspect", "Nothing of"),
    Row("no-traffic", unprivileged(STUCK), "suspect", "Nothing of"),
    Row("xdp", deaf(interfaces=(replace(ETH0, xdp="xdpgeneric 7"),), drops=(drop("XDP"),)), "problem", "XDP", "off"),
    Row("xdp", deaf(interfaces=UNKNOWN), "unknown"),
    Row("traffic-control", healthy(), "ok"),
    Row("traffic-control", change(LOST, drops=(drop("TC_INGRESS"),)), "problem", "ingress of eth0", "bpftool net"),
    Row("traffic-control", NOT_TRIED, "unknown"),
    Row("traffic-control", change(STOLEN, filters=(STEALING,)), "problem", "mirred", "tc filter del dev eth0"),
    Row("traffic-control", change(STOLEN, filters=(replace(STEALING, packets=3),)), "ok"),
    Row("traffic-control", change(STOLEN, filters=(replace(STEALING, diverts=False),)), "ok"),
    # The far end of eth1 is on this host: there half of the datagrams reach IP, and nobody has joined.
    Row("traffic-control", change(SENT_OUT_AGAIN, filters=(STEALING,)), "problem", "mirred egress redirect dev eth1"),
    Row("traffic-control", change(SENT_OUT_AGAIN, filters=(replace(STEALING, packets=3),)), "ok"),
    Row("traffic-control", change(SENT_OUT_AGAIN, filters=(replace(STEALING, diverts=False),)), "ok"),
    Row("traffic-control", change(SENT_OUT_AGAIN, filters=(replace(STEALING, action="gact stolen"),)), "ok"),
    Row("wrong-interface", unprivileged(ELSEWHERE, filters=(STEALING,)), "unknown", "may send them there"),
    Row("wrong-interface", unprivileged(ELSEWHERE, filters=(replace(STEALING, packets=3),)), "problem"),
    Row("traffic-control", change(STOLEN, filters=(DECIDING,)), "problem", "BPF program"),
    Row("traffic-control", change(STOLEN, filters=(DECIDING,), firewall=UNKNOWN), "ok"),
    Row("traffic-control", change(STOLEN, drops=(drop("NETFILTER_DROP", hook="input"),), filters=(STEALING,)), "ok"),
    Row(
        "traffic-control", change(LOST, drops=(replace(drop("NO_SOCKET"), port=5001),), filters=(DECIDING,)),
        "problem", "changes the port 5000 to 5001",
    ),
    Row(
        "traffic-control", change(STOLEN, filters=(replace(STEALING, action="mirred egress redirect dev ifb0"),),
                                  queues=(QueueFacts("ifb0", "tbf", 1, False, 0, 100),)),
        "problem", "ifb0, whose queue (tbf) holds", "tc qdisc del dev ifb0 root",
    ),
    Row(
        "traffic-control", unprivileged(deaf(filters=(STEALING,), counters=counted(Ip__InReceives=0),
                                             interface_counters={"eth0": {"rx_packets": 100}})),
        "suspect", "takes packets away",
    ),
    Row("traffic-control", change(SENDING, drops=(SENT_TO_QUEUE,)), "problem", "drops what this host sends"),
    Row("traffic-control", change(SENDING, drops=(replace(SENT_TO_QUEUE, reason="TC_EGRESS"),)), "problem", "egress"),
    Row(
        "traffic-control", change(SENDING, queues=(QueueFacts("eth0", "tbf", 1, False, 0, 100),)),
        "problem", "(tbf) holds", "tc qdisc del dev eth0 root",
    ),
    Row("traffic-control", change(SENDING, filters=(replace(STEALING, hook="egress"),)), "problem", "at the egress"),
    Row("traffic-control", SENDING, "ok"),
    Row("traffic-control", KEPT_BY_A_QUEUE, "problem", "(tbf) drops what this host", "tc qdisc del dev eth0 root"),
    # As many packets left as there were copies.
    Row("traffic-control", change(KEPT_BY_A_QUEUE, interface_counters={"eth0": {"tx_packets": 98}}), "ok"),
    Row("traffic-control", change(KEPT_BY_A_QUEUE, counters=counted(Ip__OutDiscards=9)), "ok"),
    Row("traffic-control", unprivileged(deaf(arrivals=(ON_LOOPBACK,), filters=(DECIDING,))), "suspect", "to lo"),
    Row("traffic-control", unprivileged(deaf(arrivals=(replace(ON_LOOPBACK, sender=OWN),), filters=(DECIDING,))), "ok"),
    Row("traffic-control", change(STOLEN, filters=(DECIDING,), counters=counted(Ip__InReceives=100),
                                  frames=(frames(), frames(interface="lo"))), "problem", "BPF program"),
    Row("wrong-interface", unprivileged(deaf(arrivals=(ON_LOOPBACK,))), "unknown", "something on this host sends them"),
    Row("send-route", deaf(failed_sends=(LOSING,)), "suspect", "bound to 10.1.0.9"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, peer=GROUP, peer_port=PORT),)), "problem", "bound to"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, peer=GROUP, peer_port=PORT + 1),)), "ok"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, peer="10.3.0.3", peer_port=PORT),)), "ok"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, is_for_groups=False),)), "ok"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, own=OWN),)), "ok"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, own="127.0.0.9"),)), "ok"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, own="0.0.0.0"),)), "ok"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, error="EPERM"),)), "ok"),
    Row("send-route", deaf(failed_sends=(replace(LOSING, count=2),)), "ok"),
    Row("send-route", deaf(failed_sends=(LOSING,), memberships=(joined(),)), "ok"),
    Row("send-route", healthy(failed_sends=(LOSING,)), "ok"),
    Row("send-route", deaf(failed_sends=(LOSING,), frames=(frames(sender=OWN, outgoing=True),)), "ok"),
    Row("no-traffic", deaf(failed_sends=(LOSING,)), "suspect"),
    Row("no-traffic", unprivileged(deaf(), counters=counted(Ip__OutNoRoutes=99)), "unknown", "without a route"),
    Row("no-traffic", unprivileged(deaf(), counters=counted(Ip__OutNoRoutes=2)), "problem"),
    Row("no-traffic", deaf(failed_sends=(replace(LOSING, peer="10.3.0.3"),)), "problem"),
    Row("mtu", deaf(failed_sends=(TOO_LONG,), lookups=(Lookups("sender", "eth0", 99, 0),)), "problem", "longer"),
    Row("mtu", deaf(failed_sends=(replace(TOO_LONG, peer=GROUP, peer_port=PORT),)), "problem", "longer than the MTU"),
    Row("mtu", deaf("ff15::1", failed_sends=(TOO_LONG,), lookups=(Lookups("sender", "eth0", 99, 0),)), "problem"),
    Row("mtu", deaf("ff15::1", failed_sends=(TOO_LONG,), lookups=(Lookups("sender", "eth0", 198, 0),)), "problem"),
    Row("mtu", deaf("ff15::1", failed_sends=(TOO_LONG,), lookups=(Lookups("sender", "eth0", 398, 0),)), "ok"),
    Row("mtu", deaf(failed_sends=(TOO_LONG,)), "ok"),
    Row("mtu", deaf(failed_sends=(TOO_LONG,), lookups=(Lookups("other", "eth0", 99, 0),)), "ok"),
    Row("mtu", deaf(failed_sends=(TOO_LONG,), lookups=(Lookups("sender", "eth0", 199, 0),)), "ok"),
    Row("mtu", healthy(failed_sends=(TOO_LONG,), lookups=(Lookups("sender", "eth0", 99, 0),)), "suspect"),
    # More datagrams than the interface took in did not come by its wire.
    Row("wrong-interface", change(ELSEWHERE, interface_counters={"eth1": {"rx_packets": 3}}), "unknown", "by no wire"),
    Row("wrong-interface", change(ELSEWHERE, interface_counters={"eth1": {"rx_packets": 100}}), "problem"),
    Row("wrong-interface", change(SENT_ELSEWHERE, interface_counters={"eth1": {"rx_packets": 3}}), "problem"),
    Row("traffic-control", SENT_TO_ETH1, "problem", "BPF program"),
    Row("traffic-control", change(SENT_TO_ETH1, interface_counters={"eth1": {"rx_packets": 100}}), "ok"),
    Row("traffic-control", change(KEPT_BY_A_QUEUE, queues=(), filters=(replace(DECIDING, hook="egress"),)), "suspect"),
    Row("firewall", change(KEPT_BY_A_QUEUE, queues=(), filters=(replace(DECIDING, hook="egress"),)), "ok"),
    Row("no-traffic", deaf(lookups=(Lookups("sender", "eth0", 99, 0),)), "unknown", "sender asks for the way"),
    Row("traffic-control", healthy(drops=(SENT_TO_QUEUE,)), "suspect", "drops what this host sends"),
    Row("nat", healthy(), "ok"),
    Row("nat", change(LOST, firewall=(DIVERTED,), drops=()), "problem", "dnat", "conntrack -D"),
    Row("nat", deaf(firewall=UNKNOWN), "unknown"),
    Row("ipsec", healthy(), "ok"),
    Row(
        "ipsec", change(LOST, drops=(drop("XFRM_POLICY"),), ipsec=(BLOCKING,)),
        "problem", "IPsec", "ip xfrm policy delete dir in src 0.0.0.0/0 dst 239.1.2.3/32",
    ),
    Row("ipsec", NOT_TRIED, "unknown"),
    Row(
        "ipsec", deaf(drops=(DISCARDED,), counters=counted(Xfrm__XfrmOutNoStates=100), ipsec=(OUTWARD,)),
        "problem", "demands encryption", "ip xfrm policy delete dir out src 0.0.0.0/0 dst 239.1.2.3/32",
    ),
    Row("ipsec", deaf(drops=(DISCARDED,), ipsec=(OUTWARD,)), "ok"),
    Row(
        "ipsec",
        deaf(drops=(), counters=counted(Xfrm__XfrmOutPolBlock=100), ipsec=(replace(OUTWARD, action="block"),),
             lookups=(Lookups("sender", "eth0", 100, 0),)),
        "problem", "refuses what it sends",
    ),
    Row("ipsec", deaf(drops=(), counters=counted(Xfrm__XfrmOutPolBlock=100), lookups=(), ipsec=(OUTWARD,)), "ok"),
    Row("socket-filter", healthy(), "ok"),
    Row("socket-filter", change(LOST, drops=(drop("SOCKET_FILTER"),)), "problem", "control group", "bpftool"),
    Row("socket-filter", unprivileged(deaf(socket_drops=98, counters=counted(Udp__InErrors=98))), "problem", "BPF"),
    Row("socket-filter", NOT_TRIED, "unknown"),
    Row("socket-filter", hidden_losses(Udp__InErrors=98), "problem", "drops 98 datagrams"),
    Row("socket-filter", hidden_losses("0.0.0.0", Udp__InErrors=98), "suspect", "drops 98 datagrams"),
    Row("socket-filter", hidden_losses(Udp__InErrors=98, Udp__RcvbufErrors=98), "ok"),
    Row("socket-filter", hidden_losses(Udp__InErrors=98, Udp__InCsumErrors=50), "ok"),
    Row("socket-filter", change(SENDING, drops=(replace(SENT_TO_QUEUE, reason="BPF_CGROUP_EGRESS"),)),
        "problem", "sender's control group", "IPAddressAllow=239.1.2.3"),
    Row("program", healthy(), "ok"),
    Row("program", healthy(sockets=(WANTING.socket,), members=(WANTING,)), "problem", "can never receive", "bind"),
    Row("program", healthy(sockets=(), members_elsewhere=(ASTRAY,)), "suspect", "player (process 4711) on port 5001",
        "listen on port 5000"),
    Row("program", healthy(sockets=(socket(),), members_elsewhere=(ASTRAY,)), "ok"),
    Row("program", healthy(sockets=(BOUND_ASTRAY.socket,), members=(BOUND_ASTRAY,)), "suspect", "on port 5001"),
    Row("program", healthy(members=(BOUND_ASTRAY,), frames=(frames(), frames(port=5001))), "ok"),
    Row("program", unprivileged(healthy(memberships=(FOR_ANOTHER,), sockets=(socket(),))), "problem", "10.1.0.7 only"),
    Row("program", unprivileged(healthy(memberships=(FOR_ANOTHER, joined()), sockets=(socket(),))), "ok"),
    Row("program", unprivileged(healthy(memberships=(FOR_THE_TALKER,), sockets=(socket(),))), "ok"),
    Row("program", unprivileged(healthy(memberships=(FOR_ANOTHER,), sockets=())), "ok"),
    Row("program", healthy(members_elsewhere=(ASTRAY,), frames=(frames(), frames(port=5001))), "ok"),
    Row("program", deaf(members_elsewhere=(ASTRAY,)), "ok"),
    Row("program", deaf(sockets=UNKNOWN), "unknown"),
    Row("firewall", change(LOST, drops=(drop(),), firewall=(rule(packets=None),)), "problem", "5000 drop", "nft"),
    Row("firewall", change(LOST, drops=(), firewall=(rule(packets=None),)), "ok", "dropped none"),
    # Receivers on this host have their copies before the egress hook.
    Row("firewall", KEPT_AT_THE_EGRESS, "problem", "drops what a program of this host sends"),
    Row("firewall", change(KEPT_AT_THE_EGRESS, arrivals=(arrivals(),)), "suspect"),
    Row("firewall", healthy(firewall=(AT_THE_EGRESS,)), "ok"),
    Row("firewall", change(KEPT_BY_A_QUEUE, queues=()), "suspect", "does not leave eth0", SUDO),
    Row("partial-loss", healthy(), "ok", "All datagrams"),
    Row("partial-loss", deaf(), "ok", "No datagrams"),
    Row("partial-loss", healthy(arrivals=(arrivals(99),)), "ok"),
    Row("partial-loss", healthy(arrivals=(arrivals(13),), frames=(frames(116),)), "problem", "103 of 116", "drops"),
    Row(
        "partial-loss",
        healthy(arrivals=(arrivals(13),), frames=(frames(116),), drops=(drop("UDP_CSUM", count=103),)),
        "problem", "they end at UDP",
    ),
    # What arrives more often than it was captured hides no loss of another sender.
    Row(
        "partial-loss",
        healthy(arrivals=(arrivals(13), arrivals(300, sender="10.1.0.3")), frames=(frames(116),)),
        "problem", "103 of 116",
    ),
    Row("partial-loss", healthy(arrivals=(arrivals(13),), frames=(frames(116),), receiver=BLOCKS_ONE), "suspect"),
    Row("partial-loss", unprivileged(healthy(arrivals=(arrivals(13),))), "unknown", "root only", SUDO),
    Row("no-traffic", change(deaf(), interface_counters=FLOODED), "suspect", "90 packets on eth0 vanished", "XDP"),
    Row("no-traffic", change(deaf(), interface_counters=FLOODED, counters=counted(Ip__InReceives=90)), "problem"),
    Row("no-traffic", change(deaf(), interface_counters=FLOODED, counters={**SILENT, "Tcp.InSegs": 90}), "problem"),
    Row("no-traffic", deaf(interfaces=(LO, replace(ETH0, kind="wireguard"))), "problem", "look at the far end"),
    # A port of a bridge and the bridge count the same packets.
    Row(
        "no-traffic",
        change(
            deaf(interfaces=(LO, replace(ETH1, master="br0"), replace(ETH0, name="br0", kind="bridge"))),
            interface_counters={"br0": {"rx_packets": 90}, "eth1": {"rx_packets": 90}},
            counters=counted(Ip__InReceives=90),
        ),
        "problem", "look at the network",
    ),
    Row("site-bridge", NOT_TRIED, "unknown", "Could not be read."),
    Row("site-bridge", healthy(site_bridges=(CUT_OFF,)), "ok", "come to this network"),
    Row("site-bridge", deaf(site_bridges=()), "ok", "No bridge"),
    Row("site-bridge", deaf(site_bridges=(CUT_OFF,)), "suspect", "10.1.0.9 reaches no other site"),
    Row("site-bridge", deaf(site_bridges=(CUT_OFF, replace(CUT_OFF, is_connected=True))), "ok", "reaches other sites"),
    Row("no-traffic", deaf(site_bridges=(CUT_OFF,)), "problem", "", "The bridge to other sites at 10.1.0.9"),
    Row("tunnel", healthy(), "ok", "No tunnel"),
    Row("tunnel", healthy(interfaces=(LO, replace(ETH0, kind="gre", remote="10.9.0.2"))), "ok", "come out of it"),
    Row("tunnel", deaf(interfaces=(LO, replace(ETH0, kind="gre", remote="10.9.0.2"))), "suspect", "tunnel to 10.9.0.2"),
    Row("tunnel", deaf(interfaces=(LO, replace(ETH0, kind="gre", remote="239.9.9.9"))), "ok", "No tunnel"),
    Row("tunnel", deaf(interfaces=(LO, replace(ETH0, is_point_to_point=True))), "suspect", "point-to-point"),
    Row("tunnel", deaf(interfaces=(LO, replace(ETH0, kind="wireguard"))), "suspect", "WireGuard"),
    Row("tunnel", deaf(interfaces=(LO, replace(ETH0, kind="wireguard"), replace(ETH1, chosen=True))), "ok", "far end"),
    Row("tunnel", deaf(interfaces=(LO, replace(VXLAN, floods_to=("239.9.9.9",)))), "ok", "No tunnel"),
    Row("tunnel", deaf(interfaces=(LO, replace(VXLAN, floods_to=("10.9.0.2",)))), "suspect", "groups to 10.9.0.2"),
    Row("tunnel", deaf(interfaces=(LO, VXLAN)), "suspect", "no peer"),
    Row("tunnel", change(deaf(interfaces=(LO, VXLAN)), interface_counters={"eth0": {"tx_dropped": 2}}),
        "problem", "drops our membership reports", "bridge fdb append"),
    Row("tunnel", unprivileged(change(deaf(interfaces=(LO, VXLAN)), counters={})), "unknown", "no peer"),
    Row("macvlan", healthy(interfaces=(LO, ETH1, MACVLAN)), "ok"),
    Row("macvlan", deaf(interfaces=(LO, ETH1, MACVLAN)), "unknown", "not the host that it is on"),
    Row("macvlan", deaf(interfaces=(LO, ETH1, MACVLAN), frames=(frames(interface="eth1", outgoing=True),)),
        "problem", "come from eth1, and eth0 never hears it", "macvlan of its own"),
    Row("macvlan", deaf(interfaces=(LO, ETH0, OTHER_MACVLAN), frames=(frames(outgoing=True, sender="10.1.0.9"),)),
        "problem", "a macvlan or ipvlan of eth0"),
    # A child in a container is known by its station, which is not that of the parent.
    Row("macvlan", deaf(interfaces=(LO, STATION), frames=(frames(outgoing=True),)), "problem", "of eth0"),
    Row("macvlan", deaf(interfaces=(LO, STATION), frames=(frames(outgoing=True, ethernet_source=OWN_STATION),)), "ok"),
    Row("macvlan", deaf(interfaces=(LO, STATION), frames=(frames(outgoing=True, sender=OWN),)), "ok"),
    Row("macvlan", deaf(interfaces=(LO, replace(STATION, master="br0")), frames=(frames(outgoing=True),)), "ok"),
    Row("macvlan", deaf(interfaces=(LO, ETH1, SOURCE_MODE), frames=(frames(interface="eth1"),)),
        "problem", "does not take the frames of 10.1.0.2", "macvlan macaddr add 02:00:00:00:00:02"),
    Row("macvlan", deaf(interfaces=(LO, replace(MACVLAN, kind="ipvlan", mode="l3"))), "problem", "l3", "mode l2"),
    Row("macvlan", deaf(interfaces=(LO, ETH1, replace(SOURCE_MODE, stations=()))), "problem", "takes no frame"),
    Row("macvlan", deaf(interfaces=(LO, replace(ETH1, chosen=True), replace(SOURCE_MODE, stations=()))), "suspect"),
    Row("macvlan", deaf(interfaces=(LO, ETH1, replace(SOURCE_MODE, kind="macvtap", stations=()))), "unknown"),
]  # fmt: skip


BY_NAME = {check_name(check): partial(examine, check) for check in CHECKS}


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.check}-{row.verdict}-{number}" for number, row in enumerate(ROWS)])
def test_the_verdict_follows_from_the_facts(row: Row) -> None:
    """A check gives the verdict that the facts allow, names what it rests on, and the cure."""
    finding = BY_NAME[row.check](row.facts)
    assert (finding.check, finding.verdict) == (row.check, row.verdict), tells(finding)
    assert row.says in tells(finding)
    assert not finding.summary.startswith("The check failed")
    assert row.cure in "\n".join(finding.remedy)


@pytest.mark.parametrize("name", BY_NAME)
def test_each_check_is_shown_content_and_not(name: str) -> None:
    """For every check there are facts above that are good, and facts that are not."""
    verdicts = {row.verdict for row in ROWS if row.check == name}
    assert "ok" in verdicts
    assert verdicts & {"problem", "suspect"}
    assert "unknown" in verdicts or name in {"ttl", "group-address"}


@pytest.mark.parametrize("name", BY_NAME)
def test_what_was_not_tried_is_never_a_problem(name: str) -> None:
    """Where nothing could be read, a check is content only with what it needs no facts for."""
    blind = replace(
        NOT_TRIED, interfaces=UNKNOWN, routes=UNKNOWN, memberships=UNKNOWN, sockets=UNKNOWN, firewall=UNKNOWN,
        bridges=UNKNOWN, settings={}, machine=Machine("linux", "6", 1000, False, UNKNOWN),
    )  # fmt: skip
    finding = BY_NAME[name](blind)
    if name in {"group-address", "loopback-route", "macos-privacy", "source-filter", "igmp-version"}:
        assert finding.verdict == "ok"
    else:
        assert (finding.verdict, finding.remedy) in [("unknown", ("look elsewhere",)), ("unknown", ())], tells(finding)


@pytest.mark.parametrize("row", ROWS, ids=[f"{row.check}-{number}" for number, row in enumerate(ROWS)])
def test_remedies_are_steps_or_commands(row: Row) -> None:
    """A line of a remedy is a sentence, which ends with a full stop, or a command that a shell could run."""
    programs = {
        "bridge",
        "ip",
        "nft",
        "iptables",
        "ip6tables",
        "iptables-legacy",
        "sysctl",
        "mcast",
        "sudo",
        "look",
        "tc",
    }
    for line in BY_NAME[row.check](row.facts).remedy:
        assert line == line.strip()
        assert "\n" not in line
        if line.endswith("."):
            assert line[0].isupper() or line[0].isdigit()
        else:
            assert line.split()[0] in programs
    assert BY_NAME[row.check](row.facts).summary.endswith((".", "?"))


def test_a_root_only_fact_names_what_to_run() -> None:
    """Whoever may not see the frames is told how to."""
    assert ROOT_ONLY.remedy == SUDO
    unknowns = [BY_NAME[name](unprivileged(deaf(counters=counted(Ip__InReceives=50)))) for name in BY_NAME]
    assert SUDO in {line for finding in unknowns if finding.verdict == "unknown" for line in finding.remedy}
