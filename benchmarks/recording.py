"""Measure `mcast record` and `mcast replay` beside other programs: python3 -m benchmarks.recording.

Two hosts of the laboratory on a cable: one sends, the other records. `mcast record`, dumpcap and tcpdump take turns,
with the same traffic and buffers of 64 MiB; what counts is the processor time of the program from its first line to its
last datagram. Then `mcast replay`, tcpreplay and multicat play the same schedule by turns, and the kernel of the other
host tells when each datagram came: what counts is how late it was, beside the one that was earliest.
"""

from __future__ import annotations

import argparse
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median
from struct import pack
from typing import Any

from multicast_expert import McastRxSocket
from multicast_expert.testing import Host, Lab
from multicast_expert.wire.capture_file import CaptureFile
from multicast_expert.wire.frames import udp_packet

GROUP, PORT, SIZE = "239.1.2.3", 5000, 1000
MCAST = [sys.executable, "-m", "multicast_expert"]
FIRST_RATE, STEP, MOST_RATE = 50_000, 1.4, 400_000
"""Datagrams a second: where the search for the highest rate begins, by what it grows, and where it ends."""
REPLAYED, REPLAY_RATE = 10_000, 2000
GOALS = {"processor time / dumpcap": 1.0, "lost at dumpcap's highest rate": 0, "departure error p99 / tcpreplay": 0.5}
RECORDERS: dict[str, Callable[[str], list[str]]] = {
    "mcast": lambda file: [*MCAST, "record", file, f"{GROUP}:{PORT}", "-i", "eth0"],
    "dumpcap": lambda file: ["dumpcap", "-q", "-i", "eth0", "-B", "64", "-f", f"udp port {PORT}", "-w", file],
    "tcpdump": lambda file: ["tcpdump", "-i", "eth0", "-B", "65536", "-w", file, f"udp port {PORT}"],
}
SENDER = """
import socket, sys, time
count, rate, size = int(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
    sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("10.9.0.7"))
    sent, payload, start = 0, bytes(size), time.perf_counter()
    while sent < count:
        due = min(count, int((time.perf_counter() - start) * rate) + 1)
        while sent < due:
            sock.sendto(payload, ("239.1.2.3", 5000))
            sent += 1
"""


def main() -> int:
    """Measure, and print each number and ratio; return 1 if a goal is missed."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.recording", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--count", type=int, default=200_000, help="datagrams that are recorded in each round")
    options = parser.parse_args()
    # A shell that starts this in the background lets it, and so the recorders, ignore the interrupt that ends them.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    with Lab() as lab, tempfile.TemporaryDirectory() as folder:
        desk, camera = lab.host("desk"), lab.host("camera")
        lab.link(desk, camera, ipv4=("10.9.0.1/24", "10.9.0.7/24"))
        camera.ip("route add default dev eth0")
        found = recording(desk, camera, folder, options.rounds, options.count)
        found |= replaying(desk, camera, folder, options.rounds)
    for name, value in found.items():
        goal = GOALS[name]
        print(f"{name}: {value:.3g}; at most {goal:g}{'' if value <= goal else '  MISSED'}")
    return int(any(value > GOALS[name] for name, value in found.items()))


def recording(desk: Host, camera: Host, folder: str, rounds: int, count: int) -> dict[str, float]:
    """Return the ratio of processor times, and what is lost at the highest rate at which dumpcap loses nothing."""
    spent: dict[str, list[float]] = {name: [] for name in RECORDERS}
    for _ in range(rounds):
        for name in RECORDERS:
            seconds, lost = record(desk, camera, folder, name, count, FIRST_RATE)
            spent[name].append(1e6 * seconds / count)
            if lost:
                print(f"{name} lost {lost:,} of {count:,} at {FIRST_RATE:,} a second")
    for name, times in spent.items():
        print(f"record   {name:9} {median(times):.2f} µs of processor time for each of {SIZE} bytes")
    rate, best = float(FIRST_RATE), None
    while rate < MOST_RATE and not record(desk, camera, folder, "dumpcap", count, rate)[1]:
        best, rate = rate, rate * STEP
    found = {"processor time / dumpcap": median(spent["mcast"]) / median(spent["dumpcap"])}
    if best is not None:
        lost = median(record(desk, camera, folder, "mcast", count, best)[1] for _ in range(rounds))
        print(f"record   dumpcap loses nothing at {best:,.0f} a second; mcast loses {lost:g} of {count:,} there")
        found["lost at dumpcap's highest rate"] = lost
    return found


def record(desk: Host, camera: Host, folder: str, name: str, count: int, rate: float) -> tuple[float, int]:
    """Record so many datagrams; return the processor seconds that it took, and how many are missing."""
    file = Path(folder) / f"{name}.pcapng"
    process = desk.popen(RECORDERS[name](str(file)), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)
    while not process.stderr.readline().startswith((b"recording", b"File:", b"tcpdump: listening")):
        pass
    before = processor_seconds(process.pid)
    send = camera.popen([sys.executable, "-c", SENDER, str(count), str(rate), str(SIZE)])
    send.wait()
    time.sleep(1)
    spent = processor_seconds(process.pid) - before
    process.send_signal(signal.SIGINT)
    process.communicate()
    with file.open("rb") as opened:
        missing = count - sum(1 for _ in CaptureFile(opened))
    file.unlink()
    return spent, missing


def processor_seconds(process: int) -> float:
    """What all threads of a process have used so far, to the nanosecond (proc(5), schedstat)."""
    return sum(int(each.read_text().split()[0]) for each in Path(f"/proc/{process}/task").glob("*/schedstat")) / 1e9


def replaying(desk: Host, camera: Host, folder: str, rounds: int) -> dict[str, float]:
    """Return the ratio of the departure errors."""
    file = f"{folder}/schedule.pcap"
    schedule = write_schedule(Path(file))
    players = {
        "mcast": [*MCAST, "replay", file, "-i", "eth0"],
        "tcpreplay": ["tcpreplay", "-q", "-i", "eth0", file],
        "multicat": ["multicat", "-U", "-m", str(SIZE), f"{folder}/schedule.ts", f"{GROUP}:{PORT}@10.9.0.7"],
    }
    errors: dict[str, list[float]] = {name: [] for name in players}
    for _ in range(rounds):
        for name, command in players.items():
            errors[name].append(desk.run(play, camera, command, schedule))
    for name, each in errors.items():
        print(f"replay   {name:9} 99 % of {REPLAYED:,} left within {1e6 * median(each):,.0f} µs of their time")
    return {"departure error p99 / tcpreplay": median(errors["mcast"]) / median(errors["tcpreplay"])}


def write_schedule(path: Path) -> list[int]:
    """Write numbered datagrams at random distances; return their times in nanoseconds.

    As a pcap file; and for multicat their payloads (`.ts`) with a file of their times in ticks of 27 MHz (`.aux1000`).
    """
    random, time_ns, times = Random(1), 1_700_000_000_000_000_000, []
    ethernet = bytes.fromhex("01005e010203 020000000007 0800")
    blocks, payloads = [pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 262144, 1)], []
    for number in range(REPLAYED):
        payloads.append(number.to_bytes(4, "big") + bytes(SIZE - 4))
        frame = ethernet + udp_packet(("10.9.0.7", 4000), (GROUP, PORT), payloads[-1])
        seconds, rest = divmod(time_ns, 10**9)
        blocks.append(pack("<IIII", seconds, rest, len(frame), len(frame)) + frame)
        times.append(time_ns)
        time_ns += int(1e9 * random.expovariate(REPLAY_RATE))
    path.write_bytes(b"".join(blocks))
    path.with_suffix(".ts").write_bytes(b"".join(payloads))
    path.with_suffix(f".aux{SIZE}").write_bytes(b"".join(pack(">Q", 27 * (each - times[0]) // 1000) for each in times))
    return times


def play(camera: Host, command: list[str], schedule: list[int]) -> float:
    """Let a program play; return the 99th percentile of how late datagrams came, in seconds."""
    options: dict[str, Any] = {"timestamps": True, "gro": False, "receive_buffer": "largest", "timeout": 5}
    with McastRxSocket(socket.AF_INET, [GROUP], PORT, "eth0", **options) as receiver:
        process = camera.popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        # Reading while it plays would take processor time from it.
        process.wait()
        receiver.settimeout(0)
        late = sorted((each.timestamp_ns or 0) - schedule[int.from_bytes(each.data[:4], "big")] for each in receiver)
    if len(late) < REPLAYED:
        print(f"{command[0]}: {REPLAYED - len(late):,} datagrams are missing")
    return (late[int(0.99 * len(late))] - late[0]) / 1e9


if __name__ == "__main__":
    os.environ["PYTHONUNBUFFERED"] = "1"
    sys.exit(main())
