"""What the kernel's verdict costs a stream that arrives: `python3 -m benchmarks.verdict [SECONDS] [ROUNDS]`, as root.

Two hosts of the lab are joined by a veth pair. One sends 100,000 datagrams a second, the other receives them; a watch
of dropped datagrams is attached in every second round. It prints the rate that was reached, the loss, and the processor
time of sender and receiver with the watch over that without, as the median of neighbouring rounds. Run it on a quiet
machine.
"""

import resource
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import Process, get_context
from statistics import median
from typing import NamedTuple

from multicast_expert.sockets.receiver import McastRxSocket
from multicast_expert.sockets.transmitter import McastTxSocket
from multicast_expert.system.drops.watch import open_watch
from multicast_expert.testing import Host, Lab, enter_private_network

GROUP, PORT = "239.1.2.3", 5000
RATE, BATCH = 100_000, 500


class Round(NamedTuple):
    """What one round took."""

    rate: float
    """Datagrams that were sent in a second."""
    lost: int
    cost: float
    """Processor time for each of them, in microseconds."""


def send(seconds: float, results: "Callable[[object], None]") -> None:
    """Send at RATE for so long, and tell the number, the time and the processor time."""
    # Each is longer than the one before, so that none leaves as a segment of a large packet (GSO).
    payloads = [bytes(100 + number) for number in range(BATCH)]
    sent = 0
    with McastTxSocket(socket.AF_INET, [GROUP], iface="eth0") as sender:
        start, used = time.monotonic(), cpu_time()
        while time.monotonic() < start + seconds:
            sent += sender.send_many(payloads, (GROUP, PORT))
            time.sleep(max(0.0, start + sent / RATE - time.monotonic()))
        results((sent, time.monotonic() - start, cpu_time() - used))


def receive(results: "Callable[[object], None]") -> None:
    """Receive until nothing comes for a second, and tell the number and the processor time."""
    number = 0
    with McastRxSocket(socket.AF_INET, [GROUP], PORT, iface="eth0", receive_buffer=4 << 20) as receiver:
        used = cpu_time()
        results("ready")
        try:
            while True:
                number += len(receiver.receive_many(limit=BATCH, timeout=1.0 if number else 10.0))
        except TimeoutError:
            results((number, cpu_time() - used))


def cpu_time() -> float:
    """Seconds of processor time of this process, in user and kernel mode."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run_round(listener: Host, talker: Host, seconds: float, watched: bool) -> Round:
    """Return what the stream took, with a watch or without."""
    context = get_context("fork")
    ends = [context.Pipe(False) for _ in range(2)]
    watch = listener.run(open_watch) if watched else None
    try:
        into: Process = context.Process(target=receive, args=(ends[0][1].send,))
        listener.run(into.start)
        assert ends[0][0].recv() == "ready"
        out: Process = context.Process(target=send, args=(seconds, ends[1][1].send))
        talker.run(out.start)
        sent, taken, sending = ends[1][0].recv()
        received, receiving = ends[0][0].recv()
        into.join()
        out.join()
    finally:
        if watch is not None:
            watch.close()
    return Round(sent / taken, sent - received, (sending + receiving) / sent * 1e6)


def main(seconds: float = 5, rounds: int = 5) -> None:
    """Measure by turns, and print."""
    enter_private_network()
    with Lab() as lab:
        listener, talker = lab.host("listener"), lab.host("talker")
        lab.link(listener, talker, ipv4=("10.1.0.1/24", "10.1.0.2/24"))
        ratios, lost = [], {False: 0, True: 0}
        for turn in range(rounds):
            found = {}
            for watched in (False, True) if turn % 2 else (True, False):
                found[watched] = run_round(listener, talker, seconds, watched)
                lost[watched] += found[watched].lost
            ratios.append(found[True].cost / found[False].cost)
            for watched, each in sorted(found.items()):
                print(
                    f"{'with' if watched else 'without'} the watch: {each.rate:,.0f} datagrams a second, {each.lost:,}"
                    f" lost, {each.cost:.3f} us of processor time for each"
                )
    print(f"lost: {lost[False]:,} without the watch, {lost[True]:,} with it")
    print(f"processor time with over without: {median(ratios):.3f} (from {min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    main(*(float(each) for each in sys.argv[1:2]), *(int(each) for each in sys.argv[2:3]))
