"""A frame on the wire of an interface. Pure: touches no OS."""

from __future__ import annotations

from typing import NamedTuple

ETHERNET_LIKE = (1, 772)
"""Links whose frames begin with an Ethernet header: ARPHRD_ETHER, ARPHRD_LOOPBACK of linux/if_arp.h."""
ETHERNET_SIZE = 14


class Frame(NamedTuple):
    """A frame on the wire of an interface."""

    interface: str
    """Its name; empty if the interface is gone already."""
    outgoing: bool
    """Whether this host sent it out of the interface."""
    timestamp_ns: int | None
    """When the kernel got it, in nanoseconds since 1970."""
    ethernet: bytes
    """Its Ethernet header; empty if the link has none."""
    vlan: int | None
    """The number of its VLAN, if it has a tag."""
    checked: bool
    """Whether its checksums are computed already; a network card may do that on the way out."""
    packet: bytes
    """What follows the header of the link, cut to what the filter keeps."""
    length: int
    """How many bytes the packet has on the wire."""


def link_name(interface: str, vlan: int | None) -> str:
    """Return the name of the link that a frame is on: a VLAN is one of its own, also if no interface here is in it."""
    return interface if vlan is None else f"{interface} VLAN {vlan}"
