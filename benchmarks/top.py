"""Measure `mcast top`: python3 -m benchmarks.top. A sender and the live table, with a core each, in a private network.

The table is drawn in full on a screen of 160 columns that no terminal shows. It prints what one datagram costs the
process, drawing and the reading of kernel drops included and its start excepted, and what was lost: 0 means that it did
not fall behind.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import socket
import time
from struct import pack

from benchmarks import network
from benchmarks.opening import INTERFACE

SIZE = 200
PORT = 5004
SLACK = 2.0
"""Seconds that the table is there before and after the datagrams."""


def main() -> None:
    """Send, show, and print the result."""
    parser = argparse.ArgumentParser(prog="python3 -m benchmarks.top", description=__doc__)
    parser.add_argument("--rate", type=int, default=100_000, help="datagrams per second")
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=float, default=10)
    options = parser.parse_args()
    network.prepare()
    network.set_interfaces(2)
    cores = sorted(os.sched_getaffinity(0))
    reading, writing = os.pipe()
    sender = os.fork()
    if sender == 0:
        os.sched_setaffinity(0, {cores[0]})
        os.read(reading, 1)
        sent = send(options.rate, options.streams, options.seconds)
        os.write(writing, b"%d" % sent)
        os._exit(0)
    os.sched_setaffinity(0, {cores[-1]})
    seen, lost, missing, seconds = asyncio.run(show(options.seconds, writing, sender))
    sent = int(os.read(reading, 100))
    per_datagram, share = 1e6 * seconds / max(seen, 1), 100 * seconds / options.seconds
    print(f"sent      {sent:,} datagrams to {options.streams:,} groups, {sent / options.seconds:,.0f} a second")
    print(f"shown     {seen:,}; {lost:,} lost by the packet socket, {missing:,} missing by their numbers")
    print(f"processor {per_datagram:.2f} µs for each, or {share:.0f} % of a core")


def send(rate: int, streams: int, seconds: float) -> int:
    """Send numbered RTP to the groups by turns; return how many datagrams."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        name = f"{INTERFACE[:-1]}0"
        index = socket.if_nametoindex(name)
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, bytes(8) + index.to_bytes(4, "little"))
        sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 0)
        places = [(f"239.5.{number // 250}.{number % 250 + 1}", PORT) for number in range(streams)]
        payload, start, number = bytes(SIZE - 12), time.perf_counter(), 0
        while (elapsed := time.perf_counter() - start) < seconds:
            due = int(elapsed * rate)
            while number < due:
                turn, place = divmod(number, streams)
                sock.sendto(pack("!BBHII", 0x80, 0, turn & 0xFFFF, turn * 160, place) + payload, places[place])
                number += 1
    return number


async def show(seconds: float, writing: int, sender: int) -> tuple[int, int, int, float]:
    """Show the table while the sender sends; return datagrams seen, lost and missing, and processor seconds."""
    from multicast_expert.cli.live import Live
    from multicast_expert.cli.top_screen import TopScreen

    live = Live([f"{INTERFACE[:-1]}1"])
    screen = TopScreen(live, seconds + 2 * SLACK)
    begins: list[float] = []

    def begin() -> None:
        begins.append(time.process_time())
        os.write(writing, b"x")

    asyncio.get_running_loop().call_later(SLACK, begin)
    await screen.run_async(headless=True, size=(160, 50))
    os.waitpid(sender, 0)
    await asyncio.sleep(0.1)  # until the kernel hands over the last block
    while live.take():
        pass
    spent = time.process_time() - begins[0]
    found = live.snapshot()
    live.close()
    missing = sum(each.numbers.lost for each in found.streams if each.numbers)
    return sum(each.datagrams for each in found.streams), found.lost, missing, spent


if __name__ == "__main__":
    main()
