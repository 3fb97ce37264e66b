"""Measure `mcast bridge` beside a relay in C and a plain one in Python: python3 -m benchmarks.bridging.

Two sites and a cable between them, in a private network; a C program sends datagrams of 1,000 bytes at one site, and
this one receives at the other. Each pair of relays in its turn carries them. It prints what a datagram costs in
processor time, user and system, both relays together, what was lost, and the delay at 1,000 a second. The relay in C
does the least that is possible: recvmmsg, one TCP connection, sendmmsg. With --check it fails unless `LIMITS` hold.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, sleep
from typing import NamedTuple

from multicast_expert import DatagramBuffer, McastRxSocket
from multicast_expert.testing import Host, Lab, enter_private_network

GROUP, PORT = "239.200.0.1", 5000
SLOW_RATE, SLOW_COUNT = 1000, 3000
LIMITS = {"processor time / C": 2.5, "delay, 99th percentile, ms": 3.0, "lost": 0}
"""Of the bridge."""
TICKS = os.sysconf("SC_CLK_TCK")
PATIENCE = 20.0

PLAIN = """
import socket, struct, sys
mode, group, port, own, *rest = sys.argv[1:]
own, to = socket.inet_aton(own), (group, int(port))
if mode == "take":
    rx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    rx.setsockopt(socket.SOL_SOCKET, 33, 8 << 20)
    rx.bind(to)
    rx.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + own)
    tcp = socket.create_connection((rest[0], int(rest[1])))
    tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while True:
        data = rx.recv(65535)
        tcp.sendall(struct.pack("H", len(data)) + data)
tx = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
tx.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, own)
tx.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 8)
stream = socket.create_server(("0.0.0.0", int(rest[0]))).accept()[0].makefile("rb")
while head := stream.read(2):
    tx.sendto(stream.read(*struct.unpack("H", head)), to)
"""


class Way(NamedTuple):
    """One pair of relays: the command lines of the one that takes and of the one that gives."""

    label: str
    take: Sequence[str]
    give: Sequence[str]


class Outcome(NamedTuple):
    """What one run gave."""

    microseconds: float
    """Processor time of both relays for each datagram."""
    lost: int
    rate: float
    """Datagrams a second that were sent."""


def ways(relay: Path) -> list[Way]:
    """Return what is measured."""
    mcast = [sys.executable, "-m", "multicast_expert", "bridge", f"{GROUP}:{PORT}", "-i", "eth0"]
    found = [Way("mcast bridge", [*mcast, "--connect", "tcp/10.9.0.2:7000"], [*mcast, "--listen", "tcp/0.0.0.0:7000"])]
    for label, program in (("C", [str(relay)]), ("plain Python", [sys.executable, "-c", PLAIN])):
        take = [*program, "take", GROUP, str(PORT), "10.1.0.1", "10.9.0.2", "7000"]
        found.append(Way(label, take, [*program, "give", GROUP, str(PORT), "10.2.0.1", "7000"]))
    return found


@contextmanager
def network() -> Iterator[tuple[Host, Host, Host, Host]]:
    """Two sites: sender, gate, gate, receiver."""
    with Lab() as lab:
        sender, near, far, receiver = (lab.host(name) for name in ("sender", "near", "far", "receiver"))
        lab.link(sender, near, ipv4=("10.1.0.2/24", "10.1.0.1/24"))
        lab.link(far, receiver, ipv4=("10.2.0.1/24", "10.2.0.2/24"))
        lab.link(near, far, interface="wan", second_interface="wan", ipv4=("10.9.0.1/24", "10.9.0.2/24"))
        yield sender, near, far, receiver


@contextmanager
def running(way: Way, near: Host, far: Host) -> Iterator[list[int]]:
    """Let the pair run inside of the block; give the numbers of its processes."""
    giving = far.popen(way.give, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    sleep(1.5)
    taking = near.popen(way.take, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield [taking.pid, giving.pid]
    finally:
        near.end_process(taking)
        far.end_process(giving)


def processor_time(numbers: Sequence[int]) -> float:
    """Return the seconds that the processes have used."""
    ticks = 0
    for number in numbers:
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / TICKS


class Listener:
    """Receives at the far site."""

    def __init__(self, rx: McastRxSocket) -> None:
        self._rx = rx
        self._buffer = DatagramBuffer(4096, 8 << 20)
        self.delays: list[float] = []

    def receive(self, count: int, *, measures: bool = False) -> int:
        """Receive until nothing more comes, or `count` did; return how many."""
        came = 0
        while came < count:
            try:
                came += self._rx.receive_into(self._buffer, timeout=1.0)
            except TimeoutError:
                break
            if measures:
                sent = (int.from_bytes(self._buffer[row].data[8:16], "little") for row in range(len(self._buffer)))
                times = self._buffer.timestamps_ns
                self.delays += [(time - stamp) / 1e6 for time, stamp in zip(times, sent, strict=True)]
            self._buffer.clear()
        return came


def load(relay: Path, sender: Host, rate: int, count: int) -> subprocess.Popen[str]:
    """Start to send."""
    words = [str(relay), "load", GROUP, str(PORT), "10.1.0.2", str(rate), str(count)]
    process: subprocess.Popen[str] = sender.popen(words, stdout=subprocess.PIPE, text=True)
    return process


def measure(way: Way, relay: Path, rate: int, count: int) -> tuple[Outcome, list[float]]:
    """Let a pair carry so many at this rate; return what came of it, and the delays at the slow rate in ms."""
    with network() as (sender, near, far, receiver), receiver.entered():
        with (
            McastRxSocket(socket.AF_INET, [GROUP], PORT, iface="eth0", receive_buffer="largest", timestamps=True) as rx,
            running(way, near, far) as numbers,
        ):
            listener = Listener(rx)
            deadline = monotonic() + PATIENCE
            while not listener.receive(1):
                if monotonic() > deadline:
                    raise SystemExit(f"{way.label}: nothing arrives")
                load(relay, sender, 100, 10).wait()
            sleep(0.5)
            listener.receive(1000)
            slow = load(relay, sender, SLOW_RATE, SLOW_COUNT)
            listener.receive(SLOW_COUNT, measures=True)
            slow.wait()
            before = processor_time(numbers)
            sending = load(relay, sender, rate, count)
            came = listener.receive(count)
            sent, seconds = (sending.communicate()[0] or "0 1").split()
            used = processor_time(numbers) - before
            return Outcome(used / max(came, 1) * 1e6, count - came, int(sent) / float(seconds)), listener.delays


def percentile(values: Sequence[float], part: float) -> float:
    """Return the value below which this part of them lies."""
    return sorted(values)[min(len(values) - 1, int(len(values) * part))] if values else float("nan")


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.bridging", description=__doc__)
    parser.add_argument("--rate", type=int, default=50_000, help="datagrams a second (default 50000)")
    parser.add_argument("--count", type=int, default=200_000, help="datagrams of each run (default 200000)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers there")
    parser.add_argument("--check", action="store_true", help="fail unless the limits hold")
    arguments = parser.parse_args()
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise SystemExit("no C compiler")
    enter_private_network()
    outcomes: dict[str, list[Outcome]] = {}
    delays: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as directory:
        relay = Path(directory) / "relay"
        subprocess.run([compiler, "-O2", "-o", relay, Path(__file__).with_name("relay.c")], check=True)
        for _ in range(arguments.rounds):
            for way in ways(relay):
                outcome, found = measure(way, relay, arguments.rate, arguments.count)
                outcomes.setdefault(way.label, []).append(outcome)
                delays.setdefault(way.label, []).extend(found)
    return report(outcomes, delays, arguments)


def report(outcomes: dict[str, list[Outcome]], delays: dict[str, list[float]], arguments: argparse.Namespace) -> int:
    """Print the numbers; return the exit status."""
    costs = {label: median(each.microseconds for each in found) for label, found in outcomes.items()}
    print(f"{'relays':<14}{'µs/datagram':>12}{'/ C':>7}{'lost':>9}{'sent/s':>10}{'delay p50':>11}{'p99 ms':>8}")
    for label, found in outcomes.items():
        lost, rate = min(each.lost for each in found), median(each.rate for each in found)
        slow = [percentile(delays[label], part) for part in (0.5, 0.99)]
        print(
            f"{label:<14}{costs[label]:>12.2f}{costs[label] / costs['C']:>7.2f}{lost:>9,}{rate:>10,.0f}"
            f"{slow[0]:>11.3f}{slow[1]:>8.3f}"
        )
    ours = outcomes["mcast bridge"]
    values = {
        "processor time / C": costs["mcast bridge"] / costs["C"],
        "delay, 99th percentile, ms": percentile(delays["mcast bridge"], 0.99),
        "lost": min(each.lost for each in ours),
    }
    held = {name: value <= LIMITS[name] for name, value in values.items()}
    for name, value in values.items():
        print(f"{name}: {value:.3g}, at most {LIMITS[name]:g}: {'held' if held[name] else 'not held'}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"outcomes": outcomes, "values": values}, indent=1), encoding="utf-8")
    return 0 if all(held.values()) or not arguments.check else 1


if __name__ == "__main__":
    sys.exit(main())
