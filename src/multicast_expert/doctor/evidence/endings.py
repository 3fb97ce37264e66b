"""Where the target's datagrams end, as the kernel's own verdict on each drop says. Pure: touches no OS.

A reason of skb_drop_reason (net/dropreason-core.h) tells by itself in which station of the way a datagram was dropped;
where the kernel gives none, the function that dropped it does.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

from multicast_expert.doctor.evidence import this_host
from multicast_expert.doctor.evidence.sightings import received, trial_of
from multicast_expert.doctor.facts import Drop, Facts, Unread, same

_STRAY = 2
"""So many drops may belong to other packets of the group, such as reports."""

_BY_REASON: Mapping[str, str] = {
    "XDP": "xdp",
    "TC_INGRESS": "traffic-control", "TC_EGRESS": "traffic-control", "QDISC_DROP": "traffic-control",
    "QDISC_OVERLIMIT": "traffic-control", "QDISC_CONGESTED": "traffic-control", "FQ_BAND_LIMIT": "traffic-control",
    "FQ_HORIZON_LIMIT": "traffic-control", "FQ_FLOW_LIMIT": "traffic-control", "CAKE_FLOOD": "traffic-control",
    "DUALPI2_STEP_DROP": "traffic-control",
    "UNHANDLED_PROTO": "malformed", "IP_INHDR": "malformed", "PKT_TOO_SMALL": "malformed", "HDR_TRUNC": "malformed",
    "IP_NOPROTO": "malformed", "IPV6_BAD_EXTHDR": "malformed", "INVALID_PROTO": "malformed",
    "BRIDGE_INGRESS_STP_STATE": "bridge-port", "LOCAL_MAC": "bridge-port", "MAC_INVALID_SOURCE": "ethernet-address",
    "OTHERHOST": "ethernet-address", "UNICAST_IN_L2_MULTICAST": "ethernet-address",
    "NETFILTER_DROP": "firewall",
    "IP_CSUM": "checksum", "UDP_CSUM": "checksum", "SKB_CSUM": "checksum",
    "IP_RPFILTER": "reverse-path-filter",
    "IP_LOCAL_SOURCE": "local-source", "IP_INVALID_SOURCE": "local-source", "IP_LOCALNET": "local-source",
    "IP_INNOROUTES": "group-route", "IP_OUTNOROUTES": "group-route", "IP_INADDRERRORS": "group-route",
    "DUP_FRAG": "fragments", "FRAG_TOO_FAR": "fragments", "FRAG_REASM_TIMEOUT": "fragments",
    "XFRM_POLICY": "ipsec",
    "SOCKET_FILTER": "socket-filter", "BPF_CGROUP_EGRESS": "socket-filter", "SECURITY_HOOK": "sandbox",
    "SOCKET_RCVBUFF": "receive-buffer", "PROTO_MEM": "receive-buffer", "SOCKET_BACKLOG": "receive-buffer",
    "NO_SOCKET": "port",
    "PKT_TOO_BIG": "mtu", "IPV6DISABLED": "interface-address", "CPU_BACKLOG": "backlog", "DEV_READY": "interface-down",
}  # fmt: skip
# Where the reason is missing; the first part of a function's name that fits decides.
_BY_FUNCTION = (
    ("do_xdp", "xdp"), ("netif_receive_generic_xdp", "xdp"), ("bpf_prog_run_generic_xdp", "xdp"), ("veth_xdp", "xdp"),
    ("br_", "bridge-port"), ("vlan_", "wrong-interface"),
    ("tcf_", "traffic-control"), ("sch_handle", "traffic-control"), ("tbf_", "traffic-control"),
    ("netem_", "traffic-control"), ("qdisc_", "traffic-control"), ("__dev_queue_xmit", "traffic-control"),
    ("nf_queue", "firewall"), ("nfqnl_", "firewall"), ("nf_", "firewall"), ("nft_", "firewall"), ("ipt_", "firewall"),
    ("ip_defrag", "fragments"), ("ip_frag", "fragments"), ("ipv6_frag", "fragments"), ("inet_frag", "fragments"),
    ("ip6_pkt_", "group-route"), ("xfrm", "ipsec"), ("packet_", ""),
)  # fmt: skip


def check_of(drop: Drop) -> str:
    """Return the name of the check that judges such a drop; empty if it tells nothing."""
    if (known := _BY_REASON.get(drop.reason)) is not None:
        return known
    return next((check for part, check in _BY_FUNCTION if drop.function.startswith(part)), "")


def drops(facts: Facts, *, outgoing: bool = False) -> tuple[Drop, ...] | None:
    """Return what the kernel dropped of the target, on the chosen interfaces; None if it did not say."""
    found = trial_of(facts).drops
    if isinstance(found, Unread) or isinstance(facts.trial, Unread):
        return None
    passed = {None, *(each.name for each in this_host.below(facts))}
    return tuple(
        each
        for each in found
        if each.outgoing is outgoing and each.interface in passed and _is_targets(facts, each) and each.count
    )


def _is_targets(facts: Facts, drop: Drop) -> bool:
    target = facts.target
    return (
        drop.group is not None
        and same(drop.group, target.group)
        and (target.port is None or drop.port in (None, target.port))
        and (target.source is None or drop.source is None or same(drop.source, target.source))
    )


def by_check(facts: Facts, *, outgoing: bool = False) -> Counter[str] | None:
    """Return how many datagrams of the target the kernel dropped, by the check that judges it; None if it did not say.

    What the sockets of other programs did not take is left out.
    """
    found = drops(facts, outgoing=outgoing)
    if found is None:
        return None
    others = {each.inode for each in (() if isinstance(facts.sockets, Unread) else facts.sockets)}
    counts: Counter[str] = Counter()
    for each in found:
        if each.socket is None or each.socket not in others:
            counts[check_of(each)] += each.count
    return counts


def lost_to(facts: Facts, check: str, *, outgoing: bool = False) -> int | None:
    """Return how many datagrams of the target were lost in the way that a check judges; None if that is not known."""
    counts = by_check(facts, outgoing=outgoing)
    if counts is None:
        return None
    count = counts[check]
    # A few that are lost beside many that arrive are no fault: a stream that just began, a report of a membership.
    return count if count > max(_STRAY, received(facts) // 50) else 0
