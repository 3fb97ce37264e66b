"""How far datagrams of the target came: what was seen on the wire and at our sockets. Pure: touches no OS.

A question that the facts do not answer is answered with None.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from ipaddress import ip_address, ip_interface

from multicast_expert.core.addresses import Endpoint, IPAddress
from multicast_expert.doctor.facts import Arrivals, Facts, InterfaceFacts, Route, Trial, Unread, interface_setting
from multicast_expert.wire.frames import Frames

_STEADY = 5
"""Datagrams that make a stream, and that have to be missing at its end before it has stopped."""


def trial_of(facts: Facts) -> Trial:
    """Return what was tried; an empty trial where nothing was."""
    return Trial(0.0, False) if isinstance(facts.trial, Unread) else facts.trial


def received(facts: Facts) -> int:
    """Return how many datagrams arrived as they were asked for."""
    return sum(each.count for each in trial_of(facts).arrivals if each.asked)


def others_received(facts: Facts) -> tuple[Arrivals, ...]:
    """Return what arrived only because the trial joined more widely."""
    return tuple(each for each in trial_of(facts).arrivals if not each.asked)


def interfaces(facts: Facts) -> tuple[InterfaceFacts, ...]:
    """Return the interfaces that are known."""
    return () if isinstance(facts.interfaces, Unread) else facts.interfaces


def chosen(facts: Facts) -> tuple[InterfaceFacts, ...]:
    """Return the interfaces that the target would be received on."""
    return tuple(each for each in interfaces(facts) if each.chosen or each.name == facts.target.interface)


def chosen_names(facts: Facts) -> list[str]:
    """Return their names."""
    return [each.name for each in chosen(facts)]


def own_addresses(facts: Facts) -> set[IPAddress]:
    """Return the addresses of this host."""
    return {ip_interface(address).ip for each in interfaces(facts) for address in each.addresses}


def frames(facts: Facts, *, outgoing: bool = False) -> tuple[Frames, ...] | None:
    """Return the frames of the group that came in on the wire, or those that this host sent."""
    found = trial_of(facts).frames
    if isinstance(found, Unread) or isinstance(facts.trial, Unread):
        return None
    return tuple(each for each in found if same(each.group, facts.target.group) and each.outgoing is outgoing)


def wanted(facts: Facts, *, outgoing: bool = False) -> tuple[Frames, ...] | None:
    """Return those of them that a receiver as it was asked for should get, fragments of unknown port included."""
    found = frames(facts, outgoing=outgoing)
    if found is None:
        return None
    target, names = facts.target, set(chosen_names(facts))
    return tuple(
        each
        for each in found
        if each.interface in names
        and (target.port is None or each.port in (None, target.port))
        and (target.source is None or same(each.sender, target.source))
        and each.vlan is None
    )


def silence(facts: Facts) -> float | None:
    """Return for how many seconds a steady stream had stopped at the end of the trial; None if it had not."""
    seconds = trial_of(facts).seconds
    asked = [each for each in trial_of(facts).arrivals if each.asked]
    silences = [seconds - each.last for each in asked if seconds - each.last > _longest_pause(each)]
    return min(silences) if silences and len(silences) == len(asked) else None


def _longest_pause(stream: Arrivals) -> float:
    """Return the seconds of silence that a stream may have without having stopped."""
    if stream.count < _STEADY:
        return float("inf")
    return max(1.0, _STEADY * (stream.last - stream.first) / (stream.count - 1))


def setting(facts: Facts, interface: str, name: str) -> int | None:
    """Return a numeric setting that each interface has, for the target's IP version."""
    return number(facts, interface_setting(facts.target.group_version or 4, interface, name))


def number(facts: Facts, name: str) -> int | None:
    """Return a numeric setting of the kernel."""
    value = facts.settings.get(name)
    return int(value) if isinstance(value, str) and value.lstrip("-").isdecimal() else None


def route_to(facts: Facts, destination: str) -> Route | None:
    """Return the route to an address."""
    routes = () if isinstance(facts.routes, Unread) else facts.routes
    return next((each for each in routes if same(each.destination, destination)), None)


def gateway_to(facts: Facts, destination: str) -> str | None:
    """Return the router on the way to an address, unless an interface of this host is in its network."""
    route = route_to(facts, destination)
    if route is None or route.gateway is None or is_near(facts, destination):
        return None
    return route.gateway


def is_near(facts: Facts, address: str) -> bool:
    """Whether an interface of this host is in the network of the address."""
    found = address_of(address)
    networks = (ip_interface(each).network for interface in interfaces(facts) for each in interface.addresses)
    return found is not None and any(found.version == network.version and found in network for network in networks)


def address_of(text: str | None) -> IPAddress | None:
    """Return the address that the text is, without a scope; None if it is none."""
    try:
        return ip_address((text or "").partition("%")[0])
    except ValueError:
        return None


def same(first: str, second: str) -> bool:
    """Whether two texts are the same address."""
    return first == second or (address_of(first) is not None and address_of(first) == address_of(second))


def reason(*unread: object) -> tuple[str, tuple[str, ...]] | None:
    """Return why the first of these facts that is Unread is so, and the remedy."""
    for each in unread:
        if isinstance(each, Unread):
            return each.reason, remedy(each)
    return None


def remedy(fact: object) -> tuple[str, ...]:
    """Return what to run instead of a fact that is Unread."""
    return (fact.remedy,) if isinstance(fact, Unread) and fact.remedy else ()


def endpoint(facts: Facts, *, port: int | None = None, source: str | None = None, interface: str | None = None) -> str:
    """Return the target as a command takes it, with some parts changed, quoted for a shell."""
    target = facts.target
    group, sender = address_of(target.group), address_of(source or target.source)
    if group is None:
        return shlex.quote(target.group)
    return shlex.quote(str(Endpoint(group, port or target.port, sender, interface or target.interface)))


def named(values: Iterable[object]) -> str:
    """Return the values as a list in a sentence, each once: `a, b and c`."""
    texts = list(dict.fromkeys(str(value) for value in values))
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} and {texts[-1]}" if texts else "none"


def counted(number: int | None, noun: str) -> str:
    """Return `1 datagram` or `3 datagrams`."""
    return f"{number or 0:,} {noun}{'' if number == 1 else 's'}"


def set_command(name: str, value: object) -> str:
    """Return the command that sets a setting of Linux."""
    return f"sysctl -w {shlex.quote(f'{name}={value}')}"


def seen(facts: Facts, *, outgoing: bool = False) -> list[Arrivals | Frames]:
    """Return all that came of the group: what arrived at sockets, and the frames, those that we sent on demand."""
    sent = frames(facts, outgoing=True) if outgoing else None
    return [*trial_of(facts).arrivals, *(frames(facts) or ()), *(sent or ())]


def senders(found: Iterable[Frames | Arrivals]) -> Iterator[str]:
    """Yield who sent, each once."""
    yield from dict.fromkeys(each.sender for each in found)
