"""How an OS reports that interfaces were deleted or lost IPv6: by netlink on Linux, elsewhere by looking repeatedly."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from time import monotonic
from types import MappingProxyType
from typing import NamedTuple, Protocol

from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.system import netlink

POLL_INTERVAL = 0.5
"""Seconds between two looks on a system that does not wake us."""
MIN_IPV6_MTU = 1280
"""Below it, Linux removes IPv6 and all its memberships from the interface (RFC 8200, 5)."""
# The multicast groups of rtnetlink(7) for links, IPv4 and IPv6 addresses.
_RTMGRP = 0x1 | 0x10 | 0x100


class Changes(NamedTuple):
    """The interfaces, by index, that changed since the last look."""

    deleted: frozenset[int] = frozenset()
    """Deleted, though there may be another one of the same index now."""
    without_ipv6: frozenset[int] = frozenset()
    """Lost IPv6, though it may be back."""
    everything: bool = False
    """Reports were lost: each interface may have been deleted and may be back."""
    names: Mapping[int, str] = MappingProxyType({})
    """The names that deleted ones had at last, as far as the OS says."""

    def and_then(self, later: Changes) -> Changes:
        """Return these changes and later ones together."""
        return Changes(
            self.deleted | later.deleted,
            self.without_ipv6 | later.without_ipv6,
            self.everything or later.everything,
            {**self.names, **later.names},
        )

    def among(self, ifaces: Iterable[IfaceInfo]) -> Changes:
        """Return the changes with the indexes of `ifaces`, the interfaces of now, in place of `everything`."""
        if not self.everything:
            return self
        every = frozenset(iface.index for iface in ifaces)
        return Changes(self.deleted | every, self.without_ipv6 | every, names=self.names)


class Events(Protocol):
    """A source of changes. The thread that waits owns it: no other thread may call its methods."""

    interval: float | None
    """Seconds until the next look is due; None: `fileno` becomes readable when something changed."""

    def fileno(self) -> int:
        """Return the descriptor to wait for, -1 for a source without one."""

    def take(self) -> Changes | None:
        """Return the changes since the last call, None without any; it never waits."""

    def close(self) -> None:
        """Close the descriptor."""


def parse_link_events(messages: bytes) -> Changes:
    """Return the deleted interfaces and those without IPv6 in rtnetlink messages; a cut message ends the list."""
    deleted: dict[int, str] = {}
    without_ipv6 = set()
    for message in netlink.messages(messages):
        # Families other than 0 report that a bridge port left its bridge, not a change of the interface itself.
        if message.kind not in (netlink.RTM_NEWLINK, netlink.RTM_DELLINK) or message.body[:1] != b"\0":
            continue
        link = netlink.parse_link(message.body)
        if link is None:
            continue
        if message.kind == netlink.RTM_DELLINK:
            deleted[link.number] = link.name
        elif link.mtu is not None and link.mtu < MIN_IPV6_MTU:
            without_ipv6.add(link.number)
    return Changes(frozenset(deleted), frozenset(without_ipv6), names=deleted)


class NetlinkEvents:
    """Changes as Linux reports them (rtnetlink(7)); needs no privilege."""

    interval: float | None = None

    def __init__(self) -> None:
        self._socket = socket.socket(netlink.AF_NETLINK, socket.SOCK_RAW, 0)
        try:
            self._socket.setblocking(False)
            self._socket.bind((0, _RTMGRP))
        except OSError:
            self._socket.close()
            raise

    def fileno(self) -> int:
        """Return the descriptor of the netlink socket."""
        return self._socket.fileno()

    def take(self) -> Changes | None:
        """Return what changed since the last call."""
        changes = None
        with suppress(BlockingIOError):
            while True:
                changes = (changes or Changes()).and_then(self._read())
        return changes

    def _read(self) -> Changes:
        try:
            return parse_link_events(self._socket.recv(262144))
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            # The queue of the socket overflowed.
            return Changes(everything=True)

    def close(self) -> None:
        """Close the netlink socket."""
        self._socket.close()


class PolledEvents:
    """Changes found by comparing two looks: a new interface of the same index in between stays unseen."""

    def __init__(self, look: Callable[[], list[IfaceInfo]]) -> None:
        self.interval: float | None = POLL_INTERVAL
        self._look = look
        self._seen = {iface.index: iface for iface in look()}
        self._looked_at = monotonic()

    def fileno(self) -> int:
        """Return -1: there is nothing to wait for."""
        return -1

    def take(self) -> Changes | None:
        """Look at the interfaces if it is time, and return what changed since the last look."""
        if monotonic() < self._looked_at + POLL_INTERVAL:
            return None
        self._looked_at = monotonic()
        now = {iface.index: iface for iface in self._look()}
        before, self._seen = self._seen, now
        if now == before:
            return None
        shrunk = [index for index, iface in now.items() if iface.mtu is not None and iface.mtu < MIN_IPV6_MTU]
        return Changes(frozenset(before.keys() - now.keys()), frozenset(shrunk))

    def close(self) -> None:
        """Do nothing: it holds no descriptor."""
