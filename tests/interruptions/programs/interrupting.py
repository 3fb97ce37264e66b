"""Programs that a signal interrupts: handlers that raise, that close, and that send."""

import asyncio
import contextlib
import gc
import logging
import random
import signal
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from interruptions.programs.parts import (
    GROUPS,
    NEW_GROUP,
    PATIENCE,
    PORT,
    Numbering,
    Thread,
    async_receiver,
    check_all_were_told,
    check_ledger,
    descriptors,
    groups_of,
    moment,
    receiver,
    run_on,
    send,
    transmitter,
    wait_until,
)
from multicast_expert import DatagramBuffer, MulticastExpertError

QUIET = 0.3
"""Seconds without a datagram, after which none is on its way: loopback delivers before `sendto` returns."""


IP_RECVTTL = 12
"""linux/in.h; Python 3.11 has no name for it."""


class Interrupted(KeyboardInterrupt):
    """What the handlers raise, as that of Ctrl-C does."""


def raise_interrupted(*_: object) -> None:
    """Handle a signal as Ctrl-C is handled."""
    raise Interrupted


def call_after(delay: float, handler: Callable[..., object], every: float = 0) -> None:
    """Let a signal handler run in the main thread after the delay, and then again and again if `every` says so."""
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, max(delay, 2e-5), every)


# Loops as programs have them. CPython handles signals after it called something in C, and where a loop turns; neither
# is between the return of `receive` and the end of the next line, so the programs themselves lose nothing.


def loop_receive(rx: Any, got: list[Any]) -> None:
    """Call receive for ever."""
    while True:
        datagram = rx.receive()
        got += (datagram,)


def loop_recvfrom(rx: Any, got: list[Any]) -> None:
    """Call recvfrom for ever."""
    while True:
        pair = rx.recvfrom()
        got += (pair,)


def loop_receive_many(rx: Any, got: list[Any]) -> None:
    """Call receive_many for ever."""
    while True:
        batch = rx.receive_many()
        got += batch


def loop_receive_into(rx: Any, got: list[Any]) -> None:
    """Call receive_into for ever."""
    buffer, taken = DatagramBuffer(16, 1 << 16), 0
    try:
        while True:
            rx.receive_into(buffer)
            batch = [*buffer]
            count = len(batch)
            got += batch
            taken = count
            buffer.clear()
            taken = 0
    finally:
        # What came before an interrupt is in the buffer.
        take_rest(buffer, taken, got)


def take_rest(buffer: DatagramBuffer, taken: int, got: list[Any]) -> None:
    """Move the rows that were not taken yet, also if another interrupt comes."""
    while True:
        with contextlib.suppress(Interrupted):
            rest = [*buffer][taken:]
            got += rest
            return


def loop_iterate(rx: Any, got: list[Any]) -> None:
    """Iterate for ever."""
    for datagram in rx:
        got += (datagram,)


LOOPS = {
    "receive": loop_receive,
    "recvfrom": loop_recvfrom,
    "receive_many": loop_receive_many,
    "receive_into": loop_receive_into,
    "iterate": loop_iterate,
}


def payload(received: Any) -> bytes:
    """Return the payload of a Datagram or of what recvfrom returns."""
    data: bytes = received[0] if isinstance(received, tuple) else received.data
    return data


def wait_once(rx: Any) -> None:
    """Let the receiver open what it waits with: an interrupt meanwhile is a test of its own."""
    with contextlib.suppress(TimeoutError):
        rx.receive(timeout=0.001)


def receive_under_interrupts(count: int, loops: list[str], interrupts: int) -> None:
    """Interrupt loops that receive, at random moments. No datagram is lost or doubled, and the block ends."""
    before, threads = descriptors(), threading.active_count()
    got: list[Any] = []
    with receiver(groups_of(count), heal=False) as rx:
        wait_once(rx)
        numbering = Numbering(groups_of(count))
        for _ in range(interrupts):
            try:
                call_after(moment(0.004), raise_interrupted)
                LOOPS[random.choice(loops)](rx, got)
            except Interrupted:
                pass
        numbering.end()
        rx.settimeout(QUIET)
        for datagram in rx:
            got += (datagram,)
        drops = rx.stats().kernel_drops
        begun = time.monotonic()
        try:
            rx.receive(timeout=0.2)
        except TimeoutError:
            waited = time.monotonic() - begun
        assert 0.2 <= waited < 1, f"a timeout of 0.2 s took {waited} s"
        ending = time.monotonic()
    assert time.monotonic() - ending < 2, "the block's end took long"
    check_ledger(map(payload, got), numbering.sent, drops)
    assert descriptors() == before, f"{descriptors() - before} descriptors leaked"
    assert threading.active_count() == threads


def interrupt_the_opening(count: int, interrupts: int) -> None:
    """Interrupt opening, waiting and closing at random moments: no group stays joined, and the next receiver works.

    Descriptors are not counted: Python's own socketpair() loses one when it is interrupted after it took it from an
    object.
    """
    bystander = receiver(groups_of(1)).open()  # it keeps the watch for interface changes
    before = udp_sockets()
    for _ in range(interrupts):
        rx = receiver(groups_of(count))
        try:
            call_after(moment(0.001), raise_interrupted)
            while True:
                rx.open()
                wait_once(rx)
                rx.close()
        except Interrupted:
            pass
        if rx.is_opened:
            rx.close()
        del rx
        assert udp_sockets() == before, f"{udp_sockets() - before} sockets of groups stay open"
    with receiver(groups_of(count)) as rx:
        send(b"at last", GROUPS[0])
        assert rx.receive(timeout=PATIENCE).data == b"at last"
    bystander.close()


def udp_sockets() -> int:
    """Return how many UDP sockets over IPv4 there are in this network."""
    gc.collect()
    return len(Path("/proc/self/net/udp").read_text().splitlines())


def keep_time_under_signals(count: int) -> None:
    """Handlers that return, a thousand a second, neither end a timeout early nor prolong it."""
    seen = 0

    def note(*_: object) -> None:
        nonlocal seen
        seen += 1

    signal.signal(signal.SIGALRM, note)
    with receiver(groups_of(count), heal=False) as rx:
        signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
        for timeout in (0.05, 0.3):
            for receive in (rx.receive, rx.receive_many):
                begun = time.monotonic()
                try:
                    receive(timeout=timeout)
                except TimeoutError:
                    waited = time.monotonic() - begun
                assert timeout <= waited < timeout + 1, f"{waited} s instead of {timeout} s"
        signal.setitimer(signal.ITIMER_REAL, 0)
    assert seen > 100, f"only {seen} signals came"


def close_in_a_handler(count: int, rounds: int, nested: bool) -> None:
    """Close in a handler while the main thread receives; with `nested`, a second handler does so in the first."""
    with receiver(groups_of(count), heal=False):
        pass
    before = descriptors()
    for number in range(rounds):
        outcomes: list[str] = []
        rx = receiver(groups_of(count), heal=False).open()
        pending = [moment(0.0002)] if nested else []

        def close(*_: object, rx: Any = rx, outcomes: list[str] = outcomes, pending: list[float] = pending) -> None:
            if pending:
                call_after(pending.pop(), close)
            try:
                rx.close()
                outcomes += ("closed",)
            except MulticastExpertError:
                outcomes += ("refused",)

        # Early ones meet the receiver before it waits, late ones when it does.
        call_after(moment(0.002) if number % 4 else 0.02, close)
        with contextlib.suppress(MulticastExpertError):
            LOOPS[random.choice([*LOOPS])](rx, [])
        if nested:
            wait_until(lambda outcomes=outcomes: len(outcomes) == 2, "both handlers returned")
        assert sorted(outcomes) == (["closed", "refused"] if nested else ["closed"]), outcomes
        assert not rx.is_opened
        assert descriptors() == before, f"{descriptors() - before} descriptors leaked"


def close_in_a_handler_of_a_loop(face: str, count: int, rounds: int) -> None:
    """Close in a signal handler while tasks wait: each gets a MulticastExpertError, and the loop goes on."""
    outcomes: list[BaseException] = []

    async def take(rx: Any) -> None:
        try:
            while True:
                await rx.receive()
        except Exception as failure:  # noqa: BLE001 - looked at below
            outcomes.append(failure)

    async def one_round(number: int) -> None:
        rx = async_receiver(groups_of(count), heal=False).open()

        def close(*_: object) -> None:
            signal.signal(signal.SIGALRM, lambda *_: None)
            rx.close()

        # CPython does not run the handler of a signal that comes just before asyncio waits: later ones make it look.
        call_after(moment(0.002) if number % 4 else 0.02, close, every=0.1)
        if face == "trio":
            import trio

            async with trio.open_nursery() as nursery:
                for _ in range(3):
                    nursery.start_soon(take, rx)
        else:
            await asyncio.gather(*(take(rx) for _ in range(3)))
        signal.setitimer(signal.ITIMER_REAL, 0)

    async def body() -> None:
        for number in range(rounds):
            await one_round(number)

    run_on(face, body)
    check_all_were_told(outcomes, 3 * rounds)


class Listener:
    """A thread that notes which payload arrived with which hop limit, by a plain socket."""

    def __init__(self) -> None:
        self.heard: set[tuple[bytes, int]] = set()
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((NEW_GROUP, PORT))
        join = socket.inet_aton(NEW_GROUP) + socket.inet_aton("127.0.0.1")
        self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, join)
        self._socket.setsockopt(socket.IPPROTO_IP, IP_RECVTTL, 1)
        Thread(self._listen)

    def _listen(self) -> None:
        while True:
            data, ancillary, _, _ = self._socket.recvmsg(100, 64)
            self.heard.add((data, int.from_bytes(ancillary[0][2][:4], "little")))


def send_in_a_handler(outer: str, inner: str, sends: int) -> None:
    """Send in a handler with another hop limit while the main thread sends: neither waits for the other or changes it.

    Only by luck does a handler come between the hop limit of a send and the send itself, so there are many.
    """
    listener = Listener()
    handled = 0
    with transmitter(ttl=5, heal=False) as tx:

        def handle(*_: object) -> None:
            nonlocal handled
            put(inner, b"inner", hop_limit=9)
            handled += 1
            call_after(moment(0.0004), handle)

        def put(how: str, data: bytes, **keywords: Any) -> None:
            if how == "sendto":
                tx.sendto(data, (NEW_GROUP, PORT), **keywords)
            else:
                tx.send_many([data], (NEW_GROUP, PORT), **keywords)

        call_after(0.001, handle)
        begun = time.monotonic()
        while handled < sends and time.monotonic() - begun < PATIENCE:
            put(outer, b"outer")
        # In this order: a handler that runs just now starts the timer again.
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
        signal.setitimer(signal.ITIMER_REAL, 0)
        assert handled >= min(sends, 100), f"only {handled} handlers ran"
        wanted = {(b"outer", 5), (b"inner", 9), (b"afterwards", 5)}

        def is_heard() -> bool:
            # The listener may have to catch up first, and its buffer be full till then.
            put(outer, b"afterwards")
            return listener.heard >= wanted

        wait_until(is_heard, lambda: f"heard {listener.heard}")
    assert listener.heard == wanted, f"with the hop limit of another send: {listener.heard - wanted}"


def press_ctrl_c(face: str, count: int, presses: int) -> None:
    """Interrupt `asyncio.run`, or uvloop's, again and again: KeyboardInterrupt, nothing logged, nothing lost."""
    records = note_what_is_logged()
    got: list[Any] = []
    rx = async_receiver(groups_of(count), heal=False).open()

    async def body() -> None:
        call_after(moment(0.004), lambda *_: signal.raise_signal(signal.SIGINT))
        while True:
            datagram = await rx.receive()
            got.append(datagram)

    async def drain() -> None:
        rx.settimeout(QUIET)
        got.extend([datagram async for datagram in rx])

    numbering = Numbering(groups_of(count))
    for _ in range(presses):
        try:
            run_on(face, body)
        except KeyboardInterrupt:
            continue
        raise AssertionError("the loop ended without a KeyboardInterrupt")
    numbering.end()
    run_on(face, drain)
    drops = rx.stats().kernel_drops
    rx.close()
    check_ledger(map(payload, got), numbering.sent, drops)
    assert not records, records


def note_what_is_logged(level: int = 0) -> list[str]:
    """Return a list of all that is logged from now on, from this level up."""
    records: list[str] = []
    handler = logging.Handler(level)
    handler.emit = lambda record: records.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    return records


async def take_one(rx: Any, got: list[Any], how: str) -> None:
    """Receive once, in one of the ways that there are."""
    if how == "receive":
        datagram = await rx.receive()
        got += (datagram,)
    elif how == "recvfrom":
        pair = await rx.recvfrom()
        got += (pair,)
    elif how == "receive_many":
        batch = await rx.receive_many()
        got += batch
    elif how == "receive_into":
        buffer = DatagramBuffer(16, 1 << 16)
        try:
            await rx.receive_into(buffer)
        finally:
            take_rest(buffer, 0, got)
    else:
        datagram = await anext(aiter(rx))
        got += (datagram,)


async def take_for_ever(rx: Any, got: list[Any]) -> None:
    """Receive in all ways, at random."""
    while True:
        await take_one(rx, got, random.choice([*LOOPS]))


async def warm_up() -> None:
    """Let the event loop open what it keeps open for the next loop."""
    async with async_receiver(GROUPS[:1], heal=False):
        pass


def cancel_at_random(face: str, count: int, how: str, cancels: int) -> None:
    """Cancel receives at random moments, in the way `how`: no datagram is lost or doubled, and nothing is logged."""
    run_on(face, warm_up)
    before = descriptors()
    records = note_what_is_logged()
    got: list[Any] = []
    drops: int | None = None

    async def body() -> None:
        nonlocal drops
        async with async_receiver(groups_of(count), heal=False) as rx:
            numbering = Numbering(groups_of(count))
            for _ in range(cancels):
                await CANCELS[how](rx, got)
            numbering.end()
            rx.settimeout(QUIET)
            got.extend([datagram async for datagram in rx])
            drops = rx.stats().kernel_drops
        check_ledger(map(payload, got), numbering.sent, drops)

    run_on(face, body)
    assert not records, records
    assert descriptors() == before, f"{descriptors() - before} descriptors leaked"


async def cancel_task(rx: Any, got: list[Any]) -> None:
    """Cancel the task from its loop."""
    task = asyncio.ensure_future(take_for_ever(rx, got))
    asyncio.get_running_loop().call_later(moment(0.004), task.cancel)
    await asyncio.wait([task])
    assert task.cancelled(), task


async def cancel_from_a_handler(rx: Any, got: list[Any]) -> None:
    """Cancel the task in a signal handler, as asyncio.run does for Ctrl-C: at moments when no callback could."""
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(take_for_ever(rx, got))

    def cancel(*_: object) -> None:
        task.cancel()
        loop.call_soon_threadsafe(lambda: None)

    call_after(moment(0.004), cancel)
    await asyncio.wait([task])
    assert task.cancelled(), task


async def wait_for_a_little(rx: Any, got: list[Any]) -> None:
    """Give it a tiny timeout, a few times."""
    for _ in range(5):
        with contextlib.suppress(TimeoutError):
            # What wait_for returns is what was received; a task of its own may have it when the time is over.
            datagram = await asyncio.wait_for(rx.receive(), random.random() * 0.003)
            got += (datagram,)


async def time_out(rx: Any, got: list[Any]) -> None:
    """Let a block around a loop time out."""
    try:
        async with asyncio.timeout(moment(0.004)):
            await take_for_ever(rx, got)
    except TimeoutError:
        pass


async def move_on(rx: Any, got: list[Any]) -> None:
    """Let trio move on."""
    import trio

    with trio.move_on_after(moment(0.004)):
        await take_for_ever(rx, got)


async def cancel_scope_in_a_handler(rx: Any, got: list[Any]) -> None:
    """Cancel a scope of trio in a signal handler, by way of its token."""
    import trio

    token = trio.lowlevel.current_trio_token()
    with trio.CancelScope() as scope:
        call_after(moment(0.004), lambda *_: token.run_sync_soon(scope.cancel))
        await take_for_ever(rx, got)


CANCELS: dict[str, Callable[[Any, list[Any]], Any]] = {
    "cancel": cancel_task,
    "handler": cancel_from_a_handler,
    "wait_for": wait_for_a_little,
    "timeout": time_out,
    "move_on": move_on,
    "scope": cancel_scope_in_a_handler,
}
