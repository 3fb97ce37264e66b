"""A host with three interfaces, what talks to it, and what a receiver on it may ask for."""

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from typing import NamedTuple

from linux.plain_sockets import FAMILY, any_address, join, own_address, sender_on, udp_socket
from multicast_expert import McastRxSocket
from multicast_expert.testing import Host, Interface, Lab

PORT = 5000

# The letters that the cases below speak in. Group d is never asked for; the second IPv6 group has link-local scope.
GROUPS = {
    4: {"a": "239.1.1.1", "b": "224.0.0.200", "c": "239.1.1.3", "d": "239.1.1.4"},
    6: {"a": "ff15::1:1", "b": "ff12::1:2", "c": "ff18::1:3", "d": "ff15::1:4"},
}
INTERFACES = "012"
SOURCES = "xy"


class Wish(NamedTuple):
    """What one receiver asks for: groups, interfaces (None: all) and sources (none: any), by their letters."""

    groups: str
    interfaces: str | None
    sources: str = ""

    def datagrams(self) -> set[str]:
        """The datagrams that fulfil it, each named by group, interface and source."""
        return {"".join(name) for name in product(self.groups, self.interfaces or INTERFACES, self.sources or SOURCES)}


CASES = {
    "one interface": [Wish("a", "0")],
    "two interfaces": [Wish("a", "01")],
    "all interfaces": [Wish("a", None)],
    "every interface by name": [Wish("a", "012")],
    "several groups on one interface": [Wish("abc", "1")],
    "several groups on two interfaces": [Wish("abc", "12")],
    "several groups on all interfaces": [Wish("abc", None)],
    "a group for each of three receivers": [Wish("a", "0"), Wish("b", "0"), Wish("c", "0")],
    "an interface for each of three receivers": [Wish("a", "0"), Wish("a", "1"), Wish("a", "2")],
    "twice the same wish": [Wish("ab", "0"), Wish("ab", "0")],
    "overlapping wishes": [Wish("ab", "01"), Wish("bc", "12"), Wish("a", None), Wish("c", "0")],
    "one source": [Wish("a", "0", "x")],
    "both sources": [Wish("a", "0", "xy")],
    "one source on all interfaces": [Wish("ac", None, "y")],
    "a source for each of two receivers, any for a third": [Wish("a", "0", "x"), Wish("a", "0", "y"), Wish("a", "0")],
}


@dataclass(frozen=True)
class Network:
    """A host with three interfaces, each with a cable to a host that has two addresses."""

    host: Host
    interfaces: dict[str, Interface]
    senders: dict[tuple[int, str], socket.socket]
    """By IP version and "interface source"."""
    strangers: list[tuple[int, socket.socket, str]]
    """(IP version, socket, address): all the ways in which the host can be sent what goes to no group."""

    def send_to_groups(self, version: int, suffix: str = "") -> list[str]:
        """Send one datagram to every group on every interface from every source; return what was sent."""
        sent = []
        for (spoken, way), sender in self.senders.items():
            for letter, group in GROUPS[version].items() if spoken == version else ():
                sender.sendto(f"{letter}{way}{suffix}".encode(), (group, PORT))
                sent.append(f"{letter}{way}{suffix}")
        return sent

    def send_to_the_host(self, version: int) -> list[str]:
        """Send to the port by unicast and broadcast; return what was sent."""
        sent = []
        for number, (spoken, sender, address) in enumerate(self.strangers):
            if spoken == version:
                sender.sendto(f"stranger {number} to {address}".encode(), (address, PORT))
                sent.append(f"stranger {number} to {address}")
        return sent

    def eavesdropper(self, version: int) -> socket.socket:
        """Another program: it has joined everything everywhere and takes all that comes to the port."""
        opened = udp_socket(self.host, version, (any_address(version), PORT))
        for group, interface in product(GROUPS[version].values(), self.interfaces.values()):
            join(opened, group, interface.index())
        return opened

    def receiver(self, version: int, wish: Wish) -> McastRxSocket:
        """The library's receiver of what was asked for."""
        names = self.names(wish)
        sources = self.sources(version, wish)
        groups = [GROUPS[version][letter] for letter in wish.groups]
        with self.host.entered():
            return McastRxSocket(FAMILY[version], groups, PORT, ifaces=names, source_ips=sources, timeout=10).open()

    def names(self, wish: Wish) -> list[str] | None:
        """The names of the interfaces that were asked for."""
        return None if wish.interfaces is None else [self.interfaces[number].name for number in wish.interfaces]

    @staticmethod
    def sources(version: int, wish: Wish) -> set[str]:
        """The addresses of the sources that were asked for."""
        return {source_address(version, number, letter) for letter in wish.sources for number in INTERFACES}


def source_address(version: int, number: str, letter: str) -> str:
    """The address of the host at the other end of an interface."""
    last = SOURCES.index(letter) + 1
    return f"10.1.{number}.{last}" if version == 4 else f"fd01:{number}::{last}"


@contextlib.contextmanager
def three_legs(lab: Lab) -> Iterator[Network]:
    """The three-legged host and all that talks to it."""
    host = lab.host("receiver")
    interfaces: dict[str, Interface] = {}
    senders: dict[tuple[int, str], socket.socket] = {}
    for number in INTERFACES:
        ipv4, ipv6 = ([source_address(version, number, letter) for letter in SOURCES] for version in (4, 6))
        far = lab.host(f"sender{number}")
        interfaces[number], eth = lab.link(
            host,
            far,
            interface=f"eth{number}",
            second_interface="eth0",
            ipv4=(f"10.1.{number}.254/24", f"{ipv4[0]}/24"),
            ipv6=(f"fd01:{number}::254/64", f"{ipv6[0]}/64"),
        )
        far.ip(
            f"addr add {ipv4[1]}/24 dev eth0",
            f"addr add {ipv6[1]}/64 dev eth0 nodad",
            f"route add default via 10.1.{number}.254",
            f"route add ::/0 via fd01:{number}::254",
        )
        for version, letter in product((4, 6), SOURCES):
            source = source_address(version, number, letter)
            senders[version, number + letter] = sender_on(eth, version, source=source)
    strangers = list(_strangers(host, interfaces, senders))
    yield Network(host, interfaces, senders, strangers)
    for opened in {*senders.values(), *(stranger for _, stranger, _ in strangers)}:
        opened.close()


def _strangers(
    host: Host, interfaces: dict[str, Interface], senders: dict[tuple[int, str], socket.socket]
) -> Iterator[tuple[int, socket.socket, str]]:
    addresses = {version: [own_address(near, version) for near in interfaces.values()] for version in (4, 6)}
    for (version, way), sender in senders.items():
        # Linux answers on every interface to all of its addresses.
        yield from ((version, sender, address) for address in addresses[version])
        if version == 4:
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
            yield version, sender, f"10.1.{way[0]}.255"
    for number, near in interfaces.items():
        neighbour = udp_socket(near.peer.node, 6)
        yield 6, neighbour, f"{near.link_local}%{near.peer.index()}"
        shouter = udp_socket(near.peer.node, 4, (source_address(4, number, "x"), 0))
        shouter.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
        shouter.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0\0")
        yield 4, shouter, "255.255.255.255"
    for version, loopback in ((4, "127.0.0.1"), (6, "::1")):
        program = udp_socket(host, version)
        yield from ((version, program, address) for address in [*addresses[version], loopback])
