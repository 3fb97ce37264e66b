"""The streams on the wire as they are now, and what this host does about them. Joins and sends nothing; Linux only."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from time import thread_time

from multicast_expert.cli.host_state import KernelDrops, joined_here
from multicast_expert.cli.render.streams import Place, Surroundings
from multicast_expert.cli.render.top import Snapshot
from multicast_expert.core.endpoints import Endpoint
from multicast_expert.core.errors import MulticastExpertError
from multicast_expert.observe.look import KEEP, Look
from multicast_expert.observe.source import FrameSource
from multicast_expert.observe.streams import Stream
from multicast_expert.system.interfaces import find_interfaces

RING = 64 << 20
"""Bytes of frames that wait while the screen is drawn: half a second at 1 Gbit/s."""
BATCH = 2048
"""Frames that are taken before the screen has its turn: some 10 ms."""
_HOST_EVERY = 2.0
"""Seconds between two questions who joined, and what was dropped."""
_HOST_SHARE = 0.01
"""Of a core for these questions: with 1,000 kinds of drops they take long, and come less often."""
_HOST_LATEST = 10.0
"""Seconds after which what is shown would be too old, whatever it costs."""


def pause_after(spent: float) -> float:
    """Return how many seconds to wait after a question that took so many of processor time."""
    return min(max(_HOST_EVERY, spent / _HOST_SHARE), _HOST_LATEST)


class Live:
    """Follows the streams of some endpoints, or of all, on some interfaces, or on all; as FrameSource it may raise."""

    def __init__(self, ifaces: Sequence[str] | None, endpoints: Sequence[Endpoint] = ()) -> None:
        self._wanted = [(each, _names(each)) for each in endpoints]
        self.source: FrameSource = FrameSource(ifaces, udp=True, keep=KEEP, buffer=RING, ring=RING, all_groups=True)
        self.look: Look = Look(self.source)
        self._joined: Mapping[Place, Collection[str]] | None = None
        self._drops: Mapping[tuple[Place, int | None], int] | None = None
        self._closed = threading.Event()
        self.latest: Snapshot = self.snapshot()
        """The last one that was taken."""
        # What the host does is read beside: it would keep frames waiting.
        threading.Thread(target=self._ask_host, daemon=True).start()

    def filenos(self) -> tuple[int, ...]:
        """Return the descriptors that are readable while frames wait."""
        return self.source.filenos()

    def take(self) -> bool:
        """Take in frames that wait, up to BATCH; return whether there may be more."""
        more = self.look.take(BATCH)
        self.look.tick()
        return more

    def snapshot(self) -> Snapshot:
        """Return how everything is now."""
        now = self.look.clock.now()
        streams = [each for each in self.look.streams.streams(now) if self._is_wanted(each)]
        around = Surroundings(self._joined, self._drops)
        names = tuple(each.display_name for each in self.source.interfaces)
        known = self.look.streams
        self.latest = Snapshot(now, names, streams, around, self.source.lost(), known.unfollowed, known.forgotten)
        return self.latest

    def _is_wanted(self, stream: Stream) -> bool:
        return not self._wanted or any(
            stream.group == str(each.group)
            and each.port in (None, stream.port)
            and (each.source is None or stream.source == str(each.source))
            and (not names or stream.interface in names)
            for each, names in self._wanted
        )

    def _ask_host(self) -> None:
        drops: KernelDrops | None = None
        with suppress(MulticastExpertError):
            drops = KernelDrops()
        try:
            while True:
                start = thread_time()
                self._joined = joined_here()
                if drops is not None:
                    self._drops = drops.read()
                if self._closed.wait(pause_after(thread_time() - start)):
                    return
        except (MulticastExpertError, OSError):
            # What was known is too old to be shown.
            self._joined = self._drops = None
        finally:
            if drops is not None:
                drops.close()

    def close(self) -> None:
        """Stop following."""
        self._closed.set()
        self.source.close()


def _names(endpoint: Endpoint) -> set[str]:
    if endpoint.iface is None:
        return set()
    return {each.machine_name for each in find_interfaces([endpoint.iface])}
