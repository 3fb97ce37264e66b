"""`mcast groups`: lists the groups that this host has joined. Asks the OS, sends nothing."""

from __future__ import annotations

import sys

from multicast_expert.cli import terminal
from multicast_expert.cli.parameters import InterfaceOption, JsonOption, command
from multicast_expert.cli.render.groups import group_lines, group_object, note_lines, socket_object
from multicast_expert.system.groups import group_members, joined_groups, udp_sockets
from multicast_expert.system.interfaces import find_interfaces


@command(
    """
    For each interface it shows the groups, how many sockets have joined each, from which sources, and the version of
    IGMP or MLD if the OS reports it. On Linux it names the programs that have joined a group, from which sources, and
    says which of them can never receive it; only root sees those of other users. What a socket that it cannot look into
    has joined is not known, unless it is bound to a group.
    """,
    ("mcast groups", "All groups, and the programs that joined them"),
    ("mcast groups -i eth0 --json", "The groups of one interface, for a program"),
)
def run(iface: InterfaceOption = None, as_json: JsonOption = False) -> None:
    """List the groups that this host has joined."""
    sockets = udp_sockets(lambda _: True)
    groups = joined_groups(sockets)
    members = group_members(sockets, groups)
    if iface is not None:
        indexes = {found.index for found in find_interfaces([iface])}
        groups = [joined for joined in groups if joined.interface_index in indexes]
    looked_into = {member.socket.inode for member in members}
    unbound = [each for each in sockets if each.address.is_unspecified and each.inode not in looked_into]
    if as_json:
        objects = [group_object(joined, members) for joined in groups]
        document = {"groups": objects, "sockets_bound_to_no_address": [socket_object(each) for each in unbound]}
        terminal.write_json(document, 2)
        return
    terminal.show_lines(group_lines(groups, members), sys.stdout)
    for line in note_lines(groups, unbound):
        terminal.tell(line)
