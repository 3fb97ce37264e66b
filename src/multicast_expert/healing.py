"""Keeps a receiver's memberships true while interfaces come and go. Decides what to restore; the engine does it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal, NamedTuple

from multicast_expert.discovery import interface_exists
from multicast_expert.engine import ReceiveEngine
from multicast_expert.errors import MulticastOSError
from multicast_expert.interfaces import IfaceInfo, InterfaceChoice
from multicast_expert.memberships import Attachment, Memberships
from multicast_expert.watcher import Changes

logger = logging.getLogger("multicast_expert")


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
    """Restores the memberships of one receiver. The receiver's lock is held while it works."""

    def __init__(
        self,
        version: int,
        engine: ReceiveEngine,
        memberships: Memberships,
        attachments: list[Attachment],
        everywhere: Attachment | None,
        report: Callable[[HealingEvent], None] | None,
    ) -> None:
        self._version = version
        self._engine = engine
        self._memberships = memberships
        self._attachments = attachments
        self._everywhere = everywhere
        self._report = report
        self._failures: dict[str, str] = {}

    def heal(self, changes: Changes, ifaces: list[IfaceInfo]) -> bool:
        """Leave what is gone and join what is there; return whether something is still to be done."""
        by_index = {iface.index: iface for iface in ifaces}
        by_name = {iface.machine_name: iface for iface in ifaces}
        dead = changes.deleted | (changes.without_ipv6 if self._version == 6 else frozenset())
        for attachment in self._attachments:
            index = attachment.choice.iface.index
            if attachment.present and (index in dead or (index not in by_index and not interface_exists(index))):
                self._lose(attachment)
            # While it is held it is known by its index, whatever its name is now; afterwards only the name is left.
            now = by_index.get(index) if attachment.present else by_name.get(attachment.choice.iface.machine_name)
            if now is not None:
                attachment.choice = attachment.choice._replace(iface=now)
                self._engine.name_interface(now.index, now.display_name)
        if self._everywhere is not None:
            self._add_new(ifaces, self._everywhere)
        absent = [attachment for attachment in self._attachments if not attachment.present]
        return any([self._restore(attachment) for attachment in absent if attachment.choice.iface.index in by_index])

    def _lose(self, attachment: Attachment) -> None:
        attachment.present = False
        self._engine.forget(attachment.choice.iface.index)
        self._tell("lost", attachment)

    def _add_new(self, ifaces: list[IfaceInfo], everywhere: Attachment) -> None:
        known = {attachment.choice.iface.index for attachment in self._attachments}
        for iface in ifaces:
            if iface.index not in known and iface.addresses(self._version) and not iface.is_localhost():
                fresh = Attachment(InterfaceChoice(iface, required=False), present=False)
                self._memberships.extend(everywhere, fresh)
                self._attachments.append(fresh)

    def _restore(self, attachment: Attachment) -> bool:
        """Join what is wanted on an interface that is there; return whether to try again."""
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
                self._tell("failed", attachment, str(error))
            return True
        attachment.present = True
        self._failures.pop(attachment.name, None)
        self._tell("joined", attachment)
        return False

    def _tell(self, kind: Literal["lost", "joined", "failed"], attachment: Attachment, reason: str = "") -> None:
        groups = len({join.group for join in self._memberships.of(attachment)})
        event = HealingEvent(kind, attachment.name, groups, reason)
        logger.log(logging.INFO if kind == "joined" else logging.WARNING, "%s", event)
        if self._report is not None:
            self._report(event)
