"""Hears the bridges between sites that greet on the networks of this host. Touches the OS: joins and receives."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.facts import SiteBridge
from multicast_expert.doctor.trial.receiver import Receiver
from multicast_expert.wire.bridge_greeting import GREETINGS, PORT, parse_greeting

MOST = 64
"""Bridges that are noted: anybody may greet as if there were more."""


class SiteBridges:
    """Joins the group of the greetings on these interfaces. Raises OSError if it cannot open a socket."""

    def __init__(self, version: int, ifaces: Iterable[IfaceInfo]) -> None:
        self._found: dict[tuple[str, str], bool] = {}
        self.receiver: Receiver = Receiver(ReceiveSettings(version, PORT), self._note)
        for iface in ifaces:
            self.receiver.join(Join(ip_address(GREETINGS[version][0]), None, InterfaceChoice(iface)))

    def _note(self, datagram: Datagram) -> None:
        greeting = parse_greeting(datagram.data, None)
        place = datagram.interface_name or "", datagram.sender[0].partition("%")[0]
        if greeting is not None and (place in self._found or len(self._found) < MOST):
            self._found[place] = greeting.connected

    def found(self) -> tuple[SiteBridge, ...]:
        """Return the bridges that greeted, as they said last."""
        return tuple(SiteBridge(*place, connected) for place, connected in self._found.items())
