"""Takes the payloads of `send_many` in batches, from any iterable. Touches no OS but its clock."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from time import monotonic

LONGEST_BATCH = 1024
# Seconds: an iterator that takes longer over a batch waits for something, and then nothing is held back for it.
_QUICK = 0.001


def batches(payloads: Iterable[bytes], limit: int = LONGEST_BATCH, at_once: bool = True) -> Iterator[tuple[bytes, ...]]:
    """Yield the payloads in batches of at most `limit`.

    An iterator is read ahead only as far as it has shown to be quick: 1, 2, 4, ... payloads. What is no bytes object is
    copied when it is taken, because its owner may fill the same buffer anew for the next. Where the iterable raises, or
    holds something else, what came before is yielded first. `at_once`: a list may begin with a whole batch.
    """
    if at_once and isinstance(payloads, list | tuple) and set(map(type, payloads)) == {bytes}:
        ready = tuple(payloads)
        for first in range(0, len(ready), limit):
            yield ready[first : first + limit]
        return
    copies = map(_copied, payloads)
    size = 1
    while True:
        batch: list[bytes] = []
        start = monotonic()
        try:
            batch.extend(islice(copies, size))
        except BaseException:
            # `extend` keeps what it took before.
            if batch:
                yield tuple(batch)
            raise
        if not batch:
            return
        size = min(2 * size, limit) if monotonic() - start < _QUICK else 1
        yield tuple(batch)


def _copied(payload: bytes) -> bytes:
    return payload if type(payload) is bytes else memoryview(payload).tobytes()
