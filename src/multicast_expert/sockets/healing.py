"""Keeps a receiver's memberships true while interfaces come and go. Decides what to restore; the engine does it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, NamedTuple

from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.memberships import Attachment
from multicast_expert.core.tracking import Place, seen
from multicast_expert.sockets.subscriptions import Subscriptions
from multicast_expert.system.changes import Changes
from multicast_expert.system.interfaces import interface_exists
from multicast_expert.system.watch import get_logger, look_soon


class HealingEvent(NamedTuple):
    """What was done about an interface that went, came, came back or moved."""

    kind: Literal["lost", "joined", "moved", "failed", "silent", "sending"]
    """Of a receiver: its groups were lost, joined, moved to this interface, or could not be joined. Of a sender: it is
    silent while the interface is missing, or is sending from it (again)."""
    interface: str
    groups: int
    """How many groups it concerns; 0 for a sender to any group."""
    reason: str = ""
    """Why it failed, or moved."""

    def __str__(self) -> str:
        groups = f"{self.groups} group" + ("" if self.groups == 1 else "s")
        words = {
            "lost": f"{groups} lost with",
            "joined": f"{groups} joined on",
            "moved": f"{groups} moved to",
            "failed": f"{groups} could not be joined on",
            "silent": "nothing can be sent from",
            "sending": "sending from",
        }[self.kind]
        return f"{words} {self.interface}" + (f": {self.reason}" if self.reason else "")


class Events:
    """The events of one socket, until they are reported to the log and to the program."""

    def __init__(self, on_event: Callable[[HealingEvent], None] | None) -> None:
        self._on_event = on_event
        self._events: deque[HealingEvent] = deque()
        self.namespace: int | None = None
        """The network namespace whose watch calls `report`; None: no watch does."""

    @property
    def is_waiting(self) -> bool:
        """Whether there is something to report."""
        return bool(self._events)

    def note(self, event: HealingEvent, soon: bool = False) -> None:
        """Have an event reported; any lock may be held. `soon`: it was not the watch that found it."""
        self._events.append(event)
        if soon and self.namespace is not None:
            look_soon(self.namespace)

    def report(self) -> None:
        """Report to the log and to the program. No lock is held: its callback may use the socket, and wait."""
        while self._events:
            event = self._events.popleft()
            logger = get_logger()
            # Sends say by themselves that there is nothing to send from.
            (logger.warning if event.kind in ("lost", "failed") else logger.info)("%s", event)
            if self._on_event is not None:
                try:
                    self._on_event(event)
                except Exception:
                    logger.exception("The on_event callback failed")


class Healer:
    """Restores the subscriptions of one receiver. Its methods are called under their lock."""

    def __init__(self, subscriptions: Subscriptions, events: Events) -> None:
        self._subscriptions = subscriptions
        self._events = events
        self._failures: dict[str, str] = {}
        self._left: dict[Attachment, IfaceInfo] = {}
        """Those that are moving, and the interface that each was on."""

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Leave the interfaces that are gone or no longer meant, and note the names that others have now."""
        self._tell_of_diverted()
        by_index = {iface.index: iface for iface in ifaces}
        dead = changes.deleted | (changes.without_ipv6 if self._subscriptions.version == 6 else frozenset())
        for attachment in self._subscriptions.attachments:
            asked = attachment.asked.iface.index
            is_deleted = not asked or asked in changes.deleted or not (asked in by_index or interface_exists(asked))
            attachment.asked = seen(attachment.asked, by_index, is_deleted, changes.names)
            index = attachment.choice.iface.index
            if not attachment.present:
                continue
            if index in dead or (index not in by_index and not interface_exists(index)):
                attachment.present = False
                self._subscriptions.sockets.forget(index)
                self._note("lost", attachment)
            elif index in by_index:
                # While it is held it is known by its index, whatever its name is now; afterwards only the name is left.
                self._subscriptions.describe(attachment, by_index[index])
                self._leave_where_it_is_not(attachment, by_index)

    def _leave_where_it_is_not(self, attachment: Attachment, by_index: Mapping[int, IfaceInfo]) -> None:
        """Give up an interface that is there, if the one that was asked for is elsewhere or missing."""
        used, asked = attachment.choice.iface, attachment.asked.iface
        if not attachment.choice.required or (asked.index and asked.index not in by_index):
            # Part of all interfaces; or being renamed, so that the list misses it.
            return
        place = self._subscriptions.place(attachment, by_index)
        if place is None or place.used.index != used.index:
            self._subscriptions.give_up(attachment)
            attachment.present = False
            self._left[attachment] = used

    def _tell_of_diverted(self) -> None:
        for attachment in self._subscriptions.diverted:
            self._note("moved", attachment, f"{attachment.asked.iface.display_name} is a port of it")
        self._subscriptions.diverted = []

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Join on the interfaces that are there; return whether something is still to be done."""
        by_index = {iface.index: iface for iface in ifaces}
        attachments = self._subscriptions.attachments
        free = {
            index: iface
            for index, iface in by_index.items()
            if not any(
                each.present and index == each.choice.iface.index == each.asked.iface.index for each in attachments
            )
        }
        missing = []
        for attachment in attachments:
            if not attachment.present and self._find(attachment, by_index, free):
                missing.append(attachment)
                free.pop(attachment.asked.iface.index, None)
        missing += self._new(free.values())
        outcomes = [self._join(attachment) for attachment in missing]
        return not all(outcomes)

    def _find(self, attachment: Attachment, by_index: Mapping[int, IfaceInfo], free: Mapping[int, IfaceInfo]) -> bool:
        """Look for the interface of one that is on none; return whether there is something to join on."""
        subscriptions = self._subscriptions
        if not attachment.choice.required:
            name = attachment.choice.iface.machine_name
            iface = next((each for each in free.values() if each.machine_name == name), None)
            if iface is not None:
                subscriptions.describe(attachment, iface)
            return iface is not None
        place = subscriptions.place(attachment, by_index)
        if place is not None:
            subscriptions.settle(attachment, place)
            return True
        if self._left.pop(attachment, None) is not None:
            self._note("lost", attachment)
        return False

    def _new(self, ifaces: Iterable[IfaceInfo]) -> list[Attachment]:
        """Copy the memberships on all interfaces to those that have appeared."""
        subscriptions = self._subscriptions
        if subscriptions.everywhere is None:
            return []
        found = []
        for iface in ifaces:
            if iface.addresses(subscriptions.version) and not iface.is_localhost():
                fresh = Attachment(InterfaceChoice(iface, required=False), present=False)
                subscriptions.wanted.extend(subscriptions.everywhere, fresh)
                found.append(fresh)
        subscriptions.attachments += found
        return found

    def _join(self, attachment: Attachment) -> bool:
        """Join every group of an interface that is there; return whether that went well."""
        try:
            self._subscriptions.join_again(attachment)
        except MulticastOSError as error:
            self._subscriptions.give_up(attachment)
            if self._failures.get(attachment.name) != str(error):
                self._failures[attachment.name] = str(error)
                self._note("failed", attachment, str(error))
            return False
        attachment.present = True
        self._failures.pop(attachment.name, None)
        before = self._left.pop(attachment, None)
        place = Place(attachment.asked.iface, attachment.choice.iface)
        if before is not None:
            self._note("moved", attachment, place.reason(attachment.asked, before))
        else:
            is_port = place.asked.index != place.used.index
            self._note("joined", attachment, place.reason(attachment.asked, place.used) if is_port else "")
        return True

    def _note(
        self, kind: Literal["lost", "joined", "moved", "failed"], attachment: Attachment, reason: str = ""
    ) -> None:
        groups = len({join.group for join in self._subscriptions.wanted.of(attachment)})
        self._events.note(HealingEvent(kind, attachment.name, groups, reason))
