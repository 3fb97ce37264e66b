"""What the extension does with many sockets at once, by an epoll instance."""

import select
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import Any

import pytest

from linux.intakes import LOOPBACK, Form, Link
from linux.plain_sockets import FAMILY, PATIENCE
from multicast_expert import Datagram


@pytest.fixture(params=[4, 6])
def version(request: pytest.FixtureRequest) -> int:
    """The IP version."""
    return int(request.param)


@pytest.fixture
def intake() -> Any:
    """The extension's."""
    return Form("extension").intake()


@pytest.fixture
def links(version: int) -> Iterator[list[Link]]:
    """Some pairs of sockets."""
    with ExitStack() as stack:
        yield [Link(version, stack) for _ in range(20)]


@pytest.fixture
def epoll(links: list[Link]) -> Iterator[Any]:
    """What watches the receivers."""
    with select.epoll() as epoll:
        for link in links:
            epoll.register(link.receiver, select.EPOLLIN)
        yield epoll


def test_turns_of_one(intake: Any, epoll: Any, links: list[Link]) -> None:
    """Each socket that is busy has its turn, one datagram at a time."""
    for link in links:
        link.send(*[b"x"] * 3)
    received: list[Datagram] = []
    with socket.socket() as alarm:
        for _ in links * 3:
            assert intake.expect_any(epoll.fileno(), received, alarm.fileno(), PATIENCE) is True
        assert intake.expect_any(epoll.fileno(), received, alarm.fileno(), 0) is False
    senders = [datagram.sender for datagram in received]
    for turn in (senders[:20], senders[20:40], senders[40:]):
        assert len({*turn}) == 20


def swept(intake: Any, epoll: Any, limit: int, alarm: int = -1) -> list[Datagram]:
    """What it finds."""
    datagrams: list[Datagram] = []
    intake.sweep(epoll.fileno(), alarm, limit, datagrams)
    return datagrams


def test_everything(intake: Any, links: list[Link], epoll: Any) -> None:
    """All datagrams of all sockets come, each socket's in order, with what is known about them."""
    assert swept(intake, epoll, 100) == []
    for number, link in enumerate(links):
        link.send(*[b"%d of %d" % (turn, number) for turn in range(number * 7)])
    received = swept(intake, epoll, 10_000)
    assert len(received) == intake.datagrams == 7 * 190
    for number, link in enumerate(links):
        sender = link.sender.getsockname()
        mine = [each for each in received if each.sender == sender]
        assert mine == [link.expected(b"%d of %d" % (turn, number)) for turn in range(number * 7)]


@pytest.mark.parametrize("limit", [1, 5, 64, 100])
def test_a_limit(intake: Any, links: list[Link], epoll: Any, limit: int) -> None:
    """No more than asked for; what is left comes next."""
    for link in links:
        link.send(*[b"x"] * 10)
    sizes = []
    while batch := swept(intake, epoll, limit):
        sizes.append(len(batch))
    assert sizes[:-1] == [limit] * ((200 - 1) // limit)
    assert sum(sizes) == 200


def test_fair_turns(intake: Any, links: list[Link], epoll: Any) -> None:
    """Busy sockets do not keep another one waiting, wherever that stands."""
    for place in (0, 9, 19):
        for link in links:
            link.send(*[b"busy"] * (1 if link is links[place] else 200))
        sender = links[place].sender.getsockname()
        assert sender in {each.sender for each in swept(intake, epoll, 128)}
        while swept(intake, epoll, 10_000):
            pass


def test_coalesced_runs(intake: Any, links: list[Link], epoll: Any) -> None:
    """They come whole; once it is known how long they are, hardly more come than asked for."""
    for link in links:
        link.send_run(b"0123456789" * 60, 10)
    received = swept(intake, epoll, 1)
    sizes = [len(received)]
    while more := swept(intake, epoll, 90):
        received += more
        sizes.append(len(more))
    assert sizes == [60] + [120] * 9 + [60]
    assert [each.data for each in received] == [b"0123456789"] * 20 * 60


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_the_alarm(intake: Any, links: list[Link], epoll: Any, limit: int) -> None:
    """Nothing is taken from it, and it hides nothing, however little was asked for."""
    waker, alarm = socket.socketpair()
    with waker, alarm:
        epoll.register(alarm, select.EPOLLIN)
        waker.send(b"!")
        for _ in range(5):
            assert swept(intake, epoll, limit, alarm.fileno()) == []
            links[3].send(b"there")
            assert swept(intake, epoll, limit, alarm.fileno()) == [links[3].expected(b"there")]
        assert alarm.recv(9) == b"!"


def test_an_error(intake: Any, links: list[Link], epoll: Any, version: int) -> None:
    """The error of one socket is raised once; what came before it is there, and nothing is lost."""
    with socket.socket(FAMILY[version], socket.SOCK_DGRAM) as nobody:
        nobody.bind((LOOPBACK[version], 0))
        closed_port = nobody.getsockname()
    datagrams: list[Datagram] = []
    links[0].send(b"before")
    links[1].receiver.connect(closed_port)
    links[1].receiver.send(b"refused")
    links[2].send(b"after")
    with pytest.raises(ConnectionRefusedError):
        intake.sweep(epoll.fileno(), -1, 100, datagrams)
    intake.sweep(epoll.fileno(), -1, 100, datagrams)
    assert [each.data for each in datagrams] == [b"before", b"after"]


def test_sockets_that_are_readable_and_empty(intake: Any, links: list[Link], epoll: Any) -> None:
    """Sockets that were shut down are reported for ever and hold nothing: it does not ask them for ever."""
    for link in links:
        with suppress(OSError):
            # The kernel says that it is not connected, and does it all the same.
            link.receiver.shutdown(socket.SHUT_RD)
    assert len(epoll.poll(0)) == len(links)
    thread = threading.Thread(target=lambda: swept(intake, epoll, 100))
    thread.start()
    thread.join(PATIENCE)
    returned = not thread.is_alive()
    # So it ends in any case.
    intake.settle(0)
    thread.join(PATIENCE)
    assert returned


def test_no_epoll_instance(intake: Any, links: list[Link]) -> None:
    """Anything else is refused by the OS, and takes no datagram."""
    links[0].send(b"stays")
    for descriptor in (-1, links[0].receiver.fileno()):
        with pytest.raises(OSError, match=r"Bad file descriptor|Invalid argument"):
            intake.sweep(descriptor, -1, 9, [])
    with pytest.raises(TypeError):
        intake.sweep(0, 0, 9)
    assert links[0].receiver.recv(9) == b"stays"
