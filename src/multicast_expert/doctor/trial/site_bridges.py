"""Hears the bridges between sites that greet on the networks of this host. Touches the OS: joins and receives."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing, suppress
from ipaddress import ip_address

from multicast_expert.core.datagram import Datagram
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.facts import SiteBridge
from multicast_expert.doctor.trial.receiver import Listening, Receiver
from multicast_expert.wire.bridge_greeting import GREETINGS, PORT, parse_greeting

PATIENCE = 0.4
"""Seconds that are enough for two greetings."""
MOST = 64
"""Bridges that are noted: anybody may greet as if there were more."""


def hear_bridges(version: int, ifaces: Iterable[IfaceInfo]) -> tuple[SiteBridge, ...]:
    """Return the bridges that greet on these interfaces, as they said last; none without a descriptor for it."""
    found: dict[tuple[str, str], bool] = {}

    def note(datagram: Datagram) -> None:
        greeting = parse_greeting(datagram.data, None)
        place = datagram.interface_name or "", datagram.sender[0].partition("%")[0]
        if greeting is not None and (place in found or len(found) < MOST):
            found[place] = greeting.connected

    with suppress(OSError), closing(Receiver(ReceiveSettings(version, PORT), note)) as receiver:
        for iface in ifaces:
            receiver.join(Join(ip_address(GREETINGS[version][0]), None, InterfaceChoice(iface)))
        with closing(Listening()) as listening:
            listening.add(receiver.filenos(), receiver.drain)
            listening.run(PATIENCE, lambda: 0)
    return tuple(SiteBridge(*place, connected) for place, connected in found.items())
