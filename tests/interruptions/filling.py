"""Much data into buffers, while memberships and signals come and go, with a ledger.

    PYTHONPATH=tests python -m interruptions.filling --count N [--no-gro] [--buffer BYTES] [--seed S]

A child sends N numbered datagrams to each of three groups, of equal lengths for a while and of different ones. They are
received by `receive_into`, into buffers of all sizes; signals interrupt that, a thread joins and leaves other groups of
the same port, and closes other receivers. What came and what the kernel counts as dropped are what was sent; none comes
twice, or out of order. It runs in a network of its own. The exit status is 0 when all went well, else 1.
"""

import argparse
import random
import signal
import struct
import threading
import time
from typing import Any

from interruptions.programs.interrupting import Interrupted, call_after
from interruptions.programs.parts import PORT, Thread, fork, moment, receiver, transmitter
from multicast_expert import DatagramBuffer
from multicast_expert.testing import enter_private_network

GROUPS = [f"239.1.2.{number}" for number in range(1, 4)]
OTHERS = [f"239.1.3.{number}" for number in range(1, 9)]
HEAD = struct.Struct("<QQ")
"""The group, as a place in GROUPS, and the number of the datagram."""
OTHER = b"to another group"
PAUSE = 1e-4
"""Seconds between two runs."""
QUIET = 2.0
"""Seconds without a datagram after which none comes any more."""


def send_all(count: int, plan: random.Random) -> None:
    """Send to each group the numbers below `count`, in runs."""
    numbers = [0] * len(GROUPS)
    with transmitter(heal=False) as tx:
        while min(numbers) < count:
            place = plan.choice([place for place, number in enumerate(numbers) if number < count])
            first = numbers[place]
            numbers[place] = end = min(count, first + plan.choice([1, 5, 64, 200]))
            length = plan.choice([0, 8, 100, 1400]) if first // 1000 % 4 == 0 else 24
            tx.send_many(
                [HEAD.pack(place, number) + bytes(length) for number in range(first, end)], (GROUPS[place], PORT)
            )
            tx.sendto(OTHER, (plan.choice(OTHERS), PORT))
            time.sleep(PAUSE)


class Ledger:
    """What came, by group."""

    def __init__(self) -> None:
        self.next = [0] * len(GROUPS)
        """The least number that may come now."""
        self.received = 0
        self.others = 0

    def enter(self, buffer: DatagramBuffer) -> None:
        """Check and count all that a buffer holds."""
        data, origins = buffer.data, buffer.origins
        for offset, length, source in zip(buffer.offsets, buffer.lengths, buffer.sources, strict=True):
            group = origins[source].group
            if group not in GROUPS:
                assert group in OTHERS
                assert data[offset : offset + length] == OTHER
                self.others += 1
                continue
            place, number = HEAD.unpack_from(data, offset)
            assert GROUPS[place] == group
            assert not any(data[offset + HEAD.size : offset + length])
            assert number >= self.next[place], f"{group}: {number} came twice, or late: {self.next[place]} was next"
            self.next[place] = number + 1
            self.received += 1


def churn(rx: Any, over: threading.Event, plan: random.Random) -> None:
    """Join and leave other groups, and open and close another receiver."""
    while not over.wait(plan.random() * 0.003):
        group = plan.choice(OTHERS)
        rx.join_group(group)
        over.wait(plan.random() * 0.003)
        rx.leave_group(group)
        if plan.random() < 0.2:
            receiver(GROUPS[:1]).open().close()


def fill(rx: Any, buffer: DatagramBuffer) -> bool:
    """Receive into the buffer until a signal comes, or nothing; return whether a signal came."""
    interrupting = True

    def interrupt(*_: object) -> None:
        if interrupting:
            raise Interrupted

    try:
        try:
            call_after(moment(0.02), interrupt)
            while not buffer.is_full:
                rx.receive_into(buffer, timeout=0.05)
        finally:
            interrupting = False
    except Interrupted:
        return True
    except TimeoutError:
        return False
    return False


def run(count: int, gro: bool, size: int | str, seed: str) -> str:
    """Send and receive so many for each group; return what happened. Raises AssertionError."""
    plan, ledger, over = random.Random(seed), Ledger(), threading.Event()
    interrupts = 0
    with receiver(GROUPS, receive_buffer=size, gro=gro) as rx:
        child = fork(lambda: send_all(count, random.Random(f"{seed}/sender")))
        churning = Thread(churn, rx, over, random.Random(f"{seed}/churn"))
        quiet = begun = time.monotonic()
        while ledger.next != [count] * len(GROUPS) and time.monotonic() < quiet + QUIET:
            buffer = DatagramBuffer(plan.choice([1, 10, 1000, 9000]), plan.choice([65535, 100_000, 1 << 22]))
            interrupts += fill(rx, buffer)
            ledger.enter(buffer)
            quiet = time.monotonic() if len(buffer) else quiet
        signal.setitimer(signal.ITIMER_REAL, 0)
        over.set()
        churning.finish()
        child.join()
        stats = rx.stats()
    missing = len(GROUPS) * count - ledger.received
    text = (
        f"{ledger.received} received, {missing} missing, {stats.kernel_drops} dropped by the kernel, "
        f"{ledger.others} of other groups, {interrupts} interrupts, in {time.monotonic() - begun:.0f} s, seed {seed}"
    )
    assert stats.datagrams == ledger.received + ledger.others, text
    # A run that the kernel coalesced counts as one drop.
    assert missing <= stats.kernel_drops or (gro and stats.kernel_drops), text
    return text


def main() -> None:
    """Run it in a network of its own."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=100_000, help="how many datagrams for each of the three groups")
    parser.add_argument("--no-gro", action="store_true", help="each datagram comes on its own")
    parser.add_argument("--buffer", type=int, help="bytes of the receive buffer; as many as the OS grants")
    parser.add_argument("--seed", default=str(random.randrange(10**6)), help="what the plans are made of")
    arguments = parser.parse_args()
    enter_private_network()
    print(run(arguments.count, not arguments.no_gro, arguments.buffer or "largest", arguments.seed))


if __name__ == "__main__":
    main()
