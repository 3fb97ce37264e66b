"""What macOS and FreeBSD report about this host, by their commands. Touches the OS, sends nothing, judges nothing.

This file has run on neither: tests give its parsers output that was written by hand, after the manual pages.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import InterfaceFacts, Route, Rule, Unread
from multicast_expert.doctor.host.any_os import Counters, Host, again_as_root
from multicast_expert.doctor.host.command_outputs import (
    parse_application_firewall,
    parse_gateway,
    parse_hardware_ports,
    parse_pf,
    parse_statistics,
    parse_wireless_groups,
)
from multicast_expert.system.groups import command_output
from multicast_expert.system.kernel import SYSTEM

_SETTINGS = ("net.inet.igmp.default_version", "net.inet.udp.recvspace", "net.inet6.mld.v2enable", "kern.ipc.maxsockbuf")
_APPLICATION_FIREWALL = "/usr/libexec/ApplicationFirewall/socketfilterfw"


class BsdHost(Host):
    """This host, running macOS or FreeBSD."""

    def interfaces(self) -> tuple[InterfaceFacts, ...] | Unread:
        """Return all network interfaces, and which of them are wireless."""
        found = super().interfaces()
        if isinstance(found, Unread):
            return found
        wireless = self._wireless()
        return tuple(replace(each, is_wireless=each.name in wireless) for each in found)

    def _wireless(self) -> frozenset[str]:
        try:
            if SYSTEM.platform.name == "macos":
                return parse_hardware_ports(command_output(["networksetup", "-listallhardwareports"]))
            return parse_wireless_groups(command_output(["ifconfig", "-g", "wlan"]))
        except MulticastExpertError:
            return frozenset()

    def route(self, destination: IPAddress) -> Route:
        """Return where datagrams to the address would leave."""
        family = "-inet" if destination.version == 4 else "-inet6"
        try:
            gateway = parse_gateway(command_output(["route", "-n", "get", family, str(destination)]))
        except MulticastExpertError:
            gateway = None
        return replace(super().route(destination), gateway=gateway)

    def settings(self, interfaces: Iterable[str]) -> dict[str, str | Unread]:
        """Return the kernel settings that concern multicast."""
        return {name: _setting(name) for name in _SETTINGS}

    def firewall(self, senders: Collection[tuple[str, str]] = ()) -> tuple[Rule, ...] | Unread:
        """Return the rules of the firewalls that drop anything; only root can read those of pf."""
        rules: list[Rule] = []
        try:
            if SYSTEM.platform.name == "macos":
                questions = ("--getglobalstate", "--getblockall")
                rules += parse_application_firewall(
                    "\n".join(command_output([_APPLICATION_FIREWALL, question]) for question in questions)
                )
            rules += parse_pf(command_output(["pfctl", "-s", "rules"]))
        except MulticastExpertError as error:
            if any(rule.matches for rule in rules):
                return tuple(rules)
            return Unread(f"The firewall's rules could not be read: {error}", again_as_root(self.target))
        return tuple(rules)

    def counters(self) -> Counters:
        """Return the counters at this moment."""
        try:
            return Counters(parse_statistics(command_output(["netstat", "-s"])), {})
        except MulticastExpertError:
            return Counters({}, {})


def _setting(name: str) -> str | Unread:
    try:
        return command_output(["sysctl", "-n", name]).strip()
    except MulticastExpertError as error:
        return Unread(f"{name} could not be read: {error}")
