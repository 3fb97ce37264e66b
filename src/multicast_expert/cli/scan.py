"""`mcast scan`: lists the groups on the wire, their sources and protocols, queriers and members."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from ipaddress import ip_network
from typing import Annotated

from multicast_expert.cli import terminal
from multicast_expert.cli.host_state import joined_here
from multicast_expert.cli.interruption import STATUS, end_with_reader, stopped_by_ctrl_c
from multicast_expert.cli.parameters import (
    InterfacesOption,
    JsonOption,
    Parameter,
    UsageError,
    command,
    only_group,
    seconds,
    whole,
)
from multicast_expert.cli.render.scan import found_lines, found_object
from multicast_expert.cli.render.streams import Surroundings
from multicast_expert.core.addresses import IPAddress, parse_group
from multicast_expert.core.endpoints import Endpoint, parse_endpoints
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.observe.joining import PORTS
from multicast_expert.observe.scan import scan, scan_by_joining
from multicast_expert.system import kernel
from multicast_expert.wire.packet_socket import may_capture

MOST_GROUPS = 4096
"""Groups that are joined at most; each makes the host send reports, and switches keep an entry."""
NEEDS_GROUPS = (
    "this user may not open packet sockets (CAP_NET_RAW). "
    "Run it as root, or name groups to join with --groups 239.1.1.0/24."
)


@command(
    "Shows every stream on the wire, although you name neither group nor port: source, rates, loss and protocol, the "
    "queriers, and which hosts are members of which groups. It joins and sends nothing, and needs root on Linux.\n\n"
    "With --groups it joins these groups meanwhile, so that switches and routers send them here. Then it works without "
    "root, too, but sees the ports of known protocols only, or those of --port, and neither queriers nor members.",
    ("mcast scan", "list what is on the wire of all interfaces"),
    ("mcast scan -i eth0 --for 130", "wait for the next query, and see all members"),
    ("mcast scan --groups 239.1.1.0/24 --for 2", "join 256 groups and list those that bring something"),
    needs=("--port --groups",),
)
def run(
    groups: Annotated[
        Sequence[str],
        Parameter("-g, --groups GROUPS...", "Join a network, a group, or a range like 239.1.1.1+20. Repeatable."),
    ] = (),
    ports: Annotated[
        Sequence[int],
        Parameter("-p, --port PORT...", "Listen to this port where root is missing. Repeatable.", whole(1, 65535)),
    ] = (),
    duration: Annotated[
        float, Parameter("--for SECONDS", "Look for so long; 10 unless you say otherwise.", seconds)
    ] = 10.0,
    ifaces: InterfacesOption = (),
    as_json: JsonOption = False,
) -> int:
    """Scan, and show what was found; return 1 if nothing was, 130 if Ctrl-C ended it before."""
    joined = read_groups(groups)
    may_look = kernel.SYSTEM.platform.name == "linux" and may_capture()
    if not may_look and not joined:
        raise MulticastExpertError(NEEDS_GROUPS)
    way = "looking" if may_look else "listening"
    terminal.tell(f"{way} for {duration:g} s" + (f", with {len(joined)} groups joined" if joined else ""))
    end_with_reader()
    with stopped_by_ctrl_c() as stopped:
        if may_look:
            found = scan(ifaces or None, duration, joined, stopped)
        else:
            found = scan_by_joining(ifaces or None, duration, joined, ports or PORTS, stopped)
        interrupted = stopped()
    if interrupted:
        terminal.end_line()
    around = Surroundings(joined_here())
    if as_json:
        terminal.write_json(found_object(found, around), 2)
    else:
        terminal.show_lines(found_lines(found, around, terminal.size(sys.stdout)[0]), sys.stdout)
    for limit in found.limits:
        terminal.tell(f"mcast: {limit}")
    return STATUS if interrupted else 0 if found.streams or found.queriers or found.members else 1


def read_groups(texts: Sequence[str]) -> list[IPAddress]:
    """Return the groups that networks, ranges and single groups name. Raises UsageError."""
    groups: dict[IPAddress, None] = {}
    for text in texts:
        try:
            groups |= dict.fromkeys(_network(text) if "/" in text else map(_group, parse_endpoints(text)))
        except (ValueError, MulticastExpertError) as error:
            raise UsageError(f"--groups {text}: {error}") from None
        if len(groups) > MOST_GROUPS:
            raise UsageError(f"--groups {text}: more than {MOST_GROUPS:,} groups are too many to join at once.")
    return list(groups)


def _group(endpoint: Endpoint) -> IPAddress:
    return only_group(endpoint, "ports come with --port, and interfaces with -i")


def _network(text: str) -> list[IPAddress]:
    network = ip_network(text)
    if network.num_addresses > MOST_GROUPS:
        raise ValueError(f"{network.num_addresses:,} groups are more than {MOST_GROUPS:,}.")
    return [parse_group(each) for each in network]
