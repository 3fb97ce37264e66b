"""Dropped: what a kernel tells about datagrams that it dropped. Pure: touches no OS."""

from __future__ import annotations

from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress

FREED_REASONS = ("SKB_NOT_DROPPED_YET", "SKB_CONSUMED", "SOCKET_CLOSE", "QUEUE_PURGE", "PACKET_SOCK_ERROR")
"""Reasons of frees that are no drops: what was delivered, what waited at a closed socket, and copies for captures."""
FREEING_FUNCTIONS = (
    "udp_destruct_common", "udpv6_destruct_common", "udp_destruct_sock", "udpv6_destruct_sock", "inet_sock_destruct",
    "udp_destroy_sock", "skb_queue_purge", "skb_queue_purge_reason", "__skb_queue_purge", "skb_rbtree_purge",
    "packet_rcv", "packet_rcv_spkt", "tpacket_rcv", "packet_sock_destruct",
)  # fmt: skip
"""Functions whose frees are no drops, for kernels that have no reason of their own for them."""
NO_REASON = "NOT_SPECIFIED"
"""What the kernel says where it has no reason."""


class Dropped(NamedTuple):
    """Datagrams of one kind that the kernel dropped."""

    reason: str
    """By its name in the kernel, without SKB_DROP_REASON_."""
    function: str
    """Empty if the kernel hides it."""
    interface: int | None
    """The index of the interface; None: not known."""
    group: IPAddress | None
    port: int | None
    source: IPAddress | None
    outgoing: bool
    hook: str
    """The hook of netfilter where a rule dropped them, by the name that nftables has for it; empty if none did."""
    socket: int | None
    """The inode number of the socket that did not take them."""
    number: int
    """How many datagrams; how many packets if they were fragments."""


def is_drop(reason: str, function: str) -> bool:
    """Return whether a free of this reason in this function of the kernel is a drop."""
    return reason not in FREED_REASONS and function not in FREEING_FUNCTIONS
