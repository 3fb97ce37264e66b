"""Keeps a receiver's memberships true while interfaces come and go. Decides what to restore; the engine does it."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable
from typing import Literal, NamedTuple

from multicast_expert.core.errors import MulticastOSError
from multicast_expert.core.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.core.memberships import Attachment, Memberships
from multicast_expert.engine import ReceiveEngine
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
    """Restores the memberships of one receiver, whose lock is held meanwhile; it is not held while it reports."""

    def __init__(
        self,
        version: int,
        engine: ReceiveEngine,
        memberships: Memberships,
        attachments: list[Attachment],
        everywhere: Attachment | None,
        on_event: Callable[[HealingEvent], None] | None,
    ) -> None:
        self._version = version
        self._engine = engine
        self._memberships = memberships
        self._attachments = attachments
        self._everywhere = everywhere
        self._on_event = on_event
        self._failures: dict[str, str] = {}
        self._events: deque[HealingEvent] = deque()

    def give_up(self, changes: Changes, ifaces: list[IfaceInfo]) -> None:
        """Leave what is gone, and note what has another name now."""
        by_index = {iface.index: iface for iface in ifaces}
        dead = changes.deleted | (changes.without_ipv6 if self._version == 6 else frozenset())
        for attachment in self._attachments:
            index = attachment.choice.iface.index
            if attachment.present and (index in dead or (index not in by_index and not interface_exists(index))):
                attachment.present = False
                self._engine.forget(index)
                self._note("lost", attachment)
            elif attachment.present and index in by_index:
                # While it is held it is known by its index, whatever its name is now; afterwards only the name is left.
                self._describe(attachment, by_index[index])

    def restore(self, ifaces: list[IfaceInfo]) -> bool:
        """Join what is there; return whether something is still to be done."""
        taken = {attachment.choice.iface.index for attachment in self._attachments if attachment.present}
        free = {iface.machine_name: iface for iface in ifaces if iface.index not in taken}
        wanted = []
        for attachment in self._attachments:
            iface = free.get(attachment.choice.iface.machine_name)
            if not attachment.present and iface is not None:
                del free[iface.machine_name]
                self._describe(attachment, iface)
                wanted.append(attachment)
        if self._everywhere is not None:
            wanted += self._new(free.values(), self._everywhere)
        outcomes = [self._join(attachment) for attachment in wanted]
        return not all(outcomes)

    def _describe(self, attachment: Attachment, iface: IfaceInfo) -> None:
        attachment.choice = attachment.choice._replace(iface=iface)
        self._engine.name_interface(iface.index, iface.display_name)

    def _new(self, ifaces: Iterable[IfaceInfo], everywhere: Attachment) -> list[Attachment]:
        """Want on new interfaces what is wanted on all."""
        found = []
        for iface in ifaces:
            if iface.addresses(self._version) and not iface.is_localhost():
                fresh = Attachment(InterfaceChoice(iface, required=False), present=False)
                self._memberships.extend(everywhere, fresh)
                found.append(fresh)
        self._attachments += found
        return found

    def _join(self, attachment: Attachment) -> bool:
        """Join what is wanted on an interface that is there; return whether that went well."""
        named = attachment.choice._replace(required=True)
        joins = [join._replace(interface=named) for join in self._memberships.of(attachment)]
        try:
            self._engine.add(joins)
            for join, count in self._memberships.blocked(attachment):
                self._engine.change_source(join, "block source", count)
        except MulticastOSError as error:
            self._engine.forget(attachment.choice.iface.index)
            if self._failures.get(attachment.name) != str(error):
                self._failures[attachment.name] = str(error)
                self._note("failed", attachment, str(error))
            return False
        attachment.present = True
        self._failures.pop(attachment.name, None)
        self._note("joined", attachment)
        return True

    def _note(self, kind: Literal["lost", "joined", "failed"], attachment: Attachment, reason: str = "") -> None:
        groups = len({join.group for join in self._memberships.of(attachment)})
        self._events.append(HealingEvent(kind, attachment.name, groups, reason))

    def report(self) -> None:
        """Tell the log and the user what was done. No lock is held: the user's code may use the receiver, and wait."""
        while self._events:
            event = self._events.popleft()
            logger.log(logging.INFO if event.kind == "joined" else logging.WARNING, "%s", event)
            if self._on_event is not None:
                try:
                    self._on_event(event)
                except Exception:
                    logger.exception("The on_event callback failed")
