"""What this host does about streams: which programs have joined, and what the kernel drops. Linux and others."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from contextlib import suppress

from multicast_expert.cli.render.drops import Receivers, losses
from multicast_expert.cli.render.streams import Place
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.doctor.host.drops import named_drops
from multicast_expert.system.drops.running_kernel import kernel_symbols
from multicast_expert.system.drops.watch import Watch, open_watch
from multicast_expert.system.groups import group_members, joined_groups, udp_sockets
from multicast_expert.system.interfaces import scan_interfaces


def joined_here() -> Mapping[Place, Collection[str]] | None:
    """Return the names of the programs that have joined, by group and interface; None where the OS does not answer.

    A membership of a program that this user may not look into has no names.
    """
    found: dict[Place, set[str]] = defaultdict(set)
    try:
        groups = [each for each in joined_groups(()) if not each.kept_by_system]
        for each in groups:
            found[Place(str(each.group), each.interface)] = set()
        for member in group_members(udp_sockets(), groups) if groups else ():
            names = {process.name for process in member.socket.processes}
            for membership in member.memberships:
                found[Place(str(membership.group), membership.interface)] |= names
    except MulticastExpertError:
        return None
    return found


class KernelDrops:
    """What the kernel drops although a program expects it. Raises MulticastExpertError if the kernel does not tell."""

    def __init__(self) -> None:
        self._watch: Watch = open_watch()
        # The list of the kernel's functions is read once, and takes long: not when the first drop is told.
        with suppress(OSError):
            kernel_symbols()

    def read(self) -> Mapping[tuple[Place, int | None], int]:
        """Return the datagrams dropped so far, by group, interface and port; the port of fragments is not known."""
        names = {iface.index: iface.display_name for iface in scan_interfaces()}
        drops = named_drops(self._watch.drops(), names)
        counts: dict[tuple[Place, int | None], int] = defaultdict(int)
        for loss in losses(drops, _receivers(), asked=False) if drops else ():
            drop = loss.drop
            if loss.expected and drop.group is not None and drop.interface is not None:
                counts[Place(drop.group, drop.interface), drop.port] += drop.count
        return counts

    def close(self) -> None:
        """Stop counting."""
        self._watch.close()


def _receivers() -> Receivers:
    joined = frozenset(each.group for each in joined_groups(()) if not each.kept_by_system)
    return Receivers(joined, frozenset(each.port for each in udp_sockets(lambda _: True)), {})
