"""What the facts say about this host: interfaces, addresses, settings and routes. Pure: touches no OS."""

from __future__ import annotations

from ipaddress import ip_interface

from multicast_expert.core.addresses import IPAddress
from multicast_expert.doctor.facts import Facts, InterfaceFacts, Route, Unread, address_of, interface_setting, same


def interfaces(facts: Facts) -> tuple[InterfaceFacts, ...]:
    """Return the known interfaces."""
    return () if isinstance(facts.interfaces, Unread) else facts.interfaces


def chosen(facts: Facts) -> tuple[InterfaceFacts, ...]:
    """Return the interfaces that a receiver of the target listens on."""
    return tuple(each for each in interfaces(facts) if each.chosen or each.name == facts.target.interface)


def chosen_names(facts: Facts) -> list[str]:
    """Return the names of the chosen interfaces."""
    return [each.name for each in chosen(facts)]


def own_addresses(facts: Facts) -> set[IPAddress]:
    """Return the addresses of this host."""
    return {ip_interface(address).ip for each in interfaces(facts) for address in each.addresses}


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


def gateway_to(facts: Facts, destination: str) -> str | None:
    """Return the router on the way to an address; None if an interface of this host is in the address's network."""
    route = route_to(facts, destination)
    if route is None or route.gateway is None or is_near(facts, destination):
        return None
    return route.gateway


def is_near(facts: Facts, address: str) -> bool:
    """Return whether an interface of this host is in the network of the address."""
    found = address_of(address)
    networks = (ip_interface(each).network for interface in interfaces(facts) for each in interface.addresses)
    return found is not None and any(found.version == network.version and found in network for network in networks)


def was_joined(facts: Facts) -> bool:
    """Return whether a program on this host had joined the group before the trial."""
    joined = () if isinstance(facts.memberships, Unread) else facts.memberships
    group = address_of(facts.target.group)
    return any(each.group == group for each in joined)
