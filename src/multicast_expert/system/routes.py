"""The interface and the address that the OS would send to a destination from. Asks the OS, sends nothing."""

from __future__ import annotations

import socket

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.system import kernel
from multicast_expert.system.kernel import is_scarcity, os_error


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
