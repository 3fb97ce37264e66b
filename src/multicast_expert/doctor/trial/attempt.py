"""The trial: joins like a receiver, listens, and returns what happened. Touches the OS: joins, listens, sends a probe.

It runs in the thread that calls it and leaves nothing open, however it ends.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import replace
from ipaddress import ip_address
from time import monotonic, sleep

from multicast_expert.core.addresses import IPAddress
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.facts import (
    Buffer,
    Facts,
    FilterFacts,
    Moment,
    Passage,
    Probe,
    QueueFacts,
    Trial,
    Unread,
)
from multicast_expert.doctor.host.any_os import Counters, Host
from multicast_expert.doctor.trial.arrivals import CountingReceiver
from multicast_expert.doctor.trial.probe import probe
from multicast_expert.doctor.trial.receiver import Listening, Progress
from multicast_expert.doctor.trial.site_bridges import hear_bridges
from multicast_expert.system.drops.lookups import LookupWatch
from multicast_expert.system.drops.sends import SendWatch
from multicast_expert.system.drops.watch import Watch
from multicast_expert.wire.capture import Capture

BEFOREHAND = 0.4
"""Seconds for which the counters are watched before the join."""
AFTERWARDS = (0.4, 1.0)
"""Seconds for which the counters are watched after the leave, at least and at most."""
ENOUGH = 4
"""Packets that would come without our membership at the pace of the trial: so many missing ones prove something."""
MOMENTS = 10
"""How often the counters are read during the trial."""
ASTRAY = (
    "TcpExt.IPReversePathFilter", "IpExt.InMcastPkts", "IpExt.InCsumErrors", "Ip.ReasmReqds", "Udp.IgnoredMulti",
    "Udp.InCsumErrors", "Ip6.ReasmReqds", "Udp6.IgnoredMulti", "Udp6.InCsumErrors",
)  # fmt: skip
"""Counters that a datagram of the group moves, and that show its loss."""
SENDERS = 32
"""For how many senders the routing is asked."""
_SOME_NEIGHBOUR = "fe80::2"
"""Stands for a sender that is not known, where routes are asked for."""
REVIVAL = 0.2
"""Seconds, beside two of its gaps, in which a stream must begin again after a new join.

A switch that had forgotten this host forwards at once; a later start may be a sender that had paused.
"""


class Attempt:
    """The attempt to receive a group with these memberships."""

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
        """Measure the usual growth of the counters; other groups may lose datagrams all the time."""
        # Collecting facts since this attempt began took time, too.
        sleep(max(0.0, self._began + BEFOREHAND - monotonic()))
        self._usual = self._pace(self._at_first, self._began)

    def _pace(self, before: Counters, since: float) -> dict[str, float]:
        """Return the growth of the counters per second, and count the time as watched without our membership."""
        grown = self._host.counters().since(before).kernel
        seconds = monotonic() - since
        self._aside += seconds
        return {name: by / seconds for name, by in grown.items() if by}

    def run(self, listen: float, facts: Facts, progress: Progress | None = None) -> Trial:
        """Try for so many seconds; `facts`: those from before the trial. Raises OSError if it cannot open a socket."""
        with ExitStack() as opened:
            # Before the capture, because it takes longer: what was captured shall have a verdict.
            watch = self._host.open_drop_watch()
            if not isinstance(watch, Unread):
                opened.callback(watch.close)
            lookups = self._host.open_counting_watch(LookupWatch)
            if not isinstance(lookups, Unread):
                opened.callback(lookups.close)
            sends = self._host.open_counting_watch(SendWatch)
            if not isinstance(sends, Unread):
                opened.callback(sends.close)
            capture = self._host.open_capture()
            if isinstance(capture, Capture):
                opened.callback(capture.close)
            # If the frames are known, the counters need not tell whose packets they counted.
            by_counters = isinstance(capture, Unread)
            before, queues, filters = self._host.counters(), self._host.queues(), self._host.filters()
            progress = self._noting(before, listen / MOMENTS, progress) if by_counters else progress
            listening = opened.enter_context(closing(Listening(progress)))
            if isinstance(capture, Capture):
                for descriptor, drain in capture.drains():
                    listening.add([descriptor], drain)
            receivers = self._listen(listen, listening, opened, facts, watch, capture)
            seconds, counters = listening.clock(), self._host.counters().since(before)
            # Before the probe, which the kernel drops by design.
            drops = watch if isinstance(watch, Unread) else self._host.drops(watch)
            trial = self._outcome(seconds, receivers, capture, counters, facts)
            if isinstance(watch, Unread) or isinstance(drops, Unread) or watch.is_exact:
                trial = replace(trial, drops=drops, drops_limits="" if isinstance(watch, Unread) else watch.limits)
            else:
                trial = replace(trial, drops=Unread(watch.limits), any_drops=drops)
            found, failed = self._host.lookups(lookups), self._host.failed_sends(sends)
            trial = replace(trial, lookups=found, failed_sends=failed, filters=_taken(filters, self._host.filters()))
            trial = replace(trial, queues=_grown(queues, self._host.queues()), passages=self._passages(trial))
            trial = replace(trial, revived=self._try_revival(receivers, listening, facts), course=tuple(self._course))
            if by_counters and _lost_most(trial) and not _is_member(facts):
                for each in receivers:
                    each.receiver.close()
                trial = replace(trial, afterwards=self._watch_afterwards(trial))
            trial = replace(trial, probes=self._probe(facts), usual=self._usual, aside=self._aside)
            if trial.arrivals or listening.stopped:
                return trial
            # Last, because it sends reports of its own.
            return replace(trial, site_bridges=hear_bridges(self._group.version, self._host.scanned))

    def _noting(self, before: Counters, step: float, progress: Progress | None) -> Progress:
        """Return a progress function that also records the growth of the counters every `step` seconds."""

        def note(seconds: float, received: int) -> bool:
            if seconds >= (len(self._course) + 1) * step and len(self._course) < MOMENTS:
                grown = self._host.counters().since(before).kernel
                self._course.append(Moment(seconds, {name: by for name, by in grown.items() if by}))
            return progress is None or progress(seconds, received)

        return note

    def _listen(
        self,
        listen: float,
        listening: Listening,
        opened: ExitStack,
        facts: Facts,
        watch: Watch | Unread,
        capture: Capture | Unread,
    ) -> list[CountingReceiver]:
        """Listen as requested; if nothing came by half of the time, also to all sources on all interfaces."""
        blocked = self._blocked(facts)
        asked = CountingReceiver(self._settings, True, listening.clock)
        opened.callback(asked.receiver.close)
        asked.join(self._joins)
        asked.block(blocked)
        # Without a membership the kernel drops everything, so that what came before the join says nothing. Frames are
        # forgotten last: what was captured shall have a verdict.
        if not isinstance(watch, Unread):
            with suppress(OSError):
                watch.restart()
        if isinstance(capture, Capture):
            capture.restart()
        listening.add(asked.receiver.filenos(), asked.receiver.drain)
        receivers = [asked]
        listening.run(listen / 2, lambda: asked.received)
        if not asked.received and not listening.stopped:
            # Without a descriptor for it the trial is not widened, as it then says.
            with suppress(OSError):
                wider = CountingReceiver(self._settings, False, listening.clock, asked)
                opened.callback(wider.receiver.close)
                wider.join(self._wider({join.interface.iface.index for join in blocked}))
                listening.add(wider.receiver.filenos(), wider.receiver.drain)
                receivers.append(wider)
        listening.run(listen, lambda: asked.received)
        return receivers

    def _blocked(self, facts: Facts) -> list[Join]:
        """Return the sources that the explained receiver has blocked."""
        named = () if facts.receiver is None else facts.receiver.blocked
        return [
            join._replace(source=ip_address(source))
            for join in self._joins
            for group, source, interface in named
            if join.source is None and (group, interface) == (str(self._group), join.interface.iface.display_name)
        ]

    def _wider(self, filtered: Collection[int]) -> list[Join]:
        """Return the joins for all sources on all interfaces that are up. `filtered`: those with blocked sources."""
        any_source = {join.interface.iface.index for join in self._joins if join.source is None}.difference(filtered)
        return [
            Join(self._group, None, InterfaceChoice(iface))
            for iface in self._host.scanned
            if iface.index not in any_source and (iface.is_up or iface.is_localhost())
        ]

    def _outcome(
        self,
        seconds: float,
        receivers: Sequence[CountingReceiver],
        capture: Capture | Unread,
        grown: Counters,
        facts: Facts,
    ) -> Trial:
        asked = receivers[0]
        granted = asked.receiver.buffer()
        drops = [each.receiver.drops() for each in receivers]
        own = {inode for each in receivers for inode in each.receiver.inodes()}
        sockets = self._host.sockets(own)
        asked_for = self._settings.receive_buffer
        requested = asked_for if isinstance(asked_for, int) else granted or 0
        return Trial(
            seconds,
            len(receivers) > 1,
            tuple(asked.joins),
            tuple(arrived for each in receivers for arrived in each.arrivals()),
            grown.kernel,
            grown.interfaces,
            capture if isinstance(capture, Unread) else capture.frames(),
            capture if isinstance(capture, Unread) else capture.queries(),
            reporters=capture if isinstance(capture, Unread) else capture.reporters(),
            socket_drops=None if None in drops else sum(each or 0 for each in drops),
            sockets=() if isinstance(sockets, Unread) else sockets,
            buffer=None if granted is None else Buffer(requested, granted, maximum_buffer(facts)),
        )

    def _passages(self, trial: Trial) -> tuple[Passage, ...]:
        """Return how the kernel routes what comes from known senders; while the group is still joined."""
        frames = () if isinstance(trial.frames, Unread) else trial.frames
        seen = {(each.interface, each.sender): None for each in frames if not each.outgoing}
        source = self._host.target.source
        if source is None and not seen and self._group.version == 6:
            # Where IPv6 has no route for the group, it has none for any sender.
            source = _SOME_NEIGHBOUR
        if source is not None:
            seen |= {(join.interface, source): None for join in trial.joins if join.error is None}
        return self._host.passages(self._group, [*seen][:SENDERS])

    def _try_revival(self, receivers: Iterable[CountingReceiver], listening: Listening, facts: Facts) -> bool | None:
        """Leave and join anew if a stream stopped; return whether it came again, or None if that was not tried."""
        asked, *_ = receivers
        asked.receiver.drain()  # the stream may have begun again by itself
        # If another program is a member, the network does not see our leave and join.
        if not asked.has_stopped(listening.clock()) or listening.stopped or _is_member(facts):
            return None
        for each in receivers:
            each.receiver.close()
        with closing(Listening()) as again:
            anew = CountingReceiver(self._settings, True, again.clock)
            with closing(anew.receiver):
                anew.join(self._joins)
                again.add(anew.receiver.filenos(), anew.receiver.drain)
                patience = REVIVAL + 2 * asked.longest_gap
                while not anew.received and (left := patience - again.clock()) > 0:
                    again.look(left)
        return bool(anew.received)

    def _watch_afterwards(self, trial: Trial) -> dict[str, float] | None:
        """Return the growth of the counters per second after the leave; None if the trial lost nothing.

        Losses that go on without our membership are not losses of the target.
        """
        most = max(trial.counters.get(name, 0) for name in ASTRAY)
        if not most:
            return None
        shortest, longest = AFTERWARDS
        before, since = self._host.counters(), monotonic()
        sleep(min(longest, max(shortest, ENOUGH * trial.seconds / most - self._aside)))
        return self._pace(before, since)

    def _probe(self, facts: Facts) -> tuple[Probe, ...]:
        taken = [] if isinstance(facts.sockets, Unread) else [each.port for each in facts.sockets]
        try:
            return probe(self._settings, self._host.scanned, self._group, self._joins, taken)
        except OSError:  # no descriptor or no port is left
            return ()


def _grown(
    before: tuple[QueueFacts, ...] | Unread, after: tuple[QueueFacts, ...] | Unread
) -> tuple[QueueFacts, ...] | Unread:
    """Return the queues with what they dropped, and took in without sending it, in between."""
    if isinstance(before, Unread) or isinstance(after, Unread):
        return after
    earlier = {replace(each, drops=None, waiting=0): each for each in before}
    grown = []
    for each in after:
        was = earlier.get(replace(each, drops=None, waiting=0))
        dropped = None if each.drops is None else max(0, each.drops - ((was and was.drops) or 0))
        held = min(each.waiting, was.waiting if was else 0)
        grown.append(replace(each, drops=dropped, waiting=each.waiting - held, held=held))
    return tuple(grown)


def _taken(
    before: tuple[FilterFacts, ...] | Unread, after: tuple[FilterFacts, ...] | Unread
) -> tuple[FilterFacts, ...] | Unread:
    """Return the filters with what their actions got in between."""
    if isinstance(before, Unread) or isinstance(after, Unread):
        return after
    earlier = {replace(each, packets=None): each.packets or 0 for each in before}
    return tuple(
        each
        if each.packets is None
        else replace(each, packets=max(0, each.packets - earlier.get(replace(each, packets=None), 0)))
        for each in after
    )


def _lost_most(trial: Trial) -> bool:
    """Return whether more datagrams of groups may have been lost than arrived."""
    came, delivered = (trial.counters.get(name, 0) for name in ("IpExt.InMcastPkts", "Ip.InDelivers"))
    return not trial.arrivals or came - delivered > sum(each.count for each in trial.arrivals)


def _is_member(facts: Facts) -> bool:
    """Return whether a program on this host may have joined the group before the trial."""
    if isinstance(facts.memberships, Unread):
        return True
    return any(str(joined.group) == facts.target.group for joined in facts.memberships)


def maximum_buffer(facts: Facts) -> int | Unread | None:
    """Return the largest receive buffer that the kernel grants, in bytes."""
    value = facts.settings.get("net.core.rmem_max")
    if isinstance(value, str):
        return int(value) if value.isdecimal() else None
    return value
