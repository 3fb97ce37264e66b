"""The memberships that a receiver was asked for, and the rules that keep them meaningful. Pure: touches no OS.

The kernels accept much that silently delivers nothing, or less than before; what they would not say is refused here.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import InterfaceChoice, missing_interface
from multicast_expert.core.plan import Join

_ANY = (None,)


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


class SourceFilter:
    """From whom a group is wanted on one interface."""

    __slots__ = ("blocked", "sources")

    def __init__(self, sources: set[IPAddress] | None = None, blocked: Iterable[IPAddress] = ()) -> None:
        self.sources: set[IPAddress] | None = sources
        """Only these (include mode); None: from anyone but `blocked` (exclude mode)."""
        self.blocked: set[IPAddress] = set(blocked)


class Memberships:
    """Which groups are wanted from whom on which interfaces. Every change is checked whole before any of it is made."""

    def __init__(self) -> None:
        self._filters: dict[IPAddress, dict[Attachment, SourceFilter]] = {}

    def _held(self, group: IPAddress, attachment: Attachment) -> SourceFilter | None:
        return self._filters.get(group, {}).get(attachment)

    def join(self, group: IPAddress, source: IPAddress | None, attachments: Sequence[Attachment]) -> None:
        """Note a membership. Raises MulticastExpertError where it would mean nothing good."""
        wanted = self._filters.get(group, {})
        for attachment in attachments:
            if attachment in wanted:
                self._check_join(group, source, attachment, wanted[attachment])
        self._filters[group] = wanted
        for attachment in attachments:
            if source is None:
                wanted[attachment] = SourceFilter()
            elif (held := wanted.setdefault(attachment, SourceFilter(set()))).sources is not None:
                held.sources.add(source)

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

    def leave(self, group: IPAddress, source: IPAddress | None, attachments: Sequence[Attachment]) -> list[Join]:
        """Forget a membership and return what to leave; without a source the whole group.

        Raises MulticastExpertError for what was never joined that way.
        """
        for attachment in attachments:
            held = self._held(group, attachment)
            if held is None or (source is not None and (held.sources is None or source not in held.sources)):
                whole = held is not None and held.sources is None
                hint = ": it is joined from all sources, so block_source() is what excludes one" if whole else ""
                who = "" if source is None else f" from {source}"
                raise MulticastExpertError(f"{group}{who} is not joined on {attachment.name}{hint}.")
        left: list[Join] = []
        for attachment in attachments:
            left += self._leave_one(group, source, attachment)
        return left

    def _leave_one(self, group: IPAddress, source: IPAddress | None, attachment: Attachment) -> list[Join]:
        held = self._filters[group][attachment]
        sources: set[IPAddress | None] = {None} if held.sources is None else set(held.sources)
        if source is not None and held.sources is not None:
            sources = {source}
            held.sources.discard(source)
        if source is None or not held.sources:
            del self._filters[group][attachment]
            if not self._filters[group]:
                del self._filters[group]
        if not attachment.present:
            return []
        return [
            Join(group, one, attachment.choice)
            for one in sorted(sources, key=str)
            if not self._is_shared(group, one, attachment)
        ]

    def _is_shared(self, group: IPAddress, source: IPAddress | None, attachment: Attachment) -> bool:
        """Return whether the same is wanted for another one that is on the same interface at this moment.

        That is so while an interface is a port of another one of the receiver's.
        """
        index = attachment.choice.iface.index
        return any(
            other is not attachment
            and other.present
            and other.choice.iface.index == index
            and (held.sources is None if source is None else held.sources is not None and source in held.sources)
            for other, held in self._filters.get(group, {}).items()
        )

    def block(
        self, group: IPAddress, source: IPAddress, attachments: Sequence[Attachment], blocked: bool
    ) -> list[tuple[Join, int]]:
        """Note that a source is blocked (or no longer) and return what to change, with the number of blocked ones.

        Raises MulticastExpertError where the group is not joined from all sources, or nothing would change.
        """
        for attachment in attachments:
            where = f"{group} on {attachment.name}"
            held = self._held(group, attachment)
            if held is None:
                raise MulticastExpertError(f"{where} is not joined.")
            if held.sources is not None:
                raise MulticastExpertError(
                    f"{where} is joined from some sources only; join and leave sources there instead of blocking them."
                )
            if (source in held.blocked) == blocked:
                raise MulticastExpertError(f"{source} is {'blocked already' if blocked else 'not blocked'} in {where}.")
        changes = []
        for attachment in attachments:
            held = self._filters[group][attachment]
            if attachment.present:
                changes.append((Join(group, source, attachment.choice), len(held.blocked)))
            (held.blocked.add if blocked else held.blocked.discard)(source)
        return changes

    def joins(self) -> list[Join]:
        """Return all memberships on interfaces that are there."""
        return [
            Join(group, source, holder.choice)
            for group, holders in self._filters.items()
            for holder, held in holders.items()
            if holder.present
            for source in (_ANY if held.sources is None else sorted(held.sources, key=str))
        ]

    def of(self, attachment: Attachment) -> list[Join]:
        """Return all memberships that are wanted on one interface."""
        return [Join(group, source, attachment.choice) for group, source, holder in self if holder is attachment]

    def sole(self, attachment: Attachment) -> list[Join]:
        """Return those that no other one on the same interface wants too."""
        return [join for join in self.of(attachment) if not self._is_shared(join.group, join.source, attachment)]

    def blocked(self, attachment: Attachment | None = None) -> list[tuple[Join, int]]:
        """Return the blocked sources, on one interface or all that are there, each with the number before it."""
        return [
            (Join(group, source, holder.choice), count)
            for group, holders in self._filters.items()
            for holder, held in holders.items()
            if held.blocked and (holder is attachment or (attachment is None and holder.present))
            for count, source in enumerate(sorted(held.blocked, key=str))
        ]

    def extend(self, model: Attachment, fresh: Attachment) -> None:
        """Want on a new interface all that is wanted on another one."""
        for holders in self._filters.values():
            if model in holders:
                held = holders[model]
                holders[fresh] = SourceFilter(None if held.sources is None else set(held.sources), held.blocked)

    def attachments(self, group: IPAddress) -> list[Attachment]:
        """Return the interfaces on which the group is wanted."""
        return list(self._filters.get(group, ()))

    def groups(self) -> list[IPAddress]:
        """Return the groups that are wanted anywhere, each once."""
        return list(self._filters)

    def __iter__(self) -> Iterator[tuple[IPAddress, IPAddress | None, Attachment]]:
        for group, holders in list(self._filters.items()):
            for attachment, held in list(holders.items()):
                for source in _ANY if held.sources is None else sorted(held.sources, key=str):
                    yield group, source, attachment
