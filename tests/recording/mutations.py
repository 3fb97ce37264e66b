"""Mutated capture files, for what reads them.

`PYTHONPATH=tests python -m recording.mutations --count 1000000` runs as many as it says.
"""

import argparse
import io
import time
import tracemalloc
from dataclasses import dataclass
from random import Random

from multicast_expert import MulticastExpertError
from multicast_expert.wire.capture_file import CaptureFile
from multicast_expert.wire.captured import datagrams
from recording import captures
from recording.captures import LINKS, START_NS, v4, v6

SLOWEST = 5.0
"""Seconds for one file, on a machine that is busy with other things."""
SPARE = 1 << 20
"""Bytes that reading may take beside twice the file: its chunks, and Python's own."""
MEASURED = 50
"""Memory is measured for one file of so many: that takes long."""


def _forms() -> list[bytes]:
    found = []
    for order in "<>":
        for number, framed in LINKS.values():
            frames = [framed(each) for each in (v4(b"hello"), v6(bytes(20)), *captures.fragments_v4(bytes(90), 32))]
            frames += [framed(each) for each in captures.fragments_v6(bytes(90), 32)]
            found += [captures.pcap(number, frames, order), captures.pcapng(number, frames, order, 9)]
    return found


FORMS = _forms()


@dataclass(slots=True)
class Outcome:
    """What became of mutated files."""

    datagrams: int = 0
    damaged: int = 0


def examine(file: bytes) -> tuple[int, bool]:
    """Read a file, and seek in it; return how many datagrams it has, and whether an error ended it."""
    start = time.perf_counter()
    count, damaged = 0, False
    try:
        opened = CaptureFile(io.BytesIO(file))
        for each in datagrams(opened):
            count += 1
            assert len(each.data) <= len(file)
            assert 0 <= each.port <= 65535
        opened.seek(START_NS + 3_000_000)
    except MulticastExpertError:
        damaged = True
    assert time.perf_counter() - start < SLOWEST
    return count, damaged


def mutated(random: Random) -> bytes:
    """Return one of the forms with some bytes changed, cut out or put in."""
    data = bytearray(random.choice(FORMS))
    for _ in range(random.randrange(1, 5)):
        at = random.randrange(len(data) + 1)
        what = random.randrange(5)
        if what < 2 and at < len(data):
            data[at] = random.choice((0, 1, 2, 6, 0x7F, 0xFF, random.randrange(256)))
        elif what == 2:
            at -= at % 4
            data[at : at + 4] = random.choice((b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\xff\0", b"\6\0\0\0"))
        elif what == 3:
            del data[at : at + random.randrange(20)]
        else:
            data[at:at] = random.choice(FORMS)[random.randrange(50) :]
    return bytes(data)


def run(count: int, seed: int) -> Outcome:
    """Read so many mutated files."""
    random, outcome = Random(seed), Outcome()
    for number in range(count):
        file = mutated(random)
        if number % MEASURED == 0:
            tracemalloc.start()
            examine(file)
            assert tracemalloc.get_traced_memory()[1] < 2 * len(file) + SPARE
            tracemalloc.stop()
        found, damaged = examine(file)
        outcome.datagrams += found
        outcome.damaged += damaged
    return outcome


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    arguments = parser.parse_args()
    done = run(arguments.count, arguments.seed)
    print(f"seed {arguments.seed}: {arguments.count:,} files, {done.datagrams:,} datagrams, {done.damaged:,} damaged")
