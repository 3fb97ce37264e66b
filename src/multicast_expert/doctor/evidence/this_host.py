"""What the facts say about this host: interfaces, addresses, settings and routes. Pure: touches no OS."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from ipaddress import IPv4Interface, IPv6Interface, ip_interface

from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor.facts import (
    Facts,
    FilterFacts,
    InterfaceFacts,
    Passage,
    Route,
    Unread,
    address_of,
    interface_setting,
    same,
)
from multicast_expert.system.listings import UdpSocket


def interfaces(facts: Facts) -> tuple[InterfaceFacts, ...]:
    """Return the known interfaces."""
    return () if isinstance(facts.interfaces, Unread) else facts.interfaces


def chosen(facts: Facts) -> tuple[InterfaceFacts, ...]:
    """Return the interfaces that a receiver of the target listens on."""
    return tuple(each for each in interfaces(facts) if each.chosen or each.name == facts.target.interface)


def missing(facts: Facts) -> str:
    """Return in words that the named interface is not on this host, so that nothing is known of what it gets."""
    target, found = facts.target.interface, interfaces(facts)
    is_missing = target is not None and found and target not in [each.name for each in found]
    return f"There is no interface {target or repr(target)}." if is_missing else ""


def chosen_names(facts: Facts) -> list[str]:
    """Return the names of the chosen interfaces."""
    return [each.name for each in chosen(facts)]


def loopback_names(facts: Facts) -> set[str]:
    """Return the names of the loopback interfaces."""
    return {each.name for each in interfaces(facts) if each.is_loopback}


def below(facts: Facts) -> tuple[InterfaceFacts, ...]:
    """Return the chosen interfaces, their ports, and what they are made from: all that a packet may pass."""
    names = set(chosen_names(facts))
    names |= {each.parent or each.name for each in chosen(facts)}
    names |= {each.name for each in interfaces(facts) if each.master in names}
    return tuple(each for each in interfaces(facts) if each.name in names)


def may_be_rewritten(facts: Facts) -> bool:
    """Return whether a filter of tc, such as a BPF program, may change what comes in on the chosen interfaces."""
    filters = () if isinstance(facts.trial, Unread) else facts.trial.filters
    names = {each.name for each in below(facts)}
    listed = () if isinstance(filters, Unread) else filters
    return any(each.interface in names and each.hook == "ingress" and each.diverts is None for each in listed)


def diverting_filters(facts: Facts) -> list[FilterFacts]:
    """Return the filters of tc at the ingress of the chosen interfaces whose actions keep packets from IP."""
    filters = () if isinstance(facts.trial, Unread) else facts.trial.filters
    names = {each.name for each in below(facts)}
    listed = () if isinstance(filters, Unread) else filters
    return [each for each in listed if each.interface in names and each.hook == "ingress" and each.diverts]


def own_addresses(facts: Facts) -> set[IPAddress]:
    """Return the addresses of this host."""
    return {address.ip for each in interfaces(facts) for address in addresses(each)}


def addresses(interface: InterfaceFacts, *, usable: bool = False) -> Iterator[IPv4Interface | IPv6Interface]:
    """Yield the addresses of an interface, with their networks; `usable`: but for the tentative ones."""
    for text in interface.addresses:
        address = _parsed(text)
        if address is not None and not (usable and text in interface.tentative):
            yield address


@lru_cache(maxsize=4096)
def _parsed(address: str) -> IPv4Interface | IPv6Interface | None:
    """Return an address with its network, None for other text; checks ask for all of them again and again."""
    try:
        return ip_interface(address)
    except ValueError:
        return None


def setting(facts: Facts, interface: str, name: str) -> int | None:
    """Return a numeric per-interface setting for the target's IP version; None if unknown."""
    return number(facts, interface_setting(facts.target.group_version or 4, interface, name))


def number(facts: Facts, name: str) -> int | None:
    """Return a numeric kernel setting; None if unknown."""
    value = facts.settings.get(name)
    return int(value) if isinstance(value, str) and value.lstrip("-").isdecimal() else None


def route_to(facts: Facts, destination: str) -> Route | None:
    """Return the route to an address; None if it was not looked up."""
    routes = () if isinstance(facts.routes, Unread) else facts.routes
    return next((each for each in routes if same(each.destination, destination)), None)


def passage(facts: Facts, interface: str, sender: str) -> Passage | None:
    """Return how the kernel routes the sender's datagrams from an interface; None if it was not asked."""
    asked = () if isinstance(facts.trial, Unread) else facts.trial.passages
    return next((each for each in asked if each.interface == interface and same(each.sender, sender)), None)


def gateway_to(facts: Facts, destination: str) -> str | None:
    """Return the router on the way to an address; None if an interface of this host is in the address's network."""
    route = route_to(facts, destination)
    if route is None or route.gateway is None or is_near(facts, destination):
        return None
    return route.gateway


def is_near(facts: Facts, address: str) -> bool:
    """Return whether an interface of this host is in the network of the address."""
    found = address_of(address)
    networks = (each.network for interface in interfaces(facts) for each in addresses(interface))
    return found is not None and any(found.version == network.version and found in network for network in networks)


def growing_drops(facts: Facts) -> dict[UdpSocket, int]:
    """Return the sockets of other programs that lost datagrams during the trial, and how many."""
    if isinstance(facts.sockets, Unread) or isinstance(facts.trial, Unread):
        return {}
    before = {each.inode: each.drops for each in facts.sockets}
    grown = {each: each.drops - before[each.inode] for each in facts.trial.sockets if each.inode in before}
    return {each: lost for each, lost in grown.items() if lost > 0}


def may_want(facts: Facts, socket: UdpSocket) -> bool:
    """Return whether what a socket receives may be the target: by its port, its address, and what it has joined."""
    if facts.target.port not in (None, socket.port):
        return False
    if not socket.address.is_unspecified:
        return same(str(socket.address), facts.target.group)
    members = [each for each in facts.members if each.socket.inode == socket.inode]
    # A socket that has joined other groups only also gets this one, unless IP_MULTICAST_ALL is 0.
    return not members or any(each.memberships for each in members)


def was_joined(facts: Facts) -> bool:
    """Return whether a program on this host had joined the group before the trial."""
    joined = () if isinstance(facts.memberships, Unread) else facts.memberships
    group = address_of(facts.target.group)
    return any(each.group == group for each in joined)
