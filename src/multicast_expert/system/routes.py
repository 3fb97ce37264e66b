"""The interface and the address that the OS would send to a destination from. Asks the OS, sends nothing."""

from __future__ import annotations

import socket
from collections.abc import Sequence

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system import kernel
from multicast_expert.system.kernel import is_scarcity, os_error
from multicast_expert.system.netlink import RouteAnswer


def source_address(version: int, destination: str) -> str | None:
    """Return the address that a datagram to `destination` would leave with, None without a route.

    It connects a UDP socket, which asks the routing tables and sends nothing. Raises MulticastOSError when descriptors
    or memory ran out.
    """
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((destination, 9))
            return str(probe.getsockname()[0])
    except OSError as error:
        if is_scarcity(error):
            raise os_error(kernel.SYSTEM, error, "route", f"look up the route to {destination}") from error
        return None


def interface_index(destination: IPAddress) -> int | None:
    """Return the index of the interface that a datagram to `destination` would leave from.

    None without a route, and where the OS does not answer. Raises MulticastOSError when descriptors or memory ran out.
    """
    try:
        return kernel.SYSTEM.route_interface(destination)
    except OSError as error:
        if is_scarcity(error):
            raise os_error(kernel.SYSTEM, error, "route", f"look up the route to {destination}") from error
    except MulticastExpertError:
        pass
    return None


def group_routes(groups: Sequence[IPAddress], usual: str | None) -> dict[IPAddress, RouteAnswer]:
    """Return the routes of the OS for these groups, without those that it made by itself; see `System.group_routes`.

    `usual`: the address that datagrams to other hosts leave with. Where each question costs a command, only the first
    group is asked about, and only if a datagram to it would leave with another address. Raises MulticastOSError when
    descriptors or memory ran out.
    """
    if not kernel.SYSTEM.routes_are_cheap:
        groups = [each for each in groups[:1] if source_address(each.version, str(each)) not in (None, usual)]
    try:
        return kernel.SYSTEM.group_routes(groups)
    except OSError as error:
        if is_scarcity(error):
            raise os_error(kernel.SYSTEM, error, "route", f"look up the route to {groups[0]}") from error
    except MulticastExpertError:
        pass
    return {}
