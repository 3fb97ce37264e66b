"""`mcast plan`: prints the sockets and options of an endpoint, for any OS. Asks for interfaces, opens nothing."""

from __future__ import annotations

from ipaddress import IPv4Interface, IPv6Interface
from typing import Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import (
    EndpointArgument,
    InterfaceOption,
    JsonOption,
    LoopbackOption,
    Parameter,
    command,
    one_interface,
    one_of,
    whole,
)
from multicast_expert.cli.render.plan import plan_lines, plan_objects
from multicast_expert.cli.render.text import counted
from multicast_expert.core.both_ways import SendSettings, Unicast, plan_both_ways
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice, one_spelling
from multicast_expert.core.plan import Join, ReceiveSettings, SocketPlan, plan_receive, plan_send
from multicast_expert.core.specifiers import readings
from multicast_expert.platforms import PLATFORMS, Platform
from multicast_expert.system.interfaces import choose_for_receiving, choose_for_sending
from multicast_expert.system.kernel import SYSTEM


@command(
    """
    It prints how to receive from a group and how to send to it: every option with its level, number, bytes and meaning,
    the address to bind and the groups to join. It opens nothing, so you can ask for any OS on any other. For another OS
    it takes an interface that this host lacks for an example: index 5, addresses 10.0.0.1 and fd00::1.
    """,
    ("mcast plan 239.1.2.3:5000%eth0", "What this host's sockets need"),
    ("mcast plan 10.0.0.7@232.1.2.3:5000 --os windows --example", "The same job on Windows"),
)
def run(
    endpoint: EndpointArgument,
    system: Annotated[
        str | None,
        Parameter("--os NAME", f"{', '.join(PLATFORMS)}; without it, this one.", one_of(PLATFORMS), tuple(PLATFORMS)),
    ] = None,
    iface: InterfaceOption = None,
    ttl: Annotated[
        int, Parameter("-t, --ttl HOPS", "How many hops sent datagrams may go; usually 1.", whole(0, 255))
    ] = 1,
    example: Annotated[
        bool, Parameter("--example", "Plan for an example interface instead of one of this host.")
    ] = False,
    loopback: LoopbackOption = True,
    both_ways: Annotated[
        bool, Parameter("--both-ways", "Plan for a socket that receives and sends on the port (McastSocket).")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Print how to receive from the endpoint and how to send to it."""
    platform = SYSTEM.platform if system is None else PLATFORMS[system]
    named = one_interface(endpoint, iface)
    specifiers = one_spelling(iface=named)
    chosen = None if platform is SYSTEM.platform and not example else _interface(named, example)
    version = endpoint.group.version
    choices = [chosen] if chosen else choose_for_receiving(specifiers, version)
    joins = [Join(endpoint.group, endpoint.source, choice) for choice in choices]
    if both_ways:
        settings = ReceiveSettings(version, endpoint.port or 0, loopback=loopback, shares=True)
        sockets = plan_both_ways(platform, settings, SendSettings(ttl, loopback), choices, joins, Unicast("chosen"))
        _write_both_ways(platform, endpoint, sockets, as_json)
        return
    receiving = plan_receive(platform, ReceiveSettings(version, endpoint.port or 0, loopback=loopback), joins)
    try:
        sender = chosen or choose_for_sending(specifiers, version, [endpoint.group])[0]
        sending: SocketPlan | MulticastExpertError = plan_send(platform, version, sender, ttl, loopback)
    except MulticastExpertError as error:
        sending = error
    if as_json:
        _write_json(platform, endpoint, receiving, sending)
        return
    terminal.write(f"To receive {endpoint} on {platform.title}: {counted(len(receiving), 'socket')}")
    for line in plan_lines(receiving):
        terminal.write(line)
    possible = counted(1, "socket") if isinstance(sending, SocketPlan) else f"not possible. {sending}"
    terminal.write(f"To send to {endpoint._replace(source=None)} on {platform.title}: {possible}")
    for line in plan_lines([sending] if isinstance(sending, SocketPlan) else []):
        terminal.write(line)


def _write_both_ways(platform: Platform, endpoint: Endpoint, sockets: list[SocketPlan], as_json: bool) -> None:
    if as_json:
        plan = {"endpoint": str(endpoint), "os": platform.name, "both_ways": plan_objects(sockets)}
        terminal.write_json(plan, 2)
        return
    terminal.write(f"To receive and send on {endpoint} on {platform.title}: {counted(len(sockets), 'socket')}")
    for line in plan_lines(sockets):
        terminal.write(line)


def _interface(named: str | None, example: bool) -> InterfaceChoice:
    """Return the interface of this host with that name, else the example interface."""
    if named is not None and not example:
        try:
            return choose_for_receiving([named], 4)[0]
        except MulticastExpertError:
            if not _could_be_elsewhere(named):
                raise
    addresses = (IPv4Interface("10.0.0.1/24"),), (IPv6Interface("fd00::1/64"),)
    return InterfaceChoice(IfaceInfo(named or "eth0", 5, None, *addresses))


def _could_be_elsewhere(text: str) -> bool:
    """Return whether the text is a name that an interface of another host may have, and no address or number."""
    meant = readings(text)
    return meant is not None and meant.network is None and meant.number is None and not meant.hardware


def _write_json(
    platform: Platform, endpoint: Endpoint, receiving: list[SocketPlan], sending: SocketPlan | MulticastExpertError
) -> None:
    plan = {
        "endpoint": str(endpoint),
        "os": platform.name,
        "receive": plan_objects(receiving),
        "send": plan_objects([sending]) if isinstance(sending, SocketPlan) else [],
        "why_no_send": None if isinstance(sending, SocketPlan) else str(sending),
    }
    terminal.write_json(plan, 2)
