"""Which datagrams go to the kernel as one piece, and what happens on a Linux that takes none."""

from errno import EAGAIN, EINVAL, EIO, EMSGSIZE, ENETUNREACH, ENOBUFS, ENOPROTOOPT
from ipaddress import IPv4Interface
from struct import unpack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from multicast_expert import IfaceInfo, MulticastOSError
from multicast_expert.core.interfaces import InterfaceChoice
from multicast_expert.core.plan import plan_send
from multicast_expert.engine import SendSocket
from multicast_expert.engine.offload import WORTHWHILE, Limits, run_length
from multicast_expert.platforms import LINUX

DESTINATION = ("239.1.2.3", 5000)
IFACE = IfaceInfo("eth0", 2, None, (IPv4Interface("10.0.0.1/24"),), (), "eth0", True, True, False, 1500)
SOL_UDP, UDP_SEGMENT, SOL_SOCKET, SO_SNDBUF = 17, 103, 1, 7


class LinuxSocket:
    """Takes datagrams and pieces, by the rules of udp(7), except what it is told to refuse."""

    platform = LINUX

    def __init__(self) -> None:
        self.wire: list[bytes] = []
        self.calls: list[int] = []
        self.send_buffer = 212_992
        self.room = 10**9
        """How many calls there is room for."""
        self.no_option = False
        self.refused_pieces = 0
        """The error number for pieces."""
        self.refused: dict[bytes, int] = {}
        """The error numbers for datagrams."""

    def interface_name(self, _: object, index: int) -> str | None:
        """No interface has a name here."""

    def socket(self, family: int, kind: int) -> "LinuxSocket":
        """This is the kernel of one socket."""
        assert (family, kind) == (2, 2)
        return self

    def setsockopt(self, level: int, number: int, value: bytes) -> None:
        """All options are there, but perhaps the one for pieces."""
        if (level, number) == (SOL_UDP, UDP_SEGMENT):
            assert value == bytes(4), "this would cut every datagram that is sent"
            if self.no_option:
                raise OSError(ENOPROTOOPT, "Protocol not available")

    def getsockopt(self, level: int, number: int, length: int) -> bytes:
        """The size of the send buffer."""
        assert (level, number, length) == (SOL_SOCKET, SO_SNDBUF, 4)
        return self.send_buffer.to_bytes(4, "little")

    def bind(self, address: tuple[str, int]) -> None:
        """Any address will do."""

    def sendto(self, data: bytes, address: tuple[str, int]) -> int:
        """Send one datagram."""
        self._send([data], address)
        return len(data)

    def sendmsg(self, buffers: Any, control: Any, flags: int, address: tuple[str, int]) -> int:
        """Send one piece."""
        assert not self.no_option, "a kernel that does not know pieces would send one long datagram"
        ((level, number, value),) = control
        assert (level, number, flags) == (SOL_UDP, UDP_SEGMENT, 0)
        (size,) = unpack("=H", value)
        data = b"".join(buffers)
        datagrams = [data[first : first + size] for first in range(0, len(data), size)]
        assert len(data) <= 65_507
        assert 1 < len(datagrams) <= 128
        if self.refused_pieces:
            raise OSError(self.refused_pieces, "refused")
        self._send(datagrams, address)
        return len(data)

    def _send(self, datagrams: list[bytes], address: tuple[str, int]) -> None:
        assert address == DESTINATION
        if not self.room:
            raise BlockingIOError(EAGAIN, "no room")
        for data in datagrams:
            if data in self.refused:
                raise OSError(self.refused[data], "refused")
        self.room -= 1
        self.wire += datagrams
        self.calls.append(len(datagrams))


@pytest.fixture
def linux() -> LinuxSocket:
    """A kernel with one socket."""
    return LinuxSocket()


def engine_on(linux: LinuxSocket) -> SendSocket:
    """An engine that sends by this socket."""
    kernel: Any = linux
    return SendSocket(kernel, plan_send(LINUX, 4, InterfaceChoice(IFACE), 1), IFACE, 1)


def numbered(count: int, size: int = 10) -> list[bytes]:
    """So many payloads of one size."""
    return [b"%0*d" % (size, number) for number in range(count)]


@given(
    sizes=st.lists(st.sampled_from([0, 1, 9, 10, 11, 40, 41]), min_size=1, max_size=40),
    datagrams=st.integers(2, 12),
    total=st.integers(40, 200),
)
def test_runs(sizes: list[int], datagrams: int, total: int) -> None:
    """A run is as long as it may be: equal sizes, and then at most one that is shorter but not empty."""
    first = 0
    limits = Limits(datagrams, 40, total)
    while first < len(sizes):
        count = run_length(sizes, first, limits)
        run, size = sizes[first : first + count], sizes[first]
        assert len(run) == count
        if count > 1:
            assert run[:-1] == [size] * (count - 1)
            assert 0 < run[-1] <= size <= 40
            assert count <= datagrams
            assert sum(run) <= total
            room = min(datagrams, total // size)
            following = sizes[first + count : first + count + 1]
            assert count == room or run[-1] < size or following in ([], [0]) or following[0] > size
        elif 0 < size <= 40 and min(datagrams, total // size) >= WORTHWHILE:
            assert sizes[first : first + WORTHWHILE] != [size] * WORTHWHILE
        first += count


def test_pieces(linux: LinuxSocket) -> None:
    """As many as fit go together; what is longer than the interface carries, empty, or alone in its size, by itself."""
    engine = engine_on(linux)
    for sizes, calls in (
        ([10] * 300, [128, 128, 44]),
        ([1472] * 50, [44, 6]),
        ([1473] * 5, [1] * 5),
        ([0] * 5, [1] * 5),
        ([10] * 5 + [9, 10], [6, 1]),
        ([10] * 5 + [0, 10], [5, 1, 1]),
        ([9] + [10] * 5 + [11], [1, 5, 1]),
        ([10, 11, 12] * 4, [1] * 12),
    ):
        linux.calls.clear()
        linux.wire.clear()
        payloads = [bytes([number % 256]) * size for number, size in enumerate(sizes)]
        assert engine.try_send_many(payloads, DESTINATION) == len(payloads)
        assert linux.wire == payloads
        assert linux.calls == calls


def test_a_kernel_that_does_not_know_pieces(linux: LinuxSocket) -> None:
    """It is asked first: it would ignore the control message and send one long datagram."""
    linux.no_option = True
    assert engine_on(linux).try_send_many(numbered(50), DESTINATION) == 50
    assert linux.wire == numbered(50)
    assert linux.calls == [1] * 50


@pytest.mark.parametrize("error", [EIO, EINVAL, ENOPROTOOPT, ENOBUFS])
def test_a_driver_that_refuses_pieces(linux: LinuxSocket, error: int) -> None:
    """Its datagrams go one by one, each once, and from then on all do."""
    linux.refused_pieces = error
    engine = engine_on(linux)
    assert engine.try_send_many(numbered(50), DESTINATION) == 50
    linux.refused_pieces = 0
    assert engine.try_send_many(numbered(50), DESTINATION) == 50
    assert linux.wire == numbered(50) * 2
    assert linux.calls == [1] * 100


def test_a_kernel_that_takes_fewer(linux: LinuxSocket) -> None:
    """EINVAL for more than 64 may mean that this kernel takes 64, as those before Linux 6.9 do."""
    linux.refused_pieces = EINVAL
    engine = engine_on(linux)
    assert engine.try_send_many(numbered(100), DESTINATION) == 100
    linux.refused_pieces = 0
    assert engine.try_send_many(numbered(100), DESTINATION) == 100
    assert linux.calls == [1] * 100 + [64, 36]
    assert linux.wire == numbered(100) * 2


def test_a_path_that_carries_less(linux: LinuxSocket) -> None:
    """EMSGSIZE for a piece means that its datagrams have to be fragmented: shorter ones still go together."""
    linux.refused_pieces = EMSGSIZE
    engine = engine_on(linux)
    assert engine.try_send_many(numbered(9, 1400), DESTINATION) == 9
    linux.refused_pieces = 0
    assert engine.try_send_many(numbered(9, 1400), DESTINATION) == 9
    assert engine.try_send_many(numbered(9, 1399), DESTINATION) == 9
    assert linux.calls == [1] * 18 + [9]


def test_no_room(linux: LinuxSocket) -> None:
    """A full buffer ends it without an error, wherever that is; the rest goes later, pieces too."""
    engine = engine_on(linux)
    payloads = [*numbered(9), b"longer than these", *numbered(9)]
    sent = 0
    for room, expected in ((0, 0), (1, 9), (0, 0), (1, 1), (5, 9)):
        linux.room = room
        assert engine.try_send_many(payloads[sent:], DESTINATION) == expected
        sent += expected
    assert linux.wire == payloads
    assert linux.calls == [9, 1, 9]


@pytest.mark.parametrize("place", [0, 1, 5, 8, 9, 15])
def test_a_datagram_that_is_refused(linux: LinuxSocket, place: int) -> None:
    """What comes before it goes; then its own error is raised, wherever in a piece it is."""
    engine = engine_on(linux)
    payloads = [*numbered(9), b"longer than these", *numbered(9, 11)]
    linux.refused = {payloads[place]: ENETUNREACH}
    sent = 0
    while sent < place:
        went = engine.try_send_many(payloads[sent:], DESTINATION)
        assert went
        sent += went
    assert sent == place
    with pytest.raises(MulticastOSError, match=f"Cannot send {len(payloads[place])} bytes to 239.1.2.3") as caught:
        engine.try_send_many(payloads[sent:], DESTINATION)
    assert caught.value.errno == ENETUNREACH
    assert linux.wire == payloads[:place]


def test_pieces_are_tried_again_after_an_error_of_the_datagrams(linux: LinuxSocket) -> None:
    """Where the datagrams are refused as well, pieces are not at fault."""
    engine = engine_on(linux)
    linux.refused = {numbered(9)[0]: ENETUNREACH}
    with pytest.raises(MulticastOSError):
        engine.try_send_many(numbered(9), DESTINATION)
    linux.refused = {}
    assert engine.try_send_many(numbered(9), DESTINATION) == 9
    assert linux.calls == [9]


def test_a_small_send_buffer(linux: LinuxSocket) -> None:
    """No piece fills more than half of it, as the kernel counts, so that a small buffer stays one."""
    linux.send_buffer = 1000
    assert engine_on(linux).try_send_many(numbered(20, 100), DESTINATION) == 20
    assert linux.calls == [5] * 4
