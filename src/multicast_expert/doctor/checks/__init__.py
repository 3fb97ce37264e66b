"""The causes that datagrams do not arrive, one function each, and the report on all of them. Pure: touches no OS.

A check judges the Facts: its name is that of the function, with hyphens, and its docstring is its page. `CHECKS` lists
them in the order in which a cause is named where several are found: what is certain and causes others stands first.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import TypeAlias

from multicast_expert.doctor.checks import reach
from multicast_expert.doctor.checks.absence import no_traffic, ttl
from multicast_expert.doctor.checks.address import ethernet_address, group_address
from multicast_expert.doctor.checks.dropped import local_sender, local_source, reverse_path_filter
from multicast_expert.doctor.checks.environment import container, macos_privacy, wireless
from multicast_expert.doctor.checks.firewall import firewall, query_blocked
from multicast_expert.doctor.checks.interface import interface_address, interface_down, mtu
from multicast_expert.doctor.checks.joining import igmp_version, membership, membership_limit, source_filter
from multicast_expert.doctor.checks.network import querier, snooping
from multicast_expert.doctor.checks.route import loopback_route, send_route, wrong_interface
from multicast_expert.doctor.checks.socket import checksum, port, port_conflict, receive_buffer
from multicast_expert.doctor.facts import Facts
from multicast_expert.doctor.report import Finding, Report, make_report

Check: TypeAlias = Callable[[Facts], Finding]

CHECKS: tuple[Check, ...] = (
    group_address,
    interface_down,
    macos_privacy,
    mtu,
    interface_address,
    membership_limit,
    port_conflict,
    loopback_route,
    checksum,
    receive_buffer,
    reverse_path_filter,
    ethernet_address,
    local_source,
    firewall,
    source_filter,
    port,
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
    no_traffic,
)


def check_name(check: Check) -> str:
    """Return the name that a check goes by: `reverse-path-filter`."""
    return check.__name__.replace("_", "-")


def explain(name: str) -> str:
    """Return the page of the check of this name, in Markdown. Raises KeyError if there is none."""
    pages = {check_name(check): inspect.getdoc(check) or "" for check in CHECKS}
    return pages[name]


def judge(facts: Facts) -> Report:
    """Return what all checks find, and the most likely cause."""
    report = make_report(facts.target, (_examine(check, facts) for check in CHECKS), reach.received(facts))
    # Datagrams that ceased until we joined anew are no sign of health, even if nothing tells why.
    ceased = report.verdict == "ok" and bool(reach.trial_of(facts).revived)
    return replace(report, verdict="unknown") if ceased else report


def _examine(check: Check, facts: Facts) -> Finding:
    """Return what a check finds. One that fails says so, and keeps the others from nothing."""
    try:
        return check(facts)
    except Exception as error:  # noqa: BLE001  # Facts may come from anywhere; one check must not cost all.
        return Finding(check_name(check), "unknown", f"Could not be looked at: {type(error).__name__}: {error}.")
