"""What this network has and wants, as it is on the wire: members of groups, and datagrams. Linux, as root.

Two threads read frames. One follows IGMP and MLD, so that the bridge wants what hosts here have joined, and asks the
kernel what programs of its own host have. The other looks for datagrams of groups that other sites want without naming
a port; it hands over the first ones, until a carrier receives their port by itself.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from ipaddress import ip_address
from struct import unpack_from
from time import monotonic
from typing import NamedTuple

from multicast_expert.bridge.frames import Origin
from multicast_expert.bridge.interest import Group, Wish
from multicast_expert.core.addresses import IPAddress, address_text
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.observe.links import Links
from multicast_expert.observe.messages import Watch
from multicast_expert.observe.source import FrameSource
from multicast_expert.sockets.both_ways import McastSocket
from multicast_expert.sockets.subscriptions import Membership
from multicast_expert.system.groups import group_members, joined_groups, udp_sockets
from multicast_expert.system.interfaces import scan_interfaces
from multicast_expert.wire.frame import Frame
from multicast_expert.wire.udp_place import udp_place

GLANCE = 0.25
"""Seconds between two looks at what else has changed."""
RING = 4 << 20
ANY_PORT = 0
_UDP_HEADER = 8


class Found(NamedTuple):
    """A datagram that was seen on the wire."""

    group: Group
    origin: Origin
    timestamp_ns: int | None
    payload: bytes


class Surroundings:
    """Follows a network until it is closed.

    wants: called with what hosts here want, whenever that changes. found: called with datagrams of groups that `seek`
    named, at ports that it did not know. bridges: returns the addresses of other bridges on this network: they join
    what they take, and no host needs that. Raises MulticastExpertError without the privilege.
    """

    def __init__(
        self,
        ifaces: Sequence[str] | None,
        wants: Callable[[Collection[Wish]], None],
        found: Callable[[Sequence[Found]], None],
        bridges: Callable[[], Collection[str]],
    ) -> None:
        self._wants, self._found, self._bridges, self._ifaces = wants, found, bridges, ifaces
        self._closed = threading.Event()
        self._sought: frozenset[bytes] = frozenset()
        self._known: Collection[Group] = ()
        self._joiners: dict[int, McastSocket] = {}
        self._joined: dict[IPAddress, Membership] = {}
        self._messages = FrameSource(ifaces)
        try:
            self._datagrams = FrameSource(ifaces, udp=True, ring=RING)
        except BaseException:
            self._messages.close()
            raise
        self._threads = [
            threading.Thread(target=work, name="mcast-bridge-surroundings", daemon=True)
            for work in (self._follow, self._search)
        ]
        for thread in self._threads:
            thread.start()

    def seek(self, groups: Collection[IPAddress], known: Collection[Group]) -> None:
        """Join these groups and look for their datagrams, except at the ports that are known."""
        for group in [each for each in self._joined if each not in groups]:
            with suppress(MulticastExpertError):
                self._joined.pop(group).leave()
        for group in groups:
            if group not in self._joined:
                self._joined[group] = self._joiner(group.version).join_group(group)
        self._known = frozenset(known)
        self._sought = frozenset(each.packed for each in groups)

    def _joiner(self, version: int) -> McastSocket:
        if version not in self._joiners:
            family = socket.AF_INET if version == 4 else socket.AF_INET6
            made = McastSocket(family, (), 0, ifaces=self._ifaces, unicast=False, allow_missing=True)
            self._joiners[version] = made.open()
        return self._joiners[version]

    def _follow(self) -> None:
        watch, before, due = Watch(self._messages), set[Wish](), 0.0
        own, here = set[str](), set[Wish]()
        while not self._closed.is_set():
            happened = watch.step(GLANCE)
            if not happened and monotonic() < due:
                continue
            due = monotonic() + 2.0
            names = {each.machine_name for each in self._messages.interfaces if not each.is_localhost()}
            loopbacks = {each.machine_name for each in self._messages.interfaces} - names
            # Where the OS does not answer, because there is no descriptor left, say, what was known stays.
            with suppress(MulticastExpertError):
                own = set(_own_addresses())
                here = wishes_here(names)
            bridges = self._bridges()
            # A bridge may run beside this one, and what it joins is not what a program here wants.
            wishes = wishes_of(watch.links, {*bridges, *own}, loopbacks) | (here if own.isdisjoint(bridges) else set())
            if own and wishes != before:
                before = wishes
                with suppress(MulticastExpertError):
                    self._wants(wishes)

    def _search(self) -> None:
        source = self._datagrams
        while not self._closed.is_set():
            if not self._sought:
                # Nothing is looked for; what came meanwhile is of no interest then.
                self._closed.wait(GLANCE / 10)
                while source.take(4096):
                    pass
                continue
            source.wait(GLANCE)
            found = [each for frame in source.take(4096) if (each := self._read(frame))]
            if found:
                self._found(found)

    def _read(self, frame: Frame) -> Found | None:
        """Return the datagram of a frame, if it is one that is looked for."""
        packet = frame.packet
        place = None if frame.outgoing or frame.vlan is not None else udp_place(packet)
        if place is None or place.group not in self._sought:
            return None
        sender_port, port, length = unpack_from("!HHH", packet, place.start)
        group = Group(ip_address(place.group), port)
        if group in self._known or not port:
            return None
        payload = packet[place.start + _UDP_HEADER : place.start + length]
        whole = payload if len(payload) == length - _UDP_HEADER else b""
        origin = Origin(address_text(place.source), sender_port, place.hop_limit, place.traffic_class >> 2)
        return Found(group, origin, frame.timestamp_ns, whole)

    def close(self) -> None:
        """Follow nothing any more."""
        self._closed.set()
        for thread in self._threads:
            thread.join(5.0)
        self._messages.close()
        self._datagrams.close()
        for each in self._joiners.values():
            each.close()


def _own_addresses() -> Iterable[str]:
    return (
        str(each.ip).partition("%")[0] for iface in scan_interfaces() for v in (4, 6) for each in iface.addresses(v)
    )


def wishes_here(interfaces: Collection[str]) -> set[Wish]:
    """Return what other programs of this host have joined on these interfaces, each on the port of its socket.

    Raises MulticastExpertError.
    """
    joined = [each for each in joined_groups(()) if not each.kept_by_system and each.interface in interfaces]
    return {
        Wish(Group(membership.group, member.socket.port), source)
        for member in (group_members(udp_sockets(), joined) if joined else ())
        for membership in member.memberships
        for source in (membership.sources if membership.includes else (None,))
    }


def wishes_of(links: Links, without: Collection[str], loopbacks: Collection[str]) -> set[Wish]:
    """Return what the hosts want, but for these: any port of a group, from some sources or from all.

    What a program has joined on a loopback interface, it wants from this host only.
    """
    found: dict[IPAddress, set[IPAddress | None]] = {}
    for (interface, _), link in links.known.items():
        for (group, host), member in link.members.items():
            if host not in without and interface not in loopbacks:
                sources: set[IPAddress | None] = {ip_address(each) for each in member.sources}
                found.setdefault(ip_address(group), set()).update(sources if member.includes else {None})
    return {
        Wish(Group(group, ANY_PORT), source)
        for group, sources in found.items()
        for source in ({None} if None in sources else sources)
    }
