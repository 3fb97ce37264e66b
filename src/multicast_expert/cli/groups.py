"""`mcast groups`: lists the groups that this host has joined. Asks the OS, sends nothing."""

from __future__ import annotations

import sys

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import InterfaceOption, JsonOption
from multicast_expert.cli.render.groups import group_lines, group_object, note_lines, socket_object
from multicast_expert.system.groups import joined_groups, udp_sockets
from multicast_expert.system.interfaces import find_interfaces


def command(iface: InterfaceOption = None, as_json: JsonOption = False) -> None:
    """List the groups that this host has joined.

    For each interface it shows the groups, how many sockets have joined each, from which sources, and the version of
    IGMP or MLD if the OS reports it. On Linux it names the programs whose sockets are bound to a group; only root sees
    those of other users. A socket that is bound to no address may have joined any group.

    Example: mcast groups -i eth0
    """
    sockets = udp_sockets()
    groups = joined_groups(sockets)
    if iface is not None:
        indexes = {found.index for found in find_interfaces([iface])}
        groups = [joined for joined in groups if joined.interface_index in indexes]
    unbound = [each for each in sockets if each.address.is_unspecified]
    if as_json:
        objects = [group_object(joined) for joined in groups]
        document = {"groups": objects, "sockets_bound_to_no_address": [socket_object(each) for each in unbound]}
        terminal.write_json(document, 2)
        return
    terminal.show_lines(group_lines(groups), sys.stdout)
    for line in note_lines(groups, unbound):
        terminal.tell(line)
