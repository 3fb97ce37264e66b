"""Equipment: what one both-ways socket opens beside its memberships, kept up as interfaces come, go and move.

On each interface it is an Outlet to send by, and what receives the wanted unicast; `core.both_ways` plans them. On
Linux, sending takes the locks of outlets only, so it waits for no change of a membership. The thread that holds the
lock of the receiving sockets may take one of an outlet, never the other way round; elsewhere both are one lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

from multicast_expert.core.both_ways import SendSettings, Unicast, plan_outlet, plan_unicast
from multicast_expert.core.errors import MulticastExpertError, MulticastOSError, warn
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.memberships import Attachment
from multicast_expert.core.plan import ReceiveSettings, SocketPlan
from multicast_expert.engine import ReceiveSockets, SendSocket, error_name, os_error
from multicast_expert.engine.own_echo import OwnEcho
from multicast_expert.sockets.healing import Events
from multicast_expert.sockets.outlet import Absence, Outlet
from multicast_expert.system import kernel
from multicast_expert.system.kernel import Socket


class Lender:
    """Lets the receiving sockets use what the outlets send by, where that is one and the same (see `outlet.Owner`)."""

    def __init__(self, sockets: ReceiveSockets, echo: OwnEcho, port: int, version: int) -> None:
        self.port: int = port
        self._sockets = sockets
        self._echo = echo
        self._lends = version not in kernel.SYSTEM.platform.silent
        self.closing: Callable[[Socket], None] | None = sockets.take_back if self._lends else None

    def lock(self) -> threading.RLock | None:
        """Return the lock of the receiving sockets where they get the outlets' sockets."""
        return self._sockets.lock if self._lends else None

    def opened(self, sock: SendSocket, plan: SocketPlan) -> None:
        """Receive from a new socket too, and learn to recognise what it sends. Raises MulticastOSError."""
        if self._lends:
            self._sockets.lend(plan, sock.socket)
        try:
            self._echo.learn(plan.key[1] or 0, sock)
        except OSError as error:
            raise os_error(kernel.SYSTEM, error, "send", "recognise what this socket sends") from error


class Equipment:
    """The outlets of one both-ways socket, and what receives its unicast. `begin` comes first, at each opening."""

    def __init__(self, version: int, sending: SendSettings, unicast: Unicast, heal: bool) -> None:
        self._version = version
        self._sending = sending
        self._unicast = unicast
        self._heal = heal
        self._sockets: ReceiveSockets
        self._settings: ReceiveSettings
        self.echo: OwnEcho
        """Recognises what the outlets sent."""
        self.outlets: dict[Attachment, Outlet] = {}
        """Replaced as a whole, never changed: other threads read it."""
        self._complaints: set[str] = set()

    def begin(self, sockets: ReceiveSockets, settings: ReceiveSettings) -> OwnEcho:
        """Receive by these sockets, and keep from them what the outlets send; return what recognises that."""
        self._sockets, self._settings = sockets, settings
        self.echo = sockets.echo = OwnEcho(kernel.SYSTEM, self._version, settings.port, self._sending.own)
        return self.echo

    def equip(self, attachments: Iterable[Attachment], at_start: bool) -> bool:
        """Open what sends and what receives unicast on the interfaces that are there; return whether all is open.

        At the start an interface that was named and cannot be sent from is an error.
        """
        complete = True
        present = [each for each in attachments if each.present]
        for attachment in present:
            iface = attachment.choice.iface
            self._sockets.name_interface(iface.index, iface.display_name)
            try:
                known = self.outlets.get(attachment)
                if known is not None:
                    known.follow(attachment.choice)
                else:
                    sending = self._sending
                    outlet = self._new_outlet(attachment.choice)
                    outlet.open()
                    self.outlets = {**self.outlets, attachment: outlet}
                    if self._sending is not sending:
                        # Another thread has changed it, and may not have met this one.
                        outlet.change_dscp(self._sending.dscp)
            except MulticastExpertError as error:
                if at_start and attachment.choice.required:
                    raise
                # An address that comes later is an event of its own.
                complete = complete and not isinstance(error, MulticastOSError)
                if at_start:
                    warn(f"{error} Nothing is sent there, because it was only part of all interfaces.")
        return self._receive_unicast([each.choice for each in present], at_start) and complete

    def _receive_unicast(self, present: list[InterfaceChoice], at_start: bool) -> bool:
        settings, outlets = self._settings, [outlet.plan for outlet in self.outlets.values()]
        own = {str(each.ip) for choice in present for each in choice.iface.addresses(self._version)}
        self.echo.send_from({address.partition("%")[0] for address in own})
        plans = plan_unicast(kernel.SYSTEM.platform, settings, present, self._unicast, settings.port, outlets)
        absent = False
        for error in self._sockets.stand(plans):
            if error_name(kernel.SYSTEM, error) != "EADDRINUSE":
                if at_start and self._unicast.kind == "named":
                    raise error
                absent = True
            elif str(error) not in self._complaints:
                self._complaints.add(str(error))
                warn(
                    f"Another socket of this host has port {settings.port} and receives the unicast that is sent to "
                    "it. unicast=False asks for none, and unicast=[...] with an address takes it."
                )
        return not absent

    @property
    def dscp(self) -> int | None:
        """The priority mark of what is sent."""
        return self._sending.dscp

    @dscp.setter
    def dscp(self, dscp: int | None) -> None:
        self._sending = self._sending._replace(dscp=dscp)
        for outlet in self.outlets.values():
            outlet.change_dscp(dscp)

    def _new_outlet(self, choice: InterfaceChoice) -> Outlet:
        settings, sending, unicast = self._settings, self._sending, self._unicast

        def planned(choice: InterfaceChoice, port: int, dscp: int | None) -> SocketPlan:
            marked = sending._replace(dscp=dscp)
            return plan_outlet(kernel.SYSTEM.platform, settings, marked, choice, unicast, port)

        # The healing of memberships reports what there is to report.
        silent = Absence(False, Events(None), 0)
        lender = Lender(self._sockets, self.echo, settings.port, self._version)
        return Outlet(self._version, choice, sending.hop_limit, sending.dscp, planned, self._heal, silent, lender)

    def close(self) -> None:
        """Close the outlets. A second call does no harm."""
        for outlet in self.outlets.values():
            if hasattr(outlet, "socket"):
                outlet.close()
        self.outlets = {}

    def abandon(self) -> None:
        """Let the child of a fork keep nothing that it could change for its parent."""
        self.echo.abandon()
        for outlet in self.outlets.values():
            outlet.abandon()
