"""What became of every datagram, by cause. Pure.

On the taking side: taken = published + the drops of `TAKING`. On the other: arrived = delivered + the drops of
`SENDING`. Between the two, published = arrived + lost: the numbers in the frames tell.
"""

from __future__ import annotations

from collections import Counter
from typing import NamedTuple

TAKING = {
    "hop limit": "used up their hops: send with a higher TTL, or give --ttl",
    "echo": "re-sent by another bridge on this network",
    "standby": "another bridge on this network speaks",
    "fuse": "the group was stopped: another relay brings its datagrams back",
}
"""Why datagrams from this network are not published."""
SENDING = {
    "duplicate": "came before, or too late",
    "loop": "this network has them already",
    "standby": "another bridge on this network speaks",
    "unwanted": "of a group that this site does not want any more",
    "too fast": "above the rate that is allowed to come from other sites",
    "refused": "not accepted by this system",
}
"""Why datagrams from other sites are not sent here."""


class Totals(NamedTuple):
    """Counts of datagrams of one group and port, since the bridge started."""

    taken: int
    """From this network."""
    published: int
    """To other sites."""
    arrived: int
    """From other sites."""
    delivered: int
    """Sent to this network."""
    lost: int
    """Missing between other sites and this one."""
    taking_drops: dict[str, int]
    """By the causes of TAKING."""
    sending_drops: dict[str, int]
    """By the causes of SENDING."""
    kernel_drops: int | None
    """That the kernel dropped before the bridge took them; None: unknown, because it also counts the own echo."""
    malformed: int
    """What came from other sites and is no frame of this group."""
    blown: int
    """How often the fuse stopped the group."""


class Ledger:
    """The counts of one group and port; its two threads add to different ones."""

    def __init__(self) -> None:
        self.taken: int = 0
        self.published: int = 0
        self.arrived: int = 0
        self.delivered: int = 0
        self.lost: int = 0
        self.kernel_drops: int | None = None
        self.malformed: int = 0
        self.blown: int = 0
        self.taking_drops: Counter[str] = Counter()
        self.sending_drops: Counter[str] = Counter()

    def totals(self) -> Totals:
        """Return the counts of this moment."""
        taking, sending = dict(self.taking_drops), dict(self.sending_drops)
        return Totals(
            self.taken,
            self.published,
            self.arrived,
            self.delivered,
            self.lost,
            taking,
            sending,
            self.kernel_drops,
            self.malformed,
            self.blown,
        )

    @property
    def balance(self) -> tuple[int, int]:
        """What is not accounted for on each side; 0 and 0 while nothing is under way."""
        taking = self.taken - self.published - sum(self.taking_drops.values())
        sending = self.arrived - self.delivered - sum(self.sending_drops.values())
        return taking, sending
