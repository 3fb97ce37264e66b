"""Programs that fork while another thread, or a task, uses a receiver or a transmitter."""

import asyncio
import contextlib
import functools
import itertools
import multiprocessing
import os
import random
import time
from collections.abc import Callable
from typing import Any

from interruptions.programs.interrupting import Listener
from interruptions.programs.parts import (
    CHILD_PATIENCE,
    NEW_GROUP,
    PATIENCE,
    PORT,
    Child,
    Numbering,
    Thread,
    async_receiver,
    check_ledger,
    fork,
    groups_of,
    moment,
    receiver,
    run_on,
    send,
    transmitter,
    wait_until,
)
from multicast_expert import MulticastExpertError

WAITING = 0.5
"""Seconds for which the parent waits in vain and must not use the processor."""
BUSY = 0.2
"""Part of that time that it may use: waking once, and what the machine charges to it."""


# What children do with what they inherited. None of it may reach the parent.


def close(rx: Any) -> None:
    """Close it."""
    rx.close()


def leave_the_block(rx: Any) -> None:
    """Leave the `with` block that the parent entered."""
    rx.__exit__(None, None, None)


def leave(rx: Any) -> None:
    """Leave all groups."""
    for group in rx.mcast_ips:
        rx.leave_group(group)


def join(rx: Any) -> None:
    """Join one more group, and receive from it."""
    rx.join_group(NEW_GROUP)
    send(b"for the child", NEW_GROUP)
    assert rx.receive(timeout=CHILD_PATIENCE / 2).data == b"for the child"


def block(rx: Any) -> None:
    """Block the only source there is."""
    for group in rx.mcast_ips:
        rx.block_source(group, "127.0.0.1")


def receive(rx: Any) -> None:
    """Receive, with nothing to be received."""
    try:
        rx.receive(timeout=0.05)
    except (TimeoutError, MulticastExpertError):
        return
    raise AssertionError("the child received what was sent to nobody")


def ask(rx: Any) -> None:
    """Ask for what can be asked."""
    rx.stats()
    rx.filenos()
    repr(rx)


def end(rx: Any) -> None:
    """End as programs do, the `with` blocks of the parent included."""
    raise SystemExit(0)


ACTS = {
    "close": close,
    "leave the block": leave_the_block,
    "leave": leave,
    "join": join,
    "block": block,
    "receive": receive,
    "ask": ask,
    "end": end,
}


def fork_while_threads_wait(count: int, act: str, threads: int, way: str) -> None:
    """Fork while threads wait: the child does not hang, and the parent goes on as if there had been no child."""
    groups = groups_of(count)
    got: list[bytes] = []

    def keep_receiving() -> None:
        try:
            while True:
                got.append(rx.receive().data)
        except MulticastExpertError:
            pass

    with receiver(groups, heal=False) as rx:
        waiting = [Thread(keep_receiving) for _ in range(threads)]
        check_that_all_arrives(groups, got)
        for _ in range(3):
            perform(way, functools.partial(ACTS[act], rx))
            begun, used = time.monotonic(), time.process_time()
            time.sleep(WAITING / 3)
            used = (time.process_time() - used) / (time.monotonic() - begun)
            assert used < BUSY, f"the parent is busy for {used:.0%} of the time"
            send(b"not for the parent", NEW_GROUP)
            check_that_all_arrives(groups, got)
        assert b"not for the parent" not in got
        assert b"for the child" not in got
        assert rx.mcast_ips == groups
        rx.close()
        for thread in waiting:
            thread.finish()


def check_that_all_arrives(groups: list[str], got: list[bytes]) -> None:
    """Send one datagram to each group, and wait until threads have received each of them once."""
    got.clear()
    for group in groups:
        send(group.encode(), group)
    wait_until(
        lambda: {*got} >= {group.encode() for group in groups}, lambda: f"the parent hears its groups, not {got}"
    )
    assert len(got) == len(groups), got


def perform(way: str, act: Callable[[], None]) -> None:
    """Let a child do it, and wait for its end."""
    if way == "multiprocessing":
        process = multiprocessing.get_context("fork").Process(target=act)
        process.start()
        assert process.pid
        Child(process.pid).join()
    else:
        fork(act).join()


def fork_while_threads_are_busy(count: int, what: str, forks: int) -> None:
    """Fork at random moments while threads receive, send, join and leave: no child hangs, the parent loses nothing."""
    groups = groups_of(count)
    got: list[bytes] = []
    stop: list[bool] = []

    def keep_receiving() -> None:
        try:
            while True:
                got.extend([datagram.data for datagram in rx.receive_many(limit=random.choice([1, 7, 64]))])
        except MulticastExpertError:
            pass

    def keep_joining() -> None:
        while not stop:
            # The other one may have joined it just now.
            with contextlib.suppress(MulticastExpertError):
                rx.join_group(NEW_GROUP).leave()

    def keep_sending() -> None:
        for number in itertools.count():
            if stop:
                return
            if number % 2:
                tx.sendto(b"elsewhere", (NEW_GROUP, PORT + 1), hop_limit=number % 3)
            else:
                tx.send_many([b"elsewhere"] * 20, (NEW_GROUP, PORT + 1))

    def send_in_child() -> None:
        tx.sendto(b"elsewhere", (NEW_GROUP, PORT + 1))
        assert tx.send_many([b"elsewhere"] * 3, (NEW_GROUP, PORT + 1)) == 3
        tx.close()

    with receiver(groups, heal=False) as rx, transmitter(heal=False) as tx:
        children = [functools.partial(act, rx) for name, act in ACTS.items() if name not in ("receive", "join")]
        if what == "send":
            children = [send_in_child, tx.close]
        numbering = Numbering(groups)
        receiving = Thread(keep_receiving)
        busy = [Thread({"receive": keep_receiving, "join": keep_joining, "send": keep_sending}[what]) for _ in range(2)]
        for _ in range(forks):
            time.sleep(moment(0.004))
            fork(random.choice(children)).join()
        stop.append(True)
        numbering.end()
        wait_until(lambda: len(got) >= len(numbering.sent) - (rx.stats().kernel_drops or 0), "all is received")
        drops = rx.stats().kernel_drops
        rx.close()
        for thread in (receiving, *busy):
            thread.finish()
    check_ledger(got, numbering.sent, drops)


def fork_with_a_backlog(count: int) -> None:
    """What the parent took from the kernel and has not handed out comes to the parent, and not to the child as well."""
    groups = groups_of(count)
    sent = [b"%d" % number for number in range(20)]
    with receiver(groups, heal=False, timeout=0.2) as rx:
        for payload in sent:
            send(payload, groups[0])
        iteration = iter(rx)
        got = [next(iteration).data]
        read, write = os.pipe()

        def take() -> None:
            try:
                for datagram in rx:
                    os.write(write, datagram.data + b"\n")
            except MulticastExpertError:
                pass

        child = fork(take)
        os.close(write)
        with os.fdopen(read, "rb") as pipe:
            twice = pipe.read().split()
        child.join()
        got += [datagram.data for datagram in iteration]
    assert not {*twice} & {*got}, f"handed out by both: {twice}"
    assert got == sent, got


def fork_beside_a_sender(times: int) -> None:
    """A child that sends with another hop limit, and closes, changes nothing for the parent's datagrams."""
    listener = Listener()
    address = (NEW_GROUP, PORT)
    with transmitter(ttl=5, heal=False) as tx:

        def act() -> None:
            tx.sendto(b"child", address, hop_limit=9)
            assert tx.send_many([b"child"] * 2, address, hop_limit=9) == 2
            tx.close()

        for _ in range(times):
            tx.sendto(b"parent", address)
            fork(act).join()
            tx.sendto(b"parent", address)
            assert tx.send_many([b"parent"] * 2, address) == 2
    wait_until(lambda: len(listener.heard) >= 2, lambda: f"heard {listener.heard}")
    assert listener.heard == {(b"parent", 5), (b"child", 9)}, listener.heard


async def pause(face: str, seconds: float) -> None:
    """Sleep on the loop that runs."""
    if face == "trio":
        import trio

        await trio.sleep(seconds)
    else:
        await asyncio.sleep(seconds)


def fork_beside_a_task(face: str, count: int, act: str) -> None:
    """Fork in an event loop while a task waits: the child does not hang, and the parent's task goes on waiting."""
    groups = groups_of(count)
    got: list[bytes] = []

    async def keep_receiving() -> None:
        try:
            while True:
                got.append((await rx.receive()).data)
        except MulticastExpertError:
            pass

    async def hear(number: int) -> None:
        got.clear()
        for group in groups:
            send(group.encode(), group)
        deadline = time.monotonic() + PATIENCE
        while {*got} < {group.encode() for group in groups}:
            assert time.monotonic() < deadline, f"after {number} children, the parent hears {got}"
            await pause(face, 0.001)
        assert len(got) == len(groups), got

    async def act_and_check() -> None:
        await pause(face, 0.01)
        for number in range(4):
            await hear(number)
            child = fork(functools.partial(ACTS_BESIDE_TASKS[act], rx))
            while not child.ended():
                await pause(face, 0.005)
            begun, used = time.monotonic(), time.process_time()
            await pause(face, WAITING / 3)
            used = (time.process_time() - used) / (time.monotonic() - begun)
            assert used < BUSY, f"the parent is busy for {used:.0%} of the time"
            send(b"not for the parent", NEW_GROUP)
        await hear(4)
        assert b"not for the parent" not in got
        rx.close()

    async def body() -> None:
        if face == "trio":
            import trio

            async with trio.open_nursery() as nursery:
                nursery.start_soon(keep_receiving)
                await act_and_check()
        else:
            task = asyncio.ensure_future(keep_receiving())
            await act_and_check()
            await task

    with async_receiver(groups, heal=False) as rx:
        run_on(face, body)


def join_in_a_loop(rx: Any) -> None:
    """Join one more group, and receive from it in an event loop of the child's own."""

    async def take() -> None:
        rx.join_group(NEW_GROUP)
        send(b"for the child", NEW_GROUP)
        assert (await rx.receive(timeout=CHILD_PATIENCE / 2)).data == b"for the child"

    asyncio.new_event_loop().run_until_complete(take())


ACTS_BESIDE_TASKS = {
    "close": close,
    "leave the block": leave_the_block,
    "leave": leave,
    "block": block,
    "join": lambda rx: rx.join_group(NEW_GROUP),
    "join in a loop": join_in_a_loop,
}
