"""Subscriptions: the groups that a receiver wants, on its interfaces, and the changes of them at run time.

Every change is checked whole, then carried out by ReceiveSockets, and undone if the OS refuses it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress

from multicast_expert.core.addresses import IPAddress, MulticastAddress, parse_source
from multicast_expert.core.errors import MulticastOSError, NotJoinedError, NotOpenError
from multicast_expert.core.interfaces import IfaceInfo, IfaceSpecifier, InterfaceChoice, means_any, missing_interface
from multicast_expert.core.memberships import Attachment, Memberships
from multicast_expert.core.plan import Join
from multicast_expert.core.scopes import Scope, ScopedGroup, in_scope, parse_scoped_group
from multicast_expert.core.tracking import Place, asked_name, locate
from multicast_expert.engine import ReceiveSockets
from multicast_expert.platforms.table import Operation
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import choose_for_receiving, scan_interfaces

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
        """Leave the group, or this source of it. Raises NotJoinedError when that was done already."""
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

    def __init__(
        self,
        version: int,
        specifiers: list[IfaceSpecifier] | None,
        allow_missing: bool,
        follow: bool = False,
        may_be_empty: bool = False,
    ) -> None:
        """`may_be_empty`: whether there may be no interface, where none was named."""
        self.version: int = version
        self._follow = follow
        """Whether to join where the packets of an interface go, instead of on the interface itself."""
        self.diverted: list[Attachment] = []
        """Those that were put there since the program was last told."""
        self.wanted: Memberships = Memberships()
        choices = choose_for_receiving(specifiers, version, allow_missing, may_be_empty)
        self.attachments: list[Attachment] = [Attachment(choice, choice.iface.index != 0) for choice in choices]
        self.everywhere: Attachment | None = None
        """Stands for the interfaces that are yet to come, where none was named."""
        if specifiers is None:
            self.everywhere = Attachment(InterfaceChoice(missing_interface("all interfaces")), present=False)
        self.sockets: ReceiveSockets

    @property
    def missing(self) -> list[str]:
        """What was asked for and is not there: names and addresses."""
        return [asked_name(each.asked) for each in self.attachments if each.choice.required and not each.present]

    def want(self, groups: Iterable[ScopedGroup], sources: Iterable[IPAddress | None]) -> None:
        """Note the groups, each from these sources, on every interface or those of its scopes; `open` joins them."""
        everywhere = self._all()
        named = list(groups)
        # The same group may come several times, with different scopes.
        scoped = [each for each in named if each.scope is not None]
        if not scoped and sources == [None]:
            for group, _ in named:
                self.wanted.begin(group, everywhere)
            return
        for group, scope in named:
            attachments = everywhere
            if scoped:
                known = self.wanted.attachments(group)
                attachments = [each for each in self._in_scope(group, scope, everywhere) if each not in known]
            for source in sources:
                self.wanted.put(group, self.wanted.join(group, source, attachments).after)

    def _in_scope(self, group: IPAddress, scope: Scope | None, attachments: list[Attachment]) -> list[Attachment]:
        """Return the attachments that the scope of a group means; None: all. Raises MulticastExpertError for none."""
        if scope is None:
            return attachments
        places = [(each, [each.asked.iface, each.choice.iface]) for each in attachments if each is not self.everywhere]
        return in_scope(group, scope, places, kernel.SYSTEM.platform.names_ignore_case)

    def _all(self) -> list[Attachment]:
        return self.attachments if self.everywhere is None else [self.everywhere, *self.attachments]

    def attach(self, sockets: ReceiveSockets) -> bool:
        """Use these sockets; return whether an interface is missing or diverted. Raises MulticastOSError."""
        self.sockets = sockets
        missing = not self.attachments
        for attachment in self.attachments:
            attachment.present = attachment.choice.iface.index != 0
            missing = missing or not attachment.present
        self._divert(self.attachments)
        return missing or bool(self.diverted)

    def _divert(self, attachments: Iterable[Attachment]) -> None:
        """Let those that are ports of other interfaces use these. Raises MulticastOSError."""
        ports = [
            each
            for each in attachments
            if each.present and each.choice.required and each.choice.iface.master is not None
        ]
        if not ports or not self._follow:
            return
        by_index = {iface.index: iface for iface in scan_interfaces()}
        for attachment in ports:
            place = self.place(attachment, by_index)
            if place is not None and place.used.index != attachment.choice.iface.index:
                self.settle(attachment, place)
                self.diverted.append(attachment)

    def place(self, attachment: Attachment, by_index: Mapping[int, IfaceInfo]) -> Place | None:
        """Return where its interface is among those of now; None if it is missing."""
        return locate(attachment.asked, by_index, kernel.SYSTEM.platform.names_ignore_case)

    def settle(self, attachment: Attachment, place: Place) -> None:
        """Note that it is there from now on, to be joined there."""
        attachment.choice = place.choice(attachment.asked)
        attachment.asked = attachment.asked._replace(iface=place.asked)
        self.sockets.name_interface(place.used.index, place.used.display_name)

    def join_all(self) -> None:
        """Join all that is wanted. Raises MulticastOSError."""
        joins = self.wanted.joins()
        # A single interface stands for no other.
        self.sockets.add(joins if len(self.attachments) == 1 else self._lacking(joins))
        for join, count in self.wanted.blocked():
            self.sockets.change_source(join, "block source", count)

    def join_again(self, attachment: Attachment) -> None:
        """Join what is wanted on an interface that has come. Raises MulticastOSError."""
        named = attachment.choice._replace(required=True)
        self.sockets.add(self._lacking(join._replace(interface=named) for join in self.wanted.of(attachment)))
        for join, count in self.wanted.blocked(attachment):
            self.sockets.change_source(join, "block source", count)

    def _lacking(self, joins: Iterable[Join]) -> list[Join]:
        """Return those that are not held: an interface may stand for another one of the receiver's, its port."""
        return list({join.key: join for join in joins if not self.sockets.holds(join)}.values())

    def give_up(self, attachment: Attachment) -> None:
        """Leave what is held for this one alone, and keep what was received."""
        self.sockets.give_up(self.wanted.sole(attachment))

    def own(self) -> None:
        """In the child of a fork, open sockets of its own instead of those that the parent goes on using."""
        sockets = self.sockets
        if sockets.inherited:
            with sockets.own():
                self.join_all()

    def describe(self, attachment: Attachment, iface: IfaceInfo) -> None:
        """Note what the interface is now."""
        attachment.choice = attachment.choice._replace(iface=iface)
        if not attachment.choice.required:
            attachment.asked = attachment.choice
        self.sockets.name_interface(iface.index, iface.display_name)

    def join(
        self, group: MulticastAddress, source: MulticastAddress | None, iface: IfaceSpecifier | None
    ) -> Membership:
        """See `McastRxSocket.join_group`."""
        parsed, scope = parse_scoped_group(group, self.version)
        parsed_source = None if source is None else parse_source(source, self.version)
        with self.sockets.change():
            attachments = self._in_scope(parsed, scope, self._targets(iface))
            fresh = [each for each in attachments if each not in self._all()]
            self.own()
            revision = self.wanted.join(parsed, parsed_source, attachments)
            known, diverted = self.attachments, [*self.diverted]
            joins: list[Join] = []
            try:
                self._divert(fresh)
                joins = self._lacking(Join(parsed, parsed_source, each.choice) for each in attachments if each.present)
                self.sockets.add(joins)
                self.attachments = [*known, *fresh]
                self.wanted.put(parsed, revision.after)
            except BaseException:
                self.sockets.undo(joins)
                self.attachments, self.diverted = known, diverted
                self.wanted.put(parsed, revision.before)
                raise
        return Membership(self, parsed, parsed_source, [each for each in attachments if each is not self.everywhere])

    def _targets(self, iface: IfaceSpecifier | None) -> list[Attachment]:
        """Return the interfaces that a run-time change is about; None: all of this receiver's."""
        if iface is None or means_any(iface):
            return self._all()
        name = iface.machine_name if isinstance(iface, IfaceInfo) else str(iface)
        away = [each for each in self.attachments if not each.present and each.asked.iface.machine_name == name]
        if away:
            return away
        targets = []
        for choice in choose_for_receiving([iface], self.version):
            index = choice.iface.index
            known = [each for each in self.attachments if each.asked.iface.index == index]
            known = known or [each for each in self.attachments if each.present and each.choice.iface.index == index]
            targets += known or [Attachment(choice)]
        return targets

    def joined(self, group: MulticastAddress, iface: IfaceSpecifier | None) -> tuple[IPAddress, list[Attachment]]:
        """Return the group and the interfaces on which it is joined. Raises NotJoinedError where there is none."""
        parsed, scope = parse_scoped_group(group, self.version)
        everywhere = iface is None or means_any(iface)
        attachments = self.wanted.attachments(parsed) if everywhere else self._targets(iface)
        if not attachments:
            raise NotJoinedError(f"{parsed} is not joined.")
        return parsed, self._in_scope(parsed, scope, attachments)

    def leave(self, group: IPAddress, source: IPAddress | None, attachments: list[Attachment]) -> None:
        """Leave the group, or one source of it, on these interfaces. Raises NotJoinedError."""
        self._check_open()
        with self.sockets.change():
            self.own()
            revision, joins = self.wanted.leave(group, source, attachments)
            try:
                self.sockets.remove(joins)
                self.wanted.put(group, revision.after)
            except BaseException:
                # What was interrupted, or refused, is left all the same.
                self.sockets.undo(joins)
                self.wanted.put(group, revision.after)
                raise

    def block(self, group: IPAddress, source: MulticastAddress, attachments: list[Attachment], blocked: bool) -> None:
        """Block a source of a group, or let it in again. Raises MulticastExpertError."""
        self._check_open()
        parsed = parse_source(source, self.version)
        with self.sockets.change():
            self.own()
            revision, changes = self.wanted.block(group, parsed, attachments, blocked)
            forth, back = _BLOCK if blocked else reversed(_BLOCK)
            try:
                for join, count in changes:
                    self.sockets.change_source(join, forth, count)
                self.wanted.put(group, revision.after)
            except BaseException:
                for join, count in changes:
                    # The kernel refuses to undo what was not done.
                    with suppress(MulticastOSError):
                        self.sockets.change_source(join, back, count)
                self.wanted.put(group, revision.before)
                raise

    def _check_open(self) -> None:
        if not hasattr(self, "sockets") or self.sockets.closed:
            raise NotOpenError("This receiver is not open: use it in a with block, or call open().")

    @property
    def memberships(self) -> list[Membership]:
        """All memberships, one for each group, source and interface."""
        return [Membership(self, group, source, [attachment]) for group, source, attachment in self.each()]

    def each(self) -> list[tuple[IPAddress, IPAddress | None, Attachment]]:
        """Return group, source and interface of each membership."""
        return [membership for membership in self.wanted if membership[2] is not self.everywhere]
