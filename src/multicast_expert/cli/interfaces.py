"""`mcast interfaces`: lists the names and addresses that -i takes. Asks the OS, sends nothing."""

from __future__ import annotations

import socket
import sys

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import InterfacesOption, JsonOption, command
from multicast_expert.cli.render.interfaces import interface_lines, interface_object
from multicast_expert.system.interfaces import find_interfaces, get_default_gateway_iface, scan_interfaces


@command(
    """
    `mcast send` uses the default interface, where the default route leads, unless -i names another. The loopback
    interface carries multicast within this host ("local").
    """,
    ("mcast interfaces", "All interfaces, with every name and address that -i takes"),
    ("mcast interfaces -i 10.0.0.0/8", "The interfaces that -i would take"),
    ("mcast interfaces --json", "The same for a program"),
)
def run(named: InterfacesOption = (), as_json: JsonOption = False) -> None:
    """List this host's network interfaces."""
    every = scan_interfaces()
    default4 = get_default_gateway_iface(socket.AF_INET, ifaces=every)
    default6 = get_default_gateway_iface(socket.AF_INET6, ifaces=every)
    ifaces = find_interfaces(named, ifaces=every) if named else every
    if not as_json:
        terminal.show_lines(interface_lines(ifaces, default4, default6), sys.stdout)
        return
    defaults = (("IPv4", default4), ("IPv6", default6))
    objects = [interface_object(iface, [name for name, default in defaults if default == iface]) for iface in ifaces]
    terminal.write_json(objects, 2)
