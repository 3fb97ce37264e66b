"""What became of every datagram, by cause. Pure.

On the taking side: taken = published + the drops of `TAKING`. On the other: arrived = delivered + the drops of
`SENDING`. Between the two, published = arrived + lost: the numbers in the frames tell.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field, replace

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


@dataclass(slots=True)
class Ledger:
    """Counts of datagrams of one group and port, since the bridge started. Its two threads add to different ones."""

    taken: int = 0
    """From this network."""
    published: int = 0
    """To other sites."""
    arrived: int = 0
    """From other sites."""
    delivered: int = 0
    """Sent to this network."""
    lost: int = 0
    """Missing between other sites and this one."""
    taking_drops: Counter[str] = field(default_factory=Counter)
    """By the causes of TAKING."""
    sending_drops: Counter[str] = field(default_factory=Counter)
    """By the causes of SENDING."""
    kernel_drops: int | None = None
    """That the kernel dropped before the bridge took them; None: unknown, because it also counts the own echo."""
    malformed: int = 0
    """What came from other sites and is no frame of this group."""
    blown: int = 0
    """How often the fuse stopped the group."""

    def copy(self) -> Ledger:
        """Return the counts of this moment."""
        return replace(self, taking_drops=Counter(self.taking_drops), sending_drops=Counter(self.sending_drops))

    @property
    def balance(self) -> tuple[int, int]:
        """What is not accounted for on each side; 0 and 0 while nothing is under way."""
        taking = self.taken - self.published - self.taking_drops.total()
        return taking, self.arrived - self.delivered - self.sending_drops.total()
