"""An interface of the lab, and the cable that joins two of them. Makes virtual Ethernet pairs with `ip`."""

from __future__ import annotations

import ipaddress
import itertools
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from multicast_expert.testing.namespaces import LabError
from multicast_expert.testing.node import Node, wait_until

IFA_F_TENTATIVE = 0x40  # linux/if_addr.h: duplicate address detection is not over yet
LINK_LOCAL = 0x20  # include/net/ipv6.h: IPV6_ADDR_LINKLOCAL


def address_lines(verb: str, interface: str, addresses: Sequence[str], *, dad: bool) -> list[str]:
    """`ip` commands that add or delete addresses; IPv6 ones without duplicate address detection unless `dad`."""
    quick = "" if dad or verb == "del" else " nodad"
    return [f"addr {verb} {address} dev {interface}{quick if ':' in address else ''}" for address in addresses]


@dataclass(eq=False)
class Interface:
    """One end of a cable. `addresses` have prefix lengths; `peer` is the other end (a port, if it is in a switch)."""

    node: Node
    name: str
    addresses: list[str] = field(default_factory=list)
    mtu: int | None = None
    _peer: Interface | None = field(default=None, repr=False)
    _first_index: int = field(default=0, repr=False)

    @property
    def peer(self) -> Interface:
        """The interface at the other end of the cable; LabError without a cable."""
        if self._peer is None:
            raise LabError(f"{self.node.name} {self.name} is not connected")
        return self._peer

    @property
    def ipv4(self) -> str:
        """Its first IPv4 address, without the prefix length; LabError if it has none."""
        return self._address_of_version(4)

    @property
    def ipv6(self) -> str:
        """Its first IPv6 address that the lab gave it, without the prefix length; LabError if it has none."""
        return self._address_of_version(6)

    def _address_of_version(self, version: int) -> str:
        for text in self.addresses:
            address = ipaddress.ip_interface(text).ip
            if address.version == version:
                return str(address)
        raise LabError(f"{self.node.name} {self.name} was given no IPv{version} address")

    def index(self) -> int:
        """Return its index in the kernel; OSError while it does not exist."""
        with self.node.entered():
            return socket.if_nametoindex(self.name)

    def exists(self) -> bool:
        """Return whether its node has an interface of this name now."""
        with self.node.entered():
            return any(name == self.name for _, name in socket.if_nameindex())

    @property
    def link_local(self) -> str:
        """Its IPv6 link-local address, without scope; LabError if it has none."""
        for address, scope, _ in self._ipv6_addresses():
            if scope == LINK_LOCAL:
                return address
        raise LabError(f"{self.node.name} {self.name} has no IPv6 link-local address")

    def _ipv6_addresses(self) -> list[tuple[str, int, int]]:
        """Return address, scope and flags of each, from lines of `address index prefix scope flags name`, in hex."""
        with self.node.entered():
            rows = [
                line.split()
                for line in Path("/proc/thread-self/net/if_inet6").read_text(errors="surrogateescape").splitlines()
            ]
        return [
            (str(ipaddress.IPv6Address(int(row[0], 16))), int(row[3], 16), int(row[4], 16))
            for row in rows
            if row[5] == self.name
        ]

    def _addresses_are_usable(self) -> bool:
        return not any(flags & IFA_F_TENTATIVE for _, _, flags in self._ipv6_addresses())

    def _sends_ipv6(self) -> bool:
        return any(scope == LINK_LOCAL for _, scope, _ in self._ipv6_addresses()) and self._addresses_are_usable()

    def bring_up(self) -> None:
        """Add its addresses, once it exists, and bring it up."""
        self.node.ip(*address_lines("add", self.name, self.addresses, dad=self.node.dad), f"link set {self.name} up")

    def has_ipv6(self) -> bool:
        """Return whether the kernel has IPv6, and has it switched on here."""
        setting = Path("/proc/sys/net/ipv6/conf") / self.name / "disable_ipv6"
        with self.node.entered():
            return setting.exists() and setting.read_text().strip() == "0"

    def wait_until_addresses_are_usable(self) -> None:
        """Return as soon as every IPv6 address that it has can be sent from; it may have none."""
        wait_until(self._addresses_are_usable, f"the IPv6 addresses of {self.node.name} {self.name} are usable")

    def wait_until_ready(self) -> None:
        """Return as soon as its IPv6 addresses can be sent from: seconds, with duplicate address detection."""
        if self.has_ipv6():
            wait_until(self._sends_ipv6, f"{self.node.name} {self.name} has a usable IPv6 link-local address")

    def wait_until_connected(self) -> None:
        """Return as soon as both ends of its cable can be used, or this one, if the far end is down."""
        self.wait_until_ready()
        if self._peer is not None and self._peer._is_up():
            self._peer.wait_until_ready()

    def _is_up(self) -> bool:
        (shown,) = json.loads(self.node.command("ip", "-j", "link", "show", "dev", self.name))
        return "UP" in shown["flags"]


class Cables:
    """The cables of one lab. No two interfaces of the lab have the same kernel index.

    That shows mix-ups. And the kernel delays the first link event of a pair of interfaces by up to a second if both
    have the same index (linkwatch_urgent_event in net/core/link_watch.c).
    """

    def __init__(self) -> None:
        self._indexes = itertools.count(11)
        self._wall: Node | None = None
        self._sockets_in_the_wall = itertools.count(1)

    def next_index(self) -> int:
        """Return an index that no interface of this lab has yet."""
        return next(self._indexes)

    def connect(self, near: Interface, far: Interface, *, same_indexes: bool = False) -> None:
        """Lay a cable between two interfaces that do not exist yet, bring both up and wait until they can be used."""
        if not same_indexes:
            near._first_index, far._first_index = self.next_index(), self.next_index()
        descriptor = far.node.namespace.descriptor
        size = f" mtu {near.mtu}" if near.mtu else ""
        near.node.ip(
            f"link add {near.name} index {near._first_index}{size} type veth "
            f"peer name {far.name} index {far._first_index}{size} netns /proc/self/fd/{descriptor}",
            pass_fds=[descriptor],
        )
        near._peer, far._peer = far, near
        far.bring_up()
        near.bring_up()
        near.wait_until_connected()

    def connect_to_the_wall(self, near: Interface) -> None:
        """Lay a cable that is alive and leads to no host."""
        if self._wall is None:
            self._wall = Node("wall")
        self.connect(near, Interface(self._wall, f"socket{next(self._sockets_in_the_wall)}"))

    def close(self) -> None:
        """Give up the far ends of unconnected cables."""
        if self._wall is not None:
            self._wall.close()
