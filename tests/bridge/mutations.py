"""Mutated frames and other hostile payloads, for the codec and for a carrier.

`PYTHONPATH=tests python -m bridge.mutations --count 1000000` runs as many as it says.
"""

import argparse
import time
import tracemalloc
from random import Random

from bridge.forms import FORMS, ID
from multicast_expert.bridge.election import Election
from multicast_expert.bridge.frames import LARGEST_FRAME, MalformedFrameError, parse_frame
from multicast_expert.bridge.interest import Interest, Keys, parse_wish
from multicast_expert.bridge.pulse import Pulses
from multicast_expert.bridge.streams import Streams
from multicast_expert.wire.bridge_greeting import network_mark, parse_greeting
from mutating import mutated

MOST = 64
KEYS = Keys("net")
TOKENS = ["mcast/net/want/0001020304050607/239.1.2.3/5000/-", "mcast/net/want/08090a0b0c0d0e0f/ff15::1/9/fd00::7"]
PULSE = b'{"clock": 5, "speaking": true, "heard": {"0001020304050607": [1, 2]}}'
PAYLOADS = [*FORMS, PULSE, *map(str.encode, TOKENS)]


class Machines:
    """What mutated payloads go to, and what holds whatever they are."""

    def __init__(self) -> None:
        self.streams, self.interest, self.pulses = Streams(MOST), Interest(MOST), Pulses(ID)
        self.election = Election(ID, 0.0)
        self.pulses.add(b"otherone", "other")
        self.parsed = self.refused = self.lost = 0

    def take(self, data: bytes, number: int) -> None:
        """Give them one payload."""
        try:
            frame = parse_frame(data)
        except MalformedFrameError:
            self.refused += 1
        else:
            self.parsed += 1
            payloads = frame.payloads()
            assert len(payloads) == frame.size
            assert sum(map(len, payloads)) <= len(data) <= LARGEST_FRAME
            assert all(each.hop_limit <= 255 for each in frame.origins)
            self.lost += self.streams.take(frame.sender, frame.first, frame.size).lost
        assert len(self.streams) <= MOST
        self.pulses.take(b"otherone", data, number)
        greeting = parse_greeting(data, network_mark("net"))
        if greeting is not None:
            self.election.hear(greeting, "10.0.0.1", number / 1000)
        assert len(self.election.neighbours) <= 16
        found = parse_wish(KEYS.parts(data.decode("utf-8", "replace")))
        if found is not None:
            self.interest.add(*found)
        assert len(self.interest) <= MOST


def run(count: int, seed: int) -> Machines:
    """Give the machines so many mutated payloads."""
    random, machines = Random(seed), Machines()
    for number in range(count):
        machines.take(mutated(random, PAYLOADS), number)
    return machines


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=time.time_ns())
    arguments = parser.parse_args()
    run(10_000, arguments.seed)
    tracemalloc.start()
    done = run(arguments.count, arguments.seed)
    kept = tracemalloc.get_traced_memory()[0]
    print(f"seed {arguments.seed}: {done.parsed:,} frames, {done.refused:,} refused, {kept:,} bytes kept")
