"""A ring of three sites, one with two bridges, while bridges die, restart and lose their connection.

`PYTHONPATH=tests python -m bridge.soak --count 1000000` lets as many datagrams through as it says, as root or not.
"""

import argparse
import os
import signal
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread
from time import monotonic, sleep
from typing import Any

from bridge.network import FAMILIES, GROUPS, PORT, Running, Site, bridge, listening, sites
from multicast_expert import McastRxSocket, McastTxSocket
from multicast_expert.testing import Host, enter_private_network
from watched import end_with_any_thread

PLACES = [f"tcp/192.0.{number}.1:7447" for number in (1, 2, 3)]
RING = [
    ["--listen", PLACES[0]],
    ["--listen", PLACES[1], "--connect", PLACES[0]],
    ["--connect", PLACES[0], "--connect", PLACES[1]],
    ["--listen", PLACES[2], "--connect", PLACES[0], "--connect", PLACES[1]],
]
"""The options of the bridges: one at the first site, two at the second, one at the third."""
ENDPOINT = f"{GROUPS[4]}:{PORT}"
RECOVERED = 2.0
"""Seconds within which datagrams come again, once they can."""
STARTED = 2.0
"""Seconds that a bridge takes to start."""
PAGE = os.sysconf("SC_PAGE_SIZE")


@dataclass
class Hearer:
    """What arrives at a site: how often each number came, and how often one came after a higher one."""

    came: bytearray
    backwards: int = 0
    highest: int = -1
    longest_gap: float = 0.0
    """Seconds without anything, at most, once something had come."""
    over: Event = field(default_factory=Event)

    def run(self, rx: McastRxSocket) -> None:
        """Receive until it is over."""
        before = None
        while not self.over.is_set():
            try:
                datagrams = rx.receive_many(1024, timeout=0.2)
            except TimeoutError:
                continue
            now = monotonic()
            self.longest_gap = max(self.longest_gap, now - (before or now))
            before = now
            for each in datagrams:
                number = int.from_bytes(each.data[:4], "big")
                self.came[number] += self.came[number] < 255
                self.backwards += number < self.highest
                self.highest = max(number, self.highest)

    @property
    def doubled(self) -> int:
        """How many numbers came more than once."""
        return sum(1 for each in self.came if each > 1)

    @property
    def missing(self) -> int:
        """How many did not come."""
        return self.came.count(0)


class Ring:
    """The bridges of the ring, and what happens to them."""

    def __init__(self, places: Sequence[Site], outage: float) -> None:
        self._outage = outage
        self.gates: list[Host] = [gate for place in places for gate in place.gates]
        self.running: list[Running] = [self._start(number) for number in range(len(self.gates))]
        self.statuses: list[dict[str, Any]] = []
        for each in self.running:
            each.status(lambda status: len(status["sites"]) == 3 and status["groups"], "sees the others")
        self.wait()

    def _start(self, number: int) -> Running:
        return bridge(self.gates[number], *RING[number], endpoints=[ENDPOINT])

    def wait(self) -> None:
        """Wait until all sites have a bridge that speaks and is wanted elsewhere."""
        for pair in ([0], [1, 2], [3]):
            deadline = monotonic() + 20
            while True:
                statuses = [self.running[each].line() for each in pair]
                speaking = [each for each in statuses if each["speaking"]]
                if len(speaking) == 1 and speaking[0]["groups"] and len(speaking[0]["groups"][0]["wanted_by"]) >= 2:
                    break
                assert monotonic() < deadline, statuses

    def kill_speaker(self) -> None:
        """Kill the one of the second site that speaks, and start it again a while later."""
        number = next(each for each in (1, 2) if self.running[each].line()["speaking"])
        os.kill(self.running[number].process.pid, signal.SIGKILL)
        self.running[number].process.wait()
        sleep(1.0)
        self.running[number] = self._start(number)

    def cut(self) -> None:
        """Cut the third site off for a while."""
        gate = self.gates[3]
        rules = [gate.firewall_drop("meta l4proto tcp", direction=each) for each in ("input", "output")]
        sleep(self._outage)
        for rule in rules:
            rule.remove()

    def restart(self) -> None:
        """End the bridge of the third site, and start it again."""
        self.running[3].process.terminate()
        self.running[3].process.wait()
        self.running[3] = self._start(3)

    def memory(self, number: int) -> int:
        """Bytes in memory of one of them."""
        return int(Path(f"/proc/{self.running[number].process.pid}/statm").read_text().split()[1]) * PAGE


@dataclass
class Outcome:
    """What came of it."""

    count: int
    outage: float
    hearers: list[Hearer]
    memory: list[int]
    """Of the bridge at the first site: after the first quarter, and at the end."""
    statuses: list[dict[str, Any]]

    def check(self) -> None:
        """Nothing doubled, nothing in another order, every ledger balanced, memory flat."""
        assert [each.doubled for each in self.hearers] == [0, 0], [each.doubled for each in self.hearers]
        assert [each.backwards for each in self.hearers] == [0, 0]
        for status in self.statuses:
            (group,) = status["groups"]
            assert group["taken"] == group["published"] + sum(group["taking_drops"].values())
            assert group["arrived"] == group["delivered"] + sum(group["sending_drops"].values())
        assert self.statuses[0]["groups"][0]["published"] == self.count
        assert self.memory[1] < self.memory[0] * 1.1 + (8 << 20), self.memory

    def check_times(self) -> None:
        """All recovered soon, once they could; for a machine that has time."""
        assert self.hearers[0].longest_gap < RECOVERED, self.hearers[0].longest_gap
        assert self.hearers[1].longest_gap < self.outage + RECOVERED + STARTED, self.hearers[1].longest_gap


def run(count: int, rate: int, events: int, outage: float = 3.0) -> Outcome:
    """Let so many datagrams through at a rate, while so many things happen; a cut lasts for `outage` seconds."""
    with sites(1, 2, 1) as places:
        ring = Ring(places, outage)
        hearers = [Hearer(bytearray(count)) for _ in places[1:]]
        with listening(places[1].host, 4) as first, listening(places[2].host, 4) as second:
            threads = [Thread(target=each.run, args=(rx,)) for each, rx in zip(hearers, (first, second), strict=True)]
            memory: list[int] = []
            for each in threads:
                each.start()
            sender = Thread(target=send, args=(places[0].host, count, rate, ring, memory))
            sender.start()
            happenings = [ring.kill_speaker, ring.cut, ring.restart]
            for number in range(events):
                sleep(count / rate / (events + 1) / 2)
                happenings[number % 3]()
                ring.wait()
            sender.join()
            sleep(1.5)
            for hearer in hearers:
                hearer.over.set()
            for each in threads:
                each.join()
            memory.append(ring.memory(0))
            return Outcome(count, outage, hearers, memory, [each.line() for each in ring.running])


def send(host: Host, count: int, rate: int, ring: Ring, memory: list[int]) -> None:
    """Send numbered datagrams at a rate."""
    with host.entered(), McastTxSocket(FAMILIES[4], iface="eth0", ttl=8) as tx:
        began = monotonic()
        for start in range(0, count, 50):
            payloads = [number.to_bytes(4, "big") * 50 for number in range(start, min(start + 50, count))]
            tx.send_many(payloads, (GROUPS[4], PORT))
            if start <= count // 4 < start + 50:
                memory.append(ring.memory(0))
            sleep(max(0.0, began + start / rate - monotonic()))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--rate", type=int, default=10_000)
    parser.add_argument("--events", type=int, default=9, help="kills, cuts and restarts, by turns")
    parser.add_argument("--outage", type=float, default=3.0, help="seconds that a cut lasts")
    arguments = parser.parse_args()
    end_with_any_thread()
    enter_private_network()
    done = run(arguments.count, arguments.rate, arguments.events, arguments.outage)
    for name, hearer in zip(("two bridges", "one bridge"), done.hearers, strict=True):
        print(
            f"site with {name}: {done.count - hearer.missing:,} of {done.count:,}, {hearer.doubled} doubled, "
            f"{hearer.backwards} out of order, longest gap {hearer.longest_gap:.2f} s"
        )
    print(f"memory: {' -> '.join(f'{each >> 20} MiB' for each in done.memory)}")
    done.check()
    done.check_times()
