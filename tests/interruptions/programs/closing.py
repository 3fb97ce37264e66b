"""Programs that close, join and leave from elsewhere than where the receives wait: threads, tasks, other loops."""

import asyncio
import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from interruptions.programs.forking import pause
from interruptions.programs.interrupting import Listener
from interruptions.programs.parts import (
    GROUPS,
    NEW_GROUP,
    PATIENCE,
    PORT,
    Thread,
    async_receiver,
    busy_threads,
    check_all_were_told,
    descriptors,
    groups_of,
    moment,
    receiver,
    run_on,
    send,
    transmitter,
    wait_until,
)
from multicast_expert import McastRxSocket, MulticastExpertError, find_interfaces


def rounds_within(seconds: float, rounds: int) -> Iterator[int]:
    """Count up to `rounds`, but no longer than so many seconds; a machine with little time does fewer."""
    end = time.monotonic() + seconds
    for number in range(rounds):
        if number > 20 and time.monotonic() > end:
            return
        yield number


def try_to_close(rx: Any, outcomes: list[object]) -> None:
    """Close it, and note whether that succeeded."""
    try:
        rx.close()
        outcomes.append("closed")
    except Exception as failure:  # noqa: BLE001 - looked at by the caller
        outcomes.append(failure)


# Threads


def close_under_threads(count: int, seconds: float, rounds: int, closers: int) -> None:
    """Close from threads while four others receive: one closes, all others get a MulticastExpertError."""
    with receiver(groups_of(count), heal=False):
        pass
    before = descriptors()

    def keep_receiving(rx: McastRxSocket, ended: list[object], how: int) -> None:
        try:
            while True:
                if how % 2:
                    rx.receive_many(timeout=None if how % 4 == 1 else 0.0005)
                else:
                    rx.recvfrom()
        except TimeoutError:
            keep_receiving(rx, ended, how - 2)
        except Exception as failure:  # noqa: BLE001 - looked at below
            ended.append(failure)

    with busy_threads():
        for number in rounds_within(seconds, rounds):
            rx = receiver(groups_of(count), heal=False).open()
            ended: list[object] = []
            outcomes: list[object] = []
            receiving = [Thread(keep_receiving, rx, ended, how) for how in range(4)]
            if number % 2:
                send(b"meanwhile", GROUPS[0])
            time.sleep(moment(0.003))
            closing = [Thread(try_to_close, rx, outcomes) for _ in range(closers)]
            for thread in (*closing, *receiving):
                thread.finish()
            assert outcomes.count("closed") == 1, f"{closers} closed at once: {outcomes}"
            check_all_were_told([each for each in outcomes if each != "closed"], closers - 1)
            check_all_were_told(ended, 4)
            assert descriptors() == before, f"{descriptors() - before} descriptors leaked"


def close_a_sender_under_threads(seconds: float, rounds: int) -> None:
    """Close a transmitter from two threads while others send: one closes, all others get a MulticastExpertError.

    Sockets with another hop limit get the freed numbers: nothing is sent through them.
    """
    listener = Listener()
    with transmitter(heal=False):
        pass
    before = descriptors()

    def keep_sending(tx: Any, ended: list[object], many: bool) -> None:
        try:
            while True:
                if many:
                    tx.send_many([b"x"] * 5, (NEW_GROUP, PORT))
                else:
                    tx.sendto(b"x", (NEW_GROUP, PORT), hop_limit=random.choice([None, 3]))
        except Exception as failure:  # noqa: BLE001 - looked at below
            ended.append(failure)

    def keep_opening(stop: list[bool]) -> None:
        while not stop:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
                other.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 77)
                other.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
                time.sleep(moment(0.0003))

    with busy_threads():
        for _ in rounds_within(seconds, rounds):
            tx = transmitter(heal=False).open()
            stop: list[bool] = []
            opening = Thread(keep_opening, stop)
            ended: list[object] = []
            outcomes: list[object] = []
            sending = [Thread(keep_sending, tx, ended, many) for many in (True, False)]
            time.sleep(moment(0.002))
            closing = [Thread(try_to_close, tx, outcomes) for _ in range(2)]
            for thread in (*closing, *sending):
                thread.finish()
            stop.append(True)
            opening.finish()
            assert outcomes.count("closed") == 1, f"two closed at once: {outcomes}"
            check_all_were_told([each for each in outcomes if each != "closed"], 1)
            check_all_were_told(ended, 2)
            assert descriptors() == before, f"{descriptors() - before} descriptors leaked"
    assert {hops for _, hops in listener.heard} <= {1, 3}, f"sent through another socket: {listener.heard}"


def join_under_threads(count: int, seconds: float, rounds: int, waiters: int) -> None:
    """Join and leave while several threads wait: each of them hears the new group, none stays with the old set."""
    groups = groups_of(count)
    heard: list[bytes] = []
    turn = threading.Barrier(waiters + 1)

    def receive_once_a_turn() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            while True:
                heard.append(rx.receive().data)
                # Until all others have heard something, too.
                turn.wait(PATIENCE)

    with receiver(groups, heal=False) as rx:
        threads = [Thread(receive_once_a_turn) for _ in range(waiters)]
        for number in rounds_within(seconds, rounds):
            time.sleep(moment(0.002))
            joined = number % 2 == 0
            if joined:
                rx.join_group(NEW_GROUP)
            else:
                rx.leave_group(NEW_GROUP)
            group = NEW_GROUP if joined else groups[0]
            for _ in range(waiters):
                send(group.encode(), group)
            wait_until(
                lambda: len(heard) == waiters,
                lambda group=group: f"each of {waiters} threads hears {group}, not only {len(heard)}",
            )
            assert {*heard} == {group.encode()}, heard
            heard.clear()
            turn.wait(PATIENCE)
        turn.abort()
        for _ in range(waiters):
            send(b"the end", groups[0])
        for thread in threads:
            thread.finish()


def reuse_numbers(count: int, seconds: float) -> None:
    """Close, leave and join while others receive and open sockets that get the freed numbers: each keeps its own."""
    groups = groups_of(count)
    stop: list[bool] = []
    (loopback,) = find_interfaces(["lo"])
    current: list[McastRxSocket] = [receiver(groups, loopback, heal=False).open()]

    def keep_receiving(timeout: float) -> None:
        while not stop:
            rx = current[0]
            with contextlib.suppress(TimeoutError, MulticastExpertError):
                for datagram in rx.receive_many(timeout=timeout):
                    assert datagram.data == b"own", f"taken from another socket: {datagram.data!r}"
            # Threads that never rest would keep the others from freeing any number.
            time.sleep(moment(0.0002))

    def keep_opening() -> None:
        while not stop:
            near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
            with near, far:
                far.send(b"foreign")
                time.sleep(moment(0.0003))
                assert near.recv(100, socket.MSG_DONTWAIT) == b"foreign"

    with busy_threads():
        threads = [Thread(keep_receiving, timeout) for timeout in (0, 0, 0.0005, 0.005)]
        threads += [Thread(keep_opening) for _ in range(2)]
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            rx = current[0]
            membership = rx.join_group(NEW_GROUP)
            send(b"own", NEW_GROUP)
            if random.random() < 0.7:
                membership.leave()
            if random.random() < 0.5:
                rx.close()
                current[0] = receiver(groups, loopback, heal=False).open()
            elif rx.mcast_ips[-1] == NEW_GROUP:
                rx.leave_group(NEW_GROUP)
        stop.append(True)
        for thread in threads:
            thread.finish()
    current[0].close()


# Tasks


async def gather(face: str, *functions: Callable[[], Any]) -> None:
    """Run the functions as tasks until all have ended."""
    if face == "trio":
        import trio

        async with trio.open_nursery() as nursery:
            for function in functions:
                nursery.start_soon(function)
    else:
        await asyncio.gather(*(function() for function in functions))


def close_in_another_loop(rx: Any, outcomes: list[object]) -> None:
    """Close it in an event loop of this thread, where a task of its own has received from it."""

    async def body() -> None:
        asyncio.get_running_loop().slow_callback_duration = PATIENCE
        with contextlib.suppress(TimeoutError, MulticastExpertError):
            await rx.receive(timeout=0.0005)
        try_to_close(rx, outcomes)

    asyncio.run(body())


def close_under_tasks(face: str, count: int, closer: str, debug: bool, seconds: float, rounds: int) -> None:
    """Close while three tasks wait: each gets a MulticastExpertError, and the loop goes on."""
    complaints: list[object] = []

    async def one_round() -> None:
        ended: list[object] = []
        outcomes: list[object] = []
        rx = async_receiver(groups_of(count), heal=False).open()

        async def take() -> None:
            try:
                while True:
                    # Short ones, too: so that it is closed just when one begins.
                    with contextlib.suppress(TimeoutError):
                        await rx.receive(timeout=random.choice([None, 5, *[moment(0.0005)] * 20]))
            except Exception as failure:  # noqa: BLE001 - looked at below
                ended.append(failure)

        async def close() -> None:
            if closer == "task":
                await pause(face, random.choice([0, moment(0.002)]))
                try_to_close(rx, outcomes)
            else:
                act = close_in_another_loop if closer == "loop" else try_to_close
                delay = random.choice([0, moment(0.0005), moment(0.002)])
                later = lambda: (time.sleep(delay), act(rx, outcomes))  # noqa: E731 - said once, done by each thread
                threads = [Thread(later) for _ in range(2 if closer == "threads" else 1)]
                while any(thread.is_alive() for thread in threads):
                    await pause(face, 0.0002)
                for thread in threads:
                    thread.finish()

        tasks = [take, take, take]
        # In front, so that it is closed while the first wait begins.
        tasks.insert(random.choice([0, 3]), close)
        await within(face, PATIENCE / 2, lambda: gather(face, *tasks))
        assert outcomes.count("closed") == 1, outcomes
        check_all_were_told(ended, 3)
        check_all_were_told([each for each in outcomes if each != "closed"], len(outcomes) - 1)

    async def body() -> None:
        if face != "trio":
            loop = asyncio.get_running_loop()
            loop.set_exception_handler(lambda _, context: complaints.append(context))
            # In debug mode it complains of a busy machine, too.
            loop.slow_callback_duration = PATIENCE
        await one_round()
        before = descriptors()
        for _ in rounds_within(seconds, rounds):
            await one_round()
            # A watch gives its descriptor back in its own loop, soon after another thread closed it.
            begun = time.monotonic()
            while descriptors() > before and time.monotonic() - begun < PATIENCE:
                await pause(face, 0)
            assert descriptors() <= before, f"{descriptors() - before} descriptors leaked"
        await check_that_the_loop_works(face)

    with busy_threads():
        run_on(face, body, debug=debug)
    assert not complaints, complaints


async def within(face: str, seconds: float, function: Callable[[], Any]) -> None:
    """Await it; AssertionError when it takes longer."""
    if face == "trio":
        import trio

        with trio.move_on_after(seconds) as scope:
            await function()
        assert not scope.cancelled_caught, "a task still waits"
    else:
        try:
            await asyncio.wait_for(function(), seconds)
        except TimeoutError:
            raise AssertionError("a task still waits") from None


async def check_that_the_loop_works(face: str) -> None:
    """Receive by the loop as if nothing had been."""
    async with async_receiver(GROUPS[:2], heal=False) as rx:
        got: list[bytes] = []

        async def take() -> None:
            got.append((await rx.receive(timeout=PATIENCE / 2)).data)

        async def put() -> None:
            await pause(face, 0.01)
            send(b"still", GROUPS[1])

        await gather(face, take, put)
        assert got == [b"still"]


def join_under_tasks(face: str, count: int, seconds: float, rounds: int) -> None:
    """Join and leave in a thread while a task waits: it hears the new group."""
    groups = groups_of(count)

    async def body() -> None:
        async with async_receiver(groups, heal=False) as rx:
            for number in rounds_within(seconds, rounds):
                heard: list[bytes] = []

                async def take(heard: list[bytes] = heard) -> None:
                    heard.append((await rx.receive(timeout=PATIENCE / 2)).data)

                async def change(number: int = number) -> None:
                    await pause(face, random.choice([0, moment(0.002)]))
                    act, group = (rx.join_group, NEW_GROUP) if number % 2 == 0 else (rx.leave_group, GROUPS[0])
                    thread = Thread(lambda: (act(NEW_GROUP), send(group.encode(), group)))
                    while thread.is_alive():
                        await pause(face, 0.0002)
                    thread.finish()

                await gather(face, take, change)
                assert heard == [(NEW_GROUP if number % 2 == 0 else GROUPS[0]).encode()], heard

    run_on(face, body)
