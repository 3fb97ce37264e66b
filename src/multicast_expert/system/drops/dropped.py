"""Dropped: what a kernel tells about datagrams that it dropped. Pure: touches no OS."""

from __future__ import annotations

from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress


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
