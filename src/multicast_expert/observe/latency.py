"""Percentiles of latency in bounded memory. Pure: touches no OS."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from math import ceil

_BITS = 6
"""Leading bits of a latency that count: a percentile is off by less than 1 in 2**6."""
_LONGEST = (1 << 41) - 1
"""36 minutes: percentiles do not go beyond."""
_CLASSES = (41 - _BITS + 2) << (_BITS - 1)


class Latencies:
    """How long datagrams were under way, in nanoseconds; negative where two clocks disagree."""

    __slots__ = ("_counts", "_total", "count", "least", "most")

    def __init__(self) -> None:
        self.count: int = 0
        self.least: int = 0
        self.most: int = 0
        self._total = 0
        # For either sign, how many there are of each class; most streams have one sign only.
        self._counts: dict[bool, array[int]] = {}

    @property
    def mean(self) -> int:
        """The average; 0 without any."""
        return self._total // self.count if self.count else 0

    def add(self, latency: int) -> None:
        """Count one more."""
        if not self.count:
            self.least = self.most = latency
        elif latency > self.most:
            self.most = latency
        elif latency < self.least:
            self.least = latency
        self.count += 1
        self._total += latency
        size, is_negative = min(abs(latency), _LONGEST), latency < 0
        shift = max(0, size.bit_length() - _BITS)
        counts = self._counts.get(is_negative)
        if counts is None:
            counts = self._counts[is_negative] = array("Q", [0]) * _CLASSES
        counts[(shift << (_BITS - 1)) + (size >> shift)] += 1

    def add_all(self, latencies: Sequence[int]) -> None:
        """Count more of them, one at least."""
        least, most = min(latencies), max(latencies)
        self.least, self.most = (min(self.least, least), max(self.most, most)) if self.count else (least, most)
        self.count += len(latencies)
        self._total += sum(latencies)
        if least >= 0:
            self._classify(latencies, False)
        else:
            self._classify([-each for each in latencies if each < 0], True)
            self._classify([each for each in latencies if each >= 0], False)

    def _classify(self, sizes: Sequence[int], is_negative: bool) -> None:
        if not sizes:
            return
        counts = self._counts.get(is_negative)
        if counts is None:
            counts = self._counts[is_negative] = array("Q", [0]) * _CLASSES
        if max(sizes) > _LONGEST:
            sizes = [min(each, _LONGEST) for each in sizes]
        for size in sizes:
            shift = size.bit_length() - _BITS
            if shift > 0:
                counts[(shift << (_BITS - 1)) + (size >> shift)] += 1
            else:
                counts[size] += 1

    def percentile(self, percent: float) -> int:
        """Return the latency that so many per cent of the datagrams did not exceed; 0 without any."""
        wanted = ceil(self.count * percent / 100)
        for is_negative, turn in ((True, reversed), (False, iter)):
            for index in turn(range(_CLASSES)) if is_negative in self._counts else ():
                wanted -= self._counts[is_negative][index]
                if wanted <= 0:
                    size = _middle(index)
                    return min(max(-size if is_negative else size, self.least), self.most)
        return self.most


def _middle(index: int) -> int:
    """Return the latency in the middle of a class; the last class has all that are longer."""
    shift = max(0, (index >> (_BITS - 1)) - 1)
    least = (index - (shift << (_BITS - 1))) << shift
    return least + ((1 << shift) - 1) // 2
