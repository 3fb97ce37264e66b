"""Which groups hosts have joined at this moment: the hosts of the network, by IGMP and MLD, and this one."""

from __future__ import annotations

import threading
from collections.abc import Collection, Sequence
from contextlib import suppress
from time import monotonic

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.observe.messages import Watch
from multicast_expert.observe.source import FrameSource
from multicast_expert.system.groups import joined_groups

_STEP = 0.2
_OWN_EVERY = 1.0
"""Seconds between two looks at what this host has joined."""


class Members:
    """Follows the members of groups in a thread; raises as FrameSource does.

    ifaces: the interfaces that members count on; None: all. groups: those that `has_any` is about; empty: any group.
    """

    def __init__(self, ifaces: Sequence[str] | None, groups: Collection[str] = ()) -> None:
        self._source = FrameSource(ifaces)
        self._names = None if ifaces is None else {each.machine_name for each in self._source.interfaces}
        self._groups = frozenset(groups)
        self._own: frozenset[str] = frozenset()
        self._joined: frozenset[str] = frozenset()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="members", daemon=True)
        self._thread.start()

    def has(self, group: str) -> bool:
        """Return whether a host has joined the group."""
        return group in self._joined

    def has_any(self) -> bool:
        """Return whether a host has joined one of the groups."""
        return not self._joined.isdisjoint(self._groups) if self._groups else bool(self._joined)

    def close(self) -> None:
        """Stop following."""
        self._closed.set()
        self._thread.join()
        self._source.close()

    def _run(self) -> None:
        watch, looked = Watch(self._source), 0.0
        while not self._closed.is_set():
            if monotonic() >= looked + _OWN_EVERY:
                looked = monotonic()
                with suppress(MulticastExpertError):
                    self._own = frozenset(
                        str(each.group)
                        for each in joined_groups(())
                        if not each.kept_by_system and (self._names is None or each.interface in self._names)
                    )
            others = {group for link in watch.links.known.values() for group, _ in link.members}
            self._joined = self._own | others
            watch.step(_STEP)
