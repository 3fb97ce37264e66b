"""Keeps a receiver's memberships true while interfaces come and go. Decides what to restore; the engine does it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.memberships import Attachment
from multicast_expert.sockets.subscriptions import Subscriptions
from multicast_expert.system.changes import Changes
from multicast_expert.system.interfaces import interface_exists

logger: logging.Logger = logging.getLogger("multicast_expert")


class HealingEvent(NamedTuple):
    """What was done about an interface that went, came or came back."""

    kind: Literal["lost", "joined", "failed"]
    interface: str
    groups: int
    """How many groups it concerns."""
    reason: str = ""
    """Why it failed."""

    def __str__(self) -> str:
        words = {"lost": "lost with", "joined": "joined on", "failed": "could not be joined on"}[self.kind]
        return f"{self.groups} group(s) {words} {self.interface}" + (f": {self.reason}" if self.reason else "")


class Healer:
    """Restores the subscriptions of one receiver. Its methods but `report` are called under their lock."""

    def __init__(self, subscriptions: Subscriptions, on_event: Callable[[HealingEvent], None] | None) -> None:
        self._subscriptions = subscriptions
        self._on_event = on_event
        self._failures: dict[str, str] = {}
        self._events: deque[HealingEvent] = deque()

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Leave the interfaces that are gone, and note the names that others have now."""
        version = self._subscriptions.version
        by_index = {iface.index: iface for iface in ifaces}
        dead = changes.deleted | (changes.without_ipv6 if version == 6 else frozenset())
        for attachment in self._subscriptions.attachments:
            index = attachment.choice.iface.index
            if attachment.present and (index in dead or (index not in by_index and not interface_exists(index))):
                attachment.present = False
                self._subscriptions.sockets.forget(index)
                self._note("lost", attachment)
            elif attachment.present and index in by_index:
                # While it is held it is known by its index, whatever its name is now; afterwards only the name is left.
                self._subscriptions.describe(attachment, by_index[index])

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Join on the interfaces that are there; return whether something is still to be done."""
        attachments = self._subscriptions.attachments
        taken = {attachment.choice.iface.index for attachment in attachments if attachment.present}
        free = {iface.machine_name: iface for iface in ifaces if iface.index not in taken}
        missing = []
        for attachment in attachments:
            iface = free.get(attachment.choice.iface.machine_name)
            if not attachment.present and iface is not None:
                del free[iface.machine_name]
                self._subscriptions.describe(attachment, iface)
                missing.append(attachment)
        missing += self._new(free.values())
        outcomes = [self._join(attachment) for attachment in missing]
        return not all(outcomes)

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
            self._subscriptions.sockets.forget(attachment.choice.iface.index)
            if self._failures.get(attachment.name) != str(error):
                self._failures[attachment.name] = str(error)
                self._note("failed", attachment, str(error))
            return False
        attachment.present = True
        self._failures.pop(attachment.name, None)
        self._note("joined", attachment)
        return True

    def _note(self, kind: Literal["lost", "joined", "failed"], attachment: Attachment, reason: str = "") -> None:
        groups = len({join.group for join in self._subscriptions.wanted.of(attachment)})
        self._events.append(HealingEvent(kind, attachment.name, groups, reason))

    def report(self) -> None:
        """Report to the log and to the program. No lock is held: its callback may use the receiver, and wait."""
        while self._events:
            event = self._events.popleft()
            logger.log(logging.INFO if event.kind == "joined" else logging.WARNING, "%s", event)
            if self._on_event is not None:
                try:
                    self._on_event(event)
                except Exception:
                    logger.exception("The on_event callback failed")
