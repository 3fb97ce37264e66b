"""Programs to which something happens at each moment in turn at which it can happen; see `moments`."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

from interruptions.programs.forking import ACTS
from interruptions.programs.interrupting import LOOPS, Interrupted, Listener, payload, raise_interrupted, take_one
from interruptions.programs.moments import Moments, each_moment
from interruptions.programs.parts import (
    NEW_GROUP,
    PATIENCE,
    PORT,
    Thread,
    async_receiver,
    check_ledger,
    descriptors,
    fork,
    groups_of,
    receiver,
    run_on,
    send,
    transmitter,
    wait_until,
)
from multicast_expert import McastSocket, MulticastExpertError, MulticastOSError

WAIT = 0.1
"""Seconds for which a receive waits."""
AFTER = 0.02
"""Seconds for which a thread that was begun at a moment may wait for the one that it came between."""


class Ledger:
    """What was sent to the groups of a receiver, and what it got."""

    def __init__(self, count: int) -> None:
        self.sent: set[bytes] = set()
        self.got: list[Any] = []
        self._groups = groups_of(count)

    def send(self, each: int = 1) -> None:
        """Send to each group so many datagrams."""
        for group in self._groups:
            for _ in range(each):
                data = b"%s %d" % (group.encode(), len(self.sent))
                self.sent.add(data)
                send(data, group)

    def check(self, rx: Any, where: object) -> None:
        """Take the rest, and raise AssertionError unless all that was sent was received once."""
        with contextlib.suppress(TimeoutError):
            while True:
                self.got += rx.receive_many(timeout=0)
        try:
            check_ledger(map(payload, self.got), self.sent, 0)
        except AssertionError as error:
            raise AssertionError(f"after {where}: {error}") from None
        self.sent.clear()
        self.got.clear()


def receive_all(rx: Any, loop: str, got: list[Any]) -> None:
    """Run a loop that receives until nothing is there."""
    rx.settimeout(0)
    with contextlib.suppress(TimeoutError, TypeError):
        # recvfrom returns None when nothing came; the loop puts it into the list.
        LOOPS[loop](rx, got) if loop != "recvfrom" else until_none(rx, got)


def until_none(rx: Any, got: list[Any]) -> None:
    """Call recvfrom until it finds nothing."""
    while True:
        pair = rx.recvfrom()
        if pair is None:
            return
        got += (pair,)


def raise_everywhere(count: int, loop: str, both_ways: bool = False) -> None:
    """A handler raises at each moment of a loop that receives: nothing is lost or doubled."""
    ledger = Ledger(count)
    groups = groups_of(count)
    made = McastSocket(socket.AF_INET, groups, PORT, "lo", heal=False) if both_ways else receiver(groups, heal=False)
    with made as rx:
        if both_ways:
            # From now on it keeps a descriptor readable while there is something.
            rx.fileno()
        for moments in each_moment(raise_interrupted):
            ledger.send(3)
            with contextlib.suppress(Interrupted), moments:
                receive_all(rx, loop, ledger.got)
            ledger.check(rx, moments.where)


def arrive_everywhere(count: int, wait: str) -> None:
    """A datagram arrives at each moment of a receive that begins to wait: it ends the wait."""
    group = groups_of(count)[-1]
    early = False
    begun = 0.0

    def arrive() -> None:
        nonlocal early
        send(b"there", group)
        early = time.monotonic() < begun + WAIT / 2

    with receiver(groups_of(count), heal=False) as rx:
        for moments in each_moment(arrive):
            begun, early = time.monotonic(), False
            got: list[Any] = []
            # The last moments are after the wait.
            with contextlib.suppress(TimeoutError), moments:
                got += [rx.receive(timeout=WAIT)] if wait == "receive" else rx.receive_many(timeout=WAIT)
            assert got or not early, f"not woken by what came at {moments.where}"
            if moments.where and not got:
                got = [rx.receive(timeout=0)]
            assert [datagram.data for datagram in got] == [b"there"] * len(moments.where), moments.where


def close_everywhere(count: int, loop: str) -> None:
    """A handler closes at each moment: the receive ends with a MulticastExpertError, and nothing stays open."""
    with receiver(groups_of(count), heal=False) as rx:
        receive_all(rx, loop, [])
    before = descriptors()
    at = 0
    while True:
        at += 1
        rx = receiver(groups_of(count), heal=False).open()
        moments = Moments((at,), rx.close)
        for group in groups_of(count):
            send(b"x", group)
        with contextlib.suppress(MulticastExpertError, TimeoutError), moments:
            receive_all(rx, loop, [])
            rx.receive(timeout=0.001)
        if not moments.where:
            rx.close()
            return
        assert not rx.is_opened, moments.where
        assert descriptors() == before, f"{descriptors() - before} descriptors leaked at {moments.where}"


def thread_everywhere(count: int, loop: str, other: str) -> None:
    """Another thread receives, joins or leaves at each moment of a loop: all is received once, and no call fails."""
    ledger = Ledger(count)
    threads: list[Thread] = []

    def join_and_leave() -> None:
        rx.join_group(NEW_GROUP).leave()

    def take() -> None:
        receive_all(rx, other, mine)

    def begin() -> None:
        thread = Thread(join_and_leave if other == "join" else take)
        threads.append(thread)
        thread.join(AFTER)

    mine: list[Any] = []
    with receiver(groups_of(count), heal=False) as rx:
        for moments in each_moment(begin):
            ledger.send(3)
            # The receiver now knows of sockets that hold more.
            ledger.got += [rx.receive(timeout=0)]
            with moments:
                receive_all(rx, loop, ledger.got)
            for thread in threads:
                thread.finish()
            threads.clear()
            ledger.got += mine
            mine.clear()
            ledger.check(rx, moments.where)


def join_beside_a_leave(count: int) -> None:
    """At each moment of a receive a handler joins just when another thread leaves: neither waits for the other."""
    threads: list[Thread] = []
    slowest = 0.0

    def begin() -> None:
        nonlocal slowest
        thread = Thread(lambda: rx.leave_group(groups_of(count)[-1]))
        threads.append(thread)
        thread.join(AFTER)
        begun = monotonic()
        rx.join_group(NEW_GROUP)
        slowest = max(slowest, monotonic() - begun)
        assert slowest < 2, f"the handler waited {slowest:.1f} seconds"

    ledger = Ledger(count)
    before = None
    with receiver(groups_of(count), heal=False) as rx:
        for moments in each_moment(begin):
            ledger.send(1)
            with moments:
                receive_all(rx, "receive", ledger.got)
            for thread in threads:
                thread.finish()
                rx.leave_group(NEW_GROUP)
                rx.join_group(groups_of(count)[-1])
            threads.clear()
            before = before or descriptors()
            assert descriptors() == before, f"{descriptors() - before} descriptors leaked at {moments.where}"


def ask_everywhere(count: int) -> None:
    """At each moment of a first receive another thread joins, and the handler asks for what the thread may be changing.

    Neither waits for the other.
    """
    threads: list[Thread] = []

    def join_and_leave() -> None:
        rx.join_group(NEW_GROUP).leave()

    def handle() -> None:
        thread = Thread(join_and_leave)
        threads.append(thread)
        thread.join(AFTER)
        rx.stats()
        rx.filenos()

    for moments in each_moment(handle):
        with receiver(groups_of(count), heal=False) as rx:
            send(b"x", groups_of(count)[-1])
            with moments:
                assert rx.receive(timeout=PATIENCE).data == b"x"
                with contextlib.suppress(TimeoutError):
                    rx.receive(timeout=0.001)
            for thread in threads:
                thread.finish()
            threads.clear()


def fork_everywhere(count: int, loop: str, act: str) -> None:
    """A fork at each moment: the child does not hang, and the parent gets all."""
    ledger = Ledger(count)
    with receiver(groups_of(count), heal=False) as rx:

        def child() -> None:
            # What is there belongs to whoever takes it first: the parent.
            ACTS[act](rx)

        for moments in each_moment(lambda: fork(child).join()):
            ledger.send(2)
            with moments:
                receive_all(rx, loop, ledger.got)
            ledger.check(rx, moments.where)


def send_everywhere(outer: str, inner: str) -> None:
    """Handlers send at each moment, and at each two moments, of a send with another hop limit; each keeps its own."""
    listener = Listener()
    address = (NEW_GROUP, PORT)
    with transmitter(ttl=5, heal=False) as tx:

        def put(how: str, data: bytes, hop_limit: int) -> None:
            if how == "sendto":
                tx.sendto(data, address, hop_limit=hop_limit)
            else:
                tx.send_many([data], address, hop_limit=hop_limit)

        def handle() -> None:
            put(inner, b"inner", 9)

        def attempt(at: tuple[int, ...]) -> Moments:
            # The handlers find a shortcut for their hop limit, or for that of the outer send.
            put("sendto", b"before", 5 if at[-1] % 2 else 7)
            moments = Moments(at, handle)
            with moments:
                put(outer, b"outer", 6)
            put("sendto", b"after", 5)
            heard = listener.heard
            wait_until(lambda: (b"after", 5) in heard or len(heard) > 5, lambda: f"heard {heard}")
            wrong = heard - {(b"outer", 6), (b"inner", 9), (b"after", 5), (b"before", 5), (b"before", 7)}
            assert not wrong, f"with the hop limit of another send: {wrong}, after {moments.where}"
            heard.clear()
            return moments

        first = 0
        while True:
            first += 1
            second = first
            while True:
                moments = attempt((first, second))
                if moments.passed < second:
                    break
                second += 1
            if moments.passed < first:
                return


STEPS: dict[str, Callable[[Any], object]] = {
    "open": lambda rx: rx.open(),
    "join": lambda rx: rx.join_group(NEW_GROUP),
    "block": lambda rx: rx.block_source(NEW_GROUP, "127.0.0.9"),
    "unblock": lambda rx: rx.unblock_source(NEW_GROUP, "127.0.0.9"),
    "leave": lambda rx: rx.leave_group(NEW_GROUP),
    "join a source": lambda rx: rx.join_group(NEW_GROUP, source="127.0.0.1"),
    "join another source": lambda rx: rx.join_group(NEW_GROUP, source="127.0.0.9"),
    "close": lambda rx: rx.close(),
}


def before_step(step: str, count: int) -> Any:
    """Return a receiver on which all steps before this one are done."""
    rx = receiver(groups_of(count), heal=False)
    for earlier, act in STEPS.items():
        if earlier == step:
            break
        act(rx)
    return rx


def joined() -> set[str]:
    """Return the groups that this network has joined over IPv4, the one of all hosts aside."""
    lines = Path("/proc/self/net/igmp").read_text().splitlines()[1:]
    groups = {socket.inet_ntoa(bytes.fromhex(line.split()[0])[::-1]) for line in lines if line.startswith("\t")}
    return groups - {"224.0.0.1"}


def change_everywhere(count: int, step: str) -> None:
    """A handler raises at each moment of opening, joining, blocking, leaving and closing.

    Afterwards the receiver knows what the kernel has joined, the change can be made again, and all can be given back.
    """
    with receiver(groups_of(count), heal=False) as rx:
        receive_all(rx, "receive", [])
    before = descriptors()
    for moments in each_moment(raise_interrupted):
        rx = before_step(step, count)
        with contextlib.suppress(Interrupted), moments:
            STEPS[step](rx)
        if rx.is_opened:
            known = {*rx.mcast_ips}
            assert joined() == known, f"{joined()} instead of {known} after {moments.where}"
            for group in known:
                send(b"x", group)
                assert rx.receive(timeout=PATIENCE).data == b"x", moments.where
            try:
                STEPS[step](rx)
            except MulticastOSError as error:
                raise AssertionError(f"the kernel has what the receiver does not know after {moments.where}") from error
            except MulticastExpertError:
                # It was made before the interrupt.
                pass
            if rx.is_opened:
                rx.close()
        assert not joined(), f"{joined()} stay joined after {moments.where}"
        assert descriptors() == before, f"{descriptors() - before} descriptors leaked at {moments.where}"


def change_in_handler_everywhere(count: int, step: str) -> None:
    """A handler joins at each moment of a change, or is told that it cannot.

    Afterwards the receiver knows what the kernel has joined, and gets each datagram once.
    """
    refused = joined_there = 0

    def handle() -> None:
        nonlocal refused, joined_there
        try:
            rx.join_group(NEW_GROUP, source="127.0.0.7")
            joined_there += 1
        except MulticastExpertError as error:
            refused += "interrupted a change" in str(error)

    with receiver(groups_of(count), heal=False) as rx:
        receive_all(rx, "receive", [])
    before = descriptors()
    for moments in each_moment(handle):
        rx = before_step(step, count)
        with contextlib.suppress(MulticastExpertError), moments:
            STEPS[step](rx)
        assert joined() == {*rx.mcast_ips}, f"{joined()} instead of {rx.mcast_ips} after {moments.where}"
        heard = {each.group for each in rx.memberships if each.source in (None, "127.0.0.1")}
        for group in rx.mcast_ips:
            send(b"x", group)
            expected = [b"x"] if group in heard else []
            got: list[Any] = []
            with contextlib.suppress(TimeoutError):
                got = rx.receive_many(timeout=PATIENCE if expected else 0)
            assert [datagram.data for datagram in got] == expected, f"{got} of {group} after {moments.where}"
        rx.close()
        assert not joined(), f"{joined()} stay joined after {moments.where}"
        assert descriptors() == before, f"{descriptors() - before} descriptors leaked at {moments.where}"
    assert refused > 10, f"refused {refused} times, joined {joined_there} times"


def cancel_everywhere(face: str, count: int, how: str) -> None:
    """A handler cancels the task at each moment, as asyncio.run does at Ctrl-C: nothing is lost, nothing is logged."""
    ledger = Ledger(count)

    async def take(got: list[Any]) -> None:
        # The last one waits in vain.
        with contextlib.suppress(TimeoutError, StopAsyncIteration):
            while True:
                await take_one(rx, got, how)

    async def one_round(at: int) -> Moments:
        ledger.send(3)
        task = asyncio.ensure_future(take(ledger.got))
        moments = Moments((at,), task.cancel)
        with moments:
            await asyncio.wait([task])
        return moments

    async def body() -> None:
        at = 0
        while True:
            at += 1
            moments = await one_round(at)
            with contextlib.suppress(TimeoutError):
                while True:
                    ledger.got += await rx.receive_many(timeout=0)
            check_ledger(map(payload, ledger.got), ledger.sent, 0)
            ledger.got.clear()
            ledger.sent.clear()
            if moments.passed < at:
                return

    with async_receiver(groups_of(count), heal=False, timeout=0.01) as rx:
        run_on(face, body)
