"""Sends and receives through a build of the extension, in every way there is, until so many datagrams went through.

    python hammer.py EXTENSION DATAGRAMS

Run by the tests of this folder under tools that watch its memory. It ends with an error when a datagram is lost or
changed, or when more memory is in use at its end than halfway.
"""

import asyncio
import contextlib
import ctypes
import gc
import importlib.util
import socket
import sys
import threading
from collections.abc import Callable
from pathlib import Path

PORT = 5000
GROUPS = {socket.AF_INET: ["239.255.1.1", "239.255.1.2"], socket.AF_INET6: ["ff15::1:1", "ff15::1:2"]}
LOOPBACK = {socket.AF_INET: "127.0.0.1", socket.AF_INET6: "::1"}
BURST = 100
"""Datagrams sent before they are received: as many as fit into a receive buffer of the usual size."""
EQUAL = [bytes([number]) * 200 for number in range(BURST)]
UNEQUAL = [bytes([number]) * (number * 7 % 300) for number in range(BURST)]
SENDERS = 600
"""More addresses than the extension keeps."""
TOLERANCE = 64 * 1024
"""Bytes for what is remembered of new senders; one object leaked in each burst would be far more."""


def use_extension(path: str) -> None:
    """Let the package find this build of its extension."""
    spec = importlib.util.spec_from_file_location("multicast_expert._fast", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.modules[spec.name] = module


use_extension(sys.argv[1])

from multicast_expert import (  # noqa: E402
    AsyncMcastRxSocket,
    Datagram,
    DatagramBuffer,
    McastRxSocket,
    McastTxSocket,
)
from multicast_expert import _fast as native  # noqa: E402
from multicast_expert.testing import enter_private_network  # noqa: E402
from multicast_expert.wire.pcapng import datagram_head  # noqa: E402

sys.path.insert(0, str(Path(__file__).parents[1]))
from watched import end_with_any_thread  # noqa: E402


class Memory(ctypes.Structure):
    """struct mallinfo2 of the C library, with `hblkhd` and `uordblks` (mallinfo(3))."""

    _fields_ = [
        ("_1", ctypes.c_size_t * 4),
        ("mapped", ctypes.c_size_t),
        ("_2", ctypes.c_size_t * 2),
        ("used", ctypes.c_size_t),
        ("_3", ctypes.c_size_t * 2),
    ]


def memory_in_use() -> int:
    """Return the bytes that malloc(3) has given out; with PYTHONMALLOC=malloc that is every object, without garbage."""
    gc.collect()
    library = ctypes.CDLL(None)
    try:
        # AddressSanitizer has an allocator of its own.
        ask = library.__sanitizer_get_current_allocated_bytes
    except AttributeError:
        ask = library.mallinfo2
        ask.restype = Memory
        memory = ask()
        return int(memory.used + memory.mapped)
    ask.restype = ctypes.c_size_t
    return int(ask())


Way = Callable[[McastRxSocket], list[bytes]]


def many(receiver: McastRxSocket) -> list[bytes]:
    """Receive batches."""
    received: list[Datagram] = []
    while len(received) < BURST:
        received += receiver.receive_many(limit=7 + len(received) % 50, timeout=5)
    return [datagram.data for datagram in received]


BUFFERS = [DatagramBuffer(7, 1 << 16), DatagramBuffer(1000, 1 << 16)]


def into(receiver: McastRxSocket) -> list[bytes]:
    """Receive into buffers by turns, a small one that is often full and a large one."""
    received: list[bytes] = []
    while len(received) < BURST:
        for buffer in BUFFERS:
            if len(received) < BURST:
                receiver.receive_into(buffer, timeout=5)
            received += [datagram.data for datagram in buffer]
            lay(buffer)
            buffer.clear()
    return received


def lay(buffer: DatagramBuffer) -> None:
    """Lay the datagrams of a buffer out as packets of a file, in chunks that are soon full."""
    columns = buffer.data, buffer.offsets, buffer.lengths, buffer.timestamps_ns, buffer.sources
    heads = [datagram_head(0, origin, PORT) for origin in buffer.origins]
    row, chunk = 0, bytearray(700)
    while row < len(buffer):
        end, row = native.lay_datagrams(memoryview(chunk), 0, columns, heads, row, len(buffer), 1)
        assert 0 < end <= len(chunk)
    with contextlib.suppress(ValueError, IndexError):
        native.lay_datagrams(memoryview(chunk), 0, columns, [b""], 0, len(buffer) + 1, 1)


def iteration(receiver: McastRxSocket) -> list[bytes]:
    """Iterate."""
    datagrams = iter(receiver)
    return [next(datagrams).data for _ in range(BURST)]


def one_by_one(receiver: McastRxSocket) -> list[bytes]:
    """Receive each with all that is known about it."""
    return [receiver.receive(timeout=5).data for _ in range(BURST)]


def plain(receiver: McastRxSocket) -> list[bytes]:
    """Receive payload and sender, after a look at each."""
    received = []
    for _ in range(BURST):
        looked = receiver.recv(flags=socket.MSG_PEEK)
        payload = receiver.recv()
        assert looked == payload
        assert payload is not None
        received.append(payload)
    return received


def cut(receiver: McastRxSocket) -> list[bytes]:
    """Receive into a buffer that is too small for most."""
    return [payload for payload in (receiver.recv(50) for _ in range(BURST)) if payload is not None]


def wait_in_vain(receiver: McastRxSocket) -> None:
    """Find nothing."""
    try:
        receiver.receive(timeout=0)
    except TimeoutError:
        return
    raise AssertionError("something was there")


class UnknownPlaceError(Exception):
    """What asking for a place raises now and then."""


def intake_round() -> int:
    """Interrupt an intake, so that it keeps what it could not hand over, while other threads settle and receive."""
    asked = 0

    def learn(destination: bytes | None, index: int | None) -> tuple[str | None, str | None, str | None]:
        nonlocal asked
        asked += 1
        if asked % 23 == 0:
            raise UnknownPlaceError
        return None, None, None

    intake = native.Intake({}, 0x20, learn)
    waker, alarm = socket.socketpair()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as receiver, waker, alarm:
        receiver.bind(("127.0.0.1", 0))
        handle = receiver.fileno()
        found: list[bool] = []
        waiting = threading.Thread(target=lambda: found.append(intake.expect(alarm.fileno(), [], alarm.fileno(), 60.0)))
        waiting.start()
        received: list[Datagram] = []
        for _ in range(20):
            for payload in UNEQUAL:
                receiver.sendto(payload, receiver.getsockname())
            del received[:]
            while len(received) < BURST:
                landed: list[Datagram] = []
                with contextlib.suppress(UnknownPlaceError):
                    intake.one(handle, landed)
                received.extend(reversed(landed))
                with contextlib.suppress(UnknownPlaceError):
                    intake.batch(handle, 10, received)
                buffer = DatagramBuffer(5, 1 << 16)
                with contextlib.suppress(UnknownPlaceError):
                    intake.batch(handle, 5, buffer._rows)  # type: ignore[arg-type]  # they are the native ones
                received += [*buffer]
                intake.settle(0)
            assert [datagram.data for datagram in received] == UNEQUAL
        receiver.sendto(b"left behind", receiver.getsockname())
        asked = 22
        with contextlib.suppress(UnknownPlaceError):
            intake.batch(handle, 1, [])
        assert intake.unread
        waker.send(b"!")
        assert intake.settle(60)
        waiting.join()
        assert found == [False], "the waiting thread was not woken by its alarm"
        intake.abandon()
    deep: Datagram | bytes = b""
    for _ in range(1000):
        deep = Datagram(deep, (deep, deep), timestamp_ns=[deep])  # type: ignore[arg-type]  # odd, but not to crash
    return 20 * BURST


async def iterate_async(receiver: AsyncMcastRxSocket, sender: McastTxSocket, group: str) -> None:
    """Send a burst and receive it by asynchronous iteration."""
    sender.send_many(EQUAL, (group, PORT))
    received = []
    async for datagram in receiver:
        received.append(datagram.data)
        if len(received) == BURST:
            break
    assert received == EQUAL


def blocking_round(family: int, receiver: McastRxSocket, sender: McastTxSocket, others: list[McastTxSocket]) -> int:
    """Send and receive once in each way; return how many datagrams that were."""
    total = 0
    first, second = GROUPS[family]
    # Mostly the quickest way, because under valgrind the others take minutes.
    for way in (*[many] * 12, *[into] * 8, iteration, one_by_one, plain):
        for payloads in (EQUAL, UNEQUAL):
            assert sender.send_many(payloads, (first, PORT)) == BURST
            assert way(receiver) == payloads, f"{way.__name__} changed or lost something"
            total += BURST
    sender.send_many(iter(EQUAL), (second, PORT))
    assert cut(receiver) == [payload[:50] for payload in EQUAL]
    for start in range(0, len(others), BURST):
        for number, other in enumerate(others[start : start + BURST]):
            other.sendto(EQUAL[number], (second, PORT))
        assert many(receiver) == EQUAL
        total += BURST
    wait_in_vain(receiver)
    return total + BURST


def async_round(family: int, sender: McastTxSocket) -> int:
    """Send and receive asynchronously; return how many datagrams that were."""
    bursts = 50

    async def run() -> None:
        group = GROUPS[family][0]
        async with AsyncMcastRxSocket(family, [group], PORT, iface=LOOPBACK[family], timeout=5) as receiver:
            for _ in range(bursts):
                await iterate_async(receiver, sender, group)

    asyncio.run(run())
    return bursts * BURST


def family_round(family: int, others: list[McastTxSocket]) -> int:
    """Open receivers with and without what can be switched off, and let datagrams through each."""
    total = 0
    loopback = LOOPBACK[family]
    with McastTxSocket(family, iface=loopback) as sender:
        for options in ({}, {"timestamps": True}, {"gro": False}):
            with McastRxSocket(family, GROUPS[family], PORT, iface=loopback, timeout=5, **options) as receiver:
                total += blocking_round(family, receiver, sender, others)
        total += async_round(family, sender)
    return total


def main(target: int) -> None:
    """Let `target` datagrams through, and compare the memory in use."""
    enter_private_network()
    others = [McastTxSocket(socket.AF_INET, iface="127.0.0.1") for _ in range(SENDERS)]
    for other in others:
        other.open()
    total, halfway = 0, None
    while total < target:
        total += family_round(socket.AF_INET, others) + family_round(socket.AF_INET6, []) + intake_round()
        if halfway is None and total >= target / 2:
            halfway = memory_in_use()
    assert halfway is not None
    growth = memory_in_use() - halfway
    for other in others:
        other.close()
    print(f"{total} datagrams; memory in use grew by {growth} bytes in the second half")
    if growth > TOLERANCE:
        raise SystemExit("memory leaks")


if __name__ == "__main__":
    end_with_any_thread()
    main(int(sys.argv[2]))
