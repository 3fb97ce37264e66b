"""What a socket that receives and sends on one port opens beside its memberships. Pure: touches no OS.

Each interface has one sending socket. On Linux it is bound to a group that nothing is sent to, so it takes no unicast
from other programs, and each address whose unicast is wanted has a socket of its own. Elsewhere a socket sends with the
address that it is bound to, so the sending socket of an interface receives that address's unicast too.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv6Address, ip_address
from typing import Literal, NamedTuple, TypeAlias

from multicast_expert.core.addresses import IPAddress, MulticastAddress, parse_host
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.plan import (
    ANY_HOST,
    Join,
    ReceiveSettings,
    SocketKey,
    SocketPlan,
    bind_address,
    device_option,
    interface_address,
    plan_receive,
    plan_send,
    receive_options,
    unshared,
    unspecified,
)
from multicast_expert.platforms import Option, Platform

UnicastWish: TypeAlias = bool | Literal["any"] | Iterable[MulticastAddress]
"""True: the chosen interfaces' addresses; "any": all addresses of this host; addresses: these; False: none."""


class Unicast(NamedTuple):
    """Which unicast a socket receives on its port."""

    kind: Literal["chosen", "any", "named"]
    """To the addresses of the chosen interfaces, to any address of this host, or to `addresses`."""
    addresses: tuple[IPAddress, ...] = ()


class SendSettings(NamedTuple):
    """What all sending sockets of one owner share."""

    hop_limit: int = 1
    loopback: bool = True
    """Whether receivers on this host hear it too."""
    dscp: int | None = None
    own: bool = False
    """Whether the owner receives what it sent."""


def parse_unicast(wish: UnicastWish, version: int) -> Unicast:
    """Return what `unicast=` asks for. Raises MulticastExpertError."""
    if isinstance(wish, bool):
        return Unicast("chosen") if wish else Unicast("named")
    if wish == "any":
        return Unicast("any")
    if isinstance(wish, str) or not isinstance(wish, Iterable):
        raise MulticastExpertError(f'unicast={wish!r} is none of True, False, "any" and a list of addresses.')
    return Unicast("named", tuple(dict.fromkeys(parse_host(address, version) for address in wish)))


def plan_outlet(
    platform: Platform,
    settings: ReceiveSettings,
    sending: SendSettings,
    interface: InterfaceChoice,
    unicast: Unicast,
    port: int,
) -> SocketPlan:
    """Return the socket that sends out of one interface from the port. Raises MulticastExpertError."""
    version, index = settings.version, interface.iface.index
    plan = plan_send(platform, version, interface, sending.hop_limit, sending.loopback, sending.dscp, port)
    silent = platform.silent.get(version)
    if silent is not None:
        kept_out = unshared(platform, platform.receive[version].options)
        options = platform.sharing + kept_out + plan.options
        bound = bind_address(silent, version, port, 0)
        return plan._replace(options=options, address=bound, marked=not sending.own)
    options = receive_options(platform, settings) + plan.options
    if platform.loopback_at == "receiver":
        options += (platform.loopback(version, sending.loopback or interface.iface.is_localhost()),)
    own = interface_address(interface, version)
    if own is None:
        raise AssertionError
    key: SocketKey = (str(own) if platform.receive[version].per_group else None, index, 0)
    hosts = (str(own).partition("%")[0],) if _covers(unicast, own) else ()
    bound = _bound_to(own, version, port, index)
    return plan._replace(key=key, options=options, address=bound, filtered=True, hosts=hosts)


def _covers(unicast: Unicast, address: IPAddress) -> bool:
    return unicast.kind != "named" or any(address.packed == named.packed for named in unicast.addresses)


def _bound_to(address: IPAddress, version: int, port: int, index: int) -> tuple[str, int] | tuple[str, int, int, int]:
    scope = index if address.is_link_local and version == 6 else 0
    return bind_address(str(address).partition("%")[0], version, port, scope)


def plan_unicast(
    platform: Platform,
    settings: ReceiveSettings,
    interfaces: Iterable[InterfaceChoice],
    unicast: Unicast,
    port: int,
    outlets: Iterable[SocketPlan] = (),
) -> list[SocketPlan]:
    """Return the sockets that receive the unicast which no sending socket (`outlets`) receives.

    A socket for the addresses of the chosen interfaces yields: bind fails where another socket has the port, so that no
    other program loses datagrams. An address that was named, and "any", is taken in any case.
    """
    version = settings.version
    if unicast.kind == "any":
        everything = bind_address(unspecified(version), version, port, 0)
        key: SocketKey = (ANY_HOST, None, 0)
        return [_unicast_socket(platform, settings, key, everything, ANY_HOST, yields=False)]
    covered = {plan.address[0] for plan in outlets}
    plans = {}
    for address, index in _addresses(interfaces, unicast, version):
        bound = _bound_to(address, version, port, index)
        key = bound[0], bound[3] if len(bound) == 4 else None, 0
        if bound[0] not in covered:
            yields = unicast.kind == "chosen" and version in platform.silent
            plans[key] = _unicast_socket(platform, settings, key, bound, bound[0], yields)
    return list(plans.values())


def plan_both_ways(
    platform: Platform,
    settings: ReceiveSettings,
    sending: SendSettings,
    interfaces: Sequence[InterfaceChoice],
    joins: Iterable[Join],
    unicast: Unicast,
) -> list[SocketPlan]:
    """Return all sockets that receive these memberships and unicast and send on one port. Raises MulticastExpertError.

    A membership that a sending socket has room for is in that one's plan.
    """
    outlets = {
        plan.key: plan
        for plan in (
            plan_outlet(platform, settings, sending, interface, unicast, settings.port) for interface in interfaces
        )
    }
    receiving = []
    for plan in plan_receive(platform, settings, joins):
        if settings.version not in platform.silent and plan.key in outlets:
            outlets[plan.key] = outlets[plan.key]._replace(joins=plan.joins)
        else:
            receiving.append(plan)
    sockets = [*outlets.values()]
    return [*sockets, *plan_unicast(platform, settings, interfaces, unicast, settings.port, sockets), *receiving]


def plan_plain(
    platform: Platform,
    settings: ReceiveSettings,
    sending: SendSettings,
    interface: InterfaceChoice,
    joins: Iterable[Join],
) -> SocketPlan:
    """Return a socket that does all on one interface, with its memberships. Raises MulticastExpertError.

    One socket cannot tell more apart than its kernel does: it is bound to any address, so it receives unicast, too.
    """
    version = settings.version
    layout = platform.receive[version]
    plan = plan_send(platform, version, interface, sending.hop_limit, sending.loopback, sending.dscp)
    # The ancillary data would have to be asked for by `recvmsg`.
    asked_for = platform.ancillary.options[version]
    options = tuple([option for option in receive_options(platform, settings) if option not in asked_for])
    if layout.binds_to_device:
        options += (device_option(platform, interface),)
    if platform.loopback_at == "receiver":
        options += (platform.loopback(version, sending.loopback or interface.iface.is_localhost()),)
    changes = tuple([join.change(platform, join.join_operation) for join in joins])
    address = bind_address(unspecified(version), version, settings.port, 0)
    return plan._replace(options=options + plan.options, address=address, joins=changes)


def _addresses(interfaces: Iterable[InterfaceChoice], unicast: Unicast, version: int) -> list[tuple[IPAddress, int]]:
    """Return the addresses to receive on, each with the index of its interface (0: unknown)."""
    chosen = [(entry.ip, each.iface) for each in interfaces for entry in each.iface.addresses(version)]
    if unicast.kind == "chosen":
        return [(address, iface.index) for address, iface in chosen]
    named = []
    for address in unicast.addresses:
        scope = address.scope_id if isinstance(address, IPv6Address) else None
        indexes = [
            iface.index
            for own, iface in chosen
            if own.packed == address.packed and scope in (None, iface.machine_name, str(iface.index))
        ]
        named.append((ip_address(address.packed), indexes[0] if indexes else 0))
    return named


def _unicast_socket(
    platform: Platform,
    settings: ReceiveSettings,
    key: SocketKey,
    address: tuple[str, int] | tuple[str, int, int, int],
    host: str,
    yields: bool,
) -> SocketPlan:
    options: tuple[Option, ...] = receive_options(platform, settings)
    sharing: tuple[Option, ...] = ()
    if yields:
        options, sharing = unshared(platform, options), platform.sharing
    filtered = platform.receive[settings.version].filtered
    version = settings.version
    family = platform.family(version)
    return SocketPlan(key, version, family, options, address, (), filtered, (host,), sharing)
