"""A source of frames: multicast of chosen interfaces as it is on the wire. It joins nothing and sends nothing.

Linux, with CAP_NET_RAW. Interfaces that appear later, or that appear again under a chosen name, are taken in.
"""

from __future__ import annotations

import selectors
from collections.abc import Sequence

from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.system import kernel
from multicast_expert.system.interfaces import find_interfaces, scan_interfaces
from multicast_expert.system.kernel import os_error
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.packet_filter import INTERFACES, traffic_filter
from multicast_expert.wire.packet_socket import FrameSocket

WHOLE = 0x40000
"""More bytes than any frame has."""
# poll(2) has no limit of descriptors and needs none of its own; it waits no longer than 2^31 ms.
_Selector: type[selectors.BaseSelector] = getattr(selectors, "PollSelector", selectors.SelectSelector)
_LONGEST_WAIT = 86400.0
_NOWHERE = 0
"""The index of no interface."""


class FrameSource:
    """Frames with IGMP and MLD and, with `udp`, datagrams to all groups.

    One thread may use it, in the network namespace that it was made in.

    ifaces: the interfaces by any name; None for all of them. A chosen interface is followed by its machine name.
    keep: how many bytes of a frame are kept; the length on the wire is known nevertheless.
    ring: bytes of a ring that frames wait in instead of in the socket's `buffer`; each costs less then.
    all_groups: let network cards pass all groups (IFF_ALLMULTI) instead of those that this host has joined. This
    changes the cards' filters until `close`, and still joins nothing.
    Raises MulticastOSError without the privilege, UnknownInterfaceError, or MulticastExpertError on other systems.
    """

    def __init__(
        self,
        ifaces: Sequence[str] | None = None,
        *,
        udp: bool = False,
        keep: int = WHOLE,
        buffer: int | None = None,
        ring: int | None = None,
        all_groups: bool = False,
    ) -> None:
        if kernel.SYSTEM.platform.name != "linux":
            raise MulticastExpertError("This system has no packet sockets. Use a Linux host of the same network.")
        self._names = None if ifaces is None else {each.machine_name for each in find_interfaces(ifaces)}
        self._udp, self._keep, self._all_groups = udp, keep, all_groups
        self.interfaces: list[IfaceInfo] = []
        """The interfaces that frames come from now."""
        try:
            self._events = kernel.SYSTEM.change_events()
            try:
                self._frames = FrameSocket(traffic_filter(udp=udp, interfaces=(_NOWHERE,)), buffer=buffer, ring=ring)
            except BaseException:
                self._events.close()
                raise
        except OSError as error:
            raise os_error(kernel.SYSTEM, error, "capture", "see the frames of the wire") from error
        try:
            self._look()
        except BaseException:
            self.close()
            raise

    def filenos(self) -> tuple[int, int]:
        """Return the descriptors of which either is readable while `take` has something to do."""
        return self._frames.fileno(), self._events.fileno()

    def wait(self, timeout: float | None, *others: int) -> list[int]:
        """Wait so many seconds for frames, or for one of `others` to be readable; return what is readable."""
        with _Selector() as selector:
            for descriptor in (*self.filenos(), *others):
                selector.register(descriptor, selectors.EVENT_READ)
            return [key.fd for key, _ in selector.select(None if timeout is None else min(timeout, _LONGEST_WAIT))]

    def take(self, limit: int = 256) -> list[Frame]:
        """Return up to `limit` frames that wait, and take new interfaces in; it never blocks."""
        if self._events.take() is not None:
            self._look()
        return self._frames.take(limit)

    def lost(self) -> int:
        """Return how many frames came faster than they were taken."""
        return self._frames.lost()

    def close(self) -> None:
        """Close the sockets; the network cards pass what they passed before."""
        self._frames.close()
        self._events.close()

    def _look(self) -> None:
        """Listen to the chosen interfaces that are there now."""
        before = {each.index for each in self.interfaces}
        found = [each for each in scan_interfaces() if self._names is None or each.machine_name in self._names]
        self.interfaces = found
        indexes = {each.index for each in found} if self._names is not None else set[int]()
        if self._names is not None and not indexes:
            indexes = {_NOWHERE}
        if len(indexes) > INTERFACES:
            raise MulticastExpertError(f"{len(indexes)} interfaces are more than {INTERFACES}: choose fewer, or all.")
        self._frames.filter(traffic_filter(udp=self._udp, interfaces=sorted(indexes), keep=self._keep))
        if self._all_groups:
            for each in found:
                if each.index not in before:
                    self._frames.pass_all_groups(each.index)
