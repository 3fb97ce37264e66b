"""Finds the port that datagrams of a group go to, if none was named. Touches the OS: joins and captures."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from contextlib import closing

from multicast_expert.core.plan import Join, ReceiveSettings
from multicast_expert.doctor.facts import Unread, same
from multicast_expert.doctor.host.any_os import Host
from multicast_expert.doctor.trial.receiver import Listening, Progress, Receiver

OTHERS = 0.3
"""Seconds to go on after the first datagram, because another port may get more of them."""


def find_port(host: Host, joins: Iterable[Join], seconds: float, progress: Progress | None) -> int | None:
    """Return the port that most datagrams of the group go to; None if none is seen in so many seconds.

    Without the privilege to capture it is the only port on which sockets of this host are bound to the group.
    """
    group = host.target.group
    capture = host.open_capture()
    if isinstance(capture, Unread):
        sockets = host.sockets()
        bound = {each.port for each in (() if isinstance(sockets, Unread) else sockets) if str(each.address) == group}
        return bound.pop() if len(bound) == 1 else None

    def ports() -> Counter[int]:
        counts: Counter[int] = Counter()
        for each in capture.frames():
            if each.port is not None and same(each.group, group) and not each.flaw:
                counts[each.port] += each.count
        return counts

    def go_on(listened: float, _: int) -> bool:
        found = ports()
        asked = progress is None or progress(listened, found.total())
        return asked and not found

    with closing(capture), closing(Listening(go_on)) as listening:
        receiver = Receiver(ReceiveSettings(host.target.group_version or 4, 0), lambda _: None)
        with closing(receiver):
            for join in joins:
                receiver.join(join)
            for descriptor, drain in capture.drains():
                listening.add([descriptor], drain)
            listening.run(seconds, lambda: 0)
            if found := ports():
                until = listening.clock() + OTHERS
                while (left := until - listening.clock()) > 0:
                    listening.look(left)
                found = ports()
    return max(found, key=lambda port: found[port], default=None)
