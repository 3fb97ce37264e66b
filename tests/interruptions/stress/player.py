"""One process of the stress run: a face, interrupted as its plan says, generation after generation of receivers.

    python -m interruptions.stress.player FACE BOARD SEED SECONDS FIRST

Generation N does what `random.Random("SEED/FACE/N")` says. The threads, the kernel and the signals keep their own time.
"""

import asyncio
import contextlib
import faulthandler
import logging
import random
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from interruptions.programs import forking
from interruptions.programs.interrupting import (
    LOOPS,
    Interrupted,
    call_after,
    note_what_is_logged,
    take_for_ever,
)
from interruptions.programs.parts import (
    CHILD_PATIENCE,
    NEW_GROUP,
    PORT,
    Thread,
    async_receiver,
    descriptors,
    fork,
    moment,
    receiver,
    run_on,
    send,
    transmitter,
    wait_until,
)
from interruptions.stress.ledger import Board, Ledger
from multicast_expert import AsyncMcastSocket, McastSocket, MulticastExpertError, MulticastOSError
from watched import end_with_any_thread

STEADY = [f"239.1.2.{number}" for number in range(1, 9)]
"""Groups on the loopback interface, of which each datagram is accounted for."""
FLAPPING = ["239.1.4.1", "239.1.4.2"]
"""Groups on an interface that comes and goes: none twice, and none that was not joined."""
HUNG = 60.0
"""Seconds after which a generation counts as hung."""


class Generation:
    """One receiver from its opening to its end: a thread acts on it by a plan while others receive."""

    def __init__(self, face: str, board: Board, plan: random.Random, counts: dict[str, int]) -> None:
        self.plan = plan
        self.counts = counts
        self.ledger = Ledger(board, STEADY)
        self.groups = plan.sample(STEADY, plan.randint(1, 5))
        self.ending = plan.choice(["from the side", "by the owner", "in a handler"])
        self.over = threading.Event()
        self.drops = 0
        blocking = face == "blocking"
        self.both_ways = plan.random() < 0.4
        """Whether it is a socket that sends from the same port, too, and whose descriptor was asked for."""
        if self.both_ways:
            kind = McastSocket if blocking else AsyncMcastSocket
            self.rx: Any = kind(socket.AF_INET, self.groups, PORT, "lo", unicast=False, receive_buffer=200_000)
        else:
            self.rx = (receiver if blocking else async_receiver)(self.groups, receive_buffer=200_000)
        self.post: Callable[[Callable[[], None]], None] = lambda function: function()
        """Does something where the receiver is used: in its event loop, if it has one."""

    def open(self) -> None:
        """Open the receiver, and join a group on the interface that comes and goes if it is there."""
        for group in self.groups:
            self.ledger.before_join(group)
        self.rx.open()
        if self.both_ways and self.plan.random() < 0.5:
            self.rx.fileno()
        for group in self.groups:
            self.ledger.joined(group)
        if self.plan.random() < 0.5:
            self.join(self.plan.choice(FLAPPING), "flap0")

    def join(self, group: str, interface: str) -> None:
        """Join a group, if the interface is there."""
        self.ledger.before_join(group)
        try:
            self.rx.join_group(group, iface=interface)
        except MulticastExpertError:
            if interface == "lo":
                raise
            self.ledger.joined(group)  # for a moment, perhaps
            self.ledger.left(group)
        else:
            self.ledger.joined(group)
            self.counts["joins"] += 1

    def known_drops(self) -> int:
        """Return how many datagrams the kernel has dropped."""
        self.drops = self.rx.stats().kernel_drops or 0
        return self.drops

    def act(self) -> None:
        """Do what the plan says, and then let the receiver be closed."""
        actions = [self.join_one, self.leave_one, self.fork_one, self.send_one, self.block_one, self.ask]
        try:
            for _ in range(self.plan.randint(3, 25)):
                time.sleep(self.plan.random() ** 2 * 0.02)
                self.plan.choice(actions)()
            for group in self.groups:
                self.ledger.before_leave(group)
            for group in self.groups:
                self.ledger.settle(group, self.known_drops)
        finally:
            self.end()

    def end(self) -> None:
        """Let the receiver be closed, in the way that the plan has chosen."""
        self.over.set()
        if self.ending == "from the side":
            self.rx.close()

    def join_one(self) -> None:
        """Join a group more."""
        others = [group for group in STEADY if group not in self.groups]
        if others:
            group = self.plan.choice(others)
            self.join(group, "lo")
            self.groups.append(group)

    def leave_one(self) -> None:
        """Leave a group, once all that was sent to it is there."""
        if len(self.groups) > 1:
            group = self.groups.pop(self.plan.randrange(len(self.groups)))
            self.ledger.before_leave(group)
            self.ledger.settle(group, self.known_drops)
            self.rx.leave_group(group, iface="lo")
            self.ledger.left(group)
            self.counts["leaves"] += 1

    def fork_one(self) -> None:
        """Let a child do something to what it inherited; from this thread, or from that of the receiver."""
        child = self.plan.choice(CHILDREN)

        def act() -> None:
            # The interface may go in the middle of it.
            with contextlib.suppress(MulticastOSError):
                child(self.rx)

        children: list[Any] = []
        if self.plan.random() < 0.5:
            children.append(fork(act))
        else:
            self.post(lambda: children.append(fork(act)))
            wait_until(lambda: children, "the event loop runs")
        children[0].join()
        self.counts["forks"] += 1

    def send_one(self) -> None:
        """Send to a group that no receiver has joined, from the receiver's own port if it can."""
        if self.both_ways and isinstance(self.rx, McastSocket):
            self.rx.sendto(b"x", ("239.1.9.9", PORT), iface="lo")
        with transmitter(heal=self.plan.random() < 0.5) as tx:
            tx.sendto(b"x", ("239.1.9.9", PORT), hop_limit=self.plan.choice([None, 3]))
            tx.send_many([b"x"] * 5, ("239.1.9.9", PORT))

    def block_one(self) -> None:
        """Block a source that sends nothing, and unblock it."""
        group = self.plan.choice(self.groups)
        self.rx.block_source(group, "10.99.99.99", iface="lo")
        self.rx.unblock_source(group, "10.99.99.99", iface="lo")

    def ask(self) -> None:
        """Ask for what can be asked."""
        self.known_drops()
        assert len(self.rx.filenos()) >= 1
        assert {*self.groups} <= {*self.rx.mcast_ips}

    def check(self) -> None:
        """Check the ledger when all have ended."""
        self.ledger.close(self.drops)
        self.counts["received"] += self.ledger.received
        self.counts["dropped"] += self.ledger.missing


def join_in_child(rx: Any) -> None:
    """Join a group that the parent has not, and hear it; what the parent had joined may be heard, too."""
    if not hasattr(rx, "__anext__"):
        rx.join_group(NEW_GROUP)
        send(b"for the child", NEW_GROUP)
        while rx.receive(timeout=CHILD_PATIENCE / 2).data != b"for the child":
            pass


CHILDREN = [forking.close, forking.leave, forking.block, forking.ask, join_in_child]


# The faces


def play_blocking(generation: Generation) -> None:
    """Receive in this thread, which signals interrupt, and in others, which they do not."""
    rx, got = generation.rx, generation.ledger.got
    generation.open()

    def receive_to_the_end(loop: str) -> None:
        with contextlib.suppress(MulticastExpertError):
            LOOPS[loop](rx, got)

    def interrupt(*_: object) -> None:
        generation.counts["signals"] += 1
        if generation.over.is_set() and generation.ending == "in a handler":
            rx.close()
            return
        if not rx.is_opened:
            return
        if random.random() < 0.5 or generation.over.is_set():
            raise Interrupted
        # One that returns, after using the receiver: it may be closed meanwhile.
        with contextlib.suppress(MulticastExpertError):
            rx.stats()
        call_after(moment(0.01), interrupt)

    others = [Thread(receive_to_the_end, random.choice([*LOOPS])) for _ in range(generation.plan.randint(0, 2))]
    acting = Thread(generation.act)
    while rx.is_opened:
        try:
            call_after(moment(0.01), interrupt)
            LOOPS[random.choice([*LOOPS])](rx, got)
        except Interrupted:
            if generation.over.is_set() and generation.ending == "by the owner":
                rx.close()
        except MulticastExpertError:
            break
    signal.setitimer(signal.ITIMER_REAL, 0)
    for thread in (acting, *others):
        thread.finish()
    generation.check()


def play_on_a_loop(face: str, generation: Generation) -> None:
    """Receive in tasks, which are cancelled again and again; signals interrupt the loop, and cancel a task."""
    rx, got = generation.rx, generation.ledger.got
    tasks: list[Any] = []

    def interrupt(*_: object) -> None:
        generation.counts["signals"] += 1
        if generation.over.is_set() and generation.ending == "in a handler":
            with contextlib.suppress(MulticastExpertError):
                rx.close()
        if not rx.is_opened:
            # No timer may be left: one that runs out when the interpreter has ended kills the process.
            return
        if tasks and face != "trio":
            random.choice(tasks).cancel()
            asyncio.get_running_loop().call_soon_threadsafe(lambda: None)
        call_after(moment(0.01), interrupt)

    async def receive_to_the_end() -> None:
        with contextlib.suppress(MulticastExpertError):
            while True:
                if generation.over.is_set() and generation.ending == "by the owner" and rx.is_opened:
                    rx.close()
                await (cancel_on_trio if face == "trio" else cancel_on_asyncio)(rx, got, tasks)

    async def body() -> None:
        generation.open()
        call_after(moment(0.01), interrupt)
        count = generation.plan.randint(1, 3)
        if face == "trio":
            import trio

            generation.post = trio.lowlevel.current_trio_token().run_sync_soon
            async with trio.open_nursery() as nursery:
                acting = Thread(generation.act)
                for _ in range(count):
                    nursery.start_soon(receive_to_the_end)
        else:
            generation.post = asyncio.get_running_loop().call_soon_threadsafe
            acting = Thread(generation.act)
            await asyncio.gather(*(receive_to_the_end() for _ in range(count)))
        signal.setitimer(signal.ITIMER_REAL, 0)
        while acting.is_alive():
            await forking.pause(face, 0.001)
        acting.finish()
        generation.check()

    run_on(face, body)


async def cancel_on_asyncio(rx: Any, got: list[Any], tasks: list[Any]) -> None:
    """Receive in a task until it is cancelled, by this one or by a signal."""
    task = asyncio.ensure_future(take_for_ever(rx, got))
    tasks.append(task)
    try:
        await asyncio.wait([task], timeout=moment(0.03))
    finally:
        task.cancel()
        tasks.remove(task)
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def cancel_on_trio(rx: Any, got: list[Any], tasks: list[Any]) -> None:
    """Receive until trio moves on."""
    import trio

    with trio.move_on_after(moment(0.03)):
        await take_for_ever(rx, got)


def main(face: str, path: str, seed: str, seconds: float, first: int, name: str) -> None:
    """Play generations until the time is over; report, and check that nothing accumulates."""
    faulthandler.enable()
    errors = note_what_is_logged(logging.ERROR)
    board = Board(path, [*STEADY, *FLAPPING])
    counts = dict.fromkeys(("generations", "received", "dropped", "signals", "forks", "joins", "leaves"), 0)
    memory: list[int] = []
    end, tell = time.monotonic() + seconds, time.monotonic() + 5
    number = first
    # It keeps the watch for interface changes between the generations, so that counts can be compared.
    with receiver(["239.1.8.8"]):
        baseline = 0
        while time.monotonic() < end or number < first + 2:
            faulthandler.dump_traceback_later(HUNG, exit=True)
            try:
                play(face, Generation(face, board, random.Random(f"{seed}/{face}/{number}"), counts))
                baseline = baseline or descriptors()
                assert not errors, errors
                check_descriptors(baseline)
            except BaseException:
                print(f"{name}: generation {number} failed", file=sys.stderr, flush=True)
                raise
            counts["generations"] += 1
            number += 1
            memory.append(resident())
            if time.monotonic() > tell:
                tell += 5
                print(f"{name}: {told(counts)}, {memory[-1] // 1024} MiB", flush=True)
    faulthandler.cancel_dump_traceback_later()
    print(f"{name} ended: {told(counts)}", flush=True)
    assert counts["received"] > seconds, "hardly anything was received"
    quarter = len(memory) // 4
    if quarter >= 10:
        grown = median(memory[-quarter:]) - median(memory[quarter : 2 * quarter])
        assert grown < 4096 + memory[0] // 20, f"{name}: memory grew by {grown} KiB in {len(memory)} generations"


def play(face: str, generation: Generation) -> None:
    """Play one generation on its face."""
    if face == "blocking":
        play_blocking(generation)
    else:
        play_on_a_loop(face, generation)


def check_descriptors(baseline: int) -> None:
    """Wait until no more descriptors are open than at the beginning; AssertionError when that does not happen."""
    wait_until(lambda: descriptors() <= baseline, lambda: f"{descriptors() - baseline} descriptors leaked")


def told(counts: dict[str, int]) -> str:
    """Return the counts in words."""
    return ", ".join(f"{count} {what}" for what, count in counts.items())


def resident() -> int:
    """Return the memory of this process in KiB."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0])


if __name__ == "__main__":
    end_with_any_thread()
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
