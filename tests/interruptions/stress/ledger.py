"""What one receiver had to receive, and what it did receive."""

import mmap
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from interruptions.programs.interrupting import payload
from interruptions.programs.parts import PATIENCE

NEVER = 2**62


class Board:
    """How many datagrams the sender has begun and sent, for each group."""

    def __init__(self, path: str, groups: Sequence[str]) -> None:
        with Path(path).open("r+b") as file:
            self._numbers = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        self._places = {group: 2 * number for number, group in enumerate(groups)}

    def begun(self, group: str) -> int:
        """Return the number that the next datagram gets."""
        return self._numbers[self._places[group]]

    def sent(self, group: str) -> int:
        """Return the first number that may not have left yet."""
        return self._numbers[self._places[group] + 1]


@dataclass
class Interval:
    """Numbers of a group's datagrams, while it was joined: some may have come, and some must have come."""

    may_from: int
    must_from: int
    must_until: int = NEVER
    may_until: int = NEVER


class Ledger:
    """The datagrams of one receiver, by group."""

    def __init__(self, board: Board, exact: Sequence[str]) -> None:
        self.got: list[Any] = []
        """What was received, in any order: Datagrams, and pairs of recvfrom."""
        self.received = 0
        self.missing = 0
        self._board = board
        self._exact = {*exact}
        self._intervals: dict[str, list[Interval]] = {}
        self._seen: dict[str, set[int]] = {}
        self._read = 0
        self._before: dict[str, int] = {}

    def before_join(self, group: str) -> None:
        """Note that the group is about to be joined: what has left before cannot arrive."""
        self._before[group] = self._board.sent(group)

    def joined(self, group: str) -> None:
        """Note that the group is joined: what leaves from now on must arrive."""
        interval = Interval(self._before.pop(group), self._board.begun(group))
        self._intervals.setdefault(group, []).append(interval)

    def before_leave(self, group: str) -> None:
        """Note that the group is about to be left: what has left before must have arrived."""
        self._intervals[group][-1].must_until = self._board.sent(group)

    def left(self, group: str) -> None:
        """Note that the group was left: what leaves from now on cannot arrive."""
        self._intervals[group][-1].may_until = self._board.begun(group)

    def _sort_in(self) -> None:
        """Look at what was received since the last look."""
        while self._read < len(self.got):
            words = payload(self.got[self._read]).split()
            self._read += 1
            if words[0] == b"for":  # one that a child sent to itself, to a group that no parent joins
                raise AssertionError("received what a child had joined")
            assert len(words) == 2, f"{self.got[self._read - 1]!r}"
            group, number = words[0].decode(), int(words[1])
            seen = self._seen.setdefault(group, set())
            assert number not in seen, f"{group}: {number} was received twice"
            intervals = self._intervals.get(group, [])
            known = any(each.may_from <= number < each.may_until for each in intervals)
            assert known or group in self._before, f"{group}: {number} was received outside of {intervals}"
            seen.add(number)
            self.received += 1

    def lacks(self, group: str) -> int:
        """Return how many datagrams must have come and have not."""
        if group not in self._exact:
            return 0
        seen = self._seen.get(group, set())
        return sum(
            number not in seen
            for each in self._intervals.get(group, [])
            for number in range(each.must_from, each.must_until)
        )

    def settle(self, group: str, drops: Any) -> None:
        """Wait until all that must have come has come, but for what the kernel counts as dropped; else raise."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self._sort_in()
            others = sum(self.lacks(each) for each in self._intervals if each != group and self._is_over(each))
            missing = self.lacks(group)
            if missing + others <= (drops() or 0):
                return
            assert time.monotonic() < deadline, (
                f"{group}: {missing} lost, {drops()} counted as dropped; {self.received} received, "
                f"{self._intervals[group]}"
            )
            time.sleep(0.001)

    def _is_over(self, group: str) -> bool:
        return all(each.must_until < NEVER for each in self._intervals[group])

    def close(self, drops: int) -> None:
        """Check what came until the receiver was closed, and count what is missing."""
        self._sort_in()
        self.missing = sum(map(self.lacks, self._intervals))
        assert self.missing <= drops, f"{self.missing} lost, {drops} counted as dropped"
