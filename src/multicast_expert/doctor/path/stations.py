"""The stations of a packet's way through Linux, and the one at which the kernel dropped it. Pure: touches no OS.

The reason that the kernel gives decides; where it gives none, its function does. Functions differ between kernels, as
their compilers merge them, so that an unknown one has a place, too: ELSEWHERE.
"""

from __future__ import annotations

from typing import NamedTuple

from multicast_expert.doctor.facts import Drop


class Place(NamedTuple):
    """Where the kernel dropped a packet."""

    station: str
    """Its name in RECEIVING or SENDING."""
    step: str
    """What the kernel does there, as far as it is known: `reverse path`."""


RECEIVING = (
    "wire", "driver and XDP", "tc ingress", "Ethernet and VLAN", "bridge", "prerouting", "IP", "input", "IPsec", "UDP",
    "socket", "elsewhere", "program",
)  # fmt: skip
"""The stations that a packet meets which comes in, in order. `bridge`: also a bond, team or macvlan."""
SENDING = ("program", "route", "IPsec", "output", "postrouting", "elsewhere", "tc egress", "wire")
"""The stations of a packet that this host sends."""
ELSEWHERE = "elsewhere"

_XDP = Place("driver and XDP", "XDP program")
_DRIVER = Place("driver and XDP", "driver")
_BACKLOG = Place("driver and XDP", "backlog of a processor")
_FRAME = Place("Ethernet and VLAN", "Ethernet type")
_STATION = Place("Ethernet and VLAN", "Ethernet address or VLAN")
_BRIDGE = Place("bridge", "port of a bridge")
_HEADER = Place("IP", "header")
_SOURCE = Place("IP", "source address")
_REVERSE = Place("IP", "reverse path")
_ROUTE = Place("IP", "route or membership")
_FRAGMENTS = Place("IP", "fragments")
_IPSEC = Place("IPsec", "policy")
_LENGTH = Place("UDP", "length")
_CHECKSUM = Place("UDP", "checksum")
_PORT = Place("UDP", "no socket takes them")
_FILTER = Place("socket", "filter")
_BUFFER = Place("socket", "buffer")
_SOCKET = Place("socket", "")

_REASONS = {
    "XDP": _XDP, "CPU_BACKLOG": _BACKLOG, "DEV_HDR": _DRIVER, "DEV_READY": _DRIVER, "FULL_RING": _DRIVER,
    "NOMEM": _DRIVER, "PFMEMALLOC": _DRIVER, "SKB_UCOPY_FAULT": _DRIVER, "TAP_FILTER": _DRIVER,
    "TAP_TXFILTER": _DRIVER, "TC_INGRESS": Place("tc ingress", "filter or BPF program"), "OTHERHOST": _STATION,
    "UNHANDLED_PROTO": _FRAME, "MAC_INVALID_SOURCE": _STATION, "BRIDGE_INGRESS_STP_STATE": _BRIDGE,
    "NO_TX_TARGET": _BRIDGE, "LOCAL_MAC": _BRIDGE, "MAC_IEEE_MAC_CONTROL": _BRIDGE, "IP_CSUM": _HEADER,
    "IP_INHDR": _HEADER, "HDR_TRUNC": _HEADER, "IPV6_BAD_EXTHDR": _HEADER, "UNICAST_IN_L2_MULTICAST": _HEADER,
    "IPV6DISABLED": Place("IP", "IPv6 is disabled"), "IP_NOPROTO": Place("UDP", "protocol"),
    "INVALID_PROTO": Place("UDP", "protocol"), "IP_LOCAL_SOURCE": _SOURCE, "IP_INVALID_SOURCE": _SOURCE,
    "IP_LOCALNET": _SOURCE, "IP_RPFILTER": _REVERSE, "IP_INVALID_DEST": _ROUTE, "IP_INADDRERRORS": _ROUTE,
    "IP_INNOROUTES": _ROUTE, "DUP_FRAG": _FRAGMENTS, "FRAG_REASM_TIMEOUT": _FRAGMENTS, "FRAG_TOO_FAR": _FRAGMENTS,
    "XFRM_POLICY": _IPSEC, "UDP_CSUM": _CHECKSUM, "SKB_CSUM": _CHECKSUM, "NO_SOCKET": _PORT, "SOCKET_FILTER": _FILTER,
    "SOCKET_RCVBUFF": _BUFFER, "SOCKET_BACKLOG": _BUFFER, "PROTO_MEM": _BUFFER,
    "SECURITY_HOOK": Place("socket", "security module"),
}  # fmt: skip
_SENDING_REASONS = {
    "IP_OUTNOROUTES": Place("route", "route"),
    "BPF_CGROUP_EGRESS": Place("output", "BPF program of a control group"),
    "TC_EGRESS": Place("tc egress", "filter or BPF program"),
    "NEIGH_FAILED": Place("route", "neighbour"),
}

# Names of functions, and beginnings of names, which end with *.
_FUNCTIONS = {
    "do_xdp_generic": _XDP, "netif_receive_generic_xdp": _XDP, "veth_xdp_*": _XDP, "xdp_*": _XDP, "veth_*": _DRIVER,
    "tun_*": _DRIVER, "enqueue_to_backlog": _BACKLOG, "netif_rx*": _BACKLOG,
    "sch_handle_ingress": Place("tc ingress", ""), "__netif_receive_skb_core": _FRAME, "br_*": _BRIDGE,
    "macvlan_*": Place("bridge", "macvlan"), "ipvlan_*": Place("bridge", "ipvlan"), "bond_*": Place("bridge", "bond"),
    "team_*": Place("bridge", "team"), "vlan_*": _STATION, "ip_rcv_core": _HEADER, "ip6_rcv_core": _HEADER,
    "ipv6_rcv": _HEADER, "ip_rcv": _HEADER, "ip_rcv_finish*": _ROUTE, "ip6_rcv_finish*": _ROUTE, "ip_route_*": _ROUTE,
    "ip6_mc_input": _ROUTE, "ip_mr_*": _ROUTE, "ip6_mr_*": _ROUTE, "ip_forward*": _ROUTE, "ip6_forward*": _ROUTE,
    "ip_error": _ROUTE, "ip6_pkt_*": _ROUTE, "dst_discard*": _ROUTE, "ip_defrag": _FRAGMENTS,
    "ipv6_frag_rcv": _FRAGMENTS, "ip6_frag_*": _FRAGMENTS, "inet_frag_*": _FRAGMENTS, "ip_expire": _FRAGMENTS,
    "nf_ct_frag6_*": _FRAGMENTS, "xfrm*": _IPSEC, "__xfrm*": _IPSEC, "__udp4_lib_rcv": _PORT, "__udp6_lib_rcv": _PORT,
    "udp_rcv": _PORT, "udpv6_rcv": _PORT, "__udp4_lib_mcast_deliver": _PORT, "__udp6_lib_mcast_deliver": _PORT,
    # The checksum of a long datagram is verified when the program takes it, and only that fails then.
    "udp_recvmsg": _CHECKSUM, "udpv6_recvmsg": _CHECKSUM, "first_packet_length": _CHECKSUM,
    "__first_packet_length": _CHECKSUM, "udp_poll": _CHECKSUM,
    "udp_queue_rcv_*": _SOCKET, "udpv6_queue_rcv_*": _SOCKET, "__udp_queue_rcv_skb": _SOCKET, "udp_*": _SOCKET,
    "udpv6_*": _SOCKET, "sk_filter*": _FILTER, "sock_queue_rcv_*": _BUFFER,
}  # fmt: skip
_SENDING_FUNCTIONS = {
    # A route without an association of IPsec discards what it gets.
    "dst_discard*": _IPSEC,
    "ip_mc_output": Place("route", "hop limit"), "ip6_finish_output*": Place("route", "hop limit"),
    "ip_finish_output*": Place("route", "neighbour"), "ip6_*": Place("route", ""), "ip_*": Place("route", ""),
    "__dev_queue_xmit": Place("tc egress", "queue"), "__dev_xmit_skb": Place("tc egress", "queue"),
    "sch_*": Place("tc egress", "queue"), "tbf_*": Place("tc egress", "queue"), "qdisc_*": Place("tc egress", "queue"),
    "netem_*": Place("tc egress", "queue"), "validate_xmit_*": Place("tc egress", "queue"),
    "dev_hard_start_xmit": Place("wire", "driver"), "veth_xmit": Place("wire", "driver"),
}  # fmt: skip
_HOOKS = {"ingress": "tc ingress", "prerouting": "prerouting", "input": "input", "output": "output",
          "postrouting": "postrouting", "egress": "tc egress"}  # fmt: skip
"""The station of each hook of netfilter; those at the edge of an interface are beside tc's."""


def place_of(drop: Drop) -> Place:
    """Return where the kernel dropped it."""
    if drop.hook in _HOOKS:
        return Place(_HOOKS[drop.hook], f"netfilter {drop.hook}")
    if drop.reason.startswith(("QDISC_", "FQ_")):
        # What came in meets a queue where a filter redirects it, or where a bridge passes it on.
        return Place("tc egress", "queue") if drop.outgoing else Place("tc ingress", "queue of another interface")
    if drop.outgoing:
        reasons, functions = _SENDING_REASONS, _SENDING_FUNCTIONS
    else:
        reasons, functions = _REASONS, _FUNCTIONS
        if drop.reason == "PKT_TOO_SMALL":
            # IP and UDP give the same reason for a length that does not fit the packet.
            return _LENGTH if "udp" in drop.function else _HEADER
    return reasons.get(drop.reason) or _by_function(drop.function, functions) or Place(ELSEWHERE, drop.function)


def _by_function(function: str, functions: dict[str, Place]) -> Place | None:
    if function in functions:
        return functions[function]
    beginnings = [each for each in functions if each.endswith("*") and function.startswith(each[:-1])]
    return functions[max(beginnings, key=len)] if beginnings else None
