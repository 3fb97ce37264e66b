"""What came of each sender's numbered datagrams: each once, in order, and how many are missing. Pure."""

from __future__ import annotations

from collections import OrderedDict
from typing import NamedTuple

MOST_SENDERS = 4096
"""How many senders are remembered; the one that was silent for longest is forgotten first."""


class Verdict(NamedTuple):
    """What becomes of a frame."""

    is_new: bool
    """False: its datagrams came before, or later ones of the sender did."""
    lost: int
    """How many datagrams of the sender before it are missing, and will not be taken any more."""


class Streams:
    """The next number of each sender of one group and port."""

    def __init__(self, most: int = MOST_SENDERS) -> None:
        self._expected: OrderedDict[bytes, int] = OrderedDict()
        self._most = most

    def __len__(self) -> int:
        return len(self._expected)

    def take(self, sender: bytes, first: int, count: int) -> Verdict:
        """Take a frame of `count` datagrams. A sender that is new to this site may begin with any number."""
        expected = self._expected.get(sender, first)
        if first < expected:
            return Verdict(False, 0)
        if sender not in self._expected and len(self._expected) >= self._most:
            self._expected.popitem(last=False)
        self._expected[sender] = first + count
        self._expected.move_to_end(sender)
        return Verdict(True, first - expected)

    def clear(self) -> None:
        """Forget all senders: what they send from now on was not missed before."""
        self._expected.clear()
