"""Subscriptions: the groups that a receiver wants, on its interfaces, and the changes of them at run time.

Every change is checked whole, then carried out by ReceiveSockets, and undone if the OS refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable

from multicast_expert.core.addresses import IPAddress, MulticastAddress, parse_group, parse_source
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, InterfaceChoice, missing_interface
from multicast_expert.core.memberships import Attachment, Memberships
from multicast_expert.core.plan import Join
from multicast_expert.engine import ReceiveSockets
from multicast_expert.platforms.table import Operation
from multicast_expert.system.interfaces import choose_for_receiving

_BLOCK: tuple[Operation, Operation] = ("block source", "unblock source")


class Membership:
    """A group that a receiver has joined, from one source or from all, on one interface or on all of the receiver's."""

    def __init__(
        self,
        subscriptions: Subscriptions,
        group: IPAddress,
        source: IPAddress | None,
        attachments: list[Attachment],
    ) -> None:
        self._subscriptions = subscriptions
        self._group = group
        self._source = source
        self._attachments = attachments

    @property
    def group(self) -> str:
        """The group, as text."""
        return str(self._group)

    @property
    def source(self) -> str | None:
        """The only source that is received, as text; None: all."""
        return None if self._source is None else str(self._source)

    @property
    def interface(self) -> IfaceInfo | None:
        """The interface; None when the membership is on several."""
        return self._attachments[0].choice.iface if len(self._attachments) == 1 else None

    @property
    def interfaces(self) -> list[IfaceInfo]:
        """All interfaces of this membership."""
        return [attachment.choice.iface for attachment in self._attachments]

    def leave(self) -> None:
        """Leave the group, or this source of it. Raises MulticastExpertError when that was done already."""
        self._subscriptions.leave(self._group, self._source, self._attachments)

    def block(self, source: MulticastAddress) -> None:
        """Refuse datagrams from one source; the membership must be one from all sources."""
        self._subscriptions.block(self._group, source, self._attachments, True)

    def unblock(self, source: MulticastAddress) -> None:
        """Take datagrams from a blocked source again."""
        self._subscriptions.block(self._group, source, self._attachments, False)

    def __repr__(self) -> str:
        source = "" if self._source is None else f"{self._source}@"
        names = ", ".join(attachment.name for attachment in self._attachments)
        return f"<Membership {source}{self._group} on {names}>"


class Subscriptions:
    """What one receiver wants to receive; `sockets` is set while it is open."""

    def __init__(self, version: int, specifiers: list[IfaceSpecifier] | None, allow_missing: bool) -> None:
        self.version: int = version
        self.wanted: Memberships = Memberships()
        choices = choose_for_receiving(specifiers, version, allow_missing)
        self.attachments: list[Attachment] = [Attachment(choice, choice.iface.index != 0) for choice in choices]
        self.everywhere: Attachment | None = None
        """Stands for the interfaces that are yet to come, where none was named."""
        if specifiers is None:
            self.everywhere = Attachment(InterfaceChoice(missing_interface("all interfaces")), present=False)
        self.sockets: ReceiveSockets

    def want(self, groups: Iterable[IPAddress], sources: Iterable[IPAddress | None]) -> None:
        """Note the groups, each from these sources, on every interface; `open` joins them."""
        for group in groups:
            for source in sources:
                self.wanted.join(group, source, self._all())

    def _all(self) -> list[Attachment]:
        return self.attachments if self.everywhere is None else [self.everywhere, *self.attachments]

    def attach(self, sockets: ReceiveSockets) -> bool:
        """Use these sockets from now on; return whether an interface is missing."""
        self.sockets = sockets
        missing = not self.attachments
        for attachment in self.attachments:
            attachment.present = attachment.choice.iface.index != 0
            missing = missing or not attachment.present
        return missing

    def join_all(self) -> None:
        """Join all that is wanted. Raises MulticastOSError."""
        self.sockets.add(self.wanted.joins())
        for join, count in self.wanted.blocked():
            self.sockets.change_source(join, "block source", count)

    def join_again(self, attachment: Attachment) -> None:
        """Join what is wanted on an interface that has come. Raises MulticastOSError."""
        named = attachment.choice._replace(required=True)
        self.sockets.add([join._replace(interface=named) for join in self.wanted.of(attachment)])
        for join, count in self.wanted.blocked(attachment):
            self.sockets.change_source(join, "block source", count)

    def own(self) -> None:
        """In the child of a fork, open sockets of its own instead of those that the parent goes on using."""
        sockets = self.sockets
        if sockets.inherited:
            sockets.disinherit()
            self.join_all()

    def describe(self, attachment: Attachment, iface: IfaceInfo) -> None:
        """Note what the interface is now."""
        attachment.choice = attachment.choice._replace(iface=iface)
        self.sockets.name_interface(iface.index, iface.display_name)

    def join(
        self, group: MulticastAddress, source: MulticastAddress | None, iface: IfaceSpecifier | None
    ) -> Membership:
        """See `McastRxSocket.join_group`."""
        parsed = parse_group(group, self.version)
        parsed_source = None if source is None else parse_source(source, self.version)
        with self.sockets.lock:
            attachments = self._targets(iface)
            self.own()
            self.wanted.join(parsed, parsed_source, attachments)
            try:
                self.sockets.add(Join(parsed, parsed_source, each.choice) for each in attachments if each.present)
            except BaseException:
                self.wanted.leave(parsed, parsed_source, attachments)
                raise
            self.attachments += [each for each in attachments if each not in self._all()]
        return Membership(self, parsed, parsed_source, [each for each in attachments if each is not self.everywhere])

    def _targets(self, iface: IfaceSpecifier | None) -> list[Attachment]:
        """Return the interfaces that a run-time change is about; None: all of this receiver's."""
        if iface is None:
            return self._all()
        name = iface.machine_name if isinstance(iface, IfaceInfo) else str(iface)
        away = [each for each in self.attachments if not each.present and each.choice.iface.machine_name == name]
        if away:
            return away
        targets = []
        for choice in choose_for_receiving([iface], self.version):
            known = [each for each in self.attachments if each.choice.iface.index == choice.iface.index]
            targets += known or [Attachment(choice)]
        return targets

    def joined(self, group: IPAddress, iface: IfaceSpecifier | None) -> list[Attachment]:
        """Return the interfaces on which the group is joined. Raises MulticastExpertError where there is none."""
        attachments = self.wanted.attachments(group) if iface is None else self._targets(iface)
        if not attachments:
            raise MulticastExpertError(f"{group} is not joined.")
        return attachments

    def leave(self, group: IPAddress, source: IPAddress | None, attachments: list[Attachment]) -> None:
        """Leave the group, or one source of it, on these interfaces. Raises MulticastExpertError."""
        self._check_open()
        with self.sockets.lock:
            self.own()
            self.sockets.remove(self.wanted.leave(group, source, attachments))

    def block(self, group: IPAddress, source: MulticastAddress, attachments: list[Attachment], blocked: bool) -> None:
        """Block a source of a group, or let it in again. Raises MulticastExpertError."""
        self._check_open()
        parsed = parse_source(source, self.version)
        with self.sockets.lock:
            self.own()
            done = []
            changes = self.wanted.block(group, parsed, attachments, blocked)
            forth, back = _BLOCK if blocked else reversed(_BLOCK)
            try:
                for join, count in changes:
                    self.sockets.change_source(join, forth, count)
                    done.append((join, count))
            except BaseException:
                self.wanted.block(group, parsed, attachments, not blocked)
                for join, count in done:
                    self.sockets.change_source(join, back, count)
                raise

    def _check_open(self) -> None:
        if self.sockets.closed:
            raise MulticastExpertError("This receiver is not open: use it in a with block, or call open().")

    @property
    def memberships(self) -> list[Membership]:
        """All memberships, one for each group, source and interface."""
        return [Membership(self, group, source, [attachment]) for group, source, attachment in self.each()]

    def each(self) -> list[tuple[IPAddress, IPAddress | None, Attachment]]:
        """Return group, source and interface of each membership."""
        return [membership for membership in self.wanted if membership[2] is not self.everywhere]
