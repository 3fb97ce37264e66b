"""Programs that run out of threads, descriptors or memory."""

import _thread
import contextlib
import ctypes
import errno
import os
import resource
import socket
import threading
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

from interruptions.programs.parts import (
    GROUPS,
    PATIENCE,
    PORT,
    async_receiver,
    check_ledger,
    descriptors,
    groups_of,
    receiver,
    run_on,
    send,
    transmitter,
)
from multicast_expert import McastSocket, MulticastExpertError, MulticastOSError, scan_interfaces

STARTS = ("_start_new_thread", "_start_joinable_thread", "start_new_thread", "start_joinable_thread")


def open_without_threads(face: str) -> None:
    """Open while the OS has no thread to give, which is a MulticastExpertError that leaves nothing; and then again."""
    make = receiver if face == "blocking" else async_receiver
    with make(GROUPS[:1], heal=False):
        pass
    before = descriptors()
    originals = [
        (module, name, getattr(module, name))
        for module in (threading, _thread)
        for name in STARTS
        if hasattr(module, name)
    ]

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("can't start new thread")

    for module, name, _ in originals:
        setattr(module, name, refuse)
    for _ in range(3):
        answer = "opened, although nothing can watch for interface changes"
        try:
            make(GROUPS[:1]).open()
        except MulticastExpertError as error:
            answer = str(error)
        assert "thread" in answer, answer
        assert descriptors() == before, f"{descriptors() - before} descriptors leaked"
    for module, name, original in originals:
        setattr(module, name, original)
    with make(GROUPS[:1]) as rx:
        send(b"at last", GROUPS[0])
        if face == "blocking":
            assert rx.receive(timeout=PATIENCE).data == b"at last"


def open_without_descriptors(face: str, count: int) -> None:
    """Construct, open and use a socket with room for 0, 1, 2 ... descriptors, until that is enough.

    Whichever step fails says so by a MulticastOSError with a remedy, and leaves nothing open. An event loop runs
    already: what it opens for itself is not the library's.
    """

    async def body() -> None:
        # It keeps the watch for interface changes, so that no count depends on the moment when that ends.
        with receiver(GROUPS[:1]):
            await USES[face](count)
            before = descriptors()
            for room in range(60):
                with limited(room):
                    enough = await attempt(face, count, room)
                assert descriptors() == before, f"with room for {room}, {descriptors() - before} descriptors leaked"
                await USES[face](count)
                if enough:
                    assert room, "it never failed"
                    return
            raise AssertionError("it always failed")

    if face in ("asyncio", "uvloop", "trio"):
        run_on(face, body)
    else:
        run_on("asyncio", body)


async def attempt(face: str, count: int, room: int) -> bool:
    """Return whether there are descriptors enough; AssertionError when there are not and the error does not say so."""
    try:
        await USES[face](count)
    except Exception as error:
        if isinstance(error, MulticastOSError) and error.errno == errno.EMFILE and error.remedy:
            return False
        raise AssertionError(f"with room for {room} descriptors: {error!r}") from error
    return True


@contextlib.contextmanager
def limited(room: int) -> Iterator[None]:
    """Let this process open so many descriptors, and no more."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    fillers = []
    highest = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 - a Path would open one more
    while not fillers or fillers[-1] < highest:
        fillers.append(os.open(os.devnull, os.O_RDONLY))
    resource.setrlimit(resource.RLIMIT_NOFILE, (fillers[-1] + 1 + room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        for filler in fillers:
            os.close(filler)


async def use_receiver(count: int) -> None:
    """Open a receiver and receive."""
    with receiver(groups_of(count)) as rx:
        with contextlib.suppress(TimeoutError):
            rx.receive(timeout=0.001)


async def use_transmitter(count: int) -> None:
    """Open a transmitter and send."""
    with transmitter() as tx:
        tx.sendto(b"x", (GROUPS[0], PORT))


async def use_both_ways(count: int) -> None:
    """Open a socket for both ways on a free port, take its one descriptor, receive and send."""
    with McastSocket(socket.AF_INET, groups_of(count), 0, "lo") as sock:
        assert sock.fileno() >= 0
        with contextlib.suppress(TimeoutError):
            sock.receive(timeout=0.001)
        sock.sendto(b"x", (GROUPS[0], PORT))


async def scan(count: int) -> None:
    """Look at the interfaces."""
    assert scan_interfaces()


async def use_async(count: int) -> None:
    """Open an async receiver and receive."""
    async with async_receiver(groups_of(count)) as rx:
        with contextlib.suppress(TimeoutError):
            await rx.receive(timeout=0.001)


USES: dict[str, Callable[[int], Coroutine[Any, Any, None]]] = {
    "blocking": use_receiver,
    "transmitter": use_transmitter,
    "both ways": use_both_ways,
    "scan": scan,
    **dict.fromkeys(("asyncio", "uvloop", "trio"), use_async),
}


def receive_without_memory(count: int, how: str) -> None:
    """Let the n-th allocation of a receive fail, for each n: no datagram is lost, none is doubled."""
    groups = groups_of(count)
    number = 0
    with receiver(groups, heal=False, timeout=0) as rx:
        failures = succeeded = 0
        for allocation in range(600):
            got: list[bytes] = []
            sent = {b"%s %d" % (group.encode(), turn) for group in groups for turn in range(12 // count)}
            for payload in sent:
                send(payload, payload.split()[0].decode())
            number += len(sent)
            kept: list[Any] = []
            failed = attempt_without_memory(rx, how, allocation, kept)
            failures += failed
            succeeded = 0 if failed else succeeded + 1
            kept += drain(rx)
            got = [datagram.data for datagram in kept]
            try:
                check_ledger(got, sent, 0)
            except AssertionError as error:
                raise AssertionError(f"where allocation {allocation} fails: {error}") from None
            if succeeded == 20:
                break
        assert failures >= 3, f"only {failures} allocations failed"
        assert rx.stats().datagrams == number, f"{rx.stats().datagrams} counted of {number}"


def attempt_without_memory(rx: Any, how: str, allocation: int, kept: list[Any]) -> bool:
    """Receive while one allocation fails; return whether it did."""
    import _testcapi

    received: Any = None
    take = rx.receive_many if how == "receive_many" else rx.receive
    try:
        _testcapi.set_nomemory(allocation, allocation + 1)
        received = take()
        _testcapi.remove_mem_hooks()
    except (MemoryError, MulticastExpertError, ctypes.ArgumentError):
        # ctypes has an error of its own for an argument that it could not convert, for want of memory or else.
        _testcapi.remove_mem_hooks()
        return True
    kept += received if isinstance(received, list) else [received]
    return False


def drain(rx: Any) -> list[Any]:
    """Return all that is there."""
    found: list[Any] = []
    try:
        while True:
            found += rx.receive_many()
    except TimeoutError:
        return found
