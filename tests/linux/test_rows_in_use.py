"""Rows of a DatagramBuffer while a receive into them is under way: between its system calls code in Python runs."""

import os
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from linux.intakes import native
from linux.plain_sockets import PATIENCE
from multicast_expert import DatagramBuffer
from multicast_expert.system.kernel import SYSTEM

Place = tuple[str | None, str | None, str | None]


class Pipe:
    """A receiving socket, one that sends to it, and an intake that asks `asked` for each place."""

    def __init__(self, asked: Callable[[], None]) -> None:
        def learn(*_: object) -> Place:
            asked()
            return None, "destination", "lo"

        fields = {kind: field for kind, field in SYSTEM.platform.ancillary.fields.items() if field != "segment_size"}
        self.intake = native().Intake(fields, SYSTEM.platform.msg_trunc, learn)
        self.receiver, self.sender = (socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(2))
        self.receiver.bind(("127.0.0.1", 0))
        self.receiver.setblocking(False)
        self.sender.connect(self.receiver.getsockname())

    def take(self, limit: int, into: Any) -> None:
        """Receive into Rows or a list."""
        self.intake.batch(self.receiver.fileno(), limit, into)

    def close(self) -> None:
        """Close the sockets."""
        self.receiver.close()
        self.sender.close()


@pytest.fixture
def pipe() -> Iterator[tuple[Pipe, list[Callable[[], None]]]]:
    """A pipe, and what is called, once each, when its intake asks."""
    acts: list[Callable[[], None]] = []
    made = Pipe(lambda: acts.pop()() if acts else None)
    yield made, acts
    made.close()


def test_a_second_receive_is_refused(pipe: tuple[Pipe, list[Callable[[], None]]]) -> None:
    """As is `clear`: both would move what the kernel writes. The first one goes on as if nothing had been."""
    link, acts = pipe
    buffer = DatagramBuffer(1000, 65535)
    refused: list[str] = []

    def disturb() -> None:
        for act in (lambda: link.take(1, buffer._rows), buffer.clear):
            try:
                act()
            except BufferError as error:
                refused.append(str(error))

    sent = [b"%d" % number * 20 for number in range(20)]
    for payload in sent:
        link.sender.send(payload)
    acts.append(disturb)
    link.take(100, buffer._rows)
    assert refused == ["a receive into this buffer is under way"] * 2
    assert [each.data for each in buffer] == sent


def test_no_more_than_the_capacity(pipe: tuple[Pipe, list[Callable[[], None]]]) -> None:
    """Where another thread has filled rows meanwhile, the limit is larger than the room."""
    link, _ = pipe
    buffer = DatagramBuffer(10, 65535)
    rest: list[Any] = []
    # The second time it knows how long they are.
    for _ in range(2):
        buffer.clear()
        for number in range(20):
            link.sender.send(bytes([number]) * 30)
        link.take(100, buffer._rows)
        assert [each.data[0] for each in buffer] == [*range(10)]
        assert buffer.is_full
        link.take(100, rest)
        assert [each.data[0] for each in rest] == [*range(10, 20)]
        rest.clear()


def test_the_child_of_a_fork_uses_its_copy(pipe: tuple[Pipe, list[Callable[[], None]]]) -> None:
    """The receive that was under way goes on in the parent only."""
    link, acts = pipe
    buffer = DatagramBuffer(10, 65535)
    statuses: list[int] = []

    def fork() -> None:
        pid = os.fork()
        if not pid:
            try:
                buffer.clear()
            except BufferError:
                os._exit(7)
            os._exit(0)
        statuses.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))

    acts.append(fork)
    link.sender.send(b"x")
    link.take(1, buffer._rows)
    assert statuses == [0]


def test_what_finds_no_room_keeps_its_order(pipe: tuple[Pipe, list[Callable[[], None]]]) -> None:
    """Two threads with full buffers leave their rests, and the one that began first ends first."""
    link, acts = pipe
    first_waits, second_waits = threading.Event(), threading.Event()
    small = [DatagramBuffer(1, 65535) for _ in range(2)]
    began = threading.Event()

    def in_second() -> None:
        first_waits.set()
        second_waits.wait(PATIENCE)

    def in_first() -> None:
        began.set()
        first_waits.wait(PATIENCE)

    acts += [in_second, in_first]
    threads = [threading.Thread(target=link.take, args=(1000, each._rows)) for each in small]
    for number in range(64):
        link.sender.send(bytes([number]))
    threads[0].start()
    assert began.wait(PATIENCE)
    for number in range(64, 100):
        link.sender.send(bytes([number]))
    threads[1].start()
    threads[0].join()
    second_waits.set()
    threads[1].join()
    rest: list[Any] = []
    link.take(1000, rest)
    assert [each.data[0] for each in (*small[0], *small[1])] == [0, 64]
    assert [each.data[0] for each in rest] == [*range(1, 64), *range(65, 100)]
