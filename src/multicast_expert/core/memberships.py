"""The memberships that a receiver was asked for, and the rules that keep them meaningful. Pure: touches no OS.

The kernels accept much that silently delivers nothing, or less than before; what they would not say is refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError, NotJoinedError
from multicast_expert.core.interfaces import InterfaceChoice, missing_interface
from multicast_expert.core.plan import Join


@dataclass(slots=True, eq=False)
class Attachment:
    """An interface that a receiver wants to be joined on, now or when it comes."""

    choice: InterfaceChoice
    """The interface in use, as it was last seen; it gets another index when it is deleted and comes back."""
    present: bool = True
    """Whether memberships on it are held at this moment."""
    asked: InterfaceChoice = field(init=False)
    """The interface that was asked for, as it was last seen; another one is in use while it is a port of that."""

    def __post_init__(self) -> None:
        self.asked = self.choice

    @property
    def name(self) -> str:
        """The name to show to people."""
        return self.choice.iface.display_name

    @property
    def where_joined(self) -> InterfaceChoice:
        """The interface as it is now; one that is gone has the index 0."""
        return self.choice if self.present else InterfaceChoice(missing_interface(self.name), None, True)


class SourceFilter(NamedTuple):
    """From whom a group is wanted on one interface."""

    sources: frozenset[IPAddress] | None = None
    """Only these (include mode); None: from anyone but `blocked` (exclude mode)."""
    blocked: frozenset[IPAddress] = frozenset()


_NOBODY: frozenset[IPAddress] = frozenset()
_EVERYBODY = SourceFilter()

Holders = dict[Attachment, SourceFilter]
"""Where a group is wanted, and from whom."""


class Revision(NamedTuple):
    """One change of what is wanted of a group: `Memberships.put` with `after` makes it, with `before` undoes it."""

    group: IPAddress
    before: Holders
    after: Holders


class Memberships:
    """Which groups are wanted from whom on which interfaces.

    A change is checked whole and described; its owner carries it out in the kernel and puts it here last, so that an
    interrupt can be undone at any moment.
    """

    def __init__(self) -> None:
        self._filters: dict[IPAddress, Holders] = {}

    def put(self, group: IPAddress, holders: Holders) -> None:
        """Want the group there, and nowhere else. Doing it twice is as good as once."""
        if holders:
            self._filters[group] = holders
        else:
            self._filters.pop(group, None)

    def begin(self, group: IPAddress, attachments: Iterable[Attachment]) -> None:
        """Want a group, of which nothing is wanted yet, from all sources."""
        self._filters[group] = dict.fromkeys(attachments, _EVERYBODY)

    def join(self, group: IPAddress, source: IPAddress | None, attachments: Sequence[Attachment]) -> Revision:
        """Return what a membership changes. Raises MulticastExpertError where it would mean nothing good."""
        before = self._filters.get(group, {})
        after = dict(before)
        for attachment in attachments:
            held = before.get(attachment)
            if held is not None:
                self._check_join(group, source, attachment, held)
            if source is None:
                after[attachment] = _EVERYBODY
            else:
                sources = _NOBODY if held is None or held.sources is None else held.sources
                after[attachment] = SourceFilter(sources | {source})
        return Revision(group, before, after)

    def _check_join(
        self, group: IPAddress, source: IPAddress | None, attachment: Attachment, held: SourceFilter
    ) -> None:
        where = f"{group} on {attachment.name}"
        if held.sources is None and source is not None:
            raise MulticastExpertError(
                f"{where} is joined from all sources already; to join {source} too would narrow that to {source} "
                "alone. Leave the group first."
            )
        if held.sources is None or source in held.sources:
            raise MulticastExpertError(f"{where} is joined {'' if source is None else f'from {source} '}already.")
        if source is None:
            raise MulticastExpertError(
                f"{where} is joined from some sources only; leave the group before you join it from all."
            )

    def leave(
        self, group: IPAddress, source: IPAddress | None, attachments: Sequence[Attachment]
    ) -> tuple[Revision, list[Join]]:
        """Return what it changes to leave, and what the kernel has to leave; without a source the whole group.

        Raises MulticastExpertError for what was never joined that way.
        """
        before = self._filters.get(group, {})
        after = dict(before)
        left: list[Join] = []
        for attachment in attachments:
            held = before.get(attachment)
            if held is None or (source is not None and (held.sources is None or source not in held.sources)):
                whole = held is not None and held.sources is None
                hint = ": it is joined from all sources, so block_source() is what excludes one" if whole else ""
                who = "" if source is None else f" from {source}"
                raise NotJoinedError(f"{group}{who} is not joined on {attachment.name}{hint}.")
            sources = _listed(held) if source is None else (source,)
            rest = (held.sources or frozenset()).difference(sources)
            if rest:
                after[attachment] = SourceFilter(rest)
            else:
                after.pop(attachment, None)
            if attachment.present:
                left += [
                    Join(group, one, attachment.choice) for one in sources if not _is_shared(after, one, attachment)
                ]
        return Revision(group, before, after), left

    def block(
        self, group: IPAddress, source: IPAddress, attachments: Sequence[Attachment], blocked: bool
    ) -> tuple[Revision, list[tuple[Join, int]]]:
        """Return what it changes to block a source (or no longer), and what the kernel has to change.

        Each change comes with the number of sources that are blocked before it. Raises MulticastExpertError where the
        group is not joined from all sources, or nothing would change.
        """
        before = self._filters.get(group, {})
        after = dict(before)
        changes = []
        for attachment in attachments:
            where = f"{group} on {attachment.name}"
            held = before.get(attachment)
            if held is None:
                raise NotJoinedError(f"{where} is not joined.")
            if held.sources is not None:
                raise MulticastExpertError(
                    f"{where} is joined from some sources only; join and leave sources there instead of blocking them."
                )
            if (source in held.blocked) == blocked:
                raise MulticastExpertError(f"{source} is {'blocked already' if blocked else 'not blocked'} in {where}.")
            after[attachment] = SourceFilter(None, held.blocked ^ {source})
            if attachment.present and not any(source in after[other].blocked for other in _beside(attachment, after)):
                changes.append((Join(group, source, attachment.choice), len(held.blocked)))
        return Revision(group, before, after), changes

    def joins(self) -> list[Join]:
        """Return all memberships on interfaces that are there."""
        return [
            Join(group, source, holder.choice)
            for group, holders in self._filters.items()
            for holder, held in holders.items()
            if holder.present
            for source in _listed(held)
        ]

    def of(self, attachment: Attachment) -> list[Join]:
        """Return all memberships that are wanted on one interface."""
        return [Join(group, source, attachment.choice) for group, source, holder in self if holder is attachment]

    def sole(self, attachment: Attachment) -> list[Join]:
        """Return those that no other one on the same interface wants too."""
        return [
            join for join in self.of(attachment) if not _is_shared(self._filters[join.group], join.source, attachment)
        ]

    def blocked(self, attachment: Attachment | None = None) -> list[tuple[Join, int]]:
        """Return the blocked sources, on one interface or all that are there, each with the number before it."""
        return [
            (Join(group, source, holder.choice), count)
            for group, holders in self._filters.items()
            for holder, held in holders.items()
            if held.blocked and (holder is attachment or (attachment is None and holder.present))
            for count, source in enumerate(sorted(held.blocked, key=str))
            if not self._is_blocked_before(group, source, holder, attachment)
        ]

    def _is_blocked_before(
        self, group: IPAddress, source: IPAddress, holder: Attachment, only: Attachment | None
    ) -> bool:
        """Return whether it is blocked for another one on the same interface: for any, or for an earlier one."""
        holders = self._filters[group]
        others = [other for other in _beside(holder, holders) if source in holders[other].blocked]
        order = list(holders)
        return any(only is not None or order.index(other) < order.index(holder) for other in others)

    def extend(self, model: Attachment, fresh: Attachment) -> None:
        """Want on a new interface all that is wanted on another one."""
        for holders in self._filters.values():
            if model in holders:
                holders[fresh] = holders[model]

    def attachments(self, group: IPAddress) -> list[Attachment]:
        """Return the interfaces on which the group is wanted."""
        return list(self._filters.get(group, ()))

    def groups(self) -> list[IPAddress]:
        """Return the groups that are wanted anywhere, each once."""
        return list(self._filters)

    def __iter__(self) -> Iterator[tuple[IPAddress, IPAddress | None, Attachment]]:
        for group, holders in list(self._filters.items()):
            for attachment, held in list(holders.items()):
                for source in _listed(held):
                    yield group, source, attachment


def _listed(held: SourceFilter) -> Sequence[IPAddress | None]:
    """Return the source of each membership: one for each source, or a single one from all."""
    return (None,) if held.sources is None else sorted(held.sources, key=str)


def _is_shared(holders: Holders, source: IPAddress | None, attachment: Attachment) -> bool:
    """Return whether the same is wanted for another one that is on the same interface at this moment.

    That is so while an interface is a port of another one of the receiver's.
    """
    return any(
        held.sources is None if source is None else held.sources is not None and source in held.sources
        for held in map(holders.__getitem__, _beside(attachment, holders))
    )


def _beside(attachment: Attachment, holders: Holders) -> list[Attachment]:
    """Return the others that are on the same interface at this moment."""
    index = attachment.choice.iface.index
    return [
        other for other in holders if other is not attachment and other.present and other.choice.iface.index == index
    ]
