"""The checks: one function for each cause that keeps datagrams from arriving. Pure: touches no OS.

A check turns Facts into a finding. Its name is that of the function, with hyphens; its docstring is its page.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from multicast_expert.doctor.checks.absence import no_traffic, ttl
from multicast_expert.doctor.checks.address import ethernet_address, group_address
from multicast_expert.doctor.checks.diverted import ipsec, nat
from multicast_expert.doctor.checks.dropped import local_sender, local_source, reverse_path_filter
from multicast_expert.doctor.checks.early import bridge_port, xdp
from multicast_expert.doctor.checks.environment import container, macos_privacy, wireless
from multicast_expert.doctor.checks.firewall import firewall, query_blocked
from multicast_expert.doctor.checks.fragments import fragments
from multicast_expert.doctor.checks.interface import interface_address, interface_down, mtu
from multicast_expert.doctor.checks.joining import igmp_version, membership, membership_limit, source_filter
from multicast_expert.doctor.checks.malformed import malformed
from multicast_expert.doctor.checks.network import querier, snooping
from multicast_expert.doctor.checks.overlay import macvlan, site_bridge, tunnel
from multicast_expert.doctor.checks.partial import partial_loss
from multicast_expert.doctor.checks.program import privileged_port, program, sandbox, socket_filter
from multicast_expert.doctor.checks.route import group_route, loopback_route, send_route, wrong_interface
from multicast_expert.doctor.checks.socket import checksum, port, port_conflict, receive_buffer
from multicast_expert.doctor.checks.traffic_control import traffic_control
from multicast_expert.doctor.facts import Facts
from multicast_expert.doctor.report import Finding

Check: TypeAlias = Callable[[Facts], Finding]
"""Returns a finding without the check's name, or raises NotRead."""

CHECKS: tuple[Check, ...] = (
    group_address,
    interface_down,
    macos_privacy,
    fragments,
    mtu,
    interface_address,
    membership_limit,
    privileged_port,
    port_conflict,
    sandbox,
    loopback_route,
    bridge_port,
    malformed,
    checksum,
    receive_buffer,
    reverse_path_filter,
    ethernet_address,
    local_source,
    group_route,
    xdp,
    traffic_control,
    firewall,
    nat,
    ipsec,
    socket_filter,
    source_filter,
    port,
    macvlan,
    local_sender,
    wrong_interface,
    membership,
    query_blocked,
    snooping,
    igmp_version,
    querier,
    send_route,
    container,
    ttl,
    wireless,
    tunnel,
    site_bridge,
    partial_loss,
    no_traffic,
    program,
)
"""Of several problems the report names the first in this order: the certain ones, and those that cause others."""


def check_name(check: Check) -> str:
    """Return the name of a check: `reverse-path-filter`."""
    return check.__name__.replace("_", "-")
