"""Links, hosts and interfaces that exist only in memory: what the fake kernels are plugged into. Touches no OS."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Interface, IPv6Address, IPv6Interface, ip_address
from typing import NamedTuple, Protocol

Address = IPv4Address | IPv6Address


class Packet(NamedTuple):
    """One UDP datagram with the IP header fields that a receiver can learn."""

    source: Address
    source_port: int
    destination: Address
    port: int
    hop_limit: int
    data: bytes
    traffic_class: int = 0


class Sent(NamedTuple):
    """What left a host: the kernel's ``wire`` is a list of these. Endpoints are ``(address text, port)``."""

    link: str
    source: tuple[str, int]
    destination: tuple[str, int]
    hop_limit: int
    data: bytes
    traffic_class: int = 0


class Receiver(Protocol):
    """The side of a kernel that faces the network."""

    def receive(self, interface: FakeInterface, packet: Packet) -> int:
        """Deliver and return how many sockets took the datagram."""


@dataclass
class FakeInterface:
    """One interface. A loopback one has no link; addresses carry no scope (the index is the scope)."""

    name: str
    index: int
    ip4_addrs: list[IPv4Interface] = field(default_factory=list)
    ip6_addrs: list[IPv6Interface] = field(default_factory=list)
    link: str | None = None
    loopback: bool = False
    up: bool = True
    multicast: bool = True
    mtu: int = 1500
    link_layer_address: str | None = None

    def addresses(self, version: int) -> list[Address]:
        """The bare addresses of one IP version."""
        return [address.ip for address in (self.ip4_addrs if version == 4 else self.ip6_addrs)]

    def reaches(self, address: Address) -> bool:
        """Whether the address lies in one of this interface's prefixes."""
        return any(address in own.network for own in (self.ip4_addrs if address.version == 4 else self.ip6_addrs))


@dataclass
class FakeHost:
    """A machine: its interfaces, the one its default route uses, and the kernel that a test gives it (if any)."""

    name: str
    interfaces: list[FakeInterface]
    default_interface: int | None = None
    kernel: Receiver | None = None

    def interface(self, index: int) -> FakeInterface | None:
        """The interface with this index."""
        return next((one for one in self.interfaces if one.index == index), None)

    def owner(self, address: Address, scope: int = 0) -> FakeInterface | None:
        """The interface that has this address; an IPv6 link-local one is found only with its scope."""
        if address.version == 6 and address.is_link_local and not scope:
            return None
        return next(
            (
                one
                for one in self.interfaces
                if address in one.addresses(address.version) and (not scope or one.index == scope)
            ),
            None,
        )


class FakeNetwork:
    """Hosts and the links between their interfaces.

    A link is no more than a name that interfaces share: every datagram on it reaches every other interface of it.
    A host without a kernel is silent, with all its ports closed.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, FakeHost] = {}
        self.clock: Callable[[], int] = time.time_ns

    def add_host(self, name: str, *interfaces: FakeInterface, default_interface: int | None = None) -> FakeHost:
        """Plug a host in."""
        self.hosts[name] = FakeHost(name, list(interfaces), default_interface)
        return self.hosts[name]

    @classmethod
    def two_hosts(cls) -> FakeNetwork:
        """Hosts ``a`` and ``b``, both with lo (1), eth0 (2, default route) on link ``lan0``, eth1 (3) on ``lan1``."""
        network = cls()
        for number, name in enumerate("ab", start=1):
            network.add_host(
                name,
                FakeInterface(
                    "lo", 1, [IPv4Interface("127.0.0.1/8")], [IPv6Interface("::1/128")], loopback=True, mtu=16384
                ),
                *(
                    FakeInterface(
                        f"eth{lan}",
                        lan + 2,
                        [IPv4Interface(f"10.{lan}.0.{number}/24")],
                        [IPv6Interface(f"fe80::{lan}:{number}/64"), IPv6Interface(f"fd0{lan}::{number}/64")],
                        link=f"lan{lan}",
                        link_layer_address=f"02:00:00:00:0{lan}:0{number}",
                    )
                    for lan in (0, 1)
                ),
                default_interface=2,
            )
        return network

    def attached(self, link: str) -> Iterator[tuple[FakeHost, FakeInterface]]:
        """Every interface on the link, with its host."""
        return ((host, one) for host in self.hosts.values() for one in host.interfaces if one.link == link)

    def carry(self, link: str, packet: Packet, sender: FakeInterface | None = None) -> int | None:
        """Bring a datagram to the other interfaces; how many sockets took it, or None when nobody is addressed."""
        version = packet.destination.version
        taken = [
            host.kernel.receive(one, packet) if host.kernel else 0
            for host, one in self.attached(link)
            if one is not sender and one.up
            if packet.destination.is_multicast or packet.destination in one.addresses(version)
        ]
        return sum(taken) if taken else None

    def inject(
        self,
        link: str,
        source_ip: str,
        group: str,
        port: int,
        data: bytes,
        hop_limit: int = 1,
        source_port: int = 40000,
        traffic_class: int = 0,
    ) -> int:
        """Put a datagram on a link as though any machine there had sent it; how many sockets took it."""
        source, destination = ip_address(source_ip), ip_address(group)
        if not any(self.attached(link)):
            raise ValueError(f"no interface is on a link called {link!r}")
        if source.version != destination.version or not 1 <= hop_limit <= 255:
            raise ValueError("no such datagram can be on a wire")
        return self.carry(link, Packet(source, source_port, destination, port, hop_limit, data, traffic_class)) or 0
