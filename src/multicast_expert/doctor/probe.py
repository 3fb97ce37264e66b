"""The probe: whether this host hears a datagram of its own. Touches the OS: joins and sends, to itself only.

The datagram goes to the target's group with hop limit 0, so that it never leaves the host, and with loopback on. Its
port is the target's where nobody on this host listens on that, else a free one: no program but ours receives it.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack
from ipaddress import ip_address
from time import monotonic

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings, plan_send
from multicast_expert.doctor.facts import Probe
from multicast_expert.engine import Reader, ReceiveSockets, SendSocket, error_name, receiving
from multicast_expert.system import kernel

PATIENCE = 0.3
"""Seconds within which all probes must be back; on a healthy host they are at once."""


class Prober:
    """Sends and receives the probes of one trial."""

    def __init__(self, settings: ReceiveSettings, ifaces: Sequence[IfaceInfo]) -> None:
        self._settings = settings
        self._token = b"multicast_expert probe " + os.urandom(16)
        self._ifaces = {iface.index: iface for iface in ifaces}

    def probe(self, group: IPAddress, joins: Iterable[Join], taken: Collection[int]) -> tuple[Probe, ...]:
        """Return what became of one probe on each interface of the joins. `taken`: ports that others listen on."""
        port = self._settings.port
        try:
            if not port or port in taken:
                port = _free_port(self._settings.version)
        except OSError:
            return ()
        choices = {join.interface.iface.index: join.interface for join in joins}
        with ExitStack() as opened:
            sockets, reader, _ = receiving(kernel.SYSTEM, self._settings._replace(port=port))
            opened.callback(sockets.close)
            probes = {index: self._send(sockets, group, port, choice) for index, choice in choices.items()}
            sent = {index for index, probe in probes.items() if probe.error is None}
            back = self._wait(reader, sent)
        return tuple(
            Probe(probe.interface, index in back, probe.error, probe.sender) for index, probe in probes.items()
        )

    def _send(self, sockets: ReceiveSockets, group: IPAddress, port: int, choice: InterfaceChoice) -> Probe:
        """Join on the interface, from our own address there only, and send; a refusal is noted."""
        iface = self._ifaces.get(choice.iface.index, choice.iface)
        version = group.version
        own = [entry.ip for entry in iface.addresses(version)]
        name = iface.display_name
        if not own:
            return Probe(name, False, "EADDRNOTAVAIL")
        # Datagrams to a link-local group or from a fresh interface may leave with any of the addresses.
        address = next((each for each in own if each == choice.address), own[0])
        joined = InterfaceChoice(iface, address)
        try:
            sockets.add([Join(group, ip_address(address.packed), joined)])
            outlet = SendSocket(kernel.SYSTEM, plan_send(kernel.SYSTEM.platform, version, joined, 0, True), iface, 0)
            try:
                scope = iface.index if version == 6 else 0
                destination = (str(group), port) if version == 4 else (str(group), port, 0, scope)
                outlet.try_send(self._token, destination)
            finally:
                outlet.close()
        except MulticastOSError as refused:
            return Probe(name, False, error_name(kernel.SYSTEM, refused) or f"error {refused.errno}", str(address))
        except MulticastExpertError:
            return Probe(name, False, "EADDRNOTAVAIL", str(address))
        return Probe(name, False, None, str(address))

    def _wait(self, reader: Reader, sent: Collection[int]) -> set[int]:
        """Return the interfaces whose probe came back."""
        back: set[int] = set()
        deadline = monotonic() + PATIENCE
        while not back >= set(sent) and (left := deadline - monotonic()) > 0:
            datagram = reader.receive(left)
            if datagram is not None and datagram.data == self._token and datagram.interface_index is not None:
                back.add(datagram.interface_index)
        return back


def _free_port(version: int) -> int:
    """Return a UDP port that nobody on this host uses."""
    family = socket.AF_INET if version == 4 else socket.AF_INET6
    with socket.socket(family, socket.SOCK_DGRAM) as finder:
        finder.bind(("", 0))
        return int(finder.getsockname()[1])
