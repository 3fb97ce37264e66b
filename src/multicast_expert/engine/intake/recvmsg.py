"""Intake: what the sockets of a receiver hold, as Datagrams. The Python twin of `_fast.Intake`, which says how.

Both have the same methods and behave alike. `handle` is the socket here, and its descriptor there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from multicast_expert.core.addresses import IPv4Or6Address
from multicast_expert.core.datagram import MAX_DATAGRAM, Datagram, arrived, decode_arrival
from multicast_expert.system.kernel import Socket

ANCILLARY_SIZE = 256
"""Bytes: more than all control messages of one datagram take on any OS."""
MSG_PEEK = 2
# How many combinations of group, interface and hop limit are remembered.
MOST_KNOWN = 32768

Learn = Callable[[bytes | None, int | None], tuple[str | None, str | None]]
"""From destination and interface index to the group's text and the interface's name."""
Messages = list[tuple[int, int, bytes]]


class Intake(Protocol):
    """The sockets of one receiver as the source of its datagrams; never waits, and raises what the OS says."""

    @property
    def datagrams(self) -> int:
        """How many were received."""

    @property
    def payload_bytes(self) -> int:
        """How many bytes of payload they had."""

    @property
    def truncated(self) -> int:
        """How many had their end cut off."""

    def batch(self, handle: Any, limit: int, datagrams: list[Datagram], /) -> bool:
        """Append what the socket holds, `limit` datagrams and perhaps the rest of a coalesced run.

        Returns whether it may hold more. What came before an error is in the list.
        """

    def datagram(self, handle: Any, bufsize: int, flags: int, rest: deque[Datagram], /) -> Datagram | None:
        """Return the next datagram, cut to `bufsize` bytes, or None; the rest of its run goes to the end of `rest`."""

    def payload(
        self, handle: Any, bufsize: int, flags: int, rest: deque[Datagram], /
    ) -> tuple[bytes, IPv4Or6Address] | None:
        """As `datagram`, but return the payload and the sender only."""

    def forget_places(self) -> None:
        """Ask anew for the texts of groups and interfaces."""


class SweepingIntake(Intake, Protocol):
    """An Intake that waits, and looks after many sockets, with fewer steps."""

    def expect(
        self, handle: int, bufsize: int, flags: int, rest: deque[Datagram], pair: bool, alarm: int, timeout: float, /
    ) -> Any:
        """Wait until the socket or the alarm is readable, then as `payload` if `pair`, else as `datagram`.

        Waits `timeout` seconds at most; negative: for ever. May return None early.
        """

    def sweep(self, epoll: int, alarm: int, limit: int, datagrams: list[Datagram], /) -> bool:
        """As `batch`, for the sockets that an epoll instance watches, in fair turns.

        The instance watches the alarm as well, which is no such socket.
        """

    def settle(self) -> None:
        """Return when no sweep is under way that began before.

        To be called when the epoll instance no longer watches a socket, and before that is closed.
        """


Place = tuple[str | None, int | None, str | None, int | None]
"""Group, interface index and name, hop limit: what follows the sender in the origin of a Datagram."""


class Facts(NamedTuple):
    """What the control messages of a message say."""

    place: Place
    timestamp_ns: int | None
    segment_size: int


_NOTHING = Facts((None, None, None, None), None, MAX_DATAGRAM)


class PythonIntake:
    """Receives with `recvmsg`, one message at a time."""

    def __init__(self, fields: Mapping[tuple[int, int], str], msg_trunc: int, learn: Learn) -> None:
        self._fields = fields
        self._msg_trunc = msg_trunc
        self._learn = learn
        self._coalesced = "segment_size" in fields.values()
        self._last: tuple[Messages | None, Facts] = None, _NOTHING
        self._known: dict[tuple[tuple[int, int, bytes], ...], Facts] = {}
        self.datagrams: int = 0
        self.payload_bytes: int = 0
        self.truncated: int = 0

    def forget_places(self) -> None:
        """Ask anew for the texts of groups and interfaces."""
        self._known = {}
        self._last = None, self._last[1]

    def batch(self, handle: Socket, limit: int, datagrams: list[Datagram], /) -> bool:
        """Append what the socket holds; see `Intake.batch`."""
        first = len(datagrams)
        stop = first + limit
        append, receive = datagrams.append, handle.recvmsg
        before, facts = self._last
        place, timestamp, segment_size = facts
        size = truncated = 0
        try:
            while len(datagrams) < stop:
                data, messages, flags, sender = receive(MAX_DATAGRAM, ANCILLARY_SIZE)
                if messages != before:
                    facts = self._facts(messages)
                    before = self._last[0]
                    place, timestamp, segment_size = facts
                cut = flags & self._msg_trunc != 0
                size += len(data)
                truncated += cut
                if len(data) <= segment_size:
                    append(arrived(data, (sender, *place), timestamp, cut))
                else:
                    datagrams += split(data, sender, facts, cut)
        except BlockingIOError:
            return False
        finally:
            self._count(len(datagrams) - first, size, truncated)
        return True

    def _count(self, datagrams: int, payload_bytes: int, truncated: int) -> None:
        self.datagrams += datagrams
        self.payload_bytes += payload_bytes
        self.truncated += truncated

    def datagram(self, handle: Socket, bufsize: int, flags: int, rest: deque[Datagram], /) -> Datagram | None:
        """Return the next datagram; see `Intake.datagram`."""
        if bufsize < 0:
            raise ValueError("negative buffer size")
        try:
            data, messages, told, sender = handle.recvmsg(MAX_DATAGRAM, ANCILLARY_SIZE, flags)
        except BlockingIOError:
            return None
        before, facts = self._last
        if messages != before:
            facts = self._facts(messages)
        cut = told & self._msg_trunc != 0
        others: list[Datagram] = []
        if len(data) > facts.segment_size:
            segments = split(data, sender, facts, cut)
            data, cut = segments[0].data, False
            others = segments[1:]
        if len(data) > bufsize:
            data, cut = data[:bufsize], True
        if not flags & MSG_PEEK:
            rest.extend(others)
            size = len(data) + sum(len(other.data) for other in others)
            self._count(1 + len(others), size, cut + sum(other.truncated for other in others))
        return arrived(data, (sender, *facts.place), facts.timestamp_ns, cut)

    def payload(
        self, handle: Socket, bufsize: int, flags: int, rest: deque[Datagram], /
    ) -> tuple[bytes, IPv4Or6Address] | None:
        """Return payload and sender of the next datagram; see `Intake.payload`."""
        if self._coalesced or bufsize < MAX_DATAGRAM:
            # Only recvmsg tells what was coalesced, or that the buffer was too small.
            datagram = self.datagram(handle, bufsize, flags, rest)
            return None if datagram is None else (datagram.data, datagram.sender)
        try:
            received = handle.recvfrom(bufsize, flags)
        except BlockingIOError:
            return None
        if not flags & MSG_PEEK:
            self._count(1, len(received[0]), 0)
        return received

    def _facts(self, messages: Messages) -> Facts:
        """Return what the control messages say, and remember it unless it is true once only."""
        key = tuple(messages)
        known = self._known.get(key)
        if known is None:
            arrival = decode_arrival(messages, self._fields)
            index = arrival.interface_index
            group, name = self._learn(arrival.destination, index)
            size = arrival.segment_size
            place = group, index, name, arrival.hop_limit
            known = Facts(place, arrival.timestamp_ns, MAX_DATAGRAM if size <= 0 else size)
            # A time does not come again, and an interface without a name may get one.
            if name is None or arrival.timestamp_ns is not None:
                self._last = None, known
                return known
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[key] = known
        self._last = messages, known
        return known


def split(data: bytes, sender: IPv4Or6Address, facts: Facts, cut: bool) -> list[Datagram]:
    """Return the datagrams that the kernel coalesced into one; only the end of the last one can be lost."""
    place, timestamp, size = facts
    origin = sender, *place
    last = (len(data) - 1) // size * size
    return [
        arrived(data[offset : offset + size], origin, timestamp, cut and offset == last)
        for offset in range(0, len(data), size)
    ]
