"""What Windows reports about this host, by PowerShell. Touches the OS, sends nothing, judges nothing.

This file has not run on Windows: tests give its parser output that was written by hand, after Microsoft's documents.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.facts import Rule, Target, Unread
from multicast_expert.doctor.host.any_os import Host
from multicast_expert.doctor.host.command_outputs import parse_windows_network
from multicast_expert.system.groups import command_output

# PowerShell is slow to start, so one script asks everything; numbers are the same in every language of Windows.
_SCRIPT = """
$profiles = @(Get-NetFirewallProfile -PolicyStore ActiveStore | ForEach-Object { @{ name = $_.Name;
    enabled = [int]$_.Enabled; inbound = [int]$_.DefaultInboundAction; rules = [int]$_.AllowInboundRules } })
$networks = @(Get-NetConnectionProfile | ForEach-Object { @{ category = [int]$_.NetworkCategory } })
$ipv4 = Get-NetIPv4Protocol
$ipv6 = Get-NetIPv6Protocol
$protocols = @(
    @{ version = 'ipv4'; level = [int]$ipv4.IGMPLevel; protocol = [string]$ipv4.IGMPVersion },
    @{ version = 'ipv6'; level = [int]$ipv6.MldLevel; protocol = [string]$ipv6.MldVersion })
@{ profiles = $profiles; networks = $networks; protocols = $protocols } | ConvertTo-Json -Depth 3 -Compress
"""


class WindowsHost(Host):
    """This host, running Windows."""

    def __init__(self, target: Target, chosen: Collection[int] = ()) -> None:
        super().__init__(target, chosen)
        self._settings: dict[str, str] | Unread
        self._rules: tuple[Rule, ...] | Unread
        try:
            answer = command_output(["powershell", "-NoProfile", "-NonInteractive", "-Command", _SCRIPT], "oem")
            settings, rules = parse_windows_network(answer)
        except (MulticastExpertError, ValueError) as error:
            self._settings = self._rules = Unread(f"PowerShell did not answer: {error}")
        else:
            self._settings, self._rules = settings, tuple(rules)

    def settings(self, interfaces: Iterable[str]) -> dict[str, str | Unread]:
        """Return the kernel settings that concern multicast."""
        if isinstance(self._settings, Unread):
            return {"ipv4.MulticastLevel": self._settings}
        return dict(self._settings)

    def firewall(self, senders: Collection[tuple[str, str]] = ()) -> tuple[Rule, ...] | Unread:
        """Return the active profiles of the firewall that drop what no rule allows."""
        return self._rules
