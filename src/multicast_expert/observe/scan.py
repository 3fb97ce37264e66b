"""One look at the network: by a packet socket, or by joining where there is none, or by both."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from time import monotonic

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.interfaces import IfaceInfo
from multicast_expert.observe.clock import Clock
from multicast_expert.observe.found import Found
from multicast_expert.observe.joining import PORTS, Memberships, Ports
from multicast_expert.observe.look import KEEP, MOST_QUERIERS, Look
from multicast_expert.observe.members import LIMIT
from multicast_expert.observe.source import FrameSource
from multicast_expert.observe.streams import Stream, Streams
from multicast_expert.system.interfaces import choose_for_receiving

BUFFER = 32 << 20
"""Bytes for frames that wait: a third of a second at 1 Gbit/s."""
_PATIENCE = 0.5


def scan(
    ifaces: Sequence[str] | None,
    seconds: float,
    groups: Sequence[IPAddress] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> Found:
    """Return what a packet socket sees; it joins `groups` so that switches and routers send them here, else nothing.

    It ends after so many seconds, or soon after `stopped` returns True.
    Raises MulticastOSError without the privilege, UnknownInterfaceError, or MulticastExpertError on other systems.
    """
    with ExitStack() as opened:
        source = opened.enter_context(
            closing(FrameSource(ifaces, udp=True, keep=KEEP, buffer=BUFFER, ring=BUFFER, all_groups=True))
        )
        if groups:
            opened.enter_context(closing(Memberships(groups, _to_join(ifaces, groups))))
        look, start = Look(source), monotonic()
        while (left := start + seconds - monotonic()) > 0 and not stopped():
            source.wait(min(left, _PATIENCE))
            look.take()
            look.tick()
        while look.take() and monotonic() < start + seconds + _PATIENCE:
            pass
        lost = source.lost()
        names = [each.display_name for each in source.interfaces]
        now = look.clock.now()
    limits = [*forgotten(look)]
    limits += [f"{lost:,} frames came faster than they were read."] if lost else []
    interfaces = source.interfaces
    own = {str(each.ip).partition("%")[0] for iface in interfaces for each in iface.ip4_addrs}
    own |= {str(each.ip).partition("%")[0] for iface in interfaces for each in iface.ip6_addrs}
    joined = {str(group) for group in groups}
    members = [each for each in look.members() if each.host not in own or each.group not in joined]
    return Found(
        monotonic() - start, now, names, _sorted(look.streams, now), look.queriers(), members, len(groups), limits
    )


def scan_by_joining(
    ifaces: Sequence[str] | None,
    seconds: float,
    groups: Sequence[IPAddress],
    ports: Collection[int] = PORTS,
    stopped: Callable[[], bool] = lambda: False,
) -> Found:
    """Return what sockets of the `ports` receive after joining the groups. It needs no privilege, and Linux.

    It ends after so many seconds, or soon after `stopped` returns True.
    Raises MulticastOSError, UnknownInterfaceError, or MulticastExpertError.
    """
    clock, streams = Clock(), Streams()
    chosen = _to_join(ifaces, groups)
    versions = {group.version for group in groups}
    start = monotonic()
    with closing(Ports(ports, versions, chosen, streams, clock)) as opened, closing(Memberships(groups, chosen)):
        opened.run(seconds, stopped)
        unseen, heard, missing = opened.unseen(), opened.heard, opened.missing
    limits = [f"Without a packet socket, only the ports {_list(heard)} were heard."]
    if missing:
        limits.append(f"This user, or another program, does not allow the ports {_list(missing)}.")
    if unseen:
        limits.append(f"{unseen:,} datagrams came to other ports of joined groups: name the ports, or scan as root.")
    names = [each.display_name for each in chosen]
    now = clock.now()
    return Found(
        monotonic() - start, now, names, _sorted(streams, now), joined_groups=len(groups),
        limits=[*limits, *_forgotten_streams(streams)],
    )  # fmt: skip


def _to_join(ifaces: Sequence[str] | None, groups: Sequence[IPAddress]) -> list[IfaceInfo]:
    versions = {group.version for group in groups}
    found = {
        choice.iface.index: choice.iface
        for version in sorted(versions)
        for choice in choose_for_receiving(ifaces, version, allow_missing=len(versions) > 1)
    }
    return list(found.values())


def _sorted(streams: Streams, now: float) -> list[Stream]:
    found = streams.streams(now)
    return sorted(found, key=lambda each: (":" in each.group, len(each.group), each.group, each.port, each.source))


def forgotten(look: Look) -> Iterator[str]:
    """Yield in sentences what a look had no room for."""
    yield from _forgotten_streams(look.streams)
    if look.links.refused:
        yield f"{look.links.refused:,} reports found no room: each link has it for {LIMIT:,} memberships and sources."
    if look.links.ignored:
        yield f"{look.links.ignored:,} messages of hosts and queriers were ignored: they were of too many VLANs."
    if look.unnoted:
        yield f"{look.unnoted:,} queries came from more hosts than the {MOST_QUERIERS:,} that are followed."


def _forgotten_streams(streams: Streams) -> Iterator[str]:
    if streams.unfollowed:
        yield f"{streams.unfollowed:,} datagrams belong to more streams than the {streams.limit:,} that are followed."
    if streams.forgotten:
        yield f"{streams.forgotten:,} streams were forgotten: they were silent when others needed their room."


def _list(ports: Collection[int]) -> str:
    return ", ".join(map(str, sorted(ports)))
