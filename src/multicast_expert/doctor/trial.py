"""The trial: joins as a receiver would, listens, and tells what happened. Touches the OS: joins and listens.

It runs in the thread that calls it and holds nothing when it is over, however it ends.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import ExitStack
from dataclasses import replace
from ipaddress import ip_address
from time import monotonic, sleep

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.counters import INTERFACE_COUNTERS, KERNEL_COUNTERS, growth
from multicast_expert.doctor.ear import Ear, Listening, Progress
from multicast_expert.doctor.facts import Buffer, Facts, Moment, Probe, Trial, Unread
from multicast_expert.doctor.host import Counters, Host
from multicast_expert.doctor.probe import Prober
from multicast_expert.wire.capture import Capture

BEFOREHAND = 0.4
"""Seconds for which the counters are watched before anything is joined."""
AFTERWARDS = (0.4, 1.0)
"""Seconds for which they are watched after we left, at least and at most."""
ENOUGH = 4
"""Packets at the pace of the trial that would come while we are not joined: their absence tells something."""
MOMENTS = 10
"""How often the counters are read in the course of the trial."""
ASTRAY = (
    "TcpExt.IPReversePathFilter", "IpExt.InMcastPkts", "IpExt.InCsumErrors", "Ip.ReasmReqds", "Udp.IgnoredMulti",
    "Udp.InCsumErrors", "Ip6.ReasmReqds", "Udp6.IgnoredMulti", "Udp6.InCsumErrors",
)  # fmt: skip
"""Counters that a datagram of the group would move and that its loss is read from."""
REVIVAL = 0.2
"""Seconds in which a stream has to begin again after a new join, beside two of its gaps.

A switch that had forgotten this host forwards at once; what comes later may be a sender that had paused.
"""


class Attempt:
    """The attempt to receive a group by these memberships."""

    def __init__(self, host: Host, settings: ReceiveSettings, group: IPAddress, joins: Sequence[Join]) -> None:
        self._host = host
        self._settings = settings
        self._group = group
        self._joins = joins
        self._at_first, self._began = host.counters(), monotonic()
        self._usual: dict[str, float] = {}
        self._aside = 0.0
        self._course: list[Moment] = []

    def watch_beforehand(self) -> None:
        """Note what is counted in a second without us, for instance since other groups are lost all the time."""
        # What was collected since this attempt was made took time, too.
        sleep(max(0.0, self._began + BEFOREHAND - monotonic()))
        self._usual = self._pace(self._at_first, self._began)

    def _pace(self, before: Counters, since: float) -> dict[str, float]:
        """Return by how much the counters grew in a second, and add to the time that was watched without us."""
        grown = _growth(before, self._host.counters()).kernel
        seconds = monotonic() - since
        self._aside += seconds
        return {name: by / seconds for name, by in grown.items() if by}

    def run(self, listen: float, facts: Facts, progress: Progress | None = None) -> Trial:
        """Try for so many seconds. `facts`: what was known before."""
        with ExitStack() as opened:
            capture = self._host.open_capture()
            # Where frames are seen, nobody has to ask the counters whose packets they counted.
            by_counters = isinstance(capture, Unread)
            before = self._host.counters()
            listening = Listening(self._noting(before, listen / MOMENTS, progress) if by_counters else progress)
            opened.callback(listening.close)
            if isinstance(capture, Capture):
                opened.callback(capture.close)
                for descriptor, drain in capture.drains():
                    listening.add([descriptor], drain)
            ears = self._listen(listen, listening, opened, self._blocked(facts))
            seconds = listening.clock()
            trial = self._outcome(seconds, ears, capture, _growth(before, self._host.counters()), facts)
            asked, revived = ears[0], None
            asked.drain()  # it may have begun again meanwhile, by itself
            if asked.has_stopped(listening.clock()) and not listening.stopped and not _is_member(facts):
                # Those who hold a membership are not heard joining again.
                for ear in ears:
                    ear.close()
                revived = self._revive(REVIVAL + 2 * asked.longest_gap)
            trial = replace(trial, course=tuple(self._course), revived=revived)
            if by_counters and not trial.arrivals and not _is_member(facts):
                for ear in ears:
                    ear.close()
                trial = replace(trial, afterwards=self._watch_afterwards(trial))
            return replace(trial, probes=self._probe(facts), usual=self._usual, aside=self._aside)

    def _noting(self, before: Counters, step: float, progress: Progress | None) -> Progress:
        """Return a progress that also notes how the counters grew, about every so many seconds."""

        def note(seconds: float, received: int) -> bool:
            if seconds >= (len(self._course) + 1) * step and len(self._course) < MOMENTS:
                grown = _growth(before, self._host.counters()).kernel
                self._course.append(Moment(seconds, {name: by for name, by in grown.items() if by}))
            return progress is None or progress(seconds, received)

        return note

    def _watch_afterwards(self, trial: Trial) -> dict[str, float] | None:
        """Return what is counted in a second now that we have left; None where nothing was lost that it could explain.

        What goes on without our membership was not lost to the target.
        """
        most = max(trial.counters.get(name, 0) for name in ASTRAY)
        if not most:
            return None
        shortest, longest = AFTERWARDS
        before, since = self._host.counters(), monotonic()
        sleep(min(longest, max(shortest, ENOUGH * trial.seconds / most - self._aside)))
        return self._pace(before, since)

    def _blocked(self, facts: Facts) -> list[Join]:
        """Return the sources that the receiver which is to be explained has blocked."""
        named = () if facts.receiver is None else facts.receiver.blocked
        return [
            join._replace(source=ip_address(source))
            for join in self._joins
            for group, source, interface in named
            if join.source is None and (group, interface) == (str(self._group), join.interface.iface.display_name)
        ]

    def _listen(self, listen: float, listening: Listening, opened: ExitStack, blocked: Sequence[Join]) -> list[Ear]:
        """Listen as asked; after half of the time, where nothing came, also to all sources on all interfaces."""
        asked = Ear(self._settings, True, listening.clock)
        opened.callback(asked.close)
        asked.join(self._joins)
        asked.block(blocked)
        listening.add(asked.filenos(), asked.drain)
        ears = [asked]
        listening.run(listen / 2, lambda: asked.received)
        if not asked.received and not listening.stopped:
            wider = Ear(self._settings, False, listening.clock)
            opened.callback(wider.close)
            wider.elder = asked
            wider.join(self._wider({join.interface.iface.index for join in blocked}))
            listening.add(wider.filenos(), wider.drain)
            ears.append(wider)
        listening.run(listen, lambda: asked.received)
        return ears

    def _wider(self, filtered: Collection[int]) -> list[Join]:
        """Return what is joined when nothing came: all sources, all interfaces that are up.

        filtered: the interfaces on which sources are blocked.
        """
        any_source = {join.interface.iface.index for join in self._joins if join.source is None}.difference(filtered)
        return [
            Join(self._group, None, InterfaceChoice(iface))
            for iface in self._host.scanned
            if iface.index not in any_source and (iface.is_up or iface.is_localhost())
        ]

    def _outcome(
        self, seconds: float, ears: Sequence[Ear], capture: Capture | Unread, grown: Counters, facts: Facts
    ) -> Trial:
        granted = ears[0].buffer()
        drops = [each.drops for each in ears]
        own = {inode for each in ears for inode in each.inodes()}
        sockets = self._host.sockets()
        return Trial(
            seconds,
            len(ears) > 1,
            tuple(ears[0].joins),
            tuple(arrived for each in ears for arrived in each.arrivals()),
            grown.kernel,
            grown.interfaces,
            capture if isinstance(capture, Unread) else capture.frames(),
            capture if isinstance(capture, Unread) else capture.queries(),
            (),
            None if None in drops else sum(each or 0 for each in drops),
            () if isinstance(sockets, Unread) else tuple(each for each in sockets if each.inode not in own),
            None
            if granted is None
            else Buffer(self._settings.receive_buffer or granted, granted, maximum_buffer(facts)),
        )

    def _probe(self, facts: Facts) -> tuple[Probe, ...]:
        taken = [] if isinstance(facts.sockets, Unread) else [each.port for each in facts.sockets]
        return Prober(self._settings, self._host.scanned).probe(self._group, self._joins, taken)

    def _revive(self, seconds: float) -> bool:
        """Join anew and return whether datagrams come within so many seconds."""
        with ExitStack() as opened:
            listening = Listening()
            opened.callback(listening.close)
            ear = Ear(self._settings, True, listening.clock)
            opened.callback(ear.close)
            ear.join(self._joins)
            listening.add(ear.filenos(), ear.drain)
            while not ear.received and (left := seconds - listening.clock()) > 0:
                listening.look(left)
            return bool(ear.received)


def _growth(before: Counters, after: Counters) -> Counters:
    return Counters(
        growth(before.kernel, after.kernel, KERNEL_COUNTERS),
        {
            name: growth(before.interfaces.get(name, {}), counted, INTERFACE_COUNTERS)
            for name, counted in after.interfaces.items()
        },
    )


def _is_member(facts: Facts) -> bool:
    """Whether anybody on this host had joined the group before the trial."""
    if isinstance(facts.memberships, Unread):
        return True
    return any(str(joined.group) == facts.target.group for joined in facts.memberships)


def maximum_buffer(facts: Facts) -> int | Unread | None:
    """Return the largest receive buffer that the kernel grants, in bytes."""
    value = facts.settings.get("net.core.rmem_max")
    if isinstance(value, str):
        return int(value) if value.isdigit() else None
    return value
