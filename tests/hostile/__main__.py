"""Mutate frames and read them with everything, then flood it: no exception, bounded memory, and what is said of it."""

import argparse
import resource
import time
from pathlib import Path

from multicast_expert.observe.scan import forgotten
from tests.hostile.floods import FLOODS, flooded
from tests.hostile.targets import Targets

GROWTH = 64 << 20
"""Bytes that the process may grow by after the first tenth, and by the tables of one flood."""


def resident() -> int:
    """Bytes of memory that this process has now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main() -> None:
    """Run both parts."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000, help="frames to mutate")
    parser.add_argument("--flood", type=int, default=1 << 20, help="groups, sources and hosts to invent, of each kind")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    began, targets = time.monotonic(), Targets(given.seed)
    targets.run(given.count // 10)
    before = resident()
    targets.run(given.count - given.count // 10)
    grown = resident() - before
    print(
        f"{targets.frames:,} frames in {time.monotonic() - began:.0f} s: no exception, all tables within their bounds"
    )
    print(f"{targets.messages:,} of them IGMP or MLD; payloads taken for a protocol: {sum(targets.names.values()):,}")
    print(", ".join(f"{name} {count:,}" for name, count in targets.names.most_common()))
    print(f"memory: {before >> 20:,} MiB after a tenth of them, {grown / 2**20:+.1f} MiB since")
    assert grown < GROWTH
    for kind in FLOODS:
        before = resident()
        look = flooded(kind, given.flood)
        grown = resident() - before
        print(f"{given.flood:,} {kind}: {grown / 2**20:+.1f} MiB. {' '.join(forgotten(look))}")
        assert grown < GROWTH
        del look


if __name__ == "__main__":
    main()
