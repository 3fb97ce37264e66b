"""The probe: whether this host receives a datagram of its own. Touches the OS: joins, and sends to this host only.

The datagram goes to the target's group with hop limit 0, so it never leaves the host, and with loopback on. It goes to
the target's port unless another program listens there, else to a free one: only the doctor receives it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Sequence
from contextlib import closing
from ipaddress import ip_address

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.datagram import Datagram
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.facts import Probe
from multicast_expert.doctor.trial.receiver import Listening, Receiver, send_once

PATIENCE = 0.3
"""Seconds within which all probes must be back; on a healthy host they are at once."""


def probe(
    settings: ReceiveSettings,
    ifaces: Sequence[IfaceInfo],
    group: IPAddress,
    joins: Iterable[Join],
    taken: Collection[int],
) -> tuple[Probe, ...]:
    """Send one probe on each interface of the joins, and return the results. `taken`: ports of other programs.

    Raises OSError if there is no descriptor for it.
    """
    port = settings.port
    if not port or port in taken:
        port = _free_port(settings.version)
    token = b"multicast_expert probe " + os.urandom(16)
    back: set[int] = set()

    def note(datagram: Datagram) -> None:
        if datagram.data == token and datagram.interface_index is not None:
            back.add(datagram.interface_index)

    known = {iface.index: iface for iface in ifaces}
    with closing(Receiver(settings._replace(port=port), note)) as receiver:
        probes: dict[int, Probe] = {}
        for choice in {join.interface.iface.index: join.interface for join in joins}.values():
            iface = known.get(choice.iface.index, choice.iface)
            probes[iface.index] = _send(receiver, token, group, port, choice._replace(iface=iface))
        sent = {index for index, each in probes.items() if each.error is None}
        with closing(Listening()) as listening:
            listening.add(receiver.filenos(), receiver.drain)
            while not back >= sent and (left := PATIENCE - listening.clock()) > 0:
                listening.look(left)
    return tuple(Probe(each.interface, index in back, each.error, each.sender) for index, each in probes.items())


def _send(receiver: Receiver, token: bytes, group: IPAddress, port: int, choice: InterfaceChoice) -> Probe:
    """Join on the interface, from its own address only, and send; an error is recorded."""
    name = choice.iface.display_name
    own = [entry.ip for entry in choice.iface.addresses(group.version)]
    if not own:
        return Probe(name, False, "EADDRNOTAVAIL")
    # Datagrams to a link-local group or from a fresh interface may leave with any of the addresses.
    address = next((each for each in own if each == choice.address), own[0])
    outlet = InterfaceChoice(choice.iface, address)
    error = receiver.join(Join(group, ip_address(address.packed), outlet)).error
    error = error or send_once(token, str(group), port, group.version, outlet)
    return Probe(name, False, error, str(address))


def _free_port(version: int) -> int:
    """Return a UDP port that no program on this host uses."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as finder:
        finder.bind(("", 0))
        return int(finder.getsockname()[1])
